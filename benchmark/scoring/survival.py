"""How long until something happens, where some are only watched for a while (Kaplan and Meier 1958).

Each case has a time and whether the event happened then; if not, the case was *censored*: nothing happened up to that
time, and no more is known. A case censored at the time of an event was still at risk of it.

The functions need at least one case; they are nan in resamples that have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from avbench.scoring.metrics import Resamples, everything_once


@dataclass(frozen=True, eq=False)
class Times:
    """The times of C cases, (C,) float64 seconds, and whether the event happened then, (C,) bool."""

    time_s: np.ndarray
    event: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)

    def take(self, rows: np.ndarray) -> Times:
        """Some of the cases."""
        return Times(self.time_s[rows], self.event[rows])

    @cached_property
    def distinct_s(self) -> np.ndarray:
        """(K,) the different times, ascending."""
        return np.unique(self.time_s)

    def survival(self, drawn: Resamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """In each resample and at each of ``distinct_s``, (R, K) each: cases at risk, events, and the share that has
        survived, events at that time included. The share is nan where a resample has no case."""
        place = np.searchsorted(self.distinct_s, self.time_s)
        shape = (drawn.n_clusters, len(self.distinct_s))
        ended, events = np.zeros(shape), np.zeros(shape)
        np.add.at(ended, (drawn.cluster, place), 1)
        np.add.at(events, (drawn.cluster, place), self.event)
        counts = drawn.counts.astype(np.float64)
        ended, events = counts @ ended, counts @ events
        at_risk = np.cumsum(ended[:, ::-1], axis=1)[:, ::-1]
        share = np.cumprod(1 - np.divide(events, at_risk, out=np.zeros_like(events), where=at_risk > 0), axis=1)
        return at_risk, events, np.where(at_risk[:, :1] > 0, share, np.nan)


def table(times: Times) -> list[dict[str, Any]]:
    """The Kaplan-Meier curve, a row for 0 s and one for each time: time_s, at_risk, events, censored, survival."""
    if not len(times):
        return []
    at_risk, events, survival = (rows[0] for rows in times.survival(everything_once(len(times))))
    left = np.append(at_risk[1:], 0)
    rows = [
        {"time_s": float(t), "at_risk": int(n), "events": int(d), "censored": int(n - d - after), "survival": float(s)}
        for t, n, d, after, s in zip(times.distinct_s, at_risk, events, left, survival, strict=True)
    ]
    start = {"time_s": 0.0, "at_risk": len(times), "events": 0, "censored": 0, "survival": 1.0}
    return rows if rows[0]["time_s"] == 0 else [start, *rows]


def restricted_mean(times: Times, drawn: Resamples, limit_s: float) -> np.ndarray:
    """(R,) the mean time up to ``limit_s``: the area below the curve until then. Where the last case was censored
    before, the curve goes on as it is."""
    survival = times.survival(drawn)[2]
    edges = np.minimum(np.concatenate([[0.0], times.distinct_s, [limit_s]]), limit_s)
    steps = np.concatenate([np.ones((len(survival), 1)), survival], axis=1)
    return steps @ np.maximum(np.diff(edges), 0)


def median(times: Times, drawn: Resamples, limit_s: float) -> np.ndarray:
    """(R,) the first time at which at most half survive, ``limit_s`` if that is not before."""
    survival = times.survival(drawn)[2]
    reached = survival <= 0.5 + 1e-12  # a product of fractions, rounded
    first = np.where(reached.any(axis=1), times.distinct_s[reached.argmax(axis=1)], limit_s)
    return np.where(np.isnan(survival[:, 0]), np.nan, np.minimum(first, limit_s))


def share_within(times: Times, drawn: Resamples, limit_s: float) -> np.ndarray:
    """(R,) the share whose event happened by ``limit_s``, allowing for those censored."""
    survival = times.survival(drawn)[2]
    known = np.searchsorted(times.distinct_s, limit_s, side="right")
    return 1 - (survival[:, known - 1] if known else np.where(np.isnan(survival[:, 0]), np.nan, 1.0))
