"""``avbench store``: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avbench.cli import main
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    SnapshotStore(root).put("a" * 64, "b" * 64, [SnapshotKey(0, 0)], np.zeros((1, 21), np.float32))
    return root


def test_what_it_says(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "verify", str(store)]) == 0
    assert "1 shards, 1 snapshots" in capsys.readouterr().out
    assert main(["store", "ls", str(store)]) == 0
    assert "aaaaaaaaaaaa" in capsys.readouterr().out
    assert main(["store", "merge", str(store), "--out", str(tmp_path / "whole")]) == 0
    assert "1 snapshots added, 0 were there" in capsys.readouterr().out
    assert main(["store", "prune", "aaa", "--store", str(store)]) == 0
    assert "1 shards deleted" in capsys.readouterr().out
    assert SnapshotStore(store).size() == (0, 0, 0)


def test_a_damaged_shard_is_exit_code_1(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shard,) = store.glob("*/*.safetensors")
    shard.write_bytes(b"rubbish")
    assert main(["store", "verify", str(store)]) == 1
    assert str(shard) in capsys.readouterr().out
    assert main(["store", "ls", str(store)]) == 1


@pytest.mark.parametrize("arguments", [["verify", "nowhere"], ["ls", "."], ["merge", "nowhere", "--out", "x"], []])
def test_what_is_no_store_is_refused_and_not_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["store", *arguments]) == 2
    assert not any(tmp_path.iterdir())
