"""The page and the text of label-free figures: what a person sees, and what may never be in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, opened
from pages import assert_stands_alone

from avbench.pages.score_page import MOST_FILES, score_page
from avbench.pages.score_text import MOST_FILES as MOST_LINES
from avbench.pages.score_text import render_scores
from avbench.scoring.figures import Figure, FileFigures, FileRow, LabelFree, pair

EVIL = "<img src=x onerror=alert(1)>"


def figures(n: int = 6, paired: bool = False, name: str = "clip") -> FileFigures:
    size = Figure("size", "DeSync first-last (s)", "s", True, "mean |offset|", most=2.0)
    shift = Figure("shift", "offset (s)", "s", None, "believed offset", True)
    metric = LabelFree("size", (size, shift), "by hkchengrex/av-benchmark", lambda file: {}, "synchformer")
    rows = [
        FileRow(f"made/{name}-{i}.mp4", f"{name}-{i}", 4.0 + i, {"size": 0.1 * (i % 8), "shift": -0.1 * (i % 8)})
        for i in range(n)
    ]
    rows.append(FileRow(f"made/{name}-short.mp4", "short", 3.0, {}, {"size": "too short"}, ("the sound ends",)))
    reference = [replace(row, path=row.path.replace("made", "real"), warnings=()) for row in rows[1:]]
    files, others = pair(rows, reference) if paired else (tuple(rows), ())
    facts = {"name": "synchformer.audioset", "fingerprint": "ab" * 32, "trained_on": "AudioSet", "random_weights": None}
    return FileFigures(
        (metric,),
        files,
        others,
        paired,
        {"synchformer": facts},
        ("notes.txt: no video by the name",),
        1,
        ("pictures are cut", "whole files"),
    )


@pytest.mark.parametrize("paired", [False, True])
def test_the_page_says_all(paired: bool) -> None:
    found = figures(paired=paired)
    text = score_page(found, "made")
    assert text == score_page(found, "made")
    assert_stands_alone(text)
    for said in (
        "too short",
        "by hkchengrex/av-benchmark",
        "synchformer.audioset",
        "ab" * 32,
        "notes.txt",
        "whole files",
    ):
        assert said in text
    assert "the sound ends" in text
    order = [text.index(f"made/clip-{i}.mp4", text.index("the worst first")) for i in (5, 4, 1, 0)]
    assert order == sorted(order)
    assert ("real" in text) == ("difference" in text) == paired
    assert ("the reference has no file clip-0.*" in text) == paired


def test_names_from_strangers_are_text() -> None:
    text = score_page(figures(name=EVIL), EVIL)
    assert EVIL not in text
    assert "&lt;img src=x" in text
    assert_stands_alone(text)


def test_random_weights_are_marked() -> None:
    found = figures()
    facts = dict(found.models["synchformer"]) | {"random_weights": 3}
    random = replace(found, models={"synchformer": facts})
    assert "these figures mean" in " ".join(score_page(random, "made").split())
    assert "RANDOM WEIGHTS (seed 3)" in render_scores(random)
    assert "RANDOM" not in render_scores(found)


def test_both_are_bounded() -> None:
    many = figures(MOST_FILES + 7)
    text = score_page(many, "made")
    assert text.count('<tr><th scope="row">made/') == MOST_FILES
    assert f"This page shows {MOST_FILES} of {MOST_FILES + 8}" in text
    lines = render_scores(many).splitlines()
    assert sum(line.startswith("made/") for line in lines) == MOST_LINES
    assert f"... and {MOST_FILES + 8 - MOST_LINES} more" in lines


def test_the_text_says_offsets_in_words_and_pairs() -> None:
    text = render_scores(figures(paired=True))
    assert "(audio 0.25 s late)" in text
    assert "files - reference" in text
    alone = FileFigures(figures().metrics, figures().files[1:2])
    assert "0.100 [-]" in render_scores(alone)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_is_shown_without_errors_or_requests_or_sideways_scrolling(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "page.html").write_text(score_page(figures(paired=True, name="a-rather-long-name" * 4), "made"))
    with opened(tmp_path / "page.html", size) as seen:
        assert (seen.errors, seen.requests, seen.overflow_px) == ([], [], 0)
        assert seen.page.locator("table").count() == 2
