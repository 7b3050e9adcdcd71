"""Augmentations: drawn from the generator alone, the right sizes, and each does what it says."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.training import augment


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([(60, 80), (80, 60), (56, 56)]))
def test_a_picture_keeps_its_length_and_is_the_same_for_the_same_generator(seed: int, shape: tuple[int, int]) -> None:
    video = torch.randint(0, 256, (30, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    one, other = (augment.picture(video, 56, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == (30, 3, 56, 56)
    assert one.dtype == torch.uint8
    assert torch.equal(one, other)


def test_how_often_and_how_far() -> None:
    """A still ramp tells crop, mirror and grey apart."""
    ramp = torch.arange(80, dtype=torch.uint8)[None, None, None].expand(1, 3, 60, 80).clone()
    ramp[:, 1] = 200
    mirrored = grey = 0
    lefts = set()
    for seed in range(400):
        x = augment.picture(ramp, 56, np.random.default_rng(seed)).float()
        mirrored += bool(x[0, 0, 0, 0] > x[0, 0, 0, -1])
        grey += bool((x[0, 0] == x[0, 1]).all())
        lefts.add(int(x[0, 0, 0].min()))
    assert 160 < mirrored < 240
    assert 50 < grey < 110
    assert len(lefts) > 15


def test_hue_turns_as_in_colorsys() -> None:
    rgb = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    turned = augment.turned_hue(rgb, 0.15)
    for old, new in zip(rgb.permute(0, 2, 3, 1).reshape(-1, 3), turned.permute(0, 2, 3, 1).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*old.tolist())
        assert np.allclose(colorsys.hsv_to_rgb((h + 0.15) % 1, s, v), new, atol=1e-5)


def test_low_pass_passes_the_low_and_keeps_time() -> None:
    time_s = torch.arange(16_000) / 16_000
    low, high = (torch.sin(2 * math.pi * hz * time_s) for hz in (20, 2000))
    assert (augment.low_passed(low)[4000:].std() / low.std() - 1).abs() < 0.05
    assert augment.low_passed(high)[4000:].std() < 0.01
    click = torch.zeros(16_000)
    click[8000] = 1
    assert augment.low_passed(click)[:8000].abs().max() < 1e-6
    echo = augment.reverberated(click, np.random.default_rng(0))
    assert echo[:8000].abs().max() < 1e-6
    assert echo.argmax() == 8000
    assert 0 < echo[8001:].abs().max() < 1


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_sound_keeps_its_length_and_masks_their_bounds(seed: int) -> None:
    wave = 0.3 * torch.randn(3000, generator=torch.Generator().manual_seed(2))
    one, other = (augment.sound(wave, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.shape == wave.shape
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    frequencies, columns = augment.masks(np.random.default_rng(seed), 257, 150)
    assert 0 <= frequencies.start <= frequencies.stop <= 257
    assert frequencies.stop - frequencies.start < 64
    assert 0 <= columns.start <= columns.stop <= 150
