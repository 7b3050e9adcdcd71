"""A live stream as windows of picture and sound, one a hop, for days.

A thread reads and decodes; it fills a ring of the last seconds. A lost connection, a clock that jumps or wraps, another
format, missing stretches are events, not ends. The stream's clock begins with the first picture and never goes back.

Every hop's window is accounted for once: given out, *uncoverable* (something in it is missing), or *skipped* (computing
is slower than the stream). Windows are skipped only behind a stream that comes in its own time: a pipe or a server that
is faster waits for the computing.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from avbench.data.live_intake import Intake, Sound
from avbench.data.live_open import Address, chosen, opened_live, why_not
from avbench.data.live_ring import Ring, rows_of
from avbench.data.media import check_frontend, fitting, rgb_converter
from avbench.data.sound import Samples
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME, frames, ticks
from avbench.types import AvbenchError, FrontEnd, MediaError, UsageError

BACK_OFF_S = (1, 2, 4, 8, 16, 30)  # between attempts to connect again; the last one from then on
_PATIENCE_S = 5  # by which picture and sound may be apart in the stream: more than multiplexers leave between them
_SPARE_S = 2  # of ring beside the window, the patience and a hop
_AHEAD_S = 0.5  # a full ring is written over only as fast as time passes; jitter is less
_LACKING_S = 30  # one of picture and sound has been away for so long: its track may be another one now
_DISCARD_ALL = 48  # FFmpeg's AVDISCARD_ALL
_POLL_S = 0.1
_LOUDEST = 1e6  # times full scale: beyond it is damage, as in files
_RATES_HZ, _MOST_CHANNELS = (4000, 768_000), 64  # as in files


class LiveEvent(NamedTuple):
    """Something that happened to the stream at ``t_s`` of its clock: ``kind`` is "gap", "lag" or "reconnect"."""

    kind: str
    t_s: float
    facts: dict[str, Any]


class LiveWindow(NamedTuple):
    """A hop's window. ``video`` (T, 3, S, S) uint8 and ``audio`` (N,) float32; None where it cannot be covered:
    ``why`` says it."""

    start_s: float
    video: np.ndarray | None
    audio: np.ndarray | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """``timeout_s``: without data for so long a connection is lost. ``max_lag_s``: windows are skipped when computing
    is so far behind. ``for_s``: the stream ends then (None: never). Tracks as in ``Reading``, 0: FFmpeg's choice."""

    hop_s: float = 2.0
    window_s: float = 5.0
    timeout_s: float = 20.0
    max_lag_s: float = 5.0
    for_s: float | None = None
    video_track: int = 0
    audio_track: int = 0


@dataclass
class Account:
    """What became of the windows, and of the connection."""

    computed: int = 0
    skipped: int = 0
    uncoverable: int = 0
    connections: int = 0
    damaged: int = 0  # packets that could not be decoded

    @property
    def windows(self) -> int:
        """All that were accounted for."""
        return self.computed + self.skipped + self.uncoverable


class _Lost(NamedTuple):
    """When a connection was lost, and where the stream was."""

    at: float  # of the wall clock, seconds
    row: int


class LiveSource:
    """Iterate over it once: ``LiveEvent`` and ``LiveWindow`` in the order in which they happen, until the stream ends,
    ``for_s`` is over, or :meth:`stop`. As a context manager it reads from its beginning to its end.

    ``UsageError`` for a hop that is no number of frames. ``AvbenchError`` from the iteration if the stream cannot be
    opened the first time, in one line. ``wall`` and ``pause``: a clock and a sleep, in seconds.
    """

    def __init__(
        self,
        address: Address,
        frontend: FrontEnd,
        options: LiveOptions | None = None,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        check_frontend(frontend)
        self.address, self.frontend, self.options, self._wall = address, frontend, options or LiveOptions(), wall
        self._hop = _hop_rows(self.options.hop_s)
        limit_s = self.options.for_s
        self._limit: int = sys.maxsize if limit_s is None else ticks(limit_s) // TICKS_PER_FRAME  # row
        self._trim = frontend.audio_lead_trim_samples
        self._length = frames(ticks(self.options.window_s))
        self._needed = self._length - (-self._trim // TICKS_PER_FRAME)
        patience = rows_of(_PATIENCE_S)
        rows = self._needed + patience + self._hop + rows_of(_SPARE_S)
        self.ring = Ring(frontend.size, rows, patience)
        self.intake = Intake(self.ring, self._tell, self._room, wall)
        self.account = Account()
        self._events: deque[LiveEvent] = deque(maxlen=1000)  # they are taken at once, unless computing hangs
        self._next = 0  # number of the next window
        self._anchor = (wall(), 0)  # when the reader of the windows last caught up, and the row it was at
        self._stopping = self._over = False
        self._failure: BaseException | None = None
        self._told_stall = False
        self.expected = 0  # windows that the stream was long enough for; known when the iteration is over
        self._thread = threading.Thread(target=self._run, name="avbench-live", daemon=True)

    def __enter__(self) -> LiveSource:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(timeout=1.0)  # it may hang in a read until that times out; it is a daemon

    def stop(self) -> None:
        """End the iteration soon, from any thread or a signal handler."""
        self._stopping = True

    @property
    def t_s(self) -> float:
        """The stream's clock: the time up to which something is known."""
        return min(self.ring.latest, self._limit) / FRAME_RATE_HZ

    # ------------------------------------------------------------------------------------------- giving out windows

    def __iter__(self) -> Iterator[LiveEvent | LiveWindow]:
        while True:
            over = self._over  # asked first: what was written before is then seen
            while self._is_due():
                yield self._events.popleft()
            newest = self._known() - 1
            if self._stopping:
                self.account.skipped += max(newest + 1 - self._next, 0)
                break
            if self._next <= newest:
                yield from self._answer(newest)
            elif over or self.ring.end >= self._limit:
                break
            else:
                self._wait()
        self.expected = newest + 1
        yield from self._events
        if self._failure:
            raise self._failure

    def _known(self) -> int:
        """The number of windows that have ended: what has come, and what will not come any more, is known of them."""
        return max((min(self.ring.end, self._limit) - self._needed) // self._hop + 1, 0)

    @property
    def _next_end(self) -> int:
        """The row at which the next window ends."""
        return self._next * self._hop + self._needed

    def _is_due(self) -> bool:
        """Whether there is an event, and no window before it is to come: times do not go back."""
        return bool(self._events) and self._events[0].t_s * FRAME_RATE_HZ <= self._next_end

    def _answer(self, newest: int) -> Iterator[LiveEvent | LiveWindow]:
        """Settle the next window, and those that are skipped with it."""
        row = self._next * self._hop
        taken = self.ring.take(row, self._length, self._trim)
        lag_s = -self._lead_s(row + self._needed)
        if taken.overrun:
            lost = -(-(self.ring.latest - self.ring.rows - row) // self._hop)
            yield self._skip(min(max(lost, 1), newest - self._next + 1), lag_s)
        elif taken.video is None:
            self.account.uncoverable += 1
            self._move_on()
            yield LiveWindow(row / FRAME_RATE_HZ, None, None, taken.why)
        elif lag_s > self.options.max_lag_s and newest > self._next:
            yield self._skip(newest - self._next, lag_s)
        else:
            self.account.computed += 1
            self._move_on()
            yield LiveWindow(row / FRAME_RATE_HZ, taken.video, taken.audio)

    def _move_on(self, n: int = 1) -> None:
        with self.ring.changed:
            self._next += n
            self.ring.changed.notify_all()

    def _skip(self, n: int, lag_s: float) -> LiveEvent:
        self.account.skipped += n
        self._move_on(n)
        facts = {"lag_s": round(lag_s, 2), "skipped": n, "skipped_in_all": self.account.skipped}
        return LiveEvent("lag", self._next_end / FRAME_RATE_HZ, facts)

    def _wait(self) -> None:
        """Until something happens. Whoever waits is not behind."""
        end = self.ring.end
        with self.ring.changed:
            if self.ring.end == end and not self._is_due() and not self._over:
                self.ring.changed.wait(_POLL_S)
        self._anchor = (self._wall(), end)
        stalled = self.address.ends and self._wall() - self.intake.arrived > self.options.timeout_s
        if stalled and not self._told_stall and self.account.connections:
            at_s, reason = end / FRAME_RATE_HZ, f"nothing has come for {self.options.timeout_s:g} s"
            self._tell("gap", at_s, reason=reason, start_s=at_s, end_s=None)
        self._told_stall = stalled

    def _lead_s(self, row: int) -> float:
        """By how much ``row`` is ahead of a stream that has gone on in its own time since the reader last waited."""
        wall, at = self._anchor
        return (row - at) / FRAME_RATE_HZ - (self._wall() - wall)

    # ------------------------------------------------------------------------------------------- the reading thread

    def _tell(self, kind: str, t_s: float, **facts: Any) -> None:
        with self.ring.changed:
            self._events.append(LiveEvent(kind, t_s, facts))
            self.ring.changed.notify_all()

    def _room(self, row: int) -> None:
        """Wait until there is room for what ends at ``row``, unless the stream does not wait either."""
        while row - self._next * self._hop > self.ring.rows and not self._stopping and self._lead_s(row) > _AHEAD_S:
            with self.ring.changed:
                self.ring.changed.wait(_POLL_S / 2)

    def _run(self) -> None:
        try:
            self._read_on()
        except BaseException as error:  # it is the reader of the windows who must hear of it
            self._failure = error
        finally:
            with self.ring.changed:
                self._over = True
                self.ring.changed.notify_all()

    def _read_on(self) -> None:
        """Connect, read, and connect again, until the stream is over."""
        attempts, lost = 0, _Lost(self._wall(), 0)
        while not self._stopping:
            before = self.intake.pictures
            try:
                ended = self._read_once(attempts, lost)
                reason = "the sender ended the stream"
            except (AvbenchError, OSError, ValueError) as error:  # FFmpeg's errors are of the last two kinds, too
                if not self.account.connections:
                    raise self._first_failure(error) from error
                ended, reason = False, self._why(error)
            if ended or self._stopping:
                self.intake.end()
                return
            if self.address.ends:  # nobody to connect to again
                self.intake.close(reason)
                return
            if self.intake.pictures > before:
                self.intake.close(f"the connection is lost: {reason}")
                attempts, lost = 0, _Lost(self._wall(), self.ring.latest)
            pause_s = BACK_OFF_S[min(attempts, len(BACK_OFF_S) - 1)]
            attempts += 1
            self._tell("reconnect", self.t_s, connected=False, attempt=attempts, reason=reason, next_s=pause_s)
            self._pause(pause_s, lost)

    def _first_failure(self, error: Exception) -> AvbenchError:
        if isinstance(error, UsageError) or (isinstance(error, AvbenchError) and self.address.shown in str(error)):
            return error  # type: ignore[return-value]
        return AvbenchError(f"{self.address.shown}: {self._why(error)}")

    def _why(self, error: Exception) -> str:
        return str(error) if isinstance(error, AvbenchError) else why_not(error, self.options.timeout_s)

    def _pause(self, pause_s: float, lost: _Lost) -> None:
        """Between two attempts: the stream's clock goes on."""
        end = self._wall() + pause_s
        while not self._stopping and self._wall() < end:
            with self.ring.changed:
                self.ring.changed.wait(min(_POLL_S, max(end - self._wall(), 0)))
            self.intake.arrived = self._wall()
            self.ring.pass_to(lost.row + int((self.intake.arrived - lost.at) * FRAME_RATE_HZ))

    def _read_once(self, attempts: int, lost: _Lost) -> bool:
        """One connection, to its end. Whether that is the end of the stream, too."""
        options = self.options
        with opened_live(self.address, options.timeout_s, lambda: self._stopping) as container:
            video = chosen(container, "video", options.video_track)
            audio = chosen(container, "audio", options.audio_track, video)
            other: Any
            for other in container.streams:
                if other.index not in (video.index, audio.index):
                    with contextlib.suppress(AttributeError):  # older PyAV: the packets are passed over
                        other.discard = _DISCARD_ALL  # HLS then fetches no other picture size
            for stream in (video, audio):
                stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
            finite = self.address.ends or container.duration is not None or container.size > 0
            decoded = _Decoded(self.frontend, self.address.shown, self.intake)
            before, connected = self.intake.pictures, False
            for packet in container.demux():
                if packet.stream.index == video.index:
                    self._decode(packet, decoded.picture)
                elif packet.stream.index == audio.index:
                    self._decode(packet, decoded.sound)
                if not connected and self.intake.pictures > before:
                    connected = True
                    self.account.connections += 1
                    if self.account.connections > 1:
                        outage_s = round(self._wall() - lost.at, 2)
                        self._tell("reconnect", self.t_s, connected=True, attempt=attempts, outage_s=outage_s)
                if self._stopping or self.ring.end >= self._limit:
                    return True
                if not self.address.ends and self.intake.lacking_s() > _LACKING_S:
                    raise AvbenchError(f"picture or sound has been missing for {_LACKING_S} s")
        if not connected:
            raise AvbenchError("it ended before a picture could be shown")
        return finite

    def _decode(self, packet: Any, take: Callable[[Any], None]) -> None:
        """Decode a packet; a damaged one leaves a hole."""
        import av

        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            if not isinstance(error, av.error.EOFError):
                self.account.damaged += 1
            return
        for frame in decoded:
            take(frame)


class _Decoded:
    """FFmpeg's frames, as the intake takes them."""

    def __init__(self, frontend: FrontEnd, name: str, intake: Intake) -> None:
        self._frontend, self._name, self._intake = frontend, name, intake
        self._convert = rgb_converter()
        self._samples = Samples()
        self._shape: tuple[int, ...] = ()
        self._fit: Callable[[np.ndarray], np.ndarray] = lambda rgb: rgb

    def picture(self, frame: Any) -> None:
        """A ``VideoFrame``; damaged ones are left out."""
        if not frame.is_corrupt:
            kind = f"{frame.width}x{frame.height}"
            self._intake.picture(frame.pts, frame.time_base, kind, lambda: self._array(frame))

    def _array(self, frame: Any) -> np.ndarray:
        rgb = self._convert(frame, self._name)
        if rgb.shape != self._shape:
            try:
                self._shape, self._fit = rgb.shape, fitting(rgb.shape, self._frontend, self._name)
            except MediaError as error:
                raise AvbenchError(error.reason) from error
        return self._fit(rgb)

    def sound(self, frame: Any) -> None:
        """An ``AudioFrame``; samples beyond all measure are damage, and left out."""
        channels, rate = frame.layout.nb_channels, frame.sample_rate
        if not (1 <= channels <= _MOST_CHANNELS and _RATES_HZ[0] <= rate <= _RATES_HZ[1] and frame.samples):
            return
        mono = self._samples(frame).mean(axis=0).astype(np.float32)
        if np.abs(mono).max() < _LOUDEST:
            self._intake.sound(Sound(frame.pts, Fraction(frame.time_base), rate, channels, mono))


def _hop_rows(hop_s: float) -> int:
    try:
        rows = frames(ticks(hop_s))
    except (ValueError, OverflowError):
        rows = 0
    if rows < 1:
        raise UsageError(f"hop is {hop_s} s; it must be a positive multiple of 0.04 s (one frame)")
    return rows
