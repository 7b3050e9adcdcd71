"""The weights that ship with the package, and the mini models that they make."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from avbench.baselines import weights
from avbench.baselines.families import families
from avbench.baselines.family import Family
from avbench.baselines.mini import MiniBackbone
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer
from avbench.types import UsageError

HEAD_CLASSES: dict[str, type[StreamingTransformer | StreamingLSTM]] = {
    "trf": StreamingTransformer,
    "lstm": StreamingLSTM,
}


def embedded_files() -> tuple[str, ...]:
    """The names of all embedded weight files."""
    return tuple(dict.fromkeys(file for family in families().values() for file in family.files))


def card(name: str) -> dict[str, Any]:
    """The model card of an embedded weight file: recipe, seed, log, wall time, validation, sha256."""
    return json.loads(files(weights).joinpath(f"{name}.json").read_text(encoding="utf-8"))


def load_backbone(name: str, path: Path | None = None) -> MiniBackbone:
    """The backbone of an embedded file, in eval mode; ``path`` reads another weight file of the same make.

    ``UsageError`` for a name that is no embedded file; errors of reading and fitting as they come.
    """
    family, own = _owner(name), _tensors(name, "backbone", path)
    model = family.mini_class()()
    if own:
        model.load_state_dict(own)
    else:  # a file with token map and head only: its backbone is the package's
        model.load_state_dict(_tensors(family.on_top_of.get(name, name), "backbone"))
        model.token_maker.load_state_dict(_tensors(name, "token_maker", path))
    if path is None:
        model.trained_on = card(name)["trained_on"]
    return model.eval()


def load_head(name: str, path: Path | None = None) -> StreamingTransformer | StreamingLSTM:
    """The streaming head in an embedded file, in eval mode; ``path`` as in :func:`load_backbone`.

    ``UsageError`` for a file without a head.
    """
    kind = _owner(name).head_in(name)
    if not kind:
        raise UsageError(f"the embedded weights {name} hold no head")
    tensors = _tensors(name, "head", path)
    layers = {key.split(".")[1] for key in tensors if key.startswith("blocks.")}
    head = HEAD_CLASSES[kind](len(tensors["ln_f.weight"]), layers=len(layers) or 3)
    head.load_state_dict(tensors)
    return head.eval()


def _owner(name: str) -> Family:
    """The family whose mini class reads an embedded file."""
    owner = next((family for family in families().values() if name in family.files), None)
    if owner is None:
        raise UsageError(f"there are no embedded weights {name!r}: there are {', '.join(embedded_files())}")
    return owner


def _tensors(name: str, part: str, path: Path | None = None) -> dict[str, Tensor]:
    """Float32 tensors of one part ("backbone", "token_maker" or "head") of a weight file, stored as float16."""
    data = path.read_bytes() if path else files(weights).joinpath(f"{name}.safetensors").read_bytes()
    prefix = f"{part}."
    return {
        key.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in load(data).items()
        if key.startswith(prefix)
    }
