from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.leaderboard.site import front
from avbench.pages import interval, number, safe_url, seconds_short
from avbench.pages.charts import (
    LEVELS,
    Line,
    Point,
    Reference,
    belief,
    count_ticks,
    curve,
    heat_level,
    interval_bar,
    nice_ticks,
    nice_top,
    scatter,
)


@given(st.integers(1, 5000))
def test_counts_are_labelled_from_first_to_last(last: int) -> None:
    ticks = count_ticks(last)
    assert ticks[0] == 1
    assert ticks[-1] == last
    assert len(ticks) <= 9
    assert ticks == sorted(set(ticks))


@given(st.floats(0, 100), st.floats(1e-6, 100))
def test_ticks_are_within_the_range(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert len(ticks) <= 7
    assert all(low - 1e-6 <= t <= low + width + 1e-6 for t in ticks)
    assert nice_top(width) >= width * (1 - 1e-9)


def test_a_gap_where_nothing_is_known() -> None:
    line = Line(
        "model", [1, 2, 3, 4, 5], [0.1, 0.2, None, 0.4, 0.5], [0, 0.1, None, 0.3, 0.4], [0.2, 0.3, None, 0.5, 0.6]
    )
    drawn = curve([line], "a title", "windows seen", references=[Reference("always in sync", 0.05)])
    assert len(re.findall('class="line', drawn)) == 2
    assert len(re.findall('class="band', drawn)) == 2
    assert drawn.count("<circle") == 4
    assert "nan" not in drawn.lower()
    assert curve([Line("m", [1], [None])], "t", "x", None).count("<circle") == 0


def test_labels_are_escaped_and_nothing_is_styled_inline() -> None:
    bad = '<script>"&'
    for drawn in (
        curve([Line(bad, [1, 2], [0.1, 0.2])], bad, bad, references=[Reference(bad, 0.5)]),
        scatter([Point(bad, 1.0, 0.5, href='x" onclick="1'), Point("b", 3.0, 0.7)], [0, 1], bad, bad, bad),
        belief(np.full((3, 21), 1 / 21), 4, bad),
        interval_bar(0.5, 0.4, 0.6),
    ):
        assert "<script" not in drawn
        assert "style=" not in drawn
        assert 'onclick="1' not in drawn


def test_belief_shades_every_cell_once() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(21, 0.2), size=18)
    drawn = belief(p, 10, "t")
    widths = [float(w) for w in re.findall(r"h(\d+\.\d)v6H", drawn)]
    assert sum(widths) == pytest.approx(13 * np.count_nonzero(heat_level(p)), rel=0.01)
    assert "audio" not in drawn
    assert "the truth is in sync" in drawn


def test_heat_levels_cover_the_scale() -> None:
    levels = heat_level(np.linspace(0, 1, 1001))
    assert levels[0] == 0
    assert levels[-1] == LEVELS
    assert (np.diff(levels) >= 0).all()


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[float, float]]) -> None:
    points = [Point(str(i), x, y) for i, (x, y) in enumerate(pairs)]
    kept = set(front(points))
    for i, p in enumerate(points):
        beaten = any((q.x < p.x and q.y >= p.y) or (q.x <= p.x and q.y > p.y) for q in points)
        assert not (i in kept and beaten)
        if i not in kept:
            assert beaten or any(q == p._replace(label=q.label) for q in points)


def test_numbers_for_people() -> None:
    assert [number(v) for v in (0.5, -0.125, -0.001, None, float("nan"))] == ["0.50", "−0.12", "0.00", "–", "–"]
    assert interval(0.1, 0.25) == "0.10–0.25"
    assert interval(None, 0.25) == ""
    assert [seconds_short(v) for v in (0.4, 0.0, -2.0)] == ["+0.4", "0", "−2.0"]


NOT_LINKS = (
    "javascript:alert(1)",
    " https://a.b",
    "https://a b",
    'https://a.b/"x',
    "data:text/html,x",
    "//a.b",
    "",
    None,
)
NOR_THESE = ("JaVaScRiPt:1", "https://a.b/<x>", "file:///etc/passwd", "https://a.b/\n", "https://" + "h" * 600)


@pytest.mark.parametrize("url", [*NOT_LINKS, *NOR_THESE])
def test_only_web_addresses_become_links(url: str | None) -> None:
    assert safe_url(url) is None


def test_web_addresses_stay_as_they_are() -> None:
    assert safe_url("https://example.org/a?b=c#d") == "https://example.org/a?b=c#d"
