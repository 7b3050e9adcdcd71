"""RealSync's own lists: ``*_{normal,uniform}.{evaluation,test,train}.csv`` and the ``.json`` of the same name.

The rows of the .csv are ``id,start,channel``, without a header; the .json is id -> ``offset_sec``, ``v_start_i_sec``.
An id is ``VIDEO_T0_T1[_broken[_silence|_short]]_START_0``: the slice T0 ... T1 s of a YouTube video, and the segment's
start in it. The published code reports results on ``*.evaluation`` (here: split "test") and selects models on
``*.test`` (split "valid"); segments whose id contains "broken" are kept in a separate split (``test_broken``). Offsets
are rounded to 0.01 s, as the published code does before it cuts *and* labels; the unrounded number is kept in
``published_offset_s``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.data.realsync.entries import (
    Entry,
    Problems,
    PublishedList,
    csv_rows,
    number,
    offset_problem,
    read_text,
    times,
)
from avbench.ticks import TICKS_PER_S
from avbench.types import OffsetGrid, UsageError

# list -> the split it becomes, and what the published code uses it for
ROLES = {
    "evaluation": ("test", "the list that results are reported on (the published code calls it 'test')"),
    "test": (
        "valid",
        "the list that models are selected on (the published code calls it 'valid'); do not report on it",
    ),
    "train": ("train", "the training list"),
}
NAME = re.compile(r"(?:.*_)?(?P<family>normal|uniform)\.(?P<role>evaluation|test|train)")
_ID = re.compile(
    r"(?P<video>[A-Za-z0-9_-]{11})_(?P<t0>\d{1,6})_(?P<t1>\d{1,6})"
    r"(?:_(?P<broken>broken(?:_silence|_short)?))?_(?P<start>\d{1,6})_(?P<decimals>\d{1,6})"
)


def read_own_list(path: Path) -> PublishedList:
    """One list, whose file name matches ``NAME``. ``UsageError``: no .json, or an invalid row."""
    match, beside = NAME.fullmatch(path.stem), path.with_suffix(".json")
    assert match
    family, role = match["family"], match["role"]
    if not beside.is_file():
        raise UsageError(f"{path} needs {beside.name} in the same folder: it contains the offsets")
    offsets = _read_offsets(beside)
    problems, entries, seen = Problems(path.name), [], dict[str, int]()
    for line, row in csv_rows(path):
        if len(row) != 3:
            problems.at(line, f"{len(row)} fields instead of id,start,channel")
            continue
        entry = entry_of(row, offsets.get(row[0]), ROLES[role][0])
        if isinstance(entry, str):
            problems.at(line, entry)
        elif entry.id in seen:
            problems.at(line, f"{entry.id} is already in line {seen[entry.id]}")
        else:
            seen[entry.id] = line
            entries.append(entry)
    problems.stop()
    extra = next((name for name in offsets if name not in seen), None)
    if extra is not None:
        raise UsageError(f"{beside.name} has an offset for {extra!r}, which is not in {path.name}")
    if not entries:
        raise UsageError(f"{path.name} is empty")
    law = "uniform" if family == "uniform" else "list"
    return PublishedList(f"{family}.{role}", path.name, family, ROLES[role][1], law, tuple(entries))


def _read_offsets(path: Path) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} appears twice")
        return dict(pairs)

    try:
        found = json.loads(read_text(path), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path.name} is not a JSON object of id -> offset")
    return found


def entry_of(row: list[str], labels: Any, split: str) -> Entry | str:
    """The entry of a row and of what the .json says of its id, or what is wrong with it."""
    name, start_text, channel = row
    match = _ID.fullmatch(name)
    if not match:
        return f"{name!r} is not VIDEO_T0_T1[_broken[_silence|_short]]_START_0"
    t0, t1 = int(match["t0"]), int(match["t1"])
    start_s = number(start_text)
    if start_s is None or start_s < 0:
        return f"start {start_text!r} is not a number of seconds"
    if start_s != Fraction(f"{match['start']}.{match['decimals']}"):
        return f"start {start_text} does not match the id {name}"
    if t1 <= t0 or start_s >= t1 - t0:
        return f"{name}: {float(start_s):g} s is outside the slice of {t1 - t0} s"
    if labels is None:
        return f"{name} has no offset in the .json"
    if not isinstance(labels, dict) or not {"offset_sec", "v_start_i_sec"} <= set(labels):
        return f"{name}: the .json lacks offset_sec or v_start_i_sec"
    offset, start_again = labels["offset_sec"], labels["v_start_i_sec"]
    if type(start_again) not in (int, float) or start_again != float(start_s):
        return f"{name}: start is {start_text} in the .csv, {start_again!r} in the .json"
    grid = OffsetGrid()
    wrong = offset_problem(offset, grid)
    if wrong:
        return f"{name}: {wrong}"
    clip_id = f"{match['video']}_{t0}_{t1}"
    broken = match["broken"] or ""
    return Entry(
        id=name,
        clip_id=clip_id,
        video_id=match["video"],
        stem=f"{match['video']}/{clip_id}",
        length=(t1 - t0) * TICKS_PER_S,
        **times(start_s, float(offset), grid),
        channel=channel,
        split=f"{split}_broken" if broken else split,
        broken=broken,
        span_ms=(1000 * t0, 1000 * t1),
    )
