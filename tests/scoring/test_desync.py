"""DeSync in its two variants, against computations written from the published rules in another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.scoring import desync
from avbench.types import NonFiniteError

GRID_S = [(c - 10) / 5 for c in range(21)]


def judged(segments: list[int]) -> np.ndarray:
    """Made logits (21,) of 14 segments: they depend on which segments these are, and on their order."""
    assert len(segments) == 14
    return np.random.default_rng(segments).standard_normal(21)


def size_s(logits: np.ndarray) -> float:
    best = max(range(21), key=lambda c: (logits[c], -c))
    return abs(GRID_S[best])


def by_first_last(n: int) -> float | None:
    """av-benchmark: slices of the list of segments."""
    segments = list(range(n))
    if n < 14:
        return None
    return (size_s(judged(segments[:14])) + size_s(judged(segments[-14:]))) / 2


def by_consecutive(n: int) -> float | None:
    """JavisDiT: pieces of 14 of the list; an incomplete one becomes the list's last 14, or repeats itself."""
    segments, sizes = list(range(n)), []
    for k in range(math.ceil(n / 14)):
        piece = segments[14 * k : 14 * k + 14]
        if len(piece) < 14 and k:
            piece = segments[-14:]
        while len(piece) < 14:
            piece = (piece + segments)[:14]
        sizes.append(size_s(judged(piece)))
    return sum(sizes) / len(sizes) if sizes else None


def logits_of(n: int, starts: tuple[int, ...]) -> dict[int, np.ndarray]:
    return {start: judged(list(desync.members(start, n))) for start in starts}


@given(st.one_of(st.integers(0, 60), st.sampled_from([13, 14, 15, 27, 28, 29, 42])))
def test_both_variants_equal_the_published_rules(n: int) -> None:
    for variant, starts_of, published in (
        ("first-last", desync.first_last, by_first_last),
        ("consecutive", desync.consecutive, by_consecutive),
    ):
        expected, starts = published(n), starts_of(n)
        assert (expected is None) == (starts == ()) == bool(desync.too_short(n, variant)), variant
        if expected is not None:
            assert desync.desync_s(logits_of(n, starts), starts) == pytest.approx(expected, abs=1e-12)


def test_the_two_variants_differ_where_the_middle_counts() -> None:
    n = 42
    logits = {start: np.eye(21)[c] for start, c in ((0, 10), (14, 20), (28, 10))}
    assert desync.desync_s(logits, desync.first_last(n)) == 0.0
    assert desync.desync_s(logits, desync.consecutive(n)) == pytest.approx(2 / 3)


@given(st.integers(0, 200))
def test_every_group_begins_where_one_may_begin_or_is_the_last(n: int) -> None:
    for starts_of in (desync.first_last, desync.consecutive, desync.every_two_seconds):
        for start in starts_of(n):
            assert desync.is_start(start) or start == n - 14
            assert len(desync.members(start, n)) == 14
            assert set(desync.members(start, n)) <= set(range(n))
    windows = desync.every_two_seconds(n)
    assert len(windows) == max(0, (n - 14) // 6 + 1)
    assert windows == tuple(6 * k for k in range(len(windows)))


def test_a_tie_goes_to_the_lower_class_and_nan_is_refused() -> None:
    logits = np.zeros(21)
    assert desync.desync_s({0: logits}, (0,)) == 2.0  # as numpy's and torch's argmax
    logits[3] = np.nan
    with pytest.raises(NonFiniteError):
        desync.desync_s({0: logits}, (0,))


def test_the_believed_offset_is_between_classes_and_signed() -> None:
    log_p = np.full(21, -40.0)
    log_p[12], log_p[13] = np.log(0.75), np.log(0.25)  # 0.4 and 0.6 s
    assert desync.offset_s({0: log_p}, 14) == pytest.approx(0.45)
    # probabilities are averaged, not logits: one sure window of two does not outvote
    other = np.full(21, -40.0)
    other[2] = 40.0  # -1.6 s, sure
    found = desync.offset_s({0: log_p, 6: log_p, 12: other}, 26)
    assert found == pytest.approx(0.45)


def test_too_short_says_what_is_needed() -> None:
    assert desync.too_short(13) == (
        "too short: it has 13 segments of 0.64 s, needed are 14 (4.8 s of picture and sound)"
    )
    assert desync.too_short(14) == desync.too_short(1, "consecutive") == ""
    assert "needed are 1 (0.64 s" in desync.too_short(0, "consecutive")
