"""What an import says of the lists: counts, classes, leaks, and which segments have room for how many windows."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from avbench.data.inspect import SUPPORT_WINDOWS
from avbench.data.realsync.entries import Entry, PublishedList, is_on_grid
from avbench.data.realsync.measuring import Measured
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S

SUPPORT_HOPS_S = (1, 2, 3, 4)


def report(
    published: Iterable[PublishedList],
    seen: Mapping[str, Measured],
    refused: Mapping[str, str],
    others: list[str],
    media: str | None,
) -> dict[str, Any]:
    """Statistics of the lists, as plain data.

    ``lists[NAME]``: counts, ``classes`` (their number), ``max_offset_s``, ``class_histogram`` (counts) and
    ``class_prior`` (shares) of each class, ``channels``, ``duplicates``, ``support`` (rule -> hop in s -> windows ->
    segments whose clip holds them), ``media`` (clips seen, missing, refused). ``overlaps``: pairs of lists that share
    videos or segments. ``warnings``: lines for people.
    """
    published = list(published)
    lists = {one.name: _report_list(one, seen, refused, media) for one in published}
    overlaps = [_overlap(a, b) for a, b in itertools.combinations(published, 2)]
    overlaps = [o for o in overlaps if o["videos"]]
    by_name = {one.name: one for one in published}
    warnings = [text for one in published for text in one.warnings]
    warnings += [text for o in overlaps for text in [_leak(o, *(by_name[name] for name in o["lists"]))] if text]
    return {"lists": lists, "overlaps": overlaps, "warnings": warnings, "other_files": others, "media": media}


def _leak(overlap: Mapping[str, Any], a: PublishedList, b: PublishedList) -> str:
    """What an overlap means, in words; empty if the lists are of the same clips (one of 3 classes and one of 21)."""
    if a.family == b.family and a.splits == b.splits:
        return ""
    return (
        f"{a.name} and {b.name} share {overlap['videos']} videos and {overlap['segments']} segments"
        f"{' with other offsets' if overlap['other_offsets'] else ''}: "
        + (
            "never train or select on one and report on the other"
            if a.family != b.family
            else "these lists must not overlap; something is wrong with them"
        )
    )


def _report_list(
    one: PublishedList, seen: Mapping[str, Measured], refused: Mapping[str, str], media: str | None
) -> dict[str, Any]:
    labels, classes = Counter(e.label for e in one.entries), range(one.grid.n_classes)
    usable = [e for e in one.entries if e.usable]
    usable_labels = Counter(e.label for e in usable)
    clips = sorted({e.clip_id for e in one.entries})
    doubles = len(one.entries) - len({e.key for e in one.entries})
    videos: dict[str, set[str]] = defaultdict(set)
    for e in one.entries:
        videos[e.channel].add(e.video_id)
    return {
        "family": one.family,
        "role": one.role,
        "offset_law": one.offset_law,
        "classes": one.grid.n_classes,
        "max_offset_s": one.grid.max_offset_s,
        "segments": len(one.entries),
        "usable": len(usable),
        "broken": dict(sorted(Counter(e.broken for e in one.entries if e.broken).items())),
        "splits": dict(sorted(Counter(e.split for e in one.entries).items())),
        "videos": len({e.video_id for e in one.entries}),
        "clips": len(clips),
        "usable_clips": len({e.clip_id for e in usable}),
        "channels": {
            name: {"segments": n, "videos": len(videos[name])}
            for name, n in sorted(Counter(e.channel for e in one.entries).items())
            if name
        },
        "starts_s": {
            "first": min(e.start_s for e in one.entries),
            "last": max(e.start_s for e in one.entries),
            "between_frames": sum(e.between_frames for e in one.entries),
        },
        "class_histogram": [labels[c] for c in classes],
        "class_histogram_usable": [usable_labels[c] for c in classes],
        "class_prior": [labels[c] / len(one.entries) for c in classes],
        "in_sync_share": labels[one.grid.class_of(0.0)] / len(one.entries),
        "on_grid": sum(is_on_grid(e.offset_s, one.grid) for e in one.entries),
        "duplicates": {
            "segments": doubles,  # more than one row for the same clip and start
            "usable": len(usable) - len({e.key for e in usable}),
            "rows": one.facts.get("rows_said_twice", 0),
        },
        "lengths_unknown": sum(not e.length and e.clip_id not in seen for e in one.entries),
        "support": {rule: support(one.entries, seen, rule) for rule in ("streaming", "published")},
        "facts": dict(one.facts),
        "media": {
            "clips_seen": sum(c in seen for c in clips),
            "clips_missing": len(clips) - sum(c in seen or c in refused for c in clips),
            "missing": [] if media is None else [c for c in clips if c not in seen and c not in refused],
            "refused": {c: refused[c] for c in clips if c in refused},
        },
    }


def support(entries: Iterable[Entry], seen: Mapping[str, Measured], rule: str) -> dict[int, dict[int, int]]:
    """hop in s -> windows -> number of segments whose clip (as measured, or according to its name) has room for them.

    ``streaming``: every 5 s window of picture and of shifted sound fits, as in the streaming protocol. ``published``:
    start + 5 s + windows x hop lies in the clip (one hop more than needed, ignoring the offset), the published
    loader's rule; that loader silently replaced segments that do not fit by others.
    """
    rooms = []
    for e in entries:
        got = seen.get(e.clip_id)
        picture, sound = (got.n_frames * TICKS_PER_FRAME, got.n_samples) if got else (e.length, e.length)
        offset = e.offset if rule == "streaming" else 0
        fits = e.start + offset >= 0
        rooms.append(min(picture - e.start, sound - e.start - offset) if fits else 0)
    room = np.array(rooms, np.int64)
    more = 0 if rule == "published" else 1
    return {
        hop: {n: int((room >= (5 + (n - more) * hop) * TICKS_PER_S).sum()) for n in (1, *SUPPORT_WINDOWS)}
        for hop in SUPPORT_HOPS_S
    }


def _overlap(a: PublishedList, b: PublishedList) -> dict[str, Any]:
    """What two lists share: videos, clips, segments (clip and start), ids, and segments with different offsets."""
    ours, theirs = {e.key: e.offset_s for e in a.entries}, {e.key: e.offset_s for e in b.entries}
    both = ours.keys() & theirs.keys()
    return {
        "lists": [a.name, b.name],
        "videos": len({e.video_id for e in a.entries} & {e.video_id for e in b.entries}),
        "clips": len({e.clip_id for e in a.entries} & {e.clip_id for e in b.entries}),
        "segments": len(both),
        "ids": len({e.id for e in a.entries} & {e.id for e in b.entries}),
        "other_offsets": sum(ours[key] != theirs[key] for key in both),
    }
