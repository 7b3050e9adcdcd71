"""A file that kills, stops or fills the process that decodes it costs no other file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from deadly import at_its_name

from avbench.data import apart
from avbench.data.apart import MediaFile, limit_s, read_apart
from avbench.types import MediaError, UsageError


@pytest.fixture
def files(tmp_path: Path) -> list[MediaFile]:
    """Good files between those that their reader does not survive."""
    made = []
    for name in ("a", "segfault", "b", "abort", "refused", "bug", "greedy", "pipe", "gone", "c"):
        path = tmp_path / f"{name}.mp4"
        if name == "pipe":
            os.mkfifo(path)
        elif name != "gone":
            path.write_text(name)
        made.append(MediaFile(name, path))
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts all of a process's memory")
@pytest.mark.parametrize("workers", [1, 2])
def test_every_file_is_read_or_named(files: list[MediaFile], workers: int) -> None:
    found = {file.clip_id: result for file, result in read_apart(at_its_name, files, workers)}
    told = {name: str(result) for name, result in found.items() if isinstance(result, MediaError)}
    assert told["segfault"] == "clip segfault: the decoder died (SIGSEGV) while reading it"
    assert told["abort"] == "clip abort: the decoder died (SIGABRT) while reading it"
    assert told["refused"] == "clip refused: the file has no sound stream"
    assert told["bug"] == "clip bug: reading failed with ValueError: no such"
    assert told["greedy"].startswith("clip greedy: reading failed with MemoryError")
    assert told["pipe"].endswith("pipe.mp4 is a named pipe, not a file")
    assert told["gone"].endswith("gone.mp4 does not exist")
    assert set(found) - set(told) == {"a", "b", "c"}
    assert {str(found[name]).split()[0] for name in "abc"} == {"a", "b", "c"}


def test_a_file_that_is_decoded_forever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [MediaFile(name, tmp_path / f"{name}.mp4") for name in ("endless", "a")]
    for file in files:
        file.path.write_text("")
    monkeypatch.setattr(apart, "BASE_LIMIT_S", 2.0)
    found = {file.clip_id: result for file, result in read_apart(at_its_name, files)}
    assert str(found["endless"]) == "clip endless: reading it took longer than 2 s"
    assert str(found["a"]).startswith("a ")


def test_the_limit_grows_with_the_file(tmp_path: Path) -> None:
    small, large = (MediaFile("", tmp_path / name) for name in ("small", "large"))
    small.path.write_bytes(b"1")
    with large.path.open("wb") as sparse:
        sparse.truncate(2**40)
    assert limit_s(small) < limit_s(large._replace(path=tmp_path / "none")) + 1
    assert limit_s(large) == apart.LONGEST_LIMIT_S


def test_what_is_no_fault_of_the_file_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "full.mp4").write_text("")
    with pytest.raises(UsageError, match="the disk is full"):
        list(read_apart(at_its_name, [MediaFile("full", tmp_path / "full.mp4")]))
