"""The MFCC front end against its description, written out sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from avbench.baselines import lrasd
from avbench.baselines import mfcc as front_end
from avbench.baselines.mfcc import mfcc


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, n).astype(np.int16)


def plain(wave: np.ndarray) -> np.ndarray:
    """The description in sums: frames, Fourier sums, triangles, cosine sums."""
    x = [float(v) for v in wave]
    x = [x[0]] + [x[i] - 0.97 * x[i - 1] for i in range(1, len(x))]
    n_rows = 1 if len(x) <= 400 else 1 + math.ceil((len(x) - 400) / 160)
    x += [0.0] * (400 + 160 * (n_rows - 1) - len(x))
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    top = 2595 * math.log10(1 + 8000 / 700)
    bins = [math.floor(513 * 700 * (10 ** (top * k / 27 / 2595) - 1) / 16000) for k in range(28)]
    rows = []
    for r in range(n_rows):
        power = np.abs(fourier @ x[160 * r : 160 * r + 400]) ** 2 / 512
        logs = []
        for low, peak, high in zip(bins, bins[1:], bins[2:], strict=False):
            band = sum(power[i] * (i - low) / (peak - low) for i in range(low, peak))
            band += sum(power[i] * (high - i) / (high - peak) for i in range(peak, high))
            logs.append(math.log(band or 2.220446049250313e-16))
        row = [
            (1 + 11 * math.sin(math.pi * n / 22))
            * math.sqrt(2 / 26)
            * sum(v * math.cos(math.pi * n * (2 * j + 1) / 52) for j, v in enumerate(logs))
            for n in range(13)
        ]
        rows.append([math.log(power.sum() or 2.220446049250313e-16), *row[1:]])
    return np.array(rows)


@pytest.mark.parametrize("n", [1, 159, 399, 400, 401, 560, 561, 3456])
def test_equals_the_description(n: int) -> None:
    ours = mfcc(noise(n))
    assert ours.shape == (1 if n <= 400 else 1 + math.ceil((n - 400) / 160), 13)
    assert ours.dtype == np.float64
    assert np.abs(ours - plain(noise(n))).max() < 1e-9


def test_digital_silence_has_the_logarithm_of_epsilon() -> None:
    wave = noise(4000)
    wave[800:2400] = 0
    rows = mfcc(wave)
    assert np.abs(rows - plain(wave)).max() < 1e-9
    assert rows[8, 0] == pytest.approx(math.log(np.finfo(np.float64).eps))
    assert np.abs(rows[8, 1:]).max() < 1e-9  # all bands alike


def test_no_sound_has_no_rows() -> None:
    assert mfcc(np.zeros(0, np.int16)).shape == (0, 13)


def test_whole_numbers_and_floats_of_one_scale_are_the_same_sound() -> None:
    wave = noise(5000)
    for dtype in (np.float32, np.float64):
        assert np.array_equal(mfcc(wave), mfcc(wave.astype(dtype)))
    # in the other scale only the level differs, which is why nothing would fail
    small = mfcc(wave / 32768)
    assert np.allclose(mfcc(wave)[:, 0] - small[:, 0], 2 * math.log(32768))
    assert np.allclose(mfcc(wave)[:, 1:], small[:, 1:], atol=1e-9)


def test_long_sound_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mfcc(noise(20_000))
    monkeypatch.setattr(front_end, "_ROWS_AT_ONCE", 7)
    assert np.abs(mfcc(noise(20_000)) - whole).max() < 1e-9


def test_a_second_has_a_row_less_than_four_to_a_frame() -> None:
    assert [len(mfcc(noise(n * 16_000))) for n in (1, 2)] == [99, 199]


@pytest.mark.parametrize(
    "wave",
    [np.zeros((2, 800), np.int16), np.zeros(800, np.int32), np.zeros(800, np.uint8)],
    ids=["stereo", "32 bits", "8 bits"],
)
def test_other_sound_is_refused_in_one_line(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match="16-bit scale") as refused:
        mfcc(wave)
    assert "\n" not in str(refused.value)


def test_lr_asd_offers_it_too() -> None:
    assert lrasd.mfcc is mfcc
