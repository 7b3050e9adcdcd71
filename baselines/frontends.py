"""The published models' front ends in plain torch: crops, spectrograms, normalisation.

Cuts use the published arithmetic (seconds as doubles, truncated), so that windows begin at exactly the frame and sample
of the published evaluation. ``audio_lead_trim_samples``: 0 is physically right; 1024 drops the first 1024 samples, as
the published checkpoints were trained (old decoders lost them after a seek).

Frames and samples may be numpy arrays, as decoders return them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from avbench.types import UsageError

RATE_HZ, FPS = 16_000, 25
WINDOW_S, CROP = 5, 224
N_COLUMNS = 625  # of a window sliced from a longer spectrogram; a window on its own has 626
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEL_MEAN, MEL_STD = -4.2677393, 4.5689974
Array = Tensor | np.ndarray
N_SEGMENTS, SEGMENT_FRAMES, SEGMENT_STEP_FRAMES = 14, 16, 8
SEGMENT_SAMPLES, SEGMENT_STEP_SAMPLES = 10_240, 5_120


# --------------------------------------------------------------------------------------------------------------- cuts


def equalise(frames: Tensor, wave: Tensor, max_s: float = 10) -> tuple[Tensor, Tensor]:
    """Cuts the ends of (T, ...) frames and (N,) samples to the same whole number of frames, at most ``max_s``."""
    length_s = min(max_s, len(wave) / RATE_HZ, len(frames) / FPS)
    n_frames = int(FPS * length_s)
    return frames[:n_frames], wave[: n_frames * (RATE_HZ // FPS)]


def cut_window(
    frames: Tensor,
    wave: Tensor,
    start_s: float,
    offset_s: float,
    *,
    length_s: float = WINDOW_S,
    audio_lead_trim_samples: int = 0,
    max_s: float = 10,
) -> tuple[Tensor, Tensor]:
    """The published test-time cut: (T, ...) frames and (N,) samples of a clip -> one window of each.

    Picture from frame ``int(start_s * 25)``, sound from sample ``int((start_s + round(offset_s, 2)) * 16000)``, both
    truncated as published. Sound that would begin up to one frame before the clip starts with the clip. ``UsageError``
    if the window does not fit.
    """
    frames, wave = equalise(frames, wave[audio_lead_trim_samples:], max_s)
    first_frame = int(start_s * FPS)
    first_sample = int((start_s + round(offset_s, 2)) * RATE_HZ)
    if -(RATE_HZ // FPS) <= first_sample < 0:
        first_sample = 0
    n_frames, n_samples = int(length_s * FPS), int(length_s * RATE_HZ)
    if first_sample < 0 or first_frame + n_frames > len(frames) or first_sample + n_samples > len(wave):
        raise UsageError(
            f"a {length_s:g} s window at {start_s:g} s with offset {offset_s:g} s does not fit into "
            f"{len(frames) / FPS:g} s of picture and {len(wave) / RATE_HZ:g} s of sound"
        )
    return frames[first_frame : first_frame + n_frames], wave[first_sample : first_sample + n_samples]


def centre_crop(frames: Array, size: int = CROP) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, size, size) uint8, without resizing; ``UsageError`` if the picture is smaller."""
    frames = torch.as_tensor(frames)
    height, width = frames.shape[1:3]
    if height < size or width < size:
        raise UsageError(f"the picture is {width}x{height}, the crop needs {size}x{size}")
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)  # half to even, as published
    return frames[:, top : top + size, left : left + size].permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------- SparseSync and StreamSync


def normalise_video(video: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32: divided by 255, then ImageNet mean and standard deviation."""
    mean, std = (torch.tensor(x, device=video.device)[:, None, None] for x in (RGB_MEAN, RGB_STD))
    return video.float().div_(255).sub_(mean).div_(std)


def sparsesync_video(frames: Array) -> Tensor:
    """(T, H, W, 3) uint8 RGB at 25 fps -> (T, 3, 224, 224) float32."""
    return normalise_video(centre_crop(frames))


@lru_cache(maxsize=8)
def _hann(length: int, device: torch.device) -> Tensor:
    return torch.hann_window(length, device=device)


def _power(wave: Tensor, n_fft: int, window: int, hop: int) -> Tensor:
    """(..., N) -> (..., n_fft / 2 + 1, 1 + N // hop): centred frames, reflect padding, magnitude squared."""
    if wave.shape[-1] <= n_fft // 2:
        raise UsageError(f"{wave.shape[-1]} samples are too short for a spectrum: at least {n_fft // 2 + 1} are needed")
    wave = wave.float()
    spectrum = torch.stft(
        wave, n_fft, hop, window, _hann(window, wave.device), center=True, pad_mode="reflect", return_complex=True
    )
    return spectrum.abs().pow(2)


def log_spectrogram(wave: Array) -> Tensor:
    """(..., N) samples at 16 kHz in [-1, 1] -> (..., 257, 1 + N // 128) float32, before standardisation."""
    return torch.log(_power(torch.as_tensor(wave), 512, 512, 128) + 1e-6)


def spectrogram_statistics(log_spectrum: Tensor) -> Tensor:
    """(..., 257, T) -> (..., 257, 2): mean and unbiased standard deviation over time, per frequency."""
    return torch.stack([log_spectrum.mean(-1), log_spectrum.std(-1)], dim=-1)


def standardise(log_spectrum: Tensor) -> Tensor:
    """(..., 257, T) -> the same, standardised over time, per frequency."""
    statistics = spectrogram_statistics(log_spectrum)
    return (log_spectrum - statistics[..., :1]) / (statistics[..., 1:] + 1e-6)


def sparsesync_audio(wave: Array) -> Tensor:
    """(N,) samples -> (1, 257, 1 + N // 128): a 5 s window has 626 columns. Each window is standardised on its own."""
    return standardise(log_spectrogram(wave))[None]


def window_spectrogram(audio: Tensor) -> Tensor:
    """(B, N) samples of windows, each on its own -> (B, 1, 257, 626)."""
    return standardise(log_spectrogram(audio))[:, None]


def streamsync_windows(
    frames: Array, wave: Array, n_windows: int, hop_s: float, half_cast: bool = False
) -> tuple[Tensor, Tensor]:
    """The published streaming input of one stretch, standardised as a whole (so the future leaks in).

    ``frames`` (T, H, W, 3) uint8 and ``wave`` (N,) of the stretch -> (n_windows, 125, 3, 224, 224) and
    (n_windows, 1, 257, 625), float32; ``half_cast`` rounds both to float16 first, as the published data set does.
    ``UsageError`` if the stretch is too short.
    """
    video, spectrum = sparsesync_video(frames), sparsesync_audio(wave)
    n_frames, rate = WINDOW_S * FPS, RATE_HZ / 128
    pictures, sounds = [], []
    for i in range(n_windows):
        frame, column = int(i * hop_s * FPS), int(i * hop_s * rate)
        if frame + n_frames > len(video) or column + N_COLUMNS > spectrum.shape[-1]:
            raise UsageError(
                f"{n_windows} windows with hop {hop_s:g} s do not fit into {len(frames) / FPS:g} s of picture "
                f"and {len(wave) / RATE_HZ:g} s of sound"
            )
        pictures.append(video[frame : frame + n_frames])
        sounds.append(spectrum[..., column : column + N_COLUMNS])
    windows = torch.stack(pictures), torch.stack(sounds)
    return tuple(x.half().float() for x in windows) if half_cast else windows  # type: ignore[return-value]


# --------------------------------------------------------------------------------------------------------- Synchformer


@lru_cache(maxsize=4)
def _mel_filters(device: torch.device) -> Tensor:
    """(513, 128) triangular filters on the HTK mel scale, 0 ... 8000 Hz, without area normalisation."""
    hz = torch.linspace(0, RATE_HZ // 2, 513)
    top = 2595.0 * torch.log10(torch.tensor(1.0 + RATE_HZ / 2 / 700.0, dtype=torch.float64)).item()
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, 130) / 2595.0) - 1.0)
    width = edges[1:] - edges[:-1]
    distance = edges - hz[:, None]
    rising, falling = -distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0).to(device)


def segment_mel(waves: Tensor) -> Tensor:
    """(..., 10240) samples of 0.64 s segments -> (..., 1, 128, 66) float32, normalised."""
    power = _power(waves.reshape(-1, waves.shape[-1]), 1024, 400, 160)
    with torch.autocast(waves.device.type, enabled=False):  # a front end is computed in full, whatever the model is
        mel = (power.transpose(-1, -2) @ _mel_filters(waves.device)).transpose(-1, -2)
    columns = torch.log(mel + 1e-6)
    # padded after the log and before the normalisation, as published: silence would be -13.8, these cells are 0
    columns = torch.nn.functional.pad(columns, (0, 66 - columns.shape[-1]))
    return ((columns - MEL_MEAN) / (2 * MEL_STD)).reshape(*waves.shape[:-1], 1, 128, 66)


def segment_audio(audio: Array) -> Tensor:
    """(..., 80000) samples -> (..., 14, 10240): segments half overlapping, centred in the window."""
    audio = torch.as_tensor(audio)
    n = audio.shape[-1]
    span_frames = (N_SEGMENTS - 1) * SEGMENT_STEP_FRAMES + SEGMENT_FRAMES
    first = int((n * FPS // RATE_HZ - span_frames) // 2 / FPS * RATE_HZ)
    if first < 0:
        raise UsageError(f"a window of {n / RATE_HZ:g} s is too short for {N_SEGMENTS} segments of 0.64 s")
    return audio[..., first:].unfold(-1, SEGMENT_SAMPLES, SEGMENT_STEP_SAMPLES)[..., :N_SEGMENTS, :]


def segment_video(video: Tensor) -> Tensor:
    """(..., T, 3, H, W) -> (..., 14, 16, 3, H, W): segments half overlapping, centred in the window (frames 2-121)."""
    span = (N_SEGMENTS - 1) * SEGMENT_STEP_FRAMES + SEGMENT_FRAMES
    first = (video.shape[-4] - span) // 2
    if first < 0:
        raise UsageError(f"a window of {video.shape[-4]} frames is too short for {N_SEGMENTS} segments of 16 frames")
    starts = range(first, first + span - SEGMENT_FRAMES + 1, SEGMENT_STEP_FRAMES)
    return torch.stack([video.narrow(-4, s, SEGMENT_FRAMES) for s in starts], dim=-5)


def half_normalise(video: Tensor) -> Tensor:
    """uint8 -> float16 in [-1, 1]: every step in float16, as published (its rounding is part of the input)."""
    return video.half().div_(255).sub_(0.5).div_(0.5)


def synchformer_video(frames: Array) -> Tensor:
    """(T, H, W, 3) uint8 RGB of one 5 s window at 25 fps -> (14, 16, 3, 224, 224) float16."""
    return segment_video(half_normalise(centre_crop(frames)))


def synchformer_audio(wave: Array) -> Tensor:
    """(N,) samples of one 5 s window -> (14, 1, 128, 66) float32."""
    return segment_mel(segment_audio(wave))
