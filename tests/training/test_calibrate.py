"""The calibration's command: every category, both rows, beside the paper's figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avbench.baselines.embedded import load_backbone
from avbench.data.scenes import HARD
from avbench.data.synthsync import FULL_CLIPS, SPLIT_SEEDS
from avbench.training import backbone, calibrate, streaming
from avbench.training.streaming import Streams
from avbench.types import CATEGORIES


def test_no_other_scene_has_a_seed_of_the_calibration() -> None:
    ours = range(calibrate.CALIBRATION_SEED, calibrate.CALIBRATION_SEED + 1000)
    for split, seed in SPLIT_SEEDS.items():
        assert not set(ours) & set(range(seed, seed + FULL_CLIPS[split]))
    others = (backbone.VALID_SEED, backbone.TRAIN_SEED, streaming.STREAM_TRAIN_SEED, streaming.STREAM_VALID_SEED)
    assert all(seed not in ours and abs(seed - calibrate.CALIBRATION_SEED) > 1000 for seed in others)


def test_averaging_windows_that_sometimes_know_beats_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def streams(number: int, difficulty: object) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(number)
        labels = torch.from_numpy(rng.integers(0, 21, 6))
        knows = torch.from_numpy(rng.random((6, 92)) < 0.4)
        logits = 6.0 * knows[..., None] * torch.nn.functional.one_hot(labels, 21)[:, None]
        empty = torch.zeros(6, 92, 1)
        return {"logits": logits.float(), "off": empty, "passed": empty, "labels": labels}

    class Here:
        """A pool of no process."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        imap = staticmethod(map)

    monkeypatch.setattr(calibrate, "_streams", streams)
    monkeypatch.setattr(calibrate.mp, "get_context", lambda how: type("", (), {"Pool": Here}))
    rows = calibrate.measure(load_backbone("sparsesync"), HARD, scenes=12)
    assert set(rows["APA"]) == {*CATEGORIES, "overall"}
    # a window that knows nothing says class 0
    assert rows["one window"]["overall"]["acc"] == pytest.approx(0.4 + 0.6 / 21, abs=0.05)
    assert rows["APA"]["overall"]["acc"] > 0.95
    text = calibrate.table(rows)
    assert "APA" in text
    assert "0.580" in text  # the paper's


def test_windows_are_two_seconds_apart() -> None:
    logits = torch.arange(92.0)[None, :, None] * torch.nn.functional.one_hot(torch.tensor(3), 21)
    one = torch.zeros(1, 92, 1)
    windows = calibrate._windows(Streams(logits, one, one, torch.tensor([3])))
    assert windows.shape == (len(calibrate.STARTS_S), 18, 21)
    expected = np.exp(14.0) / (np.exp(14.0) + 20)  # 10 s after the start, two windows on
    assert windows[1, 2, 3] == pytest.approx(expected)
