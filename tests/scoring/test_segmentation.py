"""Stable classes, declared changes, covering and F1, each against its definition written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.scoring.segmentation import NO_CLASS, covering, declared_changes, f1, first_from, stable_classes

STREAMS = st.lists(st.integers(7, 14), min_size=1, max_size=30)
CUTS = st.sets(st.integers(1, 29), max_size=6)


def stable_by_hand(classes: list[int]) -> list[int]:
    found = []
    for i in range(len(classes)):
        latest = sorted(classes[i - 2 : i + 1]) if i >= 2 else []
        held = latest and all(abs(c - latest[1]) <= 1 for c in latest)
        found.append(latest[1] if held else NO_CLASS)
    return found


@given(STREAMS, st.sampled_from([2, 3, 5]))
def test_a_change_is_declared_where_the_stable_class_has_moved(classes: list[int], moved: int) -> None:
    stable = stable_by_hand(classes)
    assert stable_classes(np.array([classes]))[0].tolist() == stable
    expected, last = [], None
    for c in stable:
        expected.append(c != NO_CLASS and last is not None and abs(c - last) >= moved)
        last = last if c == NO_CLASS else c
    assert declared_changes(np.array([stable]), moved)[0].tolist() == expected


def declared_at(*classes: int, moved: int = 2) -> list[int]:
    return np.flatnonzero(declared_changes(stable_classes(np.array([classes])), moved)[0]).tolist()


def test_a_change_is_dated_at_the_third_window_that_says_so() -> None:
    assert declared_at(10, 10, 10, 14, 14, 14, 14) == [5]
    assert declared_at(10, 10, 10, 14, 13, 14, 14) == [5]
    assert declared_at(10, 10, 10, 14, 10, 14, 14, 14) == [7]


def test_a_flicker_or_a_step_of_one_class_declares_nothing() -> None:
    assert declared_at(10, 10, 10, 14, 14, 10, 10, 10) == []
    assert declared_at(10, 10, 10, 2, 18, 2, 18, 10, 10, 10) == []
    assert declared_at(10, 10, 10, 11, 11, 11, 10, 10, 10) == []
    assert declared_at(10, 10, 10, 11, 11, 11, 12, 12, 12) == []  # each step is one class: it is followed
    assert declared_at(10, 10, 10, 13, 13, 13, moved=4) == []


@given(STREAMS, st.sampled_from([3, 4, 5, 8]))
def test_a_class_is_stable_once_it_was_held(classes: list[int], held: int) -> None:
    expected = []
    for i in range(len(classes)):
        latest = sorted(classes[i - held + 1 : i + 1]) if i + 1 >= held else []
        near = bool(latest) and all(abs(c - latest[held // 2]) <= 1 for c in latest)
        expected.append(latest[held // 2] if near else NO_CLASS)
    assert stable_classes(np.array([classes]), held)[0].tolist() == expected


def test_nothing_is_declared_before_something_was_stable() -> None:
    assert declared_at(3, 10, 18, 5, 5, 5, 5) == []
    assert declared_at(5, 9) == []


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_the_first_from_each_place(mask: list[bool]) -> None:
    expected = [next((k for k in range(i, len(mask)) if mask[k]), len(mask)) for i in range(len(mask))]
    assert first_from(np.array([mask]))[0].tolist() == expected


# ------------------------------------------------------------------------------------------------------ segmentations


def parts(cuts: set[int], length: int) -> list[set[int]]:
    edges = [0, *sorted(cuts), length]
    return [set(range(a, b)) for a, b in itertools.pairwise(edges)]


@given(CUTS, CUTS)
def test_covering_is_its_definition(true: set[int], found: set[int]) -> None:
    total = sum(len(r) * max(len(r & other) / len(r | other) for other in parts(found, 30)) for r in parts(true, 30))
    assert covering(true, found, 30) == pytest.approx(total / 30, abs=1e-12)


def test_covering_of_known_segmentations() -> None:
    assert covering({10}, {10}, 20) == 1
    assert covering(set(), set(), 20) == 1
    assert covering({10}, set(), 20) == 0.5  # each half is half of the whole
    assert covering(set(), {10}, 20) == 0.5
    assert covering({10}, {12}, 20) == pytest.approx((10 * 10 / 12 + 10 * 8 / 10) / 20)


def f1_by_hand(true: set[int], found: set[int], margin: int) -> float:
    """Precision and recall, each true cut taking the nearest cut that is left."""
    left, hits = sorted({0} | found), 0
    for t in sorted({0} | true):
        near = sorted((abs(t - x), x) for x in left if abs(t - x) <= margin)
        if near:
            hits += 1
            left.remove(near[0][1])
    precision, recall = hits / len({0} | found), hits / len({0} | true)
    return 2 * precision * recall / (precision + recall)


@given(CUTS, CUTS, st.sampled_from([0, 2, 10]))
def test_f1_is_its_definition(true: set[int], found: set[int], margin: int) -> None:
    assert f1(true, found, margin) == pytest.approx(f1_by_hand(true, found, margin), abs=1e-12)


@given(CUTS, CUTS)
def test_perfect_segmentations_and_only_those_are_perfect(true: set[int], found: set[int]) -> None:
    assert f1(true, true, 10) == 1
    assert covering(true, true, 30) == 1
    assert (f1(true, found, 0) == 1) == (true == found)
    assert (covering(true, found, 30) == 1) == (true == found)
    assert 0 < covering(true, found, 30) <= 1
    assert 0 < f1(true, found, 10) <= 1  # the beginning is found by all


def test_f1_of_known_segmentations() -> None:
    assert f1({20}, {30}, 10) == 1
    assert f1({20}, {31}, 10) == 0.5  # only the beginning is right, of two in each
    assert f1(set(), {15, 25}, 10) == pytest.approx(2 * 1 / (1 + 3))
    assert f1({15}, {14, 16}, 10) == pytest.approx(2 * 2 / (2 + 3))  # a change is found once
    assert f1({5}, set(), 10) == pytest.approx(2 * 1 / 3)  # the beginning cannot find two
