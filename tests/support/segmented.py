"""Models that cut windows into segments, as tests compute them out of these and whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import ToyModel

from avbench.baselines.synchformer import Synchformer
from avbench.types import FrontEnd, SegmentLayout, Snapshot
from avbench.weights.checkpoints import drawn_weights

LAYOUT = SegmentLayout(14, 16, 8)


class Segmented(ToyModel):
    """Of numpy; the place of a segment in its window counts. ``encoded``: what its two towers were asked for, each
    segment of picture or sound as bytes."""

    segment_layout = LAYOUT

    def __init__(self, seed: int = 0, size: int = 4) -> None:
        super().__init__(seed, size, two_tower=True)
        self.sound = np.random.default_rng(seed).standard_normal((640, 25))

    def fingerprint_parts(self) -> dict[str, Any]:
        return {"picture": self.picture, "sound": self.sound}

    @property
    def encoded(self) -> dict[str, list[bytes]]:
        return vars(self).setdefault("asked", {"picture": [], "sound": []})  # type: ignore[no-any-return]

    def encode_video_segments(self, video: np.ndarray) -> np.ndarray:
        assert video.shape[1] == LAYOUT.frames
        self.encoded["picture"] += [one.tobytes() for one in video]
        return np.stack([ToyModel.encode_video(self, one[None])[0] for one in video])

    def encode_audio_segments(self, audio: np.ndarray) -> np.ndarray:
        assert audio.shape[1] == LAYOUT.frames * 640
        self.encoded["sound"] += [one.tobytes() for one in audio]
        return np.stack([(one.reshape(-1, 640).astype(np.float64) @ self.sound).std(axis=0) for one in audio])

    def encode_video(self, video: np.ndarray) -> np.ndarray:
        return np.stack([self.encode_video_segments(np.stack(LAYOUT.cut(one))) for one in video])

    def encode_audio(self, audio: np.ndarray) -> np.ndarray:
        return np.stack([self.encode_audio_segments(np.stack(LAYOUT.cut(one, 640))) for one in audio])

    def fuse(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        place = np.linspace(1, 2, LAYOUT.n)[:, None]
        return super().fuse((video * place).mean(axis=1), (audio * place).mean(axis=1))

    def fuse_segments(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        assert video.shape[1] == audio.shape[1] == LAYOUT.n
        return self.fuse(video, audio)


class SmallSynchformer(Synchformer):
    """Synchformer, reduced, with drawn weights."""

    frontend = FrontEnd(size=16)

    def __init__(self) -> None:
        super().__init__(dim=64, layers=1, heads=4, size=16)
        self.load_state_dict(drawn_weights(self.state_dict(), seed=3), assign=True)
        self.eval().requires_grad_(False)
