"""In or out of tolerance: what broadcasters ask. A stream is out if its sound is earlier or later than a table allows.

All tables lie within the class of offset 0, so the truth is the continuous offset, and the score of a case is
1 - P(offset within the table), from a density over seconds: the class probabilities joined by straight lines between
the class centres, with area 1. A model may bring scores of its own instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from avbench.scoring.calibration import centres_s, step_s
from avbench.scoring.metrics import GRID, Resamples, checked_logits, rank_cases, ranked_scores, softmax
from avbench.scoring.stats import DEFAULT, Bootstrap, estimate, ratio
from avbench.system.spelling import nearest
from avbench.types import OffsetGrid, UsageError

FALSE_ALARMS = (0.01, 0.05)
EDGES_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)  # |offset|, for the recall by size
_OWN = "EARLY/LATE in seconds such as 0.045/0.125"
_EXACT = 1e-9  # offsets are whole ticks; limits are decimals


class Tolerance(NamedTuple):
    """A table: how many seconds the sound may come early, how many late, and who says so."""

    name: str
    early_s: float
    late_s: float
    source: str

    def outside(self, offsets_s: Any) -> np.ndarray:
        """Whether each offset is out of tolerance: (...) seconds -> (...) bool. The limits themselves are within."""
        offsets_s = np.asarray(offsets_s, np.float64)
        return (offsets_s > self.early_s + _EXACT) | (offsets_s < -self.late_s - _EXACT)


TOLERANCES = {
    table.name: table
    for table in (
        Tolerance("itu-detect", 0.045, 0.125, "ITU-R BT.1359, detectability"),
        Tolerance("itu-accept", 0.090, 0.185, "ITU-R BT.1359, acceptability"),
        Tolerance("atsc", 0.015, 0.045, "ATSC IS-191"),
        Tolerance("ebu", 0.040, 0.060, "EBU R37"),
    )
}


def tolerance_of(text: str) -> Tolerance:
    """A table by its name, or one's own as ``MIN/MAX``: the offsets in seconds between which all is well, such as
    ``-0.125/0.045`` (sound up to 125 ms late or 45 ms early). ``UsageError`` for anything else, which names the
    notation of :func:`tolerance_asked`: the only one that users are told."""
    if text in TOLERANCES:
        return TOLERANCES[text]
    low, slash, high = text.partition("/")
    try:
        least, most = float(low), float(high)
    except ValueError:
        least = most = math.nan
    if not slash or not -GRID.max_offset_s <= least < most <= GRID.max_offset_s:
        otherwise = f"it is not one of {', '.join(TOLERANCES)}, nor {_OWN}"
        raise UsageError(f"tolerance {text!r}: {nearest(text, TOLERANCES, otherwise)}")
    return Tolerance(text, most, -least, "the user")


def tolerance_asked(text: str) -> Tolerance:
    """As :func:`tolerance_of`; two numbers without a sign are ``EARLY/LATE``: how many seconds the sound may come early
    and late, such as ``0.045/0.125``."""
    early, slash, late = text.partition("/")
    if text in TOLERANCES or not slash or any(part.strip().startswith(("-", "+")) for part in (early, late)):
        return tolerance_of(text)
    try:
        return tolerance_of(f"-{late}/{early}")._replace(name=text)
    except UsageError:
        raise UsageError(f"tolerance {text!r}: it is not one of {', '.join(TOLERANCES)}, nor {_OWN}") from None


def alarm_scores(probabilities: np.ndarray, table: Tolerance, grid: OffsetGrid = GRID) -> np.ndarray:
    """(..., n_classes) class probabilities -> (...) 1 - P(offset within the table)."""
    step, first = step_s(grid), float(centres_s(grid)[0])
    areas = step * (probabilities[..., 1:] + probabilities[..., :-1]) / 2
    below_centre = np.concatenate([np.zeros((*areas.shape[:-1], 1)), np.cumsum(areas, axis=-1)], axis=-1)

    def below(offset_s: float) -> np.ndarray:
        past = min(max((offset_s - first) / step, 0.0), grid.n_classes - 1.0)
        k = min(int(past), grid.n_classes - 2)
        d = (past - k) * step
        rise = (probabilities[..., k + 1] - probabilities[..., k]) / step
        return below_centre[..., k] + probabilities[..., k] * d + rise * d * d / 2

    within = (below(table.early_s) - below(-table.late_s)) / below_centre[..., -1]
    return np.clip(1 - within, 0.0, 1.0)


def roc_auc(scores: np.ndarray, positive: np.ndarray, drawn: Resamples) -> np.ndarray:
    """The chance that a positive case has a higher score than a negative one, a tie counting half: (N,) scores and
    (N,) bool -> (R,), nan where a resample lacks either."""
    n_positive, n_negative = (
        drawn.as_floats @ np.bincount(drawn.cluster[kind], minlength=drawn.n_clusters) for kind in (positive, ~positive)
    )
    pairs = n_positive * n_negative
    some_positive = 2 * np.count_nonzero(positive) <= len(positive)  # the fewer cases are looked at one by one
    few = positive if some_positive else ~positive
    if not few.any():
        return np.full(len(pairs), np.nan)
    lost = ranked_scores(rank_cases(scores, few), drawn).lost  # by the few
    found = pairs - lost if some_positive else lost
    return np.divide(found, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def alarm_limit(scores: np.ndarray, outside: np.ndarray, false_alarms: float) -> float:
    """The score above which to raise the alarm so that at most this share of the cases within tolerance raises it, as
    low as possible; nan without such cases."""
    within = np.sort(scores[~outside])
    if not len(within):
        return math.nan
    allowed = math.floor(false_alarms * len(within) + _EXACT)
    return float(within[len(within) - 1 - allowed]) if allowed < len(within) else -math.inf


def tolerance_scores(
    scores: np.ndarray,
    offsets_s: Any,
    table: Tolerance,
    clusters: Any,
    bootstrap: Bootstrap = DEFAULT,
    *,
    by_offset: bool = True,
) -> dict[str, Any]:
    """How well ``scores`` (N,) tell which of the true ``offsets_s`` (N,) are out of tolerance, with intervals over the
    videos named by ``clusters`` (N,).

    ``n`` and ``n_outside``; ``roc_auc``; ``recall_at_1_percent`` and ``recall_at_5_percent`` of false alarms, and
    (unless ``by_offset`` is False) ``by_offset``: the latter for |offset| from ``from_s`` up to below ``to_s``.
    Estimates are (value, low, high), nan where undefined. The intervals of recalls take the limits of all cases as
    given.
    """
    offsets_s = np.asarray(offsets_s, np.float64)
    outside, size = table.outside(offsets_s), np.abs(offsets_s)
    found: dict[str, Any] = {"n": len(scores), "n_outside": int(outside.sum())}
    found["roc_auc"] = estimate(lambda drawn: roc_auc(scores, outside, drawn), clusters, bootstrap, most=1.0)

    def recall(limit: float, cases: np.ndarray) -> Any:
        raised = (scores > limit) & cases
        whole = cases if limit == limit else np.zeros(len(cases))
        return estimate(lambda drawn: ratio(raised, whole, drawn), clusters, bootstrap, most=1.0)

    for share in FALSE_ALARMS:
        limit = alarm_limit(scores, outside, share)
        found[f"recall_at_{share:.0%}".replace("%", "_percent")] = recall(limit, outside)
    if not by_offset:
        return found
    found["by_offset"] = []
    for low, high in itertools.pairwise(EDGES_S):
        cases = outside & (size >= low - _EXACT) & ((size < high - _EXACT) | (high == EDGES_S[-1]))
        row = {"from_s": low, "to_s": high, "n": int(cases.sum()), "recall_at_5_percent": recall(limit, cases)}
        found["by_offset"].append(row)
    return found


def out_of_tolerance(
    logits: Any,
    offsets_s: Any,
    clusters: Any,
    tables: Sequence[Tolerance] = tuple(TOLERANCES.values()),
    bootstrap: Bootstrap = DEFAULT,
    *,
    by_offset: bool = True,
) -> dict[str, dict[str, Any]]:
    """Table's name -> ``tolerance_scores`` of ``logits`` (N, 21) against the true ``offsets_s`` (N,). Errors as in
    ``metrics.checked_logits``; ``UsageError`` if the lengths differ."""
    probabilities = softmax(checked_logits(logits))
    if np.shape(offsets_s) != (len(probabilities),):
        raise UsageError(f"there are {np.shape(offsets_s)} offsets for {len(probabilities)} rows of logits")
    return {
        table.name: tolerance_scores(
            alarm_scores(probabilities, table), offsets_s, table, clusters, bootstrap, by_offset=by_offset
        )
        for table in tables
    }
