"""Functions stay short and public things have docstrings.

The linter counts parameters, branches and statements of functions; here are their lines and docstrings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
MAX_LINES = 60
REASON = re.compile(r"#.*\w{3,}")  # a comment in words on the line of the def
FOLDERS = ("benchmark", "baselines", "submissions", "leaderboard")


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
    found = [where for folder in FOLDERS for where in too_long(REPO / folder)]
    assert found == []


def test_a_long_function_is_found(tmp_path: Path) -> None:
    body = "    pass\n" * MAX_LINES
    (tmp_path / "a.py").write_text(
        f"def long():\n{body}\ndef told():  # one long table\n{body}\ndef short():\n    pass\n"
    )
    assert too_long(tmp_path) == ["a.py:1 long: 61 lines"]


# ---------------------------------------------------------------------------------------------------------- docstrings


def undocumented(node: ast.Module | ast.ClassDef, inside: str = "") -> Iterator[str]:
    """Public functions, classes and methods without a docstring, as dotted names; those inside functions do not count.

    The members of an interface whose body is ``...`` are described by the interface.
    """
    interface = isinstance(node, ast.ClassDef) and any(ast.unparse(b) in ("Interface", "Protocol") for b in node.bases)
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        only_declared = interface and [ast.unparse(statement) for statement in child.body] == ["..."]
        if ast.get_docstring(child) is None and not only_declared:
            yield inside + child.name
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{inside}{child.name}.")


def test_public_things_have_docstrings() -> None:
    found = {
        f"{file.relative_to(REPO).as_posix()} {name}"
        for folder in FOLDERS
        for file in sorted((REPO / folder).rglob("*.py"))
        for name in undocumented(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert sorted(found) == []


def test_a_missing_docstring_is_found() -> None:
    text = """
class Told(Interface):
    'Doc.'
    @property
    def declared(self): ...
    def given(self):
        return 1
    def __len__(self):
        return 0

class _Hidden:
    def anything(self):
        pass

class Bare:
    def __init__(self):
        def inner():
            pass
    def declared(self): ...

async def later():
    pass

def told():
    'Doc.'
"""
    assert list(undocumented(ast.parse(text))) == ["Told.given", "Bare", "Bare.declared", "later"]
