"""The loop: steps, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avbench.baselines.sparsesync import SparseSync
from avbench.protocol.manifest import Manifest
from avbench.scoring.metrics import score
from avbench.system.machine import is_out_of_memory
from avbench.system.precision import exact_float32
from avbench.training.fullsize.ahead import Ahead
from avbench.training.fullsize.data import TrainingStreams, ValidationStreams
from avbench.training.fullsize.keeper import Keeper, export, identity_of
from avbench.training.fullsize.model import (
    Eyes,
    check_size,
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
from avbench.types import AvbenchError, NonFiniteError, UsageError

Say = Callable[[str], None]


def train(
    recipe: FullSizeRecipe,
    manifest: Manifest,
    start: Mapping[str, Tensor],
    out: Path,
    *,
    valid: Manifest | None = None,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
    readers: int = 1,
    name: str = "",
    say: Say = print,
) -> Path:
    """Trains to the end, continuing from ``out``'s checkpoint if there is one; returns the weight file.

    ``start``: a SparseSync state dict. ``out`` receives NAME.checkpoint.safetensors (weights, optimiser, step),
    NAME.log.jsonl (a line per step, and one per validation) and, at the end, NAME.safetensors under the published names
    with its card NAME.json. ``valid``: validated on after each phase and epoch, on its own offsets; the recipe may keep
    the weights that did best there. ``readers``: threads that decode ahead. Under ``torchrun`` every process calls this
    with the same arguments. float32 is float32 on a GPU too (no TF32): ``autocast`` is the way to more speed, and is on
    record.

    ``UsageError``: a recipe or data that do not fit, a checkpoint of another training; ``MediaError``: a clip that
    cannot be read (nothing is left out or replaced on the way); ``NonFiniteError``: the loss or the gradient is no
    longer a number; ``AvbenchError``: memory that runs out.
    """
    recipe = recipe.checked()
    if recipe.keep == "best" and not valid:
        raise UsageError("keep is 'best': there must be something to validate on (--valid SPLIT), or set keep=last")
    check_size(recipe)
    data = TrainingStreams(manifest, recipe)
    watched = ValidationStreams(valid, recipe) if valid else None
    plan = Plan(recipe, len(data.items))
    name = name or ("sparsesync" if recipe.head == "none" else f"streamsync-{recipe.head}")
    with Workers(device) as workers, exact_float32(), _room(recipe, workers.device):
        tell: Say = say if workers.rank == 0 else lambda text: None
        for line in data.left_out[:10]:
            tell(f"left out: {line}")
        if len(data.left_out) > 10:
            tell(f"left out: ... and {len(data.left_out) - 10} more")
        tell(
            f"{len(data.items)} streams of {recipe.windows} windows; {recipe.phase1_steps} steps of phase 1, "
            f"{plan.total - recipe.phase1_steps} of phase 2; {workers.n} process{'es' * (workers.n > 1)}"
        )
        if watched and len(watched.items) < len(watched.manifest.segments):
            tell(f"validation sees {len(watched.items)} of {len(watched.manifest.segments)} segments: others are short")
        model = new_model(recipe)
        new = start_from(model, recipe, start)
        model.to(workers.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), eps=1e-7)
        out.mkdir(parents=True, exist_ok=True)
        identity = identity_of(recipe, manifest, start, autocast, workers.n)
        keeper = Keeper(out, name, identity, workers.rank)
        step = keeper.resume(model, optimizer)
        if len(set(workers.gathered([step]))) > 1:
            raise UsageError(f"the processes see different checkpoints in {out}: it must be one folder for all")
        if step:
            tell(f"continuing at step {step} of {plan.total}")
        with Ahead(data, plan, workers, step, readers) as ahead:
            eyes: Eyes | None = None
            phase = 0
            while step < plan.total:
                if plan.phase(step) != phase:
                    phase, eyes = plan.phase(step), None
                    set_mode(model, recipe, phase, new)
                if eyes is None or phase == 2:  # in phase 1 the base does not change
                    eyes = Eyes(model, workers.device.type == "cpu" and not model.vfeat_extractor.training)
                began = time.monotonic()
                entry = _step(plan, step, model, eyes, optimizer, ahead, workers, autocast)
                step += 1
                entry |= {"step": step, "phase": phase, "wall_s": round(time.monotonic() - began, 2)}
                keeper.note(entry)
                tell(f"step {step}/{plan.total} phase {phase} loss {entry['loss']:.4f} ({entry['wall_s']:.1f} s)")
                boundary = step == recipe.phase1_steps or (
                    phase == 2 and (step - recipe.phase1_steps) % plan.per_epoch == 0
                )
                if boundary and watched:
                    scores = validate(model, watched, workers, autocast)
                    set_mode(model, recipe, phase, new)
                    keeper.note_validation(step, scores, model if recipe.keep == "best" else None)
                    tell(f"step {step}/{plan.total} validation {scores}")
                if step % recipe.checkpoint_every == 0 or boundary or step == plan.total:
                    keeper.save(model, optimizer, step)
        path = out / f"{name}.safetensors"
        if workers.rank == 0:
            export(path, model, recipe, identity, keeper)
        return path


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    # no cache: older torch keeps weights that were cast where no gradient flows, and the base then gets none
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


@contextmanager
def _room(recipe: FullSizeRecipe, device: torch.device) -> Iterator[None]:
    """Memory that runs out is said in one line."""
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


def _step(
    plan: Plan,
    step: int,
    model: SparseSync,
    eyes: Eyes,
    optimizer: torch.optim.Optimizer,
    ahead: Ahead,
    workers: Workers,
    autocast: torch.dtype | None,
) -> dict[str, Any]:
    """One step of the optimiser; the mean loss and the accuracy at the last window, over the whole batch."""
    recipe, phase = plan.recipe, plan.phase(step)
    optimizer.zero_grad(set_to_none=True)
    size = len(plan.batch(step))
    loss_sum, hits = 0.0, 0.0
    for chunk, examples in ahead.of(step):
        # dropout: the same whoever computes this chunk, and after a restart
        torch.manual_seed((recipe.seed * 1_000_003 + step) * 65_537 + chunk)
        labels = torch.tensor([e.label for e in examples], device=workers.device)
        windows = plan.gradient_windows(step, plan.part(step, chunk))
        with _autocast(workers.device, autocast):
            snapshot, streaming = streams(model, eyes, examples, recipe, windows, phase)
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
    if not math.isfinite(norm):  # the step would spoil every weight
        raise NonFiniteError(f"the gradient of step {step + 1} is {norm}: lower lr, or start from other weights")
    rate = plan.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    if model.vfeat_extractor.training:
        workers.average_statistics(model)
    return {"loss": round(loss_sum, 6), "acc_last": round(hits, 4), "lr": rate, "gradient_norm": round(norm, 4)}


@torch.no_grad()
def validate(
    model: SparseSync, data: ValidationStreams, workers: Workers, autocast: torch.dtype | None = None
) -> dict[str, float | int]:
    """Scores at the last window of the manifest's segments, with their own offsets; each counted exactly once."""
    model.eval()
    eyes = Eyes(model, workers.device.type == "cpu")
    found: list[tuple[int, list[float], int]] = []
    for number in range(workers.rank, len(data.items), workers.n):
        example = data[number]
        with _autocast(workers.device, autocast):
            snapshot, streaming = streams(model, eyes, [example], data.recipe, range(0), 0)
        logits = (snapshot if streaming is None else streaming)[0, -1].float().cpu()
        found.append((number, logits.tolist(), example.label))
    found = sorted(workers.gathered(found))
    scores = score(np.array([f[1] for f in found], np.float32), np.array([f[2] for f in found]))
    return {key: round(value, 4) for key, value in scores.items()} | {"n": len(found)}
