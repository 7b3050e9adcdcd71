"""The typed configuration of a full-size training, and the named recipes: the paper's and the published code's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from avbench.ticks import TICKS_PER_FRAME, Tick, ticks
from avbench.types import UsageError


@dataclass(frozen=True)
class FullSizeRecipe:
    """The defaults are the paper's training; each place where the published code differs from it is an option."""

    head: str = "trf"  # "trf" | "lstm" | "none" (SparseSync alone: every window by itself)
    windows: int = 12  # H
    hop_s: float = 1.0
    gradient_windows: int = 3  # K: windows that carry a gradient into SparseSync in phase 2
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
    starts: str = "list"  # "list": the starts of the manifest's segments | "free": anywhere in its clips
    seed: int = 0
    checkpoint_every: int = 100
    # ---- the published code uses the second value of each
    smoothing_over: str = "all"  # "all" classes | "neighbours" (0.1 / 0.8 / 0.1)
    early_windows: str = "both"  # losses of the first K - 1 windows: "both" | "snapshot" alone
    gradient_place: str = "random"  # where the K windows lie: "random" | "cycle" (never the first K, never the last)
    accumulation: int = 1  # parts of a batch, each with its own gradient windows
    phase1_norm: str = "frozen"  # BatchNorm of the frozen SparseSync: "frozen" | "drifting" statistics
    phase2_norm: str = "frozen"  # BatchNorm in phase 2: "frozen" statistics | "batch" statistics
    schedule: str = "linear"  # "linear": constant, then linear over phase 2 | "published": warm-up, constant, linear
    spectrogram: str = "window"  # standardised over each "window" | over the whole "stretch" (the future leaks in)
    keep: str = "last"  # the final weights: "last" | "best" in validation mAP at the last window
    half_inputs: bool = False  # pictures and spectrograms rounded to float16
    # ---- sizes; the tests use smaller ones
    window_s: float = 5.0
    short_side: int = 256
    crop: int = 224
    size: dict[str, Any] = field(default_factory=dict)  # of the model, see SparseSync

    @property
    def family(self) -> str:
        """The name of the family that is trained: "sparsesync", "streamsync-trf" or "streamsync-lstm"."""
        return "sparsesync" if self.head == "none" else f"streamsync-{self.head}"

    @property
    def window(self) -> Tick:
        """Length of one window."""
        return ticks(self.window_s)

    @property
    def hop(self) -> Tick:
        """From one window's start to the next one's."""
        return ticks(self.hop_s)

    @property
    def stretch(self) -> Tick:
        """Length of the picture of a whole stream."""
        return self.window + (self.windows - 1) * self.hop

    @property
    def heard(self) -> Tick:
        """Length of the sound of a whole stream: one hop more than the windows need where it is standardised over the
        stretch (published)."""
        return self.stretch + (self.hop if self.spectrogram == "stretch" else 0)

    def checked(self) -> FullSizeRecipe:
        """The recipe itself; ``UsageError`` for the first value that is not valid."""
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
            "keep": ("last", "best"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(map(repr, allowed))}")
        least = {"windows": 1, "batch": 1, "microbatch": 1, "phase1_steps": 0, "epochs": 0, "checkpoint_every": 1}
        least |= {"accumulation": 1, "crop": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        for name in ("lr", "clip_norm", "hop_s", "window_s"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise UsageError(f"{name} is {value}; it must be positive")
        for name in ("hop_s", "window_s"):
            if ticks(getattr(self, name)) % TICKS_PER_FRAME or not ticks(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)} s; it must be a multiple of 0.04 s (one frame)")
        if not 1 <= self.gradient_windows <= self.windows:
            raise UsageError(f"gradient_windows is {self.gradient_windows}; it must be 1 ... {self.windows} (windows)")
        if self.gradient_place == "cycle" and self.windows <= 2 * self.gradient_windows:
            raise UsageError("gradient_place 'cycle' needs more than 2 x gradient_windows windows")
        if self.accumulation > 1 and self.batch % (self.accumulation * self.microbatch):
            raise UsageError(
                f"batch is {self.batch}; it must be a multiple of accumulation x microbatch "
                f"({self.accumulation} x {self.microbatch})"
            )
        if self.short_side < self.crop:
            raise UsageError(f"short_side is {self.short_side}; it must be at least crop ({self.crop})")
        if not 0 <= self.smoothing < 0.5:
            raise UsageError(f"smoothing is {self.smoothing}; it must be at least 0 and below 0.5")
        weights = self.snapshot_weight, self.streaming_weight
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
            raise UsageError("snapshot_weight and streaming_weight must be at least 0 and not both 0")
        if not 0 <= self.seed < 2**31:
            raise UsageError(f"seed is {self.seed}; it must be 0 ... 2147483647")
        if self.head == "none" and self.phase1_steps:
            raise UsageError("head 'none' has no new parts: phase1_steps must be 0")
        if self.phase1_norm == "drifting" and self.microbatch == 1 and self.windows == 1:
            raise UsageError("drifting statistics need more than one window")
        return self

    def changed(self, settings: Mapping[str, str]) -> FullSizeRecipe:
        """A copy with ``settings`` (name -> text) applied, each parsed as its field's type.

        ``UsageError`` for an unknown name or a value that does not parse or is not valid.
        """
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
                kinds = {bool: "true or false", dict: "a JSON object", int: "a whole number", float: "a number"}
                kind = kinds.get(type(old), "text")
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
    "phase1_steps": 250,  # 500 iterations, two to a step
    "batch": 32,  # two iterations of 2 on each of 8 devices
    "microbatch": 2,
    "accumulation": 2,
    "keep": "best",
}
RECIPES = {
    "paper-trf": FullSizeRecipe(),
    "paper-lstm": FullSizeRecipe(head="lstm"),
    "published-trf": FullSizeRecipe(**PUBLISHED),  # type: ignore[arg-type]
    "sparsesync-finetune": FullSizeRecipe(head="none", windows=1, gradient_windows=1, phase1_steps=0),
}
