"""Two intervals that ``avbench.stats`` has no use for: between groups of segments, and of shares over windows."""

from __future__ import annotations

import numpy as np

from avbench.metrics import METRICS, Resamples, cases, everything_once
from avbench.stats import Estimate, interval, resamples


def group_difference(
    metric: str,
    logits: np.ndarray,
    labels: np.ndarray,
    videos: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Metric of one model on the segments ``first`` minus that on ``second`` ((N,) bool), over resampled videos.

    The videos of both groups are drawn together, so a video with segments in both counts for both alike. The bounds are
    nan where ``stats.bootstrap_scores`` has nan.
    """
    drawn = resamples(videos, n_resamples, seed)
    values, samples = [], []
    for group in (first, second):
        checked = cases(logits[group], labels[group])
        values.append(float(METRICS[metric].function(checked, everything_once(len(checked.labels)))[0]))
        samples.append(METRICS[metric].function(checked, Resamples(drawn.cluster[group], drawn.counts)))
    value = values[0] - values[1]
    return Estimate(value, *interval(value, samples[0] - samples[1], drawn.n_clusters, level))


def shares(
    parts: np.ndarray,
    wholes: np.ndarray,
    videos: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """Ratios of sums, one a column: ``parts`` (N, C) and ``wholes`` (N,) are counts per segment, ``videos`` (N,) the
    clusters. Nan where the whole is 0; bounds as in ``stats.bootstrap_scores``, within 0 and 1."""
    drawn = resamples(videos, n_resamples, seed)
    by_video = np.zeros((drawn.n_clusters, parts.shape[1] + 1))
    np.add.at(by_video, drawn.cluster, np.column_stack([parts, wholes]))
    total, sample = by_video.sum(axis=0), drawn.counts @ by_video
    with np.errstate(invalid="ignore", divide="ignore"):
        values, drawn_values = total[:-1] / total[-1], sample[:, :-1] / sample[:, -1:]
    found = []
    for value, column in zip(values.tolist(), drawn_values.T, strict=True):
        low, high = interval(value, column, drawn.n_clusters, level)
        found.append(Estimate(value, float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))))
    return found
