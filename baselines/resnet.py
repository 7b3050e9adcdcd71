"""The sound encoder of SparseSync and StreamSync: ResNet-18 over a one-channel spectrogram."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016); ``downsample`` where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, F, T) -> (B, outputs, F / stride, T / stride), rounded up."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """(B, 1, 257, 625 or 626) -> (B, 8 width, 9, 20); no pooling and no classifier at the end."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i in range(4):
            inputs, outputs = width * 2 ** max(i - 1, 0), width * 2**i
            blocks = BasicBlock(inputs, outputs, 1 if i == 0 else 2), BasicBlock(outputs, outputs, 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, 257, 625 or 626) standardised log-spectrogram -> (B, 8 width, 9, 20)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(spectrogram))))
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return x


def fast_resnet(model: ResNet18) -> ResNet18:
    """An inference copy of a model in eval mode, the same function to rounding: folded BatchNorm, channels last."""
    model = copy.deepcopy(model)
    for part in list(model.modules()):
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):
            children = dict(part.named_children())
            first, second = children.get(conv), children.get(norm)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                part.add_module(conv, fuse_conv_bn_eval(first, second))
                part.add_module(norm, nn.Identity())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.requires_grad_(False)
