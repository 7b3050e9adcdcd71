"""Where decoded sound belongs: time stamps say when it is heard, the samples themselves say how long it lasts.

Containers round stamps to their clock, muxers lay several packets under one stamp, recorders stamp a packet when they
happen to get it. Samples do not jitter: pieces follow each other without a gap unless the stamps say otherwise and *go
on* saying so. For each piece the *lateness* is its stamp less the samples before it. In gapless sound it is constant
but for jitter; where it steps and later pieces confirm the step, sound is missing (or there is too much of it).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeVar

import numpy as np

_AHEAD = 128  # pieces that are looked at before one is placed: 2.7 s of AAC at 48 kHz
_FEW = 8  # of them are enough where stamps do not jitter; a step is real if more than half of them confirm it
_FIRST = 32  # of them tell by how much the very first stamp is off
_AHEAD_S = 8  # of sound in more than these few pieces is not read ahead either: some files hold seconds in a piece
_SMALLEST_STEP_S = Fraction(1, 1000)  # a slower clock is followed in steps of about this; stamps are not better

Sound = TypeVar("Sound")


def placed(
    pieces: Iterable[tuple[Fraction | None, int, Sound]], rate: int, tick_s: Fraction
) -> Iterator[tuple[int, Sound]]:
    """(index of its first sample on the clip's clock, sound) of every piece, in order.

    ``pieces``: (stamp in samples on the clip's clock or None, number of samples, whatever is handed through);
    ``tick_s``: one tick of the clock that made the stamps. A piece begins where the one before it ended, except

    - where most of the next pieces confirm a step of the lateness: a gap (or an overlap) of that size is there;
    - where a slow drift between stamps and samples has reached the smallest step: it is followed in such steps.

    Lone stamps that are off, by however much, change nothing. The next 128 pieces (or 8 s) are held in memory. If those
    that begin the stream have no stamp at all, their indices count from 0.
    """
    source = iter(pieces)
    slack = float((_SMALLEST_STEP_S + min(tick_s, _SMALLEST_STEP_S)) * rate) + 1
    ahead: deque[tuple[float | None, int, Sound]] = deque()  # (lateness, samples before the piece, ...)
    recent: deque[float] = deque(maxlen=_AHEAD)  # lateness of the pieces that were placed last
    read, level, first = 0, 0.0, True
    while True:
        while len(ahead) < _FEW or (len(ahead) < _AHEAD and read - ahead[0][1] < _AHEAD_S * rate):
            piece = next(source, None)
            if piece is None:
                break
            stamp, samples, sound = piece
            ahead.append((None if stamp is None else float(stamp - read), read, sound))
            read += samples
        if not ahead:
            return
        late, before, sound = ahead[0]
        if first or (late is not None and abs(late - level) > slack):
            next_ones = np.array([lateness for lateness, _, _ in ahead if lateness is not None])
            jitter = _jitter(np.concatenate([recent, next_ones]), slack)
            if first and len(next_ones):
                level, first = _first_level(next_ones, jitter, slack), False
            elif late is not None:
                level += _step(next_ones - level, jitter, slack)
        yield round(level) + before, sound
        ahead.popleft()
        if late is not None:
            recent.append(late)


def _jitter(lateness: np.ndarray, slack: float) -> float:
    """How much the lateness moves to and fro between pieces; gaps and drift, which add up, do not count.

    Stamps that wander slowly move little from piece to piece: the same is measured between the medians of eight pieces
    each, where independent jitter is less by the root of 8.
    """
    eights = np.median(lateness[len(lateness) % 8 :].reshape(-1, 8), axis=1)
    return max(_to_and_fro(lateness, slack), 8**0.5 * _to_and_fro(eights, slack))


def _to_and_fro(values: np.ndarray, slack: float) -> float:
    changes = np.diff(values)
    if not len(changes):
        return 0.0
    usual = max(slack, 3 * float(np.quantile(np.abs(changes), 0.8)))  # lone stamps and gaps are larger
    changes = changes.clip(-usual, usual)
    return float(np.abs(changes).mean() - abs(changes.mean()))


def _confirmed(lateness: np.ndarray, about: float) -> float:
    """The lateness from 0 that more than half of the pieces confirm: the mean of those about their median."""
    few, many = (len(lateness) - 1) // 2, len(lateness) // 2
    low, high = np.partition(lateness, (few, many))[[few, many]]
    middle = low if low > 0 else min(high, 0.0)  # of an even number the one nearer to 0
    return float(lateness[np.abs(lateness - middle) <= about].mean()) if middle else 0.0


def _level(lateness: np.ndarray, jitter: float, slack: float) -> float:
    """The level to which the lateness goes from 0; 0 if it stays. More pieces are asked where stamps jitter more."""
    about = max(slack, 3 * jitter)
    asked = min(len(lateness), _AHEAD, max(_FEW, round((8 * jitter / slack) ** 2)))
    level, doubt = _confirmed(lateness[:asked], about), 4 * jitter / asked**0.5
    while asked >= 2 * _FEW:  # if the nearer ones stay below, there is another step further on
        asked //= 2
        near, near_doubt = _confirmed(lateness[:asked], about), 4 * jitter / asked**0.5
        if near * level <= 0 or abs(near) + near_doubt + slack < abs(level):
            level, doubt = near, near_doubt
    return level if abs(level) > max(slack, doubt) else 0.0


def _first_level(lateness: np.ndarray, jitter: float, slack: float) -> float:
    """The first stamp counts, unless it is off by jitter or is later than what follows it."""
    first = float(lateness[0])
    off = _confirmed(lateness[:_FIRST] - first, max(slack, 3 * jitter))
    if max(slack, abs(off)) <= 4 * jitter:
        return first + off
    return first + min(_level(lateness - first, jitter, slack), 0.0)


def _step(lateness: np.ndarray, jitter: float, slack: float) -> float:
    """By how much the piece with ``lateness[0]`` lies off the present level, which is 0."""
    now = float(lateness[0])
    level = _level(lateness, jitter, slack) if len(lateness) > 1 else 0.0  # nothing confirms the last one
    if not level:
        return 0.0
    usual = max(slack, 4 * jitter)
    between = 0 < now / level < 1
    if abs(now) <= abs(now - level):  # nearer to where the others were
        return now if between and abs(now) > usual else 0.0  # the first of several steps, or the step comes later
    if abs(now - level) <= usual:
        return level
    return now if between else 0.0  # a stamp far beyond says nothing; the next piece decides
