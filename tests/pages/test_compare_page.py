"""The page of a comparison, in a real browser too, and its plot."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browser import DESKTOP, PHONE, opened, overlapping
from made_runs import HOSTILE, made_up
from pages import assert_stands_alone

from avbench.pages.compare_page import compare_page
from avbench.pages.compare_text import notes, render
from avbench.scoring.matrix import Comparisons, Matrix
from avbench.scoring.metrics import METRICS
from avbench.scoring.ranking import resampled_metric
from avbench.scoring.stats import Bootstrap


def compared(n: int, names: tuple[str, ...] = (), metrics: tuple[str, ...] = ("acc", "map", "mae_s")) -> Comparisons:
    """``n`` made-up models, the first one the best."""
    result, truth, _ = made_up(windows=1, n=60)
    names = names or tuple(f"model-{i}" for i in range(n))
    rng = np.random.default_rng(0)
    logits = [rng.standard_normal((60, 21)) + (4 - 3 * i / n) * np.eye(21)[truth.labels] for i in range(n)]
    bootstrap = Bootstrap(200)
    return Comparisons(
        runs=tuple(result.model_copy(update={"model": result.model.model_copy(update={"name": x})}) for x in names),
        places=tuple(f"place-{i}" for i in range(n)),
        n_segments=60,
        n_videos=len(set(truth.clusters)),
        left_out=3,
        bootstrap=bootstrap,
        main="map",
        metrics={
            name: Matrix.of(
                METRICS[name],
                [resampled_metric(name, one, truth.labels, truth.clusters, bootstrap) for one in logits],
                bootstrap.level,
            )
            for name in metrics
        },
    )


def page_of(found: Comparisons) -> str:
    return compare_page(found, list(found.metrics.values()))


def test_a_page_has_every_matrix_the_main_one_first_and_says_what_it_is_of() -> None:
    found = compared(3)
    page = page_of(found)
    assert page == page_of(found), "equal comparisons give equal pages"
    read = assert_stands_alone(page)
    titles = [METRICS[name].title for name in ("map", "acc", "mae_s")]
    assert [read.text.index(f"\n  {title}\n") for title in titles] == sorted(
        read.text.index(f"\n  {title}\n") for title in titles
    )
    for words in ("Holm", "3 pairs", "resampled videos", "procedural stand-in", "left out: 3", found.runs[0].signature):
        assert words.casefold() in read.text.casefold(), words
    assert page.count(">1 − 2<") == 2 * 3, "a row of each chart, on a desk and on a phone"
    cell = found.metrics["map"].minus(0, 2)
    assert f"{cell.difference:+.3f}" in page


def test_many_models_are_drawn_against_the_best() -> None:
    page = page_of(compared(7, metrics=("acc",)))
    assert "Each model minus the best one" in page
    assert ">1 − 2<" not in page


def test_names_of_strangers_are_shown_as_text() -> None:
    page = page_of(compared(3, names=(*HOSTILE[:2], "plain"), metrics=("acc",)))
    assert_stands_alone(page)
    assert "<script>alert" not in page
    assert "<img" not in page


def test_the_text_shows_no_control_characters() -> None:
    found = compared(3, names=("a\x1b[31m", "b", "c"), metrics=("map",))
    text = render(found, found.chosen(["main"]))
    assert "\x1b" not in text
    assert "mAP, row minus column" in text


def test_nothing_can_be_significant_with_too_few_resamples_and_it_is_said() -> None:
    found = compared(7, metrics=("map",))
    few = replace(found, bootstrap=Bootstrap(100))
    assert "Nothing can be significant here: 21 pairs are too many for 100 resamples" in " ".join(notes(few))
    assert "Nothing can be" not in " ".join(notes(compared(2)))


def test_a_single_video_has_no_interval_and_the_page_says_so() -> None:
    found = compared(3, metrics=("acc",))
    labels = np.arange(5)
    drawn = [resampled_metric("acc", np.eye(21)[labels], labels, ["v"] * 5, Bootstrap(20)) for _ in range(3)]
    one = replace(found, n_videos=1, metrics={"acc": Matrix.of(METRICS["acc"], drawn, 0.95)})
    page = page_of(one)
    assert "Too few videos for an interval (n = 1)" in page
    assert ">nan" not in page


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_in_a_browser(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_of(compared(4)), encoding="utf-8")
    with opened(path, size) as there:
        first = there.page.locator("section#map tbody tr").first
        assert "model-0" in first.locator("th").inner_text()
        assert "0.0" in first.locator("td").nth(3).inner_text()
        assert there.page.locator("section").count() == 2 + 3
        assert there.page.locator("section#map svg.chart:visible").bounding_box()["width"] > 300
        assert there.overflow_px == 0
        assert there.errors == []
        assert there.requests == []


@pytest.mark.parametrize("n", [4, 9])
def test_a_forest_chart_is_whole_and_legible_on_a_phone(tmp_path: Path, n: int) -> None:
    names = tuple(f"model-{i}-{'of-a-long-name' if n == 9 else 'x'}-and-its-head" for i in range(n))
    path = tmp_path / "page.html"
    path.write_text(page_of(compared(n, names, metrics=("map",))), encoding="utf-8")
    with opened(path, PHONE) as there:
        chart = there.page.locator("svg.chart:visible")
        assert chart.count() == 1
        assert chart.locator(".dot").count() == (n * (n - 1) // 2 if n < 9 else n - 1)
        assert not overlapping(there.page, "svg.chart text")
        inside = there.page.evaluate(
            """() => [...document.querySelectorAll('figure')].flatMap((figure) => {
              const edge = figure.getBoundingClientRect();
              const texts = [...figure.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect());
              return texts.filter((box) => box.width).map((box) => box.left >= edge.left && box.right <= edge.right);
            })"""
        )
        assert inside
        assert all(inside)
        scale = chart.bounding_box()["width"] / float(chart.get_attribute("viewBox").split()[2])
        assert 11 * scale >= 9.5, "its letters, in pixels"
        assert there.page.locator("figure .scroll-x").count() == 0
