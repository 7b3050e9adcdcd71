"""Mel-frequency cepstral coefficients as the published lip networks were trained on (python_speech_features' defaults).

One front end for both lip networks: LR-ASD reads its rows as they are, SyncNet reads them turned. No torch.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.fft import dct

RATE_HZ = 16_000
FRAME_SAMPLES, STEP_SAMPLES = 400, 160  # 25 ms every 10 ms: 100 rows a second
N_FFT, N_FILTERS, N_COEFFICIENTS, LIFTER = 512, 26, 13, 22
PRE_EMPHASIS = 0.97
EPSILON = np.finfo(np.float64).eps  # stands in for a power of zero, which has no logarithm
_ROWS_AT_ONCE = 4096  # 40 s of sound: the spectra take 50 MB


def mfcc(wave: np.ndarray) -> np.ndarray:
    """(N,) samples of 16 kHz mono sound -> (rows, 13) float64, one row per 10 ms.

    ``wave``: int16, or floating point in the same scale (up to +-32768; sound in [-1, 1] must be multiplied by 32768).
    ``rows`` is 0 without samples, 1 up to 400, then 1 + ceil((N - 400) / 160); the last frame is filled with zeros.
    Coefficient 0 is the logarithm of the frame's energy. ``ValueError`` for another shape or type.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1 or not (wave.dtype == np.int16 or wave.dtype.kind == "f"):
        raise ValueError(f"sound must be (N,) int16, or float in the 16-bit scale, not {wave.shape} {wave.dtype}")
    if not wave.size:
        return np.zeros((0, N_COEFFICIENTS))
    n_rows = 1 + max(0, -(-(len(wave) - FRAME_SAMPLES) // STEP_SAMPLES))
    emphasised = np.zeros(FRAME_SAMPLES + (n_rows - 1) * STEP_SAMPLES)
    emphasised[: len(wave)] = wave
    emphasised[1 : len(wave)] -= PRE_EMPHASIS * wave[:-1].astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, FRAME_SAMPLES)[::STEP_SAMPLES]
    return np.concatenate([_rows(frames[i : i + _ROWS_AT_ONCE]) for i in range(0, n_rows, _ROWS_AT_ONCE)])


def _rows(frames: np.ndarray) -> np.ndarray:
    """(rows, 400) samples after pre-emphasis, cut without a window function -> (rows, 13)."""
    power = np.abs(np.fft.rfft(frames, N_FFT, axis=1)) ** 2 / N_FFT
    energy, bands = power.sum(axis=1), power @ _mel_filters().T
    cepstrum = dct(np.log(np.where(bands == 0, EPSILON, bands)), type=2, axis=1, norm="ortho")[:, :N_COEFFICIENTS]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(N_COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(np.where(energy == 0, EPSILON, energy))
    return cepstrum


@cache
def _mel_filters() -> np.ndarray:
    """(26, 257) triangles between whole bins, equally wide in mel from 0 to 8000 Hz, without area normalisation."""
    mel = np.linspace(0, 2595 * np.log10(1 + RATE_HZ / 2 / 700), N_FILTERS + 2)
    edges = np.floor((N_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / RATE_HZ)[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(N_FFT // 2 + 1)
    return np.clip(np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)), 0, None)
