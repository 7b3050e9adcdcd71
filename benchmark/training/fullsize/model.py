"""The model in training: new parts on SparseSync weights, what is frozen, the pass over a batch, the loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from avbench.baselines import frontends
from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.families import layouts
from avbench.baselines.resnet import ResNet18, fast_resnet
from avbench.baselines.s3d import S3D, FastS3D
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamingLSTM, StreamSync
from avbench.ticks import TICKS_PER_FRAME
from avbench.training.fullsize.data import GRID, Example, spectrograms
from avbench.training.fullsize.recipe import FullSizeRecipe
from avbench.types import AvbenchError, UsageError, in_one_line
from avbench.weights.checkpoints import fit, renamed


def new_model(recipe: FullSizeRecipe) -> SparseSync:
    """A StreamSync (or, with head "none", a SparseSync) with random weights, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return layouts()[recipe.family].new_model(**recipe.size)


def check_size(recipe: FullSizeRecipe) -> None:
    """``UsageError`` unless ``size`` gives a model with 21 classes for the recipe's windows. Allocates no weights."""
    frames = recipe.window // TICKS_PER_FRAME
    try:
        audio = spectrograms(torch.zeros(recipe.heard), recipe)[:1].to("meta")
        with torch.device("meta"), torch.no_grad():
            model, video = new_model(recipe).eval(), torch.empty(1, frames, 3, recipe.crop, recipe.crop)
            n_classes = model.fuse(model.encode_video(video), model.encode_audio(audio)).logits.shape[-1]
    except Exception as error:  # wrong values can fail anywhere in torch
        raise UsageError(
            f"no model fits size={json.dumps(recipe.size)}, crop={recipe.crop} and window_s={recipe.window_s:g}: "
            f"{in_one_line(error)}"
        ) from error
    if n_classes != GRID.n_classes:
        raise UsageError(f"size={json.dumps(recipe.size)} makes {n_classes} classes; there are {GRID.n_classes}")


def new_parts(recipe: FullSizeRecipe) -> list[str]:
    """Names of the state entries that StreamSync adds to SparseSync: 63 with the transformer head."""
    with torch.device("meta"):
        old = SparseSync(**recipe.size).state_dict()
        return [name for name in new_model(recipe).state_dict() if name not in old]


def start_from(model: SparseSync, recipe: FullSizeRecipe, weights: Mapping[str, Tensor]) -> list[str]:
    """Load SparseSync weights into ``model``; returns the names of the entries they leave untouched (``new_parts``).

    ``AvbenchError`` with the missing, unexpected and misshapen entries if ``weights`` are not exactly a SparseSync's.
    """
    with torch.device("meta"):
        template = SparseSync(**recipe.size).state_dict()
    fitted, _ = fit(renamed(weights)[0], template, "SparseSync, which this training starts from")
    missing, unexpected = model.load_state_dict(fitted, strict=False)
    new = new_parts(recipe)
    if sorted(missing) != sorted(new) or unexpected:  # fit() has checked the weights: only a bug leads here
        raise AvbenchError(f"{len(missing)} entries have no weights, {len(new)} are new")
    return new


def set_mode(model: SparseSync, recipe: FullSizeRecipe, phase: int, new: list[str]) -> None:
    """Dropout on, BatchNorm as the recipe says; in phase 1 only the ``new`` parts get a gradient."""
    model.train()
    moving = recipe.phase1_norm == "drifting" if phase == 1 else recipe.phase2_norm == "batch"
    model.vfeat_extractor.train(moving)  # neither encoder has any dropout: this is BatchNorm alone
    model.afeat_extractor.train(moving)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(phase == 2 or name in new)


class Eyes:
    """The two encoders without a gradient; ``fast``: copies optimised for inference on a CPU."""

    def __init__(self, model: SparseSync, fast: bool) -> None:
        self.model = model
        trunk, ear = model.vfeat_extractor, model.afeat_extractor
        assert isinstance(trunk, S3D)
        self.trunk = FastS3D(trunk) if fast else trunk
        self.ear: ResNet18 = fast_resnet(ear) if fast else ear

    def __call__(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.model.v_bridge(self.trunk(video)), self.ear(audio)


def _seen_with_gradient(model: SparseSync, video: Tensor, recompute: bool) -> Tensor:
    """The picture encoder. ``recompute``: recompute activations in the backward pass, at a quarter of the memory."""
    assert isinstance(model.vfeat_extractor, S3D)
    x = video.transpose(1, 2)
    for part in model.vfeat_extractor.base:
        x = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False) if recompute else part(x)
    return model.v_bridge(x.transpose(1, 2))


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to ``dtype`` on ``device``; nothing for None."""
    # no cache: older torch reuses weights that were cast without a gradient, and the encoders then get none
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


def streams(
    model: SparseSync, eyes: Eyes, examples: list[Example], recipe: FullSizeRecipe, with_gradient: range, phase: int
) -> tuple[Tensor, Tensor | None]:
    """Snapshot logits (N, H, C) and streaming logits (N, H, C), the latter None without a head.

    ``with_gradient``: the windows that carry a gradient into encoders and fusion. In phase 1 every window carries one
    into the fusion (it contains the PASS token, which is trained) and none into the encoders. ``phase`` 0: no gradient.
    """
    device = model.transformer.off_head.weight.device
    logits, tokens = [], []
    recompute = not model.vfeat_extractor.training  # a second pass would count twice in BatchNorm's statistics
    span, hop = recipe.window // TICKS_PER_FRAME, recipe.hop // TICKS_PER_FRAME
    for i in range(recipe.windows):
        raw = torch.stack([e.video[i * hop : i * hop + span] for e in examples]).to(device)
        video, audio = frontends.normalise_video(raw), torch.stack([e.sound[i] for e in examples]).to(device)
        if recipe.half_inputs:
            video, audio = video.half().float(), audio.half().float()
        if i in with_gradient:
            seen, heard = _seen_with_gradient(model, video, recompute), model.afeat_extractor(audio)
        else:
            seen, heard = eyes(video, audio)
        with torch.set_grad_enabled(phase == 1 or i in with_gradient):
            sequence = model.transformer.sequence(seen, heard)
        if isinstance(model, StreamSync):
            snapshot = model.transformer.read(sequence)
            tokens.append(snapshot.token)
            logits.append(snapshot.logits)
        else:
            logits.append(model.transformer.off_head(sequence[:, 0]))
    if not isinstance(model, StreamSync):
        return torch.stack(logits, dim=1), None
    history = torch.stack(tokens, dim=1)
    if isinstance(model.streaming_head, StreamingLSTM):
        streaming = model.streaming_head(history)[0]
    else:
        head = model.streaming_head
        streaming = torch.stack([head(history[:, : i + 1].flip(1)) for i in range(recipe.windows)], dim=1)
    return torch.stack(logits, dim=1), streaming


def targets(labels: Tensor, recipe: FullSizeRecipe, n_classes: int) -> Tensor:
    """(N,) classes -> (N, n_classes) smoothed probabilities."""
    if recipe.smoothing_over == "neighbours":
        return neighbour_smoothed(labels, n_classes, recipe.smoothing)
    return F.one_hot(labels, n_classes) * (1 - recipe.smoothing) + recipe.smoothing / n_classes


def stream_loss(snapshot: Tensor, streaming: Tensor | None, target: Tensor, recipe: FullSizeRecipe) -> Tensor:
    """(N, H, C) logits of both kinds, (N, C) targets -> (N,) losses: the weighted mean over the windows.

    Cross-entropies, alpha x snapshot + beta x streaming; with ``early_windows`` "snapshot" the first K - 1 windows have
    only the snapshot term. Divided by the sum of the weights.
    """
    n, h = snapshot.shape[:2]

    def entropy(logits: Tensor) -> Tensor:
        wanted = target[:, None].expand(-1, h, -1).flatten(0, 1)
        return F.cross_entropy(logits.flatten(0, 1).float(), wanted.float(), reduction="none").view(n, h)

    if streaming is None:
        return entropy(snapshot).mean(1)
    weight = torch.full((h,), recipe.streaming_weight, device=snapshot.device)
    if recipe.early_windows == "snapshot":
        weight[: recipe.gradient_windows - 1] = 0
    total = recipe.snapshot_weight * entropy(snapshot) + weight * entropy(streaming)
    return total.sum(1) / (recipe.snapshot_weight * h + weight.sum())
