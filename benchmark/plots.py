"""Figures, deterministic: as files (SVG, PNG) or as SVG text for a page. matplotlib is loaded on first use."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.atomic import atomic_write_bytes
from avbench.metrics import METRICS
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from avbench.sweep import SweepRow

FORMATS = (".svg", ".png")
# distinguishable in grey and for colour-blind readers (Okabe and Ito's palette)
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = "osD^vPX"


@contextlib.contextmanager
def drawing(width_in: float, height_in: float) -> Iterator[Figure]:
    """An empty figure of that size in inches, in the house's style; draw on it inside the block, and inside it too
    hand it to :func:`svg_text` or :func:`write_figure`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "avbench", "svg.fonttype": "none", "font.size": 9}):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def svg_text(figure: Figure) -> str:
    """The figure as an ``<svg>`` element to stand inside a page: the same bytes for the same figure."""
    text = _rendered(figure, "svg").decode()
    return text[text.index("<svg") :]


def write_figure(figure: Figure, path: Path) -> None:
    """``UsageError`` for another file type than SVG or PNG; ``AvbenchError`` if the file cannot be written."""
    check_format(path)
    try:
        atomic_write_bytes(path, _rendered(figure, path.suffix[1:]))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error


def check_format(path: Path) -> None:
    """``UsageError`` unless the file's name says SVG or PNG: said before anything is computed for it."""
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}: a figure is one of {', '.join(FORMATS)}")


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def plot_sweep(rows: Sequence[SweepRow], path: Path, title: str = "", metrics: Sequence[str] = ("acc", "map")) -> None:
    """Metrics against the number of windows (or, if only hops vary, against the hop), with 95 % bands.

    One panel a metric, one line a model and hop. Errors as in :func:`write_figure`.
    """
    check_format(path)
    over_windows = len({row.iterations for row in rows}) > 1
    lines: dict[str, list[SweepRow]] = {}
    several_hops = over_windows and len({row.hop_s for row in rows}) > 1
    for row in rows:
        lines.setdefault(f"{row.model}, hop {row.hop_s:g} s" if several_hops else row.model, []).append(row)
    with drawing(4.2 * len(metrics), 3.4) as figure:
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
        write_figure(figure, path)
