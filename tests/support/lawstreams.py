"""Streams whose offset changes, for tests: segments under laws, and what laws say in plain whole numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from avbench.protocol.manifest import Manifest
from avbench.ticks import seconds
from avbench.types import Law, OffsetGrid, SegmentRecord, Window


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
