"""Segments that windows share are encoded once, with the bytes of whole windows, and kept no longer than needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import fake_device
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmented import LAYOUT, Segmented, SmallSynchformer

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import ToyReader, toy_manifest

from avbench.baselines import frontends
from avbench.baselines.synchformer import Synchformer
from avbench.baselines.tuned import tuned
from avbench.engine import clip_pass
from avbench.engine.clip_pass import CalledModel, ClipPass
from avbench.engine.replay import gather
from avbench.engine.runner import Compute, RunReport, compute
from avbench.engine.shared_segments import Kept, layout_of
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import SnapshotKey, keys_of
from avbench.protocol.rules import Protocol, streaming
from avbench.ticks import TICKS_PER_FRAME, frames, ticks
from avbench.types import ClipRecord, FrontEnd, Gap, Law, Piece, SegmentLayout, Snapshot, UsageError, Window


class Watched(Kept):
    """Knows how many were kept at most, and all that there are."""

    all: ClassVar[list[Watched]] = []

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        Watched.all.append(self)

    def keep(self, segment: Any, features: Any) -> None:
        super().keep(segment, features)
        self.most = max(self.most, len(self))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Watched]]:
    monkeypatch.setattr("avbench.engine.shared_segments.Kept", Watched)
    Watched.all.clear()
    yield Watched.all
    Watched.all.clear()


def streams(*starts_and_offsets: tuple[int, int], duration_s: int = 16) -> Manifest:
    """A clip with a segment for each start (frames) and offset (samples)."""
    manifest = toy_manifest(1, duration_s, (0.0,))
    base = manifest.segments[0]
    segments = [
        replace(base, id=f"{k}", start=start * TICKS_PER_FRAME, offset=offset)
        for k, (start, offset) in enumerate(starts_and_offsets)
    ]
    return replace(manifest, segments=tuple(segments))


@lru_cache
def media(clip: ClipRecord, frontend: FrontEnd) -> tuple[np.ndarray, np.ndarray]:
    """The clip's pictures and its sound."""
    reader = ToyReader(clip)
    return np.stack([f for (f,) in reader.frames(frontend)]), reader.audio()


def passed(
    model: Any, manifest: Manifest, protocol: Protocol, batch_size: int = 1, shared: bool = True, device: str = "cpu"
) -> ClipPass:
    """One pass over the clip, of segments or of whole windows."""
    keys = sorted({key for stream in manifest.segments for key in keys_of(protocol, stream)})
    called = CalledModel(model, "m", batch_size, "cpu", 21)
    called.device, called.compared = device, True  # no window is computed once more to compare
    if not shared:
        called.layout = None
    video, sound = media(manifest.clips["clip0"], model.frontend)
    work = ClipPass(called, keys, sound)
    for window in sorted({Window(k.picture, k.window) for k in keys}, key=lambda w: (w.end, w.start)):
        if work.wants(window):
            work.add(window, video[frames(window.start) : frames(window.end)])
    work.finish()
    return work


def assert_equal(one: ClipPass, other: ClipPass) -> None:
    assert one.bad == other.bad
    assert one.results.keys() == other.results.keys()
    assert one.results
    for key, (logits, token) in one.results.items():
        np.testing.assert_array_equal(logits, other.results[key][0])
        np.testing.assert_array_equal(token, other.results[key][1])


# ------------------------------------------------------------------------------------------------------- Synchformer


@pytest.mark.parametrize("n_frames", [120, 121, 125, 130, 150, 151, 200, 745])
def test_the_layout_cuts_as_the_front_end_does(n_frames: int) -> None:
    video = torch.arange(n_frames)[:, None, None, None]
    sound = torch.arange(n_frames * 640)
    layout = layout_of(SmallSynchformer())
    assert layout == LAYOUT == Synchformer.segment_layout
    assert torch.equal(torch.stack(layout.cut(video)), frontends.segment_video(video))
    assert torch.equal(torch.stack(layout.cut(sound, 640)), frontends.segment_audio(sound))


def run(root: Path, manifest: Manifest, protocol: Protocol, model: Any) -> tuple[RunReport, dict[str, bytes]]:
    report = compute(manifest, [protocol], {"m": model}, Compute(root, 1), open_clip=ToyReader)
    return report, {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.safetensors"))}


def test_at_a_hop_of_1_92_s_synchformer_encodes_six_new_segments_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manifest, n = SmallSynchformer(), streams((25, ticks(-0.37))), 4
    report, stored = run(tmp_path / "shared", manifest, streaming(1.92, n), model)
    assert report.counters["picture_segments_encoded"] == 14 + 6 * (n - 1)
    assert report.counters["sound_segments_encoded"] == 14 + 6 * (n - 1)
    assert report.counters["picture_windows_encoded"] == report.counters["sound_windows_encoded"] == n
    monkeypatch.setattr(clip_pass, "layout_of", lambda model: None)
    plain, whole = run(tmp_path / "whole", manifest, streaming(1.92, n), model)
    assert "picture_segments_encoded" not in plain.counters
    assert whole
    assert stored == whole


def test_at_a_hop_of_2_s_no_segment_coincides_and_whole_windows_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, n = SmallSynchformer(), 3

    def never(self: Any, video: Any, audio: Any) -> Snapshot:
        raise AssertionError("out of segments")

    monkeypatch.setattr(Synchformer, "fuse_segments", never)
    report, _ = run(tmp_path, streams((25, 0)), streaming(2, n), model)
    assert report.counters["snapshots_computed"] == n
    assert report.counters["picture_segments_encoded"] == report.counters["sound_segments_encoded"] == 14 * n


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_also_in_lower_precision(dtype: str) -> None:
    model, manifest, protocol = tuned(SmallSynchformer(), dtype=dtype), streams((0, 0)), streaming(1.92, 2)
    work = passed(model, manifest, protocol)
    assert work.counters["picture_segments_encoded"] == 20
    assert_equal(work, passed(model, manifest, protocol, shared=False))


# -------------------------------------------------------------------------------------------------------- any streams


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(50, 90), st.integers(-4, 4)), min_size=1, max_size=4, unique=True),
    st.sampled_from([8, 16, 24, 48, 50, 12]),
    st.sampled_from([1, 3]),
    st.sampled_from(["cpu", "other"]),
)
def test_each_segment_once_whatever_the_streams_with_the_bytes_of_whole_windows(
    places: list[tuple[int, int]], hop_frames: int, batch_size: int, device: str
) -> None:
    manifest = streams(*((start, 2560 * offset) for start, offset in places))
    protocol = streaming(hop_frames * 0.04, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avbench.engine.shared_segments.Kept", Watched)
        Watched.all.clear()
        model, whole = Segmented(), Segmented()
        work = passed(model, manifest, protocol, batch_size, device=device)
        assert_equal(work, passed(whole, manifest, protocol, batch_size, shared=False))
        for stream in ("picture", "sound"):
            asked, before = model.encoded[stream], whole.encoded[stream]
            assert set(asked) == set(before)
            assert len(asked) == work.counters[f"{stream}_segments_encoded"]
            assert len(asked) == (len(set(asked)) if work.shared else len(before))
        if not work.shared:  # nothing coincides: whole windows ask for no segment twice
            assert all(len(set(asked)) == len(asked) for asked in model.encoded.values())
        for kept in Watched.all:
            assert len(kept) == 0
            phases = {8: 1, 16: 1, 24: 1, 48: 1, 12: 2, 50: 2}[hop_frames]  # of windows that are open at a time
            assert kept.most <= 14 * (len(places) * phases + batch_size - 1)


def test_a_long_stream_keeps_the_segments_of_one_window(watched: list[Watched]) -> None:
    work = passed(Segmented(), streams((0, 0), duration_s=90), streaming(0.32, 200))
    assert work.counters["picture_segments_encoded"] == 14 + 199
    assert work.counters["sound_segments_encoded"] == 14 + 199
    assert [kept.most for kept in watched] == [14, 14]
    assert [len(kept) for kept in watched] == [0, 0]
    assert not any(kept._needed for kept in watched)


def test_sound_under_a_law_is_no_other_windows_sound(watched: list[Watched]) -> None:
    """The offset jumps inside the second window: its pictures are shared, its sound is its own."""
    manifest = streams((0, 0))
    law = Law("jump", (Piece(0, 0), Piece(ticks(6), ticks(0.4))))
    manifest = replace(manifest, segments=(replace(manifest.segments[0], law=law),))
    protocol = streaming(1.92, 6)
    under_law = [bool(key.law) for key in keys_of(protocol, manifest.segments[0])]
    assert under_law == [False, True, True, True, False, False]
    model = Segmented()
    work = passed(model, manifest, protocol)
    assert_equal(work, passed(Segmented(), manifest, protocol, shared=False))
    assert len(model.encoded["picture"]) == 14 + 6 * 5
    assert len(model.encoded["sound"]) == 14 + 3 * 14 + 14 + 6
    assert all(len(kept) == 0 for kept in watched)


def test_windows_that_touch_a_gap_hold_no_segment(watched: list[Watched]) -> None:
    manifest, protocol = streams((0, 0), (0, 640)), streaming(1.92, 4)
    keys = sorted({key for stream in manifest.segments for key in keys_of(protocol, stream)})
    work = ClipPass(CalledModel(Segmented(), "m", 1, "cpu", 21), keys, np.zeros(ticks(30), np.float32))
    for window in sorted({Window(key.picture, key.window) for key in keys}):
        # only the sound of the second stream reaches into the last sample before the end of the third window
        work.refuse_gaps(window, (Gap("picture", ticks(1), ticks(1.5)), Gap("sound", ticks(8.84), ticks(8.85))))
        if work.wants(window):
            work.add(window, np.zeros((125, 3, 4, 4), np.uint8))
    work.finish()
    refused = [(key.picture // ticks(1.92), key.sound - key.picture) for key in sorted(work.bad)]
    assert refused == [(0, 0), (0, 640), (2, 640), (3, 0), (3, 640)]
    assert len(work.results) == 3
    assert work.counters["picture_segments_encoded"] == 14 + 6
    assert work.counters["sound_segments_encoded"] == 14 + 14 + 6
    assert [(len(kept), dict(kept._needed)) for kept in watched] == [(0, {}), (0, {})]


def test_what_remains_to_be_computed_gives_the_same_bytes() -> None:
    """As after a kill: other windows are left, so that other segments are shared, or none."""
    model, manifest, protocol = SmallSynchformer(), streams((0, 0)), streaming(1.92, 3)
    full = passed(model, manifest, protocol).results
    keys = sorted(full)
    for left in ([keys[2]], [keys[0], keys[2]]):
        video, sound = media(manifest.clips["clip0"], model.frontend)
        work = ClipPass(CalledModel(model, "m", 1, "cpu", 21), left, sound)
        for key in left:
            work.add(Window(key.picture, key.window), video[frames(key.picture) :][:125])
        work.finish()
        assert bool(work.shared) == (len(left) == 2)
        for key in left:
            np.testing.assert_array_equal(work.results[key][0], full[key][0])


# ------------------------------------------------------------------------------------------------------- what may fail


class Torch(Segmented):
    """The same in torch, on what is no CPU; more than 20 segments of picture do not fit into its memory."""

    uses_torch = True

    def encode_video_segments(self, video: Any) -> Any:
        vars(self).setdefault("sizes", []).append(len(video))
        if len(video) > 20:
            raise torch.OutOfMemoryError("out of memory")
        return torch.from_numpy(super().encode_video_segments(video.numpy()))

    def encode_audio_segments(self, audio: Any) -> Any:
        return torch.from_numpy(super().encode_audio_segments(audio.numpy()))

    def fuse_segments(self, video: Any, audio: Any) -> Snapshot:
        return Snapshot(*map(torch.from_numpy, super().fuse_segments(video.numpy(), audio.numpy())))


def test_segments_are_encoded_in_batches_that_are_halved_when_memory_runs_out() -> None:
    model, manifest, protocol = Torch(), streams((0, 0)), streaming(0.96, 8)  # 14 + 7 * 3 segments
    monkey = CalledModel.give
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CalledModel, "give", lambda self, arrays: monkey(self, [np.asarray(a) for a in arrays]))
        patch.setattr(torch.Tensor, "to", lambda self, *_, **__: self)
        work = passed(model, manifest, protocol, batch_size=8, device="other")
    assert vars(model)["sizes"] == [35, 14, 14, 7]
    assert_equal(work, passed(Segmented(), manifest, protocol, shared=False))


def test_on_a_cpu_segments_are_encoded_one_by_one() -> None:
    """Which others are lacking depends on what is stored already; the bytes must not."""

    class Sizes(Segmented):
        def encode_video_segments(self, video: np.ndarray) -> np.ndarray:
            assert len(video) == 1
            return super().encode_video_segments(video)

        def encode_audio_segments(self, audio: np.ndarray) -> np.ndarray:
            assert len(audio) == 1
            return super().encode_audio_segments(audio)

    assert len(passed(Sizes(), streams((0, 0)), streaming(1.92, 3), batch_size=3).results) == 3


@pytest.mark.skipif(not fake_device.possible(), reason="this torch can have no device written in Python")
def test_on_an_accelerator_segments_are_made_and_kept_where_the_model_is(tmp_path: Path) -> None:
    fake_device.install()
    manifest, protocol, logits = streams((25, 0)), streaming(1.92, 4), []
    for name, device in (("here", "cpu"), ("there", "fake")):
        how = Compute(tmp_path / name, 1, device, batch_size=3)
        report = compute(manifest, [protocol], {"m": SmallSynchformer()}, how, open_clip=ToyReader)
        assert not report.failures
        assert report.counters["picture_segments_encoded"] == report.counters["sound_segments_encoded"] == 14 + 18
        store = SnapshotStore(tmp_path / name)
        logits.append(gather(store, manifest.clips, manifest.segments, protocol, report.fingerprints["m"])[0])
    np.testing.assert_allclose(*logits, atol=1e-5)
    assert np.ptp(logits[0]) > 0.1


def test_a_window_that_fails_costs_in_a_batch_what_it_costs_alone(watched: list[Watched]) -> None:
    class Sick(Segmented):
        def fuse_segments(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
            if any(float(v[0, 0]) == bad for v in video):
                raise RuntimeError("cannot")
            return super().fuse_segments(video, audio)

    manifest, protocol = streams((0, 0)), streaming(1.92, 5)
    bad = _first_feature(manifest, 2 * 48)
    alone, batched = (passed(Sick(), manifest, protocol, size) for size in (1, 5))
    assert_equal(alone, batched)
    assert len(alone.results) == 2
    assert all("broke off with RuntimeError: cannot" in reason for reason in alone.bad.values())


def _first_feature(manifest: Manifest, first_frame: int) -> float:
    video, _ = media(manifest.clips["clip0"], FrontEnd(size=4))
    return float(Segmented().encode_video(video[None, first_frame : first_frame + 125])[0, 0, 0])


def test_features_in_tuples_and_features_that_are_none_per_segment() -> None:
    class Pair(Segmented):
        def encode_video_segments(self, video: np.ndarray) -> Any:
            return super().encode_video_segments(video), np.ones((len(video), 2))

        def encode_video(self, video: np.ndarray) -> Any:
            return np.stack([self.encode_video_segments(np.stack(LAYOUT.cut(one)))[0] for one in video])

        def fuse_segments(self, video: Any, audio: np.ndarray) -> Snapshot:
            assert video[1].shape[1:] == (14, 2)
            return super().fuse_segments(video[0], audio)

        segment_layout = LAYOUT

    class Odd(Segmented):
        def encode_video_segments(self, video: np.ndarray) -> Any:
            return np.zeros((14, 3))

    manifest, protocol = streams((0, 0)), streaming(1.92, 2)
    assert_equal(passed(Pair(), manifest, protocol), passed(Segmented(), manifest, protocol))
    with pytest.raises(UsageError, match=r"encoded features of 1 window\(s\) are \(14, 3\)"):
        passed(Odd(), manifest, protocol)


def test_who_is_computed_out_of_segments() -> None:
    class Same(Segmented):
        """Overrides nothing that counts."""

        def encode_video_segments(self, video: np.ndarray) -> np.ndarray:
            return super().encode_video_segments(video) * 2

    class Louder(Segmented):
        """Its inherited segments would be encoded without it."""

        def encode_audio(self, audio: np.ndarray) -> np.ndarray:
            return super().encode_audio(audio * 2)

    class Again(Louder):
        segment_layout = LAYOUT

    class Lacks(Segmented):
        segment_layout = LAYOUT
        encode_audio_segments = fuse_segments = None  # type: ignore[assignment]

    class Columns(Segmented):
        def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
            return audio

    by_hand: Any = Segmented()
    by_hand.fuse = lambda video, audio: None
    whole = [layout_of(model) for model in (Louder(), Columns(), by_hand)]
    assert whole == [None] * 3
    assert [layout_of(model) for model in (Same(), Again(), SmallSynchformer())] == [LAYOUT] * 3
    assert tuned(SmallSynchformer(), compiled=True).segment_layout == LAYOUT
    with pytest.raises(UsageError, match="model Lacks has a segment_layout, but lacks encode_audio_segments, fuse_seg"):
        layout_of(Lacks())


def test_windows_that_are_too_short_are_left_to_the_model() -> None:
    short = SegmentLayout(14, 16, 8).starts(119)
    assert short[0] < 0
    key = SnapshotKey(0, 0, window=119 * TICKS_PER_FRAME)
    called = CalledModel(Segmented(), "m", 1, "cpu", 21)
    assert ClipPass(called, [key, key._replace(picture=8 * 640)], np.zeros(ticks(30), np.float32)).shared is None
