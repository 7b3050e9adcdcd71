"""Synchformer equals the published model: keys, segment encoders, sync transformer, whole windows, a real clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avbench.baselines import frontends
from avbench.baselines.synchformer import Synchformer

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 2e-3, F64: 1e-8}
STORED = {F32: "", F64: "_fp64"}
SEEDS = (0, 1)
# real clips where the mel spectrogram is rounded as on another CPU: see test_sparsesync_golden.py
REAL_TOLERANCE = {F32: 2e-3, F64: 2e-3}


def test_keys_shapes_dtypes_and_order_are_the_published_ones(same_keys: Any) -> None:
    same_keys(Synchformer(), "synchformer_keys.json")


def inputs(seed: int, blocks: Any) -> tuple[Tensor, Tensor]:
    video = blocks(seed, "synchformer.vis", (1, 14, 16, 3, 224, 224), (1, 1, 4, 1, 28, 28))
    return video, blocks(seed, "synchformer.aud", (1, 14, 1, 128, 66), (1, 1, 1, 8, 6))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_encoders_and_sync_transformer(
    seed: int, reference: Any, seeded: Any, blocks: Any, randn: Any, summary: Any, close: Any
) -> None:
    model, golden = seeded(Synchformer, seed, F64), reference(f"synchformer_seed{seed}.npz")
    video, audio = inputs(seed, blocks)
    mel = model.afeat_extractor(audio[0, :2].double())[None]
    assert list(mel.shape) == golden["afeat_seg0_1_shape"].tolist()
    close(summary(mel), golden["afeat_seg0_1_fp64_summary"], 1e-8, relative=1e-12)
    picture = model.vfeat_extractor(video[0, :1].double())[None]
    assert list(picture.shape) == golden["vfeat_seg0_shape"].tolist()
    close(summary(picture), golden["vfeat_seg0_fp64_summary"], 1e-8, relative=1e-12)
    tokens = [randn(seed, f"synchformer.feat_{kind}", (2, n, 768)).double() for kind, n in (("vis", 112), ("aud", 84))]
    close(model.transformer(*tokens), golden["transformer_only_logits_fp64"], 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("seed", SEEDS)
def test_whole_windows(
    seed: int, dtype: torch.dtype, reference: Any, seeded: Any, blocks: Any, randn: Any, close: Any
) -> None:
    model, golden = seeded(Synchformer, seed, dtype), reference(f"synchformer_seed{seed}.npz")
    video, audio = inputs(seed, blocks)
    tokens = [randn(seed, f"synchformer.feat_{kind}", (2, n, 768)).to(dtype) for kind, n in (("vis", 112), ("aud", 84))]
    close(model.transformer(*tokens), golden[f"transformer_only_logits{STORED[dtype]}"], TOLERANCE[dtype])
    close(model(video.to(dtype), audio.to(dtype)), golden[f"logits{STORED[dtype]}"], TOLERANCE[dtype])


def window(clip: Any, golden: Any, decoding: str) -> tuple[Tensor, Tensor]:
    frames, wave, first_packet = clip
    trim = -first_packet if decoding == "legacy" else 0
    start_s, offset_s = float(golden["v_start_sec"]), float(golden["offset_sec"])
    return frontends.cut_window(frames, wave, start_s, offset_s, audio_lead_trim_samples=trim)


@pytest.mark.parametrize("decoding", ["linear", "legacy"])
def test_front_end_on_a_real_clip(decoding: str, reference: Any, clip: Any, summary: Any, close: Any) -> None:
    golden = reference(f"synchformer_real_3qesir_off+1.6_v0.0_{decoding}.npz")
    frames, wave = window(clip, golden, decoding)
    video, audio = frontends.synchformer_video(frames), frontends.synchformer_audio(wave)
    assert (video.dtype, audio.dtype) == (torch.float16, torch.float32)
    assert [1, *video.shape] == golden["vis_shape"].tolist()
    assert [1, *audio.shape] == golden["aud_shape"].tolist()
    close(video.float()[::3, ::5, :, ::56, ::56], golden["vis_slice"], 0)  # bit for bit: float16 steps included
    close(audio[::3, 0, ::16, ::8], golden["aud_slice"], 2e-5)
    close(summary(video)[8:], golden["vis_summary"][8:], 0)
    close(summary(audio)[8:], golden["aud_summary"][8:], 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("decoding", ["linear", "legacy"])
def test_real_clip(decoding: str, dtype: torch.dtype, reference: Any, seeded: Any, clip: Any, close: Any) -> None:
    golden = reference(f"synchformer_real_3qesir_off+1.6_v0.0_{decoding}.npz")
    frames, wave = window(clip, golden, decoding)
    model = seeded(Synchformer, int(golden["seed"]), dtype)
    video = frontends.synchformer_video(frames)[None].float().to(dtype)
    mel = frontends.synchformer_audio(wave)
    logits = model(video, mel[None].to(dtype))
    same_bits = np.array_equal(mel[::3, 0, ::16, ::8], golden["aud_slice"])
    close(logits, golden[f"logits{STORED[dtype]}"], (TOLERANCE if same_bits else REAL_TOLERANCE)[dtype])
