"""SynthSync's scenes: the same everywhere, and truly in sync where they say so."""

from __future__ import annotations

import numpy as np
import pytest

from avbench.data import scenes
from avbench.data.scenes import Scene
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


def test_a_speaking_mouth_follows_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """With only speakers on screen, mouth opening and loudness correlate best at the clip's own latency."""
    monkeypatch.setitem(scenes.SHOT_MIX, CATEGORIES[0], {"speaker": 1.0})
    monkeypatch.setattr(scenes, "CLIP_LATENCY_SD_S", 0.0)
    monkeypatch.setitem(scenes.CAPTION_PROBABILITY, CATEGORIES[0], 0.0)
    scene = Scene(CATEGORIES[0], 0, 11, 30.0)
    levels = np.concatenate([shot.layers[0].shown % scenes.MOUTH_LEVELS for shot in scene.shots]).astype(float)
    loudness = np.abs(scene.audio()).reshape(-1, SAMPLE_RATE_HZ // FRAME_RATE_HZ).mean(1)
    correlation = {k: np.corrcoef(np.roll(levels, k)[30:-30], loudness[30:-30])[0, 1] for k in range(-20, 21)}
    assert abs(max(correlation, key=correlation.__getitem__)) <= 1  # within one frame
    assert correlation[0] > 0.5
