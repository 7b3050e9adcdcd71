"""The whole code of a submission: one backbone with the streaming-token hook. Copy this file and make it yours.

MyNet is small and weak, but it works: it turns picture motion and sound loudness into two smoothed curves over time,
correlates them over lags, takes the 21 offsets as logits, and makes the token for the streaming head from the same
numbers. Its weights are drawn from a fixed seed, so that it is the same model every time it is made; yours will load
them from a file beside this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avbench import FrontEnd, Snapshot, SnapshotPredictor

N_CLASSES = 21  # -2.0 ... +2.0 s in steps of 0.2 s; class 10 is in sync
FRAMES_PER_CLASS = 5  # 0.2 s at 25 fps


class MyNet(nn.Module, SnapshotPredictor):
    """Motion against loudness over lags. Its class attributes tell the harness what it needs and what it is."""

    # what the harness hands to `predict`: picture 32 x 32 at 25 fps, sound at 16 kHz
    frontend = FrontEnd(size=32, fps=25, sample_rate=16_000)
    token_dim = 64  # the streaming-token hook; leave it out (and return no token) and APA still works
    description = "template: motion against loudness over lags"
    trained_on = "nothing"  # say what your model was trained on: the leaderboard shows "undeclared" otherwise

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # unseeded weights would give a different model each time
        self.smooth = nn.Parameter(torch.tensor([0.25, 0.5, 0.25])[None, None], requires_grad=False)
        width = 2 * 11 * FRAMES_PER_CLASS + 1 + N_CLASSES
        self.token = nn.Parameter(torch.randn(width, self.token_dim, generator=generator) / width**0.5)
        self.scale = nn.Parameter(torch.tensor(6.0))

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """``video`` (B, 125, 3, 32, 32) uint8, ``audio`` (B, 80000) float32 in [-1, 1] -> logits, token (B, 64).

        Nothing may depend on the other windows of the batch, nor on what was predicted before.
        """
        motion = self.motion(video)
        loudness = self.loudness(audio)
        lags = correlation(motion, loudness, 11 * FRAMES_PER_CLASS)  # (B, 111), lag -55 ... +55 frames
        first = FRAMES_PER_CLASS
        logits = self.scale * lags[:, first : first + N_CLASSES * FRAMES_PER_CLASS : FRAMES_PER_CLASS]
        token = torch.cat([lags, logits], dim=1) @ self.token
        return Snapshot(logits=logits, token=token)

    def motion(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T): how much the picture changes at each frame, smoothed and standardised."""
        grey = video.float().mean(dim=2) / 255
        change = torch.diff(grey, dim=1, prepend=grey[:, :1]).abs().mean(dim=(2, 3))
        return self.standardised(change)

    def loudness(self, audio: Tensor) -> Tensor:
        """(B, N) -> (B, N / 640): how much louder it gets at each frame's instant, smoothed and standardised."""
        power = audio.unflatten(1, (-1, 640)).pow(2).mean(dim=2)
        rise = torch.diff(torch.log(power + 1e-5), dim=1, prepend=torch.log(power[:, :1] + 1e-5)).clamp(min=0)
        return self.standardised(rise)

    def standardised(self, x: Tensor) -> Tensor:
        """(B, T) -> (B, T): smoothed over three frames, then zero mean and unit deviation."""
        x = nn.functional.conv1d(x[:, None], self.smooth, padding=1)[:, 0]
        return (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True) + 1e-4)


def correlation(motion: Tensor, loudness: Tensor, reach: int) -> Tensor:
    """(B, T), (B, T) -> (B, 2 reach + 1): mean over t of motion[t + lag] x loudness[t], lag = -reach ... reach.

    A positive offset means that the sound is early: what is seen at t + lag is heard at t, so the peak is at +offset.
    """
    n = motion.shape[1]
    rows = [
        (motion[:, max(lag, 0) : n + min(lag, 0)] * loudness[:, max(-lag, 0) : n + min(-lag, 0)]).sum(dim=1)
        / (n - abs(lag)) ** 0.5
        for lag in range(-reach, reach + 1)
    ]
    return torch.stack(rows, dim=1)
