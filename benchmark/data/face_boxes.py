"""Faces that are known: boxes from a file in the place of a detector's (``--boxes FILE``).

A CSV file with a header, or a JSON list of objects, of ``file`` (a media file's name) or ``clip`` (its name without the
ending), ``frame`` (counted from 0 at 25 per second) or ``time_s``, and ``x,y,w,h`` in pixels of the upright picture,
from its upper left corner. One face per file; between its boxes it is interpolated, over more than 25 frames it counts
as gone. Other columns are left alone.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avbench.data.faces import FaceTrack
from avbench.system.strict import parse_json, read_bytes
from avbench.ticks import FRAME_RATE_HZ
from avbench.types import UsageError, printable

LONGEST_GAP = 25  # frames from one box to the next
SIDES = ("x", "y", "w", "h")
_MOST_BYTES = 256 * 2**20
_MOST_FRAMES = 10**8  # 46 days


@dataclass(frozen=True, slots=True)
class FaceBoxes:
    """Known faces. ``source``: the name of the file they are from; ``tracks``: a media file's name, with or without its
    ending, -> its face, in one track or, where it is gone for a while, several."""

    source: str
    tracks: Mapping[str, tuple[FaceTrack, ...]]

    def of(self, path: Path) -> tuple[FaceTrack, ...]:
        """The tracks of a media file; () if none are known."""
        return self.tracks.get(path.name) or self.tracks.get(path.stem) or ()


def read_face_boxes(path: Path) -> FaceBoxes:
    """The boxes in a ``.csv`` or ``.json`` file, as this module's head says. ``UsageError`` (one line, with the row):
    a missing column, what is no number, a box without an area, a frame with two boxes, and a file that is neither."""
    path = Path(path)
    shown = printable(str(path))
    boxes: dict[str, dict[int, list[float]]] = {}
    for where, row in _rows(path, shown):
        name, frame, box = _box(row, where)
        of_file = boxes.setdefault(name, {})
        if frame in of_file:
            raise UsageError(f"{where}: frame {frame} of {printable(name)} has a box already")
        of_file[frame] = box
    if not boxes:
        raise UsageError(f"{shown} has no boxes")
    return FaceBoxes(printable(path.name), {name: tuple(_tracks(of_file)) for name, of_file in boxes.items()})


def _rows(path: Path, shown: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row and where it is, in words."""
    data = read_bytes(path, _MOST_BYTES)
    if path.suffix.lower() == ".json":
        document = parse_json(data, shown)
        if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
            raise UsageError(f"{shown} must be a JSON list of objects")
        yield from ((f"{shown} entry {n}", row) for n, row in enumerate(document, 1))
        return
    try:
        table = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for row in table:
            yield f"{shown} line {table.line_num}", {key: cell for key, cell in row.items() if cell not in (None, "")}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{shown} is neither JSON nor a CSV file in UTF-8 ({error})") from error


def _box(row: Mapping[str, Any], where: str) -> tuple[str, int, list[float]]:
    """(file, frame, [left, top, right, bottom]) of a row."""
    name = row.get("file", row.get("clip"))
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: it names no file or clip; the columns are file, frame (or time_s), x, y, w, h")
    if "frame" in row:
        at = _number(row, "frame", where)
        if at != int(at):
            raise UsageError(f"{where}: frame is {at:g}, it must be a whole number")
    else:
        at = math.floor(_number(row, "time_s", where) * FRAME_RATE_HZ + 1e-6)  # the picture on show then
    if not 0 <= at < _MOST_FRAMES:
        raise UsageError(f"{where}: frame {at:g} is before the first or beyond all")
    x, y, width, height = (_number(row, side, where) for side in SIDES)
    if width <= 0 or height <= 0:
        raise UsageError(f"{where}: the box is {width:g} x {height:g} pixels, it must have an area")
    return Path(name).name, int(at), [x, y, x + width, y + height]


def _number(row: Mapping[str, Any], column: str, where: str) -> float:
    if column not in row:
        raise UsageError(f"{where}: there is no {column}; the columns are file, frame (or time_s), x, y, w, h")
    try:
        value = float(row[column])
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not abs(value) < 1e9:
        raise UsageError(f"{where}: {column} is {printable(str(row[column]))[:40]!r}, it must be a number")
    return value


def _tracks(boxes: Mapping[int, list[float]]) -> Iterator[FaceTrack]:
    frames = np.array(sorted(boxes))
    for part in np.split(frames, np.flatnonzero(np.diff(frames) > LONGEST_GAP) + 1):
        every = np.arange(part[0], part[-1] + 1)
        sides = np.array([boxes[int(k)] for k in part], np.float64).T
        yield FaceTrack(int(part[0]), np.stack([np.interp(every, part, side) for side in sides], axis=1))
