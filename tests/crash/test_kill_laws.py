"""Offsets that change: killed and run again, with one worker or two, a run leaves the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from lawstreams import write_clips

from avbench.engine.store import SnapshotStore
from avbench.results.dynamic_truth import read_truth
from avbench.results.predictions import read_predictions

RUN = Path(__file__).parent / "law_run.py"
CLIP_BY_CLIP, WINDOW_BY_WINDOW = 30.0, 0.0  # how often one worker stores, in seconds


class Undisturbed(NamedTuple):
    data: Path
    out: dict[str, bytes]
    shards: dict[str, bytes]


def start(
    data: Path, root: Path, workers: int = 1, save_every_s: float = CLIP_BY_CLIP
) -> subprocess.Popen[bytes]:  # to run `avbench run --data` instead, change this
    """A run whose files go below ``root``."""
    command = [sys.executable, str(RUN), str(data), str(root / "out"), str(root / "store")]
    return subprocess.Popen([*command, str(workers), str(save_every_s)], stderr=subprocess.PIPE, start_new_session=True)


def finish(run: subprocess.Popen[bytes]) -> None:
    said = run.communicate()[1].decode()
    assert run.returncode == 0, said


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}


def kill_when_stored(run: subprocess.Popen[bytes], store: Path, n_shards: int) -> None:
    """Kill the run and its workers as soon as there are ``n_shards`` shards."""
    deadline = time.monotonic() + 120
    while run.poll() is None and len(list(store.rglob("*.safetensors"))) < n_shards:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL) if run.poll() is None else None
    run.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("laws")
    write_clips(root / "data")
    finish(start(root / "data", root))
    out = files(root / "out", "*.parquet")
    assert sorted(out) == ["predictions.parquet", "truth.parquet"]
    return Undisturbed(root / "data", out, files(root / "store", "*.safetensors"))


def check_killed_and_resumed(
    undisturbed: Undisturbed, root: Path, kills: list[tuple[int, int, float]], last_workers: int
) -> None:
    """``kills``: for each run the number of shards at which it is killed, its workers and how often it stores."""
    for n_shards, workers, save_every_s in kills:
        kill_when_stored(start(undisturbed.data, root, workers, save_every_s), root / "store", n_shards)
        assert files(root / "store", "*.safetensors") != undisturbed.shards, "it was killed too late"
        assert not (root / "out").exists()
        assert SnapshotStore(root / "store").verify() == []
    finish(start(undisturbed.data, root, last_workers))
    assert files(root / "out", "*.parquet") == undisturbed.out
    assert files(root / "store", "*.safetensors") == undisturbed.shards


def test_the_run_has_every_law_and_says_something(undisturbed: Undisturbed, tmp_path: Path) -> None:
    for name, data in undisturbed.out.items():
        (tmp_path / name).write_bytes(data)
    ids, logits = read_predictions(tmp_path / "predictions.parquet")
    truth = read_truth(tmp_path / "truth.parquet")
    assert tuple(ids) == truth.segment_ids
    assert logits.shape == (*truth.regime.shape, 21)
    assert truth.regime.max() > 1
    assert len(undisturbed.shards) == 3


def test_killed_within_a_clip_and_resumed_by_two_workers(undisturbed: Undisturbed, tmp_path: Path) -> None:
    check_killed_and_resumed(undisturbed, tmp_path, [(1, 1, WINDOW_BY_WINDOW)], 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("save_every_s", [CLIP_BY_CLIP, WINDOW_BY_WINDOW])
def test_killed_at_every_clip(undisturbed: Undisturbed, tmp_path: Path, workers: int, save_every_s: float) -> None:
    """With two workers the third clip may be done when the second one is."""
    kills = [(n_shards, workers, save_every_s) for n_shards in ((1, 2, 3) if save_every_s == 0 else (1, 2))]
    check_killed_and_resumed(undisturbed, tmp_path, kills[: 3 if workers == 1 else 1], 3 - workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_undisturbed_with_any_number_of_workers(undisturbed: Undisturbed, tmp_path: Path, workers: int) -> None:
    check_killed_and_resumed(undisturbed, tmp_path, [], workers)
