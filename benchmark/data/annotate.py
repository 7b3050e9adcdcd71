"""Annotate segments: category (*talking head / voice-over / other*) and audio events (paper sec. 3.1).

A clip is measured in overlapping chunks of 4 s. Each chunk gets four measures: the share of pictures with a face, the
share of speech, how well the mouth follows the sound (lip sync, only where a face is seen), and the events heard.
A rule over its chunks gives a segment's category: talking head if mouths follow the sound, voice-over if there is
speech without such mouths, else other.

The built-in annotators work offline: OpenCV's Haar face cascade, Silero VAD, the correlation of mouth and speech,
onsets and levels. Each can be replaced by a class in a user's own file (``path/to/file.py:ClassName``), for example a
SyncNet-style scorer; ``audioset:FOLDER`` tags events with an AudioSet classifier (AST, ...) that transformers loads
from a local folder of safetensors weights.

Measured on SynthSync (``avbench data annotate --split test --score``), precision / recall: on the test split (168
segments) talking head .67 / .57, voice-over .63 / .71, other 1 / 1; on valid (84) .80 / .57, .73 / .86, .90 / 1.
SynthSync's faces are sprites and its voices synthetic.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import CATEGORIES, SegmentRecord, UsageError, first_line, in_one_line

CHUNK_S = 4.0
CHUNK_HOP_S = 2.0
SPAN_S = 39.0  # from a segment's start; decides its category: 18 windows of 5 s at a hop of 2 s
FACE_SIZE = 96  # pixels; the lip-sync scorer gets faces as squares of this size
DETECT_EVERY = 10  # frames; a face's box is kept until the next detection
DETECT_SHORT_SIDE = 256  # pixels; pictures are resized to this short side for the detector
SMALLEST_FACE = 30  # pixels at that size; in a smaller face the mouth is a handful of pixels
TALKING_HEAD, VOICE_OVER, OTHER = CATEGORIES

# The rule, tuned on the first 12 clips of SynthSync's train split; valid and test were only scored.
LIP_SYNC_THRESHOLD = 0.4
MIN_TALKING_SHARE = 0.15  # of all chunks: a speaker who is visible for a sixth of the time is a talking head
MIN_SPEECH_SHARE = 0.35
SPEECH_IN_CHUNK = 0.3  # share of speech that makes a chunk one with speech
FACE_IN_CHUNK = 0.5

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


class FaceDetector(Protocol):
    """Finds faces in pictures."""

    def faces(self, picture: np.ndarray) -> Sequence[Box]:
        """Boxes of the faces in a (H, W, 3) uint8 RGB picture, the most important one first."""
        ...


class SpeechDetector(Protocol):
    """Finds speech in sound."""

    def speech(self, audio: np.ndarray) -> np.ndarray:
        """Probability of speech for every 25 fps frame: (N,) float32 at 16 kHz -> (N // 640,) float32."""
        ...


class LipSyncScorer(Protocol):
    """Scores how well a face's mouth follows the sound."""

    def score(self, faces: np.ndarray, audio: np.ndarray) -> float:
        """(T, 96, 96, 3) uint8 RGB faces and (640 T,) float32 -> a score: higher is better, 0: no relation."""
        ...


class EventTagger(Protocol):
    """Names what is heard."""

    def events(self, audio: np.ndarray) -> Sequence[str]:
        """Names of the events in (N,) float32 at 16 kHz."""
        ...


# ---------------------------------------------------------------------------------------------------------- built-in


class HaarFaces:
    """OpenCV's frontal face cascade (alt2), which ships with opencv-python-headless 4."""

    def __init__(self) -> None:
        cv2 = _need("cv2", "opencv-python-headless")
        cv2.setNumThreads(1)
        path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
        if not path.is_file():
            raise UsageError("this OpenCV ships no face cascades; pip install 'opencv-python-headless<5'")
        self._cv2, self._cascade = cv2, cv2.CascadeClassifier(str(path))

    def faces(self, picture: np.ndarray) -> list[Box]:
        """See ``FaceDetector``; the largest face comes first."""
        cv2 = self._cv2
        scale = DETECT_SHORT_SIDE / min(picture.shape[:2])
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=method)
        found = self._cascade.detectMultiScale(grey, 1.1, 3, minSize=(SMALLEST_FACE, SMALLEST_FACE))
        boxes = sorted((tuple(int(v / scale) for v in box) for box in found), key=lambda box: (-box[2], box))
        return [(x, y, w, h) for x, y, w, h in boxes]


class SileroSpeech:
    """Silero VAD, whose weights ship with its package; its 32 ms steps are interpolated to 25 fps."""

    def __init__(self) -> None:
        _need("torch", "torch").set_num_threads(1)
        self._model = _need("silero_vad", "silero-vad").load_silero_vad()

    def speech(self, audio: np.ndarray) -> np.ndarray:
        """See ``SpeechDetector``."""
        import torch

        self._model.reset_states()
        with torch.inference_mode():
            steps = self._model.audio_forward(torch.from_numpy(np.ascontiguousarray(audio))[None], SAMPLE_RATE_HZ)
        middles = (np.arange(steps.shape[1]) + 0.5) * 512
        frames = (np.arange(len(audio) // TICKS_PER_FRAME) + 0.5) * TICKS_PER_FRAME
        return np.interp(frames, middles, steps[0].numpy()).astype(np.float32)


class MouthSpeechCorrelation:
    """Correlation of the mouth with the loudness of speech, compared with that at lags too large to match.

    Two signals of the lower face: how dark it is (an open mouth) and how much it changes, each minus the same signal of
    the upper face (head movement, light). Each is correlated with the loudness (or its change) at lags of at most 2
    frames; the score is how far the best of these exceeds the 90 % quantile over lags of 8 to 25 frames.

    It works on SynthSync's mouths. On natural faces it is weak: a real speaker with a face of 35 to 60 pixels scores
    0.1 to 0.3 where 0.4 is required, and is labelled a voice-over; use a trained scorer there.
    """

    near, far = 2, range(8, 26)

    def score(self, faces: np.ndarray, audio: np.ndarray) -> float:
        """See ``LipSyncScorer``."""
        luma = faces.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        mouth, upper = luma[:, 60:92, 24:72], luma[:, 20:52, 20:76]
        loud = loudness(audio)[: len(luma)]
        pairs = [(_smooth(_dark(mouth) - _dark(upper)), loud)]
        pairs.append((_smooth(_change(mouth) - _change(upper)), np.abs(np.gradient(loud))))
        return max(self._excess(a, b) for a, b in pairs)

    def _excess(self, seen: np.ndarray, heard: np.ndarray) -> float:
        near = [_correlation(seen, heard, lag) for lag in range(-self.near, self.near + 1)]
        far = [_correlation(seen, heard, sign * lag) for lag in self.far for sign in (-1, 1)]
        return float(max(near) - max(0.0, float(np.quantile(far, 0.9))))


class SignalEvents:
    """Events measured from the signal alone: ``silence``, ``loud`` (levels) and ``onset`` (a sudden broadband burst).

    They do not say what caused the sound; that takes a classifier.
    """

    silence_db, loud_db, onset_db = -55.0, -10.0, 12.0

    def events(self, audio: np.ndarray) -> list[str]:
        """See ``EventTagger``."""
        levels = 20 * np.log10(np.maximum(loudness(audio), 1e-6))
        found: list[str] = []
        if not len(levels):
            return found
        if np.median(levels) < self.silence_db:
            found.append("silence")
        if levels.max() > self.loud_db:
            found.append("loud")
        flux = _band_flux(audio)
        if flux.max(initial=0.0) > self.onset_db:
            found.append("onset")
        return found


class AudioSetEvents:
    """An AudioSet classifier that transformers loads from a local folder (config, safetensors, feature extractor).

    ``UsageError``: no transformers, no classifier in ``folder``, or one that cannot be loaded.
    """

    threshold = 0.3

    def __init__(self, folder: str) -> None:
        transformers = _need("transformers", "transformers")
        if not (Path(folder) / "config.json").is_file():
            raise UsageError(f"audioset: no classifier (config.json) in {folder}; give the folder of its weights")
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._features = transformers.AutoFeatureExtractor.from_pretrained(folder, **local)
            kind = transformers.AutoModelForAudioClassification
            self._model = kind.from_pretrained(folder, use_safetensors=True, **local).eval()
        except Exception as error:  # transformers has no exception of its own
            raise UsageError(f"audioset: {folder} cannot be loaded ({first_line(error)[:160]})") from error

    def events(self, audio: np.ndarray) -> list[str]:
        """See ``EventTagger``: the classifier's labels with a probability above ``threshold``."""
        import torch

        inputs = self._features(audio, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            scores = torch.sigmoid(self._model(**inputs).logits[0])
        return [self._model.config.id2label[int(i)] for i in (scores > self.threshold).nonzero().flatten()]


# --------------------------------------------------------------------------------------------------------- choosing

DEFAULT_ANNOTATORS = {"faces": "haar", "speech": "silero", "lips": "correlation", "events": "signal"}
_BUILT_IN: dict[str, dict[str, Any]] = {
    "faces": {"haar": HaarFaces},
    "speech": {"silero": SileroSpeech},
    "lips": {"correlation": MouthSpeechCorrelation},
    "events": {"signal": SignalEvents},
}


@dataclass(frozen=True)
class Annotators:
    """One annotator for each role."""

    faces: FaceDetector
    speech: SpeechDetector
    lips: LipSyncScorer
    events: EventTagger
    version: str  # changes when the measures of a chunk may change

    @classmethod
    def load(cls, names: Mapping[str, str]) -> Annotators:
        """``names``: role -> a built-in name, ``audioset:FOLDER`` (events) or ``path/to/file.py:ClassName``.

        Roles without a name get the default. ``UsageError``: an unknown name or role, a missing extra, file or weights.
        """
        unknown = set(names) - set(_BUILT_IN)
        if unknown:
            raise UsageError(f"unknown annotator role {sorted(unknown)[0]!r}: there are {', '.join(_BUILT_IN)}")
        chosen = {role: _annotator(role, names.get(role, DEFAULT_ANNOTATORS[role])) for role in _BUILT_IN}
        return cls(**chosen, version=f"1:{CHUNK_S}:{CHUNK_HOP_S}:{DETECT_EVERY}:{FACE_SIZE}:{DETECT_SHORT_SIDE}")


def _annotator(role: str, name: str) -> Any:
    if name in _BUILT_IN[role]:
        return _BUILT_IN[role][name]()
    if role == "events" and name.startswith("audioset:"):
        return AudioSetEvents(name.partition(":")[2])
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        known = [*_BUILT_IN[role], *(["audioset:FOLDER"] if role == "events" else []), "path/to/file.py:ClassName"]
        raise UsageError(f"annotator {name!r} for {role} is not one of {', '.join(known)}")
    return _from_file(Path(path), class_name)


def _from_file(path: Path, class_name: str) -> Any:
    """An instance of a class in a user's Python file. The file is executed: name only files you trust."""
    if not path.is_file():
        raise UsageError(f"annotator file {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"avbench_annotator_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return getattr(module, class_name)()
    except Exception as error:
        raise UsageError(f"annotator {path}:{class_name} cannot be used ({in_one_line(error)})") from error


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"annotations need {package}: pip install 'avbench[annotate]' {package}") from error


# ---------------------------------------------------------------------------------------------------------- a clip


def annotate_clip(
    path: Path, clip_id: str, n_frames: int, n_samples: int, annotators: Annotators
) -> list[dict[str, Any]]:
    """One row per chunk, in time order: ``start_s``, ``end_s``, ``face`` and ``speech`` (shares, 0 ... 1), ``lip_sync``
    (None where no face was seen for most of the chunk) and ``events``. ``MediaError`` if the clip cannot be read."""
    from avbench.data.media import ClipReader
    from avbench.types import ClipRecord

    reader = ClipReader(path, ClipRecord(clip_id, clip_id, path.name, "", n_frames, n_samples))
    audio = reader.audio()
    total = min(n_frames, n_samples // TICKS_PER_FRAME)
    speech = annotators.speech.speech(audio)
    length, hop = round(CHUNK_S * FRAME_RATE_HZ), round(CHUNK_HOP_S * FRAME_RATE_HZ)
    rows: list[dict[str, Any]] = []
    faces = _Faces(reader, annotators.faces, clip_id)
    for first in range(0, max(total - length, 0) + 1, hop):
        last = min(first + length, total)
        crops, seen = faces.between(first, last)
        heard = audio[first * TICKS_PER_FRAME : last * TICKS_PER_FRAME]
        share = float(seen.mean()) if len(seen) else 0.0
        lip_sync = None
        if share >= FACE_IN_CHUNK and crops is not None:
            lip_sync = round(float(annotators.lips.score(crops, heard)), 4)
        rows.append(
            {
                "start_s": first / FRAME_RATE_HZ,
                "end_s": last / FRAME_RATE_HZ,
                "face": round(share, 4),
                "speech": round(float((speech[first:last] > 0.5).mean()), 4),
                "lip_sync": lip_sync,
                "events": sorted(set(annotators.events.events(heard))),
            }
        )
    return rows


class _Faces:
    """The largest face of every frame as a square crop; only the current chunk's frames are kept."""

    def __init__(self, reader: Any, detector: FaceDetector, clip_id: str) -> None:
        self._crops = self._all(reader, detector, clip_id)
        self._kept: list[np.ndarray | None] = []
        self._first = 0  # frame index of _kept[0]

    def between(self, first: int, last: int) -> tuple[np.ndarray | None, np.ndarray]:
        """((n, 96, 96, 3) uint8 or None, (n,) bool: a face was seen). Frames without a face repeat the last crop."""
        del self._kept[: first - self._first]
        self._first = first
        while len(self._kept) < last - first:
            self._kept.append(next(self._crops))
        crops = self._kept[: last - first]
        seen = np.array([crop is not None for crop in crops], bool)
        known = next((crop for crop in crops if crop is not None), None)
        if known is None:
            return None, seen
        filled = []
        for crop in crops:
            known = crop if crop is not None else known
            filled.append(known)
        return np.stack(filled), seen

    @staticmethod
    def _all(reader: Any, detector: FaceDetector, clip_id: str) -> Iterator[np.ndarray | None]:
        from avbench.data.media import rgb_converter

        cv2 = _need("cv2", "opencv-python-headless")
        convert, box, before = rgb_converter(), None, None
        for k, picture in enumerate(reader.pictures()):
            rgb = convert(picture, clip_id)
            small = rgb[::8, ::8].astype(np.int16)
            cut = before is None or small.shape != before.shape or np.abs(small - before).mean() > 25
            before = small
            if cut or k % DETECT_EVERY == 0:
                found = detector.faces(np.ascontiguousarray(rgb))
                box = _follow(None if cut else box, found[0] if found else None)
            if box is None:
                yield None
                continue
            x, y, w, h = box
            x, y = max(x, 0), max(y, 0)
            crop = np.ascontiguousarray(rgb[y : y + h, x : x + w])
            yield None if not crop.size else cv2.resize(crop, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_LINEAR)


def _follow(box: Box | None, found: Box | None) -> Box | None:
    """The next box: one that overlaps the last box moves it only a little, because the detector jitters."""
    if box is None or found is None:
        return found
    x0, y0 = max(box[0], found[0]), max(box[1], found[1])
    x1, y1 = min(box[0] + box[2], found[0] + found[2]), min(box[1] + box[3], found[1] + found[3])
    common = max(x1 - x0, 0) * max(y1 - y0, 0)
    if common < 0.5 * box[2] * box[3]:
        return found
    mixed = [round(0.7 * a + 0.3 * b) for a, b in zip(box, found, strict=True)]
    return mixed[0], mixed[1], mixed[2], mixed[3]


# -------------------------------------------------------------------------------------------------------- a segment


def label(start_s: float, rows: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """(category, events) of a segment that starts at ``start_s`` of a clip, from the clip's chunks whose middle lies in
    its first 39 s. ``("", ())`` if there are none."""
    inside = [row for row in rows if start_s <= (row["start_s"] + row["end_s"]) / 2 < start_s + SPAN_S]
    if not inside:
        return "", ()
    events = {event for row in inside for event in row["events"]}
    if any(row["speech"] >= SPEECH_IN_CHUNK for row in inside):
        events.add("speech")
    # a mouth that follows the sound counts as speaking, even if the speech detector hears no speech
    talking = sum((row["lip_sync"] or 0.0) >= LIP_SYNC_THRESHOLD for row in inside)
    if talking >= MIN_TALKING_SHARE * len(inside):
        category = TALKING_HEAD
    else:
        category = VOICE_OVER if np.mean([row["speech"] for row in inside]) >= MIN_SPEECH_SHARE else OTHER
    return category, tuple(sorted(events))


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


# ------------------------------------------------------------------------------------------------------------ signals


def loudness(audio: np.ndarray) -> np.ndarray:
    """(N,) at 16 kHz -> (N // 640,) float32: root mean square over the 40 ms of every frame."""
    whole = audio[: len(audio) // TICKS_PER_FRAME * TICKS_PER_FRAME].reshape(-1, TICKS_PER_FRAME)
    return np.sqrt((whole.astype(np.float64) ** 2).mean(axis=1)).astype(np.float32)


def _band_flux(audio: np.ndarray) -> np.ndarray:
    """(n,) mean rise of the band levels in dB, in 20 ms steps: high where a sound sets in over many bands at once."""
    step = 320
    n = len(audio) // step - 1
    if n < 3:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(audio, 2 * step)[::step]
    power = np.abs(np.fft.rfft(windows * np.hanning(2 * step), axis=1)) ** 2
    bands = np.stack([part.mean(axis=1) for part in np.array_split(power[:, 4:], 12, axis=1)], axis=1)
    levels = 10 * np.log10(bands + 1e-4)
    return np.maximum(levels[2:] - levels[:-2], 0).mean(axis=1)


def _dark(luma: np.ndarray) -> np.ndarray:
    return -luma.mean(axis=(1, 2))


def _change(luma: np.ndarray) -> np.ndarray:
    steps = np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))
    return np.concatenate([steps[:1], steps])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Subtract the running mean over a second: light and camera change slowly, mouths do not."""
    width = FRAME_RATE_HZ
    padded = np.pad(values, width // 2, mode="edge")
    return values - np.convolve(padded, np.ones(width) / width, "valid")[: len(values)]


def _correlation(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """Pearson's r of ``a`` and ``b`` delayed by ``lag`` frames; 0 if one of them is constant."""
    a, b = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
    n = min(len(a), len(b))
    a, b = a[:n] - a[:n].mean(), b[:n] - b[:n].mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 1e-9 else 0.0
