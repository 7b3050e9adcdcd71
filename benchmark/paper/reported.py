"""What the paper reports. ``reported.json`` is the only place where its numbers and words are written."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple


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


class Quotation(NamedTuple):
    """The paper's own ``words`` on what an exhibit measures. ``about``: what they are said of, in ours."""

    exhibit: str
    section: str
    about: str
    words: str


@cache
def cells() -> tuple[Reported, ...]:
    """All reported numbers, in the paper's order."""
    return tuple(Reported(**cell) for cell in _read()["cells"])


def quotations(exhibit: str) -> tuple[Quotation, ...]:
    """The paper's words on what an exhibit measures."""
    return tuple(found for words in _read()["quotations"] if (found := Quotation(**words)).exhibit == exhibit)


def _read() -> dict[str, Any]:
    return json.loads(files("avbench.paper").joinpath("reported.json").read_text(encoding="utf-8"))


def of_table(table: str) -> tuple[Reported, ...]:
    """The numbers of one table or figure ("table3"), in the paper's order."""
    return tuple(cell for cell in cells() if cell.table == table)


def value(table: str, row: str, column: str) -> float | None:
    """The paper's number for a cell, None if it reports none or it is not available."""
    return next((c.value for c in cells() if (c.table, c.row, c.column) == (table, row, column)), None)
