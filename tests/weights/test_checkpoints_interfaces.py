"""What code outside relies on: names, constructors, keys, shapes. On the meta device, where full size costs nothing."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import avbench
import avbench.baselines.frontends as frontends
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer, StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.types import AvbenchError
from avbench.weights.checkpoints import build, drawn_weights

KEYS = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "public"


def on_meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return make().eval()


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on a busy machine cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("make", "file", "n_parameters"),
    [
        (SparseSync, "sparsesync", 54_348_652),
        (StreamSync, "streamsync_trf", 65_404_289),
        (Synchformer, "synchformer", 237_460_245),
    ],
)
def test_constructed_without_arguments_they_are_the_published_models(make: Any, file: str, n_parameters: int) -> None:
    model = on_meta(make)
    assert isinstance(model, torch.nn.Module)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    path = KEYS / f"{file}_keys.json"
    if not path.exists():
        pytest.skip(f"the published keys are absent: ../shared/golden/public/{path.name}")
    expected = json.loads(path.read_text())
    entries = expected.get("state_dict", expected) if isinstance(expected, dict) else expected
    found = {k: (list(t.shape), str(t.dtype).removeprefix("torch.")) for k, t in model.state_dict().items()}
    stated = {
        key: (list(e["shape"]), str(e["dtype"]).removeprefix("torch."))
        for key, e in (entries.items() if isinstance(entries, dict) else ((e["key"], e) for e in entries))
    }
    assert list(found) == list(stated)
    assert found == stated
    weights = {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, (s, d) in stated.items()}
    assert not any(model.load_state_dict(weights, strict=True))


def test_heads_of_streamsync() -> None:
    assert isinstance(on_meta(StreamSync).streaming_head, StreamingTransformer)
    assert isinstance(on_meta(lambda: StreamSync(head="trf")).streaming_head, StreamingTransformer)
    assert isinstance(on_meta(lambda: StreamSync(head="lstm")).streaming_head, StreamingLSTM)


def test_sparsesync_forward() -> None:
    model, video, audio = on_meta(SparseSync), meta(2, 125, 3, 224, 224), meta(2, 1, 257, 626)
    assert model(video, audio).shape == (2, 21)
    assert model.encode_audio(meta(2, 1, 257, 625)).shape == (2, 512, 9, 20)
    v, a = model.encode_video(video), model.encode_audio(audio)
    assert (v.shape, a.shape) == ((2, 16, 512, 7, 7), (2, 512, 9, 20))
    assert model.fuse(v, a).logits.shape == (2, 21)


@pytest.mark.parametrize("head", ["trf", "lstm"])
def test_streamsync_forward(head: str) -> None:
    model = on_meta(lambda: StreamSync(head=head))
    assert list(inspect.signature(model.forward).parameters) == ["video", "audio", "history"]
    video, audio = meta(2, 125, 3, 224, 224), meta(2, 1, 257, 625)
    streaming, snapshot, history = model(video, audio)
    assert (streaming.shape, snapshot.shape, history.shape) == ((2, 21), (2, 21), (2, 1, 512))
    streaming, snapshot, history = model(video, audio, history=meta(2, 17, 512))
    assert (streaming.shape, snapshot.shape, history.shape) == ((2, 21), (2, 21), (2, 18, 512))
    fused = model.fuse(model.encode_video(video), model.encode_audio(audio))
    assert (fused.logits.shape, fused.token.shape) == ((2, 21), (2, 512))


def test_synchformer_forward() -> None:
    model, video, audio = on_meta(Synchformer), meta(1, 14, 16, 3, 224, 224), meta(1, 14, 1, 128, 66)
    assert model(video, audio).shape == (1, 21)
    v, a = model.encode_video(video), model.encode_audio(audio)
    assert (v.shape, a.shape) == ((1, 112, 768), (1, 84, 768))
    assert model.fuse(v, a).logits.shape == (1, 21)


def test_front_ends() -> None:
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 80_000).astype(np.float32))
    frames = torch.zeros(125, 256, 340, 3, dtype=torch.uint8)
    for made, shape, dtype in (
        (frontends.sparsesync_audio(wave), (1, 257, 626), torch.float32),
        (frontends.sparsesync_audio(wave[:48_000]), (1, 257, 376), torch.float32),
        (frontends.synchformer_audio(wave), (14, 1, 128, 66), torch.float32),
        (frontends.sparsesync_video(frames), (125, 3, 224, 224), torch.float32),
        (frontends.synchformer_video(frames), (14, 16, 3, 224, 224), torch.float16),
    ):
        assert (made.shape, made.dtype) == (shape, dtype)


def test_a_front_end_is_float32_under_autocast() -> None:
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 80_000).astype(np.float32))
    plain = frontends.synchformer_audio(wave), frontends.sparsesync_audio(wave)
    with torch.autocast("cpu", torch.bfloat16):
        again = frontends.synchformer_audio(wave), frontends.sparsesync_audio(wave)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_load_model_with_a_state_dict_gives_the_full_size_model() -> None:
    assert list(inspect.signature(avbench.load_model).parameters)[:4] == ["name", "weights", "device", "dtype"]
    state = drawn_weights(build("streamsync-trf").state_dict(), 3)
    model = avbench.load_model("streamsync-trf", weights=state, device="cpu", dtype=torch.float64)
    assert isinstance(model, avbench.StreamingModel)
    assert isinstance(model.backbone, StreamSync)
    assert isinstance(model.head, StreamingTransformer)
    assert not model.backbone.training
    loaded = model.backbone.state_dict()
    assert list(loaded) == list(state)
    for key, tensor in state.items():
        wanted = tensor.double() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[key], wanted)
        if key.startswith("streaming_head."):
            assert torch.equal(model.head.state_dict()[key.removeprefix("streaming_head.")], wanted)
    features = torch.randn(1, 16, 512, 7, 7, dtype=torch.float64), torch.randn(1, 512, 9, 20, dtype=torch.float64)
    with torch.inference_mode():
        logits, token = model.backbone.fuse(*features)
    assert (logits.shape, logits.dtype, token.shape) == ((1, 21), torch.float64, (1, 512))
    with pytest.raises(AvbenchError, match="the state dict contains streamsync-trf weights, not sparsesync weights"):
        avbench.load_model("sparsesync", weights=state)
    del state["transformer.off_head.weight"]
    with pytest.raises(AvbenchError, match=r"1 missing \(transformer\.off_head\.weight\)"):
        avbench.load_model("streamsync-trf", weights=state)
