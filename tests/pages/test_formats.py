"""Tables as Markdown, LaTeX and CSV: what they say of their numbers, and that no name breaks them."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.pages.formats import UNDEFINED, Origin, Table, csv_text, escape_latex, estimate, to_latex, to_markdown

SIGNATURE = "avb|streaming:1|w5.000|h2.000|n{n}|own|m:{m}|d:57f3f2ff3fd2|v0.1.0"
ORIGIN = Origin([("", SIGNATURE.format(n=3, m="1e42cab9e806"))], "0.1.0", "48 of 50 segments")
NAME = "my_net.py:A_B & 50 %"


def made(*rows: tuple[str, ...], headers: tuple[str, ...] = ("", "Acc±1", "n"), origin: Origin = ORIGIN) -> Table:
    return Table("run-a_b", f"{NAME} on data", headers, rows, origin, ("half of #1",))


def unescaped(latex: str) -> str:
    """What LaTeX prints of :func:`escape_latex`, as far as ASCII goes."""
    named = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textasciigrave": "`"}
    named |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    text = re.sub(r"\\(text[a-z]+)\{\}", lambda found: f"\\<{named[found[1]]}>", latex)
    text = text.replace("-{}", "-")
    return re.sub(r"\\<(.)>|\\([{}$&#%_])", lambda found: found[1] or found[2], text)


def test_latex_is_a_booktabs_table_with_every_name_escaped() -> None:
    latex = to_latex(made((NAME, "-0.120 [-0.200, 0.100]", UNDEFINED), ("*s", "a--b", "3")))
    lines = latex.splitlines()
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"my\_net.py:A\_B \& 50 \% & $-$0.120 [$-$0.200, 0.100] & -- \\" in lines
    assert r"{}*s & a-{}-b & 3 \\" in lines, "a star after a line's end would be its argument"
    assert r" & Acc$\pm$1 & n \\" in lines
    assert r"\label{tab:run-a-b}" in lines
    (caption,) = [line for line in lines if line.startswith(r"\caption{")]
    bare = caption.replace(r"\textbar{}\allowbreak{}", "|").replace(r"\_", "_")
    assert ORIGIN.signatures[0][1] in bare
    assert "avbench 0.1.0; n = 48 of 50 segments.}" in caption
    assert [latex.count(rf"\{word}{{table}}") for word in ("begin", "end")] == [1, 1]
    assert [latex.count(rf"\{word}{{tabular}}") for word in ("begin", "end")] == [1, 1]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_latex_prints_what_it_was_given(text: str) -> None:
    assert unescaped(escape_latex(text)) == text


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2), st.text(max_size=12))
def test_no_cell_breaks_a_table(cells: list[str], title: str) -> None:
    latex = to_latex(Table("t", title, ("a", "b"), [cells], ORIGIN))
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")].splitlines()
    assert len(body) == 2, "one line a row"
    row = re.sub(r"\\[\\&{}]", "", body[1].removesuffix(r" \\"))
    assert row.count("&") == 1
    plain = re.sub(r"\\[{}]", "", latex)
    assert plain.count("{") == plain.count("}")
    depth = 0
    for c in plain:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    header, rule, line = to_markdown(Table("t", title, ("a", "b"), [cells], ORIGIN)).splitlines()[2:]
    assert [len(re.sub(r"\\\\|\\\|", "", text).split("|")) for text in (header, rule, line)] == [4, 4, 4]


def test_markdown_is_a_github_table_under_a_line_with_its_origin() -> None:
    head, empty, *rows = to_markdown(made((NAME, "0.120", "48/50"), ("<b>|*x*", UNDEFINED, "3"))).splitlines()
    assert head == (
        f"**my\\_net.py:A\\_B \\& 50 % on data**; signature `{ORIGIN.signatures[0][1]}`; avbench 0.1.0; "
        "n = 48 of 50 segments"
    )
    assert not empty
    assert [cell.strip() for cell in rows[0].split("|")] == ["", "", "Acc±1", "n", ""]
    assert "| \\<b>\\|\\*x\\*" in rows[3]
    assert rows[3].rstrip(" |").split("|")[-2].strip() == UNDEFINED
    assert rows[-1] == "- half of #1"


def test_models_of_several_rows_share_one_signature() -> None:
    first, second = (SIGNATURE.format(n=3, m=m) for m in ("1e42cab9e806", "222cc66585e8"))
    said = Origin(
        [("a", first), ("b", second), ("a", SIGNATURE.format(n=4, m="1e42cab9e806"))], "0.1.0", "6"
    ).in_words()
    starred = [SIGNATURE.format(n=n, m="*") for n in (3, 4)]
    assert said == f"signatures {', '.join(starred)}, with m: a 1e42cab9e806, b 222cc66585e8; avbench 0.1.0; n = 6"
    same = Origin([("a", first), ("b", first)], "0.1.0", "6").in_words()
    assert same == f"signature {first}; avbench 0.1.0; n = 6"


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ((0.5, 0.4, 0.6), "0.500 [0.400, 0.600]"),
        ((0.5, None, 0.6), "0.500"),
        ((0.5, float("nan"), float("nan")), "0.500"),
        ((None, None, None), UNDEFINED),
        ((float("nan"), 0.1, 0.2), UNDEFINED),
    ],
)
def test_what_is_undefined_is_a_dash(given_: tuple[float | None, ...], said: str) -> None:
    assert estimate(*given_) == said  # type: ignore[arg-type]


def test_csv_leaves_what_is_undefined_empty() -> None:
    frame = pd.DataFrame({"row": [NAME], "value": [float("nan")], "signature": ["a|b"]})
    assert csv_text(frame) == f"row,value,signature\n{NAME},,a|b\n"
