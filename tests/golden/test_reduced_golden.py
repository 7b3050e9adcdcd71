"""A guard against drift that needs nothing from outside: our own full-size code at a reduced size, weights from a seed.

``python tests/golden/test_reduced_golden.py`` writes the reference anew; do so only after parity with the published
models (the other files of this folder) has been shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avbench.baselines import frontends
from avbench.baselines.s3d import S3D, FastS3D
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.baselines.streamsync import StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.types import Snapshot, UsageError
from avbench.weights.checkpoints import drawn_weights

DATA = Path(__file__).parent / "data" / "reduced.json"
SIZE: dict[str, Any] = {"width": 1 / 8, "dim": 64, "heads": 2, "layers": 1}
GRIDS: dict[str, Any] = {"visual_grid": (4, 2, 2), "audio_grid": (9, 6)}  # of 32 frames of 64 x 64 and 1.28 s of sound
MAKE = {
    "sparsesync": lambda: SparseSync(**SIZE, **GRIDS),
    "streamsync-trf": lambda: StreamSync("trf", **SIZE, **GRIDS),
    "streamsync-lstm": lambda: StreamSync("lstm", **SIZE, **GRIDS),
    "synchformer": lambda: Synchformer(dim=64, layers=2, heads=4, size=32),
}


def reduced(name: str, dtype: torch.dtype = torch.float64) -> Any:
    model = MAKE[name]()
    model.load_state_dict(drawn_weights(model.state_dict(), seed=3, dtype=dtype), assign=True)
    return model.eval()


def noise(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape))


def prepared(name: str) -> tuple[Tensor, Tensor]:
    """Inputs of ``forward``, as from the front ends."""
    if name == "synchformer":
        return noise(1, 2, 14, 16, 3, 32, 32), noise(2, 2, 14, 1, 128, 66)
    return noise(1, 2, 32, 3, 64, 64), noise(2, 2, 1, 257, 161)


def decoded(name: str) -> tuple[Tensor, Tensor]:
    """Inputs of ``predict``: frames and samples."""
    frames, size, n = (125, 32, 80_000) if name == "synchformer" else (32, 64, 20_480)
    video = (noise(1, 2, frames, 3, size, size) * 40 + 128).clamp(0, 255).to(torch.uint8)
    return video, (noise(2, 2, n) * 0.1).float()


def outputs(name: str) -> list:
    """Logits of ``forward``; of StreamSync the streaming and the snapshot logits of three iterations."""
    model = reduced(name)
    if not isinstance(model, StreamSync):
        return model(*prepared(name)).tolist()
    history, steps = None, []
    for window in range(3):
        streaming, snapshot, history = model(*(x.roll(window, 0) for x in prepared(name)), history)
        steps.append([streaming.tolist(), snapshot.tolist()])
    return steps


@pytest.mark.parametrize("name", MAKE)
def test_outputs_have_not_drifted(name: str) -> None:
    ours, stored = outputs(name), json.loads(DATA.read_text())[name]
    assert np.shape(ours) == np.shape(stored)
    np.testing.assert_allclose(ours, stored, rtol=0, atol=1e-6)  # written with seven digits
    assert np.std(stored) > 0.3


@pytest.mark.parametrize("name", MAKE)
def test_two_towers_equal_both_plain_paths(name: str) -> None:
    model = reduced(name, torch.float32)
    video, audio = decoded(name)
    whole = model.predict(video, audio)
    assert isinstance(whole, Snapshot)
    assert whole.logits.shape == (2, 21)
    towers = [(model.encode_video(video[i : i + 1]), model.encode_audio(audio[i : i + 1])) for i in range(2)]
    for i, (v, a) in enumerate(towers):
        assert torch.allclose(model.fuse(v, a).logits[0], whole.logits[i], atol=1e-4)
    crossed = model.fuse(towers[0][0], towers[1][1]).logits[0]  # the towers share nothing
    assert torch.allclose(crossed, model.predict(video[:1], audio[1:]).logits[0], atol=1e-4)
    assert (whole.token is not None) == (model.token_dim is not None) == name.startswith("streamsync")


def test_segments_encoded_alone_and_fused_equal_the_window() -> None:
    model = reduced("synchformer")
    video, mel = prepared("synchformer")
    pictures = torch.stack([torch.cat([model.encode_video_segments(s[None]) for s in one]) for one in video])
    sounds = torch.stack([torch.cat([model.encode_audio_segments(s[None]) for s in one]) for one in mel])
    assert (pictures.shape, sounds.shape) == ((2, 14, 8, 64), (2, 14, 6, 64))
    stored = json.loads(DATA.read_text())["synchformer"]
    np.testing.assert_allclose(model.fuse_segments(pictures, sounds).logits, stored, rtol=0, atol=1e-6)
    # the same from decoded media: the 14 segments that a window of 5 s is cut into
    model = reduced("synchformer", torch.float32)
    frames, samples = decoded("synchformer")
    pictures = model.encode_video_segments(frontends.segment_video(frames[:1])[0])
    sounds = model.encode_audio_segments(frontends.segment_audio(samples[:1])[0])
    fused = model.fuse_segments(pictures[None], sounds[None]).logits
    assert torch.allclose(fused, model.predict(frames[:1], samples[:1]).logits, atol=1e-5)
    swapped = model.fuse_segments(pictures[None].flip(1), sounds[None]).logits
    assert not torch.allclose(fused, swapped, atol=1e-2), "the order of the segments counts"


@pytest.mark.parametrize("name", ["streamsync-trf", "streamsync-lstm"])
def test_forward_equals_the_head_step_by_step(name: str) -> None:
    model = reduced(name)
    head, history = model.streaming_head, None
    state = head.init(2)
    state = tuple(s.double() for s in state) if isinstance(state, tuple) else state.double()
    for window in range(3):
        video, audio = (x.roll(window, 0) for x in prepared(name))
        streaming, logits, history = model(video, audio, history)
        snapshot = model.fuse(model.encode_video(video), model.encode_audio(audio))
        assert torch.equal(snapshot.logits, logits)
        assert torch.equal(history[:, 0], snapshot.token)  # newest first
        state, stepped = head.step(state, snapshot, 2.0 * window)
        assert torch.allclose(stepped, streaming, atol=1e-10)
    assert history.shape == (2, 3, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_window_cut_out_of_a_stretch_is_taken_in_place_of_samples(dtype: torch.dtype) -> None:
    model = reduced("sparsesync", dtype)
    video, audio = decoded("sparsesync")
    heard = model.stretch_sound(audio.flatten())
    assert (heard.shape, heard.dtype) == ((1, 257, 1 + audio.numel() // model.column_samples), dtype)
    cut = heard[None, ..., : audio.shape[1] // model.column_samples]
    whole, fused = model.predict(video[:1], cut), model.fuse(model.encode_video(video[:1]), model.encode_audio(cut))
    assert torch.equal(whole.logits, fused.logits)
    assert not torch.allclose(whole.logits, model.predict(video[:1], audio[:1]).logits, atol=1e-3)


@pytest.mark.parametrize("name", ["sparsesync", "streamsync-trf"])
def test_fast_copy_gives_the_same_logits_and_leaves_the_model_alone(name: str) -> None:
    model = reduced(name)
    video, audio = prepared(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    quick = fast(model)
    expected, found = model(video, audio), quick(video, audio)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(p.requires_grad for p in quick.parameters())
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(UsageError, match="already a fast copy"):
        fast(quick)
    with pytest.raises(UsageError, match=r"call eval\(\) before fast"):
        fast(MAKE[name]())


@pytest.mark.parametrize("strip_bytes", [1, 2**16, 2**24])
@pytest.mark.parametrize("shape", [(2, 9, 3, 64, 96), (1, 17, 3, 70, 50), (1, 24, 3, 112, 33)])
def test_fast_trunk_at_any_size_and_strip_height(
    shape: tuple[int, ...], strip_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avbench.baselines.s3d._STRIP_BYTES", strip_bytes)
    monkeypatch.setattr("avbench.baselines.s3d._LEAST_FRAMES", 2)
    trunk = S3D(1 / 8)
    trunk.load_state_dict(drawn_weights(trunk.state_dict(), 4, torch.float64), assign=True)
    trunk.eval()
    video = noise(5, *shape)
    expected = trunk(video)
    assert expected.numel()
    assert torch.allclose(FastS3D(trunk)(video), expected, atol=1e-10)


def test_fast_trunk_in_bfloat16_is_near_and_says_its_dtype() -> None:
    trunk = S3D(1 / 8)
    trunk.load_state_dict(drawn_weights(trunk.state_dict(), 4), assign=True)
    trunk.eval()
    video = noise(5, 1, 16, 3, 64, 64).float()
    expected, half = trunk(video), FastS3D(trunk, torch.bfloat16)(video)
    assert half.dtype == torch.float32
    assert not torch.equal(half, expected)
    assert (half - expected).abs().mean() < 0.03 * expected.abs().mean()


def test_published_sizes() -> None:
    counts = {"sparsesync": 54_348_652, "streamsync-trf": 65_404_289, "synchformer": 237_460_245}
    made = {"sparsesync": SparseSync, "streamsync-trf": StreamSync, "synchformer": Synchformer}
    for name, make in made.items():
        with torch.device("meta"):
            model: nn.Module = make()
        assert sum(p.numel() for p in model.parameters()) == counts[name]
    with pytest.raises(UsageError, match="'trf' or 'lstm'"):
        StreamSync("gru")


def test_gradients_reach_every_weight_but_the_unused_embedding() -> None:
    with torch.inference_mode(False):
        torch.manual_seed(0)
        model = reduced("synchformer", torch.float32).train()
        video, audio = (x.float().clone() for x in prepared("synchformer"))
        nn.functional.cross_entropy(model(video, audio), torch.tensor([3, 4])).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"vfeat_extractor.patch_embed.proj.weight", "vfeat_extractor.patch_embed.proj.bias"}


if __name__ == "__main__":
    with torch.inference_mode():
        text = json.dumps({name: outputs(name) for name in MAKE})
    DATA.write_text(json.dumps(json.loads(text, parse_float=lambda x: round(float(x), 7))) + "\n")
