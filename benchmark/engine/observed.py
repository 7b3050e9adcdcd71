"""A backbone that also says what there was to judge by: the level of the sound, the motion in the picture, and its own
finer evidence, if it has any. ``predict`` and ``watch`` ask it, the benchmark does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from avbench.types import Snapshot, SnapshotPredictor

SILENT_RMS = 1e-4  # of full scale (-80 dB): under what a quiet room leaves in a recording
STILL_LEVELS = 3  # of 255: coding alone changes a frozen picture by so much
_SPARSE = 4  # every fourth row and column are looked at for motion


class Facts(NamedTuple):
    """What one window holds."""

    rms: float  # of the sound, of full scale
    motion_levels: float  # the largest change of a pixel between two frames, of 255
    token: np.ndarray | None  # (D,) the backbone's own streaming token
    curve: np.ndarray | None  # (L,) its finer evidence at ``lags_s``

    @property
    def lacks(self) -> str:
        """Why nothing can be said of the window; "" if something can."""
        if self.rms < SILENT_RMS:
            return "the sound is silent"
        return "the picture stands still" if self.motion_levels <= STILL_LEVELS else ""


class Observed(SnapshotPredictor):
    """``inner`` with a longer token: the two facts, then its own token, then its curve.

    ``inner`` may offer ``lags_s``, a (L,) array of offsets in seconds in steps of its own, and ``curve(video, audio) ->
    (B, L)``, its logits for each of them; and ``predict_finely(video, audio) -> (Snapshot, curve)`` if both together
    cost less. Windows are as ``predict`` takes them.
    """

    def __init__(self, inner: SnapshotPredictor) -> None:
        self.inner: Any = inner
        self.frontend = inner.frontend
        self.uses_torch = getattr(inner, "uses_torch", True)
        self.lags_s: np.ndarray | None = getattr(inner, "lags_s", None)
        n_lags = 0 if self.lags_s is None else len(self.lags_s)
        self.token_dim = 2 + (inner.token_dim or 0) + n_lags
        self.description, self.trained_on = inner.description, inner.trained_on

    def predict(self, video: Any, audio: Any) -> Snapshot:
        """As ``inner.predict``; the token is (B, 2 + D + L)."""
        parts = [np.stack([_rms(_numpy(audio)), _motion(_numpy(video))], axis=1)]
        said, curve = self._both(video, audio)
        parts += [_numpy(part) for part in (said.token, curve) if part is not None]
        return Snapshot(said.logits, np.concatenate(parts, axis=1).astype(np.float32))

    def _both(self, video: Any, audio: Any) -> tuple[Snapshot, Any]:
        if self.lags_s is None:
            return self.inner.predict(video, audio), None
        if hasattr(self.inner, "predict_finely"):
            both: tuple[Snapshot, Any] = self.inner.predict_finely(video, audio)
            return both
        return self.inner.predict(video, audio), self.inner.curve(video, audio)

    def facts(self, token: np.ndarray) -> Facts:
        """What the token (2 + D + L,) of one window says."""
        n_own = self.inner.token_dim or 0
        own, curve = token[2 : 2 + n_own], token[2 + n_own :]
        return Facts(float(token[0]), float(token[1]), own if n_own else None, curve if len(curve) else None)

    def parameters(self) -> Any:
        """The weights of ``inner``: they say how much memory a worker needs."""
        return self.inner.parameters() if hasattr(self.inner, "parameters") else iter(())

    def eval(self) -> Observed:
        """In eval mode, as a torch module is put there."""
        if hasattr(self.inner, "eval"):
            self.inner.eval()
        return self

    def to(self, *where: Any) -> Observed:
        """With the weights on another device, as a torch module is moved."""
        if hasattr(self.inner, "to"):
            self.inner.to(*where)
        return self


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _rms(audio: np.ndarray) -> np.ndarray:
    """(B, N) -> (B,)."""
    level: np.ndarray = np.sqrt((audio.astype(np.float64) ** 2).mean(axis=1))
    return level


def _motion(video: np.ndarray) -> np.ndarray:
    """(B, T, 3, H, W) uint8 -> (B,)."""
    seen = video[..., ::_SPARSE, ::_SPARSE].astype(np.int16)
    moved: np.ndarray = np.abs(np.diff(seen, axis=1)).max(axis=(1, 2, 3, 4), initial=0)
    return moved.astype(np.float64)


def observed(make: Callable[[], SnapshotPredictor]) -> Observed:
    """Of the predictor that ``make`` builds: what a worker process calls."""
    return Observed(make())
