"""Offset errors and calibration against their definitions written out, and scikit-learn where it has one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from avbench.scoring.calibration import (
    BINS,
    _medians,
    believed_offsets_s,
    brier,
    calibration_scores,
    classes_of,
    ece,
    offset_errors_s,
    rps_s,
)
from avbench.scoring.metrics import Cases, Resamples, cases, everything_once
from avbench.scoring.stats import Bootstrap
from avbench.types import NonFiniteError, OffsetGrid, UsageError

CENTRES_S = np.array([OffsetGrid().offset_of(c) for c in range(21)])


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits and continuous offsets in seconds, from sure to unsure models, some at the ends of the grid."""
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    offsets_s = np.round(g.uniform(-2, 2, n), draw(st.sampled_from([1, 2])))
    near = np.exp(-(((CENTRES_S - offsets_s[:, None]) / 0.2) ** 2))
    logits = g.standard_normal((n, 21)) + draw(st.sampled_from([0.0, 3.0, 100.0])) * near
    return logits, offsets_s


def believed_by_hand(logits: np.ndarray) -> float:
    """The softmax of the 3 logits around the largest, and its mean offset."""
    top = int(logits.argmax())
    near = [c for c in (top - 1, top, top + 1) if 0 <= c <= 20]
    weights = np.exp(logits[near] - logits[top])
    return float((weights / weights.sum()) @ CENTRES_S[near])


@given(judged())
def test_the_believed_offset_is_the_mean_of_the_three_classes_around_the_top(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, offsets_s = case
    expected = [abs(believed_by_hand(row) - o) for row, o in zip(logits, offsets_s, strict=True)]
    assert offset_errors_s(logits, offsets_s) == pytest.approx(expected, abs=1e-12)
    centre = np.abs(CENTRES_S[logits.argmax(axis=1)] - offsets_s)
    assert offset_errors_s(logits, offsets_s, "argmax") == pytest.approx(centre, abs=1e-12)


def test_between_two_classes_the_believed_offset_lies_between() -> None:
    p = np.zeros((3, 21))
    p[0, [10, 11]] = 0.5  # the lower wins the tie: classes 9, 10, 11
    p[1, [0, 1]] = 0.75, 0.25  # at the end of the grid there is one neighbour
    p[2, [5, 15]] = 0.6, 0.4  # what is far from the top class does not pull
    assert believed_offsets_s(p) == pytest.approx([0.1, -1.95, -1.0])
    assert believed_offsets_s(p.reshape(1, 3, 21)).shape == (1, 3)


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=30))
def test_classes_are_those_of_the_grid(offsets_s: list[float]) -> None:
    assert classes_of(offsets_s).tolist() == [OffsetGrid().class_of(o) for o in offsets_s]
    assert classes_of(np.array([offsets_s, offsets_s])).shape == (2, len(offsets_s))


def ece_by_hand(found: Cases) -> float:
    """Bins [k/15, (k+1)/15), the last one with its upper end."""
    confidence, right = found.probabilities.max(axis=1), found.predicted == found.labels
    total = 0.0
    for low, high in zip(np.linspace(0, 1, BINS + 1)[:-1], np.linspace(0, 1, BINS + 1)[1:], strict=True):
        inside = (confidence >= low) & ((confidence < high) | (high == 1))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@settings(max_examples=60)
@given(judged())
def test_calibration_is_its_definition(case: tuple[np.ndarray, np.ndarray]) -> None:
    found = cases(case[0], classes_of(case[1]))
    once, p, n = everything_once(len(found.labels)), found.probabilities, len(found.labels)
    assert ece(found, once)[0] == pytest.approx(ece_by_hand(found), abs=1e-12)
    by_class = [brier_score_loss((found.labels == c).astype(int), p[:, c], pos_label=1) for c in range(21)]
    assert brier(found, once)[0] == pytest.approx(sum(by_class), abs=1e-12)
    ranked = 0.0
    for row, label in zip(p, found.labels, strict=True):
        ranked += 0.2 * sum((row[: k + 1].sum() - (k >= label)) ** 2 for k in range(21)) / n
    assert rps_s(found, once)[0] == pytest.approx(ranked, abs=1e-12)


@settings(max_examples=30)
@given(judged(), st.integers(0, 2**31))
def test_a_video_drawn_twice_is_its_cases_twice(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    logits, labels = case[0], classes_of(case[1])
    g = np.random.default_rng(seed)
    videos, counts = g.integers(0, 3, len(labels)), g.integers(1, 3, (2, 3))
    for metric in (ece, brier, rps_s):
        found = metric(cases(logits, labels), Resamples(videos, counts))
        for value, several in zip(found, counts, strict=True):
            rows = np.repeat(np.arange(len(labels)), several[videos])
            again = metric(cases(logits[rows], labels[rows]), everything_once(len(rows)))
            assert value == pytest.approx(again[0], abs=1e-12), metric.__name__


def test_one_that_says_what_it_knows_is_calibrated() -> None:
    """Right in 3 of 4 cases and 75 % sure."""
    p = np.full((4, 21), 0.25 / 20)
    p[:, 10] = 0.75
    found = cases(np.log(p), np.array([10, 10, 10, 3]))
    assert ece(found, everything_once(4))[0] == pytest.approx(0, abs=1e-12)
    sure = cases(np.where(p > 0.5, 1e3, 0.0), np.array([10, 10, 10, 3]))  # a probability of exactly 1
    assert ece(sure, everything_once(4))[0] == 0.25
    assert brier(sure, everything_once(4))[0] == 0.5


def test_a_bin_includes_its_lower_edge() -> None:
    edge = np.linspace(0, 1, BINS + 1)[9]  # 0.6
    p = np.zeros((2, 21))
    p[:, 10], p[:, 11] = (edge, edge + 0.02), (1 - edge, 1 - edge - 0.02)
    found = Cases(p, np.array([10, 10]), np.array([10, 3]), OffsetGrid())
    assert ece(found, everything_once(2))[0] == pytest.approx(abs(0.5 - 0.61))


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    rows = 50.0 * np.eye(21)[[11, 20]]
    near, far = (rps_s(cases(row[None], np.array([10])), everything_once(1))[0] for row in rows)
    assert (near, far) == (pytest.approx(0.2), pytest.approx(2.0))


def test_all_scores_come_with_intervals_around_them() -> None:
    g = np.random.default_rng(0)
    offsets_s = np.round(g.uniform(-2, 2, 200), 2)
    logits = g.standard_normal((200, 21)) + 4 * np.exp(-(((CENTRES_S - offsets_s[:, None]) / 0.2) ** 2))
    found = calibration_scores(logits, offsets_s, np.arange(200) // 4, Bootstrap(200))
    errors = offset_errors_s(logits, offsets_s)
    assert found["offset_error_s"].value == pytest.approx(errors.mean())
    assert found["offset_error_median_s"].value == pytest.approx(np.median(errors))
    for ms in (40, 80, 125):
        assert found[f"within_{ms}_ms"].value == pytest.approx((errors <= ms / 1000).mean())
    assert list(found)[-3:] == ["ece", "brier", "rps_s"]
    for name, estimate in found.items():
        assert estimate.ci_low <= estimate.value <= estimate.ci_high, name
        assert estimate.ci_low < estimate.ci_high, name
    odd = calibration_scores(logits[:7], offsets_s[:7], np.arange(7), Bootstrap(0))
    assert odd["offset_error_median_s"].value == pytest.approx(np.median(errors[:7]))


@settings(max_examples=40)
@given(st.lists(st.floats(0, 4), min_size=1, max_size=30), st.integers(0, 2**31))
def test_the_median_of_a_resample_is_that_of_its_cases_repeated(values: list[float], seed: int) -> None:
    g = np.random.default_rng(seed)
    many = int(g.choice([4, 300]))
    videos, counts = g.integers(0, many, len(values)), g.integers(0, 3, (6, many))
    for found, several in zip(_medians(np.array(values), Resamples(videos, counts)), counts, strict=True):
        drawn = np.repeat(values, several[videos])
        assert found == pytest.approx(np.median(drawn)) if len(drawn) else np.isnan(found)


def test_bad_input_is_refused() -> None:
    logits = np.zeros((2, 21))
    with pytest.raises(UsageError, match="'middle' is not one of expected, argmax"):
        offset_errors_s(logits, [0.0, 0.1], "middle")
    with pytest.raises(UsageError, match="outside"):
        offset_errors_s(logits, [0.0, 2.5])
    with pytest.raises(UsageError, match="shape"):
        offset_errors_s(logits, [[0.0, 0.1]])
    with pytest.raises(UsageError, match="labels have shape"):
        offset_errors_s(logits, [0.0])
    with pytest.raises(NonFiniteError):
        offset_errors_s(np.full((1, 21), np.nan), [0.0])
