"""What a shell is told when somebody presses Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.commands.completion import NAMES
from avbench.registry.names import list_models

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def completed(line: str, folder: Path, **environment: str) -> tuple[list[str], str]:
    """What would be offered after ``line``, and what was written to stderr; argcomplete answers on descriptor 8."""
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "COMP_TYPE": "9"}
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m avbench 8>&1 9>/dev/null >/dev/null"],
        env=os.environ | asked | {"COMP_LINE": line, "COMP_POINT": str(len(line))} | environment,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=100,
    )
    return [word.strip() for word in done.stdout.split("\n") if word.strip()], done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("avbench lea", {"leaderboard"}),
        ("avbench data from", {"from-files"}),
        ("avbench run --sh", {"--shard"}),
        ("avbench run --model xcorr+apa-", {"xcorr+apa-decay", "xcorr+apa-sliding"}),
        ("avbench sweep --models constant xcorr+ap", {"xcorr+apa", "xcorr+apa-decay", "xcorr+apa-sliding"}),
        ("avbench run --model xcorr --data ./my", {"./my_data/"}),
    ],
)
def test_tab(line: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "my_data").mkdir()
    assert set(completed(line, tmp_path)[0]) == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_it_is_quick_because_torch_is_not_imported(tmp_path: Path) -> None:
    offered, imported = completed("avbench run --metrics bal", tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert offered == ["balanced_acc"]
    names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "avbench.cli" in names
    assert not {"torch", "pandas", "matplotlib", "av"} & names


def test_the_names_are_all_there_is() -> None:
    assert set(NAMES["models"]()) == {model.name for model in list_models()}
    assert {"synthsync", "synthsync-dynamic-test"} <= set(NAMES["data"]())
    assert {"acc", "ece", "recovery_s"} <= set(NAMES["metrics"]())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_profile_runs(shell: str, avbench: Avbench) -> None:
    done = avbench("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_ARGCOMPLETE" in done.stdout
    assert "avbench" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True, timeout=100)
    assert avbench("completion", "tcsh").returncode == 2
