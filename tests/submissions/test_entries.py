"""The accepted entries stay valid: the checker still accepts every entry that it accepted before."""

from __future__ import annotations

from pathlib import Path

import pytest

from avbench.submissions.check import check

ENTRIES = Path(__file__).resolve().parents[2] / "submissions" / "entries"
FOLDERS = sorted(path.parent for path in ENTRIES.glob("*/*/*/submission.json"))


def test_there_are_some() -> None:
    assert len(FOLDERS) >= 9


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.parts[-3])
def test_an_entry_is_right(folder: Path) -> None:
    report = check(folder, n_resamples=0)
    assert report.ok, report.errors
