"""Which modules of this package import which, read from their source text without importing them.

The leaderboard's cache key covers the source of every module that scoring needs (``reachable``); tests can check the
direction of imports (``imports_of``). ``import`` and ``from`` statements count, and ``import_module("avbench.x")`` with
the full name as a constant; a name that is put together at run time is not seen.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]


class Import(NamedTuple):
    """One import of a module of this package. ``lazy``: inside a function, so it runs only when that is called;
    ``type_checking``: under ``if TYPE_CHECKING``, so it never runs."""

    module: str
    lazy: bool
    type_checking: bool


@cache
def imports_of(module: str) -> frozenset[Import]:
    """The modules of this package that ``module`` imports, by full name; once per kind of import.

    ``from a import b`` names a.b if that is a module, else a. ``ModuleNotFoundError`` if there is no such module.
    """
    tree = ast.parse(source(module))
    package = module if is_package(module) else module.rpartition(".")[0]
    return frozenset(
        Import(name, lazy, type_checking)
        for statement, lazy, type_checking in _statements(tree, False, False)
        for name in _named(statement, package)
    )


def reachable(roots: Iterable[str]) -> list[str]:
    """The modules of this package that running ``roots`` may load, sorted; with ``roots`` and all parent packages.

    Follows lazy imports too, but not those under ``TYPE_CHECKING``.
    """
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module and module not in reached:
            reached.add(module)
            waiting.append(module.rpartition(".")[0])  # the parent package is loaded first; "" above the top one
            waiting += [found.module for found in imports_of(module) if not found.type_checking]
    return sorted(reached)


def source(module: str) -> bytes:
    """The source text of a module of this package, as stored."""
    return path_of(module).read_bytes()


def path_of(module: str) -> Path:
    """The source file of a module of this package. ``ModuleNotFoundError`` if there is none."""
    spec = _spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no source file of {module}", name=module)
    return Path(spec.origin)


def is_package(module: str) -> bool:
    """Whether a module of this package is a package itself (a folder with ``__init__.py``)."""
    spec = _spec(module)
    return spec is not None and spec.submodule_search_locations is not None


def _statements(node: ast.AST, lazy: bool, type_checking: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every import below ``node``, whether it is lazy, and whether it is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom) or _is_import_module(child):
            yield child, lazy, type_checking
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for inner, only_types in ((child.body, True), (child.orelse, type_checking)):
                yield from _statements(ast.Module(inner, []), lazy, only_types)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, lazy or inside, type_checking)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_import_module(node: ast.AST) -> bool:
    """Whether ``node`` is ``import_module("...")`` or ``importlib.import_module("...")``."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "import_module"
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def _named(statement: ast.AST, package: str) -> Iterator[str]:
    """The modules of this package that one import names."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names if _ours(alias.name))
    elif isinstance(statement, ast.ImportFrom):
        base = statement.module or ""
        if statement.level:
            base = importlib.util.resolve_name("." * statement.level + base, package)
        if _ours(base):
            for alias in statement.names:
                inner = f"{base}.{alias.name}"
                yield inner if _spec(inner) else base
    elif isinstance(statement, ast.Call):
        name = str(ast.literal_eval(statement.args[0]))
        if _ours(name):
            yield name


def _ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Like ``importlib.util.find_spec``, but without importing the parent package."""
    parent, _, _ = module.rpartition(".")
    if not parent:
        return importlib.util.find_spec(module)
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    found = (finder.find_spec(module, above.submodule_search_locations) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)
