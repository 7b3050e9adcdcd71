"""Tables for a terminal: no wider than it is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from tabulate import tabulate

_GAP = 2  # spaces between two columns of tabulate's plain format
_NARROWEST = 12


def table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str] = (),
    width: int | None = None,
    align: Sequence[str] | None = None,
    indent: str = "",
) -> str:
    """``rows`` under ``headers`` as plain text, each line behind ``indent``. Where the columns are wider than ``width``
    together, the text of the widest is wrapped between words; columns that do not fit even so follow in further tables,
    each with the first column again. ``width`` None: that of the terminal; in a file or a pipe nothing is wrapped.
    ``align``: "left" (where None) or "right" for each column; one that is "right" holds numbers and is not wrapped."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True)) or [() for _ in headers]
    heads = [head + _GAP * " " for head in headers] or [""] * len(columns)  # tabulate puts a gap behind a header, too
    align = align or ["left"] * len(columns)
    width = _terminal_width() if width is None else width
    room = max(width - len(indent), 1) if width else 0
    whole = [max(map(len, (head, *column))) for head, column in zip(heads, columns, strict=True)]
    least = [
        full if side == "right" else min(full, _narrowest(head, column))
        for full, side, head, column in zip(whole, align, heads, columns, strict=True)
    ]
    text: list[str] = []
    for shown in _parts(least, room):
        widths = _shrunk([whole[i] for i in shown], [least[i] for i in shown], room)
        text += tabulate(
            [[row[i] for i in shown] for row in cells],
            [headers[i] for i in shown] if headers else (),
            tablefmt="plain",
            disable_numparse=True,
            colalign=[align[i] for i in shown],
            maxcolwidths=widths if rows else None,
        ).splitlines()
    return "\n".join(f"{indent}{line}".rstrip() for line in text)


def _narrowest(head: str, column: Sequence[str]) -> int:
    """No word is broken: a name could not be copied then."""
    return max(_NARROWEST, len(head), *(len(word) for cell in column for word in cell.split()))


def _parts(least: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each table: as many as have room side by side, the first one in all."""
    parts = [list(range(len(least)))[:1]]
    for i in range(1, len(least)):
        together = sum(least[j] + _GAP for j in parts[-1]) + least[i]
        if room and together > room and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _shrunk(whole: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    widths = list(whole)
    while room and sum(widths) + _GAP * (len(widths) - 1) > room:
        widest = max(range(len(widths)), key=lambda i: widths[i] - least[i])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    return widths


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
