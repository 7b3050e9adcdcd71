"""Read media of unknown origin in worker processes: what a file does to its decoder costs that file only.

A decoder may die on a damaged or hostile file, decode it forever, or fill the memory. Each of these becomes the
``MediaError`` of that file, and the others are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from avbench.system import debug
from avbench.system.machine import GIB
from avbench.system.paths import shown, why_no_file
from avbench.system.workers import Lost, each
from avbench.types import AvbenchError, MediaError, in_one_line

R = TypeVar("R")

MEMORY_BYTES = 4 * GIB  # of one worker; an hour of sound and the pictures that a decoder of 8K video keeps need half
BASE_LIMIT_S = 300.0
SLOWEST_BYTES_PER_S = 16_000  # 128 kbit/s: media of this rate may be decoded as slowly as they play
LONGEST_LIMIT_S = 6 * 3600.0


class MediaFile(NamedTuple):
    """A file to be read; ``clip_id`` names it in errors, ``known`` is what the reading function needs besides."""

    clip_id: str
    path: Path
    known: Any = None


def read_apart(
    read: Callable[[MediaFile], R], files: Sequence[MediaFile], workers: int = 1
) -> Generator[tuple[MediaFile, R | MediaError]]:
    """Each file with what ``read`` says of it, as they finish (in order with one worker); a ``MediaError`` for a file
    that cannot be read, whatever the cause. ``read`` and its results must be picklable; it may raise ``MediaError``.

    Other ``AvbenchError`` are raised here.
    """
    ends = each(partial(guarded, read), files, workers, isolated=True, timeout_of=limit_s, memory_bytes=MEMORY_BYTES)
    for file, found in ends:
        yield file, MediaError(file.clip_id, _fate(file, found)) if isinstance(found, Lost) else found


def limit_s(file: MediaFile) -> float:
    """How long reading a file may take: in proportion to its size."""
    try:
        n_bytes = file.path.stat().st_size
    except OSError:
        n_bytes = 0
    return min(BASE_LIMIT_S + n_bytes / SLOWEST_BYTES_PER_S, LONGEST_LIMIT_S)


def guarded(read: Callable[[MediaFile], R], file: MediaFile) -> R | MediaError:
    """``read(file)`` in this process, or the ``MediaError`` that stands for it: no file at the path, or whatever a
    library raised."""
    try:
        problem = why_no_file(file.path)
        if problem:
            raise MediaError(file.clip_id, f"{shown(file.path)} {problem}")
        return read(file)
    except MediaError as error:
        debug.show(error)
        return error
    except AvbenchError:
        raise
    except Exception as error:  # a library's: it costs this file
        debug.show(error)
        return MediaError(file.clip_id, f"reading failed with {in_one_line(error)}")


def _fate(file: MediaFile, lost: Lost) -> str:
    if lost.timed_out:
        return f"reading it took longer than {limit_s(file):.0f} s"
    memory = ", perhaps because memory ran out" if lost.how == "SIGKILL" else ""
    return f"the decoder died ({lost.how}) while reading it{memory}"
