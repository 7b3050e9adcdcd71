"""Tables that follow the width of the terminal."""

from __future__ import annotations

import pytest

from avbench.pages.tables import table

ROWS = [("one", "a long description of what the first one does", "here"), ("two", "short", "there")]
HEADERS = ("name", "what it does", "where")


def test_wide_text_is_wrapped_to_the_width() -> None:
    text = table(ROWS, HEADERS, width=40)
    assert max(map(len, text.splitlines())) <= 40
    assert "one" in text
    words = [word for line in text.splitlines() for word in line.split()]
    assert {"description", "does", "short", "there"} <= set(words)


def test_a_pipe_gets_whole_lines_and_columns_sets_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(ROWS, HEADERS).splitlines()) == 3
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, table(ROWS, HEADERS).splitlines())) <= 40
    assert table([], HEADERS).split() == ["name", "what", "it", "does", "where"]
