"""``avbench run --config``: a YAML recipe means what the same options on the command line mean."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from avbench.cli import _parser
from avbench.commands.config import options
from avbench.results.run import read_run

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def parsed(*words: object) -> dict[str, Any]:
    found = vars(_parser().parse_args(["run", *map(str, words)]))
    return {name: value for name, value in found.items() if name not in ("command", "parser", "config")}


def recipe(folder: Path, content: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_every_option_means_the_same_in_a_recipe(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": "net.py:Net",
        "data": "d",
        "split": "valid",
        "limit": 3,
        "hop": 4,
        "iterations": 5,
        "protocol": "paper",
        "out": "o",
        "store": "s",
        "seed": -1,
        "workers": 2,
        "device": "cuda:1",
        "batch-size": "auto",
        "shard": "2/4",
        "engine": "ray",
        "ray-address": "auto",
        "n-resamples": 7,
        "metrics": ["acc", "map"],
        "csv": "c.csv",
        "format": "latex",
        "weights": "w",
        "head-weights": "h",
        "random-weights": 4,
        "dtype": "bfloat16",
        "fetch": "on-demand",
        "keep-media": "20GB",
        "model-args": ["width=3", "ckpt=b.pt"],
    }
    switches = ["keep-going", "no-reference-rows", "no-media", "json", "compile", "force"]
    run = parsed("--config", recipe(tmp_path, given | dict.fromkeys(switches, True)))
    words: list[object] = [f"--{name}" for name in switches]
    for name, value in given.items():
        words += [f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"]
    assert run == parsed(*words)
    subparsers = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(options(subparsers.choices["run"])) == {*given, *switches}, "every option of `run` is in this test"


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = recipe(tmp_path, {"model": "xcorr", "hop": 4, "n_resamples": 5, "metrics": ["acc"], "model-args": {"a": 1}})
    found = parsed("--hop", 2, f"--config={path}", "--metrics", "map", "--model-args", "b=2", "a=3")
    assert (found["model"], found["hop"], found["n_resamples"], found["metrics"]) == ("xcorr", 2.0, 5, ["map"])
    assert found["model_args"] == ["a=1", "b=2", "a=3"], "of one name the last counts"
    assert parsed("--conf", path)["hop"] == 4.0, "an abbreviation reads it too"
    switches = parsed("--config", recipe(tmp_path, "model: xcorr\nrandom-weights: true\ncompile: false\n"))
    assert (switches["random_weights"], switches["compile"]) == (0, False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": "xcorr", "iteration": 3}, "unknown option 'iteration'; did you mean iterations?"),
        ({"xyzzy": 3}, "unknown option 'xyzzy'; there are model, data, "),
        ({"config": "other.yaml"}, "unknown option 'config'"),
        ({"model": "xcorr", "json": "yes please"}, "json is 'yes please'; it must be true or false"),
        ({"model": "xcorr", "hop": True}, "hop is true; it takes a value"),
        ({"model": "xcorr", "hop": [1, 2]}, "hop is [1, 2]; it must be one value"),
        ({"model": "xcorr", "hop": "wide"}, "argument --hop: invalid float value: 'wide'"),
        ({"model": "xcorr", "metrics": ["--json"]}, "metrics has a value that begins with '-'"),
        ({"hop": 3}, "the following arguments are required: --model"),
        ("- a\n- b\n", "a recipe is a mapping of options"),
        ("a: [", "is no YAML"),
        ("a: !!python/object/apply:os.system [echo]", "is no YAML"),
    ],
)
def test_a_wrong_recipe_is_said_in_one_line(avbench: Avbench, tmp_path: Path, content: Any, said: str) -> None:
    done = avbench("run", "--config", recipe(tmp_path, content))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_a_recipe_that_is_not_there(avbench: Avbench) -> None:
    done = avbench("run", "--config", "gone.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "gone.yaml" in done.stderr


def test_what_is_saved_is_the_same_run(avbench_process: Avbench, clicks: Path, tmp_path: Path) -> None:
    words = ("run", "--model", "uniform", "--data", clicks, "--iterations", 2, "--no-reference-rows", "--seed", 3)
    done = avbench_process(*words, "--n-resamples", 20, "--out", "a", "--save-config", "run.yaml")
    assert done.returncode == 0, done.stderr
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert kept["no-reference-rows"] is True
    assert "save-config" not in kept
    again = avbench_process("run", "--config", "run.yaml", "--out", "b")
    assert again.returncode == 0, again.stderr
    first, second = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    assert (first.scores, first.signature, first.seed) == (second.scores, second.signature, 3)
