"""The last seconds of a live stream: pictures and sound side by side, one row per frame of the 25 fps grid.

One thread writes, another asks for windows; each window of the stream is answered once: as a window, as one that cannot
be (something in it is missing), or as one that was passed over because computing is slower than the stream.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME

MISSING_PICTURE, MISSING_SOUND = "the picture is missing", "the sound is missing"
NOTHING = "picture and sound are missing"


class Taken(NamedTuple):
    """A window out of the ring. ``video`` (T, 3, S, S) uint8 and ``audio`` (N,) float32; None if it cannot be
    covered: ``why`` says it. ``overrun``: it is no longer there."""

    video: np.ndarray | None
    audio: np.ndarray | None
    why: str = ""
    overrun: bool = False


class Ring:
    """``rows`` rows of a picture (3, size, size) and 640 samples each; row k is k/25 s of the stream's clock.

    Thread-safe. ``changed`` is notified whenever a row is complete. ``first``: the earliest row that is still needed;
    the reader of the windows moves it on. One of picture and sound may be up to ``patience`` rows behind the other
    before it counts as missing.
    """

    def __init__(self, size: int, rows: int, patience: int) -> None:
        self.rows, self.patience = rows, patience
        self.changed = threading.Condition()
        self.first = 0
        self._pictures = np.zeros((rows, 3, size, size), np.uint8)
        self._sound = np.zeros((rows, TICKS_PER_FRAME), np.float32)
        self._shown = np.full(rows, -1, np.int64)  # the row whose picture lies there
        self._heard = np.full(rows, -1, np.int64)  # the row whose sound lies there,
        self._filled = np.zeros(rows, np.int64)  # and how many of its samples, from the first one on
        self._cuts: deque[tuple[int, str]] = deque()  # where something else begins, and why
        self._holes: deque[tuple[int, int]] = deque()  # rows that nothing comes for, in order
        self._picture_end = self._sound_end = 0  # rows

    def show(self, begin: int, end: int, picture: np.ndarray) -> None:
        """``picture`` (3, size, size) stands from row ``begin`` to before ``end``."""
        with self.changed:
            for row in range(max(begin, end - self.rows), end):
                self._pictures[row % self.rows] = picture
                self._shown[row % self.rows] = row
            self._picture_end = max(self._picture_end, end)
            self.changed.notify_all()

    def hear(self, at: int, samples: np.ndarray) -> None:
        """``samples`` (n,) float32 are heard from sample ``at`` of the stream's clock on."""
        with self.changed:
            end = at + len(samples)
            while at < end:
                row, offset = divmod(at, TICKS_PER_FRAME)
                n = min(TICKS_PER_FRAME - offset, end - at)
                slot = row % self.rows
                if self._heard[slot] < row:
                    self._heard[slot], self._filled[slot] = row, 0
                if self._heard[slot] == row:  # else the ring is past it
                    self._sound[slot, offset : offset + n] = samples[len(samples) - (end - at) :][:n]
                    if offset <= self._filled[slot]:
                        self._filled[slot] = max(self._filled[slot], offset + n)
                at += n
            self._sound_end = max(self._sound_end, end // TICKS_PER_FRAME)
            self.changed.notify_all()

    def cut(self, row: int, why: str) -> None:
        """From ``row`` on it is another picture or sound: no window holds both sides."""
        with self.changed:
            while self._cuts and self._cuts[0][0] < self.latest - self.rows:
                self._cuts.popleft()
            self._cuts.append((row, why))

    def pass_to(self, row: int) -> None:
        """Nothing more comes before ``row``."""
        with self.changed:
            begin = min(self._picture_end, self._sound_end)
            if begin < row:
                if self._holes and self._holes[-1][1] >= begin:
                    begin = self._holes.pop()[0]
                self._holes.append((begin, row))
            self._picture_end, self._sound_end = max(self._picture_end, row), max(self._sound_end, row)
            self.changed.notify_all()

    @property
    def end(self) -> int:
        """The row up to which all is known: what has come, and what will not come any more."""
        both = sorted((self._picture_end, self._sound_end))
        return max(both[0], both[1] - self.patience)

    @property
    def latest(self) -> int:
        """The row up to which there is a picture or sound."""
        return max(self._picture_end, self._sound_end)

    def lacking(self) -> str:
        """What has been missing for longer than the patience, in words; "" if nothing is."""
        ahead = self._picture_end - self._sound_end
        if abs(ahead) <= self.patience:
            return ""
        return MISSING_SOUND if ahead > 0 else MISSING_PICTURE

    def take(self, row: int, n_rows: int, skip_samples: int) -> Taken:
        """The window of ``n_rows`` from ``row`` on, which must be known up to its end; its sound begins
        ``skip_samples`` later."""
        n_sound = n_rows + -(-skip_samples // TICKS_PER_FRAME)
        with self.changed:
            cut = next((why for at, why in self._cuts if row < at < row + n_sound), "")
            while self._holes and self._holes[0][1] <= row:
                self._holes.popleft()
            if cut:
                return Taken(None, None, cut)
            if self._holes and self._holes[0][0] < row + n_sound:
                return Taken(None, None, NOTHING)
            seen, heard = np.arange(row, row + n_rows), np.arange(row, row + n_sound)
            shown, sounding = self._shown[seen % self.rows], self._heard[heard % self.rows]
            if (shown > seen).any() or (sounding > heard).any():
                return Taken(None, None, overrun=True)
            if (shown != seen).any():
                return Taken(None, None, MISSING_PICTURE)
            if (sounding != heard).any() or (self._filled[heard % self.rows] < TICKS_PER_FRAME).any():
                return Taken(None, None, MISSING_SOUND)
            audio = self._sound[heard % self.rows].reshape(-1)[skip_samples : skip_samples + n_rows * TICKS_PER_FRAME]
            return Taken(self._pictures[seen % self.rows], audio.copy())


def rows_of(seconds: float) -> int:
    """Whole rows of the ring that are at least so long."""
    return -int(-seconds * FRAME_RATE_HZ // 1)
