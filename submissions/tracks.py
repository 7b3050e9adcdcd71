"""The tracks of the leaderboard: each is a pinned manifest, a protocol, and labels that are public or private.

The labels of the public tracks follow from the SynthSync specification, so checking a submission needs no clip.
A private ("blind") track is made by ``avbench leaderboard redraw``; its definition and labels are read from the labels
file that its maintainers keep, never from a submission.
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
from avbench.system.strict import Many, Sha256, StrictPart, parse_json, read_bytes
from avbench.ticks import seconds
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    from avbench.results.run import RunResult


MAX_LABELS_BYTES = 64 * 2**20


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
    from avbench.data import synthsync

    manifest = synthsync.planned(track.data, track.split)
    if manifest.sha256 != track.manifest_sha256:
        raise UsageError(
            f"track {track.name} pins manifest {track.manifest_sha256[:12]}, but this avbench makes "
            f"{manifest.sha256[:12]}: use the version that the track was made with"
        )
    segments = [s for s in manifest.segments if track.protocol.supports(s, manifest.clips[s.clip_id])]
    return replace(Truth.of(segments, len(manifest.segments)), sources=tuple(s.id for s in segments))


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


class LabelRow(StrictPart):
    """One segment of a blind track: its opaque name and its labels. ``source``: the public segment that it shows."""

    segment_id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[str, Field(min_length=1, max_length=200)]
    video_id: Annotated[str, Field(min_length=1, max_length=200)]
    category: Annotated[str, Field(max_length=60)]
    channel: Annotated[str, Field(max_length=60)]
    offset_ticks: int
    offset_class: Annotated[int, Field(ge=0, le=20)]


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
        return json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n"


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
        raise UsageError(f"{path} is not a labels file: {str(error).removeprefix('ValidationError: ')}") from None
    base = TRACKS.get(labels.base)
    if base is None:
        raise UsageError(f"{path}: its base: there is no track {labels.base!r}")
    if labels.signature != base.protocol.signature():
        raise UsageError(
            f"{path} was made for protocol {labels.signature}, but {base.name} has {base.protocol.signature()}"
        )
    grid = OffsetGrid()
    for row in labels.segments:
        if grid.class_of(seconds(row.offset_ticks)) != row.offset_class:
            raise UsageError(f"{path}: segment {row.segment_id}: offset_class does not match offset_ticks")
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
    return track, Truth(
        segment_ids=ids,
        labels=np.array([row.offset_class for row in labels.segments], np.int64),
        clusters=np.array([row.video_id for row in labels.segments]),
        categories=tuple(row.category for row in labels.segments),
        channels=tuple(row.channel for row in labels.segments),
        sources=tuple(row.source for row in labels.segments),
        offsets=np.array([row.offset_ticks for row in labels.segments], np.int64),
    )


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
