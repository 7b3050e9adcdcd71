"""A streaming head on somebody's backbone: trained, written, and run by name."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.baselines.adapter import AdaptedHead
from avbench.baselines.streamsync import StreamingLSTM
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.engine.runner import Compute
from avbench.pages.run_tables import run_table
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.results.run import read_run
from avbench.training.head import HeadRecipe, MadeToken, OwnToken, train_head, training_streams
from avbench.training.streaming import StreamRecipe, Streams, train_phase1
from avbench.types import ClipRecord, SegmentRecord, UsageError
from avbench.weights.heads import card_of, export_head, load_head

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
TEMPLATE = Path(__file__).parents[2] / "submissions" / "template" / "my_net.py"
CLIP_S = 44


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Click-and-flash clips long enough for a head: two to train on, one to validate, one to test."""
    folder = tmp_path_factory.mktemp("clips")
    records, segments = {}, []
    for seed, split in enumerate(("train", "train", "valid", "test")):
        name = f"{split}{seed}"
        path = folder / f"{name}.mp4"
        encode_clip(path, *click_and_flash(CLIP_S, seed=seed))
        records[name] = ClipRecord(name, name, path.name, media_sha256(path), CLIP_S * 25, CLIP_S * 16_000, "", split)
        segments.append(SegmentRecord(f"{name}-0", name, name, 3 * 16_000, 6400, 12, split=split))
    manifest = Manifest("clicks", "files", "", "uniform", records, tuple(segments), folder)
    write_manifest(manifest, folder)
    return folder


def test_a_head_on_ones_own_backbone(clips: Path, avbench: Avbench, tmp_path: Path) -> None:
    shutil.copy(TEMPLATE, tmp_path)
    options = ("--data", clips, "--offsets", 2, "--steps", 3, "--workers", 1, "--out", "heads")
    log_to = ("--log-to", "tensorboard") if find_spec("tensorboard") else ()
    done = avbench("train", "head", "--backbone", "my_net.py:MyNet", "--head", "lstm", *options, *log_to)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "heads").glob("tensorboard/*/events*"))) == (1 if log_to else 0)
    file = tmp_path / done.stdout.strip()
    assert file.name == "my_net-MyNet-lstm.safetensors"
    assert f"avbench run --model my_net.py:MyNet+lstm --head-weights {file.relative_to(tmp_path)}" in done.stderr
    card = card_of(file)
    assert card["head"] == "lstm"
    assert card["token"] == "backbone"
    assert card["token_dim"] == 64
    assert card["recipe"]["offsets"] == 2
    assert len(card["log"]) == 1
    assert re.search(r"step 3 of 3: Acc [\d.]+ \(APA [\d.]+\), .*, loss [\d.]+\n", done.stderr)
    assert "kept step 3 of 3: Acc " in done.stderr
    assert re.search(r": 3 of 3 steps, ", done.stderr), "progress over the steps"

    first = file.read_bytes()
    again = avbench("train", "head", "--backbone", "my_net.py:MyNet", "--head", "lstm", *options)
    assert again.returncode == 0, again.stderr
    assert file.read_bytes() == first
    assert not list((tmp_path / "heads").glob("*.ckpt"))

    run = ("run", "--model", "my_net.py:MyNet+lstm", "--data", clips, "--iterations", 3, "--workers", 1, "--out", "run")
    done = avbench(*run, "--head-weights", file, "--n-resamples", 20)
    assert done.returncode == 0, done.stderr
    assert read_run(tmp_path / "run").model.head == "lstm"


def test_a_head_on_a_backbone_without_a_token(clips: Path, tmp_path: Path) -> None:
    recipe = HeadRecipe("xcorr", "trf", str(clips), offsets=1, steps=2)
    path = train_head(recipe, tmp_path / "heads", Compute(tmp_path / "store", 1), say=lambda text: None)
    card = card_of(path)
    assert card["token"] == "adapter"
    assert card["backbone"] == "xcorr"
    assert card["trained_on"].endswith("train (2 streams)")
    head = load_head(path, "trf")
    assert head.token_from == "adapter"
    assert head.weight.shape == (96, 42)


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("xcorr+apa", "xcorr+apa: a head is trained on a backbone alone, and this has the head apa: name xcorr"),
        ("apa-sparsesync", "this has the head apa: name sparsesync"),
    ],
)
def test_a_backbone_that_has_a_head_is_refused_at_once(avbench: Avbench, backbone: str, said: str) -> None:
    done = avbench("train", "head", "--backbone", backbone, "--data", "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_a_backbone_with_arguments(clips: Path, avbench: Avbench, tmp_path: Path) -> None:
    code = TEMPLATE.read_text() + "\nclass Sized(MyNet):\n    def __init__(self, n: int):\n        super().__init__()\n"
    (tmp_path / "sized.py").write_text(code)
    words = ("train", "head", "--backbone", "sized.py:Sized", "--data", clips, "--offsets", 1, "--steps", 1)
    done = avbench(*words, "--workers", 1, "--model-args", "n=3")
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith(".safetensors --model-args n=3")


@pytest.mark.slow
def test_a_head_is_trained_again_into_the_same_folder(clips: Path, avbench: Avbench, tmp_path: Path) -> None:
    words = ("train", "head", "--backbone", "xcorr", "--data", clips, "--offsets", 1, "--workers", 1, "--out", "heads")
    done = avbench(*words, "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert (
        "train: 2 streams = 2 clips x 1 offsets, 36 windows each (--offsets and --limit make it shorter)" in done.stderr
    )
    done = avbench(*words, "--steps", 3)
    assert done.returncode == 2
    said = "heads/xcorr-lstm.safetensors was trained otherwise (steps 2 there, 3 asked): give --force to replace it"
    assert said in done.stderr
    done = avbench(*words, "--steps", 3, "--force")
    assert done.returncode == 0, done.stderr
    path = tmp_path / done.stdout.strip()
    assert card_of(path)["log"][-1]["step"] == 3

    def interrupt(line: str) -> None:
        if "step 2 of 5" in line:
            raise KeyboardInterrupt

    longer = HeadRecipe("xcorr", "lstm", str(clips), offsets=1, steps=5, validate_every=1)
    with pytest.raises(KeyboardInterrupt):
        train_head(longer, tmp_path / "heads", Compute(workers=1), interrupt, force=True)
    before = path.read_bytes()
    done = avbench(*words, "--steps", 3)
    assert (done.returncode, path.read_bytes()) == (2, before)
    said = (
        "heads has another training, interrupted at step 1 of 5 (steps 5 there, 3 asked; validate_every 1 there, 100 "
    )
    assert f"{said}asked): give it up with --force, or choose another --out" in done.stderr
    done = avbench(*words, "--steps", 3, "--force")
    assert (done.returncode, path.read_bytes()) == (0, before), done.stderr
    (tmp_path / "heads" / "xcorr-lstm-0.phase1.ckpt").write_text("no checkpoint")
    done = avbench(*words, "--steps", 3)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "xcorr-lstm-0.phase1.ckpt is no checkpoint of a training: delete it to start again" in done.stderr


OTHER = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def __init__(self, width: int):
        self.width = width

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32))
"""


@pytest.mark.slow
def test_a_head_of_another_backbone_is_said_beside_the_table(clips: Path, avbench: Avbench, tmp_path: Path) -> None:
    path = tmp_path / "my heads" / "xcorr-lstm.safetensors"
    path.parent.mkdir()
    made = AdaptedHead(StreamingLSTM(96, 2, 21), 96, 21)
    export_head(path, made, trained_on="clicks", backbone="xcorr", backbone_fingerprint="0" * 64)
    (tmp_path / "net.py").write_text(OTHER)
    words = (
        "run",
        "--model",
        "net.py:Net+lstm",
        "--head-weights",
        path.relative_to(tmp_path),
        "--model-args",
        "width=2",
    )
    words += (
        "--data",
        clips,
        "--iterations",
        2,
        "--workers",
        1,
        "--n-resamples",
        20,
        "--no-reference-rows",
        "--out",
        "r",
    )
    done = avbench(*words)
    assert done.returncode == 0, done.stderr
    said = "the head was trained on snapshots of another backbone (fingerprint "
    assert f"\nANOTHER BACKBONE: {said}" in done.stdout
    page = (tmp_path / "r" / "run.html").read_text()
    assert said in page
    assert "--head-weights FILE --model-args width=2" in page
    after = shlex.split(done.stdout.splitlines()[-1])
    assert after == [
        *("avbench", "doctor", "net.py:Net+lstm", "--model-args", "width=2"),
        *("--head-weights", "my heads/xcorr-lstm.safetensors"),
    ]
    done = avbench(*after[1:])
    assert "ok    net.py:Net+lstm loads" in done.stdout, done.stderr
    assert any(f"ANOTHER BACKBONE: {said}" in note for note in run_table(read_run(tmp_path / "r")).notes)


@pytest.mark.parametrize("kind", [OwnToken, MadeToken])
def test_it_learns_what_the_snapshots_tell(kind: type[OwnToken], tmp_path: Path) -> None:
    """Snapshots that are mostly noise: one window alone says little, the head over eighteen must say more."""
    rng = np.random.default_rng(0)

    def streams(n: int) -> Streams:
        labels = rng.integers(0, 21, n)
        logits = rng.standard_normal((n, 40, 21)).astype(np.float32)
        logits[np.arange(n), :, labels] += 1.5
        token = np.concatenate([logits, np.zeros((n, 40, 27), np.float32)], axis=2)
        said = torch.from_numpy(token)
        return Streams(torch.from_numpy(logits), said, said, torch.from_numpy(labels))

    recipe = StreamRecipe("toy", "lstm", "toy", steps=60, batch=32, windows=18, lr=3e-3, validate_every=60)
    valid = streams(200)
    alone = float((valid.logits[:, -1].argmax(1) == valid.labels).float().mean())
    _, log = train_phase1(recipe, partial(kind, "lstm", 48), streams(400), valid, tmp_path, lambda text: None)
    assert log[-1]["acc"] > alone + 0.1


def test_streams_are_the_clips_under_several_offsets(clips: Path) -> None:
    manifest, protocol = training_streams(read_manifest(clips).split("train"), HeadRecipe("xcorr", offsets=3))
    assert len(manifest.segments) == 6
    assert len({s.offset for s in manifest.segments}) == 6
    assert protocol.iterations == 36
    assert all(protocol.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)
    again, _ = training_streams(read_manifest(clips).split("train"), HeadRecipe("xcorr", offsets=3))
    assert again.segments == manifest.segments
    other, _ = training_streams(read_manifest(clips).split("train"), HeadRecipe("xcorr", offsets=3, seed=1))
    assert other.segments != manifest.segments


def test_bad_requests(clips: Path, avbench: Avbench, tmp_path: Path) -> None:
    short = replace(read_manifest(clips).split("test"))
    record = replace(next(iter(short.clips.values())), n_frames=40 * 25)
    with pytest.raises(UsageError, match="clips of at least 43 s"):
        training_streams(replace(short, clips={record.id: record}), HeadRecipe("xcorr"))
    for options, says in (
        (("--backbone", "constant"), "ignores its input"),
        (("--backbone", "nothing"), "unknown model"),
        (("--backbone", "xcorr", "--steps", "0"), "steps is 0"),
        (("--backbone", "xcorr", "--workers", "0"), "at least 1"),
        (("--backbone", "xcorr", "--data", "nowhere"), "unknown data"),
    ):
        done = avbench("train", "head", *options)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
