"""What is made of the built-in data: the clips that a command reads, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avbench.cli import main
from avbench.data import opening, synthsync
from avbench.protocol.manifest import Manifest
from avbench.types import AvbenchError

HEAD = "train head --head lstm --backbone sparsesync --steps 1 --out heads"


@pytest.mark.parametrize(
    ("command", "clips"),
    [
        ("run --model xcorr --limit 8", [2]),
        ("run --model xcorr --limit 7", [1]),
        ("run --model xcorr --data synthsync-full-normal --split valid --limit 15", [3]),
        ("run --model xcorr+bayes --data synthsync-dynamic --limit 3", [2]),
        ("run --model xcorr", [24]),
        ("sweep --models xcorr --limit 1", [1]),
        ("paper table3 --limit 1 --out paper", [1]),
        (f"{HEAD} --limit 2 --offsets 1", [2]),
        (f"{HEAD} --offsets 1", [24]),
        ("data pairs synthsync --shifts 0.1 --limit 1 --out pairs", [1]),
        ("data dynamic synthsync --limit 2 --out streams", [1]),
        ("data info synthsync", [24]),
    ],
)
def test_no_more_clips_are_made_than_are_read(
    command: str, clips: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def with_media(manifest: Manifest, *_: object, **__: object) -> Manifest:
        asked.append(len(manifest.clips))
        raise AvbenchError("enough is known")

    monkeypatch.setattr(synthsync, "with_media", with_media)
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 1
    assert asked == clips


def test_what_is_not_built_in_is_never_made(clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthsync, "with_media", None)
    manifest = opening.read_unmade(str(clicks))
    assert opening.made(manifest) is manifest


@pytest.mark.slow
def test_a_short_try_on_a_fresh_machine_makes_one_clip(tmp_path: Path) -> None:
    env = {**os.environ, "AVBENCH_CACHE": str(tmp_path / "cache")}
    words = ["run", "--model", "xcorr", "--limit", "1", "--iterations", "1", "--no-media"]
    done = subprocess.run(
        [sys.executable, "-m", "avbench", *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "making clips: 1 of 1 clips" in done.stderr
    assert len(list((tmp_path / "cache").rglob("*.mp4"))) == 1
