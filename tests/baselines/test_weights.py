"""The embedded weights: small, whole, and each with the recipe that made it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest
import torch

from avbench.baselines import weights
from avbench.baselines.embedded import card, embedded_files, load_backbone, load_head
from avbench.baselines.families import families
from avbench.baselines.streamsync import HISTORY_WINDOWS
from avbench.registry.names import list_models, load_model
from avbench.training.common import is_recorded
from avbench.training.recipes import RECIPES
from avbench.types import UsageError

FILES = embedded_files()
WITH_HEAD = sorted(file for family in families().values() for file in family.files if family.head_in(file))
ON_TOP = {file: below for family in families().values() for file, below in family.on_top_of.items()}


def data(name: str) -> bytes:
    return files(weights).joinpath(f"{name}.safetensors").read_bytes()


def test_together_they_stay_under_12_mb() -> None:
    assert sum(len(data(name)) for name in FILES) < 12_000_000


@pytest.mark.parametrize("name", FILES)
def test_card_belongs_to_the_file_and_to_a_recipe(name: str) -> None:
    facts = card(name)
    assert facts["sha256"] == hashlib.sha256(data(name)).hexdigest()
    recipe = dict(facts["recipe"])
    if name in WITH_HEAD:
        recipe["seed"] = RECIPES[name].seed  # the card names the seed that validated best
    assert is_recorded(recipe, RECIPES[name])
    assert not is_recorded(recipe | {"steps": 1}, RECIPES[name])
    assert not is_recorded(recipe | {"unheard_of": 1}, RECIPES[name])
    assert facts["log"][-1]["wall_s"] > 0
    assert facts["command"] == f"avbench train {name}"
    assert "procedural" in facts["trained_on"]


@pytest.mark.parametrize("name", WITH_HEAD)
def test_heads_were_chosen_among_three_seeds_on_validation(name: str) -> None:
    phase1 = [line for line in card(name)["log"] if line.get("phase") == 1]
    assert {line["seed"] for line in phase1} == set(RECIPES[name].seeds)
    assert len(RECIPES[name].seeds) >= 3
    changing = bool(RECIPES[name].laws_per_scene)
    merit = "tracked_acc_tol1" if changing else "map"
    best = {seed: max(line[merit] for line in phase1 if line["seed"] == seed) for seed in RECIPES[name].seeds}
    assert card(name)["recipe"]["seed"] == max(best, key=best.__getitem__)


@pytest.mark.parametrize("name", FILES)
def test_they_load_and_answer(name: str) -> None:
    model = load_backbone(name)
    g = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, 125, 3, 64, 64), dtype=torch.uint8, generator=g)
    with torch.inference_mode():
        snapshot = model.predict(video, 0.1 * torch.randn(1, 80_000, generator=g))
    assert torch.isfinite(snapshot.logits).all()
    assert snapshot.token.shape == (1, model.token_dim)
    if name in WITH_HEAD:
        head = load_head(name)
        with torch.inference_mode():
            _, logits = head.step(head.init(1), snapshot, 0.0)
        assert logits.shape == (1, 21)


@pytest.mark.parametrize("head", ["trf", "lstm"])
def test_the_tag_dynamic_names_token_map_and_head_trained_on_changing_offsets(head: str) -> None:
    model, fixed = (load_model(f"streamsync-{head}{tag}") for tag in (".dynamic", ""))
    assert (model.backbone_name, model.head_name) == (f"streamsync-{head}.dynamic", head)
    assert model.token == fixed.token
    trained = load_head(f"streamsync-{head}.dynamic").state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in model.head.state_dict().items())
    assert not all(torch.equal(value, trained[key]) for key, value in fixed.head.state_dict().items())
    assert card(f"streamsync-{head}.dynamic").get("history_windows") == (HISTORY_WINDOWS if head == "trf" else None)
    assert f"streamsync-{head}.dynamic" in [model.name for model in list_models("*.dynamic")]
    averaged = load_model(f"streamsync-{head}.dynamic+apa")
    assert (averaged.backbone_name, averaged.head_name) == (f"streamsync-{head}.dynamic", "apa")


def test_the_tag_hard_names_what_was_trained_on_the_harder_family() -> None:
    averaged = load_model("sparsesync.hard+apa")
    assert (averaged.backbone_name, averaged.head_name) == ("sparsesync.hard", "apa")
    for file in (file for file in FILES if file.endswith(".hard")):
        assert card(file)["recipe"]["difficulty"] == "hard-training"
        assert card(file)["trained_on"] == "SynthSync-hard scenes (procedural)"
    for file in (file for file in WITH_HEAD if file.endswith(".hard")):
        model = load_model(file)
        assert model.backbone_name == file
        trained = load_head(file).state_dict()
        assert all(torch.equal(value, trained[key]) for key, value in model.head.state_dict().items())


def test_what_is_not_embedded_is_said_in_one_line() -> None:
    with pytest.raises(UsageError, match="no embedded weights 'sparse': there are streamsync-trf"):
        load_backbone("sparse")
    with pytest.raises(UsageError, match="the embedded weights sparsesync hold no head"):
        load_head("sparsesync")


@pytest.mark.parametrize("name", ON_TOP)
def test_a_head_on_an_embedded_backbone_leaves_it_as_it_is(name: str) -> None:
    """The file holds a token map and a head; everything else is the backbone's own, to the bit."""
    below, on_top = load_backbone(ON_TOP[name]).state_dict(), load_backbone(name).state_dict()
    other = [key for key, value in below.items() if not torch.equal(value, on_top[key])]
    assert other
    assert all(key.startswith("token_maker.") for key in other)
