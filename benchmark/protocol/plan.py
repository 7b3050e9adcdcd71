"""Plan a run: find the snapshots that the requested protocols need, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from avbench.protocol.laws import inside, law_text
from avbench.protocol.rules import Protocol
from avbench.ticks import TICKS_PER_FRAME, Tick, seconds, ticks
from avbench.types import ClipRecord, Law, SegmentRecord, UsageError, Window

NO_STRETCH: Tick = -1


class SnapshotKey(NamedTuple):
    """Identifies one snapshot of a clip; all times in ticks on the clip's clock.

    ``picture`` and ``sound``: the starts of the two windows; ``window``: the length of both. ``stretch_start`` and
    ``stretch_length``: the sound out of which the front end cuts the window, both -1 if it sees the window only.
    ``law``: what the offset does inside the window, or inside the stretch if there is one (``law_text`` of
    ``laws.inside``); "" where it stays what it is.
    """

    picture: Tick
    sound: Tick
    stretch_start: Tick = NO_STRETCH
    stretch_length: Tick = NO_STRETCH
    window: Tick = ticks(5)
    law: str = ""

    @property
    def row(self) -> tuple[int, ...]:
        """The fields as whole numbers, the law as 63 bits of its hash (0: none)."""
        return (*self[:5], _law_number(self.law) if self.law else 0)

    @property
    def scope(self) -> Window:
        """The sound that the front end is given at once: the stretch, or the window alone."""
        if self.stretch_start == NO_STRETCH:
            return Window(self.sound, self.window)
        return Window(self.stretch_start, self.stretch_length)


@cache
def _law_number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Plan:
    """The snapshots to compute and the segments to score.

    ``keys``: clip id -> its unique keys over all protocols, sorted; a clip without a supported segment is absent.
    ``supported`` and ``unsupported``: protocol -> its segments, in the order given. ``n_naive``: the number of
    snapshots if every protocol computed its own.
    """

    keys: Mapping[str, tuple[SnapshotKey, ...]]
    supported: Mapping[Protocol, tuple[SegmentRecord, ...]]
    unsupported: Mapping[Protocol, tuple[SegmentRecord, ...]]
    n_naive: int

    @property
    def n_unique(self) -> int:
        """The number of snapshots to compute, each counted once."""
        return sum(map(len, self.keys.values()))


def keys_of(protocol: Protocol, segment: SegmentRecord) -> list[SnapshotKey]:
    """The keys of a segment, one per iteration. ``UsageError`` if the picture windows do not start on frames."""
    if (segment.start + protocol.start_shift) % TICKS_PER_FRAME:
        first_s = seconds(segment.start + protocol.start_shift)
        raise UsageError(f"segment {segment.id}: its first window starts at {first_s:.5f} s, not on a frame (0.04 s)")
    stretch = protocol.stretch(segment) if protocol.frontend_scope == "stretch" else Window(NO_STRETCH, NO_STRETCH)
    windows = zip(protocol.picture_windows(segment), protocol.sound_windows(segment), strict=True)
    keys = [SnapshotKey(p.start, s.start, stretch.start, stretch.length, p.length) for p, s in windows]
    return [_under_law(key, segment, segment.law) for key in keys] if segment.law else keys


def _under_law(key: SnapshotKey, segment: SegmentRecord, law: Law) -> SnapshotKey:
    """The key of the same picture window with the sound that the law gives it: that of a fixed offset, if the law is
    constant inside the window (or inside the stretch that it is cut out of)."""
    shown = Window(key.scope.start - segment.offset, key.scope.length)  # the pictures that its sound belongs to
    offset, within = inside(law, Window(shown.start - segment.start, shown.length))
    moved = key._replace(sound=key.picture + offset, law=law_text(within) if within else "")
    return moved if key.stretch_start == NO_STRETCH else moved._replace(stretch_start=shown.start + offset)


def key_rows(protocol: Protocol, segments: Sequence[SegmentRecord]) -> np.ndarray:
    """The ``row`` of the keys of all ``segments``: (N segments, W iterations, 6) int64. Errors as ``keys_of``."""
    rows = np.empty((len(segments), protocol.iterations, len(SnapshotKey._fields)), np.int64)
    steps, single = np.arange(protocol.iterations) * protocol.hop, replace(protocol, iterations=1)
    for row, segment in zip(rows, segments, strict=True):
        if segment.law:
            row[:] = [key.row for key in keys_of(protocol, segment)]
            continue
        row[:] = keys_of(single, segment)[0].row
        row[:, 0] += steps
        row[:, 1] += steps
        if protocol.frontend_scope == "stretch":
            row[:, 3] = protocol.stretch(segment).length
    return rows


def plan(segments: Iterable[SegmentRecord], clips: Mapping[str, ClipRecord], protocols: Sequence[Protocol]) -> Plan:
    """All snapshots that ``protocols`` need, each once, by clip in the order of ``segments``.

    ``UsageError`` for a segment of an unknown clip or with windows that do not start on frames.
    """
    segments = tuple(segments)
    for segment in segments:
        if segment.clip_id not in clips:
            raise UsageError(f"segment {segment.id}: there is no clip {segment.clip_id!r}")
    supported = {p: tuple(s for s in segments if p.supports(s, clips[s.clip_id])) for p in protocols}
    unsupported = {p: tuple(s for s in segments if not p.supports(s, clips[s.clip_id])) for p in protocols}
    wanted: dict[str, set[SnapshotKey]] = {segment.clip_id: set() for segment in segments}
    for protocol, held in supported.items():
        for segment in held:
            wanted[segment.clip_id].update(keys_of(protocol, segment))
    return Plan(
        keys={clip_id: tuple(sorted(keys)) for clip_id, keys in wanted.items() if keys},
        supported=supported,
        unsupported=unsupported,
        n_naive=sum(len(held) * protocol.iterations for protocol, held in supported.items()),
    )


def shares(plan: Plan, n: int) -> list[frozenset[str]]:
    """The clips of ``plan`` in ``n`` shares of about equal work: the clip with the most snapshots first, each to the
    share that has the least. The same plan gives the same shares everywhere, whatever is stored already."""
    if n < 1:
        raise UsageError(f"a run is shared by {n} processes; it must be at least 1")
    held: list[list[str]] = [[] for _ in range(n)]
    work = [0] * n
    for clip_id in sorted(plan.keys, key=lambda clip_id: (-len(plan.keys[clip_id]), clip_id)):
        least = work.index(min(work))
        held[least].append(clip_id)
        work[least] += len(plan.keys[clip_id])
    return [frozenset(some) for some in held]
