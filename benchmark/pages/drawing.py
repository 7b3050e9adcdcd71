"""Figures, deterministic: as files (SVG, PNG) or as SVG text for a page. matplotlib is loaded on first use."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FORMATS = (".svg", ".png")
# distinguishable in grey and for colour-blind readers (Okabe and Ito's palette)
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


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
