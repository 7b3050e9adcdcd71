"""The clips of a run's page: made by a run, kept and made anew by a report, absent where they would tell too much."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avbench.data.opening import read_data
from avbench.engine.runner import Compute
from avbench.pages.run_report import Read, read_again
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import streaming
from avbench.results.excerpts import FOLDER, RECORD
from avbench.results.run import RunResult, read_run
from avbench.runs.evaluate import evaluate
from avbench.runs.run_clips import Source, believed_law, cut_clips, wanted_by_default
from avbench.scoring.stats import Bootstrap
from avbench.ticks import ticks
from avbench.types import AvbenchError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
Made = tuple[Path, RunResult, Read, Manifest]


@pytest.fixture(scope="module")
def ran(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with clips, and the store of its snapshots."""
    folder = tmp_path_factory.mktemp("ran")
    compute = Compute(folder / "store")
    evaluate(
        "xcorr",
        str(clicks),
        protocol=streaming(iterations=2),
        out=folder / "r",
        compute=compute,
        bootstrap=Bootstrap(20),
        media=True,
    )
    return folder


@pytest.fixture
def made(ran: Path, clicks: Path, tmp_path: Path) -> Made:
    """A copy of it, and what is needed to cut its clips."""
    folder = tmp_path / "r"
    shutil.copytree(ran / "r", folder)
    result = read_run(folder)
    return folder, result, read_again(folder, result), read_data(str(clicks))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def test_a_run_cuts_clips_and_a_report_keeps_them(made: Made, avbench: Avbench) -> None:
    folder = made[0]
    kinds = ["surest-1", *(f"worst-{n}" for n in (1, 2, 3))]
    clips = [f"{kind}-{shift}.mp4" for kind in kinds for shift in ("seen", "corrected")]
    assert names(folder) == sorted([RECORD, *clips])
    page = (folder / "run.html").read_text(encoding="utf-8")
    assert page.count("<video") == 8
    (folder / "run.html").unlink()
    assert avbench("report", "r").returncode == 0
    assert (folder / "run.html").read_text(encoding="utf-8") == page


def test_a_report_makes_lost_clips_anew(made: Made, avbench: Avbench, clicks: Path) -> None:
    folder = made[0]
    page = (folder / "run.html").read_text(encoding="utf-8")
    before = {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}
    shutil.rmtree(folder / FOLDER)
    assert avbench("report", "r").returncode == 0
    assert "<video" not in (folder / "run.html").read_text(encoding="utf-8")
    assert avbench("report", "r", "--data", clicks).returncode == 0
    assert {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()} == before
    assert (folder / "run.html").read_text(encoding="utf-8") == page


def test_a_run_without_media_removes_those_of_the_run_before(
    made: Made, ran: Path, avbench: Avbench, clicks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AVBENCH_NO_MEDIA")
    words = ("run", "--model", "xcorr", "--data", clicks, "--iterations", "2", "--n-resamples", "20")
    done = avbench(*words, "--out", "r", "--store", ran / "store", "--no-reference-rows", "--no-media", "--force")
    assert done.returncode == 0, done.stderr
    assert not (made[0] / FOLDER).exists()
    assert "<video" not in (made[0] / "run.html").read_text(encoding="utf-8")


def test_clips_change_nothing_else(made: Made) -> None:
    folder, result, read, manifest = made
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    cuts = cut_clips(folder, result, read, Source(manifest, apart=False))
    assert [cut.reason for cut in cuts] == [""] * 4
    assert {cut.segment_id for cut in cuts} == {segment.id for segment in manifest.segments}
    assert {(cut.start_s, cut.length_s) for cut in cuts} == {(0.0, 7.0)}, "two windows are shorter than an excerpt"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_hidden_labels_have_no_clips(made: Made) -> None:
    folder, result, read, manifest = made
    assert cut_clips(folder, result, read._replace(answers=None), Source(manifest, apart=False)) == []
    assert not (folder / FOLDER).exists(), "those of before are gone, too"
    hidden = replace(manifest, offset_law="hidden")
    assert hidden.labels_hidden
    assert cut_clips(folder, result, read, Source(hidden, apart=False)) == []
    assert not (folder / FOLDER).exists()


def test_a_file_that_is_gone_or_another_costs_its_own_clips(made: Made, tmp_path: Path) -> None:
    folder, result, read, manifest = made
    shutil.copytree(manifest.media_root, tmp_path / "media")
    moved = replace(manifest, media_root=tmp_path / "media")
    (tmp_path / "media" / "one.mp4").write_bytes(b"another")
    found = {cut.segment_id: cut.reason for cut in cut_clips(folder, result, read, Source(moved, apart=False))}
    assert "is not the file that the manifest pins" in found["one-0"]
    assert (found["two-0"], found["two-1"]) == ("", "")
    (tmp_path / "media" / "two.mp4").unlink()
    cuts = cut_clips(folder, result, read, Source(moved, apart=False))
    assert all(cut.reason for cut in cuts)
    assert names(folder) == [RECORD]


def test_nothing_is_written_through_a_link(made: Made, tmp_path: Path) -> None:
    folder, result, read, manifest = made
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(folder / FOLDER)
    (folder / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AvbenchError, match="is a link"):
        cut_clips(folder, result, read, Source(manifest, apart=False))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_other_data_than_the_runs_are_refused(made: Made, make_clicks: Callable[..., Path], avbench: Avbench) -> None:
    other = make_clicks(duration_s=13)
    done = avbench("report", made[0], "--data", other)
    assert done.returncode == 2
    assert "is not what" in done.stderr
    assert "the sha256 of its manifest differs" in done.stderr


def test_a_model_that_guesses_has_no_clips(
    avbench: Avbench, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AVBENCH_NO_MEDIA")
    done = avbench("run", "--model", "uniform", "--data", clicks, "--iterations", "2", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "r" / FOLDER).exists()


def test_what_the_model_believes_is_a_law(made: Made) -> None:
    result = made[1]
    logits = np.full((2, 21), -20.0, np.float32)
    logits[0, 12], logits[1, 5] = 20, 20
    assert [piece[:2] for piece in believed_law(result, logits).pieces] == [(0, ticks(-1.0))], "what it says at last"
    changing = result.model_copy(update={"protocol": replace(result.protocol, name="dynamic")})
    assert [piece[:2] for piece in believed_law(changing, logits).pieces] == [(0, ticks(0.4)), (ticks(5), ticks(-1.0))]


def test_the_variable_turns_clips_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, wanted in (("", True), ("0", True), ("1", False)):
        monkeypatch.setenv("AVBENCH_NO_MEDIA", value)
        assert wanted_by_default() == wanted


def test_rows_beside_the_run_have_their_curves(made: Made) -> None:
    folder, result = made[:2]
    curves = {row.label: row for row in result.rows if row.curve}
    assert sorted(curves) == ["same, APA", "same, one window"]
    apa = curves["same, APA"]
    assert [apa.curve[-1][name].value for name in ("acc", "mae_s")] == [apa.scores[n].value for n in ("acc", "mae_s")]
    page = (folder / "run.html").read_text(encoding="utf-8")
    assert "same, one window (each window alone)" in page
    assert page.count('class="line c1 thin"') == 3
