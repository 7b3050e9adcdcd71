"""Entries of the leaderboard compared with runs and with each other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from entries import make_entry, make_logits
from runs import make_run

from avbench.protocol.tracks import TRACKS, Track
from avbench.results.dynamic_truth import RANGES, read_truth, write_truth
from avbench.results.run import FileRef, read_run, write_run
from avbench.results.truth import write_segments
from avbench.runs.compare import compare, compare_all
from avbench.scoring.metrics import score
from avbench.scoring.stats import Bootstrap
from avbench.submissions.as_run import entry_run, opened
from avbench.submissions.tracks import truth, window_truth
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
TRACK, HOP4 = TRACKS["synthsync-test"], TRACKS["synthsync-test-hop4"]
FEW = Bootstrap(50)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Entries of three models: one on two tracks, one in two revisions; read only."""
    root = tmp_path_factory.mktemp("board") / "entries"
    for name, skill, track, revision in (
        ("good", 0.5, TRACK, "v1"),
        ("good", 0.5, HOP4, "v1"),
        ("fair", 0.2, TRACK, "v1"),
        ("fair", 0.3, TRACK, "v2"),
        ("poor", 0.02, TRACK, "v1"),
    ):
        make_entry(root, track, truth(track), name, skill, seed=len(name), revision=revision)
    return root


def run_on(folder: Path, track: Track = TRACK, skill: float = 0.15) -> Path:
    """A run of a track with the labels beside it."""
    answers = truth(track)
    result = make_run(folder, track, logits=make_logits(answers, track.protocol.iterations, skill, seed=9))
    segments = FileRef(path="segments.parquet", sha256=write_segments(folder / "segments.parquet", answers))
    write_run(result.model_copy(update={"files": {**result.files, "segments": segments}}), folder)
    return folder


def test_a_run_against_the_board(avbench: Avbench, root: Path, tmp_path: Path) -> None:
    run = run_on(tmp_path / "mine")
    done = avbench(
        "compare", run, "board:acme/good", "board:acme/fair@v2", "board:acme/poor", "--entries", root, "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["runs"]] == ["toy", "acme/good", "acme/fair", "acme/poor"]
    assert told["n_segments"] == len(truth(TRACK))
    assert [one["name"] for one in told["metrics"]["map"]["runs"]] == ["acme/good", "acme/fair", "toy", "acme/poor"]
    pair = told["metrics"]["map"]["pairs"][0]
    assert (pair["model_a"], pair["model_b"]) == ("toy", "acme/good")
    assert pair["significant"] is True
    assert pair["a"] == pytest.approx(read_run(run).scores["map"].value, abs=1e-6)


def test_an_entry_is_scored_from_its_predictions(root: Path) -> None:
    good, poor = (root / f"acme__{name}" / "v1" / TRACK.name for name in ("good", "poor"))
    opened_entry = entry_run(good)
    found = compare(opened_entry, entry_run(poor), bootstrap=FEW)
    expected = score(opened_entry.entry.logits[:, -1], opened_entry.entry.truth.labels)
    assert {name: one.a for name, one in found.metrics.items()} == pytest.approx(expected)
    assert opened_entry.frame().offset_s.notna().all()
    assert "procedural stand-in" in found.a.data.note


def test_an_entry_may_be_named_by_its_folder(avbench: Avbench, root: Path) -> None:
    folder = root / "acme__good" / "v1" / TRACK.name
    done = avbench("compare", folder, "board:acme/poor", "--entries", root, "--n-resamples", 50)
    assert done.returncode == 0, done.stderr
    assert "acme/good minus acme/poor on synthsync test: 168 segments" in done.stdout


def test_a_folder_with_one_entry_alone_is_that_entry(avbench: Avbench, root: Path, tmp_path: Path) -> None:
    """As `submit pack --out` makes it, and `submit check` takes it."""
    alone = tmp_path / "packed"
    shutil.copytree(root / "acme__good" / "v1" / TRACK.name, alone / "acme__good" / "v1" / TRACK.name)
    compare = ("--entries", root, "--n-resamples", 50)
    done = avbench("compare", alone, "board:acme/poor", *compare)
    assert done.returncode == 0, done.stderr
    assert "acme/good minus acme/poor" in done.stdout
    assert "95 % intervals (50 resamples, seed 0)" in done.stdout
    several = avbench("compare", root, "board:acme/poor", *compare)
    assert (several.returncode, several.stderr.count("\n")) == (2, 1)
    assert f"{root} holds 5 submissions; name one" in several.stderr


def test_two_revisions_of_a_model_are_told_apart(root: Path) -> None:
    names = ["board:acme/fair@v1", "board:acme/fair@v2", "board:acme/poor"]
    assert compare_all(opened(names, root), bootstrap=FEW).names == ("acme/fair (v1)", "acme/fair (v2)", "acme/poor")


def test_entries_of_another_version_are_compared_and_runs_are_not(root: Path, tmp_path: Path) -> None:
    """As the board ranks them; the versions are said."""
    run = run_on(tmp_path / "later")
    document = json.loads((run / "run.json").read_text())
    signature = document["signature"].rpartition("|")[0] + "|v9.9.9"
    (run / "run.json").write_text(json.dumps(document | {"signature": signature, "avbench_version": "9.9.9"}))
    entry = opened(["board:acme/poor"], root, TRACK.name)[0]
    found = compare_all([run, entry], bootstrap=FEW)
    assert [one.avbench_version for one in found.runs] == ["9.9.9", "0.1.0"]
    with pytest.raises(UsageError, match="differ in version"):
        compare_all([entry, run, run_on(tmp_path / "now")], bootstrap=FEW)


def test_the_truth_of_every_window_is_that_of_a_run(tmp_path: Path) -> None:
    """What a run over changing offsets has written may be compared with the track's own."""
    track = TRACKS["synthsync-dynamic-test"]
    windows = window_truth(track, truth(track))
    write_truth(tmp_path / "truth.parquet", windows)
    stored = read_truth(tmp_path / "truth.parquet")
    assert stored.segment_ids == windows.segment_ids
    assert all(np.array_equal(getattr(stored, column), getattr(windows, column)) for column in RANGES)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["RUN", "board:acme/god"], "has no entry of 'acme/god'; did you mean acme/good or acme/poor?"),
        (["RUN", "board:../../etc"], "has no entry of '../../etc'"),
        (["RUN", "board:acme/good@v3"], "acme/good has no revision 'v3'; there are v1"),
        (["RUN", "board:acme/fair"], "has 2 revisions (v1, v2): name one, board:acme/fair@v1"),
        (["RUN4", "board:acme/poor"], "has no entry to track synthsync-test-hop4; it is on synthsync-test"),
        (["RUN4", "FOLDER"], "they differ in hop"),
        (["board:acme/good", "board:acme/good@v1"], "are on 2 tracks: choose one with --track synthsync-test"),
        (["RUN", "board:acme/good", "--track", "synthsync-test-hop4"], "is on track synthsync-test, not"),
        (["RUN", "board:acme/good", "--entries", "none"], "none is not a folder of entries, where board:acme/good"),
    ],
)
def test_wrong_names_are_one_line(avbench: Avbench, root: Path, tmp_path: Path, names: list[str], words: str) -> None:
    places = {"RUN": tmp_path / "run", "RUN4": tmp_path / "run4", "FOLDER": root / "acme__poor" / "v1" / TRACK.name}
    for name, track in (("RUN", TRACK), ("RUN4", HOP4)):
        if name in names:
            run_on(places[name], track)
    done = avbench("compare", "--entries", root, *(places.get(name, name) for name in names))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_refused_entry_is_one_line(avbench: Avbench, root: Path, tmp_path: Path) -> None:
    folder = make_entry(tmp_path / "e", TRACK, truth(TRACK), "broken")
    with (folder / "predictions.parquet").open("ab") as file:
        file.write(b"x")
    done = avbench("compare", folder, "board:acme/poor", "--entries", root)
    assert done.returncode == 2
    assert f"{folder} is refused as an entry: files.predictions.bytes" in done.stderr
    assert done.stderr.count("\n") == 1
    blind = folder.with_name(f"{TRACK.name}.blind-0123")
    folder.rename(blind)
    done = avbench("compare", blind, "board:acme/poor", "--entries", root)
    assert done.returncode == 2
    assert "its labels are private" in done.stderr
