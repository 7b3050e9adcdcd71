"""A table of results as GitHub Markdown, LaTeX (booktabs) or CSV. Each says what it is of: signature, version and n."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tabulate import tabulate

from avbench.types import printable

if TYPE_CHECKING:
    import pandas as pd

UNDEFINED = "–"
SUFFIXES = {"md": ".md", "latex": ".tex", "csv": ".csv"}  # of a file in that format
_MARKDOWN = re.compile(r"([\\`*_<|~$&]|\](?=[(\[:]))")  # the last one: of a link
# of what LaTeX obeys, or its usual fonts show as something else; other letters it takes as they are
_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "{}$&#%_"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "\N{MINUS SIGN}": "$-$",
    "…": r"\dots{}",
}
_INTERVAL = re.compile(r"^(\S+) (\[[^\[\]]*, [^\[\]]*\])$")  # as of ``estimate``
LINE_PT = 345.0  # the text of an article in its usual font; widths of what stands there are taken from its characters
CHARACTER_PT, THIN_PT, THIN = 4.7, 2.7, frozenset(" .,:;'()[]|!il")  # in \small; what is thin, and how wide
BELOW = 0.87  # how wide a character of an interval below its value is, against one beside it
GAP_PT = 6.0  # between two columns
LINES = 32  # of a table on a page
LABEL_PT = 100.0  # least for labels that have to be broken
INDENT = "  "  # before a label: its row belongs to the one above
_NEGATIVE = re.compile(r"(?<![\w.-])-(?=\.?\d)")


class Origin(NamedTuple):
    """What numbers are of. ``signatures``: (whose, signature), where "whose" names a model or row; ``n``: how many
    segments or steps, in words."""

    signatures: Sequence[tuple[str, str]]
    version: str
    n: str

    def parts(self) -> Iterator[tuple[str, bool]]:
        """The words that say it, each with whether it is code."""
        yield from self.made_by()
        yield f"; n = {self.n}", False

    def made_by(self) -> Iterator[tuple[str, bool]]:
        """The same without n. Signatures that differ in the model only are said once, with a star for the model and
        then whose model is which."""
        models = {whose: _model(signature) for whose, signature in self.signatures}
        several = len(set(models.values())) > 1
        said = dict.fromkeys(_starred(s) if several else s for _, s in self.signatures)
        if said:
            yield f"signature{'s' * (len(said) > 1)} ", False
            yield from _joined(((text, True),) for text in said)
        if several:
            yield ", with m: ", False
            yield from _joined(((f"{whose} ", False), (model, True)) for whose, model in models.items() if model)
        yield f"{'; ' if said else ''}avbench {self.version}", False

    def in_words(self) -> str:
        """The same as plain text."""
        return "".join(text for text, _ in self.parts())


def _joined(items: Iterable[Sequence[tuple[str, bool]]]) -> Iterator[tuple[str, bool]]:
    for number, item in enumerate(items):
        if number:
            yield ", ", False
        yield from item


def _model(signature: str) -> str:
    """What a signature says of the model; "" if it names none."""
    head, _, rest = signature.rpartition("|m:")
    return rest.partition("|d:")[0] if head else ""


def _starred(signature: str) -> str:
    """A signature with a star in place of its model."""
    head, _, rest = signature.rpartition("|m:")
    return f"{head}|m:*|d:{rest.partition('|d:')[2]}" if head else signature


class Table(NamedTuple):
    """Words in rows under headers. ``title``: what they are and on which data; ``name``: of its label in LaTeX; a cell
    without a value is ``UNDEFINED``; a first cell that begins with ``INDENT`` belongs to a row above. ``beside``: words
    before the origin where it is not that of these numbers."""

    name: str
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    origin: Origin
    notes: Sequence[str] = ()
    beside: str = ""


def estimate(value: float | None, low: float | None, high: float | None, signed: bool = False) -> str:
    """``0.620 [0.570, 0.670]``, or what of it is defined; ``signed``: a positive number gets its sign, too."""
    if value is None or value != value:
        return UNDEFINED
    if low is None or high is None or low != low or high != high:
        return _decimals(value, signed)
    return f"{_decimals(value, signed)} [{_decimals(low, signed)}, {_decimals(high, signed)}]"


def _decimals(value: float, signed: bool) -> str:
    """What rounds to 0 is not -0."""
    plus = "+" if signed else ""
    text = f"{value:{plus}.3f}"
    return text if float(text) else text.replace("-", plus)


def as_text(tables: Sequence[Table], form: str) -> str:
    """Tables one after the other; ``form``: "md" or "latex"."""
    return "\n".join(map(to_markdown if form == "md" else to_latex, tables))


# -- Markdown ----------------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A GitHub table under a line with its title, signature, version and n."""
    rows = [[escape_markdown(cell) for cell in row] for row in table.rows]
    headers = [escape_markdown(header) for header in table.headers]
    lines = [
        f"**{escape_markdown(table.title)}**; {escape_markdown(table.beside)}{origin_in_markdown(table.origin)}",
        "",
        tabulate(rows, headers, tablefmt="pipe", disable_numparse=True),
    ]
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def origin_in_markdown(origin: Origin) -> str:
    """Signature, version and n as a part of a paragraph."""
    return "".join(f"`{printable(text)}`" if code else escape_markdown(text) for text, code in origin.parts())


def escape_markdown(text: str) -> str:
    """``text`` as words, on one line: nothing in it is emphasis, a link, an element or the border of a cell."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


# -- LaTeX -------------------------------------------------------------------------------------------------------------


def to_latex(table: Table) -> str:
    """A booktabs table that fits between the margins of an article: what, data and n are its caption; signature,
    version and notes stand below, and in a comment at its head. Where it would be too wide, intervals go below their
    values; where it still is, or is too long for a page, there are several tables."""
    parts = [part for block in _blocks(table) for part in _pages(block)]
    return "\n".join(_float(table, part, i, len(parts)) for i, part in enumerate(parts, 1))


def _float(table: Table, block: Block, place: int, of: int) -> str:
    made_by = "".join(_typewriter(text) if code else escape_latex(text) for text, code in table.origin.made_by())
    n, beside = f"n = {escape_latex(table.origin.n)}", escape_latex(table.beside)
    numbered = f", part {place} of {of}" if of > 1 else ""
    name = re.sub("[^A-Za-z0-9-]+", "-", table.name) + (f"-{place}" if place > 1 else "")
    lines = [
        rf"% needs \usepackage{{booktabs}}; {printable(table.origin.in_words())}",
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(table.title)}{numbered}{'' if beside else f'; {n}'}.}}",
        rf"\label{{tab:{name}}}",
        _tabular(block),
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
        f"{beside}{made_by}{f'; {n}' if beside else ''}.",
        *(rf"\par {escape_latex(note)}" for note in table.notes if place == 1),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


class Block(NamedTuple):
    """Columns of a table beside each other, the header first in each; ``label_pt``: width of the first one where its
    lines are broken."""

    columns: list[list[str]]
    label_pt: float | None


def _blocks(table: Table) -> list[Block]:
    """The table's columns as blocks that fit, each of which begins with the columns that name a row."""
    columns = [list(map(printable, column)) for column in zip(table.headers, *table.rows, strict=True)]
    n_labels = next((i for i, column in enumerate(columns) if any(map(_INTERVAL.match, column))), 1) or 1
    if _sum_pt(columns) > LINE_PT:
        columns = [[_INTERVAL.sub(r"\1\n\2", cell) for cell in column] for column in columns]
    first, labels, values = columns[0], columns[1:n_labels], columns[n_labels:]
    label_pt, most_pt = _sum_pt([first]), max(map(_width_pt, values), default=0.0)
    if label_pt > LINE_PT - _sum_pt(labels + values):  # its lines are broken as far as that helps
        label_pt = max(LINE_PT - _sum_pt(labels + values), min(label_pt, LABEL_PT))
    room_pt = max(LINE_PT - label_pt - _sum_pt(labels), most_pt)
    parts: list[list[list[str]]] = [[]]
    for column in values:
        if parts[-1] and _sum_pt([*parts[-1], column]) > room_pt:
            parts.append([])
        parts[-1].append(column)
    return [Block([first, *labels, *part], label_pt if label_pt < _width_pt(first) else None) for part in parts]


def _pages(block: Block) -> Iterator[Block]:
    """The block, or several with some of its rows each, none longer than a page."""
    label_pt = block.label_pt or math.inf
    heights = [
        max(cell.count("\n") for cell in row) + max(1, math.ceil(_width_pt(row[:1]) / label_pt))
        for row in zip(*block.columns, strict=True)
    ]
    n_rows = max(LINES // max(heights), 1)
    for start in range(1, max(len(heights), 2), n_rows):
        yield block._replace(columns=[[c[0], *c[start : start + n_rows]] for c in block.columns])


def _sum_pt(columns: Iterable[Sequence[str]]) -> float:
    return sum(map(_width_pt, columns))


def _width_pt(column: Sequence[str]) -> float:
    """About how wide a column is, with the gaps beside it: digits of the small font, or those below them."""
    lines = [(line, BELOW if i else 1.0) for cell in column for i, line in enumerate(cell.split("\n"))]
    return GAP_PT + max(sum(THIN_PT if c in THIN else CHARACTER_PT for c in line) * size for line, size in lines)


def _tabular(block: Block) -> str:
    kinds = ["l" if block.label_pt is None else f"p{{{block.label_pt - GAP_PT:.0f}pt}}"]
    kinds += ["r"] * (len(block.columns) - 1)
    header, *rows = zip(*block.columns, strict=True)
    ragged = "" if block.label_pt is None else r"\raggedright "
    lines = [
        rf"\begin{{tabular}}{{{''.join(kinds)}}}",
        r"\toprule",
        _latex_row(header, ragged),
        r"\midrule",
        *(_latex_row(row, ragged) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str], ragged: str = "") -> str:
    lines = [cell.split("\n") for cell in cells]
    texts = [_latex_cell(line[0]) for line in lines]
    if texts[0][:1] in ("[", "*"):  # the \\ before it would take it for its own argument
        texts[0] = "{}" + texts[0]
    if cells[0].startswith(INDENT):
        texts[0] = rf"\quad {texts[0].lstrip()}"
    row = ragged + " & ".join(texts) + r" \\"
    if all(len(line) == 1 for line in lines):
        return row
    below = (rf"\scriptsize {_latex_cell(line[1])}" if len(line) > 1 else "" for line in lines)
    return f"{row}*\n" + " & ".join(below) + r" \\[2pt]"


def _latex_cell(text: str) -> str:
    return _NEGATIVE.sub("$-$", escape_latex(text))


def escape_latex(text: str) -> str:
    """``text`` as words, on one line: LaTeX obeys nothing in it and joins no two hyphens."""
    found = "".join(_LATEX.get(c, c) for c in printable(text).replace("--", "-\0-").replace("--", "-\0-"))
    return found.replace("\0", "{}")


def _typewriter(signature: str) -> str:
    """A signature, which may be broken after each of its bars."""
    bar = _LATEX["|"]
    breakable = escape_latex(signature).replace(bar, bar + r"\allowbreak{}")
    return rf"\texttt{{{breakable}}}"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def csv_text(frame: pd.DataFrame) -> str:
    """A data frame as CSV with a header line; undefined numbers are empty cells."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text
