"""The code of a Python file without what changes nothing that it does: comments, docstrings, blank lines, spacing."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator

Position = tuple[int, int]  # line from 1, column in characters from 0


def code_digest(source: str, names: tuple[str, ...] = ()) -> str:
    """sha256 of the code, the same on every Python version; with ``names``, of these top-level definitions only.

    ``ValueError`` if one of them is not defined.
    """
    tree = ast.parse(source)
    parts = [(lines, node) for node in tree.body if (lines := _lines(node)) and _defined(node) & set(names)]
    if absent := set(names) - set().union(*(_defined(node) for _, node in parts)):
        raise ValueError(f"not defined: {', '.join(sorted(absent))}")
    digest = hashlib.sha256()
    for line, text in _code(source, tree):
        if not names or any(line in lines for lines, _ in parts):
            digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def _lines(node: ast.stmt) -> range:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return range(first, (node.end_lineno or node.lineno) + 1)


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _code(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each token that counts; the first of a statement is preceded by how deep it is indented."""
    docstrings, indent, begins = _docstrings(source, tree), 0, True
    for begin, kind, text in _whole_strings(source):
        if kind in ("INDENT", "DEDENT"):
            indent += 1 if kind == "INDENT" else -1
        elif kind in ("COMMENT", "NL", "ENDMARKER") or any(a <= begin < b for a, b in docstrings):
            continue
        elif kind == "NEWLINE":
            begins = True
        else:
            if begins:
                yield begin[0], f"indent {indent}"
            begins = False
            yield begin[0], text


def _whole_strings(source: str) -> Iterator[tuple[Position, str, str]]:
    """(begin, kind, text) of each token, an f-string as one: Python 3.12 and later cut it into tokens."""
    lines, depth, begin = source.splitlines(keepends=True), 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            begin = begin if depth else token.start
            depth += 1
        elif kind == "FSTRING_END":
            depth -= 1
            if not depth:
                yield begin, "STRING", _between(lines, begin, token.end)
        elif not depth:
            yield token.start, kind, token.string


def _docstrings(source: str, tree: ast.Module) -> list[tuple[Position, Position]]:
    lines, found = source.splitlines(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            text = node.body[0]
            if (
                isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                assert text.end_lineno is not None
                assert text.end_col_offset is not None
                begin = text.lineno, _characters(lines[text.lineno - 1], text.col_offset)
                found.append((begin, (text.end_lineno, _characters(lines[text.end_lineno - 1], text.end_col_offset))))
    return found


def _characters(line: str, n_bytes: int) -> int:
    return len(line.encode()[:n_bytes].decode())


def _between(lines: list[str], begin: Position, end: Position) -> str:
    if begin[0] == end[0]:
        return lines[begin[0] - 1][begin[1] : end[1]]
    return "".join([lines[begin[0] - 1][begin[1] :], *lines[begin[0] : end[0] - 1], lines[end[0] - 1][: end[1]]])
