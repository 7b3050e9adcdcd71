"""Load backbones and heads: embedded or full size; those from outside are :mod:`avbench.registry.user_files`'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from avbench.baselines.families import layout_with_head
from avbench.baselines.family import Family
from avbench.baselines.trivial import TRIVIAL
from avbench.registry.heads import head_class, is_learned
from avbench.registry.options import FROM_BACKBONE, StreamingModel
from avbench.types import AvbenchError, SnapshotPredictor, StreamingHead, UsageError, in_one_line


def load_all(models: Sequence[StreamingModel], device: str = "cpu") -> list[StreamingModel]:
    """Resolved models with backbone and head; models that share a backbone share one in memory, too."""
    built: dict[str, SnapshotPredictor] = {}
    loaded = []
    for model in models:
        loaded.append(load(model, device, backbone=built.get(model.backbone_name)))
        if (backbone := loaded[-1].backbone) is not None:
            built[model.backbone_name] = backbone
    return loaded


def load(
    model: StreamingModel, device: str = "cpu", dtype: Any | None = None, backbone: SnapshotPredictor | None = None
) -> StreamingModel:
    """A resolved model with backbone and head: see :func:`load_model`. ``backbone``: the model's own, if it has been
    loaded already."""
    if model.load_backbone is None and model.backbone is None:
        return replace(model, guess=TRIVIAL[model.name].predict)
    if backbone is None:
        made = model.backbone if model.load_backbone is None else model.load_backbone()
        backbone = moved(made, device, dtype)
    assert backbone is not None
    head = model.load_head() if model.load_head else None
    token = ""
    if head is not None and is_learned(model.head_name):
        head, token = _with_token(head, backbone, model)
    elif head is not None and head.needs_token:
        if backbone.token_dim is None:
            raise UsageError(
                f"model {model.name!r}: its head needs a streaming token and {model.backbone_name} gives none"
            )
        token = FROM_BACKBONE
    trained_on = model.trained_on or backbone.trained_on
    head_trained_on = getattr(head, "trained_on", "")  # a head from outside may say it
    if head_trained_on:
        trained_on = f"{trained_on}; head: {head_trained_on}"
    return replace(
        model,
        backbone=backbone,
        head=moved(head, device, dtype),
        token=token,
        description=model.description or backbone.description,
        trained_on=trained_on,
    )


def _with_token(head: Any, backbone: SnapshotPredictor, model: StreamingModel) -> tuple[Any, str]:
    """The head as this backbone can feed it, and where its token comes from, in words."""
    source = getattr(head, "token_source", "")  # it brings an adapter of its own
    if source:
        return head, source
    if backbone.token_dim is None:
        if getattr(head, "token_from", "") == "backbone":
            raise UsageError(
                f"model {model.name!r}: the {model.head_name} head was trained on a backbone's own streaming token and "
                f"{model.backbone_name} gives none"
            )
        adapter = import_module("avbench.baselines.adapter")
        return adapter.AdaptedHead(head, head.dim, head.logit_head.out_features).eval(), adapter.DESCRIPTION
    if head.dim != backbone.token_dim:
        raise UsageError(
            f"model {model.name!r}: the {model.head_name} head reads tokens of {head.dim} values, "
            f"{model.backbone_name} gives {backbone.token_dim}"
        )
    return head, FROM_BACKBONE


def moved(module: Any, device: str, dtype: Any | None = None) -> Any:
    """The module in eval mode where it should be; what is no torch module stays as it is."""
    if hasattr(module, "eval") and hasattr(module, "to"):
        return module.eval().to(device=device, dtype=dtype)
    return module


# -- factories: module-level, so that partials of them can be pickled for worker processes -----------------------------


def load_embedded(part: str, file: str, path: Path | None = None) -> Any:
    """The backbone or head of an embedded weight file, or of ``path`` in its place."""
    embedded = import_module("avbench.baselines.embedded")
    try:
        return getattr(embedded, f"load_{part}")(file, path)
    except (FileNotFoundError, IsADirectoryError) as error:
        what = f"weight file {path} does not exist" if path else f"this installation lacks the embedded weights {file}"
        raise AvbenchError(f"{what}; `avbench train {file}` makes them") from error
    except Exception as error:  # safetensors and torch have no exception of their own in common
        raise AvbenchError(f"weights {path or file} cannot be used: {in_one_line(error)}") from error


def load_full(family: str, source: Any) -> SnapshotPredictor:
    """The full-size model of a family from a file, a state dict, or a seed (random weights)."""
    checkpoints = import_module("avbench.weights.checkpoints")
    model = checkpoints.load_full_size(family, source)
    n_classes = checkpoints.n_classes_of(model.state_dict())
    if n_classes != 21:
        name = source.name if isinstance(source, Path) else "the state dict"
        raise AvbenchError(f"{name} has {n_classes} classes, the protocols have 21: it cannot be run")
    return model


def load_full_head(family: str, source: Any) -> StreamingHead:
    """The head of a full-size streaming model, from the same sources as :func:`load_full`."""
    return import_module("avbench.weights.checkpoints").load_full_head(family, source)


def load_head_file(path: Path, kind: str, with_its_backbone: bool = False) -> StreamingHead:
    """A learned head ("trf" or "lstm") from its own file, or from a file that also has its backbone. ``UsageError`` if
    its own file has no such head."""
    try:
        return import_module("avbench.weights.heads").load_head(path, kind, with_its_backbone)
    except AvbenchError as error:
        if with_its_backbone:
            raise
        raise UsageError(f"--head-weights: {error}") from error


def load_random_head(kind: str, seed: int) -> StreamingHead:
    """As large as in the full-size model that carries such a head: 512 wide."""
    layout = layout_with_head(kind)
    if layout is None:
        raise UsageError(f"no full-size model carries a {kind} head: its weights cannot be random")
    return load_full_head(layout.name, seed)


def load_tuned(
    factory: Callable[[], SnapshotPredictor], made_for: str, autocast: str, compiled: bool
) -> SnapshotPredictor:
    """What ``factory`` makes, computed otherwise: see :mod:`avbench.baselines.tuned`."""
    return import_module("avbench.baselines.tuned").tuned(factory(), made_for, autocast, compiled)


def load_without_weights(family: Family) -> SnapshotPredictor:
    """The backbone of a family that has no weights to choose, in eval mode."""
    return moved(family.mini_class()(), "cpu", None)


def load_plain_head(name: str) -> StreamingHead:
    """A built-in head that needs no weights: a name of :func:`avbench.registry.heads.plain_heads`."""
    return head_class(name)()
