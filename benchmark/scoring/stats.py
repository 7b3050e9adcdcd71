"""Error bars: segments of one video are not independent, so the bootstrap resamples whole videos ("clusters").

All intervals of one set of clusters and one seed use the same resamples, which makes comparisons paired.
``interval`` describes the kind of interval; ``tests/scoring/test_stats.py`` measures its coverage by simulation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import numpy as np

from avbench.scoring.metrics import METRICS, Cases, Draws, Resamples, cases
from avbench.system.spelling import nearest
from avbench.types import UsageError

FEWEST_CLUSTERS = 3  # with two, t has one degree of freedom: 12.7 standard errors to each side say nothing
FEW_CLUSTERS = 6
FEW_LEFT_OUT = 25
MAX_LEFT_OUT = 200  # most parts (videos, or groups of videos) that the jackknife leaves out in turn


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: ``n_resamples`` resamples of videos (0: no intervals), their random ``seed``, and the
    confidence ``level`` of the intervals. ``UsageError`` for a negative number or a level outside 0 ... 1."""

    n_resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.n_resamples < 0:
            raise UsageError(f"n_resamples is {self.n_resamples}; it must be 0 (no intervals) or more")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")
        if not 0 < self.level < 1:
            raise UsageError(f"level is {self.level}; it must lie between 0 and 1, such as 0.95")


DEFAULT = Bootstrap()


class Estimate(NamedTuple):
    """A metric with its interval; nan where undefined."""

    value: float
    ci_low: float
    ci_high: float


class Difference(TypedDict):
    """Metric of A minus metric of B on the same cases, its interval, and the two-sided p for no difference."""

    difference: float
    ci_low: float
    ci_high: float
    p: float


def interval_in_words(level: float, over: str = "videos") -> str:
    """What an interval is, in one sentence for pages and tables; ``over``: what is drawn again and again."""
    percent = f"{100 * level:g}"
    return (
        f"A {percent} % interval contains the score on all such {over} in about {percent} of 100 such tests; its "
        "centre is corrected for few cases (jackknife), so a value may lie at its edge."
    )


def too_few(n_videos: int | None = None) -> str:
    """Why there is no interval over ``n_videos`` videos, "" if there are enough; None: so few, however many."""
    n = "" if n_videos is None else f" (n = {n_videos})"
    said = f"too few videos for an interval{n}: it needs at least {FEWEST_CLUSTERS}"
    return said if n_videos is None or n_videos < FEWEST_CLUSTERS else ""


def resamples(clusters: Any, bootstrap: Bootstrap = DEFAULT) -> Resamples:
    """Draws as many videos as there are, with replacement, ``bootstrap.n_resamples`` times.

    ``clusters`` (N,): a video's name (string or integer) for every case. The draw depends on the sorted set of names
    and the seed, not on the order of the cases. ``UsageError`` for wrong shapes or types.
    """
    names = np.asarray(clusters)
    if names.dtype.kind == "O" and all(isinstance(name, str) for name in names.flat):
        names = names.astype(str)
    if names.ndim != 1 or len(names) == 0 or names.dtype.kind not in "iuUS":
        raise UsageError(
            f"clusters have shape {names.shape} and type {names.dtype}; needed is one video name per case, at least one"
        )
    n, cluster = numbered(names)
    draws = _draws(n, bootstrap.n_resamples, bootstrap.seed)
    return Resamples(cluster, draws.counts[: bootstrap.n_resamples], None, Resamples(cluster, draws.counts, draws))


def numbered(names: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of different names, and of each its place among them when they are sorted, (N,) int64. Sorting texts
    takes long: who draws the same videos again and again numbers them once, and gives the numbers in their place."""
    if names.dtype.kind in "iu" and names.min() == 0 and names.max() < len(names) and np.bincount(names).all():
        return int(names.max()) + 1, names.astype(np.int64, copy=False)
    distinct, cluster = np.unique(names, return_inverse=True)
    return len(distinct), cluster


@lru_cache(maxsize=4)
def _draws(n: int, n_resamples: int, seed: int) -> Draws:
    """``n_resamples`` draws of ``n`` videos, then every video once except for one of J groups (see ``n_left_out``):
    counts (n_resamples + J, n) int32, read-only and cached, because many models share the same draws."""
    generator, n_groups = np.random.default_rng(seed), n_left_out(n, n_resamples)
    counts = np.empty((n_resamples + n_groups, n), np.int32)
    for row in counts[:n_resamples]:
        row[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    group = np.random.default_rng(0).permutation(n) % n_groups
    counts[n_resamples:] = np.arange(n_groups)[:, None] != group
    counts.flags.writeable = False
    return Draws(counts)


def cluster_weights(clusters: Any, bootstrap: Bootstrap = DEFAULT) -> np.ndarray:
    """(n_resamples, N) float64: how often each case occurs in each resample of whole videos; see ``resamples``."""
    return resamples(clusters, bootstrap).weights()


def cluster_bootstrap(
    metric: str, logits: Any, labels: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT
) -> tuple[float, float, float]:
    """One metric (a name of ``METRICS``) as (value, low, high); see ``bootstrap_scores``."""
    value, low, high = bootstrap_scores(logits, labels, clusters, bootstrap, [metric])[metric]
    return value, low, high


def bootstrap_scores(
    logits: Any,
    labels: Any,
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    metrics: Iterable[str] | None = None,
) -> dict[str, Estimate]:
    """Metrics (all by default) of ``logits`` (N, 21) against ``labels`` (N,), with intervals over videos.

    ``clusters`` (N,) names the video of each case. The bounds are nan where the metric is undefined, with fewer than
    ``FEWEST_CLUSTERS`` videos (how videos differ is unknown), with ``n_resamples`` = 0, or where the metric is
    undefined in more than half of the resamples. Errors as in ``metrics.cases`` and ``resamples``.
    """
    names, checked = checked_metrics(metrics), cases(logits, labels)
    drawn = draw_videos(checked, clusters, bootstrap)
    found = {}
    for name in names:
        found[name] = as_estimate(name, distribution_of(name, checked, drawn), drawn.n_clusters, bootstrap.level)
    return found


def paired_difference(  # noqa: PLR0913  (7 parameters: two models, truth and videos are four arrays already)
    logits_a: Any,
    logits_b: Any,
    labels: Any,
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    metrics: Iterable[str] | None = None,
    labels_b: Any = None,
) -> dict[str, Difference]:
    """Metric of A minus metric of B for two models on the same cases, over the same resamples of videos.

    ``labels_b`` (N,): the true classes of B's cases if they differ from ``labels`` (same segments, new offsets).

    ``p`` is two-sided and agrees with the interval: it is below 1 - ``level`` exactly when the interval excludes 0. It
    is never below 1 / (``n_resamples`` + 1). Bounds and p are nan where ``bootstrap_scores`` has nan.
    """
    names, a = checked_metrics(metrics), cases(logits_a, labels)
    b = cases(logits_b, labels if labels_b is None else labels_b)
    drawn = draw_videos(a, clusters, bootstrap)
    found = {}
    for name in names:
        difference = distribution_of(name, a, drawn).minus(distribution_of(name, b, drawn))
        found[name] = as_difference(difference, drawn.n_clusters, bootstrap.level)
    return found


def minimum_detectable_difference(  # noqa: PLR0913  (7 parameters: as paired_difference, and the power)
    logits_a: Any,
    logits_b: Any,
    labels: Any,
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    power: float = 0.8,
    metrics: Iterable[str] | None = None,
) -> dict[str, float]:
    """The true difference between two such models that ``paired_difference`` on these videos would detect with
    probability ``power``: (t at ``level`` + t at ``power``) x the standard error of their paired difference.

    It depends on the amount of data and on how similar the two models' errors are, not on the measured difference.
    Nan where ``paired_difference`` has no interval; 0 if both models always agree.
    """
    names, a, b = checked_metrics(metrics), cases(logits_a, labels), cases(logits_b, labels)
    if not 0 < power < 1:
        raise UsageError(f"power is {power}; it must lie between 0 and 1, such as 0.8")
    drawn, found = draw_videos(a, clusters, bootstrap), {}
    for name in names:
        difference = distribution_of(name, a, drawn).minus(distribution_of(name, b, drawn))
        found[name] = detectable(difference, drawn.n_clusters, bootstrap.level, power)
    return found


def group_difference(  # noqa: PLR0913  (7 parameters: one model's arrays, and two groups of cases)
    metric: str,
    logits: Any,
    labels: Any,
    clusters: Any,
    first: np.ndarray,
    second: np.ndarray,
    bootstrap: Bootstrap = DEFAULT,
) -> Difference:
    """Metric of one model on the cases ``first`` minus that on ``second`` ((N,) bool each, not empty).

    The videos of both groups are drawn together, so a video with cases in both groups is drawn equally often in both.
    Nan and errors as in ``paired_difference``.
    """
    (metric,) = checked_metrics([metric])
    checked = cases(logits, labels)
    drawn = draw_videos(checked, clusters, bootstrap)

    def of(group: np.ndarray) -> Distribution:
        some = cases(np.asarray(logits)[group], checked.labels[group], checked.grid)
        return distribution_of(metric, some, drawn.take(group))

    return as_difference(of(first).minus(of(second)), drawn.n_clusters, bootstrap.level)


def shares(
    parts: np.ndarray,
    wholes: np.ndarray,
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
) -> list[Estimate]:
    """Ratios of sums, one per column of ``parts``: ``parts`` (N, C) and ``wholes`` (N,) are counts per case,
    ``clusters`` (N,) names its video. Nan where the whole is 0; bounds as in ``bootstrap_scores``, within 0 and 1."""
    drawn = resamples(clusters, bootstrap)
    by_video = np.zeros((drawn.n_clusters, parts.shape[1] + 1))
    np.add.at(by_video, drawn.cluster, np.column_stack([parts, wholes]))
    total, sums = by_video.sum(axis=0), _with_left_out(drawn).as_floats @ by_video
    with np.errstate(invalid="ignore", divide="ignore"):
        values, drawn_values = total[:-1] / total[-1], sums[:, :-1] / sums[:, -1:]
    n_drawn = len(drawn.counts)
    found = [
        Distribution(value, column[:n_drawn], column[n_drawn:])
        for value, column in zip(values.tolist(), drawn_values.T, strict=True)
    ]
    return [bounded(one, drawn.n_clusters, bootstrap.level, 0.0, 1.0) for one in found]


def estimate(
    function: Callable[[Resamples], np.ndarray],
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    least: float = 0.0,
    most: float = float("inf"),
    smooth: bool = True,
) -> Estimate:
    """Any score with its interval over videos, which stays within ``least`` and ``most``.

    ``function``: the score in each resample of the videos, (R,) float64, nan where it is undefined; ``clusters`` (N,)
    names the video of each case. ``smooth``: False for a median, of which the jackknife says nothing; the interval is
    then that of the resamples alone. Nan and errors as in ``bootstrap_scores``; nan without cases.
    """
    if not len(clusters):
        return Estimate(float("nan"), float("nan"), float("nan"))
    drawn = resamples(clusters, bootstrap)
    return bounded(distribution(function, drawn, smooth), drawn.n_clusters, bootstrap.level, least, most)


def difference(  # noqa: PLR0913  (7 parameters: two scores, their range, how they are drawn and what is detected)
    function_a: Callable[[Resamples], np.ndarray],
    function_b: Callable[[Resamples], np.ndarray],
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    smooth: bool = True,
    power: float = 0.8,
    ends: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[Difference, float]:
    """Any score of A minus the same of B on the same cases, over the same resamples of videos (arguments as of
    ``estimate``; ``ends``: the least and the most that the score can be), with what such a comparison detects with
    probability ``power`` (see ``minimum_detectable_difference``). All nan without cases."""
    nan = float("nan")
    if not len(clusters):
        return Difference(difference=nan, ci_low=nan, ci_high=nan, p=nan), nan
    drawn = resamples(clusters, bootstrap)
    found = distribution(function_a, drawn, smooth).minus(distribution(function_b, drawn, smooth))
    found = found._replace(least=ends[0] - ends[1], most=ends[1] - ends[0])
    n, level = drawn.n_clusters, bootstrap.level
    return as_difference(found, n, level), detectable(found, n, level, power)


def distribution(function: Callable[[Resamples], np.ndarray], drawn: Resamples, smooth: bool = True) -> Distribution:
    """Any score (see ``estimate``) on all cases, in each resample and with each jackknife group left out; nothing is
    left out where it is not ``smooth``."""
    once = Resamples(drawn.cluster, np.ones((1, drawn.n_clusters), np.int32))
    value, n_drawn = float(function(once)[0]), len(drawn.counts)
    values = function(_with_left_out(drawn))
    return Distribution(value, values[:n_drawn], values[n_drawn:] if smooth else np.array([value]))


def ratio(parts: Any, wholes: Any, drawn: Resamples) -> np.ndarray:
    """The ratio of two sums over cases, (N,) each, in each resample: (R,) float64, nan where the second is 0."""
    part, whole = (
        drawn.as_floats @ np.bincount(drawn.cluster, np.asarray(values, np.float64), drawn.n_clusters)
        for values in (parts, wholes)
    )
    return np.divide(part, whole, out=np.full(len(drawn.counts), np.nan), where=whole > 0)


# -- intervals ---------------------------------------------------------------------------------------------------------


def checked_metrics(metrics: Iterable[str] | None) -> list[str]:
    """Names of metrics as a list, all if None; ``UsageError`` for an unknown one."""
    names = list(METRICS) if metrics is None else list(metrics)
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}; {nearest(name, METRICS)}")
    return names


def draw_videos(checked: Cases, clusters: Any, bootstrap: Bootstrap) -> Resamples:
    """``resamples`` for checked cases; ``UsageError`` if ``clusters`` has another length than the cases."""
    drawn = resamples(clusters, bootstrap)
    if len(drawn.cluster) != len(checked.labels):
        raise UsageError(f"there are {len(drawn.cluster)} cluster names for {len(checked.labels)} cases")
    return drawn


class Distribution(NamedTuple):
    """A metric, or the difference of two: its value, its values (R,) in the resamples of videos, its values (J,) with
    one video (or group of videos) left out, and the range that it cannot leave."""

    value: float
    sample: np.ndarray
    left_out: np.ndarray
    least: float = -math.inf
    most: float = math.inf

    def minus(self, other: Distribution) -> Distribution:
        """The difference of two metrics over the same resamples."""
        return Distribution(
            self.value - other.value,
            self.sample - other.sample,
            self.left_out - other.left_out,
            self.least - other.most,
            self.most - other.least,
        )


def n_left_out(n_clusters: int, n_resamples: int) -> int:
    """Number of jackknife groups: fewer with few resamples, whose intervals are only indicative."""
    return min(n_clusters, MAX_LEFT_OUT, max(FEW_LEFT_OUT, n_resamples // 4))


def _with_left_out(drawn: Resamples) -> Resamples:
    """The resamples, then every video once except for one of J groups."""
    assert drawn.with_left_out is not None, "these resamples were not drawn by resamples()"
    return drawn.with_left_out


def distribution_of(name: str, checked: Cases, drawn: Resamples) -> Distribution:
    """One metric on all cases, in each resample of ``drawn``, and with each jackknife group left out."""
    metric, n_resamples = METRICS[name], len(drawn.counts)
    value = float(metric.function(checked, checked.once)[0])
    values = metric.function(checked, _with_left_out(drawn))
    ends = sorted((metric.worst, metric.best))
    return Distribution(value, values[:n_resamples], values[n_resamples:], *ends)


def jackknifed(
    values: np.ndarray, samples: np.ndarray, left_out: np.ndarray, n_clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """(K,), (K, R), (K, J) -> centres (K,) and samples (K, R), bias-corrected and rescaled (jackknife over videos).
    For a mean this changes almost nothing."""
    n_groups = left_out.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row without a defined resample stays as it is
        mean_out, mean, spread = left_out.mean(axis=1), np.nanmean(samples, axis=1), np.nanstd(samples, axis=1)
        centres = values - (n_groups - 1) * (mean_out - values)
        error = np.sqrt((n_groups - 1) / n_groups * ((left_out - mean_out[:, None]) ** 2).sum(axis=1))
        scale = error / (spread * _widening(n_clusters)) if n_clusters > 1 else np.zeros(len(values))
        settled = centres[:, None] + scale[:, None] * (samples - mean[:, None])
    known = np.isfinite(centres) & np.isfinite(scale) & (scale > 0)
    return np.where(known, centres, values), np.where(known[:, None], settled, samples)


def _centred(found: Distribution, n_clusters: int) -> tuple[float, np.ndarray]:
    """``jackknifed`` for one value."""
    centres, samples = jackknifed(np.array([found.value]), found.sample[None], found.left_out[None], n_clusters)
    return float(centres[0]), samples[0]


def _usable(value: float, sample: np.ndarray, n_clusters: int) -> np.ndarray | None:
    """The resamples where the metric is defined; None if there is neither an interval nor a p-value."""
    defined = sample[~np.isnan(sample)]
    enough = n_clusters >= FEWEST_CLUSTERS and len(defined) > 0 and len(sample) <= 2 * len(defined)
    return defined if enough and not np.isnan(value) else None


def _share_below(sample: np.ndarray, point: float) -> float:
    """Share of ``sample`` below ``point``, counting ties as half; never 0 or 1."""
    count = np.count_nonzero(sample < point) + 0.5 * np.count_nonzero(sample == point)
    return float((count + 0.5) / (len(sample) + 1))


def _widening(n_clusters: int) -> float:
    """The spread of resamples is measured about the sample's own mean, so it is too small by this factor."""
    return float((n_clusters / (n_clusters - 1)) ** 0.5)


def interval(value: float, sample: np.ndarray, n_clusters: int, level: float) -> tuple[float, float]:
    """Bias-corrected percentile interval (Efron 1981) with t-expanded tails (Hesterberg 2015, "expanded percentile"),
    of ``value`` and ``sample`` as ``jackknifed`` makes them.

    Plain percentiles of G resampled videos are too narrow, by sqrt((G - 1) / G) and by using normal instead of t
    quantiles with G - 1 degrees of freedom: taking quantiles further out corrects both. With few cases per class,
    macro mAP is biased upwards (by 0.05 with 12 videos of ten cases each); resamples, which repeat cases, raise it
    further and vary too little. ``jackknifed`` corrects that by the jackknife, which repeats no case. So an interval of
    mAP is shifted down on purpose (a reported one still contains the measured value). With fewer than ``FEW_CLUSTERS``
    videos the quantiles lie beyond every resample, so the interval is value +- t x standard error, and wide. A sample
    without spread (all right, all wrong) gives an interval of zero width.

    Simulated with about eight cases per video and strongly varying videos (500-600 draws, 320 for map and roc_auc with
    75 videos: +- 1 point), 95 % intervals contain the truth in this percentage of draws, with 12 / 24 / 75 videos: acc
    93 / 95 / 93, acc_tol1 93 / 94 / 93, balanced_acc 96 / 95 / 94, mae_s 92 / 93 / 94, map 92 / 93 / 93 (81 with 12
    without the jackknife), roc_auc 90 / 92 / 93. ROC-AUC is skewed near 1, so with few videos its intervals are too
    short; they are reliable from 75 videos on. Equal models are called different at 5 % in 4-7 % of the draws with 75
    videos, in 4-8 % with 12.
    """
    from scipy.special import ndtr, ndtri, stdtrit

    defined = _usable(value, sample, n_clusters)
    if defined is None:
        return float("nan"), float("nan")
    reach = _widening(n_clusters) * float(stdtrit(n_clusters - 1, (1 + level) / 2))
    if n_clusters < FEW_CLUSTERS:
        half = reach * float(defined.std())
        return value - half, value + half
    shift = 2 * float(ndtri(_share_below(defined, value)))
    low, high = np.quantile(defined, [float(ndtr(shift - reach)), float(ndtr(shift + reach))])
    return float(low), float(high)


def p_values(values: np.ndarray, samples: np.ndarray, n_clusters: int) -> np.ndarray:
    """(K,) values and their samples (K, R) -> (K,) p: 1 - level of the widest ``interval`` that still excludes 0, at
    least 1 / (R + 1); nan where there is no interval."""
    from scipy.special import ndtri, stdtr

    k, n_resamples = samples.shape
    defined = np.count_nonzero(~np.isnan(samples), axis=1)
    usable = (defined > 0) & (n_resamples <= 2 * defined) & ~np.isnan(values)
    if n_clusters < FEWEST_CLUSTERS or not usable.any():
        return np.full(k, np.nan)
    if n_clusters < FEW_CLUSTERS:
        spread = np.array([_spread(sample) for sample in samples])
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(values == 0, 0.0, np.abs(values) / spread)
    else:

        def place(points: np.ndarray) -> np.ndarray:
            below = np.count_nonzero(samples < points, axis=1) + 0.5 * np.count_nonzero(samples == points, axis=1)
            return ndtri((below + 0.5) / (defined + 1))

        reach = np.abs(place(np.zeros((1, 1))) - 2 * place(values[:, None]))
    p = 2 * stdtr(n_clusters - 1, -reach / _widening(n_clusters))
    return np.where(usable, np.maximum(p, 1 / (n_resamples + 1)), np.nan)


def least_p(n_resamples: int, n_clusters: int) -> float:
    """The smallest p that ``p_values`` gives where the value lies in the middle of its sample: that of resamples which
    all lie on one side of 0. With few videos it is far above 1 / (R + 1), because the t distribution has long tails."""
    from scipy.special import ndtri, stdtr

    if n_clusters < FEW_CLUSTERS:
        return 1 / (n_resamples + 1)
    reach = float(ndtri(0.5 / (n_resamples + 1))) / _widening(n_clusters)
    return max(2 * float(stdtr(n_clusters - 1, reach)), 1 / (n_resamples + 1))


def _p_value(value: float, sample: np.ndarray, n_clusters: int) -> float:
    return float(p_values(np.array([value]), sample[None], n_clusters)[0])


def _spread(sample: np.ndarray) -> float:
    return float(sample[~np.isnan(sample)].std()) if not np.isnan(sample).all() else float("nan")


def detectable(found: Distribution, n_clusters: int, level: float, power: float) -> float:
    """``minimum_detectable_difference`` for the difference of two metrics."""
    from scipy.special import stdtrit

    value, sample = _centred(found, n_clusters)
    if _usable(value, sample, n_clusters) is None:
        return float("nan")
    reach = float(stdtrit(n_clusters - 1, (1 + level) / 2) + stdtrit(n_clusters - 1, power))
    return reach * _widening(n_clusters) * _spread(sample)


def as_estimate(metric: str, found: Distribution, n_clusters: int, level: float) -> Estimate:
    """The metric with its interval, which stays within the metric's range."""
    least, most = sorted((METRICS[metric].worst, METRICS[metric].best))
    return bounded(found, n_clusters, level, least, most)


def bounded(found: Distribution, n_clusters: int, level: float, least: float, most: float) -> Estimate:
    """The interval stays within ``least`` and ``most`` and always contains the measured value: where the bias
    correction would move it past the value, it is widened to reach it."""
    low, high = interval(*_centred(found, n_clusters), n_clusters, level)
    low, high = np.minimum(low, found.value), np.maximum(high, found.value)
    return Estimate(found.value, float(np.clip(low, least, most)), float(np.clip(high, least, most)))


def as_difference(found: Distribution, n_clusters: int, level: float) -> Difference:
    """The difference with its interval, which stays within what is possible, and its p-value; nan where there is none.
    No difference, 0, is always possible: so p and interval agree."""
    value, sample = _centred(found, n_clusters)
    low, high = (float(np.clip(end, found.least, found.most)) for end in interval(value, sample, n_clusters, level))
    return Difference(difference=found.value, ci_low=low, ci_high=high, p=_p_value(value, sample, n_clusters))
