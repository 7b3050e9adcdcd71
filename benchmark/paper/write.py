"""A table or figure as Markdown, LaTeX, CSV and JSON. Measured and reported numbers never share a column."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from avbench.pages.formats import UNDEFINED, Table, as_text, escape_markdown, estimate, origin_in_markdown
from avbench.pages.tables import numbers, table
from avbench.paper.exhibits import FAILS, HOLDS, MS, OPEN, TOO_FEW, Cell, Claim, Exhibit
from avbench.paper.figures import draw
from avbench.scoring.stats import interval_in_words
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, printable

SCHEMA_VERSION = 1
ELSEWHERE = "on RealSync broadcast video: another data set, so do not compare with these numbers"
REPORTED = f"**Reported by the paper** {ELSEWHERE}"
WIDE = 12  # columns: with more, a distribution, one line per cell is easier to read


def write(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Write NAME.md, NAME.tex, NAME.csv, NAME.json and, for a figure, NAME.svg, NAME.png and NAME.pdf into ``folder``;
    returns the paths. ``AvbenchError`` if a file cannot be written.
    """
    texts = {
        ".md": markdown(exhibit),
        ".tex": as_text(tables(exhibit), "latex"),
        ".csv": to_csv(exhibit),
        ".json": to_json(exhibit),
    }
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
        "signatures": [{"of": whose, "signature": signature} for whose, signature in exhibit.signatures],
        "version": exhibit.version,
        "own": list(exhibit.own),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(exhibit: Exhibit) -> str:
    """One line per cell: ``value`` is measured, ``paper`` reported by the paper, ``n`` as ``n_scored``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", *Cell._fields, "signature", "version", "n"])
    for c in exhibit.cells:
        origin = exhibit.signature_of(c.row), exhibit.version, c.n_scored
        writer.writerow([exhibit.name, *("" if x is None else x for x in c), *origin])
    return out.getvalue()


def csv_of_all(exhibits: Sequence[Exhibit]) -> str:
    """The lines of all exhibits under one header."""
    texts = list(map(to_csv, exhibits))
    return texts[0] + "".join(text.partition("\n")[2] for text in texts[1:])


def tables(exhibit: Exhibit) -> list[Table]:
    """The tables of an exhibit: measured; what the paper reports, if it does; verdicts, if it claims anything."""
    measured, origin = f"measured on {exhibit.measured_on}", exhibit.origin
    long = len(exhibit.columns) > WIDE
    headers, rows = _long(exhibit) if long else _grid(exhibit, measured=True)
    title = f"{exhibit.title}, {measured}{_scored(exhibit)}"
    found = [Table(exhibit.name, title, headers, rows, origin, exhibit.notes)]
    if any(c.paper is not None for c in exhibit.cells):
        title = f"{exhibit.title}, reported by the paper on RealSync broadcast video"
        grid, notes = _grid(exhibit, measured=False), ["Another data set: do not compare what was measured with it."]
        found.append(Table(f"{exhibit.name}-reported", title, *grid, origin, notes, beside="What was measured: "))
    if exhibit.judged:
        title = f"{exhibit.title}: {exhibit.claimed}, and what the paired difference shows here, {measured}"
        found.append(Table(f"{exhibit.name}-claims", title, *_verdicts(exhibit.judged), origin, exhibit.of_claims))
    return found


def markdown(exhibit: Exhibit, level: int = 1) -> str:
    """Heading, measured table, reported table, the paper's words, verdicts, notes."""
    on = f"**Measured** on {_plain(exhibit.measured_on)}{_scored(exhibit)}"
    lines = [f"{'#' * level} {exhibit.title}", "", f"{on}; {origin_in_markdown(exhibit.origin)}", ""]
    wide = len(exhibit.columns) > WIDE
    lines += [_table(*(_long(exhibit) if wide else _grid(exhibit, measured=True))), ""]
    if exhibit.unit == "score" and not exhibit.few:
        lines += [interval_in_words(0.95), ""]
    if any(c.paper is not None for c in exhibit.cells):
        lines += [REPORTED, "", _table(*_grid(exhibit, measured=False)), ""]
    if exhibit.quotations:
        lines += ["**The paper's own words**; it measured nothing of the kind", ""]
        lines += [f'- {q.about}: "{_plain(q.words)}" (section {q.section})' for q in exhibit.quotations]
        lines += [""]
    if exhibit.judged:
        lines += [f"**{exhibit.claimed}**, and what the paired difference shows here", ""]
        lines += [verdicts(exhibit.judged), "", *(f"{_plain(note)}\n" for note in exhibit.of_claims)]
    lines += [f"- {_plain(note)}" for note in exhibit.notes]
    return "\n".join(lines).rstrip() + "\n"


def plain(exhibit: Exhibit) -> str:
    """The same for a terminal: tables no wider than it is, and no markup."""
    long = len(exhibit.columns) > WIDE
    headers, rows = _long(exhibit) if long else _grid(exhibit, measured=True)
    lines = [exhibit.title, f"measured on {exhibit.measured_on}{_scored(exhibit)}", "", *numbers(rows, headers)]
    if exhibit.unit == "score" and not exhibit.few:
        lines += [interval_in_words(0.95)]
    if any(c.paper is not None for c in exhibit.cells):
        headers, rows = _grid(exhibit, measured=False)
        lines += ["", f"reported by the paper {ELSEWHERE}", *numbers(rows, headers)]
    if exhibit.quotations:
        lines += ["", "the paper's own words; it measured nothing of the kind"]
        lines += [f'{q.about}: "{q.words}" (section {q.section})' for q in exhibit.quotations]
    if exhibit.judged:
        headers, rows = _verdicts(exhibit.judged)
        lines += ["", f"{exhibit.claimed}, and what the paired difference shows here", table(rows, headers)]
        lines += exhibit.of_claims
    lines += ["", *exhibit.notes, _origin(exhibit)]
    return "\n".join(printable(line) for text in lines for line in text.split("\n"))


def _origin(exhibit: Exhibit) -> str:
    """Signature, version and n; without the list of the models, which the files have."""
    origin = exhibit.origin
    said, several, _ = origin.in_words().partition(", with m: ")
    models = f" (m: of each row, in {exhibit.name}.json); avbench {origin.version}; n = {origin.n}"
    return f"{said}{models if several else ''}"


def verdicts(claims: Sequence[Claim]) -> str:
    """The claims of one table as a Markdown table."""
    headers, rows = _verdicts(claims)
    lines = [[_plain(claim), f"**{verdict}**", difference] for claim, verdict, difference in rows]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def _verdicts(claims: Sequence[Claim]) -> tuple[list[str], list[list[str]]]:
    rows = [[c.claim, c.verdict, estimate(c.difference, c.ci_low, c.ci_high, signed=True)] for c in claims]
    return ["claim", "here", "difference [95 %]"], rows


def orderings(exhibits: Sequence[Exhibit]) -> str:
    """All claims of the exhibits as one Markdown table; a line before it counts the verdicts and names the data."""
    counts = Counter(c.verdict for exhibit in exhibits for c in exhibit.judged)
    counted = ", ".join(
        f"{counts[word]} {word}" for word in (HOLDS, FAILS, OPEN, TOO_FEW) if counts[word] or word != TOO_FEW
    )
    data = dict.fromkeys(e.measured_on for e in exhibits if e.judged)
    lines = [f"{counts.total()} orderings on {'; '.join(map(_plain, data))}: {counted}.", ""]
    rows = [[_plain(name), _plain(text), difference, f"**{word}**"] for name, text, difference, word in _all(exhibits)]
    headers = ["", "ordering in the paper", "here: difference [95 %]", "holds?"]
    lines.append(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    return "\n".join(lines) + "\n"


def verdicts_for_a_terminal(exhibits: Sequence[Exhibit]) -> str:
    """The claims of all exhibits as plain text, one line each; "" if there are none."""
    headers = ["", "ordering in the paper", "here: difference [95 %]", "holds?"]
    rows = _all(exhibits)
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True) if rows else ""


def _all(exhibits: Sequence[Exhibit]) -> list[tuple[str, str, str, str]]:
    """(exhibit, claim, difference, verdict) of all claims."""
    return [
        (exhibit.name, c.claim, estimate(c.difference, c.ci_low, c.ci_high, signed=True), c.verdict)
        for exhibit in exhibits
        for c in exhibit.judged
    ]


def _scored(exhibit: Exhibit) -> str:
    if exhibit.few:
        return f"; {exhibit.few}"
    return "; 95 % intervals over videos" if exhibit.unit == "score" else ""


def _grid(exhibit: Exhibit, measured: bool) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: of what was measured, or of what the paper reports."""
    several = measured and exhibit.unit == "score" and len({(c.n_scored, c.n_total) for c in exhibit.cells}) > 1
    by = {(c.row, c.column): c for c in exhibit.cells}
    rows = []
    for row in exhibit.rows:
        cells = [by.get((row, column)) for column in exhibit.columns]
        if not measured and all(c is None or c.paper is None for c in cells):
            continue
        texts = [_cell(c, exhibit, measured) for c in cells]
        first = next(c for c in cells if c is not None)
        rows.append([row, *texts, *([f"{first.n_scored}/{first.n_total}"] if several else [])])
    return ["", *exhibit.columns, *(["n"] if several else [])], rows


def _long(exhibit: Exhibit) -> tuple[list[str], list[list[str]]]:
    return ["", "", "measured"], [[c.row, c.column, _cell(c, exhibit, True)] for c in exhibit.cells]


def _cell(c: Cell | None, exhibit: Exhibit, measured: bool) -> str:
    if c is None:
        return UNDEFINED
    if not measured:
        return UNDEFINED if c.paper is None else number_in_words(c.paper, c.column, exhibit.unit)
    if c.value is None:
        return UNDEFINED
    if c.ci_low is None or c.ci_high is None:
        return number_in_words(c.value, c.column, exhibit.unit)
    return estimate(c.value, c.ci_low, c.ci_high)


def number_in_words(value: float, column: str, unit: str) -> str:
    """A value of an exhibit, with as many digits as its column and ``unit`` ask for."""
    if unit == "count":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
    return f"{value:.1f}" if column == MS else f"{value:.3f}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[_plain(cell) for cell in row] for row in rows]
    return tabulate(cells, list(map(_plain, headers)), tablefmt="pipe", disable_numparse=True)


_plain = escape_markdown
