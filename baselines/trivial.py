"""Trivial models that ignore their input; they are shown beside every result, because accuracy alone misleads.

Each function takes the N segments, their manifest, the number W of iterations and a seed, and returns logits
(N, W, 21) float32 in the order of the segments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from avbench.protocol.manifest import Manifest
from avbench.types import SegmentRecord

SURE = 10.0  # logit of the asserted class; all others are 0


def _assert_classes(classes: np.ndarray, n_classes: int, iterations: int) -> np.ndarray:
    """(N,) classes -> (N, iterations, n_classes) logits, the same at every iteration."""
    logits = SURE * np.eye(n_classes, dtype=np.float32)[classes]
    return np.repeat(logits[:, None], iterations, axis=1)


def constant(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """Always "in sync"."""
    n_classes = manifest.grid.n_classes
    return _assert_classes(np.full(len(segments), n_classes // 2), n_classes, iterations)


def prior(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """Log of the class prior implied by the manifest's declared offset law; the labels are not used."""
    logits = np.log(manifest.prior()).astype(np.float32)
    return np.tile(logits, (len(segments), iterations, 1))


def uniform(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """A new random guess for each segment and iteration; it depends on seed and segment id, not on the order."""
    shape = (iterations, manifest.grid.n_classes)
    out = np.empty((len(segments), *shape), np.float32)
    for row, segment in enumerate(segments):
        key = hashlib.sha256(f"avbench uniform {seed} {segment.id}".encode()).digest()
        out[row] = np.random.default_rng(int.from_bytes(key[:16], "big")).standard_normal(shape)
    return out


def oracle(segments: Sequence[SegmentRecord], manifest: Manifest, iterations: int, seed: int) -> np.ndarray:
    """The labels themselves: the upper end of the scale, and a check of the scoring."""
    classes = np.array([s.offset_class for s in segments], np.int64)
    return _assert_classes(classes, manifest.grid.n_classes, iterations)


Trivial = Callable[[Sequence[SegmentRecord], Manifest, int, int], np.ndarray]

TRIVIAL: dict[str, tuple[str, Trivial]] = {
    "constant": ("always in sync", constant),
    "prior": ("class prior", prior),
    "uniform": ("random guess", uniform),
    "oracle": ("the labels", oracle),
}
