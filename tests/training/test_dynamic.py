"""Streams whose offset changes, for training: what is heard, what is encoded once, and what heads are chosen by."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.baselines.mini import MiniSparseSync
from avbench.protocol.laws import SHARES, offsets_at
from avbench.scoring.stats import Bootstrap
from avbench.ticks import SAMPLE_RATE_HZ, TICKS_PER_FRAME, ticks
from avbench.training import dynamic
from avbench.training.backbone import to_luma
from avbench.training.common import best_validation
from avbench.training.dynamic import (
    LENGTH,
    PROTOCOL,
    SCENE_S,
    START,
    ChangingStreams,
    changing_streams,
    figures,
    scene_snapshots,
    segments_of,
    truth_of,
)
from avbench.training.pool import Material
from avbench.training.streaming import StreamRecipe, StreamSync, train_phase1
from avbench.types import Law, Piece, SegmentRecord, Window

DIM = 16


def noise_scene(seed: int = 0) -> Material:
    """A scene in which no two moments look or sound the same."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(16, 236, (round(SCENE_S * 25), 64, 64), dtype=np.uint8)
    return Material(picture, 0.1 * rng.standard_normal(round(SCENE_S * SAMPLE_RATE_HZ)).astype(np.float32))


def stream(name: str, law: Law) -> SegmentRecord:
    return SegmentRecord(name, "scene", "scene", START, law.pieces[0].offset, 10, law=law)


def toy(n_scenes: int, base_seed: int, knows: float = 4.0) -> ChangingStreams:
    """Streams under drawn laws whose every window half knows the offset at its end."""
    segments = segments_of(base_seed, n_scenes, 4)
    labels = torch.from_numpy(dynamic.checked_streams(np.zeros((len(segments), 48, 21)), truth_of(segments)).labels)
    g = torch.Generator().manual_seed(base_seed)
    logits = torch.randn(len(segments), 48, 21, generator=g) + knows * torch.nn.functional.one_hot(labels, 21)
    other = torch.zeros(len(segments), 48, DIM)
    return ChangingStreams(logits, other, other, labels, tuple(segments))


def test_every_law_has_its_share_and_every_stream_fits_into_its_scene() -> None:
    segments = segments_of(5, 25, 8)
    share = Counter(segment.law.name for segment in segments if segment.law)
    assert all(abs(share[name] - 200 * SHARES[name]) <= 1 for name in SHARES)
    assert [segment.clip_id for segment in segments[:9]] == ["5-00000"] * 8 + ["5-00001"]
    assert segments == segments_of(5, 25, 8)
    for segment in segments:
        assert segment.law
        heard = START + np.array([0, LENGTH - 1]) + offsets_at(segment.law, [0, LENGTH - 1])
        assert heard.min() >= 0
        assert heard.max() < SCENE_S * SAMPLE_RATE_HZ


def test_a_window_hears_what_the_law_says_and_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, scene = MiniSparseSync().eval(), noise_scene()
    step = Law("jump", (Piece(0, 1_000), Piece(ticks(30), -5_000)))
    slide = Law("ramp", (Piece(0, 1_000), Piece(ticks(40), 1_000, 50_000), Piece(ticks(50), 9_000)), (Window(50, 900),))
    encoded = {"picture": 0, "sound": 0}
    for name, function in (("picture", model.video_features), ("sound", model.encode_audio)):

        def counted(x: torch.Tensor, name: str = name, function: object = function) -> torch.Tensor:
            encoded[name] += len(x)
            return function(x)  # type: ignore[operator]

        monkeypatch.setattr(model, function.__name__, counted)
    found = scene_snapshots(model, scene, [stream("a", step), stream("b", step), stream("c", slide)])
    assert found["logits"].shape == (3, 48, 21)
    assert found["passed"].shape == (3, 48, 96)
    assert torch.equal(found["logits"][0], found["logits"][1])
    # the step's 48; of the slide's, those from 30 s - 5 s on and the muted first one
    before = sum(w.end <= ticks(30) for w in (Window(k * ticks(2), ticks(5)) for k in range(48)))
    assert encoded == {"picture": 48, "sound": 48 + 48 - (before - 1)}
    for row, law in ((0, step), (2, slide)):
        for k in (0, 12, 13, 14, 19, 22, 47):
            at = k * PROTOCOL.hop + np.arange(PROTOCOL.window)
            sound = scene.sound[START + at + offsets_at(law, at)]
            for mute in law.mutes:
                sound[(at >= mute.start) & (at < mute.end)] = 0
            first = (START + k * PROTOCOL.hop) // TICKS_PER_FRAME
            picture = to_luma(torch.from_numpy(scene.picture[None, first : first + 125]))
            with torch.inference_mode():
                alone = model.fusion(model.video_features(picture), model.encode_audio(torch.from_numpy(sound[None])))
            for name, expected in zip(("logits", "off", "passed"), alone, strict=False):
                assert torch.allclose(found[name][row, k], expected[0], atol=1e-5), (law.name, k, name)


def test_labels_say_what_is_so_at_the_end_of_each_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = segments_of(5, 2, 4)
    empty = {name: torch.zeros(4, 48, 21) for name in dynamic.SNAPSHOT}
    monkeypatch.setattr(dynamic, "cached_snapshots", lambda model, folder, jobs, say, workers: [empty] * len(jobs))
    streams = changing_streams(MiniSparseSync(), tmp_path, 5, 2, 4, print)
    assert streams.segments == tuple(segments)
    for row, segment in enumerate(segments):
        assert segment.law
        ends = [k * PROTOCOL.hop + PROTOCOL.window for k in range(48)]
        expected = [PROTOCOL.grid.class_of(int(o) / SAMPLE_RATE_HZ) for o in offsets_at(segment.law, ends)]
        assert streams.labels[row].tolist() == expected


@pytest.mark.parametrize("head", ["trf", "lstm"])
def test_phase1_learns_from_changing_offsets_and_keeps_what_recovers_best(tmp_path: Path, head: str) -> None:
    train, valid = toy(40, 1), toy(10, 2)
    recipe = StreamRecipe("toy", head, "none", steps=30, batch=16, lr=5e-3, windows=48, validate_every=15)
    make = partial(StreamSync, head, DIM, 1 if head == "trf" else 2)
    torch.manual_seed(0)
    untrained = valid.scores(make())
    model, log = train_phase1(recipe, make, train, valid, tmp_path, lambda line: None)
    assert min(line["tracking_error_s"] for line in log) < untrained["tracking_error_s"] - 0.1
    kept = valid.scores(model)
    best = best_validation(log)
    assert kept == {name: best[name] for name in kept}
    assert best["tracked_acc_tol1"] == max(line["tracked_acc_tol1"] for line in log)


def test_false_changes_are_told_with_and_without_the_corrections_of_the_first_belief() -> None:
    streams = toy(8, 3)
    labels = streams.labels.numpy()

    def of(classes: np.ndarray) -> dict[str, float]:
        return figures(20 * np.eye(21)[classes], streams.segments)

    oracle = of(labels)
    assert oracle["false_changes_per_h"] == oracle["late_false_changes_per_h"] == 0
    assert oracle["median_0.8_s"] <= oracle["recovery_s"] + 1 < 3
    assert oracle["tracked_acc_tol1"] == 1
    scores = dynamic.dynamic.score(streams.logits, truth_of(streams.segments), bootstrap=Bootstrap(n_resamples=0))
    of_snapshots = figures(streams.logits.numpy(), streams.segments)
    assert all(of_snapshots[name] == round(scores[name]["value"], 4) for name in ("recovery_s", *dynamic.PLAIN))
    wrong = labels.copy()
    wrong[:, :12] = (labels[:, :1] + 10) % 21
    found = of(wrong)
    assert found["false_changes_per_h"] > 10
    assert found["late_false_changes_per_h"] == 0
    hold = next(row for row, segment in enumerate(streams.segments) if segment.law and segment.law.name == "hold")
    wrong = labels.copy()
    wrong[hold, 30:34] = (labels[hold, 30:34] + 10) % 21
    windows = len(streams.segments) * (48 - 18)  # the first 18 end within 40 s
    assert of(wrong)["late_false_changes_per_h"] == round(2 / (windows * 2 / 3600), 4)
