"""Where ``board:`` is looked up when nobody names the folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from entries import make_entry

import avbench as package
from avbench.protocol.tracks import TRACKS
from avbench.submissions.clone import entries_folder
from avbench.submissions.tracks import truth
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct_url: str | None) -> None:
    """As if this avbench lay in a folder of installed packages, with this record of where it came from."""
    site = tmp_path / "site-packages"
    info = site / "avbench-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: avbench\nVersion: 0.1.0\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(direct_url)
    monkeypatch.setattr(package, "__file__", str(site / "avbench" / "__init__.py"))
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(info))


def from_folder(folder: Path, **more: Any) -> str:
    return json.dumps({"url": folder.as_uri(), "dir_info": {}} | more)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with entries, in a folder whose name must be quoted in a URL."""
    clone = tmp_path / "my clone ü"
    (clone / "submissions" / "entries").mkdir(parents=True)
    return clone


@pytest.mark.parametrize("inside", ["", "runs", "runs/a"])
def test_the_current_folder_or_the_next_above(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    (clone / "runs" / "a").mkdir(parents=True)
    other = tmp_path / "other"
    (other / "submissions" / "entries").mkdir(parents=True)
    installed(monkeypatch, tmp_path, from_folder(other))
    monkeypatch.chdir(clone / inside)
    assert entries_folder("board:a/b").resolve() == clone / "submissions" / "entries"


@pytest.mark.parametrize("editable", [{}, {"dir_info": {"editable": True}}])
def test_else_where_it_was_installed_from(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: dict[str, Any]
) -> None:
    installed(monkeypatch, tmp_path, from_folder(clone, **editable))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert entries_folder("board:a/b") == clone / "submissions" / "entries"


def test_else_where_its_source_is(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path, None)
    monkeypatch.setattr(package, "__file__", str(clone / "benchmark" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert entries_folder("board:a/b") == clone / "submissions" / "entries"


@pytest.mark.parametrize(
    "direct_url",
    [
        None,
        "{",
        "[]",
        '{"url": 3}',
        '{"url": "file://[half"}',
        '{"url": "https://example.org/avbench.git", "vcs_info": {"vcs": "git"}}',
        '{"url": "file://another-machine/CLONE"}',
        '{"url": "file:///gone"}',
        '{"url": "file:relative"}',
    ],
)
def test_nowhere(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_url: str | None) -> None:
    installed(monkeypatch, tmp_path, direct_url and direct_url.replace("/CLONE", clone.as_uri()[7:]))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UsageError, match=r"^board:a/b is looked up in submissions/entries of .* --entries DIR$"):
        entries_folder("board:a/b")


def test_compare_looks_there(avbench: Avbench, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = TRACKS["synthsync-test"]
    for name, skill in (("good", 0.5), ("poor", 0.02)):
        make_entry(clone / "submissions" / "entries", track, truth(track), name, skill)
    words = ("compare", "board:acme/good", "board:acme/poor", "--n-resamples", 50, "--json")
    installed(monkeypatch, tmp_path, from_folder(clone))
    done = avbench(*words)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert f"avbench: board: {clone / 'submissions' / 'entries'}\n" in done.stderr
    clone.rename(tmp_path / "moved")
    done = avbench(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "name that folder of a clone with --entries DIR" in done.stderr
