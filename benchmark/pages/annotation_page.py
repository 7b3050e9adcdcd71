"""The page of an annotation: for every segment its pictures, its faces with their lag curves, speech, events and label,
the most doubtful first, so that a person can correct the labels in a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from avbench.data.annotate import MIN_SPEECH_SHARE, MIN_TALKING_SHARE, SPAN_S, Label, Spot, lead, makes_the_sound
from avbench.data.building.stages import Annotation
from avbench.data.corrections import COLUMNS
from avbench.pages import number, render
from avbench.pages.charts import lag_curves
from avbench.protocol.manifest import Manifest
from avbench.ticks import FRAME_RATE_HZ, seconds
from avbench.types import CATEGORIES, SegmentRecord

MOST_SEGMENTS = 300  # on one page, 10 MB or so
MOST_FACES, FACE_PICTURES, SCENE_PICTURES = 3, 8, 5  # of one segment

Pictures = Mapping[str, Mapping[Spot, str]]  # clip id -> spot -> JPEG in base64


class Face(NamedTuple):
    """One face of a segment."""

    pictures: list[str]  # JPEG in base64
    curves: Markup | None
    pieces: list[str]  # one line of words each


class Card(NamedTuple):
    """What the page shows of a segment."""

    segment: SegmentRecord
    label: Label | None  # None: its clip could not be annotated
    from_to: str
    scene: list[str]  # JPEG in base64
    faces: list[Face]
    line: str  # for the CSV file of corrections


def spots_of(manifest: Manifest, found: Annotation) -> dict[str, list[Spot]]:
    """Clip id -> the places whose pictures ``annotation_page`` shows."""
    wanted: dict[str, dict[Spot, None]] = {}
    for segment in _shown(manifest, found):
        if clip := found.measured.get(segment.clip_id):
            spots = wanted.setdefault(segment.clip_id, {})
            spots |= dict.fromkeys(_scene(segment, clip))
            spots |= dict.fromkeys(spot for track in _tracks(segment, clip) for spot in _portraits(segment, track))
    return {clip_id: sorted(spots) for clip_id, spots in wanted.items()}


def annotation_page(manifest: Manifest, found: Annotation, pictures: Pictures) -> str:
    """The page as text; equal arguments give equal text.

    ``manifest`` has the labels to show, corrections included; ``pictures``: of the places in ``spots_of``; some may be
    missing.
    """
    shown = _shown(manifest, found)
    return render(
        "annotation_page.html",
        name=manifest.name,
        n_segments=len(manifest.segments),
        cards=[_card(segment, found, pictures.get(segment.clip_id, {})) for segment in shown],
        counts=[(name, sum(s.category == name for s in manifest.segments)) for name in (*CATEGORIES, "")],
        failed=found.failed,
        header=_csv_line(COLUMNS),
        categories=CATEGORIES,
        min_talking=MIN_TALKING_SHARE,
        min_speech=MIN_SPEECH_SHARE,
        audioset=any(event[:1].isupper() for s in manifest.segments for event in s.events),
    )


def _shown(manifest: Manifest, found: Annotation) -> list[SegmentRecord]:
    """The segments on the page: those without a category, then those whose measures are nearest to a threshold."""

    def doubt(segment: SegmentRecord) -> float:
        told = found.labels.get(segment.id)
        if told is None or not told.category:
            return -1.0
        talks = abs(told.talking - MIN_TALKING_SHARE)
        return talks if told.talking >= MIN_TALKING_SHARE else min(talks, abs(told.speech - MIN_SPEECH_SHARE))

    return sorted(manifest.segments, key=doubt)[:MOST_SEGMENTS]


def _card(segment: SegmentRecord, found: Annotation, pictures: Mapping[Spot, str]) -> Card:
    clip = found.measured.get(segment.clip_id)
    line = _csv_line((segment.id, segment.category, ";".join(segment.events)))
    if clip is None:
        return Card(segment, None, "", [], [], line)
    start_s, end_s = _span(segment, clip)
    faces = [_face(segment, clip, track, pictures) for track in _tracks(segment, clip)]
    scene = [pictures[spot] for spot in _scene(segment, clip) if spot in pictures]
    return Card(segment, found.labels.get(segment.id), _from_to(start_s, end_s), scene, faces, line)


def _face(
    segment: SegmentRecord, clip: Mapping[str, Any], track: Mapping[str, Any], pictures: Mapping[Spot, str]
) -> Face:
    start_s, end_s = _span(segment, clip)
    pieces = [piece for piece in track["pieces"] if piece["start_s"] < end_s and piece["end_s"] > start_s]
    scored = [piece for piece in pieces if piece["raw"] is not None]
    curves = [(piece["curve"], makes_the_sound(piece) is True) for piece in scored]
    return Face(
        pictures=[pictures[spot] for spot in _portraits(segment, track) if spot in pictures],
        curves=lag_curves(scored[0]["lags"], curves) if scored else None,
        pieces=[_in_words(piece) for piece in pieces],
    )


def _in_words(piece: Mapping[str, Any]) -> str:
    where = _from_to(piece["start_s"], piece["end_s"])
    if piece["raw"] is None:
        return f"{where}: {piece['reason']}"
    verdict = {True: "makes the sound", False: "does not make the sound", None: "too short to say"}
    measures = [f"excess {number(piece['excess'])}", f"raw {number(piece['raw'])}", f"lead {number(lead(piece))}"]
    measures += [f"{name} {100 * piece[name]:.0f} %" for name in ("agreement", "speech") if piece[name] is not None]
    return f"{where}: {verdict[makes_the_sound(piece)]} ({', '.join(measures)})"


def _span(segment: SegmentRecord, clip: Mapping[str, Any]) -> tuple[float, float]:
    start_s = seconds(segment.start)
    return start_s, min(start_s + SPAN_S, clip["duration_s"])


def _scene(segment: SegmentRecord, clip: Mapping[str, Any]) -> list[Spot]:
    """Whole pictures, evenly spread over a segment's span."""
    start_s, end_s = _span(segment, clip)
    steps = [(i + 0.5) / SCENE_PICTURES for i in range(SCENE_PICTURES)]
    last = round(clip["duration_s"] * FRAME_RATE_HZ) - 1
    return [(min(int((start_s + step * (end_s - start_s)) * FRAME_RATE_HZ), last),) for step in steps]


def _tracks(segment: SegmentRecord, clip: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The faces seen longest within a segment's span."""
    start_s, end_s = _span(segment, clip)

    def seen_s(track: Mapping[str, Any]) -> float:
        return float(min(track["end_s"], end_s) - max(track["start_s"], start_s))

    there = [track for track in clip["tracks"] if seen_s(track) > 0]
    return sorted(there, key=seen_s, reverse=True)[:MOST_FACES]


def _portraits(segment: SegmentRecord, track: Mapping[str, Any]) -> list[Spot]:
    """A face's boxes within a segment's span, evenly thinned."""
    first = seconds(segment.start) * FRAME_RATE_HZ
    boxes = [tuple(box) for box in track["boxes"] if first <= box[0] < first + SPAN_S * FRAME_RATE_HZ]
    step = max(1, -(-len(boxes) // FACE_PICTURES))
    return boxes[::step]


def _from_to(start_s: float, end_s: float) -> str:
    return f"{start_s:.1f}–{end_s:.1f} s"


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
