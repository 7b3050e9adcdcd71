"""Made lips: a face whose mouth is as bright as its sound is loud, and a SyncNet that reads both off.

Every frame has a random level; the mouth shows it, and the sound's energy is its exponential. A network that gives the
five levels of a window finds the true lag by the published distances, without weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avbench.baselines.syncnet import SyncNet, mfcc

FACE = (10.0, 10.0, 20.0, 20.0)  # x, y, width, height
DARK, BRIGHT, QUIET, GROWTH = 40, 160, 300, 2.0


def levels(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, n_frames)


def pictures(level: np.ndarray, height: int = 64, width: int = 96) -> np.ndarray:
    """(T, H, W, 3) uint8: only the face changes, so that no change looks like a cut."""
    out = np.full((len(level), height, width, 3), 90, np.uint8)
    out[:, 10:30, 10:30] = (DARK + BRIGHT * level)[:, None, None, None].astype(np.uint8)
    return out


def sound(level: np.ndarray, seed: int = 1) -> np.ndarray:
    """(640 T,) float32 in [-1, 1]."""
    draw = np.random.default_rng(seed).uniform(-1, 1, 640 * len(level))
    return np.float32(draw * QUIET * np.exp(GROWTH * np.repeat(level, 640)) / 32768)


def early(level: np.ndarray, n_frames: int, seed: int = 2) -> np.ndarray:
    """The levels of sound that comes ``n_frames`` before the picture (negative: after it); new ones fill the end."""
    fresh = levels(abs(n_frames), seed)
    return np.r_[level[n_frames:], fresh] if n_frames >= 0 else np.r_[fresh, level[:n_frames]]


class OneFace:
    """A detector that sees one face, in the same place always."""

    def faces(self, picture: np.ndarray) -> Sequence[tuple[float, float, float, float]]:
        return [FACE]


class NoFace:
    def faces(self, picture: np.ndarray) -> Sequence[tuple[float, float, float, float]]:
        return []


_quiet_energy = float(mfcc(np.int16(np.random.default_rng(0).uniform(-QUIET, QUIET, 16_000)))[0].mean())


class Reads(SyncNet):
    """See this module's head."""

    def __init__(self, detector: object = None) -> None:
        super().__init__()
        self.detector = OneFace() if detector is None else detector  # type: ignore[assignment]

    def encode_lips(self, lips: Tensor) -> Tensor:
        assert lips.shape[1:] == (3, 5, 224, 224)
        shown = lips[:, :, :, 60:100, 90:130].float().mean((1, 3, 4))
        return self._wide((shown - DARK) / BRIGHT)

    def encode_sound(self, sound: Tensor) -> Tensor:
        assert sound.shape[1:] == (1, 13, 20)
        energy = sound[:, 0, 0].float().unflatten(1, (5, 4)).mean(2)
        return self._wide((energy - _quiet_energy) / (2 * GROWTH))

    @staticmethod
    def _wide(five: Tensor) -> Tensor:
        return torch.nn.functional.pad(10 * five, (0, 1024 - five.shape[1]))
