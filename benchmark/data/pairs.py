"""Pairs for the question of AV-SyncBench (2026): which of two streams with the same pictures is in sync?

For every stream of a manifest there is one with its sound as the media have it (offset 0: the media are taken to be in
sync, whatever offset the manifest imposes), and for every shift two with the sound moved, early and late. All read the
same pictures; nothing is copied. ``avbench.scoring.pairwise`` scores them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, seconds, ticks
from avbench.types import SegmentRecord, UsageError

SHIFTS_S = (0.05, 0.1, 0.2, 0.3, 0.5)  # of AV-SyncBench


def shifts_of(values_s: Sequence[float], most_s: float) -> list[Tick]:
    """Shifts in seconds -> in ticks, ascending, each once. ``UsageError`` unless each is above 0, at most ``most_s``,
    and a whole number of ticks of 1/16000 s."""
    found = set()
    for value in values_s:
        if not math.isfinite(value) or not 0 < value <= most_s or abs(ticks(value) - value * TICKS_PER_S) > 1e-6:
            raise UsageError(
                f"shift {value:g} s: it must be above 0, at most {most_s:g} s, and a multiple of 1/16000 s"
            )
        found.add(ticks(value))
    if not found:
        raise UsageError("there is no shift; give seconds such as 0.05,0.1,0.2,0.3,0.5")
    return sorted(found)


def make_pairs(
    manifest: Manifest,
    shifts_s: Sequence[float] = SHIFTS_S,
    *,
    limit: int | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    name: str = "",
) -> tuple[Manifest, list[str]]:
    """A manifest with the pairs of the streams of ``manifest``, and the ids of the streams that have no room for them.

    A stream begins where it did, or at the first frame from which the latest sound has room; streams that so come to
    lie on each other are one. ``limit``: only so many streams, drawn with ``seed``. ``protocol``: the windows that must
    fit under every shift (None: one of the usual length). ``UsageError``: hidden labels, no stream with room, a wrong
    shift or limit.
    """
    if manifest.labels_hidden:
        raise UsageError(f"the labels of {manifest.name} are hidden: its sound may be shifted, so it makes no pairs")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be at least 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be 0 or more")
    shifts = shifts_of(shifts_s, manifest.grid.max_offset_s)
    protocol = protocol or Protocol(iterations=1)
    first = -(-shifts[-1] // TICKS_PER_FRAME) * TICKS_PER_FRAME - min(protocol.start_shift, 0)
    originals: dict[tuple[str, Tick], SegmentRecord] = {}
    for segment in manifest.segments:
        start = max(segment.start, first)
        plain = replace(segment, start=start, offset=0, offset_class=manifest.grid.class_of(0.0), law=None, pair_of="")
        originals.setdefault((segment.clip_id, start), replace(plain, id=f"{segment.id}~original"))
    groups = [[original, *_shifted(original, shifts, manifest)] for original in originals.values()]
    fits = [all(protocol.supports(s, manifest.clips[s.clip_id]) for s in group) for group in groups]
    short = [group[0].id.removesuffix("~original") for group, fit in zip(groups, fits, strict=True) if not fit]
    groups = _drawn([group for group, fit in zip(groups, fits, strict=True) if fit], limit, seed)
    if not groups:
        raise UsageError(f"no stream of {manifest.name} has room for {protocol.iterations} windows under every shift")
    used = {group[0].clip_id for group in groups}
    made = replace(
        manifest,
        name=name or f"{manifest.name}-pairs",
        note=manifest.note if manifest.kind == "synthetic" else f"streams of {manifest.name}, in sync and shifted",
        offset_law="list",
        clips={key: clip for key, clip in manifest.clips.items() if key in used},
        segments=tuple(segment for group in groups for segment in group),
        sources={key: source for key, source in manifest.sources.items() if key in used},
    )
    return made, short


def _shifted(original: SegmentRecord, shifts: Sequence[Tick], manifest: Manifest) -> list[SegmentRecord]:
    source = original.id.removesuffix("~original")
    return [
        replace(
            original,
            id=f"{source}~{seconds(offset):+g}s",
            offset=offset,
            offset_class=manifest.grid.class_of(seconds(offset)),
            pair_of=original.id,
        )
        for shift in shifts
        for offset in (shift, -shift)
    ]


def _drawn(groups: list[list[SegmentRecord]], limit: int | None, seed: int) -> list[list[SegmentRecord]]:
    """``limit`` of the groups in their order; which ones depends on the seed and their names only."""
    if limit is None or limit >= len(groups):
        return groups
    keys = [hashlib.sha256(f"avbench pairs {seed} {group[0].id}".encode()).digest() for group in groups]
    kept = sorted(sorted(range(len(groups)), key=keys.__getitem__)[:limit])
    return [groups[place] for place in kept]
