"""The classical baseline: does the picture move when the sound starts? No learning, no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import FrontEnd, OffsetGrid, Snapshot, SnapshotPredictor

STFT_SAMPLES = 512
STFT_HOP_SAMPLES = 160  # 10 ms: four columns to a frame
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
FLOOR = 1e-3  # amplitudes below this count as silence, so that noise at -100 dB has no onsets
SPREAD_FRAMES = 2  # on either side: sound and picture rarely match to one frame, and classes are 5 frames apart
CELL_SAMPLES = 160  # 10 ms: of the finer curve
CELL_S = CELL_SAMPLES / SAMPLE_RATE_HZ
REACH_CELLS = 210  # the finer curve goes 2.1 s to each side, so that a peak at 2 s has neighbours
BLUR_CELLS = 3  # on either side: pictures come every four cells


class Xcorr(SnapshotPredictor):
    """Normalised cross-correlation of motion energy and sound onset strength at the 21 class lags.

    An event at source time s lies at s - v in the picture window and at s - v - offset in the sound window, so early
    audio (a positive offset) peaks at a positive lag: motion[t + lag] against onsets[t].
    """

    frontend = FrontEnd(size=64)
    description = "motion energy against sound onset strength, normalised cross-correlation"
    trained_on = "nothing (no learning)"
    two_tower = True
    uses_torch = False  # the runner then passes arrays and does not load torch
    lags_s = np.arange(-REACH_CELLS, REACH_CELLS + 1) * CELL_S  # of the finer curve

    def __init__(self, scale: float = 20.0) -> None:
        self.scale = scale

    def predict(self, video: Any, audio: Any) -> Snapshot:
        """``video`` (B, T, 3, H, W) uint8, ``audio`` (B, N) float32, tensors or arrays -> logits (B, 21) float32."""
        return self.fuse(self.encode_video(video), self.encode_audio(audio))

    def encode_video(self, video: Any) -> np.ndarray:
        """(B, T, 3, H, W) uint8 -> (B, T) motion energy."""
        return np.stack([motion_energy(v) for v in _numpy(video)])

    def encode_audio(self, audio: Any) -> np.ndarray:
        """(B, N) float32 -> (B, N / 640) onset strength."""
        return np.stack([onset_strength(a) for a in _numpy(audio)])

    def fuse(self, motion: np.ndarray, onsets: np.ndarray) -> Snapshot:
        """(B, T), (B, T) -> logits (B, 21) float32."""
        logits = [self.scale * class_correlation(m, o) for m, o in zip(motion, onsets, strict=True)]
        return Snapshot(np.stack(logits).astype(np.float32))

    def curve(self, video: Any, audio: Any) -> np.ndarray:
        """The same every 10 ms: (B, T, 3, H, W) uint8, (B, N) float32 -> (B, L) float32 logits at ``lags_s``."""
        pairs = zip(_numpy(video), _numpy(audio), strict=True)
        return np.stack([self.scale * fine_correlation(brightening(v), a) for v, a in pairs]).astype(np.float32)


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def motion_energy(video: np.ndarray) -> np.ndarray:
    """(T, 3, H, W) uint8 -> (T,) float64: root of the mean |luma difference| between frame t and the next one.

    A change between t/25 and (t+1)/25 s belongs to the sound of the same 40 ms. The root keeps a single scene cut from
    outweighing everything else.
    """
    luma = LUMA @ video.reshape(len(video), 3, -1).astype(np.float32)
    change = np.abs(luma[1:] - luma[:-1]).mean(axis=1, dtype=np.float64)
    return np.sqrt(np.append(change, 0.0))


def brightening(video: np.ndarray) -> np.ndarray:
    """(T, 3, H, W) uint8 -> (T,) float64: as ``motion_energy``, of the pixels that grow brighter. What moves makes as
    many brighter as darker; of a flash only the beginning counts, which is what sounds."""
    luma = LUMA @ video.reshape(len(video), 3, -1).astype(np.float32)
    rise = np.maximum(luma[1:] - luma[:-1], 0).mean(axis=1, dtype=np.float64)
    return np.sqrt(np.append(rise, 0.0))


def onset_strength(audio: np.ndarray) -> np.ndarray:
    """(N,) float32 -> (N / 640,) float64: root of the half-wave rectified log-spectral flux, mean per 40 ms."""
    padded = np.pad(audio, STFT_SAMPLES // 2)
    columns = np.lib.stride_tricks.sliding_window_view(padded, STFT_SAMPLES)[::STFT_HOP_SAMPLES]
    window = np.hanning(STFT_SAMPLES + 1)[:-1].astype(np.float32)
    spectrum = np.abs(np.fft.rfft(columns * window, axis=1)) * (2 / window.sum())
    rise = np.maximum(np.diff(np.log(spectrum + FLOOR), axis=0), 0).mean(axis=1, dtype=np.float64)
    per_frame = TICKS_PER_FRAME // STFT_HOP_SAMPLES
    n_frames = len(audio) // TICKS_PER_FRAME
    flux = np.zeros(n_frames * per_frame)
    flux[: len(rise)] = rise[: len(flux)]
    return np.sqrt(flux.reshape(n_frames, per_frame).mean(axis=1))


def class_correlation(motion: np.ndarray, onsets: np.ndarray, grid: OffsetGrid | None = None) -> np.ndarray:
    """(T,), (T,) -> (21,) correlation in [-1, 1] at the class lags; 0 where either input is constant.

    Averaged over +-2 frames of lag; a class gets the highest such average among its own five lags, so that an offset
    halfway between two classes still counts for both.
    """
    grid = grid or OffsetGrid()
    middle = round(grid.max_offset_s * FRAME_RATE_HZ) + 2 * SPREAD_FRAMES
    by_lag = np.array([_correlation(motion, onsets, lag) for lag in range(-middle, middle + 1)])
    width = 2 * SPREAD_FRAMES + 1
    smooth = np.convolve(by_lag, np.full(width, 1 / width), mode="valid")  # lags -52 ... 52
    centres = np.round(grid.offsets_s * FRAME_RATE_HZ).astype(int) + middle - SPREAD_FRAMES
    return np.array([smooth[c - SPREAD_FRAMES : c + SPREAD_FRAMES + 1].max() for c in centres])


def _correlation(motion: np.ndarray, onsets: np.ndarray, lag: int) -> float:
    """Pearson correlation of motion[t + lag] and onsets[t] over the t where both exist."""
    n = len(motion)
    m = motion[max(lag, 0) : n + min(lag, 0)]
    a = onsets[max(-lag, 0) : n - max(lag, 0)]
    if len(m) < SAMPLE_RATE_HZ // TICKS_PER_FRAME:  # an overlap of less than one second is too short
        return 0.0
    m, a = m - m.mean(), a - a.mean()
    norm = float(np.sqrt((m @ m) * (a @ a)))
    return float(m @ a) / norm if norm > 1e-9 else 0.0


def fine_correlation(motion: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """(T,) change of the picture from frame t to the next one, (N,) float32 -> (L,) correlation in [-1, 1] at the lags
    of ``Xcorr.lags_s``; 0 where either is constant.

    The picture changes when the later of two frames is shown, the sound where its level in cells of 10 ms rises.
    """
    cells = audio[: len(audio) // CELL_SAMPLES * CELL_SAMPLES].reshape(-1, CELL_SAMPLES).astype(np.float64)
    level = np.log(np.sqrt((cells**2).mean(axis=1)) + FLOOR)
    rises = np.sqrt(np.maximum(np.diff(level, prepend=level[:1]), 0))
    shown = np.zeros(len(rises))
    per_frame = TICKS_PER_FRAME // CELL_SAMPLES
    at = (np.arange(len(motion)) + 1) * per_frame  # motion[t] is the change from frame t to frame t + 1
    shown[at[at < len(shown)]] = motion[at < len(shown)]
    bell = np.bartlett(2 * BLUR_CELLS + 3)[1:-1]
    rises, shown = (np.convolve(values - values.mean(), bell, mode="same") for values in (rises, shown))
    size = float(np.sqrt((rises @ rises) * (shown @ shown)))
    if size < 1e-9:
        return np.zeros(2 * REACH_CELLS + 1)
    whole = np.correlate(shown, rises, mode="full") / size  # at lag k: shown[t + k] with rises[t]
    middle = len(rises) - 1
    return whole[middle - REACH_CELLS : middle + REACH_CELLS + 1]
