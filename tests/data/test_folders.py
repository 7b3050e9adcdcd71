"""What a folder holds is taken, refused by name or passed over by name; nothing is left out in silence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.data.folders import find_media
from avbench.types import UsageError


@pytest.fixture
def clip(make_clicks: Callable[..., Path]) -> Path:
    return make_clicks("source", clips=("one",), duration_s=4) / "media" / "one.mp4"


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_endings_of_videos_in_any_case_are_taken_as_they_are(tmp_path: Path) -> None:
    """Also what cannot be read: it is refused later, by name."""
    wanted = sorted(["a.mp4", "b.M4V", "c.MTS", "d.mpg", "e.vob", "f.FLV", "g.wmv", "h.3gp", "i.rmvb", "j.m2ts"])
    for name in wanted:
        (tmp_path / "deep" / "er").mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / "er" / name).write_text("not a video")
    (tmp_path / "deep" / "gone.mkv").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find_media([tmp_path])
    assert sorted(names(found.files)) == sorted([*wanted, "gone.mkv", "pipe.mp4"])
    assert not found.passed_over


def test_other_endings_are_decided_by_what_is_in_the_file(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(clip, folder / "GOPR0001.LRV")
    shutil.copy(clip, folder / "no ending")
    (folder / "README").write_text("text")
    (folder / "x.dat").write_bytes(bytes(1000))
    found = find_media([folder])
    assert names(found.files) == ["GOPR0001.LRV", "no ending"]
    assert list(found.passed_over) == ["README", "x.dat"]
    assert all(why.startswith("is not a readable media file (") for why in found.passed_over.values())


def test_what_is_no_media_is_passed_over_and_named(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / ".git" / "deep").mkdir(parents=True)
    shutil.copy(clip, folder / "one.mp4")
    shutil.copy(clip, folder / ".git" / "deep" / "two.mp4")
    shutil.copy(clip, folder / "._one.mp4")
    (folder / "elsewhere").symlink_to(clip.parent)
    (folder / "linked.mp4").symlink_to(clip)
    many = ["a.txt", "b.JSON", "c.srt", "d.jpg", "e.sha256", "f.parquet", "g.part"]
    for name in (*many, "one.avbench.html"):  # no word about a page of our own
        (folder / name).write_text("")
    found = find_media([folder])
    assert found.files == sorted([folder / "one.mp4", clip])
    assert set(found.passed_over) == {*many, ".git", "._one.mp4", "elsewhere"}
    assert found.left_out() == [
        "._one.mp4, .git: hidden",
        "a.txt, b.JSON, c.srt, d.jpg, e.sha256 and 2 more: not a video by its name",
        "elsewhere: a link to a folder; name it to have it searched",
    ]


def test_a_file_that_is_named_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden"):
        (tmp_path / name).write_text("")
    assert names(find_media([tmp_path / "notes.txt", tmp_path / ".hidden"]).files) == [".hidden", "notes.txt"]


def test_the_output_is_not_searched(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "videos" / "out"
    (out / "media").mkdir(parents=True)
    shutil.copy(clip, out / "media" / "copy.mp4")
    shutil.copy(clip, tmp_path / "videos" / "one.mp4")
    found = find_media([tmp_path / "videos"], besides=out)
    assert names(found.files) == ["one.mp4"]
    assert found.left_out() == ["out: the output"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "one.mp4").write_text("")
    try:
        assert find_media([tmp_path]).left_out() == ["closed: cannot be searched: Permission denied"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_nothing_found_says_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"no video files found; passed over: notes\.txt: not a video by its name"):
        find_media([tmp_path])
    with pytest.raises(UsageError, match="none does not exist"):
        find_media([tmp_path / "none"])


def test_names_that_are_no_text_are_found_and_named_safely(tmp_path: Path) -> None:
    for raw in (b"caf\xe9.mp4", b"new\nline.mp4", b"-x: 100%41 #.mp4", b"\x1b[31mred\xff.txt"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + raw)).write_text("")
    found = find_media([tmp_path])
    assert {os.fsencode(file.name) for file in found.files} == {b"caf\xe9.mp4", b"new\nline.mp4", b"-x: 100%41 #.mp4"}
    assert found.left_out() == ["?[31mred?.txt: not a video by its name"]
