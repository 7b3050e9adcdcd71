"""What a training writes: checkpoint and log while it runs, weights with their card at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from avbench.baselines.sparsesync import SparseSync
from avbench.protocol.manifest import Manifest
from avbench.system.atomic import atomic_write_bytes
from avbench.training.common import best_validation, versions
from avbench.training.fullsize.recipe import FullSizeRecipe
from avbench.types import AvbenchError, UsageError
from avbench.weights.checkpoints import n_classes_of, refuse_non_finite


def identity_of(
    recipe: FullSizeRecipe,
    manifest: Manifest,
    start: Mapping[str, Tensor],
    autocast: torch.dtype | None,
    n_processes: int,
) -> str:
    """What a checkpoint is of, as JSON: only a training with the same identity continues it.

    The number of processes may change, except where BatchNorm's statistics move: those depend on it.
    """
    digest = hashlib.sha256()
    for key in sorted(start):
        digest.update(
            key.encode() + start[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    parts: dict[str, Any] = {
        "recipe": asdict(recipe),
        "data": manifest.sha256,
        "start": digest.hexdigest(),
        "autocast": str(autocast),
    }
    if recipe.phase1_norm == "drifting" or recipe.phase2_norm == "batch":
        parts["processes"] = n_processes
    return json.dumps(parts, sort_keys=True)


class Keeper:
    """Checkpoint and log of one training. Only the first process writes; a killed one keeps its last checkpoint."""

    def __init__(self, out: Path, name: str, identity: str, rank: int) -> None:
        self.path, self.log_path = out / f"{name}.checkpoint.safetensors", out / f"{name}.log.jsonl"
        self.identity, self.rank = identity, rank
        self.log: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}  # weights of the best validation; empty with keep=last

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the checkpoint into both; returns its step, 0 if there is none.

        ``UsageError`` if it belongs to another training, ``AvbenchError`` if it is damaged.
        """
        if not self.path.exists():
            return 0
        try:
            with safe_open(str(self.path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except Exception as error:  # safetensors raises its own type for damaged files
            raise AvbenchError(f"{self.path} is damaged: {str(error)[:120]}; delete it to start again") from error
        if about.get("identity") != self.identity:
            raise UsageError(
                f"{self.path} belongs to a training with another recipe, data or start: "
                "choose another folder, or delete it to start again"
            )
        model.load_state_dict(_under("model.", tensors))
        self.best = _under("best.", tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, entry = key.split(".")
                state.setdefault(int(index), {})[entry] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        step = int(about["step"])
        if self.log_path.exists():
            lines = [json.loads(line) for line in self.log_path.read_text(encoding="utf-8").splitlines()]
            self.log = [line for line in lines if line["step"] <= step]
        return step

    def note(self, line: dict[str, Any]) -> None:
        """Append a line to the log, which :meth:`save` writes."""
        self.log.append(line)

    def note_validation(self, step: int, scores: Mapping[str, float], model: nn.Module | None) -> None:
        """Log the scores; with ``model``, copy its weights if their mAP is the highest so far."""
        self.note({"step": step, "validation": scores})
        if model and not self.rank and self.best_validation["step"] == step:
            self.best = {key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}

    @property
    def best_validation(self) -> dict[str, Any]:
        """The log's line of the validation with the highest mAP, the first of equals."""
        return best_validation(line for line in self.log if "validation" in line)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the log and the checkpoint. ``AvbenchError`` if they cannot be written."""
        if self.rank:
            return
        tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
        tensors |= {f"best.{key}": tensor for key, tensor in self.best.items()}
        for index, entries in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items()}
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        text = "".join(json.dumps(line) + "\n" for line in self.log)
        try:
            # the log first: lines beyond the checkpoint's step are dropped on resuming
            atomic_write_bytes(self.log_path, text.encode())
            atomic_write_bytes(self.path, save(tensors, {"identity": self.identity, "step": str(step)}))
        except OSError as error:
            raise AvbenchError(f"cannot write {self.path}: {error.strerror or error}") from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def export(path: Path, model: SparseSync, recipe: FullSizeRecipe, identity: str, keeper: Keeper) -> None:
    """Write the weights (the best ones with ``keep`` "best") under the published names, float32, and their card, which
    ``avbench weights verify`` reads. ``AvbenchError`` if they cannot be written."""
    kept = keeper.best or model.state_dict()
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in kept.items()}
    refuse_non_finite(tensors, path.name)
    data = save(tensors, {"family": recipe.family})
    training = json.loads(identity)
    card = {
        "schema": 1,
        "family": recipe.family,
        "n_classes": n_classes_of(tensors),
        "source": {"file": path.name, "md5": None, "url": None},
        "published_as": None,
        "id": None,
        "trained_on": f"manifest {training['data'][:12]}",
        "audio_lead_trim_samples": 0,
        "changes": [],
        "n_tensors": len(tensors),
        "n_parameters": sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        "about": {"training": training, **versions()},
        "log": [keeper.best_validation] if keeper.best else keeper.log[-1:],
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        atomic_write_bytes(path, data)
        atomic_write_bytes(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
