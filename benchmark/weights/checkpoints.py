"""Weights of the full-size models: drawn from a seed, or published ones fitted to a model, converted and loaded.

:mod:`avbench.weights.containers` reads the published files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from avbench.baselines.families import layouts, recognise
from avbench.baselines.family import Layout
from avbench.types import AvbenchError, NonFiniteError, UsageError, first_line
from avbench.weights.cache import refuse_long_header
from avbench.weights.cards import read_card, write_with_card
from avbench.weights.containers import read_container
from avbench.weights.published import Published, md5_of, with_md5

# ------------------------------------------------------------------------------------------------- weights from a seed

_EMBEDDINGS = (
    *("OFF_tok", "MOD_tok", "PASS_tok", "offset_tok", "selectors", "cls_token", "distillation_token", "pos_embed"),
    *("temp_embed", "position_embeddings", "pos_emb", "time_embed.weight", "height_embed.weight"),
    *("width_embed.weight", "freq_embed.weight"),
)


def draw(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values (``shape``, float64) of one state-dict entry. They depend on seed and key only, not on model or order."""
    start = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "little")
    z = np.random.Generator(np.random.PCG64(start)).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last == "running_mean":
        return 0.02 * z
    if last == "running_var":
        return 1 + 0.1 * np.abs(z)
    if key.endswith(_EMBEDDINGS):
        return 0.5 * z
    if len(shape) >= 3:
        return math.sqrt(2 / math.prod(shape[1:])) * z
    if len(shape) == 2:
        sharp = f".{key}".endswith((".query.weight", ".key.weight"))
        return (3 if sharp else 1) / math.sqrt(shape[1]) * z
    if last == "weight":
        return 1 + 0.1 * z
    return 0.02 * z


def drawn_weights(template: Mapping[str, Tensor], seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A state dict like ``template`` (whose tensors may be on the meta device) with weights drawn from ``seed``.

    The logits of such a model depend on its input but mean nothing: for parity tests and runs marked as meaningless.
    Float entries are rounded to float32 first, then converted to ``dtype``.
    """
    return {
        key: torch.from_numpy(np.asarray(draw(seed, key, tuple(t.shape)), dtype=np.float32)).to(dtype)
        if t.is_floating_point()
        else torch.zeros(t.shape, dtype=t.dtype)
        for key, t in template.items()
    }


# -------------------------------------------------------------------------------------------------- fitting to a model


def layout_of(family: str) -> Layout:
    """The layout of a family's published weights, or of a relative's; ``UsageError`` if there is none of that name."""
    known = layouts()
    if family not in known:
        whole = [name for name, layout in known.items() if not layout.encoders]
        raise UsageError(f"there is no full-size model {family!r}; known families: {', '.join(whole)}")
    return known[family]


def family_of(keys: Iterable[str]) -> str:
    """The model family of a state dict, judged by its keys; ``AvbenchError`` if it is none of the known ones."""
    keys = list(keys)
    layout = recognise(keys)
    if layout is None:
        first = min((key.removeprefix("module.") for key in keys), default="missing")
        raise AvbenchError(
            f"these weights belong to no known model (first key {first!r}); known models: {', '.join(layouts())}"
        )
    return layout.name


def build(family: str, n_classes: int = 21) -> Any:
    """A full-size model of a family without weights, on the meta device: load weights with ``assign=True``.

    Of an encoder-only layout: the whole model that the encoders belong to. ``UsageError`` for an unknown family.
    """
    layout = layout_of(family)
    with torch.device("meta"):
        return layout.new_model(n_classes=n_classes)


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the keys that this package's models use, and a list of the changes, in words.

    ``module.`` prefixes go; what else is renamed or left out, the layout says (:class:`avbench.baselines.family.Layout`
    in the family's file). ``AvbenchError`` for weights of no known model, and for two entries of one name.
    """
    layout, notes = layout_of(family_of(tensors)), []
    out: dict[str, Tensor] = {}
    left_out: list[str] = []
    for key, tensor in tensors.items():
        published = key.removeprefix("module.")
        name = layout.own_key(published)
        if not name:
            left_out.append(published)
            continue
        if name in out:
            raise AvbenchError(f"two entries of the checkpoint are named {name}")
        out[name] = tensor
    if any(key.startswith("module.") for key in tensors):
        notes.append("prefix 'module.' removed")
    if layout.rename_note:
        notes.append(layout.rename_note)
    if left_out:
        notes.append(f"left out: {', '.join(sorted(left_out))}")
    return out, notes


POSITIONS = "pos_emb_cfg.pos_emb"
BATCHES = ".num_batches_tracked"  # how many a BatchNorm saw in training


def differences(tensors: Mapping[str, Tensor], template: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """How weights differ from a model's entries: kind of difference -> the entries, in words; empty if they fit.

    A ``pos_emb`` longer than the model's is not a difference: the published code cuts it. Nor is a missing count of
    training batches: no answer depends on it, and files of torch before 0.4.1 have none.
    """
    wrong = []
    for key, wanted in template.items():
        if key not in tensors:
            continue
        tensor = tensors[key]
        if tensor.shape != wanted.shape and not _cuttable(key, tensor, wanted):
            wrong.append(f"{key}: {shape_text(tensor)} instead of {shape_text(wanted)}")
        if tensor.dtype != wanted.dtype and tensor.is_floating_point() != wanted.is_floating_point():
            wrong.append(f"{key}: {tensor.dtype} instead of {wanted.dtype}")
    missing = sorted(key for key in template.keys() - tensors.keys() if not key.endswith(BATCHES))
    unexpected = sorted(tensors.keys() - template.keys())
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    return {what: items for what, items in lists.items() if items}


def _cuttable(key: str, tensor: Tensor, wanted: Tensor) -> bool:
    same = tensor.ndim == 3 == wanted.ndim and tensor.shape[::2] == wanted.shape[::2]
    return key.endswith(POSITIONS) and same and tensor.shape[1] > wanted.shape[1]


def fit(
    tensors: Mapping[str, Tensor], template: Mapping[str, Tensor], name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights with the keys, shapes, dtypes and order of ``template``, and a list of the changes, in words.

    A longer ``pos_emb`` is cut to the model's length, as the published code does; missing counts of batches are 0. Any
    other difference raises an
    ``AvbenchError`` that lists missing entries, unexpected ones, and those of another shape. ``name``: the model's name
    for that message.
    """
    wrong = differences(tensors, template)
    if wrong:
        parts = [f"{len(items)} {what} ({_some(items)})" for what, items in wrong.items()]
        raise AvbenchError(f"the weights do not fit {name}: {'; '.join(parts)}")
    notes = []
    fitted: dict[str, Tensor] = {}
    uncounted = [key for key in template if key not in tensors]
    if uncounted:
        notes.append(f"{len(uncounted)} missing counts of training batches set to 0")
    for key, wanted in template.items():
        tensor = torch.zeros(wanted.shape, dtype=wanted.dtype) if key in uncounted else tensors[key]
        if tensor.shape != wanted.shape:
            notes.append(f"{key} cut from {tensor.shape[1]} to {wanted.shape[1]} positions")
            tensor = tensor[:, : wanted.shape[1]].contiguous()
        fitted[key] = tensor.to(wanted.dtype)
    return fitted, notes


def shape_text(tensor: Tensor) -> str:
    """A shape for messages: ``21x48``, or ``scalar``."""
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(items: list[str], n: int = 4) -> str:
    return ", ".join(items[:n]) + (f", and {len(items) - n} more" if len(items) > n else "")


def n_classes_of(tensors: Mapping[str, Tensor]) -> int:
    """Number of classes that a model with these weights answers with; 0 if there are none."""
    rows = next((len(tensors[x.class_rows]) for x in layouts().values() if x.class_rows in tensors), 0)
    layout = None if rows else recognise(tensors)
    return layout.n_classes if layout else rows


# --------------------------------------------------------------------------------------------- converting and checking


def convert(
    source: Path,
    target: Path,
    entry: Published | None = None,
    audio_lead_trim_samples: int | None = None,
    family: str | None = None,
) -> dict[str, Any]:
    """Convert a published ``.pt`` file to ``target`` (.safetensors) with its card (.json) beside it. Returns the card.

    ``entry``: the published checkpoint that ``source`` must be, by md5 and family; without it, the md5 is looked up
    among the published ones. ``family``: the family that the weights must have.
    ``audio_lead_trim_samples`` overrides the published value (0 for unpublished files). The weights are checked against
    the full-size model before anything is written; each of the two files is written whole or not at all.
    ``AvbenchError`` for a wrong md5 or family, and as :func:`read_container`, :func:`fit`, :func:`refuse_non_finite`.
    """
    source, target = Path(source), Path(target)
    container = read_container(source)
    digest = md5_of(source)
    if entry and not digest.startswith(entry.md5_prefix):
        raise AvbenchError(
            f"{source.name} is not {entry.name}: its md5 is {digest[:7]}..., published is {entry.md5_prefix}...; "
            f"download {entry.url} again"
        )
    entry = entry or with_md5(digest)
    published_trim = entry.audio_lead_trim_samples if entry else 0
    trim = published_trim if audio_lead_trim_samples is None else audio_lead_trim_samples
    if trim < 0:
        raise UsageError(f"audio_lead_trim_samples is {trim}; it must be 0 or more")
    tensors, notes = renamed(container.tensors)
    wanted, family = [entry.family if entry else None, family], family_of(container.tensors)
    for other in wanted:
        if other and family != other:
            raise AvbenchError(f"{source.name} contains {family} weights, not {other} weights")
    tensors, more = fit(tensors, template_of(family, n_classes_of(tensors)), family)
    refuse_non_finite(tensors, source.name)
    about = {"family": family, "audio_lead_trim_samples": str(trim)}
    data = save({key: tensor.contiguous() for key, tensor in tensors.items()}, about)
    card = {
        "schema": 1,
        "family": family,
        "n_classes": n_classes_of(tensors),
        "source": {"file": source.name, "md5": digest, "url": entry.url if entry else None},
        "published_as": entry.name if entry else None,
        "id": entry.id if entry else None,
        "trained_on": entry.trained_on if entry else "undeclared",
        "audio_lead_trim_samples": trim,
        "changes": notes + more,
        "n_tensors": len(tensors),
        "n_parameters": sum(t.numel() for t in tensors.values() if t.is_floating_point()),
        "about": {k: v for k, v in container.about.items() if not isinstance(v, float) or math.isfinite(v)},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_with_card(target, data, card)
    except OSError as error:
        raise AvbenchError(f"cannot write {target}: {error.strerror or error}") from error
    return card


def template_of(family: str, n_classes: int) -> dict[str, Tensor]:
    """The entries (meta tensors) of converted weights of a family; encoder-only checkpoints are families too."""
    encoders = layout_of(family).encoders
    whole = build(family, n_classes or 21).state_dict()
    return {key: tensor for key, tensor in whole.items() if not encoders or key.startswith(encoders)}


def card_of_converted(path: Path) -> dict[str, Any] | None:
    """The card beside a converted file, checked to belong to it and to be complete; None if there is none.

    ``AvbenchError`` if it cannot be read, lacks a field, or describes another file.
    """
    card = read_card(path, remedy="convert it again")
    if card is None:
        return None
    wanted = {"family": str, "n_classes": int, "audio_lead_trim_samples": int, "trained_on": str}
    for key, kind in wanted.items():
        value = card.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise AvbenchError(f"{path.with_suffix('.json').name} does not say {key}: convert {path.name} again")
    if card["family"] not in layouts():
        raise AvbenchError(f"{path.with_suffix('.json').name} names no known family: convert {path.name} again")
    return card


def verify(path: Path) -> dict[str, Any]:
    """The card of a converted file, after checking its hash, its keys and shapes and that every weight is finite.

    ``AvbenchError`` (one line) otherwise.
    """
    path = Path(path)
    card = card_of_converted(path)
    if card is None:
        what = path.with_suffix(".json") if path.is_file() else path
        raise AvbenchError(f"{what} does not exist")
    tensors = load_weights(path)
    fit(tensors, template_of(card["family"], card["n_classes"]), card["family"])
    refuse_non_finite(tensors, path.name)
    return card


def refuse_non_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise a ``NonFiniteError`` naming the first entry with NaN or infinity; ``name``: the file, for the message."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NonFiniteError(f"{name}: {key} contains NaN or infinity")


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a converted ``.safetensors`` or a published ``.pt`` file (read without executing it), under the
    keys that this package's models use. ``AvbenchError`` (one line) if the file cannot be read."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return renamed(read_container(path).tensors)[0]
    try:
        data = path.read_bytes()
        refuse_long_header(path, data[:8], len(data))
        return load(data)
    except AvbenchError:
        raise
    except OSError as error:
        raise AvbenchError(f"weight file {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # safetensors raises its own exception type for damaged files
        raise AvbenchError(f"weight file {path.name} is damaged: {first_line(error)[:120]}") from error


Weights = Path | Mapping[str, Tensor] | int  # a file, a state dict, or the seed of random weights


def load_full_size(family: str, weights: Weights) -> Any:
    """A full-size model with weights from a file, a state dict or a seed (random weights, whose results mean nothing);
    in eval mode, float32, on the CPU.

    The card of a converted file, or the md5 of a published one, sets the front end's ``audio_lead_trim_samples`` and
    ``trained_on``. ``AvbenchError`` (one line) if the weights belong to another family or do not fit.
    """
    if isinstance(weights, int):
        model = build(family)
        model.load_state_dict(drawn_weights(model.state_dict(), weights), strict=True, assign=True)
        model.trained_on = f"nothing (random weights, seed {weights})"
        return model.eval()
    path = None if isinstance(weights, Mapping) else Path(weights)
    if path:
        tensors = load_weights(path)
    else:  # copies: the model must not share memory with the caller's tensors
        given = renamed(cast("Mapping[str, Tensor]", weights))[0]
        tensors = {key: tensor.detach().clone() for key, tensor in given.items()}
    name = path.name if path else "the state dict"
    check_family(tensors, family, name)
    model = build(family, n_classes_of(tensors) or 21)
    model.load_state_dict(fit(tensors, model.state_dict(), family)[0], strict=True, assign=True)
    if path:
        card = card_of_converted(path)
        entry = with_md5(md5_of(path)) if path.suffix != ".safetensors" else None
        trim = (
            card["audio_lead_trim_samples"] if card else entry.audio_lead_trim_samples if entry else _trim_inside(path)
        )
        model.frontend = replace(model.frontend, audio_lead_trim_samples=trim)
        trained_on = card["trained_on"] if card else entry.trained_on if entry else "undeclared"
        model.trained_on = trained_on if trained_on != "undeclared" else f"undeclared ({path.name})"
    return model.eval()


def _trim_inside(path: Path) -> int:
    """The lead trim stored in a converted file itself (0 if none): the file may have been moved without its card."""
    if path.suffix != ".safetensors":
        return 0
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get("audio_lead_trim_samples", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise AvbenchError(f"{path.name} gives its audio_lead_trim_samples as {text[:20]!r}: convert it again")
    return int(text)


def load_full_head(family: str, weights: Weights) -> Any:
    """The streaming head of a full-size StreamSync, in eval mode, from the same sources as :func:`load_full_size`.

    ``AvbenchError`` (one line) as there.
    """
    template = {k: t for k, t in build(family).state_dict().items() if k.startswith("streaming_head.")}
    if isinstance(weights, int):
        tensors = drawn_weights(template, weights)
    else:
        whole = load_weights(weights) if isinstance(weights, Path) else renamed(weights)[0]
        check_family(whole, family, weights.name if isinstance(weights, Path) else "the state dict")
        tensors = fit({k: t for k, t in whole.items() if k in template}, template, f"the head of {family}")[0]
    state = {k.removeprefix("streaming_head."): t for k, t in tensors.items()}
    head: Any = build(family).streaming_head
    head.load_state_dict(state, strict=True, assign=True)
    return head.eval()


def check_family(tensors: Mapping[str, Tensor], family: str, name: str) -> None:
    """``AvbenchError`` (one line) if weights, as :func:`renamed` returns them, are not those of a model of ``family``.

    ``name``: where the weights come from, for the message.
    """
    encoders = [layout.encoders for layout in layouts().values() if layout.encoders]
    if tensors and any(all(key.startswith(prefixes) for key in tensors) for prefixes in encoders):
        raise AvbenchError(f"{name} is an encoder-only checkpoint; it is usable for training, not for runs")
    found = layout_of(family_of(tensors))
    if found.name == family:
        return
    if found.no_offset:
        raise AvbenchError(f"{name} {found.no_offset}")
    raise AvbenchError(f"{name} contains {found.name} weights, not {family} weights: use --model {found.name}")
