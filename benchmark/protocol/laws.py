"""Offsets that change: laws that say which offset a stream has at every instant, and their seeded draws.

A law is a list of pieces (start, offset, slope) on the segment's own clock, whose tick 0 is the segment's start. Its
offset at picture time t, in the piece that t lies in, is ``offset + floor((t - start) * slope_ppm / 1e6)``: the sound
heard at t is the source's sample ``t + o(t)``. A step up skips sound, a step down repeats it, a slope slips single
samples. Mutes are stretches of silence; they do not change the offset.

A law depends on its name, the segment's id and the seed only. All its changes are on pictures (multiples of 640 ticks).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from avbench.protocol.offsets import draw_offset
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, ticks
from avbench.types import Law, OffsetGrid, Piece, UsageError, Window

STEPS_S = (0.2, 0.4, 0.8, 1.6)  # sizes of a jump, in turn
AWAY_S = (10, 20, 40)  # how long an excursion lasts, in turn
RAMP_MS_PER_S = 80  # the fastest ramp: what WebRTC allows itself
DROP_MS, DROPS_PER_S = 40, 0.2  # a dropped picture; how many while they are dropped
DRIFTS_PPM = (999, 2_800, 88_000)  # 29.97 played as 30, a bad clock, 44.1 kHz played as 48 kHz
CONTROLS_PPM = (23, 170)  # crystals: such a drift must not alarm
SETTLED_S = 15  # no change before, so that there is something to recover from
SHARES = {"hold": 0.25, "jump": 0.25, "excursion": 0.2, "multi": 0.1, "ramp": 0.1, "drops": 0.05, "drift": 0.05}
_TRIES = 1000


def offsets_at(law: Law, t: np.ndarray | Sequence[Tick]) -> np.ndarray:
    """The offset at each tick of the segment's clock: (N,) int64 -> (N,) int64. Before 0 the first piece goes on."""
    t = np.asarray(t, np.int64)
    start, offset, slope = (np.array(column, np.int64) for column in zip(*law.pieces, strict=True))
    piece = np.maximum(np.searchsorted(start, t, side="right") - 1, 0)
    return offset[piece] + (t - start[piece]) * slope[piece] // 1_000_000


def extremes(law: Law, length: Tick) -> tuple[Tick, Tick]:
    """The smallest and the largest offset from tick 0 up to ``length``: offsets run straight inside a piece."""
    ends = [piece.start for piece in law.pieces[1:]]
    at = [0, *(edge for end in ends if end < length for edge in (end - 1, end)), length - 1]
    found = offsets_at(law, [t for t in at if t >= 0])
    return int(found.min()), int(found.max())


def law_text(law: Law) -> str:
    """A law as JSON: name, pieces as [start, offset, slope], mutes as [start, length], all in ticks and ppm."""
    parts = {"name": law.name, "pieces": law.pieces, **({"mutes": law.mutes} if law.mutes else {})}
    return json.dumps(parts, separators=(",", ":"))


def law_of(text: str) -> Law:
    """The law that :func:`law_text` wrote; ``ValueError`` for any other text."""
    try:
        parts = json.loads(text)
        mutes = tuple(Window(*mute) for mute in parts.get("mutes", ()))
        law = Law(parts["name"], tuple(Piece(*piece) for piece in parts["pieces"]), mutes)
        numbers = [n for row in (*law.pieces, *law.mutes) for n in row]
        fits = law_text(law) == text and all(type(n) is int for n in numbers)
        fits = fits and (law.pieces[0].start <= 0 or not law.name)  # a window may begin before its segment
        fits = fits and all(a.start < b.start for a, b in itertools.pairwise(law.pieces))
        fits = fits and all(mute.start >= 0 and mute.length > 0 for mute in law.mutes)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{text[:60]!r} is not a law") from error
    if not fits:
        raise ValueError(f"{text[:60]!r} is not a law")
    return law


def inside(law: Law, window: Window) -> tuple[Tick, Law | None]:
    """What a law does in one window (on the segment's clock): the offset at its beginning and, unless that stays
    throughout and nothing is muted, the law inside it, nameless, on the window's own clock and with that offset
    subtracted. Windows in which the same happens have equal results, whatever their laws."""
    first = int(offsets_at(law, [window.start])[0])
    at = max((k for k, piece in enumerate(law.pieces) if piece.start <= window.start), default=0)
    pieces: list[Piece] = []
    for piece in (law.pieces[at], *(p for p in law.pieces[at + 1 :] if p.start < window.end)):
        # where a constant piece began before the window makes no difference; where a slope did decides the rounding
        start = piece.start - window.start if piece.slope_ppm else max(piece.start - window.start, 0)
        moved = Piece(start, piece.offset - first, piece.slope_ppm)
        if not pieces or moved[1:] != pieces[-1][1:] or moved.slope_ppm:
            pieces.append(moved)
    mutes = tuple(
        Window(max(mute.start, window.start) - window.start, min(mute.end, window.end) - max(mute.start, window.start))
        for mute in law.mutes
        if mute.start < window.end and window.start < mute.end
    )
    if len(pieces) == 1 and not pieces[0].slope_ppm and not mutes:
        return first, None
    return first, Law("", tuple(pieces), mutes)


def gathered(sound: np.ndarray, begin: Tick, length: Tick, law: Law) -> np.ndarray:
    """(length,) samples: what is heard in a window with this law inside (see :func:`inside`). ``begin``: the index in
    (N,) ``sound`` of what is heard at its first instant."""
    t = np.arange(length)
    heard = sound[begin + t + offsets_at(law, t)]
    for mute in law.mutes:
        heard[mute.start : mute.end] = 0
    return heard


def draw_law(name: str, segment_id: str, seed: int, length: Tick, grid: OffsetGrid | None = None) -> Law:
    """The law called ``name`` of one segment that lasts ``length`` ticks; drawn again until every offset is within the
    grid. ``UsageError``: an unknown name, or a stream too short for it."""
    grid = grid or OffsetGrid()
    if name not in _DRAWS:
        raise UsageError(f"law {name!r} is not one of {', '.join(_DRAWS)}")
    limit = ticks(grid.max_offset_s)
    for attempt in range(_TRIES):
        lot = _Lot(name, segment_id, seed, attempt, grid)
        law = _DRAWS[name](lot, length)
        # what is so at the stream's end, the tick after it, is the label of its last window
        if law is not None and law.pieces[-1].start < length and max(map(abs, extremes(law, length + 1))) <= limit:
            return law
    raise UsageError(f"segment {segment_id}: its {length / TICKS_PER_S:g} s are too short for the law {name}")


def laws_in_turn(names: Sequence[str], segment_ids: Sequence[str], seed: int) -> dict[str, str]:
    """Segment id -> name of its law. In a seeded order, each law gets its share of the segments (``SHARES``, among
    ``names``) as closely as whole segments allow. ``UsageError``: an unknown name, or none."""
    unknown = [name for name in names if name not in SHARES]
    if unknown or not names:
        raise UsageError(f"laws {', '.join(names) or '(none)'}: choose among {', '.join(SHARES)}")
    given = dict.fromkeys(names, 0)
    total = sum(SHARES[name] for name in given)
    order = sorted(segment_ids, key=lambda name: hashlib.sha256(f"avbench laws {seed} {name}".encode()).digest())
    chosen = {}
    for n, segment_id in enumerate(order, 1):
        name = max(given, key=lambda name: n * SHARES[name] / total - given[name])
        given[name] += 1
        chosen[segment_id] = name
    return chosen


# -------------------------------------------------------------------------------------------------------------- drawing


class _Lot:
    """The random numbers of one attempt at one law: the same on every platform."""

    def __init__(self, name: str, segment_id: str, seed: int, attempt: int, grid: OffsetGrid) -> None:
        self.text, self.grid, self.n = f"avbench law {seed} {name} {segment_id} {attempt}", grid, 0
        self.seed, self.attempt, self.segment_id = seed, attempt, segment_id

    def share(self) -> float:
        """The next number in (0, 1)."""
        self.n += 1
        digest = hashlib.sha256(f"{self.text} {self.n}".encode()).digest()
        return (int.from_bytes(digest[:8], "big") // 2**11 + 0.5) / 2**53

    def between(self, low: float, high: float) -> float:
        """A number between the two."""
        return low + self.share() * (high - low)

    def one_of(self, values: Sequence[float]) -> float:
        """One of the values."""
        return values[int(self.share() * len(values))]

    def waits(self, mean_s: float) -> float:
        """Seconds to the next event of a Poisson process."""
        return -mean_s * math.log(self.share())

    def sign(self) -> int:
        """1 or -1."""
        return 1 if self.share() < 0.5 else -1

    def offset(self) -> Tick:
        """A uniform offset; of the first attempt, the same as the segment's fixed uniform offset."""
        again = f" again {self.attempt}.{self.n}" if self.attempt or self.n else ""
        self.n += 1
        return draw_offset("uniform", self.segment_id + again, self.seed, self.grid)


def on_picture(time_s: float) -> Tick:
    """The tick of the picture nearest to a time in seconds."""
    return round(time_s * TICKS_PER_S / TICKS_PER_FRAME) * TICKS_PER_FRAME


def _steps(name: str, steps: Iterator[tuple[float, Tick]] | Sequence[tuple[float, Tick]]) -> Law:
    """A law of constant pieces from (seconds, offset)."""
    return Law(name, tuple(Piece(on_picture(at_s), offset) for at_s, offset in steps))


def _hold(lot: _Lot, length: Tick) -> Law:
    """One offset; in half of the streams the sound is muted for 0.5 to 2 s now and then."""
    offset = lot.offset()
    mutes, at_s = [], 0.0
    if lot.share() < 0.5:
        while True:
            at_s += lot.waits(20)
            mute = Window(on_picture(at_s), on_picture(lot.between(0.5, 2)))
            if mute.end > length:
                break
            mutes.append(mute)
            at_s = mute.end / TICKS_PER_S + 1
    return Law("hold", (Piece(0, offset),), tuple(mutes))


def _jump(lot: _Lot, length: Tick) -> Law:
    """One step at 15 to 60 s."""
    before = lot.offset()
    step = lot.sign() * ticks(lot.one_of(STEPS_S))
    return _steps("jump", [(0, before), (lot.between(SETTLED_S, 60), before + step)])


def _excursion(lot: _Lot, length: Tick) -> Law | None:
    """Out and back: an advertisement break."""
    before, away_s = lot.offset(), lot.one_of(AWAY_S)
    step = lot.sign() * ticks(lot.one_of(STEPS_S))
    latest_s = length / TICKS_PER_S - away_s - SETTLED_S
    if latest_s <= SETTLED_S:
        return None
    out_s = lot.between(SETTLED_S, latest_s)
    return _steps("excursion", [(0, before), (out_s, before + step), (out_s + away_s, before)])


def _multi(lot: _Lot, length: Tick) -> Law:
    """Regimes of 15 s and an exponential rest of 25 s on average; neighbours differ by at least one class."""
    at_s, steps = 0.0, [(0.0, lot.offset())]
    while True:
        at_s += SETTLED_S + lot.waits(25)
        if on_picture(at_s) >= length:
            return _steps("multi", steps)
        offset = lot.offset()
        while abs(offset - steps[-1][1]) < ticks(0.2):
            offset = lot.offset()
        steps.append((at_s, offset))


def _ramp(lot: _Lot, length: Tick) -> Law:
    """A slide of at most 80 ms/s to another offset."""
    before, begin = lot.offset(), on_picture(lot.between(SETTLED_S, 60))
    way = lot.sign() * lot.between(0.4, 1.6)
    slope = round(lot.between(20, RAMP_MS_PER_S) * 1000) * (1 if way > 0 else -1)
    end = begin + on_picture(abs(way) * 1e6 / abs(slope))
    after = before + (end - begin) * slope // 1_000_000
    return Law("ramp", (Piece(0, before), Piece(begin, before, slope), Piece(end, after)))


def _drops(lot: _Lot, length: Tick) -> Law | None:
    """Pictures are dropped for a while: each makes the sound 40 ms later."""
    offset, begin_s = lot.offset(), lot.between(SETTLED_S, 45)
    end_s, steps, at_s = begin_s + lot.between(20, 40), [(0.0, offset)], begin_s
    while (at_s := at_s + lot.waits(1 / DROPS_PER_S)) < min(end_s, length / TICKS_PER_S):
        offset -= ticks(DROP_MS / 1000)
        if on_picture(at_s) == on_picture(steps[-1][0]):
            steps[-1] = (at_s, offset)
        else:
            steps.append((at_s, offset))
    return _steps("drops", steps) if len(steps) > 1 else None


def _drift(lot: _Lot, length: Tick) -> Law:
    """Clocks of different speed; the fastest drift lasts until the offset has moved by up to 2 s."""
    slope = lot.sign() * int(lot.one_of((*DRIFTS_PPM, *CONTROLS_PPM)))
    before = lot.offset()
    if abs(slope) * length < 2 * TICKS_PER_S * 1_000_000:
        return Law("drift", (Piece(0, before, slope),))
    begin = on_picture(lot.between(SETTLED_S, 60))
    end = begin + on_picture(lot.between(0.8, 2) * 1e6 / abs(slope))
    after = before + (end - begin) * slope // 1_000_000
    return Law("drift", (Piece(0, before), Piece(begin, before, slope), Piece(end, after)))


_DRAWS: dict[str, Callable[[_Lot, Tick], Law | None]] = {
    "hold": _hold,
    "jump": _jump,
    "excursion": _excursion,
    "multi": _multi,
    "ramp": _ramp,
    "drops": _drops,
    "drift": _drift,
}
