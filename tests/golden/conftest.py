"""Golden parity: models with weights drawn from a seed, inputs drawn from a seed, published reference outputs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avbench.weights.checkpoints import drawn_weights

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
PUBLIC = SHARED / "golden" / "public"
CLIP = SHARED / "media" / "vggsound_h264" / "3qesirWAGt4_20000_30000.mp4"


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """``reference("name.npz" | "name.json")``: a published reference file; skips where the material is absent."""

    @lru_cache(maxsize=4)
    def load(name: str) -> Any:
        path = PUBLIC / name
        if not path.exists():
            pytest.skip(f"reference material is absent: {os.path.join('..', 'shared', 'golden', 'public', name)}")
        return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)

    return load


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")  # the published lists write both float32 and torch.float32


@pytest.fixture(scope="session")
def same_keys(reference: Callable[[str], Any]) -> Callable[[nn.Module, str], None]:
    """``same_keys(model, "name.json")``: keys, their order, shapes and dtypes are those of the published file."""

    def check(model: nn.Module, name: str) -> None:
        ours = {key: [list(tensor.shape), _plain(tensor.dtype)] for key, tensor in model.state_dict().items()}
        published = {key: [of["shape"], _plain(of["dtype"])] for key, of in reference(name).items()}
        assert list(ours) == list(published)
        assert ours == published

    return check


@pytest.fixture(scope="session")
def clip() -> tuple[Tensor, Tensor, int]:
    """The real clip: frames (T, H, W, 3) uint8, all decoded samples (N,), first sound packet's pts in samples.

    Decoded here frame by frame, on its own: the references were made from all samples a linear decode gives, also
    those that the container's duration cuts off.
    """
    if not CLIP.exists():
        pytest.skip("the real clip is absent: ../shared/media/vggsound_h264")
    import av

    with av.open(str(CLIP)) as container:
        first_packet = next(p.pts for p in container.demux(container.streams.audio[0]) if p.pts is not None)
    with av.open(str(CLIP)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])]
    with av.open(str(CLIP)) as container:
        sound = [f.to_ndarray().mean(0) for f in container.decode(container.streams.audio[0])]
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.concatenate(sound)), first_packet


def _generator(text: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")))


@pytest.fixture(scope="session")
def blocks() -> Callable[..., Tensor]:
    """``blocks(seed, name, shape, reps, fine)``: piece-wise constant random input, float32."""

    def draw(seed: int, name: str, shape: tuple[int, ...], reps: tuple[int, ...], fine: float = 0.25) -> Tensor:
        coarse = tuple(-(-n // r) for n, r in zip(shape, reps, strict=True))
        x = _generator(f"{seed}:input:{name}:coarse").standard_normal(coarse)
        for axis, r in enumerate(reps):
            x = np.repeat(x, r, axis=axis)
        x = x[tuple(slice(n) for n in shape)]
        x = x + fine * _generator(f"{seed}:input:{name}:fine").standard_normal(shape)
        return torch.from_numpy(x.astype(np.float32))

    return draw


@pytest.fixture(scope="session")
def randn() -> Callable[..., Tensor]:
    def draw(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(_generator(f"{seed}:input:{name}").standard_normal(shape).astype(np.float32))

    return draw


@pytest.fixture(scope="session")
def seeded() -> Callable[..., nn.Module]:
    """``seeded(make, seed, dtype)``: a model in eval mode with weights drawn from the seed (the last two are kept)."""

    @lru_cache(maxsize=2)
    def build(make: Callable[[], nn.Module], seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
        with torch.device("meta"):
            model = make()
        model.load_state_dict(drawn_weights(model.state_dict(), seed, dtype), strict=True, assign=True)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def summary() -> Callable[[Tensor], np.ndarray]:
    """The references' 24 numbers of an array: eight statistics and sixteen probes, all in float64."""

    def of(x: Tensor) -> np.ndarray:
        a = x.detach().numpy().astype(np.float64).ravel()
        stats = [a.size, a.mean(), a.std(), a.min(), a.max(), np.abs(a).mean(), (a * a).sum(), a.sum()]
        return np.array([*stats, *(a[i * (a.size - 1) // 15] for i in range(16))])

    return of


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """``close(ours, reference, tolerance)``: the largest absolute difference, said in the failure."""

    def check(ours: Any, reference: Any, tolerance: float, relative: float = 0.0) -> None:
        ours, reference = (np.asarray(x, dtype=np.float64) for x in (ours, reference))
        assert ours.shape == reference.shape
        worst = float(np.max(np.abs(ours - reference) - relative * np.abs(reference)))
        assert worst <= tolerance, f"largest difference {worst:.3g} > {tolerance:g}"

    return check
