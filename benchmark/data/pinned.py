"""The published weight files of the annotators, pinned: any other file is refused before anything of it is used.

``avbench weights`` knows where they come from (``avbench.weights.annotators``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from avbench.system.cache import cache_root
from avbench.system.paths import why_no_file
from avbench.types import UsageError, printable


class Pinned(NamedTuple):
    """A published file: its name, length in bytes and sha256, and the name under which it is fetched."""

    name: str
    n_bytes: int
    sha256: str
    fetched_as: str


YUNET = Pinned(
    "yunet_s_640_640.onnx",
    232_589,
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    "yunet",
)
LRASD = Pinned(
    "lrasd_pretrain_AVA.model",
    3_426_337,
    "85e6c77fc981595234790d1e128ebb60352d37726b2445e0ef8891e2512fe9e3",
    "lrasd",
)
EFFICIENTAT = Pinned(
    "mn04_as_mAP_432.pt",
    4_066_513,
    "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    "efficientat",
)
AUDIOSET_CLASSES = Pinned(
    "class_labels.csv",
    14_675,
    "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
    "audioset-classes",
)


def in_cache(pinned: Pinned) -> Path:
    """Where a published file is in the cache of weights, whether it exists or not."""
    return cache_root() / "weights" / "annotators" / pinned.name


def read_pinned(path: Path, pinned: Pinned) -> bytes:
    """The bytes of a published file; of any other file no more is read than that one has. ``UsageError``, one line with
    how to get it: no file there, or another one."""
    path, shown = Path(path), printable(str(path))
    remedy = f"get it with `avbench weights fetch {pinned.fetched_as}`"
    problem = why_no_file(path)
    if problem:
        raise UsageError(f"{shown} {problem}; {remedy}")
    try:
        with path.open("rb") as file:
            data = file.read(pinned.n_bytes + 1)
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(data).hexdigest() != pinned.sha256:
        raise UsageError(f"{shown} is not the published {pinned.name} (other sha256); remove it and {remedy}")
    return data
