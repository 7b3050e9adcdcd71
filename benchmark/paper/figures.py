"""Figures 1, 2 and 4, drawn from their cells, and the one on changing offsets, drawn from its curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from avbench.pages.drawing import COLOURS, caption, drawing, literal, write_figure
from avbench.pages.offsets_plot import event_bars
from avbench.paper.changing import APA, BAYES, DECAYING, LSTM, NOT_RECOVERED, SLIDING, TRACKED, TRAINED_FOR_IT, TRF
from avbench.paper.exhibits import (
    CHANGING,
    ERROR_ROW,
    EVENTS_ROW,
    FIG4_HOPS_S,
    FIG4_METRICS,
    ISOLATED_ROW,
    SD_ROW,
    Cell,
    Exhibit,
    title_of,
)
from avbench.runs.sweep_plot import MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN_COLOURS = ("#7A1FA2", "#8C564B", "#5F6B00", "#B5179E")  # of the reader's own models: not those of any other line
SUFFIXES = (".svg", ".png", ".pdf")


def draw(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Write NAME.svg, NAME.png and NAME.pdf into ``folder``; returns the paths, none for a table."""
    if exhibit.name not in PAINTERS:
        return []
    painter = PAINTERS[exhibit.name]
    paths = [folder / f"{exhibit.name}{suffix}" for suffix in SUFFIXES]
    with drawing(painter.width_in, painter.height_in) as figure:
        painter.paint(exhibit, figure)
        figure.suptitle(literal(exhibit.measured_on), fontsize=9)
        caption(figure, exhibit.origin.in_words())
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
    errors, spread = _of(exhibit, ERROR_ROW), _of(exhibit, SD_ROW)
    _bars(left, errors, COLOURS[2])
    _label(left, errors, every=5)
    left.set_xlabel("signed class error (classes of 0.2 s)")
    left.set_ylabel("share of windows")
    _bars(right, spread, COLOURS[1])
    _label(right, spread, rotation=45)
    right.set_xlabel("sd of the error over a segment's windows (classes)")
    right.set_ylabel("share of segments")
    for axis, row in ((left, ERROR_ROW), (right, SD_ROW)):
        _outlines(axis, exhibit, row)
    found = exhibit.value(ISOLATED_ROW, "share")
    if found and found.value is not None:
        text = f"{100 * found.value:.0f} % of errors uncorrelated"
        if found.ci_low is not None and found.ci_high is not None:
            text += f"\n[{100 * found.ci_low:.0f}, {100 * found.ci_high:.0f}]"
        left.annotate(text, (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=8)


def _outlines(axis: Any, exhibit: Exhibit, row: str) -> None:
    """The reader's own models over the bars of ``row``, as steps."""
    for i, own in enumerate(exhibit.own):
        values = [c.value or 0.0 for c in _of(exhibit, f"{row}, {own}")]
        if values:
            axis.stairs(
                values, [x - 0.5 for x in range(len(values) + 1)], color=_own_colour(i), lw=1.3, label=literal(own)
            )
    if row == ERROR_ROW and axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7, loc="upper left")


def _own_colour(i: int) -> str:
    return OWN_COLOURS[i % len(OWN_COLOURS)]


def _fig4(exhibit: Exhibit, figure: Figure) -> None:
    axes = figure.subplots(1, len(FIG4_METRICS))
    for axis, metric in zip(axes, FIG4_METRICS, strict=True):
        for i, row in enumerate(exhibit.rows):
            cells = [c for c in _of(exhibit, row) if c.column.startswith(title_of(metric))]
            if any(c.value is None for c in cells):
                continue
            own = exhibit.is_own(row)
            colour = _own_colour(exhibit.own.index(row)) if own else COLOURS[(0, 2, 6)[i % 3]]
            x, style = list(FIG4_HOPS_S), {"ls": "--", "lw": 2.2} if own else {}
            marker = MARKERS[i % len(MARKERS)]
            axis.plot(x, [c.value for c in cells], marker=marker, ms=5, c=colour, label=literal(row), **style)
            if all(c.ci_low is not None for c in cells):
                low, high = [c.ci_low for c in cells], [c.ci_high for c in cells]
                axis.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        axis.set_xlabel("hop (s)")
        axis.set_xticks(list(FIG4_HOPS_S))
        axis.set_ylabel(title_of(metric))
        axis.grid(alpha=0.25, lw=0.5)
    if not axes[0].get_legend_handles_labels()[0]:
        return
    if exhibit.own:  # more lines than the panel has room for
        figure.set_figwidth(figure.get_figwidth() + 2.6)
        axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        axes[0].legend(frameon=False, fontsize=8, loc="lower right")


# row -> colour and line style: the style tells how the head came about, the colour which one it is
LOOKS = {
    APA: (COLOURS[0], "-"),
    SLIDING: (COLOURS[0], "--"),
    DECAYING: (COLOURS[0], ":"),
    TRF: (COLOURS[2], "-"),
    TRAINED_FOR_IT[TRF]: (COLOURS[2], "--"),
    LSTM: (COLOURS[3], "-"),
    TRAINED_FOR_IT[LSTM]: (COLOURS[3], "--"),
    BAYES: (COLOURS[6], "-"),
    "cusum": (COLOURS[1], "-"),
    "one window": (COLOURS[4], "-"),
    "oracle": (COLOURS[5], "-"),
}
BANDS = (APA, TRF, LSTM, *TRAINED_FOR_IT.values())  # whose intervals are drawn: those of the question
LABEL_GAP = 0.045  # least distance of two labels, as a share of the axis


def _changing(exhibit: Exhibit, figure: Figure) -> None:
    axes = figure.subplots(1, 2)
    for axis, panel in zip(axes, (NOT_RECOVERED, TRACKED), strict=True):
        curves = [curve for curve in exhibit.curves if curve.panel == panel]
        for curve in curves:
            colour, style = _look(exhibit, curve.row)
            stepped = "steps-post" if panel == NOT_RECOVERED else "default"
            axis.plot(curve.x, _gaps(curve.value), c=colour, ls=style, lw=1.4, drawstyle=stepped)
            if curve.row in BANDS:
                axis.fill_between(curve.x, _gaps(curve.ci_low), _gaps(curve.ci_high), color=colour, alpha=0.1, lw=0)
        ends = [next((y for y in reversed(curve.value) if y is not None), 0.0) for curve in curves]
        for curve, y, place in zip(curves, ends, apart(ends, LABEL_GAP), strict=True):
            colour, style = _look(exhibit, curve.row)
            axis.plot([40, 42], [y, place], c=colour, ls=style, lw=0.6, clip_on=False)
            axis.text(42.4, place, literal(curve.row), color=colour, fontsize=8, va="center")
        axis.set_xlim(0, 40)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("seconds since the change")
        axis.set_ylabel(panel)
        axis.grid(alpha=0.25, lw=0.5)
    if not exhibit.few:
        axes[1].set_title("bands: 95 % intervals, of APA SparseSync and StreamSync", fontsize=8)


def _look(exhibit: Exhibit, row: str) -> tuple[str, str]:
    if row in LOOKS:
        return LOOKS[row]
    return _own_colour(exhibit.own.index(row)), "-."


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Places for labels, in the same order of height, at least ``gap`` apart and as near as that allows to ``places``,
    which lie within 0 and 1: those that touch stand together about their mean."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _low(groups[-1], places, gap) < _high(groups[-2], places, gap) + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    found = [0.0] * len(places)
    for group in groups:
        for k, i in enumerate(group):
            found[i] = _low(group, places, gap) + k * gap
    return found


def _low(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    """Where the lowest label of those that stand together lies."""
    length = (len(group) - 1) * gap
    middle = sum(places[i] for i in group) / len(group)
    return max(min(middle - length / 2, 1 - length), 0.0)


def _high(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _low(group, places, gap) + (len(group) - 1) * gap


class Painter(NamedTuple):
    """How a figure is drawn, and how large."""

    paint: Callable[[Exhibit, Figure], None]
    width_in: float
    height_in: float


PAINTERS = {
    "fig1": Painter(_fig1, 11.5, 3.4),
    "fig2": Painter(_fig2, 9.5, 3.6),
    "fig4": Painter(_fig4, 8.6, 3.6),
    CHANGING: Painter(_changing, 13.0, 4.4),
}
