"""Commands on an accelerator that only checks placement (``tests/support/on_fake_device.py``), in a process of their
own: torch counts devices when it first goes backward, and other tests here may have done so before there was one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fake_device
import pytest

CHECKS = Path(__file__).parents[1] / "support" / "on_fake_device.py"


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_commands_on_an_accelerator_that_checks_placement(which: str, tmp_path: Path) -> None:
    if not fake_device.possible():
        pytest.skip("this torch can have no device written in Python")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, str(CHECKS)]
    done = subprocess.run([*command, "--basetemp", tmp_path / "own"], capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
