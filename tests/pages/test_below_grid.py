"""The sections on what lies below the grid and on pairs, of a run's page and of an entry's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened
from entries import make_logits
from pages import assert_stands_alone

from avbench.leaderboard import entries as board
from avbench.pages.below_grid import below_grid, pair_section
from avbench.pages.run_report import run_page, write_report
from avbench.protocol.rules import streaming
from avbench.protocol.tracks import TRACKS
from avbench.results.run import PairScore, RunResult
from avbench.results.truth import Truth
from avbench.scoring.below_grid import BELOW_GRID
from avbench.scoring.metrics import METRICS
from avbench.scoring.scorer import Scorer
from avbench.scoring.stats import Bootstrap
from avbench.submissions.tracks import truth

SHA = "0123456789abcdef" * 4
TRACK = TRACKS["synthsync-test"]
PAIRS = [
    PairScore(shift_s=shift_s, direction=direction, n=168, value=0.6, ci_low=0.5, ci_high=0.7)
    for shift_s in (None, 0.05, 0.2)
    for direction in ("both", "early", "late")
]


def made_up() -> tuple[RunResult, Truth, np.ndarray]:
    """A run of a model that was never there, on the offsets of the SynthSync test split."""
    answers = truth(TRACK)
    logits = make_logits(answers, 3, 0.6)
    result = RunResult(
        avbench_version="0.1.0",
        signature="avb|streaming:1|w5.000|h2.000|n3|m:1f3a|d:8211|v0.1.0",
        protocol=streaming(iterations=3),
        model={"name": "toy", "backbone": "toy", "head": "none", "fingerprint": SHA},
        data={"name": "synthsync", "split": "test", "manifest_sha256": TRACK.manifest_sha256, "n_clips": 24},
        n_scored=168,
        n_total=168,
        scores=Scorer(answers, Bootstrap(40))(logits),
        pairs=PAIRS,
        seed=0,
        n_resamples=40,
        created="2026-01-02T03:04:05Z",
    )
    return result, answers, logits


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_person_reads_the_figures_in_a_browser(size: tuple[int, int], tmp_path: Path) -> None:
    result, answers, logits = made_up()
    with opened(write_report(result, tmp_path, answers, logits), size) as seen:
        section = seen.page.locator("section", has=seen.page.get_by_role("heading", name="Below the grid"))
        rows = section.locator("table.scores").nth(1).locator("tbody tr")
        assert [row.split()[0] for row in rows.locator("th").all_inner_texts()] == [
            "itu-detect",
            "itu-accept",
            "atsc",
            "ebu",
        ]
        assert "45 ms" in rows.nth(0).inner_text()
        section.get_by_text("recall at 5 % by the size of the offset").click()
        assert section.get_by_text("0.8–1.6 s").is_visible()
        assert section.locator("svg.chart").is_visible()
        pairs = seen.page.locator("section", has=seen.page.get_by_role("heading", name="Which of two is in sync"))
        assert pairs.locator("tbody tr").count() == 3
        assert (seen.errors, seen.requests, seen.overflow_px) == ([], [], 0)


def test_the_page_says_what_the_classes_can_certify() -> None:
    result, answers, logits = made_up()
    text = " ".join(assert_stands_alone(run_page(result, answers, logits)).text.split())
    assert "the right class certifies none of them" in text
    assert "nothing between the classes was asked" not in text
    assert "Few segments of this data are within the limits" in text
    on_grid = replace(answers, offsets=3200 * (answers.labels - 10))
    assert "nothing between the classes was asked" in " ".join(run_page(result, on_grid, logits).split())


def test_numbers_of_the_section_are_those_of_the_run() -> None:
    result, answers, logits = made_up()
    found = below_grid(result.scores, answers, logits[:, -1])
    assert found is not None
    assert answers.offsets_s is not None
    shown = {column.name: score for column, score in (*found.offsets, *found.calibration)}
    assert shown == {name: result.scores[name] for name in shown}
    for row in found.tolerance:
        outside = row.table.outside(answers.offsets_s)
        assert row.n_within == (~outside).sum()
        assert sum(n for n, _ in row.by_offset) == outside.sum()
        value = result.scores[f"out_of_{row.table.name.replace('-', '_')}_recall_5_percent"].value
        by_size = sum(n * recall for n, recall in row.by_offset if n) / outside.sum()
        assert by_size == pytest.approx(value)


def test_a_run_from_before_has_no_such_section() -> None:
    result, answers, logits = made_up()
    old = result.model_copy(update={"scores": {name: result.scores[name] for name in METRICS}, "pairs": []})
    text = run_page(old, answers, logits)
    assert "Below the grid" not in text
    assert "Which of two" not in text
    assert pair_section([]) is None


def test_an_entry_has_the_section_and_a_blind_one_no_single_segments() -> None:
    answers = truth(TRACK)
    logits = make_logits(answers, 18, 0.6)
    scored = board.score(TRACK, answers, logits)
    assert set(scored.scores) == {*METRICS, *BELOW_GRID}
    assert "Below the grid" in scored.report
    assert "Reliability" in scored.report
    blind = board.score(replace(TRACK, labels="private"), answers, logits).report
    assert "Below the grid" in blind
    for word in ("Reliability", "by the size of the offset", "segments within"):
        assert word not in blind
