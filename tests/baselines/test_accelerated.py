"""Copies for accelerators, compared on the CPU at a reduced size: folding, channels last, lower precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avbench.baselines.accelerated import accelerated, channels_last, folded, stored
from avbench.baselines.mini import MiniSparseSync
from avbench.baselines.s3d import S3D
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.baselines.tuned import Tuned, tuned
from avbench.engine.fingerprint import model_fingerprint
from avbench.types import UsageError
from avbench.weights.checkpoints import drawn_weights

SIZE: dict[str, Any] = {"width": 1 / 8, "dim": 64, "heads": 2, "layers": 1}
GRIDS: dict[str, Any] = {"visual_grid": (4, 2, 2), "audio_grid": (9, 6)}  # of 32 frames of 64 x 64 and 1.28 s of sound
MAKE: dict[str, Any] = {
    "sparsesync": lambda: SparseSync(**SIZE, **GRIDS),
    "streamsync": lambda: StreamSync("trf", **SIZE, **GRIDS),
    "synchformer": lambda: Synchformer(dim=64, layers=2, heads=4, size=32),
}
NAMES = [*MAKE]
# of the spread of the logits; measured: 0.020 to 0.056 in bfloat16, 0.002 to 0.006 in float16
NEAR = {"bfloat16": 0.1, "float16": 0.02}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


def reduced(name: str) -> Any:
    model = MAKE[name]()
    return_ = drawn_weights(model.state_dict(), seed=3)
    model.load_state_dict(return_, assign=True)
    return model.eval()


def windows(name: str) -> tuple[Tensor, Tensor]:
    draw = np.random.default_rng(1)
    frames, size, n = (125, 32, 80_000) if name == "synchformer" else (32, 64, 20_480)
    video = draw.integers(0, 256, (2, frames, 3, size, size), np.uint8)
    return torch.from_numpy(video), torch.from_numpy(0.1 * draw.standard_normal((2, n)).astype(np.float32))


def gap(a: Any, b: Any) -> float:
    """The largest difference of two snapshots, logits and tokens."""
    pairs = [(a.logits, b.logits), *([(a.token, b.token)] if a.token is not None else [])]
    return max(float((x.float() - y.float()).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_copy_gives_the_same_logits_and_leaves_the_model_alone(name: str) -> None:
    model = reduced(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    quick = accelerated(model)
    expected, found = model.predict(*windows(name)), quick.predict(*windows(name))
    assert float(expected.logits.std()) > 0.1
    assert gap(expected, found) < 1e-4
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) for part in quick.modules())
    assert not {t.data_ptr() for t in model.parameters()} & {t.data_ptr() for t in quick.parameters()}
    video, audio = windows(name)
    assert gap(found, quick.fuse(quick.encode_video(video), quick.encode_audio(audio))) < 1e-5
    if name != "synchformer":  # it has no BatchNorm: the same weights, in another layout
        assert model_fingerprint(quick) != model_fingerprint(model), "snapshots of the two are kept apart"


def test_folding_a_picture_encoder() -> None:
    trunk = reduced("sparsesync").vfeat_extractor
    assert isinstance(trunk, S3D)
    video = torch.randn(1, 32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, found = trunk(video), folded(trunk)(video)
    assert float((expected - found).abs().max()) < 1e-4 * float(expected.abs().max())
    assert any(isinstance(part, nn.BatchNorm3d) for part in trunk.modules())


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_the_layout_alone(name: str) -> None:
    model = reduced(name)
    other = channels_last(copy.deepcopy(model))
    for (key, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), key
        if a.ndim == 5 and min(a.shape[:2]) > 1 and max(a.shape[2:]) > 1:
            assert b.is_contiguous(memory_format=torch.channels_last_3d), key
            assert not b.is_contiguous(), key
    assert gap(model.predict(*windows(name)), other.predict(*windows(name))) < 1e-5


# float16 is slow on a CPU: once is enough
@pytest.mark.parametrize(("name", "dtype"), [*((name, "bfloat16") for name in NAMES), ("synchformer", "float16")])
def test_stored_weights_give_the_logits_of_autocast(name: str, dtype: str) -> None:
    model = reduced(name)
    plain = model.predict(*windows(name))
    cast = Tuned(copy.deepcopy(model), dtype, compiled=False)
    kept: Any = tuned(copy.deepcopy(model), dtype=dtype)
    expected, found = cast.predict(*windows(name)), kept.predict(*windows(name))
    assert torch.equal(expected.logits, found.logits)
    assert found.logits.dtype is torch.float32
    size, full = (sum(p.nbytes for p in m.parameters()) for m in (kept, model))
    assert size < 0.6 * full, "half as large but for norms and embeddings"
    spread = float(plain.logits.std())
    assert 0 < gap(plain, found) < NEAR[dtype] * spread


def test_a_copy_in_lower_precision() -> None:
    video, audio = windows("sparsesync")
    model = reduced("sparsesync")
    quick: Any = tuned(model, "accelerator", "bfloat16")
    weights = {part.weight.dtype for part in quick.modules() if isinstance(part, nn.Conv3d | nn.Conv2d | nn.Linear)}
    assert weights == {torch.bfloat16}
    plain, found = model.predict(video, audio), quick.predict(video, audio)
    assert 0 < gap(plain, found) < NEAR["bfloat16"] * float(plain.logits.std())
    assert quick.stretch_sound(audio[0]).dtype is torch.float32
    cut = quick.stretch_sound(audio.flatten())[None, ..., : audio.shape[1] // quick.column_samples]
    assert quick.predict(video[:1], cut).logits.isfinite().all()


def test_what_is_not_of_full_size_is_left_as_it_is() -> None:
    small = MiniSparseSync().eval()
    assert accelerated(small) is small
    with pytest.raises(UsageError, match=r"call eval\(\) before accelerated"):
        accelerated(MAKE["sparsesync"]())


def test_stored_keeps_what_autocast_computes_in_float32() -> None:
    kept = stored(reduced("synchformer"), torch.bfloat16)
    assert {p.dtype for part in kept.modules() if isinstance(part, nn.LayerNorm) for p in part.parameters()} == {
        torch.float32
    }
    assert kept.vfeat_extractor.pos_embed.dtype is torch.float32
