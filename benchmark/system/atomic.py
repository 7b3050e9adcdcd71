"""Write files so that they are complete or absent, never partial.

A file is written under a temporary name beside its own, ``.NAME.XXXXXXXX.tmp``, and renamed when it is complete. The
writer holds a lock on the temporary file, which ends with its process: the next writer of the same file removes what
killed ones have left, and nothing that a living one is still writing, even from another machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_OLD_S = 86_400.0  # where the disk knows no locks, a temporary file of this age has no writer


def atomic_write_bytes(path: Path, data: bytes, swept: bool = False) -> None:
    """Write ``data`` to ``path``; a crash at any moment leaves the old file or the new one, never a partial one.

    Uses a temporary file in the same folder (a rename is atomic only within one file system); file and folder are
    fsynced. Raises ``OSError`` (disk full, read-only) after removing the temporary file. ``swept``: the caller has
    looked for what killed writers left (``sweep``, ``sweep_folder``), which takes long in a folder of many files.
    """
    path = Path(path)
    with _locked_temporary(path, swept) as (handle, name):
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put(name, path)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty temporary file beside ``path``, to be written by its name; it becomes ``path`` when the block ends, and
    is removed if the block raises. As lasting as :func:`atomic_write_bytes`, with the same errors."""
    path = Path(path)
    with _locked_temporary(path) as (_, name):
        yield Path(name)
        _sync(name)
        _put(name, path)


def _put(name: str, path: Path) -> None:
    os.chmod(name, 0o644)
    os.replace(name, path)
    _sync(path.parent)


def _sync(path: Path | str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked_temporary(path: Path, swept: bool = False) -> Iterator[tuple[int, str]]:
    """A new temporary file for ``path``, open and locked: its handle and name. Removed if the block raises."""
    if not swept:
        sweep(path)
    handle, name = _made(path)
    try:
        yield handle, name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _made(path: Path) -> tuple[int, str]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # else another writer swept it away before it was locked
            return handle, name
        os.close(handle)


def sweep(path: Path) -> None:
    """Remove the temporary files of ``path`` that no living process is writing."""
    _sweep(Path(path).parent, re.escape(Path(path).name))


def sweep_folder(folder: Path) -> None:
    """Remove the temporary files of all files in a folder that no living process is writing."""
    _sweep(Path(folder), ".+")


def _sweep(folder: Path, name: str) -> None:
    """``name``: of the files, as a regular expression."""
    ours = re.compile(rf"\.{name}\.[a-z0-9_]+\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the folder need not be there yet
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # it has just been renamed, or may not be removed
                    _remove_unless_written(entry.path)


def _remove_unless_written(name: str) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            if time.time() - os.fstat(handle).st_mtime < _OLD_S:
                return
        os.unlink(name)
    finally:
        os.close(handle)
