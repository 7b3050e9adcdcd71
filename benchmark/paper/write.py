"""A table or figure as Markdown, CSV and JSON. Measured and reported numbers never share a column."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from avbench.paper.exhibits import FAILS, HOLDS, MS, OPEN, Cell, Claim, Exhibit
from avbench.paper.figures import draw
from avbench.scoring.stats import interval_in_words
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError

SCHEMA_VERSION = 1
UNDEFINED = "–"
REPORTED = (
    "**Reported by the paper** on RealSync broadcast video: another data set, so do not compare with these numbers"
)


def write(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Write NAME.md, NAME.csv, NAME.json and, for a figure, NAME.svg and NAME.png into ``folder``; returns the paths.

    ``AvbenchError`` if a file cannot be written.
    """
    texts = {".md": markdown(exhibit), ".csv": to_csv(exhibit), ".json": to_json(exhibit)}
    paths = [write_text(folder / f"{exhibit.name}{suffix}", text) for suffix, text in texts.items()]
    return paths + draw(exhibit, folder)


def write_text(path: Path, text: str) -> Path:
    """Write a file atomically; returns its path. ``AvbenchError`` if it cannot be written."""
    try:
        atomic_write_bytes(path, text.encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def to_json(exhibit: Exhibit) -> str:
    """The exhibit for programs: ``cells`` and ``claims``, the lines of a figure that are no cells (``curves``), and the
    paper's words (``quotations``); strict JSON, undefined is null."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": exhibit.name,
        "title": exhibit.title,
        "measured_on": exhibit.measured_on,
        "cells": [c._asdict() for c in exhibit.cells],
        "claims": [c._asdict() for c in exhibit.claims],
        "settings": exhibit.settings,
        "notes": exhibit.notes,
        "quotations": [q._asdict() for q in exhibit.quotations],
        "curves": [c._asdict() for c in exhibit.curves],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(exhibit: Exhibit) -> str:
    """One line per cell: ``value`` is measured, ``paper`` reported by the paper."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", *Cell._fields])
    for c in exhibit.cells:
        writer.writerow([exhibit.name, *("" if x is None else x for x in c)])
    return out.getvalue()


def markdown(exhibit: Exhibit, level: int = 1) -> str:
    """Heading, measured table, reported table, the paper's words, verdicts, notes."""
    lines = [f"{'#' * level} {exhibit.title}", "", f"**Measured** on {exhibit.measured_on}{_scored(exhibit)}", ""]
    wide = len(exhibit.columns) > 12  # a distribution: one line per cell is easier to read
    lines += [_long(exhibit) if wide else _grid(exhibit, measured=True), ""]
    if exhibit.unit == "score":
        lines += [interval_in_words(0.95), ""]
    if any(c.paper is not None for c in exhibit.cells):
        lines += [REPORTED, "", _grid(exhibit, measured=False), ""]
    if exhibit.quotations:
        lines += ["**The paper's own words**; it measured nothing of the kind", ""]
        lines += [f'- {q.about}: "{_plain(q.words)}" (section {q.section})' for q in exhibit.quotations]
        lines += [""]
    if exhibit.claims:
        lines += [f"**{exhibit.claimed}**, and what the paired difference shows here", ""]
        lines += [verdicts(exhibit.claims), ""]
    lines += [f"- {_plain(note)}" for note in exhibit.notes]
    return "\n".join(lines).rstrip() + "\n"


def verdicts(claims: Sequence[Claim]) -> str:
    """The claims of one table as a Markdown table."""
    rows = [
        [_plain(c.claim), f"**{c.verdict}**", _interval(c.difference, c.ci_low, c.ci_high, sign=True)] for c in claims
    ]
    return _table(rows, ["claim", "here", "difference [95 %]"])


def orderings(exhibits: Sequence[Exhibit]) -> str:
    """All claims of the exhibits as one Markdown table; a line before it counts the verdicts and names the data."""
    counts = Counter(c.verdict for exhibit in exhibits for c in exhibit.claims)
    counted = ", ".join(f"{counts[word]} {word}" for word in (HOLDS, FAILS, OPEN))
    data = dict.fromkeys(e.measured_on for e in exhibits if e.claims)
    lines = [f"{counts.total()} orderings on {'; '.join(map(_plain, data))}: {counted}.", ""]
    rows = [[_plain(name), _plain(text), difference, f"**{word}**"] for name, text, difference, word in _all(exhibits)]
    lines.append(_table(rows, ["", "ordering in the paper", "here: difference [95 %]", "holds?"]))
    return "\n".join(lines) + "\n"


def verdicts_for_a_terminal(exhibits: Sequence[Exhibit]) -> str:
    """The claims of all exhibits as plain text, one line each; "" if there are none."""
    headers = ["", "ordering in the paper", "here: difference [95 %]", "holds?"]
    rows = _all(exhibits)
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True) if rows else ""


def _all(exhibits: Sequence[Exhibit]) -> list[tuple[str, str, str, str]]:
    """(exhibit, claim, difference, verdict) of all claims."""
    return [
        (exhibit.name, c.claim, _interval(c.difference, c.ci_low, c.ci_high, sign=True), c.verdict)
        for exhibit in exhibits
        for c in exhibit.claims
    ]


def _scored(exhibit: Exhibit) -> str:
    if exhibit.unit != "score":
        return ""
    pairs = {(c.n_scored, c.n_total) for c in exhibit.cells}
    text = "; 95 % intervals over videos"
    if len(pairs) == 1:
        n, of = pairs.pop()
        text = f"; {n}/{of} segments" + text
    return text


def _grid(exhibit: Exhibit, measured: bool) -> str:
    several = measured and exhibit.unit == "score" and len({(c.n_scored, c.n_total) for c in exhibit.cells}) > 1
    by = {(c.row, c.column): c for c in exhibit.cells}
    rows = []
    for row in exhibit.rows:
        cells = [by.get((row, column)) for column in exhibit.columns]
        if not measured and all(c is None or c.paper is None for c in cells):
            continue
        texts = [_cell(c, exhibit, measured) for c in cells]
        first = next(c for c in cells if c is not None)
        rows.append([_plain(row), *texts, *([f"{first.n_scored}/{first.n_total}"] if several else [])])
    return _table(rows, ["", *exhibit.columns, *(["n"] if several else [])])


def _long(exhibit: Exhibit) -> str:
    rows = [[_plain(c.row), c.column, _cell(c, exhibit, True)] for c in exhibit.cells]
    return _table(rows, ["", "", "measured"])


def _cell(c: Cell | None, exhibit: Exhibit, measured: bool) -> str:
    if c is None:
        return UNDEFINED
    if not measured:
        return UNDEFINED if c.paper is None else _number(c.paper, c.column, exhibit.unit)
    if c.value is None:
        return UNDEFINED
    if c.ci_low is None or c.ci_high is None:
        return _number(c.value, c.column, exhibit.unit)
    return _interval(c.value, c.ci_low, c.ci_high)


def _number(value: float, column: str, unit: str) -> str:
    if unit == "count":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
    return f"{value:.1f}" if column == MS else f"{value:.3f}"


def _interval(value: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    if value is None:
        return UNDEFINED
    plus = "+" if sign else ""
    text = f"{value:{plus}.3f}"
    return text if low is None or high is None else f"{text} [{low:{plus}.3f}, {high:{plus}.3f}]"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def _plain(text: str) -> str:
    """Escape stars (emphasis) and bars (cell borders) for Markdown."""
    return text.replace("*", "\\*").replace("|", "\\|")
