"""The chapter on changing offsets, on made-up answers whose verdicts are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avbench.paper.changing import (
    APA,
    EXPECTED,
    HEADLINE,
    HELD,
    LSTM,
    NOT_DRAWN,
    NOT_RECOVERED,
    ON_THE_SAME,
    OURS,
    PROTOCOL,
    ROWS,
    TRACKED,
    TRAINED_FOR_IT,
    TRF,
    Followed,
    changing,
    nothing,
)
from avbench.paper.exhibits import FAILS, HOLDS, OPEN, Claim, Exhibit
from avbench.paper.figures import draw
from avbench.paper.write import markdown
from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.manifest import Manifest
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.truth import Truth
from avbench.scoring.calibration import classes_of
from avbench.scoring.dynamic import score
from avbench.scoring.stats import Bootstrap
from avbench.ticks import seconds, ticks
from avbench.types import OffsetGrid, SegmentRecord

BOOT = Bootstrap(60)
N = 42
MISSING = tuple(TRAINED_FOR_IT.values())
LATE = dict.fromkeys(ROWS, 3) | {TRF: 1, LSTM: 6, "oracle": 0, TRAINED_FOR_IT[TRF]: 1}


def made(late: dict[str, int], missing: tuple[str, ...] = MISSING) -> Followed:
    """Streams under all laws, 12 videos; each row says what was so some windows ago, and is right where all holds."""
    segments = []
    for k in range(N):
        law = draw_law(list(SHARES)[k % len(SHARES)], f"s{k}", 0, ticks(99))
        offset = law.pieces[0].offset
        label = OffsetGrid().class_of(seconds(offset))
        segments.append(SegmentRecord(f"s{k}", "c", f"v{k % 12:02d}", 0, offset, label, law=law))
    windows = WindowTruth.of(segments, PROTOCOL)
    labels = classes_of(windows.offset_end_s)

    def said(windows_late: int) -> np.ndarray:
        rows = np.concatenate([np.repeat(labels[:, :1], windows_late, 1), labels[:, : 48 - windows_late]], axis=1)
        return 9.0 * np.eye(21)[rows]

    logits = {row: said(windows_late) for row, windows_late in late.items() if row not in missing}
    truth = Truth.of(segments, N + 1, PROTOCOL)
    held = [k for k, segment in enumerate(segments) if segment.law and segment.law.name == "hold"]
    manifest = Manifest("m", "files", "made up", "list", {}, tuple(segments), Path())
    last = {row: of[held, -1] for row, of in logits.items()}
    return Followed(manifest, windows, truth, logits, truth.take(held), last, missing)


@pytest.fixture(scope="module")
def chapter() -> Exhibit:
    return changing(made(LATE), BOOT)


def found(exhibit: Exhibit, first: str, second: str) -> Claim:
    (one,) = [c for c in exhibit.claims if c.claim.startswith(f"{first} recovers sooner than {second},")]
    return one


def test_a_head_that_recovers_sooner_holds_and_a_later_one_does_not(chapter: Exhibit) -> None:
    sooner, later = found(chapter, TRF, APA), found(chapter, LSTM, APA)
    assert (sooner.verdict, later.verdict) == (HOLDS, FAILS)
    assert sooner.difference is not None
    assert later.difference is not None
    assert sooner.ci_high is not None
    assert later.ci_low is not None
    assert sooner.difference <= sooner.ci_high < 0 < later.ci_low <= later.difference
    assert found(chapter, TRF, ON_THE_SAME[TRF]).verdict == HOLDS
    assert {c.claim.endswith(EXPECTED) for c in chapter.claims[:4]} == {True}
    assert {c.claim.endswith(OURS) for c in chapter.claims[4:]} == {True}


def test_heads_that_say_the_same_cannot_be_told_apart() -> None:
    one = found(changing(made(dict.fromkeys(LATE, 3)), BOOT), TRF, APA)
    assert (one.verdict, one.difference) == (OPEN, 0.0)


def test_the_difference_is_that_of_the_cells_and_these_are_the_scores(chapter: Exhibit) -> None:
    followed = made(LATE)
    scores = score(followed.logits[TRF], followed.windows, videos=followed.truth.clusters, bootstrap=BOOT)
    for name, column in (
        ("recovery_s", "recovery (s)"),
        ("recovery_median_s", "median (s)"),
        ("recovered_within_10_s", "in 10 s"),
        ("false_changes_per_h", "false/h"),
        ("tracked_acc_tol1", "tracked ±1"),
        ("tracked_acc", "tracked"),
        ("tracking_error_s", "error (s)"),
    ):
        c = chapter.value(TRF, column)
        assert c is not None
        assert (c.value, c.ci_low, c.ci_high) == tuple(scores[name].values()), name
        assert (c.n_scored, c.n_total, c.paper) == (N, N + 1, None)
    headline = chapter.value(TRF, HEADLINE)
    assert headline is not None
    assert headline.value == scores["headline"]["recovery_s"]["value"]
    trf, apa = (chapter.value(row, "recovery (s)") for row in (TRF, APA))
    assert trf is not None
    assert apa is not None
    assert found(chapter, TRF, APA).difference == pytest.approx((trf.value or 0) - (apa.value or 0))
    held = chapter.value(TRF, HELD)
    assert held is not None
    assert (held.value, held.n_scored) == (1.0, 6)


def test_what_is_missing_is_said_in_one_line_and_claims_nothing(chapter: Exhibit) -> None:
    (line,) = [note for note in chapter.notes if note.startswith("Missing")]
    assert all(f"{row} ({ROWS[row]})" in line for row in MISSING)
    assert not any(row in c.claim for c in chapter.claims for row in MISSING)
    assert chapter.rows == [row for row in ROWS if row not in MISSING]
    assert not any(note.startswith("Missing") for note in changing(made(LATE, ()), Bootstrap(0)).notes)


def test_heads_trained_on_changing_offsets_get_their_verdicts_and_their_price() -> None:
    followed = made(LATE, ())
    wrong = {TRAINED_FOR_IT[TRF]: np.eye(21)[(followed.held.labels + 5) % 21]}
    exhibit = changing(replace(followed, held_logits={**followed.held_logits, **wrong}), BOOT)
    assert exhibit.rows == list(ROWS)
    trained = found(exhibit, TRAINED_FOR_IT[TRF], APA)
    assert trained.verdict == HOLDS
    assert trained.claim.endswith(EXPECTED)
    price = {c.claim: c for c in exhibit.claims if "a price" in c.claim}
    assert len(price) == 4
    assert {c.difference for text, c in price.items() if text.startswith(TRAINED_FOR_IT[TRF])} == {-1.0}
    assert {c.difference for text, c in price.items() if text.startswith(TRAINED_FOR_IT[LSTM])} == {0.0}
    assert {c.verdict for text, c in price.items() if text.startswith(TRAINED_FOR_IT[LSTM])} == {OPEN}


def test_averaging_on_the_heads_own_backbone_is_a_row_only_where_that_backbone_differs(chapter: Exhibit) -> None:
    assert any("They differ for StreamSync-Trf, StreamSync-LSTM." in note for note in chapter.notes)
    followed = made(LATE)
    logits = {row: said for row, said in followed.logits.items() if row not in ON_THE_SAME.values()}
    exhibit = changing(replace(followed, logits=logits), Bootstrap(0))
    assert not any("backbone" in c.claim for c in exhibit.claims)
    assert any("only the heads differ" in note for note in exhibit.notes)


def test_without_streams_that_hold_there_is_no_price() -> None:
    followed = made(LATE, ())
    none = replace(
        followed, held=followed.held.take([]), held_logits={r: x[:0] for r, x in followed.held_logits.items()}
    )
    exhibit = changing(none, Bootstrap(0))
    assert {c.value for c in exhibit.cells if c.column == HELD} == {None}
    assert not any("a price" in c.claim for c in exhibit.claims)


def test_a_restless_head_has_its_threshold_raised_and_that_is_said() -> None:
    followed = made(LATE)
    restless = followed.logits["one window"].copy()
    for k in range(0, 48, 8):
        restless[:, k : k + 4] = 9.0 * np.eye(21)[(followed.truth.labels + 3) % 21][:, None]
    exhibit = changing(replace(followed, logits={**followed.logits, "one window": restless}), Bootstrap(0))
    held = exhibit.settings["one window"]["held_windows"]
    assert held > 3
    (line,) = [note for note in exhibit.notes if note.startswith("Above one false change")]
    assert f"one window {held}" in line
    assert exhibit.settings[TRF]["held_windows"] == 3


def test_the_lines_begin_with_nothing_recovered_and_follow_the_delay(chapter: Exhibit) -> None:
    drawn = [row for row in chapter.rows if row not in NOT_DRAWN]
    for panel in (NOT_RECOVERED, TRACKED):
        assert [curve.row for curve in chapter.curves if curve.panel == panel] == drawn
    for curve in chapter.curves:
        assert len(curve.x) == len(curve.value) == len(curve.ci_low) == len(curve.ci_high)
        assert curve.x == sorted(curve.x)
        assert curve.x[-1] == 40
        if curve.panel == NOT_RECOVERED:
            assert curve.value[0] == 1
            assert all(b <= a for a, b in zip(curve.value, curve.value[1:], strict=False))  # type: ignore[operator]
        else:
            assert all(low <= v <= high for low, v, high in zip(curve.ci_low, curve.value, curve.ci_high, strict=True))  # type: ignore[operator]
    tracked = {curve.row: curve.value for curve in chapter.curves if curve.panel == TRACKED}
    assert tracked["oracle"] == [1.0] * 21
    assert (tracked[TRF][0] or 0) < 0.5 < (tracked[TRF][1] or 0)


def test_the_figure_is_the_same_each_time_and_names_every_line(chapter: Exhibit, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        drawn = [path.name for path in draw(chapter, tmp_path / name)]
        assert drawn == ["changing.svg", "changing.png", "changing.pdf"]
    svg, pdf = ((tmp_path / "a" / f"changing{suffix}").read_bytes() for suffix in (".svg", ".pdf"))
    assert svg == (tmp_path / "b" / "changing.svg").read_bytes()
    assert pdf == (tmp_path / "b" / "changing.pdf").read_bytes()
    assert b"/CreationDate" not in pdf
    assert b"/Type3" not in pdf, "fonts are embedded as TrueType"
    for row in chapter.rows:
        assert svg.count(f">{row}</text>".encode()) == (0 if row in NOT_DRAWN else 2), row


def test_the_papers_words_stand_apart_and_no_number_is_called_its_own(chapter: Exhibit) -> None:
    page = markdown(chapter)
    measured, said = page.split("**The paper's own words**")
    assert '"would inherently introduce a delayed response" (section 4)' in said
    assert "delayed response" not in measured
    assert "Reported by the paper" not in page
    assert "**What the paper expected**" in said


def test_where_nothing_can_be_followed_all_cells_are_empty() -> None:
    exhibit = nothing(made(LATE).manifest, "no clip is long enough")
    assert exhibit.rows == list(ROWS)
    assert {(c.value, c.n_scored, c.n_total) for c in exhibit.cells} == {(None, 0, N)}
    assert exhibit.notes == ["Nothing could be followed: no clip is long enough."]
    assert not exhibit.claims
