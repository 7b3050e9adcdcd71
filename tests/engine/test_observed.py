"""What a window holds: the level of its sound, the motion of its picture, and the backbone's own answer unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import ToyModel

from avbench.baselines.xcorr import Xcorr
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.observed import Observed, observed


def window(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (1, 125, 3, 8, 8)).astype(np.uint8)
    return video, rng.normal(0, 0.1, (1, 80_000)).astype(np.float32)


def test_the_answer_is_that_of_the_backbone_and_its_token_comes_along() -> None:
    inner = ToyModel()
    plain, said = inner.predict(*window()), Observed(inner).predict(*window())
    np.testing.assert_array_equal(said.logits, plain.logits)
    facts = Observed(inner).facts(said.token[0])
    assert facts.token is not None
    np.testing.assert_allclose(facts.token, plain.token[0], rtol=1e-6)
    assert facts.curve is None
    assert facts.rms == pytest.approx(0.1, rel=0.02)
    assert facts.motion_levels > 100
    assert not facts.lacks


def test_a_curve_comes_along() -> None:
    model = Observed(Xcorr())
    assert model.lags_s is not None
    facts = model.facts(model.predict(*window()).token[0])
    assert facts.token is None
    assert facts.curve is not None
    assert facts.curve.shape == model.lags_s.shape


def test_silence_and_a_still_picture_are_no_evidence() -> None:
    video, audio = window()
    model = Observed(ToyModel())
    noise = np.random.default_rng(1).integers(0, 3, video.shape).astype(np.uint8)
    assert model.facts(model.predict(video, audio * 1e-4).token[0]).lacks == "the sound is silent"
    assert model.facts(model.predict(100 + noise, audio).token[0]).lacks == "the picture stands still"


def test_its_fingerprint_is_that_of_the_backbone_within() -> None:
    prints = [model_fingerprint(model) for model in (Observed(ToyModel(0)), observed(ToyModel), Observed(ToyModel(1)))]
    assert prints[0] == prints[1] != prints[2]
    assert model_fingerprint(ToyModel(0)) not in prints


def test_a_model_that_has_both_for_one_price_is_asked_once() -> None:
    class Fine(ToyModel):
        lags_s = np.arange(3) * 0.1

        def predict_finely(self, video: np.ndarray, audio: np.ndarray) -> tuple[object, np.ndarray]:
            return self.predict(video, audio), np.array([[1.0, 2.0, 3.0]])

    model = Observed(Fine())
    facts = model.facts(model.predict(*window()).token[0])
    assert facts.curve is not None
    assert facts.curve.tolist() == [1, 2, 3]
