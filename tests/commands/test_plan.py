"""``avbench plan``: counts and times without decoding anything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.protocol.rules import streaming
from avbench.runs.estimate import work_of

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


def test_of_data(avbench: Avbench, clicks: Path) -> None:
    from avbench.data.opening import read_data

    done = avbench("plan", "--data", clicks, "--model", "xcorr", "--iterations", 2, "--devices", 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    work = work_of(read_data(str(clicks), "test"), streaming(2.0, 2), 2)
    assert found["work"]["snapshots"] == work.snapshots > 0
    assert found["work"]["devices"] == 2
    assert found["protocol"] == "streaming, 2 windows, hop 2 s"


def test_of_clips_that_are_all_alike(avbench: Avbench) -> None:
    done = avbench("plan", "--clips", 946080, "--model", "full-sparsesync", "--devices", 64)
    assert (done.returncode, done.stderr) == (0, "")
    assert "946,080 clips of 300 s · streaming, 18 windows, hop 2 s · full-sparsesync" in done.stdout
    assert "in 1,892,160 files" in done.stdout
    hop = avbench("plan", "--clips", 1, "--hop", 4, "--every-s", 20, "--clip-s", 120, "--json")
    assert json.loads(hop.stdout)["work"]["segments"] == 2, "18 windows 4 s apart take 73 s"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--clips", 0), "--clips is 0; it must be at least 1"),
        (("--clips", 3, "--devices", 0), "--devices is 0; it must be at least 1"),
        (
            ("--clips", 3, "--clip-s", 20),
            "no segment of 3 clips of 20 s is long enough for 18 windows; the longest fits ",
        ),
        (("--clips", 3, "--clip-s", 301), "at most 300 s"),
        (("--clips", 3, "--clip-s", "nan"), "at most 300 s"),
        (("--clips", 3, "--every-s", 0), "multiples of 0.04 s"),
        (("--clips", 3, "--model", "constant"), "reads no media"),
        (("--clips", 3, "--data", "synthsync"), "not allowed with"),
        ((), "one of the arguments --data --clips is required"),
    ],
)
def test_wrong_requests_are_one_line(avbench: Avbench, options: tuple[object, ...], said: str) -> None:
    done = avbench("plan", *options)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
    assert said in done.stderr
