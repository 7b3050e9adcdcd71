"""Read published checkpoint files without executing them.

A published ``.pt`` file is a zip archive with a pickle inside. The pickle never reaches ``pickle.load``: a restricted
reader rebuilds tensors and plain containers, replaces every other class by an inert stand-in, and refuses anything
that would call code. ``torch.load(weights_only=True)`` cannot replace it: that refuses the configuration classes in
published files unless each is importable, refuses pickle protocol 4, runs ``bytearray(10**12)``, and builds tensors far
larger than the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from avbench.types import AvbenchError, in_one_line


@dataclass(frozen=True, slots=True)
class Container:
    """The content of a published file: named tensors and the plain values beside them (epoch, loss, ...)."""

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
# harmless values that a pickle makes by calling something: they become stand-ins
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
    """The pickle asks for something other than plain data and tensors; the message names it."""


class _Uncallable(type):
    def __call__(cls, *args: object, **kwargs: object) -> object:
        raise _Refused(f"it calls {cls.__qualname__}")


class _Standin:
    """Replaces any class the reader does not know: stores nothing, does nothing."""

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

    @property
    def n_bytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """Where a tensor is in the file: only the weights are read, optimizer states are not."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.size)


class _Call:
    """Something a pickle may call. It has no attributes, so a pickle cannot change it (a function could be changed)."""

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
            raise _Refused("it builds a tensor from something other than a storage")
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 8:
            raise _Refused("it builds a tensor without a valid shape")
        if not all(_is_count(x) for x in (offset, *size, *stride)):
            raise _Refused("it builds a tensor whose shape or offset is not whole numbers")
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
            raise _Refused("it calls copyreg._reconstructor on something other than a class of its own")
        return cls.__new__(cls)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40


class _Reader(pickle.Unpickler):
    """Never imports what a pickle names, so no foreign code can run; only plain containers and tensors are built.

    Names from the standard library outside a short list are refused as soon as they appear, calls of anything else
    when they are made. Classes that are only instantiated (OmegaConf's) become inert stand-ins.
    """

    def find_class(self, module: str, name: str) -> Any:
        # torch writes protocol 2, which uses the module names of Python 2
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
        ):  # (not shown: printing it could take forever)
            raise _Refused("it refers to something that is no tensor storage")
        return _Storage(pid[1], pid[2], pid[4])


def read_container(path: Path) -> Container:
    """Read the weights in a published ``.pt`` / ``.pth`` file without executing anything in it.

    Known layouts: the weights under ``model`` or ``state_dict``, or the bare state dict. Optimizer states, arguments
    and the like are skipped. ``AvbenchError`` (one line) if the file is missing, not a torch zip archive, damaged, or
    *refused* (its pickle names or calls something that is not data; the message says what).
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except _Refused as refused:
        raise AvbenchError(f"{path.name} is refused and was not executed: {refused}") from refused
    except FileNotFoundError as error:
        raise AvbenchError(f"checkpoint {path} does not exist") from error
    except zipfile.BadZipFile as error:
        raise AvbenchError(
            f"{path.name} is not a torch checkpoint in zip form: is the download complete? (files from before torch "
            "1.6 must be saved again with a newer torch)"
        ) from error
    except OSError as error:
        raise AvbenchError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # anything a damaged or hostile pickle makes the reader raise
        raise AvbenchError(f"{path.name} is damaged: {in_one_line(error)[:150]}") from error


def _read_archive(archive: zipfile.ZipFile) -> Container:
    pickles = [info for info in archive.infolist() if re.fullmatch(r"[^/]+/data\.pkl", info.filename)]
    if len(pickles) != 1:
        raise _Refused(f"it contains {len(pickles)} files named data.pkl; it must contain one")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if pickles[0].file_size > _MAX_PICKLE_BYTES or pickles[0].compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"its pickle is {pickles[0].file_size} bytes long, or compressed")
    if f"{folder}byteorder" in archive.namelist():
        with archive.open(f"{folder}byteorder") as file:
            if file.read(7) != b"little":
                raise _Refused("its numbers are stored big-endian")
    data = archive.read(pickles[0])
    _check_opcodes(data)
    content = _Reader(io.BytesIO(data)).load()
    if not isinstance(content, dict):
        raise _Refused("it does not contain a dictionary (save the model's state_dict(), not the model)")
    weights = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    found = {key: value for key, value in weights.items() if isinstance(value, _Tensor)}
    if not found or not all(isinstance(key, str) for key in found):
        raise _Refused("it contains no weights under 'model' or 'state_dict'")
    _check_sizes(archive, folder, list(found.values()))
    storages: dict[_Storage, Tensor] = {}
    about = {k: v for k, v in content.items() if isinstance(k, str) and _is_plain(v)}
    return Container({key: _tensor(archive, folder, value, storages) for key, value in found.items()}, about)


def _check_sizes(archive: zipfile.ZipFile, folder: str, tensors: list[_Tensor]) -> None:
    """Compare every size that the pickle declares with the archive, before any storage is read.

    Expanded tensors (strides of 0 or overlapping) could make terabytes out of a few bytes.
    """
    declared = sum(tensor.numel * tensor.storage.dtype.itemsize for tensor in tensors)
    stored = sum(info.file_size for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED)
    if declared > 4 * stored:  # entries may share a storage (tied weights), but not by the thousand
        raise _Refused(f"its tensors take {declared} bytes, the file contains {stored}")
    for tensor in tensors:
        storage = tensor.storage
        if tensor.numel > storage.numel:
            raise _Refused(f"a tensor of {tensor.numel} numbers is larger than its storage of {storage.numel}")
        info = archive.getinfo(f"{folder}data/{storage.member}")
        if info.compress_type != zipfile.ZIP_STORED or not storage.n_bytes == info.file_size == info.compress_size:
            raise _Refused(
                f"storage {storage.member} is {info.file_size} bytes long, its tensor says {storage.n_bytes}"
            )


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a short string, a bool or None, worth keeping as information about the file."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 1000)


_MAX_KEY = 100  # values in a key: hashing nested tuples takes as long as visiting all their values
_MARK = -1


def _check_opcodes(data: bytes) -> None:
    """Refuse pickles in which a few bytes ask for gigabytes or years: distant memo slots (memory is reserved for all
    slots below), and deeply nested tuples as keys.

    Runs through the opcodes with a stack of sizes instead of values: all values nested in a tuple, 1 for others.
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
            below = [stack.pop() for _ in before]  # topmost first
            keys = {"SETITEM": below[1:2], "SETITEMS": taken[::2], "DICT": taken[::2]}
            keys |= {"ADDITEMS": taken, "FROZENSET": taken}
            if max(keys.get(name, ()), default=0) > _MAX_KEY:
                raise _Refused("it has a tuple of tuples for a key")
            size = min(1 + sum(taken + below), _MAX_KEY + 1) if name.startswith("TUPLE") else 1
            stack += [_MARK if kind is pickletools.markobject else size for kind in opcode.stack_after]


def _tensor(archive: zipfile.ZipFile, folder: str, where: _Tensor, storages: dict[_Storage, Tensor]) -> Tensor:
    storage = where.storage
    if storage not in storages:
        data = bytearray(archive.read(f"{folder}data/{storage.member}"))  # zipfile checks the CRC
        storages[storage] = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    # a copy: tied weights would otherwise be one tensor under two names
    return (
        storages[storage]
        .as_strided(where.size, where.stride, where.offset)
        .clone(memory_format=torch.contiguous_format)
    )
