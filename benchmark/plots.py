"""Figures as deterministic files (SVG or PNG). matplotlib is the extra ``plot`` and is loaded on first use."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.atomic import atomic_write_bytes
from avbench.metrics import METRICS
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from avbench.sweep import SweepRow

FORMATS = (".svg", ".png")
# distinguishable in grey and for colour-blind readers (Okabe and Ito's palette)
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = "osD^vPX"


def plot_sweep(rows: Sequence[SweepRow], path: Path, title: str = "", metrics: Sequence[str] = ("acc", "map")) -> None:
    """Metrics against the number of windows (or, if only hops vary, against the hop), with 95 % bands.

    One panel a metric, one line a model and hop. UsageError for another file type than SVG or PNG, or without
    matplotlib; AvbenchError if the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}: a figure is one of {', '.join(FORMATS)}")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("drawing needs matplotlib: pip install 'avbench[plot]'") from None
    over_windows = len({row.iterations for row in rows}) > 1
    lines: dict[str, list[SweepRow]] = {}
    several_hops = over_windows and len({row.hop_s for row in rows}) > 1
    for row in rows:
        lines.setdefault(f"{row.model}, hop {row.hop_s:g} s" if several_hops else row.model, []).append(row)
    with rc_context({"svg.hashsalt": "avbench", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(metrics), 3.4), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axis, name in zip(axes, metrics, strict=True):
            for i, (label, points) in enumerate(lines.items()):
                x = [p.iterations if over_windows else p.hop_s for p in points]
                estimates = [p.scores[name] for p in points]
                colour = COLOURS[i % len(COLOURS)]
                axis.plot(
                    x, [e.value for e in estimates], marker=MARKERS[i % len(MARKERS)], ms=4, c=colour, label=label
                )
                low, high = [e.ci_low for e in estimates], [e.ci_high for e in estimates]
                axis.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            axis.set_xlabel("windows seen" if over_windows else "hop (s)")
            axis.set_ylabel(METRICS[name].title)
            axis.grid(alpha=0.25, lw=0.5)
        axes[0].legend(frameon=False, fontsize=8)
        if title:
            figure.suptitle(title, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {}
        )
    try:
        atomic_write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
