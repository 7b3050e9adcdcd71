"""EfficientAT mn04 with its published weights equals the published code: keys, mel input, layers, logits, a sound."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avbench.data.tagging import AudioSetTagger, EfficientAT, mel_input

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 1e-3, F64: 1e-8}
STORED = {F32: "", F64: "_fp64"}
WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "models" / "mn04_as_mAP_432.pt"
GOLDEN = "efficientat_mn04.npz"
SOUNDS = {"": (2, 64_000), "_1s": (1, 32_000), "_odd": (1, 48_123), "_10s": (1, 320_000)}
sounds = pytest.mark.parametrize("tag", SOUNDS)
seeds = pytest.mark.parametrize("seed", [0, 1])
dtypes = pytest.mark.parametrize("dtype", [F32, F64])


@pytest.fixture(scope="session")
def published() -> Callable[[torch.dtype], EfficientAT]:
    """The network with its published weights."""
    if not WEIGHTS.exists():
        pytest.skip("the published weights are absent: ../shared/models")

    @lru_cache
    def load(dtype: torch.dtype) -> EfficientAT:
        model = EfficientAT()
        model.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True), strict=True)
        return model.eval().to(dtype)

    return load


@pytest.fixture
def sound(blocks: Any, reference: Any) -> Callable[[int, str], Tensor]:
    def draw(seed: int, tag: str) -> Tensor:
        x = blocks(seed, f"efficientat.wave{tag}", SOUNDS[tag], (1, 24))
        wave = (x.double() * 0.1).float()
        golden = reference(GOLDEN)
        assert wave.double().sum().item() == pytest.approx(float(golden[f"seed{seed}{tag}/wave_sum"]), abs=1e-9)
        assert wave.flatten()[:8].tolist() == golden[f"seed{seed}{tag}/wave_first8"].tolist()
        return wave

    return draw


def test_keys_shapes_dtypes_and_order_are_the_published_ones(same_keys: Any) -> None:
    model = EfficientAT()
    same_keys(model, "efficientat_mn04_keys.json")
    assert len(model.state_dict()) == 312
    assert sum(p.numel() for p in model.parameters()) == 983_599


@seeds
@sounds
def test_mel_input(seed: int, tag: str, sound: Any, reference: Any, close: Any) -> None:
    golden, wave = reference(GOLDEN), sound(seed, tag)
    every = 40 if tag == "_10s" else 7
    for dtype, tolerance in ((F32, 2e-5), (F64, 1e-12)):
        mel = mel_input(wave.to(dtype))
        assert mel.dtype == dtype
        assert list(mel[:, 0].shape)[-2:] == golden[f"seed{seed}{tag}/mel_shape"].tolist()[-2:]
        close(mel[:, 0, ::8, ::every], golden[f"seed{seed}{tag}/mel_slice{STORED[dtype]}"], tolerance)


@dtypes
@seeds
@sounds
def test_logits_and_embedding(
    seed: int, tag: str, dtype: torch.dtype, published: Any, sound: Any, reference: Any, close: Any
) -> None:
    model, golden, wave = published(dtype), reference(GOLDEN), sound(seed, tag)
    name = f"seed{seed}{tag}/{{}}{STORED[dtype]}".format
    logits = model.logits(wave)
    assert (logits.dtype, tuple(logits.shape)) == (dtype, (SOUNDS[tag][0], 527))
    close(logits, golden[name("logits")], TOLERANCE[dtype])
    embedding = model.classifier[:2](model.features(mel_input(wave.to(dtype))))
    close(embedding, golden[name("embedding")], TOLERANCE[dtype])


@pytest.mark.parametrize("tag", ["", "_odd"])
def test_every_published_layer(tag: str, published: Any, sound: Any, reference: Any, close: Any) -> None:
    """Mean, deviation and eight values of what each layer gives, so that a fault names its layer."""
    model, golden, wave = published(F64), reference(GOLDEN), sound(0, tag)
    prefix, seen = f"probe/seed0{tag}/", []
    names = [key.removeprefix(prefix) for key in golden.files if key.startswith(prefix)]
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.append((name, y)))
        for name in names
    ]
    try:
        model.logits(wave)
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(name for name, _ in seen) == sorted(names)
    assert len(names) > 20
    for name, y in seen:
        assert list(y.shape) == golden[f"shape/seed0{tag}/{name}"].tolist(), name
        flat = y.numpy().ravel()
        found = [flat.mean(), flat.std(), *(flat[i * (flat.size - 1) // 7] for i in range(8))]
        close(found, golden[prefix + name], 1e-3)  # the stored ones are of a float32 run


@dtypes
def test_a_real_sound(dtype: torch.dtype, published: Any, reference: Any, close: Any) -> None:
    golden = reference(GOLDEN)
    wave = torch.from_numpy(golden["real/wave_32k"])[None]
    close(mel_input(wave.to(F64))[0, 0, ::8, ::40], golden["real/mel_slice_fp64"].reshape(16, -1), 1e-12)
    close(published(dtype).logits(wave)[0], golden[f"real/logits{STORED[dtype]}"].ravel(), TOLERANCE[dtype])


def test_the_ten_names_of_the_real_sound(clip: Any, reference: Any) -> None:
    """From the decoded 16 kHz sound to names: resampling, logits, sigmoid, class list."""
    if not WEIGHTS.exists():
        pytest.skip("the published weights are absent: ../shared/models")
    golden, tagger = reference(GOLDEN), AudioSetTagger(WEIGHTS)
    found = tagger.probabilities(clip[1].numpy()[:160_000])
    ten = np.argsort(-found)[:10]
    assert ten.tolist() == golden["real/top10_index"].tolist()
    assert [tagger.names[i] for i in ten] == golden["real/top10_name"].tolist()
    assert found[ten] == pytest.approx(golden["real/top10_probability"], abs=1e-4)
