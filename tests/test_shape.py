"""Functions stay short: the linter counts parameters, branches and statements, this test counts lines."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
MAX_LINES = 60
REASON = re.compile(r"#.*\w{3,}")  # a comment in words on the line of the def


def functions(folder: Path) -> Iterator[tuple[str, int, bool]]:
    """(file:line name, lines, whether a reason stands beside it) of every function below a folder."""
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{file.relative_to(folder)}:{node.lineno} {node.name}"
                yield where, node.end_lineno - node.lineno + 1, bool(REASON.search(lines[node.lineno - 1]))  # type: ignore[operator]


def too_long(folder: Path) -> list[str]:
    return [f"{where}: {n} lines" for where, n, reason in functions(folder) if n > MAX_LINES and not reason]


def test_no_function_is_longer_than_a_screen_without_a_reason_beside_it() -> None:
    found = [
        where
        for folder in ("benchmark", "baselines", "submissions", "leaderboard")
        for where in too_long(REPO / folder)
    ]
    assert found == []


def test_a_long_function_is_found(tmp_path: Path) -> None:
    body = "    pass\n" * MAX_LINES
    (tmp_path / "a.py").write_text(
        f"def long():\n{body}\ndef told():  # one long table\n{body}\ndef short():\n    pass\n"
    )
    assert too_long(tmp_path) == ["a.py:1 long: 61 lines"]
