"""Modules of a package that are loaded on first use, so that importing the package stays fast."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from avbench.types import UsageError


def modules_of(package: str) -> Callable[[str], ModuleType]:
    """The ``__getattr__`` of ``package``: imports the module that is asked for; ``AttributeError`` if it has none of
    that name."""

    def load(name: str) -> ModuleType:
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    return load


def needed(module: str, package: str, what: str = "annotations need") -> Any:
    """An optional package's ``module``; if it is missing, a ``UsageError`` that says ``what`` needs it and which
    package to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{what} {module}: pip install '{package}'") from error
