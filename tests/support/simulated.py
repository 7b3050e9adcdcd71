"""A simulated decoder for the benchmarks of the pipeline; worker processes import it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from avbench.types import ClipRecord, FrontEnd

FRAME_S = 0.0006
AT_ONCE = 10  # frames


class Decoder:
    """Frames that take a while, as if another core worked for each decoder."""

    def __init__(self, clip: ClipRecord) -> None:
        self.clip = clip

    def audio(self) -> np.ndarray:
        return np.ones(self.clip.n_samples, np.float32)

    def gaps(self) -> tuple[()]:
        return ()

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        rng = np.random.default_rng(0)
        arrays = tuple(rng.integers(0, 256, (3, f.size, f.size), np.uint8) for f in frontends)
        for k in range(self.clip.n_frames):
            if k % AT_ONCE == 0:
                time.sleep(AT_ONCE * FRAME_S)
            yield arrays
