"""Read the clocks and edit lists of an mp4 file from its boxes: FFmpeg applies edit lists but does not show them, and a
hidden delay of 64 ms can later be traced only through them. A file that is not an mp4 has none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_MOOV_LIMIT = 256 * 2**20  # bytes; no real index is larger
_EDITS_KEPT = 8  # the first ones of each track
_KINDS = {b"vide": "video", b"soun": "audio"}


def edit_lists(path: Path) -> dict[str, Any]:
    """Edit lists of a file's picture and sound tracks, as plain data; ``{}`` if the file is not a readable mp4.

    ``movie_timescale``: ticks per second of ``segment_duration``; ``fragmented``: whether samples are in fragments;
    ``tracks``: per track ``kind``, ``timescale`` (ticks per second of ``media_time``) and ``edits``, pairs of
    (segment_duration, media_time); media_time -1 is an empty edit (a delay), 1024 on an AAC track its priming.
    """
    try:
        with open(path, "rb") as file:
            moov = _moov(file)
        return _describe(moov) if moov else {}
    except (OSError, struct.error):
        return {}


def _moov(file: BinaryIO) -> bytes:
    """Payload of the top-level moov box; empty if there is none."""
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
        if kind == b"moov":
            file.seek(at + start)
            return file.read(min(size - start, _MOOV_LIMIT))
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


def _describe(moov: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"movie_timescale": 0, "fragmented": False, "tracks": []}
    for kind, data in _boxes(moov):
        if kind == b"mvhd":
            found["movie_timescale"] = _timescale(data)
        elif kind == b"mvex":
            found["fragmented"] = True
        elif kind == b"trak":
            track = _track(data)
            if track["kind"]:
                found["tracks"].append(track)
    return found


def _track(data: bytes) -> dict[str, Any]:
    track: dict[str, Any] = {"kind": "", "timescale": 0, "edits": []}
    for kind, inner in _boxes(data):
        if kind == b"edts":
            for name, elst in _boxes(inner):
                if name == b"elst":
                    track["edits"] = _edits(elst)
        elif kind == b"mdia":
            for name, box in _boxes(inner):
                if name == b"mdhd":
                    track["timescale"] = _timescale(box)
                elif name == b"hdlr" and len(box) >= 12:
                    track["kind"] = _KINDS.get(box[8:12], "")
    return track


def _timescale(data: bytes) -> int:
    """Ticks per second in an mvhd or mdhd box: the field after version, flags and two times of 4 or 8 bytes."""
    return int(struct.unpack_from(">I", data, 20 if data[:1] == b"\1" else 12)[0])


def _edits(data: bytes) -> list[list[int]]:
    """(segment_duration, media_time) pairs of an elst box, ``_EDITS_KEPT`` at most."""
    count = struct.unpack_from(">I", data, 4)[0]
    layout = ">Qq4x" if data[:1] == b"\1" else ">Ii4x"
    step = struct.calcsize(layout)
    there = min(count, (len(data) - 8) // step, _EDITS_KEPT)
    return [list(struct.unpack_from(layout, data, 8 + k * step)) for k in range(there)]
