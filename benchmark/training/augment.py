"""The published training's augmentations in plain torch: drawn once per stream, the same for all its windows.

Probabilities and strengths are those of the published configuration. The published reverberation comes from an audio
effects library; here it is a decaying noise tail, which sounds different.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RATE_HZ = 16_000
FRAMES_AT_ONCE = 25  # colours are computed in float; the whole stretch at once would need too much memory
GREY = (0.2989, 0.587, 0.114)


def centre(video: Tensor, size: int) -> Tensor:
    """(T, 3, H, W) -> (T, 3, size, size): the centre crop; odd margins round half to even, as published."""
    top, left = round((video.shape[2] - size) / 2), round((video.shape[3] - size) / 2)
    return video[:, :, top : top + size, left : left + size]


def picture(video: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, size, size) uint8: random crop, colour jitter, grey, mirror.

    A crop of ``size``, or (p 0.5) one of 6/7 of it, enlarged bilinearly; jitter p 0.2, grey p 0.2, mirrored p 0.5.
    """
    part = size * 192 // 224 if rng.random() < 0.5 else size
    top = int(rng.integers(video.shape[2] - part + 1))
    left = int(rng.integers(video.shape[3] - part + 1))
    steps: list[Callable[[Tensor], Tensor]] = []
    if part != size:
        steps.append(lambda x: F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False))
    if rng.random() < 0.2:
        steps += _jitter(rng)
    if rng.random() < 0.2:
        steps.append(lambda x: _grey(x).expand_as(x))
    if rng.random() < 0.5:
        video, left = video.flip(3), video.shape[3] - part - left
    video = video[:, :, top : top + part, left : left + part]
    if not steps:
        return video
    pieces = []
    for piece in video.split(FRAMES_AT_ONCE):
        x = piece.float() / 255
        for step in steps:
            x = step(x).clamp(0, 1)
        pieces.append((x * 255).round().to(torch.uint8))
    return torch.cat(pieces)


def _grey(x: Tensor) -> Tensor:
    return (x * x.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def _jitter(rng: np.random.Generator) -> list[Callable[[Tensor], Tensor]]:
    """Brightness, contrast, saturation within 0.2 ... 1.8 and hue within +-0.2, in random order."""
    bright, contrast, saturation = (float(x) for x in rng.uniform(0.2, 1.8, 3))
    turn = float(rng.uniform(-0.2, 0.2))

    def blend(x: Tensor, other: Tensor, share: float) -> Tensor:
        return share * x + (1 - share) * other

    steps: list[Callable[[Tensor], Tensor]] = [
        lambda x: bright * x,
        lambda x: blend(x, _grey(x).mean((1, 2, 3), keepdim=True), contrast),
        lambda x: blend(x, _grey(x), saturation),
        lambda x: turned_hue(x, turn),
    ]
    return [steps[i] for i in rng.permutation(4)]


def turned_hue(x: Tensor, turn: float) -> Tensor:
    """(T, 3, H, W) in [0, 1] -> the same shape: hue rotated by ``turn`` (1: the whole circle), saturation and value
    unchanged."""
    high, low = x.amax(1), x.amin(1)
    span = (high - low).clamp(min=1e-12)
    r, g, b = x.unbind(1)
    sector = torch.where(high == r, (g - b) / span, torch.where(high == g, 2 + (b - r) / span, 4 + (r - g) / span))
    hue = (sector / 6 + turn) % 1
    # each channel of a hue is a trapezoid along the circle, shifted by a third
    channels = []
    for shift in (5.0, 3.0, 1.0):
        k = (shift + hue * 6) % 6
        channels.append(high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def sound(wave: Tensor, rng: np.random.Generator) -> Tensor:
    """(N,) float32 in [-1, 1] -> the same shape: reverberation, doubled volume, low-pass, noise; p 0.2 each."""
    if rng.random() < 0.2:
        wave = reverberated(wave, rng)
    if rng.random() < 0.2:
        wave = (2 * wave).clamp(-1, 1)
    if rng.random() < 0.2:
        wave = low_passed(wave)
    if rng.random() < 0.2:
        wave = wave + 0.01 * torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
    return wave


def _filtered(wave: Tensor, response: Tensor) -> Tensor:
    """Causal convolution with an impulse response, by Fourier transform; same length."""
    n = len(wave) + len(response) - 1
    n_fft = 1 << (n - 1).bit_length()
    spectrum = torch.fft.rfft(wave.double(), n_fft) * torch.fft.rfft(response.double(), n_fft)
    return torch.fft.irfft(spectrum, n_fft)[: len(wave)].float()


def low_passed(wave: Tensor, cutoff_hz: float = 100.0, q: float = 0.707) -> Tensor:
    """Second-order low-pass (the usual biquad); the impulse response is cut at 0.5 s, where it is below 1e-30."""
    w = 2 * math.pi * cutoff_hz / RATE_HZ
    alpha, cosine = math.sin(w) / (2 * q), math.cos(w)
    b0, b1, a0, a1, a2 = (1 - cosine) / 2, 1 - cosine, 1 + alpha, -2 * cosine, 1 - alpha
    b, a = (b0 / a0, b1 / a0, b0 / a0), (a1 / a0, a2 / a0)
    response = [0.0] * (RATE_HZ // 2)
    for i in range(len(response)):
        feed = b[i] if i < 3 else 0.0
        response[i] = feed - sum(a[k] * response[i - 1 - k] for k in range(2) if i - 1 - k >= 0)
    return _filtered(wave, torch.tensor(response, dtype=torch.float64)).clamp(-1, 1)


def reverberated(wave: Tensor, rng: np.random.Generator, decay_s: float = 0.3) -> Tensor:
    """The sound plus a noise tail that falls by 60 dB in ``decay_s``; the direct sound is not delayed."""
    time_s = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail *= 0.5 / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return _filtered(wave, torch.from_numpy(tail)).clamp(-1, 1)


def masks(rng: np.random.Generator, n_frequencies: int, n_columns: int) -> tuple[slice, slice]:
    """The frequencies (up to 64) and columns (up to 200) of a stretch's log spectrogram to blank, p 0.2 each; an empty
    slice for none."""

    def stretch(total: int, most: int) -> slice:
        if rng.random() >= 0.2:
            return slice(0, 0)
        length = int(rng.uniform(0, min(most, total)))
        first = int(rng.uniform(0, total - length))
        return slice(first, first + length)

    return stretch(n_frequencies, 64), stretch(n_columns, 200)
