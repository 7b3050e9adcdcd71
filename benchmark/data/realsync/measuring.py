"""Hash and measure the clips' files: by their packets, without decoding, in worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from avbench.data.realsync.entries import Entry
from avbench.data.realsync.finding import find_clips, shown
from avbench.system import debug
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, Pool, stateless
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, Tick
from avbench.types import MediaError, first_line

SLOWEST_BYTES_PER_S = 2**20  # of a disk or network share that is still waited for
START_S = 60
LONGER_S = 0.5  # so much longer than the slice that a list names, a file may be more than the slice


@dataclass(frozen=True, slots=True)
class Measured:
    """A media file: ``path`` relative to the media folder; frames at 25 fps and samples at 16 kHz from its packets."""

    path: str
    sha256: str
    n_frames: int
    n_samples: int

    @property
    def duration(self) -> Tick:
        """Picture and sound, whichever ends first."""
        return min(self.n_frames * TICKS_PER_FRAME, self.n_samples)


def measure_clips(
    media: Path, entries: Iterable[Entry], workers: int, progress: ItemProgress | None = None
) -> tuple[dict[str, Measured], dict[str, str]]:
    """clip id -> what was measured, and clip id -> why its file was refused, of the clips that have files in ``media``.

    A file that kills its reader, or is not read in time, costs that clip only.
    """
    entries = list(entries)
    clips, last_start = {e.clip_id: e for e in entries}, dict[str, Tick]()
    for entry in entries:
        last_start[entry.clip_id] = max(entry.start, last_start.get(entry.clip_id, 0))
    found = find_clips(media, clips)
    seen, refused, jobs = dict[str, Measured](), dict(found.doubtful), list[tuple[str, Path]]()
    for clip_id, path in found.files.items():
        problem = _file_problem(path, media)
        if problem:
            refused[clip_id] = f"{shown(path)} {problem}"
        else:
            jobs.append((clip_id, path))
    pool = Pool[tuple[str, Path], "tuple[str, int, int] | str"](
        partial(stateless, _measure_clip), max(1, min(workers, len(jobs))), timeout_of=_patience_s
    )
    for (clip_id, path), got in pool.run(jobs):
        if isinstance(got, Lost):
            refused[clip_id] = f"{shown(path)}: {got.reason} while reading it"
        elif isinstance(got, str):
            refused[clip_id] = got
        else:
            one = Measured(path.relative_to(media).as_posix(), *got)
            problem = _length_problem(one, clips[clip_id], last_start[clip_id], clip_id in found.by_video_alone)
            if problem:
                refused[clip_id] = f"{shown(path)} {problem}"
            else:
                seen[clip_id] = one
        if progress:
            progress(len(seen) + len(refused), len(jobs) + len(found.doubtful), clip_id)
    return seen, refused


def _file_problem(path: Path, media: Path) -> str:
    """Why a file is not opened at all; empty if it is."""
    try:
        path.relative_to(media).as_posix().encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it or its folder"
    if not path.resolve().is_relative_to(media.resolve()):
        return "leads out of the media folder through a link"
    return "" if path.is_file() else "is not a file"


def _length_problem(one: Measured, entry: Entry, last_start: Tick, by_video_alone: bool) -> str:
    """Why a file cannot be the clip of a list; empty if it can."""
    length_s = one.duration / TICKS_PER_S
    if by_video_alone and one.duration > entry.length + LONGER_S * TICKS_PER_S:
        return (
            f"lasts {length_s:.1f} s, the clip {entry.length / TICKS_PER_S:g} s: it may be the whole video; if it is "
            "not, name it in full"
        )
    if last_start >= one.duration:
        return f"lasts {length_s:.1f} s, but a segment of the list starts at {last_start / TICKS_PER_S:g} s"
    return ""


def _patience_s(clip: tuple[str, Path]) -> float:
    try:
        n_bytes = clip[1].stat().st_size
    except OSError:  # gone since: the worker says so
        n_bytes = 0
    return START_S + n_bytes / SLOWEST_BYTES_PER_S


def _measure_clip(clip: tuple[str, Path]) -> tuple[str, int, int] | str:
    return measure(clip[1])


def measure(path: Path) -> tuple[str, int, int] | str:
    """(sha256, frames at 25 fps, samples at 16 kHz) from the packets' times, without decoding; or why not."""
    from avbench.data.media import grid_frames, media_sha256
    from avbench.data.streams import opened, tracks_of

    ends: dict[str, Fraction] = {}
    starts: dict[str, Fraction] = {}
    try:
        sha256 = media_sha256(path)
        with opened(path, path.name) as container:
            # the first of each, as of every manifest that does not say which
            streams = [stream for kind in ("video", "audio") for stream in tracks_of(container, kind)[:1]]
            if len(streams) < 2:
                kinds = [stream.type for stream in streams]
                return f"the file has no {'sound' if 'video' in kinds else 'picture'} stream"
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
    except Exception as error:  # whatever the library raises: it costs this file
        debug.show(error)
        return f"{shown(path)} is not a readable media file ({first_line(error)})"
    if not {"video", "audio"} <= set(ends):
        return f"{shown(path)} contains no packets of {'picture' if 'video' not in ends else 'sound'}"
    origin = starts["video"]
    n_frames = grid_frames(round((ends["video"] - origin) / clock_s), clock_s)  # as the reader counts them
    n_samples = math.floor((ends["audio"] - origin) * SAMPLE_RATE_HZ)
    return (sha256, n_frames, n_samples) if min(n_frames, n_samples) > 0 else f"{shown(path)} is empty"
