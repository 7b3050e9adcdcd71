"""``avbench.predict`` from Python: default models, answers as objects, windows that fail, decoders that die."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import deadly
from offsetclips import click_clip

import avbench
from avbench.data import from_files
from avbench.engine.runner import Compute
from avbench.runs import predict as module
from avbench.runs.predict import Predictor, default_model, files_of, resolved
from avbench.types import MediaError, UsageError

TOY = """
import numpy as np
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor

class Toy(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    uses_torch = False

    def predict(self, video, audio):
        logits = np.zeros((len(video), 21), np.float32)
        logits[:, 12] = 8
        {more}
        return Snapshot(logits)
"""


def toy(folder: Path, more: str = "pass") -> str:
    """A model of the user's own that always says 0.4 s early."""
    (folder / "toy.py").write_text(TOY.format(more=more))
    return f"{folder / 'toy.py'}:Toy"


# -- which model -----------------------------------------------------------------------------------------------------


def test_the_best_weights_in_the_cache_answer(own_cache: Path) -> None:
    name, told = default_model()
    assert name == "xcorr"
    assert "`avbench predict --fetch FILE` gets synchformer.audioset" in told
    assert len(told) <= 120
    assert "\n" not in told
    weights = own_cache / "weights"
    weights.mkdir(parents=True)
    for found, best in (
        ("synchformer.lrs3", "synchformer.lrs3"),
        ("sparsesync.mine", "sparsesync.mine"),
        ("sparsesync.vggsound", "sparsesync.mine"),
        ("synchformer.audioset", "synchformer.audioset"),
    ):
        (weights / f"{found}.safetensors").touch()
        assert default_model() == (best, "")


def test_a_name_without_head_gets_one() -> None:
    assert resolved("xcorr").name == "xcorr+bayes"
    assert resolved("xcorr+apa").name == "xcorr+apa"
    assert resolved("xcorr+none").name == "xcorr+none"
    assert resolved("streamsync-trf").name == "streamsync-trf"
    assert resolved("apa-sparsesync").name == "apa-sparsesync"
    assert resolved("sparsesync.synthsync-pt").name == "sparsesync.synthsync-pt+bayes"


def test_weights_are_fetched_and_converted_once(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    from avbench.weights import checkpoints

    done: list[str] = []

    def convert(source: Path, target: Path, *_: object, **__: object) -> None:
        done.append(f"{source.name} -> {target.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    monkeypatch.setattr(module, "fetch", lambda name, progress: done.append(name))
    monkeypatch.setattr(checkpoints, "convert", convert)
    module.fetch_best()
    module.fetch_best()
    assert done == ["synchformer.audioset", "synchformer.audioset.pt -> synchformer.audioset.safetensors"]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_one_file_is_an_object_and_several_are_a_list(tmp_path: Path) -> None:
    clip = click_clip(tmp_path / "c.mp4", 14, [(0.0, 0.4)])
    told = avbench.predict(clip, model="xcorr", tolerance="0.5/0.1")
    assert isinstance(told, avbench.Prediction)
    assert told.regimes[0].offset_s == pytest.approx(0.4, abs=0.02)
    assert told.tolerance["0.5/0.1"] is True
    assert len(told.frame()) == told.as_json()["windows"] == 5
    assert told.repair.startswith("ffmpeg")
    assert any("weak evidence" in warning for warning in told.warnings)
    found = avbench.predict([clip, str(tmp_path / "none.mp4")], model="xcorr")
    assert [p.error for p in found] == ["", "does not exist"]
    assert found[0].as_json()["regimes"] == told.as_json()["regimes"] or told.asked
    (alone,) = avbench.predict(tmp_path, model="xcorr")
    assert alone.path == str(clip)
    with pytest.raises(MediaError, match="does not exist"):
        avbench.predict(tmp_path / "none.mp4", model="xcorr")
    with pytest.raises(UsageError, match="tolerance 'x'"):
        avbench.predict(clip, model="xcorr", tolerance="x")


def test_a_model_of_the_users_own(tmp_path: Path) -> None:
    clip = click_clip(tmp_path / "c.mp4", 11)
    told = avbench.predict(clip, toy(tmp_path), hop_s=1)
    assert (told.model, len(told.windows)) == (f"{toy(tmp_path)}+bayes", 7)
    assert told.regimes[0].offset_s == pytest.approx(0.4, abs=0.01)
    assert told.regimes[0].words == "sure"


def test_windows_that_fail_are_no_evidence_and_a_model_that_fails_is_an_error(tmp_path: Path) -> None:
    clip = click_clip(tmp_path / "c.mp4", 14)
    often = "self.n = getattr(self, 'n', 0) + 1; logits[:] = logits if self.n != 2 else np.nan"
    told = avbench.predict(clip, toy(tmp_path, often))
    assert [bool(window.why) for window in told.windows] == [False, True, False, False, False]
    assert "gave NaN or infinity" in told.windows[1].why
    with pytest.raises(MediaError, match="broke off with ZeroDivisionError"):
        avbench.predict(clip, toy(tmp_path, "1 / 0"))


def test_windows_that_touch_a_gap_are_no_evidence(tmp_path: Path) -> None:
    import av

    path, rng = tmp_path / "c.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("mpeg4", rate=25), file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        video.width = video.height = 32
        for k in range(20 * 25):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (32, 32, 3), np.uint8), "rgb24")
            frame.pts = k
            file.mux(video.encode(frame))
            if not 6 * 25 <= k < 7 * 25 and not 300 <= k < 303:  # a second of sound is missing, and 0.12 s
                sound = av.AudioFrame.from_ndarray(rng.integers(-9999, 9999, (1, 640), np.int16), "s16", "mono")
                sound.sample_rate, sound.pts = 16_000, k * 640
                file.mux(audio.encode(sound))
        file.mux(video.encode())
        file.mux(audio.encode())
    told = avbench.predict(path, "xcorr")
    missing = [window.start_s for window in told.windows if window.why]
    assert missing == [2.0, 4.0, 6.0]
    assert {window.why for window in told.windows if window.why} == {"the sound is missing from 6 to 7 s"}
    assert any("120.0 ms of short holes in the sound are silence" in warning for warning in told.warnings)


def test_a_decoder_that_dies_costs_its_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "deadly", "z"):
        click_clip(folder / f"{name}.mp4", 6)
    with monkeypatch.context() as patched:
        patched.setattr(from_files, "_measure", deadly.measure)
        reading = avbench.predict(folder, "xcorr")
    assert [p.error for p in reading] == ["", "the decoder died (SIGSEGV) while reading it", ""]
    monkeypatch.setattr(module, "_Opener", lambda manifest, folder: deadly.Opener(manifest))
    computing = avbench.predict(folder, "xcorr", compute=Compute(tmp_path / "other"))
    assert [p.error for p in computing] == ["", "the worker process died (killed by SIGSEGV)", ""]


def test_a_second_call_computes_nothing_and_answers_the_same(tmp_path: Path) -> None:
    for k in range(3):
        click_clip(tmp_path / f"{k}.mp4", 9, [(0.0, 0.2)], seed=k)
    first, again = (Predictor("xcorr", how=Compute(tmp_path / "store", 2)) for _ in range(2))
    files, left_out = files_of([tmp_path])
    assert left_out == []
    told = [predictor.answer(files) for predictor in (first, again)]
    assert first.counters["snapshots_computed"] == again.counters["snapshots_from_store"] == 9
    assert again.counters["snapshots_computed"] == 0
    assert [p.as_json() for p in told[0]] == [p.as_json() for p in told[1]]


def test_answers_are_told_as_soon_as_they_are_there(tmp_path: Path) -> None:
    for name in "ab":
        click_clip(tmp_path / f"{name}.mp4", 9)
    (tmp_path / "broken.mp4").write_bytes(b"no media")
    seen: list[str] = []
    predictor = Predictor("xcorr", how=Compute(tmp_path / "store", 1))
    files, _ = files_of([*sorted(tmp_path.glob("*.mp4")), tmp_path / "none.mp4"])
    predictor.answer(
        files,
        lambda stage, done, total, item: seen.append(f"{item} computed" if stage == "decoding and snapshots" else ""),
        lambda prediction: seen.append(f"{prediction.file.stem} ready"),
    )
    told = [text for text in seen if text]
    assert told.index("none ready") < told.index("broken ready") < told.index("a ready") < told.index("b computed")
    assert told[-1] == "b ready"
