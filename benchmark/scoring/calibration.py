"""Below the grid: how far the believed offset is from the true one in seconds, and whether the model's confidence means
what it says.

The believed offset is the mean offset under the softmax of the most probable class and its neighbours (``expected``);
beside it stands the centre of the most probable class (``argmax``). At the ends of the grid there is one neighbour.

``ece``, ``brier`` and ``rps_s`` are functions of cases and resamples, as the metrics in ``avbench.scoring.metrics``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from avbench.scoring.metrics import GRID, WIDE, Cases, Resamples, cases, weight_above
from avbench.scoring.stats import DEFAULT, Bootstrap, Estimate, estimate, ratio
from avbench.types import OffsetGrid, UsageError

BINS = 15
WITHIN_MS = (40, 80, 125)
ESTIMATES = ("expected", "argmax")


def centres_s(grid: OffsetGrid = GRID) -> np.ndarray:
    """(n_classes,) float64: the offsets of the classes in seconds."""
    return np.array([grid.offset_of(c) for c in range(grid.n_classes)])


def step_s(grid: OffsetGrid = GRID) -> float:
    """The distance of neighbouring classes in seconds."""
    return 2 * grid.max_offset_s / (grid.n_classes - 1)


def believed_offsets_s(probabilities: np.ndarray, grid: OffsetGrid = GRID) -> np.ndarray:
    """(..., n_classes) -> (...): the mean offset over the most probable class (the lowest wins a tie) and its
    neighbours, in proportion to their probabilities."""
    top = probabilities.argmax(axis=-1)[..., None]
    near = np.abs(np.arange(grid.n_classes) - top) <= 1
    weights = np.where(near, probabilities, 0.0)
    return (weights * centres_s(grid)).sum(axis=-1) / weights.sum(axis=-1)


def classes_of(offsets_s: Any, grid: OffsetGrid = GRID) -> np.ndarray:
    """``OffsetGrid.class_of`` of every offset: (...) seconds -> (...) int64."""
    distinct, place = np.unique(np.asarray(offsets_s, np.float64), return_inverse=True)
    return np.array([grid.class_of(offset) for offset in distinct.tolist()], np.int64)[place]


def offset_errors_s(logits: Any, offsets_s: Any, kind: str = "expected") -> np.ndarray:
    """(N,) distances in seconds between the believed and the true offset of each case: ``logits`` (N, 21), true
    ``offsets_s`` (N,). ``kind``: "expected" or "argmax". Errors as in ``metrics.cases``; ``UsageError`` for another
    kind."""
    if kind not in ESTIMATES:
        raise UsageError(f"offset estimate {kind!r} is not one of {', '.join(ESTIMATES)}")
    return _errors_s(*_checked(logits, offsets_s), kind)


def _errors_s(checked: Cases, offsets_s: np.ndarray, kind: str) -> np.ndarray:
    believed = believed_offsets_s(checked.probabilities) if kind == "expected" else centres_s()[checked.predicted]
    return np.abs(believed - offsets_s)


def ece(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Expected calibration error: over ``BINS`` equal bins of the top class's probability, the distance between the
    share that is right and the mean probability, weighted by the cases in the bin. A bin includes its lower edge, as in
    torchmetrics; a probability of exactly 1, which has a bin of its own there, is in the last one."""
    confidence = cases.probabilities.max(axis=1)
    gap = np.zeros((drawn.n_clusters, BINS))
    np.add.at(gap, (drawn.cluster, _bin_of(confidence)), (cases.predicted == cases.labels) - confidence)
    sizes = np.bincount(drawn.cluster, minlength=drawn.n_clusters)
    total, n = np.abs(drawn.as_floats @ gap).sum(axis=1), drawn.as_floats @ sizes
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


class Bin(NamedTuple):
    """The ``n`` cases whose top class has a probability from ``low`` up to ``high``: the mean of that probability, and
    the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def reliability(logits: Any, labels: Any) -> list[Bin]:
    """The bins of ``ece`` that have a case, in order: ``logits`` (N, 21), true classes ``labels`` (N,). Errors as in
    ``metrics.cases``."""
    checked = cases(logits, labels)
    confidence, edges = checked.probabilities.max(axis=1), np.linspace(0, 1, BINS + 1)
    place, right, found = _bin_of(confidence), checked.predicted == checked.labels, []
    for k in np.unique(place).tolist():
        there = place == k
        means = (float(values[there].mean()) for values in (confidence, right))
        found.append(Bin(float(edges[k]), float(edges[k + 1]), int(there.sum()), *means))
    return found


def _bin_of(confidence: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right") - 1, BINS - 1)


def brier(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Mean over cases of the squared distance between the probabilities and the truth, summed over classes."""
    truth = np.eye(cases.grid.n_classes)[cases.labels]
    return ratio(((cases.probabilities - truth) ** 2).sum(axis=1), np.ones(len(truth)), drawn)


def rps_s(cases: Cases, drawn: Resamples) -> np.ndarray:
    """Ranked probability score in seconds: squared distance between the cumulated probabilities and the cumulated
    truth, summed over classes, times their distance. Near misses cost less than far ones."""
    believed = np.cumsum(cases.probabilities, axis=1)
    truth = np.arange(cases.grid.n_classes) >= cases.labels[:, None]
    return ratio(step_s(cases.grid) * ((believed - truth) ** 2).sum(axis=1), np.ones(len(truth)), drawn)


def calibration_scores(
    logits: Any, offsets_s: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT
) -> dict[str, Estimate]:
    """All of the above with intervals over videos: ``logits`` (N, 21) against the true ``offsets_s`` (N,), the videos
    named by ``clusters`` (N,).

    ``offset_error_s`` and ``offset_error_argmax_s`` (means), ``offset_error_median_s``, ``within_40_ms`` (80, 125:
    shares), all of the expected offset unless named; ``ece``, ``brier`` and ``rps_s`` of the classes.
    """
    checked, offsets_s = _checked(logits, offsets_s)
    errors = _errors_s(checked, offsets_s, "expected")
    ones, reach = np.ones(len(errors)), 2 * GRID.max_offset_s

    def mean(values: np.ndarray, most: float) -> Estimate:
        return estimate(lambda drawn: ratio(values, ones, drawn), clusters, bootstrap, most=most)

    found = {
        "offset_error_s": mean(errors, reach),
        "offset_error_argmax_s": mean(_errors_s(checked, offsets_s, "argmax"), reach),
        "offset_error_median_s": estimate(partial(_medians, errors), clusters, bootstrap, most=reach, smooth=False),
    }
    for ms in WITHIN_MS:
        found[f"within_{ms}_ms"] = mean(errors <= ms / 1000 + 1e-9, 1.0)
    for metric, most in ((ece, 1.0), (brier, 2.0), (rps_s, reach)):
        found[metric.__name__] = estimate(partial(metric, checked), clusters, bootstrap, most=most)
    return found


def _medians(values: np.ndarray, drawn: Resamples) -> np.ndarray:
    """The median in each resample, the lower and upper middle averaged; nan without cases.

    Whole pieces of the ranked cases are counted first, then the cases of the piece that the middle lies in."""
    order, n = np.argsort(values, kind="stable"), len(values)
    ranked, size, kind = values[order], math.isqrt(n - 1) + 1, drawn.exact
    filled = np.full(-(-n // size) * size, drawn.n_clusters)  # the last piece, with a video of weight 0
    filled[:n] = drawn.cluster[order]
    pieces, found = filled.reshape(-1, size), np.empty(len(drawn.counts))
    ends = np.minimum(size * np.arange(1, len(pieces) + 1), n)
    weight = weight_above(filled[:n], ends, drawn.n_clusters, kind)
    for first in range(0, len(found), WIDE):
        counts = drawn.columns(slice(first, first + WIDE))
        padded = np.concatenate([counts, np.zeros((1, counts.shape[1]), kind)])
        up_to, each = weight(counts), np.arange(counts.shape[1])
        total = up_to[-1].astype(np.int64)

        def at(place: np.ndarray) -> np.ndarray:
            """The value of the case at this place (from 0) of each resample, its cases repeated."""
            piece = np.minimum((up_to <= place).sum(axis=0), len(pieces) - 1)  # noqa: B023  (called below)
            before = np.where(piece > 0, up_to[piece - 1, each], 0)  # noqa: B023
            below = before[:, None] + np.cumsum(padded[pieces[piece], each[:, None]], axis=1)  # noqa: B023
            return ranked[np.minimum(piece * size + (below <= place[:, None]).sum(axis=1), n - 1)]

        low, high = at(np.maximum(total - 1, 0) // 2), at(total // 2)
        found[first : first + WIDE] = np.where(total > 0, (low + high) / 2, np.nan)
    return found


def _checked(logits: Any, offsets_s: Any) -> tuple[Cases, np.ndarray]:
    offsets_s = np.asarray(offsets_s, np.float64)
    if offsets_s.ndim != 1:
        raise UsageError(f"offsets have shape {offsets_s.shape}; needed is one in seconds for each case")
    return cases(logits, classes_of(offsets_s)), offsets_s
