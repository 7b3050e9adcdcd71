"""The overlapped pipeline beside the plain path, with a device that is simulated: a model that sleeps while it
computes, as this process does while a GPU works, and clips that take as long to decode. ``extra_info`` has the ratio of
their times, and the share of the time that the device was busy; the time that processes need to start is in it.
``pytest tests/benchmarks/test_bench_pipeline.py -m "slow or not slow" -s`` runs enough clips to see past that."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from simulated import Decoder
from toy_run import toy_manifest

from avbench.engine.runner import Compute, RunReport, compute
from avbench.protocol.rules import streaming
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor

SIZE = 64
WINDOW_S = 0.030  # a hop of 50 frames takes one decoder as long
PROTOCOL = streaming()


class Device(SnapshotPredictor):
    """Takes 30 ms a window, however they are batched."""

    frontend = FrontEnd(size=SIZE)
    uses_torch = False

    def fingerprint_parts(self) -> dict[str, Any]:
        return {}

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        time.sleep(WINDOW_S * len(video))
        return Snapshot(np.zeros((len(video), 21), np.float32))


@pytest.mark.parametrize("n_clips", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_pipeline_beside_the_plain_path(benchmark: Any, tmp_path: Path, n_clips: int) -> None:
    manifest = toy_manifest(n_clips, 50, (0.0,))
    n_runs = 0

    def run(overlapped: bool, workers: int) -> RunReport:
        nonlocal n_runs
        n_runs += 1
        how = Compute(tmp_path / str(n_runs), workers, batch_size=8, overlapped=overlapped)
        return compute(manifest, [PROTOCOL], {"device": Device()}, how, open_clip=Decoder)

    began = time.perf_counter()
    plain = run(False, 1)
    plain_s = time.perf_counter() - began
    walls: list[float] = []
    reports: list[RunReport] = []

    def overlap() -> None:
        began = time.perf_counter()
        reports.append(run(True, 2))
        walls.append(time.perf_counter() - began)

    benchmark.pedantic(overlap, rounds=1)
    best, report = min(walls), reports[walls.index(min(walls))]
    assert report.counters == plain.counters
    busy_s = WINDOW_S * report.counters["snapshots_computed"]
    found = {
        "plain_over_pipeline": round(plain_s / best, 2),
        "device_busy_plain": round(busy_s / plain_s, 3),
        "device_busy_pipeline": round(busy_s / best, 3),
        "spent_s": {name: round(value, 2) for name, value in report.spent.model_dump().items()},
    }
    benchmark.extra_info.update(found)
    print(f"\n{found}")
