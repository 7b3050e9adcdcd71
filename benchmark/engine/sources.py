"""Which source files a model is made of: the file that defines a class and what that file imports from its folder.

Imports are read from the text (``ast``), nothing is imported. Files outside the folder do not count, nor does
anything loaded without an ``import`` statement.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple


class _Import(NamedTuple):
    level: int  # dots in front of a relative import
    module: tuple[str, ...]
    names: tuple[str, ...]  # after ``from ... import``; each may be a module


def local_sources(file: Path, folder: Path, package: str = "") -> dict[str, bytes]:
    """``file`` and, transitively, the files in ``folder`` (sub-folders too) that it imports, anywhere in its text.

    ``package`` is the dotted name under which ``folder`` is imported; "" for a folder of scripts. Returns path
    relative to ``folder`` -> bytes, sorted by path. A file that does not parse counts without its imports.
    ``OSError`` if one of the files cannot be read.
    """
    sources: dict[Path, bytes] = {}
    waiting = [file, *_module_file(folder, ())] if package else [file]  # Python runs the package's own file first
    while waiting:
        path = waiting.pop()
        if path in sources:
            continue
        sources[path] = path.read_bytes()
        inside = (*_parts(package), *path.relative_to(folder).parts[:-1])  # the package that ``path`` belongs to
        for item in _imports(sources[path]):
            waiting += _files(item, inside, folder, _parts(package))
    return dict(sorted((path.relative_to(folder).as_posix(), source) for path, source in sources.items()))


def imported(source: bytes) -> set[str]:
    """The first names of the modules that a file's absolute imports name, anywhere in its text."""
    return {item.module[0] for item in _imports(source) if item.module and not item.level}


@lru_cache(maxsize=256)
def _imports(source: bytes) -> tuple[_Import, ...]:
    try:
        with warnings.catch_warnings():  # with -W error, an invalid escape would stop the parsing
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [_Import(0, _parts(alias.name), ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(_Import(node.level, _parts(node.module or ""), tuple(alias.name for alias in node.names)))
    return tuple(found)


def _files(item: _Import, inside: tuple[str, ...], folder: Path, package: tuple[str, ...]) -> Iterator[Path]:
    """The files in ``folder`` that one import of a module of the package ``inside`` runs."""
    module = item.module
    if item.level:
        above = len(inside) - (item.level - 1)
        if above < 0:
            return
        module = inside[:above] + module
    places = {module}  # a folder inside a package may also be on the path
    if module[: len(package)] == package:
        places.add(module[len(package) :])
    for place in places:
        base = folder.joinpath(*place)
        names = [p.stem for p in base.glob("*.py")] if "*" in item.names else item.names  # __all__ may name modules
        for parts in [place[:n] for n in range(1, len(place) + 1)] + [(*place, name) for name in names]:
            yield from _module_file(folder, parts)


def _module_file(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The file of one module, if there is one, found in Python's order: package, compiled module, source."""
    base = folder.joinpath(*parts)
    candidates = [base / "__init__.py"]
    if parts:
        candidates += [base.with_name(parts[-1] + suffix) for suffix in (*EXTENSION_SUFFIXES, ".py")]
    yield from [path for path in candidates if path.is_file()][:1]


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")) if dotted else ()
