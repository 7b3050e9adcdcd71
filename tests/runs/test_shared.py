"""A run shared out over processes gives the bytes of one process, whoever computed what, and after a kill, too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avbench.runs.shared import shared_by
from avbench.types import UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of unequal length, as a manifest."""
    from offsetclips import click_clip

    from avbench.data.from_files import SegmentRules, manifest_from_files

    folder = tmp_path_factory.mktemp("clips")
    for k, length_s in enumerate((12, 34, 15, 22, 13)):
        click_clip(folder / f"clip{k}.mp4", length_s, seed=k)
    manifest_from_files([folder], folder / "data", SegmentRules())
    return folder / "data"


def torchrun(n: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "-m", "avbench")


def run(
    data: Path, folder: Path, *options: str, launcher: tuple[str, ...] = (), model: str = "xcorr+apa"
) -> subprocess.CompletedProcess[str]:
    command = [*(launcher or (sys.executable, "-m", "avbench")), "run", "--model", model, "--data", str(data)]
    command += ["--iterations", "1", "--n-resamples", "50", "--no-reference-rows", "--workers", "1", *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def store_bytes(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}


def counters_of(folder: Path) -> dict[str, int]:
    counters: dict[str, int] = json.loads((folder / "out" / "run.json").read_text())["counters"]
    return counters


def assert_same(folder: Path, alone: Path) -> None:
    """The store, the predictions, the segments and the scores, byte for byte."""
    assert store_bytes(folder / "store") == store_bytes(alone / "store")
    for name in ("predictions.parquet", "segments.parquet"):
        assert (folder / "out" / name).read_bytes() == (alone / "out" / name).read_bytes()
    results = [json.loads((f / "out" / "run.json").read_text()) for f in (folder, alone)]
    assert results[0]["scores"] == results[1]["scores"]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process: ``out`` and ``store``."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(data, folder, "--out", "out", "--store", "store")
    assert done.returncode == 0, done.stderr
    return folder


def test_shares_joined_are_the_run_of_one_process(data: Path, alone: Path, tmp_path: Path) -> None:
    for i in (1, 2, 3):
        done = run(data, tmp_path, "--shard", f"{i}/3", "--store", f"part{i}")
        assert done.returncode == 0, done.stderr
        assert f"share {i} of 3: " in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "runs").exists()
    merged = [sys.executable, "-m", "avbench", "store", "merge", "part1", "part2", "part3", "--out", "whole"]
    for _ in range(2):  # given again, it finds all there
        joined = subprocess.run(merged, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True)
    assert [line.split("  ")[1].startswith("0 snapshots added") for line in joined.stdout.splitlines()] == [True] * 3
    assert store_bytes(tmp_path / "whole") == store_bytes(alone / "store")
    done = run(data, tmp_path, "--out", "out", "--store", "whole")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "run.json").read_text())
    assert not result["counters"].get("snapshots_computed")
    names = ("predictions.parquet", "segments.parquet")
    assert [(tmp_path / "out" / n).read_bytes() for n in names] == [(alone / "out" / n).read_bytes() for n in names]


def test_a_share_that_was_given_before_computes_nothing_again(data: Path, tmp_path: Path) -> None:
    first, again = (run(data, tmp_path, "--shard", "2/2", "--store", "part") for _ in range(2))
    n = int(first.stderr.rpartition("share 2 of 2: ")[2].split()[0])
    assert n > 0
    assert f"share 2 of 2: 0 snapshots computed, {n} were stored" in again.stderr


@pytest.mark.slow
def test_torchrun_shares_the_clips_out_and_reports_once(data: Path, alone: Path, tmp_path: Path) -> None:
    done = run(data, tmp_path, "--out", "out", "--store", "store", launcher=torchrun(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("signature") == 1
    assert_same(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4])
def test_any_number_of_processes_gives_the_same(data: Path, alone: Path, tmp_path: Path, n: int) -> None:
    done = run(data, tmp_path, "--out", "out", "--store", "store", launcher=torchrun(n))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("signature") == 1
    assert_same(tmp_path, alone)


# the media are real, so that each rank computes in a worker process of its own, whose parent it is
KILLING = '''
import os
import signal
from pathlib import Path
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Killing(SnapshotPredictor):
    """Kills the process whose RANK the marker names, on the second window that it computes; once."""
    frontend, uses_torch = FrontEnd(size=16), False

    def __init__(self, marker: str):
        self.marker, self.calls = marker + ".rank", [0]  # the file of an argument itself is a part of the model

    def fingerprint_parts(self):
        return {}

    def predict(self, video, audio):
        self.calls[0] += 1
        marker = Path(self.marker)
        if self.calls[0] == 2 and marker.exists() and marker.read_text() == os.environ.get("RANK"):
            marker.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(9)
        return Snapshot(np.tile(np.float32([video.mean(), audio.std()]), 11)[None, :21])
'''


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_is_killed_costs_its_clips_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, rank: str
) -> None:
    (tmp_path / "killing.py").write_text(KILLING)
    model, marker = "killing.py:Killing+apa", ("--model-args", f"marker={tmp_path / 'marker'}")
    first = run(data, tmp_path, *marker, "--out", "alone/out", "--store", "alone/store", model=model)
    assert first.returncode == 0, first.stderr
    command = (*marker, "--out", "out", "--store", "store")
    (tmp_path / "marker.rank").write_text(rank)
    broken = run(data, tmp_path, *command, launcher=torchrun(2), model=model)
    assert broken.returncode != 0
    assert not (tmp_path / "marker.rank").exists(), "it was killed"
    said = [line for line in broken.stderr.splitlines() if "a process of this run was lost" in line]
    assert len(said) == 1, broken.stderr
    n, names = re.findall(r"; (\d+) clips are not finished: ([^;]+); the same command computes", said[0])[0]
    assert 0 < int(n) == len(names.split(", "))
    assert broken.stdout == ""
    again = run(data, tmp_path, *command, launcher=torchrun(2), model=model)
    assert again.returncode == 0, again.stderr
    computed = sum(int(found) for found in re.findall(r"(\d+) snapshots computed", again.stderr))
    assert 0 < computed < counters_of(tmp_path / "alone")["snapshots_computed"], "what was stored is not done again"
    assert_same(tmp_path, tmp_path / "alone")


@pytest.mark.slow
def test_a_clip_that_fails_is_reported_once(data: Path, tmp_path: Path) -> None:
    from avbench.data.from_files import SegmentRules, manifest_from_files

    copy = tmp_path / "copy"
    shutil.copytree(data.parent, copy, ignore=shutil.ignore_patterns("data"))
    manifest_from_files([copy], copy / "data", SegmentRules())
    for name in ("clip1.mp4", "clip3.mp4"):  # the longest two: one in each share
        (copy / name).write_bytes(b"no media")
    done = run(copy / "data", tmp_path, "--out", "out", "--store", "store", launcher=torchrun(2))
    assert done.returncode != 0
    assert done.stdout.count("signature") == 1
    found = json.loads((tmp_path / "out" / "run.json").read_text())
    assert found["incomplete"]
    assert {failure["clip_id"] for failure in found["failures"]} == {"clip1", "clip3"}


def test_whose_share() -> None:
    assert shared_by(None, {}) is None
    assert shared_by(None, {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here"}) is None
    asked = shared_by((2, 3), {"RANK": "0", "WORLD_SIZE": "8"})
    assert asked is not None
    assert (asked.which, asked.reports, asked.waits) == ((2, 3), False, False)
    slurm = shared_by(None, {"RANK": "3", "WORLD_SIZE": "4"})
    assert slurm is not None
    assert (slurm.which, slurm.reports, slurm.waits) == ((4, 4), False, False)
    first, second = (shared_by(None, {"RANK": r, "WORLD_SIZE": "2", "MASTER_ADDR": "here"}) for r in "01")
    assert first is not None
    assert second is not None
    assert (first.which, first.reports, first.waits) == ((1, 2), True, True)
    assert (second.which, second.reports, second.waits) == ((2, 2), False, True)


@pytest.mark.parametrize("asked", [(0, 2), (3, 2), (1, 0)])
def test_a_share_that_does_not_exist(asked: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        shared_by(asked, {})


def test_a_rank_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="ranks are 0 to 1"):
        shared_by(None, {"RANK": "2", "WORLD_SIZE": "2"})
