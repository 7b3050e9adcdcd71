"""What is measured of a clip, with annotators made up for the test, and the rule that labels a segment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avbench.data.annotate import (
    Label,
    agreement,
    annotate_clip,
    label,
    lead,
    makes_the_sound,
    measure,
    small_pictures,
)
from avbench.data.annotators import Annotators
from avbench.data.encode import encode_clip
from avbench.data.scenes import Scene
from avbench.types import ClipRecord, MediaError, SegmentRecord

LAGS = np.arange(-25, 26)


def peak(at: int = 0, height: float = 2.0) -> list[float]:
    """A lag curve with a peak."""
    return (height * np.exp(-(((LAGS - at) / 5) ** 2)) - 0.5).tolist()


class Faces:
    """One face from 2 s to 8 s, and another one, further right, all the time."""

    def faces(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        k = int(picture[0, 0, 0])
        return [(40.0, 5.0, 20.0, 20.0)] + ([(5.0, 5.0, 20.0, 20.0)] if 50 <= k <= 200 else [])


class Lips:
    """Says that the mouths of the first face make the sound; writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def features(self, audio: np.ndarray) -> np.ndarray:
        self.n_rows = len(audio) // 160
        return audio[::160]

    def score(self, faces: np.ndarray, features: np.ndarray, first_frame: int) -> Any:
        assert faces.shape[1:] == (112, 112)
        assert faces.dtype == np.uint8
        assert len(features) == self.n_rows
        self.asked.append((first_frame, len(faces)))
        fits = first_frame == 50
        return SimpleNamespace(
            raw=1.0,
            excess=1.5 if fits else 0.1,
            lags=LAGS,
            curve=np.array(peak() if fits else LAGS * 0.0),
            seen=np.where(np.arange(first_frame, first_frame + len(faces)) < 122, -1.0, 1.0),
            reason="",
        )


def annotators(**changes: Any) -> Annotators:
    return replace(
        Annotators(
            faces=Faces(),
            speech=SimpleNamespace(speech=lambda audio: np.linspace(0, 1, len(audio) // 640, dtype=np.float32)),
            lips=Lips(),
            events=SimpleNamespace(events=lambda audio: ["b", "a", "b"]),
        ),
        **changes,
    )


def pictures() -> list[np.ndarray]:
    return [np.full((32, 72, 3), k, np.uint8) for k in range(250)]


def test_what_is_measured_of_a_clip() -> None:
    loaded = annotators()
    found = measure(pictures, np.zeros(160_000, np.float32), loaded)
    assert found == json.loads(json.dumps(found))
    assert (found["duration_s"], found["missing"]) == (10.0, [])
    assert [(c["start_s"], c["end_s"]) for c in found["chunks"]] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert [c["speech"] for c in found["chunks"]] == [0, 0.25, 0.75, 1]
    assert found["chunks"][0]["events"] == ["b", "a"]  # the surest first
    always, some = found["tracks"]
    assert (always["start_s"], always["end_s"], some["start_s"], some["end_s"]) == (0, 9.84, 2, 8.04)
    # pieces of about 6 s, scored with their place in the clip
    assert loaded.lips.asked == [(0, 123), (50, 151), (123, 123)]  # type: ignore[union-attr]
    assert [(p["start_s"], p["end_s"], p["speech"]) for p in always["pieces"]] == [(0, 4.92, 0), (4.92, 9.84, 0.9837)]
    assert (some["raw"], some["excess"], some["pieces"][0]["lags"]) == (1, 1.5, LAGS.tolist())
    # the mouths seem to speak from frame 122 on, the sound is speech from 125 on: all agree at a lag of 3
    assert [p["agreement"] for p in (*some["pieces"], *always["pieces"])] == [1, 1, 1]
    assert [box[0] for box in some["boxes"]] == [50, 75, 100, 125, 150, 175, 200]
    assert some["boxes"][0] == [50, 5, 5, 25, 25]
    assert [p["opening"] for p in (*some["pieces"], *always["pieces"])] == [[0.0] * len(LAGS)] * 3  # a silent clip
    # the face on the left makes the sound for 6 of 10 seconds
    assert label(0, found) == Label("talking head", ("a", "b", "speech"), 0.5, 0.604)


def test_agreement_is_measured_where_there_is_sound() -> None:
    """A face that is seen before the sound's speech begins and after the sound has ended."""
    loaded = annotators(faces=SimpleNamespace(faces=lambda picture: [(5.0, 5.0, 20.0, 20.0)]))
    found = measure(pictures, np.zeros(96_000, np.float32), loaded)  # 6 s: its speech begins at 3 s
    (only,) = found["tracks"][0]["pieces"][:1]
    assert only["end_s"] == 4.92
    assert only["agreement"] == round(1 - (122 - 75 - 4) / 119, 4)  # at a lag of -4: 4 frames have no sound
    silent = measure(pictures, np.zeros(0, np.float32), loaded)
    assert [p["agreement"] for p in silent["tracks"][0]["pieces"]] == [0, 0]
    assert (silent["chunks"], label(0, silent).category) == ([], "")


def test_roles_that_are_left_out_leave_the_category_empty() -> None:
    sound = np.zeros(160_000, np.float32)
    without = measure(pictures, sound, annotators(lips=None, events=None))
    assert [(t["pieces"], t["raw"]) for t in without["tracks"]] == [([], None)] * 2
    assert label(0, without) == Label("", ("speech",), 0.5, 0.0, "there is no annotator for lips")
    nothing = measure(pictures, sound, Annotators(None, None, None, None))
    assert nothing["tracks"] == []
    assert nothing["chunks"][0]["speech"] is None
    assert label(0, nothing) == Label("", (), 0.0, 0.0, "there is no annotator for faces and lips and speech")


def test_a_clip_is_measured_from_its_file_and_small_pictures_are_cut_out_of_it(tmp_path: Path) -> None:
    scene = Scene("talking head", 0, 2_700_000, 11)
    encode_clip(tmp_path / "c.mp4", scene.frames(), scene.audio())
    whole = annotators(faces=SimpleNamespace(faces=lambda picture: []), lips=None)
    clip = ClipRecord("c", "c", "c.mp4", "", scene.n_frames, scene.n_samples)
    found = annotate_clip(tmp_path / "c.mp4", clip, whole)
    assert [(c["start_s"], c["end_s"]) for c in found["chunks"]] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert found == annotate_clip(tmp_path / "c.mp4", clip, whole)
    short = annotate_clip(tmp_path / "c.mp4", replace(clip, n_frames=50, n_samples=40_000), whole)
    assert [(c["start_s"], c["end_s"]) for c in short["chunks"]] == [(0, 2)]
    spots = [(120.0,), (3.0, 5.0, 5.0, 30.0, 30.0), (120.0,)]
    jpegs = small_pictures(tmp_path / "c.mp4", clip, spots)
    assert [data[:2] for data in jpegs] == [b"\xff\xd8"] * 3
    assert jpegs[0] == jpegs[2] != jpegs[1]
    with pytest.raises(MediaError, match="has no picture 9999"):
        small_pictures(tmp_path / "c.mp4", clip, [(9999.0,)])


# ----------------------------------------------------------------------------------------------------------- the rule


def piece(start_s: float, end_s: float, **changes: Any) -> dict[str, Any]:
    made = {"raw": 1.0, "excess": 1.5, "lags": LAGS.tolist(), "curve": peak(), "reason": ""}
    made["opening"] = [0.0] * len(LAGS)
    made |= {"speech": 0.8, "agreement": 0.9}
    return {"start_s": start_s, "end_s": end_s, **made, **changes}


def clip(pieces: list[dict[str, Any]], speech: float = 0.9, length_s: int = 300, **changes: Any) -> dict[str, Any]:
    chunks = [{"start_s": s, "end_s": s + 4, "speech": speech, "events": []} for s in range(0, length_s - 3, 2)]
    return {
        "duration_s": length_s,
        "missing": [],
        "chunks": chunks,
        "tracks": [{"pieces": [p]} for p in pieces],
        **changes,
    }


def test_a_mouth_makes_the_sound_if_it_fits_well_and_nowhere_better() -> None:
    assert makes_the_sound(piece(0, 6)) is True
    assert makes_the_sound(piece(0, 6, excess=0.2)) is False
    assert makes_the_sound(piece(0, 6, raw=-2.0)) is False
    assert makes_the_sound(piece(0, 6, curve=peak(at=5))) is True  # natural offsets of the file
    assert makes_the_sound(piece(0, 6, curve=peak(at=14))) is False
    assert makes_the_sound(piece(0, 6, agreement=0.6)) is False  # it moves in the pauses, rests while there is speech
    assert makes_the_sound(piece(0, 6, agreement=None)) is True  # a scorer that cannot tell
    assert makes_the_sound(piece(0, 1)) is None
    nothing = {"raw": None, "excess": None, "lags": [], "curve": [], "opening": []}
    assert makes_the_sound(piece(0, 6, **nothing, reason="no sound")) is None


def opens(at: int, how_much: float) -> list[float]:
    """A mouth whose opening goes with the sound's level at one lag, and not at others."""
    return np.where(at == LAGS, how_much, 0.0).tolist()


def test_the_mouth_must_open_with_the_sound_at_the_lag_at_which_the_network_hears_it() -> None:
    flat = (np.where(np.abs(LAGS) < 12, 1.0, -1.0)).tolist()  # as for a dub in the same rhythm
    assert lead(piece(0, 6, curve=flat)) == 0
    assert makes_the_sound(piece(0, 6, curve=flat)) is False
    assert makes_the_sound(piece(0, 6, curve=flat, opening=opens(-2, 0.5))) is True
    assert makes_the_sound(piece(0, 6, curve=flat, opening=opens(-10, 0.5))) is False
    assert makes_the_sound(piece(0, 6, curve=peak(at=-2), opening=opens(-2, 0.3))) is True
    # where both have a peak, one that the other does not share is worth less
    assert lead(piece(0, 6, opening=opens(0, 0.3))) > lead(piece(0, 6, opening=opens(4, 0.3)))
    assert lead(piece(0, 6, opening=opens(15, 0.9))) < lead(piece(0, 6))


def test_a_long_clip_is_judged_segment_by_segment() -> None:
    """A person speaks in the first minute and listens to somebody off screen afterwards."""
    speaks = [piece(s, s + 6) for s in range(0, 60, 6)]
    listens = [piece(s, s + 6, excess=0.0, raw=-3.0) for s in range(60, 300, 6)]
    found = clip(speaks + listens)
    assert label(0, found).category == label(20, found).category == "talking head"
    assert label(20, found).talking == 1.0
    assert (label(45, found).category, label(45, found).talking) == ("talking head", round(15 / 39, 4))
    assert (label(51, found).category, label(51, found).talking) == ("voice-over", round(9 / 39, 4))
    assert label(200, found) == Label("voice-over", ("speech",), 0.9, 0.0)
    assert label(300, found) == Label("", (), reason="there is no sound where it lies")
    # the clip's end is the span's end: 3 of its last 10 seconds
    assert label(290, clip([piece(297, 300)])).talking == 0.3


def test_faces_at_the_same_time_count_once() -> None:
    both = clip([piece(0, 6), piece(0, 6), piece(3, 9)], length_s=20)
    assert label(0, both).talking == 9 / 20


def test_a_mouth_that_makes_a_sound_which_is_no_speech_does_not_talk() -> None:
    cough = clip([piece(0, 10, speech=0.1)], speech=0.2, length_s=10)
    assert label(0, cough).category == "other"
    assert label(0, clip([piece(0, 10)], speech=0.2, length_s=10)).category == "talking head"


def test_faces_that_are_seen_too_briefly_are_not_guessed_at() -> None:
    brief = [piece(s, s + 2.2) for s in range(0, 39, 3)]
    assert label(0, clip(brief)) == Label(
        "", ("speech",), 0.9, 0.0, "faces are seen too briefly to say whether they speak"
    )
    assert label(0, clip(brief, speech=0.1)).category == "other"  # no speech: nobody talks, seen or not
    assert label(0, clip(brief[:3])).category == "voice-over"


def test_events_of_all_chunks_are_named_once() -> None:
    found = clip([], speech=0.9, length_s=10)
    assert label(0, found).events == ("speech",)
    found["chunks"][1]["events"] = ["Speech", "Dog"]
    found["chunks"][2]["events"] = ["Dog"]
    assert label(0, found).events == ("Dog", "Speech")
    assert label(0, clip([], speech=0.1)).events == ()


def test_agreement_counts_per_category() -> None:
    def segment(name: str, category: str) -> SegmentRecord:
        return SegmentRecord(name, "c", "v", 0, 0, 10, category=category)

    known = [segment("a", "talking head"), segment("b", "talking head"), segment("c", "other")]
    table = agreement(known, {"a": "talking head", "b": "other", "c": "other"})
    assert table["talking head"] == {"n": 2, "found": 1, "precision": 1.0, "recall": 0.5}
    assert table["other"] == {"n": 1, "found": 2, "precision": 0.5, "recall": 1.0}
    assert table["voice-over"] == {"n": 0, "found": 0, "precision": None, "recall": None}
