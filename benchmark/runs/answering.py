"""A model that answers window by window, as ``predict`` and ``watch`` need it: the backbone, the head's state, and what
its answer is worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from avbench.engine.clip_pass import CalledModel
from avbench.engine.observed import Observed
from avbench.engine.replay import snapshot_for
from avbench.registry.options import StreamingModel
from avbench.scoring.metrics import log_softmax
from avbench.scoring.regimes import Evidence, RegimeTracker
from avbench.system.precision import exact_float32
from avbench.types import FrontEnd, NonFiniteError, Snapshot, UsageError

HEAD = "bayes"  # of a model that is asked without one: the only head that never forgets how to recover
WINDOW_S = 5.0
# logits that a classical model's mean curve must reach at an offset for more than "unsure": of xcorr a correlation of
# 0.4. Real talk and events in sync reach 0.25 in single windows and less at any one offset, clicks and flashes 0.85
TRUSTED_CURVE = 8.0


def most_of(model: StreamingModel) -> tuple[str, str]:
    """The surest word that a model may use, and why; ("sure", "") for weights trained on real media."""
    if model.random_seed is not None:
        return "unsure", "the weights are random: the answers mean nothing"
    if model.embedded:
        return "unsure", (
            f"the embedded weights of {model.backbone_name} know procedural clips only; `avbench weights list` shows "
            "published ones for real media"
        )
    if model.kind == "classical":
        return (
            "likely",
            f"{model.backbone_name} compares motion with loudness and knows nothing of the scene: weak evidence",
        )
    return "sure", ""


class Answering:
    """A loaded model on one stream. ``observe`` each window in order, or ``hear`` a snapshot that is stored.

    ``UsageError`` for a model that ignores its input, and for a head that needs what the backbone lacks.
    """

    def __init__(self, model: StreamingModel, hop_s: float, device: str = "cpu") -> None:
        if model.backbone is None or model.head is None:
            raise UsageError(f"model {model.name!r} ignores its input; choose one that looks and listens")
        self.model, self.hop_s = model, hop_s
        self.backbone = Observed(model.backbone)
        self.head: Any = model.head
        self.most, self.why = most_of(model)
        self._called = CalledModel(self.backbone, model.name, 1, device, 21)
        self._state: Any = None
        self._first_s: float | None = None

    @property
    def frontend(self) -> FrontEnd:
        """What the windows must look like."""
        return self.backbone.frontend

    @property
    def window_s(self) -> float:
        """The length of a window."""
        return WINDOW_S

    def tracker(self, keep: int | None = None) -> RegimeTracker:
        """A tracker of this model's answers; ``keep`` as there."""
        least = TRUSTED_CURVE if self.model.kind == "classical" else -math.inf
        lags_s = self.backbone.lags_s
        return RegimeTracker(
            WINDOW_S, self.hop_s, lags_s=lags_s, most=self.most, why_most=self.why, keep=keep, least_curve=least
        )

    def observe(self, start_s: float, video: np.ndarray, audio: np.ndarray) -> Evidence:
        """What the window at ``start_s`` says: ``video`` (T, 3, S, S) uint8, ``audio`` (N,) float32.
        ``NonFiniteError`` if the model gives no number."""
        ((logits, token),) = self._rows(video, audio)
        assert token is not None
        return self.hear(start_s, logits, token)

    def _rows(self, video: np.ndarray, audio: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
        given = self._called.give([video]), self._called.give([audio])
        if not self._called.uses_torch:
            return self._called.rows(self.backbone.predict(*given), 1)
        import torch

        with torch.inference_mode(), exact_float32():
            return self._called.rows(self.backbone.predict(*given), 1)

    def hear(self, start_s: float, logits: np.ndarray, token: np.ndarray) -> Evidence:
        """What a snapshot of :class:`~avbench.engine.observed.Observed` says: ``logits`` (21,), its ``token``.

        The head hears nothing of windows without evidence; it is told the time.
        """
        facts = self.backbone.facts(token)
        if facts.lacks:
            return Evidence(start_s, None, None, why=facts.lacks)
        if not np.isfinite(logits).all():
            raise NonFiniteError(f"model {self.model.name}: NaN or infinity for the window at {start_s:g} s")
        if np.ptp(logits) == 0:  # a model says so that it has no answer: SyncNet, where it sees no face
            return Evidence(start_s, None, None, why="the model found nothing to judge by")
        if self._first_s is None:
            self._state, self._first_s = self.head.init(1), start_s
        own = None if facts.token is None else facts.token[None]
        said = snapshot_for(self.head, Snapshot(logits[None], own))
        self._state, believed = self._step(said, start_s - self._first_s)
        return Evidence(start_s, log_softmax(logits), log_softmax(believed), facts.curve)

    def _step(self, said: Snapshot, time_s: float) -> tuple[Any, np.ndarray]:
        if not getattr(self.head, "uses_torch", True):
            state, out = self.head.step(self._state, said, time_s)
            return state, np.asarray(out)[0]
        import torch

        with torch.inference_mode(), exact_float32():
            state, out = self.head.step(self._state, said, time_s)
        return state, out[0].float().cpu().numpy()
