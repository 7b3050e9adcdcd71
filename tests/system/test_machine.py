"""What a machine allows (not what it has) decides how many workers there are; memory that ran out is known as such."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avbench.engine import runner
from avbench.engine.job import Backbone
from avbench.engine.runner import default_workers
from avbench.registry.names import load_model
from avbench.system import machine

GIB = machine.GIB


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the system's files: eight cores, nothing else known."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("junk", 8)]
)
def test_cores_are_those_that_the_container_is_allowed(files: Path, text: str, cores: int) -> None:
    (files / "cpu.max").write_text(text + "\n")
    assert machine.cores() == cores


def test_without_affinity_all_cores_count(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.cores() == 3


def test_memory_is_the_least_of_what_is_said(files: Path) -> None:
    assert machine.free_memory_bytes() is None
    assert machine.worker_count(GIB) == 8
    (files / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   20971520 kB\n")  # 20 GiB
    assert machine.free_memory_bytes() == 20 * GIB
    assert machine.worker_count(3 * GIB) == 6
    (files / "memory.max").write_text(f"{7 * GIB}\n")
    (files / "memory.current").write_text(f"{GIB}\n")
    assert machine.free_memory_bytes() == 6 * GIB
    assert machine.worker_count(3 * GIB) == 2
    assert machine.worker_count(100 * GIB) == 1
    (files / "memory.max").write_text("max\n")
    assert machine.free_memory_bytes() == 20 * GIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell programs apart")
def test_peak_memory_is_that_of_the_program_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(40 * 2**20)  # 320 MiB
    code = "from avbench.system.machine import peak_memory_bytes; print(peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100 * 2**20 < ballast.nbytes < machine.peak_memory_bytes()


def test_of_this_machine() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert machine.worker_count(1) == machine.cores()


def test_every_worker_holds_the_model(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "meminfo").write_text(f"MemAvailable: {8 * 1024**2} kB\n")
    small = load_model("sparsesync")
    backbone = Backbone.of(small.load_backbone)  # type: ignore[arg-type]
    assert default_workers([backbone]) == 7  # a GiB and some weights each
    assert default_workers([]) == 8
    assert default_workers([backbone], "cuda") == max(machine.cores() - 1, 1)  # they decode; this process computes
    assert default_workers([replace(backbone, make=None)]) == 1  # no other process can build it
    monkeypatch.setattr(runner, "LARGE_BYTES", 0)  # as a full-size model: its activations count, too
    assert default_workers([backbone]) == 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("CUDA error: out of memory", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_libraries_report_full_memory_in_their_own_words(error: str, expected: bool) -> None:
    assert machine.is_out_of_memory(RuntimeError(error)) is expected
