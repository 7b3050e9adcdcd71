"""Pickles of a wanted length that ask for far more memory or time than they are long; none of them runs anything."""

from __future__ import annotations

import itertools
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

PRIME = 2**61 - 1  # whole numbers have their remainder by it for a hash: all its multiples collide
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\0tQ"
    b"K\0K\0\x85K\x01\x85\x89NtR"
)  # an empty one


def _up_to(n_bytes: int, parts: Iterable[bytes]) -> bytes:
    taken, left = [], n_bytes
    for part in parts:
        left -= len(part)
        if left < 0:
            break
        taken.append(part)
    return b"".join(taken)


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _long_text(n_bytes: int) -> bytes:
    return b"X" + n_bytes.to_bytes(4, "little") + b"x" * n_bytes


def _multiple(i: int) -> bytes:
    return pickle.encode_long(i * PRIME)


def _long(data: bytes) -> bytes:
    return b"\x8a" + bytes([len(data)]) + data


COUNT = range(1, 10**9)
BOMBS: dict[str, Callable[[int], bytes]] = {
    # each of another name, for which a reader might make a class
    "globals": lambda n: b"\x80\x02}(" + _up_to(n, (b"cq%x\nx\n" % i for i in COUNT)) + b"1.",
    "instances": lambda n: b"\x80\x02}(ca.b\nc\nq\0" + _up_to(n, itertools.repeat(b"h\0)\x81")) + b"1.",
    "empty lists": lambda n: b"\x80\x02](" + b"]" * n + b"e0}.",
    "nested lists": lambda n: b"\x80\x02" + b"]" * (n // 2) + b"a" * (n // 2 - 1) + b"0}.",
    "sets": lambda n: b"\x80\x04}(" + b"\x8f" * n + b"1.",
    "dictionaries": lambda n: b"\x80\x02}(" + b"}" * n + b"1.",
    "remembered dictionaries": lambda n: b"\x80\x04" + b"}\x940" * (n // 3) + b"}.",
    "nested tuples": lambda n: b"\x80\x02)" + b"\x85" * n + b"0}.",
    "marks": lambda n: b"\x80\x02}" + b"(" * (n // 2) + b"1" * (n // 2) + b".",
    "numbers that collide": lambda n: b"\x80\x02}(" + _up_to(n, (_long(_multiple(i)) + b"N" for i in COUNT)) + b"u.",
    "a set of numbers that collide": lambda n: (
        b"\x80\x04\x8f(" + _up_to(n, (_long(_multiple(i)) for i in COUNT)) + b"\x900}."
    ),
    "two equal keys, again and again": lambda n: (
        b"\x80\x02"
        + _long_text(n // 4)
        + b"q\x000"
        + _long_text(n // 4)
        + b"q\x010}"
        + b"h\0Nsh\x01Ns" * (n // 16)
        + b"."
    ),
    "one long name, again and again": lambda n: (
        b"\x80\x04" + _long_text(n // 2) + b"q\0" + b"h\0h\0\x930" * (n // 12) + b"}."
    ),
    "many arguments, again and again": lambda n: (
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nq\0("
        + b"N" * (n // 2)
        + b"tq\x01"
        + b"h\0h\x01R0" * (n // 12)
        + b"}."
    ),
    "a long number for every entry": lambda n: (
        b"\x80\x02}\x8b" + (n // 2).to_bytes(4, "little") + b"\x7f" * (n // 2) + b"q\0"
        b"0" + _up_to(n // 2, (_text(f"{i:x}") + b"h\0s" for i in COUNT)) + b"."
    ),
    "empty tensors": lambda n: (
        b"\x80\x02" + TENSOR + b"q\x010}(" + _up_to(n, (_text(f"{i:x}") + b"h\x01" for i in COUNT)) + b"u."
    ),
}


def bomb(name: str, n_bytes: int) -> bytes:
    """The named pickle, about ``n_bytes`` long."""
    return BOMBS[name](n_bytes)


def archive(path: Path, data: bytes, member: bytes = b"") -> Path:
    """A torch archive with this pickle and one storage."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", data)
        file.writestr("a/data/0", member)
    return path
