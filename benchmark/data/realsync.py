"""Import the published lists of fixed offsets (RealSync, VGGSound-Sparse, LRS3) as manifests, with or without media.

RealSync: ``*_{normal,uniform}.{evaluation,test,train}.csv`` (rows ``id,start,channel``, no header) with a ``.json`` of
the same name (id -> ``offset_sec``, ``v_start_i_sec``). An id is ``VIDEO_T0_T1[_broken[_silence|_short]]_START_0``: the
slice T0 ... T1 s of a YouTube video, and the segment's start in it. The published code reports results on
``*.evaluation`` (here: split "test") and selects models on ``*.test`` (split "valid"); segments whose id contains
"broken" are kept in a separate split (``test_broken``). Offsets are rounded to 0.01 s, as the published code does
before it cuts *and* labels; the unrounded number is kept in ``published_offset_s``.

VGGSound-Sparse and LRS3 fixed-offset lists are recognised by their headers and become further tracks.

Lists are read strictly: problems are named by file and line, and nothing is repaired or skipped.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from avbench.data.inspect import SUPPORT_WINDOWS
from avbench.protocol.manifest import SPLITS, Manifest, write_manifest
from avbench.system import debug
from avbench.system.findings import first_of
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, each
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, Tick, ticks
from avbench.types import UNSEEN_SHA256, ClipRecord, MediaError, OffsetGrid, SegmentRecord, UsageError, first_line

MEDIA_SUFFIXES = (".mkv", ".mp4", ".mov", ".webm", ".avi", ".ts")
SUPPORT_HOPS_S = (1, 2, 3, 4)
GRID = OffsetGrid()
MAX_LIST_BYTES = 256 * 2**20
# list -> the split it becomes, and what the published code uses it for
ROLES = {
    "evaluation": ("test", "the list that results are reported on (the published code calls it 'test')"),
    "test": (
        "valid",
        "the list that models are selected on (the published code calls it 'valid'); do not report on it",
    ),
    "train": ("train", "the training list"),
}
_LIST_NAME = re.compile(r"(?:.*_)?(normal|uniform)\.(evaluation|test|train)")
_REALSYNC_ID = re.compile(
    r"(?P<video>[A-Za-z0-9_-]{11})_(?P<t0>\d{1,6})_(?P<t1>\d{1,6})"
    r"(?:_(?P<broken>broken(?:_silence|_short)?))?_(?P<start>\d{1,6})_(?P<decimals>\d{1,6})"
)
_VGGSOUND_ID = re.compile(r"(?P<video>[A-Za-z0-9_-]{11})_(?P<t0>\d{1,9})_(?P<t1>\d{1,9})")
_LRS3_PATH = re.compile(r"(?P<part>[a-z]{3,10})/(?P<video>[A-Za-z0-9_-]{11})/(?P<number>\d{5})")
_NUMBER = re.compile(r"-?\d{1,6}(\.\d{1,20})?")
_VGGSOUND_HEAD = ["dataset_name", "video_id", "vstart_sec", "offset_sec", "is_sync"]
_VGGSOUND_CLEAN_HEAD = ["dataset_name", "video_id", "start_sec", "vid_is_missing", "is_sync", "is_sync_by_cls_obj"]
_LRS3_HEAD = ["path", "offset_sec", "vstart_sec"]

# further columns of the segment table of an imported list
MORE_SEGMENT_COLUMNS = {
    "published_offset_s": ("float64", "the offset as published, seconds, not rounded; positive = the audio is early"),
    "published_start_s": ("float64", "the start as published, seconds; start_s is the frame at or before it"),
    "broken": ("string", "what the published id says is broken: broken, broken_silence, broken_short; empty: nothing"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a published list. ``start_s`` and ``offset_s``: in seconds, as published; ``start``: the frame at or
    before it, in ticks; ``offset`` (ticks) and ``label``: of the offset rounded to 0.01 s; ``length``: of the clip, in
    ticks, according to its name, or 0."""

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
    """``family``: normal, uniform, vggsound or lrs3. ``role``: in words. ``facts``: further counts for the report."""

    name: str
    family: str
    role: str
    offset_law: str
    entries: tuple[Entry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_realsync(self) -> bool:
        """Whether it is one of RealSync's own lists."""
        return self.family in ("normal", "uniform")


# ------------------------------------------------------------------------------------------------------------- reading


def read_lists(folder: Path) -> tuple[list[PublishedList], list[str]]:
    """The lists in a folder, sorted by name, and one line on every other file there.

    ``UsageError``: no such folder, no list in it, or an invalid row (file, line, and how many more).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder with published lists")
    found, others, used = [], [], set()
    clean = None
    for path in sorted(folder.iterdir()):
        if path.suffix != ".csv" or not path.is_file():
            continue
        match = _LIST_NAME.fullmatch(path.stem)
        if match:
            beside = path.with_suffix(".json")
            found.append(_read_realsync(path, beside, match[1], match[2]))
            used |= {path, beside}
            continue
        rows = _csv_rows(path)
        head = next(iter(rows), (0, []))[1]
        if head == _VGGSOUND_HEAD:
            found.append(_read_vggsound(path, rows[1:]))
        elif head == _LRS3_HEAD:
            found.append(_read_lrs3(path, rows[1:]))
        elif head == _VGGSOUND_CLEAN_HEAD:
            clean = path.name, rows[1:]
        else:
            continue
        used.add(path)
    if clean:
        others.append(
            f"{clean[0]}: contains no offsets; its manual judgements of {len(clean[1])} clips go into the report"
        )
        found = [_with_clean_facts(one, clean[1]) if one.family == "vggsound" else one for one in found]
    others += [f"{p.name}: not a published list" for p in sorted(folder.iterdir()) if p not in used]
    others = [line for line in others if not (clean and line.startswith(f"{clean[0]}: not"))]
    if not found:
        raise UsageError(f"there is no published list in {folder} (looked for *_normal.evaluation.csv and the like)")
    return sorted(found, key=lambda one: one.name), others


class _Problems:
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


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(f"{path} has more than {MAX_LIST_BYTES // 2**20} MiB; too large for a published list")
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not empty."""
    reader = csv.reader(io.StringIO(_text(path)), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UsageError(f"{path.name} line {reader.line_num}: not CSV ({error})") from error


def _read_realsync(path: Path, beside: Path, family: str, role: str) -> PublishedList:
    if not beside.is_file():
        raise UsageError(f"{path} needs {beside.name} in the same folder: it contains the offsets")
    offsets = _read_offsets(beside)
    problems, entries, seen = _Problems(path.name), [], dict[str, int]()
    for line, row in _csv_rows(path):
        if len(row) != 3:
            problems.at(line, f"{len(row)} fields instead of id,start,channel")
            continue
        entry = _realsync_entry(row, offsets.get(row[0]), ROLES[role][0])
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
    return PublishedList(f"{family}.{role}", family, ROLES[role][1], law, tuple(entries))


def _read_offsets(path: Path) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} appears twice")
        return dict(pairs)

    try:
        found = json.loads(_text(path), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path.name} is not a JSON object of id -> offset")
    return found


def _realsync_entry(row: list[str], labels: Any, split: str) -> Entry | str:
    """The entry, or what is wrong with it."""
    name, start_text, channel = row
    match = _REALSYNC_ID.fullmatch(name)
    if not match:
        return f"{name!r} is not VIDEO_T0_T1[_broken[_silence|_short]]_START_0"
    t0, t1 = int(match["t0"]), int(match["t1"])
    start_s = _number(start_text)
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
    wrong = _offset_problem(offset)
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
        **_times(start_s, float(offset)),
        channel=channel,
        split=f"{split}_broken" if broken else split,
        broken=broken,
    )


def _read_vggsound(path: Path, rows: list[tuple[int, list[str]]]) -> PublishedList:
    problems, entries, number = _Problems(path.name), [], Counter[str]()
    for line, row in rows:
        match = _VGGSOUND_ID.fullmatch(row[1]) if len(row) == 5 else None
        start_s, offset_s = (_number(row[2]), _number(row[3])) if len(row) == 5 else (None, None)
        if match is None or start_s is None or start_s < 0 or offset_s is None or row[4] not in ("0", "1"):
            problems.at(
                line, f"{','.join(row)[:60]!r} is not dataset,VIDEO_T0_T1,start,offset,0|1 (times of ids in ms)"
            )
            continue
        wrong = _offset_problem(float(offset_s))
        length_s = Fraction(int(match["t1"]) - int(match["t0"]), 1000)
        if wrong or start_s >= length_s:
            problems.at(line, wrong or f"start {row[2]} s is outside the clip of {float(length_s):g} s")
            continue
        base = f"{row[1]}_{row[2].replace('.', '_')}"
        number[base] += 1
        entries.append(
            Entry(
                id=f"{base}_{number[base] - 1}",
                clip_id=row[1],
                video_id=match["video"],
                stem=row[1],
                length=ticks(length_s),
                **_times(start_s, float(offset_s)),
                channel="",
                split="test" if row[4] == "1" else "test_not_in_sync",
            )
        )
    problems.stop()
    twice = sum(n - 1 for n in Counter(",".join(row) for _, row in rows).values())
    role = "fixed offsets; rows with is_sync 0 were judged not in sync at the source: split test_not_in_sync"
    return PublishedList(path.stem, "vggsound", role, "list", tuple(entries), {"rows_said_twice": twice})


def _read_lrs3(path: Path, rows: list[tuple[int, list[str]]]) -> PublishedList:
    problems, entries, number = _Problems(path.name), [], Counter[str]()
    for line, row in rows:
        match = _LRS3_PATH.fullmatch(row[0]) if len(row) == 3 else None
        offset_s, start_s = (_number(row[1]), _number(row[2])) if len(row) == 3 else (None, None)
        if match is None or start_s is None or start_s < 0 or offset_s is None:
            problems.at(line, f"{','.join(row)[:60]!r} is not part/VIDEO/NUMBER,offset,start")
            continue
        wrong = _offset_problem(float(offset_s))
        if wrong:
            problems.at(line, wrong)
            continue
        clip_id = "_".join(match.groups())
        number[clip_id] += 1
        entries.append(
            Entry(
                id=f"{clip_id}_{row[2].replace('.', '_')}_{number[clip_id] - 1}",
                clip_id=clip_id,
                video_id=match["video"],
                stem=row[0],
                length=0,
                **_times(start_s, float(offset_s)),
                channel="",
                split="test",
            )
        )
    problems.stop()
    return PublishedList(path.stem, "lrs3", "fixed offsets", "list", tuple(entries))


def _with_clean_facts(one: PublishedList, rows: list[tuple[int, list[str]]]) -> PublishedList:
    """Add how many of the list's clips were judged by people or reported missing, from the list of judged clips."""
    judged = {
        (row[1], row[2]): row for _, row in rows if len(row) == len(_VGGSOUND_CLEAN_HEAD)
    }  # (video, start in s) of a clip
    mine = {e.clip_id: judged.get((e.video_id, str(int(e.clip_id.split("_")[-2]) // 1000))) for e in one.entries}
    facts = {
        "clips_looked_at": sum(row is not None for row in mine.values()),
        "clips_said_missing": sum(row is not None and row[3] == "1" for row in mine.values()),
    }
    return PublishedList(one.name, one.family, one.role, one.offset_law, one.entries, {**one.facts, **facts})


def _times(start_s: Fraction, offset_s: float) -> dict[str, Any]:
    """The fields of an entry that follow from its start and offset."""
    hundredths = round(round(offset_s, 2) * 100)  # rounded as the published code does before it cuts and labels
    return {
        "start_s": float(start_s),
        "start": math.floor(start_s * FRAME_RATE_HZ) * TICKS_PER_FRAME,
        "offset_s": offset_s,
        "offset": hundredths * (TICKS_PER_S // 100),
        "label": GRID.class_of(offset_s),
    }


def _number(text: str) -> Fraction | None:
    return Fraction(text) if _NUMBER.fullmatch(text) else None


def _offset_problem(offset_s: Any) -> str:
    if type(offset_s) not in (int, float) or not math.isfinite(offset_s):
        return f"offset {offset_s!r} is not a number of seconds"
    limit = GRID.max_offset_s
    return "" if abs(offset_s) <= limit else f"offset {offset_s} s is outside [-{limit:g}, {limit:g}] s"


# ----------------------------------------------------------------------------------------------------------- importing


def import_lists(
    lists: Path,
    media: Path | None,
    out: Path,
    workers: int = 1,
    progress: ItemProgress | None = None,
) -> dict[str, Any]:
    """Read the lists in a folder and write one manifest per list, ``out/NAME/``; returns :func:`report`'s facts.

    ``media``: folder of the clips, ``VIDEO/VIDEO_T0_T1.mkv`` or any suffix of ``MEDIA_SUFFIXES``, also flat in one
    folder; None: there are none, and no clip is pinned. A clip without media stays in the manifest, unseen, and is
    listed. Files are hashed and measured by their packets, not decoded: ``avbench data verify`` decodes them.

    ``UsageError``: an invalid list, no such media folder; ``AvbenchError``: cannot write.
    """
    if media is not None and not media.is_dir():
        raise UsageError(f"{media} is not a folder; use `--media none` if there are no media")
    published, others = read_lists(lists)
    clips = {e.clip_id: e for one in published for e in one.entries}
    found = _find_media(media, {e.stem for e in clips.values()}) if media is not None else {}
    seen, refused = _measure_all(media, found, clips, workers, progress) if media is not None else ({}, {})
    for one in published:
        _write_list(one, media, seen, out / one.name)
    return report(published, seen, refused, others, None if media is None else str(media))


@dataclass(frozen=True, slots=True)
class Measured:
    """A media file: ``path`` relative to the media folder; frames at 25 fps and samples at 16 kHz from its packets."""

    path: str
    sha256: str
    n_frames: int
    n_samples: int


def _find_media(media: Path, stems: set[str]) -> dict[str, list[Path]]:
    """stem -> matching files: those at the stem itself, else those of its name in any folder (unless another stem has
    the same name)."""
    exact, loose = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
    for path in sorted(media.rglob("*")):
        if path.suffix.lower() in MEDIA_SUFFIXES and not path.name.startswith("."):
            exact[path.relative_to(media).with_suffix("").as_posix()].append(path)
            loose[path.stem].append(path)
    names = Counter(stem.rpartition("/")[2] for stem in stems)
    found = {}
    for stem in stems:
        name = stem.rpartition("/")[2]
        files = exact.get(stem) or (loose.get(name) if names[name] == 1 else None)
        if files:
            found[stem] = files
    return found


def _measure_all(
    media: Path,
    found: Mapping[str, list[Path]],
    clips: Mapping[str, Entry],
    workers: int,
    progress: ItemProgress | None,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """clip id -> what was measured, and clip id -> why its file was refused."""
    seen: dict[str, Measured] = {}
    refused: dict[str, str] = {}
    jobs: dict[str, Path] = {}
    home = media.resolve()
    for clip_id, entry in clips.items():
        files = found.get(entry.stem, [])
        if len(files) > 1:
            refused[clip_id] = f"{len(files)} files could be it: {', '.join(map(str, files[:3]))}; leave one there"
        elif files and not files[0].resolve().is_relative_to(home):
            refused[clip_id] = f"{files[0]} leads out of the media folder through a link"
        elif files:
            jobs[clip_id] = files[0]

    few = len(jobs) < 8  # not worth the start of processes
    for (clip_id, path), got in each(_measure_clip, list(jobs.items()), 1 if few else workers):
        if isinstance(got, Lost):
            refused[clip_id] = f"{path}: {got.reason} while reading it"
        elif isinstance(got, str):
            refused[clip_id] = got
        else:
            seen[clip_id] = Measured(path.relative_to(media).as_posix(), *got)
        if progress:
            progress(len(seen), len(jobs), clip_id)
    return seen, refused


def _measure_clip(clip: tuple[str, Path]) -> tuple[str, int, int] | str:
    return measure(clip[1])


def measure(path: Path) -> tuple[str, int, int] | str:
    """(sha256, frames at 25 fps, samples at 16 kHz) from the packets' times, without decoding; or why not."""
    import av

    from avbench.data.media import grid_frames, media_sha256

    ends: dict[str, Fraction] = {}
    starts: dict[str, Fraction] = {}
    try:
        sha256 = media_sha256(path)
        with av.open(str(path)) as container:
            if not container.streams.video or not container.streams.audio:
                return f"the file has no {'sound' if container.streams.video else 'picture'} stream"
            streams = container.streams.video[0], container.streams.audio[0]
            clock_s = streams[0].time_base or Fraction(1, FRAME_RATE_HZ)
            for packet in container.demux(*streams):
                if packet.pts is None or packet.time_base is None:
                    continue
                kind, start = packet.stream.type, packet.pts * packet.time_base
                starts[kind] = min(starts.get(kind, start), start)
                ends[kind] = max(ends.get(kind, start), start + (packet.duration or 0) * packet.time_base)
            for stream in streams:  # the container may cut the padding of the last packet off
                if stream.type == "audio" and stream.duration and stream.start_time is not None and stream.time_base:
                    declared = (stream.start_time + stream.duration) * stream.time_base
                    ends["audio"] = min(declared, ends.get("audio", declared))
    except MediaError as error:
        return error.reason
    except (av.error.FFmpegError, OSError, ValueError) as error:
        debug.show(error)
        return f"{path} is not a readable media file ({first_line(error)})"
    if not {"video", "audio"} <= set(ends):
        return f"{path} contains no packets of {'picture' if 'video' not in ends else 'sound'}"
    origin = starts["video"]
    n_frames = grid_frames(round((ends["video"] - origin) / clock_s), clock_s)  # as the reader counts them
    n_samples = math.floor((ends["audio"] - origin) * SAMPLE_RATE_HZ)
    return (sha256, n_frames, n_samples) if min(n_frames, n_samples) > 0 else f"{path} is empty"


def _write_list(one: PublishedList, media: Path | None, seen: Mapping[str, Measured], folder: Path) -> None:
    clips: dict[str, ClipRecord] = {}
    for entry in one.entries:
        if entry.clip_id in clips:
            continue
        got = seen.get(entry.clip_id)
        clips[entry.clip_id] = ClipRecord(
            id=entry.clip_id,
            video_id=entry.video_id,
            path=got.path if got else f"{entry.stem}{MEDIA_SUFFIXES[0] if one.of_realsync else '.mp4'}",
            sha256=got.sha256 if got else UNSEEN_SHA256,
            n_frames=got.n_frames if got else entry.length // TICKS_PER_FRAME,
            n_samples=got.n_samples if got else entry.length,
            channel=entry.channel,
            split=entry.split.partition("_")[0],
        )
    segments = tuple(
        SegmentRecord(
            id=entry.id,
            clip_id=entry.clip_id,
            video_id=entry.video_id,
            start=entry.start,
            offset=entry.offset,
            offset_class=entry.label,
            channel=entry.channel,
            split=entry.split,
        )
        for entry in one.entries
    )
    n_seen = sum(clip.seen for clip in clips.values())
    manifest = Manifest(
        name=f"realsync-{one.name}" if one.of_realsync else one.name,
        kind="realsync",
        note=f"published list; {one.role}; {n_seen} of {len(clips)} clips seen",
        offset_law=one.offset_law,
        clips=clips,
        segments=segments,
        media_root=(media or folder / "media").resolve(),
        grid=GRID,
    )
    more: dict[str, list[Any]] = {
        "published_offset_s": [e.offset_s for e in one.entries],
        "published_start_s": [e.start_s for e in one.entries],
        "broken": [e.broken for e in one.entries],
    }
    write_manifest(manifest, folder, {k: (*MORE_SEGMENT_COLUMNS[k], values) for k, values in more.items()})


# ----------------------------------------------------------------------------------------------------------- reporting


def report(
    published: Iterable[PublishedList],
    seen: Mapping[str, Measured],
    refused: Mapping[str, str],
    others: list[str],
    media: str | None,
) -> dict[str, Any]:
    """Statistics of the lists, as plain data.

    ``lists[NAME]``: counts, ``class_histogram`` (21 counts), ``class_prior`` (21 shares), ``channels``,
    ``duplicates``, ``support`` (rule -> hop in s -> windows -> segments whose clip holds them), ``media`` (clips seen,
    missing, refused). ``overlaps``: pairs of lists that share videos or segments. ``warnings``: lines for people.
    """
    published = list(published)
    lists = {one.name: _report_list(one, seen, refused, media) for one in published}
    overlaps = [_overlap(a, b) for a, b in itertools.combinations(published, 2)]
    overlaps = [o for o in overlaps if o["videos"]]
    family = {one.name: one.family for one in published}
    warnings = [
        f"{a} and {b} share {o['videos']} videos and {o['segments']} segments"
        f"{' with other offsets' if o['other_offsets'] else ''}: "
        + (
            "never train or select on one and report on the other"
            if family[a] != family[b]
            else "these lists must not overlap; something is wrong with them"
        )
        for o in overlaps
        for a, b in [o["lists"]]
    ]
    return {"lists": lists, "overlaps": overlaps, "warnings": warnings, "other_files": others, "media": media}


def _report_list(
    one: PublishedList, seen: Mapping[str, Measured], refused: Mapping[str, str], media: str | None
) -> dict[str, Any]:
    labels = Counter(e.label for e in one.entries)
    usable = [e for e in one.entries if e.usable]
    usable_labels = Counter(e.label for e in usable)
    clips = sorted({e.clip_id for e in one.entries})
    doubles = len(one.entries) - len({e.key for e in one.entries})
    videos: dict[str, set[str]] = defaultdict(set)
    for e in one.entries:
        videos[e.channel].add(e.video_id)
    return {
        "family": one.family,
        "role": one.role,
        "offset_law": one.offset_law,
        "segments": len(one.entries),
        "usable": len(usable),
        "broken": dict(sorted(Counter(e.broken for e in one.entries if e.broken).items())),
        "splits": dict(sorted(Counter(e.split for e in one.entries).items())),
        "videos": len({e.video_id for e in one.entries}),
        "clips": len(clips),
        "usable_clips": len({e.clip_id for e in usable}),
        "channels": {
            name: {"segments": n, "videos": len(videos[name])}
            for name, n in sorted(Counter(e.channel for e in one.entries).items())
            if name
        },
        "starts_s": {
            "first": min(e.start_s for e in one.entries),
            "last": max(e.start_s for e in one.entries),
            "between_frames": sum(e.between_frames for e in one.entries),
        },
        "class_histogram": [labels[c] for c in range(GRID.n_classes)],
        "class_histogram_usable": [usable_labels[c] for c in range(GRID.n_classes)],
        "class_prior": [labels[c] / len(one.entries) for c in range(GRID.n_classes)],
        "in_sync_share": labels[GRID.class_of(0.0)] / len(one.entries),
        "on_grid": sum(e.offset_s == GRID.offset_of(e.label) for e in one.entries),
        "duplicates": {
            "segments": doubles,  # more than one row for the same clip and start
            "usable": len(usable) - len({e.key for e in usable}),
            "rows": one.facts.get("rows_said_twice", 0),
        },
        "lengths_unknown": sum(not e.length and e.clip_id not in seen for e in one.entries),
        "support": {rule: support(one.entries, seen, rule) for rule in ("streaming", "published")},
        "facts": dict(one.facts),
        "media": {
            "clips_seen": sum(c in seen for c in clips),
            "clips_missing": len(clips) - sum(c in seen or c in refused for c in clips),
            "missing": [] if media is None else [c for c in clips if c not in seen and c not in refused],
            "refused": {c: refused[c] for c in clips if c in refused},
        },
    }


def support(entries: Iterable[Entry], seen: Mapping[str, Measured], rule: str) -> dict[int, dict[int, int]]:
    """hop in s -> windows -> number of segments whose clip (as measured, or according to its name) has room for them.

    ``streaming``: every 5 s window of picture and of shifted sound fits, as in the streaming protocol. ``published``:
    start + 5 s + windows x hop lies in the clip (one hop more than needed, ignoring the offset), the published
    loader's rule; that loader silently replaced segments that do not fit by others.
    """
    rooms = []
    for e in entries:
        got = seen.get(e.clip_id)
        picture, sound = (got.n_frames * TICKS_PER_FRAME, got.n_samples) if got else (e.length, e.length)
        offset = e.offset if rule == "streaming" else 0
        fits = e.start + offset >= 0
        rooms.append(min(picture - e.start, sound - e.start - offset) if fits else 0)
    room = np.array(rooms, np.int64)
    more = 0 if rule == "published" else 1
    return {
        hop: {n: int((room >= (5 + (n - more) * hop) * TICKS_PER_S).sum()) for n in SUPPORT_WINDOWS}
        for hop in SUPPORT_HOPS_S
    }


def _overlap(a: PublishedList, b: PublishedList) -> dict[str, Any]:
    """What two lists share: videos, clips, segments (clip and start), ids, and segments with different offsets."""
    ours, theirs = {e.key: e.offset_s for e in a.entries}, {e.key: e.offset_s for e in b.entries}
    both = ours.keys() & theirs.keys()
    return {
        "lists": [a.name, b.name],
        "videos": len({e.video_id for e in a.entries} & {e.video_id for e in b.entries}),
        "clips": len({e.clip_id for e in a.entries} & {e.clip_id for e in b.entries}),
        "segments": len(both),
        "ids": len({e.id for e in a.entries} & {e.id for e in b.entries}),
        "other_offsets": sum(ours[key] != theirs[key] for key in both),
    }
