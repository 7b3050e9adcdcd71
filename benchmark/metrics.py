"""The metrics: every score avbench prints is one of the six functions below.

The definitions are scikit-learn's on float64 softmax probabilities (equal to 1e-12, ties included), with one
difference: a class without a single case is left out of a macro mean, where scikit-learn counts it as 0 or nan.
Each metric is written once, for *weighted* cases: a weight of 3 is the same as having the case three times. ``score``
uses weights of 1; the bootstrap (``avbench.stats``) uses how often each video was drawn.

A new metric is one function and one entry of ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from avbench.types import NonFiniteError, OffsetGrid, UsageError

GRID = OffsetGrid()


class Ranking(NamedTuple):
    """The cases sorted by falling probability of one class, as seen from its P cases ("positives").

    Equal probabilities form one group; a threshold cannot fall inside a group. All arrays are integers.
    """

    order: np.ndarray  # (N,) case indices, most probable first
    positives: np.ndarray  # (P,) places of the positives in ``order``
    group_start: np.ndarray  # (P,) cases ranked strictly above the positive's group
    group_end: np.ndarray  # (P,) the same including its group
    positives_start: np.ndarray  # (P,) positives ranked strictly above the positive's group
    positives_end: np.ndarray  # (P,) the same including its group


@dataclass(frozen=True)
class Cases:
    """Checked predictions with their true classes: what every metric is computed from. Made by ``cases``."""

    probabilities: np.ndarray  # (N, n_classes) float64, rows sum to 1
    predicted: np.ndarray  # (N,) int64, the most probable class, the lowest one winning a tie
    labels: np.ndarray  # (N,) int64
    grid: OffsetGrid

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Classes with at least one case, ascending."""
        return tuple(int(c) for c in np.unique(self.labels))

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """One ranking per present class; sorted once, used for all resamples."""
        return {c: _rank(self.probabilities[:, c], self.labels == c) for c in self.present}


def cases(logits: Any, labels: Any, grid: OffsetGrid = GRID) -> Cases:
    """Checks ``logits`` (N, n_classes) and ``labels`` (N,) and takes the softmax in float64.

    Log-probabilities are logits too: their softmax is the probabilities again. ``NonFiniteError`` names the first row
    with NaN or infinity; ``UsageError`` for other shapes, no cases at all, or labels outside 0 ... n_classes - 1.
    """
    logits, labels = checked_logits(logits, grid), np.asarray(labels)
    if labels.shape != logits.shape[:1]:
        raise UsageError(f"labels have shape {labels.shape}; {len(logits)} rows of logits need shape ({len(logits)},)")
    labels = checked_labels(labels, grid)
    with np.errstate(over="ignore"):  # a spread beyond float64 is a probability of exactly 0
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return Cases(probabilities, logits.argmax(axis=1), labels, grid)


def checked_logits(logits: Any, grid: OffsetGrid = GRID) -> np.ndarray:
    """``logits`` as (N, n_classes) float64, all finite; errors as in ``cases``."""
    array = np.asarray(logits)
    if array.ndim != 2 or array.shape[1] != grid.n_classes or array.dtype.kind not in "fiu":
        raise UsageError(
            f"logits have shape {array.shape} and type {array.dtype}; needed are real numbers (N, {grid.n_classes})"
        )
    if len(array) == 0:
        raise UsageError("there are no cases to score (logits have 0 rows)")
    array = np.ascontiguousarray(array, dtype=np.float64)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise NonFiniteError(f"logits row {row}, class {column} is {array[row, column]}; scores need finite logits")
    return array


def checked_labels(labels: Any, grid: OffsetGrid = GRID) -> np.ndarray:
    """``labels`` as (N,) int64 in 0 ... n_classes - 1; errors as in ``cases``."""
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise UsageError(f"labels have shape {array.shape} and type {array.dtype}; needed are integers (N,), N >= 1")
    outside = (array < 0) | (array >= grid.n_classes)
    if outside.any():
        row = int(outside.argmax())
        raise UsageError(f"label {array[row]} in row {row} is outside the classes 0 ... {grid.n_classes - 1}")
    return array.astype(np.int64)


def _rank(probability: np.ndarray, positive: np.ndarray) -> Ranking:
    order = np.argsort(-probability, kind="stable")
    ranked, places = probability[order], np.flatnonzero(positive[order])
    starts = np.concatenate(([0], np.flatnonzero(np.diff(ranked)) + 1))
    ends = np.append(starts[1:], len(ranked))
    group = np.searchsorted(starts, places, side="right") - 1
    group_start, group_end = starts[group], ends[group]
    return Ranking(
        order, places, group_start, group_end, np.searchsorted(places, group_start), np.searchsorted(places, group_end)
    )


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """(R, N) -> (R, N + 1): the total weight of the first 0 ... N columns."""
    total = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total


def _mean_over_classes(values: list[np.ndarray]) -> np.ndarray:
    """Mean over classes, per resample, of the values that are defined there; nan where none is."""
    table = np.stack(values)
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, table, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


# Each metric: (Cases, weights (R, N) float64) -> (R,) float64, nan where it is undefined.


def acc(cases: Cases, weights: np.ndarray) -> np.ndarray:
    return _ratio(weights @ (cases.predicted == cases.labels), weights.sum(axis=1))


def acc_tol1(cases: Cases, weights: np.ndarray) -> np.ndarray:
    return _ratio(weights @ (np.abs(cases.predicted - cases.labels) <= 1), weights.sum(axis=1))


def average_precision(cases: Cases, weights: np.ndarray) -> np.ndarray:
    """Per class: the mean over its cases of the precision among all cases at least as probable (step-wise)."""
    values = []
    for rank in cases.rankings.values():
        ranked = weights[:, rank.order]
        positive = ranked[:, rank.positives]
        above = _cumulated(ranked)[:, rank.group_end]
        precision = np.divide(
            _cumulated(positive)[:, rank.positives_end], above, out=np.zeros_like(above), where=above > 0
        )
        values.append(_ratio((positive * precision).sum(axis=1), positive.sum(axis=1)))
    return _mean_over_classes(values)


def roc_auc(cases: Cases, weights: np.ndarray) -> np.ndarray:
    """Per class: the chance that one of its cases is given a higher probability than a case of another class."""
    values = []
    for rank in cases.rankings.values():
        ranked = weights[:, rank.order]
        positive = ranked[:, rank.positives]
        total, hits = _cumulated(ranked), _cumulated(positive)
        negatives_above = total[:, rank.group_start] - hits[:, rank.positives_start]
        negatives_to_end = total[:, rank.group_end] - hits[:, rank.positives_end]
        lost = (positive * (negatives_above + negatives_to_end)).sum(axis=1) / 2  # a tie loses half
        values.append(1.0 - _ratio(lost, hits[:, -1] * (total[:, -1] - hits[:, -1])))
    return _mean_over_classes(values)


def balanced_acc(cases: Cases, weights: np.ndarray) -> np.ndarray:
    is_class = cases.labels[:, None] == np.array(cases.present)
    hit = is_class & (cases.predicted == cases.labels)[:, None]
    recall = _ratio(weights @ hit, weights @ is_class)
    return _mean_over_classes(list(recall.T))


def mae_s(cases: Cases, weights: np.ndarray) -> np.ndarray:
    step_s = 2 * cases.grid.max_offset_s / (cases.grid.n_classes - 1)
    return step_s * _ratio(weights @ np.abs(cases.predicted - cases.labels).astype(np.float64), weights.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as data: what people read about it, and its function."""

    name: str
    title: str
    unit: str  # "" for a fraction
    best: float
    worst: float
    higher_is_better: bool
    description: str
    function: Callable[[Cases, np.ndarray], np.ndarray]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acc", "Acc", "", 1.0, 0.0, True, "share of segments whose class is exactly right", acc),
        Metric("acc_tol1", "Acc±1", "", 1.0, 0.0, True, "share of segments at most one class (0.2 s) off", acc_tol1),
        Metric("map", "mAP", "", 1.0, 0.0, True, "mean over classes of average precision", average_precision),
        Metric("roc_auc", "ROC-AUC", "", 1.0, 0.0, True, "mean over classes of one-vs-rest area under ROC", roc_auc),
        Metric("balanced_acc", "bal. acc", "", 1.0, 0.0, True, "mean over classes of the share found", balanced_acc),
        Metric("mae_s", "MAE (s)", "s", 0.0, 4.0, False, "mean distance between predicted and true offset", mae_s),
    )
}


def score(logits: Any, labels: Any, grid: OffsetGrid = GRID) -> dict[str, float]:
    """All metrics of ``logits`` (N, n_classes) against the true classes ``labels`` (N,), in the order of ``METRICS``.

    ``acc``, ``acc_tol1`` (neighbouring class counts, no wrap-around), ``map`` and ``roc_auc`` (macro means over the
    present classes, on softmax probabilities), ``balanced_acc`` and ``mae_s`` (seconds). The definitions are those of
    the published evaluation code, absent classes apart. A metric that is undefined is ``nan`` (only ``roc_auc``
    can be: when all cases are of one class). Errors as in ``cases``.
    """
    checked = cases(logits, labels, grid)
    once = np.ones((1, len(checked.labels)))
    return {name: float(metric.function(checked, once)[0]) for name, metric in METRICS.items()}


def absent_classes(labels: Any, grid: OffsetGrid = GRID) -> tuple[int, ...]:
    """Classes without a single case in ``labels`` (N,): the macro means leave them out."""
    present = set(checked_labels(labels, grid).tolist())
    return tuple(c for c in range(grid.n_classes) if c not in present)
