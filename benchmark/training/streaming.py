"""Training of the streaming heads in the paper's two phases (paper sec. 4.3).

Phase 1: the backbone is frozen, so its snapshots of many long streams are cached once, and only the token's linear map
and the head are trained. Phase 2: everything is trained; of H windows, K consecutive ones carry a gradient into the
backbone.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing as mp
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.embedded import HEAD_CLASSES
from avbench.baselines.mini import LogMel, MiniBackbone
from avbench.baselines.streamsync import StreamingLSTM, TokenMaker
from avbench.data.scenes import DIFFICULTIES, STANDARD, Difficulty
from avbench.scoring.metrics import score
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.training.backbone import classes_of, to_luma
from avbench.training.common import PhaseState, Say, optimise, tell_numbers, tell_step, validated, what_was_kept
from avbench.training.pool import (
    MAX_OFFSET_SAMPLES,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    Material,
    Pool,
    PoolSize,
    keep_freed_memory,
    render_material,
)
from avbench.types import CATEGORIES, UsageError

STREAM_TRAIN_SEED = 40_000_000
STREAM_VALID_SEED = 2_200_000
PHASE2_SEED = 60_000_000
OFFSETS_PER_SCENE = 6
STREAM_S = 100.0
PHASE2_POOL = PoolSize(duration_s=40.0, size=96, warm=24)  # duration and pace are the recipe's


@dataclass(frozen=True)
class StreamRecipe:
    """``head``: "trf" | "lstm". Phase 1 draws streams of up to ``windows`` windows at one of ``hops_s``.

    ``layers``: of the head. ``embedded_backbone``: start from the backbone weights that ship with the package instead
    of training them. ``seeds``: of phase 1. ``phase1_of``: the recipe whose phase 1 this one continues, "" for its own.
    ``phase2_keep``: "best" keeps the state with the best validation mAP, phase 1's included; "last" the last one.
    ``difficulty``: of the scenes, a name in ``scenes.DIFFICULTIES``.
    ``phase2_bfloat16``: mixed precision; ten times slower than float32 on a processor without bfloat16 arithmetic.
    ``laws_per_scene``: the offsets change, by so many laws a scene (``training.dynamic``); 0: they are fixed.
    """

    name: str
    head: str
    backbone: str
    seed: int = 0
    scenes: int = 280
    valid_scenes: int = 32
    steps: int = 1000
    batch: int = 64
    windows: int = 24
    hops_s: tuple[int, ...] = (1, 2, 3, 4)
    lr: float = 1e-3
    weight_decay: float = 0.05
    validate_every: int = 100
    phase2_steps: int = 120
    phase2_batch: int = 6
    phase2_windows: int = 12
    phase2_gradient_windows: int = 3
    phase2_lr: float = 1e-4
    phase2_validate_every: int = 60
    phase2_scene_s: float = 40.0
    phase2_steps_per_scene: int = 1
    phase2_keep: str = "best"
    phase2_bfloat16: bool = True
    layers: int = 3
    embedded_backbone: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    phase1_of: str = ""
    difficulty: str = STANDARD.name
    laws_per_scene: int = 0


class Lessons(Protocol):
    """What phase 1 trains on, or validates on."""

    def loss(self, recipe: StreamRecipe, model: StreamSync, rng: np.random.Generator) -> Tensor:
        """The loss of one training step."""
        ...

    def scores(self, model: StreamSync) -> dict[str, float]:
        """How good the model is, by name; leaves it in training mode. ``common.best_validation`` compares them."""
        ...


class Snapshots(Protocol):
    """Cached snapshots of N streams of W windows."""

    @property
    def logits(self) -> Tensor:
        """(N, W, 21)."""

    @property
    def off(self) -> Tensor:
        """(N, W, D)."""

    @property
    def passed(self) -> Tensor:
        """(N, W, D)."""


class Streams(NamedTuple):
    """Cached snapshots of N streams, one window per second: phase 1's training data. D: width of the token."""

    logits: Tensor  # (N, W, 21)
    off: Tensor  # (N, W, D)
    passed: Tensor  # (N, W, D)
    labels: Tensor  # (N,)

    def to(self, device: str) -> Streams:
        """The same on a torch device."""
        return Streams(*(part.to(device) for part in self))

    def loss(self, recipe: StreamRecipe, model: StreamSync, rng: np.random.Generator) -> Tensor:
        """Cross-entropy after several numbers of windows, on a batch of streams at one hop."""
        return _phase1_loss(recipe, model, self, rng)

    def scores(self, model: StreamSync) -> dict[str, float]:
        """At 18 windows of hop 2 s: see :func:`evaluate_heads`."""
        return evaluate_heads(model, self)


def scene_streams(model: MiniBackbone, scene: Material, rng: np.random.Generator) -> dict[str, Tensor]:
    """Snapshots of a scene's windows, one per second, under OFFSETS_PER_SCENE offsets; a dict of :class:`Streams`'
    fields. Each picture window is encoded once."""
    n = (len(scene.picture) - 2 * 50 - WINDOW_FRAMES) // FRAME_RATE_HZ + 1
    firsts = 50 + FRAME_RATE_HZ * np.arange(n)
    picture = np.stack([scene.picture[f : f + WINDOW_FRAMES] for f in firsts])
    shifts = rng.integers(-MAX_OFFSET_SAMPLES, MAX_OFFSET_SAMPLES + 1, OFFSETS_PER_SCENE)
    parts: dict[str, list[Tensor]] = {"logits": [], "off": [], "passed": []}
    with torch.inference_mode():
        # small pieces stay in the processor's cache: three times faster than all windows at once
        video = torch.cat([model.video_features(to_luma(torch.from_numpy(p[None]))) for p in picture])
        for shift in shifts:
            starts = firsts * TICKS_PER_FRAME + shift
            sound = torch.from_numpy(np.stack([scene.sound[a : a + WINDOW_SAMPLES] for a in starts]))
            outputs = [
                model.fusion(v, model.encode_audio(a)) for v, a in zip(video.split(8), sound.split(8), strict=True)
            ]
            for key, pieces in zip(parts, list(zip(*outputs, strict=True))[:3], strict=True):
                parts[key].append(torch.cat(pieces))
    return {k: torch.stack(v) for k, v in parts.items()} | {"labels": classes_of(shifts / SAMPLE_RATE_HZ)}


def cached_streams(  # noqa: PLR0913  (what makes the scenes, and how)
    model: MiniBackbone,
    folder: Path,
    *,
    base_seed: int,
    scenes: int,
    say: Say,
    workers: int = 2,
    difficulty: Difficulty = STANDARD,
) -> Streams:
    """Streams of ``scenes`` scenes of 100 s, stored in ``folder``, one file per scene; only missing ones are computed.

    ``UsageError`` if the folder contains snapshots of other backbone weights.
    """
    jobs = {f"{base_seed}-{n:05d}": partial(_render_and_encode, base_seed, difficulty, n) for n in range(scenes)}
    return joined(cached_snapshots(model, folder, jobs, say, workers))


def cached_snapshots(
    model: MiniBackbone,
    folder: Path,
    jobs: Mapping[str, Callable[[MiniBackbone], dict[str, Tensor]]],
    say: Say,
    workers: int = 2,
) -> list[dict[str, Tensor]]:
    """What each job returns for ``model``, stored in ``folder``, one file per job, by name; only missing ones are
    computed, by ``workers`` processes.

    ``UsageError`` if the folder contains snapshots of other backbone weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner, fingerprint = folder / "backbone.sha256", _state_sha256(model)
    if not owner.exists():
        atomic_write_bytes(owner, fingerprint.encode())
    if owner.read_text() != fingerprint:
        raise UsageError(f"{folder} contains snapshots of another backbone: delete it to compute them again")
    paths = {name: folder / f"{name}.safetensors" for name in jobs}
    todo = [(path, jobs[name]) for name, path in paths.items() if not path.exists()]
    if todo:
        began = time.monotonic()
        with mp.get_context("spawn").Pool(workers, _worker_init, (type(model), model.state_dict())) as pool:
            for count, _ in enumerate(pool.imap_unordered(_store, todo), 1):
                if count % 40 == 0 or count == len(todo):
                    say(f"snapshots of {count}/{len(todo)} scenes, {time.monotonic() - began:.0f} s")
    return [load_file(path) for path in paths.values()]


def joined(scenes: Iterable[dict[str, Tensor]]) -> Streams:
    """The streams of several scenes, one after the other."""
    parts = list(scenes)
    return Streams(*(torch.cat([x[key] for x in parts]) for key in Streams._fields))


_worker: dict[str, Any] = {}


def _worker_init(cls: type[MiniBackbone], state: dict[str, Tensor]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    model = cls()
    model.load_state_dict(state)
    _worker.update(model=model.eval())


def _store(todo: tuple[Path, Callable[[MiniBackbone], dict[str, Tensor]]]) -> None:
    path, job = todo
    tensors = job(_worker["model"])
    atomic_write_bytes(path, save({key: value.contiguous() for key, value in tensors.items()}))


def _render_and_encode(base_seed: int, difficulty: Difficulty, number: int, model: MiniBackbone) -> dict[str, Tensor]:
    scene = render_material(
        number, base_seed=base_seed, categories=CATEGORIES, duration_s=STREAM_S, difficulty=difficulty
    )
    return scene_streams(model, scene, np.random.default_rng([base_seed, number, 2]))


def _state_sha256(model: nn.Module) -> str:
    return hashlib.sha256(save({k: v.contiguous() for k, v in model.state_dict().items()})).hexdigest()


class StreamSync(nn.Module):
    """What phase 1 trains: token map and head. ``head``: "trf" | "lstm"; ``dim``: width of the token."""

    def __init__(self, head: str, dim: int, layers: int = 3) -> None:
        super().__init__()
        self.token_maker = TokenMaker(dim)
        self.head = HEAD_CLASSES[head](dim, layers=layers)

    def tokens(self, streams: Snapshots) -> Tensor:
        """The streaming tokens (N, W, D), oldest first."""
        return self.token_maker(streams.logits, streams.off, streams.passed)

    def at_lengths(self, tokens: Tensor, lengths: list[int]) -> Tensor:
        """(N, W, D) tokens, oldest first -> (N, len(lengths), 21): the streaming logits after so many windows each."""
        if isinstance(self.head, StreamingLSTM):
            return self.head(tokens)[0][:, [n - 1 for n in lengths]]
        return torch.stack([self.head(tokens[:, :n].flip(1)) for n in lengths], dim=1)


def pick(streams: Streams, rows: np.ndarray, columns: np.ndarray) -> Streams:
    """The streams ``rows`` (B,), and of each the windows ``columns`` (B, W)."""
    r, c = (torch.from_numpy(x).to(streams.labels.device) for x in (rows, columns))
    logits, off, passed = (x[r[:, None], c] for x in streams[:3])
    return Streams(logits, off, passed, streams.labels[r])


def evaluate_heads(model: StreamSync, streams: Streams, hop_s: int = 2, iterations: int = 18) -> dict[str, float]:
    """Scores at the last iteration on held-out streams, and APA's on the same streams ("apa_..."), rounded."""
    model.eval()
    rows = np.arange(len(streams.labels))
    part = pick(streams, rows, np.tile(hop_s * np.arange(iterations), (len(rows), 1)))
    with torch.inference_mode():
        logits = model.at_lengths(model.tokens(part), [iterations])[:, 0].cpu().numpy()
    labels = streams.labels.cpu().numpy()
    apa = np.log(part.logits.cpu().double().softmax(-1).mean(1).numpy() + 1e-12)
    model.train()
    ours, theirs = score(logits, labels), score(apa, labels)
    keep = [name for name in ("acc", "acc_tol1", "map", "roc_auc") if not math.isnan(ours[name])]  # one class: no mAP
    return {k: round(ours[k], 4) for k in keep} | {f"apa_{k}": round(theirs[k], 4) for k in keep}


def phase1_checkpoint(recipe: StreamRecipe, work: Path) -> Path:
    """Where phase 1 saves its progress."""
    return work / f"{recipe.name}-{recipe.seed}.phase1.ckpt"


def train_phase1(  # noqa: PLR0913  (what is trained, on what, where, and who is told)
    recipe: StreamRecipe,
    make: Callable[[], StreamSync],
    train: Lessons,
    valid: Lessons,
    work: Path,
    say: Say,
    device: str = "cpu",
) -> tuple[StreamSync, list[dict[str, float]]]:
    """Train token map and head on cached snapshots; returns the weights that validate best, as
    ``common.best_validation`` says, and the log.

    ``make``: builds the untrained model, called after the recipe's seed is set. ``train`` and ``valid`` lie on
    ``device``. Continues from the checkpoint in
    ``work``; ``UsageError`` if it belongs to another recipe.
    """
    torch.manual_seed(recipe.seed)
    model = make().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    state = PhaseState(phase1_checkpoint(recipe, work), recipe, model, optimizer)
    model.train()
    while state.step < recipe.steps:
        step = state.step
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, the same after a restart
        loss = train.loss(recipe, model, np.random.default_rng([recipe.seed, step, 3]))
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step / recipe.steps)))
        optimise(loss, model, optimizer, recipe.lr * min((step + 1) / 50, 1) * decay)
        state.step = step = step + 1
        if step % recipe.validate_every == 0 or step == recipe.steps:
            scores = valid.scores(model) | {"step": step, "loss": round(float(loss.detach()), 4)}
            state.note(scores)
            tell_numbers(say, scores, f"{recipe.name}-{recipe.seed}/")
            say(f"{recipe.name} seed {recipe.seed} step {step} of {recipe.steps}: {validated(scores)}")
            state.save()
        tell_step(say, step, recipe.steps)
    for line in what_was_kept(f"{recipe.name} seed {recipe.seed}", state.log):
        say(line)
    model.load_state_dict(state.best)
    return model.eval(), state.log


def _phase1_loss(recipe: StreamRecipe, model: StreamSync, train: Streams, rng: np.random.Generator) -> Tensor:
    """Cross-entropy after several numbers of windows, on a batch of streams at one hop."""
    n, seconds_available = train.logits.shape[:2]
    hop = int(rng.choice(recipe.hops_s))
    windows = min(recipe.windows, (seconds_available - 1) // hop + 1)
    start = rng.integers(0, seconds_available - (windows - 1) * hop, recipe.batch)
    columns = start[:, None] + hop * np.arange(windows)
    part = pick(train, rng.integers(0, n, recipe.batch), columns)
    if recipe.head == "lstm":
        lengths = list(range(1, windows + 1))
    else:
        lengths = sorted(rng.choice(np.arange(1, windows + 1), min(6, windows), replace=False).tolist())
    return _streaming_loss(model, part, lengths)


def _streaming_loss(model: StreamSync, streams: Streams, lengths: list[int]) -> Tensor:
    """Mean cross-entropy of the streaming logits after each of ``lengths`` windows."""
    logits = model.at_lengths(model.tokens(streams), lengths)
    target = neighbour_smoothed(streams.labels)[:, None].expand(-1, len(lengths), -1)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1))


def train_phase2(
    recipe: StreamRecipe,
    backbone: MiniBackbone,
    streaming: StreamSync,
    valid_scenes: list[Material],
    work: Path,
    say: Say,
) -> tuple[MiniBackbone, StreamSync, list[dict[str, float]]]:
    """Train end to end from a phase 1 result; returns both models (the state that ``phase2_keep`` names) and the log.

    Continues from the checkpoint in ``work``; ``UsageError`` if it belongs to another recipe.
    """
    models = nn.ModuleDict({"backbone": backbone, "streaming": streaming})
    optimizer = torch.optim.AdamW(models.parameters(), lr=recipe.phase2_lr, weight_decay=0.01)
    state = PhaseState(work / f"{recipe.name}-{recipe.seed}.phase2.ckpt", recipe, models, optimizer)
    keep_last = recipe.phase2_keep == "last"

    def check() -> None:
        scores = evaluate_heads(streaming, _validation_streams(backbone, valid_scenes)) | {"step": state.step}
        state.note(scores, keep=keep_last)
        tell_numbers(say, scores, f"{recipe.name}-{recipe.seed} phase 2/")
        say(f"{recipe.name} seed {recipe.seed} phase 2 step {state.step}: {validated(scores)}")

    if not state.log and not keep_last:
        check()
    size = replace(PHASE2_POOL, duration_s=recipe.phase2_scene_s, steps_per_scene=recipe.phase2_steps_per_scene)
    seed, difficulty = PHASE2_SEED + 1_000_000 * recipe.seed, DIFFICULTIES[recipe.difficulty]
    pool = Pool(size, base_seed=seed, first_step=state.step, difficulty=difficulty)
    try:
        while state.step < recipe.phase2_steps:
            step = state.step
            rng = np.random.default_rng([recipe.seed, step, 4])
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            loss = _phase2_loss(recipe, backbone, streaming, pool.at(step), rng)
            decay = 1 - 0.95 * step / recipe.phase2_steps
            optimise(loss, models, optimizer, recipe.phase2_lr * min((step + 1) / 20, 1) * decay)
            state.step = step = step + 1
            if step % 40 == 0:
                say(f"{recipe.name} seed {recipe.seed} phase 2 step {step} loss {float(loss.detach()):.3f}")
            tell_step(say, step, recipe.phase2_steps, "training, phase 2")
            last = step == recipe.phase2_steps
            if step % recipe.phase2_validate_every == 0 or last:
                if last or not keep_last:
                    check()
                state.save()
    finally:
        pool.close()
    models.load_state_dict(state.best)
    return backbone.eval(), streaming.eval(), state.log


def _validation_streams(backbone: MiniBackbone, scenes: list[Material]) -> Streams:
    """Snapshots of the validation scenes; leaves ``backbone`` in evaluation mode."""
    backbone.eval()
    return joined(
        scene_streams(backbone, scene, np.random.default_rng([STREAM_VALID_SEED, i, 2]))
        for i, scene in enumerate(scenes)
    )


def _phase2_loss(
    recipe: StreamRecipe,
    backbone: MiniBackbone,
    streaming: StreamSync,
    scenes: Sequence[Material],
    rng: np.random.Generator,
) -> Tensor:
    """1/3 snapshot + 2/3 streaming cross-entropy (the published weights), over K gradient windows of H."""
    h, k = recipe.phase2_windows, recipe.phase2_gradient_windows
    hop = int(rng.choice([1, 2]))
    backbone.eval()  # batch-norm statistics stay frozen: the windows of one stream are too similar to estimate them
    streaming.train()
    first_gradient = int(rng.integers(0, h - k + 1))
    logits_all, off_all, pass_all, labels = [], [], [], []
    snapshot_losses = []
    for _ in range(recipe.phase2_batch):
        scene = scenes[int(rng.integers(len(scenes)))]
        span = (h - 1) * hop * FRAME_RATE_HZ
        first = int(rng.integers(50, len(scene.picture) - WINDOW_FRAMES - 50 - span + 1))
        firsts = first + hop * FRAME_RATE_HZ * np.arange(h)
        shift = int(rng.integers(-MAX_OFFSET_SAMPLES, MAX_OFFSET_SAMPLES + 1))
        picture = to_luma(torch.from_numpy(np.stack([scene.picture[f : f + WINDOW_FRAMES] for f in firsts])))
        starts = firsts * TICKS_PER_FRAME + shift
        mel = backbone.logmel(torch.from_numpy(np.stack([scene.sound[a : a + WINDOW_SAMPLES] for a in starts])))
        mel = LogMel.standardise(mel, LogMel.statistics(mel))
        inside = torch.zeros(h, dtype=torch.bool)
        inside[first_gradient : first_gradient + k] = True
        outputs = []
        for mask, gradient in ((inside, True), (~inside, False)):
            mixed = torch.autocast("cpu", torch.bfloat16, enabled=recipe.phase2_bfloat16)
            with torch.set_grad_enabled(gradient), mixed:
                outputs.append(
                    backbone.fusion(backbone.video_features(picture[mask]), backbone.audio_features(mel[mask]))[:3]
                )
        order = torch.cat([torch.nonzero(inside), torch.nonzero(~inside)]).flatten().argsort()
        logits, off, passed = (torch.cat([x.float(), y.float()])[order] for x, y in zip(*outputs, strict=True))
        label = classes_of(np.array([shift / SAMPLE_RATE_HZ]))
        snapshot_losses.append(F.cross_entropy(logits[inside], neighbour_smoothed(label).expand(k, -1)))
        logits_all.append(logits)
        off_all.append(off)
        pass_all.append(passed)
        labels.append(label)
    part = Streams(torch.stack(logits_all), torch.stack(off_all), torch.stack(pass_all), torch.cat(labels))
    loss = _streaming_loss(streaming, part, list(range(3, h + 1)))
    return 2 / 3 * loss + 1 / 3 * torch.stack(snapshot_losses).mean()


def stream_validation_scenes(count: int, difficulty: Difficulty = STANDARD) -> list[Material]:
    """The scenes of the validation streams, for computing their snapshots with another backbone."""
    return [
        render_material(
            i, base_seed=STREAM_VALID_SEED, categories=CATEGORIES, duration_s=STREAM_S, difficulty=difficulty
        )
        for i in range(count)
    ]
