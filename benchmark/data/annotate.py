"""Annotate segments: category (*talking head / voice-over / other*) and audio events (paper sec. 3.1).

A clip is measured once. Every face is followed through its shots (``face_tracks``), its track is cut into pieces of
about 6 s, and each piece is asked whether its mouth makes the clip's sound (``LipSyncScorer``). Speech and events are
measured in overlapping chunks of 4 s.

A rule then labels a segment: talking head if, for a quarter of it, faces are seen whose mouths make the speech that is
heard; else voice-over if there is speech, else other. Where faces, lips or speech cannot be measured, or the faces are
seen too briefly, the category is left empty with the reason: it is never guessed.

A mouth makes a sound if LR-ASD's lag curve and that of the mouth's opening (``mouths``) together peak near lag 0.
Measured with YuNet on 14 real talking clips, each judged by the lead that clips from other sources chose: 14 are found,
31 of their 182 versions with the sound of another talking clip are accepted too (43 by LR-ASD alone; of 56 pairs of
GRID, whose sentences are all said in one rhythm, 20 in place of 28), and none of the 84 shifted and mute versions. It
does not work on SynthSync, whose faces are sprites: YuNet finds some of them (154 tracks in 36 clips), LR-ASD believes
none, and all talking heads are called voice-overs. ``avbench data annotate --score``, precision / recall: test split
(168 segments) talking head - / 0, voice-over .51 / 1, other .98 / 1; valid (84) - / 0, .53 / 1, .90 / 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from avbench.data.annotators import DEFAULT_ANNOTATORS, Annotators, LipScore
from avbench.data.faces import DETECT_EVERY, MOST_FACES, FaceTrack, face_tracks, face_views, small_jpeg
from avbench.data.media import READER_VERSION, ClipReader, rgb_converter
from avbench.data.mouths import formant_level, opening_curve
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME
from avbench.types import CATEGORIES, ClipRecord, MediaError, SegmentRecord

__all__ = [
    "DEFAULT_ANNOTATORS",
    "Annotators",
    "Label",
    "agreement",
    "annotate_clip",
    "label",
    "lead",
    "makes_the_sound",
    "measure",
]

CHUNK_S = 4.0
CHUNK_HOP_S = 2.0
SPAN_S = 39.0  # from a segment's start; decides its category: 18 windows of 5 s at a hop of 2 s
PIECE_FRAMES = 150  # 6 s
BOX_EVERY = FRAME_RATE_HZ  # frames; of a track's boxes, those of every second are kept
TALKING_HEAD, VOICE_OVER, OTHER = CATEGORIES
VERSION = (
    f"3:{CHUNK_S}:{CHUNK_HOP_S}:{PIECE_FRAMES}:{DETECT_EVERY}:{MOST_FACES}:{READER_VERSION}"  # of what is measured
)

Spot = tuple[float, ...]  # a frame, alone or with left, top, right, bottom in pixels

# Whether a mouth makes a sound. The first two were chosen on half of 13 real talking clips and their dubbed, shifted
# and mute versions; the lead by a rule that was tried on clips which had no part in it (tests/data/
# test_annotate_real_clips.py); the agreement with the other half in view (the README says what depends on it).
MIN_EXCESS, MIN_RAW = 0.6, -1.0
NEAR_FRAMES, FAR_FRAMES = 4, 9
OPENING_WEIGHT = 3.0  # logits for a correlation of 1: over far lags, both curves then vary alike
MIN_LEAD = 0.33  # of the best near lag over the best far one: half the lowest of 14 real clips
MIN_AGREEMENT = 0.75
SHORTEST_PIECE = 60  # frames; on real mouths, shorter ones are told apart little better than by chance
MIN_SPEECH_IN_PIECE = 0.2  # a mouth that makes a sound which is no speech (a cough) does not talk

# The rule over a segment.
MIN_TALKING_SHARE = 0.25
MIN_SPEECH_SHARE = 0.35
SPEECH_IN_CHUNK = 0.3  # share of speech that makes a chunk one with speech


# ---------------------------------------------------------------------------------------------------------- a clip


def annotate_clip(path: Path, clip: ClipRecord, annotators: Annotators) -> dict[str, Any]:
    """What ``measure`` finds in a media file. ``MediaError`` if it cannot be read."""
    reader = ClipReader(path, clip)
    audio = reader.audio()[: clip.n_frames * TICKS_PER_FRAME]
    return measure(lambda: islice(rgb_pictures(reader), len(audio) // TICKS_PER_FRAME), audio, annotators)


def small_pictures(path: Path, clip: ClipRecord, spots: Sequence[Spot]) -> list[bytes]:
    """A JPEG for each spot, to show a person: a whole picture of at most 128 pixels, or a face of 64.

    ``MediaError`` if the clip cannot be read that far.
    """
    last, found = max(spot[0] for spot in spots), dict[Spot, bytes]()
    pictures = rgb_pictures(ClipReader(path, clip))
    for k, picture in enumerate(islice(pictures, int(last) + 1)):
        found |= {spot: small_jpeg(picture, spot[1:]) for spot in spots if spot[0] == k}
    if missing := [spot for spot in spots if spot not in found]:
        raise MediaError(clip.id, f"has no picture {missing[0][0]:g}")
    return [found[spot] for spot in spots]


def rgb_pictures(reader: ClipReader) -> Iterator[np.ndarray]:
    """The (H, W, 3) uint8 RGB picture of every grid frame; one that is held is the same object again."""
    convert, shown, rgb = rgb_converter(), None, np.empty(0, np.uint8)
    for picture in reader.pictures():
        if picture is not shown:
            shown, rgb = picture, convert(picture, reader.clip_id)
        yield rgb


def measure(pictures: Callable[[], Iterable[np.ndarray]], audio: np.ndarray, annotators: Annotators) -> dict[str, Any]:
    """What was measured of a clip, as plain data (JSON):

    ``duration_s``; ``missing``: roles without an annotator; ``chunks``: ``start_s``, ``end_s``, ``speech`` (share,
    0 ... 1, None if not measured), ``events``; ``tracks``: one for each face, with ``start_s``, ``end_s``, ``boxes``
    (frame, left, top, right, bottom in pixels, one a second), ``raw`` and ``excess`` (means over its pieces, None if no
    piece has them) and ``pieces``: ``start_s``, ``end_s``, ``speech`` (share), ``raw``, ``excess``, ``lags``, ``curve``
    and ``reason`` of the ``LipScore``; ``opening``: at each lag, how the mouth's opening and the sound's level go
    together (``opening_curve``); and ``agreement``: the share of frames in which either there is speech and the mouth
    seems to speak, or neither, at the best of the lags near 0 (None if one of them was not measured).

    ``pictures()``: the (H, W, 3) uint8 RGB pictures at 25 fps from the first on; called twice if there are faces.
    ``audio``: (N,) float32 at 16 kHz.
    """
    speech = annotators.speech.speech(audio) > 0.5 if annotators.speech else None
    tracks: list[dict[str, Any]] = []
    if annotators.faces:
        found = face_tracks(pictures(), annotators.faces)
        pieces = _scored_pieces(pictures, found, audio, speech, annotators)
        tracks = [_track(track, of_track) for track, of_track in zip(found, pieces, strict=True)]
    return {
        "duration_s": len(audio) // TICKS_PER_FRAME / FRAME_RATE_HZ,
        "missing": annotators.missing,
        "chunks": _chunks(audio, speech, annotators),
        "tracks": tracks,
    }


def _chunks(audio: np.ndarray, speech: np.ndarray | None, annotators: Annotators) -> list[dict[str, Any]]:
    total, chunks = len(audio) // TICKS_PER_FRAME, []
    length, hop = round(CHUNK_S * FRAME_RATE_HZ), round(CHUNK_HOP_S * FRAME_RATE_HZ)
    for first in range(0, max(total - length, 0) + 1, hop) if total else ():
        last = min(first + length, total)
        heard = audio[first * TICKS_PER_FRAME : last * TICKS_PER_FRAME]
        start_s, end_s = first / FRAME_RATE_HZ, last / FRAME_RATE_HZ
        events = list(dict.fromkeys(annotators.events.events(heard))) if annotators.events else []
        chunks.append({"start_s": start_s, "end_s": end_s, "speech": _share(speech, start_s, end_s), "events": events})
    return chunks


def _share(speech: np.ndarray | None, start_s: float, end_s: float) -> float | None:
    """The share of frames with speech; 0 where there is no sound at all, None if it was not measured."""
    if speech is None:
        return None
    inside = speech[round(start_s * FRAME_RATE_HZ) : round(end_s * FRAME_RATE_HZ)]
    return round(float(inside.mean()), 4) if len(inside) else 0.0


def _scored_pieces(
    pictures: Callable[[], Iterable[np.ndarray]],
    tracks: list[FaceTrack],
    audio: np.ndarray,
    speech: np.ndarray | None,
    annotators: Annotators,
) -> list[list[dict[str, Any]]]:
    """For each track its pieces in time order; no pieces without a scorer."""
    pieces: list[list[dict[str, Any]]] = [[] for _ in tracks]
    if annotators.lips and tracks:
        features, level = annotators.lips.features(audio), formant_level(audio)
        for i, first, views in face_views(pictures(), tracks, PIECE_FRAMES):
            score = annotators.lips.score(views, features, first)
            opening = opening_curve(views, level, first, np.asarray(score.lags).tolist())
            pieces[i].append(_piece(first, len(views), score, opening, speech))
    return pieces


def _piece(
    first: int, n_frames: int, score: LipScore, opening: np.ndarray, speech: np.ndarray | None
) -> dict[str, Any]:
    start_s, end_s = first / FRAME_RATE_HZ, (first + n_frames) / FRAME_RATE_HZ
    return {
        "start_s": start_s,
        "end_s": end_s,
        "raw": _rounded(score.raw),
        "excess": _rounded(score.excess),
        "lags": np.asarray(score.lags).tolist(),
        "curve": np.round(score.curve, 3).tolist(),
        "opening": np.round(opening, 3).tolist(),
        "reason": score.reason,
        "speech": _share(speech, start_s, end_s),
        "agreement": _agreement(np.asarray(score.seen) > 0, speech, first),
    }


def _agreement(moves: np.ndarray, speech: np.ndarray | None, first: int) -> float | None:
    """See ``measure``. ``moves`` (T,): whether the mouth seems to speak; ``speech``: of the whole clip; both bool."""
    if speech is None or not len(moves):
        return None
    shares = []
    for lag in range(-NEAR_FRAMES, NEAR_FRAMES + 1):
        heard = speech[max(first + lag, 0) : first + lag + len(moves)]
        seen = moves[max(-first - lag, 0) :][: len(heard)]
        shares.append(float((seen == heard).mean()) if len(heard) else 0.0)
    return _rounded(max(shares))


def _track(track: FaceTrack, pieces: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [piece for piece in pieces if piece["raw"] is not None]
    weights = [piece["end_s"] - piece["start_s"] for piece in scored]
    thinned = [*range(0, len(track.boxes) - 1, BOX_EVERY), len(track.boxes) - 1]
    return {
        "start_s": track.first_frame / FRAME_RATE_HZ,
        "end_s": track.end_frame / FRAME_RATE_HZ,
        "boxes": [[track.first_frame + k, *np.round(track.boxes[k], 1).tolist()] for k in thinned],
        "raw": _rounded(np.average([p["raw"] for p in scored], weights=weights)) if scored else None,
        "excess": _rounded(np.average([p["excess"] for p in scored], weights=weights)) if scored else None,
        "pieces": pieces,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


# -------------------------------------------------------------------------------------------------------- a segment


@dataclass(frozen=True, slots=True)
class Label:
    """What is said of a segment. ``speech``: share of its 39 s with speech; ``talking``: share in which a face is seen
    whose mouth makes the speech that is heard. ``reason``: why the category is empty."""

    category: str
    events: tuple[str, ...]
    speech: float = 0.0
    talking: float = 0.0
    reason: str = ""


def makes_the_sound(piece: Mapping[str, Any]) -> bool | None:
    """Whether the mouth in a track's piece (see ``measure``) makes the sound; None if that cannot be said."""
    n_frames = round((piece["end_s"] - piece["start_s"]) * FRAME_RATE_HZ)
    if piece["raw"] is None or n_frames < SHORTEST_PIECE:
        return None
    if piece["agreement"] is not None and piece["agreement"] < MIN_AGREEMENT:
        return False
    return bool(piece["excess"] >= MIN_EXCESS and piece["raw"] >= MIN_RAW and lead(piece) >= MIN_LEAD)


def lead(piece: Mapping[str, Any]) -> float:
    """By how much a piece's mouth and sound fit better near their places than at any lag too large to fit, in logits:
    the lip network's curve and the curve of the mouth's opening together. Both must peak at one lag to lead far."""
    away, fit = np.abs(piece["lags"]), np.asarray(piece["curve"]) + OPENING_WEIGHT * np.asarray(piece["opening"])
    return float(fit[away <= NEAR_FRAMES].max() - fit[away >= FAR_FRAMES].max(initial=-np.inf))


def label(start_s: float, measured: Mapping[str, Any]) -> Label:
    """The label of a segment that starts at ``start_s``, from what was measured in the clip's 39 s from there on.

    Speech and events are those of the chunks whose middle lies in there.
    """
    end_s = min(start_s + SPAN_S, measured["duration_s"])
    inside = [chunk for chunk in measured["chunks"] if start_s <= (chunk["start_s"] + chunk["end_s"]) / 2 < end_s]
    if not inside:
        return Label("", (), reason="there is no sound where it lies")
    speech = float(np.mean([chunk["speech"] or 0.0 for chunk in inside]))
    pieces = [piece for track in measured["tracks"] for piece in track["pieces"]]
    talks = [p for p in pieces if makes_the_sound(p) and (p["speech"] or 0.0) >= MIN_SPEECH_IN_PIECE]
    unclear = [p for p in pieces if makes_the_sound(p) is None]
    talking = _covered(talks, start_s, end_s)
    category, reason = "", ""
    if measured["missing"]:
        reason = f"there is no annotator for {' and '.join(measured['missing'])}"
    elif talking >= MIN_TALKING_SHARE:
        category = TALKING_HEAD
    elif speech < MIN_SPEECH_SHARE:
        category = OTHER
    elif _covered(talks + unclear, start_s, end_s) >= MIN_TALKING_SHARE:
        reason = "faces are seen too briefly to say whether they speak"
    else:
        category = VOICE_OVER
    return Label(category, _events(inside), round(speech, 4), round(talking, 4), reason)


def _covered(pieces: Sequence[Mapping[str, Any]], start_s: float, end_s: float) -> float:
    """The share of start ... end that the pieces cover together."""
    covered, until = 0.0, start_s
    for piece in sorted(pieces, key=lambda piece: piece["start_s"]):
        first, last = max(piece["start_s"], until), min(piece["end_s"], end_s)
        if last > first:
            covered, until = covered + last - first, last
    return covered / (end_s - start_s)


def _events(chunks: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """All events of the chunks; "speech" too, if it was measured and no tagger has named it."""
    events = {event for chunk in chunks for event in chunk["events"]}
    spoken = any((chunk["speech"] or 0.0) >= SPEECH_IN_CHUNK for chunk in chunks)
    if spoken and "speech" not in {event.lower() for event in events}:
        events.add("speech")
    return tuple(sorted(events))


def agreement(known: Sequence[SegmentRecord], found: Mapping[str, str]) -> dict[str, dict[str, float | int | None]]:
    """Per category: ``n`` true segments, ``found`` segments, ``precision`` and ``recall`` (None: undefined).

    ``found``: segment id -> category."""
    table: dict[str, dict[str, float | int | None]] = {}
    for category in CATEGORIES:
        truth = {s.id for s in known if s.category == category}
        claimed = {s.id for s in known if found.get(s.id) == category}
        right = len(truth & claimed)
        table[category] = {
            "n": len(truth),
            "found": len(claimed),
            "precision": right / len(claimed) if claimed else None,
            "recall": right / len(truth) if truth else None,
        }
    return table
