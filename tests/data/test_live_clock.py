"""Stamps that wrap, and where sound is placed by stamps that jitter, drift and step."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.data.live_clock import SoundPlacer, unwrapped

RATE = 48_000
FINE = Fraction(1, 90_000)
PIECE = 1024


@given(
    st.integers(0, 2**36),
    st.integers(-900_000, 900_000),
    st.sampled_from([2**32, 2**33]),
)
def test_a_wrapped_stamp_is_found_again_however_often_the_clock_has_wrapped(near: int, step: int, wrap: int) -> None:
    assert unwrapped((near + step) % wrap, near, 900_000) == near + step


def test_a_stamp_that_no_turn_brings_near_stays() -> None:
    assert unwrapped(50_000_000, 0, 900_000) == 50_000_000
    assert unwrapped(5, 0, 900_000) == 5


def places(stamps: list[float | None], tick_s: Fraction = FINE, n: int = PIECE) -> list[int]:
    """Where pieces of n samples with these stamps (in samples) go; each piece holds its own number."""
    placer = SoundPlacer(RATE, tick_s)
    found = []
    for k, stamp in enumerate(stamps):
        stamped = None if stamp is None else Fraction(stamp)
        found += list(placer.add(stamped, np.full(n, k, np.float32)))
    found += list(placer.end())
    assert [int(piece.sound[0]) for piece in found] == list(range(len(stamps)))
    return [piece.at for piece in found]


def exact(n: int, start: int = 500) -> list[float | None]:
    return [float(start + PIECE * k) for k in range(n)]


def test_pieces_with_exact_stamps_follow_each_other() -> None:
    assert places(exact(40)) == exact(40)


def test_jitter_moves_nothing() -> None:
    rng = np.random.default_rng(0)
    jittered = [s + float(rng.uniform(-300, 300)) for s in exact(300) if s is not None]
    steps = np.diff(places(jittered))
    # no piece moves by more than drift's own step, and few do
    assert np.abs(steps - PIECE).max() <= 300
    assert (steps == PIECE).mean() > 0.9


@pytest.mark.parametrize("wrong_s", [-40.0, 0.5, 3600.0])
def test_a_lone_wrong_stamp_moves_nothing(wrong_s: float) -> None:
    stamps = exact(40)
    stamps[20] = stamps[20] + wrong_s * RATE  # type: ignore[operator]
    assert places(stamps) == exact(40)


@pytest.mark.parametrize("lost", [1, 5, 400])
def test_lost_pieces_leave_a_hole_exactly_where_they_were(lost: int) -> None:
    stamps = exact(30) + exact(30, 500 + PIECE * (30 + lost))
    assert places(stamps) == stamps


def test_sound_that_comes_again_is_placed_again() -> None:
    stamps = exact(30) + exact(30, 500 + PIECE * 20)
    assert places(stamps) == stamps


def test_pieces_without_stamps_follow_those_before() -> None:
    stamps = exact(40)
    stamps[10:20] = [None] * 10
    assert places(stamps) == exact(40)


def test_a_slow_drift_is_followed_to_a_millisecond_or_two() -> None:
    drifting = [s * 1.0005 for s in exact(2000) if s is not None]  # 500 ppm: 21 ms in all
    off = np.array(places(drifting)) - np.array(drifting)
    assert np.abs(off).max() < 0.0025 * RATE


def test_a_clock_of_milliseconds_is_no_jitter() -> None:
    rounded = [round(s / 48) * 48.0 for s in exact(500) if s is not None]
    assert set(np.diff(places(rounded, Fraction(1, 1000)))) == {PIECE}
