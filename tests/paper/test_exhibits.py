"""Verdicts, intervals between groups, shares and the definition of uncorrelated errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.metrics import score
from avbench.paper.exhibits import FAILS, HOLDS, OPEN, Bootstrap, Part, claim, isolated_errors, paired, verdict
from avbench.paper.intervals import group_difference, shares
from avbench.stats import paired_difference


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, HOLDS),
        (-0.2, -0.01, FAILS),
        (-0.01, 0.2, OPEN),
        (0.0, 0.2, OPEN),
        (-0.2, 0.0, OPEN),
        (0.0, 0.0, OPEN),
        (0.14, 0.14, OPEN),
        (math.nan, math.nan, OPEN),
    ],
)
def test_the_verdict_is_the_intervals(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said
    assert claim("a > b", 0.1, low, high).verdict == said


def test_what_is_undefined_is_none() -> None:
    assert claim("a > b", math.nan, math.nan, math.nan)[2:] == (None, None, None)


def made_up(n: int = 120, videos: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 21, n)
    logits = rng.standard_normal((n, 21)) + 1.5 * np.eye(21)[labels]
    return logits, labels, np.array([f"v{i % videos:02d}" for i in range(n)])


def test_a_claim_is_the_paired_difference() -> None:
    logits, labels, videos = made_up()
    part = Part((), labels, videos, len(labels))
    found = paired(logits + np.eye(21)[labels], logits, part, Bootstrap(200, 3), ("map",))["map"]
    theirs = paired_difference(logits + np.eye(21)[labels], logits, labels, videos, 200, 3, metrics=["map"])["map"]
    assert tuple(found) == (theirs["difference"], theirs["ci_low"], theirs["ci_high"])
    assert verdict(found.ci_low, found.ci_high) == HOLDS


@pytest.mark.parametrize("metric", ["acc", "map"])
def test_groups_differ_by_what_their_scores_differ(metric: str) -> None:
    logits, labels, videos = made_up()
    first = np.arange(len(labels)) % 12 < 6  # six videos against six others
    found = group_difference(metric, logits, labels, videos, first, ~first, n_resamples=300)
    expected = score(logits[first], labels[first])[metric] - score(logits[~first], labels[~first])[metric]
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.ci_low < found.value < found.ci_high


def test_a_group_against_itself_is_no_difference() -> None:
    logits, labels, videos = made_up()
    everything = np.ones(len(labels), bool)
    found = group_difference("map", logits, labels, videos, everything, everything, n_resamples=50)
    assert tuple(found) == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_shares_are_ratios_of_sums_within_0_and_1(rows: list[tuple[int, int, int]]) -> None:
    parts = np.array([[min(a, b)] for a, b, _ in rows], float)
    wholes = np.array([b for _, b, _ in rows], float)
    (found,) = shares(parts, wholes, np.array([f"v{v}" for *_, v in rows]), n_resamples=50)
    assert found.value == pytest.approx(parts.sum() / wholes.sum())
    if not math.isnan(found.ci_low):
        assert 0 <= found.ci_low <= found.ci_high <= 1


def test_shares_of_nothing_are_undefined() -> None:
    (found,) = shares(np.zeros((3, 1)), np.zeros(3), np.array(["a", "b", "c"]), n_resamples=20)
    assert all(math.isnan(x) for x in found)


def test_an_error_is_uncorrelated_if_no_neighbour_repeats_it() -> None:
    errors = np.array(
        [
            [0, 5, 0, -7, 9, 0],  # three errors, each alone
            [5, 5, 0, 6, 7, 0],  # two pairs of the same error within one class
            [1, -1, 0, 1, 1, -1],  # within the tolerance: no errors at all
            [4, 6, 4, 6, 4, 6],  # two classes apart: not the same error
        ]
    )
    assert isolated_errors(errors).sum(axis=1).tolist() == [3, 0, 0, 6]
    assert isolated_errors(np.array([[3]])).tolist() == [[True]]
