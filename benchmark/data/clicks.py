"""The click-and-flash clip: picture and sound whose true instants are known."""

from __future__ import annotations

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, ticks

CLIP_S = 14
SIZE = 64


def click_and_flash(duration_s: int = CLIP_S, early_s: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, 64, 64, 3) uint8 with white flashes, and sound (N,) float32 with clicks ``early_s`` s before
    them (negative: after them), at the same irregular instants."""
    rng = np.random.default_rng(seed)
    n_frames, n_samples = duration_s * FRAME_RATE_HZ, duration_s * SAMPLE_RATE_HZ
    frames = np.full((n_frames, SIZE, SIZE, 3), 16, np.uint8)
    sound = np.zeros(n_samples, np.float32)
    flashes = np.cumsum(rng.integers(9, 24, n_frames // 9))
    click = 0.6 * rng.standard_normal(640) * np.exp(-np.arange(640) / 120)
    for frame in flashes[flashes < n_frames - 2]:
        frames[frame : frame + 2] = 230
        start = frame * TICKS_PER_FRAME - ticks(early_s)
        if start >= 0 and start + len(click) <= n_samples:
            sound[start : start + len(click)] = click
    return frames, sound.clip(-1, 1)
