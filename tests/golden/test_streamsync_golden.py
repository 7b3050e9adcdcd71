"""StreamSync-Trf equals the published model: keys, streaming token, head alone, iterations, a real clip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avbench.baselines import frontends
from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.sparsesync import fast
from avbench.baselines.streamsync import StreamSync

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 2e-3, F64: 1e-6}  # float64: 1e-8 but for the positional table, which is computed in float32
STORED = {F32: "", F64: "_fp64"}
SEEDS = (0, 1)
# real clips where the spectrogram is rounded as on another CPU: see test_sparsesync_golden.py
REAL_TOLERANCE = {F32: 2e-3, F64: 5e-4}


def test_keys_shapes_dtypes_and_order_are_the_published_ones(same_keys: Any) -> None:
    same_keys(StreamSync(), "streamsync_trf_keys.json")


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("seed", SEEDS)
def test_fusion_and_token_alone(
    seed: int, dtype: torch.dtype, reference: Any, seeded: Any, blocks: Any, close: Any
) -> None:
    model, golden = seeded(StreamSync, seed, dtype), reference(f"streamsync_trf_seed{seed}.npz")
    visual = blocks(seed, "streamsync.feat_vis", (2, 16, 512, 7, 7), (1, 2, 1, 2, 2), fine=0.5).to(dtype)
    audio = blocks(seed, "streamsync.feat_aud", (2, 512, 9, 20), (1, 1, 2, 3), fine=0.5).to(dtype)
    logits, token = model.fuse(visual, audio)
    exact = 1e-8 if dtype is F64 else 2e-3
    close(logits, golden[f"transformer_only/logits{STORED[dtype]}"], exact)
    close(token, golden[f"transformer_only/token{STORED[dtype]}"], exact)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("history", [1, 2, 12, 18, 50])
@pytest.mark.parametrize("seed", SEEDS)
def test_head_alone(
    seed: int, history: int, dtype: torch.dtype, reference: Any, seeded: Any, randn: Any, close: Any
) -> None:
    model, golden = seeded(StreamSync, seed, dtype), reference(f"streamsync_trf_seed{seed}.npz")
    tokens = randn(seed, f"streamsync.tokens{history}", (2, history, 512)).to(dtype)
    close(model.streaming_head(tokens), golden[f"head_only/H{history}/logits{STORED[dtype]}"], TOLERANCE[dtype])


@pytest.mark.parametrize("seed", SEEDS)
def test_positional_table(seed: int, reference: Any, seeded: Any, summary: Any, close: Any) -> None:
    module = seeded(StreamSync, seed).streaming_head.streaming_pos_emb_module
    golden = reference(f"streamsync_trf_seed{seed}.npz")
    table = module.sinusoids(50)
    close(table[[0, 1, 49], :16], golden["head_only/raw_sinusoid_pos_rows_0_1_49_cols_0_16"], 1e-6)
    close(summary(table)[1:], golden["head_only/raw_sinusoid_pos_summary"][1:], 1e-3)
    close(summary(module(50))[8:], golden["head_only/projected_pos_summary"][8:], 1e-4)


def iterate(model: Any, windows: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Streaming logits and snapshot logits (iterations, B, 21) and the last history (B, H, 512)."""
    streaming, snapshot, history = [], [], None
    for video, audio in windows:
        logits, single, history = model(video, audio, history)
        streaming.append(logits)
        snapshot.append(single)
    return torch.stack(streaming), torch.stack(snapshot), history


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("seed", SEEDS)
def test_four_iterations(seed: int, dtype: torch.dtype, reference: Any, seeded: Any, blocks: Any, close: Any) -> None:
    """With the fast copy, which thereby is held against the published model too (SparseSync's tests take the plain)."""
    model, golden = fast(seeded(StreamSync, seed, dtype)), reference(f"streamsync_trf_seed{seed}.npz")

    def windows(item: int) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(4):
            video = blocks(seed, f"streamsync.vis{i}", (2, 125, 3, 224, 224), (1, 10, 1, 28, 28))[item]
            audio = blocks(seed, f"streamsync.aud{i}", (2, 1, 257, 625), (1, 1, 8, 16))[item]
            yield video[None].to(dtype), audio[None].to(dtype)

    suffix, tolerance = STORED[dtype], TOLERANCE[dtype]
    results = []
    for item in range(2):  # one by one: memory stays small
        streaming, snapshot, history = iterate(model, windows(item))
        close(snapshot[:, 0], golden[f"singleshot_logits{suffix}"][:, item], 1e-8 if dtype is F64 else tolerance)
        close(streaming[:, 0], golden[f"streaming_logits{suffix}"][:, item], tolerance)
        close(history[0], golden[f"streaming_features_newest_first{suffix}"][item], tolerance)
        results.append((streaming, snapshot))
    target = neighbour_smoothed(torch.tensor([3, 20])).to(dtype)
    for kind, name in enumerate(("streaming", "singleshot")):
        logits = torch.cat([r[kind] for r in results], dim=1)
        losses = [torch.nn.functional.cross_entropy(step, target) for step in logits]
        close(losses, golden[f"loss_{name}{suffix}"], tolerance)


STRETCH_S = 5 + 2 * 1  # two windows, hop 1 s, and one hop more, as published


def real_stretch(clip: Any, offset_s: float) -> tuple[Tensor, Tensor]:
    """The stretch of the golden: it begins two seconds into the clip."""
    frames, wave, _ = clip
    return frontends.cut_window(frames, wave, 2.0, offset_s, length_s=STRETCH_S)


def test_front_end_on_a_real_clip(reference: Any, clip: Any, summary: Any, close: Any) -> None:
    golden = reference("streamsync_trf_real_3qesir_off+0.6_2x1s_linear.npz")
    frames, wave = real_stretch(clip, float(golden["offset_sec"]))
    spectrum = frontends.sparsesync_audio(wave)
    assert list(spectrum.shape) == golden["full_spec_shape"].tolist()
    assert len(frames) == golden["full_video_shape"][0]
    close(spectrum[0, ::16, ::100], golden["full_spec_slice"], 1e-5)
    rows = frontends.spectrogram_statistics(frontends.log_spectrogram(wave))[::16]
    close(rows[:, 0], golden["spec_rowmean"], 1e-5)
    close(rows[:, 1], golden["spec_rowstd"], 1e-5)
    videos, audios = frontends.streamsync_windows(frames, wave, 2, 1)
    assert list(videos.shape[1:]) == golden["window_video_shape"].tolist()
    assert list(audios.shape[1:]) == golden["window_spec_shape"].tolist()
    for i in range(2):
        close(summary(videos[i])[8:], golden["window_video_summaries"][i][8:], 1e-5)
        close(summary(audios[i])[8:], golden["window_spec_summaries"][i][8:], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "half_cast"), [(F32, False), (F64, False), (F32, True)])
def test_real_clip(dtype: torch.dtype, half_cast: bool, reference: Any, seeded: Any, clip: Any, close: Any) -> None:
    golden = reference("streamsync_trf_real_3qesir_off+0.6_2x1s_linear.npz")
    frames, wave = real_stretch(clip, float(golden["offset_sec"]))
    model = fast(seeded(StreamSync, int(golden["seed"]), dtype))
    windows = zip(*frontends.streamsync_windows(frames, wave, 2, 1, half_cast), strict=True)
    streaming, snapshot, history = iterate(model, ((v[None].to(dtype), a[None].to(dtype)) for v, a in windows))
    if half_cast:
        close(snapshot, golden["singleshot_logits_halfcast_inputs"], REAL_TOLERANCE[F32])
        close(streaming, golden["streaming_logits_halfcast_inputs"], REAL_TOLERANCE[F32])
        return
    same_bits = np.array_equal(frontends.sparsesync_audio(wave)[0, ::16, ::100], golden["full_spec_slice"])
    suffix, tolerance = STORED[dtype], (TOLERANCE if same_bits else REAL_TOLERANCE)[dtype]
    close(snapshot, golden[f"singleshot_logits{suffix}"], tolerance)
    close(streaming, golden[f"streaming_logits{suffix}"], tolerance)
    close(history, golden[f"streaming_features_newest_first{suffix}"], tolerance)
    target = torch.tensor(golden["offset_target_smoothed"]).to(dtype)
    losses = [torch.nn.functional.cross_entropy(step, target) for step in streaming]
    close(losses, golden[f"loss_streaming{suffix}"], tolerance)
