"""Figures 1, 2 and 4, drawn from their cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.pages.drawing import COLOURS, drawing, write_figure
from avbench.pages.offsets_plot import event_bars
from avbench.paper.exhibits import EVENTS_ROW, FIG4_HOPS_S, FIG4_METRICS, ISOLATED_ROW, SD_ROW, Cell, Exhibit, title_of
from avbench.runs.sweep_plot import MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")


def draw(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Write NAME.svg and NAME.png into ``folder``; returns the paths, none for a table."""
    painter = {"fig1": _fig1, "fig2": _fig2, "fig4": _fig4}.get(exhibit.name)
    if painter is None:
        return []
    paths = [folder / f"{exhibit.name}{suffix}" for suffix in SUFFIXES]
    width, height = {"fig1": (11.5, 3.4), "fig2": (9.5, 3.6), "fig4": (8.6, 3.6)}[exhibit.name]
    with drawing(width, height) as figure:
        painter(exhibit, figure)
        figure.suptitle(exhibit.measured_on, fontsize=9)
        for path in paths:
            write_figure(figure, path)
    return paths


def _bars(axis: Any, cells: list[Cell], colour: str) -> None:
    places = range(len(cells))
    axis.bar(places, [c.value or 0.0 for c in cells], color=colour, width=0.8)
    for place, c in zip(places, cells, strict=True):
        if c.value is not None and c.ci_low is not None and c.ci_high is not None:
            axis.plot([place, place], [c.ci_low, c.ci_high], c="#444444", lw=0.9)
    axis.grid(axis="y", alpha=0.25, lw=0.5)
    axis.set_axisbelow(True)


def _label(axis: Any, cells: list[Cell], every: int = 1, rotation: int = 0) -> None:
    axis.set_xticks(range(0, len(cells), every), [c.column for c in cells[::every]], rotation=rotation, fontsize=8)


def _of(exhibit: Exhibit, row: str) -> list[Cell]:
    return [c for c in exhibit.cells if c.row == row]


def _fig1(exhibit: Exhibit, figure: Figure) -> None:
    events = {c.column: int(c.value or 0) for c in _of(exhibit, EVENTS_ROW)}
    axes = figure.subplots(1, 4 if events else 3, width_ratios=(1.6, 0.8, 1.1, 1.2)[: 4 if events else 3])
    words = ("offset (s); positive: sound early", "category", "windows at hop 2 s")
    if events:
        figure.set_figwidth(figure.get_figwidth() + 5.5)
        event_bars(axes[3], events)
    for i, (axis, row, label) in enumerate(zip(axes[:3], exhibit.rows[:3], words, strict=True)):
        cells = _of(exhibit, row)
        _bars(axis, cells, COLOURS[(2, 3, 1)[i]])
        _label(axis, cells, every=5 if i == 0 else 1)
        axis.set_xlabel(label)
        axis.set_ylabel("segments" if i < 2 else "segments that hold them")
        axis.yaxis.get_major_locator().set_params(integer=True)


def _fig2(exhibit: Exhibit, figure: Figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    errors, spread = _of(exhibit, exhibit.rows[0]), _of(exhibit, SD_ROW)
    _bars(left, errors, COLOURS[2])
    _label(left, errors, every=5)
    left.set_xlabel("signed class error (classes of 0.2 s)")
    left.set_ylabel("share of windows")
    _bars(right, spread, COLOURS[1])
    _label(right, spread, rotation=45)
    right.set_xlabel("sd of the error over a segment's windows (classes)")
    right.set_ylabel("share of segments")
    found = exhibit.value(ISOLATED_ROW, "share")
    if found and found.value is not None:
        text = f"{100 * found.value:.0f} % of errors uncorrelated"
        if found.ci_low is not None and found.ci_high is not None:
            text += f"\n[{100 * found.ci_low:.0f}, {100 * found.ci_high:.0f}]"
        left.annotate(text, (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=8)


def _fig4(exhibit: Exhibit, figure: Figure) -> None:
    axes = figure.subplots(1, len(FIG4_METRICS))
    for axis, metric in zip(axes, FIG4_METRICS, strict=True):
        for i, row in enumerate(exhibit.rows):
            cells = [c for c in _of(exhibit, row) if c.column.startswith(title_of(metric))]
            if any(c.value is None for c in cells):
                continue
            colour, x = COLOURS[(0, 2, 6)[i % 3]], list(FIG4_HOPS_S)
            axis.plot(x, [c.value for c in cells], marker=MARKERS[i % len(MARKERS)], ms=5, c=colour, label=row)
            if all(c.ci_low is not None for c in cells):
                low, high = [c.ci_low for c in cells], [c.ci_high for c in cells]
                axis.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        axis.set_xlabel("hop (s)")
        axis.set_xticks(list(FIG4_HOPS_S))
        axis.set_ylabel(title_of(metric))
        axis.grid(alpha=0.25, lw=0.5)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=8, loc="lower right")
