"""What the paper reports. ``reported.json`` is the only place where its numbers are written."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Reported(NamedTuple):
    """One number of the paper, measured on its own broadcast video.

    ``metric``: a name of ``METRICS``, "latency_ms" or "count". ``selection``: "final" or "best_iter". ``windows``: in
    the stream; ``iteration``: the one scored, None for the best one. ``gradient_windows`` (K) and
    ``training_windows`` (H) are Table 5's. ``where``: other conditions of the number, in words.
    """

    table: str
    row: str
    column: str
    value: float
    metric: str
    selection: str | None
    hop_s: float | None
    windows: int | None
    iteration: int | None
    gradient_windows: int | None = None
    training_windows: int | None = None
    where: str = ""


@cache
def cells() -> tuple[Reported, ...]:
    """All reported numbers, in the paper's order."""
    text = files("avbench.paper").joinpath("reported.json").read_text(encoding="utf-8")
    return tuple(Reported(**cell) for cell in json.loads(text)["cells"])


def of_table(table: str) -> tuple[Reported, ...]:
    """The numbers of one table or figure ("table3"), in the paper's order."""
    return tuple(cell for cell in cells() if cell.table == table)


def value(table: str, row: str, column: str) -> float | None:
    """The paper's number for a cell, None if it reports none or it is not available."""
    return next((c.value for c in cells() if (c.table, c.row, c.column) == (table, row, column)), None)
