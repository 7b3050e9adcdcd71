"""Rank entries with statistical ties."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench import __version__
from avbench.scoring.metrics import METRICS, Cases, Resamples, cases
from avbench.scoring.stats import (
    DEFAULT,
    Bootstrap,
    Difference,
    Distribution,
    Estimate,
    as_difference,
    as_estimate,
    checked_metrics,
    distribution_of,
    draw_videos,
    jackknifed,
    n_left_out,
    p_values,
)
from avbench.system.atomic import atomic_write_bytes
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


def rank_groups(
    entries: Mapping[str, Any],
    labels: Any,
    clusters: Any,
    metric: str = "map",
    bootstrap: Bootstrap = DEFAULT,
    cache: Path | str | None = None,
) -> list[Ranked]:
    """Ranks with ties: ``entries`` maps a name to logits (N, 21) on the same cases; the best comes first.

    An entry shares the rank of its group's leader unless the paired interval of their difference (over the same
    resampled videos) excludes 0; the first entry that differs significantly leads the next group, and its rank is one
    more than the number of entries above it (1, 1, 3). "Tied" means that this data cannot separate them, not that they
    are equal. ``best_rank`` ... ``worst_rank`` compares an entry with each other entry (confidence ``level`` per pair,
    not adjusted for the number of pairs). Equal values are ordered by name.

    ``cache``: a folder that stores each entry's resampled values under a hash of its content, so that the next call
    computes only new entries. ``NonFiniteError`` naming the entry; ``UsageError`` where the metric is undefined.
    """
    (metric,) = checked_metrics([metric])
    if not entries:
        return []
    level = bootstrap.level
    known, n_clusters = _distributions(metric, entries, labels, clusters, bootstrap, cache)
    sign = -1 if METRICS[metric].higher_is_better else 1
    names = sorted(known, key=lambda name: (sign * known[name].value, name))
    told_apart = _told_apart([known[name] for name in names], n_clusters, level)

    def minus(i: int, other: int) -> Difference:
        return as_difference(known[names[i]].minus(known[names[other]]), n_clusters, level)

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
                estimate=as_estimate(metric, known[name], n_clusters, level),
                to_leader=minus(i, leader),
                to_previous=minus(i, i - 1) if i else None,
                best_rank=1 + int(told_apart[:, i].sum()),
                worst_rank=len(names) - int(told_apart[i].sum()),
            )
        )
    return ranked


def _distributions(
    metric: str, entries: Mapping[str, Any], labels: Any, clusters: Any, bootstrap: Bootstrap, cache: Path | str | None
) -> tuple[dict[str, Distribution], int]:
    """The metric of every entry over the same resamples, and the number of videos; see ``rank_groups``."""
    drawn: Resamples | None = None
    known: dict[str, Distribution] = {}
    for name, logits in entries.items():
        try:
            checked = cases(logits, labels)
        except (NonFiniteError, UsageError) as error:
            raise type(error)(f"entry {name}: {error}") from None
        drawn = drawn or draw_videos(checked, clusters, bootstrap)
        known[name] = _cached_distribution(metric, checked, drawn, bootstrap.seed, cache)
        if np.isnan(known[name].value):
            raise UsageError(f"entry {name}: {metric} is undefined on these cases, so it cannot be ranked")
    assert drawn is not None
    return known, drawn.n_clusters


def _told_apart(ordered: Sequence[Distribution], n_clusters: int, level: float) -> np.ndarray:
    """(n, n) bool, true at [i, j] where entry i is better than entry j below it and the interval excludes 0."""
    n = len(ordered)
    values, samples, left_out = (np.stack([found[field] for found in ordered]) for field in range(3))
    told_apart = np.zeros((n, n), bool)
    for i in range(n - 1):
        below = slice(i + 1, None)
        centres, settled = jackknifed(
            values[i] - values[below], samples[i] - samples[below], left_out[i] - left_out[below], n_clusters
        )
        told_apart[i, below] = p_values(centres, settled, n_clusters) < 1 - level  # an undefined p tells nothing
    return told_apart


def _cached_distribution(
    metric: str, checked: Cases, drawn: Resamples, seed: int, cache: Path | str | None
) -> Distribution:
    """``distribution_of``, read from the cache if present; computed again if the file is unreadable."""
    if cache is None:
        return distribution_of(metric, checked, drawn)
    n_resamples = len(drawn.counts)
    digest = hashlib.sha256(f"avbench {__version__} {metric} {n_resamples} {seed} {checked.grid}".encode())
    for array in (checked.probabilities, checked.predicted, checked.labels, drawn.cluster):
        digest.update(np.ascontiguousarray(array).tobytes())
    path = Path(cache) / f"{digest.hexdigest()}.npy"
    try:
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (1 + n_resamples + n_left_out(drawn),) and kept.dtype == np.float64:
            return Distribution(float(kept[0]), kept[1 : 1 + n_resamples], kept[1 + n_resamples :])
    except (OSError, ValueError, EOFError):
        pass
    found = distribution_of(metric, checked, drawn)
    data = io.BytesIO()
    np.save(data, np.concatenate([[found.value], found.sample, found.left_out]), allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, data.getvalue())
    return found
