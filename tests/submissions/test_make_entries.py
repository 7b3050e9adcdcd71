"""The entries that are shipped are made by one command, from the weights that are shipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avbench.data import synthsync
from avbench.engine.fingerprint import model_fingerprint
from avbench.protocol.rules import streaming
from avbench.protocol.tracks import TRACKS, Track
from avbench.registry.facts import whole_fingerprint
from avbench.registry.loading import load_all
from avbench.registry.names import resolve
from avbench.submissions.check import check
from avbench.submissions.format import find_entries
from avbench.submissions.make_entries import ENTRIES, ORG, main, make_entries
from avbench.types import UsageError

SHIPPED = Path(__file__).resolve().parents[2] / "submissions" / "entries"
FOLDERS = [folder for folder in find_entries(SHIPPED) if folder.parts[-3].startswith(f"{ORG}__")]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: "/".join((path.parts[-3], path.parts[-1])))
def test_shipped_entries_are_of_the_shipped_weights(folder: Path) -> None:
    """Where this fails, weights or code of a model have changed: run the command of ``make_entries`` again."""
    submission = json.loads((folder / "submission.json").read_text())
    model = ENTRIES[folder.name][submission["card"]["name"]]
    (loaded,) = load_all([resolve(model)])
    assert submission["run"]["model"] == model
    assert submission["run"]["model_fingerprint"] == whole_fingerprint(loaded, model_fingerprint(loaded.backbone))


@pytest.mark.parametrize("track", sorted({folder.name for folder in FOLDERS}))
def test_every_entry_of_a_shipped_track_is_shipped_once(track: str) -> None:
    names = [folder.parts[-3].removeprefix(f"{ORG}__") for folder in FOLDERS if folder.name == track]
    assert sorted(names) == sorted(ENTRIES[track])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Track:
    """A track of two short clips with one segment of two windows each, and models that look at neither."""
    monkeypatch.setattr(synthsync, "CLIP_S", 12)
    monkeypatch.setattr(synthsync, "STARTS_S", (2,))
    monkeypatch.setattr(synthsync, "SPLIT_CLIPS", {"train": 2, "valid": 2, "test": 2})
    monkeypatch.setitem(ENTRIES, "synthsync-test", {"never-late": "constant", "prior": "prior", "other": "uniform"})
    sha256 = synthsync.planned("synthsync", "test").sha256
    track = Track("synthsync-test", "small", "synthsync", "test", sha256, streaming(iterations=2))
    monkeypatch.setitem(TRACKS, track.name, track)
    return track


def test_the_command_makes_them_and_makes_them_again(
    small: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "cache"))
    args = ("--track", small.name, "--model", "never-late", "--model", "prior", "--workers", "1")
    out = tmp_path / "entries"
    assert main([*args, "--out", str(out)]) == 0
    first = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in first] == ["new", "new"]
    folders = [Path(words[1]) for words in first]
    assert find_entries(out) == folders
    assert all(check(folder, n_resamples=0).ok for folder in folders)
    before = (folders[0] / "submission.json").read_bytes()

    stale = folders[1].parents[1] / "000000000000" / small.name  # of weights that are gone
    folders[1].parent.rename(stale.parent)
    assert main([*args, "--out", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [f"as ever {folders[0]}", f"new     {folders[1]}", f"removed {stale}"]
    assert find_entries(out) == folders
    assert (folders[0] / "submission.json").read_bytes() == before


def test_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no entry 'nothing' of ours; there are apa-sparsesync"):
        next(make_entries("synthsync-test", tmp_path, ["nothing"]))
    with pytest.raises(UsageError, match="there are none for synthsync-test-hop4; there are synthsync-test"):
        next(make_entries("synthsync-test-hop4", tmp_path))
    assert main(["--track", "synthsync-test", "--workers", "0", "--out", str(tmp_path)]) == 2
    assert "workers is 0" in capsys.readouterr().err


def test_it_is_a_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "avbench.submissions.make_entries", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ))
    assert (done.returncode, "--track" in done.stdout) == (0, True), done.stderr


def test_the_track_of_changing_offsets_has_all_its_rows() -> None:
    models = ENTRIES["synthsync-dynamic-test"].values()
    assert {f"sparsesync+{head}" for head in ("apa", "apa-sliding", "apa-decay", "bayes", "cusum")} < set(models)
    assert {f"streamsync-{kind}{of}" for kind in ("trf", "lstm") for of in ("", ".dynamic")} < set(models)
