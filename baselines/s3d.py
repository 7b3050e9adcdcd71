"""The picture encoder of SparseSync and StreamSync: the S3D trunk (separable 3-D Inception) without its head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# one row per Mixed block: (index in the trunk, in, b0, b1a, b1b, b2a, b2b, b3)
_MIXED = {
    5: (192, 64, 96, 128, 16, 32, 32),
    6: (256, 128, 128, 192, 32, 96, 64),
    8: (480, 192, 96, 208, 16, 48, 64),
    9: (512, 160, 112, 224, 24, 64, 64),
    10: (512, 128, 128, 256, 24, 64, 64),
    11: (512, 112, 144, 288, 32, 64, 64),
    12: (528, 256, 160, 320, 32, 128, 128),
    14: (832, 256, 160, 320, 32, 128, 128),
    15: (832, 384, 192, 384, 48, 128, 128),
}


def _norm(channels: int) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(channels, eps=1e-3, momentum=1e-3)


class BasicConv(nn.Module):
    """1x1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1, bias=False)
        self.bn = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class SepConv(nn.Module):
    """A convolution over space, then one over time, each with BatchNorm and ReLU; ``stride`` acts on both."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        pad = kernel // 2
        self.conv_s = nn.Conv3d(
            inputs, outputs, (1, kernel, kernel), stride=(1, stride, stride), padding=(0, pad, pad), bias=False
        )
        self.bn_s = _norm(outputs)
        self.conv_t = nn.Conv3d(
            outputs, outputs, (kernel, 1, 1), stride=(stride, 1, 1), padding=(pad, 0, 0), bias=False
        )
        self.bn_t = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn_t(self.conv_t(F.relu(self.bn_s(self.conv_s(x))))))


class Mixed(nn.Module):
    """Inception block: four branches side by side, concatenated along channels."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3: int) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(BasicConv(inputs, b0))
        self.branch1 = nn.Sequential(BasicConv(inputs, b1a), SepConv(b1a, b1b, 3))
        self.branch2 = nn.Sequential(BasicConv(inputs, b2a), SepConv(b2a, b2b, 3))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), BasicConv(inputs, b3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class S3D(nn.Module):
    """(B, T, 3, H, W) normalised picture -> (B, T', 1024, H / 32, W / 32); 125 frames of 224 x 224 give T' = 16.

    ``width`` scales every channel count (1.0 is the published trunk; smaller ones serve the tests).
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()

        def w(channels: int) -> int:
            return max(1, round(channels * width))

        # a Mixed block's input is the sum of the previous one's branches, which rounding may change
        parts: list[nn.Module] = [
            SepConv(3, w(64), 7, stride=2),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            BasicConv(w(64), w(64)),
            SepConv(w(64), w(192), 3),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        ]
        channels = w(192)
        for index in range(5, 16):
            if index in _MIXED:
                _, b0, b1a, b1b, b2a, b2b, b3 = (w(c) for c in _MIXED[index])
                parts.append(Mixed(channels, b0, b1a, b1b, b2a, b2b, b3))
                channels = b0 + b1b + b2b + b3
            else:
                parts.append(nn.MaxPool3d(3, stride=2, padding=1) if index == 7 else nn.MaxPool3d(2, stride=2))
        self.base = nn.Sequential(*parts)
        self.channels = channels

    def forward(self, video: Tensor) -> Tensor:
        return self.base(video.transpose(1, 2)).transpose(1, 2)
