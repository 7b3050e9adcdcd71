"""Streams whose offset may change: what is believed in every window, what is so, and which changes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.results.dynamic_truth import Changes, WindowTruth, changes_of
from avbench.scoring.calibration import believed_offsets_s, classes_of
from avbench.scoring.metrics import GRID, checked_logits, softmax
from avbench.scoring.segmentation import HELD, stable_classes
from avbench.ticks import TICKS_PER_S, Tick, ticks
from avbench.types import NonFiniteError, UsageError

if TYPE_CHECKING:
    import pandas as pd

WARM_UP = 3  # windows
RANKED: Tick = ticks(0.4)  # smaller changes are within one class from the start, so they do not rank
HOUR_S = 3600


@dataclass(frozen=True, eq=False)
class Streams:
    """N streams of W windows: what is believed and what is so. Made by ``checked_streams``. Times are in ticks from the
    beginning of the first window."""

    probabilities: np.ndarray  # (N, W, 21) float64
    truth: WindowTruth
    videos: np.ndarray  # (N,) names
    window: Tick
    hop: Tick
    alarm: np.ndarray | None = None  # (N, W) float64 in [0, 1], of the model's own

    def __len__(self) -> int:
        return len(self.probabilities)

    def take(self, rows: np.ndarray) -> Streams:
        """Some of the streams."""
        alarm = None if self.alarm is None else self.alarm[rows]
        return Streams(self.probabilities[rows], self.truth.take(rows), self.videos[rows], self.window, self.hop, alarm)

    @property
    def n_windows(self) -> int:
        """W."""
        return self.probabilities.shape[1]

    @property
    def hours(self) -> np.ndarray:
        """(N,) scored hours: one hop for each scored window."""
        return np.full(len(self), (self.n_windows - WARM_UP) * self.hop / TICKS_PER_S / HOUR_S)

    @cached_property
    def ends(self) -> np.ndarray:
        """(W,) int64: when each window ends."""
        return self.window + self.hop * np.arange(self.n_windows)

    @cached_property
    def scored(self) -> np.ndarray:
        """(W,) bool."""
        return np.arange(self.n_windows) >= WARM_UP

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N, W) the most probable class."""
        return self.probabilities.argmax(axis=2)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N, W) the class of the offset at the window's end."""
        return classes_of(self.truth.offset_end / TICKS_PER_S)

    @cached_property
    def errors_s(self) -> np.ndarray:
        """(N, W) distance of the believed offset from the offset at the window's end."""
        return np.abs(believed_offsets_s(self.probabilities) - self.truth.offset_end_s)

    @cached_property
    def changes(self) -> Changes:
        """All changes."""
        return changes_of(self.truth, self.window, self.hop)

    @cached_property
    def counted(self) -> np.ndarray:
        """Rows of ``changes`` from which recovery is timed: not in the warm-up, and with at least 3 windows before the
        next change or the stream's end, as it takes 3 to see a recovery."""
        long = self.changes.until_window - self.changes.window >= HELD
        return np.flatnonzero((self.changes.window >= WARM_UP) & long)

    @cached_property
    def ranked(self) -> np.ndarray:
        """Those that rank: of at least 0.4 s."""
        return self.counted[np.abs(self.changes.delta[self.counted]) >= RANKED]

    @cached_property
    def constant(self) -> np.ndarray:
        """(N,) bool: whether the offset never changes (the law ``hold``)."""
        offset = self.truth.offset_end
        return (offset == offset[:, :1]).all(axis=1) & (self.truth.purity > 0).all(axis=1)

    @cached_property
    def stable(self) -> np.ndarray:
        """(N, W) stable classes."""
        return stable_classes(self.predicted)


def checked_streams(
    logits: Any,
    truth: WindowTruth | pd.DataFrame,
    hop_s: float = 2.0,
    window_s: float = 5.0,
    videos: Sequence[str] | np.ndarray | None = None,
    alarm: Any = None,
) -> Streams:
    """Checks what ``dynamic.score`` is given; errors as there."""
    truth = truth if isinstance(truth, WindowTruth) else WindowTruth.of_frame(truth)
    array, shape = np.asarray(logits), truth.regime.shape
    if array.shape != (*shape, GRID.n_classes):
        raise UsageError(
            f"logits have shape {array.shape}; the truth of {shape[0]} segments of {shape[1]} iterations needs "
            f"({shape[0]}, {shape[1]}, {GRID.n_classes})"
        )
    if shape[1] <= WARM_UP:
        raise UsageError(f"streams have {shape[1]} windows; the first {WARM_UP} are not scored, so more are needed")
    window, hop = ticks(float(window_s)), ticks(float(hop_s))
    if not 0 < hop <= window:
        raise UsageError(
            f"hop_s is {hop_s} and window_s {window_s}; the hop must be above 0 and no longer than the window, or "
            "changes between windows could not be dated"
        )
    names = np.arange(shape[0]) if videos is None else np.asarray(videos)
    if names.shape != shape[:1]:
        raise UsageError(f"there are {names.shape} video names for {shape[0]} segments")
    if alarm is not None:
        alarm = np.asarray(alarm, np.float64)
        if alarm.shape != shape or not ((alarm >= 0) & (alarm <= 1)).all():
            raise UsageError(f"alarm has shape {alarm.shape}; needed are numbers from 0 to 1, one a segment and window")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, i, _ = np.argwhere(~np.isfinite(array))[0]
        raise NonFiniteError(f"segment {truth.segment_ids[row]}, iteration {i + 1}: logits contain NaN or infinity")
    probabilities = softmax(checked_logits(array.reshape(-1, GRID.n_classes))).reshape(array.shape)
    return Streams(probabilities, truth, names, window, hop, alarm)
