"""On a GPU: the numbers of the CPU, in float32 without TF32; lower precision is near; a smaller memory is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.engine.clip_pass import CalledModel
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.rules import streaming
from avbench.registry.loading import load
from avbench.registry.names import load_model, resolve
from avbench.registry.options import ModelOptions
from avbench.results.predictions import read_predictions
from avbench.system.precision import exact_float32
from avbench.types import ClipRecord, FrontEnd

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

FULL_SIZE = ("sparsesync", "streamsync-trf", "streamsync-lstm", "synchformer")
TOLERANCE = 2e-3  # of the reference values in float32


@pytest.fixture(autouse=True)
def _as_the_runner_does() -> Iterator[None]:
    with torch.inference_mode(), exact_float32():
        yield


def windows(n: int, size: int = 224) -> list[tuple[Any, Any]]:
    """Pictures of blocks and a sound of blocks: white noise would say nothing."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(n):
        coarse = torch.rand(1, 13, 3, size // 28, size // 28, generator=draw)
        video = coarse.repeat_interleave(10, 1)[:, :125].repeat_interleave(28, 3).repeat_interleave(28, 4)
        loudness = torch.rand(1, 100, generator=draw).repeat_interleave(800, 1)
        found.append(((255 * video).to(torch.uint8), loudness * torch.randn(1, 80_000, generator=draw)))
    return found


def said(model: Any, device: str, n: int = 3) -> np.ndarray:
    """(n, 21) streaming logits, one window after the other."""
    state, out = model.head.init(1), []
    for i, window in enumerate(windows(n, model.backbone.frontend.size // 28 * 28)):
        snapshot = model.backbone.predict(*(x.to(device) for x in window))
        state, logits = model.head.step(state, snapshot, 2.0 * i)
        out.append(np.asarray(torch.as_tensor(logits).float().cpu()))
    return np.concatenate(out)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_say_the_same(name: str) -> None:
    n = 1 if name == "synchformer" else 3
    expected = said(load_model(name, random_weights=0), "cpu", n)
    found = said(load_model(name, random_weights=0, device="cuda"), "cuda", n)
    assert np.abs(found - expected).max() < TOLERANCE


# random weights amplify rounding some thousand times: bfloat16 leaves nothing of such a StreamSync's logits
@pytest.mark.parametrize(
    ("name", "dtype"), [("streamsync-trf", "float16"), ("synchformer", "float16"), ("synchformer", "bfloat16")]
)
def test_lower_precision_is_near(name: str, dtype: str) -> None:
    exact = said(load_model(name, random_weights=0, device="cuda"), "cuda", 1)
    rough = said(load_model(name, random_weights=0, device="cuda", autocast=dtype), "cuda", 1)
    assert 0 < np.abs(rough - exact).max() < 0.5 * exact.std()


@pytest.mark.parametrize("name", ["streamsync-trf", "synchformer"])
def test_two_towers_equal_the_plain_way(name: str) -> None:
    backbone: Any = load_model(name, random_weights=0, device="cuda").backbone
    video, audio = (torch.cat(x).cuda() for x in zip(*windows(2), strict=True))
    plain = backbone.predict(video, audio).logits
    fused = backbone.fuse(backbone.encode_video(video), backbone.encode_audio(audio)).logits
    assert (plain - fused).abs().max() < 1e-4


def test_a_run_on_the_gpu_agrees_with_one_on_the_cpu(avbench_process: Callable[..., Any], tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        options = ("--limit", 14, "--no-reference-rows", "--n-resamples", 20, "--out", tmp_path / device)
        done = avbench_process("run", "--model", "streamsync-trf", "--device", device, "--batch-size", 8, *options)
        assert done.returncode == 0, done.stderr
    a, b = (read_predictions(tmp_path / device / "predictions.parquet") for device in ("cpu", "cuda"))
    assert a[0] == b[0]
    assert np.abs(a[1] - b[1]).max() < TOLERANCE
    assert (a[1].argmax(-1) == b[1].argmax(-1)).mean() > 0.99
    assert json.loads((tmp_path / "cuda" / "run.json").read_text())["environment"]["device"] == "cuda"


def test_a_sweep_on_the_gpu_agrees_with_one_on_the_cpu(avbench_process: Callable[..., Any], tmp_path: Path) -> None:
    words = ("sweep", "--models", "streamsync-trf", "xcorr+apa", "--iterations", 2, 4, "--limit", 14, "--json")
    rows = []
    for device in ("cpu", "cuda"):
        done = avbench_process(*words, "--n-resamples", 20, "--device", device, "--store", tmp_path / device)
        assert done.returncode == 0, done.stderr
        rows.append(json.loads(done.stdout))
    for a, b in zip(*rows, strict=True):
        assert a["model"] == b["model"]
        assert abs(a["scores"]["map"]["value"] - b["scores"]["map"]["value"]) < 0.02


def test_the_paper_on_the_gpu_agrees_with_the_cpu(avbench_process: Callable[..., Any], tmp_path: Path) -> None:
    words = ("paper", "table6", "--limit", 14, "--n-resamples", 20, "--latency-samples", 0)
    cells = []
    for device in ("cpu", "cuda"):
        places = ("--store", tmp_path / f"{device}-store", "--out", tmp_path / device)
        done = avbench_process(*words, "--device", device, *places)
        assert done.returncode == 0, done.stderr
        cells.append(json.loads((tmp_path / device / "table6.json").read_text())["cells"])
    for a, b in zip(*cells, strict=True):
        assert (a["row"], a["column"], a["n_scored"]) == (b["row"], b["column"], b["n_scored"])
        assert a["value"] is None or abs(a["value"] - b["value"]) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["sparsesync", "synchformer"])
def test_the_copy_for_accelerators_says_the_same(name: str, dtype: str) -> None:
    plain = said(load_model(name, random_weights=0, device="cuda"), "cuda", 1)
    quick = load(resolve(name, ModelOptions(random_seed=0, autocast=dtype).made_quick("cuda")), "cuda")
    gap = np.abs(said(quick, "cuda", 1) - plain).max()
    assert gap < (TOLERANCE if dtype == "float32" else 0.5 * plain.std())


def test_latency_says_what_it_was_measured_on(avbench_process: Callable[..., Any]) -> None:
    done = avbench_process("latency", "--model", "streamsync-lstm", "--device", "cuda", "--samples", 70, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["device"] == "cuda"
    assert "torch.cuda.synchronize" in record["clock"]
    assert record["environment"]["gpu"] == torch.cuda.get_device_name()
    assert record["environment"]["tf32"] is False
    assert record["environment"]["gpu_driver"]
    assert record["audits"]["outputs"]["ok"]
    assert 0 < record["p50_ms"] <= record["p90_ms"]
    assert record["n"] == 70


def test_decoding_beside_the_gpu_gives_the_bytes_of_decoding_in_turn(clicks: Path, tmp_path: Path) -> None:
    from avbench.protocol.manifest import read_manifest

    manifest, backbone = read_manifest(clicks), load_model("sparsesync", device="cuda").backbone
    found = []
    for name, overlapped in (("in turn", False), ("beside", True)):
        how = Compute(tmp_path / name, 1 + overlapped, "cuda", overlapped=overlapped)
        report = compute(manifest, [streaming(iterations=1)], {"m": backbone}, how)
        assert not report.failures
        found.append({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.safetensors")})
    assert found[0] == found[1] != {}
    assert report.spent.transfer_s > 0


class _Clip:
    """224 x 224 pictures and sound from memory."""

    def __init__(self, clip: ClipRecord) -> None:
        draw = np.random.default_rng(0)
        self.pictures = draw.integers(0, 256, (clip.n_frames, 3, 1, 1), np.uint8) * np.ones((1, 1, 224, 224), np.uint8)
        self.sound = draw.standard_normal(clip.n_samples).astype(np.float32) / 10

    def audio(self) -> np.ndarray:
        return self.sound

    def gaps(self) -> tuple[()]:
        return ()

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        return ((picture,) * len(frontends) for picture in self.pictures)


def test_memory_that_runs_out_halves_the_batch(clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avbench.protocol.manifest import read_manifest

    batches: list[int] = []
    in_batches = CalledModel.in_batches

    def noted(self: CalledModel, call: Any, items: Any) -> Any:
        out = in_batches(self, call, items)
        batches.append(self.batch_size)
        return out

    monkeypatch.setattr(CalledModel, "in_batches", noted)
    manifest = read_manifest(clicks)
    found = []
    share = 1.0
    for batch_size in (1, 64):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(share)
        store = SnapshotStore(tmp_path / str(batch_size))
        models = {"sparsesync": partial(_backbone, "sparsesync")}
        how = Compute(store, device="cuda", batch_size=batch_size)
        try:
            report = compute(manifest, [streaming(iterations=3)], models, how, open_clip=_Clip)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        # next time: enough for one window, not for two
        share = 1.3 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
        assert not report.failures
        last, batches[:] = batches[-1], []
        assert last == 1 if batch_size == 1 else 1 <= last < 64, "the memory was enough for the whole batch"
        (fingerprint,) = report.fingerprints.values()
        keys = report.plan.keys
        found.append(
            np.concatenate([store.get(fingerprint, manifest.clips[c].sha256, keys[c])[0] for c in sorted(keys)])
        )
    assert np.abs(found[0] - found[1]).max() < TOLERANCE


def _backbone(name: str) -> Any:
    return load_model(name, random_weights=0).backbone
