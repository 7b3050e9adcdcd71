"""A run shared out over processes gives the bytes of one process, whoever computed what, and after a kill, too."""

from __future__ import annotations

import json
import os
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


def run(data: Path, folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*(launcher or (sys.executable, "-m", "avbench")), "run", "--model", "xcorr+apa", "--data", str(data)]
    command += ["--iterations", "1", "--n-resamples", "50", "--no-reference-rows", "--workers", "1", *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def store_bytes(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}


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


def test_torchrun_shares_the_clips_out_and_reports_once(data: Path, alone: Path, tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "avbench")
    done = run(data, tmp_path, "--out", "out", "--store", "store", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("signature") == 1
    assert store_bytes(tmp_path / "store") == store_bytes(alone / "store")
    names = ("predictions.parquet", "segments.parquet")
    assert [(tmp_path / "out" / n).read_bytes() for n in names] == [(alone / "out" / n).read_bytes() for n in names]


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
