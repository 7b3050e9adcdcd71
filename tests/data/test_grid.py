"""The 25 fps grid: both rules against their plain definition, and what they do at every rate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.data.grid import Grid
from avbench.types import UsageError

SLACK_S = Fraction(1, 2000)
BASES = [
    Fraction(1, 1000),
    Fraction(1, 90_000),
    Fraction(1, 12_800),
    Fraction(1001, 30_000),
    Fraction(1, 25),
    Fraction(2, 3),
]
RATES = [Fraction(24_000, 1001), 24, 25, Fraction(30_000, 1001), 30, 50, Fraction(60_000, 1001), 60, 120]
RATES += [15, Fraction(25, 2), 10, 20, 5, Fraction(15, 2)]


def is_shown(rule: str, start_s: Fraction, k: int) -> bool:
    """Whether grid frame k shows a picture that begins at ``start_s`` (or a later one), by the rule's definition."""
    if rule == "latest":
        return start_s <= Fraction(k, 25) + SLACK_S
    middle_s = Fraction(2 * k + 1, 50)
    if abs(start_s - middle_s) <= SLACK_S:
        return k // 25 % 2 == 0
    return start_s < middle_s


@settings(max_examples=400)
@given(base=st.sampled_from(BASES), rule=st.sampled_from(["latest", "centred"]), data=st.data())
def test_both_rules_equal_their_definition(base: Fraction, rule: str, data: st.DataObject) -> None:
    around = round(Fraction(data.draw(st.integers(0, 200)), 50) / base) + data.draw(st.integers(-60, 60))
    start = max(around, 0)
    first = Grid(rule, base).first_frame(start)
    shown = [is_shown(rule, start * base, k) for k in range(max(first - 30, 0), first + 60)]
    assert shown == [k >= first for k in range(max(first - 30, 0), first + 60)]


@settings(max_examples=200)
@given(base=st.sampled_from(BASES), rule=st.sampled_from(["latest", "centred"]), end=st.integers(0, 10**5))
def test_the_frames_are_those_before_the_end(base: Fraction, rule: str, end: int) -> None:
    end = min(end, int(60 / base))
    last_s = end * base - SLACK_S
    if rule == "latest":  # an end that is rounded by 2 ms adds no frame
        last_s -= round(Fraction(3, 2000) / base) * base
    instants = [Fraction(k, 25) + (Fraction(1, 50) if rule == "centred" else 0) for k in range(60 * 25 + 2)]
    assert Grid(rule, base).n_frames(end) == max(1, sum(at < last_s for at in instants))


def lateness_ms(rule: str, starts: list[int], base: Fraction) -> np.ndarray:
    """How much later than in the source each picture is first seen; pictures that are never seen count as the next."""
    grid = Grid(rule, base)
    return np.array([1000 * float(Fraction(grid.first_frame(start), 25) - start * base) for start in starts])


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("base", [Fraction(1, 90_000), Fraction(1, 1000)], ids=["90 kHz", "1 kHz"])
def test_changes_are_early_as_often_as_late_at_every_rate(rate: Fraction, base: Fraction) -> None:
    late = lateness_ms("centred", [round(n / Fraction(rate) / base) for n in range(1, 4001)], base)
    assert abs(late.mean()) < 0.6
    assert np.abs(late).max() <= 20.51
    assert late.mean() < lateness_ms(
        "latest", [round(n / Fraction(rate) / base) for n in range(1, 4001)], base
    ).mean() or (Fraction(25) % rate == 0)


def test_a_varying_rate_is_early_as_often_as_late() -> None:
    steps = np.random.default_rng(4).integers(12, 140, 6000)
    assert abs(lateness_ms("centred", np.cumsum(steps).tolist(), Fraction(1, 1000)).mean()) < 0.7


@given(jitter_ms=st.lists(st.integers(-18, 18), min_size=1, max_size=200))
def test_each_picture_of_25_fps_has_its_frame_whatever_it_jitters(jitter_ms: list[int]) -> None:
    grid = Grid("centred", Fraction(1, 1000))
    for k, jitter in enumerate([0, *jitter_ms]):
        assert grid.first_frame(40 * k + jitter) == k


@pytest.mark.parametrize("rate", [50, 30, 20, 10])
def test_at_a_tie_the_pictures_take_turns_second_by_second(rate: int) -> None:
    """Within a second every step is the same: turns from frame to frame would judder."""
    grid = Grid("centred", Fraction(1, rate))
    shown = [max(n for n in range(12 * rate) if grid.first_frame(n) <= k) for k in range(250)]
    for second in range(10):
        ties = [k for k in range(25 * second, 25 * second + 25) if Fraction(2 * k + 1, 50) * rate % 1 == 0]
        assert ties
        for k in ties:
            assert shown[k] == Fraction(2 * k + 1, 50) * rate - second % 2
    if rate == 50:
        steps = np.diff(shown).reshape(-1)[:249]
        assert all(set(steps[25 * second : 25 * second + 24]) == {2} for second in range(9))


@settings(max_examples=100)
@given(base=st.sampled_from(BASES), rule=st.sampled_from(["latest", "centred"]), starts=st.lists(st.integers(0, 5000)))
def test_later_pictures_are_never_shown_earlier(base: Fraction, rule: str, starts: list[int]) -> None:
    frames = [Grid(rule, base).first_frame(start) for start in sorted(starts)]
    assert frames == sorted(frames)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="grid is 'nearest'; it must be one of: latest, centred"):
        Grid("nearest", Fraction(1, 25))
