"""Read a pickle as data: nothing in it is called or imported, and what it costs is bounded by its length.

:class:`PickleReader` runs the opcodes of a pickle on a stack of its own, as ``pickle.load`` would, but builds only what
a file of weights needs: numbers, texts, tuples, dictionaries with texts for keys, and where tensors are in the archive.
Every other object (a list, a set, an instance of whatever class) is one and the same :data:`OTHER`, which contains
nothing; lists are kept on request, for files of torch before 1.6. So a pickle can execute nothing, and

- *time*: no opcode costs more than a constant for each byte it reads and each value it takes off the stack. Only texts
  are ever hashed (their hashes cannot be foreseen, so they cannot be made to collide), and only short ones;
- *memory*: what each opcode makes is counted before it is kept, against a multiple of the pickle's length.

The limits are ten times what the largest published layout needs (StreamSync with its optimiser's state for all 873
entries: 0.4 MB of pickle, 107,000 opcodes, 2,600 tensors), see ``tests/weights/test_pickled.py``.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

MAX_BYTES = 4 * 2**20
MAX_OPCODES = 1_500_000  # a few seconds
# bytes of objects that a pickle may make for each of its own, and in any case
MADE_PER_BYTE = 12
MADE_ANYHOW = 4 * 2**20
MAX_KEY = 1000  # characters; equal keys are compared letter by letter. The longest published one has 76
MAX_NAME = 1000  # characters of a class's name with its module, or of a member of the archive
MAX_ARGUMENTS = 10  # of a call that builds something: they are copied. torch uses 7

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # torch's name of a storage -> the type of its numbers
# harmless values that a pickle makes by calling something
_INERT_CALLS = {
    *(f"builtins.{name}" for name in ("int", "float", "complex", "str", "bool", "bytes", "bytearray")),
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "set", "frozenset")),  # (plain ones have opcodes)
    "builtins.object",
    *("builtins.range", "builtins.slice", "builtins.type", "_operator.getitem"),  # the last two: types like int | None
    *(f"pathlib.{name}" for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "PurePosixPath")),
    *("collections.defaultdict", "collections.Counter", "argparse.Namespace", "datetime.datetime", "datetime.date"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "torch.device", "torch.Size"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray"),
    *("omegaconf.base.Box", "_codecs.encode"),
}
_INERT_STANDARD = ("typing", "types.SimpleNamespace", "enum")  # of the standard library, named but never called


class Refused(Exception):
    """The pickle asks for something other than plain data and tensors, or for too much; the message says what."""


class _Other:
    """Stands for every object that is no part of the weights: it contains nothing, and nothing can be done with it."""

    __slots__ = ()


OTHER = _Other()
_MARK = object()


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names, such as ``torch.FloatStorage``. It is never imported."""

    full: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A member of the archive with the numbers of one or more tensors. ``dtype``: a value of ``STORAGES``."""

    dtype: str
    member: str
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorPlace:
    """Where a tensor is in the archive: only the weights are read, optimizer states are not."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40


# ---------------------------------------------------------------------------------------------- what a pickle may call


def _named(module: str, name: str) -> Name:
    """A name, unless it is one of the standard library's outside a short list: those are refused where they appear."""
    if len(module) + len(name) > MAX_NAME:
        raise Refused(f"it names something in {len(module) + len(name)} characters")
    # torch writes protocol 2, which uses the module names of Python 2
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if module == "builtins":
        name = {"unicode": "str", "long": "int", "xrange": "range"}.get(name, name)
    full = f"{module}.{name}"
    root = module.partition(".")[0]
    standard = root in sys.stdlib_module_names or root in ("__main__", "nt", "posix")
    if standard and full not in _INERT_CALLS and full not in _CALLS and not full.startswith(_INERT_STANDARD):
        raise Refused(f"it names {full}")
    return Name(full)


def _ordered_dict(*args: object) -> dict[str, Any]:
    """Python 2 makes one of a list of lists of two."""
    pairs = args[0] if args else []
    if len(args) > 1 or not isinstance(pairs, list):
        raise Refused("it calls collections.OrderedDict with a value")
    if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and len(p[0]) <= MAX_KEY for p in pairs):
        raise Refused("it makes a dictionary of something other than texts and values")
    return dict(pairs)


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorPlace:
    if not isinstance(storage, Storage):
        raise Refused("it builds a tensor from something other than a storage")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 8:
        raise Refused("it builds a tensor without a valid shape")
    if not all(_is_count(x) for x in (offset, *size, *stride)):
        raise Refused("it builds a tensor whose shape or offset is not whole numbers")
    return TensorPlace(storage, cast(int, offset), size, stride)


def _rebuild_parameter(data: object = None, *_: object) -> TensorPlace | _Other:
    if not isinstance(data, (TensorPlace, _Other)):
        raise Refused("it makes a parameter of something that is no tensor")
    return data


def _reconstruct(cls: object = None, *_: object) -> _Other:
    """``copyreg._reconstructor``: how protocols 0 and 1 make an object."""
    if not isinstance(cls, Name) or cls.full in _CALLS:
        raise Refused("it calls copyreg._reconstructor on something other than a class of its own")
    return OTHER


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,  # torch 0.3
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "copyreg._reconstructor": _reconstruct,
}


def _called(function: object, args: object) -> Any:
    """What a call gives."""
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise Refused("it calls something that is no function")
    if function.full in _CALLS:
        if len(args) > MAX_ARGUMENTS:
            raise Refused(f"it calls {function.full} with {len(args)} values")
        return _CALLS[function.full](*args)
    if function.full not in _INERT_CALLS:
        raise Refused(f"it calls {function.full}")
    return OTHER


def _instance(cls: object, *_: object) -> Any:
    """What making an instance of a class without calling it gives; any class may have instances."""
    if cls is not OTHER and not isinstance(cls, Name):
        raise Refused("it makes an instance of something that is no class")
    return {} if isinstance(cls, Name) and cls.full == "collections.OrderedDict" else OTHER


def _stored(pid: object) -> Storage:
    """The storage that a persistent id refers to."""
    match pid:
        # (torch's older form has a sixth value, for views of storages, which nothing needs)
        case ("storage", Name(full=full), str(member), _, int(numel), *view) if (
            view in ([], [None]) and _is_count(numel) and len(member) <= MAX_NAME
        ):
            package, _, kind = full.partition(".")
            if package == "torch" and kind in STORAGES:
                return Storage(STORAGES[kind], member, numel)
        case ("module", *_):
            raise Refused("it contains a whole model with its code (save the model's state_dict(), not the model)")
    raise Refused("it refers to something that is no tensor storage")


# ---------------------------------------------------------------------------------------------------------- the reader


class PickleReader:
    """Runs one pickle: ``PickleReader(data).load()``. ``n_opcodes`` and ``n_made`` say what it has cost, ``storages``
    which members with numbers it names."""

    def __init__(self, data: bytes, keep_lists: bool = False) -> None:
        """``data``: the whole pickle. ``keep_lists``: lists are lists, not ``OTHER``."""
        self.data, self.keep_lists = data, keep_lists
        self.storages: dict[str, Storage] = {}
        self.n_opcodes = 0
        self.n_made = 0  # bytes of all objects made and references kept; none is ever taken off again
        self._may_make = MADE_ANYHOW + MADE_PER_BYTE * len(data)
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    def load(self) -> Any:
        """The value that the pickle describes: a number, text, tuple, dictionary, ``TensorPlace``, ... or ``OTHER``.

        Raises ``Refused``, or what a damaged pickle makes Python raise (``ValueError``, ``IndexError``, ...).
        """
        if len(self.data) > MAX_BYTES:
            raise Refused(f"its pickle is {len(self.data)} bytes long, at most {MAX_BYTES} are read")
        for opcode, value, _ in pickletools.genops(self.data):
            self.n_opcodes += 1
            if self.n_opcodes > MAX_OPCODES:
                raise Refused(f"its pickle has more than {MAX_OPCODES} opcodes")
            name = opcode.name
            if name in _CONSTANTS:
                self._push(_CONSTANTS[name], 0)
            elif name in _VALUES:
                self._push(value, sys.getsizeof(value))
            elif name in _ACTIONS:
                _ACTIONS[name](self, value)
            else:
                raise Refused(f"its pickle uses {name}")
        return self._pop()

    def _push(self, value: Any, n_bytes: int) -> None:
        """Put a value on the stack that takes ``n_bytes`` (0: it was there before)."""
        self._count(n_bytes + 8)
        self._stack.append(value)

    def _count(self, n_bytes: int) -> None:
        self.n_made += n_bytes
        if self.n_made > self._may_make:
            raise Refused(f"its pickle of {len(self.data)} bytes makes more than {self._may_make} bytes of objects")

    def _top(self) -> Any:
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing in its pickle")
        return value

    def _pop_to_mark(self) -> list[Any]:
        """The values above the topmost mark, from the lowest; the mark goes too."""
        taken = []
        while (value := self._stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def _pop_some(self, n: int) -> list[Any]:
        """The topmost ``n`` values, from the lowest."""
        return [self._pop() for _ in range(n)][::-1]

    def _push_tuple(self, items: list[Any]) -> None:
        self._push(tuple(items), 56 + 8 * len(items))

    def _push_other(self, _: list[Any]) -> None:
        """A set, without its values."""
        self._push(OTHER, 0)

    def _push_list(self, items: list[Any]) -> None:
        """Without its values, unless lists are kept."""
        if self.keep_lists:
            self._push(items, 80 + 8 * len(items))
        else:
            self._push(OTHER, 0)

    def _append(self, items: list[Any]) -> None:
        """Values for the topmost list; what is no list keeps none."""
        if isinstance(self._top(), list):
            self._count(16 * len(items))
            self._top().extend(items)

    def _push_dict(self, items: list[Any]) -> None:
        self._push({}, 80)
        self._set_items(items)

    def _push_name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it names something without a text")
        named = _named(module, name)
        self._push(named, 48 + sys.getsizeof(named.full))

    def _push_call(self, function: object, args: object) -> None:
        made = _called(function, args)
        self._push(made, 80 + (100 * len(made) if isinstance(made, dict) else 0))

    def _push_storage(self, pid: object) -> None:
        stored = _stored(pid)
        self.storages.setdefault(stored.member, stored)
        self._push(stored, 180)

    def _push_object(self, cls: object, *args: object) -> None:
        """An object in the way of protocols 0 and 1: made without a call if there are no arguments."""
        self._push(_called(cls, args) if args else _instance(cls), 80)

    def _set_items(self, items: list[Any]) -> None:
        """Put (key, value, key, value, ...) into the topmost dictionary. Keys that are no texts all become None."""
        target = self._top()
        if not isinstance(target, (dict, _Other)):
            raise Refused("it sets an item of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str) and len(key) > MAX_KEY:
                raise Refused(f"it has a key of {len(key)} characters")
            if isinstance(target, dict):
                self._count(100)  # an entry of a dictionary, which grows by doubling
                target[key if isinstance(key, str) else None] = value

    def _change(self, _: object) -> None:
        """What a pickle wants to set in an object is not kept; nothing can be set in anything else."""
        target = self._top()
        if not isinstance(target, (_Other, dict, TensorPlace)):
            raise Refused(f"it changes {target.full if isinstance(target, Name) else 'something that is no object'}")

    def _recall(self, place: int) -> None:
        if place < 0:
            raise IndexError("a place before the first")
        self._push(self._memo[place], 0)

    def _remember(self, place: int | None) -> None:
        """Keep the topmost value. ``place``: None for the next one; writers count from 0, or from 1."""
        n = len(self._memo)
        place = n if place is None else place
        if not 0 <= place <= n + 1:
            raise Refused(f"it remembers something at place {place}")
        self._count(8 * (place + 1 - n) if place >= n else 0)
        self._memo += [None] * (place + 1 - n)
        self._memo[place] = self._top()


_CONSTANTS = {
    **{"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK, "EMPTY_TUPLE": ()},
    **dict.fromkeys(("EMPTY_SET", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), OTHER),
}
_VALUES = {
    *("INT", "BININT", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
# ``r``: the reader; ``v``: what stands behind the opcode in the pickle
_ACTIONS: dict[str, Callable[[PickleReader, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda r, v: None),
    "BININT1": lambda r, v: r._push(v, 0),  # Python has these already
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda r, v: r._remember(v)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda r, v: r._recall(v)),
    "DUP": lambda r, v: r._push(r._top(), 0),
    "POP": lambda r, v: r._stack.pop(),
    "POP_MARK": lambda r, v: r._pop_to_mark(),
    "EMPTY_DICT": lambda r, v: r._push_dict([]),
    "DICT": lambda r, v: r._push_dict(r._pop_to_mark()),
    "SETITEM": lambda r, v: r._set_items(r._pop_some(2)),
    "SETITEMS": lambda r, v: r._set_items(r._pop_to_mark()),
    "TUPLE": lambda r, v: r._push_tuple(r._pop_to_mark()),
    "TUPLE1": lambda r, v: r._push_tuple(r._pop_some(1)),
    "TUPLE2": lambda r, v: r._push_tuple(r._pop_some(2)),
    "TUPLE3": lambda r, v: r._push_tuple(r._pop_some(3)),
    "EMPTY_LIST": lambda r, v: r._push_list([]),
    "LIST": lambda r, v: r._push_list(r._pop_to_mark()),
    "FROZENSET": lambda r, v: r._push_other(r._pop_to_mark()),
    "APPEND": lambda r, v: r._append(r._pop_some(1)),
    "APPENDS": lambda r, v: r._append(r._pop_to_mark()),
    "ADDITEMS": lambda r, v: r._pop_to_mark(),
    "BUILD": lambda r, v: r._change(r._pop()),
    "GLOBAL": lambda r, v: r._push_name(*v.split(" ", 1)),
    "STACK_GLOBAL": lambda r, v: r._push_name(*r._pop_some(2)),
    "REDUCE": lambda r, v: r._push_call(*r._pop_some(2)),
    "INST": lambda r, v: r._push_object(_named(*v.split(" ", 1)), *r._pop_to_mark()),
    "OBJ": lambda r, v: r._push_object(*r._pop_to_mark()),
    "NEWOBJ": lambda r, v: r._push(_instance(*r._pop_some(2)), 80),
    "NEWOBJ_EX": lambda r, v: r._push(_instance(*r._pop_some(3)), 80),
    "PERSID": lambda r, v: r._push_storage(v),
    "BINPERSID": lambda r, v: r._push_storage(r._pop()),
}


def first_pickle(data: bytes) -> bytes:
    """The pickle at the beginning of ``data``, whatever follows it. ``ValueError`` if it is damaged or does not end
    within ``MAX_BYTES``, ``Refused`` if it has too many opcodes."""
    begun = data[:MAX_BYTES]
    for n_opcodes, (opcode, _, at) in enumerate(pickletools.genops(begun)):
        if opcode.name == "STOP" and at is not None:
            return begun[: at + 1]
        if n_opcodes > MAX_OPCODES:
            raise Refused(f"its pickle has more than {MAX_OPCODES} opcodes")
    raise ValueError("its pickle does not end")
