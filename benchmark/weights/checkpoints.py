"""Published checkpoints: weights from a seed, fitted to a model, converted to safetensors, checked, loaded.

:mod:`avbench.weights.containers` reads the published files.
"""

from __future__ import annotations

import hashlib
import json
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

from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, NonFiniteError, UsageError
from avbench.weights.containers import read_container
from avbench.weights.published import Published, with_md5

# ------------------------------------------------------------------------------------------------- weights from a seed

_EMBEDDINGS = (
    *("OFF_tok", "MOD_tok", "PASS_tok", "offset_tok", "selectors", "cls_token", "distillation_token", "pos_embed"),
    *("temp_embed", "position_embeddings", "pos_emb", "time_embed.weight", "height_embed.weight"),
    *("width_embed.weight", "freq_embed.weight"),
)


def draw(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 values of one state-dict entry, drawn from the seed and the key alone (any model, any order)."""
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
    """A state dict like ``template`` (its tensors may lie on the meta device) with weights drawn from ``seed``.

    They make a model whose logits depend on its input but mean nothing: for parity tests and runs that say so.
    Float entries are rounded to float32 first, whatever ``dtype`` is.
    """
    return {
        key: torch.from_numpy(np.asarray(draw(seed, key, tuple(t.shape)), dtype=np.float32)).to(dtype)
        if t.is_floating_point()
        else torch.zeros(t.shape, dtype=t.dtype)
        for key, t in template.items()
    }


# --------------------------------------------------------------------------------------------- is it the published one


def md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(path: Path, entry: Published) -> str:
    """The file's md5; ``AvbenchError`` if it is not the one that was published."""
    found = md5(path)
    if not found.startswith(entry.md5_prefix):
        raise AvbenchError(
            f"{path.name} is not {entry.name}: its md5 is {found[:7]}..., published is {entry.md5_prefix}...; "
            f"download {entry.url} again"
        )
    return found


# -------------------------------------------------------------------------------------------------- fitting to a model


FAMILIES = ("sparsesync", "streamsync-trf", "streamsync-lstm", "synchformer", "synchformer-synchronisability")
PARTS = ("synchformer-s1", "resnet-audio")  # encoders alone: they start a training, they do not run


def family_of(keys: Iterable[str]) -> str:
    """Which model a state dict belongs to, by the names of its keys; ``AvbenchError`` if none is known."""
    names = {key.removeprefix("module.") for key in keys}

    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    if has("v_encoder.", "a_encoder."):
        return "synchformer-s1"
    if has("vfeat_extractor.base."):
        if has("streaming_head.lstm."):
            return "streamsync-lstm"
        return "streamsync-trf" if has("streaming_head.", "transformer.streaming_down_proj.") else "sparsesync"
    if has("vfeat_extractor.blocks.", "afeat_extractor.ast."):
        return "synchformer-synchronisability" if has("transformer.sync_head.") else "synchformer"
    if has("layer4.") and has("conv1."):
        return "resnet-audio"
    raise AvbenchError(
        f"these weights belong to no known model (first key {next(iter(sorted(names)), 'missing')!r}): "
        f"known are {', '.join((*FAMILIES, *PARTS))}"
    )


def build(family: str, n_classes: int = 21) -> SparseSync | Synchformer:
    """An empty full-size model of a family, on the meta device: load weights with ``assign=True``."""
    with torch.device("meta"):
        if family == "sparsesync":
            return SparseSync(n_classes=n_classes)
        if family in ("streamsync-trf", "streamsync-lstm"):
            return StreamSync(family.removeprefix("streamsync-"), n_classes=n_classes)
        if family == "synchformer":
            return Synchformer(n_classes=n_classes)
        if family == "synchformer-synchronisability":
            return Synchformer(n_classes=n_classes, head="sync_head")
    raise UsageError(f"there is no full-size model {family!r}: there are {', '.join(FAMILIES)}")


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the models' own names, and a list of what was changed, in words.

    ``module.`` prefixes go; the first stage's ``v_encoder.`` / ``a_encoder.`` become ``vfeat_extractor.`` /
    ``afeat_extractor.`` and its projections and temperature are left out; a lone sound encoder loses its classifier;
    the 2-class synchronisability model loses an offset head it does not use.
    """
    family, notes = family_of(tensors), []
    out: dict[str, Tensor] = {}
    left_out: list[str] = []
    for key, tensor in tensors.items():
        name = key.removeprefix("module.")
        unused = (
            (family == "synchformer-s1" and not name.startswith(("v_encoder.", "a_encoder.")))
            or (family == "resnet-audio" and name.startswith("fc."))
            or (family == "synchformer-synchronisability" and name.startswith("transformer.off_head."))
        )
        if unused:
            left_out.append(name)
            continue
        for old, new in (("v_encoder.", "vfeat_extractor."), ("a_encoder.", "afeat_extractor.")):
            if name.startswith(old):
                name = new + name.removeprefix(old).removeprefix("module.")
        if family == "resnet-audio":
            name = f"afeat_extractor.{name}"
        if name in out:
            raise AvbenchError(f"two entries of the checkpoint are called {name}")
        out[name] = tensor
    if any(key.startswith("module.") for key in tensors):
        notes.append("prefix 'module.' removed")
    if family == "synchformer-s1":
        notes.append("first-stage encoder names replaced by vfeat_extractor / afeat_extractor")
    if left_out:
        notes.append(f"left out: {', '.join(sorted(left_out))}")
    return out, notes


POSITIONS = "pos_emb_cfg.pos_emb"


def differences(tensors: Mapping[str, Tensor], template: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """How weights differ from the entries a model has: kind of difference -> what it is, each in words; empty if not.

    A ``pos_emb`` longer than the model's is none: the published code cuts it.
    """
    wrong = []
    for key, wanted in template.items():
        if key not in tensors:
            continue
        tensor = tensors[key]
        if tensor.shape != wanted.shape and not _cuttable(key, tensor, wanted):
            wrong.append(f"{key}: {_shape(tensor)} instead of {_shape(wanted)}")
        if tensor.dtype != wanted.dtype and tensor.is_floating_point() != wanted.is_floating_point():
            wrong.append(f"{key}: {tensor.dtype} instead of {wanted.dtype}")
    missing, unexpected = sorted(template.keys() - tensors.keys()), sorted(tensors.keys() - template.keys())
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    return {what: items for what, items in lists.items() if items}


def _cuttable(key: str, tensor: Tensor, wanted: Tensor) -> bool:
    same = tensor.ndim == 3 == wanted.ndim and tensor.shape[::2] == wanted.shape[::2]
    return key.endswith(POSITIONS) and same and tensor.shape[1] > wanted.shape[1]


def fit(
    tensors: Mapping[str, Tensor], template: Mapping[str, Tensor], name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights, exactly the entries of ``template`` (keys, shapes, dtypes), in its order, and notes in words.

    A longer ``pos_emb`` is cut to the model's length, as the published code does; a shorter one, or any other
    difference, is an ``AvbenchError`` that lists missing, unexpected and misshapen entries.
    """
    wrong = differences(tensors, template)
    if wrong:
        parts = [f"{len(items)} {what} ({_some(items)})" for what, items in wrong.items()]
        raise AvbenchError(f"the weights do not fit {name}: {'; '.join(parts)}")
    notes = []
    fitted: dict[str, Tensor] = {}
    for key, wanted in template.items():
        tensor = tensors[key]
        if tensor.shape != wanted.shape:
            notes.append(f"{key} cut from {tensor.shape[1]} to {wanted.shape[1]} positions")
            tensor = tensor[:, : wanted.shape[1]].contiguous()
        fitted[key] = tensor.to(wanted.dtype)
    return fitted, notes


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(items: list[str], n: int = 4) -> str:
    return ", ".join(items[:n]) + (f", and {len(items) - n} more" if len(items) > n else "")


def n_classes_of(tensors: Mapping[str, Tensor]) -> int:
    """Width of the snapshot head; 0 if there is none."""
    for head in ("transformer.off_head.weight", "transformer.sync_head.weight"):
        if head in tensors:
            return len(tensors[head])
    return 0


# ----------------------------------------------------------------------------------------- converting, verifying, using


def convert(
    source: Path,
    target: Path,
    entry: Published | None = None,
    audio_lead_trim_samples: int | None = None,
    family: str | None = None,
) -> dict[str, Any]:
    """Published ``.pt`` -> ``target`` (.safetensors) and, beside it, a ``.json`` of provenance, which is returned.

    ``entry`` additionally demands its md5 and family, ``family`` that family alone; without an entry the md5 is looked
    up among the published ones.
    ``audio_lead_trim_samples`` stands for the published choice (0 if the file is none of those). The weights are
    checked against the full-size model before anything is written; both files appear whole or not at all.
    ``AvbenchError`` as :func:`read_container`, :func:`check_md5`, :func:`fit` and :func:`refuse_non_finite`.
    """
    source, target = Path(source), Path(target)
    container = read_container(source)
    digest = check_md5(source, entry) if entry else md5(source)
    entry = entry or with_md5(digest)
    published_trim = entry.audio_lead_trim_samples if entry else 0
    trim = published_trim if audio_lead_trim_samples is None else audio_lead_trim_samples
    if trim < 0:
        raise UsageError(f"audio_lead_trim_samples is {trim}; it must be 0 or more")
    tensors, notes = renamed(container.tensors)
    wanted, family = [entry.family if entry else None, family], family_of(container.tensors)
    for other in wanted:
        if other and family != other:
            raise AvbenchError(f"{source.name} holds {family} weights, not {other} ones")
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
        atomic_write_bytes(target, data)
        atomic_write_bytes(target.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {target}: {error.strerror or error}") from error
    return card


def template_of(family: str, n_classes: int) -> dict[str, Tensor]:
    """The entries (meta tensors) that converted weights of a family have, encoders alone included."""
    if family in FAMILIES:
        return build(family, n_classes or 21).state_dict()
    whole = build("synchformer" if family == "synchformer-s1" else "sparsesync").state_dict()
    part = ("afeat_extractor.",) if family == "resnet-audio" else ("vfeat_extractor.", "afeat_extractor.")
    return {key: tensor for key, tensor in whole.items() if key.startswith(part)}


def sidecar_of(path: Path) -> dict[str, Any] | None:
    """The provenance beside a converted file, after checking that it belongs to it; None if there is none.

    ``AvbenchError`` if it is unreadable, lacks what it must say, or describes another file.
    """
    path = Path(path)
    sidecar = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not sidecar.is_file():
        return None
    try:
        card = json.loads(sidecar.read_text(encoding="utf-8"))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise AvbenchError(f"{error.filename} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AvbenchError(f"{path.name} and {sidecar.name} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("sha256") != digest:
        raise AvbenchError(f"{path.name} is not the file that {sidecar.name} describes: convert it again")
    wanted = {"family": str, "n_classes": int, "audio_lead_trim_samples": int, "trained_on": str}
    for key, kind in wanted.items():
        value = card.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise AvbenchError(f"{sidecar.name} does not say {key}: convert {path.name} again")
    return card


def verify(path: Path) -> dict[str, Any]:
    """The provenance of a converted file, after checking its hash, its keys and shapes and that every weight is finite.

    ``AvbenchError`` (one line) otherwise.
    """
    path = Path(path)
    card = sidecar_of(path)
    if card is None:
        what = path.with_suffix(".json") if path.is_file() else path
        raise AvbenchError(f"{what} does not exist")
    tensors = load_weights(path)
    fit(tensors, template_of(card["family"], card["n_classes"]), card["family"])
    refuse_non_finite(tensors, path.name)
    return card


def refuse_non_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """``NonFiniteError`` that names the first entry with NaN or infinity."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NonFiniteError(f"{name}: {key} holds values that are not finite")


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights under the models' own names from a converted ``.safetensors`` or, read without executing it, a
    published ``.pt`` file. ``AvbenchError`` in one line."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return renamed(read_container(path).tensors)[0]
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise AvbenchError(f"weight file {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # safetensors raises its own kind for damaged files
        raise AvbenchError(f"weight file {path.name} is damaged: {str(error)[:120]}") from error


Weights = Path | Mapping[str, Tensor] | int  # a file, a state dict, or the seed of random weights


def load_full_size(family: str, weights: Weights) -> SparseSync | Synchformer:
    """A full-size model with weights from a file, a state dict or (they then mean nothing) a seed; in eval mode,
    float32, on the CPU.

    A converted file's sidecar, or the md5 of a published file, sets the front end's ``audio_lead_trim_samples`` and
    ``trained_on``. ``AvbenchError`` in one line if the weights are of another family or do not fit.
    """
    if isinstance(weights, int):
        model = build(family)
        model.load_state_dict(drawn_weights(model.state_dict(), weights), strict=True, assign=True)
        model.trained_on = f"nothing (random weights, seed {weights})"
        return model.eval()
    path = None if isinstance(weights, Mapping) else Path(weights)
    if path:
        tensors = load_weights(path)
    else:  # copies: the caller's tensors stay the caller's
        given = renamed(cast("Mapping[str, Tensor]", weights))[0]
        tensors = {key: tensor.detach().clone() for key, tensor in given.items()}
    name = path.name if path else "the state dict"
    check_family(tensors, family, name)
    model = build(family, n_classes_of(tensors) or 21)
    model.load_state_dict(fit(tensors, model.state_dict(), family)[0], strict=True, assign=True)
    if path:
        card = sidecar_of(path)
        entry = with_md5(md5(path)) if path.suffix != ".safetensors" else None
        trim = (
            card["audio_lead_trim_samples"] if card else entry.audio_lead_trim_samples if entry else _trim_inside(path)
        )
        model.frontend = replace(model.frontend, audio_lead_trim_samples=trim)
        trained_on = card["trained_on"] if card else entry.trained_on if entry else "undeclared"
        model.trained_on = trained_on if trained_on != "undeclared" else f"undeclared ({path.name})"
    return model.eval()


def _trim_inside(path: Path) -> int:
    """The lead trim that a converted file itself holds: it may have been moved without its sidecar."""
    if path.suffix != ".safetensors":
        return 0
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get("audio_lead_trim_samples", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise AvbenchError(f"{path.name} gives its audio_lead_trim_samples as {text[:20]!r}: convert it again")
    return int(text)


def load_full_head(family: str, weights: Weights) -> Any:
    """The streaming head of a full-size StreamSync, from the same source as :func:`load_full_size`."""
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
    """``AvbenchError`` in one line if weights, under the models' own names, are not those of a model of ``family``."""
    if tensors and all(key.startswith(("vfeat_extractor.", "afeat_extractor.")) for key in tensors):
        raise AvbenchError(f"{name} holds encoders alone: a training starts from them, they cannot be run")
    found = family_of(tensors)
    if found == "synchformer-synchronisability" != family:
        raise AvbenchError(
            f"{name} says whether a clip can be synchronised (2 classes): it gives no offset and cannot be run"
        )
    if found != family:
        raise AvbenchError(f"{name} holds {found} weights, not {family} ones: use --model {found}")
