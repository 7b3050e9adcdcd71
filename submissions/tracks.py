"""Tracks: what can be submitted to. A track is a pinned manifest, a protocol, and labels that are public or private.

The labels of the public tracks follow from the SynthSync specification: no clip has to be made to check a submission.
A private ("blind") track is made by ``avbench leaderboard redraw``; what it is and how it is labelled is read from the
labels file that its maintainers keep, never from a submission.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from avbench.protocol.tracks import BLIND, TRACKS, Track
from avbench.results.truth import Truth
from avbench.submissions.format import TrackName, ValidationError, refuse, validated
from avbench.system.strict import Sha256, StrictPart, parse_json, read_bytes
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    from avbench.results.run import RunResult


MAX_LABELS_BYTES = 64 * 2**20


def find(name: str) -> Track:
    """A public track; ``ValidationError`` for any other name, with a word on blind ones."""
    if name in TRACKS:
        return TRACKS[name]
    if BLIND in name:
        raise refuse("track", f"{name} has private labels: give the maintainers' file with --labels")
    raise refuse("track", f"there is no track {name!r}; the public ones are {', '.join(TRACKS)}")


@lru_cache(maxsize=16)
def truth(track: Track) -> Truth:
    """The labels of a public track, from the specification of its data. ``UsageError`` if this avbench describes other
    data than the track pins."""
    from avbench.data import synthsync

    manifest = synthsync.planned(track.data, track.split)
    if manifest.sha256 != track.manifest_sha256:
        raise UsageError(
            f"track {track.name} pins manifest {track.manifest_sha256[:12]}, this avbench describes "
            f"{manifest.sha256[:12]}: use the version the track was made with"
        )
    segments = [s for s in manifest.segments if track.protocol.supports(s, manifest.clips[s.clip_id])]
    return replace(Truth.of(segments, len(manifest.segments)), sources=tuple(s.id for s in segments))


def common_segments(tracks: Sequence[Track]) -> tuple[str, ...]:
    """The segments that all of these public tracks score: what a curve over their hops may use."""
    shared = set.intersection(*(set(truth(track).segment_ids) for track in tracks))
    return tuple(name for name in truth(tracks[0]).segment_ids if name in shared)


def track_of_run(run: RunResult) -> Track | None:
    """The public track that a run was made for, by manifest hash and protocol; None if there is none."""
    for track in TRACKS.values():
        if track.manifest_sha256 == run.data.manifest_sha256 and run.protocol == track.protocol:
            return track
    return None


# -- private labels ----------------------------------------------------------------------------------------------------


class LabelRow(StrictPart):
    """One segment of a blind track: its opaque name, and what it is."""

    segment_id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    video_id: Annotated[str, Field(min_length=1, max_length=200)]
    category: Annotated[str, Field(max_length=60)]
    channel: Annotated[str, Field(max_length=60)]
    offset_ticks: int
    offset_class: Annotated[int, Field(ge=0, le=20)]


class Labels(StrictPart):
    """``labels.json``, kept by the maintainers: a blind track, its labels, and the seed they were drawn with.

    ``base``: the public track it was made of; the protocol is that track's.
    """

    schema_version: Literal[1] = 1
    track: TrackName
    base: TrackName
    manifest_sha256: Sha256
    signature: Annotated[str, Field(max_length=400)]
    seed: Annotated[int, Field(ge=0)]
    segments: Annotated[list[LabelRow], Field(min_length=1, max_length=10**6)]

    def to_json(self) -> str:
        return json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n"


def read_labels(path: Path | str) -> tuple[Track, Truth]:
    """The private track that a labels file describes, and its labels; ``UsageError`` if the file is not right."""
    path = Path(path)
    return _parse_labels(read_bytes(path, MAX_LABELS_BYTES), path)


@lru_cache(maxsize=4)
def _parse_labels(data: bytes, path: Path) -> tuple[Track, Truth]:
    """Many entries are checked against one file: the same bytes are read once."""
    try:
        labels = validated(Labels, parse_json(data, path))
    except ValidationError as error:
        raise UsageError(f"{path} is not a labels file: {str(error).removeprefix('ValidationError: ')}") from None
    base = TRACKS.get(labels.base)
    if base is None:
        raise UsageError(f"{path}: there is no track {labels.base!r} for it to be made of")
    if labels.signature != base.protocol.signature():
        raise UsageError(
            f"{path} was made for protocol {labels.signature}, {base.name} has {base.protocol.signature()}"
        )
    grid = OffsetGrid()
    for row in labels.segments:
        if grid.class_of(row.offset_ticks / 16_000) != row.offset_class:
            raise UsageError(f"{path}: segment {row.segment_id}: offset_class is not that of offset_ticks")
    ids = tuple(row.segment_id for row in labels.segments)
    if len(set(ids)) != len(ids):
        raise UsageError(f"{path} labels a segment twice")
    track = replace(
        base,
        name=labels.track,
        title=f"{base.title}, blind",
        data="",
        manifest_sha256=labels.manifest_sha256,
        labels="private",
    )
    return track, Truth(
        segment_ids=ids,
        labels=np.array([row.offset_class for row in labels.segments], np.int64),
        clusters=np.array([row.video_id for row in labels.segments]),
        categories=tuple(row.category for row in labels.segments),
        channels=tuple(row.channel for row in labels.segments),
        sources=tuple(row.source for row in labels.segments),
    )


def known(name: str, labels: Path | str | None) -> tuple[Track, Truth]:
    """Track and labels of a submission to ``name``; ``labels`` is used if it is the file of that track.

    ``ValidationError`` (field ``track``) if the name is that of no track that can be checked.
    """
    if labels is not None:
        track, answers = read_labels(labels)
        if track.name == name:
            return track, answers
        if name not in TRACKS:
            raise refuse("track", f"is {name}, but the labels file is of {track.name}")
    track = find(name)
    return track, truth(track)


def main_tracks() -> list[dict[str, Any]]:
    """What ``avbench submit tracks`` lists."""
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
