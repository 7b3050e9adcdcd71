"""Baselines that ignore picture and sound; every result shows them, because accuracy alone misleads.

Each function takes the segments, their manifest, the number of iterations and a seed, and returns logits (N, W, 21)
float32 with the segments in the given order. A new one is one function and one entry of ``TRIVIAL``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avbench.types import SegmentRecord

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest

SURE = 10.0  # logit of a class that is asserted; the others have 0


def _assert_classes(classes: np.ndarray, n_classes: int, iterations: int) -> np.ndarray:
    """(N,) classes -> (N, iterations, n_classes) logits that assert them at every iteration."""
    logits = SURE * np.eye(n_classes, dtype=np.float32)[classes]
    return np.repeat(logits[:, None], iterations, axis=1)


def constant(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """Always "in sync"."""
    n_classes = manifest.grid.n_classes
    return _assert_classes(np.full(len(segments), n_classes // 2), n_classes, iterations)


def prior(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """Log of the class prior that the manifest's declared offset law implies; reads no label."""
    logits = np.log(manifest.prior()).astype(np.float32)
    return np.tile(logits, (len(segments), iterations, 1))


def uniform(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """A new random guess per segment and iteration; depends on the seed and the segment's id, not on the order."""
    shape = (iterations, manifest.grid.n_classes)
    out = np.empty((len(segments), *shape), np.float32)
    for row, segment in enumerate(segments):
        key = hashlib.sha256(f"avbench uniform {seed} {segment.id}".encode()).digest()
        out[row] = np.random.default_rng(int.from_bytes(key[:16], "big")).standard_normal(shape)
    return out


def oracle(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """The label itself: the best possible score, and a check of the scoring."""
    classes = np.array([s.offset_class for s in segments], np.int64)
    return _assert_classes(classes, manifest.grid.n_classes, iterations)


class Trivial(NamedTuple):
    """``label``: how tables name it. ``predict``: (segments, manifest, iterations, seed) -> logits (N, W, 21)."""

    label: str
    description: str
    predict: Callable[[Sequence[SegmentRecord], Manifest, int, int], np.ndarray]


TRIVIAL: dict[str, Trivial] = {
    "constant": Trivial("always in sync", 'always "in sync"', constant),
    "prior": Trivial("class prior", "the class prior that the declared offset law implies", prior),
    "uniform": Trivial("random guess", "a random guess per segment and iteration", uniform),
    "oracle": Trivial("the labels", "the label itself", oracle),
}
