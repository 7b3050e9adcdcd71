"""The segments of a run that can be watched: which they are, what is said of them, and that a browser plays them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened
from made_runs import HOSTILE, made_up
from pages import assert_stands_alone

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.pages.players import N_OF_A_KIND, picks, players
from avbench.pages.run_report import run_page
from avbench.results.excerpts import FOLDER, SHIFTS, Cut
from avbench.results.run import RunResult
from avbench.results.truth import Truth

Made = tuple[RunResult, Truth, np.ndarray]


@pytest.fixture(scope="module")
def made() -> Made:
    return made_up(windows=6, n=63)


def cuts_of(made: Made, length_s: float = 4.0) -> list[Cut]:
    _, answers, _ = made
    return [
        Cut(kind=p.kind, number=p.number, segment_id=answers.segment_ids[p.row], start_s=5.0, length_s=length_s)
        for p in picks(*made, None)
    ]


def test_the_worst_are_wrong_and_the_surest_are_right(made: Made) -> None:
    _, answers, logits = made
    said = logits[:, -1].argmax(axis=1)
    off, top = np.abs(said - answers.labels), np.sort(logits[:, -1], axis=1)
    found = picks(*made, None)
    assert [(p.kind, p.number) for p in found] == [("worst", n) for n in (1, 2, 3)] + [("surest", n) for n in (1, 2, 3)]
    worst, surest = ([p.row for p in found if p.kind == kind] for kind in ("worst", "surest"))
    assert sorted(off)[-N_OF_A_KIND:] == sorted(off[worst])
    assert off[surest].max() == 0
    assert top.shape[1] == 21


def test_a_segment_is_shown_once_and_few_have_no_surest(made: Made) -> None:
    result, answers, logits = made
    right = np.flatnonzero(logits[:, -1].argmax(axis=1) == answers.labels)[:4]
    found = picks(result, answers.take(right), logits[right], None)
    assert len({p.row for p in found}) == len(found) == 4
    assert [p.kind for p in picks(result, answers.take([0]), logits[:1], None)] == ["worst"]
    assert picks(result, answers.take([]), logits[:0], None) == []


def test_what_is_said_of_a_segment(made: Made) -> None:
    result, answers, logits = made
    exact = replace(answers, offsets=np.array([int(3200 * (label - 10)) for label in answers.labels]))
    found = players(result, exact, logits, None, cuts_of(made))
    first = found["worst"][0]
    assert (first.seen, first.corrected) == (f"{FOLDER}/worst-1-seen.mp4", f"{FOLDER}/worst-1-corrected.mp4")
    steps = json.loads(first.steps)
    assert [end for end, _ in steps] == [5.0, 7.0, 9.0, 11.0, 13.0, 15.0]
    assert steps[-1][1] == f"{first.said} (p {first.p:.2f})"
    assert first.wrong
    assert not any(player.wrong for player in found["surest"])
    assert players(result, exact.take([0]), logits[:1], None, cuts_of(made)[-1:]) == {}, "no such segment in the run"


def test_there_are_no_clips_without_the_truth(made: Made) -> None:
    result, _, logits = made
    page = run_page(result, None, logits, cuts=cuts_of(made))
    assert "<video" not in page
    assert "media-src" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_only_text(text: str, made: Made) -> None:
    result, answers, logits = made
    named = replace(answers, segment_ids=tuple(f"{text}{i}" for i in range(len(answers))))
    cuts = cuts_of((result, named, logits))
    cuts[0] = cuts[0].model_copy(update={"reason": text})
    found = assert_stands_alone(run_page(result, named, logits, cuts=cuts))
    assert found.tags.count("video") == 10
    assert f"No clip: {text}." in found.text


def test_a_browser_plays_them_and_the_marker_runs_along(made: Made, tmp_path: Path) -> None:
    result, answers, logits = made
    (tmp_path / FOLDER).mkdir()
    cuts = cuts_of(made, length_s=4.0)
    for cut in cuts[:-1]:
        for shift in SHIFTS:
            encode_clip(tmp_path / FOLDER / cut.name(shift), *click_and_flash(4))
    (tmp_path / "run.html").write_text(run_page(result, answers, logits, cuts=cuts), encoding="utf-8")
    with opened(tmp_path / "run.html", DESKTOP) as seen:
        page = seen.page
        card = page.locator(".player").first
        seen_clip, corrected = card.locator("video").nth(0), card.locator("video").nth(1)
        page.wait_for_function("() => document.querySelector('video').readyState > 1")
        seen_clip.evaluate("v => { v.currentTime = 2; }")
        page.wait_for_function("() => document.querySelector('.player output').textContent.startsWith('At 7.0 s')")
        told = card.locator("output").inner_text()
        assert told == f"At 7.0 s: {json.loads(card.get_attribute('data-steps'))[1][1]}"
        cursor = card.locator(".cursor")
        half = cursor.evaluate("c => (Number(c.dataset.to) - Number(c.dataset.from)) / 2")
        assert cursor.get_attribute("transform") == f"translate({half:.2f} 0)"
        seen_clip.evaluate("v => { v.muted = true; return v.play(); }")
        corrected.evaluate("v => { v.muted = true; return v.play(); }")
        page.wait_for_function("() => document.querySelectorAll('video')[1].currentTime > 2")
        assert seen_clip.evaluate("v => v.paused"), "one at a time"
        last = page.locator(".player").last.locator("output")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.player output')].at(-1).textContent.startsWith('This br')"
        )
        assert "not beside the page" in last.inner_text()
        for size in (DESKTOP, PHONE):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            assert seen.overflow_px == 0, size
        assert seen.requests == []
        assert [e for e in seen.errors if "ERR_FILE_NOT_FOUND" not in e] == []
