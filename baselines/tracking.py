"""Heads for offsets that change, without learning: a Bayes filter over the classes, and APA that starts anew.

Both keep a state of fixed size however long a stream runs. They compute in float64 and return float32, as ``apa`` does;
``step`` and ``replay`` agree bit for bit.

Their defaults were chosen on 512 validation streams, on the mini ``sparsesync``, by ``avbench train tracking`` (grid:
``results/tracking.json``): the highest ``tracked_acc_tol1``. There, ``bayes`` with change 0.02 and trust 0.6 has .909,
recovers in 11.9 s (restricted mean; after changes of 0.8 s in 11.1 s, median) and declares 13.7 false changes an hour,
4.9 after the first 40 s; ``cusum`` with threshold 12 has .899, 13.6 s (11.6 s), 13.6 and 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avbench.baselines.apa import SMALLEST_PROBABILITY, log_probabilities, probabilities
from avbench.types import Snapshot, StreamingHead, UsageError


class _SteppingHead(StreamingHead):
    """A numpy head whose replay is its steps, one after the other."""

    uses_torch = False

    def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
        """All steps: logits (N, W, 21) -> (N, W, 21) float32."""
        state, out = self.init(len(logits)), np.empty(logits.shape, np.float32)
        for i, time_s in enumerate(times_s):
            state, out[:, i] = self.step(state, Snapshot(logits[:, i]), float(time_s))
        return out


class BayesFilter(_SteppingHead):
    """The posterior of a class that may change between two windows. State: the log posterior (B, 21), None at first.

    Before each window the class stays with probability 1 - ``change`` and moves to each other class with an equal part
    of the rest. The evidence of a window is its softmax to the power ``trust``: windows overlap, and models are surer
    than they should be. Defaults: see the head of this file.
    """

    def __init__(self, change: float = 0.02, trust: float = 0.6) -> None:
        if not 0 < change < 1 or not trust > 0:
            raise UsageError(f"BayesFilter: change is {change} and trust {trust}; they must be in (0, 1) and above 0")
        self.change, self.trust = change, trust

    def init(self, batch: int) -> np.ndarray | None:
        """Nothing is known: every class is as likely."""
        return None

    def step(self, state: np.ndarray | None, snapshot: Snapshot, time_s: float) -> tuple[np.ndarray | None, np.ndarray]:
        """One window -> the posterior after it, (B, 21) float64, and its logarithm as float32; ``time_s`` is not
        used."""
        evidence = np.maximum(probabilities(snapshot.logits), SMALLEST_PROBABILITY) ** self.trust
        if state is not None:
            move = self.change / (evidence.shape[-1] - 1)
            evidence = evidence * (move + (1 - self.change - move) * state)
        posterior = evidence / evidence.sum(axis=-1, keepdims=True)
        return posterior, log_probabilities(posterior)


class _Averages(NamedTuple):
    """The state of ``RestartingApa``: an average, and for each class one since the sound began to speak for it."""

    n: np.ndarray  # (B,) windows averaged
    total: np.ndarray  # (B, 21) the sum of their probabilities
    score: np.ndarray  # (B, 21) log likelihood ratio of each class against the believed one, since it was last below 0
    since: np.ndarray  # (B, 21) windows since then
    sums: np.ndarray  # (B, 21, 21) the sum of their probabilities


class RestartingApa(_SteppingHead):
    """APA that starts anew when the windows speak for another class than the believed one (Page's cumulative sum).

    Each class has a score: the log likelihood ratio against the class of the average, summed up over the windows and
    never below 0. When one exceeds ``threshold``, the average starts anew with the windows since its score was 0.
    Default: see the head of this file.
    """

    def __init__(self, threshold: float = 12.0) -> None:
        if not threshold > 0:
            raise UsageError(f"RestartingApa's threshold is {threshold}; it must be above 0")
        self.threshold = threshold

    def init(self, batch: int) -> _Averages | None:
        """No windows."""
        return None

    def step(self, state: _Averages | None, snapshot: Snapshot, time_s: float) -> tuple[_Averages | None, np.ndarray]:
        """One window -> the new state and the log of the mean probability since the last start, (B, 21) float32;
        ``time_s`` is not used."""
        p = probabilities(snapshot.logits)
        batch, classes = p.shape
        rows = np.arange(batch)
        if state is None:
            zero = np.zeros((batch, classes))
            state = _Averages(np.zeros(batch), zero, zero, zero, np.zeros((batch, classes, classes)))
            believed = p.argmax(axis=-1)
        else:
            believed = state.total.argmax(axis=-1)
        log_p = np.log(np.maximum(p, SMALLEST_PROBABILITY))
        score = np.maximum(state.score + log_p - log_p[rows, believed][:, None], 0)
        rising = score > 0
        since = np.where(rising, state.since + 1, 0)
        sums = np.where(rising[..., None], state.sums + p[:, None, :], 0)
        count, total = state.n + 1, state.total + p
        best = score.argmax(axis=-1)
        anew = score[rows, best] > self.threshold
        count = np.where(anew, since[rows, best], count)
        total = np.where(anew[:, None], sums[rows, best], total)
        keep = ~anew
        after = _Averages(count, total, score * keep[:, None], since * keep[:, None], sums * keep[:, None, None])
        return after, log_probabilities(total / count[:, None])
