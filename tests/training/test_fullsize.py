"""Training at full size, on a tiny model: what is frozen, what is drawn, exact resuming, several processes, the CLI."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from avbench.baselines import frontends
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamSync
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.from_files import SegmentRules, manifest_from_files
from avbench.protocol.manifest import Manifest, read_manifest
from avbench.training.fullsize import loop
from avbench.training.fullsize.data import Example, TrainingStreams, ValidationStreams, spectrograms
from avbench.training.fullsize.keeper import identity_of
from avbench.training.fullsize.loop import Compute, train
from avbench.training.fullsize.model import (
    Eyes,
    mixed_precision,
    new_model,
    new_parts,
    set_mode,
    start_from,
    stream_loss,
    streams,
    targets,
)
from avbench.training.fullsize.plan import Plan
from avbench.training.fullsize.recipe import RECIPES, FullSizeRecipe
from avbench.types import AvbenchError, Law, MediaError, NonFiniteError, OffsetGrid, Piece, UsageError
from avbench.weights.checkpoints import drawn_weights, verify

SIZE: dict[str, Any] = {"width": 1 / 8, "dim": 64, "heads": 2, "layers": 1}
SIZE |= {"visual_grid": [4, 2, 2], "audio_grid": [9, 6]}  # of 32 frames of 64 x 64 and 1.28 s of sound
TINY = FullSizeRecipe(
    windows=3,
    hop_s=0.4,
    gradient_windows=2,
    phase1_steps=2,
    epochs=1,
    batch=2,
    lr=1e-3,
    checkpoint_every=2,
    window_s=1.28,
    short_side=72,
    crop=64,
    size=SIZE,
)


@pytest.fixture
def manifest(clicks: Path) -> Manifest:
    return read_manifest(clicks)


@pytest.fixture(scope="module")
def start() -> dict[str, Tensor]:
    return drawn_weights(SparseSync(**SIZE).state_dict(), 0)


def quiet(line: str) -> None:
    pass


def same(a: Path, b: Path, tolerance: float = 0.0) -> None:
    one, other = load_file(a), load_file(b)
    assert list(one) == list(other)
    for key, tensor in one.items():
        assert torch.allclose(tensor, other[key], rtol=0, atol=tolerance), key


def log_of(out: Path, name: str = "streamsync-trf") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.log.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------ as used


@pytest.mark.slow
def test_the_command_trains_and_a_run_under_torchrun_gives_the_same(
    clicks: Path, start: dict[str, Tensor], tmp_path: Path, avbench: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    save_file(start, tmp_path / "sparsesync.safetensors")
    names = "windows", "hop_s", "gradient_windows", "batch", "window_s", "short_side", "crop", "lr"
    settings = {name: getattr(TINY, name) for name in names}
    settings |= {"phase1_steps": 1, "epochs": 1, "size": json.dumps(SIZE)}
    arguments = ["train", "fullsize", "--data", str(clicks), "--init", str(tmp_path / "sparsesync.safetensors")]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    alone = avbench(*arguments, "--out", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.strip() == str(tmp_path / "one" / "streamsync-trf.safetensors")
    assert "4 streams of 3 windows; 1 steps of phase 1, 2 of phase 2; 1 process" in alone.stderr
    assert "note: clicks has no split 'train': training uses all of it (test)" in alone.stderr
    overlapping = avbench(*arguments, "--valid", "test", "--out", tmp_path / "three")
    assert overlapping.returncode == 2
    assert "training and validation data (--valid test) would overlap" in overlapping.stderr
    card = json.loads((tmp_path / "one" / "streamsync-trf.json").read_text())
    assert card["family"] == "streamsync-trf"
    assert card["about"]["training"]["recipe"]["gradient_windows"] == 2

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "avbench"]
    together = subprocess.run(
        [*launcher, *arguments, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert together.returncode == 0, together.stderr
    assert "2 processes" in together.stderr
    # Adam's first steps have the size of the rate whatever the gradient: rounding may turn its sign where it is zero
    same(tmp_path / "one" / "streamsync-trf.safetensors", tmp_path / "two" / "streamsync-trf.safetensors", 2e-4)
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["acc_last"] == b["acc_last"]


@pytest.mark.slow
def test_moving_statistics_of_two_processes_are_averaged(
    clicks: Path, start: dict[str, Tensor], tmp_path: Path
) -> None:
    """One step, two streams in each process: BatchNorm's statistics are the mean of what each stream pair moved."""
    recipe = replace(TINY, phase1_steps=0, phase2_norm="batch", batch=4, microbatch=2)
    save_file(start, tmp_path / "sparsesync.safetensors")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "avbench"]
    arguments = ["train", "fullsize", "--data", str(clicks), "--init", str(tmp_path / "sparsesync.safetensors")]
    for key in recipe.__dataclass_fields__:
        if getattr(recipe, key) != getattr(RECIPES["paper-trf"], key):
            value = getattr(recipe, key)
            arguments += ["--set", f"{key}={json.dumps(value) if isinstance(value, dict) else value}"]
    done = subprocess.run(
        [*launcher, *arguments, "--out", str(tmp_path / "two")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "two" / "streamsync-trf.safetensors")

    data = TrainingStreams(read_manifest(clicks), recipe)
    plan = Plan(recipe, len(data.items))
    assert plan.total == 1
    drawn = [data.draw(item, plan.rng(0, place)) for place, item in enumerate(plan.batch(0))]
    moved = []
    for pair in (drawn[:2], drawn[2:]):
        model = new_model(recipe)
        set_mode(model, recipe, 2, start_from(model, recipe, start))
        with torch.no_grad():
            streams(model, Eyes(model, fast=False), pair, recipe, range(0), 2)
        moved.append(dict(model.named_buffers()))
    names = [key for key in found if key.rsplit(".", 1)[-1] in ("running_mean", "running_var")]
    assert len(names) > 100
    apart = sum(not torch.allclose(moved[0][key], moved[1][key], rtol=1e-5, atol=1e-6) for key in names)
    assert apart > 0.9 * len(names)
    for key in names:
        assert torch.allclose(found[key], (moved[0][key] + moved[1][key]) / 2, rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--data (a manifest folder) and --init (SparseSync weights) are required"),
        (("--recipe", "mine"), "unknown recipe 'mine'"),
        (("--set", "lr"), "must be NAME=VALUE"),
        (("--set", "speed=3"), "has no 'speed'"),
        (("--set", "batch=many"), "batch=many cannot be read: it must be a whole number"),
        (("--set", "augment=perhaps"), "it must be true or false"),
        (("--set", "schedule=steep"), "it must be 'linear' or 'published'"),
        (("--set", "gradient_windows=13"), "it must be 1 ... 12"),
        (("--set", "lr=nan"), "it must be positive"),
        (("--set", "hop_s=0.33"), "multiple of 0.04 s"),
        (("--set", "windows=6", "--set", "gradient_place=cycle"), "needs more than 2 x gradient_windows"),
        (("--set", "accumulation=3"), "batch is 16; it must be a multiple of accumulation x microbatch (3 x 1)"),
        (("--set", "short_side=200"), "short_side is 200; it must be at least crop (224)"),
    ],
)
def test_wrong_requests_are_one_line(
    avbench: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...], said: str
) -> None:
    done = avbench("train", "fullsize", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_recipes_are_listed(avbench: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = avbench("train", "fullsize", "--list")
    assert done.returncode == 0
    paper = next(line for line in done.stdout.splitlines() if line.startswith("paper-trf"))
    for setting in ("phase1_steps=500", "epochs=3", "windows=12", "gradient_windows=3", "batch=16", "lr=4e-05"):
        assert setting in paper


# ------------------------------------------------------------------------------------------------------------ training


def test_killed_and_continued_gives_the_same_weights(
    manifest: Manifest, start: dict[str, Tensor], tmp_path: Path
) -> None:
    whole = train(TINY, manifest, start, tmp_path / "whole", say=quiet)
    for last in ("step 1/4", "step 3/4"):  # once in each phase, between checkpoints

        def kill(line: str, last: str = last) -> None:
            if line.startswith(last):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(TINY, manifest, start, tmp_path / "cut", say=kill)
    said: list[str] = []
    cut = train(TINY, manifest, start, tmp_path / "cut", say=said.append)
    assert "continuing at step 2 of 4" in said
    same(whole, cut)
    assert [line["step"] for line in log_of(tmp_path / "cut")] == [1, 2, 3, 4]
    finished = cut.stat().st_mtime_ns, cut.read_bytes()
    assert train(TINY, manifest, start, tmp_path / "cut", say=quiet).read_bytes() == finished[1]
    with pytest.raises(UsageError, match="another recipe, data or start"):
        train(replace(TINY, lr=2e-3), manifest, start, tmp_path / "cut", say=quiet)


@pytest.mark.parametrize(("head", "norm"), [("trf", "frozen"), ("trf", "drifting"), ("lstm", "frozen")])
def test_phase_1_moves_the_new_parts_and_nothing_else(
    head: str, norm: str, manifest: Manifest, start: dict[str, Tensor], tmp_path: Path
) -> None:
    recipe = replace(TINY, head=head, epochs=0, phase1_norm=norm)
    path = train(recipe, manifest, start, tmp_path, say=quiet)
    before = new_model(recipe)
    new = start_from(before, recipe, start)
    after = load_file(path)
    statistics = {k for k in after if k.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")}
    moved = {k for k, t in before.state_dict().items() if not torch.equal(t, after[k])}
    assert moved - statistics == set(new)
    assert bool(moved & statistics) == (norm == "drifting")


def test_there_are_63_new_parts() -> None:
    assert len(new_parts(FullSizeRecipe())) == 63


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_phase_2_moves_everything(norm: str, manifest: Manifest, start: dict[str, Tensor], tmp_path: Path) -> None:
    recipe = replace(TINY, phase1_steps=0, phase2_norm=norm, microbatch=2, augment=False)
    after = load_file(train(recipe, manifest, start, tmp_path, say=quiet))
    model = new_model(recipe)
    start_from(model, recipe, start)
    weights = dict(model.named_parameters())
    still = {k for k, p in weights.items() if torch.equal(p, after[k])}
    assert not {k for k in still if not k.endswith("key.bias")}  # a key's bias cancels in the softmax
    means = [k for k in after if k.endswith("running_mean")]
    assert all(torch.equal(after[k], start[k]) for k in means) == (norm == "frozen")


class Fixed(TrainingStreams):
    """The manifest's own offset every time, without augmentation: there is something to learn by heart."""

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        return ValidationStreams(self.manifest, self.recipe)[index]


def test_a_gradient_that_is_no_number_ends_the_training_before_the_step(
    manifest: Manifest, start: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*args: Any) -> Tensor:
        loss = stream_loss(*args)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(loop, "stream_loss", spoilt)
    with pytest.raises(NonFiniteError, match=r"the gradient of step 1 is (nan|inf): lower lr"):
        train(TINY, manifest, start, tmp_path, say=quiet)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(("microbatch", "advice"), [(1, "try --autocast"), (2, "try --set microbatch=1, or --auto")])
def test_memory_that_runs_out_is_one_line(
    microbatch: int,
    advice: str,
    manifest: Manifest,
    start: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(loop, "streams", full)
    with pytest.raises(AvbenchError, match=rf"memory ran out on cpu with {microbatch} stream.* of 3 windows.*{advice}"):
        train(replace(TINY, microbatch=microbatch), manifest, start, tmp_path, say=quiet)


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="process 3 has no GPU: this machine has 2"):
        loop.Workers("cuda")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": SIZE | {"foo": 1}}, "unexpected keyword argument 'foo'"),
        ({"size": SIZE | {"heads": 3}}, "no model fits size="),
        ({"size": SIZE | {"n_classes": 5}}, "makes 5 classes; there are 21"),
        ({"window_s": 2.0}, "and window_s=2: "),
    ],
)
def test_a_size_that_makes_no_model(
    wrong: dict[str, Any], said: str, manifest: Manifest, start: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        train(replace(TINY, **wrong), manifest, start, tmp_path, say=quiet)
    assert len(str(caught.value).splitlines()) == 1


def test_processes_that_see_different_checkpoints_are_refused(
    manifest: Manifest, start: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Workers, "gathered", lambda self, values: [*values, 2])
    with pytest.raises(UsageError, match=r"different checkpoints in .*: all of them must share one folder"):
        train(TINY, manifest, start, tmp_path, say=quiet)


def test_moving_statistics_bind_a_checkpoint_to_its_number_of_processes(
    manifest: Manifest, start: dict[str, Tensor]
) -> None:
    moving = replace(TINY, phase2_norm="batch")
    assert identity_of(TINY, manifest, start, None, 1) == identity_of(TINY, manifest, start, None, 2)
    assert identity_of(moving, manifest, start, None, 1) != identity_of(moving, manifest, start, None, 2)
    halved = {key: t.bfloat16() if t.is_floating_point() else t for key, t in start.items()}
    assert identity_of(TINY, manifest, halved, None, 1) != identity_of(TINY, manifest, start, None, 1)


@pytest.mark.slow
def test_it_learns_the_streams_by_heart(
    manifest: Manifest, start: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TrainingStreams", Fixed)
    recipe = replace(TINY, windows=2, gradient_windows=1, phase1_steps=4, epochs=8, batch=4, microbatch=4, lr=3e-3)
    train(recipe, manifest, start, tmp_path, say=quiet)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_validation_counts_every_segment_once(manifest: Manifest, start: dict[str, Tensor], tmp_path: Path) -> None:
    recipe = replace(TINY, phase1_steps=1, epochs=0)
    train(recipe, manifest, start, tmp_path, valid=manifest.limit(3), say=quiet)
    step, validation = log_of(tmp_path)
    assert step["step"] == validation["step"] == 1
    assert validation["validation"]["n"] == 3
    assert 0 <= validation["validation"]["acc"] <= validation["validation"]["acc_tol1"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_weights_are_kept_also_over_a_kill(
    keep: str, manifest: Manifest, start: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validated after phase 1 and each of three epochs; the second of the four is the best by decree."""
    recipe, seen = replace(TINY, epochs=3, batch=4, keep=keep), []

    def decreed(model: SparseSync, *_: object) -> dict[str, float]:
        seen.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
        return {"map": 0.5 if len(seen) == 2 else 0.1}

    def kill(line: str) -> None:
        if line.startswith("step 4/5"):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "validate", decreed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, manifest, start, tmp_path, valid=manifest, say=kill)
    assert len(seen) == 2
    path = train(recipe, manifest, start, tmp_path, valid=manifest, say=quiet)
    kept, card = load_file(path), json.loads(path.with_suffix(".json").read_text())
    assert len(seen) == 4
    wanted = seen[1 if keep == "best" else 3]
    assert all(torch.equal(kept[key], wanted[key]) for key in kept)
    assert not all(torch.equal(kept[key], seen[3 if keep == "best" else 1][key]) for key in kept)
    assert card["log"][0]["step"] == (3 if keep == "best" else 5)


def test_the_best_weights_need_something_to_be_the_best_at(
    manifest: Manifest, start: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"keep is 'best': validation data are needed \(--valid SPLIT\)"):
        train(replace(TINY, keep="best"), manifest, start, tmp_path, say=quiet)


def test_validation_says_what_is_too_short(manifest: Manifest, start: dict[str, Tensor], tmp_path: Path) -> None:
    recipe, said = replace(TINY, phase1_steps=1, epochs=0), []
    cut = replace(manifest.segments[0], id="late", start=manifest.clips[manifest.segments[0].clip_id].duration - 640)
    late = replace(manifest, segments=(*manifest.segments[:2], cut))
    train(recipe, manifest, start, tmp_path, valid=late, say=said.append)
    assert "validation uses 2 of 3 segments: the rest are too short" in said
    with pytest.raises(UsageError, match=r"no segment of .* holds 3 windows of 0\.4 s to validate on"):
        train(recipe, manifest, start, tmp_path, valid=replace(manifest, segments=(cut,)), say=quiet)


def test_sparsesync_alone(manifest: Manifest, start: dict[str, Tensor], tmp_path: Path) -> None:
    recipe = replace(TINY, head="none", windows=1, gradient_windows=1, phase1_steps=0)
    path = train(recipe, manifest, start, tmp_path, say=quiet)
    assert path.name == "sparsesync.safetensors"
    assert set(load_file(path)) == set(start)


def test_mixed_precision_is_near(manifest: Manifest, start: dict[str, Tensor]) -> None:
    model = new_model(TINY)
    new = start_from(model, TINY, start)
    set_mode(model, TINY, 2, new)
    model.eval()  # without dropout
    example = TrainingStreams(manifest, TINY).draw(0, np.random.default_rng(0))
    both = []
    for dtype in (None, torch.bfloat16):
        with mixed_precision(torch.device("cpu"), dtype):
            eyes = Eyes(model, fast=True)
            snapshot, streaming = streams(model, eyes, [example], TINY, range(1, 2), 2)
        assert streaming is not None
        both.append(torch.cat([snapshot, streaming]).float().detach())
    assert not torch.equal(*both)
    assert (both[0] - both[1]).abs().max() < 0.2 * both[0].std()
    streaming.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if n in new)
    # some windows before had no gradient: weights that were cast for those must not be used again
    none = [n for n, p in model.named_parameters() if n.startswith(("vfeat_ex", "afeat_ex")) and p.grad is None]
    assert none == []


def test_sound_that_is_standardised_as_a_whole_is_one_hop_longer(manifest: Manifest) -> None:
    assert (FullSizeRecipe().heard, RECIPES["published-trf"].heard) == (16 * 16_000, 17 * 16_000)
    whole = replace(TINY, spectrogram="stretch", augment=False)
    alone = replace(whole, spectrogram="window")
    a, b = (ValidationStreams(manifest, recipe)[0] for recipe in (whole, alone))
    assert a.sound.shape == (3, 1, 257, 160)  # without the column that a window by itself has at its end
    assert torch.equal(a.video, b.video)


def test_labels_of_other_classes_are_not_validated_on(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"has 41 offset classes within \+-2 s, but models and protocols have 21"):
        ValidationStreams(replace(manifest, grid=OffsetGrid(41, 2.0)), TINY)


def test_offsets_that_change_are_not_validated_on(manifest: Manifest) -> None:
    first = manifest.segments[0]
    law = Law("jump", (Piece(0, first.offset), Piece(640, 0)))
    changing = replace(manifest, segments=(replace(first, law=law), *manifest.segments[1:]))
    with pytest.raises(UsageError, match=f"the offset of segment {first.id} changes; validate on fixed offsets"):
        ValidationStreams(changing, TINY)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 2**40}, {"hop_s": 1e-9}, {"snapshot_weight": float("nan")}], ids=str
)
def test_numbers_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(TINY, **wrong).checked()


def test_weights_that_are_not_exactly_a_sparsesync_are_refused(start: dict[str, Tensor]) -> None:
    model = new_model(TINY)
    short = {k: t for k, t in start.items() if k != "transformer.off_head.weight"}
    with pytest.raises(AvbenchError, match=r"1 missing \(transformer.off_head.weight\)"):
        start_from(model, TINY, short)
    with pytest.raises(AvbenchError, match="1 unexpected"):
        start_from(model, TINY, start | {"transformer.extra": torch.zeros(1)})
    streaming = drawn_weights(StreamSync(**SIZE).state_dict(), 0)
    with pytest.raises(AvbenchError, match="unexpected"):
        start_from(model, TINY, streaming)


def test_a_clip_that_cannot_be_read_stops_the_training(
    make_clicks: Callable[..., Path], start: dict[str, Tensor], tmp_path: Path
) -> None:
    manifest = read_manifest(make_clicks())
    clip = next(iter(manifest.clips.values()))
    manifest.clip_path(clip).write_bytes(b"no film")
    with pytest.raises(MediaError, match=clip.id):
        train(TINY, manifest, start, tmp_path / "out", say=quiet)


# ------------------------------------------------------------------------------------------------------------- drawing


def test_streams_that_do_not_fit_are_named(manifest: Manifest) -> None:
    data = TrainingStreams(manifest, TINY)
    assert len(data.items) == len(manifest.segments) == 4
    long = replace(TINY, windows=20, gradient_windows=1)  # 8.88 s and 2 s on either side, from 3 s of 14 s
    assert len(TrainingStreams(manifest, long).items) == 4
    with pytest.raises(UsageError, match=r"no stream for 24 windows.*segment one-0"):
        TrainingStreams(manifest, replace(long, windows=24))
    free = TrainingStreams(manifest, replace(long, starts="free", windows=24))
    assert [item.start for item in free.items] == [None, None]


def test_offsets_are_drawn_anew_and_say_where_the_sound_comes_from(manifest: Manifest) -> None:
    """The label is checked against the media themselves: clicks and flashes coincide where the offset is undone."""
    recipe = replace(TINY, windows=12, gradient_windows=1, augment=False, starts="free")
    data = TrainingStreams(manifest, recipe)
    labels = []
    for number in range(6):
        rng = np.random.default_rng(number)
        example = data.draw(number % 2, rng)
        assert example.video.shape == (recipe.stretch // 640, 3, 64, 64)
        assert example.sound.shape == (12, 1, 257, 161)
        again = data.draw(number % 2, np.random.default_rng(number))
        assert torch.equal(example.video, again.video)
        assert torch.equal(example.sound, again.sound)
        offset_s = round(float(np.random.default_rng(number).uniform(-2, 2)), 2)
        labels.append(example.label)
        # loudness of the first window's sound per frame against the picture's, at the drawn offset
        light = example.video.float().mean((1, 2, 3))
        flashes = (light > 100).float()
        loud = example.sound[:, 0].amax(1)  # (12, 161), standardised: peaks at clicks
        loudest = [int(w.argmax()) / 125 + i * 0.4 for i, w in enumerate(loud)]
        near = [
            min(abs(s + offset_s - f / 25) for f in torch.nonzero(flashes).flatten().tolist())
            for s in loudest
            if 0.1 < s + offset_s < recipe.stretch / 16_000 - 0.1
        ]
        if near:
            assert np.median(near) < 0.1
    assert len(set(labels)) > 3


def test_every_stream_once_in_an_epoch_and_the_batches_are_those_of_the_step() -> None:
    plan = Plan(replace(TINY, epochs=3, batch=4), 10)
    assert plan.total == 2 + 3 * 3
    for epoch in range(3):
        seen = [i for step in range(2 + 3 * epoch, 5 + 3 * epoch) for i in plan.batch(step)]
        assert sorted(seen) == list(range(10))
    assert [len(plan.batch(step)) for step in (2, 3, 4)] == [4, 4, 2]
    assert plan.batch(2) != plan.batch(5)
    long = Plan(replace(TINY, phase1_steps=5, batch=4), 10)
    assert sorted(i for step in range(5) for i in long.batch(step)) == sorted([*range(10)] * 2)


def test_rates() -> None:
    plan = Plan(replace(FullSizeRecipe(), epochs=2), 160)
    assert [plan.rate(s) / 4e-5 for s in (0, 499, 500, 510, 519)] == pytest.approx([1, 1, 1, 0.5, 0.05])
    published = Plan(replace(RECIPES["published-trf"], lr=1.0), 10**6)
    shares = [published.rate(s) for s in (0, 250, 500, 5000, 5500, 9000, 12_500, 20_000)]
    assert shares == pytest.approx([0.01, 0.505, 1, 1, 1, 0.50005, 1e-4, 1e-4])


def test_gradient_windows() -> None:
    plan = Plan(FullSizeRecipe(phase1_steps=10), 10_000)
    assert list(plan.gradient_windows(9)) == []
    drawn = [plan.gradient_windows(step) for step in range(10, 500)]
    assert {r.start for r in drawn} == set(range(10))  # every place, the ends included
    assert all(len(r) == 3 for r in drawn)
    published = Plan(replace(RECIPES["published-trf"], phase1_steps=0), 100)
    starts = [published.gradient_windows(step, part).start for step in range(4) for part in range(2)]
    assert starts == [3, 4, 5, 6, 7, 8, 3, 4]  # two iterations to a step, each with its own
    assert [published.part(0, chunk) for chunk in range(16)] == [0] * 8 + [1] * 8
    assert [published.part(3, chunk) for chunk in range(2)] == [0, 1]  # the last batch has four streams


def test_losses_as_written_in_the_paper_and_as_published() -> None:
    torch.manual_seed(0)
    snapshot, streaming = torch.randn(2, 2, 12, 21).unbind(0)
    labels = torch.tensor([3, 20])
    paper, published = FullSizeRecipe(), RECIPES["published-trf"]
    smooth = targets(labels, paper, 21)
    assert torch.allclose(smooth.sum(1), torch.ones(2))
    assert smooth[0, 3] == pytest.approx(0.9 + 0.1 / 21)
    assert smooth[0, 7] == pytest.approx(0.1 / 21)
    reference = F.cross_entropy(snapshot[:, 4], labels, label_smoothing=0.1, reduction="none")
    assert torch.allclose(stream_loss(snapshot[:, 4:5], None, smooth, paper), reference)
    neighbours = targets(labels, published, 21)
    assert neighbours[0, 2:5].tolist() == pytest.approx([0.1, 0.8, 0.1])
    assert neighbours[1, 19:].tolist() == pytest.approx([0.1, 0.9])

    def entropy(logits: Tensor, target: Tensor) -> Tensor:
        return -(target[:, None] * logits.log_softmax(-1)).sum(-1)

    s, t = entropy(snapshot, smooth), entropy(streaming, smooth)
    assert torch.allclose(stream_loss(snapshot, streaming, smooth, paper), (0.5 * s + t).mean(1) / 1.5)
    s, t = entropy(snapshot, neighbours), entropy(streaming, neighbours)
    early = s[:, :2].sum(1) / 3
    late = (s[:, 2:] / 3 + 2 * t[:, 2:] / 3).sum(1)
    assert torch.allclose(stream_loss(snapshot, streaming, neighbours, published), (early + late) / (2 / 3 + 10))


def test_spectrograms_of_a_stretch_are_the_front_ends() -> None:
    recipe = replace(FullSizeRecipe(), windows=3)
    wave = 0.1 * torch.randn(recipe.stretch)
    ours = spectrograms(wave, recipe)
    assert ours.shape == (3, 1, 257, 626)
    for i in range(3):
        assert torch.allclose(ours[i], frontends.sparsesync_audio(wave[i * 16_000 :][:80_000]), atol=1e-5)
    whole = spectrograms(wave, replace(recipe, spectrogram="stretch"))
    frames = torch.zeros(recipe.stretch // 640, 224, 224, 3, dtype=torch.uint8)
    assert torch.equal(whole, frontends.streamsync_windows(frames, wave, 3, 1)[1])
    # what is blanked lies at the same place of the stretch in both
    for spectrogram in ("window", "stretch"):
        blanked = spectrograms(wave, replace(recipe, spectrogram=spectrogram), slice(10, 20), slice(130, 140))
        for i, first in enumerate((130, 5)):
            columns = blanked[i, 0, 30:, first : first + 10]
            assert torch.equal(columns, columns[:, :1].expand_as(columns))
        assert blanked[:, 0, 10:20].std() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_on_a_gpu_it_learns_and_continues(
    autocast: torch.dtype | None,
    manifest: Manifest,
    start: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sums on a GPU need not be the same twice: the continued training is near the undisturbed one."""
    monkeypatch.setattr(loop, "TrainingStreams", Fixed)
    recipe = replace(TINY, windows=2, gradient_windows=1, phase1_steps=4, epochs=8, batch=4, microbatch=4, lr=3e-3)
    on: dict[str, Any] = {"compute": Compute("cuda", autocast)}
    train(recipe, manifest, start, tmp_path / "whole", say=quiet, **on)
    losses = [line["loss"] for line in log_of(tmp_path / "whole")]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])

    def kill(line: str) -> None:
        if line.startswith("step 7/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, manifest, start, tmp_path / "cut", say=kill, **on)
    train(recipe, manifest, start, tmp_path / "cut", say=quiet, **on)
    again = [line["loss"] for line in log_of(tmp_path / "cut")]
    assert len(again) == len(losses)
    assert np.abs(np.subtract(losses, again)).max() < 0.05 * losses[0]


@pytest.mark.slow
def test_full_size_learns_real_and_made_clips_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published size on two real clips and a made one: the loss falls from step to step, and continuing from the
    last checkpoint but one gives the same weights. About ten CPU minutes."""
    media = Path(__file__).resolve().parents[2].parent / "shared" / "media"
    if not media.is_dir():
        pytest.skip("the real clips are absent: ../shared/media")
    clips = tmp_path / "clips"
    clips.mkdir()
    for path in (media / "lrs3" / "00018.mp4", media / "vggsound_h264" / "3qesirWAGt4_20000_30000.mp4"):
        shutil.copy(path, clips)
    frames, sound = click_and_flash(12)
    encode_clip(clips / "made.mp4", frames.repeat(4, 1).repeat(4, 2), sound)
    rules = SegmentRules(start_law="first", hop=16_000, iterations=2)
    manifest, refused = manifest_from_files([clips], tmp_path / "data", rules)
    assert not refused
    assert len(manifest.segments) == 3
    recipe = FullSizeRecipe(windows=2, gradient_windows=1, phase1_steps=1, epochs=4, batch=3, lr=1e-4)
    recipe = replace(recipe, augment=False, starts="free", checkpoint_every=2)
    monkeypatch.setattr(loop, "TrainingStreams", Fixed)

    start = drawn_weights(SparseSync().state_dict(), 0)

    def say(line: str) -> None:
        print(line, flush=True)
        if line.startswith("step 5/5"):  # the fifth step's checkpoint is not written yet
            shutil.copytree(tmp_path / "out", tmp_path / "cut")

    whole = train(recipe, manifest, start, tmp_path / "out", say=say)
    losses = [line["loss"] for line in log_of(tmp_path / "out")]
    assert len(losses) == 5
    assert losses[-1] < min(losses[:2])
    said: list[str] = []
    same(whole, train(recipe, manifest, start, tmp_path / "cut", say=said.append))
    assert "continuing at step 4 of 5" in said
    assert verify(tmp_path / "out" / "streamsync-trf.safetensors")["family"] == "streamsync-trf"
