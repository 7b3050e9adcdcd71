"""LR-ASD equals the published model with the published weights: keys, every layer, scores, MFCC, a real lag curve."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avbench.baselines.lrasd import LAGS_FRAMES, LRASD, LipSync, mfcc

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 1e-3, F64: 1e-8}
STORED = {F32: "", F64: "_fp64"}
SEEDS = (0, 1)
SIZES = {"": (2, 50), "_short": (1, 9)}
WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "models" / "lrasd_pretrain_AVA.model"
EVERYTHING = pytest.mark.parametrize(("seed", "tag"), [(seed, tag) for seed in SEEDS for tag in SIZES])
slow = pytest.mark.slow  # 50 frames or more in float64


@cache
def network(dtype: torch.dtype = F32) -> LRASD:
    if not WEIGHTS.exists():
        pytest.skip("the published weights are absent: ../shared/models/lrasd_pretrain_AVA.model")
    return LRASD.load(WEIGHTS).to(dtype)


def inputs(seed: int, tag: str, blocks: Any) -> tuple[Tensor, Tensor]:
    batch, n = SIZES[tag]
    faces = blocks(seed, f"lrasd.faces{tag}", (batch, n, 112, 112), (1, 5, 14, 14)).double() * 40 + 110
    rows = (blocks(seed, f"lrasd.mfcc{tag}", (batch, 4 * n, 13), (1, 8, 1)).double() * 8).float()
    rows[..., 0] += 12
    return faces.round().clamp(0, 255).to(torch.uint8), rows


def wave(seed: int, n: int, blocks: Any) -> np.ndarray:
    x = blocks(seed, "lrasd.wave", (n,), (40,)).numpy().astype(np.float64)
    return np.clip(np.rint(x * 3000), -32768, 32767).astype(np.int16)


def test_keys_shapes_dtypes_and_order_are_the_published_ones(same_keys: Any) -> None:
    same_keys(LRASD(), "lrasd_keys.json")


@EVERYTHING
def test_the_inputs_are_the_references(seed: int, tag: str, reference: Any, blocks: Any, close: Any) -> None:
    golden, (faces, rows) = reference("lrasd.npz"), inputs(seed, tag, blocks)
    assert int(faces.long().sum()) == int(golden[f"seed{seed}{tag}/faces_sum"])
    close(faces.flatten()[:8], golden[f"seed{seed}{tag}/faces_first8"], 0)
    close(rows.double().sum(), golden[f"seed{seed}{tag}/mfcc_sum"], 1e-6)
    close(rows.flatten()[:8], golden[f"seed{seed}{tag}/mfcc_first8"], 0)


@pytest.mark.parametrize(
    ("seed", "tag", "dtype"),
    [(seed, tag, F32) for seed in SEEDS for tag in SIZES]
    + [(seed, "_short", F64) for seed in SEEDS]
    + [pytest.param(seed, "", F64, marks=slow) for seed in SEEDS],
)
def test_network(seed: int, tag: str, dtype: torch.dtype, reference: Any, blocks: Any, close: Any) -> None:
    golden, (faces, rows) = reference("lrasd.npz"), inputs(seed, tag, blocks)
    asd, every = network(dtype), 1 if tag else 5
    pictures, sound = asd.encode_faces(faces), asd.encode_sound(rows)
    backend = asd.model.detector(asd.model.fusion(torch.cat([sound, pictures], dim=2)))
    scores = asd.scores(faces, rows)
    assert scores.dtype == dtype
    for ours, name in (
        (pictures[:, ::every], "visual_embed"),
        (sound[:, ::every], "audio_embed"),
        (backend[:, ::every], "backend"),
        (asd.lossAV.FC(backend), "logits_av"),
        (asd.lossV.FC(pictures), "logits_v"),
        (scores, "scores"),
    ):
        close(ours, golden[f"seed{seed}{tag}/{name}{STORED[dtype]}"], TOLERANCE[dtype])


@pytest.mark.parametrize("tag", SIZES)
def test_every_layer(tag: str, reference: Any, blocks: Any, close: Any) -> None:
    golden, (faces, rows), asd = reference("lrasd.npz"), inputs(0, tag, blocks), network()
    expected = {key.rpartition("/")[2] for key in golden.files if key.startswith(f"probe/seed0{tag}/")}
    seen: set[str] = set()

    def look(name: str) -> Any:
        def hook(module: Any, given: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            assert list(output.shape) == golden[f"shape/seed0{tag}/{name}"].tolist()
            x = output.double().numpy().ravel()  # in the layout of its axes, whatever its strides are
            probes = [x[i * (x.size - 1) // 7] for i in range(8)]
            close([x.mean(), x.std(), *probes], golden[f"probe/seed0{tag}/{name}"], 1e-4, relative=1e-5)
            seen.add(name)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in asd.named_modules() if name in expected]
    try:
        asd.scores(faces, rows)
    finally:
        for hook in hooks:
            hook.remove()
    assert expected - seen == {"model.visualEncoder.maxpool"}  # a module there, a function here
    assert len(seen) > 60


@pytest.mark.parametrize("seed", SEEDS)
def test_mfcc(seed: int, reference: Any, blocks: Any, close: Any) -> None:
    golden = reference("lrasd.npz")
    for n in (399, 400, 401, 12345, 32000):
        samples = wave(seed, n, blocks)
        assert int(samples.astype(np.int64).sum()) == int(golden[f"seed{seed}/mfcc_wave{n}_sum"])
        close(mfcc(samples), golden[f"seed{seed}/mfcc_wave{n}"], 1e-10)
        close(mfcc(samples.astype(np.float32)), golden[f"seed{seed}/mfcc_wave{n}"], 1e-10)
    hole = wave(seed, 4000, blocks)
    hole[800:2400] = 0
    close(mfcc(hole), golden[f"seed{seed}/mfcc_hole"], 1e-10)


def test_mfcc_is_syncnets_turned(reference: Any, clip: Any, close: Any) -> None:
    golden, (_, samples, _) = reference("syncnet_seed0.npz"), clip
    heard = np.clip(np.rint(samples[:48_000].double().numpy() * 32768), -32768, 32767).astype(np.int16)
    close(mfcc(heard).T, golden["mfcc"], 1e-10)


@pytest.mark.parametrize("dtype", [F32, pytest.param(F64, marks=slow)])
def test_real_clip(dtype: torch.dtype, reference: Any, close: Any) -> None:
    golden, rows = reference("lrasd.npz"), mfcc(reference("lrasd.npz")["real/wave_int16_16k"])
    close(rows, golden["real/mfcc"], 1e-5)
    faces = torch.from_numpy(golden["real/faces"])[None]
    track = torch.from_numpy(rows)[None, : 4 * faces.shape[1]].float()
    asd = network(dtype)
    close(asd.scores(faces, track)[0], golden[f"real/scores{STORED[dtype]}"], TOLERANCE[dtype])
    alone = asd.lossV.FC(asd.encode_faces(faces))[0, :, 1]
    close(alone, golden[f"real/scores_video_only{STORED[dtype]}"], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [F32, pytest.param(F64, marks=slow)])
def test_lip_score_of_a_real_clip(dtype: torch.dtype, reference: Any, close: Any) -> None:
    network()
    golden, lips = reference("lrasd.npz"), LipSync(WEIGHTS)
    lips.network.to(dtype)
    found = lips.score(golden["real/faces"], golden["real/mfcc"], int(golden["real/first_frame"]))
    assert np.array_equal(found.lags, golden["real/lags"])
    close(found.curve, golden["real/curve_fp64"], TOLERANCE[dtype])
    close([found.raw, found.excess], [golden["real/raw_fp64"], golden["real/excess_fp64"]], TOLERANCE[dtype])
    assert LAGS_FRAMES[found.curve.argmax()] == -3
    assert found.reason == ""
