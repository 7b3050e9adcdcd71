"""Tasks for the tests of worker processes, which import them from here."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avbench.types import MediaError, UsageError


def task(what: str) -> Any:
    """What a worker does at a word."""
    name, _, value = what.partition(" ")
    if name == "die":
        print("the library's\nlast words", flush=True)
        os.kill(os.getpid(), getattr(signal, value))
    if name == "segfault":
        ctypes.string_at(0)
    if name == "exit":
        os._exit(int(value))
    if name == "die-once":  # leaves a note, by which it is known the next time
        if Path(value).exists():
            return f"well in {os.getpid()}"
        Path(value).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "fill":
        return len(bytearray(int(value)))
    if name == "note":
        Path(value).write_text(str(os.getpid()))
        time.sleep(600)
    if name == "fork":
        child = os.fork()
        if not child:
            os._exit(0)
        return os.waitpid(child, 0)[1]
    errors = {
        "bug": ValueError("no such box"),
        "full": OSError(28, "No space left on device", "out"),
        "wrong": UsageError("not so"),
        "media": MediaError("c", "no sound"),
        "odd": OddError(1, 2),
    }
    if name in errors:
        raise errors[name]
    answers: dict[str, Callable[[], Any]] = {
        "pid": os.getpid,
        "threads": lambda: os.environ.get("OMP_NUM_THREADS"),
        "large": lambda: np.arange(int(value), dtype=np.int64),
        "stdin": sys.stdin.read,
        "children": start_a_process,
    }
    return answers[name]() if name in answers else what.upper()


class OddError(Exception):
    """Cannot be unpickled: its text is not what it is made from."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def start_a_process() -> int | None:
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    return process.exitcode


def limit_s(what: str) -> float:
    return 2 if what.startswith("note") else 60


@contextlib.contextmanager
def counting(first: int) -> Iterator[Callable[[int, Callable[[Any], None]], int]]:
    """Tells 0, 1, ... before the result; prepared with ``first``, which says what goes wrong."""
    if first < 0:
        raise UsageError("cannot prepare")
    if first == 0:
        os._exit(5)

    def count(task: int, tell: Callable[[Any], None]) -> int:
        for k in range(task):
            tell(k)
        return first + task

    yield count


@contextlib.contextmanager
def counting_slowly() -> Iterator[Callable[[int, Callable[[Any], None]], int]]:
    """Tells 0, 1, ..., 0.7 s apart."""

    def count(task: int, tell: Callable[[Any], None]) -> int:
        for k in range(task):
            time.sleep(0.7)
            tell(k)
        return task

    yield count


# in place of what workers do for data sets and the leaderboard


def score_entry(path: Path, store: Path, labels: Path | None) -> str | None:
    """Dies at the entry "bad", and the first time at "unlucky"; refuses "wrong"."""
    tried = store / "tried"
    if path.name == "bad" or (path.name == "unlucky" and not tried.exists()):
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "not right" if path.name == "wrong" else None


def make_clip(spec: Any, media: Path) -> str:
    """Dies at the second clip."""
    if spec.id.endswith("001"):
        os.kill(os.getpid(), signal.SIGKILL)
    return str(spec.id)


def measure_clip(clip: tuple[str, Path, object]) -> tuple[str, int, int]:
    """Dies at the clip "c3"."""
    if clip[0] == "c3":
        os.kill(os.getpid(), signal.SIGSEGV)
    return "0" * 64, 25, 16_000
