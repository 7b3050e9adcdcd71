"""Decode a picture stream and place every picture on the clip's clock, also where the stream is damaged or says little.

Time stamps are followed wherever the file has any. What is damaged, missing or comes too late is never shown: the
picture before stands in, and the stretch is reported as a gap. A stream that is mostly like that is refused.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from avbench.data.edits import EditList
from avbench.data.packets import packets
from avbench.ticks import FRAME_RATE_HZ
from avbench.types import first_line

PICTURE_GAP_S = 1.0  # a longer step between two pictures is a gap, unless the stream itself asks for it
_JUMP_S = 600  # a longer one is another clock
_REORDERED = 64  # packets; no codec shows a picture later than this after it was decoded
_BAD_SHARE = 4  # one bad picture in so many, or more: refused
_UNSTAMPED = 250  # pictures without a time stamp at the start of a stream: there will be none


@dataclass(slots=True)
class PictureFacts:
    """What was found in a picture stream; final when all of it has been read. Seconds of the clip's clock."""

    gaps: list[tuple[Fraction, Fraction]] = field(
        default_factory=list
    )  # (start_s, end_s): the picture before stands in
    holds: list[tuple[Fraction, Fraction]] = field(default_factory=list)  # long pictures that the stream asks for
    shown: int = 0  # pictures
    damaged: int = 0  # pictures that could not be decoded
    late: int = 0  # left out: stamped before the picture before
    same_stamp: int = 0  # left out: stamped as the next picture
    unstamped: int = 0  # placed by the picture rate
    reorder_doubt_s: Fraction = Fraction(
        0
    )  # pictures may be off by this: the file stamps them as decoded, not as shown


class PictureStream:
    """The pictures of an opened stream in the order in which they are shown.

    ``edits``: where they are placed, if the container is opened with ``edits.UNEDITED``. ``as_decoded``: the file
    stamps pictures in the order of decoding only (AVI), and the n-th one is shown at the n-th stamp. ``gap_s``: the
    longest step that is no gap. ``error(reason)`` makes the exception to raise for a stream that cannot be used.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        error: Callable[[str], Exception],
        *,
        edits: EditList | None = None,
        as_decoded: bool = False,
        gap_s: float | Fraction = PICTURE_GAP_S,
    ) -> None:
        self.container, self.stream, self.error, self.edits = container, stream, error, edits
        self.facts = PictureFacts()
        self.origin_s: Fraction | None = None  # on the stream's own clock: set with the first picture
        self.base: Fraction = edits.base if edits else stream.time_base
        self._tick_s: Fraction = stream.time_base
        self._longest = int(Fraction(gap_s) / self._tick_s)
        self._usual = self._declared = round(1 / (self._tick_s * (stream.guessed_rate or FRAME_RATE_HZ)))
        self._asked: deque[int] = deque(maxlen=_REORDERED)  # lengths of the latest packets
        self._chunks = _Chunks() if as_decoded else None
        self._damage: list[int] = []  # stamps of pictures that could not be decoded
        self._trouble = ""
        self._gapless = (
            container.format.name == "avi"
        )  # it has a place for every picture; an empty one repeats the last

    def __iter__(self) -> Generator[tuple[int, int, Any]]:
        """(start on the clip's clock, length, decoded picture), times in ``base``, which is the picture's time base."""
        first = end = 0
        per_tick = self.edits.per_tick if self.edits else 1
        longest = self._longest * per_tick
        for start, stop, picture, missing in self._ordered():
            for low, high, played in self.edits.pictures(start, stop) if self.edits else ((start, stop, start),):
                if self.origin_s is None:
                    first = end = played
                    self.origin_s = played * self.base
                elif played - end > longest:
                    self._gap(end - first, played - first)
                end = played + high - low
                self.facts.shown += 1
                if self.edits:
                    picture.time_base = self.base
                yield played - first, high - low, picture
                stand_in = high if missing is None else missing * per_tick
                if stand_in < high:
                    self._gap(played + max(stand_in - low, 0) - first, end - first)
                elif stop - start > self._longest:
                    self.facts.holds.append(((played - first) * self.base, (end - first) * self.base))
        self._refuse_if_bad()

    def _gap(self, start: int, end: int) -> None:
        """Report a gap, in ``base`` on the clip's clock; one that touches the last one is joined to it."""
        start_s, end_s = start * self.base, end * self.base
        gaps = self.facts.gaps
        if gaps and start_s <= gaps[-1][1]:
            last = gaps.pop()
            start_s, end_s = min(start_s, last[0]), max(end_s, last[1])
        gaps.append((start_s, end_s))

    # ------------------------------------------------------------------------------------------------ in shown order

    def _ordered(self) -> Iterator[tuple[int, int, Any, int | None]]:
        """(start, end, picture, from when on it stands in for others, or None), in stream ticks."""
        held: Any = None
        start = 0
        for now, picture in self._stamped():
            step = now - start
            if held is None:
                pass
            elif step < -self._longest:
                raise self._jump("back", -step, start)
            elif step < 0:
                self._overlap(now, start)
                continue
            elif step == 0:
                self.facts.same_stamp += 1
            else:
                doubtful = self._damage or step > self._longest
                yield start, now, held, self._missing(start, now, held) if doubtful else None
                if step <= self._longest:
                    self._usual = step
            held, start = picture, now
        if held is not None:
            yield start, start + self._last_length(start, held), held, None

    def _missing(self, start: int, end: int, picture: Any) -> int | None:
        """From when on the picture at ``start`` only stands in until ``end``; None: never."""
        damage = [stamp for stamp in self._damage if start < stamp < end]
        self._damage = [stamp for stamp in self._damage if stamp >= end]
        if damage:
            return min(damage)
        if end - start <= self._longest or self._is_asked(end - start):
            return None
        if (end - start) * self._tick_s > _JUMP_S:
            raise self._jump("ahead", end - start, start)
        return start + self._length(picture)

    def _overlap(self, stamp: int, start: int) -> None:
        """A picture is stamped before the one at ``start``: it is left out. In joined recordings that overlap, what is
        shown is then not what is heard."""
        self.facts.late += 1
        if start - stamp > 2 * self._usual and self.origin_s is not None and not self.edits:
            first = int(self.origin_s / self.base)
            self._gap(max(stamp - first, 0), start - first)

    def _is_asked(self, length: int) -> bool:
        """Whether the stream itself says that a picture is shown so long. (With reordered pictures, the length stands
        at another picture, which was decoded at about that time.)"""
        return self._gapless or max(self._asked, default=0) >= 0.9 * length

    def _length(self, picture: Any) -> int:
        """The picture's own length; a missing or absurd one (mpegts) is replaced by the last step, or by the rate."""
        length = picture.duration or 0
        return length if 0 < length <= 2 * max(self._usual, self._declared) else self._usual

    def _last_length(self, start: int, picture: Any) -> int:
        """How long the last picture stands: longer than usual if the container's end and a packet agree on it."""
        length = self._length(picture)
        if self.stream.duration is None or self.stream.start_time is None:
            return length
        declared = self.stream.start_time + self.stream.duration - start
        return declared if declared > 2 * max(length, self._usual) and self._is_asked(declared) else length

    def _jump(self, way: str, ticks: int, at: int) -> Exception:
        seconds = float(ticks * self._tick_s)
        return self.error(
            f"the clock of the picture jumps {way} by {seconds:.2f} s at {float(self._since_start(at)):.2f} s, as in "
            "recordings that were joined without new time stamps: cut it there, or re-encode it"
        )

    def _since_start(self, stamp: int) -> Fraction:
        return stamp * self._tick_s - (self.origin_s or 0)

    # ----------------------------------------------------------------------------------------------------- decoding

    def _stamped(self) -> Iterator[tuple[int, Any]]:
        """(time stamp, decoded picture) of every undamaged picture, in the order in which the decoder shows them."""
        last: int | None = None
        for picture in self._decoded():
            stamp = self._chunks.next_stamp() if self._chunks else picture.pts
            if stamp is None:
                self.facts.unstamped += 1
                if last is None:
                    if self.facts.unstamped > _UNSTAMPED:
                        break
                    continue
                stamp = last + self._usual
            last = stamp
            if picture.is_corrupt:
                self._damaged(stamp, "damaged data")
            else:
                yield stamp, picture
        if last is None and self.facts.unstamped:
            raise self.error("the picture has no time stamps (remux the file to mp4)")

    def _decoded(self) -> Iterator[Any]:
        import av

        asked = 0
        for packet in packets(self.container, self.stream):
            if not packet.size and packet.pts is not None:  # Theora: the picture before is shown once more
                asked += packet.duration or self._declared
                self._asked.append(asked)
                continue
            asked = packet.duration or 0
            self._asked.append(asked)
            if self._chunks and packet.size:
                self._chunks.feed(packet.dts)
            try:
                pictures = packet.decode()
            except av.FFmpegError as failure:
                pictures = []
                stamp = self._chunks.lost() if self._chunks else packet.pts
                self._damaged(stamp, str(failure.strerror or first_line(failure)))
            yield from pictures
            if self._chunks and packet.size:
                self._chunks.settle()
                self.facts.reorder_doubt_s = self._chunks.delay * self._usual * self._tick_s

    def _damaged(self, stamp: int | None, reason: str) -> None:
        self.facts.damaged += 1
        self._trouble = self._trouble or reason
        if stamp is not None:
            self._damage.append(stamp)

    def _refuse_if_bad(self) -> None:
        facts = self.facts
        bad = facts.damaged + facts.late
        if not facts.shown and self._trouble:
            raise self.error(f"no picture can be decoded ({self._trouble})")
        if not facts.shown:
            raise self.error("the picture stream is empty" + (" by its edit list" if self.edits else ""))
        if bad * _BAD_SHARE >= bad + facts.shown:
            raise self.error(
                f"{bad} of {bad + facts.shown} pictures are damaged or out of order"
                + (f" ({self._trouble})" if self._trouble else "")
            )


class _Chunks:
    """Time stamps for the pictures of a file that stamps them as decoded: the n-th one shown gets the n-th stamp.

    A decoder that reorders pictures shows the first one ``delay`` packets late, and from then on one a packet.
    """

    def __init__(self) -> None:
        self.delay = 0
        self._waiting: list[int] = []
        self._going = False

    def feed(self, stamp: int | None) -> None:
        """A packet goes into the decoder."""
        if stamp is not None:
            heapq.heappush(self._waiting, stamp)

    def next_stamp(self) -> int | None:
        """Of the picture that came out of it."""
        if not self._going:
            self._going, self.delay = True, max(len(self._waiting) - 1, 0)
        return heapq.heappop(self._waiting) if self._waiting else None

    def lost(self) -> int | None:
        """The stamp of a picture that cannot be decoded."""
        return heapq.heappop(self._waiting) if len(self._waiting) > self.delay else None

    def settle(self) -> None:
        """A packet that brought no picture (a repeat, the second field) takes its stamp with it."""
        while self._going and len(self._waiting) > self.delay:
            heapq.heappop(self._waiting)
