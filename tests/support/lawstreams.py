"""Streams whose offset changes, for tests: segments under laws, and what laws say in plain whole numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, seconds, ticks
from avbench.types import ClipRecord, Law, OffsetGrid, SegmentRecord, Window


def under(segment: SegmentRecord, law: Law, name: str = "") -> SegmentRecord:
    """The segment under a law; its offset is the law's first one."""
    first = law.pieces[0].offset
    label = OffsetGrid().class_of(seconds(first))
    return replace(segment, id=name or segment.id, law=law, offset=first, offset_class=label)


def fixed(segment: SegmentRecord, offset: int, name: str = "") -> SegmentRecord:
    """The segment at a fixed offset in ticks."""
    return replace(segment, id=name or segment.id, offset=offset, offset_class=OffsetGrid().class_of(seconds(offset)))


def of(manifest: Manifest, segments: Iterable[SegmentRecord]) -> Manifest:
    """The manifest with other segments."""
    return replace(manifest, segments=tuple(segments))


def nothing_happens(law: Law, window: Window) -> bool:
    """Whether one offset holds throughout a window on the segment's clock, and nothing is muted."""
    ends = [*(piece.start for piece in law.pieces[1:]), window.end + 1]
    touched = [p for p, end in zip(law.pieces, ends, strict=True) if p.start < window.end and window.start < end]
    muted = any(mute.start < window.end and window.start < mute.end for mute in law.mutes)
    return len({piece.offset for piece in touched}) == 1 and not any(p.slope_ppm for p in touched) and not muted


def reach(law: Law, end: int) -> int:
    """How far into the source, counted from the segment's start, a stream is heard by ``end`` on its clock: the first
    sample that it has not heard of what lies ahead. A step up reaches further than the pictures do."""
    ends = [*(piece.start for piece in law.pieces[1:]), end]
    last = [(p, min(e, end) - 1) for p, e in zip(law.pieces, ends, strict=True) if p.start < end]
    return max(t + p.offset + (t - p.start) * p.slope_ppm // 1_000_000 for p, t in last) + 1


def write_clips(folder: Path, n_clips: int = 3, clip_s: int = 50, stream_s: int = 45) -> Manifest:
    """A manifest in ``folder`` over click-and-flash clips, really encoded: a stream of each has a fixed offset, others
    have the laws by turns. They begin at 2 s. Being synthetic, they are read in the process itself by one worker."""
    clips, segments = {}, []
    (folder / "media").mkdir(parents=True)
    for k in range(n_clips):
        name = f"clip{k}"
        path = folder / "media" / f"{name}.mp4"
        encode_clip(path, *click_and_flash(clip_s, seed=k))
        size = clip_s * FRAME_RATE_HZ, clip_s * SAMPLE_RATE_HZ
        clips[name] = ClipRecord(name, f"video{k}", path.name, media_sha256(path), *size)
        plain = SegmentRecord(f"{name} fixed", name, f"video{k}", ticks(2), ticks(0.4), 12)
        segments.append(plain)
        for law in list(SHARES)[k::n_clips]:
            segments.append(under(plain, draw_law(law, name, k, ticks(stream_s)), f"{name} {law}"))
    manifest = Manifest("clicks", "synthetic", "", "uniform", clips, tuple(segments), folder / "media")
    write_manifest(manifest, folder)
    return manifest
