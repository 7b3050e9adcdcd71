"""Which rows of a long table a page shows: all of a short one, else every k-th, and it says so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MOST_SHOWN = 500


class Sample(NamedTuple):
    """Some rows of a table. ``rows``: their indices, ascending. ``note``: what is shown, such as "500 of 100,000
    segments, every 200th"; empty if that is all."""

    rows: np.ndarray  # (n,) int64
    note: str


def sampled(n: int, what: str = "segments", most: int = MOST_SHOWN) -> Sample:
    """Which of ``n`` rows to show, the first of every k with the least k that leaves ``most`` of them or fewer.
    ``what``: the plural of what a row is."""
    step = max(1, -(-n // most))
    rows = np.arange(0, n, step, dtype=np.int64)
    return Sample(rows, f"{len(rows):,} of {n:,} {what}, every {_ordinal(step)}" if step > 1 else "")


def _ordinal(number: int) -> str:
    """2 -> "2nd"."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
