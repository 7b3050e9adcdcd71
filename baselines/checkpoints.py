"""Published checkpoints: read without executing them, checked, converted to safetensors.

A published ``.pt`` file is a zip archive with a pickle inside. It is never handed to ``pickle.load`` as it is: a
restricted reader rebuilds tensors and plain containers, replaces every other class by an inert stand-in, and refuses
anything that would call code.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from avbench.atomic import atomic_write_bytes
from avbench.baselines.published import Published, with_md5
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.types import AvbenchError, NonFiniteError, UsageError

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


# -------------------------------------------------------------------------------------------- reading without executing


@dataclass(frozen=True, slots=True)
class Container:
    """What a published file holds: named tensors and the plain values beside them (epoch, loss, ...)."""

    tensors: dict[str, Tensor]
    about: dict[str, int | float | str | bool | None]


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# values that are harmless in themselves but that a pickle makes by a call: they become stand-ins
_INERT_CALLS = {
    # called, these could ask for any amount of memory or time (bytearray(10**12), str of nested lists, list of a str)
    *(f"builtins.{name}" for name in ("int", "float", "complex", "str", "bool", "bytes", "bytearray")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "set", "frozenset")),  # (plain ones have opcodes)
    *("builtins.range", "builtins.slice", "builtins.type", "_operator.getitem"),  # the last two: types like int | None
    *(f"pathlib.{name}" for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "PurePosixPath")),
    *("collections.defaultdict", "collections.Counter", "argparse.Namespace", "datetime.datetime", "datetime.date"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "torch.device", "torch.Size"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray"),
    *("omegaconf.base.Box", "_codecs.encode"),
}
_INERT_STANDARD = ("typing", "types.SimpleNamespace", "enum")  # of the standard library, named but never called
_MAX_PICKLE_BYTES = 64 * 2**20


class _Refused(Exception):
    """The pickle asks for something that is neither data nor a tensor; the message names it."""


class _Uncallable(type):
    def __call__(cls, *args: object, **kwargs: object) -> object:
        raise _Refused(f"it calls {cls.__qualname__}")


class _Standin:
    """Takes the place of any class the reader does not know: holds nothing, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Standin:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    member: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """Where a tensor's bytes lie: they are read only if it is wanted (optimizer states are not)."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Call:
    """What a pickle may call: without attributes, so that it cannot be changed by one (a function could)."""

    __slots__ = ()


class _OrderedDict(_Call):
    __slots__ = ()

    def __call__(self, *args: object) -> OrderedDict:
        if args:
            raise _Refused("it calls collections.OrderedDict with a value")
        return OrderedDict()


class _RebuildTensor(_Call):
    __slots__ = ()

    def __call__(self, storage: object, offset: object, size: object, stride: object, *_: object) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise _Refused("it builds a tensor from something that is no storage")
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 8:
            raise _Refused("it builds a tensor of no shape")
        if not all(_is_count(x) for x in (offset, *size, *stride)):
            raise _Refused("it builds a tensor whose shape is not made of whole numbers")
        return _Tensor(storage, cast(int, offset), size, stride)


class _RebuildParameter(_Call):
    __slots__ = ()

    def __call__(self, data: object, *_: object) -> _Tensor | _Standin:
        if not isinstance(data, (_Tensor, _Standin)):
            raise _Refused("it makes a parameter of something that is no tensor")
        return data


class _Reconstruct(_Call):
    """``copyreg._reconstructor``: how protocols 0 and 1 make an object."""

    __slots__ = ()

    def __call__(self, cls: object, *_: object) -> object:
        if not (isinstance(cls, type) and issubclass(cls, _Standin)):
            raise _Refused("it calls copyreg._reconstructor on what is no class of its own")
        return cls.__new__(cls)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40


class _Reader(pickle.Unpickler):
    """Resolves no name to the thing it names, except plain containers: code has no way in.

    Names of the standard library outside a short list are refused at sight, calls of anything else when they happen;
    classes that are merely instantiated (OmegaConf's) become inert stand-ins.
    """

    def find_class(self, module: str, name: str) -> Any:
        # torch writes protocol 2, which has the names of old
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if module == "builtins":
            name = {"unicode": "str", "long": "int", "xrange": "range"}.get(name, name)
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return _OrderedDict()
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if full == "torch._utils._rebuild_tensor_v2":
            return _RebuildTensor()
        if full == "torch._utils._rebuild_parameter":
            return _RebuildParameter()
        if full == "copyreg._reconstructor":
            return _Reconstruct()
        if full in _INERT_CALLS:
            return type(full, (_Standin,), {})
        root = module.partition(".")[0]
        known = root in sys.stdlib_module_names or root in ("__main__", "nt", "posix")
        if known and not full.startswith(_INERT_STANDARD):
            raise _Refused(f"it names {full}")
        return _Uncallable(full, (_Standin,), {})

    def persistent_load(self, pid: Any) -> _Storage:
        if not (
            isinstance(pid, tuple)
            and len(pid) == 5
            and isinstance(pid[0], str)
            and pid[0] == "storage"
            and isinstance(pid[1], torch.dtype)
            and isinstance(pid[2], str)
            and _is_count(pid[4])
        ):  # (not shown: to write it out could take for ever)
            raise _Refused("it refers to something that is no tensor storage")
        return _Storage(pid[1], pid[2], pid[4])


def read_container(path: Path) -> Container:
    """The weights in a published ``.pt`` / ``.pth`` file, read without executing anything in it.

    Known layouts: the weights under ``model`` or ``state_dict``, or the bare state dict. Optimizer states, arguments
    and the like are skipped. ``AvbenchError`` in one line: missing, not a torch zip archive, damaged, or *refused*
    (the pickle in it names or calls something that is not data; the message says what).
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except _Refused as refused:
        raise AvbenchError(f"{path.name} is refused and was not executed: {refused}") from None
    except FileNotFoundError:
        raise AvbenchError(f"checkpoint {path} does not exist") from None
    except zipfile.BadZipFile:
        raise AvbenchError(
            f"{path.name} is not a torch checkpoint in zip form: is the download complete? (files older than torch 1.6 "
            "have to be saved again)"
        ) from None
    except OSError as error:
        raise AvbenchError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged or hostile pickle makes the reader raise
        raise AvbenchError(f"{path.name} is damaged: {type(error).__name__}: {str(error)[:120]}") from error


def _read_archive(archive: zipfile.ZipFile) -> Container:
    pickles = [info for info in archive.infolist() if re.fullmatch(r"[^/]+/data\.pkl", info.filename)]
    if len(pickles) != 1:
        raise _Refused(f"it holds {len(pickles)} files named data.pkl, not one")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if pickles[0].file_size > _MAX_PICKLE_BYTES or pickles[0].compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"its pickle is {pickles[0].file_size} bytes long, or compressed")
    if f"{folder}byteorder" in archive.namelist():
        with archive.open(f"{folder}byteorder") as file:
            if file.read(7) != b"little":
                raise _Refused("its numbers are big-endian")
    data = archive.read(pickles[0])
    _check_opcodes(data)
    content = _Reader(io.BytesIO(data)).load()
    if not isinstance(content, dict):
        raise _Refused("it holds no dictionary (of a model, save the state dict)")
    weights = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    found = {key: value for key, value in weights.items() if isinstance(value, _Tensor)}
    if not found or not all(isinstance(key, str) for key in found):
        raise _Refused("it holds no weights under 'model' or 'state_dict'")
    lengths = [math.prod(t.size) * t.storage.dtype.itemsize for t in found.values()]
    room = sum(info.file_size for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED)
    if sum(lengths) > 4 * room:  # entries may share a storage (tied weights), but not by the thousand
        raise _Refused(f"its tensors take {sum(lengths)} bytes, the file holds {room}")
    storages: dict[_Storage, Tensor] = {}
    about = {k: v for k, v in content.items() if isinstance(k, str) and _is_plain(v)}
    return Container({key: _tensor(archive, folder, value, storages) for key, value in found.items()}, about)


def _is_plain(value: object) -> bool:
    """Worth telling of, and short enough for it."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 1000)


_MAX_KEY = 100  # values in a key: a tuple of a tuple ... is hashed in the time its value takes written out
_MARK = -1


def _check_opcodes(data: bytes) -> None:
    """What a few bytes of pickle could ask gigabytes or years for: a far place in its memo (they are taken one after
    the other), and tuples of tuples as keys.

    Runs through the opcodes with a stack of sizes in place of values: the values of a tuple written out, 1 for others.
    """
    stack: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, value, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if value is None else value
            if place > 2 * len(memo) + 1000:
                raise _Refused(f"it remembers something at place {place}")
            memo[place] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            before, taken = opcode.stack_before, []
            if pickletools.markobject in before:
                before = before[: before.index(pickletools.markobject)]
                while (size := stack.pop()) != _MARK:
                    taken.append(size)
            taken = taken[::-1]
            below = [stack.pop() for _ in before]  # the last one first
            keys = {"SETITEM": below[1:2], "SETITEMS": taken[::2], "DICT": taken[::2]}
            keys |= {"ADDITEMS": taken, "FROZENSET": taken}
            if max(keys.get(name, ()), default=0) > _MAX_KEY:
                raise _Refused("it has a tuple of tuples for a key")
            size = min(1 + sum(taken + below), _MAX_KEY + 1) if name.startswith("TUPLE") else 1
            stack += [_MARK if kind is pickletools.markobject else size for kind in opcode.stack_after]


def _tensor(archive: zipfile.ZipFile, folder: str, where: _Tensor, storages: dict[_Storage, Tensor]) -> Tensor:
    storage = where.storage
    if math.prod(where.size) > storage.numel:  # strides that overlap could make terabytes of a few bytes
        raise _Refused(f"a tensor of {math.prod(where.size)} numbers lies in a storage of {storage.numel}")
    if storage not in storages:
        info = archive.getinfo(f"{folder}data/{storage.member}")
        size = storage.numel * storage.dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or not size == info.file_size == info.compress_size:
            raise _Refused(f"storage {storage.member} is {info.file_size} bytes long, its tensor says {size}")
        data = bytearray(archive.read(info))  # zipfile checks the CRC
        storages[storage] = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    # a copy: tied weights would otherwise be one tensor under two names
    return (
        storages[storage]
        .as_strided(where.size, where.stride, where.offset)
        .clone(memory_format=torch.contiguous_format)
    )


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
