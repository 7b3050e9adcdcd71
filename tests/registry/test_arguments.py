"""Arguments for a user's class: their types, what is said of wrong ones, and that snapshots are theirs alone."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from avbench.engine.fingerprint import head_fingerprint, model_fingerprint
from avbench.registry import user_files
from avbench.registry.arguments import counted, parsed, shown, typed
from avbench.registry.names import load_model, resolve
from avbench.registry.options import ModelOptions
from avbench.runs.evaluate import evaluate
from avbench.runs.sweep import sweep
from avbench.scoring.stats import Bootstrap
from avbench.types import AvbenchError, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]

NET = """
from __future__ import annotations
from pathlib import Path
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor, StreamingHead
from arguments_scale import SCALE

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    uses_torch = False

    def __init__(self, width: int, ckpt: Path | None = None, gain=1.0, deep: bool = False):
        # keeps nothing that tells its arguments
        self.bias = np.zeros(21, np.float32)
        if width == 128:
            self.predict = self.wide

    def fingerprint_parts(self):
        return {"bias": self.bias}

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32) + self.bias)

    def wide(self, video, audio):
        return Snapshot(np.eye(21, dtype=np.float32)[[12] * len(video)])

class Head(StreamingHead):
    uses_torch = False
    def __init__(self, decay: float = 1.0):
        pass
    def init(self, batch):
        return None
    def step(self, state, snapshot, time_s):
        return state, snapshot.logits
"""


@dataclass
class Size:
    width: int
    depth: int = 2
    more: dict[str, Any] = field(default_factory=dict)


def make(
    n: int,
    x: float = 0.5,
    on: bool = False,
    name: str = "a",
    path: Path | None = None,
    kind: Literal["big", "small"] = "big",
    sizes: tuple[int, ...] = (),
    size: Size | None = None,
    plain=1,  # type: ignore[no-untyped-def]
    anything=None,
) -> None:
    """What the tests give arguments to."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=12", 12),
        ("x=3", 3.0),
        ("x=1e-3", 0.001),
        ("on=yes", True),
        ("on=0", False),
        ("name=12", "12"),
        ("name=a=b", "a=b"),
        ("path=a/best.pt", Path("a/best.pt")),
        ("path=none", None),
        ("kind=small", "small"),
        ("sizes=(3, 4)", (3, 4)),
        ("plain=2", 2),
        ("plain=0.5", 0.5),
        ("anything=[1, 2]", [1, 2]),
        ("anything=true", True),
        ("anything=words", "words"),
    ],
)
def test_a_text_becomes_what_the_signature_says(text: str, value: Any) -> None:
    given = parsed(["n=1", text])
    found = typed(make, given, "it")[text.partition("=")[0]]
    assert (found, type(found)) == (value, type(value))


def test_dotted_names_are_fields() -> None:
    def whole(size: Size, cfg=None) -> None:  # type: ignore[no-untyped-def]
        pass

    given = parsed(["size.width=3", "size.more.a=1", "cfg.lr=0.1", "cfg.sub.on=true"])
    assert typed(whole, given, "it") == {"size": Size(3, 2, {"a": 1}), "cfg": {"lr": 0.1, "sub": {"on": True}}}
    with pytest.raises(UsageError, match=r"no argument 'size.widht': it takes width: int, .*did you mean size.w"):
        typed(whole, {"size.widht": "3"}, "it")
    with pytest.raises(UsageError, match="given whole and in parts"):
        typed(whole, {"size": "3", "size.width": "3"}, "it")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["n=1.5"], "the argument n is '1.5'; it must be int"),
        (["n=1", "on=maybe"], "the argument on is 'maybe'; it must be bool"),
        (["n=1", "kind=tiny"], "it must be Literal"),
        (["n=1", "sizes=3"], "it must be tuple"),
        (["n=1", "nam=b"], "it has no argument 'nam': it takes n: int, x: float = 0.5, .*; did you mean name"),
        (["x=1"], r"it needs the argument 'n' \(--model-args n=...\): it takes n: int, "),
        (["n"], "--model-args 'n': write it as NAME=VALUE"),
        (["n=1", "os.system()=2"], "no name of an argument"),
    ],
)
def test_a_wrong_argument_is_said_with_those_there_are(given: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        typed(make, parsed(given), "it")
    assert "\n" not in str(caught.value)


def test_values_from_python_stay_as_they_are() -> None:
    net = object()
    assert typed(make, {"n": 1, "anything": net}, "it") == {"n": 1, "anything": net}


def test_a_file_counts_by_its_bytes_wherever_it_is(tmp_path: Path) -> None:
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "best.pt").write_bytes(content)
    a, b, c = (counted({"ckpt": tmp_path / folder / "best.pt"}) for folder in "abc")
    assert a == b != c
    assert counted({"ckpt": Path("gone.pt")}) == {"ckpt": "gone.pt"}
    told = shown({"ckpt": str(tmp_path / "a" / "best.pt"), "folder": str(tmp_path / "a"), "n": 3})
    assert told["ckpt"].startswith("best.pt (sha256 6b86b273ff34")
    assert (told["folder"], told["n"]) == ("a", "3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("arguments_scale.py").write_text("SCALE = 1\n")
    Path("best.pt").write_bytes(b"weights")
    monkeypatch.setattr(user_files, "_helpers", {})  # of other tests' folders
    monkeypatch.delitem(sys.modules, "arguments_scale", raising=False)
    return tmp_path


def _print_of(**arguments: Any) -> str:
    return model_fingerprint(load_model("net.py:Net", model_args=arguments).backbone)  # type: ignore[arg-type]


def test_other_arguments_are_another_model_even_if_the_class_does_not_keep_them(folder: Path) -> None:
    plain = _print_of(width="1")
    assert _print_of(width="01") == plain == _print_of(width=1), "the value counts, not how it is written"
    others = [_print_of(width="2"), _print_of(width="1", gain="2"), _print_of(width="1", ckpt="best.pt")]
    Path("best.pt").write_bytes(b"other weights")
    others.append(_print_of(width="1", ckpt="best.pt"))
    assert len({plain, *others}) == 5
    heads = [load_model("xcorr+net.py:Head", model_args=given).head for given in ({}, {"decay": "2"})]
    assert len({head_fingerprint(head) for head in heads}) == 2  # type: ignore[arg-type]


KEEPS = """
from pathlib import Path
from avbench import SnapshotPredictor

class Net(SnapshotPredictor):
    uses_torch = False
    def __init__(self, ckpt: str, words: Path | None = None):
        self.ckpt = ckpt
        self.words = words
        self.options = {"ckpt": [ckpt]}
"""


def test_a_model_that_keeps_the_paths_of_its_files_is_the_same_from_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("keeps.py").write_text(KEEPS)
    Path("words.txt").write_text("a b c")
    Path("other.pt").write_bytes(b"weights")
    Path("inside").mkdir()

    def print_of(above: str, ckpt: str = "best.pt") -> str:
        given = {"ckpt": f"{above}{ckpt}", "words": f"{above}words.txt"}
        return model_fingerprint(load_model(f"{above}keeps.py:Net", model_args=given).backbone)  # type: ignore[arg-type]

    here = print_of("")
    assert print_of(f"{folder}/") == here
    assert print_of("", "other.pt") != here, "the name counts"
    monkeypatch.chdir("inside")
    assert print_of("../") == here
    (folder / "best.pt").write_bytes(b"other weights")
    assert print_of("../") != here


def test_a_worker_makes_the_same_model(folder: Path) -> None:
    make_it = resolve("net.py:Net", ModelOptions(model_args={"width": "1", "ckpt": "best.pt"})).load_backbone
    assert make_it is not None
    there = pickle.loads(pickle.dumps(make_it))()
    assert model_fingerprint(there) == _print_of(width="1", ckpt="best.pt")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("net.py:Net", {}, "net.py:Net needs the argument 'width'"),
        ("net.py:Net", {"widht": "3"}, "has no argument 'widht': it takes width: int, ckpt: Path"),
        ("net.py:Net", {"width": "wide"}, "the argument width is 'wide'; it must be int"),
        ("sparsesync", {"width": "3"}, "takes no arguments"),
        ("uniform", {"width": "3"}, "ignores its input"),
    ],
)
def test_wrong_arguments_of_a_model(folder: Path, name: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_model(name, model_args=given)


def test_a_sweep_gives_them_to_the_users_model_alone(folder: Path, clicks: Path) -> None:
    options = ModelOptions(model_args={"width": "3"})
    with pytest.raises(UsageError, match="none of the models takes arguments"):
        sweep(["xcorr+apa", "sparsesync"], data=str(clicks), options=options)


def test_a_run_from_the_command_line(avbench: Avbench, avbench_process: Avbench, folder: Path, clicks: Path) -> None:
    run = ("run", "--data", clicks, "--iterations", 2, "--n-resamples", 20, "--no-reference-rows", "--workers", 1)
    words = (*run, "--model", "net.py:Net", "--out", "r")
    done = avbench_process(*words, "--model-args", "width=128", "ckpt=best.pt")
    assert done.returncode == 0, done.stderr
    assert "width=128 ckpt=best.pt (sha256 " in done.stdout
    result = json.loads(Path("r/run.json").read_text())
    assert result["model"]["arguments"]["width"] == "128"
    page = Path("r/run.html").read_text()
    assert "--model-args width=128 ckpt=best.pt" in page
    other = avbench_process(*words, "--force", "--model-args", "width=64", "ckpt=best.pt", "--json")
    assert json.loads(other.stdout)["counters"].get("snapshots_from_store", 0) == 0, "no snapshot of the other model"
    assert json.loads(other.stdout)["signature"] != result["signature"]
    for wrong, said in (("width=x", "it must be int"), ("wdth=3", "it takes width: int"), ("width", "NAME=VALUE")):
        done = avbench(*words, "--model-args", wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr


def test_evaluate_takes_them_by_keyword(folder: Path, clicks: Path) -> None:
    few: dict[str, Any] = {"data": str(clicks), "iterations": 2, "bootstrap": Bootstrap(20), "reference_rows": False}
    given = {"width": 128, "ckpt": "best.pt"}
    result = evaluate("net.py:Net", model_args=given, out="k", **few)
    assert result.model.arguments["width"] == "128"
    as_before = evaluate("net.py:Net", options=ModelOptions(model_args=given), out="o", **few)
    assert result.signature == as_before.signature
    beside = evaluate("net.py:Net", options=ModelOptions(model_args={"width": 1}), model_args=given, out="b", **few)
    assert beside.signature == result.signature, "what is given beside options counts"
    with pytest.raises(UsageError, match=r"model_args is \['width=128'\]; it must be a dict"):
        evaluate("net.py:Net", model_args=["width=128"], **few)  # type: ignore[arg-type]
    with pytest.raises(AvbenchError, match=r"nothere\.pt"):
        evaluate("sparsesync", weights="nothere.pt", **few)


def test_what_a_file_imports_from_its_folder_counts(folder: Path) -> None:
    before = _print_of(width="1")
    Path("elsewhere.py").write_text("unrelated = 1\n")
    assert _print_of(width="1") == before
    Path("arguments_scale.py").write_text("SCALE = 2\n")
    assert _print_of(width="1") != before
