"""A submission to the track of changing offsets: every score and the headline are recomputed, none is believed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import logits_on, make_run

from avbench.protocol.tracks import TRACKS
from avbench.results.predictions import write_predictions
from avbench.results.run import Score
from avbench.results.truth import Truth
from avbench.scoring import dynamic
from avbench.scoring.stats import Bootstrap
from avbench.submissions.check import check
from avbench.submissions.format import ValidationError
from avbench.submissions.pack import pack
from avbench.submissions.tracks import truth, window_truth

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
TRACK = TRACKS["synthsync-dynamic-test"]


@pytest.fixture(scope="module")
def answers() -> Truth:
    return truth(TRACK)


@pytest.fixture(scope="module")
def logits(answers: Truth) -> np.ndarray:
    """Right most of the time, two windows late."""
    return logits_on(TRACK, answers, 4.0, late=2)


@pytest.fixture
def folder(answers: Truth, logits: np.ndarray, tmp_path: Path) -> Path:
    make_run(tmp_path / "run", TRACK, answers, logits)
    return pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "submission.json").read_text())
    change(document)
    (folder / "submission.json").write_text(json.dumps(document))


def test_its_scores_are_those_of_the_predictions(
    avbench: Avbench, folder: Path, answers: Truth, logits: np.ndarray
) -> None:
    done = avbench("submit", "check", folder, "--n-resamples", 100, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    windows = window_truth(TRACK, answers)
    assert windows is not None
    found = dynamic.score(logits, windows, videos=answers.clusters, bootstrap=Bootstrap(100))
    for name in dynamic.SHOWN:
        assert report["recomputed"][name] == pytest.approx(found[name], abs=1e-12), name
    assert report["recomputed"]["headline_recovery_s"] == pytest.approx(found["headline"]["recovery_s"], abs=1e-12)
    assert report["claimed"]["headline_recovery_s"] == pytest.approx(found["headline"]["recovery_s"]["value"])
    said = avbench("submit", "check", folder, "--n-resamples", 0).stdout
    assert "recovery at ≤ 1 false/h" in said
    assert "240 segments x 48 iterations" in said


@pytest.mark.parametrize("name", ["headline_recovery_s", "recovery_s", "false_changes_per_h", "tracked_acc", "acc"])
def test_a_wrong_claim_is_named(folder: Path, name: str) -> None:
    edit(folder, lambda d: d["claimed"].update({name: 0.123}))
    (problem,) = check(folder, n_resamples=0).errors
    assert (problem.field, "the predictions score" in problem.message) == (f"claimed.{name}", True)


def test_every_score_is_claimed(folder: Path) -> None:
    edit(folder, lambda d: d["claimed"].pop("headline_recovery_s"))
    assert check(folder, n_resamples=0).errors[0] == ("claimed.headline_recovery_s", "is missing")


def test_a_run_without_its_headline_cannot_be_packed(answers: Truth, logits: np.ndarray, tmp_path: Path) -> None:
    wrong = {"headline": {"recovery_s": Score(value=1.0).model_dump()}}
    for dynamic_part, says in (({}, "headline_recovery_s: is missing"), (wrong, "headline_recovery_s: says 1;")):
        make_run(tmp_path / "run", TRACK, answers, logits, dynamic=dynamic_part)
        with pytest.raises(ValidationError, match=says):
            pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")


def test_other_predictions_are_scored_as_they_are(folder: Path, answers: Truth, logits: np.ndarray) -> None:
    """One stream's answers are moved by five classes: the hashes fit, the claims do not."""
    tampered = logits.copy()
    tampered[0] = np.roll(tampered[0], 5, axis=-1)
    path = folder / "predictions.parquet"
    write_predictions(path, answers.segment_ids, tampered)
    data = path.read_bytes()
    edit(folder, lambda d: d["files"]["predictions"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    fields = {problem.field for problem in check(folder, n_resamples=0).errors}
    assert {"claimed.tracked_acc", "claimed.tracking_error_s"} <= fields


@pytest.mark.parametrize(("value", "ok"), [(0.25, True), (1.5, False), (np.nan, False)])
def test_an_alarm_column_is_checked(folder: Path, answers: Truth, logits: np.ndarray, value: float, ok: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "predictions.parquet"
    write_predictions(path, answers.segment_ids, logits, np.full(logits.shape[:2], 0.5))
    table = pq.read_table(path)
    alarm = np.full(len(table), 0.5, np.float32)
    alarm[7] = value
    pq.write_table(table.set_column(table.num_columns - 1, "alarm", pa.array(alarm)), path)
    data = path.read_bytes()
    edit(folder, lambda d: d["files"]["predictions"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    report = check(folder, n_resamples=0)
    assert report.ok == ok
    if not ok:
        assert (report.errors[0].field, "alarms" in report.errors[0].message) == ("predictions", True)


def test_the_command_of_a_track_makes_a_run_for_it(avbench: Avbench) -> None:
    tracks = {track["name"]: track for track in json.loads(avbench("submit", "tracks", "--json").stdout)}
    told = tracks[TRACK.name]
    assert told["command"] == "avbench run --model MODEL --data synthsync-dynamic --split test"
    assert told["segments"] == 240
    assert TRACK.blind_command("blind/inputs") == "avbench run --model MODEL --data blind/inputs --protocol dynamic"
