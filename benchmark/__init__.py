"""avbench: a benchmark harness for audio-visual synchronisation in streaming video.

Public names are loaded on first use, so ``import avbench`` stays fast and does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AvbenchError": "types",
    "ClipRecord": "types",
    "FrontEnd": "types",
    "OffsetGrid": "types",
    "SegmentRecord": "types",
    "Snapshot": "types",
    "SnapshotPredictor": "types",
    "StreamingHead": "types",
    "Window": "types",
    "Protocol": "protocol.rules",
    "SnapshotStore": "engine.store",
    "RunResult": "results.run",
    "ModelOptions": "registry.options",
    "StreamingModel": "registry.options",
    "load_model": "registry.names",
    "list_models": "registry.names",
    "evaluate": "runs.evaluate",
}
_ROOMS = ("data", "engine", "protocol", "registry", "results", "scoring", "ticks", "types")

__all__ = ["__version__", *_HOME, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"avbench.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"avbench.{name}")
    raise AttributeError(f"module 'avbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
