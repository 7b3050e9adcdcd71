"""Plan a run: find the snapshots that the requested protocols need, before anything is decoded."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        return sum(self.n_of(clip_id) for clip_id in self.keys)

    def n_of(self, clip_id: str) -> int:
        """The number of snapshots to compute for a clip."""
        return self.keys.n[clip_id] if isinstance(self.keys, _Keys) else len(self.keys[clip_id])


def keys_of(protocol: Protocol, segment: SegmentRecord) -> list[SnapshotKey]:
    """The keys of a segment, one per iteration. ``UsageError`` if the picture windows do not start on frames."""
    if (segment.start + protocol.start_shift) % TICKS_PER_FRAME:
        first_s = seconds(segment.start + protocol.start_shift)
        raise UsageError(f"segment {segment.id}: its first window starts at {first_s:.5f} s, not on a frame (0.04 s)")
    stretch = protocol.stretch(segment) if protocol.frontend_scope == "stretch" else Window(NO_STRETCH, NO_STRETCH)
    first, shift, window = segment.start + protocol.start_shift, protocol.heard(segment), protocol.window
    starts = range(first, first + protocol.iterations * protocol.hop, protocol.hop)
    keys = [SnapshotKey(start, start + shift, *stretch, window) for start in starts]
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
    plain = [row for row, segment in enumerate(segments) if not segment.law]
    if plain:
        rows[plain] = np.array([keys_of(single, segments[row])[0].row for row in plain])[:, None]
        rows[plain, :, :2] += steps[:, None]
        if protocol.frontend_scope == "stretch":
            rows[plain, :, 3] = protocol.stretch(segments[plain[0]]).length  # that of all
    for row, segment in enumerate(segments):
        if segment.law:
            rows[row] = [key.row for key in keys_of(protocol, segment)]
    return rows


class _Keys(Mapping[str, tuple[SnapshotKey, ...]]):
    """Clip id -> its unique keys, sorted. Only their number is held, the keys are made anew each time they are asked
    for: those of a million segments would take gigabytes."""

    def __init__(self, wanted: Mapping[str, Sequence[tuple[Protocol, SegmentRecord]]]) -> None:
        self._wanted = wanted
        self.n = {clip_id: len(self._keys(clip_id)) for clip_id in wanted}

    def _keys(self, clip_id: str) -> set[SnapshotKey]:
        return {key for protocol, segment in self._wanted[clip_id] for key in keys_of(protocol, segment)}

    def __getitem__(self, clip_id: str) -> tuple[SnapshotKey, ...]:
        return tuple(sorted(self._keys(clip_id)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)


def plan(segments: Iterable[SegmentRecord], clips: Mapping[str, ClipRecord], protocols: Sequence[Protocol]) -> Plan:
    """All snapshots that ``protocols`` need, each once, by clip in the order of ``segments``.

    ``UsageError`` for a segment of an unknown clip or with windows that do not start on frames.
    """
    segments = tuple(segments)
    for segment in segments:
        if segment.clip_id not in clips:
            raise UsageError(f"segment {segment.id}: there is no clip {segment.clip_id!r}")
    supported: dict[Protocol, tuple[SegmentRecord, ...]] = {}
    unsupported: dict[Protocol, tuple[SegmentRecord, ...]] = {}
    wanted: dict[str, list[tuple[Protocol, SegmentRecord]]] = {segment.clip_id: [] for segment in segments}
    for protocol in protocols:
        fits = [protocol.supports(segment, clips[segment.clip_id]) for segment in segments]
        supported[protocol] = tuple(itertools.compress(segments, fits))
        unsupported[protocol] = tuple(segment for segment, fit in zip(segments, fits, strict=True) if not fit)
        for segment in supported[protocol]:
            wanted[segment.clip_id].append((protocol, segment))
    return Plan(
        keys=_Keys({clip_id: held for clip_id, held in wanted.items() if held}),
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
    work = [(0, share) for share in range(n)]  # a heap: of shares with equal work, the first
    sizes = {clip_id: plan.n_of(clip_id) for clip_id in plan.keys}
    for clip_id in sorted(sizes, key=lambda clip_id: (-sizes[clip_id], clip_id)):
        done, least = work[0]
        held[least].append(clip_id)
        heapq.heapreplace(work, (done + sizes[clip_id], least))
    return [frozenset(some) for some in held]
