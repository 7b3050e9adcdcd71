"""Which changes a stream of predictions declares, and how well they cut the stream into its regimes.

A window has a *stable class* if the classes of it and of the two windows before are all within one class of their
median: that median. A change is *declared* at a window whose stable class is at least ``moved`` classes away from the
last stable class; so it is dated at the third window that says so.

``covering`` and ``f1`` are the usual figures of change-point benchmarks (van den Burg and Williams 2020). A
segmentation is the set of its cuts: the indices, in 1 ... length - 1, of the windows that begin a new part.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

HELD = 3  # windows that make a class stable, or a stream recovered
NO_CLASS = -1


def stable_classes(predicted: np.ndarray, held: int = HELD) -> np.ndarray:
    """(N, W) classes -> (N, W) stable classes, ``NO_CLASS`` where there is none. ``held``: how many windows make one;
    of an even number the median is the upper one of the two in the middle."""
    stable = np.full(predicted.shape, NO_CLASS, np.int64)
    if predicted.shape[1] >= held:
        latest = np.sort(np.lib.stride_tricks.sliding_window_view(predicted, held, axis=1), axis=2)
        low, middle, high = latest[..., 0], latest[..., held // 2], latest[..., -1]
        stable[:, held - 1 :] = np.where((high - middle <= 1) & (middle - low <= 1), middle, NO_CLASS)
    return stable


def declared_changes(stable: np.ndarray, moved: int) -> np.ndarray:
    """(N, W) stable classes -> (N, W) bool: whether a change of at least ``moved`` classes is declared there."""
    index = np.where(stable == NO_CLASS, -1, np.arange(stable.shape[1]))
    last = np.maximum.accumulate(index, axis=1)
    before = np.concatenate([np.full((len(stable), 1), -1), last[:, :-1]], axis=1)
    old = np.take_along_axis(stable, np.maximum(before, 0), axis=1)
    return (stable != NO_CLASS) & (before >= 0) & (np.abs(stable - old) >= moved)


def first_from(mask: np.ndarray) -> np.ndarray:
    """(N, W) bool -> (N, W) the index of the first True at or after each place, W if there is none."""
    n_windows = mask.shape[1]
    index = np.where(mask, np.arange(n_windows), n_windows)
    return np.minimum.accumulate(index[:, ::-1], axis=1)[:, ::-1]


def covering(true_cuts: Collection[int], cuts: Collection[int], length: int) -> float:
    """Mean over the windows of the overlap (intersection over union) of the true part that a window lies in with the
    predicted part that overlaps most with that part."""
    true_edges, edges = (np.array([0, *sorted(found), length]) for found in (true_cuts, cuts))
    starts, ends = true_edges[:-1, None], true_edges[1:, None]
    shared = np.maximum(np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1]), 0)
    union = (ends - starts) + np.diff(edges) - shared
    return float((np.diff(true_edges) * (shared / union).max(axis=1)).sum() / length)


def f1(true_cuts: Collection[int], cuts: Collection[int], margin: int) -> float:
    """F1 of the cuts, the stream's beginning (index 0) counted as one in both. In time order, each true cut is found by
    the nearest cut within ``margin`` windows (the earlier of two) that has found no other."""
    left, found = {0, *cuts}, 0
    for true in sorted({0, *true_cuts}):
        near = min(left, key=lambda cut: (abs(cut - true), cut), default=None)
        if near is not None and abs(near - true) <= margin:
            left.remove(near)
            found += 1
    return 2 * found / (len({0, *cuts}) + len({0, *true_cuts}))
