"""Import the published lists of fixed offsets as manifests, with or without media.

The lists: RealSync's own (:mod:`own_lists`), and those of LRS3, VGGSound, AudioSet and VGGSound-Sparse
(:mod:`fixed_offsets`), which are recognised by their headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avbench.data.realsync import fixed_offsets
from avbench.data.realsync.entries import PublishedList, csv_rows
from avbench.data.realsync.measuring import Measured, measure_clips
from avbench.data.realsync.own_lists import NAME, read_own_list
from avbench.data.realsync.report import report
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.system.outputs import check_folder
from avbench.system.progress import ItemProgress
from avbench.ticks import TICKS_PER_FRAME
from avbench.types import UNSEEN_SHA256, ClipRecord, SegmentRecord, UsageError

# further columns of the segment table of an imported list
MORE_SEGMENT_COLUMNS = {
    "published_offset_s": ("float64", "the offset as published, seconds, not rounded; positive = the audio is early"),
    "published_start_s": ("float64", "the start as published, seconds; start_s is the frame at or before it"),
    "broken": ("string", "what the published id says is broken: broken, broken_silence, broken_short; empty: nothing"),
}


def import_lists(
    lists: Path,
    media: Path | None,
    out: Path,
    workers: int = 1,
    progress: ItemProgress | None = None,
    force: bool = True,
) -> dict[str, Any]:
    """Read the lists in a folder and write one manifest per list, ``out/NAME/``; returns :func:`report`'s facts.

    ``media``: folder of the clips, in any folder below it, under any name that :mod:`finding` knows; None: there are
    none, and no clip is pinned. A clip without media stays in the manifest, unseen, and is listed. Files are hashed and
    measured by their packets, not decoded: ``avbench data verify`` decodes them.

    ``UsageError``: an invalid list, no such media folder, or (unless ``force``) a folder that holds something already;
    ``AvbenchError``: cannot write.
    """
    if media is not None and not media.is_dir():
        raise UsageError(f"{media} is not a folder; use `--media none` if there are no media")
    published, others = read_lists(lists)
    for one in published:
        check_folder(out / one.name, force)
    entries = [entry for one in published for entry in one.entries]
    seen, refused = measure_clips(media, entries, workers, progress) if media is not None else ({}, {})
    for one in published:
        _write_list(one, media, seen, out / one.name)
    return report(published, seen, refused, others, None if media is None else str(media))


def read_lists(folder: Path) -> tuple[list[PublishedList], list[str]]:
    """The lists in a folder (and in folders ``fixed_offsets_...`` of it), sorted by name, and one line on every other
    file there.

    ``UsageError``: no such folder, no list in it, an invalid row (file, line, and how many more), two of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder with published lists")
    found, others, beside = list[PublishedList](), dict[str, str](), set[str]()
    judged: dict[str, fixed_offsets.Rows] = {}
    for path in _files(folder):
        file = path.relative_to(folder).as_posix()
        is_table = path.suffix == ".csv" and path.is_file()
        if is_table and NAME.fullmatch(path.stem):
            found.append(read_own_list(path))
            beside.add(path.with_suffix(".json").name)
            continue
        rows = csv_rows(path) if is_table else []
        head, below = rows[0][1] if rows else [], rows[1:]
        if head == fixed_offsets.PATHS_HEAD:
            found.append(fixed_offsets.read_paths(file, path.parent.name, below))
        elif head == fixed_offsets.SPARSE_HEAD:
            found.append(fixed_offsets.read_sparse(file, below))
        elif head == fixed_offsets.JUDGED_HEAD:
            judged[file] = below
            others[file] = f"contains no offsets; its manual judgements of {len(below)} clips go into the report"
        else:
            others[file] = "not a published list"
    if not found:
        raise UsageError(
            f"there is no published list in {folder} (looked for *_normal.evaluation.csv, *_size21_crop5*.csv and the "
            "like)"
        )
    for rows in judged.values():
        found = [fixed_offsets.with_judgements(one, rows) for one in found]
    _refuse_one_name_twice(found)
    return (
        sorted(found, key=lambda one: one.name),
        [f"{file}: {text}" for file, text in others.items() if file not in beside],
    )


def _files(folder: Path) -> Iterator[Path]:
    """What is in the folder, and in place of the published folders in it what is in those."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.startswith(fixed_offsets.FOLDER):
            yield from sorted(path.iterdir())
        else:
            yield path


def _refuse_one_name_twice(found: list[PublishedList]) -> None:
    first: dict[str, str] = {}
    for one in found:
        if one.name in first:
            raise UsageError(f"{first[one.name]} and {one.file} are both the list {one.name}; import one of them")
        first[one.name] = one.file


def _write_list(one: PublishedList, media: Path | None, seen: Mapping[str, Measured], folder: Path) -> None:
    clips: dict[str, ClipRecord] = {}
    for entry in one.entries:
        if entry.clip_id in clips:
            continue
        got = seen.get(entry.clip_id)
        clips[entry.clip_id] = ClipRecord(
            id=entry.clip_id,
            video_id=entry.video_id,
            path=got.path if got else f"{entry.stem}{'.mkv' if one.of_realsync else '.mp4'}",
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
        grid=one.grid,
    )
    more: dict[str, list[Any]] = {
        "published_offset_s": [e.offset_s for e in one.entries],
        "published_start_s": [e.start_s for e in one.entries],
        "broken": [e.broken for e in one.entries],
    }
    write_manifest(manifest, folder, {k: (*MORE_SEGMENT_COLUMNS[k], values) for k, values in more.items()})
