"""Training of the full-size StreamSync (and fine-tuning of SparseSync) on real clips, as in the paper.

Phase 1 trains the new parts alone (token, PASS, streaming head) over a frozen SparseSync; phase 2 trains everything,
with the base's gradient through K of the H windows. Where the published code does something else than the paper says,
the recipe has a named option; ``RECIPES`` holds both readings.

Everything drawn (order, offsets, augmentation, dropout) is a function of the seed, the step and the place in the
batch. A training that was killed therefore continues to the same weights, and several processes (``torchrun``) compute
what one would, to rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from avbench import __version__
from avbench.atomic import atomic_write_bytes
from avbench.baselines import frontends
from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.checkpoints import fit, renamed
from avbench.baselines.resnet import ResNet18, fast_resnet
from avbench.baselines.s3d import S3D, FastS3D
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamingLSTM, StreamSync
from avbench.data.media import ClipReader, media_sha256
from avbench.manifest import Manifest
from avbench.metrics import score
from avbench.ticks import TICKS_PER_FRAME, Tick, seconds, ticks
from avbench.training import augment
from avbench.types import AvbenchError, ClipRecord, FrontEnd, MediaError, NonFiniteError, OffsetGrid, UsageError

Say = Callable[[str], None]
GRID = OffsetGrid()
MAX_OFFSET = ticks(GRID.max_offset_s)


@dataclass(frozen=True)
class FullSizeRecipe:
    """The paper's training (its defaults), one option per place where the published code differs from it."""

    head: str = "trf"  # "trf" | "lstm" | "none" (SparseSync alone: every window by itself)
    windows: int = 12  # H
    hop_s: float = 1.0
    gradient_windows: int = 3  # K: windows through which the base gets a gradient in phase 2
    phase1_steps: int = 500
    epochs: int = 3  # of phase 2
    batch: int = 16  # streams, over all processes
    microbatch: int = 1  # streams at once on a device; "batch" statistics depend on it
    lr: float = 4e-5
    clip_norm: float = 1.0
    snapshot_weight: float = 0.5  # alpha
    streaming_weight: float = 1.0  # beta
    smoothing: float = 0.1
    augment: bool = True
    starts: str = "list"  # "list": the manifest's segments | "free": anywhere in its clips
    seed: int = 0
    checkpoint_every: int = 100
    # ---- the published code does the second of each
    smoothing_over: str = "all"  # "all" classes | "neighbours" (0.1 / 0.8 / 0.1)
    early_windows: str = "both"  # losses of the first K - 1 windows: "both" | "snapshot" alone
    gradient_place: str = "random"  # where the K windows lie: "random" | "cycle" (never the first K, never the last)
    phase1_norm: str = "frozen"  # BatchNorm of the frozen base: "frozen" | "drifting" statistics
    phase2_norm: str = "frozen"  # BatchNorm in phase 2: "frozen" statistics | "batch" statistics
    schedule: str = "linear"  # "linear": constant, then linear over phase 2 | "published": warm-up, constant, linear
    spectrogram: str = "window"  # standardised over each "window" | over the whole "stretch" (the future leaks in)
    half_inputs: bool = False  # pictures and spectrograms rounded to float16
    # ---- sizes; other ones serve the tests
    window_s: float = 5.0
    short_side: int = 256
    crop: int = 224
    size: dict[str, Any] = field(default_factory=dict)  # of the model, see SparseSync

    @property
    def window(self) -> Tick:
        return ticks(self.window_s)

    @property
    def hop(self) -> Tick:
        return ticks(self.hop_s)

    @property
    def stretch(self) -> Tick:
        return self.window + (self.windows - 1) * self.hop

    def checked(self) -> FullSizeRecipe:
        """Itself; ``UsageError`` for a value that means nothing."""
        choices = {
            "head": ("trf", "lstm", "none"),
            "starts": ("list", "free"),
            "smoothing_over": ("all", "neighbours"),
            "early_windows": ("both", "snapshot"),
            "gradient_place": ("random", "cycle"),
            "phase1_norm": ("frozen", "drifting"),
            "phase2_norm": ("frozen", "batch"),
            "schedule": ("linear", "published"),
            "spectrogram": ("window", "stretch"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(map(repr, allowed))}")
        least = {"windows": 1, "batch": 1, "microbatch": 1, "phase1_steps": 0, "epochs": 0, "checkpoint_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        for name in ("lr", "clip_norm", "hop_s", "window_s"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise UsageError(f"{name} is {value}; it must be positive")
        for name in ("hop_s", "window_s"):
            if ticks(getattr(self, name)) % TICKS_PER_FRAME:
                raise UsageError(f"{name} is {getattr(self, name)} s; it must be a multiple of 0.04 s (one frame)")
        if not 1 <= self.gradient_windows <= self.windows:
            raise UsageError(f"gradient_windows is {self.gradient_windows}; it must be 1 ... {self.windows} (windows)")
        if self.gradient_place == "cycle" and self.windows <= 2 * self.gradient_windows:
            raise UsageError("gradient_place 'cycle' needs more than 2 x gradient_windows windows")
        if not 0 <= self.smoothing < 0.5:
            raise UsageError(f"smoothing is {self.smoothing}; it must be at least 0 and below 0.5")
        if self.snapshot_weight < 0 or self.streaming_weight < 0 or not self.snapshot_weight + self.streaming_weight:
            raise UsageError("snapshot_weight and streaming_weight must not be negative, nor both zero")
        if self.head == "none" and self.phase1_steps:
            raise UsageError("head 'none' has no new parts: phase1_steps must be 0")
        if self.phase1_norm == "drifting" and self.microbatch == 1 and self.windows == 1:
            raise UsageError("drifting statistics need more than one window")
        return self

    def changed(self, settings: Mapping[str, str]) -> FullSizeRecipe:
        """With ``settings`` (name -> text) put in, each read as the type the field has. ``UsageError`` by name."""
        values: dict[str, Any] = {}
        for name, text in settings.items():
            old = getattr(self, name, None) if name in self.__dataclass_fields__ else None
            if old is None:
                raise UsageError(f"a full-size recipe has no {name!r}; it has {', '.join(self.__dataclass_fields__)}")
            try:
                if isinstance(old, bool):
                    values[name] = {"true": True, "false": False}[text.lower()]
                elif isinstance(old, dict):
                    values[name] = json.loads(text)
                    if not isinstance(values[name], dict):
                        raise ValueError
                else:
                    values[name] = type(old)(text)
            except (ValueError, KeyError):
                kind = "true or false" if isinstance(old, bool) else type(old).__name__
                raise UsageError(f"{name}={text} cannot be read: it must be {kind}") from None
        return replace(self, **values).checked()


PUBLISHED = {
    "smoothing_over": "neighbours",
    "early_windows": "snapshot",
    "gradient_place": "cycle",
    "phase1_norm": "drifting",
    "phase2_norm": "batch",
    "schedule": "published",
    "spectrogram": "stretch",
    "half_inputs": True,
    "batch": 32,  # 2 on each of 8 devices, and two steps accumulated
    "microbatch": 2,
}
RECIPES = {
    "paper-trf": FullSizeRecipe(),
    "paper-lstm": FullSizeRecipe(head="lstm"),
    "published-trf": FullSizeRecipe(**PUBLISHED),  # type: ignore[arg-type]
    "sparsesync-finetune": FullSizeRecipe(head="none", windows=1, gradient_windows=1, phase1_steps=0),
}


# ---------------------------------------------------------------------------------------------------------------- model


def new_model(recipe: FullSizeRecipe) -> SparseSync:
    """A StreamSync (or, with head "none", a SparseSync) with random weights, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return SparseSync(**recipe.size) if recipe.head == "none" else StreamSync(recipe.head, **recipe.size)


def new_parts(recipe: FullSizeRecipe) -> list[str]:
    """Names of the entries StreamSync has and SparseSync has not: 63 with the transformer head."""
    with torch.device("meta"):
        old = SparseSync(**recipe.size).state_dict()
        return [name for name in new_model(recipe).state_dict() if name not in old]


def start_from(model: SparseSync, recipe: FullSizeRecipe, weights: Mapping[str, Tensor]) -> list[str]:
    """Puts SparseSync weights into ``model``; what remains as it was is exactly ``new_parts``, which is returned.

    ``AvbenchError`` that lists missing, unexpected and misshapen entries if they are not exactly a SparseSync's.
    """
    with torch.device("meta"):
        template = SparseSync(**recipe.size).state_dict()
    fitted, _ = fit(renamed(weights)[0], template, "SparseSync, which this training starts from")
    missing, unexpected = model.load_state_dict(fitted, strict=False)
    new = new_parts(recipe)
    if sorted(missing) != sorted(new) or unexpected:  # fit() has checked the weights: only a bug leads here
        raise AvbenchError(f"{len(missing)} entries have no weights, {len(new)} are new")
    return new


class _Eyes:
    """The two encoders where no gradient is wanted: fast copies on a CPU, as they are elsewhere."""

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
    """The picture encoder, its activations computed anew part by part on the way back: a quarter of the memory."""
    assert isinstance(model.vfeat_extractor, S3D)
    x = video.transpose(1, 2)
    for part in model.vfeat_extractor.base:
        x = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False) if recompute else part(x)
    return model.v_bridge(x.transpose(1, 2))


# ----------------------------------------------------------------------------------------------------------------- data


class Item(NamedTuple):
    """A stream that can be drawn: with ``start`` (ticks), or anywhere in the clip."""

    clip: ClipRecord
    start: Tick | None


class Example(NamedTuple):
    video: Tensor  # (T, 3, crop, crop) uint8: the whole stretch
    sound: Tensor  # (H, 1, 257, columns) float32: the windows' spectrograms
    label: int


class Data:
    """The streams of a manifest that a recipe can use. ``left_out``: the others, each with its reason, in words."""

    def __init__(self, manifest: Manifest, recipe: FullSizeRecipe) -> None:
        self.manifest, self.recipe = manifest, recipe
        self.items: list[Item] = []
        self.left_out: list[str] = []
        self._checked: set[str] = set()
        length = seconds(recipe.stretch)
        if recipe.starts == "free":
            for clip in manifest.clips.values():
                if clip.duration >= recipe.stretch + MAX_OFFSET:
                    self.items.append(Item(clip, None))
                else:
                    self.left_out.append(f"clip {clip.id}: {seconds(clip.duration):g} s hold no {length:g} s +- 2 s")
        else:
            for segment in manifest.segments:
                clip = manifest.clips[segment.clip_id]
                if segment.start >= MAX_OFFSET and segment.start + recipe.stretch + MAX_OFFSET <= clip.duration:
                    self.items.append(Item(clip, segment.start))
                else:
                    self.left_out.append(
                        f"segment {segment.id}: {length:g} s +- 2 s of sound from {seconds(segment.start):g} s do not "
                        f"fit into {seconds(clip.duration):g} s"
                    )
        if not self.items:
            why = f" ({self.left_out[0]})" if self.left_out else ""
            raise UsageError(f"{manifest.name} has no stream for {recipe.windows} windows of {recipe.hop_s:g} s{why}")

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """One stream with a fresh offset, uniform in +-2 s, and fresh augmentation. ``MediaError``."""
        item, recipe = self.items[index], self.recipe
        offset_s = round(float(rng.uniform(-GRID.max_offset_s, GRID.max_offset_s)), 2)
        offset, start = ticks(offset_s), item.start
        if start is None:
            first = -(-max(0, -offset) // TICKS_PER_FRAME)
            last = (item.clip.duration - recipe.stretch - max(0, offset)) // TICKS_PER_FRAME
            start = int(rng.integers(first, last + 1)) * TICKS_PER_FRAME
        return self._example(item.clip, start, offset, GRID.class_of(offset_s), rng if recipe.augment else None)

    @cached_property
    def pinned(self) -> list[tuple[ClipRecord, Tick, Tick, int]]:
        """The manifest's segments with their own offsets, as far as they fit: what validation looks at."""
        kept = []
        for segment in self.manifest.segments:
            clip, end = self.manifest.clips[segment.clip_id], segment.start + self.recipe.stretch
            if segment.start + segment.offset >= 0 and max(end, end + segment.offset) <= clip.duration:
                kept.append((clip, segment.start, segment.offset, segment.offset_class))
        return kept

    def validation(self, number: int) -> Example:
        return self._example(*self.pinned[number], None)

    def _example(
        self, clip: ClipRecord, start: Tick, offset: Tick, label: int, rng: np.random.Generator | None
    ) -> Example:
        recipe = self.recipe
        path = self.manifest.clip_path(clip)
        if clip.id not in self._checked:
            if media_sha256(path) != clip.sha256:
                raise MediaError(clip.id, f"{path} is not the file that the manifest pins (other sha256)")
            self._checked.add(clip.id)
        reader = ClipReader(path, clip)
        wave = torch.from_numpy(reader.audio()[start + offset : start + offset + recipe.stretch].copy())
        first, n = start // TICKS_PER_FRAME, recipe.stretch // TICKS_PER_FRAME
        grid = reader.frames(FrontEnd(size=recipe.short_side, fit="short"))
        try:
            video = torch.from_numpy(np.stack([arrays[0] for arrays in islice(grid, first, first + n)]))
        finally:
            grid.close()
        if min(video.shape[2:]) < recipe.crop:
            raise UsageError(f"short_side {recipe.short_side} is below the crop of {recipe.crop}")
        blank = slice(0, 0), slice(0, 0)
        if rng is None:
            video = augment.centre(video, recipe.crop)
        else:
            video = augment.picture(video, recipe.crop, rng)
            wave = augment.sound(wave, rng)
            blank = augment.masks(rng, 257, recipe.stretch // 128 + 1)
        return Example(video.contiguous(), spectrograms(wave, recipe, *blank), label)


def spectrograms(
    wave: Tensor, recipe: FullSizeRecipe, frequencies: slice = slice(0, 0), columns: slice = slice(0, 0)
) -> Tensor:
    """(N,) samples of a stretch -> (H, 1, 257, columns), standardised over each window or over the stretch.

    ``frequencies`` and ``columns`` (of the stretch) are blanked after the logarithm, before the standardisation.
    """
    hop, window = recipe.hop // 128, recipe.window // 128
    if recipe.spectrogram == "stretch":
        spectrum = frontends.log_spectrogram(wave)
        spectrum[frequencies], spectrum[:, columns] = 0, 0
        spectrum = frontends.standardise(spectrum)
        return torch.stack([spectrum[None, :, i * hop : i * hop + window] for i in range(recipe.windows)])
    spectrum = frontends.log_spectrogram(wave.unfold(0, recipe.window, recipe.hop))
    spectrum[:, frequencies] = 0
    for i in range(recipe.windows):
        spectrum[i, :, max(columns.start - i * hop, 0) : max(columns.stop - i * hop, 0)] = 0
    return frontends.standardise(spectrum)[:, None]


# ----------------------------------------------------------------------------------------------------------- what when


class Plan:
    """Which streams belong to which step, how large the rate is, which windows carry the base's gradient."""

    def __init__(self, recipe: FullSizeRecipe, n_items: int) -> None:
        self.recipe, self.n_items = recipe, n_items
        self.per_epoch = -(-n_items // recipe.batch)
        self.total = recipe.phase1_steps + recipe.epochs * self.per_epoch

    def phase(self, step: int) -> int:
        return 1 if step < self.recipe.phase1_steps else 2

    def batch(self, step: int) -> list[int]:
        """Items of one step. Phase 1 goes round and round; each epoch of phase 2 sees every item once, so that its
        last batch may be smaller."""
        size = self.recipe.batch
        if self.phase(step) == 1:
            places = range(step * size, (step + 1) * size)
            return [int(self._order(1, p // self.n_items)[p % self.n_items]) for p in places]
        epoch, inside = divmod(step - self.recipe.phase1_steps, self.per_epoch)
        return [int(i) for i in self._order(2, epoch)[inside * size : (inside + 1) * size]]

    def _order(self, phase: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.recipe.seed, phase, epoch, 1]).permutation(self.n_items)

    def rate(self, step: int) -> float:
        recipe = self.recipe
        if recipe.schedule == "published":
            if step < 500:
                share = 0.01 + 0.99 * step / 500
            elif step < 5500:
                share = 1.0
            else:
                share = max(1e-4, 1 - (1 - 1e-4) * (step - 5500) / 7000)
            return recipe.lr * share
        done = step - recipe.phase1_steps
        return recipe.lr if done < 0 else recipe.lr * (1 - done / (self.total - recipe.phase1_steps))

    def gradient_windows(self, step: int) -> range:
        """Windows through which the base gets a gradient; none in phase 1."""
        recipe = self.recipe
        k, h = recipe.gradient_windows, recipe.windows
        if self.phase(step) == 1:
            return range(0)
        if recipe.gradient_place == "cycle":
            first = step % (h - 2 * k) + k
        else:
            first = int(np.random.default_rng([recipe.seed, step, 2]).integers(h - k + 1))
        return range(first, first + k)

    def rng(self, step: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, step, place, 3])


def targets(labels: Tensor, recipe: FullSizeRecipe, n_classes: int) -> Tensor:
    """(N,) classes -> (N, n_classes) smoothed probabilities."""
    if recipe.smoothing_over == "neighbours":
        return neighbour_smoothed(labels, n_classes, recipe.smoothing)
    return F.one_hot(labels, n_classes) * (1 - recipe.smoothing) + recipe.smoothing / n_classes


def stream_loss(snapshot: Tensor, streaming: Tensor | None, target: Tensor, recipe: FullSizeRecipe) -> Tensor:
    """(N, H, C) logits of both kinds, (N, C) targets -> (N,): the weighted mean over the windows.

    alpha x snapshot + beta x streaming; with ``early_windows`` "snapshot" the first K - 1 windows have the first term
    only. Divided by the weights that were used.
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


# ------------------------------------------------------------------------------------------------------------- forward


def streams(
    model: SparseSync, eyes: _Eyes, examples: list[Example], recipe: FullSizeRecipe, with_gradient: range, phase: int
) -> tuple[Tensor, Tensor | None]:
    """Snapshot logits (N, H, C) and streaming logits (N, H, C), or None without a head.

    ``with_gradient``: windows through which the encoders and the fusion get a gradient. In phase 1 the fusion of every
    window carries one (to PASS, which lies in it), the encoders none. ``phase`` 0: no gradient at all.
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


def set_mode(model: SparseSync, recipe: FullSizeRecipe, phase: int, new: list[str]) -> None:
    """Dropout on; BatchNorm as the recipe wants it; in phase 1 only the ``new`` parts want a gradient."""
    model.train()
    moving = recipe.phase1_norm == "drifting" if phase == 1 else recipe.phase2_norm == "batch"
    model.vfeat_extractor.train(moving)  # neither encoder has any dropout: this is BatchNorm alone
    model.afeat_extractor.train(moving)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(phase == 2 or name in new)


# -------------------------------------------------------------------------------------------------------- the processes


class Workers:
    """This process among those of ``torchrun``, or alone. Gradients, losses and statistics are summed over all."""

    def __init__(self, device: str) -> None:
        self.rank, self.n = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device(f"cuda:{local}" if device == "cuda" else device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise UsageError("device is cuda, but this machine has none that torch can use")
            torch.cuda.set_device(self.device)
        self.mine = self.n > 1 and not dist.is_initialized()
        if self.mine:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mine:
            dist.destroy_process_group()

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Every parameter gets the sum of all processes' gradients, zero where nobody has one."""
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.n == 1:
            return
        flat = torch.cat([cast(Tensor, p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)

    def total(self, values: list[float]) -> list[float]:
        if self.n == 1:
            return values
        x = torch.tensor(values, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        x = x.to(self.device)
        dist.all_reduce(x)
        return [float(v) for v in x]

    def average_statistics(self, model: nn.Module) -> None:
        """BatchNorm's running statistics, where they move: the mean over the processes."""
        if self.n == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.n

    def gathered(self, values: list[Any]) -> list[Any]:
        """All processes' lists, one after the other."""
        if self.n == 1:
            return values
        lists: list[Any] = [None] * self.n
        dist.all_gather_object(lists, values)
        return [x for part in lists for x in part]


# ----------------------------------------------------------------------------------------------------------------- loop


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
    with its card NAME.json. ``valid``: validated on after each phase and epoch, on its own offsets. ``readers``:
    threads that decode ahead. Under ``torchrun`` every process calls this with the same arguments.

    ``UsageError``: a recipe or data that do not fit, a checkpoint of another training; ``MediaError``: a clip that
    cannot be read (nothing is left out or replaced on the way); ``NonFiniteError``: the loss is no longer a number.
    """
    recipe = recipe.checked()
    data = Data(manifest, recipe)
    plan = Plan(recipe, len(data.items))
    name = name or ("sparsesync" if recipe.head == "none" else f"streamsync-{recipe.head}")
    with Workers(device) as workers:
        tell: Say = say if workers.rank == 0 else lambda text: None
        for line in data.left_out[:10]:
            tell(f"left out: {line}")
        if len(data.left_out) > 10:
            tell(f"left out: ... and {len(data.left_out) - 10} more")
        tell(
            f"{len(data.items)} streams of {recipe.windows} windows; {recipe.phase1_steps} steps of phase 1, "
            f"{plan.total - recipe.phase1_steps} of phase 2; {workers.n} process{'es' * (workers.n > 1)}"
        )
        model = new_model(recipe)
        new = start_from(model, recipe, start) if recipe.head != "none" else _same(model, recipe, start)
        model.to(workers.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, 0.999), eps=1e-7)
        out.mkdir(parents=True, exist_ok=True)
        identity = _identity(recipe, manifest, start, autocast)
        keeper = _Keeper(out, name, identity, workers.rank)
        step = keeper.resume(model, optimizer)
        if step:
            tell(f"continuing at step {step} of {plan.total}")
        looks = Data(valid, replace(recipe, starts="free")).pinned if valid else []
        watcher = Data(valid, replace(recipe, starts="free")) if valid and looks else None
        with _Ahead(data, plan, workers, step, readers) as ahead:
            eyes: _Eyes | None = None
            phase = 0
            while step < plan.total:
                if plan.phase(step) != phase:
                    phase, eyes = plan.phase(step), None
                    set_mode(model, recipe, phase, new)
                if eyes is None or phase == 2:  # in phase 1 the base does not change
                    eyes = _Eyes(model, workers.device.type == "cpu" and not model.vfeat_extractor.training)
                began = time.monotonic()
                entry = _step(recipe, plan, step, phase, model, eyes, optimizer, ahead, workers, autocast)
                step += 1
                entry |= {"step": step, "phase": phase, "wall_s": round(time.monotonic() - began, 2)}
                keeper.note(entry)
                tell(f"step {step}/{plan.total} phase {phase} loss {entry['loss']:.4f} ({entry['wall_s']:.1f} s)")
                boundary = step == recipe.phase1_steps or (
                    phase == 2 and (step - recipe.phase1_steps) % plan.per_epoch == 0
                )
                if boundary and watcher is not None:
                    scores = validate(model, watcher, workers, autocast)
                    set_mode(model, recipe, phase, new)
                    keeper.note({"step": step, "validation": scores})
                    tell(f"step {step}/{plan.total} validation {scores}")
                if step % recipe.checkpoint_every == 0 or boundary or step == plan.total:
                    keeper.save(model, optimizer, step)
        path = out / f"{name}.safetensors"
        if workers.rank == 0:
            _export(path, model, recipe, identity, keeper)
        return path


def _same(model: SparseSync, recipe: FullSizeRecipe, weights: Mapping[str, Tensor]) -> list[str]:
    model.load_state_dict(fit(renamed(weights)[0], model.state_dict(), "SparseSync")[0])
    return []


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _step(
    recipe: FullSizeRecipe,
    plan: Plan,
    step: int,
    phase: int,
    model: SparseSync,
    eyes: _Eyes,
    optimizer: torch.optim.Optimizer,
    ahead: _Ahead,
    workers: Workers,
    autocast: torch.dtype | None,
) -> dict[str, Any]:
    """One step of the optimiser; the mean loss and the accuracy at the last window, over the whole batch."""
    optimizer.zero_grad(set_to_none=True)
    size, windows = len(plan.batch(step)), plan.gradient_windows(step)
    loss_sum, hits = 0.0, 0.0
    for chunk, examples in ahead.of(step):
        # dropout: the same whoever computes this chunk, and after a restart
        torch.manual_seed((recipe.seed * 1_000_003 + step) * 65_537 + chunk)
        labels = torch.tensor([e.label for e in examples], device=workers.device)
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
    rate = plan.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    if model.vfeat_extractor.training:
        workers.average_statistics(model)
    return {"loss": round(loss_sum, 6), "acc_last": round(hits, 4), "lr": rate, "gradient_norm": round(norm, 4)}


class _Ahead:
    """This process's examples, decoded ahead by threads, in the order they are needed.

    A step's batch is cut into chunks of ``microbatch`` streams; chunk c belongs to process c modulo their number.
    """

    def __init__(self, data: Data, plan: Plan, workers: Workers, first_step: int, readers: int) -> None:
        self.data, self.plan, self.workers = data, plan, workers
        self.pool = ThreadPoolExecutor(max_workers=max(readers, 1))
        self.lookahead = 2 * max(readers, 1) * plan.recipe.microbatch
        self.queue: deque[Future[Example]] = deque()
        self.todo = (job for step in range(first_step, plan.total) for _, jobs in self._chunks(step) for job in jobs)

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def _chunks(self, step: int) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
        """(chunk, [(item, step, place in the batch)]) of this process."""
        size = self.plan.recipe.microbatch
        jobs = [(item, step, place) for place, item in enumerate(self.plan.batch(step))]
        chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        return ((c, chunks[c]) for c in range(self.workers.rank, len(chunks), self.workers.n))

    def of(self, step: int) -> Iterator[tuple[int, list[Example]]]:
        for chunk, jobs in self._chunks(step):
            yield chunk, [self._next() for _ in jobs]

    def _next(self) -> Example:
        for item, step, place in islice(self.todo, 1 + self.lookahead - len(self.queue)):
            self.queue.append(self.pool.submit(self.data.draw, item, self.plan.rng(step, place)))
        return self.queue.popleft().result()


@torch.no_grad()
def validate(
    model: SparseSync, data: Data, workers: Workers, autocast: torch.dtype | None = None
) -> dict[str, float | int]:
    """Scores at the last window of the manifest's segments, with their own offsets; each counted exactly once."""
    model.eval()
    eyes = _Eyes(model, workers.device.type == "cpu")
    found: list[tuple[int, list[float], int]] = []
    for number in range(workers.rank, len(data.pinned), workers.n):
        example = data.validation(number)
        with _autocast(workers.device, autocast):
            snapshot, streaming = streams(model, eyes, [example], data.recipe, range(0), 0)
        logits = (snapshot if streaming is None else streaming)[0, -1].float().cpu()
        found.append((number, logits.tolist(), example.label))
    found = sorted(workers.gathered(found))
    scores = score(np.array([f[1] for f in found], np.float32), np.array([f[2] for f in found]))
    return {key: round(value, 4) for key, value in scores.items()} | {"n": len(found)}


# ------------------------------------------------------------------------------------------------------- what is kept


def _identity(
    recipe: FullSizeRecipe, manifest: Manifest, start: Mapping[str, Tensor], autocast: torch.dtype | None
) -> str:
    """What a checkpoint must have been made of to be continued. How many processes compute it may change."""
    digest = hashlib.sha256()
    for key in sorted(start):
        digest.update(key.encode() + start[key].detach().cpu().contiguous().numpy().tobytes())
    parts = {"recipe": asdict(recipe), "data": manifest.sha256, "start": digest.hexdigest(), "autocast": str(autocast)}
    return json.dumps(parts, sort_keys=True)


class _Keeper:
    """Checkpoint and log of one training. Only the first process writes; a kill leaves the previous checkpoint."""

    def __init__(self, out: Path, name: str, identity: str, rank: int) -> None:
        self.path, self.log_path = out / f"{name}.checkpoint.safetensors", out / f"{name}.log.jsonl"
        self.identity, self.rank = identity, rank
        self.log: list[dict[str, Any]] = []

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Puts the checkpoint into both and returns its step; 0 if there is none."""
        if not self.path.exists():
            return 0
        try:
            with safe_open(str(self.path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except Exception as error:  # safetensors raises its own kind for damaged files
            raise AvbenchError(f"{self.path} is damaged: {str(error)[:120]}; delete it to start again") from error
        if about.get("identity") != self.identity:
            raise UsageError(
                f"{self.path} belongs to a training with another recipe, data or start: "
                "choose another folder, or delete it to start again"
            )
        model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
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
        self.log.append(line)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if self.rank:
            return
        tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
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


def _export(path: Path, model: SparseSync, recipe: FullSizeRecipe, identity: str, keeper: _Keeper) -> None:
    """The weights under the published names, float32, and a card that ``avbench weights verify`` understands."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    family = "sparsesync" if recipe.head == "none" else f"streamsync-{recipe.head}"
    data = save(tensors, {"family": family})
    told = json.loads(identity)
    card = {
        "schema": 1,
        "family": family,
        "n_classes": len(tensors["transformer.off_head.weight"]),
        "source": {"file": path.name, "md5": None, "url": None},
        "published_as": None,
        "id": None,
        "trained_on": f"manifest {told['data'][:12]}",
        "audio_lead_trim_samples": 0,
        "changes": [],
        "n_tensors": len(tensors),
        "n_parameters": sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        "about": {"training": told, "avbench": __version__, "torch": torch.__version__},
        "log": keeper.log[-1:],
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        atomic_write_bytes(path, data)
        atomic_write_bytes(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
