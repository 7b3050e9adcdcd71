"""The picture encoder of SparseSync and StreamSync: the S3D trunk (separable 3-D Inception) without its head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


# ----------------------------------------------------------------------------------------------- the same, made to run

# Freed blocks above 32 MiB go back to the system (glibc), and taking them anew costs more than filling them: the first
# layers therefore work on strips of rows whose intermediate maps stay below that, and mostly in the cache.
_STRIP_BYTES = 16 * 2**20


class FastS3D(nn.Module):
    """An inference copy of a trunk: the same function to rounding, several times faster on a CPU.

    BatchNorm is folded into the convolutions; frames lie channels-last, so that a convolution over space is a 2-D one
    over all frames and a convolution over time a 2-D one over (time, place); three-dimensional pools are a pool over
    space and one over time. Built from ``S3D`` in eval mode; ``dtype`` is what it computes in (bfloat16 halves the
    time again where the CPU has it, and changes the logits); the output has the input's dtype.
    """

    def __init__(self, trunk: S3D, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        fast: dict[type, Any] = {BasicConv: _FastPoint, SepConv: _FastSep, Mixed: _FastMixed}
        self.parts = nn.ModuleList(fast[type(part)](part) for part in trunk.base if type(part) in fast)
        self.channels = trunk.channels
        self.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor) -> Tensor:
        n, dtype = len(video), next(self.parameters()).dtype
        x = video.flatten(0, 1).to(dtype, memory_format=torch.channels_last)
        stem, point, second, *mixed = self.parts
        x = _spatially_pooled(stem, x, n)
        x = _spatially_pooled(second, point(x), n)
        for index, block in zip(_MIXED, mixed, strict=True):
            if index == 8:
                x = _pool_over_time(F.max_pool2d(x, 3, 2, 1), n, 3, 2)
            elif index == 14:
                x = _pool_over_time(F.max_pool2d(x, 2, 2), n, 2, 2)
            x = block(x, n)
        return x.unflatten(0, (n, -1)).to(video.dtype)


def _folded(conv: nn.Conv3d, norm: nn.BatchNorm3d, axis: int) -> nn.Conv2d:
    """The 2-D convolution that equals a 3-D one, flat along ``axis`` (2: time, 3: height), and its BatchNorm."""
    fused = fuse_conv_bn_eval(conv, norm)
    assert fused.bias is not None
    weight = fused.weight.select(axis, 0)
    # rows are padded by hand, because strips of rows are: only the columns here
    if axis == 3:
        stride, padding = (conv.stride[0], 1), (int(conv.padding[0]), 0)
    else:
        stride, padding = (conv.stride[1], conv.stride[2]), (0, int(conv.padding[2]))
    kernel = weight.shape[2], weight.shape[3]
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")
    flat.weight, flat.bias = nn.Parameter(weight), nn.Parameter(fused.bias)
    return flat


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` of (N, C, H, W); those outside the picture are zero."""
    height = x.shape[2]
    inside = x[:, :, max(first, 0) : min(last, height)]
    above, below = max(-first, 0), max(last - height, 0)
    return F.pad(inside, (0, 0, above, below)) if above or below else inside


class _FastPoint(nn.Module):
    def __init__(self, part: BasicConv) -> None:
        super().__init__()
        self.conv = _folded(part.conv, part.bn, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x))


class _FastSep(nn.Module):
    def __init__(self, part: SepConv) -> None:
        super().__init__()
        self.space = _folded(part.conv_s, part.bn_s, 2)
        self.time = _folded(part.conv_t, part.bn_t, 3)
        self.kernel, self.stride = part.conv_s.kernel_size[1], part.conv_s.stride[1]

    def out_height(self, height: int) -> int:
        return (height - 1) // self.stride + 1

    def forward(self, x: Tensor, n: int, first: int, last: int, shift: int = 0) -> Tensor:
        """Rows ``first`` to ``last`` of the output; ``x`` begins at row ``shift`` of the input."""
        top = first * self.stride - self.kernel // 2 - shift
        x = F.relu_(self.space(_rows(x, top, top + (last - first - 1) * self.stride + self.kernel)))
        height, width = x.shape[2:]
        # (n T, C, H, W), channels last -> (n, C, T, H W), channels last: a view
        x = x.permute(0, 2, 3, 1).reshape(n, -1, height * width, x.shape[1]).permute(0, 3, 1, 2)
        x = F.relu_(self.time(x)).permute(0, 2, 3, 1)
        return x.reshape(-1, height, width, x.shape[3]).permute(0, 3, 1, 2)


def _strip_rows(x: Tensor, height: int, width: int, channels: int) -> int:
    """An even number of rows whose map of all frames stays below ``_STRIP_BYTES``."""
    per_row = x.shape[0] * width * channels * x.element_size()
    return max(2, min(_STRIP_BYTES // per_row // 2 * 2, height + height % 2))


def _spatially_pooled(sep: nn.Module, x: Tensor, n: int) -> Tensor:
    """A separable convolution and the 3x3 pool of stride 2 after it, strip by strip."""
    assert isinstance(sep, _FastSep)
    height, width = sep.out_height(x.shape[2]), sep.out_height(x.shape[3])
    step = _strip_rows(x, height, width, sep.time.out_channels)
    above: Tensor | None = None  # the last row of the strip before
    pooled = []
    for first in range(0, height, step):
        y = sep(x, n, first, min(first + step, height))
        even, odd = y[:, :, ::2], y[:, :, 1::2]
        rows = even.clone(memory_format=torch.channels_last)  # row j of the pool sees rows 2j - 1, 2j and 2j + 1
        for mine, other in (
            (rows[:, :, : odd.shape[2]], odd),
            (rows[:, :, 1:], odd[:, :, : rows.shape[2] - 1]),
            *([(rows[:, :, :1], above)] if above is not None else []),
        ):
            torch.maximum(mine, other, out=mine)
        above = y[:, :, -1:].clone()
        pooled.append(F.max_pool2d(rows, (1, 3), (1, 2), padding=(0, 1)))
    return torch.cat(pooled, dim=2)


def _pool_over_time(x: Tensor, n: int, kernel: int, stride: int) -> Tensor:
    """The maximum over ``kernel`` frames (2 or 3; three are centred) at every frame or every second one."""
    x = x.permute(0, 2, 3, 1).unflatten(0, (n, -1))
    if kernel == 2:
        frames = x.shape[1] // 2 * 2
        y = torch.maximum(x[:, 0:frames:2], x[:, 1:frames:2])
    else:
        y = x[:, ::stride].clone()
        after = x[:, 1::stride]
        both = y[:, : after.shape[1]]
        torch.maximum(both, after, out=both)
        later, prior = y[:, 1:], x[:, stride - 1 :: stride][:, : y.shape[1] - 1]
        torch.maximum(later, prior, out=later)
    return y.flatten(0, 1).permute(0, 3, 1, 2)


class _FastMixed(nn.Module):
    def __init__(self, part: Mixed) -> None:
        super().__init__()
        self.b0 = _FastPoint(part.branch0[0])  # type: ignore[arg-type]
        self.b1a, self.b1b = _FastPoint(part.branch1[0]), _FastSep(part.branch1[1])  # type: ignore[arg-type]
        self.b2a, self.b2b = _FastPoint(part.branch2[0]), _FastSep(part.branch2[1])  # type: ignore[arg-type]
        self.b3 = _FastPoint(part.branch3[1])  # type: ignore[arg-type]

    def forward(self, x: Tensor, n: int) -> Tensor:
        height, width = x.shape[2:]
        widest = max(x.shape[1], self.b1b.time.out_channels)
        step = _strip_rows(x, height, width, widest)
        strips = []
        for first in range(0, height, step):
            last = min(first + step, height)
            shift = max(first - 1, 0)
            seen = x[:, :, shift : min(last + 1, height)]  # one row more on either side, where there is one
            around = _pool_over_time(F.max_pool2d(_rows(x, first - 1, last + 1), 3, 1, padding=(0, 1)), n, 3, 1)
            branches = (
                self.b0(x[:, :, first:last]),
                self.b1b(self.b1a(seen), n, first, last, shift),
                self.b2b(self.b2a(seen), n, first, last, shift),
                self.b3(around),
            )
            strips.append(torch.cat(branches, dim=1))
        return strips[0] if len(strips) == 1 else torch.cat(strips, dim=2)
