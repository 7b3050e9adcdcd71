"""Draw a sweep: accuracy and mAP over hops and window counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.pages.drawing import COLOURS, caption, check_format, drawing, literal, write_figure
from avbench.scoring.metrics import METRICS

if TYPE_CHECKING:
    from avbench.runs.sweep import SweepRow

MARKERS = "osD^vPX"
STYLES = ("-", "--", ":", "-.")
LEGEND_IN = 2.2  # inches, for the legend beside the panels
MOST_TICKS = 5  # of the settings that were run; more would run into each other


def plot_sweep(
    rows: Sequence[SweepRow],
    path: Path,
    title: str = "",
    metrics: Sequence[str] = ("acc", "map"),
    small_print: str = "",
) -> None:
    """Metrics against the number of windows and, if hops vary, against the hop, with 95 % bands.

    One column of panels per metric; one row of panels over the windows, one over the hops, or both. Colours tell models
    apart, line styles hops (over windows) or numbers of windows (over hops). ``small_print``: below the panels. Errors
    as in :func:`write_figure`.
    """
    check_format(path)
    kinds = []
    if len({row.iterations for row in rows}) > 1 or len({row.hop_s for row in rows}) == 1:
        kinds.append(("iterations", "hop_s", "windows seen", "hop {:g} s"))
    if len({row.hop_s for row in rows}) > 1:
        kinds.append(("hop_s", "iterations", "hop (s)", "{:g} windows"))
    models = list(dict.fromkeys(row.model for row in rows))
    with drawing(4.2 * len(metrics) + LEGEND_IN, 3.4 * len(kinds)) as figure:
        grid = figure.subplots(len(kinds), len(metrics), squeeze=False)
        for axes, (along, apart, label, words) in zip(grid, kinds, strict=True):
            others = sorted({getattr(row, apart) for row in rows})
            for axis, name in zip(axes, metrics, strict=True):
                for i, model in enumerate(models):
                    for j, other in enumerate(others):
                        points = [row for row in rows if row.model == model and getattr(row, apart) == other]
                        points.sort(key=lambda row: getattr(row, along))
                        x = [getattr(p, along) for p in points]
                        estimates = [p.scores[name] for p in points]
                        colour, line = COLOURS[i % len(COLOURS)], STYLES[j % len(STYLES)]
                        mark = MARKERS[i % len(MARKERS)]
                        text = literal(model if len(others) == 1 else f"{model}, {words.format(other)}")
                        axis.plot(x, [e.value for e in estimates], ls=line, marker=mark, ms=4, c=colour, label=text)
                        low, high = [e.ci_low for e in estimates], [e.ci_high for e in estimates]
                        axis.fill_between(x, low, high, color=colour, alpha=0.12 / len(others), lw=0)
                axis.set_xlabel(label)
                settings = sorted({getattr(row, along) for row in rows})
                if len(settings) <= MOST_TICKS:
                    axis.set_xticks(settings)
                axis.set_ylabel(METRICS[name].title)
                axis.grid(alpha=0.25, lw=0.5)
            # beside the panels, where it covers no data
            axes[-1].legend(frameon=False, fontsize=8, handlelength=3, loc="center left", bbox_to_anchor=(1.01, 0.5))
        if title:
            figure.suptitle(literal(title), fontsize=9)
        if small_print:
            caption(figure, small_print)
        write_figure(figure, path)
