"""Names that are no text come back from a table as they were, and none of them leads elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.system.paths import (
    as_file_name,
    has_foreign_backslash,
    path_of,
    path_text,
    shown,
    why_no_file,
    without_name,
)

NAMES = st.binary(min_size=1, max_size=40).map(lambda b: b.replace(b"\0", b"")).filter(lambda b: b.strip(b"/."))


@given(NAMES)
def test_every_name_comes_back(raw: bytes) -> None:
    path = Path(os.fsdecode(raw))
    text = path_text(path)
    text.encode("utf-8")  # tables and JSON hold it
    assert path_of(text) == path
    assert not has_foreign_backslash(text)


def test_ordinary_names_are_written_as_they_are() -> None:
    for name in ("a b/ü.mp4", "100%41 #1: x.mp4", "-x.mp4", "日本語.mkv", "a\tb", "My%20Video.mp4"):
        assert path_text(Path(name)) == name
        assert path_of(name) == Path(name)  # also from tables that were written before there were escapes
    assert path_text(os.fsdecode(b"caf\xe9.mp4")) == r"caf\xe9.mp4"
    assert path_text(r"a\xe9") == r"a\x5cxe9"


def test_a_colon_makes_no_drive() -> None:
    for name in ("a:b.mp4", "C:/x.mp4"):
        assert path_text(Path(name)) == f"./{name}"
        assert path_of(f"./{name}") == Path(name)
    assert path_text("/C:/x") == "/C:/x"


@pytest.mark.parametrize("text", [r"\x2e\x2e/a", r"a\x2fb", r"a\x00", r"..\a", r"\xE9", r"\x5"])
def test_no_escape_stands_for_a_separator_a_dot_or_nothing(text: str) -> None:
    assert has_foreign_backslash(text)
    assert path_of(text) == Path(text)


@given(st.text(max_size=120))
def test_a_file_name_is_one_part_that_any_system_takes(text: str) -> None:
    name = as_file_name(text)
    assert len(name.encode()) <= 150
    assert not set(name) & set('/\\:*?"<>| \0\n')
    assert as_file_name(name) == name


def test_paths_are_shown_as_a_person_would_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a" / "b\n.mp4") == "a/b .mp4"
    assert shown("a/b.mp4") == "a/b.mp4"
    assert shown("/elsewhere/b.mp4") == "/elsewhere/b.mp4"
    for path in (tmp_path / "a.mp4", Path("a.mp4")):
        assert without_name("a.mp4 is empty", path) == "is empty"
    assert without_name(f"{tmp_path}/a.mp4 is empty", tmp_path / "a.mp4") == "is empty"


def test_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pipe, link = tmp_path / "file", tmp_path / "pipe", tmp_path / "link"
    file.write_text("")
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert why_no_file(file) == ""
    assert why_no_file(pipe) == "is a named pipe, not a file"
    assert why_no_file(tmp_path) == "is a folder, not a file"
    assert why_no_file(Path("/dev/zero")) == "is a device, not a file"
    assert why_no_file(link) == "is a link to nothing"
    assert why_no_file(tmp_path / "none") == "does not exist"
    assert "cannot be read" in why_no_file(loop)
    assert "cannot be read" in why_no_file(Path("a\0b"))
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path)  # an address may not be long
        bound.bind("socket")
        assert why_no_file(tmp_path / "socket") == "is a socket, not a file"
