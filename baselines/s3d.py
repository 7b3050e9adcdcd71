"""The picture encoder of SparseSync and StreamSync: the S3D trunk (separable 3-D Inception) without its head."""

from __future__ import annotations

from collections.abc import Sequence
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
        """(B, inputs, T, H, W) -> (B, outputs, T, H, W)."""
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
        """(B, inputs, T, H, W) -> (B, outputs, T / stride, H / stride, W / stride), rounded up."""
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
        """(B, inputs, T, H, W) -> (B, b0 + b1b + b2b + b3, T, H, W)."""
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
        """(B, T, 3, H, W) normalised picture -> (B, T', channels, H / 32, W / 32)."""
        return self.base(video.transpose(1, 2)).transpose(1, 2)


# --------------------------------------------------------------------------------------------- fast copy for inference

# The first layers process strips of rows, the later ones runs of frames, with feature maps of about this size: mostly
# in the cache, and below the 32 MiB from which glibc returns freed blocks to the system and has to request them again.
_STRIP_BYTES = 8 * 2**20
# with one thread, torch uses a slow implementation for 1x1 convolutions over fewer frames than this
_LEAST_FRAMES = 16


class FastS3D(nn.Module):
    """An inference copy of a trunk: the same function to rounding, several times faster on a CPU.

    BatchNorm is folded into the convolutions; frames are stored channels-last, so that a convolution over space is a
    2-D one over all frames and a convolution over time a 2-D one over (time, place); a three-dimensional pool becomes a
    pool over space and one over time; the branches of a Mixed block write into its one output. Built from ``S3D`` in
    eval mode. It computes in ``dtype`` (bfloat16 halves the time again on CPUs that support it, and changes the
    logits), under autocast in autocast's dtype; the output has the input's dtype.
    """

    def __init__(self, trunk: S3D, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        fast: dict[type, Any] = {BasicConv: _FastPoint, SepConv: _FastSep, Mixed: _FastMixed}
        self.parts = nn.ModuleList(fast[type(part)](part) for part in trunk.base if type(part) in fast)
        self.channels = trunk.channels
        self.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) normalised picture -> (B, T', channels, H / 32, W / 32), as ``S3D.forward``."""
        n, dtype, device = len(video), next(self.parameters()).dtype, video.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = video.flatten(0, 1).to(dtype, memory_format=torch.channels_last)
        stem, point, second, *mixed = self.parts
        x = _spatially_pooled(stem, x, n, point)
        x = _spatially_pooled(second, x, n)
        for index, block in zip(_MIXED, mixed, strict=True):
            if index == 8:
                x = _pool_over_time(F.max_pool2d(x, 3, 2, 1), n, 3)
            elif index == 14:
                x = _pool_over_time(F.max_pool2d(x, 2, 2), n, 2)
            x = block(x, n)
        return x.unflatten(0, (n, -1)).to(video.dtype)


def _folded(conv: nn.Conv3d, norm: nn.BatchNorm3d, axis: int) -> nn.Conv2d:
    """The 2-D convolution equal to a 3-D one of size 1 along ``axis`` (2: time, 3: height) and its BatchNorm.

    Columns are padded as before; rows and frames are padded by the caller, which passes strips and runs of them.
    """
    fused = fuse_conv_bn_eval(conv, norm)
    assert fused.bias is not None
    weight = fused.weight.select(axis, 0)
    if axis == 3:
        stride, padding = (conv.stride[0], 1), (0, 0)
    else:
        stride, padding = (conv.stride[1], conv.stride[2]), (0, int(conv.padding[2]))
    kernel = weight.shape[2], weight.shape[3]
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")
    flat.weight, flat.bias = nn.Parameter(weight), nn.Parameter(fused.bias)
    return flat


def _empty(frames: int, channels: int, like: Tensor, size: Sequence[int]) -> Tensor:
    """(frames, channels, *size), channels last, of ``like``'s dtype and device."""
    return like.new_empty(frames, *size, channels).permute(0, 3, 1, 2)


def _runs(frames: int, bytes_per_frame: int) -> list[tuple[int, int]]:
    """(first, end) of runs of about equal length, as close to ``_STRIP_BYTES`` as ``_LEAST_FRAMES`` allows."""
    n = max(1, min(frames * bytes_per_frame // _STRIP_BYTES, frames // _LEAST_FRAMES))
    return [(i * frames // n, (i + 1) * frames // n) for i in range(n)]


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` of (N, C, H, W); rows outside the picture are zero."""
    height = x.shape[2]
    inside = x[:, :, max(first, 0) : min(last, height)]
    above, below = max(-first, 0), max(last - height, 0)
    return F.pad(inside, (0, 0, above, below)) if above or below else inside


class _FastPoint(nn.Module):
    def __init__(self, *parts: BasicConv) -> None:
        """Several 1x1x1 convolutions of one input as one convolution, their outputs concatenated."""
        super().__init__()
        flat = [_folded(part.conv, part.bn, 2) for part in parts]
        self.conv = nn.Conv2d(flat[0].in_channels, sum(f.out_channels for f in flat), 1, device="meta")
        self.conv.weight = nn.Parameter(torch.cat([f.weight for f in flat]))
        self.conv.bias = nn.Parameter(torch.cat([f.bias for f in flat if f.bias is not None]))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x))


class _FastSep(nn.Module):
    def __init__(self, part: SepConv) -> None:
        super().__init__()
        self.space = _folded(part.conv_s, part.bn_s, 2)
        self.time = _folded(part.conv_t, part.bn_t, 3)
        self.kernel, self.stride = part.conv_s.kernel_size[1], part.conv_s.stride[1]

    def halved(self, length: int) -> int:
        return (length - 1) // self.stride + 1

    def over_space(self, x: Tensor) -> Tensor:
        """(T, C, H, W), the whole height -> (T, C', H, W), before the ReLU; stride 1."""
        return F.conv2d(x, self.space.weight, self.space.bias, padding=self.kernel // 2)

    def over_time(self, x: Tensor) -> Tensor:
        """(T + kernel - 1, C, H, W), padded frames included -> (T', C', H, W), before the ReLU."""
        height, width = x.shape[2:]
        # channels last, so that both are views
        x = self.time(x.permute(0, 2, 3, 1).flatten(1, 2)[None].permute(0, 3, 1, 2))
        return x[0].permute(1, 2, 0).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def strip(self, x: Tensor, n: int, first: int, last: int) -> Tensor:
        """(n T, C, H, W) -> rows ``first`` to ``last`` of the output (n T', C', ...)."""
        top = first * self.stride - self.kernel // 2
        x = self.space(_rows(x, top, top + (last - first - 1) * self.stride + self.kernel))
        pad, frames = self.kernel // 2, len(x) // n
        clips = []
        for clip in x.split(frames):
            padded = _empty(frames + 2 * pad, clip.shape[1], clip, clip.shape[2:])
            padded[:pad], padded[-pad:] = 0, 0
            torch.clamp_min(clip, 0, out=padded[pad:-pad])
            clips.append(F.relu_(self.over_time(padded)))
        return clips[0] if n == 1 else torch.cat(clips)


def _spatially_pooled(sep: nn.Module, x: Tensor, n: int, then: nn.Module | None = None) -> Tensor:
    """A separable convolution, the 3x3 pool of stride 2 after it and a 1x1 convolution, strip by strip."""
    assert isinstance(sep, _FastSep)
    height, width = sep.halved(x.shape[2]), sep.halved(x.shape[3])
    per_row = len(x) * width * sep.time.out_channels * x.element_size()
    step = max(2, _STRIP_BYTES // per_row // 2 * 2)  # even, so that each strip begins with a row of the pool
    out: Tensor | None = None
    above: Tensor | None = None  # the last row of the previous strip
    for first in range(0, height, step):
        y = sep.strip(x, n, first, min(first + step, height))
        rows = y[:, :, ::2].clone(memory_format=torch.channels_last)
        _pool_pairs(rows, y[:, :, 1::2], 2)
        if above is not None:
            torch.maximum(rows[:, :, :1], above, out=rows[:, :, :1])
        above = y[:, :, -1:].clone()
        pooled = rows[..., ::2].clone(memory_format=torch.channels_last)
        _pool_pairs(pooled, rows[..., 1::2], 3)
        pooled = pooled if then is None else then(pooled)
        if out is None:
            out = _empty(len(pooled), pooled.shape[1], pooled, ((height + 1) // 2, pooled.shape[3]))
        out[:, :, first // 2 : first // 2 + pooled.shape[2]] = pooled
    assert out is not None
    return out


def _pool_pairs(even: Tensor, odd: Tensor, axis: int) -> None:
    """Maximum over three neighbours at every second place along ``axis``, written into ``even``, which contains these
    places; ``odd`` contains those between: place j of the pool sees odd j - 1, even j and odd j."""
    mine = even.narrow(axis, 0, odd.shape[axis])
    torch.maximum(mine, odd, out=mine)
    later = even.narrow(axis, 1, even.shape[axis] - 1)
    torch.maximum(later, odd.narrow(axis, 0, later.shape[axis]), out=later)


def _pool_over_time(x: Tensor, n: int, kernel: int) -> Tensor:
    """The maximum over ``kernel`` frames (2, or 3 centred) at every second frame."""
    x = x.permute(0, 2, 3, 1).unflatten(0, (n, -1))
    if kernel == 2:
        frames = x.shape[1] // 2 * 2
        y = torch.maximum(x[:, 0:frames:2], x[:, 1:frames:2])
    else:
        y = x[:, ::2].clone()
        _pool_pairs(y, x[:, 1::2], 1)
    return y.flatten(0, 1).permute(0, 3, 1, 2)


class _FastMixed(nn.Module):
    def __init__(self, part: Mixed) -> None:
        super().__init__()
        b0, (b1a, b1b), (b2a, b2b) = part.branch0[0], part.branch1, part.branch2
        self.point = _FastPoint(b0, b1a, b2a)  # type: ignore[arg-type]
        self.b1b, self.b2b = _FastSep(b1b), _FastSep(b2b)  # type: ignore[arg-type]
        self.b3 = _FastPoint(part.branch3[1])  # type: ignore[arg-type]
        self.widths: list[int] = [c.conv.out_channels for c in (b0, b1a, b2a)]  # type: ignore[union-attr,misc]

    def forward(self, x: Tensor, n: int) -> Tensor:
        """(n T, C, H, W) -> (n T, C', H, W), clip by clip, a run of frames at a time."""
        ends = [self.widths[0], *(c.out_channels for c in (self.b1b.time, self.b2b.time, self.b3.conv))]
        out = _empty(len(x), sum(ends), x, x.shape[2:])
        for clip, target in zip(x.split(len(x) // n), out.split(len(x) // n), strict=True):
            self._clip(clip, target.split(ends, dim=1))
        return out

    def _clip(self, x: Tensor, targets: tuple[Tensor, ...]) -> None:
        frames, _, height, width = x.shape
        seps = self.b1b, self.b2b
        # outputs of the convolution over space, with a frame of zeros at either end
        halves = [_empty(frames + 2, sep.space.out_channels, x, (height, width)) for sep in seps]
        for half in halves:
            half[0], half[-1] = 0, 0
        runs = _runs(frames, height * width * max(x.shape[1], self.b1b.time.out_channels) * x.element_size())
        for first, last in runs:
            b0, *inner = self.point(x[first:last]).split(self.widths, dim=1)
            targets[0][first:last] = b0
            for y, sep, half in zip(inner, seps, halves, strict=True):
                y = sep.over_space(y.contiguous(memory_format=torch.channels_last))
                torch.clamp_min(y, 0, out=half[first + 1 : last + 1])
            around = x[first:last].clone(memory_format=torch.channels_last)
            with_next, with_prior = min(last, frames - 1), max(first, 1)
            for mine, other in (
                (around[: with_next - first], x[first + 1 : with_next + 1]),
                (around[with_prior - first :], x[with_prior - 1 : last - 1]),
            ):
                torch.maximum(mine, other, out=mine)
            targets[3][first:last] = self.b3(F.max_pool2d(around, 3, 1, 1))
        for sep, half, target in zip(seps, halves, targets[1:3], strict=True):
            for first, last in runs:
                torch.clamp_min(sep.over_time(half[first : last + 2]), 0, out=target[first:last])
