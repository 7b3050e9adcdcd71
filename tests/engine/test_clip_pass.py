"""Run one model over one clip: windows cut in bounded memory, batches, out-of-memory."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import PROTOCOL, ToyModel, ToyReader, toy_manifest

from avbench.engine import clip_pass
from avbench.engine.clip_pass import CalledModel, ClipPass, cut_windows
from avbench.protocol.plan import keys_of, plan
from avbench.protocol.rules import paper
from avbench.ticks import frames, ticks
from avbench.types import FrontEnd, Snapshot, UsageError, Window


class Numbered:
    """One-pixel frames that carry their number; knows how many are alive."""

    def __init__(self, n: int) -> None:
        self.n, self.alive, self.most = n, 0, 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for k in range(self.n):
            frame = np.full((3, 1, 1), k)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(frame, self.gone)
            yield (frame,)

    def gone(self) -> None:
        self.alive -= 1


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 400), st.sampled_from([5, 25, 125])), min_size=1, max_size=12))
def test_windows_are_cut_right_and_memory_is_bounded(starts: set[tuple[int, int]]) -> None:
    windows = sorted((Window(s * 640, n * 640) for s, n in starts), key=lambda w: (w.end, w.start))
    grid, counters, order = Numbered(600), Counter[str](), []
    for window, held in cut_windows(iter(grid), windows, toy_manifest(1).clips["clip0"], counters):
        assert [int(f[0, 0, 0]) for (f,) in held] == list(range(frames(window.start), frames(window.end)))
        order.append(window)
        del held
    assert order == windows
    assert counters["frames_decoded"] == frames(windows[-1].end)
    assert grid.most <= max(w.length for w in windows) // 640 + 2


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("two_tower", [False, True])
def test_a_stretch_is_heard_once_and_kept_no_longer_than_windows_are_cut_out_of_it(
    two_tower: bool, batch_size: int
) -> None:
    heard: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Hears(ToyModel):
        column_samples = 1

        def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
            features = audio[None].copy()
            heard.append(weakref.ref(features))
            nonlocal most
            most = max(most, sum(ref() is not None for ref in heard))
            return features

        def encode_audio(self, audio: np.ndarray) -> np.ndarray:
            return super().encode_audio(audio[:, 0])

    manifest = toy_manifest(1, 100, (0.0,))
    streams = [replace(manifest.segments[0], start=ticks(2 + 10 * k), id=f"{k}") for k in range(8)]
    keys = [key for stream in streams for key in keys_of(paper(2, 6), stream)]  # 17 s each: two or three at a time
    model = CalledModel(Hears(two_tower=two_tower), "m", batch_size, "cpu", 21)
    work = ClipPass(model, keys, ToyReader(manifest.clips["clip0"]).audio())
    for window in sorted({Window(key.picture, key.window) for key in keys}):
        work.add(window, np.zeros((125, 3, 8, 8), np.uint8))
    work.finish()
    assert len(work.results) == len(keys) == 48
    assert not work.bad
    assert len(heard) == 8
    assert most <= 3
    assert not any(ref() is not None for ref in heard)


@pytest.mark.parametrize("two_tower", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_give_what_single_windows_give_and_are_halved_when_memory_runs_out(
    two_tower: bool, batch_size: int
) -> None:
    sizes: list[int] = []

    class Big(ToyModel):
        uses_torch = True

        def encode_video(self, video: Any) -> Any:
            sizes.append(len(video))
            if len(video) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.from_numpy(super().encode_video(video.numpy()))

        def encode_audio(self, audio: Any) -> Any:
            return torch.from_numpy(super().encode_audio(audio.numpy()))

        def fuse(self, video: Any, audio: Any) -> Snapshot:
            return Snapshot(*map(torch.from_numpy, super().fuse(video.numpy(), audio.numpy())))

    manifest = toy_manifest(1)
    keys = plan(manifest.segments, manifest.clips, [PROTOCOL]).keys["clip0"]
    reader = ToyReader(manifest.clips["clip0"])
    video = np.stack([f for (f,) in reader.frames(FrontEnd(size=8))])
    results = []
    for model, size in ((ToyModel(0), 1), (Big(0, two_tower=two_tower), batch_size)):
        work = ClipPass(CalledModel(model, "m", size, "cpu", 21), keys, reader.audio())
        for start in sorted({k.picture for k in keys}):
            window = Window(start, ticks(5))
            assert work.wants(window)
            work.add(window, video[frames(start) : frames(start) + 125])
        work.finish()
        assert not work.bad
        results.append(work.results)
    assert results[0].keys() == results[1].keys()
    for key in keys:
        for one, other in zip(results[0][key], results[1][key], strict=True):
            np.testing.assert_array_equal(one, other)
    if batch_size > 2:
        assert max(sizes) > 2 >= sizes[-1]


def test_a_batch_that_failed_is_gone_before_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model had made lives on in the traceback of the error: nothing could be given back before that is gone."""
    made: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def full(some: list[int]) -> list[int]:
        activations = torch.zeros(1000)
        made.append(weakref.ref(activations))
        if len(some) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return some

    monkeypatch.setattr(clip_pass, "free_gpu_memory", lambda: alive.append(made[-1]() is not None))
    model = CalledModel(ToyModel(), "m", 4, "cpu", 21)
    assert model.in_batches(full, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert alive == [False, False]
    assert model.batch_size == 1


@pytest.mark.parametrize("features", [{"a": 1}, np.zeros((14, 1, 3)), np.zeros(()), (np.zeros((1, 2)), [1.0]), ()])
@pytest.mark.parametrize("tower", ["encode_video", "encode_audio"])
def test_features_that_are_not_one_per_window(tower: str, features: Any) -> None:
    class Odd(ToyModel):
        pass

    setattr(Odd, tower, lambda self, window: features)
    key = keys_of(PROTOCOL, toy_manifest(1).segments[0])[0]
    work = ClipPass(CalledModel(Odd(two_tower=True), "m", 1, "cpu", 21), [key], np.zeros(200_000, np.float32))
    with pytest.raises(UsageError, match=r"encoded features of 1 window\(s\) are .*; they must be a tensor"):
        work.add(Window(key.picture, key.window), np.zeros((125, 3, 8, 8), np.uint8))


def test_out_of_memory_with_one_window_is_a_failure() -> None:

    class Huge(ToyModel):
        def predict(self, video: Any, audio: Any) -> Snapshot:
            raise torch.OutOfMemoryError("CUDA out of memory")

    key = keys_of(PROTOCOL, toy_manifest(1).segments[0])[0]
    work = ClipPass(CalledModel(Huge(), "m", 1, "cpu", 21), [key], np.zeros(200_000, np.float32))
    work.add(Window(key.picture, key.window), np.zeros((125, 3, 8, 8), np.uint8))
    work.finish()
    (reason,) = work.bad.values()
    assert reason.startswith("broke off with OutOfMemoryError: CUDA out of memory (test_clip_pass.py, line ")


@pytest.mark.parametrize("two_tower", [False, True])
def test_results_that_are_read_later_are_those_of_now(two_tower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: a batch's results are read when the next batch has been started, and the last ones at the end."""
    happened: list[str] = []

    class Told(ToyModel):
        def encode_video(self, video: np.ndarray) -> np.ndarray:
            happened.append("start")
            return super().encode_video(video)

    manifest = toy_manifest(1)
    keys = plan(manifest.segments, manifest.clips, [PROTOCOL]).keys["clip0"]
    works = []
    for later in (False, True):
        model = CalledModel(Told(two_tower=two_tower), "m", 1, "cpu", 21)
        model.reads_later = later
        monkeypatch.setattr(model, "when_copied", lambda: lambda: happened.append("read"))
        work = ClipPass(model, keys, ToyReader(manifest.clips["clip0"]).audio())
        happened.clear()
        for window in sorted({Window(key.picture, key.window) for key in keys})[:3]:
            work.add(window, np.full((125, 3, 8, 8), window.start % 251, np.uint8))
        before, n_left = [what for what in happened if what == "read"], work.n_waiting
        work.batch.finish()
        works.append(work)
        assert work.n_waiting == 0
        assert (len(before), n_left) == ((2, 1) if later else (3, 0))
    assert happened[-1] == "read"
    assert works[0].results.keys() == works[1].results.keys()
    for key, (logits, token) in works[0].results.items():
        np.testing.assert_array_equal(works[1].results[key][0], logits)
        np.testing.assert_array_equal(works[1].results[key][1], token)
