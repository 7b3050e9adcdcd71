"""The page of a run: what a person sees in a browser, and what may never be in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import HOSTILE, SHA, TRACK, made_up
from pages import assert_stands_alone, read

from avbench.pages.run_report import command, run_page, write_report
from avbench.pages.sections import confusion, worst_segments
from avbench.results.predictions import write_predictions
from avbench.results.run import FileRef, RunResult, read_run, write_run
from avbench.results.truth import Truth, write_segments
from avbench.scoring.metrics import METRICS
from avbench.types import SegmentRecord

FILES = resources.files("avbench.pages")
SCRIPT = "".join(FILES.joinpath(name).read_text(encoding="utf-8") for name in ("sorting.js", "run.js"))
Avbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def page() -> str:
    return run_page(*made_up())


# -- what a person sees ------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_page_and_report_makes_the_same_again(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    done = avbench("run", "--model", "uniform", "--data", clicks, "--iterations", "2", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert f"report  {Path('r') / 'run.html'}" in done.stdout
    page = tmp_path / "r" / "run.html"
    first = page.read_bytes()
    assert "--data FOLDER" in page.read_text(encoding="utf-8"), "a folder has no name that a result could know"
    page.unlink()
    done = avbench("report", "r")
    assert (done.returncode, done.stdout) == (0, f"{Path('r') / 'run.html'}\n")
    assert page.read_bytes() == first

    (tmp_path / "r" / "segments.parquet").write_bytes(b"other")
    done = avbench("report", "r")
    assert done.returncode == 2
    assert "is not the file that the run wrote" in done.stderr
    assert avbench("report", "nowhere").returncode == 2


def test_the_page_in_a_browser(page: str, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text(page, encoding="utf-8")
    with opened(path, DESKTOP) as seen:
        assert seen.page.title() == "streamsync-trf on synthsync test · avbench"
        for size in (DESKTOP, PHONE):
            seen.page.set_viewport_size({"width": size[0], "height": size[1]})
            assert seen.overflow_px == 0, size
        assert seen.page.locator("table.confusion tbody tr").count() == 21
        assert seen.page.locator("svg.chart").count() == 4, "three curves and the reliability"
        assert seen.page.locator("svg.belief").count() == 6
        assert seen.page.get_by_text("procedural stand-in").first.is_visible()
        drawn = "[...document.querySelectorAll('figure, .belief-card, .scroll.fit')]"
        notes = seen.page.evaluate(f"{drawn}.map(e => getComputedStyle(e, '::after').content)")
        assert (len(notes), set(notes)) == (11, {'"procedural stand-in"'}), "every figure says what the clips are"
        steps = seen.page.locator(".belief-card").first.locator("table.steps")
        assert not steps.is_visible()
        seen.page.locator(".belief-card summary").first.click()
        assert steps.is_visible()
        assert steps.locator("tbody tr").count() == 18
        # the shades come from the stylesheet, so the policy did let it through
        colour = "getComputedStyle(document.querySelector('td.h10')).backgroundColor"
        light = seen.page.evaluate(colour)
        seen.page.emulate_media(color_scheme="dark")
        assert seen.page.evaluate(colour) != light
        assert (seen.errors, seen.requests) == ([], [])


def test_it_says_what_the_run_says(page: str) -> None:
    result = made_up()[0]
    text = " ".join(assert_stands_alone(page).text.split())
    for word in (result.signature, SHA, TRACK.manifest_sha256, "a word of warning", "audio 2 s late", "always in sync"):
        assert word in text
    for metric in METRICS.values():
        assert metric.title in text
    acc = result.scores["acc"]
    assert f"{acc.value:.2f}{acc.ci_low:.2f}–{acc.ci_high:.2f}" in text.replace(" ", "")
    assert len(page.encode()) < 400_000


def test_equal_runs_have_equal_pages(page: str) -> None:
    assert run_page(*made_up()) == page


def test_where_it_errs() -> None:
    result, answers, logits = made_up()
    said = logits[:, -1].argmax(axis=1)
    rows = confusion(answers.labels, said)
    assert [row["n"] for row in rows] == np.bincount(answers.labels, minlength=21).tolist()
    assert sum(rows[c]["cells"][c][0] for c in range(21)) == np.count_nonzero(said == answers.labels)
    worst = worst_segments(answers, logits, at=17)
    off = [abs(item.said - item.truth) for item in worst]
    assert off == sorted(np.abs(said - answers.labels), reverse=True)[: len(worst)]
    for item in worst:
        assert item.steps[-1][1] == item.said
        assert item.p_truth == pytest.approx(item.steps[-1][3])
    assert result.n_scored == 168


def test_few_segments_have_points_in_place_of_an_empty_matrix() -> None:
    result, answers, logits = made_up(windows=2, n=30)
    page = run_page(result, answers, logits)
    assert '<table class="confusion">' not in page
    off = logits[:, 1].argmax(axis=1) - answers.labels
    charts = page.split('aria-label="answers against true offsets of 30 segments"')[1]
    points, bars = charts.split('aria-label="how far off the answers are"')
    assert points.split("</svg>")[0].count("<circle") == 30
    assert bars.split("</svg>")[0].count("<rect") == len(set(off.tolist()))
    assert f"{np.count_nonzero(off)} of 30 are" in " ".join(page.split())
    assert '<table class="confusion">' in run_page(*made_up(windows=2, n=105))


def test_rows_with_a_curve_are_drawn_beside_the_run() -> None:
    result, answers, logits = made_up(windows=3, n=40)
    curve = [{name: {"value": 0.25} for name in ("acc", "map", "mae_s")}] * 3
    row = result.rows[0].model_dump()
    rows = [row, {**row, "name": "apa", "label": "same, APA", "curve": curve}]
    page = run_page(RunResult(**(result.model_dump() | {"rows": rows})), answers, logits)
    assert page.count('class="line c1 thin"') == 3
    assert '<span class="key c1"></span>same, APA' in page
    shorter = [{**rows[1], "curve": curve[:2]}]
    page = run_page(RunResult(**(result.model_dump() | {"rows": shorter})), answers, logits)
    assert 'class="line c1 thin"' not in page


# -- odd runs ----------------------------------------------------------------------------------------------------------


def test_a_run_where_everything_failed_has_a_page() -> None:
    result, _, _ = made_up()
    none = {name: {"value": None} for name in METRICS}
    reasons = [f"model m broke off, iteration {i} (window at {2 * i} s)" for i in range(100)]
    failures = [{"segment_id": f"s{i}", "clip_id": "c", "reason": reason} for i, reason in enumerate(reasons)]
    failures += [{"segment_id": f"t{i}", "clip_id": f"d{i}", "reason": f"cut off at {i} s"} for i in range(59)]
    changes = {"n_scored": 0, "scores": none, "slices": {}, "curve": [], "rows": [], "failures": failures}
    failed = RunResult(**(result.model_dump() | changes | {"incomplete": True}))
    empty = Truth.of([])
    text = assert_stands_alone(run_page(failed, empty, np.empty((0, 18, 21), np.float32))).text
    assert "Nothing was scored: 159 of 168 segments failed." in text
    assert "model m broke off clip c; 100 segments" in " ".join(text.split()), "one line for one cause"
    assert "classes leave them out" not in text
    assert "Scores" not in text, "no table of dashes"
    assert "avbench doctor" in text
    assert "avbench data verify" in text
    assert "and 10 more, all in run.json" in " ".join(text.split())
    assert "Where it errs" not in text


def test_hidden_labels_stay_hidden() -> None:
    result, _, logits = made_up()
    data = result.data.model_copy(update={"labels": "hidden"})
    none = {name: {"value": None} for name in METRICS}
    changes = {"data": data, "scores": none, "slices": {}, "curve": [], "rows": []}
    hidden = RunResult(**(result.model_dump() | {**changes, "data": data.model_dump()}))
    text = assert_stands_alone(run_page(hidden, None, logits)).text
    assert "Where it errs" not in text
    assert "truth" not in text
    assert "exactly the right offset" not in text


def test_one_window_has_no_curve_and_the_best_one_is_looked_into() -> None:
    result, answers, logits = made_up(windows=1)
    assert "As the stream goes on" not in run_page(result, answers, logits)
    result, answers, logits = made_up(windows=4)
    best = result.model_copy(update={"protocol": replace(result.protocol, selection="best_iter")})
    assert "best window of each metric" in run_page(best, answers, logits)


def test_the_command_repeats_the_run() -> None:
    result = made_up()[0]
    words = "avbench run --model streamsync-trf --data synthsync --split test --protocol streaming --hop 2"
    assert command(result) == f"{words} --iterations 18 --seed 0 --n-resamples 40"
    part = result.model_copy(update={"data": result.data.model_copy(update={"manifest_sha256": SHA})})
    assert "--limit 168" in command(part), "a part of the split has another hash"
    model = result.model.model_copy(update={"name": "my net.py:Net", "dtype": "bfloat16", "full_size": True})
    told = command(result.model_copy(update={"model": model, "environment": {"device": "cuda"}}))
    assert "--model 'my net.py:Net'" in told
    assert told.endswith("--weights FILE --dtype bfloat16 --device cuda")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    from avbench.types import AvbenchError

    result, answers, logits = made_up(windows=1, n=10)
    with pytest.raises(AvbenchError, match=r"cannot write .*run.html"):
        write_report(result, tmp_path / "not there", answers, logits)


def test_files_of_two_runs_are_refused(avbench: Avbench, tmp_path: Path) -> None:
    result, answers, logits = made_up(windows=2, n=10)
    segments = [SegmentRecord(id, "v", "v", 0, 0, 3) for id in answers.segment_ids]
    sha256 = {
        "predictions": write_predictions(tmp_path / "predictions.parquet", answers.segment_ids, logits),
        "segments": write_segments(tmp_path / "segments.parquet", Truth.of(segments[::-1])),
    }
    files = {name: FileRef(path=f"{name}.parquet", sha256=value) for name, value in sha256.items()}
    write_run(result.model_copy(update={"files": files}), tmp_path)
    done = avbench("report", tmp_path)
    assert done.returncode == 2
    assert "are not from one run" in done.stderr
    assert read_run(tmp_path).n_scored == 10


# -- what may never be in it -------------------------------------------------------------------------------------------


def hostile_page(text: str) -> str:
    """The page of a run that says ``text`` wherever a stranger could have said it."""
    result, answers, logits = made_up(windows=2, n=24)
    document: dict[str, Any] = result.model_dump()
    document["signature"] = text
    document["model"] |= {"name": text, "description": text, "trained_on": text, "fingerprint": text}
    document["data"] |= {"name": text, "split": text, "note": text}
    document["warnings"] = [text]
    document["failures"] = [{"segment_id": text, "clip_id": text, "reason": text}]
    document["incomplete"] = True
    document["rows"][0] |= {"label": text, "note": text}
    document["environment"] = {text: text}
    document["slices"] = {"category": {text: document["slices"]["category"]["other"]}}
    named = replace(answers, segment_ids=(text, *answers.segment_ids[1:]), categories=(text,) * 24)
    return run_page(RunResult(**document), named, logits)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(text: str) -> None:
    found = assert_stands_alone(hostile_page(text))
    assert found.tags == harmless_tags()
    assert text in found.text
    assert found.blocks["script"] == [SCRIPT]


@cache
def harmless_tags() -> list[str]:
    return read(hostile_page("harmless")).tags


@settings(max_examples=25)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_text_is_only_text(text: str) -> None:
    assert read(hostile_page(text)).tags == harmless_tags()


def test_pages_load_neither_torch_nor_matplotlib() -> None:
    code = "import sys, avbench.pages.run_report; print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
