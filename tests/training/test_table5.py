"""Table 5: its recipes differ in K and H alone, and its record is what `avbench paper table5` shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.baselines import weights
from avbench.baselines.embedded import load_backbone
from avbench.paper import records
from avbench.paper.reported import of_table
from avbench.scoring.metrics import score
from avbench.scoring.stats import Bootstrap
from avbench.system import machine
from avbench.training import table5
from avbench.training.common import is_recorded
from avbench.training.recipes import RECIPES, _finished, export_streamsync, run
from avbench.training.streaming import StreamRecipe, StreamSync
from avbench.types import AvbenchError

MAY_DIFFER = {"name", "phase1_of", "windows", "phase2_windows", "phase2_gradient_windows"}


def test_the_recipes_differ_in_k_and_h_alone() -> None:
    base = asdict(RECIPES[records.TABLE5_ROWS[records.BASE]])
    settings = {c.row: (c.gradient_windows, c.training_windows) for c in of_table("table5")}
    for row, name in records.TABLE5_ROWS.items():
        recipe = RECIPES[name]
        assert isinstance(recipe, StreamRecipe)
        assert (recipe.phase2_gradient_windows, recipe.phase2_windows) == settings[row]
        assert recipe.windows == recipe.phase2_windows
        assert {key for key, value in asdict(recipe).items() if value != base[key]} <= MAY_DIFFER
        assert recipe.phase2_keep == "last"  # phase 1's state, the same for all K, must not win
        shared = RECIPES[recipe.phase1_of] if recipe.phase1_of else recipe
        assert shared.windows == recipe.windows


@pytest.fixture
def record(tmp_path: Path, make_clicks: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of five untrained models over two short clips: the trainings themselves are tested elsewhere."""

    def untrained(name: str, out: Path, say: object, threads: int) -> Path:
        torch.manual_seed(len(name))
        recipe = RECIPES[name]
        assert isinstance(recipe, StreamRecipe)
        out.mkdir(exist_ok=True)
        export_streamsync(out, name, recipe, load_backbone("sparsesync"), StreamSync("trf", 96), [{"wall_s": 60}])
        return out / f"{name}.safetensors"

    monkeypatch.setattr(table5, "run", untrained)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    data = make_clicks(duration_s=46, offsets_s=(0.4,))
    return table5.train(tmp_path / "train", lambda line: None, data=str(data), store=tmp_path / "store")


def test_a_record_holds_recipe_log_time_and_predictions(record: Path) -> None:
    read = records.read(record.parent)
    assert read is not None
    assert [t["recipe"]["name"] for t in read.facts["trainings"]] == list(records.TABLE5_ROWS.values())
    assert all(t["log"] and t["wall_s"] > 0 and t["sha256"] for t in read.facts["trainings"])
    assert {x.shape for x in read.logits.values()} == {(2, 21)}
    table = records.table5(Bootstrap(20, 0), read)
    for row, name in records.TABLE5_ROWS.items():
        found = table.value(row, "Acc±1")
        assert found is not None
        assert found.value == score(read.logits[name].astype(float), read.labels)["acc_tol1"]
        assert (found.n_scored, found.n_total) == (2, 2)
    assert any("RECORDS" in note for note in table.notes)
    assert "records" in table.measured_on
    assert {c.verdict for c in table.claims} == {"too few"}, "two clips can tell nothing"


def test_no_record_a_part_of_one_and_a_damaged_one(record: Path, tmp_path: Path) -> None:
    assert records.read(tmp_path) is None
    table = records.table5(Bootstrap(20, 0), None)
    assert {c.value for c in table.cells} == {None}
    assert any("avbench train table5" in note for note in table.notes)
    whole = records.read(record.parent)
    assert whole is not None
    part = whole._replace(facts=whole.facts | {"trainings": whole.facts["trainings"][:2]})
    table = records.table5(Bootstrap(20, 0), part)
    assert {c.n_scored for c in table.cells if c.row == "K = 3, H = 18"} == {0}
    assert any(note.startswith("Not in the record: K = 4, H = 12, K = 3, H = 6") for note in table.notes)
    assert len(table.claims) == 8
    facts = json.loads(record.read_text()) | {"schema_version": 99}
    record.write_text(json.dumps(facts))
    with pytest.raises(AvbenchError, match="schema_version 99"):
        records.read(record.parent)
    np.savez(record.with_suffix(".npz"), x=np.array([object()], dtype=object), allow_pickle=True)
    record.write_text(json.dumps(facts | {"schema_version": 1}))
    with pytest.raises(AvbenchError, match="cannot be used"):
        records.read(record.parent)


def test_the_record_that_ships_is_of_todays_recipes() -> None:
    read = records.read()
    assert read is not None
    for trained in read.facts["trainings"]:
        name = trained["recipe"]["name"]
        assert is_recorded(trained["recipe"], RECIPES[name])
        assert trained["command"] == f"avbench train {name}"
    table = records.table5(Bootstrap(50, 0), read)
    there = {row for row, name in records.TABLE5_ROWS.items() if name in read.logits}
    assert {records.BASE, "K = 2, H = 12", "K = 3, H = 6"} <= there
    assert all((c.value is not None) == (c.row in there) and c.paper is not None for c in table.cells)
    assert len(table.claims) == 8


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    """Weights and card of a recipe in the folder are its end; another recipe's are not."""
    name = "synchformer-trf"
    said: list[str] = []
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"{name}{suffix}").write_bytes(files(weights).joinpath(f"{name}{suffix}").read_bytes())
    assert run(name, tmp_path, said.append) == tmp_path / f"{name}.safetensors"
    assert said == [f"{name}: already finished"]
    recipe = RECIPES[name]
    assert isinstance(recipe, StreamRecipe)
    assert not _finished(tmp_path, replace(recipe, steps=recipe.steps + 1))
    with (tmp_path / f"{name}.safetensors").open("ab") as file:
        file.write(b"x")
    assert not _finished(tmp_path, recipe)
