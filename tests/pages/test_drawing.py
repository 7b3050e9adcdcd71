"""Figures as files: equal bytes, no dates, fonts that can be searched, and small print that fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from avbench.pages.drawing import CAPTION_PER_IN, FORMATS, caption, drawing, write_figure
from avbench.types import UsageError


def drawn(path: Path, text: str = "signature avb|x; n = 3") -> bytes:
    with drawing(4, 2) as figure:
        figure.subplots().plot([0, 1])
        caption(figure, text)
        write_figure(figure, path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_equal_figures_are_equal_files_without_a_date(tmp_path: Path, suffix: str) -> None:
    first, second = (drawn(tmp_path / f"{name}{suffix}") for name in "ab")
    assert first == second
    assert not [word for word in (b"CreationDate", b"<dc:date>", b"tIME", b"/Type3") if word in first]


def test_small_print_is_broken_and_no_formula() -> None:
    with drawing(4, 2) as figure:
        text = "avb|" + "|".join(["w5.000"] * 40) + " and $x$"
        caption(figure, text)
        lines = figure._supxlabel.get_text().split("\n")  # type: ignore[attr-defined]
    assert len(lines) > 2
    assert max(map(len, lines)) <= CAPTION_PER_IN * 4 + 2
    assert "".join(lines) == text.replace("$", r"\$")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.svg or \.png or \.pdf"):
        drawn(tmp_path / "a.gif")
