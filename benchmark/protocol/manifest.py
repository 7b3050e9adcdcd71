"""The manifest: what is evaluated, pinned. A folder with three small files; the media are in it or elsewhere.

``manifest.json``: schema_version (2 only where a table has a column of ``MORE_COLUMNS``), name, kind
("synthetic", "files" or "realsync"), note, offset_law, grid, spec_sha256, media_root, the canonical sha256 of the
content and the sha256 of the two table files.
``clips.parquet`` and ``segments.parquet``: one row per clip and per segment, the columns of ``CLIP_COLUMNS`` and
``SEGMENT_COLUMNS``. Reading is strict: problems are named by file, row and column, and nothing is repaired.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.protocol.laws import extremes, law_of, law_text
from avbench.system.findings import first_of
from avbench.system.parquet import read_table
from avbench.system.paths import has_foreign_backslash, path_of, path_text
from avbench.system.spelling import nearest
from avbench.ticks import TICKS_PER_FRAME, Tick, seconds
from avbench.types import (
    AS_EVER,
    GRIDS,
    AvbenchError,
    ClipRecord,
    Gap,
    MediaError,
    OffsetGrid,
    Reading,
    SegmentRecord,
    UsageError,
    first_line,
    printable,
)

if TYPE_CHECKING:
    import pyarrow as pa


SCHEMA_VERSION = 2  # written where a table has a column of MORE_COLUMNS; else 1, which older versions read too
KINDS = ("synthetic", "files", "realsync")
SPLITS = ("train", "valid", "test")  # the usual ones, in this order; others follow by name

# column -> (arrow type, unit and meaning); the meaning is written into the parquet schema too
CLIP_COLUMNS = {
    "id": ("string", "unique name of the clip"),
    "video_id": ("string", "the video the clip was cut from"),
    "path": ("string", "media file relative to the media root, '/'-separated; \\xNN: a byte that is not UTF-8"),
    "sha256": ("string", "of the media file's bytes, lower-case hex; the hash of no bytes (e3b0...): not seen"),
    "n_frames": ("int64", "grid frames at 25 fps; of unseen media: what the name promises, or 0"),
    "n_samples": ("int64", "sound samples at 16 kHz; of unseen media: as n_frames"),
    "duration_s": ("float64", "seconds covered by both streams: what n_frames and n_samples say"),
    "channel": ("string", "programme or style the video comes from"),
    "split": ("string", "train, valid, test, ..."),
    "source": ("string", "JSON: what the container said when it was probed; empty if unknown"),
}
SEGMENT_COLUMNS = {
    "id": ("string", "unique name of the segment"),
    "clip_id": ("string", "the clip it lies in"),
    "video_id": ("string", "the clip's video: the cluster of the bootstrap"),
    "start_ticks": ("int64", "start in the clip, 1/16000 s"),
    "offset_ticks": ("int64", "audio offset, 1/16000 s; positive = the audio is early"),
    "start_s": ("float64", "start_ticks in seconds"),
    "offset_s": ("float64", "offset_ticks in seconds; positive = the audio is early"),
    "offset_class": ("int64", "0 ... 20, class 10 is in sync"),
    "category": ("string", "talking head, voice-over, other, or empty"),
    "events": ("list<string>", "audio events heard in the segment"),
    "channel": ("string", "the clip's channel"),
    "split": ("string", "train, valid, test, ..."),
}


# columns that a table has only where a row needs them
MORE_COLUMNS = {
    "reading": (
        "string",
        "JSON: how the file is read (tracks, grid, gaps in ticks); empty: first tracks, latest picture",
    ),
    "law": ("string", "JSON: how the offset runs over time (pieces in ticks and ppm); empty: the offset is fixed"),
    "pair_of": ("string", "id of the segment that shows the same pictures in sync; empty: not a shifted one of a pair"),
}
_LATER = ("law", "pair_of")  # columns of segments that only some have: hashed where they are
_CLIP_FIELDS = tuple(name for name in ClipRecord.__slots__ if name in CLIP_COLUMNS)


def called(file: str, clip_id: str) -> str:
    """What people call a clip: its id, or the name of its file if that has letters that an id cannot have."""
    return clip_id if re.fullmatch(r"[A-Za-z0-9._-]*", file) else printable(file)


@dataclass(frozen=True)
class Manifest:
    """Clips and labelled segments, immutable. The clips' paths are relative to ``media_root``."""

    name: str
    kind: str
    note: str
    offset_law: str
    clips: Mapping[str, ClipRecord]
    segments: tuple[SegmentRecord, ...]
    media_root: Path
    grid: OffsetGrid = field(default_factory=OffsetGrid)
    spec_sha256: str = ""  # of the generator's specification, for synthetic data
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # clip id -> what its container reports

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that defines the evaluation; not of where the files are or how the tables are stored.

        For synthetic data the specification is hashed, not the media: encoders may differ between machines.
        """
        digest = hashlib.sha256()
        head = [1, self.name, self.kind, self.offset_law, self.grid.n_classes, self.grid.max_offset_s]
        encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
        for row in itertools.chain([[*head, self.spec_sha256]], self._pinned_clips(), self._pinned_segments()):
            digest.update(encode(row).encode() + b"\n")
        return digest.hexdigest()

    def _pinned_clips(self) -> Iterator[list[Any]]:
        for clip in sorted(self.clips.values(), key=lambda c: c.id):
            pinned = replace(clip, sha256="") if self.kind == "synthetic" else clip
            reading = clip.reading.as_text()
            yield ["clip", *(getattr(pinned, name) for name in _CLIP_FIELDS), *([reading] if reading else [])]

    def _pinned_segments(self) -> Iterator[list[Any]]:
        names = [name for name in SegmentRecord.__slots__ if name not in _LATER]
        for segment in self.segments:
            law = [law_text(segment.law)] if segment.law else []
            pair = [{"pair_of": segment.pair_of}] if segment.pair_of else []
            yield ["segment", *(getattr(segment, name) for name in names), *law, *pair]

    @property
    def labels_hidden(self) -> bool:
        """Whether the labels are withheld: the offsets in the manifest are then all 0 and mean nothing."""
        return self.offset_law == "hidden"

    @property
    def changing(self) -> bool:
        """Whether a segment has a law: its offset may change while the stream runs."""
        return any(segment.law for segment in self.segments)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; train, valid and test first."""
        there = {s.split for s in self.segments} | {c.split for c in self.clips.values()}
        return (*(s for s in SPLITS if s in there), *sorted(there - set(SPLITS)))

    def split(self, name: str) -> Manifest:
        """The segments of one split, and their clips; ``UsageError`` lists the splits that exist."""
        if name not in self.splits:
            has = f"it has {', '.join(self.splits) or 'none'}"
            raise UsageError(f"{self.name} has no split {name!r}; {nearest(name, self.splits, has)}")
        segments = tuple(s for s in self.segments if s.split == name)
        used = {s.clip_id for s in segments}
        return self._part(segments, (c.id for c in self.clips.values() if c.split == name or c.id in used))

    def limit(self, n: int) -> Manifest:
        """The first ``n`` segments and their clips."""
        if n < 1:
            raise UsageError(f"limit is {n}; it must be at least 1")
        if n >= len(self.segments):
            return self
        segments = self.segments[:n]
        return self._part(segments, (s.clip_id for s in segments))

    def refuse_other_classes(self, grid: OffsetGrid) -> None:
        """``UsageError`` unless the labels are of ``grid``'s classes: they would be taken for other offsets."""
        if self.grid != grid:
            mine, theirs = (f"{g.n_classes} offset classes within +-{g.max_offset_s:g} s" for g in (self.grid, grid))
            raise UsageError(
                f"{self.name} has {mine}, but models and protocols have {theirs}: `avbench data info` describes it, "
                "but it cannot be run or trained on"
            )

    def clip_path(self, clip: ClipRecord) -> Path:
        """The clip's media file; ``MediaError`` if it was never seen, or if the path leaves the media root."""
        if not clip.seen:
            raise MediaError(clip.id, "its media was missing when the manifest was written; rebuild it with the media")
        problem = _path_problem(clip.path)
        if problem:
            raise MediaError(clip.id, f"path {clip.path!r} {problem}")
        path = self.media_root / path_of(clip.path)
        if not path.resolve().is_relative_to(self.media_root.resolve()):
            raise MediaError(clip.id, f"path {clip.path!r} points outside the media root through a link")
        return path

    def prior(self) -> np.ndarray:
        """(n_classes,) float64: class prior implied by the declared offset law (equal shares for "list")."""
        from avbench.protocol.offsets import class_prior

        return class_prior(self.offset_law, self.grid)

    @property
    def names(self) -> dict[str, str]:
        """Clip id -> the name of its file, printable, where that has letters that an id cannot have."""
        files = {clip_id: str(source.get("file", "")) for clip_id, source in self.sources.items()}
        return {clip_id: name for clip_id, file in files.items() if (name := called(file, clip_id)) != clip_id}

    def by_name(self, text: str) -> str:
        """``text``; where it begins with "clip ID: ", people know the clip by the name of its file."""
        word, _, rest = text.partition(" ")
        clip_id, colon, said = rest.partition(": ")
        if word != "clip" or not colon or clip_id not in self.sources:
            return text
        return f"clip {called(str(self.sources[clip_id].get('file', '')), clip_id)}: {said}"

    def _part(self, segments: tuple[SegmentRecord, ...], clip_ids: Iterable[str]) -> Manifest:
        kept = set(clip_ids)
        clips = {name: clip for name, clip in self.clips.items() if name in kept}
        sources = {name: source for name, source in self.sources.items() if name in kept}
        return replace(self, segments=segments, clips=clips, sources=sources)


# ----------------------------------------------------------------------------------------------------------- writing


MoreColumns = Mapping[str, tuple[str, str, Sequence[Any]]]  # name -> (type, unit and meaning, a value per segment)


def write_manifest(manifest: Manifest, directory: Path, more_columns: MoreColumns | None = None) -> None:
    """Write the three files; the same content gives the same bytes. ``manifest.json``, which pins the two tables, is
    replaced last, so an interrupted write is noticed on reading. ``more_columns``: further columns of the segment
    table, for people; they are not read back. ``UsageError`` if the content is not valid, ``AvbenchError`` if the
    folder cannot be written."""
    from avbench.system.atomic import atomic_write_bytes

    directory = Path(directory)
    _raise_first(check(manifest))
    clips = sorted(manifest.clips.values(), key=lambda c: c.id)
    columns = clip_columns(manifest)
    tables = {
        "clips.parquet": _parquet(columns, (clip_row(c, manifest.sources.get(c.id)) for c in clips)),
        "segments.parquet": _segment_table(manifest, more_columns or {}),
    }
    root, home = manifest.media_root.resolve(), directory.resolve()
    meta = {
        "schema_version": schema_version(manifest),
        "name": manifest.name,
        "kind": manifest.kind,
        "note": manifest.note,
        "offset_law": manifest.offset_law,
        "grid": {"n_classes": manifest.grid.n_classes, "max_offset_s": manifest.grid.max_offset_s},
        "spec_sha256": manifest.spec_sha256,
        # relative if the media are in the folder, so that they can move with it
        "media_root": path_text(root.relative_to(home) if root.is_relative_to(home) else root),
        "sha256": manifest.sha256,
        "tables": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {directory}: {error.strerror}") from error
    text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
    try:
        for name, data in [*tables.items(), ("manifest.json", text.encode())]:
            atomic_write_bytes(directory / name, data)
    except OSError as error:
        raise AvbenchError(f"cannot write the manifest {directory}: {error.strerror or error}") from error


def _segment_table(manifest: Manifest, more: MoreColumns) -> bytes:
    further = zip(*(values for _, _, values in more.values()), strict=True) if more else itertools.repeat(())
    pairs = zip(manifest.segments, further, strict=bool(more))
    rows = (segment_row(segment) | dict(zip(more, values, strict=True)) for segment, values in pairs)
    return _parquet(segment_columns(manifest) | {name: (kind, text) for name, (kind, text, _) in more.items()}, rows)


def clip_columns(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """The columns of the manifest's ``clips.parquet``: those that every one has, and those that this one needs."""
    needed = {"reading"} if any(clip.reading != AS_EVER for clip in manifest.clips.values()) else set()
    return CLIP_COLUMNS | {name: MORE_COLUMNS[name] for name in sorted(needed)}


def segment_columns(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """The columns of the manifest's ``segments.parquet``: as ``clip_columns``."""
    needed = [name for name in _LATER if any(getattr(s, name) for s in manifest.segments)]
    return SEGMENT_COLUMNS | {name: MORE_COLUMNS[name] for name in needed}


def schema_version(manifest: Manifest) -> int:
    """The version of the manifest's files: 1, which every avbench reads, or 2 if a table has one more column."""
    plain = clip_columns(manifest) == CLIP_COLUMNS and segment_columns(manifest) == SEGMENT_COLUMNS
    return 1 if plain else SCHEMA_VERSION


def clip_row(clip: ClipRecord, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """A clip's row of ``clips.parquet``, with the columns that only some have. ``source``: what its container
    reports."""
    return {name: getattr(clip, name) for name in _CLIP_FIELDS} | {
        "reading": clip.reading.as_text(),
        "duration_s": seconds(clip.duration),
        "source": json.dumps(source, sort_keys=True) if source else "",
    }


def segment_row(segment: SegmentRecord) -> dict[str, Any]:
    """A segment's row of ``segments.parquet``."""
    row = {name: getattr(segment, name) for name in SegmentRecord.__slots__ if name in SEGMENT_COLUMNS}
    return row | {
        "law": law_text(segment.law) if segment.law else "",
        "pair_of": segment.pair_of,
        "start_ticks": segment.start,
        "offset_ticks": segment.offset,
        "start_s": seconds(segment.start),
        "offset_s": segment.offset_s,
        "events": list(segment.events),
    }


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.string()) if name == "list<string>" else getattr(pa, name)()


def _parquet(columns: Mapping[str, tuple[str, str]], rows: Iterable[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        pa.field(name, _arrow_type(kind), nullable=False, metadata={"description": text})
        for name, (kind, text) in columns.items()
    ]
    held: dict[str, list[Any]] = {name: [] for name in columns}
    for row in rows:  # by column: a million rows at once would take gigabytes
        for name, values in held.items():
            values.append(row[name])
    table = pa.Table.from_pydict(held, schema=pa.schema(fields))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------------------- reading


def read_manifest(directory: Path, media_root: Path | None = None) -> Manifest:
    """Read and check a manifest folder. ``media_root`` replaces the recorded one (for media that were moved).

    ``UsageError``, one line: no such folder, another schema version, a table that does not match its hash, or rows and
    columns that contradict each other (the first problem, and how many more there are).
    """
    directory = Path(directory)
    meta = read_meta(directory)
    more = MORE_COLUMNS if meta["schema_version"] == SCHEMA_VERSION else {}
    clip_table = _read_table(directory, "clips.parquet", CLIP_COLUMNS, meta, more)
    segment_table = _read_table(directory, "segments.parquet", SEGMENT_COLUMNS, meta, more)
    clips, sources, names, clip_problems = _clips_of(clip_table)
    segments, problems = _segments_of(segment_table, clips)
    problems += clip_problems
    del clip_table, segment_table
    root = Path(media_root) if media_root is not None else directory / path_of(meta["media_root"])
    manifest = Manifest(
        name=meta["name"],
        kind=meta["kind"],
        note=meta["note"],
        offset_law=meta["offset_law"],
        clips=clips,
        segments=segments,
        media_root=root,
        grid=OffsetGrid(meta["grid"]["n_classes"], meta["grid"]["max_offset_s"]),
        spec_sha256=meta["spec_sha256"],
        sources=sources,
    )
    problems += check(manifest, row_of={name: row for row, name in enumerate(names)})
    if not problems and manifest.sha256 != meta["sha256"]:
        problems.append("manifest.json: sha256 does not match the content")
    _raise_first(problems, directory)
    return manifest


_Clips = tuple[dict[str, ClipRecord], dict[str, Any], list[str], list[str]]


def _clips_of(table: pa.Table) -> _Clips:
    """The clips by id, what their containers report, their ids row by row, and what is wrong with the rows."""
    clips, sources, names, problems = dict[str, ClipRecord](), dict[str, Any](), list[str](), list[str]()
    for row, r in enumerate(_rows_of(table)):
        if r["duration_s"] != seconds(min(r["n_frames"] * TICKS_PER_FRAME, r["n_samples"])):
            problems.append(
                f"clips.parquet row {row} column duration_s: {r['duration_s']!r} does not match n_frames and n_samples"
            )
        names.append(r["id"])
        clips[r["id"]] = _clip_of(r, row)
        if r["source"]:
            sources[r["id"]] = _json_object(r["source"])
    return clips, sources, names, problems + _duplicates("clips.parquet", names)


def _segments_of(table: pa.Table, clips: Mapping[str, ClipRecord]) -> tuple[tuple[SegmentRecord, ...], list[str]]:
    """The segments, and what is wrong with the rows."""
    segments, problems = list[SegmentRecord](), list[str]()
    shared = {text: text for clip in clips.values() for text in (clip.id, clip.video_id)}  # each text once in memory
    for row, r in enumerate(_rows_of(table)):
        for name in ("start", "offset"):
            if r[f"{name}_s"] != seconds(r[f"{name}_ticks"]):
                problems.append(
                    f"segments.parquet row {row} column {name}_s: {r[f'{name}_s']!r} is not {name}_ticks / 16000"
                )
        r |= {name: shared.setdefault(r[name], r[name]) for name in _REPEATED}
        segments.append(_segment_of(r, row))
    return tuple(segments), problems


_REPEATED = ("clip_id", "video_id", "category", "channel", "split")  # columns of segments
ROWS_AT_ONCE = 2**14


def _rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows one by one; not all of them at once, which takes twenty times what the table takes."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _clip_of(row: Mapping[str, Any], number: int) -> ClipRecord:
    try:
        reading = reading_of(row.get("reading", ""))
    except ValueError as error:
        raise UsageError(f"clips.parquet row {number} column reading: {error}") from error
    return ClipRecord(**{name: row[name] for name in _CLIP_FIELDS}, reading=reading)


def _segment_of(row: Mapping[str, Any], number: int) -> SegmentRecord:
    try:
        law = law_of(row["law"]) if row.get("law") else None
    except ValueError as error:
        raise UsageError(f"segments.parquet row {number} column law: {error}") from error
    return SegmentRecord(
        id=row["id"],
        clip_id=row["clip_id"],
        video_id=row["video_id"],
        start=row["start_ticks"],
        offset=row["offset_ticks"],
        offset_class=row["offset_class"],
        category=row["category"],
        events=tuple(row["events"]),
        channel=row["channel"],
        split=row["split"],
        law=law,
        pair_of=row.get("pair_of", ""),
    )


def read_meta(directory: Path) -> dict[str, Any]:
    """The content of ``manifest.json``: its shape is checked, its hashes are not. ``UsageError``: it is not one."""
    path = directory / "manifest.json"
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a manifest folder (no such folder)")
    if not path.is_file():
        raise UsageError(f"{directory} is not a manifest folder (no manifest.json in it)")
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    version = meta.get("schema_version") if isinstance(meta, dict) else None
    if version not in (1, SCHEMA_VERSION) or isinstance(version, bool):
        raise UsageError(
            f"{path}: schema_version is {version!r}, this avbench reads 1 and {SCHEMA_VERSION}; rebuild it"
        )
    shape: dict[str, Callable[[Any], bool]] = dict.fromkeys(
        ("name", "kind", "note", "offset_law", "spec_sha256", "media_root", "sha256"), lambda v: isinstance(v, str)
    )
    shape["grid"] = lambda v: (
        isinstance(v, dict)
        and type(v.get("n_classes")) is int
        and 2 <= v["n_classes"] <= 1000
        and type(v.get("max_offset_s")) in (int, float)
        and 0 < v["max_offset_s"] <= 60
    )
    shape["tables"] = lambda v: isinstance(v, dict)
    for key, fits in shape.items():
        if key not in meta or not fits(meta[key]):
            raise UsageError(f"{path}: {key} is missing or invalid")
    return meta


_Columns = Mapping[str, tuple[str, str]]


def _read_table(directory: Path, name: str, columns: _Columns, meta: dict[str, Any], more: _Columns) -> pa.Table:
    """The table with ``columns``, and with those of ``more`` that it has."""
    import pyarrow as pa

    path = directory / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != meta["tables"].get(name):
        raise UsageError(f"{path} is not the table that manifest.json pins (other sha256); restore or rebuild it")
    try:
        table = read_table(data, limit_bytes=2**28 + 400 * len(data))  # counted names: 200 times their length
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path} is not a readable parquet table: {first_line(error)}") from error
    columns = {**columns, **{name: more[name] for name in more if name in table.column_names}}
    for column, (kind, _) in columns.items():
        if column not in table.column_names:
            raise UsageError(f"{path}: column {column} is missing")
        found = table.schema.field(column).type
        if found != _arrow_type(kind) and str(found) not in (f"large_{kind}", f"list<element: {kind[5:-1]}>"):
            raise UsageError(f"{path}: column {column} is {found}, it must be {kind}")
        if table[column].null_count:
            row = table[column].is_null().to_pylist().index(True)
            raise UsageError(f"{path} row {row} column {column}: empty")
    return table.select(list(columns))


# ---------------------------------------------------------------------------------------------------------- checking


def check(manifest: Manifest, row_of: Mapping[str, int] | None = None) -> list[str]:
    """Every contradiction in a manifest, one line each, named by file, row and column. ``row_of``: clip id -> its row;
    None: by name."""
    problems: list[str] = []
    if manifest.kind not in KINDS:
        problems.append(f"manifest.json: kind {manifest.kind!r} is not one of {', '.join(KINDS)}")
    if not manifest.name:
        problems.append("manifest.json: name is empty")
    try:
        manifest.prior()
    except UsageError as error:
        problems.append(f"manifest.json: {error}")
    if manifest.labels_hidden and any(s.offset or s.law for s in manifest.segments):
        problems.append("manifest.json: offset_law is hidden, but segments.parquet has offsets; they must all be 0")
    order = row_of or {name: row for row, name in enumerate(sorted(manifest.clips))}
    for key, clip in manifest.clips.items():
        here = f"clips.parquet row {order.get(key, '?')} column"
        if key != clip.id:
            problems.append(f"{here} id: the clip has the key {key!r} but the id {clip.id!r}")
        if _id_problem(clip.id):
            problems.append(f"{here} id: {clip.id!r} {_id_problem(clip.id)}")
        if _path_problem(clip.path):
            problems.append(f"{here} path: {clip.path!r} {_path_problem(clip.path)}")
        if not re.fullmatch("[0-9a-f]{64}", clip.sha256):
            problems.append(f"{here} sha256: {clip.sha256!r} is not 64 lower-case hex digits")
        for name in ("n_frames", "n_samples"):
            if getattr(clip, name) < (1 if clip.seen else 0):
                problems.append(f"{here} {name}: {getattr(clip, name)} is not positive")
    problems += _duplicates("segments.parquet", [s.id for s in manifest.segments]) + _pair_problems(manifest)
    for row, segment in enumerate(manifest.segments):
        problems += [f"segments.parquet row {row} column {text}" for text in _segment_problems(segment, manifest)]
    return problems


def _segment_problems(segment: SegmentRecord, manifest: Manifest) -> list[str]:
    found = []
    if _id_problem(segment.id):
        found.append(f"id: {segment.id!r} {_id_problem(segment.id)}")
    clip = manifest.clips.get(segment.clip_id)
    if clip is None:
        found.append(f"clip_id: there is no clip {segment.clip_id!r}")
    else:
        if segment.video_id != clip.video_id:
            found.append(f"video_id: {segment.video_id!r}, but the clip's video is {clip.video_id!r}")
        if segment.start >= clip.duration and (clip.seen or clip.duration):
            found.append(f"start_ticks: {seconds(segment.start):g} s, the clip lasts {seconds(clip.duration):g} s")
    if segment.start < 0 or segment.start % TICKS_PER_FRAME:
        found.append(f"start_ticks: {segment.start} is not a frame instant (a multiple of {TICKS_PER_FRAME} from 0)")
    try:
        expected = _class_of(manifest.grid, segment.offset)
    except UsageError as error:
        return [*found, f"offset_ticks: {error}"]
    if segment.offset_class != expected:
        found.append(f"offset_class: {segment.offset_class}, but {segment.offset_s:g} s is class {expected}")
    return found + _law_problems(segment, manifest.grid)


@lru_cache(maxsize=2**17)
def _class_of(grid: OffsetGrid, offset: Tick) -> int:
    """Of an offset in ticks, of which there are few; errors as ``OffsetGrid.class_of``."""
    return grid.class_of(seconds(offset))


def _pair_problems(manifest: Manifest) -> list[str]:
    by_id, found = {s.id: s for s in manifest.segments}, []
    for row, shifted in enumerate(manifest.segments):
        if shifted.pair_of:
            named = by_id.get(shifted.pair_of)
            same = named is not None and (named.clip_id, named.start) == (shifted.clip_id, shifted.start)
            if named is None or not same or named.offset or named.law or shifted.law or not shifted.offset:
                found.append(
                    f"segments.parquet row {row} column pair_of: {shifted.pair_of!r} is not a segment with the same "
                    "pictures, in sync, of which this one is a shifted copy"
                )
    return found


def _law_problems(segment: SegmentRecord, grid: OffsetGrid) -> list[str]:
    law = segment.law
    if law is None:
        return []
    found = []
    if law.pieces[0].offset != segment.offset:
        found.append(f"law: it begins with {law.pieces[0].offset} ticks, offset_ticks is {segment.offset}")
    edges = [
        *(piece.start for piece in law.pieces),
        *(edge for mute in law.mutes for edge in (mute.start, mute.length)),
    ]
    odd = [edge for edge in edges if edge % TICKS_PER_FRAME]
    if odd:
        found.append(f"law: a change at {odd[0]} is not a frame instant (a multiple of {TICKS_PER_FRAME})")
    # where a stream ends is the protocol's business, and with it how far a last, sloped piece goes
    far = max(extremes(law, law.pieces[-1].start + 1), key=abs)
    if abs(seconds(far)) > grid.max_offset_s:
        found.append(
            f"law: an offset of {seconds(far):g} s is outside [-{grid.max_offset_s:g}, {grid.max_offset_s:g}] s"
        )
    return found


def _duplicates(file: str, names: list[str]) -> list[str]:
    first: dict[str, int] = {}
    found = []
    for row, name in enumerate(names):
        if name in first:
            found.append(f"{file} row {row} column id: {name!r} is already in row {first[name]}")
        first.setdefault(name, row)
    return found


def _id_problem(name: str) -> str:
    """Why a name cannot be an id; empty if it can."""
    if not 0 < len(name) <= 200:
        return "must have 1 to 200 characters"
    if not name.isprintable() or any(c in name for c in "/\\"):
        return "must be printable, without slashes"
    return ""


def _path_problem(path: str) -> str:
    """Why a clip's path is refused; empty if it is fine."""
    parts = PurePosixPath(path).parts
    if not parts or "\0" in path or has_foreign_backslash(path):
        return "is not a relative '/'-separated path"
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        return "is absolute; it must be relative to the media root"
    return "points outside the media root" if ".." in parts else ""


def reading_of(text: str) -> Reading:
    """What ``Reading.as_text`` wrote as ``text``; ``ValueError`` for anything else."""
    if not text:
        return AS_EVER
    try:
        said = json.loads(text)
        reading = replace(AS_EVER, **said | {"gaps": tuple(Gap(*gap) for gap in said.get("gaps", ()))})
        fits = reading.as_text() == text and reading.grid in GRIDS and all(map(_is_gap, reading.gaps))
        ticks_and_numbers = (reading.video_track, reading.audio_track, reading.sound_gap, reading.picture_gap)
        fits = fits and all(type(value) is int and value >= 0 for value in ticks_and_numbers)
    except (ValueError, TypeError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(f"{text[:60]!r} does not say how a file is read")
    return reading


def _is_gap(gap: Gap) -> bool:
    whole = type(gap.start) is int and type(gap.end) is int
    return gap.kind in ("picture", "sound") and whole and gap.start < gap.end


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"clips.parquet column source: {text[:40]!r} is not a JSON object")
    return value


def _raise_first(problems: list[str], directory: Path | None = None) -> None:
    if problems:
        raise UsageError(f"{f'{directory}: ' if directory else ''}{first_of(problems)}")
