"""Training continues exactly where it was killed, and learns the right sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.data.scenes import HARD, STANDARD, Difficulty
from avbench.training import backbone
from avbench.training.backbone import BackboneRecipe, to_luma, train_backbone
from avbench.training.pool import WINDOW_SAMPLES, Batch, Material, Pool, PoolSize, draw_batch, render_material
from avbench.types import CATEGORIES, UsageError


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "POOL", PoolSize(duration_s=12.0, size=3, warm=2))
    monkeypatch.setattr(backbone, "VALID_SCENES", 3)


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sparsesync", pytest.param("synchformer", marks=pytest.mark.slow)])
def test_killed_and_restarted_gives_the_same_weights(tiny: None, tmp_path: Path, kind: str) -> None:
    recipe = BackboneRecipe(
        "toy", kind, steps=3, contrastive_steps=3 * (kind == "synchformer"), batch=2, offsets=2, checkpoint_every=2
    )
    total = recipe.steps + recipe.contrastive_steps
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _ = train_backbone(recipe, tmp_path / "whole", None, lambda line: None)

    def kill(line: str) -> None:
        if f"step {total}/" in line:  # after the last checkpoint but one, before the last
            raise Killed

    with pytest.raises(Killed):
        train_backbone(recipe, tmp_path / "cut", None, kill)
    said: list[str] = []
    resumed, _ = train_backbone(recipe, tmp_path / "cut", None, said.append)
    assert any("continuing at step" in line for line in said)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_changed_recipe_does_not_continue_an_old_checkpoint(tiny: None, tmp_path: Path) -> None:
    train_backbone(BackboneRecipe("toy", "sparsesync", steps=1, batch=2), tmp_path, None, lambda line: None)
    with pytest.raises(UsageError, match=r"another recipe \(steps 1 there, 2 asked\)"):
        train_backbone(BackboneRecipe("toy", "sparsesync", steps=2, batch=2), tmp_path, None, lambda line: None)


def test_a_recipe_trains_and_validates_on_scenes_of_its_difficulty(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Difficulty] = []

    class OnlyOne:
        def __init__(self, *_: object, difficulty: Difficulty, **__: object) -> None:
            seen.append(difficulty)
            self.scenes = [render_material(0, base_seed=1, categories=CATEGORIES, duration_s=12.0)]

        def at(self, step: int) -> list[Material]:
            return self.scenes

        def close(self) -> None: ...

    def validation(difficulty: Difficulty) -> list[Batch]:
        seen.append(difficulty)
        return []

    monkeypatch.setattr(backbone, "Pool", OnlyOne)
    monkeypatch.setattr(backbone, "validation_batches", validation)
    monkeypatch.setattr(backbone, "validate", lambda model, batches: {})
    train_backbone(
        BackboneRecipe("toy", "sparsesync", steps=1, batch=2, difficulty="hard"), tmp_path, None, lambda line: None
    )
    assert seen == [HARD, HARD]


def test_scenes_of_another_difficulty_are_other_scenes() -> None:
    one, hard = (
        render_material(0, base_seed=9, categories=CATEGORIES, duration_s=4.0, difficulty=difficulty)
        for difficulty in (STANDARD, HARD)
    )
    assert not np.array_equal(one.sound, hard.sound)


def test_pool_at_a_step_does_not_depend_on_where_it_started() -> None:
    size = PoolSize(duration_s=10.0, size=3, warm=2)
    pools = [Pool(size, base_seed=5, first_step=first) for first in (0, 4)]
    try:
        for step in range(3):
            pools[0].at(step)
        a, b = (pool.at(4) for pool in pools)
        assert all(np.array_equal(x.picture, y.picture) for x, y in zip(a, b, strict=True))
    finally:
        for pool in pools:
            pool.close()


def test_drawn_windows_and_offsets_agree() -> None:
    """Sound that counts its own samples: the window must start where picture and offset say."""
    picture = np.repeat(np.arange(1000, dtype=np.uint16)[:, None, None] % 251, 64, 1).repeat(64, 2).astype(np.uint8)
    scene = Material(picture, np.arange(1000 * 640, dtype=np.float32))
    batch = draw_batch([scene], np.random.default_rng(0), 5, 3)
    for row in range(5):
        frame_mod = int(batch.picture[row, 0, 0, 0])
        for sound, offset_s in zip(batch.sound[row], batch.offset_s[row], strict=True):
            picture_start = sound[0] - offset_s * 16_000
            assert picture_start % 640 == pytest.approx(0, abs=0.01)
            assert int(picture_start) // 640 % 251 == frame_mod
            assert len(sound) == WINDOW_SAMPLES


def test_contrastive_batches_are_in_sync() -> None:
    scene = render_material(0, base_seed=9, categories=CATEGORIES, duration_s=12.0)
    batch = draw_batch([scene], np.random.default_rng(0), 3, 1, max_shift=0)
    assert not batch.offset_s.any()


def test_luma_of_the_decoded_plane_is_the_models_luma() -> None:
    assert float(to_luma(torch.tensor(16))) == -0.5
    assert float(to_luma(torch.tensor(235))) == 0.5
