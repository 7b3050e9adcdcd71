"""Heads without learning: the latest snapshot alone, and APA, the mean probability of windows so far (paper sec. 5).

They return the log of the mean probability as logits, whose softmax is that mean (softmax is never applied twice).
They compute in float64 and return float32. A probability under 1e-12 counts as 1e-12, so that the logarithm
stays finite: with 21 classes this moves no probability by more than 2.1e-11. ``step`` and ``replay`` agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avbench.types import Snapshot, StreamingHead, UsageError

SMALLEST_PROBABILITY = 1e-12


def probabilities(logits: Any) -> np.ndarray:
    """(..., n_classes) logits, array or tensor -> float64 softmax over the last axis."""
    values = np.asarray(logits.cpu() if hasattr(logits, "cpu") else logits, np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_probabilities(probability: np.ndarray) -> np.ndarray:
    """float64 probabilities -> float32 logits whose softmax they are."""
    return np.log(np.maximum(probability, SMALLEST_PROBABILITY)).astype(np.float32)


class _PlainHead(StreamingHead):
    """A numpy head: ``replay(logits (N, W, 21), tokens, times_s (W,))`` -> (N, W, 21) float32, all steps at once."""

    uses_torch = False


class NoHead(_PlainHead):
    """The latest window alone. State: None."""

    def init(self, batch: int) -> None:
        """No state."""
        return None

    def step(self, state: None, snapshot: Snapshot, time_s: float) -> tuple[None, np.ndarray]:
        """The snapshot's logits (B, 21) as float32; ``time_s`` is not used."""
        logits = snapshot.logits
        return None, np.asarray(logits.cpu() if hasattr(logits, "cpu") else logits, np.float32)

    def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
        """The logits (N, W, 21) as float32, unchanged."""
        return np.asarray(logits, np.float32)


class Apa(_PlainHead):
    """Mean probability of all windows so far. State: (number of windows, (B, 21) sum of their probabilities)."""

    def init(self, batch: int) -> tuple[int, Any]:
        """The state before the first window: no windows, sum 0."""
        return 0, 0.0

    def step(self, state: tuple[int, Any], snapshot: Snapshot, time_s: float) -> tuple[tuple[int, Any], np.ndarray]:
        """One window -> the new state and the log of the mean probability, (B, 21) float32; ``time_s`` is not used."""
        count, total = state[0] + 1, state[1] + probabilities(snapshot.logits)
        return (count, total), log_probabilities(total / count)

    def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
        """All steps at once: logits (N, W, 21) -> (N, W, 21) float32, equal to ``step`` bit for bit."""
        total = np.cumsum(probabilities(logits), axis=1)
        return log_probabilities(total / np.arange(1, logits.shape[1] + 1)[:, None])


class SlidingApa(_PlainHead):
    """Mean probability of the last ``windows`` windows. State: their (B, 21) probabilities, oldest first."""

    def __init__(self, windows: int = 9) -> None:
        if windows < 1:
            raise UsageError(f"SlidingApa averages {windows} windows; it must be at least 1")
        self.windows = windows

    def init(self, batch: int) -> tuple[np.ndarray, ...]:
        """The state before the first window: no probabilities."""
        return ()

    def step(
        self, state: tuple[np.ndarray, ...], snapshot: Snapshot, time_s: float
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """One window -> the new state and the log of the mean probability of the last ``windows`` windows, (B, 21)
        float32."""
        state = (*state, probabilities(snapshot.logits))[-self.windows :]
        return state, log_probabilities(sum(state[1:], state[0]) / len(state))

    def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
        """All steps at once: logits (N, W, 21) -> (N, W, 21) float32, equal to ``step`` bit for bit."""
        p = np.moveaxis(probabilities(logits), 1, 0)
        out = np.empty_like(p)
        for i in range(len(p)):
            first = max(0, i + 1 - self.windows)
            out[i] = sum(p[first + 1 : i + 1], p[first]) / (i + 1 - first)
        return log_probabilities(np.moveaxis(out, 0, 1))


class DecayApa(_PlainHead):
    """Weighted mean probability: a window's weight is multiplied by ``decay`` at each later window.

    State: (sum of the weights, (B, 21) weighted sum of the probabilities).
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 < decay <= 1:
            raise UsageError(f"DecayApa's decay is {decay}; it must be above 0 and at most 1")
        self.decay = decay

    def init(self, batch: int) -> tuple[float, Any]:
        """The state before the first window: both sums 0."""
        return 0.0, 0.0

    def step(self, state: tuple[float, Any], snapshot: Snapshot, time_s: float) -> tuple[tuple[float, Any], np.ndarray]:
        """One window -> the new state and the log of the weighted mean probability, (B, 21) float32; ``time_s`` is not
        used."""
        weight = self.decay * state[0] + 1
        total = self.decay * state[1] + probabilities(snapshot.logits)
        return (weight, total), log_probabilities(total / weight)

    def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
        """All steps at once: logits (N, W, 21) -> (N, W, 21) float32, equal to ``step`` bit for bit."""
        p = np.moveaxis(probabilities(logits), 1, 0)
        out = np.empty_like(p)
        weight, total = self.init(len(logits))
        for i, now in enumerate(p):
            weight, total = self.decay * weight + 1, self.decay * total + now
            out[i] = total / weight
        return log_probabilities(np.moveaxis(out, 0, 1))
