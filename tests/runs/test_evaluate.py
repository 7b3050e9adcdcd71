"""``evaluate`` with a model that is given in Python: an object, or a class or function that makes one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.engine.runner import Compute
from avbench.protocol.rules import dynamic, streaming
from avbench.registry.names import resolve_object
from avbench.registry.options import ModelOptions
from avbench.results.run import read_run
from avbench.runs.evaluate import ONE_PROCESS, evaluate
from avbench.scoring.stats import Bootstrap
from avbench.ticks import ticks
from avbench.types import (
    AvbenchError,
    FailedSegmentsWarning,
    FrontEnd,
    Snapshot,
    SnapshotPredictor,
    UsageError,
)

SETTINGS: dict[str, Any] = {
    "protocol": streaming(iterations=2),
    "bootstrap": Bootstrap(20),
    "reference_rows": False,
}


NET = """
import torch
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(torch.nn.Module, SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def __init__(self, says: int = 12) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.eye(21)[says])

    def predict(self, video: torch.Tensor, audio: torch.Tensor) -> Snapshot:
        return Snapshot(self.bias.expand(len(video), -1))
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class, in a module that worker processes find."""
    file = tmp_path / "modules" / "their_net.py"
    file.parent.mkdir()
    file.write_text(NET)
    monkeypatch.syspath_prepend(file.parent)
    yield importlib.import_module(file.stem).Net
    del sys.modules[file.stem]


def test_an_object_and_what_makes_it_have_the_same_scores(net: Any, clicks: Path, tmp_path: Path) -> None:
    made = evaluate(partial(net, 12), str(clicks), out=tmp_path / "f", head="apa", **SETTINGS)
    there = evaluate(net(12), str(clicks), out=tmp_path / "o", head="apa", **SETTINGS)
    assert made.scores == there.scores
    assert made.scores["acc"].value == 0.5, "one of the two offsets is 0.4 s, class 12"
    assert made.signature == there.signature
    assert (there.model.name, made.model.head) == ("python:Net+apa", "apa")
    assert there.environment["workers"] == 1
    assert ONE_PROCESS in there.warnings
    assert ONE_PROCESS not in made.warnings
    assert "avbench.evaluate(Net, " in (tmp_path / "o" / "run.html").read_text()
    trained = net(3)
    assert evaluate(trained, str(clicks), out=tmp_path / "t", **SETTINGS).scores["acc"].value == 0.0


def test_a_class_takes_its_arguments(net: Any, clicks: Path, tmp_path: Path) -> None:
    result = evaluate(net, str(clicks), out=tmp_path / "r", options=ModelOptions(model_args={"says": 12}), **SETTINGS)
    assert result.scores["acc"].value == 0.5
    assert result.model.arguments == {"says": "12"}


def test_several_workers_need_what_makes_it(net: Any, clicks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several workers need a function that makes it"):
        evaluate(net(), str(clicks), out=tmp_path / "r", compute=Compute(tmp_path / "s", workers=2), **SETTINGS)


def test_what_cannot_be_pickled_is_made_here(net: Any) -> None:
    found = resolve_object(lambda: net(5))
    assert found.load_backbone is None
    assert isinstance(found.backbone, net)
    assert not found.backbone.training
    assert resolve_object(net).load_backbone is not None


@pytest.mark.parametrize(
    ("model", "head", "said"),
    [
        (torch.nn.Linear(2, 2), "", "Linear is not a SnapshotPredictor: subclass it"),
        (12, "", "int is not a SnapshotPredictor"),
        (dict, "", "python:dict is not a SnapshotPredictor"),
        (lambda: 1 / 0, "", "python:lambda cannot be constructed without arguments: ZeroDivisionError"),
    ],
)
def test_what_is_no_model_is_said_in_one_line(clicks: Path, tmp_path: Path, model: Any, head: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        evaluate(model, str(clicks), out=tmp_path / "r", head=head, **SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_head_is_named_and_a_name_may_have_one_too(net: Any) -> None:
    with pytest.raises(UsageError, match="did you mean apa"):
        resolve_object(net(), "apaa")
    assert resolve_object(net(), "apa").name == "python:Net+apa"


def test_a_notebooks_code_counts_and_runs_in_one_process(clicks: Path, tmp_path: Path) -> None:
    code = """
import sys, json, numpy as np, avbench
class Net(avbench.SnapshotPredictor):
    frontend = avbench.FrontEnd(size=16)
    uses_torch = False
    def predict(self, video, audio):
        return avbench.Snapshot(np.eye(21, dtype=np.float32)[[SAYS] * len(video)])
r = avbench.evaluate(Net, sys.argv[1], protocol=avbench.streaming(iterations=2), bootstrap=avbench.Bootstrap(20),
                     reference_rows=False, out="r", force=True)
print(json.dumps([r.scores["acc"].value, r.model.fingerprint, r.environment["workers"]]))
"""
    found = []
    for says in ("12", "3"):
        command = [sys.executable, "-c", code.replace("SAYS", says), str(clicks)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    (right, first, workers), (wrong, second, _) = found
    assert (right, wrong, workers) == (0.5, 0.0, 1), "no snapshot of the other code"
    assert first != second
    assert np.isfinite(right)


class Breaks(SnapshotPredictor):
    """Calls what it has not got, on each ``every``-th of its calls."""

    frontend = FrontEnd(size=16)
    uses_torch = False

    def __init__(self, every: int) -> None:
        self.every, self.calls = every, 0

    def predict(self, video: Any, audio: Any) -> Snapshot:
        self.calls += 1
        if self.calls % self.every == 0:
            self.nett(video)
        return Snapshot(np.eye(21, dtype=np.float32)[[10] * len(video)])


def test_where_every_segment_failed_an_error_names_the_line(clicks: Path, tmp_path: Path) -> None:
    with pytest.raises(AvbenchError) as error:
        evaluate(Breaks(1), str(clicks), out=tmp_path / "r", **SETTINGS)
    said = str(error.value)
    assert said.startswith("nothing was scored: 4 of 4 segments failed: ")
    assert "AttributeError: 'Breaks' object has no attribute 'nett' (test_evaluate.py, line " in said
    assert said.endswith(f"; mend the model, and see `failures` in {tmp_path / 'r' / 'run.json'}")
    assert "\n" not in said
    assert len(read_run(tmp_path / "r").failures) == 4, "the files are written all the same"


def test_where_some_segments_failed_one_warning_says_it(clicks: Path, tmp_path: Path) -> None:
    with pytest.warns(FailedSegmentsWarning, match="of 4 segments failed and are not scored: clip .*'nett'") as told:
        result = evaluate(Breaks(5), str(clicks), out=tmp_path / "r", **SETTINGS)
    assert len(told) == 1
    assert told[0].filename == __file__, "the caller's line"
    assert (result.incomplete, 0 < result.n_scored < 4) == (True, True)
    with pytest.raises(AvbenchError, match="of 4 segments failed and are not scored"):
        evaluate(
            Breaks(5),
            str(clicks),
            out=tmp_path / "s",
            compute=Compute(tmp_path / "store"),
            on_failure="raise",
            **SETTINGS,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = evaluate(Breaks(1), str(clicks), out=tmp_path / "k", on_failure="keep", **SETTINGS)
    assert kept.n_scored == 0
    with pytest.raises(UsageError, match="on_failure is 'ignore'; it must be one of warn, raise, keep"):
        evaluate("constant", str(clicks), on_failure="ignore")


def test_hop_and_iterations_are_named_as_on_the_command_line(clicks: Path, tmp_path: Path) -> None:
    plain = {"bootstrap": Bootstrap(20), "reference_rows": False}
    run = evaluate("constant", str(clicks), out=tmp_path / "r", hop_s=4, iterations=2, **plain)
    assert (run.protocol.name, run.protocol.hop, run.protocol.iterations) == ("streaming", ticks(4), 2)
    assert evaluate("constant", str(clicks), out=tmp_path / "i", iterations=3, **plain).protocol == streaming(2.0, 3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hop_s": 4, "protocol": streaming()}, "hop_s cannot be given beside protocol, .*streaming.hop_s=4.$"),
        ({"hop_s": 4, "iterations": 2, "protocol": dynamic}, "hop_s and iterations cannot be given beside protocol"),
        ({"hop_s": float("nan")}, "hop_s is nan; it must be a positive multiple of 0.04 s"),
        ({"hop_s": "4"}, "hop_s is '4'; it must be a positive multiple of 0.04 s"),
        ({"hop_s": 0.03}, "hop is 0.03 s; it must be a positive multiple of 0.04 s"),
        ({"iterations": 0}, "iterations is 0; it must be a whole number, at least 1"),
    ],
)
def test_a_wrong_protocol_is_said_before_the_work(clicks: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate("constant", str(clicks), **asked)
