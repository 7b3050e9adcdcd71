"""Building blocks that SparseSync, StreamSync and Synchformer's sync transformer share (published key names)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with separate key, query, value and proj layers; ``context`` None is self-attention.

    (B, L, D) -> (B, L, D); heads are contiguous channel slices; no mask.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Queries ``x`` (B, L, D); keys and values from ``context`` (B, M, D), or from ``x`` if None -> (B, L, D)."""
        context = x if context is None else context
        q, k, v = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, x), (self.key, context), (self.value, context))
        )
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate).transpose(1, 2).flatten(2)
        return F.dropout(self.proj(y), rate, self.training)


def _mlp(dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout))


class Block(nn.Module):
    """Pre-norm transformer block: x += attn(ln1(x)); x += mlp(ln2(x))."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, dropout)
        self.mlp = _mlp(dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class CrossBlock(nn.Module):
    """Block with cross-attention to a context that is not normalised (used by the selectors)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.ln1, self.ln2, self.ln3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.xattn = Attention(dim, heads, dropout), Attention(dim, heads, dropout)
        self.mlp = _mlp(dim, dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens ``x`` (B, L, D) and ``context`` (B, M, D) -> (B, L, D)."""
        x = x + self.attn(self.ln1(x))
        x = x + self.xattn(self.ln2(x), context)
        return x + self.mlp(self.ln3(x))


def init_fusion(module: nn.Module) -> None:
    """The published initialisation of a fusion module: N(0, 0.02) weights, zero biases, unit LayerNorms."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)


def neighbour_smoothed(labels: Tensor, n_classes: int = 21, smoothing: float = 0.1) -> Tensor:
    """(N,) int64 classes -> (N, n_classes) targets: 0.1 / 0.8 / 0.1 inside, 0.9 / 0.1 at the edges (published)."""
    target = torch.zeros(len(labels), n_classes, device=labels.device)
    rows = torch.arange(len(labels), device=labels.device)
    target[rows, labels] = 1.0
    for side in (-1, 1):
        neighbour = labels + side
        inside = (neighbour >= 0) & (neighbour < n_classes)
        target[rows[inside], neighbour[inside]] += smoothing
        target[rows[inside], labels[inside]] -= smoothing
    return target


def put_last(module: nn.Module, *names: str) -> None:
    """Moves the named children to the end, in this order: a state dict then lists its keys in the published order."""
    for name in names:
        child = getattr(module, name)
        delattr(module, name)
        setattr(module, name, child)
