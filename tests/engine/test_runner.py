"""The runner: every clip decoded once, every snapshot right, every failure listed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import deadly
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))  # worker processes must find it too

from toy_run import PROTOCOL, Broken, Misshapen, ToyModel, ToyReader, open_toy, toy_manifest, unseeded

from avbench.data.media import READER_VERSION
from avbench.engine import job, runner
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.replay import gather
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import keys_of
from avbench.protocol.rules import Protocol, paper, streaming
from avbench.results.run import Failure
from avbench.ticks import frames, ticks
from avbench.types import ClipRecord, FrontEnd, Gap, MediaError, Snapshot, SnapshotPredictor, StoreError, UsageError


def by_hand(manifest: Manifest, protocol: Protocol, model: ToyModel) -> np.ndarray:
    """Logits (N, W, 21) from bare model calls on windows cut out of the whole clip."""
    out = []
    for segment in manifest.segments:
        reader = ToyReader(manifest.clips[segment.clip_id])
        sound, video = reader.audio(), np.stack([f for (f,) in reader.frames(model.frontend)])
        for i in range(protocol.iterations):
            start = segment.start + i * protocol.hop
            picture = video[frames(start) : frames(start) + 125]
            heard = sound[start + segment.offset : start + segment.offset + 80_000]
            out.append(model.predict(picture[None], heard[None]).logits[0])
    return np.array(out, np.float32).reshape(len(manifest.segments), protocol.iterations, 21)


def logits_of(store: SnapshotStore, manifest: Manifest, model: SnapshotPredictor) -> np.ndarray:
    return gather(store, manifest.clips, manifest.segments, PROTOCOL, model_fingerprint(model))[0]


def test_snapshots_are_those_of_the_bare_model_and_each_clip_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TELL_EVERY_S", 60.0)
    manifest, store = toy_manifest(), SnapshotStore(tmp_path)
    plain, towers = ToyModel(0), ToyModel(1, 16, two_tower=True)  # two front ends, one decoding
    readers: list[ToyReader] = []

    def opened(clip: Any) -> ToyReader:
        readers.append(ToyReader(clip))
        return readers[-1]

    seen: list[tuple[int, int, str]] = []
    report = compute(
        manifest,
        [PROTOCOL],
        {"plain": plain, "towers": towers},
        Compute(store, 1),
        open_clip=opened,
        progress=lambda *a: seen.append(a),
    )
    assert not report.failures
    assert not report.warnings
    for model in (plain, towers):
        np.testing.assert_array_equal(logits_of(store, manifest, model), by_hand(manifest, PROTOCOL, model))
    assert [r.clip.id for r in readers] == list(manifest.clips)
    # segments start at 1, 2, 3 s, windows every second: 6 picture windows a clip, 12 snapshots; the last ends at 11 s
    assert report.counters == Counter(
        clips_decoded=4,
        frames_decoded=4 * 11 * 25,
        picture_windows_encoded=4 * (12 + 6),
        sound_windows_encoded=4 * (12 + 11),  # one sound window is heard with two picture windows
        snapshots_computed=4 * 24,
        snapshots_from_store=0,
    )
    assert sum(r.n_read for r in readers) == report.counters["frames_decoded"]
    assert seen == [(0, 96, "clip0"), *((24 * (i + 1), 96, f"clip{i}") for i in range(4))]
    assert (report.ms_per_snapshot("plain") or 0) > 0


def test_the_second_run_opens_no_clip(tmp_path: Path) -> None:
    manifest, store, model = toy_manifest(), SnapshotStore(tmp_path), ToyModel()
    compute(manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    again = compute(
        manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=partial(open_toy, bad="clip0", how="bug")
    )
    assert not again.failures
    assert again.counters == Counter(snapshots_from_store=48)
    assert again.ms_per_snapshot("m") is None
    more = compute(manifest, [PROTOCOL, streaming(1, 5)], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    assert (more.counters["snapshots_from_store"], more.counters["snapshots_computed"]) == (48, 12)


def test_the_two_tower_path_encodes_each_window_once_and_equals_the_plain_one(tmp_path: Path) -> None:
    manifest = toy_manifest(offsets_s=(0.0, 0.0, -1.0, 1.0))  # the third one hears windows that the first one hears
    results = []
    for two_tower in (False, True):
        store, model = SnapshotStore(tmp_path / str(two_tower)), ToyModel(3, two_tower=two_tower)
        report = compute(manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=ToyReader)
        results.append(logits_of(store, manifest, model))
    keys = [key for some in report.plan.keys.values() for key in some]
    n_pictures = sum(len({k.picture for k in some}) for some in report.plan.keys.values())
    n_sounds = sum(len({k.sound for k in some}) for some in report.plan.keys.values())
    assert n_pictures < n_sounds < len(keys)
    assert report.counters["picture_windows_encoded"] == n_pictures
    # an encoded sound window is kept exactly as long as a later picture window needs it
    assert report.counters["sound_windows_encoded"] == n_sounds
    np.testing.assert_array_equal(*results)


def test_overlapping_segments_share_their_picture_windows(tmp_path: Path) -> None:
    """A five-minute clip with a segment every 10 s: 18 windows each, on one grid of 2 s."""
    manifest = toy_manifest(1, 300, (0.0,))
    offsets = np.random.default_rng(0).uniform(-2, 2, 30)
    first = manifest.segments[0]
    segments = [
        replace(first, id=f"s{k}", start=ticks(10 * k), offset=ticks(round(float(offset), 2)))
        for k, offset in enumerate(offsets)
    ]
    protocol = streaming()
    clip = manifest.clips["clip0"]
    manifest = replace(manifest, segments=tuple(s for s in segments if protocol.supports(s, clip)))
    report = compute(
        manifest, [protocol], {"m": ToyModel(two_tower=True)}, Compute(SnapshotStore(tmp_path), 1), open_clip=ToyReader
    )
    n_segments = len(manifest.segments)
    assert n_segments == 26  # those whose 39 s of picture and shifted sound the clip holds
    assert report.counters["snapshots_computed"] == 18 * n_segments
    # each next segment needs five new picture windows; many segments save 18 / 5 = 3.6, these 26 save 3.3
    assert report.counters["picture_windows_encoded"] == 5 * (n_segments - 1) + 18
    assert report.counters["clips_decoded"] == 1


def test_workers_change_nothing(tmp_path: Path) -> None:
    manifest = toy_manifest(3)
    makers = {"plain": partial(ToyModel, 0), "towers": partial(ToyModel, 1, 16, True)}
    opener = partial(open_toy, bad="clip1", how="media")
    reports = [
        compute(manifest, [PROTOCOL], makers, Compute(SnapshotStore(tmp_path / str(n)), n), open_clip=opener)
        for n in (1, 2)
    ]
    assert reports[0].failures == reports[1].failures != []
    assert reports[0].counters == reports[1].counters
    files = [sorted(p for p in (tmp_path / n).rglob("*.safetensors")) for n in ("1", "2")]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert len(files[0]) == len(files[1]) == 4


@pytest.mark.parametrize(
    ("how", "workers", "reason"),
    [
        ("media", 1, "picture ends at 4.32 s, the manifest says 14.00 s"),
        ("bug", 1, "reading failed with IndexError: list index out of range"),
        ("crash", 2, "the worker process died (killed by SIGSEGV)"),
        ("killed", 2, "the worker process died (killed by SIGKILL)"),
    ],
)
def test_a_clip_that_fails_costs_its_segments_only(tmp_path: Path, how: str, workers: int, reason: str) -> None:
    manifest, store = toy_manifest(3), SnapshotStore(tmp_path)
    maker = partial(ToyModel, 0)
    opener = partial(open_toy, bad="clip1", how=how)
    report = compute(manifest, [PROTOCOL], {"m": maker}, Compute(store, workers), open_clip=opener)
    assert [(f.segment_id, f.clip_id, f.reason) for f in report.failures] == [
        (f"clip1-{i}", "clip1", reason) for i in range(3)
    ]
    good = replace(manifest, segments=tuple(s for s in manifest.segments if s.clip_id != "clip1"))
    np.testing.assert_array_equal(logits_of(store, good, maker()), by_hand(good, PROTOCOL, maker()))
    assert store.verify() == []
    repaired = compute(manifest, [PROTOCOL], {"m": maker}, Compute(store, 1), open_clip=ToyReader)
    assert not repaired.failures
    assert repaired.counters["clips_decoded"] == 1


def test_a_clip_that_cannot_be_read_any_more_is_no_failure_where_the_store_has_all(tmp_path: Path) -> None:
    manifest, store, old, new = toy_manifest(2), SnapshotStore(tmp_path), ToyModel(0), ToyModel(1)
    compute(manifest, [PROTOCOL], {"old": old}, Compute(store, 1), open_clip=ToyReader)
    broken = partial(open_toy, bad="clip1", how="media")
    report = compute(manifest, [PROTOCOL], {"old": old, "new": new}, Compute(store, 1), open_clip=broken)
    assert report.failures_of["old"] == []
    assert {f.clip_id for f in report.failures_of["new"]} == {"clip1"}


class CutShort(ToyReader):
    """Ends with ``error`` after ``n`` frames."""

    def __init__(self, clip: Any, n: int, error: BaseException) -> None:
        super().__init__(clip)
        self.n, self.error = n, error

    def frames(self, *frontends: Any) -> Iterator[tuple[np.ndarray, ...]]:
        yield from islice(super().frames(*frontends), self.n)
        raise self.error


@pytest.mark.parametrize("save_every_s", [0.0, 30.0])
def test_interrupted_within_a_clip_what_was_computed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every_s: float
) -> None:
    monkeypatch.setattr(job, "SAVE_EVERY_S", save_every_s)
    manifest, models = toy_manifest(2), {"plain": ToyModel(0), "towers": ToyModel(1, 16, two_tower=True)}
    whole, store = SnapshotStore(tmp_path / "whole"), SnapshotStore(tmp_path / "cut")
    compute(manifest, [PROTOCOL], models, Compute(whole, 1), open_clip=ToyReader)
    puts: list[int] = []
    put = SnapshotStore.put
    monkeypatch.setattr(SnapshotStore, "put", lambda *a: puts.append(len(a[3])) or put(*a))
    with pytest.raises(KeyboardInterrupt):  # windows at 1, 2 and 3 s (to 8 s) are done, the one at 4 s is not
        compute(
            manifest,
            [PROTOCOL],
            models,
            Compute(store, 1),
            open_clip=partial(CutShort, n=210, error=KeyboardInterrupt()),
        )
    assert puts == ([1, 1, 2, 2, 3, 3] if save_every_s == 0 else [6, 6])
    rest = compute(manifest, [PROTOCOL], models, Compute(store, 1), open_clip=ToyReader)
    assert rest.counters["snapshots_from_store"] == 2 * 6
    assert rest.counters["snapshots_computed"] == 2 * (2 * 12 - 6)
    files = [sorted(p for p in s.root.rglob("*.safetensors")) for s in (whole, store)]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_a_clip_that_breaks_off_fails_whole_every_time(tmp_path: Path) -> None:
    """Its first segment is in the store from the first run on, and is not scored in the second one either."""
    manifest, store, model = toy_manifest(2), SnapshotStore(tmp_path), ToyModel()
    damaged = partial(CutShort, n=260, error=MediaError("clip", "the picture is damaged"))
    for from_store in (0, 2 * (1 + 2 + 3 + 3 + 2)):  # the windows at 1 ... 5 s, which end by 10 s
        report = compute(manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=damaged)
        assert report.counters["snapshots_from_store"] == from_store
        assert {f.segment_id for f in report.failures} == {s.id for s in manifest.segments}
        assert {f.reason for f in report.failures} == {"the picture is damaged"}


class Holed(ToyReader):
    """Misses ``gap`` of the picture or the sound."""

    def __init__(self, clip: Any, gap: Gap) -> None:
        super().__init__(clip)
        self.gap = gap

    def gaps(self) -> Any:
        return (self.gap,)


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_a_hole_that_the_manifest_does_not_know_costs_the_segments_that_touch_it(kind: str, tmp_path: Path) -> None:
    manifest = toy_manifest(1)
    gap = Gap(kind, ticks(2), ticks(2.1))
    models = {"plain": ToyModel(0), "towers": ToyModel(1, 16, two_tower=True)}
    holed = partial(Holed, gap=gap)
    report = compute(manifest, [PROTOCOL], models, Compute(SnapshotStore(tmp_path), 1), open_clip=holed)
    windows = PROTOCOL.picture_windows if kind == "picture" else PROTOCOL.sound_windows
    touched = {s.id for s in manifest.segments if any(w.start < gap.end and gap.start < w.end for w in windows(s))}
    assert 0 < len(touched) < len(manifest.segments)
    for failures in report.failures_of.values():
        assert {f.segment_id for f in failures} == touched
        assert all(f"touches a gap: the {kind} is missing from 2 to 2.1 s" in f.reason for f in failures)


def test_progress_tells_of_windows_before_a_clip_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TELL_EVERY_S", 0.0)
    for workers in (1, 2):
        seen: list[tuple[int, int, str]] = []
        compute(
            toy_manifest(2),
            [PROTOCOL],
            {"m": partial(ToyModel, 0)},
            Compute(SnapshotStore(tmp_path / str(workers)), workers),
            open_clip=ToyReader,
            progress=lambda *a: seen.append(a),  # noqa: B023
        )
        done = [s[0] for s in seen]
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == 24
        assert {s[1] for s in seen} == {24}
        if workers == 1:
            assert done == [0, 1, 3, 6, 9, 11, 12, 12, 13, 15, 18, 21, 23, 24, 24]


class Sick(ToyModel):
    """Gives NaN, breaks, or gives another shape when the window's first frame is number ``at``."""

    def __init__(self, how: str, at: int) -> None:
        super().__init__()
        self.how, self.at = how, at

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        logits, token = super().predict(video, audio)
        if int(video[0, 0, 0, 0, 0]) * 256 + int(video[0, 0, 0, 0, 1]) == self.at:
            if self.how == "break":
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nlong story")
            {"nan": logits, "inf token": token}[self.how][0, 2] = np.nan if self.how == "nan" else np.inf
        return Snapshot(logits, token)


@pytest.mark.parametrize("how", ["nan", "inf token"])
def test_a_window_with_nan_fails_the_segments_that_need_it(tmp_path: Path, how: str) -> None:
    manifest, store = toy_manifest(1), SnapshotStore(tmp_path)
    sick, well = Sick(how, at=6 * 25), ToyModel()  # 6 s: only the third segment (3 ... 6 s) gets there
    report = compute(manifest, [PROTOCOL], {"sick": sick, "well": well}, Compute(store, 1), open_clip=ToyReader)
    what = "logits" if how == "nan" else "token"
    reason = f"model sick gave NaN or infinity in its {what}, iteration 4 (window at 6 s)"
    assert report.failures == [Failure(segment_id="clip0-2", clip_id="clip0", reason=reason)]
    assert report.failures_of["well"] == []
    clip = manifest.clips["clip0"]
    lost = store.missing(model_fingerprint(sick), clip.sha256, report.plan.keys["clip0"])
    assert lost == [keys_of(PROTOCOL, manifest.segments[2])[3]]


def test_progress_counts_what_was_computed_not_what_was_tried(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sick = Sick("nan", at=6 * 25)
    compute(
        toy_manifest(1),
        [PROTOCOL],
        {"sick": sick},
        Compute(SnapshotStore(tmp_path), 1),
        open_clip=ToyReader,
        progress=lambda done, total, item: told.append((done, total)),
    )
    done, total = told[-1]
    assert done == total - 1, "all but the window with NaN"


def test_a_model_that_breaks_costs_the_rest_of_the_clip_for_that_model(tmp_path: Path) -> None:
    manifest, store, model = toy_manifest(1), SnapshotStore(tmp_path), Sick("break", at=4 * 25)
    report = compute(manifest, [PROTOCOL], {"m": model, "well": ToyModel()}, Compute(store, 1), open_clip=ToyReader)
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if '"mat1 and mat2' in text)
    said = "model m broke off with RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    story = f"{said} (test_runner.py, line {line}, in predict)"
    assert [f.reason for f in report.failures] == [
        f"{story}, iteration {i} (window at 4 s)" for i in (4, 3, 2)
    ]  # segments start at 1, 2, 3 s
    assert report.failures_of["well"] == []
    assert report.model_snapshots["m"] == 1 + 2 + 3  # the windows at 1, 2 and 3 s


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_never_worked_ends_the_run_after_three_clips(tmp_path: Path, workers: int) -> None:
    manifest = toy_manifest(8)
    makers = {"m": Broken, "well": partial(ToyModel, 1)}
    report = compute(manifest, [PROTOCOL], makers, Compute(SnapshotStore(tmp_path), workers), open_clip=ToyReader)
    failed = report.failures_of["m"]
    assert {f.segment_id for f in failed} == {s.id for s in manifest.segments}, "nothing is dropped"
    untried = {f.clip_id for f in failed if f.reason.startswith("not tried: model m broke off with RuntimeError: bug")}
    assert 8 - 3 - workers < len(untried) <= 8 - 3
    assert {f.clip_id for f in report.failures_of["well"]} == untried, "what was not computed for the other one, too"
    (said,) = [w for w in report.warnings if "stopped" in w]
    assert f"{8 - len(untried)} clips tried, {len(untried)} not: model m broke off with RuntimeError: bug (" in said
    assert said.endswith("on each of the first 3 clips; --keep-going computes on (in Python: Compute(keep_going=True))")


@pytest.mark.parametrize(
    ("model", "keep_going"), [(Broken(by_clip=True), False), (Broken(until=2), False), (Broken(), True)]
)
def test_what_may_yet_work_is_tried_on_every_clip(tmp_path: Path, model: Broken, keep_going: bool) -> None:
    how = Compute(SnapshotStore(tmp_path), 1, keep_going=keep_going)
    report = compute(toy_manifest(5), [PROTOCOL], {"m": model}, how, open_clip=ToyReader)
    assert report.counters["clips_decoded"] == 5
    assert not any("stopped" in text for text in report.warnings)


def test_a_model_that_has_worked_before_is_tried_on_every_clip(tmp_path: Path) -> None:
    store, manifest = SnapshotStore(tmp_path), toy_manifest(5)
    few = replace(manifest, segments=tuple(s for s in manifest.segments if s.clip_id == "clip4"))
    model = Broken(until=0)
    compute(few, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    model.predict = Broken().predict  # type: ignore[method-assign]  # the same model, on a machine that fails
    report = compute(manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    assert report.counters["clips_decoded"] == 4
    assert len({f.clip_id for f in report.failures}) == 4


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (np.zeros((1, 21), np.float32), r"returned a ndarray of shape \(1, 21\): return avbench.Snapshot\(logits="),
        (None, "returned nothing: return avbench.Snapshot"),
    ],
)
def test_what_is_no_snapshot_is_said_with_what_to_return(tmp_path: Path, returned: Any, said: str) -> None:
    class Bare(ToyModel):
        def predict(self, video: np.ndarray, audio: np.ndarray) -> Any:
            return returned

    model = Bare()
    with pytest.raises(UsageError, match=said):
        compute(toy_manifest(1), [PROTOCOL], {"m": model}, Compute(SnapshotStore(tmp_path), 1), open_clip=ToyReader)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Misshapen(20, 4), r"model m: logits are \(1, 20\), they must be \(1, 21\)"),
        (Misshapen(21, 5), r"model m: the token is \(1, 4\), but token_dim is 5"),
        (Misshapen(21, None), "but token_dim is None"),
    ],
)
def test_a_wrong_shape_ends_the_run(tmp_path: Path, model: ToyModel, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compute(toy_manifest(1), [PROTOCOL], {"m": model}, Compute(SnapshotStore(tmp_path), 1), open_clip=ToyReader)


def test_errors_of_the_store_end_the_run_with_one_line_and_keep_what_is_stored(tmp_path: Path) -> None:
    manifest, store, maker = toy_manifest(3), SnapshotStore(tmp_path), partial(ToyModel, 0)

    def spoil(done: int, total: int, clip_id: str) -> None:
        shard = f"{manifest.clips['clip2'].sha256[:32]}.r{READER_VERSION}.safetensors"
        target = tmp_path / model_fingerprint(maker())[:32] / shard
        if target.parent.exists():  # since the first clip was stored; a slow machine tells before that, too
            target.write_bytes(b"rubbish")

    with pytest.raises(StoreError, match="delete it and run again"):
        compute(manifest, [PROTOCOL], {"m": maker}, Compute(store, 1), open_clip=ToyReader, progress=spoil)
    assert len(store.verify()) == 1
    good = manifest.limit(6)
    np.testing.assert_array_equal(logits_of(store, good, maker()), by_hand(good, PROTOCOL, maker()))
    with pytest.raises(StoreError, match="delete it"):
        compute(manifest, [PROTOCOL], {"m": maker}, Compute(store, 2), open_clip=ToyReader)


def test_errors_inside_a_worker_end_the_run(tmp_path: Path) -> None:
    run = partial(compute, toy_manifest(2), [PROTOCOL], how=Compute(SnapshotStore(tmp_path), 2))
    with pytest.raises(UsageError, match="model m gets different weights each time it is built"):
        run({"m": unseeded}, open_clip=open_toy)
    with pytest.raises(UsageError, match="logits are"):
        run({"m": partial(ToyModel, 0), "bad": partial(Misshapen, 20, 4)}, open_clip=open_toy)
    with pytest.raises(UsageError, match="need a function that makes it"):
        run({"m": ToyModel()}, open_clip=open_toy)
    with pytest.raises(UsageError, match="must be at least 1"):
        compute(toy_manifest(1), [PROTOCOL], {}, Compute(SnapshotStore(tmp_path), 0))


def test_two_names_of_one_model_are_computed_once(tmp_path: Path) -> None:
    both = {"a": ToyModel(0), "b": ToyModel(0)}
    report = compute(toy_manifest(1), [PROTOCOL], both, Compute(SnapshotStore(tmp_path), 1), open_clip=ToyReader)
    assert report.fingerprints["a"] == report.fingerprints["b"]
    assert report.counters["snapshots_computed"] == 12


def test_a_silent_clip_is_scored_with_a_warning(tmp_path: Path) -> None:
    class Silent(ToyReader):
        def audio(self) -> np.ndarray:
            return np.zeros(self.clip.n_samples, np.float32)

    report = compute(
        toy_manifest(1), [PROTOCOL], {"m": ToyModel()}, Compute(SnapshotStore(tmp_path), 1), open_clip=Silent
    )
    assert report.warnings == ["clip clip0: the sound, the mean of its channels, is silent throughout"]
    assert not report.failures


# ----------------------------------------------------------------------------------------------- cutting and batching


class Stretching(ToyModel):
    """Hears a stretch as columns of 400 samples: the first of each, over the stretch's own first. Logits are the number
    of columns, the first and the last one."""

    column_samples = 400

    def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
        return np.stack([audio[:: self.column_samples], np.full(len(audio[:: self.column_samples]), audio[0])])

    def encode_audio(self, audio: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(audio), 21))
        if audio.ndim == 3:
            logits[:, :4] = np.stack([np.full(len(audio), audio.shape[2]), *audio[:, 0, [0, -1]].T, audio[:, 1, 0]], 1)
        return logits

    def fuse(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        return Snapshot(audio, np.zeros((len(audio), 4)))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("two_tower", [False, True])
def test_only_the_paper_protocol_cuts_windows_out_of_a_stretch(
    two_tower: bool, batch_size: int, tmp_path: Path
) -> None:
    manifest, store, model = toy_manifest(1, 30), SnapshotStore(tmp_path), Stretching(two_tower=two_tower)
    published = paper(hop_s=1.08, iterations=2)  # not a whole number of columns: 43.2
    manifest = replace(manifest, segments=tuple(replace(s, start=s.start + ticks(4)) for s in manifest.segments))
    settings = Compute(store, 1, batch_size=batch_size)
    report = compute(manifest, [PROTOCOL, published], {"m": model}, settings, open_clip=ToyReader)
    assert not report.failures
    assert not logits_of(store, manifest, model).any()
    logits, _ = gather(store, manifest.clips, manifest.segments, published, report.fingerprints["m"])
    sound = ToyReader(manifest.clips["clip0"]).audio()
    for row, segment in zip(logits, manifest.segments, strict=True):
        stretch = published.stretch(segment)
        assert stretch.length == ticks(5 + 2 * 1.08)
        first = stretch.start + np.array([0, 43 * 400])
        expected = np.stack([[200, 200], sound[first], sound[first + 199 * 400], sound[[stretch.start] * 2]], 1)
        np.testing.assert_array_equal(row[:, :4], expected.astype(np.float32))


def test_a_stretch_that_runs_out_of_sound_is_a_failure(tmp_path: Path) -> None:
    """With a leading trim, the last hop of the stretch lies past the clip's end, though no window does."""
    manifest, model = toy_manifest(1, 11, (0.0,)), Stretching()
    model.frontend = FrontEnd(size=8, audio_lead_trim_samples=1024)
    manifest = replace(manifest, segments=tuple(replace(s, start=ticks(4)) for s in manifest.segments))
    report = compute(manifest, [paper(2, 2)], {"m": model}, Compute(SnapshotStore(tmp_path), 1), open_clip=ToyReader)
    reason = "model m needs sound up to 11.064 s, past the clip's end, iteration 1 (window at 2 s)"
    assert [failure.reason for failure in report.failures] == [reason]


class Old(ToyModel):
    def audio_statistics(self, audio: np.ndarray) -> np.ndarray:
        return audio


class Short(Stretching):
    def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
        return np.zeros((2, 100))


class Unsized(Stretching):
    column_samples = 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Old(),
            r"m defines audio_statistics, which the paper protocol no longer asks for: define stretch_sound\(audio",
        ),
        (Short(), r"m: stretch_sound gives \(2, 100\) for 112000 samples; .* every 400 samples, at least 280"),
        (Unsized(), "m: column_samples is 0; it must be"),
    ],
)
def test_a_stretch_that_cannot_be_cut_is_said_in_one_line(model: ToyModel, said: str, tmp_path: Path) -> None:
    manifest, store = toy_manifest(1, 30), SnapshotStore(tmp_path)
    manifest = replace(manifest, segments=tuple(replace(s, start=s.start + ticks(4)) for s in manifest.segments))
    assert not compute(manifest, [PROTOCOL], {"m": model}, Compute(store, 1), open_clip=ToyReader).failures
    with pytest.raises(UsageError, match=said):
        compute(manifest, [paper(1, 2)], {"m": model}, Compute(store, 1), open_clip=ToyReader)


def test_a_leading_trim_moves_the_sound_and_may_run_out_of_it(tmp_path: Path) -> None:
    class Echo(ToyModel):
        frontend = FrontEnd(size=8, audio_lead_trim_samples=1024)

        def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
            return Snapshot(audio[:, :21], audio[:, 21:25])

    manifest, store, model = toy_manifest(1, 9, (0.0, 1.0)), SnapshotStore(tmp_path), Echo()
    model.frontend = Echo.frontend
    report = compute(manifest, [streaming(1, 2)], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    # 1.0 s early, starting at 2 s: the second window ends with the clip, at 9 s
    reason = "model m needs sound up to 9.064 s, past the clip's end, iteration 2 (window at 3 s)"
    assert report.failures == [Failure(segment_id="clip0-1", clip_id="clip0", reason=reason)]
    logits, _ = gather(store, manifest.clips, manifest.segments[:1], streaming(1, 2), report.fingerprints["m"])
    begin = manifest.segments[0].start + 1024
    np.testing.assert_array_equal(logits[0, 0], ToyReader(manifest.clips["clip0"]).audio()[begin : begin + 21])


def test_results_of_a_reused_output_buffer_are_copied(tmp_path: Path) -> None:
    class Reusing(ToyModel):
        buffer = np.zeros((1, 21), np.float32)

        def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
            logits, token = super().predict(video, audio)
            self.buffer[:] = logits
            return Snapshot(self.buffer, token)

    manifest, store = toy_manifest(1), SnapshotStore(tmp_path)
    compute(manifest, [PROTOCOL], {"m": Reusing()}, Compute(store, 1), open_clip=ToyReader)
    np.testing.assert_array_equal(logits_of(store, manifest, Reusing()), by_hand(manifest, PROTOCOL, ToyModel()))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("two_tower", [False, True])
def test_a_model_that_works_in_place_spoils_nothing(two_tower: bool, batch_size: int, tmp_path: Path) -> None:
    class InPlace(ToyModel):
        def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
            out = super().predict(video, audio)
            video[:] = 0
            audio *= 2
            return out

        def fuse(self, video_features: np.ndarray, audio_features: np.ndarray) -> Snapshot:
            out = super().fuse(video_features, audio_features)
            video_features *= 0
            audio_features += 1
            return out

    manifest, store = toy_manifest(1), SnapshotStore(tmp_path)
    models = {"in place": InPlace(two_tower=two_tower), "other": ToyModel(1)}
    compute(manifest, [PROTOCOL], models, Compute(store, 1, batch_size=batch_size), open_clip=ToyReader)
    np.testing.assert_array_equal(
        logits_of(store, manifest, models["in place"]), by_hand(manifest, PROTOCOL, ToyModel())
    )
    np.testing.assert_array_equal(logits_of(store, manifest, models["other"]), by_hand(manifest, PROTOCOL, ToyModel(1)))


# ------------------------------------------------------------------------------------------------------- real media


def test_real_media(tmp_path: Path) -> None:
    from avbench.data.encode import encode_clip
    from avbench.data.media import media_sha256

    rng = np.random.default_rng(0)
    clips, segments = {}, []
    for name in ("good", "swapped", "gone"):
        path = tmp_path / f"{name}.mp4"
        sound = rng.uniform(-0.5, 0.5, 16_000 * 8).astype(np.float32)
        encode_clip(path, rng.integers(0, 256, (200, 16, 16, 3), np.uint8), sound)
        base = toy_manifest(1, 8, (0.4,))
        clips[name] = replace(
            base.clips["clip0"], id=name, path=path.name, sha256=media_sha256(path), video_id="video0"
        )
        segments.append(replace(base.segments[0], id=f"{name}-0", clip_id=name))
    (tmp_path / "gone.mp4").unlink()
    (tmp_path / "swapped.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    manifest = Manifest("real", "files", "", "list", clips, tuple(segments), tmp_path)
    protocol = streaming(hop_s=1, iterations=2)
    for workers in (1, 2):
        store = SnapshotStore(tmp_path / f"store{workers}")
        report = compute(manifest, [protocol], {"m": partial(ToyModel, 0, 16)}, Compute(store, workers))
        assert [(f.segment_id, f.reason.rpartition(".mp4 ")[2]) for f in report.failures] == [
            ("swapped-0", "is not the file that the manifest pins (other sha256)"),
            ("gone-0", "does not exist"),
        ]
        assert report.counters["snapshots_computed"] == 2


# ------------------------------------------------------------------------------------------ media of unknown origin


@pytest.fixture
def foreign(tmp_path: Path) -> Manifest:
    """Two good clips around one that kills ``deadly``'s decoder, as a person's own files."""
    from avbench.data.encode import encode_clip
    from avbench.data.media import media_sha256

    rng = np.random.default_rng(0)
    base = toy_manifest(1, 8, (0.4,))
    clips, segments = {}, []
    for name in ("a", "deadly", "z"):
        path = tmp_path / f"{name}.mp4"
        sound = rng.uniform(-0.5, 0.5, 16_000 * 8).astype(np.float32)
        encode_clip(path, rng.integers(0, 256, (200, 16, 16, 3), np.uint8), sound)
        clips[name] = replace(base.clips["clip0"], id=name, path=path.name, sha256=media_sha256(path))
        segments.append(replace(base.segments[0], id=f"{name}-0", clip_id=name))
    return Manifest("foreign", "files", "", "list", clips, tuple(segments), tmp_path)


ONE_WINDOW = streaming(hop_s=1, iterations=1)


def test_with_one_worker_too_a_decoder_that_dies_loses_only_its_clip(
    foreign: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = partial(ToyModel, 0, 16)
    monkeypatch.setattr(runner, "open_media", deadly.open_clip)
    report = compute(foreign, [ONE_WINDOW], {"m": model}, Compute(tmp_path / "apart", 1))
    assert [(f.clip_id, f.reason) for f in report.failures] == [
        ("deadly", "the worker process died (killed by SIGSEGV)")
    ]
    assert report.counters["snapshots_computed"] == 2
    # what the others got is what this process would have computed, to the bit
    monkeypatch.undo()
    good = replace(foreign, segments=tuple(s for s in foreign.segments if s.clip_id != "deadly"))
    compute(good, [ONE_WINDOW], {"m": model()}, Compute(tmp_path / "here", 1))
    shards = [
        sorted((p.name, p.read_bytes()) for p in (tmp_path / r).glob("*/*.safetensors")) for r in ("apart", "here")
    ]
    assert len(shards[0]) == 2
    assert shards[0] == shards[1]


def test_an_opener_that_decodes_is_called_apart(foreign: Manifest, tmp_path: Path) -> None:
    opener, how = deadly.Opener(foreign), Compute(tmp_path / "store", 1)
    told: list[tuple[str, list[str], int]] = []

    def finished(clip: ClipRecord, alone: runner.RunReport) -> None:
        told.append((clip.id, [f.clip_id for f in alone.failures], alone.counters["snapshots_computed"]))

    model = partial(ToyModel, 0, 16)
    report = compute(foreign, [ONE_WINDOW], {"m": model}, how, open_clip=opener, finished=finished)
    assert [f.clip_id for f in report.failures] == ["deadly"]
    assert sorted(told) == [("a", [], 1), ("deadly", ["deadly"], 0), ("z", [], 1)]
    assert report.counters["snapshots_computed"] == 2


@pytest.mark.parametrize("how", ["object", "lambda", "unseeded"])
def test_a_model_that_cannot_be_built_elsewhere_stays_here(how: str, foreign: Manifest, tmp_path: Path) -> None:
    makers: dict[str, Any] = {"object": ToyModel(0, 16), "lambda": lambda: ToyModel(0, 16), "unseeded": unseeded}
    report = compute(foreign, [ONE_WINDOW], {"m": makers[how]}, Compute(tmp_path / "store", 1))
    assert not report.failures
    assert report.counters["snapshots_computed"] == 3


def test_a_pipe_in_place_of_a_clip_is_named(foreign: Manifest, tmp_path: Path) -> None:
    (tmp_path / "deadly.mp4").unlink()
    os.mkfifo(tmp_path / "deadly.mp4")
    report = compute(foreign, [ONE_WINDOW], {"m": ToyModel(0, 16)}, Compute(tmp_path / "store", 1))
    assert [f.reason.rpartition(".mp4 ")[2] for f in report.failures] == ["is a named pipe, not a file"]
