"""avbench: a benchmark harness for audio-visual synchronisation in streaming video.

The public names below, and the rooms with their modules (``avbench.scoring.metrics``, ``avbench.engine.store``), are
loaded on first use, so ``import avbench`` stays fast and does not load torch. ``avbench.protocol.paper`` has no short
name: ``avbench.paper`` is the room that regenerates the paper's tables and figures.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    # what a user runs
    "predict": "runs.predict",
    "Prediction": "scoring.prediction",
    "evaluate": "runs.evaluate",
    "sweep": "runs.sweep",
    "Settings": "runs.sweep",
    "SweepResult": "runs.sweep",
    "compare": "runs.compare",
    "Comparison": "runs.compare",
    "compare_all": "runs.compare",
    "Comparisons": "scoring.matrix",
    "load_run": "runs.loaded",
    "Run": "runs.loaded",
    "Evaluation": "runs.shown",
    "RunResult": "results.run",
    "score_files": "runs.figures",
    "score": "scoring.metrics",
    # how it is run
    "Protocol": "protocol.rules",
    "streaming": "protocol.rules",
    "Bootstrap": "scoring.stats",
    "Compute": "engine.runner",
    "SnapshotStore": "engine.store",
    # models
    "load_model": "registry.names",
    "list_models": "registry.names",
    "ModelOptions": "registry.options",
    "StreamingModel": "registry.options",
    "FrontEnd": "types",
    "SegmentLayout": "types",
    "Snapshot": "types",
    "SnapshotPredictor": "types",
    "StreamingHead": "types",
    # data
    "ClipRecord": "types",
    "OffsetGrid": "types",
    "SegmentRecord": "types",
    "Window": "types",
    # errors
    "AvbenchError": "types",
    "FailedSegmentsWarning": "types",
    "MediaError": "types",
    "NonFiniteError": "types",
    "StoreError": "types",
    "UsageError": "types",
}
_ROOMS = (
    "baselines",
    "data",
    "engine",
    "latency",
    "paper",
    "protocol",
    "registry",
    "results",
    "runs",
    "scoring",
    "ticks",
    "types",
    "weights",
)

__all__ = ["__version__", *_HOME, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"avbench.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"avbench.{name}")
    raise AttributeError(f"module 'avbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
