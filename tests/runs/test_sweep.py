"""Sweeps: one common support, one pass over the clips, paired differences that mean what they say."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avbench.engine.runner import Compute
from avbench.protocol.manifest import read_manifest, write_manifest
from avbench.protocol.rules import Protocol
from avbench.runs.evaluate import evaluate
from avbench.runs.sweep import Settings, render, sweep, tables
from avbench.runs.sweep_plot import plot_sweep
from avbench.scoring.metrics import METRICS
from avbench.scoring.stats import Bootstrap
from avbench.types import Law, Piece, UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]
QUICK: dict[str, Any] = {"bootstrap": Bootstrap(n_resamples=20)}


def test_every_setting_is_scored_on_the_same_segments(clicks: Path, tmp_path: Path) -> None:
    rows = sweep(
        ["xcorr", "xcorr+apa", "oracle"],
        Settings(hops_s=[1, 2], iterations=[1, 3]),
        str(clicks),
        **QUICK,
        compute=Compute(tmp_path / "store", 1),
    )
    assert [(r.model, r.hop_s, r.iterations) for r in rows[:4]] == [
        ("xcorr", 1.0, 1),
        ("xcorr", 1.0, 3),
        ("xcorr", 2.0, 1),
        ("xcorr", 2.0, 3),
    ]
    assert len(rows) == 12
    assert {(r.n_scored, r.n_total) for r in rows} == {(4, 4)}
    by = {(r.model, r.hop_s, r.iterations): r for r in rows}
    # one window is one window, whatever the head or the hop
    one, other = (by[key].scores for key in (("xcorr", 1, 1), ("xcorr+apa", 2, 1)))
    assert {name: score.value for name, score in one.items()} == {name: score.value for name, score in other.items()}
    assert all(np.isnan(score.ci_low) for score in one.values()), "two videos"
    assert by["oracle", 2, 3].scores["acc"].value == 1.0


def test_differences_are_to_the_first_model_at_the_same_setting(clicks: Path, tmp_path: Path) -> None:
    rows = sweep(
        ["constant", "oracle"],
        Settings(iterations=[1, 2]),
        str(clicks),
        **QUICK,
        compute=Compute(tmp_path / "store", 1),
    )
    constant, later, oracle, _ = rows
    assert constant.against == {}
    assert later.reference == "constant, hop 2 s, 1 windows"
    assert all(d["difference"] == 0 for d in later.against.values() if np.isfinite(d["difference"]))
    assert oracle.reference == "constant, same setting"
    gain = oracle.scores["acc"].value - constant.scores["acc"].value
    assert oracle.against["acc"]["difference"] == pytest.approx(gain)
    told = render(rows).partition("paired differences")[2].splitlines()
    assert told[1].split()[:5] == ["model", "hop", "(s)", "windows", "minus"], "what is subtracted stands before"
    assert re.search(rf"constant, same setting +\+{gain:.3f}", told[3])
    differences = tables(rows)[1]
    assert differences.headers[3] == "minus"
    assert [row[3] for row in differences.rows] == [row.reference for row in rows[1:]]


def test_own_support_scores_each_setting_on_all_that_hold_it(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    """At 3 s of a 14 s clip, three windows at hop 2.4 s fit with the sound 0.4 s early, not with 2 s."""
    data = make_clicks(offsets_s=(0.4, 2.0))
    base = ("sweep", "--models", "constant", "oracle", "--data", data, "--hops", "2.4", "--iterations", "1", "3")
    done = avbench(*base, "--support", "own", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(r["model"], r["iterations"], r["n_scored"]) for r in rows] == [
        ("constant", 1, 4),
        ("constant", 3, 2),
        ("oracle", 1, 4),
        ("oracle", 3, 2),
    ]
    # models are compared at a setting; settings are not: their segments differ
    assert [r["reference"] for r in rows] == ["", "", "constant, same setting", "constant, same setting"]
    assert {r["n_scored"] for r in json.loads(avbench(*base, "--json").stdout)} == {2}
    shown = avbench(*base, "--support", "own").stdout
    assert "4/4" in shown
    assert "2/4" in shown
    assert "do not compare settings" in shown


def test_hops_and_windows_together_are_drawn_over_both(clicks: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rows = sweep(
        ["constant", "oracle"],
        Settings(hops_s=[1, 2], iterations=[1, 3]),
        str(clicks),
        **QUICK,
        compute=Compute(store, 1),
    )
    plot_sweep(rows, tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    for text in ("windows seen", "hop (s)", "oracle, hop 1 s", "oracle, 3 windows"):
        assert f">{text}<" in drawn


def test_a_sweep_as_a_frame(clicks: Path, tmp_path: Path) -> None:
    rows = sweep(
        ["constant", "oracle"],
        Settings(iterations=[1, 2]),
        str(clicks),
        **QUICK,
        compute=Compute(tmp_path / "store", 1),
    )
    frame = rows.frame()
    assert len(frame) == len(rows) * len(METRICS)
    by = frame.set_index(["model", "iterations", "metric"])
    for row in rows:
        for metric, estimate in row.scores.items():
            cell = by.loc[(row.model, row.iterations, metric)]
            found = [cell.value, cell.ci_low, cell.ci_high]
            assert np.array_equal(found, estimate, equal_nan=True), (row.model, metric)
            assert (cell.hop_s, cell.selection, cell.n_scored, cell.n_total) == (2.0, "final", 4, 4)
            assert cell.reference == row.reference
    # only the very first row has nothing to be compared with
    acc = frame[frame.metric == "acc"]
    assert acc.difference.isna().tolist() == [True, False, False, False]
    oracle = by.loc[("oracle", 1, "acc")]
    told = [oracle[name] for name in ("difference", "difference_ci_low", "difference_ci_high", "p")]
    expected = rows[2].against["acc"]
    assert np.array_equal(told, [expected[k] for k in ("difference", "ci_low", "ci_high", "p")], equal_nan=True)  # type: ignore[literal-required]
    assert told[0] == 1.0


def test_offsets_that_change_are_refused(clicks: Path, tmp_path: Path) -> None:
    manifest = read_manifest(clicks)
    law = Law("jump", (Piece(0, 0), Piece(32_000, 3200)))
    changing = replace(
        manifest, segments=tuple(replace(s, offset=0, offset_class=10, law=law) for s in manifest.segments)
    )
    write_manifest(changing, tmp_path / "changing")
    with pytest.raises(UsageError, match="takes offsets for fixed"):
        sweep(["constant"], data=str(tmp_path / "changing"))


def test_settings_that_no_segment_holds_are_refused(clicks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sweep fewer hops or windows"):
        sweep(["xcorr"], Settings(iterations=[2, 40]), str(clicks), **QUICK, compute=Compute(tmp_path / "store", 1))


def test_as_a_command(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    args = ["sweep", "--models", "xcorr+apa", "--data", clicks, "--iterations", "1", "2", "--n-resamples", "20"]
    done = avbench(*args, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["iterations"] for row in json.loads(done.stdout)] == [1, 2]


def test_what_is_undefined_is_null_in_json(avbench: Avbench, make_clicks: Callable[..., Path]) -> None:
    folder = make_clicks(clips=("one",), offsets_s=(0.4,))  # one video, one class: no interval, no ROC-AUC
    done = avbench("sweep", "--models", "constant", "--data", folder, "--iterations", "1", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    rows = json.loads(done.stdout)
    assert rows[0]["scores"]["acc"]["ci_low"] is None
    assert rows[0]["scores"]["roc_auc"]["value"] is None


def test_a_figure_is_drawn_the_same_twice(clicks: Path, tmp_path: Path) -> None:
    rows = sweep(
        ["xcorr", "xcorr+apa"],
        Settings(iterations=[1, 2]),
        str(clicks),
        **QUICK,
        compute=Compute(tmp_path / "store", 1),
    )
    plot_sweep(rows, tmp_path / "a.svg", title="clicks")
    plot_sweep(rows, tmp_path / "b.svg", title="clicks")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    for text in ("xcorr+apa", "windows seen", "mAP", "clicks"):
        assert f">{text}<" in drawn
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        plot_sweep(rows, tmp_path / "a.jpeg")


def test_best_iter_means_what_it_means_in_a_run(clicks: Path, tmp_path: Path) -> None:
    """Each metric at its own best iteration, in both commands."""
    store = tmp_path / "store"
    (row,) = sweep(
        ["uniform"], Settings(iterations=[3], selection="best_iter"), str(clicks), **QUICK, compute=Compute(store, 1)
    )
    protocol = Protocol(iterations=3, selection="best_iter")
    run = evaluate(
        "uniform",
        str(clicks),
        protocol=protocol,
        out=tmp_path / "out",
        reference_rows=False,
        bootstrap=Bootstrap(n_resamples=20),
    )
    for name, estimate in row.scores.items():
        assert estimate.value == pytest.approx(run.scores[name].value), name
