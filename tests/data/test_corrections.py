"""Corrections by hand: read strictly, and stronger than what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from avbench.data.annotate import Label
from avbench.data.corrections import Correction, corrected, read_corrections
from avbench.protocol.manifest import read_manifest
from avbench.types import UsageError

HEADER = "segment_id,category,events\n"


def test_cells_say_what_to_change_to_leave_and_to_empty(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text(
        "\ufeff" + HEADER + 'a,other,"Gunshot, gunfire; Speech;"\r\nb,,none\n"c,1",none,\n\n', encoding="utf-8"
    )
    assert read_corrections(file, ["a", "b", "c,1", "d"]) == {
        "a": Correction("other", ("Gunshot, gunfire", "Speech")),
        "b": Correction(None, ()),
        "c,1": Correction("", None),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + "a,other,\nz,other,\n", "row 3: there is no segment 'z' in the data"),
        (HEADER + "a,others,\n", "row 2: 'others' is no category; choose talking head, voice-over, other, none"),
        (HEADER + "a,other,\nb,,\na,,\n", "row 4: segment 'a' is corrected twice"),
        (HEADER + "a,other\n", "row 2: it has 2 cells, there must be 3"),
        (HEADER + "a,other,Dog,Cat\n", "row 2: it has 4 cells"),
        ("segment_id;category;events\na;other;\n", "row 1: the header must be segment_id,category,events"),
        ("", "row 1: the header must be"),
        (HEADER + 'a,"other,\n', "is not a CSV file in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_row(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "c.csv"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_corrections(file, ["a", "b"])
    assert str(file) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(HEADER.encode() + b"a,other,\xff\xfe\n")
    with pytest.raises(UsageError, match=r"c\.csv is not a CSV file in UTF-8"):
        read_corrections(tmp_path / "c.csv", ["a"])
    with pytest.raises(UsageError, match=r"cannot read .*no\.csv"):
        read_corrections(tmp_path / "no.csv", ["a"])


def test_corrections_win_over_what_was_found_and_that_over_what_was_there(clicks: Path) -> None:
    manifest = read_manifest(clicks)
    first, second, third, fourth = (s.id for s in manifest.segments)
    labels = {name: Label("voice-over", ("Speech",)) for name in (first, second, third)}
    by_hand = {second: Correction("other", None), third: Correction(None, ("Dog",)), fourth: Correction("", ())}
    told = {s.id: (s.category, s.events) for s in corrected(manifest, labels, by_hand).segments}
    assert told == {
        first: ("voice-over", ("Speech",)),
        second: ("other", ("Speech",)),
        third: ("voice-over", ("Dog",)),
        fourth: ("", ()),
    }
    assert corrected(manifest, {}, {}).segments == manifest.segments
