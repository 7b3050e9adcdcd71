"""What may change a score changes the signature; what may change a snapshot changes where it is stored."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey
from avbench.protocol.rules import FRONTEND_SCOPES, SELECTIONS, SUPPORTS, Protocol
from avbench.protocol.signature import Signature
from avbench.types import FrontEnd, OffsetGrid, Snapshot, SnapshotPredictor, UsageError

PROTOCOL_FIELDS = tuple(field.name for field in dataclasses.fields(Protocol))
frame_ticks = st.integers(1, 3000).map(lambda n: 640 * n)

# one strategy per field: a new field of Protocol without one here fails the first test
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": st.from_regex(r"[a-z]{1,12}", fullmatch=True),
    "version": st.integers(1, 99),
    "window": frame_ticks,
    "hop": frame_ticks,
    "iterations": st.integers(1, 500),
    "grid": st.builds(OffsetGrid, st.integers(2, 101), st.sampled_from([0.5, 1.0, 2.0, 2.5, 4.0])),
    "frontend_scope": st.sampled_from(FRONTEND_SCOPES),
    "start_shift": st.integers(-500, 500).map(lambda n: 640 * n),
    "selection": st.sampled_from(SELECTIONS),
    "support": st.sampled_from(SUPPORTS),
    "common_support": st.lists(st.tuples(frame_ticks, st.integers(1, 100)), max_size=3).map(tuple),
}
protocols = st.builds(Protocol, **FIELDS)


def test_every_field_is_covered() -> None:
    assert set(FIELDS) == set(PROTOCOL_FIELDS)


@pytest.mark.parametrize("name", PROTOCOL_FIELDS)
@settings(deadline=None)
@given(data=st.data())
def test_changing_one_field_changes_the_signature(name: str, data: st.DataObject) -> None:
    protocol = data.draw(protocols)
    value = data.draw(FIELDS[name].filter(lambda v: v != getattr(protocol, name)))
    assert dataclasses.replace(protocol, **{name: value}).signature() != protocol.signature()


@settings(deadline=None)
@given(protocols, protocols)
def test_equal_signatures_mean_equal_protocols(one: Protocol, other: Protocol) -> None:
    assert (one.signature() == other.signature()) == (one == other)


@settings(deadline=None)
@given(protocols)
def test_a_protocol_is_read_back_from_its_signature_and_from_json(protocol: Protocol) -> None:
    assert Protocol.parse(protocol.signature()) == protocol
    assert Protocol.from_json(json.loads(json.dumps(dataclasses.asdict(protocol)))) == protocol


@settings(deadline=None)
@given(protocols, st.lists(st.sampled_from(["lead704", "bfloat16", "compiled", "random3"]), unique=True))
def test_a_run_is_read_back_from_its_signature(protocol: Protocol, computed: list[str]) -> None:
    signature = Signature.of(protocol, "1" * 64, "2" * 64, "0.1.0", tuple(computed))
    assert Signature.parse(str(signature)) == signature
    assert "|".join(["avb", *signature.fields().values()]) == str(signature)


@settings(deadline=None)
@given(protocols, st.integers(0, 200), st.sampled_from("|h.0+xv:,"))
def test_one_protocol_has_one_signature(protocol: Protocol, place: int, letter: str) -> None:
    text = protocol.signature()
    place %= len(text) + 1
    with contextlib.suppress(UsageError):  # refused, or of another protocol
        assert Protocol.parse(text[:place] + letter + text[place:]) != protocol


# ---------------------------------------------------------------------------------------------------------- the store


@settings(deadline=None)
@given(
    ingredient=st.sampled_from([*SnapshotKey._fields, "model", "media"]),
    key=st.builds(SnapshotKey, *[st.integers(-1, 10**7)] * 5),
    step=st.integers(1, 10**6),
)
def test_changing_any_ingredient_of_the_key_means_the_snapshot_is_missing(
    tmp_path_factory: pytest.TempPathFactory, ingredient: str, key: SnapshotKey, step: int
) -> None:
    store, place = SnapshotStore(tmp_path_factory.mktemp("store")), {"model": "1" * 64, "media": "2" * 64}
    store.put(**place, keys=[key], logits=np.zeros((1, 21)))
    assert store.missing(**place, keys=[key]) == []
    if ingredient in place:
        place[ingredient] = f"{step:064x}"[::-1]
    else:
        value = getattr(key, ingredient)
        key = key._replace(**{ingredient: value + (f"law {step}" if ingredient == "law" else step)})
    assert store.missing(**place, keys=[key]) == [key]


# -------------------------------------------------------------------------------------------------------- fingerprints


class Toy(SnapshotPredictor):
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def predict(self, video: Any, audio: Any) -> Snapshot:
        raise NotImplementedError


class Twin(Toy):
    """The same in all but its name."""


STATE: dict[str, Any] = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scale": 0.5,
    "name": "toy",
    "layers": [1, (2, 3), {"a": None, "b": True}],
    "frontend": FrontEnd(size=32),
    "token_dim": 8,
    "activation": np.tanh if isinstance(np.tanh, type) else len,
    "kinds": {"x", "y", "z"},
}
CHANGES: dict[str, list[Any]] = {
    "weight": [
        STATE["weight"] + np.eye(2, 3, dtype=np.float32) * 1e-6,
        STATE["weight"].reshape(3, 2),
        STATE["weight"].astype(np.float64),
        STATE["weight"][::-1],
    ],
    "scale": [0.5000001, 1, "0.5"],
    "name": ["toy ", b"toy"],
    "layers": [
        [1, (2, 3), {"a": None, "b": 1}],
        [1, [2, 3], {"a": None, "b": True}],
        [1, 2, 3, {"a": None, "b": True}],
    ],
    "frontend": [
        dataclasses.replace(FrontEnd(size=32), **{f.name: v})
        for f, v in zip(dataclasses.fields(FrontEnd), (33, 30, 48_000, "crop", 1024, 256), strict=True)
    ],
    "token_dim": [9, None],
    "activation": [abs],
    "kinds": [{"x", "y"}],
}


def test_whatever_may_change_a_snapshot_changes_the_fingerprint() -> None:
    models = [Toy(**STATE), Twin(**STATE), Toy(**STATE, extra=None), Toy(**STATE, two_tower=True)]
    models += [Toy(**{**STATE, name: value}) for name, values in CHANGES.items() for value in values]
    assert len({model_fingerprint(model) for model in models}) == len(models)


def test_what_cannot_change_a_snapshot_does_not_change_the_fingerprint() -> None:
    expected = model_fingerprint(Toy(**STATE))
    assert model_fingerprint(Toy(**dict(reversed(STATE.items())))) == expected
    assert model_fingerprint(Toy(**STATE, trained_on="SynthSync", description="for people")) == expected
    assert model_fingerprint(Toy(**{**STATE, "weight": np.asfortranarray(STATE["weight"])})) == expected


def test_torch_models() -> None:

    class Net(torch.nn.Module, SnapshotPredictor):  # type: ignore[misc, name-defined]
        def __init__(self, seed: int = 0, p: float = 0.1) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.lstm, self.norm, self.drop = torch.nn.LSTM(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(p)
            self.register_buffer("table", torch.ones(3), persistent=False)
            self.coarse = torch.zeros(2, dtype=torch.bfloat16)

    expected = model_fingerprint(Net())
    assert model_fingerprint(Net().eval()) == expected
    assert model_fingerprint(Net(seed=1)) != expected
    assert model_fingerprint(Net(p=0.2)) != expected
    assert model_fingerprint(Net().half()) != expected
    for name in ("lstm.weight_hh_l0", "norm.running_var", "table", "coarse"):
        net = Net()
        tensor = net
        for part in name.split("."):
            tensor = getattr(tensor, part)
        with torch.no_grad():
            tensor.view(-1)[-1] += 1e-2
        assert model_fingerprint(net) != expected, name


def test_the_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from avbench.types import FrontEnd, SnapshotPredictor\n"
        "import numpy as np\n"
        "class Net(SnapshotPredictor):\n"
        "    def __init__(self):\n"
        "        self.names = {'a', 'b', 'c', 'd'}; self.w = np.arange(5.0); self.f = len; self.g = FrontEnd\n"
    )
    code = "import nets; from avbench.engine.fingerprint import model_fingerprint; print(model_fingerprint(nets.Net()))"
    said = []
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        said.append(done.stdout)
    source = tmp_path / "nets.py"
    source.write_text(source.read_text() + "# another source file: perhaps another model\n")
    changed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert len(said[0]) == 65
    assert said[0] == said[1] != changed


def test_a_state_of_unknown_type_asks_for_its_parts() -> None:
    with pytest.raises(UsageError, match=r"cannot fingerprint Toy\.rng \(Generator\): define fingerprint_parts\(\)"):
        model_fingerprint(Toy(rng=np.random.default_rng()))
    with pytest.raises(UsageError, match="fingerprint_parts"):
        model_fingerprint(Toy(f=lambda x: x))
    with pytest.raises(UsageError, match="fingerprint_parts"):
        model_fingerprint(Toy(objects=np.array([object()])))
    loop = Toy()
    loop.itself = loop  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="leads back to itself"):
        model_fingerprint(loop)

    class Spoken(Toy):
        def fingerprint_parts(self) -> dict[str, Any]:
            return {"seed": self.seed}  # type: ignore[attr-defined]

    one, other = (model_fingerprint(Spoken(rng=np.random.default_rng(), seed=seed)) for seed in (1, 2))
    assert one != other
    assert one == model_fingerprint(Spoken(rng=np.random.default_rng(), seed=1))
