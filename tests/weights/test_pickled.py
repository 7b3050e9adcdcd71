"""A pickle costs what its length allows, whatever is in it, and the published layouts stay far below the limits."""

from __future__ import annotations

import pickle
import random
import tracemalloc
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_pickles import BOMBS, bomb
from hypothesis import given
from hypothesis import strategies as st
from published_files import config_class, forget_config, publish

from avbench.weights import pickled
from avbench.weights.checkpoints import template_of
from avbench.weights.pickled import OTHER, PickleReader, Refused, Storage, TensorPlace


def cost(data: bytes) -> tuple[PickleReader, str, int]:
    """The reader after reading, why it refused the pickle ("" if it did not), and the peak of its memory in bytes."""
    reader, said = PickleReader(data), ""
    tracemalloc.start()
    try:
        reader.load()
    except Refused as refused:
        said = str(refused)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return reader, said, peak


REFUSED = {
    "two equal keys, again and again": "a key of 75000 characters",
    "one long name, again and again": "names something in 300000 characters",
    "many arguments, again and again": "calls torch._utils._rebuild_parameter with 150000 values",
    "nested tuples": "makes more than",
    "dictionaries": "makes more than",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_a_small_multiple_of_its_length(name: str) -> None:
    data = bomb(name, 300_000)
    reader, said, peak = cost(data)
    assert REFUSED.get(name, "") in said
    assert bool(said) or reader.n_opcodes <= len(data)
    allowed = pickled.MADE_ANYHOW + pickled.MADE_PER_BYTE * len(data)
    assert reader.n_made <= allowed + len(data)  # one object may go beyond, and is then the last
    assert peak <= allowed + 4 * len(data)  # and the texts and numbers in the pickle itself


@pytest.mark.parametrize("name", ["empty lists", "marks", "nested lists"])
def test_no_pickle_makes_the_reader_work_for_long(name: str) -> None:
    reader = PickleReader(bomb(name, 4_000_000))
    with pytest.raises(Refused, match=f"its pickle has more than {pickled.MAX_OPCODES} opcodes"):
        reader.load()
    assert reader.n_opcodes == pickled.MAX_OPCODES + 1


def test_a_longer_pickle_is_not_begun() -> None:
    reader, said, peak = cost(b"\x80\x02" + b"cq\nx\n0" * 10_000_000 + b"}.")
    assert "at most 4194304 are read" in said
    assert reader.n_opcodes == 0
    assert peak < 10_000


def thin(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape whose numbers take no room in a file."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def published_pickle(family: str, path: Path, times: int = 1) -> bytes:
    """The pickle of a full-size checkpoint with an optimiser's state for every entry and a long configuration;
    ``times``: with so many times the entries."""
    template = template_of(family, 21)
    weights = OrderedDict(
        (f"module.{key}" + f".{i}" * (i > 0), thin(t)) for i in range(times) for key, t in template.items()
    )
    config = config_class()
    args: Any = {f"part_{i}": config({f"name_{j}": j / 7 for j in range(10)}) for i in range(100 * times)}
    moments = {i: {"step": 12345, "exp_avg": t, "exp_avg_sq": thin(t)} for i, t in enumerate(weights.values())}
    content = {
        "args": config(args),
        "loss": 1.0,
        "metrics": defaultdict(list, {f"metric_{i}": [float(j) for j in range(100)] for i in range(30 * times)}),
        "epoch": 7,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(range(len(weights)))}]},
        "model": weights,
    }
    torch.save(content, path)
    forget_config()
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{path.stem}/data.pkl")


@pytest.mark.parametrize("family", ["streamsync-trf", "synchformer"])
def test_published_layouts_are_read_and_stay_far_below_the_limits(family: str, tmp_path: Path) -> None:
    data = published_pickle(family, tmp_path / "a.pt")
    reader = PickleReader(data)
    content = reader.load()
    template = template_of(family, 21)
    assert {key: place.size for key, place in content["model"].items()} == {
        f"module.{key}": tuple(t.shape) for key, t in template.items()
    }
    assert (content["epoch"], content["loss"], content["args"]) == (7, 1.0, OTHER)
    assert 10 * len(data) <= pickled.MAX_BYTES
    assert 10 * reader.n_opcodes <= pickled.MAX_OPCODES
    assert 2 * reader.n_made <= pickled.MADE_ANYHOW + pickled.MADE_PER_BYTE * len(data)


@pytest.mark.slow
def test_ten_times_the_largest_layout_is_read(tmp_path: Path) -> None:
    data = published_pickle("streamsync-trf", tmp_path / "a.pt", times=10)
    assert len(PickleReader(data).load()["model"]) == 10 * len(template_of("streamsync-trf", 21))


# ---------------------------------------------------------------------------------------- equal to Python's own reader


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=5) | st.tuples(inner, inner) | st.tuples(),
    max_leaves=20,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_come_back_as_they_are(value: Any, protocol: int) -> None:
    assert PickleReader(pickle.dumps(value, protocol)).load() == value


class Thing:
    """An object with attributes and a list."""

    def __init__(self) -> None:
        self.values = [1, {"a": {2, 3}}, b"x", bytearray(b"y")]


@pytest.mark.parametrize("protocol", range(6))
def test_every_other_object_is_a_stand_in(protocol: int) -> None:
    value = {
        "w": 1,
        "thing": Thing(),
        "list": [1, 2],
        "set": {1, 2},
        "frozen": frozenset({3}),
        "bytes": b"x",
        5: "five",
    }
    found = PickleReader(pickle.dumps(value, protocol)).load()
    others = ("thing", "list", "set", "frozen", "bytes")
    assert found == {"w": 1, **dict.fromkeys(others, OTHER), None: "five"}


def test_a_tensor_is_where_the_pickle_says(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(10, dtype=torch.float16)[2:8].reshape(2, 3).t()}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        place = PickleReader(archive.read("a/data.pkl")).load()["w"]
    assert isinstance(place, TensorPlace)
    assert (place.storage, place.offset) == (Storage("float16", "0", 10), 2)
    assert (place.size, place.stride) == ((3, 2), (1, 3))


# ----------------------------------------------------------------------------------------------------- damaged pickles


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "names os.system"),
        (b"\x80\x02ca.b\nc\nX\x02\0\0\0ls\x85R.", "calls a.b.c"),
        (b"(ia.b\nc\n.", ""),  # an instance without arguments is only a stand-in
        (b"(I1\nia.b\nc\n.", "calls a.b.c"),
        (b"\x80\x02(ca.b\nc\nI1\no.", "calls a.b.c"),
        (b"\x80\x02N)R.", "calls something that is no function"),
        (b"\x80\x02N)\x81.", "an instance of something that is no class"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nNb.", "changes torch._utils._rebuild_tensor_v2"),
        (b"\x80\x02K\x01NNs.", "sets an item of something that is no dictionary"),
        (b"\x80\x04\x8c\x01aK\x01\x93.", "names something without a text"),
        (b"\x80\x02\x82\x01.", "uses EXT1"),
        (b"\x80\x02Pabc\n.", "no tensor storage"),
    ],
)
def test_what_is_no_data_is_refused(data: bytes, said: str) -> None:
    if said:
        with pytest.raises(Refused, match=said):
            PickleReader(data).load()
    else:
        assert PickleReader(data).load() is OTHER


def small_pickle(path: Path) -> bytes:
    weights = {f"layer.{i}.weight": torch.zeros(2, 3) for i in range(5)}
    publish(path, weights)
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{path.stem}/data.pkl")


def test_mutated_pickles_end_in_a_value_or_a_usual_exception(tmp_path: Path) -> None:
    good, draw, refused = small_pickle(tmp_path / "a.pt"), random.Random(0), 0
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        end = len(data) if draw.random() < 0.9 else draw.randrange(len(data))
        try:
            PickleReader(bytes(data[:end])).load()
        except (Refused, ValueError, LookupError, TypeError):
            refused += 1
    assert 500 < refused < 2000
