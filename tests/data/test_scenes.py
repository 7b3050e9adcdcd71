"""SynthSync's scenes: the same everywhere, and truly in sync where they say so."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from avbench.data import scenes
from avbench.data.scenes import OTHER, Scene
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from avbench.types import CATEGORIES


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_arguments_same_scene(category: str) -> None:
    a, b = (Scene(category, 1, 42, 12.0) for _ in range(2))
    assert np.array_equal(a.audio(), b.audio())
    assert all(np.array_equal(x, y) for x, y in zip(a.frames(), b.frames(), strict=True))


@pytest.mark.parametrize("category", CATEGORIES)
def test_shapes_and_ranges(category: str) -> None:
    scene = Scene(category, 0, 3, 10.0)
    frames = list(scene.frames())
    assert len(frames) == scene.n_frames == 10 * FRAME_RATE_HZ
    assert all(f.shape == (64, 64, 3) and f.dtype == np.uint8 for f in frames)
    audio = scene.audio()
    assert audio.shape == (10 * SAMPLE_RATE_HZ,)
    assert audio.dtype == np.float32
    assert 0.01 < np.abs(audio).max() <= 1
    assert sum(shot.n for shot in scene.shots) == scene.n_frames


def test_another_identity_is_another_scene() -> None:
    a, b = Scene(CATEGORIES[0], 0, 1, 10.0), Scene(CATEGORIES[0], 0, 2, 10.0)
    assert abs(np.corrcoef(a.audio(), b.audio())[0, 1]) < 0.2
    assert any(not np.array_equal(x, y) for x, y in zip(a.frames(), b.frames(), strict=True))


def test_a_speaking_mouth_follows_the_sound() -> None:
    """With only speakers on screen, mouth opening and loudness correlate best at the clip's own latency."""
    correlation = mouth_and_sound(SPEAKER)
    assert abs(max(correlation, key=correlation.__getitem__)) <= 1  # within one frame
    assert correlation[0] > 0.5


def test_in_an_unrelated_clip_no_mouth_follows_the_sound() -> None:
    assert max(mouth_and_sound(replace(SPEAKER, unrelated={CATEGORIES[0]: 1.0})).values()) < 0.35


def test_in_an_unrelated_clip_no_visible_event_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []
    monkeypatch.setattr(Scene, "_hear", lambda self, sound, time_s, gain, jitter_s: heard.append(time_s))
    game = replace(scenes.HARD, shot_mix={OTHER: {"game": 1.0}}, offscreen_hit_gap_s=1e9, whoosh={OTHER: 1.0})
    monkeypatch.setattr(Scene, "_narration", lambda self, voice: [])
    Scene(OTHER, 0, 1, 60.0, replace(game, unrelated={OTHER: 1.0}))
    assert not heard
    Scene(OTHER, 0, 1, 60.0, replace(game, unrelated={OTHER: 0.0}))
    assert len(heard) > 5


def test_every_category_of_the_hard_family_is_complete() -> None:
    for name in ("shot_mix", "whoosh", "caption", "unrelated"):
        assert set(getattr(scenes.HARD, name)) == set(CATEGORIES)
    for shares in scenes.HARD.shot_mix.values():
        assert sum(shares.values()) == pytest.approx(1)


# sound and picture of 20 s of scene (category, 2, 123), as they were when version 1 was published
VERSION_1 = {
    "talking head": "ccaf31d9b0f8ccdcba97f7855f3e7c2c764b0dc0cd0a7d0b792fb5bdbc5868f5",
    "voice-over": "91ce21689616f100bfa29df2b09aee1794fd0ac3f29f382555b62b06cde0a8c1",
    "other": "c4a9890fd477f052574e24b9ea4ad90b262af26070ee416c7afa6dc1c7b66aba",
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_version_1_keeps_its_bytes(category: str) -> None:
    scene = Scene(category, 2, 123, 20.0)
    digest = hashlib.sha256(scene.audio().tobytes())
    for frame in scene.frames():
        digest.update(frame.tobytes())
    assert digest.hexdigest() == VERSION_1[category]


SPEAKER = replace(
    scenes.STANDARD,
    shot_mix={CATEGORIES[0]: {"speaker": 1.0}},
    latency_sd_s=0.0,
    caption={CATEGORIES[0]: 0.0},
)


def mouth_and_sound(difficulty: scenes.Difficulty) -> dict[int, float]:
    """Correlation of mouth opening and loudness in a scene, by the mouth's delay in frames."""
    scene = Scene(CATEGORIES[0], 0, 11, 30.0, difficulty)
    levels = np.concatenate([shot.layers[0].shown % scenes.MOUTH_LEVELS for shot in scene.shots]).astype(float)
    loudness = np.abs(scene.audio()).reshape(-1, SAMPLE_RATE_HZ // FRAME_RATE_HZ).mean(1)
    return {k: np.corrcoef(np.roll(levels, k)[30:-30], loudness[30:-30])[0, 1] for k in range(-20, 21)}
