"""SparseSync at full size: S3D and ResNet-18 encoders, selectors, global transformer (Iashin et al. 2022).

Every layer, key and constant equals the published model; a published checkpoint loads with ``strict=True``.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from avbench.baselines import frontends
from avbench.baselines.blocks import Block, CrossBlock, init_fusion
from avbench.baselines.resnet import ResNet18, fast_resnet
from avbench.baselines.s3d import S3D, FastS3D
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor, UsageError


class VisualPositions(nn.Module):
    """(B, T, H, W, D) -> the same plus learned positions: time | width | height along the channels, in that order."""

    def __init__(self, dim: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        third = dim // 3
        self.time_embed = nn.Embedding(grid[0], dim - 2 * third)  # time gets the remainder
        self.height_embed = nn.Embedding(grid[1], third)
        self.width_embed = nn.Embedding(grid[2], third)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, D) -> (B, T, H, W, D)."""
        t, h, w = x.shape[1:4]
        tables = (
            self.time_embed.weight[:t, None, None].expand(-1, h, w, -1),
            self.width_embed.weight[None, None, :w].expand(t, h, -1, -1),
            self.height_embed.weight[None, :h, None].expand(t, -1, w, -1),
        )
        return x + torch.cat(tables, dim=-1)


class AudioPositions(nn.Module):
    """(B, F, T, D) -> the same plus learned positions: frequency | time along the channels."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.freq_embed = nn.Embedding(grid[0], dim - dim // 2)
        self.time_embed = nn.Embedding(grid[1], dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T, D) -> (B, F, T, D)."""
        f, t = x.shape[1:3]
        tables = (
            self.freq_embed.weight[:f, None].expand(-1, t, -1),
            self.time_embed.weight[None, :t].expand(f, -1, -1),
        )
        return x + torch.cat(tables, dim=-1)


class QueryPositions(nn.Module):
    """(n, D) queries -> the same plus learned positions."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.time_embed = nn.Embedding(n, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) -> (n, D)."""
        return x + self.time_embed.weight


class Selector(nn.Module):
    """(B, L, D) tokens of one modality -> (B, n, D): n learned queries attend to them through CrossBlocks."""

    def __init__(self, dim: int, heads: int, layers: int, n: int) -> None:
        super().__init__()
        self.selectors = nn.Parameter(torch.randn(n, dim))
        self.selectors_pos_emb = QueryPositions(n, dim)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(CrossBlock(dim, heads) for _ in range(layers))

    def forward(self, context: Tensor) -> Tensor:
        """``context`` (B, L, D) -> the queries' outputs (B, n, D)."""
        x = self.drop(self.selectors_pos_emb(self.selectors).expand(len(context), -1, -1))
        context = self.drop(context)
        for block in self.blocks:
            x = block(x, context)
        return x


class GlobalTransformer(nn.Module):
    """Visual and audio selectors (B, n, D) each -> (B, L, D), L = [OFF, (PASS,) visual, MOD, audio], no positions."""

    def __init__(self, dim: int, heads: int, layers: int, with_pass: bool = False) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.randn(1, 1, dim))
        if with_pass:
            self.PASS_tok = nn.Parameter(torch.randn(1, 1, dim))
        self.MOD_tok = nn.Parameter(torch.randn(1, 1, dim))
        self.with_pass = with_pass
        self.vis_in_lnorm, self.aud_in_lnorm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.ln_f = nn.LayerNorm(dim)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Visual and audio selectors (B, n, D) each -> (B, L, D), L = 2 n + 2, or 2 n + 3 with PASS."""
        parts = [self.OFF_tok, self.PASS_tok] if self.with_pass else [self.OFF_tok]
        sequence = [*parts, self.vis_in_lnorm(visual), self.MOD_tok, self.aud_in_lnorm(audio)]
        x = torch.cat([part.expand(len(visual), -1, -1) for part in sequence], dim=1)
        return self.ln_f(self.blocks(self.drop(x)))


class Fusion(nn.Module):
    """Bridge outputs (B, T, D, H, W) and (B, D, F, Ta) -> logits (B, n_classes)."""

    def __init__(
        self,
        dim: int = 512,
        heads: int = 8,
        layers: int = 3,
        visual_grid: tuple[int, int, int] = (16, 7, 7),
        audio_grid: tuple[int, int] = (9, 20),
        *,
        n_selectors: int = 16,
        n_classes: int = 21,
        with_pass: bool = False,
    ) -> None:
        super().__init__()
        self.pre_lnorm_vis, self.pre_lnorm_aud = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.vis_pos_emb = VisualPositions(dim, visual_grid)
        self.aud_pos_emb = AudioPositions(dim, audio_grid)
        self.v_selector = Selector(dim, heads, layers, n_selectors)
        self.a_selector = Selector(dim, heads, layers, n_selectors)
        self.global_transformer = GlobalTransformer(dim, heads, layers, with_pass)
        self.off_head = nn.Linear(dim, n_classes, bias=False)
        init_fusion(self)

    def sequence(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Bridge outputs -> (B, L, D), the global transformer's output; token 0 is OFF, token 1 PASS if it has one."""
        v = self.vis_pos_emb(self.pre_lnorm_vis(visual.permute(0, 1, 3, 4, 2))).flatten(1, 3)
        a = self.aud_pos_emb(self.pre_lnorm_aud(audio.permute(0, 2, 3, 1))).flatten(1, 2)
        return self.global_transformer(self.v_selector(v), self.a_selector(a))

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Bridge outputs (B, T, D, H, W) and (B, D, F, Ta) -> logits (B, n_classes), read from the OFF token."""
        return self.off_head(self.sequence(visual, audio)[:, 0])


class Bridge(nn.Module):
    """(B, T, C, H, W) -> (B, T, D, H, W): a 1x1x1 convolution and an exact GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bridge = nn.Sequential(nn.Conv3d(inputs, outputs, 1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, D, H, W)."""
        return self.bridge(x.transpose(1, 2)).transpose(1, 2)


class SparseSync(nn.Module, SnapshotPredictor):
    """SparseSync. Without arguments: 54,348,652 parameters, the published 21 classes and 5 s windows.

    ``forward``: picture (B, 125, 3, 224, 224) and spectrogram (B, 1, 257, 626 or 625), both as the front ends of
    :mod:`avbench.baselines.frontends` return them -> logits (B, 21). ``predict`` takes decoded media: uint8 frames and
    samples. ``encode_video`` and ``encode_audio`` accept either kind; ``fuse`` of their outputs equals ``predict``.

    ``width`` scales the picture encoder, ``dim`` is the fusion's width (the sound encoder's is ``dim / 8``); the grids
    are the encoders' output sizes: (frames, rows, columns) and (frequencies, frames).
    """

    frontend = FrontEnd(size=224, fit="crop", short_side=256)
    two_tower = True
    column_samples = 128
    description = "SparseSync, published size (S3D, ResNet-18, selectors, global transformer)"
    fusion: type[Fusion] = Fusion

    def __init__(
        self,
        *,
        n_classes: int = 21,
        width: float = 1.0,
        dim: int = 512,
        heads: int = 8,
        layers: int = 3,
        visual_grid: tuple[int, int, int] = (16, 7, 7),
        audio_grid: tuple[int, int] = (9, 20),
    ) -> None:
        super().__init__()
        self.vfeat_extractor: S3D | FastS3D = S3D(width)
        self.afeat_extractor = ResNet18(dim // 8)
        self.v_bridge = Bridge(self.vfeat_extractor.channels, dim)
        self.transformer = self.fusion(dim, heads, layers, visual_grid, audio_grid, n_classes=n_classes)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Picture (B, 125, 3, 224, 224) and spectrogram (B, 1, 257, 626 or 625), both normalised -> logits (B, 21)."""
        return self.transformer(self.encode_video(video), self.encode_audio(audio))

    def encode_video(self, video: Tensor) -> Tensor:
        """(B, T, 3, 224, 224), decoded (uint8) or normalised (floating point) -> (B, T', D, 7, 7)."""
        if video.dtype == torch.uint8:
            video = frontends.normalise_video(video).to(self.transformer.off_head.weight)
        return self.v_bridge(self.vfeat_extractor(video))

    def encode_audio(self, audio: Tensor) -> Tensor:
        """(B, N) samples or (B, 1, 257, Ta) spectrogram -> (B, D, 9, 20)."""
        if audio.ndim == 2:
            audio = frontends.window_spectrogram(audio).to(self.transformer.off_head.weight)
        return self.afeat_extractor(audio)

    def stretch_sound(self, audio: Tensor) -> Tensor:
        """(N,) samples of a whole stretch -> (1, 257, 1 + N // 128) spectrogram; a window has 625 columns of it."""
        return frontends.sparsesync_audio(audio).to(self.transformer.off_head.weight)

    def fuse(self, video_features: Tensor, audio_features: Tensor) -> Snapshot:
        """What ``encode_video`` and ``encode_audio`` return -> a snapshot with logits (B, 21), without a token."""
        return Snapshot(self.transformer(video_features, audio_features))

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """(B, 125, 3, 224, 224) uint8 and (B, 80000) float32 samples, or a spectrogram as in ``encode_audio`` -> a
        snapshot with logits (B, 21)."""
        return self.fuse(self.encode_video(video), self.encode_audio(audio))


Model = TypeVar("Model", bound=SparseSync)


def fast(model: Model, trunk_dtype: torch.dtype | None = None) -> Model:
    """An inference copy of a SparseSync or StreamSync: the same logits to rounding, about three times faster on a CPU.

    ``trunk_dtype`` (``torch.bfloat16``) makes the picture encoder compute in another precision; that changes the logits
    and must be reported with them. The copy shares no weight with ``model`` and cannot be trained or saved under the
    published keys. ``UsageError`` for a fast copy or a model in training mode.
    """
    if not isinstance(model.vfeat_extractor, S3D):
        raise UsageError("this model is already a fast copy")
    if model.training:
        raise UsageError("call eval() before fast(): the copy has the BatchNorm folded in")
    # the deep copy's memo: these parts are replaced instead of copied
    replaced = {
        id(model.vfeat_extractor): FastS3D(model.vfeat_extractor, trunk_dtype),
        id(model.afeat_extractor): fast_resnet(model.afeat_extractor),
    }
    return copy.deepcopy(model, replaced).requires_grad_(False)
