"""Rank entries with statistical ties."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench import __version__
from avbench.scoring.metrics import METRICS, Cases, Resamples, cases
from avbench.scoring.stats import (
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
    """One entry of a ranking; see ``rank_groups``. Differences are this entry minus the other one."""

    name: str
    rank: int  # shared by all entries of a group
    leader: str  # of its group: the best value in it
    estimate: Estimate
    to_leader: Difference  # all 0 (p = 1) for the leader itself
    to_previous: Difference | None  # to the entry just above; None for the first
    best_rank: int  # 1 + how many entries are better beyond doubt
    worst_rank: int  # how many entries are not worse beyond doubt


def rank_groups(
    entries: Mapping[str, Any],
    labels: Any,
    clusters: Any,
    metric: str = "map",
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    cache: Path | str | None = None,
) -> list[Ranked]:
    """Ranks with ties: ``entries`` maps a name to logits (N, 21) on the same cases; the best comes first.

    An entry shares the rank of its group's leader unless the paired interval of their difference (over the same
    resampled videos) excludes 0; the first entry that is told apart leads the next group, and its rank is one more
    than the number of entries above it (1, 1, 3). "Tied" means not told apart by this data; it does not mean equal.
    ``best_rank`` ... ``worst_rank`` compares an entry with all others, each pair by itself (``level`` a pair; nothing
    is adjusted for the number of pairs). Equal values are ordered by name.

    ``cache``: a folder where an entry's resampled values are kept, named by a hash of its content, so that the next
    call computes new entries only. ``NonFiniteError`` naming the entry; ``UsageError`` where the metric is undefined.
    """
    (metric,) = checked_metrics([metric], level)
    n = len(entries)
    if n == 0:
        return []
    drawn: Resamples | None = None
    known: dict[str, Distribution] = {}
    for name, logits in entries.items():
        try:
            checked = cases(logits, labels)
        except NonFiniteError as error:
            raise NonFiniteError(f"entry {name}: {error}") from None
        except UsageError as error:
            raise UsageError(f"entry {name}: {error}") from None
        drawn = drawn or draw_videos(checked, clusters, n_resamples, seed)
        known[name] = _cached_distribution(metric, checked, drawn, seed, cache)
        if np.isnan(known[name].value):
            raise UsageError(f"entry {name}: {metric} is undefined on these cases, so it cannot be ranked")
    assert drawn is not None
    n_clusters = drawn.n_clusters
    sign = -1 if METRICS[metric].higher_is_better else 1
    names = sorted(known, key=lambda name: (sign * known[name].value, name))
    values, samples, left_out = (np.stack([known[name][field] for name in names]) for field in range(3))

    told_apart = np.zeros((n, n), bool)  # [i, j] with i above j
    for i in range(n - 1):
        below = slice(i + 1, None)
        centres, settled = jackknifed(
            values[i] - values[below], samples[i] - samples[below], left_out[i] - left_out[below], n_clusters
        )
        told_apart[i, below] = p_values(centres, settled, n_clusters) < 1 - level  # not where nothing is known
    ranked: list[Ranked] = []
    leader = 0
    for i, name in enumerate(names):
        if told_apart[leader, i]:
            leader = i

        def minus(other: int, name: str = name) -> Difference:
            return as_difference(known[name].minus(known[names[other]]), n_clusters, level)

        ranked.append(
            Ranked(
                name,
                rank=leader + 1,
                leader=names[leader],
                estimate=as_estimate(metric, known[name], n_clusters, level),
                to_leader=minus(leader),
                to_previous=minus(i - 1) if i else None,
                best_rank=1 + int(told_apart[:, i].sum()),
                worst_rank=n - int(told_apart[i].sum()),
            )
        )
    return ranked


def _cached_distribution(
    metric: str, checked: Cases, drawn: Resamples, seed: int, cache: Path | str | None
) -> Distribution:
    """``distribution_of``, from the cache if it is there; an unreadable file is computed anew."""
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
