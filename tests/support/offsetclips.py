"""Made clips whose offset is known and changes: click-and-flash clips, and SynthSync's, with shifted sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.ticks import SAMPLE_RATE_HZ, ticks

JUMPS = ((0.0, 0.17), (40.0, -0.62), (80.0, 0.335))  # (from_s, offset_s); positive: the sound is early


def shifted(sound: np.ndarray, law: Sequence[tuple[float, float]]) -> np.ndarray:
    """The sound (N,) under ``law``, pairs of (from_s, offset_s); positive: early."""
    out = np.zeros_like(sound)
    ends_s = [*(at_s for at_s, _ in law[1:]), len(sound) / SAMPLE_RATE_HZ]
    for (from_s, offset_s), until_s in zip(law, ends_s, strict=True):
        at = np.arange(ticks(from_s), ticks(until_s))
        source = at + ticks(offset_s)
        there = (source >= 0) & (source < len(sound))
        out[at[there]] = sound[source[there]]
    return out


def click_clip(path: Path, duration_s: int, law: Sequence[tuple[float, float]] = ((0.0, 0.0),), seed: int = 3) -> Path:
    """A click-and-flash clip under ``law``."""
    frames, sound = click_and_flash(duration_s, seed=seed)
    encode_clip(path, frames, shifted(sound, law))
    return path
