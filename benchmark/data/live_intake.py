"""Puts the pictures and the sound of a live stream where they belong on its clock, whatever its time stamps do.

The stream's clock begins with the first picture and never goes back. The pictures' stamps carry it on: where they jump,
a new *stretch* begins, at the row of the ring that follows (later by the time that has passed meanwhile). Sound belongs
where its own stamps put it beside the pictures; sound on another clock waits for the pictures to get there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any, NamedTuple, Protocol

import numpy as np

from avbench.data.grid import Grid
from avbench.data.live_clock import Piece, SoundPlacer, unwrapped
from avbench.data.live_ring import MISSING_PICTURE, MISSING_SOUND, Ring
from avbench.data.pictures import PICTURE_GAP_S
from avbench.data.sound import Resampler
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import AvbenchError

JUMP_S = 10  # a longer step ahead is another clock; so far may sound and picture be apart in the stream
BACK_S = 0.1  # a longer step back is another clock; a shorter one is a picture that comes too late
SOUND_GAP_S = 0.1  # shorter holes (a few lost packets) are left silent: 2 % of a window, and none would be whole
_WAITING = 1024  # pieces of sound that wait for the pictures' clock; as many as 20 s of AAC
_USUAL_S = Fraction(1, FRAME_RATE_HZ)  # the length of a picture before a second one has come


class Tell(Protocol):
    """Is called with an event: its kind, its time on the stream's clock, and what else is to be said of it."""

    def __call__(self, kind: str, t_s: float, **facts: Any) -> None: ...


class Sound(NamedTuple):
    """A decoded piece of sound."""

    stamp: int | None  # in ``base``
    base: Fraction
    rate: int
    channels: int
    samples: np.ndarray  # (n,) float32, mono, at ``rate``


@dataclass
class _Stretch:
    """What is known of the pictures since their clock last jumped."""

    row: int  # of its first picture
    first: int  # stamp of its first picture, in ``base``
    base: Fraction
    grid: Grid
    kind: Hashable
    last: int  # stamp of the latest picture, unwrapped
    usual: int  # length of a picture
    held: Callable[[], np.ndarray]  # makes the latest picture
    shown: int  # the row up to which pictures have been placed
    sound: _SoundSide
    heard_s: Fraction  # the latest stamp of sound on this clock

    def row_of(self, stamp: int) -> int:
        """The first row that shows a picture of this stamp."""
        return self.row + self.grid.first_frame(stamp - self.first)

    @property
    def first_s(self) -> Fraction:
        return self.first * self.base

    @property
    def now_s(self) -> Fraction:
        """The latest stamp of a picture or of sound beside it, in seconds."""
        return max(self.last * self.base, self.heard_s)


class Intake:
    """Frames in, rows of the ring out. ``room(row)`` is called before that row is written, and may wait.

    ``tell`` gets the events. ``wall``: a clock in seconds. ``patched_s``: sound left silent in short holes.
    """

    def __init__(
        self,
        ring: Ring,
        tell: Tell,
        room: Callable[[int], None] = lambda row: None,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ring, self._tell, self._room, self._wall = ring, tell, room, wall
        self.arrived = wall()  # when the latest frame came
        self.patched_s = 0.0
        self.pictures = 0  # that were placed
        self._stretch: _Stretch | None = None
        self._waiting: deque[Sound] = deque(maxlen=_WAITING)
        self._lacks = ""
        self._lacks_since = 0

    # ------------------------------------------------------------------------------------------------------- picture

    def picture(self, stamp: int | None, base: Fraction, kind: Hashable, make: Callable[[], np.ndarray]) -> None:
        """A decoded picture: its stamp in ``base``, its format in any form that can be compared, and what makes its
        (3, S, S) uint8 array if it is shown."""
        now = self._stretch
        if now is None or base != now.base:
            if stamp is not None:
                self._begin(stamp, base, kind, make)
        else:
            self._follow(now, now.last + now.usual if stamp is None else stamp, kind, make)
        self._check_both()
        self.arrived = self._wall()

    def _begin(self, stamp: int, base: Fraction, kind: Hashable, make: Callable[[], np.ndarray]) -> None:
        """A new stretch begins with this picture, the very first one at row 0."""
        self.close("another stream begins")
        passed = int((self._wall() - self.arrived) * FRAME_RATE_HZ) if self.pictures else 0
        row = self.ring.latest + passed
        self.ring.pass_to(row)
        self._stretch = _Stretch(
            row=row,
            first=stamp,
            base=base,
            grid=Grid("centred", base),
            kind=kind,
            last=stamp,
            usual=max(int(_USUAL_S / base), 1),
            held=make,
            shown=row,
            sound=_SoundSide(self.ring, self._tell, self._room, row),
            heard_s=stamp * base,
        )
        self._lacks = ""
        waiting, self._waiting = self._waiting, deque(maxlen=_WAITING)
        for sound in waiting:
            if self._on_clock(sound):
                self._place_sound(sound)

    def _follow(self, now: _Stretch, stamp: int, kind: Hashable, make: Callable[[], np.ndarray]) -> None:
        stamp = unwrapped(stamp, round(now.now_s / now.base), int(JUMP_S / now.base))
        step = stamp - now.last
        step_s = float(step * now.base)
        if stamp * now.base > now.now_s + JUMP_S or step_s < -BACK_S:
            way = "ahead" if step > 0 else "back"
            self.close(f"the clock of the picture jumps {way} by {abs(step_s):.2f} s")
            self._begin(stamp, now.base, kind, make)
            return
        if step <= 0:
            return
        row = now.row_of(stamp)
        if step_s <= PICTURE_GAP_S:
            self._show(now, row)
            now.usual = step
        else:
            self._show(now, now.row_of(now.last + now.usual))
            self._tell("gap", self.t_s, reason=MISSING_PICTURE, start_s=_s(now.shown), end_s=_s(row))
        if kind != now.kind:
            why = f"the picture changes from {now.kind} to {kind}"
            self.ring.cut(row, why)
            self._tell("gap", self.t_s, reason=why, start_s=_s(row), end_s=_s(row))
        now.kind, now.last, now.held, now.shown = kind, stamp, make, max(now.shown, row)

    def _show(self, now: _Stretch, until: int) -> None:
        """The latest picture stands up to row ``until``."""
        if until > now.shown:
            self._room(until)
            try:
                picture = now.held()
            except AvbenchError as error:  # it cannot be what the model wants, nor can what follows
                self._stretch = None
                self.ring.cut(self.ring.latest, str(error))
                raise
            self.ring.show(now.shown, until, picture)
            self.pictures += 1
            now.shown = until

    # --------------------------------------------------------------------------------------------------------- sound

    def sound(self, sound: Sound) -> None:
        """A decoded piece of sound."""
        if self._on_clock(sound):
            self._place_sound(sound)
        else:
            self._waiting.append(sound)
        self._check_both()
        self.arrived = self._wall()

    def _on_clock(self, sound: Sound) -> bool:
        """Whether the sound is on the clock of the pictures that come now; without a stamp it follows what was."""
        if self._stretch is None or sound.stamp is None:
            return self._stretch is not None and self._stretch.sound.going
        return abs(self._sound_s(sound, sound.stamp) - self._stretch.now_s) <= JUMP_S

    def _sound_s(self, sound: Sound, stamp: int) -> Fraction:
        """The sound's stamp in seconds of the pictures' clock."""
        assert self._stretch is not None
        return unwrapped(stamp, round(self._stretch.now_s / sound.base), int(JUMP_S / sound.base)) * sound.base

    def _place_sound(self, sound: Sound) -> None:
        assert self._stretch is not None
        stamp_s = None
        if sound.stamp is not None:
            heard_s = self._sound_s(sound, sound.stamp)
            self._stretch.heard_s = max(self._stretch.heard_s, heard_s)
            stamp_s = heard_s - self._stretch.first_s
        self._stretch.sound.add(stamp_s, sound)

    # -------------------------------------------------------------------------------------------------- all together

    @property
    def t_s(self) -> float:
        """The time up to which something is known, on the stream's clock."""
        return _s(self.ring.latest)

    def close(self, why: str) -> None:
        """What has come is placed, and what comes next begins a new stretch; it is a gap."""
        if self._stretch is None:
            return
        self.end()
        self._stretch = None
        self.ring.cut(self.ring.latest, why)
        self.ring.pass_to(self.ring.latest)
        self._tell("gap", self.t_s, reason=why, start_s=self.t_s, end_s=None)

    def end(self) -> None:
        """The stream is over: what has come is placed."""
        now = self._stretch
        if now is not None:
            self._show(now, now.row_of(now.last + now.usual))
            now.sound.close()
            self.patched_s += now.sound.patched_s

    def lacking_s(self) -> float:
        """For how long one of picture and sound has been missing while the other goes on."""
        return _s(self.ring.latest - self._lacks_since) if self._lacks else 0.0

    def _check_both(self) -> None:
        """Say it once when one of picture and sound stays away."""
        lacks = self.ring.lacking() if self._stretch else ""
        if lacks and lacks != self._lacks:
            since = self.ring.latest - self.ring.patience
            why = lacks
            if lacks == MISSING_SOUND and self._waiting and self._waiting[-1].stamp is not None and self._stretch:
                off_s = float(self._sound_s(self._waiting[-1], self._waiting[-1].stamp) - self._stretch.now_s)
                why = f"the sound's clock is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the picture's"
            self._lacks_since = since
            self._tell("gap", self.t_s, reason=why, start_s=_s(since), end_s=None)
        self._lacks = lacks


class _SoundSide:
    """The sound of the stretch that begins at ``row``: placed by its stamps, resampled without a seam, and put into
    the ring."""

    def __init__(self, ring: Ring, tell: Tell, room: Callable[[int], None], row: int) -> None:
        self._ring, self._tell, self._room, self._row = ring, tell, room, row
        self.patched_s = 0.0
        self._kind: tuple[int, int] = (0, 0)  # rate and channels
        self._placer: SoundPlacer | None = None
        self._resampler: Resampler | None = None
        self._end = 0  # in native samples of the stretch: up to where the resampler was fed
        self._next = 0  # the sample of the stream's clock that comes out of it next

    @property
    def going(self) -> bool:
        """Whether there is sound that more could follow."""
        return self._placer is not None

    def add(self, stamp_s: Fraction | None, sound: Sound) -> None:
        """``stamp_s``: since the beginning of the stretch."""
        kind = sound.rate, sound.channels
        if self._placer is not None and kind != self._kind:
            before = self._kind
            self.close()
            row = self._next // TICKS_PER_FRAME + 1
            why = f"the sound changes from {_words(*before)} to {_words(*kind)}"
            self._ring.cut(row, why)
            self._tell("gap", _s(self._ring.latest), reason=why, start_s=_s(row), end_s=_s(row))
        if self._placer is None:
            self._placer, self._kind = SoundPlacer(sound.rate, sound.base), kind
        self._put(self._placer.add(None if stamp_s is None else stamp_s * sound.rate, sound.samples))

    def close(self) -> None:
        """No more sound follows what has come."""
        if self._placer is not None:
            self._put(self._placer.end())
        self._finish()
        self._placer = None

    def _finish(self) -> None:
        if self._resampler is not None:
            self._hear(self._resampler.end())
            self._resampler = None

    def _put(self, pieces: Iterable[Piece]) -> None:
        rate = self._kind[0]
        patch = round(SOUND_GAP_S * rate)
        for piece in pieces:
            before = max(-piece.at, 0)  # what comes before the stretch's first picture is left out
            at, samples = piece.at + before, piece.sound[before:]
            if not len(samples):
                continue
            step = at - self._end
            place, sound = at, samples
            if self._resampler is None:
                self._restart(at, rate)
            elif 0 < step <= patch:
                self.patched_s += step / rate
                place, sound = self._end, np.concatenate([np.zeros(step, np.float32), samples])
            elif -patch <= step < 0:
                place, sound = self._end, samples[-step:]
            elif step:
                self._jump(at, rate)
            self._end = place + len(sound)
            if len(sound) and self._resampler is not None:
                self._hear(self._resampler.feed(sound))

    def _jump(self, at: int, rate: int) -> None:
        """The sound goes on elsewhere."""
        self._finish()
        before = self._next
        self._restart(at, rate)
        low, high = sorted((before / SAMPLE_RATE_HZ, self._next / SAMPLE_RATE_HZ))
        why = MISSING_SOUND
        if self._next < before:
            why = "the sound jumps back"
            self._ring.cut(self._next // TICKS_PER_FRAME + 1, why)
        self._tell("gap", _s(self._ring.latest), reason=why, start_s=low, end_s=high)

    def _restart(self, at: int, rate: int) -> None:
        """The resampler begins anew, at a sample that is a whole one at 16 kHz, too: silence leads up to it."""
        self._resampler = Resampler(rate, SAMPLE_RATE_HZ)
        whole = rate // gcd(rate, SAMPLE_RATE_HZ)
        begin = at // whole * whole
        self._next = self._row * TICKS_PER_FRAME + begin * SAMPLE_RATE_HZ // rate
        if begin < at:
            self._hear(self._resampler.feed(np.zeros(at - begin, np.float32)))

    def _hear(self, blocks: Iterable[np.ndarray]) -> None:
        """Put resampled sound into the ring."""
        for block in blocks:
            at, self._next = self._next, self._next + len(block)
            self._room(self._next // TICKS_PER_FRAME)
            self._ring.hear(at, block)


def _s(row: int) -> float:
    """Seconds of the stream's clock."""
    return row / FRAME_RATE_HZ


def _words(rate: int, channels: int) -> str:
    return f"{rate} Hz, {channels} channel{'s' * (channels != 1)}"
