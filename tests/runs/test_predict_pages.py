"""Where pages go, what they may replace, and the picture of the worst moment."""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.runs.predict import Asked
from avbench.runs.predict_pages import address, check_pages, pages_beside, pages_in, worst_moment_s, write_pages
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import Evidence, Regime
from avbench.types import UsageError


def test_pages_lie_beside_their_files_or_in_a_folder(tmp_path: Path) -> None:
    files = [Asked(tmp_path / "a.mp4", "a.mp4"), Asked(tmp_path / "x" / "a.mp4", "x/a.mp4"), Asked(tmp_path / "s", "-")]
    gone = Asked(Path("gone"), "gone", "does not exist")
    assert [str(p) for p in pages_beside([*files, gone]).values()] == [
        "a.avbench.html",
        "x/a.avbench.html",
        "stdin.avbench.html",
    ]
    assert sorted(p.name for p in pages_in(tmp_path / "out", [*files, gone]).values()) == [
        "a.avbench.html",
        "s.avbench.html",
        "x--a.avbench.html",
    ]
    twice = pages_beside([Asked(tmp_path / "a.mp4", "a.mp4"), Asked(tmp_path / "a.mkv", "a.mkv")])
    with pytest.raises(UsageError, match=r"several files would have their page at a\.avbench\.html; give --out DIR"):
        check_pages(list(twice.values()))


def test_pages_keep_the_letters_of_all_scripts_and_never_share_a_name(tmp_path: Path) -> None:
    names = [
        "日本語.mp4",
        "中文.mp4",
        "Grüße 1.mp4",
        "🎬.mp4",
        "🎥.mp4",
        "a?b.mp4",
        "a*b.mp4",
        "A_b.mp4",
        "c\u202ed\n.mp4",
    ]
    names += [os.fsdecode(b"\xff.mp4"), os.fsdecode(b"\xfe.mp4"), "語" * 80 + ".mp4", "言" + "語" * 79 + ".mp4"]
    pages = pages_in(tmp_path, [Asked(tmp_path / name, name) for name in names])
    found = [page.name.removesuffix(".avbench.html") for page in pages.values()]
    assert found[:5] == ["日本語", "中文", "Grüße_1", "🎬", "🎥"]
    assert found[5:9] == ["a_b.mp4", "a_b.mp4~2", "A_b.mp4~3", "c_d_"]
    assert len({name.casefold() for name in found}) == len(names)
    for page in pages.values():
        assert len(page.name.encode()) < 255
        page.write_text("")


def test_only_pages_of_ours_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    check_pages([page])
    page.write_text("<p>mine</p>")
    with pytest.raises(UsageError, match="is there and not a page of avbench predict"):
        check_pages([page])
    check_pages([page], force=True)
    write_pages([Prediction("a", tmp_path / "a", "m", 2.0, error="it is empty")], {tmp_path / "a": page})
    check_pages([page])


@pytest.mark.parametrize("name", [b"a b.mp4", b"\xff#?%.mp4", "grüße&<.mp4".encode()])
def test_an_address_leads_to_the_file(name: bytes, tmp_path: Path) -> None:
    file = tmp_path / "media" / os.fsdecode(name)
    link = address(file, tmp_path / "pages" / "p.html")
    assert not set(link) & set(" #?<>\"'&")
    assert link.startswith("../media/")
    assert os.fsencode(tmp_path / "pages") + b"/" + urllib.parse.unquote_to_bytes(link) == (
        bytes(tmp_path) + b"/pages/../media/" + name
    )


def test_the_worst_moment_is_a_window_of_the_worst_regime() -> None:
    windows = [Evidence(t, None if t in (8.0, 10.0) else np.zeros(21), np.zeros(21) if t not in (8.0, 10.0) else None)
               for t in np.arange(0, 30, 2.0).tolist()]  # fmt: skip
    late, fine = Regime(4.0, 20.0, -0.6, 0.03, 0.9, "likely"), Regime(20.0, 35.0, 0.0, 0.03, 0.99, "sure")
    plain = Prediction("a", Path("a"), "m", 2.0, duration_s=35.0, windows=tuple(windows), regimes=(late, fine))
    assert worst_moment_s(plain) == 14.5  # windows at 8 and 10 s, nearer to its middle at 12 s, have no evidence
    assert worst_moment_s(Prediction("a", Path("a"), "m", 2.0)) is None


def test_a_page_shows_the_picture_of_its_file(tmp_path: Path) -> None:
    frames, sound = click_and_flash(8)
    encode_clip(tmp_path / "a.mp4", frames, sound)
    regime = Regime(0.0, 8.0, 0.4, 0.02, 0.9, "likely", 2)
    windows = (Evidence(0.0, np.zeros(21), np.zeros(21)),)
    plain = Prediction("a.mp4", tmp_path / "a.mp4", "m", 2.0, duration_s=8.0, fps=25.0, video_track=1)
    told = replace(plain, windows=windows, regimes=(regime,))
    write_pages([told], {told.file: tmp_path / "a.html"})
    text = (tmp_path / "a.html").read_text()
    assert text.count("data:image/jpeg;base64,/9j/") == 1
    assert '<video controls preload="metadata" src="a.mp4"' in text
