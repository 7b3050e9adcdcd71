"""``train``: the steps, with validation and checkpoints between them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avbench.baselines.sparsesync import SparseSync
from avbench.protocol.manifest import Manifest
from avbench.system.machine import is_out_of_memory
from avbench.system.precision import exact_float32
from avbench.training.common import Say, tell_numbers, tell_step
from avbench.training.fullsize.ahead import Ahead
from avbench.training.fullsize.data import TrainingStreams, ValidationStreams
from avbench.training.fullsize.keeper import Keeper, export, identity_of
from avbench.training.fullsize.model import (
    Eyes,
    check_size,
    mixed_precision,
    new_model,
    set_mode,
    start_from,
    stream_loss,
    streams,
    targets,
)
from avbench.training.fullsize.plan import Plan
from avbench.training.fullsize.processes import Workers
from avbench.training.fullsize.recipe import FullSizeRecipe
from avbench.training.fullsize.validation import validate
from avbench.types import AvbenchError, NonFiniteError, UsageError

MAX_LINES = 10  # named streams that are left out


@dataclass(frozen=True)
class Compute:
    """How a training is computed; the recipe says what.

    ``device``: "cpu" | "cuda". ``autocast``: the dtype of mixed precision, None for exact float32 (no TF32 on a GPU
    either); the card records it. ``readers``: threads that decode ahead.
    """

    device: str = "cpu"
    autocast: torch.dtype | None = None
    readers: int = 1


@dataclass(frozen=True)
class _Training:
    """What every step of one training needs, in this process."""

    plan: Plan
    model: SparseSync
    new: list[str]  # entries that SparseSync does not have
    optimizer: torch.optim.Optimizer
    workers: Workers
    autocast: torch.dtype | None


def train(  # noqa: PLR0913  (seven parameters: data and validation data are separate manifests)
    recipe: FullSizeRecipe,
    manifest: Manifest,
    start: Mapping[str, Tensor],
    out: Path,
    *,
    valid: Manifest | None = None,
    compute: Compute = Compute(),
    say: Say = print,
) -> Path:
    """Train to the end, continuing from the checkpoint in ``out`` if there is one; returns the weight file.

    ``start``: a SparseSync state dict. ``out`` receives, NAME being streamsync-<head> or sparsesync,
    NAME.checkpoint.safetensors (weights, optimiser, step), NAME.log.jsonl (one line per step and one per validation)
    and, at the end, NAME.safetensors under the published names with its card NAME.json. ``valid``: data to validate on
    after each phase and epoch, at its own offsets; with ``keep`` "best" the recipe keeps the weights that did best
    there. Under ``torchrun`` every process calls this with the same arguments.

    ``UsageError``: recipe and data do not fit together, or the checkpoint belongs to another training; ``MediaError``:
    a clip cannot be read (no clip is skipped or replaced); ``NonFiniteError``: the loss or the gradient is not finite;
    ``AvbenchError``: out of memory.
    """
    recipe = recipe.checked()
    if recipe.keep == "best" and not valid:
        raise UsageError("keep is 'best': validation data are needed (--valid SPLIT), or set keep=last")
    check_size(recipe)
    data = TrainingStreams(manifest, recipe)
    watched = ValidationStreams(valid, recipe) if valid else None
    plan = Plan(recipe, len(data.items))
    name = recipe.family
    with Workers(compute.device) as workers, exact_float32(), _memory_in_one_line(recipe, workers.device):
        tell: Say = say if workers.rank == 0 else lambda text: None
        for line in _announced(data, watched, plan, workers):
            tell(line)
        training = _prepared(plan, start, workers, compute.autocast)
        out.mkdir(parents=True, exist_ok=True)
        identity = identity_of(recipe, manifest, start, compute.autocast, workers.n)
        keeper = Keeper(out, name, identity, workers.rank)
        step = keeper.resume(training.model, training.optimizer)
        if len(set(workers.gathered([step]))) > 1:
            raise UsageError(f"the processes see different checkpoints in {out}: all of them must share one folder")
        if step:
            tell(f"continuing at step {step} of {plan.total}")
        with Ahead(data, plan, workers, step, compute.readers) as ahead:
            _steps(training, step, ahead, watched, keeper, tell)
        path = out / f"{name}.safetensors"
        if workers.rank == 0:
            export(path, training.model, recipe, identity, keeper)
        return path


def _announced(data: TrainingStreams, watched: ValidationStreams | None, plan: Plan, workers: Workers) -> Iterator[str]:
    """Lines about the data and the length of the training."""
    recipe = plan.recipe
    for line in data.left_out[:MAX_LINES]:
        yield f"left out: {line}"
    if len(data.left_out) > MAX_LINES:
        yield f"left out: ... and {len(data.left_out) - MAX_LINES} more"
    yield (
        f"{len(data.items)} streams of {recipe.windows} windows; {recipe.phase1_steps} steps of phase 1, "
        f"{plan.total - recipe.phase1_steps} of phase 2; {workers.n} process{'es' * (workers.n > 1)}"
    )
    if watched and len(watched.items) < len(watched.manifest.segments):
        n, of = len(watched.items), len(watched.manifest.segments)
        yield f"validation uses {n} of {of} segments: the rest are too short"


def _prepared(plan: Plan, start: Mapping[str, Tensor], workers: Workers, autocast: torch.dtype | None) -> _Training:
    """The model with its start weights, on its device, and its optimiser."""
    recipe = plan.recipe
    model = new_model(recipe)
    new = start_from(model, recipe, start)
    model.to(workers.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), eps=1e-7)
    return _Training(plan, model, new, optimizer, workers, autocast)


@contextmanager
def _memory_in_one_line(recipe: FullSizeRecipe, device: torch.device) -> Iterator[None]:
    """Out of memory becomes an ``AvbenchError`` that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        less = "--set microbatch=1, or " if recipe.microbatch > 1 else ""
        raise AvbenchError(
            f"memory ran out on {device} with {recipe.microbatch} stream(s) of {recipe.windows} windows at once: try "
            f"{less}--autocast bfloat16, or a device with more"
        ) from error


def _steps(
    training: _Training, step: int, ahead: Ahead, watched: ValidationStreams | None, keeper: Keeper, tell: Say
) -> None:
    """All steps from ``step`` on; validation after each phase and epoch, checkpoints as the recipe says."""
    plan, model, workers = training.plan, training.model, training.workers
    recipe = plan.recipe
    eyes: Eyes | None = None
    phase = 0
    while step < plan.total:
        if plan.phase(step) != phase:
            phase, eyes = plan.phase(step), None
            set_mode(model, recipe, phase, training.new)
        if eyes is None or phase == 2:  # in phase 1 the encoders do not change
            eyes = Eyes(model, workers.device.type == "cpu" and not model.vfeat_extractor.training)
        began = time.monotonic()
        entry = _step(training, step, eyes, ahead)
        step += 1
        entry |= {"step": step, "phase": phase, "wall_s": round(time.monotonic() - began, 2)}
        keeper.note(entry)
        tell_numbers(tell, entry)
        tell_step(tell, step, plan.total)
        tell(f"step {step}/{plan.total} phase {phase} loss {entry['loss']:.4f} ({entry['wall_s']:.1f} s)")
        boundary = plan.ends_stage(step)
        if boundary and watched:
            scores = validate(model, watched, workers, training.autocast)
            set_mode(model, recipe, phase, training.new)
            keeper.note_validation(step, scores, model if recipe.keep == "best" else None)
            tell_numbers(tell, {"step": step, **scores}, "validation ")
            tell(f"step {step}/{plan.total} validation {scores}")
        if step % recipe.checkpoint_every == 0 or boundary or step == plan.total:
            keeper.save(model, training.optimizer, step)


def _step(training: _Training, step: int, eyes: Eyes, ahead: Ahead) -> dict[str, Any]:
    """One optimiser step; its log entry: loss and accuracy at the last window over the whole batch, rate, gradient."""
    plan, model, workers, optimizer = training.plan, training.model, training.workers, training.optimizer
    recipe = plan.recipe
    optimizer.zero_grad(set_to_none=True)
    size = len(plan.batch(step))
    loss_sum, hits = 0.0, 0.0
    for chunk, examples in ahead.of(step):
        # dropout is the same after a restart, and in whichever process computes this chunk
        torch.manual_seed((recipe.seed * 1_000_003 + step) * 65_537 + chunk)
        labels = torch.tensor([e.label for e in examples], device=workers.device)
        windows = plan.gradient_windows(step, plan.part(step, chunk))
        with mixed_precision(workers.device, training.autocast):
            snapshot, streaming = streams(model, eyes, examples, recipe, windows, plan.phase(step))
        loss = stream_loss(snapshot, streaming, targets(labels, recipe, snapshot.shape[-1]), recipe).sum() / size
        loss.backward()
        loss_sum += float(loss.detach())
        last = (snapshot if streaming is None else streaming)[:, -1].detach()
        hits += float((last.argmax(-1) == labels).sum()) / size
    loss_sum, hits = workers.total([loss_sum, hits])
    if not math.isfinite(loss_sum):
        raise NonFiniteError(f"the loss of step {step + 1} is {loss_sum}: lower lr, or start from other weights")
    trained = [p for p in model.parameters() if p.requires_grad]
    workers.add_gradients(trained)
    norm = float(nn.utils.clip_grad_norm_(trained, recipe.clip_norm))
    if not math.isfinite(norm):  # the step would destroy every weight
        raise NonFiniteError(f"the gradient of step {step + 1} is {norm}: lower lr, or start from other weights")
    rate = plan.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    if model.vfeat_extractor.training:
        workers.average_statistics(model)
    return {"loss": round(loss_sum, 6), "acc_last": round(hits, 4), "lr": rate, "gradient_norm": round(norm, 4)}
