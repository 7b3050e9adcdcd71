"""The forest plot of a comparison: each model minus the best one, a panel a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avbench.pages.compare_text import notes, origin, over, title
from avbench.pages.drawing import COLOURS, caption, check_format, drawing, literal, write_figure
from avbench.scoring.matrix import Comparisons, Matrix

ROW_IN, AROUND_IN = 0.24, 1.0  # height of a row, and of what is above and below the rows of a panel


def plot_compared(found: Comparisons, matrices: Sequence[Matrix], path: Path) -> None:
    """Draws these metrics of ``found``; errors as of ``write_figure``."""
    check_format(path)
    others = len(found.runs) - 1
    with drawing(6.4, (AROUND_IN + ROW_IN * others) * len(matrices) + 1.0) as figure:
        panels = figure.subplots(len(matrices), 1, squeeze=False)[:, 0]
        for axis, matrix in zip(panels, matrices, strict=True):
            _panel(axis, found, matrix)
        figure.suptitle(literal(f"{title(found)}\n{over(found)}"), fontsize=9)
        caption(figure, f"{notes(found)[0].replace('*', 'Filled:', 1)} {origin(found).in_words()}")
        write_figure(figure, path)


def _panel(axis: Any, found: Comparisons, matrix: Matrix) -> None:
    best, *others = matrix.order
    for row, i in enumerate(others):
        pair = matrix.minus(i, best)
        if math.isnan(pair.difference):
            continue
        colour = COLOURS[2] if matrix.significant(i, best) else "#57606a"
        if not math.isnan(pair.ci_low):
            axis.plot([pair.ci_low, pair.ci_high], [row, row], c=colour, lw=1.6)
        face = colour if matrix.significant(i, best) else "white"
        axis.plot([pair.difference], [row], "o", ms=5, mec=colour, mfc=face)
    axis.axvline(0, c="#57606a", lw=0.8, ls="--")
    axis.set_yticks(range(len(others)), [literal(found.names[i]) for i in others])
    axis.set_ylim(len(others) - 0.5, -0.5)
    better = "right" if matrix.column.higher_is_better else "left"
    axis.set_xlabel(literal(f"{matrix.column.title} ({better} is better)\nminus that of {found.names[best]}"))
    axis.grid(alpha=0.25, lw=0.5, axis="x")
