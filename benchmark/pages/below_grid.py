"""What a page says below the grid: how far off in seconds, whether confidence means what it says, what is out of
tolerance, and pairs. Drawn by ``templates/below_grid.html`` for a run's page and an entry's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages import charts
from avbench.results.run import PairScore, Score, Scores
from avbench.results.truth import Truth
from avbench.scoring.below_grid import BELOW_GRID, on_the_grid
from avbench.scoring.calibration import Bin, reliability
from avbench.scoring.metrics import Column
from avbench.scoring.stats import Bootstrap
from avbench.scoring.tolerance import EDGES_S, TOLERANCES, Tolerance, out_of_tolerance

OFFSETS = tuple(name for name in BELOW_GRID if name.startswith(("offset_error", "within")))
FEW_WITHIN = 20  # segments of which 5 % is one
CALIBRATION = ("ece", "brier", "rps_s")


class ToleranceRow(NamedTuple):
    """One table of limits: its scores; and, where the segments may be shown, how many are within and the recall by size
    of the offset: (n out of tolerance, recall at 5 % false alarms) for each step of ``EDGES_S``."""

    table: Tolerance
    roc_auc: Score
    recall_1: Score
    recall_5: Score
    n_within: int | None
    by_offset: list[tuple[int, float]]


class BelowGrid(NamedTuple):
    """The figures of one model. ``bins`` and ``chart`` (reliability) are empty where the segments may not be shown;
    ``on_grid``: whether all offsets are class centres, None if that may not be shown."""

    offsets: list[tuple[Column, Score]]
    calibration: list[tuple[Column, Score]]
    bins: list[Bin]
    chart: Markup
    tolerance: list[ToleranceRow]
    steps: list[str]
    on_grid: bool | None

    @property
    def few_within(self) -> bool:
        """Whether one of the tables has too few segments within its limits to tell 5 % of them."""
        return any(row.n_within is not None and row.n_within < FEW_WITHIN for row in self.tolerance)


def below_grid(scores: Scores, answers: Truth | None, logits: np.ndarray) -> BelowGrid | None:
    """The section of a page; None if ``scores`` lack these figures (an older run, another selection, changing offsets).

    ``answers``: the truth of ``logits`` (N, 21) at the scored window; None if nothing about single segments may be
    readable from the page.
    """
    if any(name not in scores for name in BELOW_GRID):
        return None
    bins: list[Bin] = []
    details: dict[str, Any] = {}
    on_grid = None
    if answers is not None and answers.offsets_s is not None and len(answers):
        bins, on_grid = reliability(logits, answers.labels), on_the_grid(answers.offsets_s)
        details = out_of_tolerance(logits, answers.offsets_s, answers.clusters, bootstrap=Bootstrap(0))
    rows = []
    for name, table in TOLERANCES.items():
        start, found = f"out_of_{name.replace('-', '_')}", details.get(name)
        rows.append(
            ToleranceRow(
                table,
                scores[f"{start}_roc_auc"],
                scores[f"{start}_recall_1_percent"],
                scores[f"{start}_recall_5_percent"],
                found["n"] - found["n_outside"] if found else None,
                [(row["n"], row["recall_at_5_percent"].value) for row in found["by_offset"]] if found else [],
            )
        )
    return BelowGrid(
        offsets=[(BELOW_GRID[name], scores[name]) for name in OFFSETS],
        calibration=[(BELOW_GRID[name], scores[name]) for name in CALIBRATION],
        bins=bins,
        chart=_reliability_chart(bins) if bins else Markup(""),
        tolerance=rows,
        steps=[f"{low:g}–{high:g} s" for low, high in itertools.pairwise(EDGES_S)],
        on_grid=on_grid,
    )


def _reliability_chart(bins: Sequence[Bin]) -> Markup:
    said = charts.Line("share right", [b.confidence for b in bins], [b.right for b in bins], colour=0)
    ideal = charts.Line("as sure as right", [0.0, 1.0], [0.0, 1.0], colour=7)
    title = "share of right answers against the probability that was given to them"
    return charts.curve([ideal, said], title, "probability of the top class", x_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1])


class Shift(NamedTuple):
    """The pairs of one shift (None: of all): the scores over both directions, with early and with late sound."""

    shift_s: float | None
    both: PairScore
    early: PairScore
    late: PairScore


def pair_section(pairs: Sequence[PairScore]) -> dict[str, Any] | None:
    """What the section on pairs shows: its ``rows`` in the order of ``pairs``, and the shares over the shifts as a
    ``chart``; None without pairs."""
    if not pairs:
        return None
    of = {(pair.shift_s, str(pair.direction)): pair for pair in pairs}
    shifts = list(dict.fromkeys(pair.shift_s for pair in pairs))
    rows = [Shift(shift_s, of[shift_s, "both"], of[shift_s, "early"], of[shift_s, "late"]) for shift_s in shifts]
    xs = [shift_s for shift_s in shifts if shift_s is not None]
    lines = []
    for colour, direction in enumerate(("early", "late")):
        there = [of[x, direction] for x in xs]
        bounds = ([pair.ci_low for pair in there], [pair.ci_high for pair in there])
        lines.append(charts.Line(f"{direction} sound", xs, [pair.value for pair in there], *bounds, colour))
    title = "share of pairs in which the stream in sync is ahead, over the shift"
    guess = [charts.Reference("a guess", 0.5)]
    chart = charts.curve(lines, title, "shift, seconds", references=guess) if len(xs) > 1 else Markup("")
    return {"rows": rows, "chart": chart}
