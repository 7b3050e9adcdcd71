"""A folder that holds something is refused before the work."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from avbench.system.outputs import check_file, check_folder, claim, claimed
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
    with pytest.raises(UsageError, match=r"already holds b, c, notes\.txt and 1 more; give --force to write there"):
        check_folder(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="already holds a manifest; give --force"):
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


def test_names_that_the_command_itself_writes_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("")
    check_folder(tmp_path, ours={"run.json"}.__contains__)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"already holds thesis\.tex; give --force"):
        check_folder(tmp_path, ours={"run.json"}.__contains__)


def test_a_file_is_checked_before_the_work(tmp_path: Path) -> None:
    check_file(tmp_path / "a.csv", "--csv")
    check_file(tmp_path / "new" / "a.csv", "--csv")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"--csv .* is a folder; name a file in it"):
        check_file(tmp_path, "--csv")
    (tmp_path / "a.csv").write_text("")
    check_file(tmp_path / "a.csv", "--csv")
    with pytest.raises(UsageError, match=r"is there already; give --force to replace it, or choose another --out"):
        check_file(tmp_path / "a.csv", "--out", force=False)
    with pytest.raises(AvbenchError, match=r"cannot write to .*; choose another folder with --csv"):
        check_file(tmp_path / "a.csv" / "b.csv", "--csv")


def test_folders_claimed_at_the_same_moment_are_all_different(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        folders = pool.map(claim, [tmp_path / "runs" / "today"] * 40, chunksize=1)
    assert len(set(folders)) == 40
    assert {folder.name for folder in folders} == {"today", *(f"today-{n}" for n in range(2, 41))}


def test_a_claimed_folder_is_given_back_if_nothing_came_of_it(tmp_path: Path) -> None:
    with claimed(tmp_path / "runs" / "a") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "runs").exists()
    with claimed(tmp_path / "runs" / "a") as folder:
        (folder / "run.json").write_text("")
    with claimed(tmp_path / "runs" / "a") as second:
        assert second == tmp_path / "runs" / "a-2"
    assert (tmp_path / "runs" / "a" / "run.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(AvbenchError, match=r"cannot write to .*file: .*; choose --out"):
        claim(tmp_path / "file" / "a")
