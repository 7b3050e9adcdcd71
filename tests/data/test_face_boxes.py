"""Boxes from a file: what is read, and every mistake in one line with its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from avbench.data.face_boxes import read_face_boxes
from avbench.types import UsageError


def written(folder: Path, text: str, name: str = "boxes.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    table = "file,frame,x,y,w,h,who\na.mp4,10,1,2,10,20,x\na.mp4,14,5,2,10,20,\nb.mp4,0,0,0,5,5,\n"
    rows = [
        {"file": "videos/a.mp4", "time_s": 0.40, "x": 1, "y": 2, "w": 10, "h": 20},
        {"file": "a.mp4", "time_s": 0.599, "x": 5, "y": 2.0, "w": 10, "h": 20},
        {"clip": "b", "frame": 0, "x": 0, "y": 0, "w": 5, "h": 5},
    ]
    for path in (written(tmp_path, table), written(tmp_path, json.dumps(rows), "boxes.json")):
        boxes = read_face_boxes(path)
        assert boxes.source == path.name
        (track,) = boxes.of(tmp_path / "a.mp4")
        assert (track.first_frame, track.end_frame) == (10, 15)
        assert np.array_equal(track.boxes[:, 0], [1, 2, 3, 4, 5])
        assert track.boxes[-1].tolist() == [5, 2, 15, 22]
        assert len(boxes.of(Path("elsewhere/b.mp4"))) == 1
        assert boxes.of(Path("c.mp4")) == ()


def test_a_face_that_is_gone_for_more_than_25_frames_is_another_track(tmp_path: Path) -> None:
    rows = "".join(f"a,{k},0,0,9,9\n" for k in (60, 0, 25, 51))  # in any order
    tracks = read_face_boxes(written(tmp_path, "clip,frame,x,y,w,h\n" + rows)).of(Path("a.mkv"))
    assert [(t.first_frame, t.end_frame) for t in tracks] == [(0, 26), (51, 61)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,1,0,0,9", "line 2: there is no h"),
        (",1,0,0,9,9", "line 2: it names no file or clip"),
        ("a,1,0,zero,9,9", "line 2: y is 'zero', it must be a number"),
        ("a,1,0,nan,9,9", "line 2: y is 'nan', it must be a number"),
        ("a,1,0,0,0,9", "line 2: the box is 0 x 9 pixels, it must have an area"),
        ("a,1.5,0,0,9,9", "line 2: frame is 1.5, it must be a whole number"),
        ("a,-1,0,0,9,9", "line 2: frame -1 is before the first"),
        ("a,1,0,0,9,9\na,1,2,2,9,9", "line 3: frame 1 of a has a box already"),
        ("", "has no boxes"),
        ('a,"1', "neither JSON nor a CSV file"),
    ],
)
def test_a_wrong_row_is_one_line(row: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_face_boxes(written(tmp_path, f"file,frame,x,y,w,h\n{row}\n"))
    assert "\n" not in str(caught.value)


def test_other_files_are_one_line(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none.csv", "cannot read"),
        (written(tmp_path, '{"file": 1}', "a.json"), "must be a JSON list of objects"),
        (written(tmp_path, "[1]", "b.json"), "must be a JSON list of objects"),
        (written(tmp_path, "[{", "c.json"), "is not strict JSON"),
        (written(tmp_path, '[{"clip": "a", "x": 1}]', "d.json"), "entry 1: there is no time_s"),
        (written(tmp_path, "x,y\n1,2\n"), "names no file or clip"),
    ):
        with pytest.raises(UsageError, match=said):
            read_face_boxes(path)
