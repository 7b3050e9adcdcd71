"""Place the pictures and the sound of an mp4 by its edit lists where FFmpeg does not.

An edit list says which stretches of a track are played, one after the other. FFmpeg (measured with 8.1) follows lists
of one stretch: of pictures if it begins exactly with one, of sound wherever it begins. But it moves the first picture
that begins inside a stretch to the stretch's start: after ``ffmpeg -ss T -c copy`` all pictures come up to one picture
early (39, 65, 99 ms were measured). It begins a second stretch at a packet of the file, plays the file from its start
during an empty stretch in the middle, and shows pictures too late in fragments with negative offsets. Those files are
read with FFmpeg's lists switched off and placed here; all others are left to FFmpeg.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from avbench.data.boxes import Track, track_clock
from avbench.types import MediaError

UNEDITED = {"ignore_editlist": "1"}  # FFmpeg's option: times of the track itself
_SLACK_S = Fraction(1, 2000)  # cuts are rounded to the clocks of the file: a shorter piece of a picture is none
_NORMAL_SPEED = 1 << 16


@dataclass(frozen=True, slots=True)
class EditList:
    """Which stretches of a track are played when. All times are whole numbers of ``base`` seconds."""

    base: Fraction  # as fine as the clocks of the track and of the movie
    per_tick: int  # of ``base`` in a tick of the track
    late: int  # what FFmpeg adds to the times of the track
    stretches: tuple[tuple[int, int | None, int], ...]  # (from, to, played at), forwards; None: to the end

    def pictures(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(from, to, shown at) of each piece that is shown of a picture, in ``base``; from and to on the track's clock.
        ``start`` and ``end``: of the picture in ticks of the track, as FFmpeg reads them. What the rounding of a cut
        leaves of a picture is no piece."""
        low, high = start * self.per_tick - self.late, end * self.per_tick - self.late
        for piece in self._pieces(low, high):
            if (piece[1] - piece[0]) * self.base > _SLACK_S or piece[:2] == (low, high):
                yield piece

    def _pieces(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        first = bisect_right(self.stretches, low, key=lambda stretch: stretch[0]) - 1
        for begin, until, played in self.stretches[max(first, 0) :]:
            if begin >= high:
                return
            piece_low, piece_high = max(low, begin), high if until is None else min(high, until)
            if piece_low < piece_high:
                yield piece_low, piece_high, played + piece_low - begin

    def sound(self, stamp: int, samples: int, rate: int) -> Iterator[tuple[int, int, Fraction]]:
        """(first sample, last sample + 1, when the first is heard in seconds) of each played piece of a decoded frame.
        ``stamp``: its pts; ``rate``: samples a second."""
        start = stamp * self.per_tick - self.late
        for low, high, played in self._pieces(start, start + math.ceil(Fraction(samples, rate) / self.base)):
            first, last = (min(round((at - start) * self.base * rate), samples) for at in (low, high))
            if first < last:
                yield first, last, played * self.base


def edits_to_follow(path: Path, track_id: int, kind: str, clip_id: str) -> EditList | None:
    """What the reader must do itself for the "video" or "audio" track with this id; None: FFmpeg places it rightly.

    ``MediaError``: a list that plays stretches out of order, twice, or at another speed.
    """
    track = track_clock(path, track_id)
    if track is None or not track.timescale or not track.movie_timescale:
        return None
    return None if _is_followed(track, kind) else _edit_list(track, clip_id)


def left_out_s(path: Path, track_id: int) -> Fraction:
    """How much of a track in fragments its edit list leaves out at the start: lengths that such files declare contain
    it. 0 for all others."""
    track = track_clock(path, track_id)
    if track is None or not track.fragmented or not track.timescale:
        return Fraction(0)
    starts = _after_the_delay(track.edits)
    return Fraction(starts[0][1], track.timescale) if starts else Fraction(0)


def there_s(path: Path, track_id: int) -> Fraction | None:
    """How much of a track there is from where its edit list begins to play it; None: unknown. The list may ask for
    more: some programs move its beginning and leave its length as it was."""
    track = track_clock(path, track_id)
    if track is None or track.fragmented or not track.timescale or not track.length:
        return None
    starts = _after_the_delay(track.edits)
    return Fraction(track.length - starts[0][1], track.timescale) if len(starts) == 1 else None


def _is_followed(track: Track, kind: str) -> bool:
    """Whether FFmpeg places this track by its list."""
    if track.fragmented:
        return kind == "audio" or not (track.edits or track.earliest)
    starts = _after_the_delay(track.edits)
    if not starts:
        return True
    if len(starts) > 1 or not starts[0][0]:
        return False
    if kind == "audio":
        return True
    begin, slack = starts[0][1], track.timescale // _SLACK_S.denominator
    return bool(((track.shown >= begin) & (track.shown <= begin + slack)).any())


def _after_the_delay(edits: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The list from the first stretch that is not empty on."""
    for k, edit in enumerate(edits):
        if edit[1] >= 0:
            return edits[k:]
    return []


def _edit_list(track: Track, clip_id: str) -> EditList:
    per_tick = track.movie_timescale // math.gcd(track.movie_timescale, track.timescale)
    base = Fraction(1, track.timescale * per_tick)
    per_movie_tick = track.timescale * per_tick // track.movie_timescale
    stretches: list[tuple[int, int | None, int]] = []
    edits = track.edits or [(0, 0, _NORMAL_SPEED)]
    several = sum(edit[1] >= 0 for edit in edits) > 1
    played = 0
    for k, (length, begin, speed) in enumerate(edits):
        if begin >= 0:
            low, high = begin * per_tick, begin * per_tick + length * per_movie_tick
            if several and speed != _NORMAL_SPEED:
                raise _cannot(track, clip_id, f"plays a part at {speed / _NORMAL_SPEED:g} times its speed")
            if stretches and low < (stretches[-1][1] or 0) - int(_SLACK_S / base):
                raise _cannot(track, clip_id, "plays parts twice or out of order")
            # the length of the last stretch may be left open, and is that of the first fragment in some files
            is_open = k == len(edits) - 1 and (not length or track.fragmented)
            stretches.append((low, None if is_open else high, played))
        played += length * per_movie_tick
    return EditList(base, per_tick, -track.earliest * per_tick, tuple(stretches))


def _cannot(track: Track, clip_id: str, what: str) -> MediaError:
    word = "picture" if track.kind == "video" else "sound"
    return MediaError(clip_id, f"the edit list of the {word} {what}, which is not supported: re-encode the file")
