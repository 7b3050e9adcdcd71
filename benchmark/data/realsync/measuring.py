"""Hash and measure the clips' files: by their packets, without decoding, in worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from avbench.data.apart import MediaFile, read_apart
from avbench.data.realsync.entries import Entry
from avbench.data.realsync.finding import find_clips, shown
from avbench.system.paths import path_text
from avbench.system.progress import ItemProgress
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, Tick
from avbench.types import MediaError

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
    seen, refused, files = dict[str, Measured](), dict(found.doubtful), list[MediaFile]()
    for clip_id, path in found.files.items():
        if path.resolve().is_relative_to(media.resolve()):
            files.append(MediaFile(clip_id, path))
        else:
            refused[clip_id] = f"{shown(path)} leads out of the media folder through a link"
    for file, got in read_apart(_measure, files, workers):
        if isinstance(got, MediaError):
            refused[file.clip_id] = got.reason
        else:
            one = Measured(path_text(file.path.relative_to(media)), *got)
            by_video_alone = file.clip_id in found.by_video_alone
            problem = _length_problem(one, clips[file.clip_id], last_start[file.clip_id], by_video_alone)
            if problem:
                refused[file.clip_id] = f"{shown(file.path)} {problem}"
            else:
                seen[file.clip_id] = one
        if progress:
            progress(len(seen) + len(refused), len(files) + len(found.doubtful), file.clip_id)
    return seen, refused


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


def _measure(file: MediaFile) -> tuple[str, int, int]:
    return measure(file.path, file.clip_id)


def measure(path: Path, clip_id: str) -> tuple[str, int, int]:
    """(sha256, frames at 25 fps, samples at 16 kHz) from the packets' times, without decoding. ``MediaError``: no media
    file, or without picture or sound."""
    from avbench.data.grid import Grid
    from avbench.data.media import media_sha256
    from avbench.data.packets import packets
    from avbench.data.streams import WORDS, opened, readable, tracks_of

    ends: dict[str, Fraction] = {}
    starts: dict[str, Fraction] = {}
    sha256 = media_sha256(path)
    with readable(clip_id, shown(path)), opened(path, clip_id) as container:
        # the first of each, as of every manifest that does not say which
        streams = [stream for kind in WORDS for stream in tracks_of(container, kind)[:1]]
        clocks_s = {stream.type: stream.time_base or Fraction(1, FRAME_RATE_HZ) for stream in streams}
        for packet in packets(container, *streams) if streams else ():
            if packet.pts is None or packet.time_base is None:
                continue
            kind, start = packet.stream.type, packet.pts * packet.time_base
            starts[kind] = min(starts.get(kind, start), start)
            ends[kind] = max(ends.get(kind, start), start + (packet.duration or 0) * packet.time_base)
        for stream in streams:  # the container may cut the padding of the last packet off
            if stream.type == "audio" and stream.duration and stream.start_time is not None and stream.time_base:
                declared = (stream.start_time + stream.duration) * stream.time_base
                ends["audio"] = min(declared, ends.get("audio", declared))
    for kind, word in WORDS.items():
        if kind not in clocks_s:
            raise MediaError(clip_id, f"{shown(path)} has no {word} stream")
        if kind not in ends:
            raise MediaError(clip_id, f"{shown(path)} contains no packets of {word}")
    origin, clock_s = starts["video"], clocks_s["video"]
    n_frames = Grid("latest", clock_s).n_frames(round((ends["video"] - origin) / clock_s))  # as the reader counts them
    n_samples = math.floor((ends["audio"] - origin) * SAMPLE_RATE_HZ)
    if min(n_frames, n_samples) <= 0:
        raise MediaError(clip_id, f"{shown(path)} is empty")
    return sha256, n_frames, n_samples
