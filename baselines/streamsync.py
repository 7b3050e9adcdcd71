"""StreamSync: the streaming token, the two streaming heads (paper sec. 4) at any width, and the full-size model.

The heads read one streaming token per window and refine the prediction using those of earlier windows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from avbench.baselines.blocks import Block, init_fusion, put_last
from avbench.baselines.sparsesync import Fusion, SparseSync
from avbench.types import Snapshot, StreamingHead, UsageError

HISTORY_WINDOWS = 48  # that the transformer remembers: the paper's longest streams, and those of the dynamic track


def streaming_token(offset_tok: Tensor, down_proj: nn.Linear, logits: Tensor, off: Tensor, passed: Tensor) -> Tensor:
    """(1, C, D) class embeddings, a (3 D -> D_token) layer, (B, C) logits, (B, D) OFF and PASS -> (B, D_token)."""
    expected = logits.softmax(-1) @ offset_tok[0]
    return down_proj(torch.cat([expected, off, passed], dim=-1))


class TokenMaker(nn.Module):
    """The streaming token: a linear map of [probability-weighted offset embedding, OFF output, PASS output].

    ``logits`` (B, 21), ``off`` (B, D), ``passed`` (B, D) -> (B, D_token).
    """

    def __init__(self, dim: int, token_dim: int | None = None, n_classes: int = 21) -> None:
        super().__init__()
        self.offset_tok = nn.Parameter(torch.randn(1, n_classes, dim))
        self.streaming_down_proj = nn.Linear(3 * dim, token_dim or dim)

    def forward(self, logits: Tensor, off: Tensor, passed: Tensor) -> Tensor:
        """Logits (B, 21), OFF output (B, D), PASS output (B, D) -> streaming token (B, D_token)."""
        return streaming_token(self.offset_tok, self.streaming_down_proj, logits, off, passed)


class RecencyEmbedding(nn.Module):
    """Sinusoids of the position counted back from the newest token, passed through a gated projection (published).

    ``length`` -> (length, dim); position 0 is the newest window; positions count windows, not seconds.
    """

    def __init__(self, dim: int, periodicity: float = 100.0) -> None:
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate_proj = nn.Linear(dim, dim)
        self.dim, self.periodicity = dim, periodicity

    def sinusoids(self, length: int) -> Tensor:
        """(length, dim) float32, made on the weights' device: copying it there would wait for all queued work."""
        device = self.gate_proj.weight.device
        position = torch.arange(length, dtype=torch.float32, device=device)
        even = torch.arange(0, self.dim, 2, dtype=torch.float32, device=device)
        frequency = torch.exp(even * (-math.log(10_000.0) / self.dim))
        angle = 2 * math.pi * position[:, None] * frequency / self.periodicity
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    def forward(self, length: int) -> Tensor:
        """(length, dim) embeddings, the newest window's first."""
        table = self.sinusoids(length).to(self.gate_proj.weight)
        return self.down_proj(torch.relu(self.gate_proj(table)) * self.up_proj(table))


class StreamingTransformer(nn.Module, StreamingHead):
    """StreamSync-Trf: a transformer over the streaming tokens so far (newest first) and an OFF token.

    State: the token history (B, H, D), newest first. From window 49 on, a step forgets the oldest token: H is at most
    ``HISTORY_WINDOWS``, so a step of a stream without end costs no more than the 48th. (The published code keeps all,
    and nobody has trained or measured beyond 48; positions count back from the newest window, so they stay as they
    were.) ``forward`` takes any length.
    """

    needs_token = True

    def __init__(self, dim: int = 512, heads: int = 8, layers: int = 3, n_classes: int = 21) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.randn(1, 1, dim))
        self.in_lnorm, self.ln_f = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.streaming_pos_emb_module = RecencyEmbedding(dim)
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.logit_head = nn.Linear(dim, n_classes)
        self.dim = dim
        init_fusion(self)

    def forward(self, history: Tensor) -> Tensor:
        """(B, H, D) tokens, newest first -> (B, n_classes) logits."""
        x = self.in_lnorm(history) + self.streaming_pos_emb_module(history.shape[1])
        x = torch.cat([self.OFF_tok.expand(len(x), -1, -1), x], dim=1)
        return self.logit_head(self.ln_f(self.blocks(self.drop(x)))[:, 0])

    def init(self, batch: int) -> Tensor:
        """An empty history (B, 0, D)."""
        return self.OFF_tok.new_zeros(batch, 0, self.dim)

    def step(self, state: Tensor, snapshot: Snapshot, time_s: float) -> tuple[Tensor, Tensor]:
        """History (B, H, D) and a snapshot with a token (B, D) -> history (B, min(H + 1, 48), D), logits (B,
        n_classes)."""
        history = torch.cat([snapshot.token[:, None], state[:, : HISTORY_WINDOWS - 1]], dim=1)
        return history, self(history)


class StreamingLSTM(nn.Module, StreamingHead):
    """StreamSync-LSTM: three LSTM layers fed one token per window; the latest hidden state is the memory.

    State: ``(h, c)``, each (layers, B, D), or None before the first window.
    """

    needs_token = True

    def __init__(self, dim: int = 512, layers: int = 3, n_classes: int = 21) -> None:
        super().__init__()
        self.in_lnorm, self.ln_f = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.lstm = nn.LSTM(dim, dim, num_layers=layers, dropout=0.1, batch_first=True)
        self.logit_head = nn.Linear(dim, n_classes)
        self.dim, self.layers = dim, layers

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """(B, W, D) tokens, oldest first -> (B, W, n_classes) logits of every step, and the final state."""
        out, state = self.lstm(self.in_lnorm(tokens), state)
        return self.logit_head(self.ln_f(out)), state

    def init(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zero hidden and cell states, (layers, B, D) each."""
        zeros = self.logit_head.weight.new_zeros(self.layers, batch, self.dim)
        return zeros, zeros

    def step(self, state: object, snapshot: Snapshot, time_s: float) -> tuple[object, Tensor]:
        """State and a snapshot with a token (B, D) -> new state, logits (B, n_classes); ``time_s`` is not used."""
        logits, state = self(snapshot.token[:, None], state)
        return state, logits[:, 0]


class StreamingFusion(Fusion):
    """SparseSync's fusion with a PASS token and the streaming token (paper sec. 4.1)."""

    def __init__(self, dim: int, heads: int, layers: int, *grids: Any, n_classes: int = 21) -> None:
        super().__init__(dim, heads, layers, *grids, n_classes=n_classes, with_pass=True)
        self.offset_tok = nn.Parameter(torch.randn(1, n_classes, dim))
        self.streaming_down_proj = nn.Linear(3 * dim, dim)
        init_fusion(self.streaming_down_proj)

    def snapshot(self, visual: Tensor, audio: Tensor) -> Snapshot:
        """Bridge outputs (B, T, D, H, W) and (B, D, F, Ta) -> logits (B, 21) and streaming token (B, D)."""
        return self.read(self.sequence(visual, audio))

    def read(self, sequence: Tensor) -> Snapshot:
        """The global transformer's output (B, L, D), which training may detach -> logits (B, 21) and token (B, D)."""
        off, passed = sequence[:, 0], sequence[:, 1]
        logits = self.off_head(off)
        return Snapshot(logits, streaming_token(self.offset_tok, self.streaming_down_proj, logits, off, passed))


class StreamSync(SparseSync):
    """StreamSync at published size: SparseSync with the streaming token, and a streaming head.

    ``head``: "trf" (65,404,289 parameters; keys, shapes and order equal the published state dict) or "lstm" (the
    paper gives no code or checkpoint for it). ``forward`` is one iteration; ``predict`` / ``encode_* / fuse`` make its
    snapshot, and ``streaming_head`` is a ``StreamingHead``. ``size``: reduced sizes as in ``SparseSync``.
    ``UsageError`` for another head.
    """

    description = "StreamSync, published size (SparseSync with a streaming token, and a streaming head)"
    fusion: type[Fusion] = StreamingFusion
    transformer: StreamingFusion
    streaming_head: StreamingTransformer | StreamingLSTM

    def __init__(self, head: str = "trf", *, dim: int = 512, n_classes: int = 21, **size: Any) -> None:
        if head not in ("trf", "lstm"):
            raise UsageError(f"StreamSync head is {head!r}; it must be 'trf' or 'lstm'")
        super().__init__(dim=dim, n_classes=n_classes, **size)
        self.token_dim = dim
        if head == "lstm":
            self.streaming_head = StreamingLSTM(dim, n_classes=n_classes)
        else:
            self.streaming_head = StreamingTransformer(dim, n_classes=n_classes)
            put_last(self.streaming_head, "blocks", "ln_f", "streaming_pos_emb_module", "logit_head")
            put_last(self.streaming_head.streaming_pos_emb_module, "gate_proj", "down_proj")

    def forward(  # type: ignore[override]
        self, video: Tensor, audio: Tensor, history: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One window and the tokens (B, H, D) before it, newest first -> streaming logits (B, 21), snapshot logits
        (B, 21) and the history (B, H + 1, D), newest first. Inputs as in ``SparseSync.forward``."""
        snapshot = self.fuse(self.encode_video(video), self.encode_audio(audio))
        token = snapshot.token[:, None]
        history = token if history is None else torch.cat([token, history], dim=1)
        if isinstance(self.streaming_head, StreamingLSTM):
            logits = self.streaming_head(history.flip(1))[0][:, -1]
        else:
            logits = self.streaming_head(history)
        return logits, snapshot.logits, history

    def fuse(self, video_features: Tensor, audio_features: Tensor) -> Snapshot:
        """What ``encode_video`` and ``encode_audio`` return -> logits (B, 21) and streaming token (B, D)."""
        return self.transformer.snapshot(video_features, audio_features)
