"""The answer for a file as data: JSON, tables, ranks."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.scoring.prediction import Prediction, frame_of
from avbench.scoring.regimes import WEAK_MATCH, Evidence, Regime
from avbench.scoring.tolerance import tolerance_asked, tolerance_of

P = np.full(21, 0.01)
P[12], P[13] = 0.51, 0.3
FINE = Regime(0.0, 20.0, 0.0, 0.004, 0.99, "sure", 9)
LATE = Regime(20.0, 31.23456, -0.6, 0.03, 0.9, "likely", 4)
VAGUE = Regime(20.0, 31.0, -1.6, 0.3, 0.5, "unsure", 4)
NEAR = Regime(0.0, 20.0, 0.023, 0.018, 0.99, "likely", 8)
HEADER = (
    "path,model,start_s,end_s,offset_s,spread_s,confidence,words,in_words,windows,why,within_itu-detect,"
    "within_itu-accept,within_atsc,within_ebu,asked,verdict,why_not_judged,error"
)
NOTHING = Regime(0.0, 31.0, None, None, 0.0, "no evidence", 0, "the sound is silent")


def answer(*regimes: Regime, **changes: object) -> Prediction:
    windows = (Evidence(0.0, np.log(P), np.log(P)), Evidence(2.0, None, None, why="the sound is silent"))
    plain = Prediction("a.mp4", Path("/x/a.mp4"), "toy+bayes", 2.0, duration_s=31.23456, windows=windows)
    return replace(plain, regimes=regimes, **changes)  # type: ignore[arg-type]


def test_json_is_what_is_promised() -> None:
    told = answer(FINE, LATE, video_track=1, audio_track=2, warnings=("w",)).as_json()
    json.dumps(told, allow_nan=False)
    assert (told["path"], told["duration_s"], told["audio_track"], told["video_track"]) == ("a.mp4", 31.2346, 2, 1)
    assert (told["windows"], told["warnings"], told["error"]) == (2, ["w"], None)
    assert told["tolerance"] == dict.fromkeys(("itu-detect", "itu-accept", "atsc", "ebu"), False)
    expected = {"start_s": 20.0, "end_s": 31.2346, "offset_s": -0.6, "spread_s": 0.03, "confidence": 0.9}
    assert expected.items() <= told["regimes"][1].items()
    assert (told["regimes"][1]["words"], told["regimes"][1]["in_words"]) == ("likely", "audio 0.6 s late")
    assert told["regimes"][0]["tolerance"]["ebu"] is True
    nothing = answer(NOTHING, asked=tolerance_of("-0.1/0.1")).as_json()
    assert nothing["tolerance"]["-0.1/0.1"] is None
    assert (nothing["regimes"][0]["offset_s"], nothing["regimes"][0]["why"]) == (None, "the sound is silent")
    failed = answer(error="it is empty").as_json()
    assert (failed["error"], failed["regimes"], set(failed["tolerance"].values())) == ("it is empty", [], {None})


def test_a_name_that_is_no_text_is_escaped() -> None:
    odd = answer(FINE, path=os.fsdecode(b"./\xff.mp4"))
    json.dumps(odd.as_json()).encode("ascii")
    assert odd.as_json()["path"] == r"\xff.mp4"
    assert answer(FINE, path="./ü\\.mp4").as_json()["path"] == "./ü\\.mp4"


def test_the_frame_has_a_row_a_window() -> None:
    frame = answer(FINE).frame()
    assert len(frame) == 2
    assert list(frame.columns) == [
        "start_s",
        "offset_s",
        *(f"p_{k / 5:+.1f}" for k in range(-10, 11)),
        "reason",
    ]
    assert frame["offset_s"][0] == pytest.approx((0.2 * 0.01 + 0.4 * 0.51 + 0.6 * 0.3) / 0.82)
    assert frame["p_+0.4"][0] == pytest.approx(0.51)
    assert np.isnan(frame["offset_s"][1])
    assert np.isnan(frame["p_+0.4"][1])
    assert frame["reason"].tolist() == ["", "the sound is silent"]
    assert len(Prediction("a", Path("a"), "m", 2.0).frame()) == 0


def test_the_worst_is_first_and_failures_are_last() -> None:
    worse = replace(LATE, offset_s=-0.9)
    order = [
        answer(FINE, worse),
        answer(FINE, LATE),
        answer(LATE, asked=tolerance_of("-0.1/0.5")),
        answer(VAGUE),
        answer(NOTHING),
        answer(FINE),
        answer(error="it is empty"),
    ]
    for k, one in enumerate(order):
        order[k] = replace(one, path=f"{9 - k}.mp4") if k != 2 else replace(one, path="0.mp4")
    assert [p.path for p in sorted(order, key=lambda p: p.rank)] == [order[k].path for k in (0, 2, 1, 3, 4, 5, 6)]
    assert answer(LATE, asked=tolerance_of("-0.9/0.5")).within is True
    assert answer(FINE, LATE).worst == LATE


def test_a_table_has_a_row_a_regime() -> None:
    frame = frame_of([answer(FINE, LATE), answer(error="it is empty")])
    assert frame["error"].tolist() == ["", "", "it is empty"]
    assert frame["within_ebu"].tolist() == ["yes", "no", ""]
    assert frame["start_s"].tolist()[:2] == [0.0, 20.0]


@given(
    kinds=st.lists(st.sampled_from([(FINE,), (FINE, LATE), (VAGUE,), (NOTHING,), ()]), max_size=4),
    asked=st.sampled_from([None, "ebu", "0.5/0.1"]),
)
def test_any_mix_of_files_has_the_same_columns_of_the_same_types(
    kinds: list[tuple[Regime, ...]], asked: str | None
) -> None:
    table = tolerance_asked(asked) if asked else None
    answers = [answer(*regimes, asked=table, error="" if regimes else "it is empty") for regimes in kinds]
    lines = frame_of(answers).to_csv(index=False).splitlines()
    assert lines[0] == HEADER
    rows = list(csv.DictReader(lines))
    assert len(rows) == sum(max(len(regimes), 1) for regimes in kinds)
    assert {row["windows"] for row in rows} <= {"9", "4", "0", ""}
    assert [row["windows"] == "" for row in rows] == [bool(row["error"]) for row in rows]
    assert [row["verdict"] == "" for row in rows] == [bool(asked is None or row["error"]) for row in rows]
    assert len({frozenset(one.as_json()) for one in answers}) <= 1


@pytest.mark.parametrize(
    ("regimes", "asked", "verdict"),
    [
        ((FINE,), "ebu", "within ebu"),
        ((FINE, VAGUE, LATE), "ebu", "outside ebu"),
        ((NEAR,), "atsc", "not judged: atsc (its limits are nearer than the spread allows)"),
        ((FINE, VAGUE), "ebu", "not judged: ebu (the model is unsure)"),
        ((replace(VAGUE, why=WEAK_MATCH),), "ebu", f"not judged: ebu (the model is unsure: {WEAK_MATCH})"),
        ((NOTHING,), "0.1/0.1", "not judged: 0.1/0.1 (no evidence: the sound is silent)"),
        ((FINE,), None, ""),
    ],
)
def test_the_tolerance_asked_for_is_answered(regimes: tuple[Regime, ...], asked: str | None, verdict: str) -> None:
    told = answer(*regimes, asked=tolerance_asked(asked) if asked else None)
    assert told.verdict == verdict
    word, _, why = verdict.partition(f" {asked}")
    data = told.as_json()
    assert data["asked"] == asked
    assert data["verdict"] == (word.rstrip(":") or None)
    assert data["why_not_judged"] == (why[2:-1] or None)
    last = frame_of([answer(*regimes, asked=told.asked)]).iloc[-1]
    assert last["asked"] == (asked or "")
