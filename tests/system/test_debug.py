"""``--debug`` and ``AVBENCH_DEBUG``: the traceback behind a one-line message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avbench.system import debug
from avbench.types import UsageError

NET = """
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Breaks(SnapshotPredictor):
    frontend = FrontEnd(size=32)

    def predict(self, video, audio):
        return self.deeper()

    def deeper(self):
        raise ZeroDivisionError("the student's own mistake")
"""


def avbench(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", "avbench", *map(str, args)], capture_output=True, text=True, env=env, check=False
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_breaks_says_where_only_when_asked(workers: str, clicks: Path, tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(NET)
    run = ["run", "--model", f"{net}:Breaks", "--data", clicks, "--iterations", "1", "--no-reference-rows"]
    run += ["--n-resamples", "20", "--workers", workers, "--store", tmp_path / "store", "--out", tmp_path / "out"]
    if workers == "1":  # of two, only whether the traceback comes across
        quiet = avbench(*run)
        assert quiet.returncode == 1
        assert "broke off with ZeroDivisionError" in quiet.stdout, "it stands where the table would"
        assert "Traceback" not in quiet.stdout + quiet.stderr
    loud = avbench(*run, "--debug")
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert "in deeper" in loud.stderr


@pytest.mark.parametrize("args", [("--debug", "run"), ("run", "--debug")])
def test_debug_stands_before_or_after_the_command(args: tuple[str, ...]) -> None:
    done = avbench(*args, "--model", "nothing-of-that-name")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("avbench: error: unknown model")


def test_the_environment_turns_it_on_and_zero_does_not() -> None:
    for value, shown in (("1", True), ("0", False), ("", False)):
        done = avbench("run", "--model", "nothing-of-that-name", AVBENCH_DEBUG=value)
        assert ("Traceback" in done.stderr) == shown, value


def test_errors_that_were_replaced_are_shown_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        try:
            raise KeyError("what really happened")
        except KeyError:
            raise ValueError("one line for people") from None
    except ValueError as error:
        hidden = error
    debug.show(hidden)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(debug.VARIABLE, "1")
    debug.show(hidden)
    said = capsys.readouterr().err
    assert said.index("what really happened") < said.index("one line for people")


def test_the_users_own_line_is_named_the_innermost_one(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import helper\n\ndef predict():\n    return helper.shape('x')\n")
    (tmp_path / "helper.py").write_text("import json\ndef shape(x):\n    return json.loads(x)\n")
    code = (
        "from avbench.system.debug import with_users_line\nimport net\n"
        "try:\n    net.predict()\nexcept ValueError as error:\n    print(with_users_line(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("JSONDecodeError: Expecting value")
    assert done.stdout.rstrip().endswith("(helper.py, line 3, in shape)"), "not that of the library"


def test_an_error_that_passed_no_users_code_stays_as_it_is() -> None:
    assert debug.with_users_line(ValueError("no")) == "ValueError: no"
    assert debug.with_users_line(UsageError("return a Snapshot")) == "return a Snapshot", "ours need no kind"
