"""Tables as Markdown, LaTeX and CSV: what they say of their numbers, and that no name breaks them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.pages.formats import (
    INDENT,
    UNDEFINED,
    Origin,
    Table,
    as_text,
    csv_text,
    escape_latex,
    estimate,
    to_latex,
    to_markdown,
)

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
    assert caption == r"\caption{my\_net.py:A\_B \& 50 \% on data; n = 48 of 50 segments.}", "short"
    below = latex[latex.index(r"\end{tabular}") :].replace(r"\textbar{}\allowbreak{}", "|").replace(r"\_", "_")
    assert rf"\texttt{{{ORIGIN.signatures[0][1]}}}; avbench 0.1.0." in below
    assert r"\par half of \#1" in below
    assert [latex.count(rf"\{word}{{table}}") for word in ("begin", "end")] == [1, 1]
    assert [latex.count(rf"\{word}{{tabular}}") for word in ("begin", "end")] == [1, 1]


METRICS_ROW = ("0.620 [0.570, 0.670]",) * 4


def test_what_belongs_to_a_row_above_is_indented() -> None:
    lines = to_latex(made(("a", "0.1", "3"), (INDENT + "same, APA", "0.1", "3"))).splitlines()
    assert r"\quad same, APA & 0.1 & 3 \\" in lines
    assert r"a & 0.1 & 3 \\" in lines


def test_a_table_that_is_too_wide_has_its_intervals_below_and_then_columns_in_a_second_one() -> None:
    headers = ("", *"wxyz", "n")
    latex = to_latex(made(("model", *METRICS_ROW, "3/4"), headers=headers))
    assert latex.count(r"\begin{table}") == 1
    below = r" & \scriptsize [0.570, 0.670]" * 4 + r" &  \\[2pt]"
    assert f"model & {' & '.join(['0.620'] * 4)} & 3/4 \\\\*\n{below}\n" in latex
    wider = to_latex(made(("model", *METRICS_ROW * 3, "3/4"), headers=("", *"abcdefghijkl", "n")))
    tables = wider.split(r"\end{table}")[:-1]
    assert len(tables) == 3
    for i, one in enumerate(tables, 1):
        assert f"part {i} of 3; n = 48 of 50 segments" in one
        assert "avbench 0.1.0" in one
        assert "1e42cab9e806" in one
        assert ("half of" in one) == (i == 1), "notes are said once"
        assert one.count("\nmodel & ") == 1
    assert wider.count("0.620") == 12
    assert len(set(re.findall(r"\\label\{.*\}", wider))) == 3
    assert r"\begin{tabular}{lrr}" in to_latex(made(("model", METRICS_ROW[0], "3"))), "a narrow one stays as it is"


def test_long_labels_are_broken_and_long_tables_go_on_on_the_next_page() -> None:
    claims = [
        (f"{i}: StreamSync-Trf and some more words > APA SparseSync in mAP", "holds", METRICS_ROW[0]) for i in range(60)
    ]
    latex = to_latex(made(*claims, headers=("claim", "here", "difference [95 %]")))
    assert re.search(r"\\begin\{tabular\}\{p\{\d+pt\}rr\}", latex)
    assert latex.count(r"\begin{table}") > 1
    assert [int(i) for i in re.findall(r"^\\raggedright (\d+):", latex, re.M)] == list(range(60)), "no row is lost"


@pytest.mark.slow
def test_latex_takes_every_table(tmp_path: Path) -> None:
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        pytest.skip("no pdflatex on this machine (apt-get install texlive-latex-recommended)")
    rows = [(NAME, *METRICS_ROW, "3/4"), (INDENT + "same, [x] {y} ^~`<>|…×†·\\", *METRICS_ROW[:3], UNDEFINED, "3/4")]
    headers = ("", "Acc±1", *"xyz", "n")
    long = [(f"{i}: a claim of some more words than fit > another one in mAP", *METRICS_ROW, "3") for i in range(40)]
    several = Origin([(f"model {m}", SIGNATURE.format(n=3, m=m)) for m in range(9)], "0.1.0", "3 to 4 of 5 segments")
    wide = made(tuple(METRICS_ROW * 4), headers=tuple("abcdefghijklmnop"), origin=several)
    beside = made(("*", "[x]", "3"))._replace(beside="What was measured: ", name="c")
    tables = [made(*rows, headers=headers), made(*long, headers=headers), wide, beside]
    text = as_text([table._replace(name=f"t{i}") for i, table in enumerate(tables)], "latex")
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert not [line for line in log.splitlines() if re.match(r"Overfull \\hbox|.*Float too large|.*multiply", line)]


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


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert estimate(-0.0002, -0.026, 0.019, signed=True) == "+0.000 [-0.026, +0.019]"
    assert estimate(-0.0002, None, None) == "0.000"
    assert estimate(-0.0006, None, None, signed=True) == "-0.001"


def test_csv_leaves_what_is_undefined_empty() -> None:
    frame = pd.DataFrame({"row": [NAME], "value": [float("nan")], "signature": ["a|b"]})
    assert csv_text(frame) == f"row,value,signature\n{NAME},,a|b\n"
