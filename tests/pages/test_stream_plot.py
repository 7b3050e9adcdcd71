"""A stream of a run as a figure file: the command on a real run, and what it refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Avbench = Callable[..., subprocess.CompletedProcess[str]]
MakeClicks = Callable[..., Path]


def test_a_stream_is_drawn_the_same_every_time(avbench: Avbench, make_clicks: MakeClicks, tmp_path: Path) -> None:
    clicks = make_clicks(duration_s=34, offsets_s=(0.0,))
    data, run = tmp_path / "changing", tmp_path / "run"
    made = avbench(
        "data", "dynamic", clicks, "--out", data, "--laws", "jump,hold", "--iterations", "12", "--limit", "2"
    )
    assert made.returncode == 0, made.stderr
    few = ("--iterations", "12", "--workers", "1", "--n-resamples", "20")
    ran = avbench("run", "--model", "xcorr", "--data", data, "--out", run, *few)
    assert ran.returncode == 0, ran.stderr

    page = (run / "run.html").read_bytes()
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        done = avbench("report", run, "--plot", path)
        assert done.returncode == 0, done.stderr
    name = done.stdout.strip().rpartition(" ")[2]
    svg = first.read_text(encoding="utf-8")
    assert svg.encode() == second.read_bytes()
    assert f"xcorr on {name} (jump)" in svg
    assert "believed" in svg
    assert (run / "run.html").read_bytes() == page
    assert avbench("report", run, "--plot", tmp_path / "c.svg", "--stream", name).returncode == 0
    assert (tmp_path / "c.svg").read_bytes() == first.read_bytes()

    for arguments, problem in (
        (("--plot", tmp_path / "a.gif"), "ends in .svg or .png"),
        (("--plot", first, "--force", "--stream", "nobody"), "has no stream nobody"),
        (("--stream", name), "add --plot FILE"),
    ):
        done = avbench("report", run, *arguments)
        assert done.returncode == 2
        assert problem in done.stderr
    # the page that `avbench run` wrote is the one that report makes again
    assert avbench("report", run).returncode == 0
    assert (run / "run.html").read_bytes() == page

    plain = avbench("run", "--model", "constant", "--data", clicks, "--iterations", "2", "--out", tmp_path / "fixed")
    assert plain.returncode == 0, plain.stderr
    done = avbench("report", tmp_path / "fixed", "--plot", first, "--force")
    assert done.returncode == 2
    assert "its offsets are fixed; over --data synthsync-dynamic they change" in done.stderr
