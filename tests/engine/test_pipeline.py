"""The overlapped pipeline gives what the plain path gives: results, failures, files, whatever happens in between."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import PROTOCOL, ToyModel, open_toy, toy_manifest

from avbench.engine.runner import Compute, RunReport, compute
from avbench.engine.store import SnapshotStore


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.safetensors"))}


def test_the_bytes_are_those_of_the_plain_path(tmp_path: Path) -> None:
    manifest = toy_manifest(3)
    models = {"plain": ToyModel(0), "towers": ToyModel(1, 16, two_tower=True), "same front end": ToyModel(2, 16)}
    reports: dict[str, RunReport] = {}
    for name, how in {
        "plain": Compute(tmp_path / "plain", 1),
        "overlapped": Compute(tmp_path / "overlapped", 2, batch_size=7, overlapped=True),
    }.items():
        reports[name] = compute(manifest, [PROTOCOL], models, how, open_clip=partial(open_toy, bad="clip1", how="media"))
    assert reports["overlapped"].failures == reports["plain"].failures != []
    assert reports["overlapped"].counters == reports["plain"].counters
    assert reports["overlapped"].warnings == []
    assert files(tmp_path / "overlapped") == files(tmp_path / "plain") != {}
