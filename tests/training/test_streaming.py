"""The heads' two phases on toy streams: they learn, they resume exactly, they keep the best validation state."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from avbench.baselines.mini import MiniSparseSync
from avbench.training import streaming
from avbench.training.pool import PoolSize, render_material
from avbench.training.streaming import (
    StreamRecipe,
    Streams,
    StreamSync,
    cached_streams,
    evaluate_heads,
    pick,
    scene_streams,
    train_phase1,
    train_phase2,
)
from avbench.types import CATEGORIES, UsageError

DIM = 16


def toy_streams(n: int, seed: int) -> Streams:
    """Snapshots that know the answer in one window of four and say nothing in the others."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 21, (n,), generator=g)
    logits = 0.3 * torch.randn(n, 40, 21, generator=g)
    knows = torch.rand(n, 40, generator=g) < 0.25
    logits += 4 * knows[..., None] * torch.nn.functional.one_hot(labels, 21)[:, None]
    return Streams(logits, torch.randn(n, 40, DIM, generator=g), torch.randn(n, 40, DIM, generator=g), labels)


@pytest.mark.parametrize("head", ["trf", "lstm"])
def test_phase1_learns_and_resumes_exactly(tmp_path: Path, head: str) -> None:
    train, valid = toy_streams(400, 0), toy_streams(150, 1)
    recipe = StreamRecipe("toy", head, "none", steps=60, lr=3e-3, windows=8, hops_s=(1, 2), validate_every=20)
    make = partial(StreamSync, head, DIM)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    untrained = evaluate_heads(StreamSync(head, DIM), valid)["roc_auc"]
    whole, log = train_phase1(recipe, make, train, valid, tmp_path / "whole", lambda line: None)
    assert max(line["roc_auc"] for line in log) > untrained + 0.05

    def kill(line: str) -> None:
        if " step 60 of 60:" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_phase1(recipe, make, train, valid, tmp_path / "cut", kill)
    resumed, _ = train_phase1(recipe, make, train, valid, tmp_path / "cut", lambda line: None)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_snapshots_are_cached_once_and_belong_to_one_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "5-00000.safetensors"
    model = MiniSparseSync().eval()
    (tmp_path / "backbone.sha256").write_text(streaming._state_sha256(model))
    scene = render_material(0, base_seed=5, categories=CATEGORIES, duration_s=14.0)
    path.write_bytes(save(scene_streams(model, scene, np.random.default_rng(0))))
    streams = cached_streams(model, tmp_path, base_seed=5, scenes=1, say=print)
    assert streams.logits.shape[0] == 6
    with pytest.raises(UsageError, match="another backbone"):
        cached_streams(MiniSparseSync(), tmp_path, base_seed=5, scenes=1, say=print)


def test_picked_windows_are_the_asked_ones() -> None:
    streams = toy_streams(3, 0)
    part = pick(streams, np.array([2, 0]), np.array([[1, 3], [0, 5]]))
    assert torch.equal(part.logits[0], streams.logits[2, [1, 3]])
    assert torch.equal(part.off[1], streams.off[0, [0, 5]])
    assert torch.equal(part.labels, streams.labels[[2, 0]])


@pytest.mark.slow
def test_phase2_trains_the_backbone_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PHASE2_POOL", PoolSize(duration_s=40.0, size=2, warm=1))
    torch.manual_seed(0)
    backbone = MiniSparseSync()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    scenes = [render_material(i, base_seed=8, categories=CATEGORIES, duration_s=44.0) for i in range(2)]
    recipe = StreamRecipe("toy", "trf", "none", phase2_steps=2, phase2_batch=2, phase2_validate_every=2)
    _, _, log = train_phase2(recipe, backbone, StreamSync("trf", backbone.token_dim), scenes, tmp_path, lambda s: None)
    assert [line["step"] for line in log] == [0, 2]
    saved = torch.load(tmp_path / "toy-0.phase2.ckpt", weights_only=True)
    changed = [k for k, v in before.items() if not torch.equal(saved["model"][f"backbone.{k}"], v)]
    assert any(k.startswith("video_tower") for k in changed)
    assert not any("running_mean" in k for k in changed)  # batch-norm statistics stay frozen


def test_phase2_can_keep_the_last_state_and_is_then_validated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an ablation needs: with the best state kept, phase 1's may win and all rows be the same."""
    monkeypatch.setattr(streaming, "PHASE2_POOL", PoolSize(duration_s=40.0, size=2, warm=1))
    torch.manual_seed(0)
    backbone = MiniSparseSync()
    scenes = [render_material(0, base_seed=8, categories=CATEGORIES, duration_s=44.0)]
    recipe = StreamRecipe(
        "toy",
        "trf",
        "none",
        phase2_steps=2,
        phase2_batch=1,
        phase2_windows=4,
        phase2_gradient_windows=2,
        phase2_validate_every=1,
        phase2_keep="last",
        phase2_bfloat16=False,
    )
    trained, _, log = train_phase2(
        recipe, backbone, StreamSync("trf", backbone.token_dim, layers=1), scenes, tmp_path, lambda s: None
    )
    assert [line["step"] for line in log] == [2]
    saved = torch.load(tmp_path / "toy-0.phase2.ckpt", weights_only=True)
    for key, value in trained.state_dict().items():
        assert torch.equal(value, saved["model"][f"backbone.{key}"]), key


def test_scene_streams_shapes() -> None:
    torch.manual_seed(0)
    model = MiniSparseSync().eval()
    scene = render_material(0, base_seed=8, categories=CATEGORIES, duration_s=14.0)
    streams = scene_streams(model, scene, np.random.default_rng(0))
    windows = (14 * 25 - 100 - 125) // 25 + 1
    assert streams["logits"].shape == (6, windows, 21)
    assert streams["passed"].shape == (6, windows, 96)
    assert streams["labels"].shape == (6,)
