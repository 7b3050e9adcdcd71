"""``avbench run --config``: a YAML recipe means what the same options on the command line mean."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from avbench.cli import _parser
from avbench.commands.config import options, recipe_of
from avbench.results.run import read_run

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def parsed(*words: object) -> dict[str, Any]:
    found = vars(_parser().parse_args(["run", *map(str, words)]))
    return {name: value for name, value in found.items() if name not in ("command", "parser", "config", "save_config")}


def recipe(folder: Path, content: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


GIVEN: dict[str, Any] = {
    "model": "net.py:Net",
    "data": "d/e",
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
SWITCHES = ["keep-going", "no-reference-rows", "no-media", "json", "compile", "force"]
PLACES = ("model", "data", "out", "store", "csv", "weights", "head-weights")  # what of GIVEN is of the recipe's folder


def in_words(given: dict[str, Any], switches: list[str]) -> list[object]:
    words: list[object] = [f"--{name}" for name in switches]
    for name, value in given.items():
        words += [f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"]
    return words


def _run_options() -> dict[str, argparse.Action]:
    subparsers = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return options(subparsers.choices["run"])


def test_every_option_means_the_same_in_a_recipe(tmp_path: Path) -> None:
    run = parsed("--config", recipe(tmp_path, GIVEN | dict.fromkeys(SWITCHES, True)))
    placed = {name: tmp_path / GIVEN[name] for name in PLACES}
    assert run == parsed(*in_words(GIVEN | placed, SWITCHES))
    known = _run_options()
    assert set(known) == {*GIVEN, *SWITCHES}, "every option of `run` is in this test"
    named = {name for name, action in known.items() if action.type is Path or action.metavar in ("FILE", "DIR")}
    assert {"model", "data", *named} == set(PLACES), "every path"


def test_every_option_is_the_same_after_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved in one folder, used in another; --force is asked for anew."""
    places = [tmp_path / name for name in ("project", "project/conf", "elsewhere")]
    for place in places:
        place.mkdir()
    project, conf, elsewhere = places
    (project / "b.pt").write_bytes(b"weights")
    for switches in (SWITCHES, []):
        monkeypatch.chdir(project)
        args = _parser().parse_args(["run", *map(str, in_words(GIVEN, switches)), "--save-config", "conf/all.yaml"])
        kept = recipe_of(args, args.parser)
        assert kept is not None
        kept.write()
        saved = yaml.safe_load((conf / "all.yaml").read_text())
        assert set(saved) == {*GIVEN, *switches} - {"force"}
        assert (saved["shard"], saved["model"], saved["out"]) == ("2/4", "../net.py:Net", "../o")
        assert saved["model-args"] == ["width=3", "ckpt=../b.pt"]
        monkeypatch.chdir(elsewhere)
        placed = {name: f"../project/{GIVEN[name]}" for name in PLACES}
        placed["model-args"] = ["width=3", "ckpt=../project/b.pt"]
        again = parsed("--config", "../project/conf/all.yaml", *(["--force"] if switches else []))
        assert again == parsed(*in_words(GIVEN | placed, switches))
        (conf / "all.yaml").unlink()


@pytest.mark.parametrize(
    ("name", "typed", "saved"),
    [
        ("model", "xcorr", "xcorr"),
        ("model", "sparsesync.vggsound+apa", "sparsesync.vggsound+apa"),
        ("model", "here/net.py:Net+apa", "../here/net.py:Net+apa"),
        ("model", "here/net.py:Net+here/head.py:Head", "../here/net.py:Net+../here/head.py:Head"),
        ("model", "sparsesync+here/head.py:Head", "sparsesync+../here/head.py:Head"),
        ("model", "a+b/net.py:Net", "../a+b/net.py:Net"),
        ("data", "synthsync", "synthsync"),  # there is a folder of this name
        ("data", "synthsync-test-hop4", "synthsync-test-hop4"),
        ("data", "hub:org/name@0123", "hub:org/name@0123"),
        ("data", "./synthsync", "../synthsync"),
        ("data", "here", "../here"),
        ("data", "here/deep", "../here/deep"),
        ("data", "conf/set", "./set"),  # "set" might be the name of data
        ("data", "mistyped", "mistyped"),
        ("model-args", "ckpt=best.pt", "ckpt=../best.pt"),
        ("model-args", "ckpt=gone.pt", "ckpt=gone.pt"),
        ("model-args", "words=here/deep", "words=../here/deep"),
        ("model-args", "kind=here", "kind=here"),  # a folder without "/" may be any word
        ("model-args", "width=48", "width=48"),  # a file of this name is there
        ("model-args", "deep=on", "deep=on"),
        ("out", "/elsewhere/out", "/elsewhere/out"),
        ("ray-address", "here/deep", "here/deep"),
    ],
)
def test_what_is_a_path_and_what_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, typed: str, saved: str
) -> None:
    for folder in ("conf/set", "here/deep", "synthsync", "a+b", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("best.pt", "48", "on", "here/net.py", "here/head.py", "a+b/net.py"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    words = ["--model", "xcorr", f"--{name}", typed, "--save-config", "conf/run.yaml"]
    args = _parser().parse_args(["run", *words])
    kept = recipe_of(args, args.parser)
    assert kept is not None
    kept.write()
    value = yaml.safe_load(Path("conf/run.yaml").read_text())[name]
    assert value == ([saved] if name == "model-args" else saved)
    monkeypatch.chdir("elsewhere")
    again = parsed("--config", "../conf/run.yaml")[name.replace("-", "_")]
    there = typed if saved == typed else saved.replace("./set", "../conf/set") if saved.startswith("./") else saved
    assert again == ([there] if name == "model-args" else Path(there) if name == "out" else there)


def test_links_lead_where_the_disk_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``link/..`` is not the folder that the link lies in."""
    (tmp_path / "far" / "conf").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "conf").symlink_to(tmp_path / "far" / "conf")
    monkeypatch.chdir(tmp_path / "near")
    args = _parser().parse_args(["run", "--model", "xcorr", "--out", "runs/a", "--save-config", "conf/run.yaml"])
    kept = recipe_of(args, args.parser)
    assert kept is not None
    kept.write()
    assert parsed("--config", "conf/run.yaml")["out"].resolve() == tmp_path / "near" / "runs" / "a"


def test_a_folder_missing_beside_the_recipe_is_not_looked_for_here(avbench: Avbench, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "man").mkdir()
    recipe(tmp_path / "conf", {"model": "uniform", "data": "man"})
    done = avbench("run", "--config", "conf/run.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "conf/man" in done.stderr


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("gone/run.yaml", 2, "--save-config gone/run.yaml: there is no folder gone; make it first"),
        ("conf", 2, "--save-config conf is a folder; name a file in it"),
        ("there.yaml", 2, "there.yaml is there already; give --force to replace it, or choose another --save-config"),
        ("there.yaml/run.yaml", 2, "there is no folder there.yaml"),
        ("/proc/run.yaml", 1, "cannot write to /proc"),
    ],
)
def test_a_recipe_that_cannot_be_written_is_refused_first(
    avbench: Avbench, clicks: Path, tmp_path: Path, path: str, code: int, said: str
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "there.yaml").write_text("hop: 3\n")
    done = avbench("run", "--model", "uniform", "--data", clicks, "--save-config", path, "--out", "o")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "o").exists()
    assert (tmp_path / "there.yaml").read_text() == "hop: 3\n"


def test_a_refused_run_writes_no_recipe(avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("run", "--model", "uniform", "--data", "nothing", "--save-config", "run.yaml")
    assert done.returncode == 2
    assert not (tmp_path / "run.yaml").exists()


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
        ({"model": "xcorr", "hop": "wide"}, "run.yaml: hop is 'wide'; it must be a number"),
        ({"model": "xcorr", "iterations": 2.5}, "run.yaml: iterations is '2.5'; it must be a whole number"),
        ({"model": "xcorr", "shard": "half"}, "run.yaml: shard: "),
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


NET = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    uses_torch = False

    def __init__(self, ckpt: str):
        self.ckpt = ckpt
        self.bias = np.frombuffer(open(ckpt, "rb").read(), np.uint8)[:21].astype(np.float32)

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32) + self.bias)
"""


def test_a_recipe_beside_a_project_is_the_same_run_from_anywhere(
    avbench: Avbench, clicks: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / "student").mkdir(parents=True)
    (project / "student" / "net.py").write_text(NET)
    (project / "student" / "best.pt").write_bytes(bytes(range(21)))
    shutil.copytree(clicks, project / "man")
    words = ("run", "--model", "project/student/net.py:Net+apa", "--model-args", "ckpt=project/student/best.pt")
    words = (*words, "--data", "project/man", "--iterations", "2", "--no-reference-rows", "--seed", "3")
    done = avbench(*words, "--n-resamples", 20, "--out", "project/a", "--save-config", "project/run.yaml")
    assert done.returncode == 0, done.stderr
    assert "\nrecipe  project/run.yaml (avbench run --config project/run.yaml)\n" in done.stdout
    kept = yaml.safe_load((project / "run.yaml").read_text())
    assert kept["no-reference-rows"] is True
    assert "save-config" not in kept
    assert (kept["model"], kept["data"], kept["out"]) == ("student/net.py:Net+apa", "./man", "a")
    assert kept["model-args"] == ["ckpt=student/best.pt"]
    moved = tmp_path / "shared"  # the whole project, used from a folder in it
    project.rename(moved)
    command = [sys.executable, "-m", "avbench", "run", "--config", "../run.yaml", "--out", "b", "--json"]
    saved = ["--save-config", "again.yaml"]
    again = subprocess.run([*command, *saved], capture_output=True, text=True, cwd=moved / "student")
    assert again.returncode == 0, again.stderr
    assert "avbench: recipe: again.yaml (avbench run --config again.yaml)" in again.stderr
    assert yaml.safe_load((moved / "student" / "again.yaml").read_text())["model"] == "net.py:Net+apa"
    first, second = read_run(moved / "a"), read_run(moved / "student" / "b")
    assert json.loads(again.stdout)["signature"] == first.signature
    assert (first.scores, first.signature, first.seed) == (second.scores, second.signature, 3)
    assert first.model.fingerprint == second.model.fingerprint


def test_a_share_saves_a_recipe_too(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    words = ("run", "--model", "xcorr", "--data", clicks, "--iterations", 2, "--shard", "1/2")
    done = avbench(*words, "--save-config", "run.yaml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "avbench: recipe: run.yaml (avbench run --config run.yaml)" in done.stderr
    again = avbench("run", "--config", "run.yaml")
    assert again.returncode == 0, again.stderr
    assert "share 1 of 2: 0 snapshots computed" in again.stderr


@pytest.mark.parametrize(("rank", "written"), [("0", True), ("1", False)])
def test_of_several_processes_of_one_command_the_first_writes(
    avbench: Avbench, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, written: bool
) -> None:
    """As under a scheduler that sets RANK: the others neither write nor refuse what the first has written."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if not written:
        (tmp_path / "run.yaml").write_text("of the first\n")
    done = avbench("run", "--model", "xcorr", "--data", clicks, "--iterations", 2, "--save-config", "run.yaml")
    assert done.returncode == 0, done.stderr
    assert ("avbench: recipe: run.yaml" in done.stderr) == written
    assert ((tmp_path / "run.yaml").read_text() != "of the first\n") == written


OF_ITS_MODEL = {
    "model": "net.py:Net",
    "limit": 1,
    "model-args": {"width": 5},
    "head-weights": "h.pt",
    "random-weights": 4,
}


def test_what_a_recipe_says_of_its_model_is_left_out_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe(tmp_path, OF_ITS_MODEL)
    found = parsed("--config", path, "--model", "xcorr")
    assert (found["model"], found["limit"], found["model_args"]) == ("xcorr", 1, [])
    assert (found["head_weights"], found["random_weights"]) == (None, None)
    said = capsys.readouterr().err
    assert "note: head-weights and model-args and random-weights of" in said
    assert "left out for --model xcorr" in said
    assert parsed("--config", path, "--model", "xcorr", "--model-args", "a=1")["model_args"] == ["a=1"]


@pytest.mark.parametrize("model", [[], ["--model", "net.py:Net"]])
def test_it_is_kept_for_its_own_model_and_where_it_names_none(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe(tmp_path, OF_ITS_MODEL)
    assert parsed("--config", path, *model)["model_args"] == ["width=5"]
    path = recipe(tmp_path, {"model-args": {"width": 5}})
    assert parsed("--config", path, "--model", "other.py:Net")["model_args"] == ["width=5"]
    assert capsys.readouterr().err == ""
