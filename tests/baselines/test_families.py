"""A family is one file and one registry line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from avbench.baselines import families as registry
from avbench.baselines import weights
from avbench.baselines.families import families, layout_with_head, layouts, recognise
from avbench.baselines.family import Layout
from avbench.engine.fingerprint import model_fingerprint
from avbench.registry.heads import plain_heads
from avbench.registry.names import list_models, load_model, resolve
from avbench.types import AvbenchError, SnapshotPredictor, UsageError
from avbench.weights import checkpoints

PUBLIC = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "public"
EXISTING = tuple(name for name, family in families().items() if family.mini)  # those that load without weights

TOY = """
import numpy as np

from avbench.baselines.family import Family
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor


class Toy(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    description = "a toy"
    trained_on = "nothing"

    def predict(self, video, audio):
        logits = np.zeros((len(video), 21), np.float32)
        logits[:, 13] = 3  # always +0.6 s
        return Snapshot(logits)


FAMILIES = (
    Family(
        name="toy", kind="classical", description="a toy", mini="toy_family:Toy", aliases={"apa-toy": "apa"}
    ),
)
"""
LARGE_TOY = """
import torch
from torch import nn

from avbench.baselines.family import Family, Layout
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor


class LargeToy(nn.Module, SnapshotPredictor):
    frontend = FrontEnd(size=16)
    description = "a large toy"

    def __init__(self, n_classes=21):
        super().__init__()
        self.toy_trunk, self.toy_head = nn.Linear(3, 8), nn.Linear(8, n_classes)

    def predict(self, video, audio):
        return Snapshot(self.toy_head(self.toy_trunk(video.float().mean((1, 3, 4)))))


FAMILIES = (
    Family(
        name="large-toy",
        kind="learned",
        description="a large toy",
        full=Layout(
            name="large-toy", model="large_toy:LargeToy", has=(("toy_trunk.",),), class_rows="toy_head.weight"
        ),
    ),
)
"""


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``register("toy_family", TOY)``: one file, one line."""

    def add(module: str, text: str) -> None:
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)  # an earlier test's
        monkeypatch.setattr(registry, "REGISTERED", (*registry.REGISTERED, module))

    return add


def test_one_file_and_one_line_make_a_family_that_is_listed_and_loaded(register: Callable[[str, str], None]) -> None:
    before = [model.name for model in list_models()]
    with pytest.raises(UsageError, match="unknown model 'toy'"):
        resolve("toy")
    register("toy_family", TOY)
    after = [model.name for model in list_models()]
    new = {"apa-toy", "toy", *(f"toy+{head}" for head in plain_heads() if head != "none")}
    assert set(after) - set(before) == new
    assert [name for name in after if name not in new] == before
    model = load_model("apa-toy")
    assert (model.backbone_name, model.head_name, model.kind) == ("toy", "apa", "classical")
    assert type(model.backbone) is families()["toy"].mini_class()
    with pytest.raises(UsageError, match="toy has no weights to choose"):
        resolve("toy.mine")


def test_it_runs_with_a_head(register: Callable[[str, str], None], avbench: Any, clicks: Path) -> None:
    register("toy_family", TOY)
    options = ("--data", clicks, "--iterations", 2, "--workers", 1, "--json")
    done = avbench("run", "--model", "toy+apa", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["model"]["backbone"], result["model"]["head"]) == ("toy", "apa")
    assert result["model"]["full_size"] is False


def test_a_new_family_leaves_every_fingerprint_as_it_is(register: Callable[[str, str], None], tmp_path: Path) -> None:
    """In a process of its own: this one may remember the hash of a source file."""
    before = {name: model_fingerprint(load_model(name).backbone) for name in EXISTING}
    register("toy_family", TOY)
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from avbench.baselines import families; "
        "families.REGISTERED += ('toy_family',); from avbench.engine.fingerprint import model_fingerprint; "
        "from avbench.registry import load_model; "
        "print(json.dumps({n: model_fingerprint(load_model(n).backbone) for n in ('toy', *sys.argv[2:])}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), *EXISTING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    assert after.pop("toy") not in before.values()
    assert after == before


def test_a_full_size_family_is_known_by_its_keys_and_loaded_from_them(register: Callable[[str, str], None]) -> None:
    register("large_toy", LARGE_TOY)
    layout = layouts()["large-toy"]
    state = checkpoints.drawn_weights(checkpoints.build("large-toy").state_dict(), 3)
    assert checkpoints.family_of(state) == "large-toy"
    assert checkpoints.n_classes_of(state) == 21
    model = load_model("large-toy+apa", state)
    assert model.full_size
    assert isinstance(model.backbone, families()["large-toy"].full_class())
    assert torch.equal(model.backbone.state_dict()["toy_head.weight"], state["toy_head.weight"])
    assert load_model("large-toy", random_weights=0).backbone_name == "large-toy.random-0"
    with pytest.raises(UsageError, match="no weights ship with the package"):
        resolve("large-toy")
    with pytest.raises(AvbenchError, match="contains large-toy weights, not sparsesync weights"):
        load_model("sparsesync", state)
    assert layout.recognises(state)


def test_every_descriptor_names_classes_and_files_that_exist() -> None:
    described = families()
    assert len(described) >= 5
    for name, family in described.items():
        assert family.mini or family.full, name
        assert not family.mini or issubclass(family.mini_class(), SnapshotPredictor), name
        assert family.full is None or family.full.name == name
        assert family.full is None or issubclass(family.full_class(), SnapshotPredictor)
        assert set(family.on_top_of) <= set(family.files)
        assert set(family.tagged_heads) <= set(family.files)
        for below in family.on_top_of.values():  # perhaps of another family, whose backbone is of the same class
            assert [owner.mini for owner in described.values() if below in owner.weights.values()] == [family.mini]
        for file in family.files:
            assert files(weights).joinpath(f"{file}.safetensors").is_file()
            assert files(weights).joinpath(f"{file}.json").is_file()


def test_every_layout_belongs_to_its_model_and_to_no_other() -> None:
    named = [x for f in families().values() for x in (f.full, *f.also_published) if x]
    assert len({layout.name for layout in named}) == len(named)
    for layout in named:
        with torch.device("meta"):
            model = layout.new_model(n_classes=21)
        keys = list(model.state_dict())
        assert layout.head == "" or hasattr(model, "streaming_head")
        if layout.encoders:
            assert all(any(key.startswith(prefix) for key in keys) for prefix in layout.encoders)
            continue
        assert [other.name for other in named if other.recognises(keys)] == [layout.name]
        assert layout.class_rows in keys or (layout.n_classes == 21 and not layout.class_rows)
        assert [layout.own_key(key) for key in keys] == keys, "its own names stay"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sparsesync", "sparsesync"),
        ("streamsync_trf", "streamsync-trf"),
        ("synchformer", "synchformer"),
        ("syncnet", "syncnet"),
        ("lrasd", None),
        ("efficientat_mn04", None),
    ],
)
def test_published_keys_are_recognised(file: str, name: str | None) -> None:
    path = PUBLIC / f"{file}_keys.json"
    if not path.exists():
        pytest.skip(f"reference material is absent: {os.path.join('..', 'shared', 'golden', 'public', path.name)}")
    keys = json.loads(path.read_text())
    found, prefixed = recognise(keys), recognise(f"module.{key}" for key in keys)
    assert (found.name if found else None) == (prefixed.name if prefixed else None) == name


def test_a_layout_says_what_is_left_out_and_renamed() -> None:
    layout = Layout(
        "x",
        "m:C",
        has=(("a.", "b."), ("c.",)),
        lacks=("d.",),
        keeps=("a.", "c."),
        drops=("a.no",),
        renames=(("a.", "z."),),
    )
    assert layout.recognises(["b.1", "c.1"])
    assert not layout.recognises(["a.1", "b.1"]), "a group without a key"
    assert not layout.recognises(["a.1", "c.1", "d.1"])
    assert [layout.own_key(key) for key in ("a.1", "a.module.1", "a.no.1", "b.1", "c.1")] == [
        "z.1",
        "z.1",
        "",
        "",
        "c.1",
    ]


def test_which_full_size_model_carries_a_head() -> None:
    found = {head: layout_with_head(head) for head in ("trf", "lstm", "apa")}
    assert {head: layout and layout.name for head, layout in found.items()} == {
        "trf": "streamsync-trf",
        "lstm": "streamsync-lstm",
        "apa": None,
    }


def test_descriptors_load_no_torch() -> None:
    code = "import sys; from avbench.baselines.families import layouts; layouts(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
