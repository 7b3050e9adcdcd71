"""The runner under laws: a window in which nothing happens is the fixed offset's, and pictures are encoded once."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from lawstreams import fixed, nothing_happens, of, under
from toy_run import ToyModel, ToyReader, toy_manifest

from avbench.doctor.laws import must_be_heard
from avbench.engine.replay import gather
from avbench.engine.runner import Compute, RunReport, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import paper, streaming
from avbench.ticks import frames, ticks
from avbench.types import FrontEnd, Gap, Law, Piece, SegmentRecord, Snapshot, Window

LONG = streaming(iterations=48)
STREAM = ticks(99)
TOY = toy_manifest(1, 105)
PLACE = ticks(2)  # of the streams in the clip: there is sound wherever an offset goes
FIRST = replace(TOY.segments[0], start=PLACE)


def stream(law: Law | int, name: str) -> SegmentRecord:
    return under(FIRST, law, name) if isinstance(law, Law) else fixed(FIRST, law, name)


def computed(store: SnapshotStore, manifest: Manifest, model: ToyModel) -> RunReport:
    report = compute(manifest, [LONG], {"m": model}, Compute(store, 1), open_clip=ToyReader)
    assert not report.failures
    return report


def logits_of(store: SnapshotStore, manifest: Manifest, report: RunReport) -> np.ndarray:
    return gather(store, manifest.clips, manifest.segments, LONG, report.fingerprints["m"])[0]


@pytest.mark.parametrize("name", sorted(SHARES))
def test_a_window_in_which_nothing_happens_is_the_fixed_offset_s(name: str, tmp_path: Path) -> None:
    """It comes from the store where a fixed offset was computed first, to the bit, and the store keeps one."""
    law = draw_law(name, "s", 6, STREAM)
    pure = [nothing_happens(law, Window(i * LONG.hop, LONG.window)) for i in range(48)]
    store, model = SnapshotStore(tmp_path), ToyModel()
    offsets = sorted({piece.offset for piece in law.pieces})
    plain, changing = of(TOY, [stream(o, f"at {o}") for o in offsets]), of(TOY, [stream(law, name)])
    before = computed(store, plain, model)
    after = computed(store, changing, model)
    assert before.counters["snapshots_computed"] == 48 * len(offsets)
    assert after.counters["snapshots_from_store"] == sum(pure)
    assert after.counters["snapshots_computed"] == 48 - sum(pure)
    assert store.size()[1] == 48 * len(offsets) + 48 - sum(pure)
    fixed_logits, logits = logits_of(store, plain, before), logits_of(store, changing, after)[0]
    now = [max(p.start for p in law.pieces if p.start <= i * LONG.hop) for i in range(48)]
    held = {piece.start: offsets.index(piece.offset) for piece in law.pieces}
    for i in np.flatnonzero(pure):
        assert logits[i].tobytes() == fixed_logits[held[now[i]], i].tobytes()
    for i in np.flatnonzero(~np.array(pure)):
        assert not (logits[i] == fixed_logits[:, i]).all(axis=1).any()


def test_what_two_streams_share_is_computed_once_for_both(tmp_path: Path) -> None:
    jump = Law("jump", (Piece(0, ticks(0.4)), Piece(ticks(30.2), ticks(-0.4))))
    manifest = of(TOY, [stream(jump, "jump"), stream(ticks(0.4), "before"), stream(ticks(-0.4), "after")])
    store = SnapshotStore(tmp_path)
    report = computed(store, manifest, ToyModel())
    inside = 3  # the windows from 26, 28 and 30 s hold both offsets
    assert report.counters["snapshots_computed"] == 2 * 48 + inside
    assert report.counters["picture_windows_encoded"] == 2 * 48 + inside  # a model without towers reads both each time
    logits = logits_of(store, manifest, report)
    assert logits[0, :13].tobytes() == logits[1, :13].tobytes()
    assert logits[0, 16:].tobytes() == logits[2, 16:].tobytes()
    assert store.verify() == []


def test_a_two_tower_model_encodes_a_picture_window_once_whatever_the_law(tmp_path: Path) -> None:
    laws = {name: draw_law(name, "s", 6, STREAM) for name in sorted(SHARES)}
    manifest = of(TOY, [stream(law, name) for name, law in laws.items()])
    stores = [SnapshotStore(tmp_path / kind) for kind in ("plain", "towers")]
    plain, towers = (
        computed(store, manifest, ToyModel(two_tower=two_tower))
        for store, two_tower in zip(stores, (False, True), strict=True)
    )
    assert towers.counters["picture_windows_encoded"] == 48
    keys = towers.plan.keys["clip0"]
    assert towers.counters["sound_windows_encoded"] == len({(key.sound, key.law) for key in keys})
    assert towers.counters["snapshots_computed"] == len(keys) < 48 * len(laws)
    assert plain.counters["picture_windows_encoded"] == len(keys)
    logits = [logits_of(store, manifest, report) for store, report in zip(stores, (plain, towers), strict=True)]
    assert logits[0].tobytes() == logits[1].tobytes()


@pytest.mark.parametrize("name", sorted(SHARES))
def test_snapshots_are_those_of_the_bare_model_on_what_must_be_heard(name: str, tmp_path: Path) -> None:
    law, model = draw_law(name, "s", 3, STREAM), ToyModel()
    manifest = of(TOY, [stream(law, name)])
    reader = ToyReader(manifest.clips["clip0"])
    heard = must_be_heard(reader.audio(), PLACE, STREAM, law)
    video = np.stack([f for (f,) in reader.frames(FrontEnd(size=8))])
    store = SnapshotStore(tmp_path)
    logits = logits_of(store, manifest, computed(store, manifest, model))[0]
    for i, window in enumerate(LONG.picture_windows(manifest.segments[0])):
        picture = video[frames(window.start) : frames(window.end)]
        sound = heard[i * LONG.hop : i * LONG.hop + LONG.window]
        assert np.array_equal(model.predict(picture[None], sound[None]).logits[0].astype(np.float32), logits[i]), i


class Holed(ToyReader):
    """Lacks a tenth of a second of its sound."""

    def __init__(self, clip: Any, at: int) -> None:
        super().__init__(clip)
        self.at = at

    def gaps(self) -> Any:
        return (Gap("sound", self.at, self.at + ticks(0.1)),)


@pytest.mark.parametrize("step_s", [1.6, -1.6])
def test_a_hole_anywhere_in_the_sound_that_a_law_reaches_costs_the_segment(step_s: float, tmp_path: Path) -> None:
    """The one window, of 5 s, hears what lies before a step at 2.4 s and what lies after it, wherever that is."""
    law = Law("jump", (Piece(0, 0), Piece(ticks(2.4), ticks(step_s))))
    manifest, protocol = of(TOY, [stream(law, "jump")]), streaming(iterations=1)
    low_s, high_s = min(step_s, 0), max(step_s, 0)
    heard = [0, 2.3, 2.4 + step_s, 4.9 + step_s]
    for at_s in [low_s - 0.1, *heard, 5 + high_s]:
        report = compute(
            manifest,
            [protocol],
            {"m": ToyModel()},
            Compute(SnapshotStore(tmp_path / f"{at_s}"), 1),
            open_clip=partial(Holed, at=PLACE + ticks(round(at_s, 1))),
        )
        assert bool(report.failures) == (at_s in heard), at_s


@pytest.mark.parametrize("two_tower", [False, True])
def test_a_stretch_under_a_law_is_what_is_heard_of_it(two_tower: bool, tmp_path: Path) -> None:
    """Windows are cut out of the sound of the whole stretch, with all its changes, on either side of a jump too."""

    class Echo(ToyModel):
        column_samples = 1

        def stretch_sound(self, audio: np.ndarray) -> np.ndarray:
            return audio[None] + 1

        def encode_audio(self, audio: np.ndarray) -> np.ndarray:
            assert audio.shape[1:] == (1, 80_000)
            return audio[:, 0, ::4000]

        def fuse(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
            return Snapshot(np.pad(audio, ((0, 0), (0, 1))), np.zeros((len(audio), 4)))

    law = Law("jump", (Piece(0, ticks(0.4)), Piece(ticks(7), ticks(-0.8))))
    segment = under(replace(FIRST, start=ticks(4)), law, "jump")
    manifest, store, protocol = of(TOY, [segment]), SnapshotStore(tmp_path), paper(iterations=6)
    report = compute(manifest, [protocol], {"m": Echo(two_tower=two_tower)}, Compute(store, 1), open_clip=ToyReader)
    assert not report.failures
    logits, _ = gather(store, manifest.clips, [segment], protocol, report.fingerprints["m"])
    sound = ToyReader(manifest.clips["clip0"]).audio()
    for i in range(6):
        picture = ticks(2 + 2 * i) + np.arange(0, 80_000, 4000)
        heard = sound[picture + np.where(picture < ticks(11), ticks(0.4), ticks(-0.8))]
        np.testing.assert_array_equal(logits[0, i, :20], heard + 1)


def test_sound_from_before_the_clip_is_a_failure_and_not_the_end_of_the_clip(tmp_path: Path) -> None:
    """The ``paper`` protocol begins 2 s before the segment, where a drift has not come as far."""
    drifting = replace(FIRST, start=ticks(4), id="drift")
    manifest = of(TOY, [under(drifting, Law("drift", (Piece(0, ticks(-2), 2_800),)))])
    store = SnapshotStore(tmp_path)
    report = compute(manifest, [paper(iterations=2)], {"m": ToyModel()}, Compute(store, 1), open_clip=ToyReader)
    unsupported = report.plan.unsupported[paper(iterations=2)]
    said = {failure.reason for failure in report.failures}
    reason = "model m needs sound from -0.005625 s on, before the clip's beginning, iteration 1 (window at 2 s)"
    assert unsupported or said == {reason}
