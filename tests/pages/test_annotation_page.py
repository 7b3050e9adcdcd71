"""The page of an annotation: what a person sees of each segment, and what may never be in it."""

from __future__ import annotations

import base64
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened
from pages import assert_stands_alone

from avbench.data.annotate import Label
from avbench.data.building.stages import Annotation
from avbench.data.faces import small_jpeg
from avbench.pages.annotation_page import MOST_SEGMENTS, annotation_page, spots_of
from avbench.protocol.manifest import Manifest, read_manifest

LAGS = list(range(-25, 26))
JPEG = base64.b64encode(small_jpeg(np.full((90, 160, 3), 90, np.uint8))).decode()


def measured(fits: bool = True, reason: str = "") -> dict[str, Any]:
    curve = [2.5 - abs(lag) / 10 if fits else -1.0 for lag in LAGS]
    scored: dict[str, Any] = {"raw": 1.25, "excess": 1.5 if fits else 0.0, "lags": LAGS, "curve": curve, "reason": ""}
    scored["opening"] = [0.5 if lag == 0 and fits else 0.0 for lag in LAGS]
    if reason:
        scored = {"raw": None, "excess": None, "lags": [], "curve": [], "opening": [], "reason": reason}
    track = {
        "start_s": 2.0,
        "end_s": 9.0,
        "boxes": [[k, 10.0, 10.0, 40.0, 40.0] for k in range(50, 225, 25)],
        "raw": scored["raw"],
        "excess": scored["excess"],
        "pieces": [{"start_s": 2.0, "end_s": 9.0, "speech": 0.75, "agreement": 0.9, **scored}],
    }
    return {"duration_s": 14.0, "missing": [], "chunks": [], "tracks": [track]}


@pytest.fixture
def manifest(clicks: Path) -> Manifest:
    """Two clips with two segments each."""
    return read_manifest(clicks)


def annotation(manifest: Manifest, **of_clips: dict[str, Any]) -> Annotation:
    there = [s for s in manifest.segments if s.clip_id in of_clips]
    labels = {s.id: Label("talking head", ("Speech",), 0.8, 0.6) for s in there}
    return Annotation(labels, of_clips, [])


def page_of(manifest: Manifest, found: Annotation) -> str:
    pictures = {clip: dict.fromkeys(spots, JPEG) for clip, spots in spots_of(manifest, found).items()}
    return annotation_page(manifest, found, pictures)


def test_a_segment_shows_its_pictures_faces_and_curves(manifest: Manifest, tmp_path: Path) -> None:
    found = annotation(manifest, one=measured(), two=measured(fits=False))
    text = page_of(manifest, found)
    assert text == page_of(manifest, found)
    assert_stands_alone(text)
    assert text.count("data:image/jpeg") == 4 * (5 + 6)  # 5 pictures and 6 boxes within each segment's span
    assert "2.0–9.0 s: makes the sound (excess 1.50, raw 1.25, lead 2.40, agreement 90 %, speech 75 %)" in text
    assert "2.0–9.0 s: does not make the sound" in text
    assert text.count('class="line c2"') == text.count('class="line c7 thin"') == 2
    assert "lag curves with peaks at 0" in text
    # no clip is asked for a picture twice, nor for one that it does not have
    for spots in spots_of(manifest, found).values():
        assert len(spots) == len(set(spots))
        assert all(0 <= spot[0] < 14 * 25 for spot in spots)


def test_what_could_not_be_measured_is_said(manifest: Manifest) -> None:
    found = annotation(manifest, one=measured(reason="the clip has 9 frames of sound"))
    first = manifest.segments[0]
    found.labels[first.id] = Label("", (), reason="there is no annotator for lips")
    text = page_of(manifest, replace(found, failed=["clip two: the picture is damaged"]))
    assert "clip two: the picture is damaged" in text
    assert text.count("could not be annotated.</p>") == 2
    assert "2.0–9.0 s: the clip has 9 frames of sound" in text
    assert "there is no annotator for lips" in text
    assert text.index(f"<code>{first.id}</code>") < text.index(f"<code>{manifest.segments[1].id}</code>")
    # without any pictures the page is still made
    assert "data:image/jpeg" not in annotation_page(manifest, found, {})


def test_the_csv_lines_of_the_page_are_read_back(manifest: Manifest, tmp_path: Path) -> None:
    from html import unescape

    from avbench.data.corrections import read_corrections

    segments = tuple(replace(s, category="other", events=("Gunshot, gunfire", 'a "b"')) for s in manifest.segments)
    text = page_of(replace(manifest, segments=segments), annotation(manifest, one=measured(), two=measured()))
    lines = [part.split("</pre>")[0] for part in text.split('<pre class="command" tabindex="0">')[1:]]
    (tmp_path / "c.csv").write_text("\n".join(map(unescape, lines)))
    rows = read_corrections(tmp_path / "c.csv", [s.id for s in segments])
    assert {c.category for c in rows.values()} == {"other"}
    assert {c.events for c in rows.values()} == {("Gunshot, gunfire", 'a "b"')}
    assert len(rows) == 4
    assert next(csv.reader(map(unescape, lines))) == ["segment_id", "category", "events"]


def test_names_from_strangers_are_text(manifest: Manifest) -> None:
    evil = "<img src=x onerror=alert(1)>"
    segments = tuple(replace(s, events=(evil,)) for s in manifest.segments)
    found = annotation(manifest, one=measured(reason=evil), two=measured())
    text = page_of(replace(manifest, segments=segments, name=evil), replace(found, failed=[evil]))
    assert evil not in text
    assert "&lt;img src=x" in text
    assert_stands_alone(text)


def test_a_page_is_bounded_and_the_doubtful_come_first(manifest: Manifest) -> None:
    base = manifest.segments[0]
    many = replace(manifest, segments=tuple(replace(base, id=f"s{i:04d}") for i in range(MOST_SEGMENTS + 50)))
    labels = {s.id: Label("voice-over", (), 0.9, 0.0) for s in many.segments}
    labels["s0340"] = Label("voice-over", (), 0.36, 0.0)
    labels["s0345"] = Label("", (), 0.9, 0.0, "faces are seen too briefly to say whether they speak")
    text = page_of(many, Annotation(labels, {base.clip_id: measured()}, []))
    assert f"This page shows {MOST_SEGMENTS} of them." in text
    assert text.count('<article class="segment">') == MOST_SEGMENTS
    assert text.index("s0345") < text.index("s0340") < text.index("s0000")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_is_shown_without_errors_or_requests_or_sideways_scrolling(
    manifest: Manifest, tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "page.html").write_text(page_of(manifest, annotation(manifest, one=measured(), two=measured(False))))
    with opened(tmp_path / "page.html", size) as seen:
        assert (seen.errors, seen.requests, seen.overflow_px) == ([], [], 0)
        assert seen.page.locator("article.segment").count() == 4
        first = seen.page.locator(".portraits img").first.evaluate("i => [i.complete, i.naturalWidth]")
        assert first[1] > 0
