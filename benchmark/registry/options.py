"""What a request may add to a model's name, and the model that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.baselines.family import PROCEDURAL
from avbench.system.devices import CPU, on_cpu
from avbench.types import SnapshotPredictor, StreamingHead, UsageError

if TYPE_CHECKING:
    from avbench.engine.session import Guess

FROM_BACKBONE = "the backbone's own"  # where a head's streaming token comes from, unless an adapter makes it
AUTOCASTS = ("float32", "bfloat16", "float16")
ACCELERATOR = "accelerator"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a request adds to a model's name.

    ``weights``: a file, or a state dict in published keys. ``head_weights``: a file with a learned head
    (:mod:`avbench.weights.heads`). ``random_seed``: weights that no file gives are drawn from this seed, at full size;
    such a model's scores mean nothing. ``autocast``: "float32" (the reference), "bfloat16" or "float16", in which a
    full-size model's large weights are stored, too. ``compiled``: with ``torch.compile``. ``made_for``: the copy for
    the "cpu" or for an "accelerator", where the family has one (equal logits to rounding); "": the model as it is.
    ``model_args``: arguments for the constructor of a user's class, name -> value or text
    (:mod:`avbench.registry.arguments`); for a user's head where the backbone is the package's.
    """

    weights: Path | Mapping[str, Any] | None = None
    head_weights: Path | None = None
    random_seed: int | None = None
    autocast: str = "float32"
    compiled: bool = False
    made_for: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.autocast not in AUTOCASTS:
            raise UsageError(f"dtype is {self.autocast!r}; it must be one of {', '.join(AUTOCASTS)}")
        if self.random_seed is not None and self.random_seed < 0:
            raise UsageError(f"the seed of random weights is {self.random_seed}; it must be 0 or more")

    def made_quick(self, device: str) -> ModelOptions:
        """The same, with the copy that is quick on ``device``; MPS gets the model as it is, because what it does with
        3-D convolutions that store channels last is not known."""
        kind = device.partition(":")[0]
        return replace(self, made_for={"cpu": CPU, "mps": ""}.get(kind, ACCELERATOR))

    def for_device(self, device: str) -> ModelOptions:
        """The same, with the copy for accelerators if ``device`` is one."""
        return self if on_cpu(device) else self.made_quick(device)

    @property
    def changes_anything(self) -> bool:
        """Whether the request adds anything to the model's name."""
        given = (self.weights, self.head_weights, self.random_seed)
        return any(x is not None for x in given) or self.autocast != "float32" or self.compiled or bool(self.model_args)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`load_model` that mean the same; plain data if the weights are files."""
        return {
            "weights": str(self.weights) if isinstance(self.weights, Path) else self.weights,
            "head_weights": None if self.head_weights is None else str(self.head_weights),
            "random_weights": self.random_seed,
            "autocast": self.autocast,
            "compile": self.compiled,
            "model_args": dict(self.model_args),
        }


@dataclass(frozen=True, slots=True)
class StreamingModel:
    """A backbone and a head under one name. ``backbone`` and ``head`` are None until :func:`load_model` loads them.

    ``load_backbone`` and ``load_head`` are picklable and take no arguments, so that worker processes can call them;
    a trivial model (which ignores its input) has no ``load_backbone``, nor has one given as an object: its ``backbone``
    is there from the beginning.
    """

    name: str
    kind: str  # "learned", "classical" or "trivial"
    backbone_name: str
    head_name: str
    load_backbone: Callable[[], SnapshotPredictor] | None = field(repr=False)
    load_head: Callable[[], StreamingHead] | None = field(repr=False)
    description: str
    trained_on: str
    full_size: bool = False
    options: ModelOptions = field(default=ModelOptions(), repr=False)  # may hold a whole state dict
    random_seed: int | None = None  # of the weights, or of a part of them: the scores then mean nothing
    token: str = ""  # where the head's streaming token comes from, in words; "" if the head needs none
    backbone: SnapshotPredictor | None = field(default=None, repr=False)
    guess: Guess | None = field(default=None, repr=False)  # of a trivial model, once loaded
    head: StreamingHead | None = field(default=None, repr=False)

    @property
    def embedded(self) -> bool:
        """Whether the weights are those shipped with the package."""
        return PROCEDURAL in self.trained_on

    @property
    def audio_lead_trim_samples(self) -> int:
        """How many samples early the backbone hears the sound (0 until it is loaded)."""
        return self.backbone.frontend.audio_lead_trim_samples if self.backbone else 0

    def computed(self) -> tuple[str, ...]:
        """What, beside weights and code, decides the logits, in the signature's words; empty for a mini model computed
        in float32 as written. Full-size models always name their lead trim."""
        trim = self.audio_lead_trim_samples
        parts = [f"lead{trim}"] if trim or self.full_size else []
        parts += [self.options.autocast] if self.options.autocast != "float32" else []
        parts += ["compiled"] if self.options.compiled else []
        return (*parts, *([f"random{self.random_seed}"] if self.random_seed is not None else []))
