"""The overlapped pipeline gives what the plain path gives: results, failures, files, whatever happens in between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import deadly
import numpy as np
import pytest
import torch
from segmented import Segmented

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import PROTOCOL, Broken, DiesOnce, Misshapen, ToyModel, ToyReader, open_toy, toy_manifest

from avbench.engine import job, pipeline, runner
from avbench.engine.pipeline import Reel
from avbench.engine.runner import Compute, RunReport, compute
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol, paper, streaming
from avbench.ticks import ticks
from avbench.types import ClipRecord, FrontEnd, Gap, Snapshot, UsageError


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.safetensors"))}


class Here:
    """A pool that decodes in this process, one clip after the other: what the pipeline does is the same, and quick."""

    def __init__(self, begin: Callable[[], Any], workers: int, **_: Any) -> None:
        self.begin = begin

    def __class_getitem__(cls, _: Any) -> type[Here]:
        return cls

    def run(self, tasks: Any, told: Callable[[Any, Any], None]) -> Generator[tuple[Any, Any]]:
        with self.begin() as decode:
            for task in tasks:
                yield task, decode(task, partial(told, task))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Pool", Here)


def both(
    tmp_path: Path,
    manifest: Manifest,
    models: Mapping[str, Any],
    batch_size: int = 7,
    protocols: tuple[Protocol, ...] = (PROTOCOL,),
    **options: Any,
) -> RunReport:
    """The report of the pipeline, which is that of the plain path, as is the store."""
    roots = tmp_path / "plain", tmp_path / "overlapped"
    hows = Compute(roots[0], 1), Compute(roots[1], 2, batch_size=batch_size, overlapped=True)
    plain, report = (compute(manifest, protocols, models, how, **{"open_clip": ToyReader} | options) for how in hows)
    assert report.failures_of == plain.failures_of
    assert report.counters == plain.counters
    assert [w for w in report.warnings if "round differently" not in w] == plain.warnings
    assert report.model_snapshots == plain.model_snapshots
    assert files(roots[1]) == files(roots[0])
    return report


def test_the_bytes_are_those_of_the_plain_path(tmp_path: Path) -> None:
    models = {"plain": ToyModel(0), "towers": ToyModel(1, 16, two_tower=True), "same front end": ToyModel(2, 16)}
    opener = partial(open_toy, bad="clip1", how="media")
    seen: list[tuple[int, int, str]] = []
    report = both(tmp_path, toy_manifest(3), models, open_clip=opener, progress=lambda *a: seen.append(a))
    assert {f.clip_id for f in report.failures} == {"clip1"}
    assert report.warnings == [], "a numpy model that takes windows one by one does not round differently in batches"
    assert report.spent.decode_s > 0
    assert report.spent.compute_s > 0
    assert report.spent.wait_s > 0  # at least for the processes to start
    assert seen[-1][:2] == (72, 108), "those of the bad clip were not computed"


def test_a_decoder_that_dies_costs_its_clip(tmp_path: Path) -> None:
    manifest, plain, overlapped = toy_manifest(3), tmp_path / "plain", tmp_path / "overlapped"
    settings = Compute(overlapped, 2, batch_size=50, overlapped=True)
    report = compute(
        manifest, [PROTOCOL], {"m": ToyModel()}, settings, open_clip=partial(open_toy, bad="clip1", how="crash")
    )
    reason = "the worker process died (killed by SIGSEGV)"
    assert [(f.clip_id, f.reason) for f in report.failures] == [("clip1", reason)] * 3
    rest = replace(manifest, segments=tuple(s for s in manifest.segments if s.clip_id != "clip1"))
    compute(rest, [PROTOCOL], {"m": ToyModel()}, Compute(plain, 1), open_clip=ToyReader)
    assert files(overlapped) == files(plain)


def test_a_clip_whose_decoder_dies_in_the_middle_is_begun_again_if_another_may_be_to_blame(tmp_path: Path) -> None:
    """One decoder does both clips: the second one's death may be the first one's doing."""
    manifest, root = toy_manifest(2), tmp_path / "overlapped"
    how = Compute(root, 1, batch_size=3, overlapped=True)
    opener = partial(DiesOnce, once=tmp_path / "once")
    report = compute(manifest, [PROTOCOL], {"m": ToyModel()}, how, open_clip=opener)
    assert (tmp_path / "once").exists()
    assert not report.failures
    compute(manifest, [PROTOCOL], {"m": ToyModel()}, Compute(tmp_path / "plain", 1), open_clip=ToyReader)
    assert files(root) == files(tmp_path / "plain")


def test_media_of_unknown_origin_are_decoded_apart_for_a_model_that_is_only_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avbench.data.encode import encode_clip
    from avbench.data.media import media_sha256

    base, rng, clips, segments = toy_manifest(1, 8, (0.4,)), np.random.default_rng(0), {}, []
    for name in ("a", "deadly"):
        path = tmp_path / f"{name}.mp4"
        sound = rng.uniform(-0.5, 0.5, 16_000 * 8).astype(np.float32)
        encode_clip(path, rng.integers(0, 256, (200, 16, 16, 3), np.uint8), sound)
        clips[name] = replace(base.clips["clip0"], id=name, path=path.name, sha256=media_sha256(path))
        segments.append(replace(base.segments[0], id=f"{name}-0", clip_id=name))
    foreign = Manifest("foreign", "files", "", "list", clips, tuple(segments), tmp_path)
    monkeypatch.setattr(runner, "open_media", deadly.open_clip)
    how = Compute(tmp_path / "store", 1, overlapped=True)
    report = compute(foreign, [streaming(hop_s=1, iterations=1)], {"m": ToyModel(0, 16)}, how)
    assert [f.clip_id for f in report.failures] == ["deadly"]
    assert report.counters["snapshots_computed"] == 1


# ----------------------------------------------------------------------------------- the same, decoded in this process


def test_an_opener_that_cannot_be_sent_is_used_here(tmp_path: Path) -> None:
    opened: list[str] = []

    def opener(clip: ClipRecord) -> ToyReader:
        opened.append(clip.id)
        return ToyReader(clip)

    how = Compute(tmp_path / "store", 2, overlapped=True)
    assert not compute(toy_manifest(2), [PROTOCOL], {"m": ToyModel()}, how, open_clip=opener).failures
    assert opened == ["clip0", "clip1"]


@pytest.mark.parametrize(
    ("device", "overlapped", "media", "expected"),
    [
        ("cpu", None, True, False),
        ("cuda", None, True, True),
        ("cuda", None, False, False),  # made in memory: there is nothing to decode beside the device
        ("cuda", False, True, False),
        ("cpu", True, False, True),
    ],
)
def test_where_decoding_and_computing_overlap(
    device: str,
    overlapped: bool | None,
    media: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "Pool", Here)
    used: list[int] = []

    def noted(*args: Any, **more: Any) -> Any:
        used.append(args[3])
        return pipeline.run_overlapped(*args, **more)

    monkeypatch.setattr(runner, "run_overlapped", noted)
    opener = partial(ToyReader)
    opener.decodes = media  # type: ignore[attr-defined]
    how = Compute(tmp_path, None if device == "cuda" else 1, device, overlapped=overlapped)
    monkeypatch.setattr(runner.machine, "cores", lambda: 4)
    report = compute(toy_manifest(2), [PROTOCOL], {"m": ToyModel()}, how, open_clip=opener)
    assert report.counters["snapshots_computed"] == 24
    assert used == ([min(how.workers or 3, 2)] if expected else [])


class Sick(ToyModel):
    """Breaks, or gives NaN, in the window whose first frame is number ``at`` of a clip whose sound is as loud."""

    def __init__(self, how: str, at: int, two_tower: bool) -> None:
        super().__init__(two_tower=two_tower)
        self.how, self.at = how, at

    def encode_video(self, video: np.ndarray) -> np.ndarray:
        out = super().encode_video(video)
        hit = [int(v[0, 0, 0, 0]) * 256 + int(v[0, 0, 0, 1]) == self.at for v in video]
        if self.how == "break" and any(hit):
            raise RuntimeError("shapes cannot be multiplied")
        out[hit] = np.nan if self.how == "nan" else out[hit]
        return out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("two_tower", [False, True])
@pytest.mark.parametrize("how", ["break", "nan"])
def test_a_window_that_fails_costs_in_a_batch_what_it_costs_alone(tmp_path: Path, how: str, two_tower: bool) -> None:
    models = {"sick": Sick(how, 4 * 25, two_tower), "well": ToyModel(1)}
    report = both(tmp_path, toy_manifest(2), models, batch_size=9)
    assert {f.clip_id for f in report.failures_of["sick"]} == {"clip0", "clip1"}
    assert not report.failures_of["well"]


@pytest.mark.usefixtures("here")
def test_a_model_that_never_worked_ends_the_run(tmp_path: Path) -> None:
    report = both(tmp_path, toy_manifest(5), {"m": Broken()}, batch_size=1)
    assert any("the run was stopped, 3 clips tried, 2 not" in w for w in report.warnings)


@pytest.mark.usefixtures("here")
def test_wrong_shapes_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="logits are"):
        both(tmp_path / "store", toy_manifest(1), {"m": Misshapen(20, 4)})


class Holed(ToyReader):
    """Misses a part of the picture that no manifest knows of."""

    def gaps(self) -> Any:
        return (Gap("picture", ticks(2), ticks(2.1)),)


class TwoLengths(ToyModel):
    """Hears samples or columns; the paper protocol gives columns of a stretch."""

    column_samples = 400

    def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
        return audio[: len(audio) // 400 * 400].reshape(-1, 400).mean(axis=1)[None]

    def encode_audio(self, audio: np.ndarray) -> np.ndarray:
        width = audio.shape[-1] // 8 * 8
        return np.repeat(audio.reshape(len(audio), -1)[:, :width].reshape(len(audio), 8, -1).std(axis=2), 4, 1)[:, :25]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("two_tower", [False, True])
def test_gaps_stretches_and_windows_in_any_order(tmp_path: Path, two_tower: bool) -> None:
    manifest = toy_manifest(2, 30)
    late = tuple(replace(s, start=s.start + ticks(4)) for s in manifest.segments)
    manifest = replace(manifest, segments=(*manifest.segments, *(replace(s, id=f"{s.id}-late") for s in late)))
    report = both(
        tmp_path,
        manifest,
        {"m": TwoLengths(two_tower=two_tower)},
        protocols=(PROTOCOL, paper(hop_s=1.08, iterations=2)),
        open_clip=Holed,
    )
    assert any("touches a gap" in f.reason for f in report.failures)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("batch_size", [1, 5])
def test_segments_that_windows_share_are_encoded_once_beside_a_model_of_whole_windows(
    tmp_path: Path, batch_size: int
) -> None:
    models = {"segments": Segmented(0, 8), "whole": ToyModel(1, 8, two_tower=True)}
    report = both(tmp_path, toy_manifest(3), models, batch_size, protocols=(streaming(1.92, 3),))
    assert not report.failures
    # three streams a clip, which begin 1 s apart: not a multiple of 0.32 s
    assert report.counters["picture_segments_encoded"] == 9 * (14 + 2 * 6)
    assert report.counters["sound_segments_encoded"] == 9 * (14 + 2 * 6)
    assert report.counters["picture_windows_encoded"] == 2 * 9 * 3
    assert report.warnings == [], "batches give the bytes of single, whole windows"


@pytest.mark.usefixtures("here")
def test_frames_larger_than_a_slot_and_sound_longer_than_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avbench.engine.decoding.SLOT_BYTES", 400)  # two frames of 8 x 8, less than one of 16 x 16
    monkeypatch.setattr(pipeline, "LONG_SOUND_BYTES", 1000)
    both(tmp_path, toy_manifest(1), {"small": ToyModel(0, 8), "large": ToyModel(1, 16)})


class Torch(ToyModel):
    """The same in torch; ``shared`` adds to each window what depends on the others of its batch."""

    uses_torch = True

    def __init__(self, shared: float = 0.0, most: int = 100) -> None:
        super().__init__(0, two_tower=True)
        self.shared, self.most = shared, most

    def fingerprint_parts(self) -> dict[str, Any]:
        return {}

    def encode_video(self, video: Any) -> Any:
        vars(self).setdefault("sizes", []).append(len(video))
        if len(video) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.from_numpy(super().encode_video(video.numpy())) + self.shared * (len(video) - 1)

    def encode_audio(self, audio: Any) -> Any:
        return torch.from_numpy(super().encode_audio(audio.numpy()))

    def fuse(self, video: Any, audio: Any) -> Snapshot:
        return Snapshot(*map(torch.from_numpy, super().fuse(video.numpy(), audio.numpy())))


@pytest.mark.usefixtures("here")
def test_batches_go_across_clips_and_are_halved_when_memory_runs_out(tmp_path: Path) -> None:
    model = Torch(most=4)
    both(tmp_path, toy_manifest(3), {"m": model}, batch_size=15)  # 6 picture windows a clip
    sizes = vars(model)["sizes"]
    assert 15 in sizes
    assert max(sizes[sizes.index(15) + 2 :]) <= 4


@pytest.mark.usefixtures("here")
def test_a_batch_that_rounds_differently_is_said(tmp_path: Path) -> None:
    how = Compute(tmp_path / "store", 1, batch_size=4, overlapped=True)
    report = compute(toy_manifest(2), [PROTOCOL], {"m": Torch(shared=1e-6)}, how, open_clip=ToyReader)
    (said,) = report.warnings
    assert said.startswith("model m: batches of 4 round differently from single windows, by up to ")
    assert 1e-8 < float(said.partition("by up to ")[2].partition(":")[0]) < 1e-5


class Interrupted(ToyReader):
    """Ctrl-C in the middle of the second clip."""

    def frames(self, *frontends: FrontEnd) -> Any:
        for k, arrays in enumerate(super().frames(*frontends)):
            if k == 210 and self.clip.id == "clip1":
                raise KeyboardInterrupt
            yield arrays


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("save_every_s", [0.0, 30.0])
def test_interrupted_what_was_computed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every_s: float
) -> None:
    monkeypatch.setattr(job, "SAVE_EVERY_S", save_every_s)
    how, manifest = Compute(tmp_path / "overlapped", 1, overlapped=True), toy_manifest(2)
    with pytest.raises(KeyboardInterrupt):
        compute(manifest, [PROTOCOL], {"m": ToyModel()}, how, open_clip=Interrupted)
    report = both(tmp_path / "again", manifest, {"m": ToyModel()})
    rest = compute(manifest, [PROTOCOL], {"m": ToyModel()}, how, open_clip=ToyReader)
    assert rest.counters["snapshots_from_store"] == 12 + 1 + 2 + 3  # the first clip, and windows at 1, 2 and 3 s
    assert rest.counters["snapshots_from_store"] + rest.counters["snapshots_computed"] == 24
    assert files(tmp_path / "overlapped") == files(tmp_path / "again" / "plain")
    assert report.counters["snapshots_computed"] == 24


def test_a_clip_is_stored_when_its_last_window_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome may come later, when the next clip ends."""
    monkeypatch.setattr(pipeline, "Pool", Here)
    stored: list[int] = []

    class Looks(ToyReader):
        def frames(self, *frontends: FrontEnd) -> Any:
            for k, arrays in enumerate(super().frames(*frontends)):
                if k == 250:
                    stored.append(len(files(tmp_path)))
                yield arrays

    monkeypatch.setattr(runner, "can_be_sent", lambda value: True)
    # the last window of a clip is computed with the first of the next
    how = Compute(tmp_path, 1, batch_size=13, overlapped=True)
    compute(toy_manifest(3), [PROTOCOL], {"m": ToyModel()}, how, open_clip=Looks)
    assert stored == [0, 1, 2]


def test_a_reel_keeps_what_later_windows_need() -> None:
    reel = Reel()
    for first in (0, 4, 20):
        reel.add(first, np.arange(first, first + 4)[:, None])
    assert reel.window(2, 7)[:, 0].tolist() == [2, 3, 4, 5, 6]
    reel.drop_before(5)
    assert sorted(reel.blocks) == [4, 20]
    assert reel.window(21, 23)[:, 0].tolist() == [21, 22]
