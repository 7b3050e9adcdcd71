"""Clips on a Ray cluster: the bytes of one process, also after a worker is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import socket
import subprocess
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import PROTOCOL, ToyModel, open_toy, toy_manifest

from avbench.engine import job
from avbench.engine.on_ray import TRIES, OnRay
from avbench.engine.runner import Compute, compute
from avbench.system.cluster import Cluster
from avbench.system.workers import Lost
from avbench.types import AvbenchError, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
MAKERS = {"plain": partial(ToyModel, 0), "towers": partial(ToyModel, 1, 16, True)}


def store_bytes(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Clip -> how many tries of it will be lost. In place of a cluster this process does the tasks, from pickled copies
    of all that a cluster would be sent; a try is lost when all of it has been told."""
    to_lose: Counter[str] = Counter()

    def run(cluster: Cluster[Any, Any], tasks: deque[Any], told: Callable[[Any, Any], None]) -> Generator[Any]:
        with pickle.loads(pickle.dumps(cluster.begin))() as do:
            while tasks:
                task = tasks.popleft()
                sent = pickle.loads(pickle.dumps(task))
                end = do(sent, lambda message, task=task: told(task, pickle.loads(pickle.dumps(message))))
                clip_id = task[0].clip.id
                lost, to_lose[clip_id] = to_lose[clip_id] > 0, to_lose[clip_id] - 1
                yield task, Lost("the process died") if lost else pickle.loads(pickle.dumps(end))

    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    monkeypatch.setattr(Cluster, "run", run)
    return to_lose


def test_the_store_is_that_of_one_process_and_lost_clips_are_tried_again(
    losing: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(job, "SAVE_EVERY_S", 0.0)  # a clip comes in parts
    compute(toy_manifest(), [PROTOCOL], MAKERS, Compute(tmp_path / "alone", 1), open_clip=open_toy)
    losing.update({"clip1": 1, "clip3": TRIES - 1})
    done: list[int] = []
    how = Compute(tmp_path / "ray", engine=OnRay())
    report = compute(
        toy_manifest(),
        [PROTOCOL],
        MAKERS,
        how,
        open_clip=open_toy,
        progress=lambda n, total, item="": done.append(n),
    )
    assert store_bytes(tmp_path / "ray") == store_bytes(tmp_path / "alone")
    assert not report.failures
    assert done[-1] == report.counters["snapshots_computed"] == report.plan.n_unique * 2
    assert len(set(done)) > 20, "progress within a clip"


def test_a_clip_whose_workers_are_always_lost_is_a_failure(losing: Counter[str], tmp_path: Path) -> None:
    losing["clip2"] = TRIES
    report = compute(toy_manifest(), [PROTOCOL], MAKERS, Compute(tmp_path, engine=OnRay()), open_clip=open_toy)
    assert {(f.clip_id, f.reason) for f in report.failures} == {("clip2", f"the process died, each of {TRIES} times")}


def test_what_cannot_be_sent_is_refused(losing: Counter[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="by its name or file"):
        compute(toy_manifest(), [PROTOCOL], {"m": ToyModel()}, Compute(tmp_path, engine=OnRay()), open_clip=open_toy)


def test_another_avbench_on_a_machine_is_refused(
    losing: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Cluster.run

    def elsewhere(*given: Any) -> Generator[Any]:
        monkeypatch.setattr("avbench.engine.on_ray.HERE", "avbench 0.0 with reader 1")
        yield from here(*given)

    monkeypatch.setattr(Cluster, "run", elsewhere)
    with pytest.raises(AvbenchError, match=r"has avbench 0\.0 with reader 1, this one has avbench .*: install"):
        compute(toy_manifest(), [PROTOCOL], MAKERS, Compute(tmp_path, engine=OnRay()), open_clip=open_toy)


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given in (address, None):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(AvbenchError, match=f"the Ray cluster at {address} cannot be used: ConnectionRefused"):
                compute(toy_manifest(), [PROTOCOL], MAKERS, Compute(tmp_path, engine=OnRay(given)), open_clip=open_toy)


def test_wrong_requests_are_one_line(avbench: Avbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for options, said in (
        (("run", "--model", "xcorr", "--engine", "ray"), "engine ray needs Ray: pip install 'avbench[ray]'"),
        (("sweep", "--models", "xcorr", "--engine", "ray"), "engine ray needs Ray: pip install 'avbench[ray]'"),
        (("run", "--model", "xcorr", "--ray-address", "auto"), "--ray-address goes with --engine ray"),
    ):
        done = avbench(*options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    done = avbench("run", "--model", "xcorr", "--engine", "ray", "--shard", "1/2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "shares the clips out by itself" in done.stderr


DYING = '''
import os
from pathlib import Path
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Dying(SnapshotPredictor):
    """Ends its process on the third window, unless the marker says that this has happened."""
    frontend, uses_torch = FrontEnd(size=16), False

    def __init__(self, marker: str):
        self.marker, self.calls = marker + ".died", [0]  # the file of an argument is a part of the model

    def fingerprint_parts(self):
        return {}

    def predict(self, video, audio):
        self.calls[0] += 1
        if self.calls[0] == 3 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os._exit(9)
        return Snapshot(np.tile(np.float32([video.mean(), audio.std()]), 11)[None, :21])
'''


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.parametrize("command", ["streamsync-trf", "dying.py:Dying+apa"])
def test_on_a_cluster_of_this_machine(command: str, tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    marker = tmp_path / "marker.died"
    marker.touch()

    def run(name: str, *options: str) -> dict[str, Any]:
        words = ["run", "--model", command, "--limit", "14", "--n-resamples", "50", "--no-reference-rows"]
        words += ["--out", name, "--store", f"{name}-s"]
        words += ["--model-args", f"marker={tmp_path / 'marker'}"] if "Dying" in command else []
        done = subprocess.run(
            [sys.executable, "-m", "avbench", *words, *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"HOME": str(tmp_path)},  # Ray keeps a token there
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads((tmp_path / name / "run.json").read_text())
        return found

    alone = run("alone", "--workers", "1")
    marker.unlink()
    on_ray = run("ray", "--engine", "ray")
    assert marker.exists() == ("Dying" in command), "a worker was lost on the way"
    assert on_ray["counters"]["snapshots_computed"] == alone["counters"]["snapshots_computed"]
    assert [on_ray[k] for k in ("scores", "slices", "curve", "signature")] == [
        alone[k] for k in ("scores", "slices", "curve", "signature")
    ]
    assert store_bytes(tmp_path / "ray-s") == store_bytes(tmp_path / "alone-s")
    name = "predictions.parquet"
    assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
