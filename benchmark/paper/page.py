"""The page over all tables and figures, ``index.html``: one file, no network requests. Measured and reported numbers
never share a table."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.pages import UNDEFINED, render
from avbench.paper.exhibits import FAILS, HOLDS, OPEN, TOO_FEW, Cell, Exhibit
from avbench.paper.figures import PAINTERS
from avbench.paper.replays import summary
from avbench.paper.write import ELSEWHERE, WIDE, number_in_words

VERDICTS = {HOLDS: "right", FAILS: "wrong", OPEN: "", TOO_FEW: ""}  # verdict -> the class of its words


def page(exhibits: Sequence[Exhibit], facts: Mapping[str, Any], folder: Path) -> str:
    """The page as text. ``facts``: of paper.json; ``folder``: where the drawn figures and the other files are."""
    shown = [_shown(exhibit, folder) for exhibit in exhibits]
    counts = {verdict: sum(one["counts"][verdict] for one in shown) for verdict in VERDICTS}
    counts = {verdict: n for verdict, n in counts.items() if n or verdict != TOO_FEW}  # the rare one only where it is
    return render(
        "paper.html",
        facts=facts,
        n_failed=len({failure["segment_id"] for failure in facts["failures"]}),
        computed=summary(facts["counters"]) if facts["counters"] else "",
        version=exhibits[0].version if exhibits else "",
        counts=counts,
        n_claims=sum(counts.values()),
        verdicts={verdict: VERDICTS[verdict] for verdict in counts},
        elsewhere=ELSEWHERE,
        own=next((exhibit.own for exhibit in exhibits if exhibit.own), ()),
        few=next((exhibit.few for exhibit in exhibits if exhibit.few), ""),
        exhibits=shown,
    )


def _shown(exhibit: Exhibit, folder: Path) -> dict[str, Any]:
    """What the template needs of one table or figure."""
    drawn = exhibit.name in PAINTERS
    suffixes = [".tex", ".csv", ".json", ".md", *([".pdf", ".svg", ".png"] if drawn else [])]
    by = {(c.row, c.column): c for c in exhibit.cells}
    reported = [row for row in exhibit.rows if any(c.row == row and c.paper is not None for c in exhibit.cells)]
    counts = Counter(claim.verdict for claim in exhibit.judged)
    ns = {(c.n_scored, c.n_total) for c in exhibit.cells}
    return {
        "it": exhibit,
        "figure": _as_address((folder / f"{exhibit.name}.svg").read_bytes()) if drawn else "",
        "counts": {verdict: counts[verdict] for verdict in VERDICTS},
        "files": [f"{exhibit.name}{suffix}" for suffix in suffixes],
        "long": len(exhibit.columns) > WIDE,
        "by_n": exhibit.unit == "score" and len(ns) > 1,
        "rows": [
            (row, [_measured(by.get((row, column)), exhibit) for column in exhibit.columns]) for row in exhibit.rows
        ],
        "n": {row: next(f"{c.n_scored}/{c.n_total}" for c in exhibit.cells if c.row == row) for row in exhibit.rows},
        "cells": [(c, *_measured(c, exhibit)) for c in exhibit.cells],
        "reported": [(row, [_paper(by.get((row, column)), exhibit) for column in exhibit.columns]) for row in reported],
    }


def _measured(c: Cell | None, exhibit: Exhibit) -> tuple[str, str]:
    """Value and interval in words."""
    if c is None or c.value is None:
        return UNDEFINED, ""
    ends = "" if c.ci_low is None or c.ci_high is None else f"{c.ci_low:.3f} … {c.ci_high:.3f}"
    return number_in_words(c.value, c.column, exhibit.unit), ends


def _paper(c: Cell | None, exhibit: Exhibit) -> str:
    return UNDEFINED if c is None or c.paper is None else number_in_words(c.paper, c.column, exhibit.unit)


def _as_address(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
