"""The fingerprint of a backbone: a hash of everything in it that may change a snapshot. The same in every process.

The source files of its classes count with all that they import from their own folder: helpers affect the output. Of a
user's file that is a member of a package, all that it imports from the package counts.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import sys
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from avbench.engine.sources import local_sources
from avbench.types import SnapshotPredictor, StreamingHead, UsageError

ARGUMENTS = "avbench_arguments"  # attribute: the arguments that a user's class was given, whether or not it keeps them
FILES = "avbench_files"  # attribute: the files among them, path as given -> name: where they lie does not count
USERS_FILE = "avbench_user_"  # the name of a user's file as a module begins with it
_SAID_NOT_COMPUTED = {"description", "trained_on"}  # attributes for people
_LIBRARIES = {"torch", "numpy", *sys.stdlib_module_names} - {"__main__"}  # their classes count by name
_INSTALLED = {"site-packages", "dist-packages"}  # folders of unrelated distributions


def model_fingerprint(predictor: SnapshotPredictor) -> str:
    """sha256 (64 hex digits) over the predictor's class, the source files of its classes (bases and submodules too,
    torch's own excepted) and what these import from their folders, its front end and its whole state: parameters,
    buffers and attributes.

    Two predictors that differ in one weight have different fingerprints. The device and the location of the files do
    not count. ``UsageError`` for a state of unknown type: such a predictor needs ``fingerprint_parts() -> dict``
    (numbers, strings, arrays, tensors and containers of them), which then replaces all its attributes.
    """
    name = type(predictor).__name__
    facts = ("avbench fingerprint 2", predictor.frontend, predictor.token_dim, predictor.two_tower)
    try:
        return hashlib.sha256(_digest(facts, name) + _digest(predictor, name)).hexdigest()
    except RecursionError:
        raise _unknown(predictor, "an attribute that leads back to itself") from None


def head_fingerprint(head: StreamingHead) -> str:
    """sha256 (64 hex digits) over a streaming head, made like :func:`model_fingerprint`: the source files of its
    classes and its whole state. ``UsageError`` for a state of unknown type."""
    name = type(head).__name__
    try:
        return hashlib.sha256(_digest("avbench head fingerprint 1", name) + _digest(head, name)).hexdigest()
    except RecursionError:
        raise _unknown(head, "an attribute that leads back to itself") from None


def _digest(value: Any, where: str) -> bytes:
    digest = hashlib.sha256()
    for piece in _pieces(value, where):
        digest.update(piece)
    return digest.digest()


def _pieces(value: Any, where: str) -> Iterator[bytes]:
    """The bytes to hash for ``value``: its type and size, then its content; values inside it as digests, so that
    different values never give the same bytes."""
    kind = type(value).__name__
    if isinstance(value, enum.Enum):
        yield f"enum {_name(type(value))} {value.name}".encode()
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise _unknown(value, where)
        yield f"ndarray {value.dtype.str} {value.shape} ".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif value is None or isinstance(value, bool | int | float | complex):
        yield f"{kind} {value!r}".encode()
    elif isinstance(value, bytes | bytearray):
        yield f"{kind} ".encode() + value
    elif isinstance(value, str | Path):
        yield f"{kind} {value}".encode("utf-8", "surrogatepass")
    elif isinstance(value, list | tuple):
        yield f"{kind} ".encode()
        yield from (_digest(item, f"{where}[{i}]") for i, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield f"{kind} ".encode()
        yield from sorted(_digest(item, where) for item in value)
    elif isinstance(value, dict):
        yield f"{kind} ".encode()
        # sorted by digest: the order of insertion changes nothing, and keys need not be comparable
        yield from sorted(_digest(key, where) + _digest(item, f"{where}.{key}") for key, item in value.items())
    elif isinstance(value, weakref.ReferenceType):
        yield b"weakref"  # points to state that is hashed elsewhere (as in nn.LSTM)
    elif isinstance(value, type | FunctionType | BuiltinFunctionType) and "<" not in value.__qualname__:
        yield f"named {_name(value)} {_source_sha256(value)}".encode()
    elif type(value).__module__.startswith("torch") and kind in ("device", "dtype"):
        yield kind.encode() + (str(value).encode() if kind == "dtype" else b"")
    elif _is_torch(value, "Tensor"):
        yield from _tensor_pieces(value, where)
    elif (
        _is_torch(value, "Module")
        or isinstance(value, SnapshotPredictor | StreamingHead)
        or dataclasses.is_dataclass(value)
    ):
        yield f"object {[(_name(c), _source_sha256(c)) for c in type(value).__mro__]}".encode()
        yield _digest(_state(value), where)
    else:
        raise _unknown(value, where)


def _state(value: Any) -> dict[str, Any]:
    files = getattr(value, "__dict__", {}).get(FILES)
    state = _whole_state(value)
    return _without_folders(state, files) if files else state  # type: ignore[no-any-return]


def _without_folders(value: Any, files: dict[str, str]) -> Any:
    """``value``, with the paths of ``files`` that the object keeps, in containers too, as their names alone."""
    if isinstance(value, str | Path):
        return files.get(str(value), value)
    if type(value) is dict:
        return {key: _without_folders(item, files) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_folders(item, files) for item in value)
    return value


def _whole_state(value: Any) -> dict[str, Any]:
    if hasattr(value, "fingerprint_parts"):
        given = getattr(value, "__dict__", {}).get(ARGUMENTS)
        return value.fingerprint_parts() | ({} if given is None else {ARGUMENTS: given})
    state = {name: item for name, item in getattr(value, "__dict__", {}).items() if name != FILES}
    if dataclasses.is_dataclass(value):
        state |= {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if _is_torch(value, "Module"):
        import torch

        # what every module has (hooks, the train/eval switch) does not count, except the weights
        machinery = set(vars(torch.nn.Module())) - {"_parameters", "_buffers", "_modules"}
        state = {name: item for name, item in state.items() if name not in machinery}
    return {name: item for name, item in state.items() if name not in _SAID_NOT_COMPUTED}


def _tensor_pieces(value: Any, where: str) -> Iterator[bytes]:
    import torch

    yield f"tensor {value.dtype} {tuple(value.shape)} ".encode()
    try:
        flat = value.detach().cpu().resolve_conj().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().tobytes()
    except (RuntimeError, NotImplementedError, TypeError) as error:  # sparse, quantised, on no device
        raise _unknown(value, where) from error


def _is_torch(value: Any, name: str) -> bool:
    """Whether ``value`` is a torch Tensor or Module, without importing torch: if it is one, torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor if name == "Tensor" else torch.nn.Module)


def _name(thing: Any) -> str:
    """Where a class or function is defined; a script has the same name in the processes that it starts."""
    module = (thing.__module__ or "").replace("__mp_main__", "__main__")
    return f"{module}.{thing.__qualname__}"


@cache
def _source_sha256(thing: Any) -> str:
    """Hash of the file that defines a class or function and of what it imports from its folder (relative paths and
    bytes); of its compiled code if there is no file (a notebook); "" for libraries. ``UsageError`` if one of the files
    cannot be read."""
    module = thing.__module__ or ""
    if module.partition(".")[0] in _LIBRARIES or module == "avbench.types":
        return ""
    try:
        file = Path(inspect.getsourcefile(thing) or "")
    except (OSError, TypeError):
        file = Path()
    if not file.is_file():
        return _code_sha256(thing)
    try:
        if file.parent.name in _INSTALLED:
            sources = {file.name: file.read_bytes()}
        else:
            package = getattr(sys.modules.get(module), "__package__", None) or ""
            sources = local_sources(file, file.parent, package)
            if package and module.rpartition(".")[2].startswith(USERS_FILE):  # it may import from all of its package
                sources = {f"./{path}": source for path, source in sources.items()}
                sources |= local_sources(file, file.parents[package.count(".") + 1])
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}, a source file of {_name(thing)}: {error.strerror}") from error
    return _digest(list(sources.items()), file.name).hex()


def _code_sha256(thing: Any) -> str:
    """Hash of the compiled code of a function, or of all functions of a class; "" if there is none."""
    parts = list(vars(thing).values()) if isinstance(thing, type) else [thing]
    parts = [getattr(part, "__func__", getattr(part, "fget", part)) for part in parts]
    codes = [code for part in parts if (code := getattr(part, "__code__", None))]
    return hashlib.sha256(repr([_code(code) for code in codes]).encode()).hexdigest() if codes else ""


def _code(code: Any) -> tuple[Any, ...]:
    constants = [_code(item) if hasattr(item, "co_code") else repr(item) for item in code.co_consts]
    return code.co_name, code.co_code.hex(), code.co_names, code.co_varnames, constants


def _unknown(value: Any, where: str) -> UsageError:
    return UsageError(
        f"cannot fingerprint {where} ({type(value).__name__}): define fingerprint_parts() -> dict on the class, "
        "with the numbers, strings, arrays or tensors that decide what it computes"
    )
