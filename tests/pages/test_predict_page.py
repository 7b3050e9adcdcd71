"""The page of an answer: it stands alone, says what was found, and joins the timeline to the file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browser import DESKTOP, PHONE, opened, overlapping
from pages import read

from avbench.data.clicks import click_and_flash
from avbench.pages.predict_page import index_page, predict_page
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import Evidence, Regime
from avbench.scoring.tolerance import tolerance_of
from avbench.types import OffsetGrid


def believed(offset_s: float) -> np.ndarray:
    p = np.full(21, 0.005)
    p[OffsetGrid().class_of(offset_s)] = 0.9
    return np.log(p)


def answer(path: str = "a.webm", **changes: object) -> Prediction:
    windows = [Evidence(t, believed(o), believed(o)) for t, o in ((0.0, 0.4), (2.0, 0.4), (4.0, -0.6))]
    plain = Prediction(
        path=path,
        file=Path(path),
        model="toy+bayes",
        hop_s=2.0,
        duration_s=11.0,
        fps=29.97,
        video_track=1,
        audio_track=2,
        tracks=("picture track 1 of 1", "sound track 2 of 3"),
        windows=(*windows, Evidence(6.0, None, None, why="the sound is silent")),
        regimes=(
            Regime(0.0, 6.0, 0.41, 0.03, 0.99, "sure", 2),
            Regime(6.0, 9.0, -0.6, 0.05, 0.8, "likely", 1),
            Regime(9.0, 11.0, None, None, 0.0, "no evidence", 0, "the sound is silent"),
        ),
        warnings=("the picture is <b>interlaced</b>",),
        repair="ffmpeg -n -i './a b'",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_it_stands_alone_and_says_what_was_found() -> None:
    text = predict_page(answer(), "SGVsbG8=", "a%20b.webm", 3.0)
    assert text == predict_page(answer(), "SGVsbG8=", "a%20b.webm", 3.0)
    seen = read(text)
    assert seen.unclosed == []
    assert "media-src 'self' file:" in seen.policy
    assert {value for tag, name, value in seen.attributes if name == "src"} == {
        "a%20b.webm",
        "data:image/jpeg;base64,SGVsbG8=",
    }
    assert not [name for _, name, _ in seen.attributes if name == "style" or name.startswith("on")]
    for said in (
        "The offset changes: 3 stretches in 0:11.",
        "the picture is <b>interlaced</b>",
        "audio 0.41 s early",
        "no evidence (the sound is silent)",
        "+0.41 ±0.03 s",
        "ffmpeg -n -i './a b'",
        "29.97 fps; picture track 1 of 1, sound track 2 of 3",
        "4, one each 2 s, each of 5 s; 1 without evidence",
        "The worst moment: 0:03, audio 0.6 s late.",
    ):
        assert said in seen.text, said
    assert "<b>interlaced" not in text
    assert text.count('class="muted"') == 2  # one window, on the wide timeline and on the narrow one
    assert text.count('class="within"') == 2 * 4


def test_without_a_video_nothing_may_be_played_and_nothing_seeks() -> None:
    seen = read(predict_page(answer(regimes=answer().regimes[:1]), video=""))
    assert "media-src" not in seen.policy
    assert not {"video", "button", "img"} & set(seen.tags)
    assert "Audio 0.41 s early throughout, +0.41 ±0.03 s: sure." in seen.text


def test_a_tolerance_of_the_users_own_is_drawn_and_judged() -> None:
    text = predict_page(answer(asked=tolerance_of("-0.1/0.5")))
    assert text.count('class="within"') == 2 * 5
    assert "-0.1/0.5" in read(text).text
    assert text.count('<td class="right" data-of="-0.1/0.5">within</td>') == 1


def test_a_file_that_failed_has_a_page_that_says_why() -> None:
    failed = Prediction("b<.mp4", Path("b<.mp4"), "xcorr+bayes", 2.0, error="it is empty")
    seen = read(predict_page(failed))
    assert "This file could not be answered: it is empty" in seen.text
    assert "b<.mp4" in seen.text


def test_the_index_leads_to_the_pages_the_worst_first() -> None:
    failed = Prediction("broken.mp4", Path("broken.mp4"), "xcorr+bayes", 2.0, error="it is empty")
    fine = answer("fine.mp4", regimes=(Regime(0.0, 11.0, 0.0, 0.004, 0.99, "sure", 4),))
    seen = read(index_page([failed, fine, answer("worst.mp4")], ["", "fine.html", "worst.html"]))
    places = [seen.text.index(name) for name in ("worst.mp4", "fine.mp4", "broken.mp4")]
    assert places == sorted(places)
    assert [value for _, name, value in seen.attributes if name == "href" and value != "data:,"] == [
        "worst.html",
        "fine.html",
    ]
    assert "3 files" in seen.text


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page beside a file that every Chromium plays."""
    import av

    folder = tmp_path_factory.mktemp("watched")
    frames, _ = click_and_flash(11)
    with av.open(str(folder / "a b.webm"), "w") as file:
        stream = file.add_stream("libvpx", rate=25)
        stream.width = stream.height = 64
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode())
    with av.open(str(folder / "sound.webm"), "w") as file:
        sound = file.add_stream("libopus", rate=48_000, layout="mono")
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), "s16", "mono")
        quiet.sample_rate = 48_000
        file.mux(sound.encode(quiet))
        file.mux(sound.encode())
    (folder / "broken.webm").write_bytes(b"no media")
    (folder / "page.html").write_text(predict_page(answer(), "", "a%20b.webm"))
    (folder / "broken.html").write_text(predict_page(answer(), "", "broken.webm"))
    (folder / "sound.html").write_text(predict_page(answer(), "", "sound.webm"))
    return folder


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_click_on_the_timeline_seeks_the_video(watched: Path, size: tuple[int, int]) -> None:
    with opened(watched / "page.html", size) as seen:
        page = seen.page
        page.wait_for_function("() => document.querySelector('video').readyState >= 1", timeout=20_000)
        assert page.locator("figcaption").inner_text() == "Now: audio 0.41 s early +0.41 ±0.03 s", "before any click"
        hit = page.locator("svg.timeline:visible .hit").bounding_box()
        for share, told in ((0.75, "audio 0.6 s late"), (0.25, "audio 0.41 s early"), (0.95, "no evidence")):
            page.mouse.click(hit["x"] + share * hit["width"], hit["y"] + hit["height"] / 2)
            page.wait_for_function(f"() => Math.abs(document.querySelector('video').currentTime - {share * 11}) < 0.1")
            assert told in page.locator("output").inner_text()
            cursor = page.locator("svg.timeline:visible .cursor").bounding_box()
            assert cursor["x"] - hit["x"] == pytest.approx(share * hit["width"], abs=3)
            assert page.locator("tr.now").count() == 1
        page.locator("button[data-at]").nth(1).click()
        page.wait_for_function("() => Math.abs(document.querySelector('video').currentTime - 6) < 0.1")
        assert page.locator("#unplayable").is_hidden()
        assert page.locator("#unseen").is_hidden()
        assert seen.overflow_px == 0
        assert seen.errors == []
        assert seen.requests == []


@pytest.mark.parametrize(
    ("name", "note", "said"),
    [("broken", "unplayable", "cannot play this file"), ("sound", "unseen", "plays only the sound of this file")],
)
def test_what_the_browser_cannot_play_is_said(watched: Path, name: str, note: str, said: str) -> None:
    with opened(watched / f"{name}.html") as seen:
        seen.page.wait_for_function(f"() => !document.getElementById('{note}').hidden", timeout=20_000)
        told = seen.page.locator("figcaption").first.inner_text()
        assert f"This browser {said}" in told
        assert ("Now:" in told) == (name == "sound"), "nothing is now where nothing can be played"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_words_of_the_timeline_are_beside_what_is_drawn_and_the_table_is_whole(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    asked = answer("a_name_without_any_space_" * 3 + ".webm", asked=tolerance_of("-0.1/0.5"))
    (tmp_path / "page.html").write_text(predict_page(asked))
    (tmp_path / "index.html").write_text(index_page([asked, answer()], ["page.html", ""]))
    with opened(tmp_path / "page.html", size) as seen:
        assert not overlapping(seen.page, "svg.timeline text")
        drawn = overlapping(
            seen.page, "svg.timeline .label, svg.timeline .band, svg.timeline .line, svg.timeline .muted"
        )
        assert not [pair for pair in drawn if any(pair)], "drawn over a word"
        words = seen.page.locator("svg.timeline:visible .label").all_text_contents()
        assert list(filter(None, words)) == ["↑ sound early (s)", "↓ sound late"]
        assert hidden_px(seen.page) == 0
        assert seen.overflow_px == 0
        assert "outside" in seen.page.locator("table.regimes tbody tr").first.inner_text()
    with opened(tmp_path / "index.html", size) as seen:
        assert hidden_px(seen.page) == 0
        assert seen.overflow_px == 0


def hidden_px(page: Any) -> int:
    """How much of the table can only be seen by scrolling it sideways."""
    return page.evaluate(
        "(() => { const e = document.querySelector('.scroll'); return e.scrollWidth - e.clientWidth; })()"
    )


def test_a_bar_that_lies_elsewhere_than_the_line_is_explained() -> None:
    far = answer(regimes=(Regime(0.0, 11.0, -0.33, 0.02, 0.5, "unsure", 3),))
    told = "0:00 – 0:11: the line ends at −0.60 s, the bar lies at −0.33 s. The bar is the answer"
    assert f"{told}, and the model is unsure of both." in read(predict_page(far)).text
    assert "The bar is the answer" not in read(predict_page(answer())).text


def test_the_page_answers_the_tolerance_that_was_asked_for() -> None:
    near = Regime(0.0, 11.0, 0.023, 0.018, 0.99, "likely", 8)
    told = answer(regimes=(near,), asked=tolerance_of("atsc"))
    assert (
        "The tolerance asked for: not judged: atsc (its limits are nearer than the spread allows)."
        in read(predict_page(told)).text
    )


def test_a_file_without_an_answer_says_only_why() -> None:
    broken = Prediction("b.mp4", Path("b.mp4"), "toy+bayes", 2.0, error="is not a readable media file")
    text = read(predict_page(broken)).text
    assert "This file could not be answered: it is not a readable media file." in text
    assert "What was read" not in text
    assert "toy" not in text
    other = replace(broken, error="there is no sound track 3; the file has 2")
    said = "This file could not be answered: there is no sound track 3; the file has 2."
    assert said in read(predict_page(other)).text


def test_the_index_says_once_what_answered_and_why_nothing_is_judged() -> None:
    vague = answer(regimes=(Regime(0.0, 11.0, -1.6, 0.3, 0.96, "unsure", 3),), warnings=("weak evidence",))
    text = read(index_page([vague, replace(vague, path="b.webm")], ["", ""])).text
    assert [text.count(said) for said in ("toy+bayes", "the model is unsure", "weak evidence")] == [1, 1, 1]
