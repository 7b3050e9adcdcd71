"""Offsets that change over any clips: ``avbench data dynamic`` and the built-in ``synthsync-dynamic``.

The clips stay as they are; a law says how each stream's offset runs (``avbench.protocol.laws``), and it is applied when
samples are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from avbench.data import synthsync
from avbench.protocol.laws import SHARES, draw_law, laws_in_turn
from avbench.protocol.manifest import Manifest
from avbench.protocol.offsets import nominal_starts
from avbench.protocol.rules import Protocol, dynamic
from avbench.ticks import TICKS_PER_FRAME, Tick, seconds, ticks
from avbench.types import ClipRecord, SegmentRecord, UsageError

NAME, SOURCE = "synthsync-dynamic", "synthsync-full"
SEED = 2026  # of its laws


@dataclass(frozen=True, slots=True)
class ChangingRules:
    """Which streams clips get and how their offsets run. ``laws``: names of ``laws.SHARES``; each gets its share.
    ``protocol`` says how long a stream is. ``UsageError`` for a start law or a limit that is none."""

    laws: tuple[str, ...] = tuple(SHARES)
    seed: int = 0
    start_law: str = "grid:10"
    limit: int | None = None  # only the first so many streams
    protocol: Protocol = dynamic()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        nominal_starts(self.start_law, 1)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit is {self.limit}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")
        laws_in_turn(self.laws, [], self.seed)  # refuses a name that is no law

    @property
    def length(self) -> Tick:
        """Ticks from a stream's start to the end of its last window."""
        return self.protocol.window + (self.protocol.iterations - 1) * self.protocol.hop


class Changing(NamedTuple):
    """A manifest with laws, and the ids of the clips that hold no stream."""

    manifest: Manifest
    too_short: list[str]


def changing(manifest: Manifest, rules: ChangingRules, name: str = "") -> Changing:
    """A manifest over the clips of ``manifest`` whose streams have laws (dynamic.md, sections 2 and 3).

    Streams begin where the start law says, but not before the clip holds any sound that an offset may ask for, so that
    every law fits every stream; one that would touch a gap is left out. A stream keeps its category where all segments
    that it overlaps agree on one. ``name``: of the data (empty: that of ``manifest`` with -dynamic).
    ``UsageError``: labels are hidden, no clip is long enough, or as ``laws_in_turn`` and ``draw_law``.
    """
    if manifest.labels_hidden:
        raise UsageError(f"{manifest.name} has hidden offsets, so no others can be imposed on its clips")
    # in the order of the segments, which a written manifest keeps; that of the clips it does not
    order = dict.fromkeys([*(s.clip_id for s in manifest.segments), *sorted(manifest.clips)])
    streams = [stream for name in order for stream in _streams(manifest, manifest.clips[name], rules)]
    used = {stream.clip_id for stream in streams}
    too_short = [name for name in manifest.clips if name not in used]
    if not streams:
        longest = max((clip.duration for clip in manifest.clips.values()), default=0)
        needed_s = seconds(rules.length + 2 * ticks(manifest.grid.max_offset_s))
        raise UsageError(
            f"no clip of {manifest.name} is long enough: {rules.protocol.iterations} windows need {needed_s:g} s "
            f"without gaps, the longest clip lasts {seconds(longest):g} s; try fewer --iterations"
        )
    streams = streams[: rules.limit]
    laws = laws_in_turn(rules.laws, [stream.id for stream in streams], rules.seed)
    segments = [_under_law(stream, laws[stream.id], manifest, rules) for stream in streams]
    used = {segment.clip_id for segment in segments}
    made = replace(
        manifest,
        name=name or f"{manifest.name}-dynamic",
        note=f"{manifest.note}{', ' if manifest.note else ''}offsets that change",
        offset_law="list",
        clips={name: clip for name, clip in manifest.clips.items() if name in used},
        segments=tuple(segments),
        sources={name: source for name, source in manifest.sources.items() if name in used},
    )
    return Changing(made, too_short)


def _streams(manifest: Manifest, clip: ClipRecord, rules: ChangingRules) -> Iterator[SegmentRecord]:
    """The streams of one clip, still without a law."""
    reach = ticks(manifest.grid.max_offset_s)
    earliest = -(-reach // TICKS_PER_FRAME) * TICKS_PER_FRAME
    inside = [segment for segment in manifest.segments if segment.clip_id == clip.id]
    for nominal in nominal_starts(rules.start_law, clip.duration):
        start = max(nominal, earliest)
        stream = SegmentRecord(
            id=f"{clip.id}@{seconds(start):.10g}",
            clip_id=clip.id,
            video_id=clip.video_id,
            start=start,
            offset=0,
            offset_class=manifest.grid.class_of(0.0),
            category=_category(inside, start, start + rules.length),
            channel=clip.channel,
            split=clip.split,
        )
        # with the sound as far away as an offset may ask for, on either side
        if all(rules.protocol.supports(replace(stream, offset=far), clip) for far in (-reach, reach)):
            yield stream


def _category(segments: Sequence[SegmentRecord], start: Tick, end: Tick) -> str:
    """What all segments that begin in the stream, or else all of the clip, agree on; "" if they do not."""
    here = {s.category for s in segments if start <= s.start < end} or {s.category for s in segments}
    return here.pop() if len(here) == 1 else ""


def _under_law(stream: SegmentRecord, law_name: str, manifest: Manifest, rules: ChangingRules) -> SegmentRecord:
    law = draw_law(law_name, stream.id, rules.seed, rules.length, manifest.grid)
    offset = law.pieces[0].offset
    return replace(stream, law=law, offset=offset, offset_class=manifest.grid.class_of(seconds(offset)))


def planned(split: str = "test") -> Manifest:
    """``synthsync-dynamic`` without its media: two streams of 99 s on each clip of ``synthsync-full``, as
    :func:`avbench.data.synthsync.planned`."""
    return _of(synthsync.planned(SOURCE, split))


def with_laws(manifest: Manifest) -> Manifest:
    """``manifest`` itself if its offsets change, else streams with laws on its clips, as ``synthsync-dynamic`` has them
    on those of ``synthsync-full``. Errors as :func:`changing`."""
    return manifest if manifest.changing else _of(manifest)


def _of(manifest: Manifest) -> Manifest:
    return changing(manifest, ChangingRules(seed=SEED), NAME if manifest.name == SOURCE else "").manifest
