"""``avbench run --metrics``: which columns the table has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.commands.run import METRIC_NAMES
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.results.run import read_run
from avbench.scoring.below_grid import BELOW_GRID, COLUMNS
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS
from avbench.scoring.tolerance import TOLERANCES
from avbench.ticks import ticks
from avbench.types import SegmentRecord

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_help_names_every_metric(avbench: Avbench) -> None:
    fixed, changing = METRIC_NAMES.split("; where offsets change ")
    assert changing.split() == list(SHOWN)
    words = fixed.replace(";", "").replace(",", "").split()
    end = words.index("TABLE")
    names = [name for name in words[:end] if "TABLE" not in name]
    tables, figures = words[end + 2 :], [name for name in words[:end] if "TABLE" in name]
    assert tables == [name.replace("-", "_") for name in TOLERANCES]
    names += [figure.replace("TABLE", table) for table in tables for figure in figures]
    assert names == list(COLUMNS)
    told = " ".join(avbench("run", "--help").stdout.split())
    assert "out_of_TABLE_recall_5_percent" in told


def test_the_table_has_the_chosen_columns(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    def table(*metrics: str) -> list[str]:
        words = (
            "run",
            "--model",
            "uniform",
            "--data",
            clicks,
            "--iterations",
            "2",
            "--out",
            "r",
            "--no-reference-rows",
        )
        done = avbench(*words, *(("--metrics", *metrics) if metrics else ()))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    plain = table()
    assert plain[1].split() == ["Acc", "Acc±1", "mAP", "ROC-AUC", "bal.", "acc", "MAE", "(s)", "n", "ms/step*"]
    assert table("default") == plain
    assert table("ece", "acc", "ece")[1].split() == ["ECE", "Acc", "n", "ms/step*"], "in the order given, each once"
    every = table("all")
    heads = [line for line in every if any(line.split()[:1] == [c.title.split()[0]] for c in COLUMNS.values())]
    assert " ".join(heads[0].split()[:8]) == " ".join(m.title for m in METRICS.values())
    for column in COLUMNS.values():
        assert any(column.title in head for head in heads), column.name
    assert max(map(len, heads)) <= 130
    assert sum("4/4" in line for line in every) == 1
    assert set(read_run(tmp_path / "r").scores) == set(COLUMNS), "whatever the columns, all are kept"


def test_an_unknown_metric_is_named_with_the_nearest_before_any_work(avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("run", "--model", "xcorr", "--data", "nowhere", "--metrics", "offset_eror_s", "--out", "r")
    assert done.returncode == 2
    assert "unknown metric 'offset_eror_s': did you mean offset_error_s" in done.stderr
    done = avbench("run", "--model", "xcorr", "--data", "nowhere", "--metrics", "xyzzy")
    assert all(name in done.stderr for name in ("there are default, all, acc", *BELOW_GRID))
    assert not (tmp_path / "r").exists()


BROKEN = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    uses_torch = False
    def predict(self, video, audio):
        return self.layer(video)
    def layer(self, video):
        raise ValueError("no such layer")

class Bare(Net):
    def predict(self, video, audio):
        return np.zeros((len(video), 21), np.float32)
"""


def test_a_model_that_breaks_stops_the_run_and_names_its_line(
    avbench_process: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clicks(clips=("a", "b", "c", "d", "e"), duration_s=11)
    (tmp_path / "net.py").write_text(BROKEN)
    words = ("run", "--data", data, "--iterations", 1, "--out", "r", "--workers", 1, "--model")
    done = avbench_process(*words, "net.py:Net")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    why = "model net.py:Net broke off with ValueError: no such layer (net.py, line 11, in layer)"
    assert f"note: the run was stopped, 3 clips tried, 2 not: {why} on each of the first 3 clips" in done.stderr
    assert "nothing was scored: 10 of 10 segments failed" in done.stdout
    assert f"  clips d, e: not tried: {why} on each of the first 3 clips (4 segments)\n" in done.stdout
    assert done.stdout.count("(net.py, line 11, in layer)") == 2, "each cause once, whatever the window"
    assert "classes have no segment" not in done.stdout
    assert "INCOMPLETE" not in done.stdout
    assert done.stdout.splitlines()[-1] == "next    avbench doctor net.py:Net"
    assert len(read_run(tmp_path / "r").failures) == 10
    done = avbench_process(*words, "net.py:Bare")
    assert done.returncode == 2
    assert "predict returned a ndarray of shape (1, 21): return avbench.Snapshot(logits=...)" in done.stderr


def test_clips_that_are_gone_are_the_cause_of_an_empty_run(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clicks(clips=("a", "b"))
    shutil.rmtree(data / "media")
    words = ("run", "--model", "xcorr", "--data", data, "--out", "out", *ONE)
    done = avbench(*words)
    assert done.returncode == 1
    n = len(read_run(tmp_path / "out").failures)
    assert f"nothing was scored: {n} of {n} segments failed" in done.stdout
    assert "media/a.mp4 does not exist" in done.stdout
    assert done.stdout.splitlines()[-1] == f"next    avbench data verify {data}"
    page = (tmp_path / "out" / "run.html").read_text()
    assert f"Nothing was scored: {n} of {n} segments failed." in page
    assert page.index("does not exist") < page.index("Provenance")
    done = avbench(*words, "--json", "--force")
    assert "failed: clip a: " in done.stderr, "what reads JSON still has the causes beside it"


def test_segments_of_which_some_fit_no_window_are_told_what_scores_most(
    avbench: Avbench, make_clicks: Callable[..., Path]
) -> None:
    folder = make_clicks()
    old = read_manifest(folder)
    late = [SegmentRecord(f"two-{s}", "two", "two", ticks(s), 0, 10) for s in (6, 11)]
    write_manifest(
        Manifest(old.name, old.kind, old.note, old.offset_law, old.clips, (*old.segments, *late), old.media_root),
        folder,
    )
    n = len(old.segments)
    done = avbench("run", "--model", "constant", "--data", folder, "--iterations", "3", "--n-resamples", "50")
    said = f"note: 2 of {n + 2} segments are too short for 3 windows at hop 2 s and not scored"
    assert f"{said}; --iterations 1 scores {n + 1}" in done.stderr


ONE = ("--iterations", "2", "--workers", "1", "--n-resamples", "50")


def test_each_run_without_out_has_a_folder_of_its_own(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert avbench("run", "--model", "constant", "--data", clicks, *ONE).returncode == 0
    first, second = sorted((tmp_path / "runs").iterdir())
    assert second.name == f"{first.name}-2"
    assert (first / "run.html").exists()
    assert avbench("run", "--model", "no-such-model", "--data", clicks, *ONE).returncode == 2
    assert len(list((tmp_path / "runs").iterdir())) == 2  # what came to nothing leaves nothing


def test_two_runs_that_start_together_are_both_there(clicks: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "avbench", "run", "--model", "uniform", "--data", str(clicks), *ONE, "--seed"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    together = [subprocess.Popen([*words, seed], **quiet) for seed in "12"]  # type: ignore[call-overload]
    said = ["".join(process.communicate(timeout=100)) for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    reports = [next(line for line in text.splitlines() if line.startswith("report ")) for text in said]
    runs = [tmp_path / line.split(maxsplit=1)[1] for line in reports]
    assert [read_run(run.parent).seed for run in runs] == [1, 2], "each said where its own is"
    assert all(run.exists() for run in runs)


def test_a_run_that_is_told_to_end_says_what_is_kept(clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    words = [sys.executable, "-m", "avbench", "run", "--model", "slow.py:Slow", "--data", str(clicks), *ONE]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for _ in range(600):
            if (tmp_path / "began").exists():
                break
            time.sleep(0.1)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 143
    assert "avbench: error: ended. What was computed is in the store" in said
    assert "Traceback" not in said


SLOW = """
import pathlib, time
from avbench import FrontEnd, SnapshotPredictor

class Slow(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        pathlib.Path("began").touch()
        time.sleep(100)
"""


def test_a_run_replaces_only_itself(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    run = ("run", "--data", clicks, "--out", "out", *ONE)
    assert avbench(*run, "--model", "constant").returncode == 0
    assert avbench(*run, "--model", "constant").returncode == 0
    fewer = avbench(*run, "--model", "constant", "--seed", 7)
    assert (fewer.returncode, fewer.stderr.count("\n")) == (2, 1)
    assert "out already holds another run (seed 0)" in fewer.stderr
    before = (tmp_path / "out" / "run.json").read_bytes()
    done = avbench(*run, "--model", "uniform")
    assert done.returncode == 2
    assert "out already holds another run" in done.stderr
    assert "--force" in done.stderr
    assert (tmp_path / "out" / "run.json").read_bytes() == before
    assert avbench(*run, "--model", "uniform", "--force").returncode == 0
    assert read_run(tmp_path / "out").model.name == "uniform"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--model", "constant", "--out", "mine"), "mine already holds thesis.tex; give --force"),
        (("run", "--model", "constant", "--csv", "mine"), "--csv mine is a folder"),
        (("sweep", "--models", "constant", "--plot", "figure.doc"), "ends in .svg or .png"),
        (("sweep", "--models", "constant", "--plot", "mine/thesis.tex/y.svg"), "cannot write to"),
        (("sweep", "--models", "constant", "--plot", "folder.svg"), "--plot folder.svg is a folder"),
        (("sweep", "--models", "constant", "--csv", "mine"), "--csv mine is a folder"),
        (("paper", "table1", "--out", "mine"), "mine already holds thesis.tex; give --force"),
        (("latency", "--model", "xcorr", "--out", "mine/thesis.tex"), "is there already; give --force"),
        (("data", "from-files", "videos", "--out", "mine"), "mine already holds thesis.tex; give --force"),
        (("data", "dynamic", "synthsync", "--out", "mine"), "mine already holds thesis.tex; give --force"),
        (("data", "info", "synthsync", "--plot", "folder.svg"), "--plot folder.svg is a folder"),
    ],
)
def test_where_it_would_be_written_is_checked_before_the_work(
    words: tuple[str, ...], said: str, avbench: Avbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the data were opened")

    monkeypatch.setattr("avbench.data.synthsync.planned", opened)
    monkeypatch.setattr("avbench.latency.measure.measure", opened)
    for folder in ("mine", "folder.svg", "videos"):
        (tmp_path / folder).mkdir()
    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.write_text("years of work")
    done = avbench(*words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stderr.count("avbench: error:") == 1
    assert thesis.read_text() == "years of work"
