"""SyncNet equals the published model: keys, features of both towers, MFCC, distances, LSE-D, LSE-C and the offset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from avbench.baselines.syncnet import SyncNet, distances, lse, mfcc

F32, F64 = torch.float32, torch.float64
GOLDEN = "syncnet_seed0.npz"
STORED = {F32: "", F64: "_fp64"}
RELATIVE = {F32: 1e-4, F64: 1e-12}  # of the features' spread


def inputs(blocks: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lips = blocks(0, "syncnet.lip", (2, 3, 5, 224, 224), (1, 1, 1, 28, 28)) * 40 + 110
    return lips, blocks(0, "syncnet.aud", (2, 1, 13, 20), (1, 1, 4, 5)) * 6


def features(blocks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sound that repeats the lips 4 windows later, the truth in the golden vectors."""
    lips, sound = (blocks(0, f"syncnet.{name}", (30, 1024), (3, 64)).numpy() for name in ("f1", "f2"))
    sound[4:] = np.float32(0.6) * lips[:-4] + np.float32(0.4) * sound[4:]
    return lips, sound


def test_keys_shapes_dtypes_and_order_are_the_published_ones(same_keys: Any) -> None:
    same_keys(SyncNet(), "syncnet_keys.json")


@pytest.mark.parametrize("dtype", [F32, F64])
def test_features_of_lips_and_sound(dtype: torch.dtype, reference: Any, seeded: Any, blocks: Any) -> None:
    golden, network = reference(GOLDEN), seeded(SyncNet, 0, dtype)
    lips, sound = inputs(blocks)
    for found, name in ((network.encode_lips(lips.to(dtype)), "lip"), (network.encode_sound(sound.to(dtype)), "aud")):
        expected = golden[f"{name}{STORED[dtype]}"]
        assert found.dtype == dtype
        assert np.abs(found.numpy() - expected).max() <= RELATIVE[dtype] * expected.std(), name


def test_mfcc_of_a_real_clip(reference: Any, clip: Any, close: Any) -> None:
    golden = reference(GOLDEN)
    wave = np.clip(np.rint(clip[1].numpy()[:48_000] * 32768), -32768, 32767).astype(np.int16)
    assert int(wave.astype(np.int64).sum()) == int(golden["wave_sum"])
    found = mfcc(wave)
    assert found.shape == tuple(golden["mfcc_shape"])
    close(found, golden["mfcc"], 1e-9)
    assert SyncNet.mfcc is mfcc


def test_distances_and_the_figures_made_of_them(reference: Any, blocks: Any, close: Any) -> None:
    golden, (lips, sound) = reference(GOLDEN), features(blocks)
    for kind in (np.float32, np.float64):
        found = distances(lips.astype(kind), torch.from_numpy(sound.astype(kind)))
        assert found.dtype == (F32 if kind is np.float32 else F64)
        close(found, golden["dists"], 1e-4)
        close(found.mean(1), golden["mean_dist"], 1e-4)
        lse_d, lse_c, offset_frames = lse(lips.astype(kind), sound.astype(kind))
        close([lse_d, lse_c], [golden["lse_d"], golden["lse_c"]], 1e-4)
        assert offset_frames == golden["offset_frames"] == -4
