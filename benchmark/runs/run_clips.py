"""Cut what the page of a run shows of its media: a few seconds of the worst and of the surest segments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avbench.data.apart import MediaFile, guarded, read_apart
from avbench.data.excerpt import LENGTH_S, Excerpt, cut_excerpt
from avbench.data.opening import made, read_unmade
from avbench.engine.job import pinned_path
from avbench.pages.players import Pick, beliefs_s, picks
from avbench.pages.run_report import Read, read_again
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.results.excerpts import FOLDER, SHIFTS, Cut, Cuts, clip_name, remove_cuts, write_cuts
from avbench.results.run import RunResult, read_run
from avbench.scoring.selection import scored_iteration
from avbench.system.progress import ItemProgress, Progress, of_stage
from avbench.ticks import seconds, ticks
from avbench.types import AvbenchError, Law, MediaError, Piece, SegmentRecord, UsageError, first_line

VARIABLE = "AVBENCH_NO_MEDIA"
STAGE = "clips for the page"


def wanted_by_default() -> bool:
    """Whether pages get clips if nobody says: unless ``AVBENCH_NO_MEDIA`` is set."""
    return os.environ.get(VARIABLE, "0") in ("", "0")


@dataclass(frozen=True)
class Source:
    """Where the clips come from: the run's ``manifest``; ``apart``: decode in worker processes, of which there are
    ``workers``. Media of unknown origin must be, unless the run itself could not."""

    manifest: Manifest
    apart: bool = True
    workers: int = 1
    progress: ItemProgress | None = None


def cut_clips(folder: Path, result: RunResult, read: Read, source: Source) -> list[Cut]:
    """Cuts the clips of a run into its ``folder``, after removing earlier ones, and returns what was cut.

    A segment whose media cannot be read, or whose clips cannot be written, says so in its ``reason``. Nothing is cut
    where labels are hidden: a corrected clip would tell them. ``AvbenchError``: the folder or the record of the clips
    cannot be written.
    """
    remove_cuts(folder)
    if read.answers is None or source.manifest.labels_hidden or "predictions" not in result.files:
        return []
    chosen = picks(result, read.answers, read.logits, read.windows)
    if not chosen:
        return []
    try:
        if (folder / FOLDER).is_symlink():
            raise AvbenchError(f"{folder / FOLDER} is a link: the clips of the page are not written through it")
        (folder / FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise AvbenchError(f"cannot make {folder / FOLDER}: {error.strerror or error}") from error
    segments = {segment.id: segment for segment in source.manifest.segments}
    asked = [(pick, segments[read.answers.segment_ids[pick.row]]) for pick in chosen]
    files = [_file(folder, result, source.manifest, segment, read.logits[pick.row], pick) for pick, segment in asked]
    found = _cut_all([file for file in files if isinstance(file, MediaFile)], source)
    cuts = []
    for (pick, segment), file in zip(asked, files, strict=True):
        end = found[file.known.seen] if isinstance(file, MediaFile) else file
        cut = Cut(kind=pick.kind, number=pick.number, segment_id=segment.id)
        cuts.append(cut.model_copy(update=_told(end, result.protocol)))
    write_cuts(folder, Cuts(predictions=result.files["predictions"].sha256, cuts=cuts))
    return cuts


def cut_again(run: Path, data: str, progress: Progress | None = None) -> list[Cut]:
    """Cuts the clips of an earlier run anew; ``data``: any ``--data``, with the run's split. ``UsageError`` if it is
    not what the run was computed from, or if the run's files are not as it wrote them."""
    result = read_run(run)
    manifest = read_unmade(data, result.data.split, progress)
    if manifest.sha256 != result.data.manifest_sha256:
        manifest = manifest.limit(max(result.n_total, 1))
    if manifest.sha256 != result.data.manifest_sha256:
        raise UsageError(f"{data} is not what {run} was computed from: the sha256 of its manifest differs")
    folder = run if run.is_dir() else run.parent
    source = Source(made(manifest, progress), apart=manifest.kind != "synthetic", progress=of_stage(progress, STAGE))
    return cut_clips(folder, result, read_again(run, result), source)


def _file(
    folder: Path, result: RunResult, manifest: Manifest, segment: SegmentRecord, logits: np.ndarray, pick: Pick
) -> MediaFile | MediaError:
    """What is asked of ``cut_excerpt`` for one segment with predictions (W, 21); why it cannot be asked."""
    clip = manifest.clips[segment.clip_id]
    windows = result.protocol.picture_windows(segment)
    seen, corrected = (folder / FOLDER / clip_name(pick.kind, pick.number, shift) for shift in SHIFTS)
    try:
        path = pinned_path(manifest, clip)
    except MediaError as error:
        return error
    shifted = segment.law or Law("", (Piece(0, segment.offset),))
    begin = windows[0].start
    believed = believed_law(result, logits)
    return MediaFile(clip.id, path, Excerpt(clip, begin, windows[-1].end - begin, shifted, believed, seen, corrected))


def believed_law(result: RunResult, logits: np.ndarray) -> Law:
    """The shifts that the model believes in one stream, (W, 21): of a fixed offset what it answers at last; where
    offsets change, up to the end of each window what it believes there."""
    believed = [ticks(round(offset_s, 4)) for offset_s in beliefs_s(logits).tolist()]
    if result.protocol.name != "dynamic":
        return Law("", (Piece(0, believed[scored_iteration(result)]),))
    protocol = result.protocol
    starts = [0, *(protocol.window + protocol.hop * i for i in range(len(believed) - 1))]
    return Law("", tuple(Piece(start, offset) for start, offset in zip(starts, believed, strict=True)))


def _cut_all(files: Sequence[MediaFile], source: Source) -> dict[Path, float | MediaError | str]:
    """The file "as seen" of each -> where its clips begin (seconds of stream), or why there are none."""
    found: dict[Path, float | MediaError | str] = {file.known.seen: "not cut" for file in files}
    if source.apart:
        ends: Iterable[tuple[MediaFile, float | MediaError | str]] = read_apart(_cut, files, source.workers)
    else:
        ends = ((file, guarded(_cut, file)) for file in files)
    try:
        for done, (file, end) in enumerate(ends, 1):
            found[file.known.seen] = end
            if source.progress:
                source.progress(done, len(files), file.clip_id)
    except AvbenchError as error:  # no worker process can be started: the page does without
        found |= {path: first_line(error) for path, end in found.items() if end == "not cut"}
    return found


def _cut(file: MediaFile) -> float | str:
    """As ``cut_excerpt``; in words why it cannot be written."""
    try:
        return cut_excerpt(file)
    except MediaError:
        raise
    except AvbenchError as error:
        return first_line(error)


def _told(end: float | MediaError | str, protocol: Protocol) -> dict[str, float | str]:
    """What a record says of how the cutting of a segment ended."""
    if isinstance(end, float):
        length = protocol.window + protocol.hop * (protocol.iterations - 1)
        return {"start_s": end, "length_s": min(float(LENGTH_S), seconds(length))}
    return {"reason": end.reason if isinstance(end, MediaError) else end}
