"""Training of the mini backbones on freshly rendered scenes.

SparseSync-like: cross-entropy on offsets, first on talking heads only ("pt"), then on all categories ("ft").
Synchformer-like: first the segment towers with a contrastive loss (S1), then, with frozen towers, the fusion (S2).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.families import families
from avbench.baselines.mini import LogMel, MiniBackbone, MiniSynchformer
from avbench.data.scenes import DIFFICULTIES, STANDARD, Difficulty
from avbench.training.common import (
    Say,
    optimise,
    read_checkpoint,
    save_checkpoint,
    signature_of,
    tell_numbers,
    tell_step,
    validated,
)
from avbench.training.pool import Batch, Material, Pool, PoolSize, draw_batch, render_material
from avbench.types import CATEGORIES, OffsetGrid

VALID_SEED = 2_000_000
VALID_SCENES = 36
TRAIN_SEED = 10_000_000
POOL = PoolSize(duration_s=40.0, size=384, warm=96)


@dataclass(frozen=True)
class BackboneRecipe:
    """``kind``: the family whose mini model is trained, "sparsesync" or "synchformer". ``init``: the recipe whose
    weights it starts from, "" for random ones.

    ``difficulty``: of the scenes, a name in ``scenes.DIFFICULTIES``.
    ``contrastive_steps`` (S1) come before ``steps``. ``offsets``: sound windows per picture window. ``warmup``: steps.
    ``ema``: decay of the averaged weights, which are the result.
    """

    name: str
    kind: str
    steps: int
    seed: int = 0
    init: str = ""
    categories: tuple[str, ...] = CATEGORIES
    contrastive_steps: int = 0
    batch: int = 16
    offsets: int = 4
    lr: float = 1.5e-3
    warmup: int = 60
    ema: float = 0.995
    checkpoint_every: int = 100
    validate_every: int = 200
    difficulty: str = STANDARD.name


def to_luma(picture: Tensor) -> Tensor:
    """Decoded Y plane (uint8, limited range) -> float32 luma in [-0.5, 0.5], as the model computes it from RGB."""
    return (picture.float() - 16) / 219 - 0.5


def classes_of(offset_s: np.ndarray) -> Tensor:
    """Offsets in seconds, any shape -> (N,) int64 offset classes."""
    grid = OffsetGrid()
    return torch.tensor([grid.class_of(float(x)) for x in offset_s.ravel()])


def prepare(model: MiniBackbone, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, 125, 64, 64), standardised log-mels (B * K, n_mels, 500), classes (B * K,)."""
    mel = model.logmel(torch.from_numpy(batch.sound).flatten(0, 1))
    picture = to_luma(torch.from_numpy(batch.picture))
    return picture, LogMel.standardise(mel, LogMel.statistics(mel)), classes_of(batch.offset_s)


def sync_loss(model: MiniBackbone, batch: Batch, frozen_towers: bool) -> tuple[Tensor, float]:
    """Cross-entropy of the snapshot plus half that of the correlation alone (auxiliary); and the batch accuracy."""
    picture, mel, labels = prepare(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(not frozen_towers):
            video, audio = model.video_features(picture), model.audio_features(mel)
        logits, _, _, aux = model.fusion(video.repeat_interleave(batch.sound.shape[1], 0), audio)
    target = neighbour_smoothed(labels)
    loss = F.cross_entropy(logits.float(), target) + 0.5 * F.cross_entropy(aux.float(), target)
    return loss, float((logits.argmax(-1) == labels).float().mean())


def contrastive_loss(model: MiniSynchformer, batch: Batch) -> tuple[Tensor, float]:
    """S1: each segment's picture must find its own sound among all segments of the batch; and how often it does."""
    picture, mel, _ = prepare(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        video, audio = model.segment_video(picture).flatten(1), model.segment_audio(mel).flatten(1)
    video, audio = (F.normalize(x.float() - x.float().mean(0), dim=-1) for x in (video, audio))
    scores = video @ audio.T / 0.07
    target = torch.arange(len(scores))
    loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    return loss, float((scores.argmax(-1) == target).float().mean())


def validation_batches(difficulty: Difficulty = STANDARD) -> list[Batch]:
    """Eight windows of each validation scene, the same every time."""
    rng = np.random.default_rng(7)
    batches = []
    for number in range(VALID_SCENES):
        scene = render_material(
            number, base_seed=VALID_SEED, categories=CATEGORIES, duration_s=40.0, difficulty=difficulty
        )
        batches.append(draw_batch([scene], rng, 4, 2))
    return batches


@torch.inference_mode()
def validate(model: MiniBackbone, batches: list[Batch]) -> dict[str, float]:
    """Cross-entropy ("ce"), accuracy, +-1 accuracy and accuracy per category on the validation windows.

    Leaves ``model`` in training mode.
    """
    model.eval()
    logits, labels = [], []
    for batch in batches:
        picture, mel, classes = prepare(model, batch)
        video = model.video_features(picture).repeat_interleave(batch.sound.shape[1], 0)
        logits.append(model.fusion(video, model.audio_features(mel))[0])
        labels.append(classes)
    model.train()
    x, y = torch.stack(logits), torch.stack(labels)
    hit = (x.argmax(-1) == y).float()
    scores = {"ce": float(F.cross_entropy(x.flatten(0, 1), y.flatten())), "acc": float(hit.mean())}
    scores["tol1"] = float(((x.argmax(-1) - y).abs() <= 1).float().mean())
    for i, name in enumerate(CATEGORIES):
        scores[name] = float(hit[i::3].mean())
    return {k: round(v, 4) for k, v in scores.items()}


class _Training:
    """Model, averaged model, optimiser, step and log of one training, read back from its checkpoint if there is one.

    ``seconds``: wall time spent before the checkpoint was written.
    """

    def __init__(self, recipe: BackboneRecipe, path: Path, start: dict[str, Tensor] | None) -> None:
        torch.manual_seed(recipe.seed)
        cls = families()[recipe.kind].mini_class()
        self.path, self.signature = path, signature_of(recipe)
        self.model, self.average = cls(), cls()
        if start is not None:
            self.model.load_state_dict(start)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=recipe.lr, weight_decay=0.01)
        self.log: list[dict[str, float]] = []
        self.step, self.seconds = 0, 0.0
        if saved := read_checkpoint(path, self.signature):
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds, self.log = saved["step"], saved["seconds"], saved["log"]

    def save(self, seconds: float) -> None:
        state = {"recipe": self.signature, "model": self.model.state_dict(), "log": self.log, "step": self.step}
        state |= {"average": self.average.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(self.path, state | {"seconds": seconds})


def train_backbone(
    recipe: BackboneRecipe, work: Path, start: dict[str, Tensor] | None, say: Say
) -> tuple[MiniBackbone, list[dict[str, float]]]:
    """Train to the end, continuing from the checkpoint in ``work`` if there is one; returns the averaged model and the
    log.

    ``start``: state dict to start from, or None. ``UsageError`` if the checkpoint belongs to another recipe.
    """
    training = _Training(recipe, work / f"{recipe.name}.ckpt", start)
    model, average, log = training.model, training.average, training.log
    step, total = training.step, recipe.contrastive_steps + recipe.steps
    if step:
        say(f"{recipe.name}: continuing at step {step}")
    difficulty = DIFFICULTIES[recipe.difficulty]
    batches = validation_batches(difficulty)
    seed = TRAIN_SEED + 1_000_000 * recipe.seed
    pool = Pool(POOL, base_seed=seed, categories=recipe.categories, first_step=step, difficulty=difficulty)
    model.train()
    began = time.monotonic()
    hits: list[float] = []  # batch accuracies since the last line
    try:
        while step < total:
            contrastive = step < recipe.contrastive_steps
            loss, hit = _loss(recipe, step, model, pool.at(step))
            optimise(loss, model, training.optimizer, _rate(step, recipe))
            _average(average, model, min(recipe.ema, (step + 1) / (step + 10)))
            training.step = step = step + 1
            hits.append(hit)
            tell_step(say, step, total)
            if step % 50 == 0 or step == total:
                say(
                    f"{recipe.name} step {step}/{total} loss {float(loss.detach()):.3f} "
                    f"batch acc {np.mean(hits):.3f} {time.monotonic() - began:.0f} s"
                )
                numbers = {"step": step, "loss": float(loss.detach()), "batch_acc": float(np.mean(hits))}
                tell_numbers(say, numbers, f"{recipe.name}/")
                hits = []
            if (step % recipe.validate_every == 0 and not contrastive) or step == total:
                scores = validate(average, batches) | {"step": step}
                log.append(scores)
                tell_numbers(say, scores, f"{recipe.name}/")
                say(f"{recipe.name} step {step}/{total}: {validated(scores)}")
            if step % recipe.checkpoint_every == 0 or step == total:
                training.save(training.seconds + time.monotonic() - began)
    finally:
        pool.close()
    log.append({"step": step, "wall_s": round(training.seconds + time.monotonic() - began)})
    return average.eval(), log


def _loss(recipe: BackboneRecipe, step: int, model: MiniBackbone, scenes: Sequence[Material]) -> tuple[Tensor, float]:
    """Loss and accuracy on the batch of one step."""
    rng = np.random.default_rng([recipe.seed, step, 1])
    if step < recipe.contrastive_steps:
        batch = draw_batch(scenes, rng, recipe.batch, 1, max_shift=0)
        return contrastive_loss(model, batch)  # type: ignore[arg-type]
    batch = draw_batch(scenes, rng, recipe.batch, recipe.offsets)
    return sync_loss(model, batch, frozen_towers=recipe.contrastive_steps > 0)


def _rate(step: int, recipe: BackboneRecipe) -> float:
    """Linear warm-up, then cosine to 2 % within each stage."""
    if step < recipe.contrastive_steps:
        begin, length = 0, recipe.contrastive_steps
    else:
        begin, length = recipe.contrastive_steps, recipe.steps
    done = step - begin
    decay = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done / max(length, 1)))
    return float(recipe.lr * min((done + 1) / recipe.warmup, 1) * decay)


@torch.no_grad()
def _average(average: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)
