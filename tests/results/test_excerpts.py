"""The record of the clips beside a run: read back, ignored where it is another run's, removed without others' files."""

from __future__ import annotations

from pathlib import Path

from avbench.results.excerpts import FOLDER, RECORD, Cut, Cuts, read_cuts, remove_cuts, write_cuts

SHA, OTHER = "ab" * 32, "cd" * 32
CUTS = [
    Cut(kind="worst", number=1, segment_id="a", start_s=2.0, length_s=8.0),
    Cut(kind="surest", number=1, segment_id="b", reason="it is gone"),
]


def written(run: Path) -> Path:
    folder = run / FOLDER
    folder.mkdir()
    write_cuts(run, Cuts(predictions=SHA, cuts=CUTS))
    for shift in ("seen", "corrected"):
        (folder / CUTS[0].name(shift)).write_bytes(b"clip")
    return folder


def test_what_was_written_is_read_for_the_same_predictions_only(tmp_path: Path) -> None:
    assert read_cuts(tmp_path, SHA) == []
    folder = written(tmp_path)
    assert read_cuts(tmp_path, SHA) == CUTS
    assert read_cuts(tmp_path, OTHER) == []
    (folder / "worst-1-seen.mp4").unlink()
    first, second = read_cuts(tmp_path, SHA)
    assert (first.reason, second.reason) == ("worst-1-seen.mp4 is missing", "it is gone")


def test_a_record_that_is_not_ours_is_as_none(tmp_path: Path) -> None:
    folder = written(tmp_path)
    for text in ("[]", "{", '{"schema_version": 2}', '{"schema_version": 1, "predictions": "x", "cuts": []}'):
        (folder / RECORD).write_text(text)
        assert read_cuts(tmp_path, SHA) == []


def test_only_our_own_files_are_removed(tmp_path: Path) -> None:
    remove_cuts(tmp_path)
    folder = written(tmp_path)
    (folder / "mine.mp4").write_bytes(b"mine")
    remove_cuts(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mine.mp4"]
    (folder / "mine.mp4").unlink()
    remove_cuts(tmp_path)
    assert not folder.exists()


def test_a_folder_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = written(tmp_path / "elsewhere")
    (tmp_path / FOLDER).symlink_to(folder)
    remove_cuts(tmp_path)
    assert (folder / RECORD).exists()
