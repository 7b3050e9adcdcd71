"""Clips and labels: media reading, SynthSync, manifests over own files, hosted data, views for ``datasets``.

``as_dataset`` and ``load_split`` are loaded on first use, so ``import avbench.data`` does not load ``datasets``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from avbench.system.lazy import modules_of

__all__ = ["as_dataset", "load_split"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("avbench.data.dataset"), name)
    return modules_of(__name__)(name)
