"""The fixed offsets of SparseSync and Synchformer: lists of LRS3, VGGSound and AudioSet, and of VGGSound-Sparse.

The first three are ``fixed_offsets_DATA/SPLIT_sizeN_cropL_min-R_maxR.csv`` with the header
``path,offset_sec,vstart_sec``. The name of the file says what it is: N offset classes between -R and R s, for windows
of L s; without a size there are 21 classes. Paths: ``PART/VIDEO/NUMBER`` (LRS3), ``VIDEO_T0_T1`` (VGGSound, in ms) and
``eval|balanced|unbalanced/VIDEO_T0_T1`` (AudioSet: the published splits test, valid and train).

VGGSound-Sparse has ``dataset_name,video_id,vstart_sec,offset_sec,is_sync``, and a list of clips that people judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from avbench.data.realsync.entries import (
    Entry,
    Problems,
    PublishedList,
    Rows,
    is_on_grid,
    number,
    offset_problem,
    times,
)
from avbench.protocol.manifest import SPLITS
from avbench.ticks import TICKS_PER_S
from avbench.types import OffsetGrid, UsageError

PATHS_HEAD = ["path", "offset_sec", "vstart_sec"]
SPARSE_HEAD = ["dataset_name", "video_id", "vstart_sec", "offset_sec", "is_sync"]
JUDGED_HEAD = ["dataset_name", "video_id", "start_sec", "vid_is_missing", "is_sync", "is_sync_by_cls_obj"]

FOLDER = "fixed_offsets_"  # how the published folders' names begin
REACH_S = {3: 1.0, 21: 2.0, 41: 2.0}  # number of classes -> the largest offset, of the published lists
WINDOW_S = 5
_VIDEO = r"(?P<video>[A-Za-z0-9_-]{11})"
_SPAN = rf"{_VIDEO}_(?P<t0>\d{{1,9}})_(?P<t1>\d{{1,9}})"
_PARTS = {"eval": "test", "balanced": "valid", "unbalanced": "train"}  # of AudioSet -> split
# family -> (name, paths, paths in words)
_FAMILIES = {
    "lrs3": ("LRS3", re.compile(rf"(?P<part>[a-z]{{3,10}})/{_VIDEO}/(?P<number>\d{{5}})"), "part/VIDEO/NUMBER"),
    "vggsound": ("VGGSound", re.compile(_SPAN), "VIDEO_T0_T1 in ms"),
    "audioset": (
        "AudioSet",
        re.compile(rf"(?:(?P<part>{'|'.join(_PARTS)})/)?{_SPAN}"),
        f"{'|'.join(_PARTS)}/VIDEO_T0_T1 in ms",
    ),
}
_ROLES = {
    "test": "the list that results are reported on",
    "valid": "the list that models are selected on; do not report on it",
    "train": "the training list",
}
_SPARSE_ID = re.compile(_SPAN)


def read_paths(file: str, folder: str, rows: Rows) -> PublishedList:
    """A list with the header ``PATHS_HEAD``. ``file``: where it is, as messages say it; its name, and that of the
    ``folder`` it is in, say the data, the split and the classes. ``rows``: without the header.

    ``UsageError``: an invalid row, no rows, or a name that contradicts itself or the rows.
    """
    stem = file.rpartition("/")[2].removesuffix(".csv")
    words = [*(_words(folder) if folder.startswith(FOLDER) else []), *_words(stem)]
    grid, named_split = _grid(file, words), next((w for w in words if w in SPLITS), "")
    family = _family(file, words, rows)
    problems, entries, twice = Problems(file), [], Counter[str]()
    for line, row in rows:
        entry = _path_entry(row, family, grid, named_split)
        if isinstance(entry, str):
            problems.at(line, entry)
            continue
        if _said(words, "size") and not is_on_grid(entry.offset_s, grid):
            problems.at(line, f"offset {row[1]} s is none of {_classes(grid)}, which the file's name says")
            continue
        entries.append(replace(entry, id=f"{entry.id}_{twice[entry.id]}"))
        twice[entry.id] += 1
    problems.stop()
    title, window_s = _FAMILIES[family][0], _said(words, "crop") or str(WINDOW_S)
    split = next(iter({e.split for e in entries})) if len({e.split for e in entries}) == 1 else ""
    said = [f"fixed offsets of {title}", _classes(grid), _ROLES.get(split, "")]
    if window_s != str(WINDOW_S):
        said.append(f"drawn for windows of {window_s} s (those of avbench have {WINDOW_S} s)")
    return PublishedList(
        name=stem if family in _words(stem) else f"{family}_{stem}",
        file=file,
        family=family,
        role="; ".join(text for text in said if text),
        offset_law="list",
        entries=tuple(entries),
        grid=grid,
        warnings=_between(file, entries, grid),
    )


def _path_entry(row: list[str], family: str, grid: OffsetGrid, named_split: str) -> Entry | str:
    """The entry, its id not yet numbered, or what is wrong with the row."""
    _, form, in_words = _FAMILIES[family]
    match = form.fullmatch(row[0]) if len(row) == 3 else None
    offset_s, start_s = (number(row[1]), number(row[2])) if len(row) == 3 else (None, None)
    if match is None or start_s is None or start_s < 0 or offset_s is None:
        return f"{','.join(row)[:60]!r} is not {in_words},offset,start"
    part = match.groupdict().get("part") or ""
    split = named_split or (_PARTS.get(part, "test") if family == "audioset" else "test")
    if family == "audioset" and part and _PARTS[part] != split:
        return f"{part}/ is the split {_PARTS[part]} of AudioSet, but the file's name says {split}"
    span = _span_ms(match)
    wrong = offset_problem(float(offset_s), grid) or _outside(span, start_s)
    if wrong:
        return wrong
    clip_id = row[0].replace("/", "_")
    return Entry(
        id=f"{clip_id}_{row[2].replace('.', '_')}",
        clip_id=clip_id,
        video_id=match["video"],
        stem=row[0],
        length=_length(span),
        **times(start_s, float(offset_s), grid),
        channel="",
        split=split,
        span_ms=span,
    )


def _span_ms(match: re.Match[str]) -> tuple[int, int] | None:
    found = match.groupdict()
    return (int(found["t0"]), int(found["t1"])) if "t0" in found else None


def _length(span_ms: tuple[int, int] | None) -> int:
    return (span_ms[1] - span_ms[0]) * TICKS_PER_S // 1000 if span_ms else 0


def _outside(span_ms: tuple[int, int] | None, start_s: Fraction) -> str:
    if span_ms is None or 0 <= start_s < Fraction(span_ms[1] - span_ms[0], 1000):
        return ""
    return f"start {float(start_s):g} s is outside the clip of {(span_ms[1] - span_ms[0]) / 1000:g} s"


# ------------------------------------------------------------------------------------------- what the file's name says


def _words(name: str) -> list[str]:
    """What ``_`` separates in a name, in lower case."""
    return name.lower().split("_")


def _said(words: list[str], what: str) -> str:
    """The number after ``what`` in the name (``size21`` -> "21"); empty if there is none."""
    found = (re.fullmatch(rf"{what}(-?\d+(?:\.\d+)?)", word) for word in words)
    return next((match[1] for match in found if match), "")


def _grid(file: str, words: list[str]) -> OffsetGrid:
    """The classes of ``sizeN[_min-R_maxR]``; the usual 21 if the name does not say. ``UsageError``: impossible ones."""
    size, low, high = (_said(words, what) for what in ("size", "min", "max"))
    if not size:
        return OffsetGrid()
    n = int(size) if size.isdecimal() else 0
    if not 3 <= n <= 1000 or n % 2 == 0:
        raise UsageError(f"{file}: its name says size{size}; the number of classes must be odd, 3 ... 999")
    if bool(low) != bool(high) or (high and not -float(low) == float(high) > 0):
        raise UsageError(f"{file}: its name must say both ends of the offsets, min-R and maxR with one R, or neither")
    reach_s = float(high) if high else REACH_S.get(n)
    if reach_s is None:
        raise UsageError(f"{file}: its name says size{n} but not how large the offsets are: add _min-R_maxR (in s)")
    return OffsetGrid(n, reach_s)


def _classes(grid: OffsetGrid) -> str:
    step_s = 2 * grid.max_offset_s / (grid.n_classes - 1)
    return f"{grid.n_classes} classes {step_s:g} s apart"


def _family(file: str, words: list[str], rows: Rows) -> str:
    """What the name says, else what the first row is. ``UsageError``: no rows, or the first is of no family."""
    if not rows:
        raise UsageError(f"{file} has no rows below its header")
    line, (path, *_) = rows[0]
    fits = (family for family, (_, form, _) in _FAMILIES.items() if form.fullmatch(path))
    found = next((family for family in _FAMILIES if family in words), next(fits, ""))
    if not found:
        forms = " or ".join(f"{in_words} ({title})" for title, _, in_words in _FAMILIES.values())
        raise UsageError(f"{file} line {line}: {path[:60]!r} is not {forms}")
    return found


def _between(file: str, entries: list[Entry], grid: OffsetGrid) -> tuple[str, ...]:
    n = sum(not is_on_grid(entry.offset_s, grid) for entry in entries)
    if not n:
        return ()
    return (
        f"{file}: {n} of {len(entries)} offsets lie between {_classes(grid)} and get the nearest; a list of 3 or 41 "
        "classes must say size3 or size41 in its name",
    )


# ------------------------------------------------------------------------------------------------------ VGGSound-Sparse


def read_sparse(file: str, rows: Rows) -> PublishedList:
    """A list with the header ``SPARSE_HEAD``; ``rows``: without it. ``UsageError``: an invalid row, or none."""
    problems, entries, twice, grid = Problems(file), [], Counter[str](), OffsetGrid()
    for line, row in rows:
        match = _SPARSE_ID.fullmatch(row[1]) if len(row) == 5 else None
        start_s, offset_s = (number(row[2]), number(row[3])) if len(row) == 5 else (None, None)
        if match is None or start_s is None or start_s < 0 or offset_s is None or row[4] not in ("0", "1"):
            problems.at(
                line, f"{','.join(row)[:60]!r} is not dataset,VIDEO_T0_T1,start,offset,0|1 (times of ids in ms)"
            )
            continue
        span = _span_ms(match)
        wrong = offset_problem(float(offset_s), grid) or _outside(span, start_s)
        if wrong:
            problems.at(line, wrong)
            continue
        base = f"{row[1]}_{row[2].replace('.', '_')}"
        entries.append(
            Entry(
                id=f"{base}_{twice[base]}",
                clip_id=row[1],
                video_id=match["video"],
                stem=row[1],
                length=_length(span),
                **times(start_s, float(offset_s), grid),
                channel="",
                split="test" if row[4] == "1" else "test_not_in_sync",
                span_ms=span,
            )
        )
        twice[base] += 1
    problems.stop()
    if not entries:
        raise UsageError(f"{file} has no rows below its header")
    rows_said_twice = sum(n - 1 for n in Counter(",".join(row) for _, row in rows).values())
    return PublishedList(
        name=file.rpartition("/")[2].removesuffix(".csv"),
        file=file,
        family="vggsound",
        role="fixed offsets; rows with is_sync 0 were judged not in sync at the source: split test_not_in_sync",
        offset_law="list",
        entries=tuple(entries),
        facts={"rows_said_twice": rows_said_twice},
        judged=True,
    )


def with_judgements(one: PublishedList, rows: Rows) -> PublishedList:
    """Add how many of the list's clips were judged by people or reported missing, from the list of judged clips; any
    list but VGGSound-Sparse stays as it is."""
    if not one.judged:
        return one
    judged = {(row[1], row[2]): row for _, row in rows if len(row) == len(JUDGED_HEAD)}  # (video, start in s) of a clip
    starts_ms: Mapping[str, tuple[str, Any]] = {e.clip_id: (e.video_id, e.span_ms) for e in one.entries}
    mine = [judged.get((video, str(span[0] // 1000))) for video, span in starts_ms.values()]
    facts = {
        "clips_looked_at": sum(row is not None for row in mine),
        "clips_said_missing": sum(row is not None and row[3] == "1" for row in mine),
    }
    return replace(one, facts={**one.facts, **facts})
