"""Folders that a command fills: nothing of the user's is replaced without asking, and this is known before the work."""

from __future__ import annotations

import tempfile
from pathlib import Path

from avbench.types import AvbenchError, UsageError

MANIFEST = "manifest.json"
_NAMED = 3


def check_folder(folder: Path, force: bool = False, option: str = "--out") -> None:
    """``UsageError`` if ``folder`` holds anything that is not hidden, unless ``force``; ``AvbenchError`` if it, or the
    folder in which it would be made, cannot be written. Nothing is made yet."""
    held = held_in(folder)
    if held and not force:
        what = "another manifest" if MANIFEST in held else listed(held)
        raise UsageError(f"{folder} already holds {what}; give --force to replace it, or choose another {option}")
    check_writable(folder, option)


def held_in(folder: Path) -> list[str]:
    """The names in a folder, without hidden ones; none if there is no folder. ``UsageError`` if it is a file,
    ``AvbenchError`` if it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise UsageError(f"{folder} is not a folder") from error
    except OSError as error:
        raise AvbenchError(f"cannot read {folder}: {error.strerror or error}") from error


def check_writable(folder: Path, option: str) -> None:
    """``AvbenchError`` if ``folder``, or the nearest folder above it that is there, cannot be written."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise AvbenchError(f"cannot write to {there}: {reason}; choose another folder with {option}") from error


def listed(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
