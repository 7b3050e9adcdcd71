"""The classical scorer finds known shifts, with their sign, and admits it when there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.baselines.xcorr import Xcorr, class_correlation, motion_energy, onset_strength
from avbench.data.clicks import click_and_flash
from avbench.ticks import TICKS_PER_FRAME, ticks
from avbench.types import OffsetGrid

GRID = OffsetGrid()
FRAMES, SOUND = click_and_flash()


def window(start_s: float, offset_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Picture and sound of a 5 s window; the sound is taken from start + offset, as the protocol says."""
    frame, sample = ticks(start_s) // TICKS_PER_FRAME, ticks(start_s) + ticks(offset_s)
    video = np.ascontiguousarray(FRAMES[frame : frame + 125].transpose(0, 3, 1, 2))
    return video[None], SOUND[None, sample : sample + ticks(5)]


@pytest.mark.parametrize("label", range(21))
def test_every_class(label: int) -> None:
    logits = Xcorr().predict(*window(4, GRID.offset_of(label))).logits
    assert logits.shape == (1, 21)
    assert logits.dtype == np.float32
    assert logits.argmax() == label


def test_sound_from_later_in_the_source_is_early_and_a_class_above_ten() -> None:
    assert Xcorr().predict(*window(4, +0.4)).logits.argmax() == 12
    assert Xcorr().predict(*window(4, -0.4)).logits.argmax() == 8


def test_clicks_that_come_before_their_flashes_are_early() -> None:
    """The same sign, from the other side: nothing is shifted on reading, the clicks lie earlier in the sound itself."""
    _, early = click_and_flash(early_s=0.6)
    video, _ = window(4, 0)
    audio = early[None, ticks(4) : ticks(9)]
    assert GRID.offset_of(int(Xcorr().predict(video, audio).logits.argmax())) == 0.6


@given(st.integers(0, 200), st.floats(-1.9, 1.9))
def test_any_start_and_offset_within_a_class(frame: int, offset_s: float) -> None:
    start_s = 2 + frame / 50 // 0.04 * 0.04
    found = GRID.offset_of(int(Xcorr().predict(*window(round(start_s, 2), offset_s)).logits.argmax()))
    assert abs(found - offset_s) <= 0.1 + 0.04 + 1e-6  # half a class, and a frame: the picture knows no better


def test_batch_is_window_by_window() -> None:
    pairs = [window(2, -1.0), window(4, 1.4)]
    together = Xcorr().predict(np.concatenate([v for v, _ in pairs]), np.concatenate([a for _, a in pairs])).logits
    assert np.array_equal(together, np.concatenate([Xcorr().predict(*pair).logits for pair in pairs]))


def test_silence_and_a_still_picture_say_nothing() -> None:
    video, audio = window(4, 0)
    for v, a in ((video, np.zeros_like(audio)), (np.zeros_like(video), audio)):
        assert (Xcorr().predict(v, a).logits == 0).all()


def test_loudness_does_not_matter_much() -> None:
    video, audio = window(4, 1.0)
    quiet = Xcorr().predict(video, 0.1 * audio).logits
    assert quiet.argmax() == 15


def test_features_have_one_value_per_frame() -> None:
    video, audio = window(4, 0)
    motion, onsets = motion_energy(video[0]), onset_strength(audio[0])
    assert motion.shape == onsets.shape == (125,)
    assert motion.min() >= 0
    assert onsets.min() >= 0
    correlation = class_correlation(motion, onsets)
    assert np.abs(correlation).max() <= 1
