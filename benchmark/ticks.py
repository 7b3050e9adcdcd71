"""Exact time: one tick is 1/16000 s, so an audio sample is 1 tick and a 25 fps frame is 640 ticks.

Everything inside avbench counts ticks (plain ``int``); float seconds appear only where people read or type them.
"""

from __future__ import annotations

from fractions import Fraction

TICKS_PER_S = 16_000
SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25
TICKS_PER_FRAME = TICKS_PER_S // FRAME_RATE_HZ

Tick = int


def ticks(seconds: float | int | str | Fraction) -> Tick:
    """Nearest tick to ``seconds`` (a float is read as the decimal a person typed, so ``ticks(0.1) == 1600``)."""
    exact = Fraction(repr(seconds)) if isinstance(seconds, float) else Fraction(seconds)
    return round(exact * TICKS_PER_S)


def seconds(tick: Tick) -> float:
    """Seconds (float, for display and tables) of a tick count."""
    return tick / TICKS_PER_S


def frames(tick: Tick) -> int:
    """Number of 25 fps frames in ``tick``; ``ValueError`` if it is not a whole number of frames."""
    whole, rest = divmod(tick, TICKS_PER_FRAME)
    if rest:
        raise ValueError(f"{tick} ticks ({seconds(tick):.5f} s) is not on the 25 fps frame grid (multiples of 0.04 s)")
    return whole
