"""The metrics: every score avbench prints is one of the functions below.

The definitions are scikit-learn's on float64 softmax probabilities (equal to 1e-12, ties included; ``avbench doctor
metrics`` compares them), with one difference: a macro mean leaves out a class without any case, where scikit-learn
counts it as 0 or nan. They are our own code because the bootstrap computes thousands of weighted resamples at once.
Each metric is written once, for cases of *videos drawn a number of times*: a video drawn 3 times counts as its cases
repeated three times. ``score`` draws everything once; the bootstrap (``avbench.scoring.stats``) draws with replacement.

A new metric is one function, one entry of ``METRICS`` and one reference in ``avbench.doctor.metrics``.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from avbench.types import NonFiniteError, OffsetGrid, UsageError

GRID = OffsetGrid()
BLOCK_CELLS = 2**17  # cells of a table processed at once: 1 MB, so that it fits the cache
WIDE = 256  # resamples for which weights are added up at once: long enough rows to be quick


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each of G videos was drawn in each of R resamples, in the forms that products want, each made once."""

    counts: np.ndarray  # (R, G) integers, or any non-negative weights

    @cached_property
    def floats(self) -> np.ndarray:
        """(R, G) float64, for products with sums per video."""
        return self.counts.astype(np.float64)

    @cached_property
    def columns(self) -> np.ndarray:
        """(G, R) float32, for products with tables of videos; exact for small integers only."""
        return np.ascontiguousarray(self.counts.T, np.float32)


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each video was drawn: case i counts ``counts[r, cluster[i]]`` times in resample r.

    ``draws``: of these counts, where others draw the same. ``with_left_out``: these resamples, then every video once
    except for one jackknife group (``avbench.scoring.stats`` draws both).
    """

    cluster: np.ndarray  # (N,) int64, index of the case's video
    counts: np.ndarray  # (R, G) integers, or any non-negative weights
    draws: Draws | None = None
    with_left_out: Resamples | None = None

    @property
    def n_clusters(self) -> int:
        """G, the number of videos."""
        return self.counts.shape[1]

    @property
    def as_floats(self) -> np.ndarray:
        """(R, G) float64, for products with sums per video."""
        return (self.draws or Draws(self.counts)).floats

    def take(self, cases: np.ndarray) -> Resamples:
        """The same resamples of videos for some of the cases: indices, or (N,) bool."""
        more = self.with_left_out and self.with_left_out.take(cases)
        return replace(self, cluster=self.cluster[cases], with_left_out=more)

    def weights(self, rows: slice = slice(None)) -> np.ndarray:
        """(rows, N) float64: the weight of each case in each resample."""
        return self.counts[rows].astype(np.float64)[:, self.cluster]

    @cached_property
    def exact(self) -> type[np.floating]:
        """What sums of counts are exact in: float32, which is twice as fast, if all of them are integers below 2**24;
        else float64."""
        integers = self.counts.dtype.kind in "iu"
        return np.float32 if integers and int(self.counts.max(initial=0)) * len(self.cluster) < 2**24 else np.float64

    def columns(self, rows: slice) -> np.ndarray:
        """(G, rows), contiguous: the counts of some resamples as ``exact`` floats, for products with tables of
        videos."""
        if self.draws is None or self.exact is not np.float32:
            return np.ascontiguousarray(self.counts[rows].T, self.exact)
        return np.ascontiguousarray(self.draws.columns[:, rows])


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
        return {c: rank_cases(self.probabilities[:, c], self.labels == c) for c in self.present}

    @cached_property
    def once(self) -> Resamples:
        """Each case once."""
        return everything_once(len(self.labels))

    @cached_property
    def by_rank(self) -> ByRank:
        """The scores that rank the cases."""
        return ByRank(self)


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


def rank_cases(score: np.ndarray, positive: np.ndarray) -> Ranking:
    """The cases by falling ``score`` (N,), as seen from those where ``positive`` (N,) bool."""
    order = np.argsort(-score, kind="stable")
    ranked, places = score[order], np.flatnonzero(positive[order])
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
    return _ratio(drawn.as_floats @ sums, drawn.as_floats @ sizes)


def weight_above(
    cluster: np.ndarray, places: np.ndarray, n_clusters: int, kind: type[np.floating]
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of the counts of some resamples, (G, R) of ``Resamples.columns``: (P, R) total weight of the first
    ``places`` (P,) ranked cases.

    ``cluster`` (N,): the ranked cases' videos; ``places``: in ascending order. With few videos a product with a table
    of places and videos is cheaper; with many, the cases between two places are added up, and then the places.
    """
    n = len(cluster)
    if len(places) * n_clusters > 20 * n:
        from scipy.sparse import csr_array

        last = int(places[-1])
        rows = np.ones(last, kind), cluster[:last], np.concatenate([[0], places])
        between = csr_array(rows, shape=(len(places), n_clusters))
        return lambda counts: _cumulated(between @ counts)
    first = np.searchsorted(places, np.arange(n), side="right")  # index of the first place that includes the case
    cells = (len(places) + 1) * n_clusters
    per_video = np.bincount(first * n_clusters + cluster, minlength=cells).reshape(-1, n_clusters)[:-1]
    above = np.cumsum(per_video, axis=0, dtype=kind)  # (P, G)
    return lambda counts: above @ counts


def _cumulated(table: np.ndarray) -> np.ndarray:
    """The running sums down the rows of (P, R), in place: of pieces of the rows at once, then over the pieces.
    ``np.cumsum`` takes ten times as long. The sums are of integers, so exact in any order."""
    long = math.isqrt(len(table))
    whole = len(table) - len(table) % max(long, 1)
    pieces = table[:whole].reshape(-1, max(long, 1), table.shape[1])
    for i in range(1, long):
        pieces[:, i] += pieces[:, i - 1]
    for before, piece in itertools.pairwise(pieces):
        piece += before[-1]
    for i in range(max(whole, 1), len(table)):
        table[i] += table[i - 1]
    return table


def _never_zero(above: np.ndarray) -> None:
    """Puts 1 for 0 in the running sums (P, R), where there is no case above, so no positive either. In place; only the
    first rows can have it."""
    first = bisect.bisect_left(range(len(above)), True, key=lambda row: bool(above[row].all()))
    above[:first][above[:first] == 0] = 1


def _blocks(n_rows: int, n: int) -> list[slice]:
    step = max(1, BLOCK_CELLS // max(1, n))
    return [slice(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]


def _wide_blocks(n_rows: int, n: int) -> list[tuple[slice, list[slice]]]:
    """``_blocks`` in groups of about ``WIDE`` rows: the rows of each group, and its blocks counted from its first."""
    blocks = _blocks(n_rows, n)
    several = max(1, WIDE // max(1, blocks[0].stop)) if blocks else 1
    groups = [blocks[i : i + several] for i in range(0, len(blocks), several)]
    return [
        (slice(some[0].start, some[-1].stop), [slice(b.start - some[0].start, b.stop - some[0].start) for b in some])
        for some in groups
    ]


class ByRank:
    """Average precision and area under ROC, class by class: both follow from the weight of the cases that are ranked
    above each case of the class, which takes nearly all of the time. What was found is kept."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._found: list[tuple[Resamples, tuple[np.ndarray, np.ndarray]]] = []

    def of(self, drawn: Resamples) -> tuple[np.ndarray, np.ndarray]:
        """(R,) means over classes of average precision, and of area under ROC."""
        known = next((values for before, values in self._found if before is drawn), None)
        if known is None:
            total = drawn.as_floats @ np.bincount(drawn.cluster, minlength=drawn.n_clusters)
            precisions, areas = [], []
            for rank in self._cases.rankings.values():
                precision, found, lost = ranked_scores(rank, drawn)
                precisions.append(precision)
                areas.append(1.0 - _ratio(lost, found * (total - found)))
            several = np.sum(~np.isnan(precisions), axis=0) > 1
            known = np.where(several, _mean_over_classes(precisions), np.nan), _mean_over_classes(areas)
            self._found.append((drawn, known))
        return known


class RankedScores(NamedTuple):
    """Of one ranking in each resample, (R,) float64 each: average precision (nan without positives), the weight of the
    positives, and the weight of the pairs in which another case is ranked above a positive; a tie counts half."""

    precision: np.ndarray
    positives: np.ndarray
    lost: np.ndarray


def ranked_scores(rank: Ranking, drawn: Resamples) -> RankedScores:
    """The scores of a ranking with at least one positive."""
    kind = drawn.exact
    n_drawn, cluster, n_clusters = len(drawn.counts), drawn.cluster[rank.order], drawn.n_clusters
    videos, tied = cluster[rank.positives], bool((rank.group_end - rank.group_start > 1).any())
    to_end = weight_above(cluster, rank.group_end, n_clusters, kind)
    to_start = weight_above(cluster, rank.group_start, n_clusters, kind) if tied else None
    scores = RankedScores(*np.empty((3, n_drawn)))
    for wide, blocks in _wide_blocks(n_drawn, len(videos)):
        counts = drawn.columns(wide)
        weight, above = counts[videos], to_end(counts)
        summed = _cumulated(weight.copy())
        scores.positives[wide] = summed[-1]
        held = summed[rank.positives_end - 1] if tied else summed  # positives that are above or tied
        others = above - held
        if to_start:
            begun = np.concatenate([np.zeros((1, counts.shape[1]), kind), summed])[rank.positives_start]
            others = np.add(others, to_start(counts) - begun, dtype=np.float64) / 2
        _never_zero(above)
        for block in blocks:
            at = slice(wide.start + block.start, wide.start + block.stop)
            positive = weight[:, block].astype(np.float64)
            precision = np.divide(held[:, block], above[:, block], dtype=np.float64)
            scores.precision[at] = _ratio(np.einsum("pr,pr->r", positive, precision), scores.positives[at])
            scores.lost[at] = np.einsum("pr,pr->r", positive, others[:, block].astype(np.float64))
    return scores


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
    return cases.by_rank.of(drawn)[0]


def roc_auc(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Per class: the chance that one of its cases gets a higher probability than a case of another class."""
    return cases.by_rank.of(drawn)[1]


def balanced_acc(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Mean over classes of the share of their cases that are predicted right (recall)."""
    hit, columns = cases.predicted == cases.labels, []
    for c in cases.present:
        of_class = cases.labels == c
        columns.append(np.bincount(drawn.cluster[of_class & hit], minlength=drawn.n_clusters))
        columns.append(np.bincount(drawn.cluster[of_class], minlength=drawn.n_clusters))
    sums = (drawn.as_floats @ np.stack(columns, axis=1).astype(np.float64)).T
    return _mean_over_classes([_ratio(found, sizes) for found, sizes in zip(sums[::2], sums[1::2], strict=True)])


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
    return {name: float(metric.function(checked, checked.once)[0]) for name, metric in METRICS.items()}


def absent_classes(labels: Any, grid: OffsetGrid = GRID) -> tuple[int, ...]:
    """Classes without any case in ``labels`` (N,); the macro means leave them out."""
    present = set(checked_labels(labels, grid).tolist())
    return tuple(c for c in range(grid.n_classes) if c not in present)
