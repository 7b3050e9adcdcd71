"""What a ``--device`` means, and what is said of one that is not here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import torch

from avbench.cli import _parser
from avbench.engine.runner import Compute
from avbench.latency.modes import Request
from avbench.runs.figures import How
from avbench.system.devices import check_device, device_meant, on_cpu, there_are
from avbench.types import UsageError

Avbench = Callable[..., Any]
COMMANDS = ("run", "sweep", "paper", "latency", "predict", "watch", "score", "doctor", "train head")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")]
)
def test_auto_is_the_best_that_is_here(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, best: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device_meant("auto") == best
    assert [made(device="auto").device for made in (Compute, How, Request) if made is not Request or best != "mps"] == [
        best
    ] * (3 if best != "mps" else 2)
    assert device_meant("cuda:1") == "cuda:1"


def test_where_a_device_is() -> None:
    assert [on_cpu(name) for name in ("cpu", "cpu:0", "cuda", "cuda:1", "mps")] == [True, True, False, False, False]
    assert check_device("cpu") == "cpu"
    assert there_are().split(", ")[0] == "cpu"


@no_gpu
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:9", "warp"])
def test_one_that_is_not_here_is_said_with_what_is(device: str) -> None:
    with pytest.raises(UsageError, match=rf"device '{device}' cannot be used here: .*; here there is cpu$"):
        check_device(device)


@no_gpu
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--model", "xcorr"),
        ("sweep", "--models", "xcorr"),
        ("paper", "table1"),
        ("latency", "--model", "xcorr"),
        ("predict", "x.mp4"),
        ("watch", "x.mp4"),
        ("score", "x.mp4"),
        ("doctor", "xcorr"),
        ("train", "head", "--backbone", "xcorr"),
    ],
)
def test_every_command_refuses_it_in_one_line(avbench: Avbench, words: tuple[str, ...]) -> None:
    done = avbench(*words, "--device", "cuda:9")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "device 'cuda:9' cannot be used here" in done.stderr


def _command(name: str) -> argparse.ArgumentParser:
    parser = _parser()
    for word in name.split():
        parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
    return parser


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_computes_says_where_and_how(name: str) -> None:
    parser = _command(name)
    defaults = {name: parser.get_default(name) for name in ("device", "dtype", "compile", "batch_size")}
    batch = "auto" if name in ("predict", "score", "doctor") else "1"
    assert defaults == {"device": "cpu", "dtype": "float32", "compile": False, "batch_size": batch}


@pytest.mark.parametrize("words", [("watch", "x.mp4"), ("latency", "--model", "xcorr")])
def test_one_window_at_a_time_takes_no_other_batch(avbench: Avbench, words: tuple[str, ...]) -> None:
    done = avbench(*words, "--batch-size", 4)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--batch-size can only be 1 here: " in done.stderr


@no_gpu
def test_what_auto_picks_is_said_once(avbench: Avbench) -> None:
    done = avbench("sweep", "--models", "no-such-model", "--device", "auto")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("avbench: device: ")
    assert done.stderr.count("device") == 1
