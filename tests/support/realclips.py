"""Real clips of ../shared for tests: pictures and sound in memory, read by a few lines of their own, not by avbench."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REAL = SHARED / "media" / "real"
MODELS = SHARED / "models"
SHORT_SIDE = 256  # as in the clips that `avbench data build` makes


@cache
def names(kind: str) -> tuple[str, ...]:
    """The clips of a kind (talk, face_no_talk, event), in alphabetical order."""
    return tuple(sorted(path.name for path in (REAL / kind).iterdir()))


@cache
def read(kind: str, name: str) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """((H, W, 3) uint8 RGB pictures at 25 fps, short side at most 256; (N,) float32 sound at 16 kHz).

    A picture is shown from its time on; both begin with their own first picture or sample.
    """
    shown, times, sound = [], [], []
    with av.open(str(REAL / kind / name)) as file:
        rate = av.AudioResampler("fltp", "mono", 16_000)
        for frame in file.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                times.append(frame.time)
                scale = min(1.0, SHORT_SIDE / min(frame.width, frame.height))
                size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
                shown.append(frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray())
            else:
                sound += [part.to_ndarray()[0] for part in rate.resample(frame)]
        sound += [part.to_ndarray()[0] for part in rate.resample(None)]
    starts = np.array(times) - times[0]
    grid = np.arange(0, starts[-1] + 1e-9, 0.04)
    at = np.searchsorted(starts, grid + 5e-4, side="right") - 1
    return tuple(shown[i] for i in at), np.concatenate(sound).astype(np.float32)
