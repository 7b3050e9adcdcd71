"""The table of published checkpoints: what there is, where it lies, what its authors report. Loads no torch."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from avbench.types import UsageError


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint, as its authors describe it. ``md5_prefix`` may be empty (none was published).

    ``audio_lead_trim_samples``: 1024 where the training clips lost their first 1024 samples to the decoder of the day
    (AAC with priming, as in VGGSound and AudioSet), 0 where they did not (the published LRS3 sample has no priming).
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


def find_published(name: str) -> Published:
    """By name ("sparsesync.vggsound") or id ("22-09-21T21-00-52"); ``UsageError`` with the nearest names."""
    for entry in published():
        if name in (entry.name, entry.id):
            return entry
    close = difflib.get_close_matches(name, [entry.name for entry in published()], n=3, cutoff=0.4)
    hint = f": did you mean {' or '.join(close)}?" if close else "; `avbench weights list` lists those there are"
    raise UsageError(f"no published checkpoint {name!r}{hint}")


def with_md5(digest: str) -> Published | None:
    """The published checkpoint whose md5 begins as ``digest`` does; None if it is none of them."""
    return next((entry for entry in published() if entry.md5_prefix and digest.startswith(entry.md5_prefix)), None)
