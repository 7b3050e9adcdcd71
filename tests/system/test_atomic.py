"""What a killed writer leaves is swept away by the next one; what a living one writes is not."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avbench.system.atomic import atomic_write_bytes, sweep, whole

# dies, or waits for a word, in the middle of writing
CODE = """
import os, signal, sys
from avbench.system import atomic
target, how = sys.argv[1:3]
def stop(*a):
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.readline()
    return real(*a)
real, os.replace = os.replace, stop
if sys.argv[3] == "bytes":
    atomic.atomic_write_bytes(target, b"new")
else:
    with atomic.whole(target) as temporary:
        temporary.write_bytes(b"new")
"""


def writer(target: Path, how: str, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, str(target), how, kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["bytes", "whole"])
def test_what_a_killed_writer_left_is_swept(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run.json"
    target.write_bytes(b"old")
    assert writer(target, "die", kind).wait() == -signal.SIGKILL
    (left,) = (name for name in names(tmp_path) if name.endswith(".tmp"))
    assert left.startswith(".run.json.")
    assert target.read_bytes() == b"old"
    atomic_write_bytes(tmp_path / "other.json", b"")
    assert left in names(tmp_path), "another file's is not ours to sweep"
    atomic_write_bytes(target, b"newer")
    assert names(tmp_path) == ["other.json", "run.json"]
    assert target.read_bytes() == b"newer"


@pytest.mark.parametrize("kind", ["bytes", "whole"])
def test_a_living_writer_keeps_its_file(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run.json"
    living = writer(target, "wait", kind)
    assert living.stdout
    assert living.stdout.readline() == "writing\n"
    atomic_write_bytes(target, b"ours")
    assert len(names(tmp_path)) == 2
    living.communicate("go on\n")
    assert living.returncode == 0
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["run.json"]


def test_only_names_of_ours_are_swept(tmp_path: Path) -> None:
    kept = [".a.json.bak", ".a.json.tmp", ".a.json.x.y.tmp", "a.json.abcdefgh.tmp", ".b.json.abcdefgh.tmp", ".a.tmp"]
    for name in kept:
        (tmp_path / name).write_text("a person's")
    (tmp_path / ".a.json.1234abcd.tmp").write_text("ours")
    (tmp_path / ".a.json.4711.tmp").write_text("of a version that wrote its process's number")
    (tmp_path / ".a.json.folder12.tmp").mkdir()
    (tmp_path / ".a.json.link1234.tmp").symlink_to(tmp_path / ".a.json.bak")
    sweep(tmp_path / "a.json")
    assert names(tmp_path) == sorted([*kept, ".a.json.folder12.tmp", ".a.json.link1234.tmp"])
    sweep(tmp_path / "no such folder" / "a.json")


def test_where_the_disk_knows_no_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    young, old = tmp_path / ".a.younger1.tmp", tmp_path / ".a.older123.tmp"
    young.write_text("")
    old.write_text("")
    os.utime(old, (0, 0))
    atomic_write_bytes(tmp_path / "a", b"data")
    assert names(tmp_path) == [young.name, "a"]


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with whole(tmp_path / "a") as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
