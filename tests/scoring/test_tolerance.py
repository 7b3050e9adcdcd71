"""In or out of tolerance: the density against adding up, the rest against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from avbench.scoring.metrics import Resamples, everything_once
from avbench.scoring.stats import Bootstrap
from avbench.scoring.tolerance import (
    TOLERANCES,
    Tolerance,
    alarm_limit,
    alarm_scores,
    out_of_tolerance,
    roc_auc,
    tolerance_asked,
    tolerance_of,
    tolerance_scores,
)
from avbench.ticks import TICKS_PER_S, ticks
from avbench.types import OffsetGrid, UsageError

CENTRES_S = np.array([OffsetGrid().offset_of(c) for c in range(21)])


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores, often tied, and which cases are positive; at least one of each kind."""
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 60))
    positive = g.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    positive[:2] = True, False
    levels = draw(st.sampled_from([2, 5, 1000]))
    return (g.integers(0, levels, n) + positive * g.integers(0, 2, n)) / levels, positive


@given(scored())
def test_the_area_is_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = case
    drawn = Resamples(np.arange(len(scores)) % 4, np.ones((1, 4), np.int64))
    assert roc_auc(scores, positive, drawn)[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@settings(max_examples=50)
@given(scored(), st.integers(0, 2**31))
def test_a_video_drawn_twice_is_its_cases_twice(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    scores, positive = case
    g = np.random.default_rng(seed)
    many = int(g.choice([4, 300]))
    videos, counts = g.integers(0, many, len(scores)), g.integers(0, 3, (5, many))
    found = roc_auc(scores, positive, Resamples(videos, counts))
    for value, several in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(len(scores)), several[videos])
        if len(set(positive[rows].tolist())) < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(positive[rows], scores[rows]), abs=1e-12)


@given(scored(), st.sampled_from([0.0, 0.01, 0.05, 0.25, 1.0]))
def test_the_limit_finds_as_much_as_the_false_alarms_allow(
    case: tuple[np.ndarray, np.ndarray], false_alarms: float
) -> None:
    scores, positive = case
    limit = alarm_limit(scores, positive, false_alarms)
    assert (scores[~positive] > limit).mean() <= false_alarms
    wrong, right, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert (scores[positive] > limit).mean() == pytest.approx(right[wrong <= false_alarms + 1e-12].max())


def test_without_cases_within_there_is_no_limit() -> None:
    assert np.isnan(alarm_limit(np.array([0.5]), np.array([True]), 0.05))


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([*TOLERANCES, "-1.37/0.51", "-2/2", "0.1/0.3"]))
def test_the_probability_within_is_the_area_below_straight_lines(seed: int, name: str) -> None:
    table = tolerance_of(name)
    p = np.random.default_rng(seed).dirichlet(np.full(21, 0.2), 3)
    middle = np.arange(-2 + 5e-5, 2, 1e-4)
    density = np.array([np.interp(middle, CENTRES_S, row) for row in p])
    within = density[:, (middle > -table.late_s) & (middle < table.early_s)].sum(axis=1) / density.sum(axis=1)
    assert alarm_scores(p, table) == pytest.approx(1 - within, abs=1e-6)
    assert alarm_scores(p.reshape(3, 1, 21), table).shape == (3, 1)


def test_a_probability_of_one_in_the_middle_is_a_triangle() -> None:
    p = np.eye(21)[[10, 0, 20]]
    assert alarm_scores(p, tolerance_of("-0.1/0.1")) == pytest.approx([1 - 0.75, 1, 1])
    assert alarm_scores(p, tolerance_of("-2/-1.8")) == pytest.approx([1, 0, 1])
    assert alarm_scores(p, tolerance_of("-2/2")) == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("name", "early_ms", "late_ms"),
    [("itu-detect", 45, 125), ("itu-accept", 90, 185), ("atsc", 15, 45), ("ebu", 40, 60)],
)
def test_the_tables_are_the_published_ones_and_their_limits_are_within(name: str, early_ms: int, late_ms: int) -> None:
    table = TOLERANCES[name]
    edge, tick = np.array([early_ms / 1000, -late_ms / 1000]), np.array([1, -1]) / TICKS_PER_S
    assert table.outside(edge).tolist() == [False, False]
    assert table.outside(edge + tick).tolist() == [True, True]
    on_ticks = np.array([ticks(early_ms / 1000), -ticks(late_ms / 1000)]) / TICKS_PER_S
    assert not table.outside(on_ticks).any()


def test_a_table_of_ones_own() -> None:
    assert tolerance_of("-0.125/0.045") == Tolerance("-0.125/0.045", 0.045, 0.125, "the user")
    assert tolerance_of("0.1/0.3").outside([0.0, 0.2, 0.4]).tolist() == [True, False, True]
    for text in ("nab", "0.1", "0.3/0.1", "a/b", "-3/1", "nan/1", "-0.1/inf", "/", ""):
        with pytest.raises(UsageError, match="is not one of itu-detect, itu-accept, atsc, ebu, nor EARLY/LATE"):
            tolerance_of(text)


def test_two_numbers_without_a_sign_say_how_early_and_how_late() -> None:
    assert tolerance_asked("ebu") == TOLERANCES["ebu"]
    assert tolerance_asked("0.045/0.125") == Tolerance("0.045/0.125", 0.045, 0.125, "the user")
    assert tolerance_asked("0/0.1").outside([0.05, 0.0, -0.05, -0.15]).tolist() == [True, False, False, True]
    assert tolerance_asked("-0.125/0.045") == tolerance_of("-0.125/0.045")
    for text in ("x/1", "0/0", "3/0.1", "", "ebu/atsc", "nan/1", "0.1/"):
        with pytest.raises(UsageError, match="is not one of itu-detect, itu-accept, atsc, ebu, nor"):
            tolerance_asked(text)


def test_scores_of_a_table() -> None:
    g = np.random.default_rng(0)
    offsets_s = np.round(g.uniform(-2, 2, 600), 2)
    offsets_s[:200] = np.round(g.uniform(-0.05, 0.03, 200), 3)
    table = TOLERANCES["ebu"]
    outside = table.outside(offsets_s)
    scores = 0.15 * outside + 0.15 * np.abs(offsets_s) + 0.4 * g.random(600)
    found = tolerance_scores(scores, offsets_s, table, np.arange(600) // 6, Bootstrap(100))
    assert (found["n"], found["n_outside"]) == (600, outside.sum())
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(outside, scores))
    assert found["roc_auc"].ci_low < found["roc_auc"].value < found["roc_auc"].ci_high
    wrong, right, _ = roc_curve(outside, scores)
    for name, share in (("recall_at_1_percent", 0.01), ("recall_at_5_percent", 0.05)):
        assert found[name].value == pytest.approx(right[wrong <= share].max())
    assert sum(row["n"] for row in found["by_offset"]) == outside.sum()
    limit = alarm_limit(scores, outside, 0.05)
    for row in found["by_offset"]:
        size = np.abs(offsets_s)
        last = size <= 2 if row["to_s"] == 2 else size < row["to_s"]
        chosen = outside & (size >= row["from_s"]) & last
        assert row["n"] == chosen.sum()
        assert row["recall_at_5_percent"].value == pytest.approx((scores[chosen] > limit).mean())


def test_what_cannot_be_told_is_undefined() -> None:
    found = tolerance_scores(np.array([0.1, 0.9]), [1.0, -1.0], TOLERANCES["ebu"], ["a", "b"], Bootstrap(10))
    assert np.isnan(found["roc_auc"].value)
    assert np.isnan(found["recall_at_5_percent"].value)  # nothing within tolerance to set the limit by


def test_logits_of_fixed_offsets_are_judged_by_all_tables() -> None:
    offsets_s = np.array([0.0, 0.05, -0.5, 1.9])
    logits = -(((CENTRES_S - offsets_s[:, None]) / 0.1) ** 2)
    found = out_of_tolerance(logits, offsets_s, list("abcd"), bootstrap=Bootstrap(0))
    assert list(found) == list(TOLERANCES)
    assert [found[name]["n_outside"] for name in found] == [3, 2, 3, 3]
    assert all(table["roc_auc"].value == 1 for table in found.values())
    own = out_of_tolerance(logits, offsets_s, list("abcd"), [tolerance_of("-0.6/0.1")], Bootstrap(0))
    assert own["-0.6/0.1"]["n_outside"] == 1
    with pytest.raises(UsageError, match="offsets for 4 rows"):
        out_of_tolerance(logits, offsets_s[:3], list("abcd"))


def test_videos_are_what_is_drawn() -> None:
    drawn = everything_once(4)
    assert roc_auc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]), drawn)[0] == 0.75
