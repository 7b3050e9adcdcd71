"""Where the entries of the board are, for who names none: they lie in a clone of avbench, which is not installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import avbench
from avbench.types import UsageError

ENTRIES = Path("submissions", "entries")  # in a clone


def entries_folder(wanted: str) -> Path:
    """The folder ``submissions/entries`` of the current folder or else of the next one above it that has one; else of
    the clone that this avbench is part of or was installed from. ``UsageError``, which names ``wanted``, if all lack
    it."""
    here = Path.cwd()
    if ENTRIES.is_dir():
        return ENTRIES
    found = [folder / ENTRIES for folder in (*here.parents, *_clones()) if (folder / ENTRIES).is_dir()]
    if not found:
        raise UsageError(
            f"{wanted} is looked up in {ENTRIES} of a clone of avbench, and there is none in {here}, above it, or "
            "where avbench was installed from: name that folder of a clone with --entries DIR"
        )
    return found[0]


def _clones() -> list[Path]:
    """The folder that holds the package's source, and the one that pip was given to install."""
    source = Path(avbench.__file__).resolve().parents[1]
    given = _installed_from()
    return [source, given] if given else [source]


def _installed_from() -> Path | None:
    """The folder that the distribution says it was installed from (PEP 610); None if it was no folder of this
    machine."""
    try:
        said = json.loads(metadata.distribution("avbench").read_text("direct_url.json") or "{}")
        url = urlsplit(said["url"])
    except (metadata.PackageNotFoundError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # not installed, from an index, or by a program that does not say
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        return None
    folder = Path(url2pathname(url.path))
    return folder if folder.is_absolute() else None
