"""Synchformer at full size: MotionFormer and AST segment encoders, sync transformer (Iashin et al. 2024).

Every layer, key and constant equals the published model; a published checkpoint loads with ``strict=True``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avbench.baselines import frontends
from avbench.baselines.blocks import Block, init_fusion
from avbench.types import FrontEnd, SegmentLayout, Snapshot, SnapshotPredictor

N_SEGMENTS = frontends.N_SEGMENTS


def _heads(x: Tensor, n: int) -> Tensor:
    """(..., L, D) -> (..., n, L, D / n): heads are contiguous channel slices."""
    return x.unflatten(-1, (n, -1)).transpose(-3, -2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(..., heads, L, d) -> (..., L, heads d)."""
    return F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)


class Aggregator(nn.TransformerEncoderLayer):
    """(N, L, D) -> (N, D): a learned token attends to the others in one pre-norm layer; only its output is computed."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, 4 * dim, 0.0, F.gelu, layer_norm_eps=1e-6, batch_first=True, norm_first=True)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        _trunc_normal(self)

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        """(N, L, D) tokens -> (N, D), the output of the learned token."""
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        attention, y = self.self_attn, self.norm1(x)
        weight, bias, dim = attention.in_proj_weight, attention.in_proj_bias, y.shape[-1]
        q = F.linear(y[:, :1], weight[:dim], bias[:dim])
        k, v = F.linear(y, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        read = _attend(*(_heads(z, attention.num_heads) for z in (q, k, v)))
        cls = x[:, 0] + attention.out_proj(read[:, 0])
        return cls + self.linear2(self.activation(self.linear1(self.norm2(cls))))


def _trunc_normal(module: nn.Module) -> None:
    """The published initialisation of the encoders: truncated N(0, 0.02) weights and zero biases."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)


# ------------------------------------------------------------------------------------------------------------- picture


class DividedAttention(nn.Module):
    """Attention within groups of patches; the CLS token attends to all patches, and all attend to it.

    A group is the patches at one place in all frames (``over_time``) or all patches of one frame.
    """

    def __init__(self, dim: int, heads: int, over_time: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.n_heads, self.over_time = heads, over_time

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        """(N, 1 + n_frames x places, D), CLS first -> the same shape."""
        q, k, v = (_heads(z, self.n_heads) for z in self.qkv(x).chunk(3, dim=-1))
        cls = _attend(q[:, :, :1], k, v)

        def grouped(z: Tensor) -> Tensor:  # (N, heads, L, d) -> (N, groups, heads, members, d)
            z = z[:, :, 1:].unflatten(2, (n_frames, -1))
            return z.permute(0, 3, 1, 2, 4) if self.over_time else z.permute(0, 2, 1, 3, 4)

        def with_cls(z: Tensor) -> Tensor:
            groups = grouped(z)
            return torch.cat([z[:, None, :, :1].expand(-1, groups.shape[1], -1, -1, -1), groups], dim=3)

        patches = _attend(*(z.flatten(0, 1) for z in (grouped(q), with_cls(k), with_cls(v)))).unflatten(0, (len(x), -1))
        if self.over_time:
            patches = patches.transpose(1, 2)
        return self.proj(torch.cat([cls, patches.flatten(1, 2)], dim=1))


class DividedBlock(nn.Module):
    """x += time attention(norm3); x += space attention(norm1); x += mlp(norm2)."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DividedAttention(dim, heads, over_time=False)
        self.timeattn = DividedAttention(dim, heads, over_time=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.drop_path = drop_path

    def _kept(self, x: Tensor) -> Tensor:
        """Stochastic depth in training: drops the branch for whole samples."""
        if not self.training or not self.drop_path:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * keep / (1 - self.drop_path)

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        """(N, 1 + n_frames x places, D), CLS first -> the same shape."""
        x = x + self._kept(self.timeattn(self.norm3(x), n_frames))
        x = x + self._kept(self.attn(self.norm1(x), n_frames))
        return x + self._kept(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class MotionFormer(nn.Module):
    """(N, 16, 3, 224, 224) segments in [-1, 1] -> (N, 8, D): a divided space-time ViT-B and a spatial aggregation."""

    def __init__(
        self, dim: int = 768, layers: int = 12, heads: int = 12, size: int = 224, frames: int = 16, patch: int = 16
    ) -> None:
        super().__init__()
        places = (size // patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, dim))
        self.temp_embed = nn.Parameter(torch.zeros(1, frames // 2, dim))
        # unused: published checkpoints contain the 2-D embedding of the image model they started from
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, dim, (2, patch, patch), (2, patch, patch))})
        rates = [0.2 * i / max(layers - 1, 1) for i in range(layers)]
        self.blocks = nn.ModuleList(DividedBlock(dim, heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        _trunc_normal(self)
        nn.init.zeros_(self.temp_embed)
        nn.init.zeros_(self.patch_embed_3d.get_parameter("proj.weight"))
        self.spatial_attn_agg = Aggregator(dim, heads)

    def forward(self, segments: Tensor) -> Tensor:
        """(N, T, 3, size, size) segments in [-1, 1] -> (N, T / 2, D)."""
        patches = self.patch_embed_3d["proj"](segments.transpose(1, 2)).flatten(3)  # (N, D, T, places)
        n, _, t, _ = patches.shape
        patches = patches.permute(0, 2, 3, 1) + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(n, -1, -1)
        x = torch.cat([cls, patches.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x, t)
        x = self.norm(x[:, 1:]).unflatten(1, (t, -1))
        return self.spatial_attn_agg(x.flatten(0, 1)).unflatten(0, (n, t))


# --------------------------------------------------------------------------------------------------------------- sound


class ASTLayer(nn.Module):
    """Pre-norm transformer layer with the key names of the published audio spectrogram transformer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "attention": nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(dim, dim)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, 4 * dim)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * dim, dim)})
        self.layernorm_before = nn.LayerNorm(dim, eps=1e-12)
        self.layernorm_after = nn.LayerNorm(dim, eps=1e-12)
        self.n_heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        y, part = self.layernorm_before(x), self.attention.get_submodule
        q, k, v = (_heads(part(f"attention.{name}")(y), self.n_heads) for name in ("query", "key", "value"))
        x = x + part("output.dense")(_attend(q, k, v))
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


class ASTEmbeddings(nn.Module):
    """(N, 1, 128, 66) mel -> (N, 2 + 72, D): CLS, distillation token, patches with the frequency varying slowest."""

    def __init__(self, dim: int, n_patches: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + n_patches, dim))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, dim, 16, 10)})

    def forward(self, mel: Tensor) -> Tensor:
        """(N, 1, 128, 66) mel -> (N, 2 + n_patches, D)."""
        patches = self.patch_embeddings["projection"](mel).flatten(2).transpose(1, 2)
        tokens = (token.expand(len(mel), -1, -1) for token in (self.cls_token, self.distillation_token))
        return torch.cat([*tokens, patches], dim=1) + self.position_embeddings


class AST(nn.Module):
    """(N, 1, 128, 66) mel of segments -> (N, 6, D): audio spectrogram transformer and an aggregation over frequency."""

    def __init__(self, dim: int = 768, layers: int = 12, heads: int = 12, grid: tuple[int, int] = (12, 6)) -> None:
        super().__init__()
        self.ast = nn.ModuleDict(
            {
                "embeddings": ASTEmbeddings(dim, grid[0] * grid[1]),
                "encoder": nn.ModuleDict({"layer": nn.Sequential(*(ASTLayer(dim, heads) for _ in range(layers)))}),
                "layernorm": nn.LayerNorm(dim, eps=1e-12),
            }
        )
        _trunc_normal(self)
        for name in ("cls_token", "distillation_token", "position_embeddings"):
            nn.init.zeros_(getattr(self.ast["embeddings"], name))
        self.freq_attn_agg = Aggregator(dim, heads)
        self.grid = grid

    def forward(self, mel: Tensor) -> Tensor:
        """(N, 1, 128, 66) mel -> (N, 6, D), one feature per time step."""
        x = self.ast.get_submodule("encoder.layer")(self.ast["embeddings"](mel))
        x = self.ast["layernorm"](x)[:, 2:].unflatten(1, self.grid).transpose(1, 2)  # (N, time, frequency, D)
        return self.freq_attn_agg(x.flatten(0, 1)).unflatten(0, (len(mel), -1))


# -------------------------------------------------------------------------------------------------------------- fusion


class Positions(nn.Module):
    """(B, length, D) -> the same plus learned positions."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.randn(1, length, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, length, D) -> (B, length, D)."""
        return x + self.pos_emb


class SyncTransformer(nn.Module):
    """Projected tokens (B, 112, D) and (B, 84, D) -> logits; sequence [OFF, visual, MOD, audio] with positions."""

    def __init__(self, dim: int, heads: int, layers: int, length: int, n_classes: int, head: str) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.randn(1, 1, dim))
        self.MOD_tok = nn.Parameter(torch.randn(1, 1, dim))
        self.vis_in_lnorm, self.aud_in_lnorm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.pos_emb_cfg = Positions(length, dim)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.ln_f = nn.LayerNorm(dim)
        self.add_module(head, nn.Linear(dim, n_classes))
        self.head = head
        init_fusion(self)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Visual (B, 112, D) and audio (B, 84, D) tokens -> logits (B, n_classes), read from the OFF token."""
        sequence = self.OFF_tok, self.vis_in_lnorm(visual), self.MOD_tok, self.aud_in_lnorm(audio)
        x = torch.cat([part.expand(len(visual), -1, -1) for part in sequence], dim=1)
        x = self.ln_f(self.blocks(self.drop(self.pos_emb_cfg(x))))
        return self.get_submodule(self.head)(x[:, 0])


class Synchformer(nn.Module, SnapshotPredictor):
    """Synchformer. Without arguments: 237,460,245 parameters, the published 21 classes and 14 segments of 0.64 s.

    ``forward``: picture (B, 14, 16, 3, 224, 224) and mel (B, 14, 1, 128, 66), both as the front ends of
    :mod:`avbench.baselines.frontends` return them -> logits (B, 21). ``predict`` takes decoded media: uint8 frames and
    samples. ``encode_video`` and ``encode_audio`` accept either kind; ``fuse`` of their outputs equals ``predict``.

    ``head``: "off_head", or "sync_head" for the published 2-class synchronisability model (``n_classes=2``), whose
    output is not an offset. ``size``: of the picture in pixels; ``layers`` and ``heads``: of the encoders.
    """

    frontend = FrontEnd(size=224, fit="crop", short_side=256)
    two_tower = True
    segment_layout = SegmentLayout(N_SEGMENTS, frontends.SEGMENT_FRAMES, frontends.SEGMENT_STEP_FRAMES)
    description = "Synchformer, published size (MotionFormer, AST, sync transformer)"

    def __init__(
        self,
        *,
        n_classes: int = 21,
        head: str = "off_head",
        dim: int = 768,
        layers: int = 12,
        heads: int = 12,
        size: int = 224,
        n_segments: int = N_SEGMENTS,
    ) -> None:
        super().__init__()
        self.vfeat_extractor = MotionFormer(dim, layers, heads, size)
        self.afeat_extractor = AST(dim, layers, heads)
        self.vproj, self.aproj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        length = 2 + n_segments * (frontends.SEGMENT_FRAMES // 2 + self.afeat_extractor.grid[1])
        self.transformer = SyncTransformer(dim, 8, 3, length, n_classes, head)
        # on a CPU, one segment of picture at a time is 25 % faster than all at once: its activations stay in the cache
        self.segments_at_once: int | None = None

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """Picture (B, 14, 16, 3, 224, 224) and mel (B, 14, 1, 128, 66), both normalised -> logits (B, n_classes)."""
        return self.transformer(self.encode_video(video), self.encode_audio(audio))

    def encode_video(self, video: Tensor) -> Tensor:
        """Decoded (B, 125, 3, 224, 224) uint8, or normalised (B, 14, 16, 3, 224, 224) -> (B, 112, D)."""
        segments = frontends.segment_video(video) if video.dtype == torch.uint8 else video
        features = self.encode_video_segments(segments.flatten(0, 1))
        return features.unflatten(0, segments.shape[:2]).flatten(1, 2)

    def encode_audio(self, audio: Tensor) -> Tensor:
        """(B, 80000) samples, or (B, 14, 1, 128, 66) mel -> (B, 84, D)."""
        segments = frontends.segment_audio(audio) if audio.ndim == 2 else audio
        features = self.encode_audio_segments(segments.flatten(0, 1))
        return features.unflatten(0, segments.shape[:2]).flatten(1, 2)

    def encode_video_segments(self, segments: Tensor) -> Tensor:
        """Single segments (N, 16, 3, size, size), decoded uint8 or normalised float -> (N, 8, D)."""
        raw, features = segments.dtype == torch.uint8, []
        for part in self._parts(segments):
            part = frontends.half_normalise(part) if raw else part
            features.append(self.vproj(self.vfeat_extractor(part.to(self.vproj.weight))))
        return torch.cat(features)

    def encode_audio_segments(self, segments: Tensor) -> Tensor:
        """Single segments, (N, 10240) samples or (N, 1, 128, 66) mel -> (N, 6, D)."""
        raw, features = segments.ndim == 2, []
        for part in self._parts(segments):
            part = frontends.segment_mel(part) if raw else part
            features.append(self.aproj(self.afeat_extractor(part.to(self.aproj.weight))))
        return torch.cat(features)

    def _parts(self, segments: Tensor) -> tuple[Tensor, ...]:
        """What is encoded at once. One by one, as on a CPU, a segment's features are the same bytes whatever others are
        asked for with it."""
        at_once = self.segments_at_once or (1 if segments.device.type == "cpu" else len(segments))
        return segments.split(at_once)

    def fuse_segments(self, video: Tensor, audio: Tensor) -> Snapshot:
        """Any 14 encoded segments in the order of time, (B, 14, 8, D) and (B, 14, 6, D) -> a snapshot. Of the segments
        of one window it equals ``predict``."""
        return self.fuse(video.flatten(1, 2), audio.flatten(1, 2))

    def fuse(self, video_features: Tensor, audio_features: Tensor) -> Snapshot:
        """Features (B, 112, D) and (B, 84, D) -> a snapshot with logits (B, n_classes), without a token."""
        return Snapshot(self.transformer(video_features, audio_features))

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """(B, 125, 3, 224, 224) uint8 and (B, 80000) float32 samples -> a snapshot with logits (B, n_classes)."""
        return self.fuse(self.encode_video(video), self.encode_audio(audio))
