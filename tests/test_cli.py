"""The command as its users meet it: a process, its two streams, its files and its exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avbench.cli import _parser, main
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.results.predictions import read_predictions
from avbench.results.run import read_run
from avbench.scoring.below_grid import COLUMNS
from avbench.scoring.metrics import METRICS, score
from avbench.scoring.stats import interval_in_words
from avbench.ticks import SAMPLE_RATE_HZ, ticks
from avbench.types import ClipRecord, SegmentRecord, UsageError

MakeClicks = Callable[..., Path]
Avbench = Callable[..., subprocess.CompletedProcess[str]]
ONE = ("--iterations", "2", "--workers", "1", "--n-resamples", "20")


def one_line(text: str) -> str:
    """The only line of stderr that is a complaint; progress bars apart there is nothing else, no traceback."""
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("avbench: error:")]
    assert len(lines) == 1, text
    return lines[0]


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_prints_a_table_and_leaves_two_files(avbench_process: Avbench, clicks: Path, tmp_path: Path) -> None:
    done = avbench_process("run", "--model", "xcorr+apa", "--data", clicks, "--out", tmp_path / "out", *ONE)
    assert done.returncode == 0, done.stderr
    assert "clicks test (click and flash, 2 clips) · streaming protocol: 2 windows, hop 2 s" in done.stdout
    for metric in METRICS.values():
        assert metric.title in done.stdout
    for row in ("xcorr+apa", "same, one window", "same, sliding APA", "always in sync", "class prior", "random guess"):
        assert row in done.stdout
    assert "4/4" in done.stdout
    assert "decoding and snapshots" in done.stderr
    files = ["predictions.parquet", "run.html", "run.json", "segments.parquet"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files

    run = read_run(tmp_path / "out")
    assert (run.n_scored, run.n_total, run.incomplete, run.failures) == (4, 4, False, [])
    assert len(run.curve) == 2
    assert set(run.slices["category"]) == {"talking head", "voice-over"}
    assert run.latency is not None
    ids, logits = read_predictions(tmp_path / "out" / "predictions.parquet")
    manifest = read_manifest(clicks)
    assert ids == tuple(s.id for s in manifest.segments)
    # the scores are those of the predictions, recomputed from outside
    labels = [s.offset_class for s in manifest.segments]
    for name, value in score(logits[:, -1], labels).items():
        assert run.scores[name].value == pytest.approx(value), name
        assert run.curve[-1][name].value == pytest.approx(value), name
    assert run.scores["acc"].value == 1.0, "clicks and flashes are easy"
    assert "too few videos for an interval" in done.stdout
    rows = {row.name: row for row in run.rows}
    assert rows["constant"].scores["acc"].value == 0.0
    assert rows["oracle"].scores["acc"].value == 1.0
    assert rows["one-window"].selection == "best_iter"


def test_json_stands_alone_on_stdout(avbench_process: Avbench, clicks: Path, tmp_path: Path) -> None:
    args = ("run", "--model", "xcorr", "--data", clicks, "--out", tmp_path / "out", *ONE, "--json")
    done = avbench_process(*args)
    document = json.loads(done.stdout)
    assert done.stdout.startswith("{")
    assert done.stdout.endswith("}\n")
    wanted = [
        "schema_version",
        "signature",
        "model",
        "data",
        "n_scored",
        "n_total",
        "scores",
        "slices",
        "curve",
        "failures",
    ]
    assert set(wanted) <= set(document)
    assert set(document["scores"]) == set(COLUMNS)
    assert all(set(entry) == {"value", "ci_low", "ci_high"} for entry in document["scores"].values())
    assert (tmp_path / "out" / "run.json").read_text() == done.stdout


def test_tables_are_written_as_csv(avbench_process: Avbench, clicks: Path, tmp_path: Path) -> None:
    import pandas as pd

    run_csv, sweep_csv, compare_csv = (tmp_path / "new" / f"{name}.csv" for name in ("run", "sweep", "compare"))
    data = ("--data", clicks)
    for model in ("oracle", "constant"):
        done = avbench_process(
            "run", "--model", model, *data, "--out", tmp_path / model, *ONE, "--csv", run_csv, "--force"
        )
        assert done.returncode == 0, done.stderr
        assert b"\r" not in run_csv.read_bytes()
        written, frame = pd.read_csv(run_csv), read_run(tmp_path / model).frame()
        pd.testing.assert_frame_equal(written, frame, check_dtype=False)
        assert written.row[0] == model
    done = avbench_process("sweep", "--models", "constant", "oracle", *data, *ONE, "--csv", sweep_csv, "--json")
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(sweep_csv)
    rows = json.loads(done.stdout)
    assert written.value.tolist() == pytest.approx(
        [float("nan") if s["value"] is None else s["value"] for row in rows for s in row["scores"].values()],
        nan_ok=True,
    )
    assert written.model.tolist() == ["constant"] * len(METRICS) + ["oracle"] * len(METRICS)
    done = avbench_process("compare", tmp_path / "oracle", tmp_path / "constant", "--csv", compare_csv)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(compare_csv)
    assert written.metric.tolist() == list(METRICS)
    assert written.difference[0] == pytest.approx(written.a[0] - written.b[0])


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--model", "xcorr", "--data", "CLICKS", "--out", "out"),
        ("sweep", "--models", "xcorr", "--data", "CLICKS"),
        ("compare", "run_a", "run_b"),
    ],
)
def test_a_csv_file_that_cannot_be_written_is_refused_first(
    command: tuple[str, ...], avbench: Avbench, clicks: Path, tmp_path: Path, own_cache: Path
) -> None:
    (tmp_path / "file").write_text("")
    args = [clicks if a == "CLICKS" else a for a in command]
    done = avbench(*args, "--csv", tmp_path / "file" / "table.csv")
    assert done.returncode == 1
    assert "cannot write to" in one_line(done.stderr)
    assert "choose another folder with --csv" in one_line(done.stderr)
    done = avbench(*args, "--csv", tmp_path)
    assert done.returncode == 2
    assert "is a folder; name a file in it" in one_line(done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
    assert not own_cache.exists(), "nothing was computed"


def test_the_second_run_is_answered_from_the_store(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    first, second = (
        json.loads(avbench("run", "--model", "xcorr", "--data", clicks, "--out", tmp_path / n, *ONE, "--json").stdout)
        for n in ("a", "b")
    )
    assert first["counters"]["snapshots_computed"] == 8
    assert "snapshots_computed" not in second["counters"] or second["counters"]["snapshots_computed"] == 0
    assert second["counters"]["snapshots_from_store"] == 8
    assert second["latency"] is None
    assert first["scores"] == second["scores"]
    assert (tmp_path / "a" / "predictions.parquet").read_bytes() == (
        tmp_path / "b" / "predictions.parquet"
    ).read_bytes()


def test_workers_and_batches_do_not_change_scores(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    base = ("run", "--model", "xcorr+apa", "--data", clicks, "--iterations", "2", "--n-resamples", "20")
    for i, extra in enumerate((("--workers", "1"), ("--workers", "2", "--batch-size", "16"))):
        done = avbench(*base, *extra, "--out", tmp_path / f"out{i}", "--store", tmp_path / f"store{i}")
        assert done.returncode == 0, done.stderr
    one, two = (read_run(tmp_path / f"out{i}") for i in (0, 1))
    assert one.scores == two.scores
    assert one.signature == two.signature
    assert one.files == two.files


def test_the_default_folder_is_never_one_that_holds_a_run(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert avbench("run", "--model", "constant", "--data", clicks, *ONE).returncode == 0
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert len(names) == 2
    assert names[1] == names[0] + "-2"
    assert names[0].endswith("-constant")


def test_the_signature_names_what_may_change_a_score(avbench: Avbench, clicks: Path) -> None:
    def signature(*extra: object) -> str:
        args = ("run", "--data", clicks, "--workers", "1", "--n-resamples", "20", "--json", *extra)
        return json.loads(avbench(*args).stdout)["signature"]

    base = ("--model", "xcorr", "--iterations", "2")
    signatures = [
        signature(*base),
        signature(*base, "--hop", "1"),
        signature("--model", "xcorr", "--iterations", "1"),
        signature("--model", "xcorr+apa", "--iterations", "2"),
        signature(*base, "--limit", "2"),
    ]
    assert len(set(signatures)) == len(signatures)
    assert signature(*base, "--seed", "7") == signatures[0]


def test_reference_rows_can_be_left_out(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    avbench("run", "--model", "xcorr", "--data", clicks, "--out", tmp_path / "o", *ONE, "--no-reference-rows")
    assert read_run(tmp_path / "o").rows == []


def test_the_legend_says_what_is_missing(avbench: Avbench, make_clicks: MakeClicks) -> None:
    done = avbench("run", "--model", "constant", "--data", make_clicks(clips=("one",)), "--out", "out", *ONE)
    assert "too few videos for an interval: it needs at least 3   * nothing was timed" in done.stdout


def test_one_class_ranks_nothing(avbench: Avbench, make_clicks: MakeClicks) -> None:
    """With one class a random guess would rank everything perfectly: mAP is undefined, as ROC-AUC is, and no 1.00."""
    data = make_clicks(offsets_s=(0.4,))
    done = avbench("run", "--model", "xcorr", "--data", data, "--out", "out", *ONE)
    assert done.returncode == 0, done.stderr
    for row in ("random guess", "always in sync", "the labels"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(row)]
        assert line.count("–") >= 2, line
    run = read_run(Path("out"))
    undefined = {name for name in METRICS if run.scores[name].value is None}
    assert undefined == {"map", "roc_auc"}
    assert run.curve[0]["map"].value is None
    assert "NaN" not in Path("out/run.json").read_text()
    swept = avbench("sweep", "--models", "uniform", "--iterations", "2", "--data", data, "--n-resamples", "20")
    assert "nan" not in swept.stdout
    assert "–" in swept.stdout


def test_an_interval_is_explained_wherever_it_is_shown(avbench: Avbench, five_clicks: Path) -> None:
    said = interval_in_words(0.95)
    run = ("--data", five_clicks, *ONE)
    assert said in avbench("run", "--model", "constant", "--out", "a", *run).stdout
    avbench("run", "--model", "uniform", "--out", "b", *run)
    assert said in avbench("compare", "a", "b", "--n-resamples", "20").stdout
    assert said in " ".join(Path("a/run.html").read_text().split())
    assert said in avbench("sweep", "--models", "constant", "--iterations", "2", "--data", five_clicks).stdout
    avbench("run", "--model", "prior", "--out", "c", *run)
    assert said in avbench("compare", "a", "b", "c", "--n-resamples", "20").stdout


def test_two_videos_have_no_interval_wherever_one_is_shown(avbench: Avbench, clicks: Path) -> None:
    few, data = "too few videos for an interval", ("--data", clicks, *ONE)
    assert few in avbench("run", "--model", "constant", "--out", "a", *data).stdout
    page = Path("a/run.html").read_text()
    assert "Too few videos for an interval: it needs at least 3." in page
    assert "% interval, bootstrapped" not in page
    avbench("run", "--model", "uniform", "--out", "b", *data)
    said = avbench("compare", "a", "b").stdout
    assert f"{few} (n = 2): it needs at least 3" in said
    swept = avbench("sweep", "--models", "constant", "uniform", "--iterations", "2", "--data", clicks).stdout
    assert f"{few} (n = 2): it needs at least 3" in swept
    for text in (said, swept):
        assert not re.search(r"\[[-+−]?[\d.]+,? ", text), "no interval"
    done = avbench("sweep", "--models", "constant", "--iterations", "2", "--data", clicks, "--format", "md")
    assert "Too few videos for an interval (n = 2)" in done.stdout


def test_a_run_compared_with_itself_says_so(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    avbench("run", "--model", "constant", "--data", clicks, "--out", "a", *ONE)
    for again in ("a", "./a", "a/run.json", tmp_path / "a"):
        done = avbench("compare", "a", again)
        assert done.returncode == 2
        assert "the same run twice" in one_line(done.stderr)


def test_the_paper_protocol(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    args = ("run", "--model", "xcorr", "--data", clicks, "--out", tmp_path / "o", "--protocol", "paper", *ONE)
    assert avbench(*args).returncode == 0
    assert read_run(tmp_path / "o").signature.startswith("avb|paper:2|")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--model", "streamsink"), "did you mean streamsync"),
        (("--model", "xcorr", "--data", "no-such-data"), "unknown data"),
        (("--model", "xcorr", "--data", "./no/such/folder"), "not a manifest folder"),
        (("--model", "xcorr", "--data", "CLICKS", "--split", "mars"), "no split 'mars'; it has test"),
        (("--model", "xcorr", "--data", "CLICKS", "--limit", "0"), "limit is 0"),
        (("--model", "xcorr", "--data", "CLICKS", "--n-resamples", "3"), "it must be at least 20"),
        (("--model", "xcorr", "--data", "CLICKS", "--iterations", "0"), "iterations is 0"),
        (("--model", "xcorr", "--data", "CLICKS", "--hop", "0.03"), "multiple of 0.04 s"),
        (("--model", "xcorr", "--data", "CLICKS", "--hop", "nan"), "hop"),
        (("--model", "xcorr", "--data", "CLICKS", "--split", ""), "no split ''; it has test"),
        (("--model", "xcorr", "--data", "CLICKS", "--seed", "-1"), "seed is -1"),
        (("--model", "xcorr", "--data", "CLICKS", "--iterations", "1000000000000"), "try --iterations 4"),
        (("--model", "xcorr", "--data", "CLICKS", "--hop", "1e9"), "the longest fits 1"),
        (("--model", "xcorr", "--data", "CLICKS", "--iterations", "9"), "the longest fits 4: try --iterations 4"),
        (("--model", "xcorr", "--data", "CLICKS", "--workers", "0"), "workers is 0"),
        (("--model", "missing.py:Net", "--data", "CLICKS", *ONE), "missing.py does not exist"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(
    args: tuple[str, ...],
    said: str,
    clicks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["run", *(str(clicks) if a == "CLICKS" else a for a in args)])
    captured = capsys.readouterr()
    assert code == 2
    assert said in one_line(captured.err)
    assert captured.out == ""
    assert not (tmp_path / "runs").exists(), "nothing was begun"


def test_unknown_options_and_commands_exit_2(avbench_process: Avbench) -> None:
    """The line says whose help to read."""
    requests = {
        ("run",): "run ",
        ("fly",): "",
        (): "",
        ("run", "--model", "xcorr", "--wings"): "run ",
        ("data", "ls", "--wings", "2"): "data ls ",
    }
    for args, command in requests.items():
        done = avbench_process(*args)
        assert done.returncode == 2
        assert one_line(done.stderr).endswith(f"; see `avbench {command}--help`")
        assert len(done.stderr.splitlines()) == 1


def damaged(folder: Path, kind: str) -> None:
    """Damages clip "two" of a click manifest, and pins it anew where such a file could have been pinned."""
    path = folder / "media" / "two.mp4"
    if kind == "missing":
        path.unlink()
    elif kind == "changed":
        path.write_bytes(path.read_bytes() + b"\0")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "corrupt":
        data = bytearray(path.read_bytes())
        data[len(data) // 4 : 3 * len(data) // 4] = os.urandom(len(data) // 2)
        path.write_bytes(data)
    elif kind == "not media":
        path.write_text("<html>404</html>")
    elif kind == "shorter than promised":
        encode_clip(path, *click_and_flash(8))
    elif kind == "no sound":
        _encode_picture_only(path)
    if kind not in ("missing", "changed"):
        _pin_anew(folder)


def _encode_picture_only(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for image in click_and_flash(14)[0]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def _pin_anew(folder: Path) -> None:
    old = read_manifest(folder)
    clips = {}
    for name, clip in old.clips.items():
        sha256 = media_sha256(folder / "media" / clip.path)
        clips[name] = ClipRecord(name, clip.video_id, clip.path, sha256, clip.n_frames, clip.n_samples)
    write_manifest(Manifest(old.name, old.kind, old.note, old.offset_law, clips, old.segments, old.media_root), folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "does not exist"),
        ("changed", "other sha256"),
        ("truncated", "clip two"),
        ("corrupt", "clip two"),
        ("not media", "not a readable media file"),
        ("shorter than promised", "the manifest says 14.00 s"),
        ("no sound", "no sound stream"),
    ],
)
def test_a_bad_clip_costs_its_segments_only(
    kind: str,
    said: str,
    make_clicks: MakeClicks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_clicks()
    damaged(folder, kind)
    code = main(["run", "--model", "xcorr", "--data", str(folder), "--out", "out", *ONE])
    captured = capsys.readouterr()
    assert code == 1
    (line,) = [line for line in captured.err.splitlines() if line.startswith("avbench: failed:")]
    assert said in line
    assert line.startswith("avbench: failed: clip two:")
    assert line.endswith("(2 segments)")
    run = read_run(tmp_path / "out")
    assert (run.n_scored, run.n_total, run.incomplete) == (2, 4, True)
    assert [f.segment_id for f in run.failures] == ["two-0", "two-1"]
    ids, _ = read_predictions(tmp_path / "out" / "predictions.parquet")
    assert ids == ("one-0", "one-1"), "nothing stands in for what failed"
    assert "INCOMPLETE: 2 of 4" in captured.out

    # mended, the same command continues: only the lost clip is computed
    shutil.rmtree(folder)
    make_clicks()
    assert main(["run", "--model", "xcorr", "--data", str(folder), "--out", "out", *ONE]) == 0
    run = read_run(tmp_path / "out")
    assert run.n_scored == 4
    assert run.counters["snapshots_from_store"] == 4


def test_a_run_in_which_everything_failed(make_clicks: MakeClicks, avbench: Avbench, tmp_path: Path) -> None:
    folder = make_clicks(clips=("two",))
    damaged(folder, "missing")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.parquet").write_text("of another run")
    done = avbench("run", "--model", "xcorr", "--data", folder, "--out", tmp_path / "out", *ONE, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["n_scored"], document["n_total"]) == (0, 2)
    assert all(entry["value"] is None for entry in document["scores"].values())
    assert not (tmp_path / "out" / "predictions.parquet").exists()


def test_a_silent_clip_is_scored_and_noted(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    folder = make_clicks()
    encode_clip(folder / "media" / "two.mp4", click_and_flash(14)[0], np.zeros(14 * SAMPLE_RATE_HZ, np.float32))
    _pin_anew(folder)
    done = avbench("run", "--model", "xcorr", "--data", folder, "--out", tmp_path / "out", *ONE)
    assert done.returncode == 0
    assert "avbench: note: clip two: the sound, the mean of its channels, is silent" in done.stderr
    assert read_run(tmp_path / "out").n_scored == 4


def test_segments_too_short_are_listed_not_scored(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    folder = make_clicks()
    old = read_manifest(folder)
    late = SegmentRecord("two-late", "two", "two", ticks(8), 0, 10)
    write_manifest(
        Manifest(old.name, old.kind, old.note, old.offset_law, old.clips, (*old.segments, late), old.media_root), folder
    )
    done = avbench("run", "--model", "xcorr", "--data", folder, "--out", tmp_path / "out", *ONE)
    assert done.returncode == 0
    said = "note: 1 of 5 segments is too short for 2 windows at hop 2 s and not scored; --iterations 1 scores all"
    assert said in done.stderr
    assert "4/5" in done.stdout
    assert read_run(tmp_path / "out").unsupported == ["two-late"]


NETS = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Nan(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    calls = 0

    def predict(self, video, audio):
        logits = np.zeros((len(video), 21), np.float32)
        if float(np.abs(np.asarray(audio)).max()) > self.loud:
            logits[:] = np.nan
        return Snapshot(logits)

    loud = -1.0

class Leaves(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        raise SystemExit(0)

class Loud(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        print("thinking hard")
        return Snapshot(np.zeros((len(video), 21), np.float32))

class Fickle(Loud):
    def __init__(self):
        self.weight = np.random.default_rng().random()

class Wide(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 22), np.float32))
"""


def test_a_model_that_gives_nan(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    done = avbench("run", "--model", "nets.py:Nan+apa", "--data", clicks, "--out", "out", *ONE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    run = read_run(tmp_path / "out")
    assert (run.n_scored, run.n_total, run.incomplete) == (0, 4, True)
    assert all("NaN" in f.reason and "iteration 1" in f.reason for f in run.failures)


def test_a_model_of_the_wrong_shape(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    done = avbench("run", "--model", "nets.py:Wide", "--data", clicks, "--out", "out", *ONE)
    assert done.returncode == 2
    assert "22" in one_line(done.stderr)


def test_a_model_that_leaves_the_process(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    done = avbench("run", "--model", "nets.py:Leaves", "--data", clicks, "--out", "out", *ONE)
    assert done.returncode == 1
    assert "SystemExit" in done.stdout
    assert len(read_run(tmp_path / "out").failures) == 4
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    done = avbench("run", "--model", "script.py:Net", "--data", clicks, "--out", "out", *ONE)
    assert done.returncode == 2
    assert "does not run: SystemExit" in one_line(done.stderr)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_a_model_prints_is_not_on_stdout(
    workers: str, avbench_process: Avbench, clicks: Path, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    args = ("--iterations", "2", "--n-resamples", "20", "--workers", workers, "--store", "store", "--out", "out")
    done = avbench_process("run", "--model", "nets.py:Loud", "--data", clicks, *args, "--json")
    assert json.loads(done.stdout)["n_scored"] == 4
    assert "thinking hard" in done.stderr


def test_a_model_that_is_another_one_in_each_worker(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    two = ("--iterations", "2", "--workers", "2", "--n-resamples", "20", "--out", "out")
    done = avbench("run", "--model", "nets.py:Fickle", "--data", clicks, *two)
    assert done.returncode == 2
    assert "gets different weights each time it is built" in one_line(done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_stdout_that_is_full_or_closed(tmp_path: Path) -> None:
    for redirection, code in ((">/dev/full", 1), (">&-", 0)):
        command = f'"{sys.executable}" -m avbench data ls {redirection}'
        done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        if code:
            assert "No space left" in one_line(done.stderr)
        assert len(done.stderr.splitlines()) == code


@pytest.mark.parametrize("words", [("models",), ("data", "ls"), ("submit", "tracks", "--json")])
def test_a_pipe_that_is_closed_early_is_no_failure(words: tuple[str, ...], tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "avbench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert started.stdout is not None
    started.stdout.close()
    assert started.stderr is not None
    said = started.stderr.read()
    started.stderr.close()
    assert (started.wait(), said) == (141, b"")


def test_without_stderr_nothing_goes_to_stdout(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m avbench models no-such-model 2>&-'
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")


def test_progress_in_a_log_is_whole_lines(avbench: Avbench, clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avbench.commands.common import Progress, _Lines

    done = avbench("run", "--model", "xcorr", "--data", clicks, "--no-reference-rows", *ONE)
    assert "\r" not in done.stderr
    stage = [line for line in done.stderr.splitlines() if "decoding and snapshots: " in line]
    assert len(stage) == 1
    assert stage[0].startswith("avbench: decoding and snapshots: 8 of 8 snapshots, ")
    said: list[str] = []
    monkeypatch.setattr("avbench.commands.common.say", said.append)
    monkeypatch.setattr(_Lines, "EVERY_S", 0.0)
    with Progress() as progress:
        for n in range(4):
            progress("entries", n, 3)
    assert [line.partition(",")[0] for line in said] == [f"entries: {n} of 3 entries" for n in (1, 2, 3)]
    for worth_s, lines in ((1000.0, []), (0.0, ["reading: 1 of 1 files"])):  # of one file, that took long or did not
        said.clear()
        monkeypatch.setattr(_Lines, "WORTH_S", worth_s)
        with Progress() as progress:
            progress("reading", 1, 1)
        assert [line.partition(",")[0] for line in said] == lines


def test_progress_counts_on_from_what_is_stored(avbench: Avbench, clicks: Path) -> None:
    run = ("run", "--model", "xcorr", "--data", clicks, "--no-reference-rows", "--workers", "1", "--n-resamples", "20")
    for iterations, told in ((1, "4 of 4"), (2, "8 of 8")):
        done = avbench(*run, "--iterations", iterations)
        assert f"decoding and snapshots: {told} snapshots, " in done.stderr
    assert json.loads(avbench(*run, "--iterations", 2, "--json").stdout)["counters"]["snapshots_from_store"] == 8


@pytest.mark.parametrize("option", ["--out", "--store"])
def test_a_folder_that_cannot_be_written(option: str, avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = avbench("run", "--model", "xcorr", "--data", clicks, option, tmp_path / "file" / "x", *ONE)
    assert done.returncode == 1
    assert str(tmp_path / "file" / "x") in one_line(done.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("option", ["--out", "--store"])
def test_a_read_only_folder(option: str, avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    done = avbench("run", "--model", "xcorr", "--data", clicks, option, tmp_path / "locked", *ONE)
    assert done.returncode == 1
    assert "locked" in one_line(done.stderr)


def test_a_full_disk(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    """A file size limit stands in for the full disk: writes fail with an error the same way."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); "
        "from avbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["run", "--model", "xcorr", "--data", str(clicks), "--out", str(tmp_path / "out"), *ONE]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 1
    assert "too large" in one_line(done.stderr)
    assert avbench(*args).returncode == 0, "with room again the same command ends well"


def test_a_store_of_another_schema(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text('{"schema_version": 99}')
    done = avbench("run", "--model", "xcorr", "--data", clicks, "--store", tmp_path / "store", *ONE)
    assert done.returncode == 1
    assert "99" in one_line(done.stderr)
    assert (tmp_path / "store" / "store.json").read_text() == '{"schema_version": 99}'


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import avbench.data.synthsync
    import avbench.runs.evaluate
    import avbench.submissions.as_run
    import avbench.training.recipes

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(avbench.runs.evaluate, "evaluate", interrupt)
    monkeypatch.setattr(avbench.submissions.as_run, "opened", interrupt)
    monkeypatch.setattr(avbench.data.synthsync, "ensure", interrupt)
    monkeypatch.setattr(avbench.training.recipes, "run", interrupt)
    monkeypatch.chdir(tmp_path)
    for words, kept in (
        (("run", "--model", "xcorr"), "What was computed is in the store"),
        (("compare", "a", "b"), "the same command starts anew"),
        (("data", "synth"), "the same command does only the rest"),
        (("train", "words"), "goes on from the last saved state"),
    ):
        assert main(words) == 130
        said = one_line(capsys.readouterr().err)
        assert "interrupted" in said
        assert kept in said
    assert not list(tmp_path.iterdir())


# -- the other commands ------------------------------------------------------------------------------------------------


def test_help_has_examples_and_says_the_sign_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run"], ["data", "from-files"], ["doctor"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "examples: avbench" in text
        assert "positive offset means that the sound comes early" in text


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "*apa*"]) == 0
    out = capsys.readouterr().out
    assert "apa-sparsesync" in out
    assert "procedural" in out
    assert main(["models", "nothing"]) == 2
    assert "no model matches" in one_line(capsys.readouterr().err)


def test_from_files_to_a_run(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    videos = make_clicks("source", clips=("a", "b")) / "media"
    done = avbench("data", "from-files", videos, "--out", "mine", "--offsets", "fixed:0.4", "--starts", "first")
    assert done.returncode == 0, done.stderr
    assert "2 clips, 2 segments" in done.stdout
    done = avbench("run", "--model", "xcorr", "--data", "./mine", "--out", "out", *ONE)
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "out").scores["acc"].value == 1.0
    assert "mine" in avbench("data", "ls", ".").stdout
    assert "audio 0.4 s early" in avbench("data", "info", "./mine").stdout
    assert json.loads(avbench("data", "info", "./mine", "--json").stdout)["n_segments"] == 2
    assert avbench("data", "verify", "./mine").returncode == 0

    (videos / "a.mp4").write_bytes(b"no longer a video")
    done = avbench("data", "verify", "./mine")
    assert done.returncode == 1
    assert "has changed" in done.stdout
    done = avbench("data", "from-files", videos, "--out", "again")
    assert done.returncode == 1, "a refused file is told by the exit code, too"
    assert f"avbench: refused: {videos}/a.mp4: is not a readable media file" in done.stderr
    assert "1 clip, " in done.stdout
    done = avbench("data", "ls", "nowhere")
    assert done.returncode == 2
    assert "no manifest under nowhere" in one_line(done.stderr)
    assert avbench("data", "synth", "--workers", "0").returncode == 2


def test_from_files_keeps_what_the_folder_holds(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    videos, mine = make_clicks("source", clips=("a",)) / "media", tmp_path / "mine"
    mine.mkdir()
    (mine / "segments.parquet").write_text("my own table")
    make = ("data", "from-files", videos, "--out")
    done = avbench(*make, "mine")
    assert done.returncode == 2
    assert "mine already holds segments.parquet; give --force" in one_line(done.stderr)
    assert (mine / "segments.parquet").read_text() == "my own table"
    assert avbench(*make, "new").returncode == 0
    done = avbench(*make, "new", "--offsets", "fixed:0.4")
    assert "new already holds a manifest; give --force" in one_line(done.stderr)
    assert avbench(*make, "new", "--offsets", "fixed:0.4", "--force").returncode == 0
    assert {s.offset for s in read_manifest(tmp_path / "new").segments} == {ticks(0.4)}
    # a run replaces only what a run has written
    done = avbench("run", "--model", "constant", "--data", "new", "--out", "new", *ONE)
    assert "segments.parquet is not from a run and would be replaced" in one_line(done.stderr)
    read_manifest(tmp_path / "new")
    for _ in range(2):
        assert avbench("run", "--model", "constant", "--data", "new", "--out", "out", *ONE).returncode == 0
    done = avbench("data", "annotate", "--data", "new", "--out", "new")
    assert "new already holds a manifest; give --force" in one_line(done.stderr)


def test_from_files_names_everything_it_does_not_use(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    videos = make_clicks("source", clips=("a",)) / "media"
    frames, sound = click_and_flash(3)
    encode_clip(videos / "brief.mp4", frames, sound)
    (videos / "bad.MTS").write_text("no video")
    (videos / "notes.txt").write_text("")
    (videos / "what is this").write_text("")
    os.mkfifo(videos / "pipe.mp4")
    done = avbench("data", "from-files", videos, "--out", "mine", "--workers", "1")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("avbench: ")]
    assert "avbench: passed over: notes.txt: not a video by its name" in said
    assert any(line.startswith("avbench: passed over: what is this: is not a readable media file") for line in said)
    refused = sorted(line.split(": ")[2] for line in said if line.startswith("avbench: refused: "))
    assert refused == [f"{videos}/bad.MTS", f"{videos}/pipe.mp4"]
    assert any(
        line.startswith(f"avbench: too short: {videos}/brief.mp4: picture and sound together last 3.00 s")
        for line in said
    )
    assert "avbench: too short: 1 file holds no 5 s of picture and sound for a segment; nothing else is wrong" in said
    assert "1 clip, " in done.stdout


def test_files_keep_their_names(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    """An id holds only letters that are safe everywhere; what people see is the name of the file."""
    media = make_clicks("source") / "media"
    (media / "one.mp4").rename(media / "Grüße <b> 1.mp4")
    (media / "größer.mp4").write_text("no video")
    done = avbench("data", "from-files", media, "--out", "data", "--iterations", "2", "--hop", "1")
    assert "avbench: note: clip Gr" not in done.stderr
    assert "avbench run --model xcorr --data ./data --iterations 2 --hop 1" in done.stdout
    assert f"refused: {media}/größer.mp4: is not a readable" in done.stderr
    assert {clip.id for clip in read_manifest(tmp_path / "data").clips.values()} == {"Gr_e_b_1", "two"}
    run = ("run", "--model", "uniform", "--data", "./data", "--iterations", "1", "--n-resamples", "20", "--out", "out")
    assert avbench(*run).returncode == 0
    assert read_run(tmp_path / "out").data.names == {"Gr_e_b_1": "Grüße <b> 1.mp4"}
    manifest = read_manifest(tmp_path / "data")
    assert manifest.by_name("clip Gr_e_b_1: is silent: all of it") == "clip Grüße <b> 1.mp4: is silent: all of it"
    assert manifest.by_name("clip two: is silent") == "clip two: is silent"
    assert manifest.by_name("clip nobody: said") == "clip nobody: said"
    assert manifest.by_name("another word") == "another word"
    (tmp_path / "data" / "media").mkdir(exist_ok=True)
    with (media / "Grüße <b> 1.mp4").open("ab") as file:
        file.write(b"more")
    verified = avbench("data", "verify", "./data")
    assert verified.returncode == 1
    assert "clip Grüße <b> 1.mp4: " in verified.stdout + verified.stderr
    page = (tmp_path / "out" / "run.html").read_text()
    assert "Grüße &lt;b&gt; 1.mp4" in page
    assert "Grüße <b>" not in page


def test_media_in_place_of_a_manifest_are_told_what_makes_one(avbench: Avbench, clicks: Path) -> None:
    for data in (clicks / "media", clicks / "media" / "one.mp4"):
        done = avbench("run", "--model", "constant", "--data", data)
        assert done.returncode == 2
        said = one_line(done.stderr)
        assert f"`avbench data from-files {data} --out DIR` makes one" in said
        assert f"`avbench predict {data}`" in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_a_terminal_cannot_show_are_shown_safely(encoding: str, clicks: Path, tmp_path: Path) -> None:
    out = os.fsdecode(bytes(tmp_path) + b"/\x1b[31mr\xe9sum\xe9")
    done = subprocess.run(
        [sys.executable, "-m", "avbench", "data", "from-files", clicks / "media", "--out", out],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"?[31mr?sum?: 2 clips" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
    assert len(read_manifest(Path(out)).clips) == 2


def test_a_run_where_only_ascii_can_be_shown(clicks: Path, tmp_path: Path) -> None:
    words = ("run", "--model", "constant", "--data", clicks, *ONE, "--no-reference-rows")
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "avbench", *map(str, words)]
    done = subprocess.run(command, capture_output=True, env=ascii_only, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"too few videos for an interval: it needs at least 3   * " in done.stdout
    assert b"run.json | predictions.parquet" in done.stdout
    assert b"\\x" not in done.stdout


def test_data_ls_names_what_is_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "ls"]) == 0
    out = capsys.readouterr().out
    assert "synthsync-full" in out
    assert "procedural stand-in" in out


def test_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "perpetuum-mobile"])
    assert stop.value.code == 2
    assert "streamsync-trf" in one_line(capsys.readouterr().err)
    assert main(["train"]) == 2
    assert "streamsync-trf" in one_line(capsys.readouterr().err)
    assert main(["train", "--list"]) == 0
    assert "streamsync-trf" in capsys.readouterr().out


def test_the_command_knows_every_recipe() -> None:
    from avbench.commands import train
    from avbench.training.recipes import RECIPES

    assert tuple(RECIPES) == train.RECIPES


def test_embedded_weights_on_other_data_say_so(clicks: Path) -> None:
    from avbench.registry.names import resolve
    from avbench.runs.evaluate import _weights_note

    files = read_manifest(clicks)
    synthetic = Manifest(files.name, "synthetic", "", files.offset_law, files.clips, files.segments, files.media_root)
    assert "procedural clips" in _weights_note(resolve("streamsync-trf"), files)
    assert _weights_note(resolve("streamsync-trf"), synthetic) == ""
    assert _weights_note(resolve("xcorr"), files) == ""


def test_a_protocol_by_name_is_refused_from_python(clicks: Path, tmp_path: Path) -> None:
    from avbench.runs.evaluate import evaluate

    with pytest.raises(UsageError, match=r"pass avbench\.protocol\.streaming"):
        evaluate("constant", str(clicks), protocol="streaming", out=tmp_path / "out")  # type: ignore[arg-type]


# -- words that help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rum",), "invalid choice: 'rum': did you mean run"),
        (("leaderboard", "biuld"), "did you mean build"),
        (("train", "streamsync-tfr"), "did you mean streamsync-trf"),
        (("run", "--modle", "xcorr"), "error: unknown option --modle: did you mean --model; see"),
        (("run", "--model", "xcorr", "--splt", "test"), "unknown option --splt: did you mean --split; see"),
        (("run", "--model", "xcorr", "--protocol", "streeming"), "did you mean streaming"),
        (("run", "--model", "xcorr", "--data", "sythsync"), "unknown data 'sythsync': did you mean synthsync"),
        (("run", "--model", "xcorr", "--split", "tset"), "did you mean test?"),
        (("run", "--model", "xcorr", "--data", "CLICKS", "--split", "tets"), "did you mean test?"),
        (("run", "--model", "xcorr", "--metrics", "acc,map"), "separate several by spaces: --metrics acc map"),
        (("run", "--model", "xcorr", "--device", "gpu"), "a GPU is called cuda"),
        (("paper", "tabel3"), "did you mean table3"),
        (("predict", "x.mp4", "--tolerance", "itu-detct"), "did you mean itu-detect"),
        (("sweep", "--models", "xcorr,constant"), "separate several by spaces: --models xcorr constant"),
        (("sweep", "--models", "xcorr", "--hops", "1,2"), "'1,2': separate several by spaces"),
        (
            ("leaderboard", "build", "--entries", "CLICKS", "--out", "site"),
            "holds no entries; they are folders <org>__",
        ),
    ],
)
def test_what_was_meant_is_said(words: tuple[str, ...], said: str, avbench: Avbench, clicks: Path) -> None:
    done = avbench(*(clicks if word == "CLICKS" else word for word in words))
    assert done.returncode == 2
    assert said in one_line(done.stderr)


def test_without_a_gpu_one_line_says_so(avbench: Avbench, monkeypatch: pytest.MonkeyPatch, clicks: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = avbench("run", "--model", "constant", "--data", clicks, "--device", "cuda")
    assert done.returncode == 2
    assert "torch finds no GPU" in one_line(done.stderr)
    assert "leave out --device" in done.stderr


def pasted(text: str) -> list[list[str]]:
    """The commands under "next", as a shell would split them."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("next "))
    commands = [lines[first].removeprefix("next").strip()]
    for line in lines[first + 1 :]:
        if not line.startswith("        avbench "):
            break
        commands.append(line.strip())
    return [shlex.split(command) for command in commands]


def assert_parses(commands: list[list[str]]) -> None:
    for program, *words in commands:
        assert program == "avbench"
        _, unknown = _parser().parse_known_args(words)
        assert not unknown, words
        assert not {"DATA", "DIR", "FILE", "MODEL", "NAME", "ORG"} & set(words), "a placeholder cannot be pasted"


def test_what_to_do_next_can_be_pasted(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    videos = make_clicks("source", clips=("a", "b")) / "media"
    done = avbench("data", "from-files", videos, "--out", "my own; $HOME")
    commands = pasted(done.stdout)
    assert_parses(commands)
    assert [words[1] for words in commands] == ["data", "run"]
    for _, *words in commands:
        assert avbench(*words, *(("--n-resamples", "20") if words[0] == "run" else ())).returncode == 0
    run = ("run", "--model", "constant", "--data", "./my own; $HOME", "--iterations", "2", "--n-resamples", "20")
    commands = pasted(avbench(*run).stdout)
    assert_parses(commands)
    assert commands[0][3:] == ["streamsync-trf", "--data", "./my own; $HOME", "--iterations", "2"]
    done = avbench("data", "pairs", "./my own; $HOME", "--out", "pairs", "--iterations", "1")
    assert_parses(pasted(done.stdout))
    assert_parses(pasted(avbench("weights", "list").stdout))


@pytest.mark.parametrize("command", [(), ("compare",), ("paper",), ("score",), ("data", "from-files")])
def test_help_follows_the_terminal(command: tuple[str, ...], avbench: Avbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = avbench(*command, "--help").stdout
    described, _, examples = text.partition("\nexamples:")
    assert max(map(len, described.splitlines())) <= 80
    assert all(line.startswith("  avbench ") for line in examples.splitlines() if line)
