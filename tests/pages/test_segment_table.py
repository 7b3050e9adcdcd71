"""The table of a run's segments: what it says, what is left out, and that a browser can sort, filter and save it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import PHONE, opened
from made_runs import made_up

from avbench.pages import segment_table
from avbench.pages.run_report import run_page
from avbench.pages.segment_table import listed
from avbench.results.run import RunResult
from avbench.results.truth import Truth


@pytest.fixture(scope="module")
def made() -> tuple[RunResult, Truth, np.ndarray]:
    return made_up(windows=2, n=63)


def test_every_segment_has_its_line(made: tuple[RunResult, Truth, np.ndarray]) -> None:
    _, answers, logits = made
    table = listed(answers, logits, 1)
    assert table is not None
    assert (len(table.lines), table.n, table.step) == (63, 63, 1)
    assert [line.id for line in table.lines] == list(answers.segment_ids)
    assert sum(line.right for line in table.lines) == np.count_nonzero(logits[:, 1].argmax(axis=1) == answers.labels)
    assert table.classes == sorted(set(answers.labels.tolist()))
    assert table.categories == ["talking head", "voice-over", "other"]
    assert listed(answers.take([]), logits[:0], 1) is None


def test_exact_offsets_are_shown_where_they_are_known(made: tuple[RunResult, Truth, np.ndarray]) -> None:
    _, answers, logits = made
    exact = replace(answers, offsets=np.full(63, 8000))
    table = listed(exact, logits, 1)
    assert table is not None
    assert {line.true_s for line in table.lines} == {0.5}
    assert all(line.error_s == pytest.approx(line.said_s - 0.5) for line in table.lines)


def test_of_many_segments_every_kth_is_shown(
    made: tuple[RunResult, Truth, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_table, "MAX_ROWS", 20)
    result, answers, logits = made
    table = listed(answers, logits, 1)
    assert table is not None
    assert (len(table.lines), table.n, table.step) == (16, 63, 4)
    assert [line.id for line in table.lines] == list(answers.segment_ids[::4])
    assert "Shown: 16 of 63, one in 4" in run_page(result, answers, logits)


def test_a_browser_sorts_filters_and_saves_it(made: tuple[RunResult, Truth, np.ndarray], tmp_path: Path) -> None:
    result, answers, logits = made
    named = replace(answers, segment_ids=('odd, "name"', *answers.segment_ids[1:]))
    (tmp_path / "run.html").write_text(run_page(result, named, logits), encoding="utf-8")
    table = listed(named, logits, 1)
    assert table is not None
    wrong = [line.id for line in table.lines if abs(line.said - line.truth) > 1]
    with opened(tmp_path / "run.html", PHONE) as seen:
        page = seen.page
        assert seen.overflow_px == 0
        assert page.locator("#count").inner_text() == "63 of 63 segments"
        page.locator("#by-answer").select_option("2")
        assert page.locator("#count").inner_text() == f"{len(wrong)} of 63 segments"
        page.get_by_role("button", name="error").click()
        errors = page.locator("#segments tbody tr:not([hidden]) td:nth-child(6)")
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in errors.all_inner_texts()]
        assert values == sorted(values, reverse=True)
        assert len(values) == len(wrong) > 1
        page.locator("#by-answer").select_option("")
        page.locator("#by-category").select_option("voice-over")
        page.locator("#by-class").select_option(str(table.lines[1].truth))
        some = [x.id for x in table.lines if (x.category, x.truth) == ("voice-over", table.lines[1].truth)]
        assert page.locator("#count").inner_text() == f"{len(some)} of 63 segments"
        page.locator("#by-category").select_option("")
        page.locator("#by-class").select_option("")
        page.locator("#by-name").fill("NAME odd")
        with page.expect_download() as download:
            page.locator("#save").click()
        rows = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
        assert [row["segment_id"] for row in rows] == ['odd, "name"']
        assert float(rows[0]["true_offset_s"]) == table.lines[0].true_s
        assert float(rows[0]["p_answer"]) == pytest.approx(table.lines[0].p_said, abs=1e-4)
        assert (seen.errors, [r for r in seen.requests if not r.startswith("blob:")]) == ([], [])
