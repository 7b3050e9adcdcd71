"""Annotators: what they find in made-up and real material, the rule over chunks, and plug-ins."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.data.annotate import (
    DEFAULT_ANNOTATORS,
    Annotators,
    AudioSetEvents,
    HaarFaces,
    MouthSpeechCorrelation,
    SignalEvents,
    SileroSpeech,
    agreement,
    annotate_clip,
    label,
    loudness,
)
from avbench.data.encode import encode_clip
from avbench.data.scenes import Scene
from avbench.types import SegmentRecord, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
RNG = np.random.default_rng(4)


def mouths(opening: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 96, 96, 3): a face whose mouth is as dark as ``opening`` says, in changing light, with noise."""
    n = len(opening)
    light = np.interp(np.arange(n), np.arange(0, n + 20, 20), rng.uniform(-15, 15, n // 20 + 1))
    faces = np.full((n, 96, 96, 3), 150.0) + light[:, None, None, None]
    faces[:, 66:86, 32:64] -= 70 * opening[:, None, None, None]
    return np.clip(faces + rng.normal(0, 4, faces.shape), 0, 255).astype(np.uint8)


def speech_like(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) an opening of 0 ... 1 in syllables of about 0.2 s with pauses."""
    knots = rng.uniform(0, 1, n // 3 + 2) * (rng.random(n // 3 + 2) < 0.7)
    return np.interp(np.arange(n), np.arange(len(knots)) * 3, knots)


def heard(opening: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (0.2 * opening.repeat(640) * rng.standard_normal(640 * len(opening))).astype(np.float32)


def test_mouths_that_follow_the_sound_score_high_and_others_do_not() -> None:
    scorer, own, other, late, shut = MouthSpeechCorrelation(), [], [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        opening = speech_like(100, rng)
        faces, audio = mouths(opening, rng), heard(opening, rng)
        own.append(scorer.score(faces, audio))
        other.append(scorer.score(faces, heard(speech_like(100, rng), rng)))
        late.append(scorer.score(faces, np.roll(audio, 16_000)))
        shut.append(scorer.score(mouths(np.zeros(100), rng), audio))
    assert min(own) > 0.4 > max(*other, *late, *shut)


def test_the_face_cascade_finds_faces_and_not_everything() -> None:
    detector = HaarFaces()
    scene = Scene("talking head", 0, 2_700_000, 20)
    shown = list(scene.frames())
    hits, empty = [], []
    for shot in scene.shots:
        face = any(len(layer.sprites) == 20 for layer in shot.layers)
        (hits if face else empty).append(len(detector.faces(shown[shot.first + shot.n // 2])))
    assert all(hits)
    assert hits
    assert sum(empty) <= 1
    big = np.ascontiguousarray(shown[scene.shots[0].first + 5].repeat(8, 0).repeat(8, 1))
    for x, y, w, h in detector.faces(big):
        assert 0 <= x < x + w <= big.shape[1]
        assert 0 <= y < y + h <= big.shape[0]


def test_speech_is_told_from_noise() -> None:
    detector = SileroSpeech()
    # (one of the synthetic voices that Silero takes for speech; it does not take all of them)
    talk = detector.speech(Scene("voice-over", 0, 2_700_001, 40).audio()[: 12 * 16_000])
    hiss = detector.speech((0.05 * RNG.standard_normal(12 * 16_000)).astype(np.float32))
    assert talk.shape == hiss.shape == (300,)
    assert (talk > 0.5).mean() > 0.4
    assert (hiss > 0.5).mean() < 0.05


def test_signal_events_say_what_was_measured() -> None:
    tagger = SignalEvents()
    quiet = (0.02 * RNG.standard_normal(64_000)).astype(np.float32)
    hit = quiet.copy()
    hit[30_000:30_800] += (0.9 * RNG.standard_normal(800)).astype(np.float32)
    assert tagger.events(quiet) == []
    assert tagger.events(np.zeros(64_000, np.float32)) == ["silence"]
    assert set(tagger.events(hit)) == {"loud", "onset"}
    assert tagger.events(np.zeros(100, np.float32)) == []
    assert loudness(np.full(1300, 0.5, np.float32)) == pytest.approx([0.5, 0.5])


def row(start_s: float, speech: float, lip_sync: float | None = None, *events: str) -> dict[str, Any]:
    return {
        "start_s": start_s,
        "end_s": start_s + 4,
        "face": 1.0,
        "speech": speech,
        "lip_sync": lip_sync,
        "events": list(events),
    }


def test_the_rule_over_a_segment_s_chunks() -> None:
    spoken = [row(s, 0.9) for s in range(0, 60, 2)]
    silent = [row(s, 0.0, None, "loud") for s in range(0, 60, 2)]
    assert label(0, spoken) == ("voice-over", ("speech",))
    assert label(0, silent) == ("other", ("loud",))
    talking = [row(s, 0.9, 0.7 if s < 8 else 0.1) for s in range(0, 60, 2)]
    assert label(0, talking)[0] == "talking head"
    assert label(10, talking)[0] == "voice-over"  # what lies before the segment does not count
    assert label(0, [row(0, 0.0, 0.9)])[0] == "talking head"
    assert label(0, []) == label(500, spoken) == ("", ())


def test_agreement_counts_per_category() -> None:
    def segment(name: str, category: str) -> SegmentRecord:
        return SegmentRecord(name, "c", "v", 0, 0, 10, category=category)

    known = [segment("a", "talking head"), segment("b", "talking head"), segment("c", "other")]
    table = agreement(known, {"a": "talking head", "b": "other", "c": "other"})
    assert table["talking head"] == {"n": 2, "found": 1, "precision": 1.0, "recall": 0.5}
    assert table["other"] == {"n": 1, "found": 2, "precision": 0.5, "recall": 1.0}
    assert table["voice-over"] == {"n": 0, "found": 0, "precision": None, "recall": None}


def test_a_clip_is_looked_at_in_overlapping_chunks(tmp_path: Path) -> None:
    scene = Scene("talking head", 0, 2_700_000, 11)
    encode_clip(tmp_path / "c.mp4", scene.frames(), scene.audio())
    annotators = Annotators.load({})
    rows = annotate_clip(tmp_path / "c.mp4", "c", scene.n_frames, scene.n_samples, annotators)
    assert [(r["start_s"], r["end_s"]) for r in rows] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert all(0 <= r["face"] <= 1 and 0 <= r["speech"] <= 1 for r in rows)
    assert rows == annotate_clip(tmp_path / "c.mp4", "c", scene.n_frames, scene.n_samples, annotators)
    short = annotate_clip(tmp_path / "c.mp4", "c", 50, 32_000, annotators)
    assert [(r["start_s"], r["end_s"]) for r in short] == [(0, 2)]


def test_real_clips(tmp_path: Path) -> None:
    """What the built-in annotators make of one real speaker (whom Haar finds and the correlation does not follow: see
    its note) and of one real clip without speech."""
    media = Path(__file__).resolve().parents[3] / "shared" / "media"
    if not media.is_dir():
        pytest.skip("the real clips in ../shared/media are not here")
    annotators = Annotators.load({})
    speaker = annotate_clip(media / "lrs3" / "00018.mp4", "lrs3", 392, 250_880, annotators)
    assert np.mean([r["face"] for r in speaker]) > 0.7
    assert np.mean([r["speech"] for r in speaker]) > 0.6
    assert label(0, speaker)[0] in ("talking head", "voice-over")
    sound = next((media / "vggsound_h264").glob("*.mp4"))
    noise = annotate_clip(sound, "vgg", 249, 160_000, annotators)
    assert label(0, noise)[0] == "other"


# ----------------------------------------------------------------------------------------------------------- plug-ins


def test_annotators_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Bad:\n    def __init__(self): raise ValueError('no weights')\n")
    for names, text in (
        ({"ears": "x"}, "unknown annotator role 'ears'"),
        ({"lips": "syncnet"}, "annotator 'syncnet' for lips is not one of correlation, path/to/file.py:ClassName"),
        ({"lips": f"{tmp_path / 'no.py'}:X"}, "does not exist"),
        ({"lips": f"{file}:Bad"}, r"mine.py:Bad cannot be used \(ValueError: no weights\)"),
        ({"lips": f"{file}:None_"}, "cannot be used"),
    ):
        with pytest.raises(UsageError, match=text) as caught:
            Annotators.load(names)
        assert "\n" not in str(caught.value)
    for module, text in (("cv2", "opencv-python-headless"), ("silero_vad", "silero-vad")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(UsageError, match=f"annotations need {text}: pip install"):
                Annotators.load({})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match="annotations need transformers"):
        Annotators.load({"events": f"audioset:{tmp_path}"})


def test_an_audioset_classifier_is_only_read_from_a_local_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in for transformers: which calls are made, and that nothing remote or pickled is allowed."""
    calls: list[dict[str, Any]] = []

    class Model:
        config = types.SimpleNamespace(id2label={0: "Speech", 1: "Whistle", 2: "Crowd"})

        def eval(self) -> Model:
            return self

        def __call__(self, **inputs: Any) -> Any:
            assert inputs == {"x": 64_000}
            return types.SimpleNamespace(logits=torch.tensor([[3.0, -3.0, 0.0]]))

    def load(result: Any) -> Any:
        def from_pretrained(folder: str, **options: Any) -> Any:
            calls.append({"folder": folder, **options})
            return result

        return types.SimpleNamespace(from_pretrained=from_pretrained)

    fake = types.ModuleType("transformers")
    fake.AutoFeatureExtractor = load(lambda audio, **_: {"x": len(audio)})  # type: ignore[attr-defined]
    fake.AutoModelForAudioClassification = load(Model())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    with pytest.raises(UsageError, match=r"no classifier \(config\.json\)"):
        AudioSetEvents(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert AudioSetEvents(str(tmp_path)).events(np.zeros(64_000, np.float32)) == ["Speech", "Crowd"]
    assert all(call["local_files_only"] and not call["trust_remote_code"] for call in calls)
    assert calls[1]["use_safetensors"] is True


def test_the_command_scores_and_writes(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    plug_in = tmp_path / "mine.py"
    plug_in.write_text(
        "import numpy as np\n"
        "class Faces:\n    def faces(self, picture): return []\n"
        "class Speech:\n    def speech(self, audio): return np.ones(len(audio) // 640, np.float32)\n"
    )
    own = ("--faces", f"{plug_in}:Faces", "--speech", f"{plug_in}:Speech")
    done = avbench("data", "annotate", "--data", clicks, "--score", "--out", "m", *own)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line.split()[-4:] for line in done.stdout.splitlines()}
    # the fixture's segments are half "talking head", half "voice-over"; without faces all speech is a voice-over
    assert lines["talking head"] == ["2", "0", "-", "0.000"]
    assert lines["voice-over"] == ["2", "4", "0.500", "1.000"]
    from avbench.protocol.manifest import read_manifest

    assert {s.category for s in read_manifest(tmp_path / "m").segments} == {"voice-over"}
    assert avbench("data", "annotate", "--data", clicks).returncode == 2
    assert "give --score" in avbench("data", "annotate", "--data", clicks).stderr


def test_defaults_are_built_in() -> None:
    assert set(DEFAULT_ANNOTATORS) == {"faces", "speech", "lips", "events"}
