"""Answers in words for a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avbench.pages.predict_text import clock, in_text, table_of
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import Regime
from avbench.scoring.tolerance import tolerance_of

NEWS = Prediction(
    "news.mp4",
    Path("news.mp4"),
    "synchformer.lrs3+bayes",
    2.0,
    duration_s=751.0,
    fps=29.97,
    tracks=("picture track 1 of 1", "sound track 1 of 2 (default)"),
    regimes=(
        Regime(0.0, 192.0, 0.01, 0.01, 0.99, "sure", 90),
        Regime(192.0, 740.0, -0.62, 0.05, 0.99, "sure", 270),
        Regime(740.0, 751.0, None, None, 0.0, "no evidence", 0, "the sound is silent"),
    ),
    warnings=("the picture is interlaced",),
    repair="ffmpeg -n ...",
)


def test_a_file_is_told_as_a_person_would() -> None:
    outside = "outside itu-detect, itu-accept, atsc, ebu"
    within = "within itu-detect, itu-accept, ebu · not judged atsc"
    assert in_text(NEWS, "news.avbench.html").splitlines() == [
        "news.mp4   12:31 · 29.97 fps · picture track 1 of 1 · sound track 1 of 2 (default) · synchformer.lrs3+bayes",
        f"  0:00 - 3:12    audio 0.01 s early                 +0.01 ±0.01 s  sure  {within}",
        f"  3:12 - 12:20   audio 0.62 s late                  −0.62 ±0.05 s  sure  {outside}",
        "  12:20 - 12:31  no evidence (the sound is silent)",
        "  note      the picture is interlaced",
        "  timeline  news.avbench.html",
        "  fix       ffmpeg -n ...   (not run)",
    ]
    assert in_text(Prediction("b.mp4", Path("b"), "m", 2.0, error="it is empty")) == "b.mp4   error: it is empty"


def test_a_table_of_files() -> None:
    failed = Prediction("b.mp4", Path("b"), "m", 2.0, error="it is empty")
    silent = replace(NEWS, path="c.mp4", regimes=NEWS.regimes[2:])
    fine = replace(NEWS, path="d.mp4", regimes=NEWS.regimes[:1], asked=tolerance_of("ebu"))
    lines = table_of([failed, silent, fine, NEWS]).splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["news.mp4", "c.mp4", "d.mp4", "b.mp4"]
    assert lines[1].startswith("outside     audio 0.62 s late, 2 changes")
    assert "no evidence (the sound is silent)" in lines[2]
    assert lines[6:10] == [
        "model       synchformer.lrs3+bayes",
        "not judged  no evidence: the sound is silent (1 of 3 files)",
        "note        the picture is interlaced",
        lines[-1],
    ]
    assert lines[-1] == "4 files: 1 outside, 1 not judged, 1 within, 1 error (tolerance ebu)"


def test_the_tolerance_asked_for_is_named_whatever_the_answer() -> None:
    vague = Regime(0.0, 751.0, -1.6, 0.3, 0.96, "unsure", 90, "weak evidence")
    for regimes, row, said in (
        (NEWS.regimes[:1], "within itu-detect", "not judged: atsc (its limits are nearer than the spread allows)"),
        ((vague,), "unsure  not judged", "not judged: atsc (the model is unsure)"),
        (NEWS.regimes[1:2], "outside itu-detect", "outside atsc"),
    ):
        told = replace(NEWS, regimes=regimes, asked=tolerance_of("atsc"))
        lines = in_text(told).splitlines()
        assert row in lines[1]
        assert f"  asked     {said}" in lines
        many = table_of([told, replace(told, path="b.mp4")])
        assert said.partition(": atsc (")[2].rstrip(")") in many
        assert "tolerance atsc" in many


@pytest.mark.parametrize(
    ("time_s", "told"),
    [(0, "0:00"), (1.5, "0:01.5"), (9.97, "0:10"), (40.9, "0:41"), (192, "3:12"), (3723.2, "1:02:03"), (59.6, "1:00")],
)
def test_the_clock(time_s: float, told: str) -> None:
    assert clock(time_s) == told
