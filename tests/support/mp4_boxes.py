"""Change an mp4 whose moov box comes last (no faststart): other edit lists, another display matrix."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

EDIT_LISTS = {0: ">Iihh", 1: ">Qqhh"}  # length, media time, speed


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, payload) of each box."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + size]
        at += size


def box(kind: bytes, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def set_edits(path: Path, kind: str, edits: Sequence[tuple[int, int]] | None, version: int = 1, speed: int = 1) -> None:
    """Give the track of ``kind`` ("video", "audio") an edit list of (length in movie ticks, media time); None: none."""

    def changed(track: bytes) -> bytes:
        if _handler(track) != {"video": b"vide", "audio": b"soun"}[kind]:
            return track
        parts = []
        for name, payload in boxes(track):
            if name == b"mdia" and edits is not None:
                entries = [struct.pack(EDIT_LISTS[version], *edit, speed, 0) for edit in edits]
                head = bytes([version, 0, 0, 0]) + struct.pack(">I", len(entries))
                parts.append(box(b"edts", box(b"elst", head, *entries)))
            if name != b"edts":
                parts.append(box(name, payload))
        return b"".join(parts)

    _change_tracks(path, changed)


def set_matrix(path: Path, *matrix: float) -> None:
    """Give the picture this display matrix: a, b, c, d (x' = ax + cy, y' = bx + dy)."""
    a, b, c, d = (round(65536 * x) for x in matrix)

    def changed(track: bytes) -> bytes:
        if _handler(track) != b"vide":
            return track
        parts = []
        for name, payload in boxes(track):
            if name == b"tkhd":
                at = len(payload) - 44
                payload = payload[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + payload[at + 36 :]
            parts.append(box(name, payload))
        return b"".join(parts)

    _change_tracks(path, changed)


def _handler(track: bytes) -> bytes:
    return dict(boxes(dict(boxes(track))[b"mdia"]))[b"hdlr"][8:12]


def _change_tracks(path: Path, change: Callable[[bytes], bytes]) -> None:
    *before, (last, moov) = boxes(path.read_bytes())
    assert last == b"moov", "offsets of samples would have to change"
    tracks = [box(kind, change(data) if kind == b"trak" else data) for kind, data in boxes(moov)]
    path.write_bytes(b"".join(box(kind, data) for kind, data in before) + box(b"moov", *tracks))
