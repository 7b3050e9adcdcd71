"""The recipes of the embedded models and of Table 5. ``avbench train NAME`` runs one, and first what it builds on."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from avbench.baselines.embedded import embedded_files, load_backbone
from avbench.baselines.families import families
from avbench.baselines.mini import MiniBackbone
from avbench.baselines.streamsync import HISTORY_WINDOWS
from avbench.data.scenes import DIFFICULTIES, HARD_TRAINING, STANDARD, TALKING_HEAD
from avbench.system.atomic import atomic_write_bytes
from avbench.system.cache import writable
from avbench.training.backbone import BackboneRecipe, train_backbone
from avbench.training.common import Say, best_validation, is_recorded, signature_of, versions
from avbench.training.dynamic import changing_streams
from avbench.training.pool import keep_freed_memory
from avbench.training.streaming import (
    STREAM_TRAIN_SEED,
    STREAM_VALID_SEED,
    Lessons,
    StreamRecipe,
    StreamSync,
    cached_streams,
    stream_validation_scenes,
    train_phase1,
    train_phase2,
)
from avbench.training.tracking import TrackingRecipe, choose_constants
from avbench.training.words import WordsRecipe, measure_words
from avbench.types import UsageError

TRAINED_ON = {STANDARD.name: "SynthSync scenes (procedural)", HARD_TRAINING.name: "SynthSync-hard scenes (procedural)"}
# Table 5, small enough to train all rows in half an hour on one core: phase 1 on 240 streams, one seed
_TABLE5 = StreamRecipe(
    "table5-k3-h12",
    "trf",
    backbone="sparsesync",
    embedded_backbone=True,
    seeds=(0,),
    scenes=40,
    valid_scenes=10,
    steps=300,
    windows=12,
    validate_every=50,
    phase2_steps=40,
    phase2_batch=4,
    phase2_validate_every=20,
    phase2_scene_s=48.0,
    phase2_steps_per_scene=2,
    phase2_keep="last",
    phase2_bfloat16=False,
)
# offsets that change, at the track's number of windows and hop; the file omits the embedded backbone
_DYNAMIC: dict[str, Any] = {
    "backbone": "sparsesync",
    "embedded_backbone": True,
    "laws_per_scene": 8,
    "scenes": 200,
    "valid_scenes": 64,
    "windows": 48,
    "hops_s": (2,),
    "phase2_steps": 0,
}

# Without phase 2, which did not help the shipped heads (their weights are phase 1's); so these heads' files omit the
# backbone, which is the embedded one of sparsesync.hard
_HARD_HEAD = StreamRecipe(
    "streamsync-trf.hard",
    "trf",
    backbone="sparsesync.hard",
    embedded_backbone=True,
    phase2_steps=0,
    difficulty=HARD_TRAINING.name,
)

RECIPES: dict[str, BackboneRecipe | StreamRecipe | TrackingRecipe | WordsRecipe] = {
    r.name: r
    for r in (
        BackboneRecipe("sparsesync-pt", "sparsesync", steps=300, categories=(TALKING_HEAD,)),
        BackboneRecipe("sparsesync", "sparsesync", steps=1800, init="sparsesync-pt", seed=1),
        BackboneRecipe("synchformer", "synchformer", steps=800, contrastive_steps=300, seed=2),
        StreamRecipe("streamsync-trf", "trf", backbone="sparsesync"),
        StreamRecipe("streamsync-lstm", "lstm", backbone="sparsesync"),
        StreamRecipe(
            "synchformer-trf",
            "trf",
            backbone="synchformer",
            layers=1,  # and its file omits the embedded backbone: all embedded weights stay under 12 MB
            embedded_backbone=True,
            scenes=48,
            valid_scenes=12,
            steps=300,
            validate_every=50,
            phase2_steps=0,
        ),
        # the same for synthsync-hard
        BackboneRecipe(
            "sparsesync-pt.hard", "sparsesync", steps=300, categories=(TALKING_HEAD,), difficulty=HARD_TRAINING.name
        ),
        BackboneRecipe(
            "sparsesync.hard",
            "sparsesync",
            steps=1800,
            init="sparsesync-pt.hard",
            seed=1,
            difficulty=HARD_TRAINING.name,
        ),
        _HARD_HEAD,
        replace(_HARD_HEAD, name="streamsync-lstm.hard", head="lstm"),
        StreamRecipe("streamsync-trf.dynamic", "trf", steps=800, **_DYNAMIC),
        StreamRecipe("streamsync-lstm.dynamic", "lstm", steps=1600, **_DYNAMIC),
        TrackingRecipe(),
        WordsRecipe(),
        _TABLE5,
        replace(_TABLE5, name="table5-k2-h12", phase2_gradient_windows=2, phase1_of=_TABLE5.name),
        replace(_TABLE5, name="table5-k4-h12", phase2_gradient_windows=4, phase1_of=_TABLE5.name),
        replace(_TABLE5, name="table5-k3-h6", windows=6, phase2_windows=6),
        replace(_TABLE5, name="table5-k3-h18", windows=18, phase2_windows=18),
    )
}


def run(name: str, out: Path, say: Say = print, threads: int = 1) -> Path:
    """Train a recipe and first what it builds on, continuing from checkpoints in ``out``; returns the weight file.

    ``out`` receives NAME.safetensors and NAME.json (the card: recipe, log, wall time) beside the checkpoints. A recipe
    that only chooses constants leaves no weights: NAME.json, its record, is returned.
    ``threads``: of torch; the same number gives the same weights. ``UsageError`` for an unknown recipe, or a checkpoint
    of another version of a recipe.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise UsageError(f"unknown recipe {name!r}: choose from {', '.join(RECIPES)}")
    if threads < 1:
        raise UsageError(f"threads is {threads}; it must be at least 1")
    writable(out, "--out")
    torch.set_num_threads(threads)
    keep_freed_memory()
    if isinstance(recipe, TrackingRecipe):
        return choose_constants(recipe, out, say)
    if isinstance(recipe, WordsRecipe):
        return measure_words(recipe, out, say)
    if isinstance(recipe, BackboneRecipe):
        _backbone(recipe, out, say)
    else:
        _streamsync(recipe, out, say)
    return out / f"{name}.safetensors"


def _backbone(recipe: BackboneRecipe, out: Path, say: Say) -> MiniBackbone:
    """The trained backbone of a recipe; read from ``out`` if its training is finished."""
    model = families()[recipe.kind].mini_class()()
    done = out / f"{recipe.name}.full.ckpt"
    if done.exists():
        saved = torch.load(done, weights_only=True)
        if saved["recipe"] == signature_of(recipe):
            model.load_state_dict(saved["state"])
            return model.eval()
    start = _backbone(RECIPES[recipe.init], out, say).state_dict() if recipe.init else None  # type: ignore[arg-type]
    model, log = train_backbone(recipe, out, start, say)
    torch.save({"recipe": signature_of(recipe), "state": model.state_dict()}, done)
    export(out, recipe.name, {"backbone": model}, asdict(recipe), log)
    return model


def _streamsync(recipe: StreamRecipe, out: Path, say: Say) -> None:
    """Phase 1 for every seed on the same cached snapshots, then phase 2 from the seed that validates best."""
    if _finished(out, recipe):
        say(f"{recipe.name}: already finished")
        return
    began, cpu_began = time.monotonic(), time.process_time()
    if recipe.embedded_backbone:
        backbone, folder = load_backbone(recipe.backbone), out / f"snapshots-{recipe.backbone}-embedded"
    else:
        backbone = _backbone(RECIPES[recipe.backbone], out, say)  # type: ignore[arg-type]
        folder = out / f"snapshots-{recipe.backbone}"
    train = _streams(recipe, backbone, folder, STREAM_TRAIN_SEED, recipe.scenes, say)
    valid = _streams(recipe, backbone, folder, STREAM_VALID_SEED, recipe.valid_scenes, say)
    first = RECIPES[recipe.phase1_of] if recipe.phase1_of else recipe
    assert isinstance(first, StreamRecipe)
    log: list[dict[str, Any]] = []
    models: dict[int, StreamSync] = {}
    make = partial(StreamSync, first.head, backbone.token_dim or 0, first.layers)
    for seed in recipe.seeds:
        models[seed], lines = train_phase1(replace(first, seed=seed), make, train, valid, out, say)
        log += [{"phase": 1, "seed": seed} | line for line in lines]
        export_streamsync(out, f"{recipe.name}.phase1-seed{seed}", recipe, backbone, models[seed], log)
    seed = best_validation(log)["seed"]
    chosen, streaming = replace(recipe, seed=seed), models[seed]
    if recipe.phase2_steps:
        scenes = stream_validation_scenes(recipe.valid_scenes, DIFFICULTIES[recipe.difficulty])
        backbone, streaming, lines = train_phase2(chosen, backbone, streaming, scenes, out, say)
        log += [{"phase": 2, "seed": seed} | line for line in lines]
    log.append({"wall_s": round(time.monotonic() - began), "cpu_s": round(time.process_time() - cpu_began)})
    export_streamsync(out, recipe.name, chosen, backbone, streaming, log)


def _streams(
    recipe: StreamRecipe, backbone: MiniBackbone, folder: Path, base_seed: int, scenes: int, say: Say
) -> Lessons:
    """Streams to train or validate on; their offsets are fixed, or follow laws."""
    difficulty = DIFFICULTIES[recipe.difficulty]
    if difficulty != STANDARD:
        folder = folder.with_name(f"{folder.name}-{difficulty.name}")
    if not recipe.laws_per_scene:
        return cached_streams(backbone, folder, base_seed=base_seed, scenes=scenes, say=say, difficulty=difficulty)
    folder = folder.with_name(f"{folder.name}-laws")
    return changing_streams(backbone, folder, base_seed, scenes, recipe.laws_per_scene, say)


def _finished(out: Path, recipe: StreamRecipe) -> bool:
    """Whether ``out`` contains this recipe's weights and card; the card names the seed that validated best."""
    weights, card = (out / f"{recipe.name}{suffix}" for suffix in (".safetensors", ".json"))
    if not weights.exists() or not card.exists():
        return False
    facts = json.loads(card.read_text(encoding="utf-8"))
    return (
        is_recorded(facts["recipe"] | {"seed": recipe.seed}, recipe)
        and facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    )


def export_streamsync(
    out: Path, name: str, recipe: StreamRecipe, backbone: MiniBackbone, streaming: StreamSync, log: list[dict[str, Any]]
) -> None:
    """Write backbone and head; the token map becomes part of ``backbone``, whose snapshots then carry finished tokens.

    The file omits a backbone that is the embedded one but for its token map: it then contains only token map and head.
    The card says how many windows a transformer remembers.
    """
    backbone.token_maker.load_state_dict(streaming.token_maker.state_dict())
    body = {"token_maker": backbone.token_maker} if _as_embedded(recipe, backbone) else {"backbone": backbone}
    more = {} if recipe.head == "lstm" else {"history_windows": HISTORY_WINDOWS}
    export(out, name, body | {"head": streaming.head}, asdict(recipe), log, **more)


def _as_embedded(recipe: StreamRecipe, backbone: MiniBackbone) -> bool:
    """Whether the backbone, stored in float16, is the embedded one but for its token map."""
    if recipe.backbone not in embedded_files():
        return False
    shipped = load_backbone(recipe.backbone).state_dict()
    return all(
        torch.equal(_stored(value), _stored(shipped[key]))
        for key, value in backbone.state_dict().items()
        if not key.startswith("token_maker.")
    )


def _stored(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def export(
    out: Path,
    name: str,
    parts: dict[str, torch.nn.Module],
    recipe: dict[str, Any],
    log: list[dict[str, Any]],
    **more: Any,
) -> None:
    """Write NAME.safetensors (float16) and its card NAME.json, to which ``more`` is added."""
    tensors = {
        f"{part}.{key}": _stored(value).contiguous()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }
    data = save(tensors)
    card = {
        "schema_version": 1,
        "name": name,
        "trained_on": TRAINED_ON[recipe["difficulty"]],
        "parameters": sum(p.numel() for module in parts.values() for p in module.parameters()),
        "sha256": hashlib.sha256(data).hexdigest(),
        "recipe": recipe,
        "command": f"avbench train {recipe['name']}",
        **versions(),
        "threads": torch.get_num_threads(),
        **more,
        "log": log,
    }
    atomic_write_bytes(out / f"{name}.safetensors", data)
    atomic_write_bytes(out / f"{name}.json", (json.dumps(card, indent=1) + "\n").encode())
