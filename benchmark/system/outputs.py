"""Folders that a command fills: nothing of the user's is replaced without asking, and this is known before the work."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from avbench.system.in_python import in_python
from avbench.types import AvbenchError, UsageError

MANIFEST = "manifest.json"
_NAMED = 3


def check_folder(
    folder: Path,
    force: bool = False,
    option: str = "--out",
    ours: Callable[[str], bool] | None = None,
    python: str = "",
) -> None:
    """``UsageError`` if ``folder`` holds anything that is not hidden, unless ``force``; ``AvbenchError`` if it, or the
    folder in which it would be made, cannot be written. Nothing is made yet. ``ours``: whether a name is one that the
    same command writes, and may replace. ``python``: what :func:`in_python` says of the same request there."""
    held = [name for name in held_in(folder) if ours is None or not ours(name)]
    if held and not force:
        what, do = ("a manifest", "replace it") if MANIFEST in held else (listed(held), "write there anyway")
        raise UsageError(f"{folder} already holds {what}; give --force to {do}, or choose another {option}{python}")
    check_writable(folder, option + (in_python(option) if python else ""))


def held_in(folder: Path) -> list[str]:
    """The names in a folder, without hidden ones; none if there is no folder. ``UsageError`` if it is a file,
    ``AvbenchError`` if it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        if not folder.exists():  # a file is in the way of a folder above it
            return []
        raise UsageError(f"{folder} is not a folder") from error
    except OSError as error:
        raise AvbenchError(f"cannot read {folder}: {error.strerror or error}") from error


def claim(base: Path) -> Path:
    """Makes the folder ``base``, or ``base-2``, ``base-3`` and so on if it is taken, and returns it: of programs that
    ask at the same moment each gets its own. ``AvbenchError`` if none can be made."""
    try:
        for number in itertools.count(1):
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)  # of two, one is refused by the disk itself
                break
    except OSError as error:
        raise AvbenchError(
            f"cannot write to {base.parent}: {error.strerror or error}; choose --out{in_python('--out')}"
        ) from error
    return folder


@contextlib.contextmanager
def claimed(base: Path) -> Iterator[Path]:
    """The folder of :func:`claim`, which is given back, with the one around it, if nothing was written into it."""
    folder = claim(base)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it is in use
            folder.rmdir()
            folder.parent.rmdir()


def check_file(path: Path, option: str, force: bool = True) -> None:
    """Refuses a file that cannot be written, before the work: ``UsageError`` for a folder and, unless ``force``, for a
    file that is there; ``AvbenchError`` if the folder around it cannot be written."""
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; name a file in it")
    if path.is_file() and not force:  # neither a pipe nor a device is replaced
        raise UsageError(f"{path} is there already; give --force to replace it, or choose another {option}")
    check_writable(path.parent, option)


def check_writable(folder: Path, option: str) -> None:
    """``AvbenchError`` if ``folder``, or the nearest folder above it that is there, cannot be written."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        where = there if there.is_dir() else folder  # a file in the way is no folder to write to
        reason = error.strerror or error
        raise AvbenchError(f"cannot write to {where}: {reason}; choose another folder with {option}") from error


def listed(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
