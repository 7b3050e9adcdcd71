"""Tables for a terminal: no wider than it is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from tabulate import tabulate

_GAP = 2  # spaces between two columns of tabulate's plain format
_NARROWEST = 12


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], width: int | None = None) -> str:
    """``rows`` under ``headers`` as plain text. Where the columns are wider than ``width`` together, the text of the
    widest is wrapped between words. ``width`` None: that of the terminal; in a file or a pipe nothing is wrapped."""
    cells = [[str(cell) for cell in row] for row in rows]
    width = _terminal_width() if width is None else width
    words = [max((len(w) for cell in column for w in cell.split()), default=0) for column in zip(*cells, strict=True)]
    # no word is broken: a name could not be copied then; tabulate puts a gap behind a header, too
    least = [max(_NARROWEST, len(h) + _GAP, word) for h, word in zip(headers, words or [0] * len(headers), strict=True)]
    widths = [
        max(len(cell) for cell in column) for column in zip((h + " " * _GAP for h in headers), *cells, strict=True)
    ]
    while width and sum(widths) + _GAP * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=lambda i: widths[i] - least[i])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    return tabulate(cells, headers, tablefmt="plain", disable_numparse=True, maxcolwidths=widths if rows else None)


def numbers(
    rows: Sequence[Sequence[object]], headers: Sequence[str], repeated: int = 1, width: int | None = None
) -> list[str]:
    """``rows`` under ``headers`` as lines of plain text, no cell wrapped. Columns that ``width`` (None: as of
    :func:`table`) does not hold side by side follow in further tables, each with the first ``repeated`` ones again."""
    width = _terminal_width() if width is None else width
    lines: list[str] = []
    rest = list(range(repeated, len(headers)))
    while rest:
        shown = rest
        while len(shown) > 1 and width and max(map(len, _plain(rows, headers, repeated, shown))) > width:
            shown = shown[:-1]
        lines += _plain(rows, headers, repeated, shown)
        rest = rest[len(shown) :]
    return lines


def _plain(rows: Sequence[Sequence[object]], headers: Sequence[str], repeated: int, more: Sequence[int]) -> list[str]:
    chosen = [*range(repeated), *more]
    cells = [[str(row[i]) for i in chosen] for row in rows]
    heads = [headers[i] for i in chosen]
    text = tabulate(cells, heads, tablefmt="plain", disable_numparse=True, preserve_whitespace=True)
    return [line.rstrip() for line in text.splitlines()]


def _terminal_width() -> int:
    """Columns of the terminal, or of $COLUMNS; 0 if stdout is neither."""
    if not os.environ.get("COLUMNS") and not (sys.stdout is not None and sys.stdout.isatty()):
        return 0
    return shutil.get_terminal_size().columns
