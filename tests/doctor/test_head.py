"""The doctor on streaming heads: a good one passes, and each rule that is broken is told in words."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.doctor.head import check_head, names_a_head
from avbench.doctor.machine import examine
from avbench.registry.heads import plain_heads
from avbench.registry.names import load_model
from avbench.registry.options import ModelOptions
from avbench.system.findings import Finding
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
TEMPLATE = Path(__file__).parents[2] / "submissions" / "template"

HEADS = """
import numpy as np
import torch
from avbench import Snapshot, SnapshotPredictor, StreamingHead

class Sum(StreamingHead):
    uses_torch = False

    def init(self, batch):
        return np.zeros((batch, 21), np.float32)

    def step(self, state, snapshot, time_s):
        state = state + snapshot.logits
        return state, state

    def replay(self, logits, tokens, times_s):
        return np.cumsum(logits, axis=1)

class Rnn(torch.nn.Module, StreamingHead):
    needs_token = True
    token_dim = 5

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.cell, self.out = torch.nn.GRUCell(5, 8), torch.nn.Linear(8, 21)

    def init(self, batch):
        return torch.zeros(batch, 8)

    def step(self, state, snapshot, time_s):
        state = self.cell(snapshot.token, state)
        return state, self.out(state)

class Shape(Sum):
    def step(self, state, snapshot, time_s):
        return state, snapshot.logits[:, :20]

class Whole(Sum):
    def step(self, state, snapshot, time_s):
        return state, np.argsort(snapshot.logits)

class Nan(Sum):
    def step(self, state, snapshot, time_s):
        return state, snapshot.logits * (np.nan if time_s > 5 else 1)

class Raises(Sum):
    def step(self, state, snapshot, time_s):
        raise RuntimeError("sizes do not match\\nat all")

class Single(Sum):
    def step(self, state, snapshot, time_s):
        return snapshot.logits

class Untold(Rnn):
    needs_token = False

class Hoarder(Sum):
    total = None

    def init(self, batch):
        self.total = np.zeros((batch, 21), np.float32)

    def step(self, state, snapshot, time_s):
        self.total = self.total + snapshot.logits
        return None, self.total

    replay = property()

class Endless(Sum):
    memory = np.zeros((1, 21), np.float32)

    def init(self, batch):
        return None

    def step(self, state, snapshot, time_s):
        Endless.memory = Endless.memory + snapshot.logits.mean(axis=0)
        return None, snapshot.logits + Endless.memory

    replay = property()

class Batch(Sum):
    def step(self, state, snapshot, time_s):
        state = state + snapshot.logits - snapshot.logits.mean(axis=0)
        return state, state

    replay = property()

class Other(Sum):
    def replay(self, logits, tokens, times_s):
        return np.cumsum(logits, axis=1) / 2

class Ahead(Sum):
    def replay(self, logits, tokens, times_s):
        return np.cumsum(logits, axis=1) + logits.mean(axis=1, keepdims=True)

class Buffer(Sum):
    def init(self, batch):
        return np.zeros((batch, 21), np.float32)

    def step(self, state, snapshot, time_s):
        state += snapshot.logits
        return state, state

    replay = property()

class Writes(Sum):
    def step(self, state, snapshot, time_s):
        snapshot.logits[:] = 0
        return state, snapshot.logits

    replay = property()

class Moving(Sum):
    def __init__(self):
        self.weight = float(np.random.default_rng().random())

class Net(SnapshotPredictor):
    token_dim = 5

    def predict(self, video, audio):
        return Snapshot(torch.zeros(len(video), 21), torch.ones(len(video), 5))
"""


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "heads.py"
    path.write_text(HEADS)
    monkeypatch.chdir(tmp_path)
    return path


def problems(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if not finding.ok]


@pytest.mark.parametrize("name", ["Sum", "Rnn"])
def test_a_good_head_alone(heads: Path, name: str) -> None:
    findings = list(examine(f"{heads}:{name}"))
    assert problems(findings) == []
    said = " | ".join(finding.text for finding in findings)
    assert str(heads.parent) not in said
    for word in (
        "shape",
        "fresh state",
        "own state",
        "batch invariance",
        "left as they were",
        "causality",
        "fingerprint",
    ):
        assert word in said
    assert ("in steps and all at once agree" in said) == (name == "Sum"), "only where there is a replay"
    assert ("streaming token, fed 5 values" in said) == (name == "Rnn")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Shape", "step 1 gives logits (4, 20), they must be (4, 21)"),
        ("Whole", "they must be floating point"),
        ("Nan", "step 4 gives logits that are not finite"),
        ("Raises", "breaks off with RuntimeError: sizes do not match"),
        ("Single", "breaks off with ValueError"),
        ("Untold", "breaks off with"),
        ("Hoarder", "own state: head heads.py:Hoarder on two streams in turn and alone"),
        ("Endless", "fresh state: head heads.py:Endless from init, twice DIFFER"),
        ("Batch", "batch invariance: head heads.py:Batch on streams alone and together DIFFER"),
        ("Other", "replay: head heads.py:Other in steps and all at once DIFFER"),
        ("Ahead", "noise in the future of head heads.py:Ahead CHANGES earlier predictions"),
        ("Buffer", "noise in the future of head heads.py:Buffer CHANGES earlier predictions"),
        ("Writes", "are CHANGED"),
        ("Moving", "ANOTHER in a new process"),
    ],
)
def test_a_head_that_breaks_a_rule(heads: Path, name: str, said: str) -> None:
    wrong = problems(list(examine(f"{heads}:{name}")))
    assert any(said in text for text in wrong), wrong
    assert all("\n" not in text for text in wrong)


@pytest.mark.slow
def test_a_head_behind_a_backbone_is_checked_with_the_model(heads: Path) -> None:
    findings = list(examine("heads.py:Net+heads.py:Rnn"))
    assert problems(findings) == []
    said = [finding.text for finding in findings]
    assert any(text.startswith("own state: head heads.py:Rnn") for text in said)
    assert sum(text.startswith("fingerprint") for text in said) == 2, "the head's and the backbone's"
    assert any("DIFFER" in text for text in problems(list(examine("xcorr+heads.py:Batch"))))


@pytest.mark.parametrize("name", plain_heads())
def test_the_built_in_heads_keep_the_rules(name: str) -> None:
    head = load_model(f"xcorr+{name}").head
    assert head is not None
    assert problems(list(check_head(head, name, None))) == []


def test_what_a_name_means(heads: Path) -> None:
    assert names_a_head("heads.py:Sum")
    for name in ("heads.py:Net", "heads.py:Missing", "xcorr+heads.py:Sum", "xcorr", "streamsync-trf"):
        assert not names_a_head(name)
    with pytest.raises(UsageError, match="need a model name"):
        list(examine("heads.py:Sum", options=ModelOptions(autocast="bfloat16")))
    with pytest.raises(UsageError, match="no such class; the file defines Sum, Rnn"):
        list(examine("heads.py:Missing"))


def test_the_command(heads: Path, avbench_process: Avbench) -> None:
    done = avbench_process("doctor", f"{TEMPLATE}/my_head.py:MyHead")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all well\n")
    done = avbench_process("doctor", f"{heads}:Hoarder")
    assert done.returncode == 1
    assert "FAIL  own state" in done.stdout
    assert "keep all memory in the state" in done.stdout
    done = avbench_process("doctor", "heads.py:Missing")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
