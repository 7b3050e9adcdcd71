"""A reduced Synchformer as a user's model file, and clips on which it, or its decoder, behaves badly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.ticks import SAMPLE_RATE_HZ

MODELS = '''
import os
import signal

import torch

from avbench.baselines.synchformer import Synchformer
from avbench.types import FrontEnd
from avbench.weights.checkpoints import drawn_weights


class Small(Synchformer):
    """Drawn weights: its figures mean nothing, but they depend on picture and sound."""

    frontend = FrontEnd(size=32, fit="square")
    description = "a reduced Synchformer"
    trained_on = "nothing"

    def __init__(self):
        super().__init__(dim=64, layers=1, heads=4, size=32)
        self.load_state_dict(drawn_weights(self.state_dict(), seed=3), assign=True)
        self.transformer.off_head.weight.data *= 30  # so that files differ


class Late(Small):
    """Trained on sound that began 64 ms later than its pictures."""

    frontend = FrontEnd(size=32, fit="square", audio_lead_trim_samples=1024)


class Moody(Small):
    """It goes by the level of the sound: quiet is well, louder raises, gives NaN, or kills the process."""

    def encode_audio_segments(self, segments):
        level = float(segments.abs().max())
        if 0.1 < level < 0.2:
            raise RuntimeError("no such\\nfeature")
        if 0.3 < level < 0.8:
            return super().encode_audio_segments(segments) * torch.nan
        if 0.9 < level:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().encode_audio_segments(segments)
'''


def model_file(folder: Path) -> Path:
    """The file with the models above, in ``folder``."""
    path = folder / "small.py"
    path.write_text(MODELS)
    return path


def write_clip(path: Path, duration_s: int, seed: int = 0, level: float | None = None) -> Path:
    """Clicks and flashes; with ``level`` the sound is a tone of that amplitude (0: silence)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames, sound = click_and_flash(duration_s, seed=seed)
    if level is not None:
        sound = (level * np.sin(np.arange(len(sound)) * 2 * np.pi * 440 / SAMPLE_RATE_HZ)).astype(np.float32)
    encode_clip(path, frames, sound)
    return path
