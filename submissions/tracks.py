"""The tracks of the leaderboard: each is a pinned manifest, a protocol, and labels that are public or private.

The labels of the public tracks follow from the SynthSync specification, so checking a submission needs no clip.
A private ("blind") track is made by ``avbench leaderboard redraw``; its definition and labels are read from the labels
file that its maintainers keep, never from a submission.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from avbench.protocol.laws import extremes, law_of
from avbench.protocol.tracks import BLIND, TRACKS, Track
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.truth import Truth
from avbench.scoring.dynamic import HEADLINE, HEADLINE_SHOWN, SHOWN
from avbench.scoring.metrics import METRICS, Column
from avbench.submissions.format import TrackName, ValidationError, refuse, validated
from avbench.system.strict import Many, Sha256, StrictPart, parse_json, read_bytes
from avbench.ticks import seconds, ticks
from avbench.types import Law, SegmentRecord, UsageError

if TYPE_CHECKING:
    from avbench.results.run import RunResult


MAX_LABELS_BYTES = 64 * 2**20
MAX_LAW_NUMBER = 2**31  # ticks or ppm: a day and a half


def find(name: str) -> Track:
    """A public track; ``ValidationError`` for any other name, with advice for blind ones."""
    if name in TRACKS:
        return TRACKS[name]
    if BLIND in name:
        raise refuse("track", f"{name} has private labels: give the maintainers' labels file with --labels")
    raise refuse("track", f"there is no track {name!r}; the public tracks are {', '.join(TRACKS)}")


@lru_cache(maxsize=16)
def truth(track: Track) -> Truth:
    """The labels of a public track, from the specification of its data. ``UsageError`` if this version of avbench makes
    other data than the track pins."""
    from avbench.data.opening import planned

    manifest = planned(track.data, track.split)
    if manifest.sha256 != track.manifest_sha256:
        raise UsageError(
            f"track {track.name} pins manifest {track.manifest_sha256[:12]}, but this avbench makes "
            f"{manifest.sha256[:12]}: use the version that the track was made with"
        )
    segments = [s for s in manifest.segments if track.protocol.supports(s, manifest.clips[s.clip_id])]
    answers = Truth.of(segments, len(manifest.segments), track.protocol)
    return replace(answers, sources=tuple(s.id for s in segments))


@lru_cache(maxsize=4)
def window_truth(track: Track, answers: Truth) -> WindowTruth | None:
    """What is so in every window of a track of offsets that change, rows as in ``answers``; None of any other track."""
    return WindowTruth.of(segments_of(answers), track.protocol) if track.changing else None


def segments_of(answers: Truth) -> list[SegmentRecord]:
    """Segments with these labels and laws, of which no place in a clip is known."""
    laws = answers.laws or (None,) * len(answers)
    return [
        SegmentRecord(name, video, video, 0, law.pieces[0].offset if law else 0, int(label), law=law)
        for name, video, label, law in zip(answers.segment_ids, answers.clusters, answers.labels, laws, strict=True)
    ]


def measures(track: Track) -> Mapping[str, Column]:
    """How the scores of a track are named and shown: of every track those of the last window; where offsets change,
    also those of all windows, and the headline, which ranks."""
    return {**METRICS, **({**SHOWN, HEADLINE: HEADLINE_SHOWN} if track.changing else {})}


def ranked_by(track: Track) -> str:
    """The one of ``measures`` that ranks the entries of a track."""
    return HEADLINE if track.changing else "map"


def common_segments(tracks: Sequence[Track]) -> tuple[str, ...]:
    """The segments that all of these public tracks score, in the first track's order; for curves over their hops."""
    shared = set.intersection(*(set(truth(track).segment_ids) for track in tracks))
    return tuple(name for name in truth(tracks[0]).segment_ids if name in shared)


def track_of_run(run: RunResult) -> Track | None:
    """The public track with the run's manifest hash and protocol; None if there is none."""
    for track in TRACKS.values():
        if track.manifest_sha256 == run.data.manifest_sha256 and run.protocol == track.protocol:
            return track
    return None


# -- private labels ----------------------------------------------------------------------------------------------------


def _law(text: str) -> str:
    law = law_of(text)
    if any(abs(number) > MAX_LAW_NUMBER for row in (*law.pieces, *law.mutes) for number in row):
        raise ValueError("has a number that no law has")
    return text


class LabelRow(StrictPart):
    """One segment of a blind track: its opaque name and its labels. ``source``: the public segment that it shows.
    ``law``: how its offset runs, as in a manifest, where it may change; the offset is then that of the beginning."""

    segment_id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    video_id: Annotated[str, Field(min_length=1, max_length=200)]
    category: Annotated[str, Field(max_length=60)]
    channel: Annotated[str, Field(max_length=60)]
    offset_ticks: int
    offset_class: Annotated[int, Field(ge=0, le=20)]
    law: Annotated[str, Field(max_length=50_000), AfterValidator(_law)] | None = None


class Labels(StrictPart):
    """``labels.json``, kept by the maintainers: a blind track, its labels, and the seed they were drawn with.

    ``base``: the public track that it was made from and shares its protocol with.
    """

    schema_version: Literal[1] = 1
    track: TrackName
    base: TrackName
    manifest_sha256: Sha256
    signature: Annotated[str, Field(max_length=400)]
    seed: Annotated[int, Field(ge=0)]
    segments: Annotated[Many[LabelRow], Field(min_length=1, max_length=10**6)]

    def to_json(self) -> str:
        """The text of ``labels.json``: sorted keys, final newline; equal labels give equal text."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, indent=1) + "\n"


def read_labels(path: Path | str) -> tuple[Track, Truth]:
    """The private track that a labels file describes, and its labels; ``UsageError`` if the file is not valid."""
    path = Path(path)
    return _parse_labels(read_bytes(path, MAX_LABELS_BYTES), path)


@lru_cache(maxsize=4)
def _parse_labels(data: bytes, path: Path) -> tuple[Track, Truth]:
    """Cached, because many entries are checked against the same file."""
    try:
        labels = validated(Labels, parse_json(data, path))
    except ValidationError as error:
        raise UsageError(f"{path} is not a labels file: {error!s}") from None
    base = TRACKS.get(labels.base)
    if base is None:
        raise UsageError(f"{path}: its base: there is no track {labels.base!r}")
    if labels.signature != base.protocol.signature():
        raise UsageError(
            f"{path} was made for protocol {labels.signature}, but {base.name} has {base.protocol.signature()}"
        )
    for row in labels.segments:
        problem = _row_problem(row, base)
        if problem:
            raise UsageError(f"{path}: segment {row.segment_id}: {problem}")
    ids = tuple(row.segment_id for row in labels.segments)
    if len(set(ids)) != len(ids):
        raise UsageError(f"{path} has two labels for one segment")
    track = replace(
        base,
        name=labels.track,
        title=f"{base.title}, blind",
        data="",
        manifest_sha256=labels.manifest_sha256,
        labels="private",
    )
    segments = [
        SegmentRecord(
            row.segment_id,
            row.segment_id,
            row.video_id,
            0,
            row.offset_ticks,
            row.offset_class,
            row.category,
            channel=row.channel,
            law=_law_of(row),
        )
        for row in labels.segments
    ]
    return track, replace(Truth.of(segments, 0, track.protocol), sources=tuple(row.source for row in labels.segments))


def _row_problem(row: LabelRow, base: Track) -> str:
    """What is wrong with one label; empty if nothing is."""
    grid, law, protocol = base.protocol.grid, _law_of(row), base.protocol
    if grid.class_of(seconds(row.offset_ticks)) != row.offset_class:
        return "offset_class does not match offset_ticks"
    if base.changing != (law is not None):
        return f"track {base.name} {'needs a' if base.changing else 'has no'} law"
    if law is None:
        return ""
    if law.pieces[0].offset != row.offset_ticks:
        return "its law does not begin with offset_ticks"
    length = protocol.window + (protocol.iterations - 1) * protocol.hop
    if max(map(abs, extremes(law, length))) > ticks(grid.max_offset_s):
        return f"its law leaves the offsets within {grid.max_offset_s:g} s"
    return ""


def _law_of(row: LabelRow) -> Law | None:
    return None if row.law is None else law_of(row.law)


def known(name: str, labels: Path | str | None) -> tuple[Track, Truth]:
    """Track and labels for a submission to track ``name``; ``labels`` is used if it is the labels file of that track.

    ``ValidationError`` (field ``track``) if there is no such track or its labels are missing.
    """
    if labels is not None:
        track, answers = read_labels(labels)
        if track.name == name:
            return track, answers
        if name not in TRACKS:
            raise refuse("track", f"is {name}, but the labels file is for {track.name}")
    track = find(name)
    return track, truth(track)


def main_tracks() -> list[dict[str, Any]]:
    """The rows of ``avbench submit tracks``: the public tracks at every hop."""
    return [
        {
            "name": track.name,
            "title": track.title,
            "segments": len(truth(track).segment_ids),
            "signature": track.signature,
            "labels": track.labels,
            "command": track.command,
        }
        for track in TRACKS.values()
    ]
