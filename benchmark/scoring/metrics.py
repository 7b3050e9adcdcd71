"""The metrics: every score avbench prints is one of the functions below.

The definitions are scikit-learn's on float64 softmax probabilities (equal to 1e-12, ties included; ``avbench doctor
metrics`` compares them), with one difference: a macro mean leaves out a class without any case, where scikit-learn
counts it as 0 or nan. They are our own code because the bootstrap computes thousands of weighted resamples at once.
Each metric is written once, for cases of *videos drawn a number of times*: a video drawn 3 times counts as its cases
repeated three times. ``score`` draws everything once; the bootstrap (``avbench.scoring.stats``) draws with replacement.

A new metric is one function, one entry of ``METRICS`` and one reference in ``avbench.doctor.metrics``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from avbench.types import NonFiniteError, OffsetGrid, UsageError

GRID = OffsetGrid()
BLOCK_CELLS = 2**17  # cells of a table processed at once: 1 MB, so that it fits the cache


class Resamples(NamedTuple):
    """How often each video was drawn: case i counts ``counts[r, cluster[i]]`` times in resample r."""

    cluster: np.ndarray  # (N,) int64, index of the case's video
    counts: np.ndarray  # (R, G) integers, or any non-negative weights

    @property
    def n_clusters(self) -> int:
        """G, the number of videos."""
        return self.counts.shape[1]

    def weights(self, rows: slice = slice(None)) -> np.ndarray:
        """(rows, N) float64: the weight of each case in each resample."""
        return self.counts[rows].astype(np.float64)[:, self.cluster]

    def columns(self) -> np.ndarray:
        """(G, R) ``counts`` as floats for matrix products: float32, which is twice as fast, if all sums of counts are
        integers below 2**24 and so are exact in it; else float64."""
        exact = self.counts.dtype.kind in "iu" and int(self.counts.max(initial=0)) * len(self.cluster) < 2**24
        return np.ascontiguousarray(self.counts.T, np.float32 if exact else np.float64)


def everything_once(n: int) -> Resamples:
    """A single resample that contains each of the ``n`` cases once."""
    return Resamples(np.zeros(n, np.int64), np.ones((1, 1), np.int32))


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
    predicted: np.ndarray  # (N,) int64, the most probable class; the lowest wins a tie
    labels: np.ndarray  # (N,) int64
    grid: OffsetGrid

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Classes with at least one case, ascending."""
        return tuple(int(c) for c in np.unique(self.labels))

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """One ranking per present class, computed once for all resamples."""
        return {c: _rank(self.probabilities[:, c], self.labels == c) for c in self.present}


def cases(logits: Any, labels: Any, grid: OffsetGrid = GRID) -> Cases:
    """Checks ``logits`` (N, n_classes) and ``labels`` (N,) and computes the softmax in float64.

    Log-probabilities are valid logits: their softmax gives the probabilities back. ``NonFiniteError`` names the first
    row with NaN or infinity; ``UsageError`` for other shapes, no cases at all, or labels outside 0 ... n_classes - 1.
    """
    logits, labels = checked_logits(logits, grid), np.asarray(labels)
    if labels.shape != logits.shape[:1]:
        raise UsageError(f"labels have shape {labels.shape}; {len(logits)} rows of logits need shape ({len(logits)},)")
    labels = checked_labels(labels, grid)
    return Cases(softmax(logits), logits.argmax(axis=1), labels, grid)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Finite float64 ``logits`` (N, C) -> probabilities (N, C) whose rows sum to 1."""
    with np.errstate(over="ignore"):  # a spread beyond float64 is a probability of exactly 0
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., n_classes) finite logits -> float64 log probabilities, finite too."""
    values = logits.astype(np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    out: np.ndarray = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return out


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


def _mean_over_classes(values: list[np.ndarray]) -> np.ndarray:
    """Mean over classes, per resample, of the defined values; nan where none is defined."""
    table = np.stack(values)
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.where(defined, table, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def _mean(per_case: np.ndarray, drawn: Resamples) -> np.ndarray:
    """(N,) integers -> (R,) their weighted means; summed per video first, which is exact."""
    sums, sizes = (np.bincount(drawn.cluster, w, drawn.n_clusters) for w in (per_case, np.ones(len(per_case))))
    return _ratio(drawn.counts @ sums, drawn.counts @ sizes)


def _weight_above(cluster: np.ndarray, places: np.ndarray, counts: np.ndarray) -> Callable[[slice], np.ndarray]:
    """A function of a block of resamples: (P, block) total weight of the first ``places`` (P,) ranked cases.

    ``cluster`` (N,): the ranked cases' videos; ``places``: in ascending order; ``counts`` (G, R) of
    ``Resamples.columns``. With few videos a matrix product over them is cheaper; with many, a running sum over cases.
    """
    n, n_clusters = len(cluster), len(counts)
    if len(places) * n_clusters > 20 * n:

        def summed(block: slice) -> np.ndarray:
            total = np.zeros((n + 1, counts[:, block].shape[1]))
            np.cumsum(counts[cluster, block], axis=0, out=total[1:])
            return total[places]

        return summed
    first = np.searchsorted(places, np.arange(n), side="right")  # index of the first place that includes the case
    cells = (len(places) + 1) * n_clusters
    per_video = np.bincount(first * n_clusters + cluster, minlength=cells).reshape(-1, n_clusters)[:-1]
    above = np.cumsum(per_video, axis=0, dtype=counts.dtype)  # (P, G)
    return lambda block: (above @ counts[:, block]).astype(np.float64)


def _blocks(n_rows: int, n: int) -> list[slice]:
    step = max(1, BLOCK_CELLS // max(1, n))
    return [slice(first, first + step) for first in range(0, n_rows, step)]


# Each metric: (Cases, Resamples) -> (R,) float64, nan where it is undefined.


def acc(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Share of the cases whose predicted class is right."""
    return _mean(cases.predicted == cases.labels, drawn)


def acc_tol1(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Share of the cases whose predicted class is right or a neighbour of the right one."""
    return _mean(np.abs(cases.predicted - cases.labels) <= 1, drawn)


def average_precision(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Per class: the mean over its cases of the precision among all cases at least as probable (step-wise). Undefined
    with cases of one class only: every ranking of them is perfect."""
    counts, values = drawn.columns(), []
    for rank in cases.rankings.values():
        cluster = drawn.cluster[rank.order]
        weight_above = _weight_above(cluster, rank.group_end, counts)
        value = np.empty(counts.shape[1])
        for block in _blocks(counts.shape[1], len(rank.positives)):
            positive = counts[cluster[rank.positives], block].astype(np.float64)
            above = weight_above(block)
            above[above == 0] = 1  # no case above, so no positive either
            precision = np.cumsum(positive, axis=0)[rank.positives_end - 1] / above
            value[block] = _ratio(np.einsum("pr,pr->r", positive, precision), positive.sum(axis=0))
        values.append(value)
    several = np.sum(~np.isnan(values), axis=0) > 1
    return np.where(several, _mean_over_classes(values), np.nan)


def roc_auc(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Per class: the chance that one of its cases gets a higher probability than a case of another class."""
    counts, values = drawn.columns(), []
    total = np.bincount(drawn.cluster, minlength=drawn.n_clusters) @ counts.astype(np.float64)
    for rank in cases.rankings.values():
        cluster = drawn.cluster[rank.order]
        is_negative = np.ones(len(cluster), bool)
        is_negative[rank.positives] = False
        negatives = cluster[is_negative]
        above = _weight_above(negatives, rank.group_start - rank.positives_start, counts)
        to_end = _weight_above(negatives, rank.group_end - rank.positives_end, counts)
        value = np.empty(counts.shape[1])
        for block in _blocks(counts.shape[1], len(rank.positives)):
            positive = counts[cluster[rank.positives], block].astype(np.float64)
            lost = np.einsum("pr,pr->r", positive, above(block) + to_end(block)) / 2  # a tie loses half
            found = positive.sum(axis=0)
            value[block] = 1.0 - _ratio(lost, found * (total[block] - found))
        values.append(value)
    return _mean_over_classes(values)


def balanced_acc(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Mean over classes of the share of their cases that are predicted right (recall)."""
    hit, counts, recalls = cases.predicted == cases.labels, drawn.counts.astype(np.float64), []
    for c in cases.present:
        of_class = cases.labels == c
        sizes = np.bincount(drawn.cluster[of_class], minlength=drawn.n_clusters)
        found = np.bincount(drawn.cluster[of_class & hit], minlength=drawn.n_clusters)
        recalls.append(_ratio(counts @ found, counts @ sizes))
    return _mean_over_classes(recalls)


def mae_s(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Mean distance in seconds between predicted and true offset."""
    step_s = 2 * cases.grid.max_offset_s / (cases.grid.n_classes - 1)
    return step_s * _mean(np.abs(cases.predicted - cases.labels), drawn)


@dataclass(frozen=True, slots=True)
class Column:
    """A score by name: how to show it, and its range."""

    name: str
    title: str
    unit: str  # "" for a fraction
    best: float
    worst: float
    higher_is_better: bool
    description: str


@dataclass(frozen=True, slots=True)
class Metric(Column):
    """A score with its function (Cases, Resamples) -> (R,) float64."""

    function: Callable[[Cases, Resamples], np.ndarray]


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
    the published evaluation code, absent classes apart. A metric that is undefined is ``nan`` (``map`` and
    ``roc_auc`` when all cases are of one class). Errors as in ``cases``.
    """
    checked = cases(logits, labels, grid)
    once = everything_once(len(checked.labels))
    return {name: float(metric.function(checked, once)[0]) for name, metric in METRICS.items()}


def absent_classes(labels: Any, grid: OffsetGrid = GRID) -> tuple[int, ...]:
    """Classes without any case in ``labels`` (N,); the macro means leave them out."""
    present = set(checked_labels(labels, grid).tolist())
    return tuple(c for c in range(grid.n_classes) if c not in present)
