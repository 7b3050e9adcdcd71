"""Baselines that ignore picture and sound; every result shows them, because accuracy alone misleads.

Each function takes the segments, their manifest, the protocol and a seed, and returns logits (N, W, 21) float32 with
the segments in the given order. A new one is one function and one entry of ``TRIVIAL``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avbench.protocol.laws import offsets_at
from avbench.ticks import seconds
from avbench.types import SegmentRecord

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest
    from avbench.protocol.rules import Protocol

SURE = 10.0  # logit of a class that is asserted; the others have 0


def _assert_classes(classes: np.ndarray, n_classes: int) -> np.ndarray:
    """(N, W) classes -> (N, W, n_classes) logits that assert them."""
    return SURE * np.eye(n_classes, dtype=np.float32)[classes]


def constant(segments: Sequence[SegmentRecord], manifest: Manifest, protocol: Protocol, seed: int) -> np.ndarray:
    """Always "in sync"."""
    n_classes = manifest.grid.n_classes
    return _assert_classes(np.full((len(segments), protocol.iterations), n_classes // 2), n_classes)


def prior(segments: Sequence[SegmentRecord], manifest: Manifest, protocol: Protocol, seed: int) -> np.ndarray:
    """Log of the class prior that the manifest's declared offset law implies; reads no label."""
    logits = np.log(manifest.prior()).astype(np.float32)
    return np.tile(logits, (len(segments), protocol.iterations, 1))


def uniform(segments: Sequence[SegmentRecord], manifest: Manifest, protocol: Protocol, seed: int) -> np.ndarray:
    """A new random guess per segment and iteration; depends on the seed and the segment's id, not on the order."""
    shape = (protocol.iterations, manifest.grid.n_classes)
    out = np.empty((len(segments), *shape), np.float32)
    for row, segment in enumerate(segments):
        key = hashlib.sha256(f"avbench uniform {seed} {segment.id}".encode()).digest()
        out[row] = np.random.default_rng(int.from_bytes(key[:16], "big")).standard_normal(shape)
    return out


def oracle(segments: Sequence[SegmentRecord], manifest: Manifest, protocol: Protocol, seed: int) -> np.ndarray:
    """The label itself, where offsets change that of each window's end: the best possible score, and a check of the
    scoring."""
    classes = np.empty((len(segments), protocol.iterations), np.int64)
    for row, segment in enumerate(segments):
        classes[row] = segment.offset_class
        if segment.law:
            ends = [window.end - segment.start for window in protocol.picture_windows(segment)]
            classes[row] = [manifest.grid.class_of(seconds(int(o))) for o in offsets_at(segment.law, ends)]
    return _assert_classes(classes, manifest.grid.n_classes)


class Trivial(NamedTuple):
    """``label``: how tables name it. ``predict``: (segments, manifest, protocol, seed) -> logits (N, W, 21)."""

    label: str
    description: str
    predict: Callable[[Sequence[SegmentRecord], Manifest, Protocol, int], np.ndarray]


TRIVIAL: dict[str, Trivial] = {
    "constant": Trivial("always in sync", 'always "in sync"', constant),
    "prior": Trivial("class prior", "the class prior that the declared offset law implies", prior),
    "uniform": Trivial("random guess", "a random guess per segment and iteration", uniform),
    "oracle": Trivial("the labels", "the label itself", oracle),
}
