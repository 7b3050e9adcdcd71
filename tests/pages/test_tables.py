"""Tables that follow the width of the terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.pages.tables import numbers, table

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = [("one", "a long description of what the first one does", "here"), ("two", "short", "there")]
HEADERS = ("name", "what it does", "where")


def test_wide_text_is_wrapped_to_the_width() -> None:
    text = table(ROWS, HEADERS, width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert "one" in text
    words = [word for line in text.splitlines() for word in line.split()]
    assert {"description", "does", "short", "there"} <= set(words)


@given(
    st.lists(st.lists(st.text("abc ", max_size=30), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(40, 120),
    st.sampled_from(["", "  "]),
)
def test_no_line_is_wider_and_no_word_is_lost(rows: list[list[str]], width: int, indent: str) -> None:
    headers = ("name", "what", "n")
    text = table(rows, headers, width=width, align=("left", "left", "right"), indent=indent)
    widest = max(len(row[2].strip()) for row in rows) + max((len(w) for row in rows for w in row[0].split()), default=0)
    assert max(map(len, text.splitlines())) <= max(width, len(indent) + widest + 12)
    said = text.split()
    for column in (1, 2):  # the first one is repeated where there are several tables
        for word in {word for row in rows for word in row[column].split()}:
            assert said.count(word) >= sum(row[column].split().count(word) for row in rows)


def test_a_column_of_numbers_is_not_wrapped_but_follows_below() -> None:
    rows = [("a b c", "0.41 [0.35, 0.48]", "0.12 [0.10, 0.14]")]
    right = ("left", "right", "right")
    assert table(rows, ("file", "one", "two"), width=30, align=right).splitlines() == [
        "file                  one",
        "a b c   0.41 [0.35, 0.48]",
        "file                  two",
        "a b c   0.12 [0.10, 0.14]",
    ]
    two_lines = table([("1", "text of some length")], width=17, indent="  ").splitlines()
    assert two_lines == ["  1  text of some", "     length"]
    assert table([]) == table([], width=1) == ""


def test_a_pipe_gets_whole_lines_and_columns_sets_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(ROWS, HEADERS).splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, table(ROWS, HEADERS).splitlines())) <= 40
    assert table([], HEADERS).split() == ["name", "what", "it", "does", "where"]


def test_columns_of_numbers_that_do_not_fit_follow_below() -> None:
    headers = ("", "n", "A", "B", "")
    rows = [("one", 2, ".50 ±.10", ".25 ±.05", "a note"), ("other", 4, "–", ".75", "")]
    assert [line.split() for line in numbers(rows, headers, width=0)[1:]] == [
        ["one", "2", ".50", "±.10", ".25", "±.05", "a", "note"],
        ["other", "4", "–", ".75"],
    ]
    lines = numbers(rows, headers, repeated=2, width=20)
    assert max(map(len, lines)) <= 20
    assert [line.split()[:1] for line in lines[1::3]] == [["one"]] * 3, "three tables, each with the names"
    assert [" ".join(line.split()) for line in lines[3:6]] == ["n B", "one 2 .25 ±.05", "other 4 .75"]
    assert numbers(rows, headers, width=1) != [], "a terminal of no width ends, too"
    assert numbers([], headers, width=0)[0].split() == ["n", "A", "B"]


def test_what_commands_print_follows_the_terminal(
    avbench: Avbench, five_clicks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = five_clicks  # two would have no intervals
    run = ("run", "--model", "constant", "--data", clicks, "--iterations", "2", "--n-resamples", "20", "--out", "r")
    sweep = ("sweep", "--models", "constant", "uniform", "--data", clicks, "--iterations", "2", "--n-resamples", "20")
    wide = avbench(*run).stdout.splitlines()
    monkeypatch.setenv("COLUMNS", "80")
    narrow = avbench(*run).stdout.splitlines()
    scores = narrow[1 : next(i for i, line in enumerate(narrow) if line.startswith("± half"))]
    assert max(map(len, scores)) <= 80 < max(map(len, wide[1:5]))
    for row in ("constant", "class prior", "the labels"):
        told = [line.removeprefix(row).split() for line in narrow if line.startswith(row)]
        (whole,) = [line.removeprefix(row).split() for line in wide if line.startswith(row)]
        assert [word for line in told for word in line] == whole, "nothing is lost"
        assert len(told) == 2
    table = avbench(*sweep).stdout.split("\nfinal iteration")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert {line.split()[0] for line in table} == {"model", "constant", "uniform"}
    avbench(*run[:2], "uniform", *run[3:-1], "u")
    compared = avbench("compare", "r", "u", "--metrics", "all").stdout.splitlines()
    assert max(map(len, (line for line in compared if line.startswith(("Acc", "mAP", "recall"))))) <= 80
    for command in (("data", "info", clicks), ("weights", "list")):
        told = [line for line in avbench(*command).stdout.splitlines() if "▪" not in line and "  " in line]
        assert max(len(line) for line in told if not line.startswith(("media ", "sha256 "))) <= 80, command
    models = avbench("models").stdout.split("\nYour own")[0].splitlines()
    assert len(models) > 10
    assert max(map(len, models)) <= 80
