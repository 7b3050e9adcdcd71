"""The clocks of a live stream: stamps that begin anew after 2^32 or 2^33 ticks, and where pieces of sound are heard.

A live stream cannot be read ahead as a file can (``sound_clock``): a piece of sound is placed when a few more have
come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from statistics import median
from typing import NamedTuple

import numpy as np

WRAPS = (2**33, 2**32)  # ticks after which clocks begin anew: MPEG-TS (26.5 h at 90 kHz), and RTP and FLV
_AHEAD = 8  # pieces that are looked at before one is placed (AAC at 48 kHz: 0.17 s); more than half confirm a step
_BEHIND = 56  # pieces already placed that count as well where stamps only drift or jitter
_STEP_S = 0.02  # a larger step of the lateness is one, a smaller one drift or jitter
_SMALLEST_STEP_S = Fraction(1, 1000)  # drift is followed in steps of about this; stamps are not better


def unwrapped(stamp: int, near: int, within: int) -> int:
    """``stamp``, plus as many turns of a clock that wraps as bring it to within ``within`` ticks of ``near``; as it is
    if none does."""
    if abs(stamp - near) <= within:
        return stamp
    for wrap in WRAPS:
        turned = stamp + round((near - stamp) / wrap) * wrap
        if abs(turned - near) <= within:
            return turned
    return stamp


class Piece(NamedTuple):
    """Sound and its place: ``at`` is its first sample in native samples of the stream's clock."""

    at: int
    sound: np.ndarray  # (n,) float32


class _Waiting(NamedTuple):
    late: float | None  # its stamp less the samples before it
    before: int  # samples
    sound: np.ndarray


class SoundPlacer:
    """Places pieces of sound by their stamps *and* their lengths: samples do not jitter, stamps do.

    A piece follows the one before it, unless more than half of the next pieces confirm a step of more than 20 ms (sound
    is missing, or comes again), or the stamps have drifted by more than a millisecond over the last pieces.
    """

    def __init__(self, rate: int, tick_s: Fraction) -> None:
        self._rate = rate
        self._slack = float((_SMALLEST_STEP_S + min(tick_s, _SMALLEST_STEP_S)) * rate) + 1
        self._waiting: deque[_Waiting] = deque()
        self._behind: deque[float] = deque(maxlen=_BEHIND)
        self._read, self._level, self._first = 0, 0.0, True

    def add(self, stamp: Fraction | None, sound: np.ndarray) -> Iterator[Piece]:
        """``stamp``: in native samples on the stream's clock; ``sound`` (n,). Yields the pieces that are placed now."""
        late = None if stamp is None else float(stamp - self._read)
        self._waiting.append(_Waiting(late, self._read, sound))
        self._read += len(sound)
        while len(self._waiting) > _AHEAD:
            yield self._placed()

    def end(self) -> Iterator[Piece]:
        """No more pieces follow these."""
        while self._waiting:
            yield self._placed()

    def _placed(self) -> Piece:
        late = self._waiting[0].late
        if late is not None:
            self._follow(late, [piece.late for piece in self._waiting if piece.late is not None])
            self._behind.append(late)
        _, before, sound = self._waiting.popleft()
        return Piece(round(self._level) + before, sound)

    def _follow(self, late: float, ahead: list[float]) -> None:
        """Set the level that the piece of lateness ``late`` has; ``ahead`` is its own and that of the next ones."""
        confirmed = median(ahead)
        if self._first:
            self._level = confirmed if abs(late - confirmed) <= _STEP_S * self._rate else late
            self._first = False
        step = confirmed - self._level
        if abs(step) > _STEP_S * self._rate:
            if abs(late - confirmed) < abs(late - self._level):
                self._level = confirmed
                self._behind.clear()
            return
        drift = median([*self._behind, *ahead]) - self._level
        if abs(drift) > self._slack:
            self._level += drift
