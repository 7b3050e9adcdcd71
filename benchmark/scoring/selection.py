"""Which iteration is scored: the last, the best, or any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avbench.types import UsageError

if TYPE_CHECKING:
    from avbench.results.run import RunResult


def best_iteration(values: Sequence[float | None], higher_is_better: bool) -> int:
    """Index of the iteration with the best value of one metric; the first one wins a tie, undefined values (NaN, None)
    are ignored. ``UsageError`` if all are undefined."""
    numbers = np.array([np.nan if v is None else v for v in values], np.float64)
    if not np.isfinite(numbers).any():
        raise UsageError("the metric is undefined at every iteration, so there is no best one")
    return int(np.nanargmax(numbers) if higher_is_better else np.nanargmin(numbers))


def selected_iteration(selection: str, values: Sequence[float | None], higher_is_better: bool) -> int:
    """Index of the iteration that ``selection`` scores, given one metric's value at each iteration: the last one for
    "final", the one with the best value for "best_iter" (the paper's starred rows). ``UsageError`` otherwise."""
    if selection == "final":
        return len(values) - 1
    if selection == "best_iter":
        return best_iteration(values, higher_is_better)
    raise UsageError(f'selection {selection!r} does not choose one iteration; use any_hit() for "any_hit"')


def scored_iteration(result: RunResult) -> int:
    """Index of the iteration that a run's segments are shown at: the last, or under ``best_iter`` the one with the best
    accuracy."""
    values = [scores["acc"].value for scores in result.curve]
    if not values:
        return result.protocol.iterations - 1
    return selected_iteration(result.protocol.selection, values, higher_is_better=True)


def selected_logits(streams: np.ndarray, labels: np.ndarray, selection: str) -> dict[str, np.ndarray]:
    """``streams`` (N, W, 21) and ``labels`` (N,) -> metric -> (N, 21), at the iteration that ``selection`` scores."""
    from avbench.scoring.metrics import METRICS, score

    if selection == "final":
        return dict.fromkeys(METRICS, streams[:, -1])
    by_iteration = [score(streams[:, i], labels) for i in range(streams.shape[1])]
    chosen = {}
    for name, metric in METRICS.items():
        values = [scores[name] for scores in by_iteration]
        defined = np.isfinite(values).any()
        best = selected_iteration(selection, values, metric.higher_is_better) if defined else -1
        chosen[name] = streams[:, best]
    return chosen


def any_hit(logits: np.ndarray, labels: np.ndarray, tolerance: int = 0) -> float:
    """Share of segments in which the class of at least one iteration is within ``tolerance`` classes of the label.

    ``logits`` (N, W, 21), ``labels`` (N,) int. It can only grow with W, so it never shares a column with the other
    selections.
    """
    hits = np.abs(np.argmax(logits, axis=-1) - np.asarray(labels)[:, None]) <= tolerance
    return float(hits.any(axis=1).mean())
