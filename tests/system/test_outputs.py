"""A folder that holds something is refused before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avbench.system.outputs import check_folder
from avbench.types import AvbenchError, UsageError


def test_a_new_or_an_empty_folder_is_taken_and_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    (tmp_path / ".DS_Store").write_text("")
    check_folder(tmp_path)
    assert not (tmp_path / "a").exists()


def test_what_a_folder_holds_is_named(tmp_path: Path) -> None:
    for name in ("notes.txt", "c", "b", "segments.parquet"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=r"already holds b, c, notes\.txt and 1 more; give --force to replace it"):
        check_folder(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="already holds another manifest; give --force"):
        check_folder(tmp_path)
    check_folder(tmp_path, force=True)
    with pytest.raises(UsageError, match="is not a folder"):
        check_folder(tmp_path / "notes.txt", force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for folder in (tmp_path, tmp_path / "a" / "b"):
            with pytest.raises(AvbenchError, match=rf"cannot write to {tmp_path}: .*--out"):
                check_folder(folder)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a folder where nobody can write")
def test_a_folder_that_cannot_be_made_is_told_before_the_work() -> None:
    with pytest.raises(AvbenchError, match="cannot write to /proc"):
        check_folder(Path("/proc/no/such"))
