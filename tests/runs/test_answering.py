"""A model on one stream, window by window: what it says, and what its word is worth."""

from __future__ import annotations

import numpy as np
import pytest

from avbench.data.clicks import click_and_flash
from avbench.registry.names import load_model
from avbench.runs.answering import Answering
from avbench.ticks import ticks
from avbench.types import UsageError


def shifted(sound: np.ndarray, law: list[tuple[float, float]]) -> np.ndarray:
    """The sound under ``law``, pairs of (from_s, offset_s); positive: early."""
    out = np.zeros_like(sound)
    for (from_s, offset_s), until_s in zip(law, [*(at for at, _ in law[1:]), len(sound) / 16_000], strict=True):
        at = np.arange(ticks(from_s), ticks(until_s))
        source = at + ticks(offset_s)
        there = (source >= 0) & (source < len(sound))
        out[at[there]] = sound[source[there]]
    return out


def windows(frames: np.ndarray, sound: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    found = []
    for first in range(0, len(frames) - 124, 50):
        video = np.ascontiguousarray(frames[first : first + 125].transpose(0, 3, 1, 2))
        found.append((first / 25, video, sound[first * 640 : first * 640 + 80_000]))
    return found


@pytest.mark.parametrize("head", ["bayes", "apa-sliding", "cusum"])
def test_clicks_whose_sound_jumps_twice(head: str) -> None:
    frames, sound = click_and_flash(110, seed=3)
    law = [(0.0, 0.17), (40.0, -0.62), (80.0, 0.335)]
    asked = Answering(load_model(f"xcorr+{head}"), 2.0)
    tracker = asked.tracker()
    for at_s, video, audio in windows(frames, shifted(sound, law)):
        tracker.add(asked.observe(at_s, video, audio))
    found = tracker.regimes(110)
    assert len(found) == 3
    assert [r.start_s for r in found] == pytest.approx([at for at, _ in law], abs=4)
    assert [r.offset_s for r in found] == pytest.approx([offset for _, offset in law], abs=0.02)
    assert {r.words for r in found} == {"likely"}  # weak evidence, however clear


def test_embedded_weights_are_never_sure() -> None:
    frames, sound = click_and_flash(20)
    asked = Answering(load_model("sparsesync+bayes"), 2.0)
    assert asked.most == "unsure"
    assert "procedural clips only" in asked.why
    tracker = asked.tracker()
    for at_s, video, audio in windows(frames, sound):
        tracker.add(asked.observe(at_s, video, audio))
    assert tracker.current(20).words in ("unsure", "no evidence")


def test_the_head_hears_nothing_of_windows_without_evidence() -> None:
    frames, sound = click_and_flash(30)
    asked, alone = (Answering(load_model("xcorr+bayes"), 2.0) for _ in range(2))
    for k, (at_s, video, audio) in enumerate(windows(frames, sound)):
        if k % 2:
            assert asked.observe(at_s, video, 0 * audio).why == "the sound is silent"
        else:
            here, there = asked.observe(at_s, video, audio), alone.observe(at_s, video, audio)
            np.testing.assert_array_equal(here.believed, there.believed)


def test_a_window_of_which_a_model_says_nothing_is_no_evidence() -> None:
    asked = Answering(load_model("xcorr+bayes"), 2.0)
    n_lags = len(asked.backbone.lags_s if asked.backbone.lags_s is not None else ())
    heard = np.concatenate([[0.1, 50.0], np.zeros(n_lags)]).astype(np.float32)
    found = asked.hear(0.0, np.zeros(21, np.float32), heard)
    assert (found.log_p, found.why) == (None, "the model found nothing to judge by")


def test_a_model_that_ignores_its_input_is_refused() -> None:
    with pytest.raises(UsageError, match="'constant' ignores its input"):
        Answering(load_model("constant"), 2.0)
