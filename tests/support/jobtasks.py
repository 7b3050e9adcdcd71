"""Jobs that misbehave, for the engines' tests; run in worker processes by name."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from avbench.types import AvbenchError, MediaError


def double(n: int) -> int:
    print("a library's chatter on stdout")
    return 2 * n


def pid() -> int:
    return os.getpid()


def segfault() -> None:
    ctypes.string_at(0)


def leave(code: int) -> None:
    os._exit(code)


def hang(note: str = "") -> None:
    if note:
        Path(note).write_text(str(os.getpid()))
    time.sleep(600)


def bug() -> None:
    raise ValueError("no such\nbox")


def refuse() -> None:
    raise MediaError("v", "the file has no sound stream")


def disk_full() -> None:
    raise AvbenchError("cannot write out: No space left on device")


def crash_once(note: str) -> str:
    """Dies the first time it is tried."""
    if not Path(note).exists():
        Path(note).write_text("tried")
        os._exit(3)
    return "well"
