"""Whether a mouth's opening and the sound's level are seen to go together, on mouths that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from avbench.data.mouths import formant_level, opening, opening_curve

LAGS = list(range(-25, 26))


def wave(n: int, seed: int = 0) -> np.ndarray:
    """(n,) in 0 ... 1: syllables of uneven length and height."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(3, 8, n))
    return np.interp(np.arange(n), times, rng.uniform(0, 1, n))


def mouths(how_far: np.ndarray, light: float = 1.0) -> np.ndarray:
    """(T,) in 0 ... 1 -> (T, 112, 112) uint8 views: a dark hole of so many pixels on a grey face."""
    views = np.full((len(how_far), 112, 112), 150 * light)
    rows = np.arange(112)
    for view, far in zip(views, how_far, strict=True):
        view[np.abs(rows - 60) <= 14 * far, 40:72] = 30 * light
    return views.astype(np.uint8)


def sound(how_loud: np.ndarray, hertz: float = 1800.0) -> np.ndarray:
    """(T,) in 0 ... 1 -> (640 T,) float32: a tone of 50 dB range."""
    level = np.repeat(10 ** (2.5 * (how_loud - 1)), 640)
    tone = np.sin(2 * np.pi * hertz * np.arange(len(level)) / 16_000)
    return (0.5 * level * tone).astype(np.float32)


def test_an_open_mouth_has_more_contrast_in_any_light() -> None:
    closed, half, wide = opening(mouths(np.array([0.0, 0.5, 1.0])))
    assert closed < half < wide
    assert opening(mouths(np.array([0.5]), light=0.6)) == pytest.approx([half], rel=0.03)


def test_the_level_is_that_of_the_formants() -> None:
    steady = np.ones(50)
    low, inside, high = (formant_level(sound(steady, hertz))[25] for hertz in (150, 1800, 7000))
    assert inside == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.5)
    assert max(low, high) < inside - 30
    assert formant_level(np.zeros(16_100, np.float32)).tolist() == [20 * np.log10(3e-4)] * 25
    assert formant_level(np.zeros(639, np.float32)).shape == (0,)


@pytest.mark.parametrize("late", [0, 3, -7])
def test_the_peak_is_at_the_lag_of_the_sound(late: int) -> None:
    how_far = wave(150)
    level = formant_level(sound(np.roll(how_far, late)))
    curve = opening_curve(mouths(how_far), level, 0, LAGS)
    assert LAGS[int(curve.argmax())] == late
    assert curve.max() > 0.8
    # a piece from the middle of the clip has its sound in its place
    part = opening_curve(mouths(how_far)[60:140], level, 60, LAGS)
    assert LAGS[int(part.argmax())] == late


def test_another_sentence_of_the_same_length_does_not_fit() -> None:
    how_far = wave(75)
    own = opening_curve(mouths(how_far), formant_level(sound(how_far)), 0, LAGS)
    for seed in range(1, 6):
        other = opening_curve(mouths(how_far), formant_level(sound(wave(75, seed))), 0, LAGS)
        assert other.max() < own.max() - 0.1


def test_nothing_is_said_of_what_does_not_change_or_is_too_short() -> None:
    moving, still = mouths(wave(75)), mouths(np.full(75, 0.5))
    level = formant_level(sound(wave(75)))
    silent = formant_level(np.zeros(48_000, np.float32))
    assert opening_curve(moving, silent, 0, LAGS).tolist() == [0.0] * len(LAGS)
    assert opening_curve(still, level, 0, LAGS).tolist() == [0.0] * len(LAGS)
    assert opening_curve(moving[:24], level, 0, LAGS).shape == (0,)
    assert opening_curve(moving, level, 51, LAGS).shape == (0,)  # 24 frames of it have sound
    assert opening_curve(moving, level, 50, LAGS).shape == (len(LAGS),)
    assert opening_curve(moving, np.zeros(0), 0, LAGS).shape == (0,)
    assert opening_curve(moving, level, 0, []).shape == (0,)
    assert np.abs(opening_curve(moving, level, 0, LAGS)).max() <= 1
