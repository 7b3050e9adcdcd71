"""Kaplan-Meier against scipy's, and what is read off it against adding up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import CensoredData, ecdf

from avbench.scoring import survival
from avbench.scoring.metrics import Resamples, everything_once
from avbench.scoring.survival import Times


@st.composite
def watched(draw: st.DrawFn) -> Times:
    """Cases with ties, some at 0, some censored; at least one event."""
    rows = draw(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=40))
    times = np.array([t / 2 for t, _ in rows])
    return Times(times, np.array([True, *(event for _, event in rows[1:])]))


def by_scipy(times: Times, at: np.ndarray) -> np.ndarray:
    """The share that survives at each time, events at that time included."""
    return ecdf(CensoredData(times.time_s[times.event], right=times.time_s[~times.event])).sf.evaluate(at)


def once(times: Times) -> Resamples:
    return everything_once(len(times))


@given(watched())
def test_the_curve_is_scipys(times: Times) -> None:
    rows = survival.table(times)
    assert rows[0]["time_s"] == 0
    assert [row["time_s"] for row in rows] == sorted({0.0, *times.time_s.tolist()})
    for row in rows:
        at = row["time_s"]
        assert row["survival"] == pytest.approx(float(by_scipy(times, np.array([at]))[0]), abs=1e-12)
        assert row["at_risk"] == (times.time_s >= at).sum()
        assert row["events"] == ((times.time_s == at) & times.event).sum()
        assert row["censored"] == ((times.time_s == at) & ~times.event).sum()


@given(watched(), st.sampled_from([0.5, 3.0, 7.25, 40.0]))
def test_what_is_read_off_the_curve_is_adding_up(times: Times, limit_s: float) -> None:
    fine = np.arange(0, limit_s, 1 / 128)  # all times lie on this grid
    area = by_scipy(times, fine).sum() / 128
    assert survival.restricted_mean(times, once(times), limit_s)[0] == pytest.approx(area, abs=1e-9)
    within = 1 - by_scipy(times, np.array([limit_s]))[0]
    assert survival.share_within(times, once(times), limit_s)[0] == pytest.approx(within, abs=1e-12)
    below = fine[by_scipy(times, fine) <= 0.5 + 1e-12]
    assert survival.median(times, once(times), limit_s)[0] == (below[0] if len(below) else limit_s)


@given(watched(), st.integers(0, 2**31))
def test_a_video_drawn_twice_is_its_cases_twice(times: Times, seed: int) -> None:
    g = np.random.default_rng(seed)
    videos, counts = g.integers(0, 5, len(times)), g.integers(0, 3, (4, 5))
    counts[:, videos[0]] += 1
    drawn = Resamples(videos, counts)
    for row, several in enumerate(counts):
        repeated = times.take(np.repeat(np.arange(len(times)), several[videos]))
        for function in (survival.restricted_mean, survival.median, survival.share_within):
            found = function(times, drawn, 10.0)[row]
            assert found == pytest.approx(function(repeated, once(repeated), 10.0)[0], abs=1e-12), function


def test_without_censoring_it_is_the_plain_mean_and_share() -> None:
    times = Times(np.array([1.0, 2.0, 4.0, 60.0]), np.ones(4, bool))
    assert survival.restricted_mean(times, once(times), 40)[0] == (1 + 2 + 4 + 40) / 4
    assert survival.median(times, once(times), 40)[0] == 2
    assert survival.share_within(times, once(times), 4)[0] == 0.75


def test_who_is_only_watched_counts_while_watched() -> None:
    """One of two recovers at 10 s, the other was watched for 5 s: nothing says that half never recover."""
    times = Times(np.array([10.0, 5.0]), np.array([True, False]))
    assert survival.share_within(times, once(times), 10)[0] == 1
    assert survival.restricted_mean(times, once(times), 40)[0] == 10
    nobody = Times(np.array([7.0, 5.0]), np.zeros(2, bool))
    assert survival.restricted_mean(nobody, once(nobody), 40)[0] == 40
    assert survival.median(nobody, once(nobody), 40)[0] == 40
    assert survival.table(Times(np.zeros(0), np.zeros(0, bool))) == []


def test_a_resample_without_cases_is_undefined() -> None:
    times = Times(np.array([1.0, 2.0]), np.ones(2, bool))
    drawn = Resamples(np.array([0, 0]), np.array([[1, 1], [0, 2]]))
    for function in (survival.restricted_mean, survival.median, survival.share_within):
        found = function(times, drawn, 1.5)
        assert np.isnan(found[1]), function
        assert np.isfinite(found[0]), function
        assert np.isnan(function(times, drawn, 0.5)[1]), function
