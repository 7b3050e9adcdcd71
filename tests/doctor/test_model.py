"""The doctor finds what is right and says what is wrong: a scorer of the wrong sign, a model that breaks a rule."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avbench.baselines.xcorr import Xcorr
from avbench.cli import main
from avbench.doctor import machine as doctor
from avbench.doctor import model
from avbench.scoring.metrics import METRICS
from avbench.system.findings import Finding, print_findings
from avbench.types import Snapshot, UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]

MODELS = """
import avbench
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor
from avbench.baselines.xcorr import Xcorr
from avbench.cli import main
from avbench.system.findings import Finding, print_findings
from avbench.scoring.metrics import METRICS

class Good(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    token_dim = 3
    two_tower = True
    description = "a good one"

    def encode_video(self, video):
        return np.asarray(video, np.float32).mean(axis=(1, 2, 3, 4))

    def encode_audio(self, audio):
        return np.asarray(audio, np.float32).std(axis=1)

    def fuse(self, seen, heard):
        x = seen[:, None] + heard[:, None]
        return Snapshot(x * np.ones((1, 21), np.float32), x * np.ones((1, 3), np.float32))

    def predict(self, video, audio):
        return self.fuse(self.encode_video(video), self.encode_audio(audio))

class Stretch(Good):
    column_samples = 160

    def stretch_sound(self, audio):
        return np.asarray(audio, np.float32)[::160] - np.asarray(audio).mean()

class Deaf(Stretch):
    def encode_audio(self, audio):
        return super().encode_audio(audio[:, :80_000] if audio.shape[1] > 9999 else [])

class Before(Good):
    def audio_statistics(self, audio):
        return np.asarray(audio).mean()

class Shape(Good):
    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 20), np.float32), np.zeros((len(video), 3), np.float32))

class Token(Good):
    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32), None)

class Nan(Good):
    def predict(self, video, audio):
        logits, token = super().predict(video, audio)
        return Snapshot(logits * np.nan, token)

class Dice(Good):
    def predict(self, video, audio):
        logits, token = super().predict(video, audio)
        return Snapshot(logits + np.random.default_rng().random(), token)

class Batch(Good):
    def predict(self, video, audio):
        logits, token = super().predict(video, audio)
        return Snapshot(logits - logits.mean(axis=0), token)

class Towers(Good):
    def fuse(self, seen, heard):
        return super().fuse(seen, 2 * heard + 1)

    def predict(self, video, audio):
        return super().fuse(self.encode_video(video), self.encode_audio(audio))

class Pieces(Good):
    # a mean over pieces that do not overlap is a mean of means
    segment_layout = avbench.SegmentLayout(5, 25, 25)

    def encode_video_segments(self, video):
        return super().encode_video(video)

    def encode_audio_segments(self, audio):
        return np.square(np.asarray(audio, np.float64)).mean(axis=1), np.asarray(audio, np.float64).mean(axis=1)

    def fuse_segments(self, seen, heard):
        return self.fuse(seen.mean(axis=1), np.sqrt(heard[0].mean(axis=1) - heard[1].mean(axis=1) ** 2))

class PiecesDiffer(Pieces):
    def fuse_segments(self, seen, heard):
        return super().fuse_segments(seen[:, ::2] + 1, heard)

class PiecesLack(Pieces):
    fuse_segments = None

class PiecesRaise(Pieces):
    def encode_audio_segments(self, audio):
        raise RuntimeError("no such piece")

class Backwards(Xcorr):
    def fuse(self, motion, onsets):
        return Snapshot(super().fuse(motion, onsets).logits[:, ::-1].copy())

class Halves(Xcorr):
    def fuse(self, motion, onsets):
        said = super().fuse(motion, onsets).logits.argmax(axis=1)
        return Snapshot(np.eye(21, dtype=np.float32)[10 + (said - 10) // 4])

class Silent(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    trained_on = "nothing"

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32))

class Softmax(Xcorr):
    def fuse(self, motion, onsets):
        said = np.exp(super().fuse(motion, onsets).logits)
        return Snapshot(said / said.sum(axis=1, keepdims=True))

class Plain:
    pass

class Raises(Good):
    def predict(self, video, audio):
        raise RuntimeError("shapes do not match\\nat all")

class Moving(Good):
    def __init__(self):
        self.weight = float(np.random.default_rng().random())
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return path


def problems(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if not finding.ok]


def test_known_shifts_come_out_with_size_and_sign() -> None:
    findings = list(doctor._shifts())
    assert problems(findings) == []
    said = " | ".join(finding.text for finding in findings)
    assert "shifted on reading: audio 1.6 s early, found audio 1.6 s early" in said
    assert "shifted on reading: in sync, found in sync" in said
    assert "shifted in the file: audio 0.6 s late, found audio 0.6 s late" in said
    assert len(findings) == len(doctor.IMPOSED_S) + len(doctor.RECORDED_S)


def test_a_scorer_with_the_wrong_sign_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fuse = Xcorr.fuse
    monkeypatch.setattr(Xcorr, "fuse", lambda self, m, o: Snapshot(fuse(self, m, o).logits[:, ::-1].copy()))
    wrong = problems(list(doctor._shifts()))
    assert any("audio 1.6 s early, found audio 1.6 s late" in text for text in wrong)
    assert not any("in sync, found in sync" in text for text in wrong)


def test_a_sound_track_that_lags_by_a_class_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from avbench.data.media import ClipReader

    audio = ClipReader.audio
    monkeypatch.setattr(ClipReader, "audio", lambda self: np.roll(audio(self), 3200))
    assert len(problems(list(doctor._shifts()))) >= len(doctor.IMPOSED_S) - 1


def test_a_good_model(models: Path) -> None:
    findings = list(doctor.examine(f"{models}:Good+apa"))
    assert problems(findings) == []
    said = " | ".join(finding.text for finding in findings)
    for word in ("shape", "determinism", "batch invariance", "two towers", "causality", "fingerprint", "undeclared"):
        assert word in said
    assert "stretch" not in said  # not offered


def test_a_model_that_hears_stretches(models: Path) -> None:
    findings = [f for f in doctor.examine(f"{models}:Stretch") if f.text.startswith("stretch")]
    assert [f.ok for f in findings] == [True, True]
    assert findings[0].text == "stretch: windows cut out of stretch_sound are taken"
    assert findings[1].text.startswith("stretch: fuse(encode_video, encode_audio) and predict agree")


def test_a_model_whose_windows_are_put_together_from_segments(models: Path) -> None:
    (found,) = [f for f in doctor.examine(f"{models}:Pieces") if f.text.startswith("segments")]
    assert found.ok
    assert found.text.startswith("segments: fuse_segments of a window's segments and predict agree")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PiecesDiffer", "segments: fuse_segments of a window's segments and predict DIFFER"),
        ("PiecesLack", "segments: model PiecesLack has a segment_layout, but lacks fuse_segments"),
        ("PiecesRaise", "segments: RuntimeError: no such piece"),
        ("Shape", "logits are (3, 20), they must be (3, 21): a column for each offset class"),
        ("Token", "token_dim is 3, but predict returns no token"),
        ("Nan", "not finite"),
        ("Dice", "determinism"),
        ("Batch", "batch invariance"),
        ("Towers", "two towers"),
        ("Deaf", "stretch: "),
        ("Before", "stretch: model "),
        ("Raises", "RuntimeError: shapes do not match"),
        ("Moving", "fingerprint"),
    ],
)
def test_a_model_that_breaks_a_rule(models: Path, name: str, said: str) -> None:
    wrong = problems(list(doctor.examine(f"{models}:{name}")))
    assert any(said in text for text in wrong), wrong
    assert all("\n" not in text for text in wrong)


def test_a_model_of_the_right_sign_and_one_of_the_wrong_one(models: Path) -> None:
    sign = [f for f in doctor.examine("xcorr") if f.text.startswith("sign")]
    assert [f.ok for f in sign] == [True, True]
    assert "early where the sound is early (correlation +1.00 over 16 windows)" in sign[0].text
    assert sign[1].warning  # one window of a scene is too hard for it: said, not failed
    wrong = problems(list(doctor.examine(f"{models}:Backwards")))
    assert len(wrong) == 1
    assert "REVERSED: it predicts late where the sound is early" in wrong[0]
    halves = [f.text for f in doctor.examine(f"{models}:Halves") if f.text.startswith("sign")]
    assert "SIZE is wrong: it predicts 0.2 s where it is 0.8 s" in halves[0]


def test_a_model_that_cannot_tell_is_warned_of(models: Path) -> None:
    findings = list(doctor.examine(f"{models}:Good"))
    warnings = [f.text for f in findings if f.warning]
    assert len([text for text in warnings if "too weak to tell" in text]) == 2
    assert problems(findings) == []


def test_a_model_without_an_answer_is_not_said_to_predict(models: Path) -> None:
    findings = list(doctor.examine(f"{models}:Silent"))
    assert [f.warning for f in findings if "it gives no answer (all classes are alike)" in f.text] == [True, True]
    assert problems(findings) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([0.2] * 16, "always predicts"),
        ([-1.6, -0.8, 0.8, 1.6] * 4, "early where"),
        ([1.6, 0.8, -0.8, -1.6] * 4, "REVERSED"),
    ],
)
def test_what_follows(found: list[float], says: str) -> None:
    _, text = model._follows(np.array([-1.6, -0.8, 0.8, 1.6] * 4), np.array(found))
    assert says in text


def test_a_head_that_looks_ahead(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avbench.baselines.apa import Apa

    def look_ahead(self: Apa, logits: np.ndarray, tokens: object, times_s: object) -> np.ndarray:
        return logits - logits.mean(axis=1, keepdims=True)

    monkeypatch.setattr(Apa, "replay", look_ahead)
    wrong = problems(list(doctor.examine(f"{models}:Good+apa")))
    assert any(text.startswith("replay: head apa in steps and all at once DIFFER") for text in wrong)
    assert wrong[-1] == "causality: noise in the future of head apa CHANGES earlier predictions"


def test_trivial_models_have_nothing_to_check() -> None:
    with pytest.raises(UsageError, match="ignores its input"):
        list(doctor.examine("constant"))


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    from avbench.engine.store import SnapshotStore
    from avbench.protocol.plan import SnapshotKey

    store = SnapshotStore(tmp_path / "store")
    store.put("a" * 64, "b" * 64, [SnapshotKey(0, 0)], np.zeros((1, 21), np.float32))
    assert problems(list(doctor._store(tmp_path / "store"))) == []
    (shard,) = (tmp_path / "store").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-4])
    assert str(shard) in problems(list(doctor._store(tmp_path / "store")))[0]


def test_the_metrics_are_those_of_scikit_learn(avbench: Avbench) -> None:
    done = avbench("doctor", "metrics")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(METRICS) + 1
    for metric, line in zip(METRICS.values(), lines, strict=False):
        assert line.startswith(f"ok    {metric.title}: agrees with ")
    assert sum("scikit-learn's" in line for line in lines) == 5
    done = avbench("doctor", "metrics", "--dtype", "bfloat16")
    assert done.returncode == 2
    assert "need a model name" in done.stderr


@pytest.mark.parametrize("name", list(METRICS))
def test_a_wrong_metric_is_reported(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = METRICS[name].function
    wrong = replace(METRICS[name], function=lambda cases, drawn: right(cases, drawn) + 1e-9)
    monkeypatch.setitem(METRICS, name, wrong)
    assert main(["doctor", "metrics"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert failed[0].startswith(f"FAIL  {wrong.title}: DIFFERS from ")


def test_a_metric_that_is_undefined_where_the_reference_is_not_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    undefined = replace(METRICS["roc_auc"], function=lambda cases, drawn: np.array([np.nan]))
    monkeypatch.setitem(METRICS, "roc_auc", undefined)
    (text,) = problems(list(doctor.examine("metrics")))
    assert "ROC-AUC: DIFFERS" in text


def test_a_metric_without_a_reference_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "other", replace(METRICS["acc"], name="other", title="Other"))
    assert problems(list(doctor.examine("metrics"))) == ["no independent definition of Other"]


def test_a_finding_sends_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding(True, "a\x1b[2Jb"), Finding(True, "odd", warning=True), Finding(False, "wrong")]
    assert print_findings(findings) == (False, True)
    assert capsys.readouterr().out == "ok    a?[2Jb\nwarn  odd\nFAIL  wrong\n"


def test_probabilities_are_no_logits(models: Path, avbench: Avbench) -> None:
    done = avbench("doctor", f"{models}:Softmax")
    assert "warn  logits look like probabilities" in done.stdout
    assert "return what comes before softmax; averages (APA) and calibration take logits" in done.stdout
    assert not model._probabilities(np.zeros((2, 21), np.float32))
    done = avbench("doctor", f"{models}:Plain")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    how = "subclass it, as in class Plain(avbench.SnapshotPredictor, torch.nn.Module)"
    assert f"models.py:Plain is not a SnapshotPredictor; {how}" in done.stderr


def test_the_command_says_it_in_words_and_exits_accordingly(models: Path, avbench: Avbench) -> None:
    done = avbench("doctor", f"{models}:Dice")
    assert done.returncode == 1
    assert "FAIL  determinism" in done.stdout
    assert "Traceback" not in done.stderr
    done = avbench("doctor", "no-such-model")
    assert done.returncode == 2
    assert done.stderr.startswith("avbench: error: unknown model")
