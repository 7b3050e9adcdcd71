"""Corrections of labels: a CSV file in which a person says what the annotators got wrong.

Header ``segment_id,category,events``; events are separated by ``;``. An empty cell leaves what was found; ``none``
empties it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from avbench.data.annotate import Label
from avbench.protocol.manifest import Manifest
from avbench.system.strict import read_bytes
from avbench.types import CATEGORIES, SegmentRecord, UsageError

COLUMNS = ("segment_id", "category", "events")
NOTHING = "none"
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person says of a segment; None: as it was found."""

    category: str | None
    events: tuple[str, ...] | None


def corrected(manifest: Manifest, labels: Mapping[str, Label], corrections: Mapping[str, Correction]) -> Manifest:
    """The manifest with the labels found (by segment id) and, over these, the corrections."""

    def told(segment: SegmentRecord) -> SegmentRecord:
        if found := labels.get(segment.id):
            segment = replace(segment, category=found.category, events=found.events)
        if (by_hand := corrections.get(segment.id)) and by_hand.category is not None:
            segment = replace(segment, category=by_hand.category)
        if by_hand and by_hand.events is not None:
            segment = replace(segment, events=by_hand.events)
        return segment

    return replace(manifest, segments=tuple(map(told, manifest.segments)))


def read_corrections(path: Path, segment_ids: Iterable[str]) -> dict[str, Correction]:
    """Segment id -> its correction. ``UsageError`` with file and row: an unknown segment or category, a segment named
    twice, a row with too few or too many cells, another header, and a file that is not UTF-8 CSV."""
    known, found = set(segment_ids), dict[str, Correction]()
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(rows, [])
        if tuple(header) != COLUMNS:
            raise UsageError(f"{path} row 1: the header must be {','.join(COLUMNS)}")
        for n, row in enumerate(rows, 2):
            if row:  # an empty line at the end
                name, correction = _correction(row, f"{path} row {n}")
                if name not in known:
                    raise UsageError(f"{path} row {n}: there is no segment {name!r} in the data")
                if name in found:
                    raise UsageError(f"{path} row {n}: segment {name!r} is corrected twice")
                found[name] = correction
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    return found


def _correction(row: list[str], where: str) -> tuple[str, Correction]:
    if len(row) != len(COLUMNS):
        raise UsageError(f"{where}: it has {len(row)} cells, there must be {len(COLUMNS)}: {','.join(COLUMNS)}")
    name, category, events = (cell.strip() for cell in row)
    if category not in ("", NOTHING, *CATEGORIES):
        choices = ", ".join((*CATEGORIES, NOTHING))
        raise UsageError(f"{where}: {category!r} is no category; choose {choices}, or leave it empty")
    listed = tuple(sorted({event.strip() for event in events.split(";")} - {"", NOTHING}))
    return name, Correction(
        None if not category else "" if category == NOTHING else category, listed if events else None
    )
