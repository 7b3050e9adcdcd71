"""Read the clocks and edit lists of an mp4 file from its boxes: FFmpeg applies edit lists but does not show them, and a
hidden delay of 64 ms can later be traced only through them. A file that is not an mp4 has none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_BOX_LIMIT = 256 * 2**20  # bytes; no real index is larger
_PICTURES_LIMIT = 2**22  # of a track: 19 hours at 60 fps
_EDITS_KEPT = 8  # the first ones of each track, in the description
_KINDS = {b"vide": "video", b"soun": "audio"}


@dataclass(slots=True)
class Track:
    """The clock of one track of an mp4."""

    id: int = 0
    kind: str = ""  # "video", "audio" or another's ""
    timescale: int = 0  # ticks per second of media times
    length: int = 0  # of all that the index holds, in media ticks; 0: not known
    movie_timescale: int = 0  # ticks per second of an edit's length
    fragmented: bool = False  # samples are in fragments
    # (length in movie ticks, first media tick or -1: an empty edit, which is a delay, speed in 16.16 fixed point)
    edits: list[tuple[int, int, int]] = field(default_factory=list)
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # media time of each picture in the index
    earliest: int = 0  # the smallest distance from decoding to showing in the first fragment, in media ticks


def edit_lists(path: Path) -> dict[str, Any]:
    """Edit lists of a file's picture and sound tracks, as plain data; ``{}`` if the file is not a readable mp4.

    ``movie_timescale``: ticks per second of ``segment_duration``; ``fragmented``: whether samples are in fragments;
    ``tracks``: per track ``kind``, ``timescale`` (ticks per second of ``media_time``) and ``edits``, pairs of
    (segment_duration, media_time); media_time -1 is an empty edit (a delay), 1024 on an AAC track its priming.
    """
    try:
        with open(path, "rb") as file:
            moov = _payload(file, b"moov")
        found = _movie(moov)
    except (OSError, struct.error):
        return {}
    if not moov:
        return {}
    timescale, fragmented, tracks = found
    described = [
        {"kind": t.kind, "timescale": t.timescale, "edits": [list(edit[:2]) for edit in t.edits[:_EDITS_KEPT]]}
        for t in tracks
        if t.kind
    ]
    return {"movie_timescale": timescale, "fragmented": fragmented, "tracks": described}


def track_clock(path: Path, track_id: int) -> Track | None:
    """The clock of the track with this id, with all its edits and times; None if there is no such readable track."""
    try:
        with open(path, "rb") as file:
            for track in _movie(_payload(file, b"moov"), times_of=track_id)[2]:
                if track.id == track_id:
                    if track.fragmented:
                        track.earliest = _earliest(_payload(file, b"moof"), track_id)
                    return track
    except (OSError, struct.error):
        pass
    return None


def lacks_index(path: Path) -> bool:
    """Whether a file is an mp4 without index (moov box), which comes last in most: it was cut off, or never ended."""
    try:
        with open(path, "rb") as file:
            begins_as_mp4 = file.read(12)[4:8] in (b"ftyp", b"wide", b"mdat")
            return begins_as_mp4 and not _payload(file, b"moov")
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------- boxes


def _payload(file: BinaryIO, wanted: bytes) -> bytes:
    """Payload of the first top-level box of a kind; empty if there is none."""
    file.seek(0, 2)
    length, at = file.tell(), 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, kind = struct.unpack(">I4s", head[:8])
        start = 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack(">Q", head[8:16])[0], 16
        elif size == 0:
            size = length - at
        if size < start:
            return b""
        if kind == wanted:
            file.seek(at + start)
            return file.read(min(size - start, _BOX_LIMIT))
        at += size
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, payload) of each box in ``data``; stops at the first box that does not fit."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = 8
        if size == 1 and at + 16 <= len(data):
            size, start = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < start or at + size > len(data):
            return
        yield kind, data[at + start : at + size]
        at += size


def _movie(moov: bytes, times_of: int | None = None) -> tuple[int, bool, list[Track]]:
    """(movie timescale, whether samples are in fragments, tracks); sample times only of the track ``times_of``."""
    timescale, fragmented = 0, False
    tracks: list[Track] = []
    for kind, data in _boxes(moov):
        if kind == b"mvhd":
            timescale = _timescale(data)
        elif kind == b"mvex":
            fragmented = True
        elif kind == b"trak":
            tracks.append(_track(data, times_of))
    for track in tracks:
        track.movie_timescale, track.fragmented = timescale, fragmented
    return timescale, fragmented, tracks


def _track(data: bytes, times_of: int | None) -> Track:
    track, table = Track(), b""
    for kind, inner in _boxes(data):
        if kind == b"tkhd":
            track.id = int(struct.unpack_from(">I", inner, 20 if inner[:1] == b"\1" else 12)[0])
        elif kind == b"edts":
            for name, elst in _boxes(inner):
                if name == b"elst":
                    track.edits = _edits(elst)
        elif kind == b"mdia":
            for name, box in _boxes(inner):
                if name == b"mdhd":
                    track.timescale, track.length = _timescale(box), _length(box)
                elif name == b"hdlr" and len(box) >= 12:
                    track.kind = _KINDS.get(box[8:12], "")
                elif name == b"minf":
                    table = dict(_boxes(box)).get(b"stbl", b"")
    if track.id == times_of and track.kind == "video":
        track.shown = _shown(dict(_boxes(table)))
    return track


def _timescale(data: bytes) -> int:
    """Ticks per second in an mvhd or mdhd box: the field after version, flags and two times of 4 or 8 bytes."""
    return int(struct.unpack_from(">I", data, 20 if data[:1] == b"\1" else 12)[0])


def _length(data: bytes) -> int:
    """Ticks in an mdhd box: the field after the timescale; all ones: not known."""
    at, layout, unknown = (24, ">Q", 2**64 - 1) if data[:1] == b"\1" else (16, ">I", 2**32 - 1)
    length = int(struct.unpack_from(layout, data, at)[0])
    return 0 if length == unknown else length


def _edits(data: bytes) -> list[tuple[int, int, int]]:
    """(segment_duration, media_time, media_rate) of each entry of an elst box."""
    count = struct.unpack_from(">I", data, 4)[0]
    layout = ">Qqi" if data[:1] == b"\1" else ">Iii"
    step = struct.calcsize(layout)
    there = min(count, (len(data) - 8) // step)
    return [struct.unpack_from(layout, data, 8 + k * step) for k in range(there)]  # type: ignore[misc]


def _shown(table: dict[bytes, bytes]) -> np.ndarray:
    """(samples,) int64: the media time at which each sample of an stbl box is shown, in decoding order."""
    steps = _runs(table.get(b"stts", b""))
    late = _runs(table.get(b"ctts", b""))
    decoded = np.cumsum(steps) - steps
    return decoded + np.pad(late, (0, max(0, len(decoded) - len(late))))[: len(decoded)]


def _runs(data: bytes) -> np.ndarray:
    """The values of an stts or ctts box, (count, value) pairs, one for each sample."""
    if len(data) < 8:
        return np.zeros(0, np.int64)
    pairs = np.frombuffer(data[8 : 8 + len(data[8:]) // 8 * 8], ">i4").reshape(-1, 2)
    pairs = pairs[: struct.unpack_from(">I", data, 4)[0]].astype(np.int64)
    counts = pairs[:, 0].clip(0, _PICTURES_LIMIT)
    counts[np.cumsum(counts) > _PICTURES_LIMIT] = 0
    return np.repeat(pairs[:, 1], counts)


def _earliest(moof: bytes, track_id: int) -> int:
    """The smallest composition offset, at most 0, of a track's samples in a moof box."""
    least = 0
    for kind, traf in _boxes(moof):
        if kind != b"traf":
            continue
        parts = list(_boxes(traf))
        if any(name == b"tfhd" and struct.unpack_from(">I", box, 4)[0] != track_id for name, box in parts):
            continue
        for name, trun in parts:
            if name == b"trun":
                least = min(least, _least_offset(trun))
    return least


def _least_offset(trun: bytes) -> int:
    flags, count = struct.unpack_from(">II", trun, 0)
    if not flags & 0x800:  # no composition offsets
        return 0
    at = 8 + 4 * bool(flags & 0x1) + 4 * bool(flags & 0x4)
    fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]  # length, size, flags, offset: 4 bytes each
    there = max(0, min(count, (len(trun) - at) // (4 * len(fields))))
    if not there:
        return 0
    table = np.frombuffer(trun, ">i4", there * len(fields), at).reshape(there, len(fields))
    return int(table[:, -1].min(initial=0))
