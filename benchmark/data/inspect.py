"""Statistics of a manifest, and checks of its media against it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from avbench.data.apart import MediaFile, guarded, read_apart
from avbench.data.media import media_sha256
from avbench.data.probing import probe
from avbench.protocol.laws import SHARES
from avbench.protocol.manifest import Manifest, check
from avbench.system.paths import shown
from avbench.system.progress import ItemProgress
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, seconds, ticks
from avbench.types import UNSEEN_SHA256, ClipRecord, MediaError, offset_in_words

SUPPORT_HOPS_S = (1, 2, 3, 4)
SUPPORT_WINDOWS = (2, 4, 6, 8, 12, 18, 24, 36, 48)
TOP_EVENTS = 12  # of AudioSet's 527 classes a data set may have hundreds; figures and texts show this many
AUDIOSET_CREDIT = "event classes: AudioSet, CC BY 4.0"


def info(manifest: Manifest) -> dict[str, Any]:
    """Statistics as plain data. Hours are of clips; ``support[hop_s][n_windows]`` counts the segments whose clip has
    room for that many 5 s windows of the streaming protocol; ``class_histogram`` has one count per offset class.
    ``events`` comes from :func:`event_counts`, ``overview``, ``by_channel``, ``offsets`` and ``laws`` from the
    functions of these names; ``unseen_media`` counts clips whose file was missing when the manifest was written
    (their length is taken from their name)."""
    segments, clips = manifest.segments, manifest.clips.values()
    classes = Counter(s.offset_class for s in segments)
    hashes = Counter(c.sha256 for c in clips)
    rooms = _rooms(manifest)
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "note": manifest.note,
        "offset_law": manifest.offset_law,
        "sha256": manifest.sha256,
        "media_root": str(manifest.media_root),
        "n_clips": len(clips),
        "n_videos": len({c.video_id for c in clips}),
        "n_segments": len(segments),
        "hours": seconds(sum(c.duration for c in clips)) / 3600,
        "clip_s": _range([seconds(c.duration) for c in clips]),
        "splits": {
            name: {
                "clips": sum(c.split == name for c in clips),
                "segments": sum(s.split == name for s in segments),
                "hours": seconds(sum(c.duration for c in clips if c.split == name)) / 3600,
            }
            for name in manifest.splits
        },
        "categories": counts_of(s.category for s in segments),
        "channels": counts_of(s.channel for s in segments),
        "events": event_counts(manifest),
        "class_histogram": [classes[c] for c in range(manifest.grid.n_classes)],
        "support": {
            hop: {n: int((rooms >= (5 + (n - 1) * hop) * TICKS_PER_S).sum()) for n in SUPPORT_WINDOWS}
            for hop in SUPPORT_HOPS_S
        },
        "overview": overview(manifest),
        "by_channel": by_channel(manifest),
        "offsets": offsets(manifest),
        "laws": laws(manifest),
        "duplicate_media": sum(n - 1 for sha256, n in hashes.items() if sha256 != UNSEEN_SHA256),
        "unseen_media": hashes[UNSEEN_SHA256],
        "warnings": [
            manifest.by_name(f"clip {clip_id}: {text}")
            for clip_id, source in manifest.sources.items()
            for text in source.get("warnings", ())
        ],
    }


def overview(manifest: Manifest) -> list[dict[str, Any]]:
    """Rows shaped like the paper's Table 1 (a data set in one line): one per split and, if there are several, "all".

    ``split, channels, videos, clips, segments`` (counts), ``hours`` (of clips), ``clip_s`` and ``segments_per_clip``
    (means), ``in_sync`` (share of segments with offset class "in sync"), ``annotated`` (share with a category)."""
    rows = []
    for name in (*manifest.splits, *(("all",) if len(manifest.splits) > 1 else ())):
        segments = [s for s in manifest.segments if name in (s.split, "all")]
        used = {s.clip_id for s in segments}
        clips = [c for c in manifest.clips.values() if name in (c.split, "all") or c.id in used]
        hours = seconds(sum(c.duration for c in clips)) / 3600
        middle = manifest.grid.class_of(0.0)
        rows.append(
            {
                "split": name,
                "channels": len({c.channel for c in clips if c.channel}),
                "videos": len({c.video_id for c in clips}),
                "clips": len(clips),
                "segments": len(segments),
                "hours": hours,
                "clip_s": hours * 3600 / len(clips) if clips else 0.0,
                "segments_per_clip": len(segments) / len(clips) if clips else 0.0,
                "in_sync": _share(sum(s.offset_class == middle for s in segments), len(segments)),
                "annotated": _share(sum(bool(s.category) for s in segments), len(segments)),
            }
        )
    return rows


def by_channel(manifest: Manifest) -> list[dict[str, Any]]:
    """Rows shaped like the paper's Table 2: ``channel, videos, clips, hours, segments``, by name, and a "total"."""
    clips, segments = list(manifest.clips.values()), Counter(s.channel for s in manifest.segments)

    def row(name: str, inside: list[ClipRecord], n_segments: int) -> dict[str, Any]:
        return {
            "channel": name,
            "videos": len({c.video_id for c in inside}),
            "clips": len(inside),
            "hours": seconds(sum(c.duration for c in inside)) / 3600,
            "segments": n_segments,
        }

    names = sorted({c.channel for c in clips} | set(segments))
    rows = [row(name or "(none)", [c for c in clips if c.channel == name], segments[name]) for name in names]
    return [*rows, row("total", clips, len(manifest.segments))]


def offsets(manifest: Manifest) -> list[dict[str, Any]]:
    """The histogram of the paper's Figure 1: one row per offset class, ``offset_s, in_words, segments, share``."""
    classes = Counter(s.offset_class for s in manifest.segments)
    grid = manifest.grid
    return [
        {
            "offset_s": grid.offset_of(c),
            "in_words": offset_in_words(grid.offset_of(c)),
            "segments": classes[c],
            "share": _share(classes[c], len(manifest.segments)),
        }
        for c in range(grid.n_classes)
    ]


def law_counts(manifest: Manifest) -> dict[str, int]:
    """Law -> streams that it was drawn for, in the order of ``SHARES``; empty where offsets are fixed."""
    drawn = Counter(s.law.name for s in manifest.segments if s.law)
    return {name: drawn[name] for name in sorted(drawn, key=[*SHARES, *sorted(drawn)].index)}


def laws(manifest: Manifest) -> list[dict[str, Any]]:
    """One row per law: ``law, streams, changes`` (steps and ends of slides, all streams together), ``step_s`` (their
    mean size), ``offset_s`` (smallest and largest offset with which a piece begins), ``slope_ppm``, ``muted_s`` (all
    streams together)."""
    rows = []
    for name, n in law_counts(manifest).items():
        drawn = [s.law for s in manifest.segments if s.law and s.law.name == name]
        pairs = [pair for law in drawn for pair in itertools.pairwise(law.pieces)]
        steps = [abs(after.offset - before.offset) for before, after in pairs if after.offset != before.offset]
        offsets = [piece.offset for law in drawn for piece in law.pieces]
        rows.append(
            {
                "law": name,
                "streams": n,
                "changes": len(steps),
                "step_s": seconds(sum(steps)) / len(steps) if steps else 0.0,
                "offset_s": [seconds(min(offsets)), seconds(max(offsets))],
                "slope_ppm": sorted({piece.slope_ppm for law in drawn for piece in law.pieces} - {0}),
                "muted_s": seconds(sum(mute.length for law in drawn for mute in law.mutes)),
            }
        )
    return rows


def event_counts(manifest: Manifest) -> dict[str, int]:
    """Audio event -> segments that have it, the most frequent first."""
    return counts_of(event for s in manifest.segments for event in set(s.events))


def event_credit(events: Iterable[str]) -> str:
    """What the licence of AudioSet asks to be said beside these event names; empty if none of them is AudioSet's.

    Manifests do not say who named their events. All AudioSet classes begin with a capital letter and avbench's own
    events with a small one, so a plug-in's own names should, too."""
    return AUDIOSET_CREDIT if any(event[:1].isupper() for event in events) else ""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _rooms(manifest: Manifest) -> np.ndarray:
    """(n_segments,) int64 ticks from a segment's start to where its picture or its shifted sound runs out."""
    rooms = []
    for s in manifest.segments:
        clip = manifest.clips[s.clip_id]
        fits = s.start >= 0 and s.start + s.offset >= 0
        room = min(clip.n_frames * TICKS_PER_FRAME - s.start, clip.n_samples - s.start - s.offset)
        rooms.append(room if fits else 0)
    return np.array(rooms, np.int64)


def _range(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def counts_of(values: Any) -> dict[str, int]:
    """Counts, most frequent first, names breaking ties."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def verify(
    manifest: Manifest, decode: bool = True, progress: ItemProgress | None = None, workers: int = 1
) -> list[str]:
    """Every problem found, one line each; an empty list if everything matches the manifest.

    Checks the tables against each other, every media file's hash and, with ``decode``, its frame and sample counts by
    decoding all of it; also that each segment's first window lies inside its clip (except for published lists: there
    it is not the manifest's fault, and a run lists the segments that it cannot use).
    """
    problems = check(manifest) + media_problems(manifest, manifest.clips.values(), decode, progress, workers)
    known = manifest.kind != "realsync" and all(s.clip_id in manifest.clips for s in manifest.segments)
    rooms = _rooms(manifest) if known else np.zeros(0)
    problems += [
        f"segment {s.id}: its first 5 s window (start {seconds(s.start):g} s, offset {s.offset_s:g} s) leaves the clip"
        for s, room in zip(manifest.segments, rooms, strict=False)
        if room < ticks(5)
    ]
    return problems


def media_problems(
    manifest: Manifest,
    clips: Collection[ClipRecord],
    decode: bool = True,
    progress: ItemProgress | None = None,
    workers: int = 1,
) -> list[str]:
    """The problems with the media of some of a manifest's clips, one line each, in the order of the clips; the media
    part of :func:`verify`. Files are read in ``workers`` processes: one on which its decoder dies costs no other."""
    found: dict[str, list[str]] = {clip.id: [] for clip in clips}
    files = []
    for clip in clips:
        try:
            files.append(MediaFile(clip.id, manifest.clip_path(clip), (clip, decode)))
        except MediaError as error:
            found[clip.id] = [str(error)]
    first = len(clips) - len(files)
    if progress:
        progress(first, len(clips), "")
    # a hash takes no decoder
    read = read_apart(_problems, files, workers) if decode else ((file, guarded(_problems, file)) for file in files)
    for done, (file, problems) in enumerate(read, first + 1):
        found[file.clip_id] = [str(problems)] if isinstance(problems, MediaError) else problems
        if progress:
            progress(done, len(clips), file.clip_id)
    return [manifest.by_name(line) for lines in found.values() for line in lines]


def _problems(file: MediaFile) -> list[str]:
    clip, decode = file.known
    if media_sha256(file.path) != clip.sha256:
        # no further checks of a changed file: its labels no longer apply
        name = shown(file.path)
        return [f"clip {clip.id}: {name} has changed (other sha256); restore it or rebuild the manifest"]
    if not decode:
        return []
    said = clip.reading
    # a manifest that names no track means the first one
    as_said = replace(said, gaps=(), video_track=said.video_track or 1, audio_track=said.audio_track or 1)
    found = probe(file.path, clip.id, as_said)
    gaps = [
        f"clip {clip.id}: the {gap.kind} is missing from {seconds(gap.start):.2f} to {seconds(gap.end):.2f} s, the "
        "manifest does not say so"
        for gap in found.reading.gaps
        if gap not in said.gaps
    ]
    return gaps + [
        f"clip {clip.id}: {what} is {has}, the manifest says {says}"
        for what, has, says in (
            ("n_frames", found.n_frames, clip.n_frames),
            ("n_samples", found.n_samples, clip.n_samples),
        )
        if has < says or (what == "n_frames" and has != says)
    ]
