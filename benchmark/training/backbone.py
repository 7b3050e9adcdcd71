"""Training of the mini backbones on freshly rendered scenes.

SparseSync-like: cross-entropy on offsets, first on talking heads only ("pt"), then on everything ("ft").
Synchformer-like: first the segment towers contrastively (S1), then, with frozen towers, the synchronisation (S2).
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.mini import LogMel, MiniBackbone, MiniSparseSync, MiniSynchformer
from avbench.system.atomic import atomic_write_bytes
from avbench.training.pool import Batch, Pool, draw_batch, render_material
from avbench.types import CATEGORIES, OffsetGrid, UsageError

VALID_SEED = 2_000_000
VALID_SCENES = 36
TRAIN_SEED = 10_000_000
POOL = {"duration_s": 40.0, "size": 384, "warm": 96}


@dataclass(frozen=True)
class BackboneRecipe:
    """``kind``: "sparsesync" | "synchformer"; ``init``: checkpoint name to start from, "" for nothing."""

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


def to_luma(picture: Tensor) -> Tensor:
    """Decoded Y plane (limited range, uint8) -> the luma the model computes from RGB, in [-0.5, 0.5]."""
    return (picture.float() - 16) / 219 - 0.5


def classes_of(offset_s: np.ndarray) -> Tensor:
    grid = OffsetGrid()
    return torch.tensor([grid.class_of(float(x)) for x in offset_s.ravel()])


def prepare(model: MiniBackbone, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, 125, 64, 64), standardised log-mels (B * K, n_mels, 500), classes (B * K,)."""
    mel = model.logmel(torch.from_numpy(batch.sound).flatten(0, 1))
    picture = to_luma(torch.from_numpy(batch.picture))
    return picture, LogMel.standardise(mel, LogMel.statistics(mel)), classes_of(batch.offset_s)


def sync_loss(model: MiniBackbone, batch: Batch, frozen_towers: bool) -> tuple[Tensor, float]:
    """Cross-entropy of the snapshot plus half the auxiliary one of the correlation alone; and batch accuracy."""
    picture, mel, labels = prepare(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(not frozen_towers):
            video, audio = model.video_features(picture), model.audio_features(mel)
        logits, _, _, aux = model.fusion(video.repeat_interleave(batch.sound.shape[1], 0), audio)
    target = neighbour_smoothed(labels)
    loss = F.cross_entropy(logits.float(), target) + 0.5 * F.cross_entropy(aux.float(), target)
    return loss, float((logits.argmax(-1) == labels).float().mean())


def contrastive_loss(model: MiniSynchformer, batch: Batch) -> tuple[Tensor, float]:
    """S1: a segment's picture must find its own sound among all segments of the batch, other times included."""
    picture, mel, _ = prepare(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        video, audio = model.segment_video(picture).flatten(1), model.segment_audio(mel).flatten(1)
    video, audio = (F.normalize(x.float() - x.float().mean(0), dim=-1) for x in (video, audio))
    scores = video @ audio.T / 0.07
    target = torch.arange(len(scores))
    loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    return loss, float((scores.argmax(-1) == target).float().mean())


def validation_batches(categories: tuple[str, ...] = CATEGORIES) -> list[Batch]:
    """The same eight windows of each validation scene every time."""
    rng = np.random.default_rng(7)
    batches = []
    for number in range(VALID_SCENES):
        scene = render_material(number, base_seed=VALID_SEED, categories=categories, duration_s=40.0)
        batches.append(draw_batch([scene], rng, 4, 2))
    return batches


@torch.inference_mode()
def validate(model: MiniBackbone, batches: list[Batch]) -> dict[str, float]:
    """Cross-entropy, accuracy and +-1 accuracy on the validation windows, and accuracy per category."""
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


def train_backbone(
    recipe: BackboneRecipe, work: Path, start: dict[str, Tensor] | None, say: Callable[[str], None]
) -> tuple[MiniBackbone, list[dict[str, float]]]:
    """Trains to the end (resuming from ``work``'s checkpoint if there is one); returns the averaged model and its log.

    ``start``: state dict to begin with, or None.
    """
    torch.manual_seed(recipe.seed)
    cls = {"sparsesync": MiniSparseSync, "synchformer": MiniSynchformer}[recipe.kind]
    model, average = cls(), cls()
    if start is not None:
        model.load_state_dict(start)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01)
    log: list[dict[str, float]] = []
    step, seconds = 0, 0.0
    path = work / f"{recipe.name}.ckpt"
    if saved := read_checkpoint(path, json.dumps(asdict(recipe))):
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds, log = saved["step"], saved["seconds"], saved["log"]
        say(f"{recipe.name}: continuing at step {step}")
    batches = validation_batches()
    total = recipe.contrastive_steps + recipe.steps
    pool = Pool(
        base_seed=TRAIN_SEED + 1_000_000 * recipe.seed,
        categories=recipe.categories,
        first_step=step,
        **POOL,  # type: ignore[arg-type]
    )
    model.train()
    began = time.monotonic()
    running: list[float] = []
    try:
        while step < total:
            contrastive = step < recipe.contrastive_steps
            rng = np.random.default_rng([recipe.seed, step, 1])
            if contrastive:
                batch = draw_batch(pool.at(step), rng, recipe.batch, 1, max_shift=0)
                loss, hit = contrastive_loss(model, batch)  # type: ignore[arg-type]
            else:
                batch = draw_batch(pool.at(step), rng, recipe.batch, recipe.offsets)
                loss, hit = sync_loss(model, batch, frozen_towers=recipe.contrastive_steps > 0)
            rate = _rate(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _average(average, model, min(recipe.ema, (step + 1) / (step + 10)))
            step += 1
            running.append(hit)
            if step % 50 == 0 or step == total:
                say(
                    f"{recipe.name} step {step}/{total} loss {float(loss.detach()):.3f} "
                    f"batch acc {np.mean(running):.3f} {time.monotonic() - began:.0f} s"
                )
                running = []
            if (step % recipe.validate_every == 0 and not contrastive) or step == total:
                scores = validate(average, batches) | {"step": step}
                log.append(scores)
                say(f"{recipe.name} valid {scores}")
            if step % recipe.checkpoint_every == 0 or step == total:
                state = {"recipe": json.dumps(asdict(recipe)), "model": model.state_dict(), "log": log, "step": step}
                state |= {"average": average.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(path, state | {"seconds": seconds + time.monotonic() - began})
    finally:
        pool.close()
    log.append({"step": step, "wall_s": round(seconds + time.monotonic() - began)})
    return average.eval(), log


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


def read_checkpoint(path: Path, recipe: str) -> dict[str, Any] | None:
    """What was saved of exactly this recipe; None if nothing was. ``UsageError`` if it is of another version."""
    if not path.exists():
        return None
    saved = torch.load(path, weights_only=True)
    if saved["recipe"] != recipe:
        raise UsageError(f"{path} belongs to another version of its recipe: delete it to start again")
    return saved


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Atomically, so that a kill while saving leaves the previous checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write_bytes(path, buffer.getvalue())
