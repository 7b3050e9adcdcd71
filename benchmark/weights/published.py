"""The table of published checkpoints: their addresses and the results their authors report. Does not load torch."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from avbench.types import UsageError


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint, as its authors describe it. ``md5_prefix`` is empty if none was published.

    ``audio_lead_trim_samples``: 1024 if the decoder of the time dropped the first 1024 samples of the training clips
    (AAC with priming, as in VGGSound and AudioSet), 0 if it did not (the published LRS3 sample has no priming).
    """

    name: str  # "family.trained on", as in `--model sparsesync.vggsound`
    family: str
    id: str
    url: str
    trained_on: str
    n_classes: int
    reported: str
    md5_prefix: str
    audio_lead_trim_samples: int
    smoke: tuple[dict[str, Any], ...]
    note: str


@cache
def published() -> tuple[Published, ...]:
    """The table of published checkpoints (``published.json``)."""
    rows = json.loads(files("avbench.weights").joinpath("published.json").read_text(encoding="utf-8"))
    return tuple(Published(**{**row, "smoke": tuple(row["smoke"])}) for row in rows)


def published_entry(name: str) -> Published | None:
    """A published checkpoint by name or id; None if there is none."""
    return next((entry for entry in published() if name in (entry.name, entry.id)), None)


def find_published(name: str) -> Published:
    """A published checkpoint by name ("sparsesync.vggsound") or id ("22-09-21T21-00-52").

    ``UsageError`` naming the nearest names if there is none.
    """
    if entry := published_entry(name):
        return entry
    close = difflib.get_close_matches(name, [entry.name for entry in published()], n=3, cutoff=0.4)
    hint = f": did you mean {' or '.join(close)}?" if close else "; `avbench weights list` lists them"
    raise UsageError(f"no published checkpoint {name!r}{hint}")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex: it identifies published files, it protects against nothing."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def with_md5(digest: str) -> Published | None:
    """The published checkpoint with this md5 (hex); None if there is none."""
    return next((entry for entry in published() if entry.md5_prefix and digest.startswith(entry.md5_prefix)), None)
