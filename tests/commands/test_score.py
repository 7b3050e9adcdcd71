"""``avbench score`` as its users meet it: a process, its streams, files, and exit codes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from smallsync import model_file, write_clip

from avbench.runs.figures import METRICS

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
ODD = "ü -- $(x) 'a'\n<b>.mp4"
ALL = ("--metrics", "desync.first-last,desync.consecutive,offset")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with two good clips, one with an odd name, and a model file beside it."""
    model_file(tmp_path)
    write_clip(tmp_path / "made" / "a.mp4", 6, seed=1)
    write_clip(tmp_path / "made" / ODD, 6, seed=2)
    return tmp_path


def model(name: str = "Small") -> tuple[str, str]:
    return "--model", f"small.py:{name}"


def test_json_is_one_object_and_every_file_is_in_it(avbench_process: Avbench, here: Path) -> None:
    (here / "made" / "broken.mp4").write_bytes(b"x")
    (here / "made" / "readme.txt").write_text("x")
    done = avbench_process("score", "made", *ALL, *model(), "--json")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    rows = {row["path"]: row for row in document["files"]}
    odd = f"made/{ODD}".replace("\n", " ")
    assert set(rows) == {"made/a.mp4", odd, "made/broken.mp4"}
    for path in ("made/a.mp4", odd):
        assert rows[path]["error"] is None
        assert 0 <= rows[path]["desync.first-last"] <= 2
        assert rows[path]["offset"] == abs(rows[path]["offset_s"])
    broken = rows["made/broken.mp4"]
    assert (broken["desync.consecutive"], broken["duration_s"]) == (None, None)
    assert broken["error"].startswith("is not a readable media file")
    summary = document["summary"]["desync.first-last"]
    assert (summary["n"], summary["n_failed"]) == (2, 1)
    assert (summary["ci_low"], summary["ci_high"]) == (None, None), "two files are too few for an interval"
    assert document["passed_over"] == ["readme.txt: not a video by its name"]
    assert "avbench: without: made/broken.mp4: is not a readable media file" in done.stderr
    assert "avbench: passed over: readme.txt: not a video by its name" in done.stderr


def test_a_table_and_files_and_exit_code_0(avbench: Avbench, here: Path) -> None:
    done = avbench("score", "made", "made/a.mp4", *ALL, *model(), "--out", "out", "--csv", "x.csv", "--page", "x.html")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "file, the worst first"
    assert sum(line.startswith("made/") for line in lines) == 2  # a file that is named twice is measured once
    assert any(line.startswith("DeSync first-last (s)") for line in lines)
    assert "hkchengrex/av-benchmark" in done.stdout
    assert "JavisVerse/JavisDiT" in done.stdout
    assert "small.py:Small · fingerprint" in done.stdout
    assert sorted(path.name for path in (here / "out").iterdir()) == ["score.csv", "score.html", "score.json"]
    assert (here / "out" / "score.html").read_bytes() == (here / "x.html").read_bytes()
    assert (here / "out" / "score.csv").read_bytes() == (here / "x.csv").read_bytes()
    rows = list(csv.DictReader(io.StringIO((here / "x.csv").read_text())))
    document = json.loads((here / "out" / "score.json").read_text())
    told = {row["path"]: row["desync.consecutive"] for row in document["files"]}
    assert {row["path"]: float(row["desync.consecutive"]) for row in rows} == told
    again = avbench("score", "made", *ALL, *model(), "--out", "out")
    assert again.returncode == 2
    assert "out already holds" in again.stderr


def test_a_reference_is_paired(avbench: Avbench, here: Path) -> None:
    (here / "originals").mkdir()
    (here / "originals" / "a.mkv").write_bytes((here / "made" / "a.mp4").read_bytes())
    done = avbench("score", "made", "--reference", "originals", "--metrics", "offset", *model(), "--json")
    assert done.returncode == 1, "one file has no pair"
    document = json.loads(done.stdout)
    assert document["n_unpaired"] == 1
    assert [row["path"] for row in document["reference"]] == ["originals/a.mkv"]
    assert document["summary"]["offset_s"]["difference"]["n"] == 1
    assert document["summary"]["offset_s"]["difference"]["value"] == pytest.approx(0, abs=1e-9)
    assert "avbench: unpaired: made/" in done.stderr
    assert "the reference has no file" in done.stderr


def test_wrong_requests_are_one_line(avbench: Avbench, here: Path) -> None:
    (here / "empty").mkdir()
    for words, text in (
        ((), "nothing to score: name a folder or a file, or give --list"),
        (
            ("made", "--metrics", "desync.firstlast"),
            "unknown metric 'desync.firstlast': did you mean desync.first-last",
        ),
        (("made", "--metrics", ","), "no metric is named"),
        (("empty", *model()), "no video files found"),
        (("gone", *model()), "gone does not exist"),
        (("made",), "`avbench weights fetch synchformer.audioset`"),
        (("made", *model(), "--page", "."), "--page . is a folder"),
        (("made", *model(), "--boxes", "gone.json"), "--boxes gone.json is no file"),
        (("made", *model(), "--workers", "0"), "workers is 0"),
        (("made", *model(), "--seconds", "-1"), "the length to read is -1"),
        (("made", *model(), "--device", "nowhere"), "device 'nowhere' cannot be used here"),
        (("made", *model("Missing")), "Missing"),
    ):
        done = avbench("score", *words)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
        complaints = [line for line in done.stderr.splitlines() if line.startswith("avbench: error:")]
        assert len(complaints) == 1, done.stderr
        assert text in complaints[0]


def test_the_list_explains_every_metric(avbench: Avbench) -> None:
    done = avbench("score", "--list")
    assert done.returncode == 0
    for metric in METRICS.values():
        assert f"{metric.name} (needs {metric.needs}): {metric.definition}" in done.stdout
        for figure in metric.figures:
            assert f"    {figure.name}" in done.stdout


def test_ctrl_c_promises_nothing(avbench: Avbench, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avbench.runs.figures.score_files", stop)
    done = avbench("score", "made", *model(), "--out", "out")
    assert (done.returncode, done.stdout) == (130, "")
    assert "interrupted; nothing was written" in done.stderr
    assert not (here / "out").exists()
