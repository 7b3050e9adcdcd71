"""Pieces of sound are placed by what most stamps say, not by each: jitter is ignored, gaps and drift are not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.data.sound_clock import placed

RATE = 48_000
MS = RATE // 1000
PACKETS = [1024] * 400


def places(
    stamps: list[float | None], samples: list[int], rate: int = RATE, tick_s: Fraction = Fraction(1, RATE)
) -> np.ndarray:
    """Where pieces of so many ``samples`` go if their true starts, in samples, are stamped by a clock of ``tick_s``."""
    rounded = [None if at is None else round(Fraction(at) / rate / tick_s) * tick_s * rate for at in stamps]
    found = list(placed(zip(rounded, samples, range(len(samples)), strict=True), rate, tick_s))
    assert [k for _, k in found] == list(range(len(samples)))  # each once, in order
    return np.array([place for place, _ in found])


def starts(samples: list[int], gaps: dict[int, int]) -> np.ndarray:
    """True starts, if before piece k there is a gap of ``gaps[k]`` samples (negative: an overlap)."""
    steps = [gaps.get(k, 0) + (samples[k - 1] if k else 0) for k in range(len(samples))]
    return np.cumsum(steps)


def jumps(found: np.ndarray, samples: list[int]) -> dict[int, int]:
    """Piece -> samples by which it does not begin where the piece before it ended."""
    steps = np.diff(found) - samples[:-1]
    return {int(k) + 1: int(steps[k]) for k in np.flatnonzero(steps)}


@settings(max_examples=60, derandomize=True)  # (jitter can imitate a gap, if rarely)
@given(
    seed=st.integers(0, 2**32 - 1),
    jitter_ms=st.floats(0, 9.9),
    rate=st.sampled_from([16_000, 44_100, 48_000]),
    tick_s=st.sampled_from([Fraction(1, 1000), Fraction(1, 90_000), None]),
    packets=st.booleans(),
)
def test_jitter_is_ignored_and_gaps_are_found(
    seed: int, jitter_ms: float, rate: int, tick_s: Fraction | None, packets: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = 300
    samples = [1024] * n if packets else rng.integers(512, 4096, n).tolist()
    low_s = max(0.02, 4 * jitter_ms / 1000)
    gaps = {int(k): int(rng.uniform(low_s, 3) * rate) for k in np.array([70, 140, 210]) + rng.integers(-5, 6, 3)}
    true = starts(samples, gaps)
    jitter = rng.uniform(-jitter_ms, jitter_ms, n) * rate / 1000
    found = places((true + jitter).tolist(), samples, rate, tick_s or Fraction(1, rate))
    off_ms = np.abs(found - true) * 1000 / rate
    assert off_ms.max() <= 1 + jitter_ms
    assert np.percentile(off_ms, 90) <= 1 + jitter_ms / 4
    large = {k for k, step in jumps(found, samples).items() if abs(step) > 0.01 * rate}
    assert large == set(gaps)


def test_exact_clocks_place_every_piece_exactly() -> None:
    gaps = {30: 1024, 31: 1024, 90: -500, 200: 20 * RATE, 396: 4000}
    true = starts(PACKETS, gaps)
    np.testing.assert_array_equal(places([*map(float, true)], PACKETS), true)


@pytest.mark.parametrize("tick_s", [Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 600)])
def test_rounding_adds_no_holes_and_does_not_add_up(tick_s: Fraction) -> None:
    samples = [1025] * 20_000  # (1024 are a whole number of thirds of a millisecond)
    found = places([*map(float, starts(samples, {}))], samples, tick_s=tick_s)
    assert jumps(found, samples) == {}
    assert found[0] == 0


def test_a_lone_stamp_that_is_off_changes_nothing() -> None:
    stamps = starts(PACKETS, {200: 1024}).astype(float)
    true = stamps.copy()
    for k, off_s in ((20, 5), (21, -3), (60, 0.1), (150, -10_000), (198, 2), (300, 0.03), (302, -0.03), (399, 1)):
        stamps[k] += off_s * RATE
    np.testing.assert_array_equal(places(stamps.tolist(), PACKETS), true)


def test_a_first_stamp_later_than_the_others_is_off_too() -> None:
    stamps = starts(PACKETS, {}).astype(float)
    stamps[0] += 30 * RATE
    np.testing.assert_array_equal(places(stamps.tolist(), PACKETS), starts(PACKETS, {}))


def test_a_gap_after_the_first_piece_stays() -> None:
    true = starts(PACKETS, {1: 2 * RATE})
    np.testing.assert_array_equal(places([*map(float, true)], PACKETS), true)


@pytest.mark.parametrize("ppm", [50, 500, -50, -500])
@pytest.mark.parametrize("tick_s", [Fraction(1, 1000), Fraction(1, RATE)])
def test_a_slow_clock_is_followed_in_small_steps(ppm: int, tick_s: Fraction) -> None:
    samples = [1024] * 20_000  # 7 minutes: 213 ms of drift at 500 ppm
    true = starts(samples, {}) * (1 + ppm * 1e-6)
    found = places(true.tolist(), samples, tick_s=tick_s)
    assert np.abs(found - true).max() < 3 * MS
    steps = np.array(list(jumps(found, samples).values()))
    assert np.abs(steps).max() < 3 * MS
    assert (np.sign(steps) == np.sign(ppm)).all()


def test_pieces_without_a_stamp_follow_the_one_before() -> None:
    true = starts(PACKETS, {100: 1024, 203: 1024}) + 7
    stamps: list[float | None] = [float(at) if k % 4 == 3 else None for k, at in enumerate(true)]
    found = places(stamps, PACKETS)
    # a gap before a piece without a stamp is seen at the next stamp
    true[100:103] -= 1024
    np.testing.assert_array_equal(found, true)


def test_many_lost_packets_leave_many_gaps() -> None:
    rng = np.random.default_rng(2)
    kept = np.flatnonzero(rng.random(5000) > 0.1)
    true = kept * 1024
    assert np.array_equal(places([*map(float, true)], [1024] * len(kept)), true)


def test_long_pieces_are_not_hoarded() -> None:
    read = 0

    def pieces():  # type: ignore[no-untyped-def]
        nonlocal read
        for k in range(100):
            read += 1
            yield Fraction(k * RATE), RATE, k

    for place, k in placed(pieces(), RATE, Fraction(1, RATE)):
        assert place == k * RATE
        assert read <= k + 9
