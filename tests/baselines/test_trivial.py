"""Rows that look at nothing: they must be exactly what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avbench.baselines.trivial import TRIVIAL
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import streaming
from avbench.ticks import ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord

GRID = OffsetGrid()
N, W = 210, 5


@pytest.fixture
def manifest() -> Manifest:
    clip = ClipRecord("c", "c", "c.mp4", "0" * 64, 25 * 3000, 16_000 * 3000)
    segments = tuple(
        SegmentRecord(f"s{i}", "c", "c", ticks(10 * i), ticks(GRID.offset_of(i % 21)), i % 21) for i in range(N)
    )
    return Manifest("m", "files", "", "truncnorm", {"c": clip}, segments, Path())


def logits(name: str, manifest: Manifest, seed: int = 0) -> np.ndarray:
    return TRIVIAL[name].predict(manifest.segments, manifest, streaming(iterations=W), seed)


@pytest.mark.parametrize("name", list(TRIVIAL))
def test_shape_and_type(name: str, manifest: Manifest) -> None:
    out = logits(name, manifest)
    assert out.shape == (N, W, 21)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_constant_says_in_sync(manifest: Manifest) -> None:
    assert (logits("constant", manifest).argmax(-1) == 10).all()


def test_oracle_says_the_label(manifest: Manifest) -> None:
    labels = [s.offset_class for s in manifest.segments]
    assert (logits("oracle", manifest).argmax(-1) == np.array(labels)[:, None]).all()


def test_prior_is_the_declared_one(manifest: Manifest) -> None:
    out = np.exp(logits("prior", manifest).astype(np.float64))
    assert out.sum(-1) == pytest.approx(1, abs=1e-6)
    assert np.allclose(out[7, 3], manifest.prior(), atol=1e-7)


def test_only_the_oracle_sees_labels(manifest: Manifest) -> None:
    swapped = tuple(
        SegmentRecord(s.id, s.clip_id, s.video_id, s.start, 0, (s.offset_class + 1) % 21) for s in manifest.segments
    )
    for name, trivial in TRIVIAL.items():
        same = np.array_equal(logits(name, manifest), trivial.predict(swapped, manifest, streaming(iterations=W), 0))
        assert same == (name != "oracle"), name


def test_uniform_is_seeded_per_segment_and_fresh_per_iteration(manifest: Manifest) -> None:
    out = logits("uniform", manifest)
    backwards = TRIVIAL["uniform"].predict(manifest.segments[::-1], manifest, streaming(iterations=W), 0)
    assert np.array_equal(out, backwards[::-1])
    assert not np.array_equal(out, logits("uniform", manifest, seed=1))
    guesses = out.argmax(-1)
    assert (guesses[:, 0] != guesses[:, 1]).mean() > 0.8
    # each class is guessed 1050 / 21 = 50 times, give or take 5 standard deviations of 7
    counts = np.bincount(guesses.ravel(), minlength=21)
    assert counts.min() > 15
    assert counts.max() < 85
