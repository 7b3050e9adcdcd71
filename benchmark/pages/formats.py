"""A table of results as GitHub Markdown, LaTeX (booktabs) or CSV. Each says what it is of: signature, version and n."""

from __future__ import annotations

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
_NEGATIVE = re.compile(r"(?<![\w.-])-(?=\.?\d)")


class Origin(NamedTuple):
    """What numbers are of. ``signatures``: (whose, signature), where "whose" names a model or row; ``n``: how many
    segments or steps, in words."""

    signatures: Sequence[tuple[str, str]]
    version: str
    n: str

    def parts(self) -> Iterator[tuple[str, bool]]:
        """The words that say it, each with whether it is code. Signatures that differ in the model only are said once,
        with a star for the model and then whose model is which."""
        models = {whose: _model(signature) for whose, signature in self.signatures}
        several = len(set(models.values())) > 1
        said = dict.fromkeys(_starred(s) if several else s for _, s in self.signatures)
        if said:
            yield f"signature{'s' * (len(said) > 1)} ", False
            yield from _joined(((text, True),) for text in said)
        if several:
            yield ", with m: ", False
            yield from _joined(((f"{whose} ", False), (model, True)) for whose, model in models.items() if model)
        yield f"{'; ' if said else ''}avbench {self.version}; n = {self.n}", False

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
    without a value is ``UNDEFINED``."""

    name: str
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    origin: Origin
    notes: Sequence[str] = ()


def estimate(value: float | None, low: float | None, high: float | None, signed: bool = False) -> str:
    """``0.620 [0.570, 0.670]``, or what of it is defined; ``signed``: a positive number gets its sign, too."""
    if value is None or value != value:
        return UNDEFINED
    plus = "+" if signed else ""
    if low is None or high is None or low != low or high != high:
        return f"{value:{plus}.3f}"
    return f"{value:{plus}.3f} [{low:{plus}.3f}, {high:{plus}.3f}]"


def as_text(tables: Sequence[Table], form: str) -> str:
    """Tables one after the other; ``form``: "md" or "latex"."""
    return "\n".join(map(to_markdown if form == "md" else to_latex, tables))


# -- Markdown ----------------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A GitHub table under a line with its title, signature, version and n."""
    rows = [[escape_markdown(cell) for cell in row] for row in table.rows]
    headers = [escape_markdown(header) for header in table.headers]
    lines = [
        f"**{escape_markdown(table.title)}**; {origin_in_markdown(table.origin)}",
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
    """A booktabs table whose caption has the title, signature, version and n."""
    origin = "".join(_typewriter(text) if code else escape_latex(text) for text, code in table.origin.parts())
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}; {origin}.}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
        r"\toprule",
        _latex_row(table.headers),
        r"\midrule",
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escape_latex(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    texts = [_NEGATIVE.sub("$-$", escape_latex(cell)) for cell in cells]
    if texts[0][:1] in ("[", "*"):  # the \\ before it would take it for its own argument
        texts[0] = "{}" + texts[0]
    return " & ".join(texts) + r" \\"


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
