"""A streaming token for backbones that have none of their own, so that any head works with any backbone.

The published StreamSync token is a learned map of the probability-weighted offset embedding and two transformer
outputs. A backbone that gives logits only (SparseSync, Synchformer, a user's model) has no such outputs. The adapter
makes its token from the probabilities alone, with a fixed map, so that snapshots do not change and serve every head. It
is not part of any paper; the model card of a run says that it was used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from avbench.types import Snapshot, StreamingHead, UsageError

SMALLEST_LOG = -12.0  # log-probabilities are cut off here: differences below this are ignored
DESCRIPTION = "made from the probabilities by a fixed map (avbench.baselines.adapter)"
TRAINED = "made from the probabilities by a map trained with the head"


def features(logits: Tensor) -> Tensor:
    """(..., C) logits -> (..., 2 C): log-probabilities (cut off, divided by 4, mean removed) and 4 x probabilities.

    Both, because heads begin with a LayerNorm: it removes their scale but not their ratio, which carries the backbone's
    confidence.
    """
    log_probability = logits.log_softmax(-1)
    clipped = log_probability.clamp(min=SMALLEST_LOG) / 4
    return torch.cat([clipped - clipped.mean(-1, keepdim=True), 4 * log_probability.exp()], dim=-1)


def fixed_map(n_classes: int, dim: int) -> Tensor:
    """(dim, 2 C) float32: its columns are the first 2 C cosines over ``dim`` points, orthonormal and with zero mean.

    ``UsageError`` if the token is too narrow for the features.
    """
    if dim <= 2 * n_classes:
        raise UsageError(f"a token made from {n_classes} probabilities needs a width above {2 * n_classes}, not {dim}")
    point = torch.arange(dim, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(1, 2 * n_classes + 1, dtype=torch.float64)
    return (math.sqrt(2 / dim) * torch.cos(math.pi * point * order / dim)).float()


class AdaptedHead(nn.Module, StreamingHead):
    """A learned head that gets tokens made from the snapshot's logits; the snapshot's own token is not used.

    ``weight`` (D, 2 C) and ``bias`` (D,) replace the fixed map if one was trained with the head. ``learn`` makes them
    parameters, so that training changes them, starting from the fixed map.
    """

    needs_token = False

    def __init__(
        self,
        head: Any,
        dim: int,
        n_classes: int = 21,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        learn: bool = False,
    ) -> None:
        super().__init__()
        self.head = head
        self.weight: Tensor
        self.bias: Tensor
        keep = self.register_buffer if not learn else (lambda name, x: setattr(self, name, nn.Parameter(x)))
        keep("weight", fixed_map(n_classes, dim) if weight is None else weight)
        keep("bias", torch.zeros(dim) if bias is None else bias)
        if self.weight.shape != (dim, 2 * n_classes) or self.bias.shape != (dim,):
            raise UsageError(
                f"the trained adapter is {tuple(self.weight.shape)} and {tuple(self.bias.shape)}; the head needs "
                f"{(dim, 2 * n_classes)} and {(dim,)}"
            )
        self.token_source = TRAINED if learn or weight is not None else DESCRIPTION

    def token(self, logits: Tensor) -> Tensor:
        """Logits (B, C) -> token (B, D)."""
        return nn.functional.linear(features(logits.to(self.weight)), self.weight, self.bias)

    def init(self, batch: int) -> Any:
        """The inner head's state before the first window of ``batch`` streams."""
        return self.head.init(batch)

    def step(self, state: Any, snapshot: Snapshot, time_s: float) -> tuple[Any, Tensor]:
        """One step of the inner head: logits (B, 21), on a token made from ``snapshot.logits`` (B, 21)."""
        return self.head.step(state, Snapshot(snapshot.logits, self.token(snapshot.logits)), time_s)
