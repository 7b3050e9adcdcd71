"""What all published lists have in common: entries, the list that they are in, and strict reading.

Lists are read strictly: problems are named by file and line, and nothing is repaired or skipped.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.protocol.manifest import SPLITS
from avbench.system.findings import first_of
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, Tick
from avbench.types import OffsetGrid, UsageError

MAX_LIST_BYTES = 256 * 2**20
_NUMBER = re.compile(r"-?\d{1,6}(\.\d{1,20})?")
Rows = list[tuple[int, list[str]]]  # (line number, fields)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a published list. ``start_s`` and ``offset_s``: in seconds, as published; ``start``: the frame at or
    before it, in ticks; ``offset`` (ticks) and ``label``: of the offset rounded to 0.01 s; ``length``: of the clip, in
    ticks, according to its name, or 0; ``span_ms``: of the clip in its video, first and last millisecond, or None if
    its name does not say."""

    id: str
    clip_id: str
    video_id: str
    stem: str  # path of the media file without its suffix
    length: Tick
    start_s: float
    start: Tick
    offset_s: float
    offset: Tick
    label: int
    channel: str
    split: str
    broken: str = ""
    span_ms: tuple[int, int] | None = None

    @property
    def usable(self) -> bool:
        """Whether it is in one of the usual splits: not marked as broken or not in sync."""
        return self.split in SPLITS

    @property
    def key(self) -> tuple[str, float]:
        """Clip and start: they identify the segment across lists."""
        return self.clip_id, self.start_s

    @property
    def between_frames(self) -> bool:
        """Whether the published start lies between two frames, so that ``start`` is earlier."""
        return round(self.start_s * TICKS_PER_S) != self.start


@dataclass(frozen=True)
class PublishedList:
    """``file``: where it was read, below the folder of lists. ``family``: normal, uniform, lrs3, vggsound or audioset.
    ``role``: in words. ``facts``: further counts for the report. ``warnings``: lines for people. ``judged``: there is
    a list of people's judgements of its clips."""

    name: str
    file: str
    family: str
    role: str
    offset_law: str
    entries: tuple[Entry, ...]
    grid: OffsetGrid = field(default_factory=OffsetGrid)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    judged: bool = False

    @property
    def of_realsync(self) -> bool:
        """Whether it is one of RealSync's own lists."""
        return self.family in ("normal", "uniform")

    @property
    def splits(self) -> set[str]:
        """train, valid or test: what its entries are for, whole or broken."""
        return {entry.split.partition("_")[0] for entry in self.entries}


class Problems:
    """Collects the problems of a file; the first is reported, the others are counted."""

    def __init__(self, file: str) -> None:
        self.file, self.lines = file, list[str]()

    def at(self, line: int, text: str) -> None:
        """Record a problem."""
        self.lines.append(f"{self.file} line {line}: {text}")

    def stop(self) -> None:
        """``UsageError`` if there was a problem."""
        if self.lines:
            raise UsageError(first_of(self.lines))


def read_text(path: Path) -> str:
    """The content of a list. ``UsageError``: it cannot be read, is not UTF-8, or is too large for a list."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(f"{path} has more than {MAX_LIST_BYTES // 2**20} MiB; too large for a published list")
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


def csv_rows(path: Path) -> Rows:
    """(line number, fields) of every line that is not empty. ``UsageError`` as :func:`read_text`, or if not CSV."""
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UsageError(f"{path.name} line {reader.line_num}: not CSV ({error})") from error


def times(start_s: Fraction, offset_s: float, grid: OffsetGrid) -> dict[str, Any]:
    """The fields of an entry that follow from its start and offset."""
    hundredths = round(round(offset_s, 2) * 100)  # rounded as the published code does before it cuts and labels
    return {
        "start_s": float(start_s),
        "start": math.floor(start_s * FRAME_RATE_HZ) * TICKS_PER_FRAME,
        "offset_s": offset_s,
        "offset": hundredths * (TICKS_PER_S // 100),
        "label": grid.class_of(offset_s),
    }


def number(text: str) -> Fraction | None:
    """A decimal number; None if the text is none."""
    return Fraction(text) if _NUMBER.fullmatch(text) else None


def offset_problem(offset_s: Any, grid: OffsetGrid) -> str:
    """Why something is no offset of these classes; empty if it is one."""
    if type(offset_s) not in (int, float) or not math.isfinite(offset_s):
        return f"offset {offset_s!r} is not a number of seconds"
    limit = grid.max_offset_s
    return "" if abs(offset_s) <= limit else f"offset {offset_s} s is outside [-{limit:g}, {limit:g}] s"


def is_on_grid(offset_s: float, grid: OffsetGrid) -> bool:
    """Whether an offset is exactly that of its class."""
    return offset_s == grid.offset_of(grid.class_of(offset_s))
