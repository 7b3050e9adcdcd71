"""Comparing two runs: the command on real folders, then what is refused and how it is said."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avbench.engine.runner import Compute
from avbench.protocol.rules import dynamic, streaming
from avbench.protocol.signature import Signature
from avbench.results.dynamic_truth import WindowTruth, write_truth
from avbench.results.predictions import write_predictions
from avbench.results.run import read_run
from avbench.results.truth import Truth, read_segments, write_segments
from avbench.runs.compare import compare, compare_all
from avbench.runs.evaluate import evaluate
from avbench.scoring.calibration import classes_of
from avbench.scoring.dynamic import SHOWN, paired
from avbench.scoring.metrics import METRICS
from avbench.scoring.stats import Bootstrap, minimum_detectable_difference, paired_difference
from avbench.ticks import ticks
from avbench.types import Law, Piece, SegmentRecord, UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]
HOP2 = streaming(iterations=3)


def run(clicks: Path, out: Path, model: str = "xcorr", **changes: Any) -> Path:
    settings = {
        "protocol": HOP2,
        "compute": Compute(out.parent / "store", 1),
        "bootstrap": Bootstrap(n_resamples=20),
        "reference_rows": False,
    }
    evaluate(model, data=str(clicks), out=out, **(settings | changes))
    return out


@pytest.fixture(scope="module")
def runs(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs over the click-and-flash manifest, as `avbench run` leaves them; read only."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: run(clicks, folder / name, name) for name in ("xcorr", "xcorr+apa", "constant", "oracle")}


@pytest.fixture
def changed(runs: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the oracle's run with fields of run.json changed."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(runs["oracle"], folder)
        document = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(document | changes))
        return folder

    return make


def test_two_runs_as_a_command(avbench: Avbench, runs: dict[str, Path]) -> None:
    done = avbench("compare", runs["oracle"], runs["constant"])
    assert done.returncode == 0, done.stderr
    assert "oracle minus constant on clicks test: 4 segments, paired over 2 videos" in done.stdout
    assert "detectable" in done.stdout
    done = avbench("compare", runs["oracle"], runs["constant"] / "run.json", "--json", "--n-resamples", 50)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(METRICS)
    for name, metric in found.items():
        assert {"difference", "ci_low", "ci_high", "p"} <= set(metric)
        assert metric["difference"] == pytest.approx(metric["a"] - metric["b"])
        assert metric["n_segments"] == 4
        assert (metric["difference"] > 0) == METRICS[name].higher_is_better
    assert found["acc"]["a"] == 1.0


def test_a_comparison_as_a_frame(runs: dict[str, Path]) -> None:
    found = compare(runs["oracle"], runs["constant"], bootstrap=Bootstrap(50))
    frame = found.frame()
    assert frame.metric.tolist() == list(METRICS)
    assert (frame.model_a == "oracle").all()
    assert (frame.model_b == "constant").all()
    assert frame[["n_segments", "n_videos"]].values.tolist() == [[4, 2]] * len(METRICS)
    for _, row in frame.iterrows():
        expected = found.metrics[row.metric]
        assert np.array_equal([row[name] for name in expected._fields], expected, equal_nan=True), row.metric
    assert frame.set_index("metric").difference["acc"] == 1.0


def test_a_comparison_is_the_paired_difference(runs: dict[str, Path], clicks: Path, tmp_path: Path) -> None:
    """More videos than two, made up: written by hand as a run would have written them."""
    from dataclasses import replace

    from avbench.protocol.manifest import read_manifest

    manifest = read_manifest(clicks)
    g, n = np.random.default_rng(0), 60
    segments = [
        replace(manifest.segments[0], id=f"s{i}", video_id=f"v{i % 12}", offset_class=int(g.integers(0, 21)))
        for i in range(n)
    ]
    labels = np.array([s.offset_class for s in segments])
    videos = np.array([s.video_id for s in segments])
    streams = [g.standard_normal((n, 3, 21)).astype(np.float32) + k * np.eye(21)[labels][:, None] for k in (1, 2)]
    folders = []
    for name, logits in zip("ab", streams, strict=True):
        folder = tmp_path / name
        shutil.copytree(runs["oracle"], folder)
        order = g.permutation(n) if name == "b" else np.arange(n)  # the files need not be in one order
        hashes = {
            "predictions": write_predictions(
                folder / "predictions.parquet", [segments[i].id for i in order], logits[order].astype(np.float32)
            ),
            "segments": write_segments(folder / "segments.parquet", Truth.of([segments[i] for i in order])),
        }
        document = json.loads((folder / "run.json").read_text())
        for kind, sha256 in hashes.items():
            document["files"][kind]["sha256"] = sha256
        (folder / "run.json").write_text(json.dumps(document))
        folders.append(folder)
    found = compare(*folders, bootstrap=Bootstrap(200, 3))
    last = [logits[:, -1].astype(np.float32) for logits in streams]
    expected = paired_difference(*last, labels, videos, Bootstrap(200, 3))
    detectable = minimum_detectable_difference(*last, labels, videos, Bootstrap(200, 3))
    assert (found.n_segments, found.n_videos, found.left_out) == (n, 12, 0)
    for name in METRICS:
        for field, value in expected[name].items():
            assert getattr(found.metrics[name], field) == pytest.approx(value, abs=1e-12)
        assert found.metrics[name].detectable == pytest.approx(detectable[name])
    assert found.metrics["acc"].p < 0.05


def test_a_run_writes_what_is_true_of_its_segments(runs: dict[str, Path], clicks: Path) -> None:
    truth = read_segments(runs["xcorr"] / "segments.parquet")
    assert sorted(truth.segment_ids) == ["one-0", "one-1", "two-0", "two-1"]
    assert set(truth.clusters) == {"one", "two"}
    assert sorted(truth.labels.tolist()) == [6, 6, 12, 12]
    assert read_run(runs["xcorr"]).files["segments"].path == "segments.parquet"


def test_the_data_can_be_named_instead(avbench: Avbench, runs: dict[str, Path], clicks: Path, make_clicks: Any) -> None:
    own = compare(runs["xcorr"], runs["constant"], bootstrap=Bootstrap(20))
    assert repr(compare(runs["xcorr"], runs["constant"], data=str(clicks), bootstrap=Bootstrap(20))) == repr(own)
    done = avbench("compare", runs["xcorr"], runs["constant"], "--data", make_clicks(clips=("three",)))
    assert done.returncode == 2
    assert "is not the data of" in done.stderr


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"protocol": streaming(hop_s=1, iterations=3)}, "hop (h2.000 and h1.000)"),
        ({"protocol": streaming(iterations=2)}, "iterations (n3 and n2)"),
        ({"protocol": streaming(iterations=3, selection="best_iter")}, "selection (final and best_iter)"),
        ({"limit": 2}, "data (d:"),
    ],
)
def test_runs_that_differ_in_more_than_the_model_are_refused(
    avbench: Avbench, runs: dict[str, Path], clicks: Path, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    other = run(clicks, tmp_path / "other", "oracle", **changes)
    done = avbench("compare", runs["oracle"], other)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"cannot be compared, they differ in {field}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_version_is_refused(changed: Callable[..., Path], runs: dict[str, Path]) -> None:
    signature = read_run(runs["oracle"]).signature
    version = signature.rpartition("|")[2]
    other = changed(signature=signature.replace(f"|{version}", "|v9.9.9"), avbench_version="9.9.9")
    with pytest.raises(UsageError, match=r"differ in version \(v[\d.]+ and v9\.9\.9\)"):
        compare(runs["oracle"], other)


def test_a_changed_run_is_noticed(changed: Callable[..., Path], runs: dict[str, Path]) -> None:
    document = json.loads((runs["oracle"] / "run.json").read_text())
    other = changed(protocol=document["protocol"] | {"hop": 16_000})
    with pytest.raises(UsageError, match="has been changed: its signature says hop"):
        compare(runs["oracle"], other)


def test_missing_iterations_are_said(changed: Callable[..., Path], runs: dict[str, Path]) -> None:
    files = json.loads((runs["oracle"] / "run.json").read_text())["files"]
    folder = changed()
    sha256 = write_predictions(folder / "predictions.parquet", ["one-0"], np.zeros((1, 2, 21), np.float32))
    document = json.loads((folder / "run.json").read_text())
    document["files"]["predictions"]["sha256"] = sha256
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="the predictions have 2 iterations, the protocol has 3"):
        compare(folder, runs["oracle"])
    assert files["predictions"]["sha256"] != sha256


def damage_predictions(folder: Path) -> None:
    path = folder / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def escape(folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    document["files"]["predictions"]["path"] = "../predictions.parquet"
    (folder / "run.json").write_text(json.dumps(document))


def forget_labels(folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    del document["files"]["segments"]
    (folder / "run.json").write_text(json.dumps(document))


def no_predictions(folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    document["files"] = {}
    (folder / "run.json").write_text(json.dumps(document))


def foreign_signature(folder: Path) -> None:
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | {"signature": "avb|something"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_predictions, "is not the file that the run wrote"),
        (escape, "it must be beside run.json"),
        (forget_labels, "name its data with --data"),
        (no_predictions, "names no predictions file"),
        (foreign_signature, "is not the signature of a run"),
        (lambda folder: (folder / "run.json").unlink(), "cannot read"),
        (lambda folder: (folder / "run.json").write_text("{"), "not strict JSON"),
        (lambda folder: (folder / "segments.parquet").write_text("x"), "is not the file that the run wrote"),
    ],
)
def test_broken_runs_are_one_line(
    avbench: Avbench, runs: dict[str, Path], changed: Callable[..., Path], damage: Any, message: str
) -> None:
    folder = changed()
    damage(folder)
    done = avbench("compare", runs["constant"], folder)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_labels_that_disagree_are_refused(runs: dict[str, Path], changed: Callable[..., Path]) -> None:
    folder = changed()
    segments = [SegmentRecord("one-0", "one", "one", 0, 0, 3)]
    document = json.loads((folder / "run.json").read_text())
    document["files"]["segments"]["sha256"] = write_segments(folder / "segments.parquet", Truth.of(segments))
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="segment one-0 has different labels or videos"):
        compare(runs["oracle"], folder)
    with pytest.raises(UsageError, match="has no label"):  # the first run's file is the one that is used
        compare(folder, folder)


def test_only_common_segments_are_paired(runs: dict[str, Path], changed: Callable[..., Path]) -> None:
    folder = changed()
    document = json.loads((folder / "run.json").read_text())
    sha256 = write_predictions(folder / "predictions.parquet", ["two-1", "one-0"], np.zeros((2, 3, 21), np.float32))
    document["files"]["predictions"]["sha256"] = sha256
    (folder / "run.json").write_text(json.dumps(document))
    found = compare(folder, runs["oracle"], bootstrap=Bootstrap(20))
    assert (found.n_segments, found.n_videos, found.left_out) == (2, 2, 2)
    document["files"]["predictions"]["sha256"] = write_predictions(
        folder / "predictions.parquet", ["other"], np.zeros((1, 3, 21), np.float32)
    )
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="no scored segment in common"):
        compare(folder, runs["oracle"])


def test_a_signature_has_named_fields() -> None:
    signature = streaming().signature() + "|m:0123456789ab|lead704|bfloat16|d:abcdef012345|v1.2"
    parsed = Signature.parse(signature)
    assert str(parsed) == signature
    found = parsed.fields()
    assert found["hop"] == "h2.000"
    assert found["iterations"] == "n18"
    assert found["model"] == "m:0123456789ab|lead704|bfloat16"
    assert (found["data"], found["version"]) == ("d:abcdef012345", "v1.2")
    assert "|".join(["avb", *found.values()]) == signature
    for bad in ("", "avb", signature[4:], signature.replace("|d:", "|"), signature.replace("|m:", "|")):
        with pytest.raises(UsageError, match="not the signature"):
            Signature.parse(bad)


# -- three and more ----------------------------------------------------------------------------------------------------


def test_four_runs_as_a_command(avbench: Avbench, runs: dict[str, Path]) -> None:
    """Text has the main metric, best first; JSON has all of them, with plain and corrected p."""
    several = [runs[name] for name in ("oracle", "constant", "xcorr", "xcorr+apa")]
    done = avbench("compare", *several)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "clicks test (click and flash): 4 models on the same 4 segments of 2 videos"
    assert "mAP, row minus column (higher is better)" in lines
    assert next(line for line in lines if line.startswith("1 ")).split()[1] == "oracle"
    assert "Holm's correction for the 6 pairs of each metric" in done.stdout
    assert f"avbench {avbench_version()}; n = 4 segments" in lines[-1]
    told = json.loads(avbench("compare", *several, "--json", "--n-resamples", 50).stdout)
    assert list(told["metrics"]) == list(METRICS)
    assert [run["name"] for run in told["runs"]] == ["oracle", "constant", "xcorr", "xcorr+apa"]
    assert (told["n_pairs"], told["n_segments"], told["left_out"], told["n_resamples"]) == (6, 4, 0, 50)
    for metric in told["metrics"].values():
        assert len(metric["pairs"]) == 6
        assert {"p", "p_holm", "significant", "difference", "ci_low", "ci_high", "detectable"} <= set(
            metric["pairs"][0]
        )
        assert all(pair["p_holm"] is None or pair["p_holm"] >= pair["p"] for pair in metric["pairs"])
    assert told["metrics"]["acc"]["runs"][0]["name"] == "oracle"


def avbench_version() -> str:
    from avbench import __version__

    return __version__


def test_metrics_and_formats_of_several(avbench: Avbench, runs: dict[str, Path], tmp_path: Path) -> None:
    from io import StringIO

    import pandas as pd

    three = [runs[name] for name in ("xcorr", "constant", "oracle")]
    chosen = avbench("compare", *three, "--metrics", "acc", "mae_s").stdout
    assert "MAE (s), row minus column (lower is better)" in chosen
    assert "mAP" not in chosen
    latex = avbench("compare", *three, "--format", "latex").stdout
    assert latex.count("\\begin{tabular}") == 1
    assert "minus 3" in latex
    assert "n = 4 segments" in latex
    assert "minus 3" in avbench("compare", *three, "--format", "md").stdout
    printed = pd.read_csv(StringIO(avbench("compare", *three, "--format", "csv", "--csv", tmp_path / "t.csv").stdout))
    assert len(printed) == 3 * len(METRICS)
    assert {"signature_a", "signature_b", "version", "n", "p", "p_holm"} <= set(printed)
    written = pd.read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(written, printed[list(written)])
    frame = compare_all(three, bootstrap=Bootstrap(1000)).frame()
    pd.testing.assert_frame_equal(written, frame, check_dtype=False)


def test_a_page_and_a_plot_of_several(avbench: Avbench, runs: dict[str, Path], tmp_path: Path) -> None:
    page, plot = tmp_path / "new" / "page.html", tmp_path / "new" / "plot.svg"
    done = avbench("compare", *runs.values(), "--page", page, "--plot", plot, "--n-resamples", 50)
    assert done.returncode == 0, done.stderr
    assert "mAP, row minus column" in done.stdout
    text = page.read_text()
    assert all(f'<section id="{name}">' in text for name in METRICS), "all metrics, though the text has one"
    assert "xcorr+apa" in text
    drawn = " ".join(re.sub("<[^>]*>", " ", plot.read_text()).split())
    for words in ("Holm", "oracle", "n = 4 segments", "mAP (right is better)", f"avbench {avbench_version()}"):
        assert words in drawn, words
    assert (
        avbench("compare", runs["oracle"], runs["constant"], "--page", page, "--plot", plot, "--force").returncode == 0
    )


def test_each_pair_of_several_is_the_comparison_of_the_two(runs: dict[str, Path]) -> None:
    folders = list(runs.values())
    found = compare_all(folders, bootstrap=Bootstrap(60, 2))
    for i, j in ((0, 1), (1, 3), (3, 2)):
        expected = compare(folders[i], folders[j], bootstrap=Bootstrap(60, 2))
        for name, matrix in found.metrics.items():
            assert matrix.minus(i, j) == pytest.approx(expected.metrics[name], nan_ok=True, abs=1e-9), (i, j, name)


def test_two_runs_may_show_chosen_metrics(avbench: Avbench, runs: dict[str, Path]) -> None:
    done = avbench("compare", runs["oracle"], runs["constant"], "--metrics", "acc", "main", "--json")
    assert list(json.loads(done.stdout)) == ["acc", "map"]


def test_all_pairs_are_over_the_segments_that_all_have(runs: dict[str, Path], changed: Callable[..., Path]) -> None:
    folder = changed()
    document = json.loads((folder / "run.json").read_text())
    sha256 = write_predictions(folder / "predictions.parquet", ["two-1", "one-0"], np.zeros((2, 3, 21), np.float32))
    document["files"]["predictions"]["sha256"] = sha256
    (folder / "run.json").write_text(json.dumps(document))
    found = compare_all([runs["oracle"], runs["constant"], folder], bootstrap=Bootstrap(20))
    assert (found.n_segments, found.n_videos, found.left_out) == (2, 2, 2)
    assert found.names == ("oracle (oracle)", "constant", "oracle (changed)")
    assert compare_all([folder, folder, runs["xcorr"]], bootstrap=Bootstrap(20)).names[:2] == (
        "oracle (A)",
        "oracle (B)",
    )


def test_wrong_requests_for_several_are_one_line(avbench: Avbench, runs: dict[str, Path], tmp_path: Path) -> None:
    some = list(runs.values())
    for arguments, words in (
        (some[:1], "name two runs or more"),
        ([*some, tmp_path / "none"], "cannot read"),
        ([*some, "--metrics", "mpa"], "unknown metric 'mpa': did you mean map?"),
        ([*some, "--page", tmp_path], "is a folder"),
        ([*some, "--plot", "a.gif"], "a figure's file name ends in"),
        ([*some, "--n-resamples", 3], "at least 20"),
        ([*some, "--track", "synthsync-tset"], "did you mean synthsync-test"),
        ([*some, "--track", "synthsync-test"], "is on no track of the board"),
    ):
        done = avbench("compare", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


# -- offsets that change -----------------------------------------------------------------------------------------------


def changing_run(folder: Path, base: Path, logits: np.ndarray, windows: WindowTruth, truth: Truth) -> Path:
    """A run over changing offsets, written by hand as a run would have written it."""
    shutil.copytree(base, folder)
    protocol = dynamic(iterations=12)
    hashes = {
        "predictions": write_predictions(folder / "predictions.parquet", truth.segment_ids, logits),
        "segments": write_segments(folder / "segments.parquet", truth),
        "truth": write_truth(folder / "truth.parquet", windows),
    }
    document = json.loads((folder / "run.json").read_text())
    signature = Signature.of(
        protocol, document["model"]["fingerprint"], document["data"]["manifest_sha256"], document["avbench_version"]
    )
    document["files"] = {name: {"path": f"{name}.parquet", "sha256": sha256} for name, sha256 in hashes.items()}
    document |= {
        "protocol": asdict(protocol),
        "signature": str(signature),
        "n_scored": len(truth),
        "n_total": len(truth),
    }
    (folder / "run.json").write_text(json.dumps(document))
    return folder


def changing_streams(n: int, at_s: float = 15.0) -> tuple[WindowTruth, Truth]:
    """Streams of 12 windows with a jump by 0.8 s."""
    law = Law("jump", (Piece(0, 0), Piece(ticks(at_s), ticks(0.8))))
    segments = [SegmentRecord(f"s{k}", "c", f"v{k % 5}", 0, 0, 10, law=law) for k in range(n)]
    protocol = dynamic(iterations=12)
    return WindowTruth.of(segments, protocol), Truth.of(segments, protocol=protocol)


def saying(windows: WindowTruth, late: int) -> np.ndarray:
    """Streaming predictions that say what was so some windows ago."""
    labels = classes_of(windows.offset_end_s)
    said = np.concatenate([np.repeat(labels[:, :1], late, axis=1), labels[:, : 12 - late]], axis=1)
    return (9 * np.eye(21)[said]).astype(np.float32)


def test_runs_over_changing_offsets_differ_in_recovery(avbench: Avbench, runs: dict[str, Path], tmp_path: Path) -> None:
    windows, truth = changing_streams(10)
    a = changing_run(tmp_path / "a", runs["oracle"], saying(windows, 1), windows, truth)
    b = changing_run(tmp_path / "b", runs["oracle"], saying(windows, 3), windows, truth)
    found = compare(a, b, bootstrap=Bootstrap(50))
    expected = paired(saying(windows, 1), saying(windows, 3), windows, videos=truth.clusters, bootstrap=Bootstrap(50))
    assert list(found.metrics) == [*SHOWN, *METRICS]
    for name, difference in expected.items():
        for field, value in difference.items():
            assert getattr(found.metrics[name], field) == pytest.approx(value, nan_ok=True), name
    assert found.metrics["recovery_s"].difference == pytest.approx(-4)
    assert found.metrics["acc"].difference == 0  # of the last window, against what is so at its end
    assert found.metrics["acc"].a == 1
    done = avbench("compare", a, b, "--n-resamples", 50)
    assert done.returncode == 0, done.stderr
    assert "recovery (s)" in done.stdout
    assert "last Acc±1" in done.stdout
    assert "last: the last window alone" in done.stdout
    told = json.loads(avbench("compare", a, b, "--n-resamples", 50, "--json").stdout)
    assert {"recovery_s", "false_changes_per_h", "tracked_acc_tol1", "tracking_error_s"} <= set(told)


def test_runs_whose_truths_differ_or_are_not_there_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    windows, truth = changing_streams(4)
    a = changing_run(tmp_path / "a", runs["oracle"], saying(windows, 1), windows, truth)
    later, _ = changing_streams(4, at_s=16.0)
    b = changing_run(tmp_path / "b", runs["oracle"], saying(windows, 1), later, truth)
    with pytest.raises(UsageError, match="have different truths"):
        compare(a, b, bootstrap=Bootstrap(10))
    other = changing_run(tmp_path / "c", runs["oracle"], saying(windows, 1), windows.take([1, 0, 2, 3]), truth)
    with pytest.raises(UsageError, match="missing or not of these predictions"):
        compare(a, other, bootstrap=Bootstrap(10))
