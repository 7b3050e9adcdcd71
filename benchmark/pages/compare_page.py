"""The page of a comparison: a matrix and a forest chart for each metric, the main one first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from markupsafe import Markup

from avbench.pages import STAND_IN, charts, interval, number, render, signed
from avbench.pages.compare_text import direction, notes, origin, over, ranks, title
from avbench.scoring.matrix import Comparisons, Matrix

MOST_PAIRS = 10  # of models in one chart; with more, only the pairs with the best one
DIGITS = 3
SIZES = (("only-wide", False), ("only-narrow", True))  # on a desk, on a phone


def compare_page(found: Comparisons, matrices: Sequence[Matrix]) -> str:
    """The page as text, with these metrics; equal arguments give equal text."""
    first, *rest = sorted(matrices, key=lambda matrix: matrix.column.name != found.main)
    return render(
        "compare_page.html",
        found=found,
        title=title(found),
        data=found.runs[0].data,
        over=over(found),
        stand_in=any(STAND_IN in run.data.note for run in found.runs),
        notes=notes(found),
        metrics=[_shown(found, matrix) for matrix in (first, *rest)],
        origin=origin(found).in_words(),
        runs=[
            (name, place, run.signature, run.avbench_version, run.model.description)
            for name, place, run in zip(found.names, found.places, found.runs, strict=True)
        ],
    )


def _shown(found: Comparisons, matrix: Matrix) -> dict[str, Any]:
    """What the template needs of one metric."""
    order = matrix.order
    return {
        "column": matrix.column,
        "direction": direction(matrix),
        "rows": [
            {
                "number": row,
                "name": found.names[i],
                "value": number(matrix.values[i].value, DIGITS),
                "ends": interval(matrix.values[i].ci_low, matrix.values[i].ci_high, DIGITS),
                "rank": ranks(matrix, i),
                "cells": [None if i == j else _cell(matrix, i, j) for j in order],
            }
            for row, i in enumerate(order, 1)
        ],
        "forests": [(kind, _forest(found, matrix, narrow)) for kind, narrow in SIZES],
        "every_pair": found.n_pairs <= MOST_PAIRS,
    }


def _cell(matrix: Matrix, i: int, j: int) -> dict[str, str]:
    """Row minus column in words, and the class of the words."""
    pair, p = matrix.minus(i, j), matrix.p_corrected(i, j)
    kind = "right" if matrix.better(i, j) else "wrong" if matrix.better(j, i) else ""
    return {
        "difference": signed(pair.difference, DIGITS),
        "ends": interval(pair.ci_low, pair.ci_high, DIGITS, " to "),
        "p": "" if math.isnan(p) else f"p {number(p, DIGITS)}",
        "kind": kind,
        "star": "*" if matrix.significant(i, j) else "",
    }


def _forest(found: Comparisons, matrix: Matrix, narrow: bool) -> Markup:
    """Every pair, the better one first; or each other model minus the best. ``narrow``: for a phone."""
    order, name = matrix.order, matrix.column.title
    if found.n_pairs <= MOST_PAIRS:
        numbered = combinations(enumerate(order, 1), 2)
        rows = [_interval(matrix, i, j, f"{a} \N{MINUS SIGN} {b}") for (a, i), (b, j) in numbered]
        return charts.forest(
            rows, f"differences of {name}", f"difference of {name}", zero=True, names_px=0 if narrow else 64
        )
    rows = [_interval(matrix, i, order[0], found.names[i]) for i in order[1:]]
    x_label, names_px = f"{name} minus that of {found.names[order[0]]}", 0 if narrow else 190
    return charts.forest(rows, f"differences of {name}", x_label, zero=True, names_px=names_px)


def _interval(matrix: Matrix, i: int, j: int, label: str) -> charts.Interval:
    pair = matrix.minus(i, j)
    value, low, high = (None if math.isnan(x) else x for x in (pair.difference, pair.ci_low, pair.ci_high))
    return charts.Interval(label, value, low, high, colour=0 if matrix.significant(i, j) else 7)
