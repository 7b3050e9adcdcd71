"""Figures, deterministic: as files (SVG, PNG, PDF) or as SVG text for a page. matplotlib is loaded on first use."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMATS = (".svg", ".png", ".pdf")
CAPTION_PER_IN = 19  # characters in an inch of a caption
_UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
# Okabe and Ito's palette: distinguishable in grey and by colour-blind readers
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


@contextlib.contextmanager
def drawing(width_in: float, height_in: float) -> Iterator[Figure]:
    """An empty figure of that size in inches, in avbench's style. Draw on it, and pass it to :func:`svg_text` or
    :func:`write_figure`, inside the ``with`` block."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "avbench", "svg.fonttype": "none", "font.size": 9, "pdf.fonttype": 42}):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def caption(figure: Figure, text: str) -> None:
    """Small print below the figure, for signature, version and n, broken between words and behind bars."""
    lines = [""]
    for piece in re.split(r"(?<=[ |])", literal(text)):
        if len(lines[-1]) + len(piece) > CAPTION_PER_IN * figure.get_figwidth():
            lines.append("")
        lines[-1] += piece
    figure.supxlabel("\n".join(lines), fontsize=6, color="#57606a")


def literal(text: str) -> str:
    """A name as matplotlib is to show it: it would read what is between two dollars as a formula."""
    return text.replace("$", r"\$")


def svg_text(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page; equal figures give equal bytes."""
    text = _rendered(figure, "svg").decode()
    return text[text.index("<svg") :]


def png(figure: Figure) -> bytes:
    """The figure as PNG of 150 dots an inch; equal figures give equal bytes."""
    return _rendered(figure, "png")


def write_figure(figure: Figure, path: Path) -> None:
    """Writes the figure as SVG, PNG or PDF, by the suffix of ``path``. ``UsageError`` for other suffixes;
    ``AvbenchError`` if the file cannot be written."""
    check_format(path)
    try:
        atomic_write_bytes(path, _rendered(figure, path.suffix[1:]))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error


def check_format(path: Path) -> None:
    """``UsageError`` unless ``path`` ends in one of ``FORMATS``; to call before computing what will be drawn."""
    if path.suffix not in FORMATS:
        raise UsageError(f"cannot draw {path.name}: a figure's file name ends in {' or '.join(FORMATS)}")


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150, metadata=_UNDATED.get(kind, {}))
    return buffer.getvalue()
