"""Train a streaming head on any backbone: its snapshots of training streams, then phase 1 of ``training.streaming``.

The backbone is frozen. Its snapshots come from the ordinary runner and store (a restarted training reads them back):
one window per second over whole training clips, each clip under several offsets, so the head learns from any hop and
start. A backbone with the streaming-token hook provides the head's token; for any other the adapter of
``baselines.adapter`` does, and its map is trained along with the head.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avbench.baselines.adapter import AdaptedHead, features, fixed_map
from avbench.data.opening import made, read_unmade
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.protocol.manifest import Manifest
from avbench.protocol.offsets import draw_offset
from avbench.protocol.rules import Protocol, streaming
from avbench.registry.heads import HEADS, is_learned
from avbench.registry.loading import load
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.system.cache import writable
from avbench.system.devices import check_device
from avbench.system.outputs import check_writable
from avbench.system.paths import as_file_name
from avbench.system.progress import Progress
from avbench.ticks import TICKS_PER_S, seconds, ticks
from avbench.training.common import differences, load_checkpoint, signature_of
from avbench.training.streaming import Snapshots, StreamRecipe, Streams, StreamSync, phase1_checkpoint, train_phase1
from avbench.types import SegmentRecord, UsageError
from avbench.weights.heads import card_of, export_head

ADAPTED_DIM = 96  # width of the token where the backbone has none
FIRST_S = 2  # room for the largest negative offset
SPLITS = ("train", "valid")
LEARNED = tuple(sorted(name for name in HEADS if is_learned(name)))


@dataclass(frozen=True)
class HeadRecipe:
    """``backbone``: a registry name or ``file.py:Class``. ``head``: "lstm" | "trf". ``data``: a SynthSync name or a
    manifest folder with the splits train and valid. ``offsets``: streams per clip, each at its own offset. ``limit``:
    only the first clips of each split (None: all). ``UsageError`` for a value that is not valid."""

    backbone: str
    head: str = "lstm"
    data: str = "synthsync"
    offsets: int = 6
    limit: int | None = None
    steps: int = 600
    batch: int = 64
    windows: int = 24
    lr: float = 1e-3
    validate_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.head not in LEARNED:
            raise UsageError(f"head is {self.head!r}; it must be one of {', '.join(LEARNED)}")
        for name in ("offsets", "limit", "steps", "batch", "windows", "validate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")


class OwnToken(StreamSync):
    """What is trained on a backbone that provides the finished token: the head alone."""

    def __init__(self, head: str, dim: int, layers: int = 3) -> None:
        super().__init__(head, dim, layers)
        self.token_maker = nn.Identity()  # type: ignore[assignment]

    def tokens(self, streams: Snapshots) -> Tensor:
        """The backbone's tokens (N, W, D)."""
        return streams.off


class MadeToken(StreamSync):
    """What is trained on a backbone without a token: the adapter's map, starting from the fixed one, and the head."""

    def __init__(self, head: str, dim: int, layers: int = 3) -> None:
        super().__init__(head, dim, layers)
        maker = nn.Linear(2 * 21, dim)
        with torch.no_grad():
            maker.weight.copy_(fixed_map(21, dim))
            maker.bias.zero_()
        self.token_maker = maker  # type: ignore[assignment]

    def tokens(self, streams: Snapshots) -> Tensor:
        """The adapter's tokens (N, W, D), made from the logits."""
        return self.token_maker(features(streams.logits))


def train_head(  # noqa: PLR0913  (what is trained, where, who is told, and the backbone's options)
    recipe: HeadRecipe,
    out: Path,
    compute: Compute | None = None,
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
    options: ModelOptions | None = None,
    *,
    force: bool = False,
) -> Path:
    """Train a head and write ``out/<backbone>-<head>.safetensors`` with its card; returns the file.

    A training that was interrupted goes on where it stopped; ``force``: one of another recipe is given up, and a head
    that was trained otherwise is replaced.

    ``compute``: where and how the snapshots are computed; the head is trained on the same device. ``options``: of the
    backbone: precision, arguments of a user's class.
    ``UsageError``: an unknown backbone, no streams to train on, or another training unfinished in ``out``;
    ``AvbenchError``: ``out`` or store not writable.
    """
    from avbench.registry.names import backbone_alone, resolve

    backbone_alone(recipe.backbone)
    compute = compute or Compute()
    device = check_device(compute.device)
    if resolve(recipe.backbone).load_backbone is None:
        raise UsageError(f"{recipe.backbone} ignores its input: no head can be trained on it")
    model = load(resolve(recipe.backbone, (options or ModelOptions()).for_device(device)), device)
    assert model.backbone is not None
    check_writable(out, "--out")
    fingerprint = model_fingerprint(model.backbone)
    name = f"{_slug(model.backbone_name)}-{recipe.head}"
    phase1 = _phase1(recipe, name, fingerprint)
    checkpoint = phase1_checkpoint(phase1, out)
    _check_leftover(checkpoint, phase1, force)
    told = {key: value for key, value in vars(recipe).items() if key != "backbone"}
    path = out / f"{name}.safetensors"
    if path.exists() and not force:
        _check_head(path, {"model": fingerprint, **told})
    train, valid = (snapshots_of_streams(recipe, split, model, compute, progress, say).to(device) for split in SPLITS)
    writable(out, "--out")
    dim = model.backbone.token_dim or ADAPTED_DIM
    kind = OwnToken if model.backbone.token_dim else MadeToken
    trained, log = train_phase1(phase1, partial(kind, recipe.head, dim, phase1.layers), train, valid, out, say, device)
    trained = trained.cpu()
    head: Any = trained.head
    if kind is MadeToken:
        maker: Any = trained.token_maker
        head = AdaptedHead(head, dim, 21, maker.weight.detach(), maker.bias.detach())
    n = len(train.labels)
    export_head(
        path,
        head,
        trained_on=f"{recipe.data} train ({n} streams)",
        backbone=recipe.backbone.rpartition("/")[2],
        backbone_fingerprint=fingerprint,
        recipe=told,
        log=log,
    )
    checkpoint.unlink(missing_ok=True)
    return path


def _phase1(recipe: HeadRecipe, name: str, fingerprint: str) -> StreamRecipe:
    return StreamRecipe(
        name,
        recipe.head,
        # part of the recipe, so that a checkpoint is continued only on the same snapshots
        f"{fingerprint} on {recipe.data}, {recipe.offsets} offsets, {recipe.limit or 'all'} clips",
        seed=recipe.seed,
        steps=recipe.steps,
        batch=recipe.batch,
        windows=recipe.windows,
        lr=recipe.lr,
        validate_every=recipe.validate_every,
    )


def _check_leftover(checkpoint: Path, recipe: StreamRecipe, force: bool) -> None:
    """Removes the checkpoint of another recipe if its training is finished, or with ``force``; else ``UsageError``."""
    if not checkpoint.exists():
        return
    if not force:
        saved, asked = load_checkpoint(checkpoint), signature_of(recipe)
        if saved["recipe"] == asked:
            return
        there = json.loads(saved["recipe"])["steps"]
        if saved["step"] < there:
            raise UsageError(
                f"{checkpoint.parent} has another training, interrupted at step {saved['step']} of {there} "
                f"({differences(saved['recipe'], asked)}): give it up with --force, or choose another --out"
            )
    checkpoint.unlink()


def _check_head(path: Path, asked: dict[str, object]) -> None:
    """``UsageError`` if the head that is there was trained otherwise: a better one may be lost."""
    card = card_of(path)
    there = {"model": card.get("backbone_fingerprint", "?"), **card.get("recipe", {})}
    if there != asked:
        what = differences(json.dumps(there), json.dumps(asked))
        raise UsageError(f"{path} was trained otherwise ({what}): give --force to replace it, or choose another --out")


def snapshots_of_streams(
    recipe: HeadRecipe,
    split: str,
    model: StreamingModel,
    compute: Compute,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> Streams:
    """One window per second of every stream: logits (N, W, 21), and twice the token (N, W, D), zeros (N, W, 1) if none.

    Streams start at ``FIRST_S``; W is the number of windows that fit into every one. ``UsageError`` if all fail.
    """
    manifest, protocol = training_streams(read_unmade(recipe.data, split, progress), recipe)
    n, n_clips = len(manifest.segments), len(manifest.clips)
    say(
        f"{split}: {n} streams = {n_clips} clips x {recipe.offsets} offsets, {protocol.iterations} windows each "
        "(--offsets and --limit make it shorter)"
    )
    session = Session(made(manifest, progress), compute, progress=progress)
    session.need(model, protocol)
    session.compute(f"{split} snapshots")
    if not session.segments(protocol):
        why = session.failures[0].reason
        raise UsageError(f"none of the {n} {split} streams could be read: {why}")
    logits, tokens = session.snapshots(model.backbone_name, protocol)
    token = torch.from_numpy(tokens) if tokens is not None else torch.zeros(*logits.shape[:2], 1)
    labels = torch.from_numpy(session.truth(protocol).labels)
    return Streams(torch.from_numpy(logits), token, token, labels)


def training_streams(manifest: Manifest, recipe: HeadRecipe) -> tuple[Manifest, Protocol]:
    """Every clip from its beginning under ``recipe.offsets`` offsets, and the protocol with one window per second.

    ``UsageError`` if a clip is too short for validation, which takes 18 windows at hop 2 s.
    """
    # in the order of the segments, which go through the categories in turn; clips are sorted by name
    chosen = set(list(dict.fromkeys([*(s.clip_id for s in manifest.segments), *manifest.clips]))[: recipe.limit])
    clips = [clip for name, clip in manifest.clips.items() if name in chosen]
    first, reach = ticks(FIRST_S), ticks(manifest.grid.max_offset_s)
    shortest = min(clip.duration for clip in clips)
    n_windows = int(seconds(shortest - first - reach - 5 * TICKS_PER_S)) + 1
    if n_windows < 35:  # 18 windows at hop 2 s, on which the head is validated
        raise UsageError(
            f"a head needs clips of at least {FIRST_S + 2 + 5 + 34} s; the shortest in {manifest.name} has "
            f"{seconds(shortest):g} s"
        )
    segments: list[SegmentRecord] = []
    for clip in clips:
        for i in range(recipe.offsets):
            name = f"{clip.id}~{i}"
            offset = draw_offset("uniform", f"{name} head", recipe.seed, manifest.grid)
            label = manifest.grid.class_of(seconds(offset))
            segments.append(SegmentRecord(name, clip.id, clip.video_id, first, offset, label, split=clip.split))
    kept = {clip.id: clip for clip in clips}
    return replace(manifest, clips=kept, segments=tuple(segments)), streaming(hop_s=1, iterations=n_windows)


def _slug(name: str) -> str:
    return as_file_name(name.rpartition("/")[2].replace(".py:", "-"), "-").strip("-.")
