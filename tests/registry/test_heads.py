"""Heads from outside: a user's file or an entry point, by name, in results, in worker processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from avbench.baselines.adapter import AdaptedHead
from avbench.baselines.apa import probabilities
from avbench.baselines.streamsync import HISTORY_WINDOWS
from avbench.engine.replay import replay, snapshot_for
from avbench.registry import user_files
from avbench.registry.facts import whole_fingerprint
from avbench.registry.heads import HEADS, head_class, plain_heads
from avbench.registry.names import load_model, resolve, split_model_name, without_folders
from avbench.registry.options import ModelOptions
from avbench.types import AvbenchError, Snapshot, StreamingHead, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
TEMPLATE = Path(__file__).parents[2] / "submissions" / "template"

HEAD = """
import numpy as np
import torch
from avbench import FrontEnd, Snapshot, SnapshotPredictor, StreamingHead

class Last(StreamingHead):
    uses_torch = False
    trained_on = "my tapes"

    def __init__(self):
        self.gain = np.float32(2.0)

    def init(self, batch):
        return None

    def step(self, state, snapshot, time_s):
        return None, self.gain * snapshot.logits

class Torch(torch.nn.Module, StreamingHead):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(21))

    def init(self, batch):
        return torch.zeros(batch, 21)

    def step(self, state, snapshot, time_s):
        state = state + self.weight * snapshot.logits
        return state, state

class Token(Last):
    needs_token = True

class Wide(Last):
    def step(self, state, snapshot, time_s):
        return None, snapshot.logits[:, :1]

class Breaks(Last):
    def step(self, state, snapshot, time_s):
        raise KeyError("nothing\\nthere")

class Fails(StreamingHead):
    def __init__(self, path):
        pass

class Stranger:
    pass

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32))

def function():
    return Last()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my+heads").mkdir()
    (tmp_path / "my+heads" / "h.py").write_text(HEAD)
    (tmp_path / "net.py").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What users' files import from beside them is forgotten after the test, as in a new process."""
    yield
    for name in user_files._helpers:
        sys.modules.pop(name, None)
    user_files._helpers.clear()


# -- names


@pytest.mark.parametrize(
    ("name", "base", "head"),
    [
        ("sparsesync+my+heads/h.py:Last", "sparsesync", "my+heads/h.py:Last"),
        ("sparsesync.synthsync-pt+h.py:Last", "sparsesync.synthsync-pt", "h.py:Last"),
        ("net.py:Net+my+heads/h.py:Last", "net.py:Net", "my+heads/h.py:Last"),
        ("my+heads/h.py:Net+my+heads/h.py:Last", "my+heads/h.py:Net", "my+heads/h.py:Last"),
        ("my+heads/h.py:Net+apa", "my+heads/h.py:Net", "apa"),
        ("my+heads/h.py:Net", "my+heads/h.py:Net", ""),
        ("gone+away/h.py:Net", "gone+away/h.py:Net", ""),
        ("sparsesink+net.py:Last", "sparsesink", "net.py:Last"),
        ("xcorr+apa", "xcorr", "apa"),
        ("xcorr", "xcorr", ""),
    ],
)
def test_a_plus_may_be_part_of_a_path(folder: Path, name: str, base: str, head: str) -> None:
    assert split_model_name(name) == (base, head)


def test_a_backbones_file_of_that_very_name_comes_first(folder: Path) -> None:
    (folder / "xcorr+h.py").write_text(HEAD)
    assert split_model_name("xcorr+h.py:Net") == ("xcorr+h.py:Net", "")


@pytest.mark.parametrize("name", ["xcorr+my+heads/h.py:Last", "net.py:Net+my+heads/h.py:Last"])
def test_a_users_head(folder: Path, name: str) -> None:
    resolved = resolve(name)
    assert resolved.head_name == "h.py:Last", "paths do not get into results"
    assert resolved.head is None, "resolving a name runs no file"
    assert resolved.load_head is not None
    head = pickle.loads(pickle.dumps(resolved.load_head))()  # as a worker process would get it
    assert isinstance(head, StreamingHead)
    logits = np.random.default_rng(0).standard_normal((2, 3, 21)).astype(np.float32)
    assert np.array_equal(replay(head, logits, None, 2.0), 2 * logits)
    assert load_model(name).trained_on.endswith("; head: my tapes")


def test_a_torch_head_is_loaded_in_eval_mode_and_replayed(folder: Path) -> None:
    model = load_model("xcorr+net.py:Torch")
    assert model.head is not None
    assert not model.head.training  # type: ignore[attr-defined]
    logits = np.random.default_rng(0).standard_normal((2, 3, 21)).astype(np.float32)
    assert np.allclose(replay(model.head, logits, None, 2.0), logits.cumsum(axis=1), atol=1e-5)


def test_folders_are_left_out_of_what_is_published(folder: Path) -> None:
    assert without_folders(f"{folder}/net.py:Net+{folder}/my+heads/h.py:Last") == "net.py:Net+h.py:Last"
    assert without_folders("xcorr+my+heads/h.py:Last") == "xcorr+h.py:Last"
    assert without_folders("their-net+their-head") == "their-net+their-head"
    assert without_folders("/home/me/secret/gone.py:Net+apa") == "gone.py:Net+apa"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("xcorr+net.py:Missing", "there is no such class; the file defines Last, Torch"),
        ("xcorr+net.py:Fails", "needs the argument"),
        ("xcorr+net.py:Stranger", "not a StreamingHead; subclass it, as in class Stranger\\(avbench.StreamingHead\\)"),
        ("xcorr+net.py:Net", "not a StreamingHead; it is a backbone"),
        ("net.py:Last", "not a SnapshotPredictor; it is a head"),
        ("xcorr+gone.py:Last", "head file gone.py does not exist"),
        ("xcorr+broken.py:Last", "head file broken.py does not run: ZeroDivisionError"),
        ("xcorr+net.py", "head 'net.py': name the class too"),
        ("net.py:Net+my+heads/h.py", "name the class too"),
        ("xcorr+net.py:Token", "needs a streaming token and xcorr gives none"),
        ("sparsesink+net.py:Last", "did you mean sparsesync"),
        ("apa-sparsesync+net.py:Last", "already is sparsesync\\+apa"),
    ],
)
def test_mistakes_are_said_in_one_line(folder: Path, name: str, said: str) -> None:
    (folder / "broken.py").write_text("1 / 0")
    with pytest.raises(UsageError, match=said) as error:
        load_model(name)
    assert "\n" not in str(error.value)


def test_a_head_file_and_a_heads_weights_are_one_too_many(folder: Path) -> None:
    with pytest.raises(UsageError, match="its head loads its own weights"):
        resolve("xcorr+net.py:Last", ModelOptions(head_weights=Path("x.safetensors")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Wide", r"logits are \(2, 3, 1\), they must be \(2, 3, 21\)"),
        ("Breaks", r"broke off with KeyError.*\(\w+\.py, line \d+, in step\)"),
    ],
)
def test_a_head_that_does_not_work_is_said_in_one_line(folder: Path, name: str, said: str) -> None:
    head = load_model(f"xcorr+net.py:{name}").head
    assert head is not None
    with pytest.raises(UsageError, match=said) as error:
        replay(head, np.zeros((2, 3, 21), np.float32), None, 2.0)
    assert "\n" not in str(error.value)


def test_entry_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str, value: str) -> None:
            self.name, self.value = name, value

        def load(self) -> object:
            if self.name == "broken":
                raise ImportError("no such module")
            return lambda: user_files.load_from_file("net.py", "Last", user_files.HEAD)

    entries = [Entry("their-head", "their.module:Head"), Entry("broken", "nothing:Head")]
    monkeypatch.setattr(user_files, "entry_points", lambda group: entries if group == "avbench.heads" else [])
    model = load_model("xcorr+their-head")
    assert (model.head_name, type(model.head).__name__) == ("their-head", "Last")
    pickle.dumps(resolve("xcorr+their-head").load_head)
    with pytest.raises(UsageError, match="did you mean their-head"):
        resolve("xcorr+theirhead")
    with pytest.raises(UsageError, match=r"head broken \(entry point nothing:Head\) cannot be imported"):
        load_model("xcorr+broken")


def test_the_table_of_built_in_heads() -> None:
    for name in HEADS:
        assert issubclass(head_class(name), StreamingHead)
    assert plain_heads() == ["none", "apa", "apa-sliding", "apa-decay", "bayes", "cusum"]
    assert all(head_class(name)().needs_token is False for name in plain_heads())


# -- the file's own folder


def test_what_lies_beside_the_file_can_be_imported(folder: Path, forgotten: None) -> None:
    (folder / "h1_weights.py").write_text("W = 3.0")
    (folder / "json.py").write_text("raise RuntimeError('not the standard library')")
    (folder / "h1.py").write_text("import json\nfrom h1_weights import W\n" + HEAD.replace("2.0", "W"))
    before = list(sys.path)
    head = load_model("xcorr+h1.py:Last").head
    assert head is not None
    assert head.gain == 3.0  # type: ignore[attr-defined]
    assert sys.path == before
    code = "import sys; from avbench.registry import load_model; print(load_model(sys.argv[1]).head.gain)"
    done = subprocess.run(
        [sys.executable, "-c", code, f"xcorr+{folder}/h1.py:Last"], capture_output=True, text=True, cwd="/"
    )
    assert done.stdout.strip() == "3.0", done.stderr


def test_two_folders_with_modules_of_one_name_are_refused(folder: Path, forgotten: None) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (folder / name).mkdir()
        (folder / name / "h2_weights.py").write_text(f"W = {value}")
        (folder / name / f"{name}.py").write_text("from h2_weights import W\n" + HEAD)
    load_model("xcorr+a/a.py:Last")
    with pytest.raises(UsageError, match=r"two folders contain a different h2_weights.py"):
        load_model("xcorr+b/b.py:Last")
    (folder / "b" / "h2_weights.py").write_text("W = 1.0")
    load_model("xcorr+b/b.py:Last")  # the same text is the same module


# -- fingerprints


def fingerprint_in_a_new_process(name: str) -> str:
    code = (
        "import sys; from avbench.registry import load_model; from avbench.registry.facts import whole_fingerprint; "
        "print(whole_fingerprint(load_model(sys.argv[1]), 'b'))"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_heads_that_differ_in_code_or_weight_have_different_fingerprints(folder: Path) -> None:
    seen = {
        name: whole_fingerprint(load_model(name), "b")
        for name in ("xcorr+net.py:Last", "xcorr+net.py:Torch", "xcorr+apa", "xcorr")
    }
    assert len(set(seen.values())) == len(seen)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "net.py").write_text(HEAD)
    assert whole_fingerprint(load_model("xcorr+elsewhere/net.py:Last"), "b") == seen["xcorr+net.py:Last"]
    assert fingerprint_in_a_new_process("xcorr+elsewhere/net.py:Torch") == seen["xcorr+net.py:Torch"]

    (folder / "net.py").write_text(HEAD.replace("self.gain * snapshot.logits", "self.gain * snapshot.logits + 1"))
    assert whole_fingerprint(load_model("xcorr+net.py:Last"), "b") != seen["xcorr+net.py:Last"], "other code"
    plain, learned = load_model("xcorr+elsewhere/net.py:Last"), load_model("xcorr+elsewhere/net.py:Torch")
    plain.head.gain = np.nextafter(plain.head.gain, np.float32(3.0))  # type: ignore[union-attr]
    assert whole_fingerprint(plain, "b") != seen["xcorr+net.py:Last"], "another attribute"
    learned.head.weight.data[7] += 1e-6  # type: ignore[union-attr]
    assert whole_fingerprint(learned, "b") != seen["xcorr+net.py:Torch"], "another weight"


def test_what_a_head_imports_from_beside_it_counts(folder: Path, forgotten: None) -> None:
    (folder / "h3.py").write_text("import h3_more\n" + HEAD)
    (folder / "h3_more.py").write_text("from h3_weights import W")
    (folder / "h3_weights.py").write_text("W = 1.0")
    first = fingerprint_in_a_new_process("xcorr+h3.py:Last")
    assert fingerprint_in_a_new_process("xcorr+h3.py:Last") == first
    (folder / "h3_weights.py").write_text("W = 1.5")
    assert fingerprint_in_a_new_process("xcorr+h3.py:Last") != first


def test_a_built_in_head_counts_by_its_name_and_state_alone() -> None:
    """Its code goes by the version: published signatures must not change with a comment in it."""
    for name, state in (("xcorr", "[]"), ("xcorr+apa-sliding", "[('windows', 9)]")):
        model = load_model(name)
        expected = hashlib.sha256(f"b {model.head_name} {state}".encode()).hexdigest()
        assert whole_fingerprint(model, "b") == expected
    model = load_model("streamsync-trf")
    digest = hashlib.sha256(b"b trf ")
    for key, tensor in model.head.state_dict().items():  # type: ignore[union-attr]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes())
    assert whole_fingerprint(model, "b") == digest.hexdigest()


def test_a_state_that_cannot_be_fingerprinted_is_said(folder: Path) -> None:
    (folder / "odd.py").write_text(HEAD.replace("np.float32(2.0)", "iter([])"))
    with pytest.raises(AvbenchError, match=r"cannot fingerprint Last\.gain") as error:
        whole_fingerprint(load_model("xcorr+odd.py:Last"), "b")
    assert "\n" not in str(error.value)


# -- the command


def test_the_templates_head_runs_as_a_process(clicks: Path, avbench_process: Avbench, tmp_path: Path) -> None:
    model = f"xcorr+{TEMPLATE}/my_head.py:MyHead"
    command = (
        "run",
        "--data",
        clicks,
        "--iterations",
        3,
        "--n-resamples",
        20,
        "--workers",
        2,
        "--store",
        tmp_path / "s",
    )
    done = avbench_process(*command, "--model", model, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["model"]["head"] == "my_head.py:MyHead"
    assert str(TEMPLATE) not in result["signature"]
    other = avbench_process(*command, "--model", "xcorr+apa", "--out", "other", "--json")
    assert json.loads(other.stdout)["model"]["fingerprint"] != result["model"]["fingerprint"]
    done = avbench_process("doctor", f"{TEMPLATE}/my_head.py:MyHead")
    assert (done.returncode, done.stderr) == (0, "")
    assert "causality: noise in the future of head my_head.py:MyHead leaves" in done.stdout


def test_the_command_says_a_heads_mistakes_in_one_line(clicks: Path, avbench: Avbench, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HEAD)
    for name, said in (("Breaks", "broke off with KeyError"), ("Token", "needs a streaming token")):
        done = avbench("run", "--model", f"xcorr+net.py:{name}", "--data", clicks, "--iterations", 2, "--workers", 1)
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    done = avbench("train", "head", "--backbone", "xcorr+net.py:Last", "--data", clicks)
    assert done.returncode == 2
    assert "this has the head net.py:Last: name xcorr" in done.stderr
    done = avbench("models")
    assert "BACKBONE+path/to/file.py:ClassName" in done.stdout


def test_a_sweep_takes_users_heads(clicks: Path, avbench: Avbench, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HEAD)
    models = ("xcorr+apa", "xcorr+net.py:Last", "xcorr+net.py:Torch")
    done = avbench(
        *(
            "sweep",
            "--models",
            *models,
            "--data",
            clicks,
            "--iterations",
            1,
            2,
            "--workers",
            1,
            "--n-resamples",
            "20",
            "--json",
        )
    )
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(done.stdout)] == [model for model in models for _ in range(2)]


# ----------------------------------------------------------------------------------------------- streams without an end


def kept_bytes(state: object) -> int:
    """What a head's state holds in numbers."""
    if isinstance(state, tuple | list):
        return sum(map(kept_bytes, state))
    if isinstance(state, torch.Tensor | np.ndarray):
        return int(state.nbytes)
    assert state is None or isinstance(state, int | float)
    return 0


def built(name: str) -> Any:
    """A built-in head; a learned one small and with random weights."""
    torch.manual_seed(0)
    return head_class(name)(48, layers=2).eval() if HEADS[name].learned else head_class(name)()


@pytest.mark.parametrize("name", [*HEADS, "adapter"])
def test_an_hour_of_windows_leaves_the_state_and_the_work_of_a_step_as_they_were(name: str) -> None:
    head = AdaptedHead(built("trf"), 48) if name == "adapter" else built(name)
    state, sizes, work = head.init(1), [], []
    rng = np.random.default_rng(0)
    tokens = name in HEADS and HEADS[name].learned
    with torch.inference_mode():
        for i in range(1800):
            logits = torch.from_numpy(10 * rng.standard_normal((1, 21)).astype(np.float32))
            token = torch.from_numpy(rng.standard_normal((1, 48)).astype(np.float32)) if tokens else None
            with FlopCounterMode(display=False) if i in (47, 100, 1799) else contextlib.nullcontext() as counter:
                state, out = head.step(state, snapshot_for(head, Snapshot(logits, token)), 2.0 * i)
            assert np.isfinite(np.asarray(out)).all()
            sizes.append(kept_bytes(state))
            if counter:
                work.append(counter.get_total_flops())
    assert set(sizes[HISTORY_WINDOWS - 1 :]) == {max(sizes)}
    assert len(set(work)) == 1
    assert (work[0] > 0) == (name in ("trf", "lstm", "adapter"))


def test_the_transformer_sees_the_last_48_windows_and_up_to_there_all() -> None:
    head, tokens = built("trf"), torch.randn(2, 60, 48)
    state = head.init(2)
    with torch.inference_mode():
        for i in range(60):
            state, out = head.step(state, Snapshot(tokens[:, i], tokens[:, i]), 2.0 * i)
            seen = tokens[:, max(0, i + 1 - HISTORY_WINDOWS) : i + 1]
            assert torch.equal(state, seen.flip(1))
            assert torch.equal(out, head(seen.flip(1)))
    assert HISTORY_WINDOWS == 48


def test_the_sums_of_an_endless_average_stay_exact() -> None:
    rng, head = np.random.default_rng(0), built("apa")
    state, seen = head.init(1), []
    for i in range(1800):
        logits = 5 * rng.standard_normal((1, 21))
        seen.append(probabilities(logits)[0])
        state, out = head.step(state, Snapshot(logits), 2.0 * i)
    mean = np.array([math.fsum(column) for column in zip(*seen, strict=True)]) / 1800
    assert state[0] == 1800
    assert np.allclose(state[1][0] / state[0], mean, rtol=1e-13, atol=0)
    assert np.allclose(np.exp(out[0]), mean, rtol=1e-6, atol=0)
