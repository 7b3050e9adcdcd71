"""What ``tests/system/test_devices_fake.py`` runs in a process of its own: commands on an accelerator that only checks
placement. Model and inputs lie on it, results are fetched back, and the answers are those of the CPU."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_device
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from smallsync import model_file

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.engine.runner import Compute
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.registry.names import load_model
from avbench.results.predictions import read_predictions
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord

pytestmark = pytest.mark.skipif(not fake_device.possible(), reason="this torch can have no device written in Python")

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
BOTH = ("cpu", "fake")
CLIP_S = 46
NET = '''
import torch
import avbench


class Net(avbench.SnapshotPredictor, torch.nn.Module):
    """Levels of picture and sound: enough to have weights, inputs, a token and an answer."""

    frontend = avbench.FrontEnd(size=16)
    token_dim = 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.maker, self.said = torch.nn.Linear(250, 8), torch.nn.Linear(8, 21)

    def predict(self, video, audio):
        seen = video.float().mean((2, 3, 4)) / 255
        heard = audio.unflatten(1, (125, -1)).abs().mean(2)
        token = self.maker(torch.cat([seen, heard], 1)).tanh()
        return avbench.Snapshot(self.said(token), token)
'''


@pytest.fixture(autouse=True)
def _device() -> None:
    fake_device.install()
    fake_device.ran.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two clips that are long enough for the paper's tables, one in each split; computed in this process,
    because it says that avbench made them."""
    folder = tmp_path_factory.mktemp("made")
    clips, segments = {}, []
    for seed, split in enumerate(("train", "valid")):
        path = folder / f"{split}.mp4"
        encode_clip(path, *click_and_flash(CLIP_S, seed=seed))
        sha256 = media_sha256(path)
        clip = ClipRecord(split, split, path.name, sha256, CLIP_S * FRAME_RATE_HZ, CLIP_S * SAMPLE_RATE_HZ)
        clips[split] = replace(clip, split=split)
        label = OffsetGrid().class_of(0.4)
        segments.append(SegmentRecord(split, split, split, ticks(2), ticks(0.4), label, split=split))
    manifest = Manifest("made", "synthetic", "click and flash", "uniform", clips, tuple(segments), media_root=folder)
    write_manifest(manifest, folder)
    return folder


def both(avbench: Avbench, *words: object) -> dict[str, str]:
    """Device -> what the command printed there."""
    said = {}
    for device in BOTH:
        here = [str(word).replace("DEVICE", device) for word in words]
        done = avbench(*here, "--device", device)
        assert done.returncode == 0, done.stderr
        said[device] = done.stdout
        assert bool(fake_device.ran) == (device == "fake"), "that many operations ran on the device"
    return said


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    layer, here, there = torch.nn.Linear(2, 2).to("fake"), torch.ones(1, 2), torch.ones(1, 2, device="fake")
    assert layer.weight.device.type == there.device.type == "fake"
    with pytest.raises(RuntimeError, match="at least two devices, fake:0 and cpu"):
        layer(here)
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        there.numpy()
    layer(there).sum().backward()
    assert torch.equal(layer.weight.grad.cpu(), torch.ones(2, 2))
    assert Compute(device="fake").on_cpu is False


def test_run(avbench: Avbench, data: Path, tmp_path: Path) -> None:
    words = ("--model", "streamsync-trf", "--data", data, "--split", "train", "--iterations", 3, "--n-resamples", 20)
    both(avbench, "run", *words, "--store", tmp_path / "DEVICE-store", "--out", tmp_path / "DEVICE")
    (ids, a), (same, b) = (read_predictions(tmp_path / device / "predictions.parquet") for device in BOTH)
    assert ids == same
    assert np.abs(a - b).max() < 1e-5
    runs = [json.loads((tmp_path / device / "run.json").read_text()) for device in BOTH]
    assert [run["environment"]["device"] for run in runs] == ["cpu", "fake"]
    assert runs[0]["scores"] == runs[1]["scores"]
    assert runs[0]["signature"] == runs[1]["signature"]
    assert any("conv" in name for name in fake_device.ran)


def test_sweep(avbench: Avbench, data: Path, tmp_path: Path) -> None:
    words = ("sweep", "--models", "sparsesync+apa", "xcorr", "--data", data, "--split", "train", "--iterations", 2, 3)
    said = both(avbench, *words, "--n-resamples", 20, "--store", tmp_path / "DEVICE", "--batch-size", 4, "--json")
    assert json.loads(said["cpu"]) == json.loads(said["fake"])


@pytest.mark.slow
def test_paper(avbench: Avbench, data: Path, tmp_path: Path) -> None:
    words = ("paper", "table6", "--data", data, "--split", "train", "--n-resamples", 20, "--latency-samples", 0)
    both(avbench, *words, "--store", tmp_path / "DEVICE-store", "--out", tmp_path / "DEVICE")
    tables = [json.loads((tmp_path / device / "table6.json").read_text()) for device in BOTH]
    assert tables[0]["cells"] == tables[1]["cells"]
    assert any(cell["n_scored"] for cell in tables[0]["cells"])


def test_train_head(avbench: Avbench, data: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    words = ("train", "head", "--backbone", "net.py:Net", "--head", "trf", "--data", data, "--offsets", 1, "--steps", 2)
    both(avbench, *words, "--store", "DEVICE-store", "--out", "DEVICE")
    assert any("backward" in name for name in fake_device.ran), "the head was trained there"
    a, b = (load_file(next((tmp_path / device).glob("*.safetensors"))) for device in BOTH)
    assert a.keys() == b.keys()
    assert max(np.abs(a[key] - b[key]).max() for key in a) < 1e-5


@pytest.mark.slow
def test_doctor(avbench: Avbench, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    said = both(avbench, "doctor", "net.py:Net+apa", "--batch-size", 2)
    assert said["cpu"].splitlines()[:5] == said["fake"].splitlines()[:5]


@pytest.fixture
def _in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_device.for_processes(tmp_path / "plugin")
    for folder in path:
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", ":".join(path), prepend=":")


@pytest.mark.slow
@pytest.mark.usefixtures("_in_every_process")
@pytest.mark.parametrize("command", ["predict", "score", "watch"])
def test_in_a_process_of_its_own(avbench: Avbench, data: Path, tmp_path: Path, command: str) -> None:
    words: dict[str, Any] = {
        "predict": ("--model", "sparsesync", "--hop", 20, "--workers", 1, "--store", "DEVICE", "--json"),
        "score": ("--model", f"{model_file(tmp_path)}:Small", "--seconds", 12, "--json"),
        "watch": ("--model", "sparsesync", "--hop", 10, "--jsonl"),
    }
    said = {}
    for device in BOTH:
        here = [str(word).replace("DEVICE", device) for word in words[command]]
        done = avbench(command, data / "train.mp4", *here, "--device", device)
        assert done.returncode == 0, done.stderr
        found = (
            [json.loads(line) for line in done.stdout.splitlines()] if command == "watch" else json.loads(done.stdout)
        )
        said[device] = [(e["type"], e.get("expected_s")) for e in found] if command == "watch" else found
    assert said["cpu"]
    assert said["cpu"] == said["fake"]
    assert command != "watch" or fake_device.ran, "it computes in this process"


def test_a_model_by_name() -> None:
    model = load_model("synchformer", device="fake")
    assert {
        p.device.type for part in (model.backbone, model.head) if hasattr(part, "parameters") for p in part.parameters()
    } == {"fake"}
