"""Rank entries with statistical ties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from avbench.scoring.metrics import METRICS, Resamples, cases
from avbench.scoring.stats import (
    DEFAULT,
    Bootstrap,
    Difference,
    Distribution,
    Estimate,
    as_difference,
    as_estimate,
    bounded,
    checked_metrics,
    distribution,
    distribution_of,
    draw_videos,
    jackknifed,
    p_values,
    resamples,
)
from avbench.types import NonFiniteError, UsageError


class Ranked(NamedTuple):
    """One entry of a ranking; see ``rank_groups``. Differences are this entry minus the other."""

    name: str
    rank: int  # shared by all entries of a group
    leader: str  # the entry with the best value in its group
    estimate: Estimate
    to_leader: Difference  # all 0 (p = 1) for the leader itself
    to_previous: Difference | None  # to the entry directly above; None for the first
    best_rank: int  # 1 + how many entries are significantly better
    worst_rank: int  # how many entries are not significantly worse, itself included


class Drawn(NamedTuple):
    """The score that ranks an entry: its interval, and its values in the resamples of ``n_videos`` videos."""

    estimate: Estimate
    distribution: Distribution
    n_videos: int


def drawn_metric(metric: str, logits: Any, labels: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT) -> Drawn:
    """A metric of ``METRICS`` as the score that ranks, of logits (N, 21). ``UsageError`` where it is undefined, or as
    ``metrics.cases``; ``NonFiniteError`` as there."""
    found = resampled_metric(metric, logits, labels, clusters, bootstrap)
    if np.isnan(found.estimate.value):
        raise UsageError(f"{metric} is undefined on these cases, so it cannot be ranked")
    return found


def resampled_metric(metric: str, logits: Any, labels: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT) -> Drawn:
    """The same, with nan where the metric is undefined."""
    return resampled_metrics([metric], logits, labels, clusters, bootstrap)[metric]


def resampled_metrics(
    metrics: Iterable[str], logits: Any, labels: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT
) -> dict[str, Drawn]:
    """Several metrics of the same logits, from one set of draws."""
    checked, found = cases(logits, labels), {}
    drawn = draw_videos(checked, clusters, bootstrap)
    for metric in checked_metrics(metrics):
        of = distribution_of(metric, checked, drawn)
        found[metric] = Drawn(as_estimate(metric, of, drawn.n_clusters, bootstrap.level), of, drawn.n_clusters)
    return found


def drawn_score(
    function: Callable[[Resamples], np.ndarray],
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    least: float = 0.0,
    most: float = float("inf"),
) -> Drawn:
    """Any smooth score as the one that ranks; arguments as of ``stats.estimate``. ``UsageError`` where it is undefined
    or there are no cases."""
    if not len(clusters):
        raise UsageError("there is nothing to score, so it cannot be ranked")
    found = resampled_score(function, clusters, bootstrap, least, most)
    if np.isnan(found.estimate.value):
        raise UsageError("the score is undefined on these cases, so it cannot be ranked")
    return found


def resampled_score(
    function: Callable[[Resamples], np.ndarray],
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    least: float = 0.0,
    most: float = float("inf"),
    smooth: bool = True,
) -> Drawn:
    """Any score, with nan where it is undefined or there are no cases; arguments as of ``stats.estimate``."""
    if not len(clusters):
        nan = float("nan")
        return Drawn(Estimate(nan, nan, nan), Distribution(nan, np.array([nan]), np.array([nan])), 0)
    drawn = resamples(clusters, bootstrap)
    found = distribution(function, drawn, smooth)._replace(least=least, most=most)
    n, level = drawn.n_clusters, bootstrap.level
    return Drawn(bounded(found, n, level, least, most), found, n)


def rank_groups(
    entries: Mapping[str, Any], labels: Any, clusters: Any, metric: str = "map", bootstrap: Bootstrap = DEFAULT
) -> list[Ranked]:
    """``rank`` by a metric: ``entries`` maps a name to logits (N, 21) on the same cases. ``NonFiniteError`` naming the
    entry; ``UsageError`` where the metric is undefined."""
    (metric,) = checked_metrics([metric])
    known = {}
    for name, logits in entries.items():
        try:
            known[name] = drawn_metric(metric, logits, labels, clusters, bootstrap)
        except (NonFiniteError, UsageError) as error:
            raise type(error)(f"entry {name}: {error}") from None
    return rank(known, METRICS[metric].higher_is_better, bootstrap.level)


def rank(entries: Mapping[str, Drawn], higher_is_better: bool, level: float = DEFAULT.level) -> list[Ranked]:
    """Ranks with ties: ``entries`` maps a name to its score over the same resamples of videos; the best comes first.

    An entry shares the rank of its group's leader unless the paired interval of their difference (over the same
    resampled videos) excludes 0; the first entry that differs significantly leads the next group, and its rank is one
    more than the number of entries above it (1, 1, 3). "Tied" means that this data cannot separate them, not that they
    are equal. ``best_rank`` ... ``worst_rank`` compares an entry with each other entry (confidence ``level`` per pair,
    not adjusted for the number of pairs). Equal values are ordered by name. ``ValueError`` if they are not over the
    same resamples.
    """
    if len({(one.n_videos, len(one.distribution.sample)) for one in entries.values()}) > 1:
        raise ValueError("these scores are not over the same resamples of videos")
    sign = -1 if higher_is_better else 1
    names = sorted(entries, key=lambda name: (sign * entries[name].estimate.value, name))
    known = [entries[name].distribution for name in names]
    n_videos = entries[names[0]].n_videos if names else 0
    told_apart = _told_apart(known, n_videos, level)

    def minus(i: int, other: int) -> Difference:
        return as_difference(known[i].minus(known[other]), n_videos, level)

    ranked: list[Ranked] = []
    leader = 0
    for i, name in enumerate(names):
        if told_apart[leader, i]:
            leader = i
        ranked.append(
            Ranked(
                name,
                rank=leader + 1,
                leader=names[leader],
                estimate=entries[name].estimate,
                to_leader=minus(i, leader),
                to_previous=minus(i, i - 1) if i else None,
                best_rank=1 + int(told_apart[:, i].sum()),
                worst_rank=len(names) - int(told_apart[i].sum()),
            )
        )
    return ranked


def _told_apart(ordered: Sequence[Distribution], n_clusters: int, level: float) -> np.ndarray:
    """(n, n) bool, true at [i, j] where entry i is better than entry j below it and the interval excludes 0."""
    n = len(ordered)
    told_apart = np.zeros((n, n), bool)
    if n < 2:
        return told_apart
    values, samples, left_out = (np.stack([found[field] for found in ordered]) for field in range(3))
    for i in range(n - 1):
        below = slice(i + 1, None)
        centres, settled = jackknifed(
            values[i] - values[below], samples[i] - samples[below], left_out[i] - left_out[below], n_clusters
        )
        told_apart[i, below] = p_values(centres, settled, n_clusters) < 1 - level  # an undefined p tells nothing
    return told_apart
