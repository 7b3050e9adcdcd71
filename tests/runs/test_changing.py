"""A run over offsets that change: its scores, its files, its words, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avbench.data.clicks import click_and_flash
from avbench.data.dynamic import ChangingRules, changing
from avbench.data.encode import encode_clip
from avbench.data.from_files import manifest_from_files
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.pages.run_report import report_again
from avbench.protocol.manifest import read_manifest, write_manifest
from avbench.protocol.rules import dynamic, streaming
from avbench.registry.loading import load_all
from avbench.registry.names import resolve
from avbench.results.dynamic_truth import WindowTruth, read_truth
from avbench.results.predictions import read_alarm, read_predictions
from avbench.results.run import RunResult, read_run
from avbench.results.truth import read_segments
from avbench.runs.changing import check_changing
from avbench.runs.evaluate import evaluate
from avbench.scoring.below_grid import BELOW_GRID
from avbench.scoring.dynamic import SHOWN, score
from avbench.scoring.metrics import METRICS
from avbench.types import UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]
MakeClicks = Callable[..., Path]
SHORT = ("--iterations", "12", "--workers", "1", "--n-resamples", "30")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four streams of 12 windows over click-and-flash clips: two that hold, one of them with mutes, and two that jump
    soon (which the seed was chosen for)."""
    folder = tmp_path_factory.mktemp("changing")
    (folder / "media").mkdir()
    for seed in range(4):
        encode_clip(folder / "media" / f"{seed}.mp4", *click_and_flash(34, seed=seed))
    source, _ = manifest_from_files([folder / "media"], folder / "fixed")
    rules = ChangingRules(laws=("hold", "jump"), seed=211, start_law="first", protocol=dynamic(iterations=12))
    write_manifest(changing(source, rules).manifest, folder)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    folder = tmp_path_factory.mktemp("run")
    result = evaluate(
        "xcorr+bayes", str(data), protocol=dynamic(iterations=12), out=folder / "run", compute=Compute(folder / "s", 1)
    )
    return result, folder / "run"


def test_the_command_makes_data_runs_on_them_and_prints_the_scores(
    avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path
) -> None:
    clicks = make_clicks(duration_s=34, offsets_s=(0.0,))
    made = avbench(
        *("data", "dynamic", clicks, "--out", tmp_path / "changing", "--laws", "jump,hold"),
        *("--seed", "3", "--limit", "2", "--iterations", "12"),
    )
    assert made.returncode == 0, made.stderr
    assert "2 clips, 2 segments; hold 1, jump 1 (seed 3)" in made.stdout
    info = avbench("data", "info", tmp_path / "changing")
    assert "laws: how the offset of a stream runs" in info.stdout
    laws = json.loads(avbench("data", "info", tmp_path / "changing", "--json").stdout)["laws"]
    assert [(row["law"], row["streams"], row["changes"]) for row in laws] == [("hold", 1, 0), ("jump", 1, 1)]

    done = avbench("run", "--model", "xcorr", "--data", tmp_path / "changing", "--out", tmp_path / "run", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "dynamic protocol: 12 windows, hop 2 s" in done.stdout
    for words in ("recovery (s)", "false/h", "tracked ±1", "headline:", "tracked ±1 by law:", "price:", "same, Bayes"):
        assert words in done.stdout
    found = json.loads(avbench("run", "--model", "xcorr", "--data", tmp_path / "changing", "--json", *SHORT).stdout)
    for name in ("tracked_acc_tol1", "tracking_error_s", "recovery_s", "false_changes_per_h"):
        assert set(found["scores"][name]) == {"value", "ci_low", "ci_high"}
    again = avbench("data", "dynamic", clicks, "--out", tmp_path / "changing", "--iterations", "12")
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_the_result_holds_all_scores_and_they_are_those_of_the_files(run: tuple[RunResult, Path]) -> None:
    result, folder = run
    assert set(result.scores) == {*METRICS, *BELOW_GRID, *SHOWN}
    ids, logits = read_predictions(folder / "predictions.parquet")
    truth, segments = read_truth(folder / "truth.parquet"), read_segments(folder / "segments.parquet")
    assert ids == truth.segment_ids == segments.segment_ids
    assert list(pd.read_parquet(folder / "truth.parquet").columns) == [
        *("segment_id", "iteration", "offset_end_s", "offset_mean_s", "purity", "regime")
    ]
    found = score(logits, truth, videos=segments.clusters)
    for name in SHOWN:
        assert result.scores[name].value == pytest.approx(found[name]["value"], nan_ok=True), name
    assert [step.model_dump() for step in result.recovery] == found["recovery"]
    assert result.dynamic["n_changes"] == found["n_changes"] == 2
    assert set(result.dynamic["by_law"]) == {"hold", "jump"}  # type: ignore[arg-type]
    assert set(result.files) == {"predictions", "segments", "truth"}
    assert read_run(folder) == result


def test_its_page_shows_the_streams_and_report_makes_it_again(run: tuple[RunResult, Path]) -> None:
    result, folder = run
    page = (folder / "run.html").read_text(encoding="utf-8")
    assert page.count("<article") == 4  # two that hold, two that jump: all are among the worst
    assert set(result.laws) == set(read_truth(folder / "truth.parquet").segment_ids)
    muted = [name for name, law in result.laws.items() if law.mutes]
    assert page.count('class="muted"') == sum(len(result.laws[name].mutes) for name in muted) + 1  # and in the legend
    tables = {row.name: row.recovery for row in result.rows}
    assert tables["oracle"][0].at_risk == result.recovery[0].at_risk == result.dynamic["n_ranked"]
    assert tables["apa"][-1].survival == 1
    assert report_again(folder).read_text(encoding="utf-8") == page


def test_clicks_are_tracked_and_the_last_label_is_what_is_so_at_the_end(run: tuple[RunResult, Path]) -> None:
    result, folder = run
    assert result.scores["tracked_acc_tol1"].value > 0.8
    truth = read_truth(folder / "truth.parquet")
    labels = [result.protocol.grid.class_of(offset_s) for offset_s in truth.offset_end_s[:, -1]]
    assert read_segments(folder / "segments.parquet").labels.tolist() == labels
    rows = {row.name: row.scores for row in result.rows}
    assert rows["oracle"]["tracked_acc"].value == 1
    assert rows["oracle"]["recovery_s"].value < rows["one-window"]["recovery_s"].value < 10
    assert rows["apa"]["recovery_s"].value == 40  # 5 windows do not outweigh 6
    assert rows["constant"]["false_changes_per_h"].value == 0
    assert {"apa", "apa-sliding", "apa-decay", "cusum", "one-window"} <= set(rows)
    assert len(result.curve) == 12


def test_on_streams_that_hold_it_is_the_fixed_offset_run_to_the_bit(data: Path, tmp_path: Path) -> None:
    manifest = read_manifest(data)
    plain = tuple(s for s in manifest.segments if s.law and len(s.law.pieces) == 1 and not s.law.mutes)
    assert plain
    protocol = dynamic(iterations=12)
    held = replace(manifest, segments=plain)
    fixed = replace(manifest, segments=tuple(replace(s, law=None) for s in plain))
    (model,) = load_all([resolve("xcorr+apa")])
    streams = []
    for part, settings in ((held, protocol), (fixed, streaming(iterations=12))):
        session = Session(part, Compute(tmp_path / "store", 1))
        session.need(model, settings)
        session.compute()
        streams.append((session.predictions(model, settings).tobytes(), session.truth(settings).labels.tolist()))
        computed = session.counters["snapshots_computed"]
    assert streams[0] == streams[1]
    assert computed == 0  # the windows of the fixed-offset track were there already
    assert set(WindowTruth.of(plain, protocol).purity.ravel()) == {1.0}


HEAD = '''
import numpy as np
from avbench import StreamingHead

class Alarming(StreamingHead):
    """Answers like one window, with an alarm of its own."""

    uses_torch = False

    def init(self, batch):
        return np.zeros(batch)

    def step(self, state, snapshot, time_s):
        return np.full(len(state), ALARM), snapshot.logits

    def alarm(self, state):
        return state
'''


def test_a_heads_own_alarm_is_asked_stored_and_scored(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HEAD.replace("ALARM", "0.25"))
    result = evaluate(
        f"xcorr+{tmp_path / 'mine.py'}:Alarming",
        str(data),
        protocol=dynamic(iterations=12),
        out=tmp_path / "run",
        compute=Compute(tmp_path / "store", 1),
        reference_rows=False,
    )
    assert (read_alarm(tmp_path / "run" / "predictions.parquet") == 0.25).all()
    ebu = result.dynamic["alarm"]["ebu"]  # type: ignore[index, call-overload]
    assert ebu["roc_auc"]["value"] in (0.5, None)
    (tmp_path / "wrong.py").write_text(HEAD.replace("ALARM", "2.0"))
    (tmp_path / "broken.py").write_text(
        HEAD.replace("ALARM", "0.5").replace("return state\n", "return state / nothing\n")
    )
    for file, problem in (("wrong", "alarm is not a number from 0 to 1"), ("broken", "broke off with NameError")):
        with pytest.raises(UsageError, match=problem):
            evaluate(
                f"xcorr+{tmp_path / file}.py:Alarming",
                str(data),
                protocol=dynamic(iterations=12),
                out=tmp_path / "other",
                compute=Compute(tmp_path / "store", 1),
            )


def test_a_model_without_an_alarm_writes_the_usual_columns(run: tuple[RunResult, Path]) -> None:
    assert read_alarm(run[1] / "predictions.parquet") is None


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        (streaming(), "takes them for fixed: leave the protocol out"),
        (dynamic(iterations=3), "scores windows after the first 3"),
        (dynamic(hop_s=6, iterations=4), "needs a hop no longer than the window"),
    ],
)
def test_protocols_that_cannot_follow_are_refused(data: Path, protocol: object, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_changing(read_manifest(data), protocol)  # type: ignore[arg-type]


def test_the_command_refuses_the_streaming_protocol_in_one_line(avbench: Avbench, data: Path) -> None:
    done = avbench("run", "--model", "constant", "--data", data, "--protocol", "streaming", "--iterations", "4")
    assert done.returncode == 2
    assert "use --protocol dynamic" in done.stderr


def test_fixed_offsets_can_be_run_under_the_dynamic_protocol(clicks: Path, tmp_path: Path) -> None:
    result = evaluate(
        "xcorr+apa",
        str(clicks),
        protocol=dynamic(iterations=4),
        out=tmp_path / "run",
        compute=Compute(tmp_path / "store", 1),
    )
    assert result.dynamic["n_changes"] == 0
    assert result.scores["recovery_s"].value is None
    assert np.isfinite(result.scores["tracked_acc"].value)
    assert result.dynamic["price"]["acc"]["difference"] == 0  # type: ignore[index, call-overload]
