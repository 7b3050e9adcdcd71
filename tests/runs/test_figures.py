"""Files on disk to figures: what each has, what each lacks and why, and files that end the process that reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from smallsync import model_file, write_clip

from avbench.data.media import ClipReader
from avbench.registry.names import load_model
from avbench.runs import figures
from avbench.runs.figures import How, Setup, checked_metrics, row_of, score_files
from avbench.runs.segments import Segmenter
from avbench.scoring import desync
from avbench.scoring.figures import FileFigures, FileRow
from avbench.types import MediaError, UsageError

ALL = ("desync.first-last", "desync.consecutive", "offset")
ODD = "sub/ü <b>&#39; 'x'.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good files, one too short, one silent, one broken, and what is no media."""
    folder = tmp_path_factory.mktemp("generated")
    write_clip(folder / "good.mp4", 6, seed=1)
    write_clip(folder / ODD, 10, seed=2)
    write_clip(folder / "short.mp4", 3, seed=3)
    write_clip(folder / "silent.mp4", 6, level=0.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{model_file(tmp_path_factory.mktemp('model'))}:Small"


@pytest.fixture(scope="module")
def found(folder: Path, model: str) -> FileFigures:
    return score_files([folder], ALL, how=How(model))


def of(found: FileFigures, name: str) -> FileRow:
    return next(row for row in found.files if row.path.endswith(name))


def test_every_file_has_its_figures_or_the_reason(found: FileFigures) -> None:
    assert [Path(row.path).name for row in found.files] == [
        "broken.mp4",
        "good.mp4",
        "short.mp4",
        "silent.mp4",
        Path(ODD).name,
    ]
    assert of(found, "broken.mp4").error == ("is not a readable media file (Invalid data found when processing input)")
    assert of(found, "silent.mp4").error == "silent: every sample of the sound is 0"
    short = of(found, "short.mp4")
    reason = "too short: it has 8 segments of 0.64 s, needed are 14 (4.8 s of picture and sound)"
    assert short.error == f"desync.first-last, offset: {reason}"
    assert list(short.values) == ["desync.consecutive"]
    assert short.warnings == ("desync.consecutive: the file has 8 segments; they are repeated to make 14",)
    assert [of(found, name).duration_s for name in ("good.mp4", ODD, "short.mp4")] == [6.0, 10.0, 3.0]
    assert [of(found, name).error for name in ("good.mp4", ODD)] == [None, None]
    assert (found.n_passed_over, found.passed_over) == (1, ("notes.txt: not a video by its name",))
    assert not found.complete
    summary = found.summary["desync.first-last"]
    assert (summary.mean.n, summary.n_failed) == (2, 3)
    values = [of(found, name).values["desync.first-last"] for name in ("good.mp4", ODD)]
    assert summary.mean.value == pytest.approx(sum(values) / 2)
    assert found.models["synchformer"]["name"] == "small.py:Small"
    assert len(found.models["synchformer"]["fingerprint"]) == 64


def test_values_are_those_of_the_segments(found: FileFigures, folder: Path, model: str) -> None:
    segmenter = Segmenter(load_model(model).backbone, "small")
    for name in ("good.mp4", ODD):
        judged = segmenter.logits(ClipReader(folder / name))
        values = of(found, name).values
        expected = desync.desync_s(judged.logits, desync.first_last(judged.n))
        assert values["desync.first-last"] == pytest.approx(expected)
        expected = desync.desync_s(judged.logits, desync.consecutive(judged.n))
        assert values["desync.consecutive"] == pytest.approx(expected)
        assert values["offset_s"] == pytest.approx(desync.offset_s(judged.logits, judged.n), abs=1e-5)
        assert values["offset"] == abs(values["offset_s"])


def test_only_the_beginning_is_read_if_asked_and_the_lead_is_added(folder: Path, model: str) -> None:
    late = model.replace(":Small", ":Late")
    backbone = load_model(late).backbone
    setup = Setup(ALL, (), How(late, length_s=5.0))
    row = row_of(folder / ODD, "x", "x", setup, {"synchformer": Segmenter(backbone, "late")})
    judged = Segmenter(backbone, "late").logits(ClipReader(folder / ODD), 125)
    assert (judged.n, judged.n_frames) == (14, 125)
    assert row.values["offset_s"] == pytest.approx(desync.offset_s(judged.logits, 14) + 0.064)
    assert row.warnings == ()


def test_bad_behaviour_costs_the_file_only(tmp_path: Path, model: str) -> None:
    for name, level in (("a-kills", 1.0), ("nan", 0.4), ("raises", 0.15), ("well", 0.03), ("well-too", 0.04)):
        write_clip(tmp_path / f"{name}.mp4", 1, level=level)
    found = score_files([tmp_path], ["desync.consecutive"], how=How(model.replace(":Small", ":Moody")))
    errors = {row.key: row.error or "" for row in found.files}
    assert errors["well"] == errors["well-too"] == ""
    assert errors["raises"] == "model small.py:Moody broke off with RuntimeError: no such"
    assert errors["nan"].startswith("the model gave NaN or infinity")
    assert errors["a-kills"].startswith("reading or measuring it failed: the worker process died (killed by SIGSEGV")
    assert found.summary["desync.consecutive"].mean.n == 2


def test_files_and_folders_are_named_and_paired_by_their_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "a.mp4", one / "deep" / "a.mkv", two / "b.x.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    files = sorted(path.resolve() for path in tmp_path.rglob("*.m*"))
    named = figures._named(files, [one, two / "b.x.mp4"])
    assert [(shown, key) for _, shown, key in named] == [
        (str(one / "a.mp4"), "a"),
        (str(one / "deep" / "a.mkv"), "deep/a"),
        (str(two / "b.x.mp4"), "b.x"),
    ]


def test_pairs_with_a_reference_folder(folder: Path, model: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "good.mkv.mp4", 6, seed=1)
    (tmp_path / "good.mkv.mp4").rename(tmp_path / "good.mov")
    write_clip(tmp_path / "other.mp4", 6, seed=5)
    found = score_files([folder / "good.mp4", folder / "short.mp4"], ALL[1:2], reference=tmp_path, how=How(model))
    assert {Path(row.path).name: row.unpaired for row in (*found.files, *found.reference)} == {
        "good.mp4": "",
        "short.mp4": "the reference has no file short.*",
        "good.mov": "",
        "other.mp4": "the files have no file other.*",
    }
    difference = found.summary["desync.consecutive"].difference
    assert difference is not None
    assert (difference.n, difference.value) == (1, 0.0)  # the same clip under another ending
    assert not found.complete


# ----------------------------------------------------------------------------------------------------------- lse


def stand_in(monkeypatch: pytest.MonkeyPatch, **figures_of: Any) -> list[Any]:
    """In place of SyncNet's own module."""
    asked: list[Any] = []

    def measure_lse(path: Path, network: Any, *, boxes: Any = None, device: str = "cpu") -> Any:
        asked.append((path.name, network, boxes, device))
        if "good" not in path.name:
            raise MediaError(path.name, "no face is seen for 100 pictures")
        return SimpleNamespace(**figures_of)

    module: Any = ModuleType("avbench.runs.lse")
    module.measure_lse = measure_lse
    monkeypatch.setitem(sys.modules, "avbench.runs.lse", module)
    return asked


def test_lse_is_asked_of_syncnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "sound 2 frames early"
    told = {"lse_d": 7.5, "lse_c": 3.25, "offset_frames": -2, "n_frames": 140, "detector": "yunet", "words": words}
    asked = stand_in(monkeypatch, **told)
    setup = Setup(("lse",), (), How(), "boxes")
    row = row_of(folder / "good.mp4", "good", "good", setup, {"syncnet": "net"})
    assert row.values == {"lse_d": 7.5, "lse_c": 3.25, "lse_offset_frames": -2.0}
    assert row.warnings == ("lse: faces by yunet; sound 2 frames early",)
    assert row.duration_s == pytest.approx(6.0, abs=0.01)
    assert row_of(folder / "short.mp4", "s", "s", setup, {"syncnet": "net"}).reasons == {
        "lse": "no face is seen for 100 pictures"
    }
    assert row_of(folder / "silent.mp4", "s", "s", setup, {"syncnet": "net"}).error == (
        "silent: every sample of the sound is 0"
    )
    assert asked == [("good.mp4", "net", "boxes", "cpu"), ("short.mp4", "net", "boxes", "cpu")]


# ------------------------------------------------------------------------------------------------ wrong requests


def test_an_unknown_metric_is_told_its_neighbours() -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'desync.first': did you mean desync.first-last"):
        checked_metrics(["desync.first"])
    with pytest.raises(UsageError, match=r"unknown metric 'zzz': there are desync.first-last, desync.consecutive"):
        checked_metrics(["zzz"])
    with pytest.raises(UsageError, match="no metric is named"):
        checked_metrics([])
    assert [metric.name for metric in checked_metrics(["offset", "lse", "offset"])] == ["offset", "lse"]


def test_without_weights_the_command_that_fetches_them_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"`avbench weights fetch synchformer\.audioset`"):
        score_files([folder], ["offset"])


def test_models_that_cannot_do_it_are_refused_in_one_line(folder: Path, model: str) -> None:
    good = folder / "good.mp4"
    with pytest.raises(UsageError, match="model synchformer cannot encode single segments"):
        score_files([good], ["offset"], how=How("synchformer"))  # the embedded one
    with pytest.raises(UsageError, match="model 'constant' ignores its input"):
        score_files([good], ["offset"], how=How("constant"))
    for wrong in ({"workers": 0}, {"length_s": 0.0}, {"length_s": float("nan")}):
        with pytest.raises(UsageError):
            How(model, **wrong)  # type: ignore[arg-type]


def test_an_empty_folder_is_one_line(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match="no video files found"):
        score_files([tmp_path], ["offset"], how=How(model))


def test_every_metric_measures_what_it_says() -> None:
    for name, metric in figures.METRICS.items():
        assert metric.name == name
        assert metric.needs in (figures.SYNCHFORMER, figures.SYNCNET)
        assert all(figure.description for figure in metric.figures)
    names = [figure.name for metric in figures.METRICS.values() for figure in metric.figures]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_the_full_size_model_with_random_weights(folder: Path) -> None:
    how = How(options=figures.ModelOptions(random_seed=0), length_s=4.8)
    with torch.inference_mode():
        found = score_files([folder / "good.mp4"], ALL[:2], how=how)
    assert found.complete
    assert found.models["synchformer"]["random_weights"] == 0
