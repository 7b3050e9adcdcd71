"""What the runner itself costs beside the model: its time over the bare model calls stands in ``extra_info``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import ToyReader, toy_manifest

from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.rules import streaming
from avbench.types import ClipRecord, FrontEnd, Snapshot, SnapshotPredictor

MODEL_S = 0.020
PROTOCOL = streaming()


class Slow(SnapshotPredictor):
    """A model that takes 20 ms a window, and knows how long it really took."""

    frontend = FrontEnd(size=64)
    uses_torch = False

    def __init__(self) -> None:
        self.spent = np.zeros(1)

    def fingerprint_parts(self) -> dict[str, Any]:
        return {}

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        began = time.perf_counter()
        time.sleep(MODEL_S)
        self.spent += time.perf_counter() - began
        return Snapshot(np.zeros((1, 21), np.float32))


class Memory(ToyReader):
    """Frames and sound that cost nothing: the runner alone is measured (reading has a benchmark of its own)."""

    images = np.random.default_rng(0).integers(0, 256, (50 * 25, 3, 64, 64), np.uint8)

    def audio(self) -> np.ndarray:
        return np.ones(self.clip.n_samples, np.float32)

    def gaps(self) -> tuple[()]:
        return ()

    def frames(self, *frontends: FrontEnd) -> Any:
        return ((image,) for image in self.images[: self.clip.n_frames])


def open_memory(clip: ClipRecord) -> Memory:
    return Memory(clip)


def test_overhead_of_the_runner(benchmark: Any, tmp_path: Path) -> None:
    manifest = toy_manifest(1, 50, (0.0, 0.4, -0.4, 1.0))
    models: list[Slow] = []
    walls: list[float] = []

    def run() -> int:
        models.append(Slow())
        began = time.perf_counter()
        store = SnapshotStore(tmp_path / str(len(models)))
        report = compute(manifest, [PROTOCOL], {"slow": models[-1]}, Compute(store, 1), open_clip=open_memory)
        walls.append(time.perf_counter() - began)
        return report.counters["snapshots_computed"]

    assert benchmark.pedantic(run, rounds=3) == 4 * 18
    overheads = [wall / float(model.spent[0]) - 1 for wall, model in zip(walls, models, strict=True)]
    benchmark.extra_info["overhead_over_model_calls"] = round(min(overheads), 4)
    benchmark.extra_info["ms_per_snapshot_beside_the_model"] = round(1000 * min(overheads) * MODEL_S, 3)
