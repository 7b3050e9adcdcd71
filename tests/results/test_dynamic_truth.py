"""The truth of every window under a law: against counting ticks, and found again from the table."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.rules import Protocol, paper, streaming
from avbench.results.dynamic_truth import COLUMNS, WindowTruth, changes_of, read_truth, write_truth
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import Law, OffsetGrid, Piece, SegmentRecord, UsageError

STREAM = ticks(99)
LONG = streaming(iterations=48)
SHORT = streaming(hop_s=0.16, iterations=12, window=10 * TICKS_PER_FRAME)  # few ticks: they can all be looked at


def under(law: Law | None, name: str = "s", start: int = 0, offset: int = 0) -> SegmentRecord:
    offset = law.pieces[0].offset if law else offset
    label = OffsetGrid().class_of(offset / TICKS_PER_S)
    return SegmentRecord(name, "clip", "video", start, offset, label, law=law)


def steps(*pieces: tuple[float, float]) -> Law:
    """A law of constant pieces from (seconds, seconds)."""
    return Law("any", tuple(Piece(ticks(at), ticks(offset)) for at, offset in pieces))


def by_counting(law: Law, length: int) -> tuple[list[int], list[int | None], list[int]]:
    """At every tick of 0 ... length: the offset, the regime (None while the offset moves), and the last regime."""
    offsets, regimes, latest, number = [], [], [], 0
    for t in range(length + 1):
        k = max(k for k, piece in enumerate(law.pieces) if piece.start <= t)
        piece, before = law.pieces[k], law.pieces[k - 1] if k else None
        if t == piece.start and not piece.slope_ppm:
            number += before is None or before.slope_ppm != 0 or before.offset != piece.offset
        offsets.append(piece.offset + (t - piece.start) * piece.slope_ppm // 1_000_000)
        regimes.append(None if piece.slope_ppm else number)
        latest.append(number)
    return offsets, regimes, latest


@st.composite
def laws(draw: st.DrawFn) -> Law:
    """Pieces a few pictures long, sloped or not, some of equal offset."""
    at, pieces = 0, []
    for _ in range(draw(st.integers(1, 6))):
        slope = draw(st.sampled_from([0, 0, 0, 999, -88_000]))
        pieces.append(Piece(at, draw(st.sampled_from([0, 640, -3200, 9600])), slope))
        at += TICKS_PER_FRAME * draw(st.integers(1, 30))
    return Law("any", tuple(pieces))


@settings(max_examples=15)
@given(laws())
def test_the_truth_of_a_window_is_what_counting_its_ticks_gives(law: Law) -> None:
    truth = WindowTruth.of([under(law, start=ticks(1))], SHORT)
    offsets, regimes, latest = by_counting(law, SHORT.window + SHORT.iterations * SHORT.hop)
    for i in range(SHORT.iterations):
        start, end = i * SHORT.hop, i * SHORT.hop + SHORT.window
        assert truth.offset_end_s[0, i] == offsets[end] / TICKS_PER_S
        assert truth.offset_mean_s[0, i] == pytest.approx(
            sum(offsets[start:end]) / SHORT.window / TICKS_PER_S, abs=1e-12
        )
        of_latest = regimes[start:end].count(regimes[end]) if regimes[end] else 0
        assert truth.purity[0, i] == of_latest / SHORT.window
        assert truth.regime[0, i] == latest[end]


def test_a_fixed_offset_is_one_regime_throughout() -> None:
    truth = WindowTruth.of([under(None, "a", offset=ticks(0.33)), under(steps((0, 0.33)), "b")], LONG)
    assert (truth.offset_end_s == 0.33).all()
    assert (truth.offset_mean_s == 0.33).all()
    assert (truth.purity == 1).all()
    assert (truth.regime == 1).all()
    assert len(changes_of(truth, LONG.window, LONG.hop).at) == 0


def test_a_change_exactly_at_a_windows_end_has_happened() -> None:
    """The end of a window is the first tick after it: the new offset holds there, and nothing of the window does."""
    truth = WindowTruth.of([under(steps((0, 0.0), (21, 0.8)))], LONG)  # window 8 ends at 5 + 8 x 2 s
    assert truth.offset_end_s[0, 7:10].tolist() == [0.0, 0.8, 0.8]
    assert truth.regime[0, 7:10].tolist() == [1, 2, 2]
    assert truth.purity[0, 7:12].tolist() == [1, 0, 0.4, 0.8, 1]
    assert truth.offset_mean_s[0, 8] == 0.0
    found = changes_of(truth, LONG.window, LONG.hop)
    assert (found.window.tolist(), found.at.tolist(), found.delta.tolist()) == ([8], [ticks(21)], [ticks(0.8)])


def test_one_picture_later_it_is_the_next_windows() -> None:
    truth = WindowTruth.of([under(steps((0, 0.0), (21.04, 0.8)))], LONG)
    assert truth.offset_end_s[0, 8:10].tolist() == [0.0, 0.8]
    assert truth.purity[0, 9] == 1.96 / 5
    assert changes_of(truth, LONG.window, LONG.hop).at.tolist() == [ticks(21.04)]


def test_a_slide_is_a_change_where_it_settles() -> None:
    slope = Piece(ticks(20), 0, 50_000)
    law = Law("ramp", (Piece(0, 0), slope, Piece(ticks(40), ticks(1))))
    truth = WindowTruth.of([under(law)], LONG)
    sliding = slice(8, 18)  # windows that end at 21 ... 39 s
    assert (truth.purity[0, sliding] == 0).all()
    assert (truth.regime[0, :18] == 1).all()
    assert (truth.regime[0, 18:] == 2).all()
    assert truth.offset_end_s[0, 8] == pytest.approx(0.05, abs=1e-4)
    found = changes_of(truth, LONG.window, LONG.hop)
    assert found.at.tolist() == [ticks(40)]
    assert found.begun.tolist() == [ticks(19)]  # the end of the last window that saw the old offset
    assert found.delta.tolist() == [ticks(1)]


def test_where_nothing_was_settled_before_nothing_has_changed() -> None:
    drifting = Law("drift", (Piece(0, 0, 2800),))
    settling = Law("drift", (Piece(0, 0, 2800), Piece(ticks(30), ticks(0.5))))
    back = Law("any", (Piece(0, 0), Piece(ticks(20), 0, 50_000), Piece(ticks(30), 0)))
    truth = WindowTruth.of([under(law, str(k)) for k, law in enumerate((drifting, settling, back))], LONG)
    assert (truth.regime[0] == 0).all()
    assert truth.regime[1, [0, -1]].tolist() == [0, 1]
    assert truth.regime[2, [0, -1]].tolist() == [1, 2]  # a new regime, at the same offset
    assert len(changes_of(truth, LONG.window, LONG.hop).at) == 0


def true_changes(law: Law) -> list[tuple[int, int]]:
    """(tick, delta) of all changes, from the pieces."""
    constant = [piece for piece in law.pieces if not piece.slope_ppm]
    return [(b.start, b.offset - a.offset) for a, b in itertools.pairwise(constant) if a.offset != b.offset]


@settings(max_examples=150)
@given(st.sampled_from(sorted(SHARES)), st.integers(0, 10_000))
def test_changes_are_found_again_to_the_tick(name: str, seed: int) -> None:
    """Of every law, where a window ends in each regime: the changes are those of its pieces."""
    law = draw_law(name, "s", seed, STREAM)
    truth = WindowTruth.of([under(law)], LONG)
    found = changes_of(truth, LONG.window, LONG.hop)
    last_end = LONG.window + 47 * LONG.hop
    begins = [at for at, _ in true_changes(law)] + [last_end + 1]
    ends = LONG.window + LONG.hop * np.arange(48)
    seen = [bool(((ends >= a) & (ends < b)).any()) for a, b in itertools.pairwise(begins)]
    if all(seen):
        assert list(zip(found.at.tolist(), found.delta.tolist(), strict=True)) == true_changes(law)
        assert found.until.tolist() == [*found.at.tolist()[1:], last_end][: len(found.at)]
    else:
        assert name in ("drops", "multi", "jump", "excursion", "ramp", "drift")
        assert len(found.at) <= sum(seen)


def test_several_changes_within_a_hop_are_one_at_the_last() -> None:
    truth = WindowTruth.of([under(steps((0, 0.0), (20, 0.4), (20.4, 1.0), (20.8, 0.8)))], LONG)
    found = changes_of(truth, LONG.window, LONG.hop)
    assert (found.at.tolist(), found.delta.tolist()) == ([ticks(20.8)], [ticks(0.8)])
    assert truth.regime[0, -1] == 4
    within_a_window = WindowTruth.of([under(steps((0, 0.0), (20, 0.4), (21.4, 1.0), (23.2, 0.8)))], LONG)
    found = changes_of(within_a_window, LONG.window, LONG.hop)  # one window holds all three: each is found
    assert found.at.tolist() == [ticks(20), ticks(21.4), ticks(23.2)]


def test_a_change_before_the_first_windows_end_is_not_seen() -> None:
    truth = WindowTruth.of([under(steps((0, 0.0), (3, 0.4)))], LONG)
    assert truth.regime[0, 0] == 2
    assert len(changes_of(truth, LONG.window, LONG.hop).at) == 0


def test_changes_of_several_streams_stay_apart() -> None:
    laws = [steps((0, 0.0), (20, 0.4)), steps((0, 1.0)), steps((0, 0.0), (30, -0.4), (50, 0.2))]
    truth = WindowTruth.of([under(law, str(k)) for k, law in enumerate(laws)], LONG)
    found = changes_of(truth, LONG.window, LONG.hop)
    assert found.stream.tolist() == [0, 2, 2]
    assert found.until.tolist() == [ticks(99), ticks(50), ticks(99)]
    assert found.until_window.tolist() == [48, 23, 48]
    alone = changes_of(truth.take([2]), LONG.window, LONG.hop)
    assert alone.at.tolist() == [ticks(30), ticks(50)]


def test_a_protocol_that_starts_earlier_looks_earlier() -> None:
    """The law runs on the segment's clock, the windows of the ``paper`` protocol begin 2 s before it."""
    segment = under(steps((0, 0.0), (20, 0.4)), start=ticks(4))
    plain, early = (WindowTruth.of([segment], p) for p in (LONG, paper(iterations=48)))
    assert early.offset_end_s[0, 1:].tolist() == plain.offset_end_s[0, :-1].tolist()
    assert early.purity[0, 1:].tolist() == plain.purity[0, :-1].tolist()
    assert early.purity[0, 0] == 1


def test_an_offset_that_leaves_the_grid_within_the_stream_is_named() -> None:
    drifting = under(Law("drift", (Piece(0, 0, 88_000),)), "far")
    with pytest.raises(UsageError, match=r"segment far: its law goes to 8\.712 s in this stream, outside \[-2, 2\] s"):
        WindowTruth.of([drifting], LONG)
    assert WindowTruth.of([drifting], streaming(iterations=8)).offset_end_s.max() == pytest.approx(19 * 0.088)


# ---------------------------------------------------------------------------------------------------------- the file


@pytest.fixture
def truth() -> WindowTruth:
    segments = [under(draw_law(name, name, 0, STREAM), name) for name in sorted(SHARES)]
    return WindowTruth.of([*segments, under(None, "fixed", offset=-320)], LONG)


def test_what_is_written_is_read_back(truth: WindowTruth, tmp_path: Path) -> None:
    sha256 = write_truth(tmp_path / "a.parquet", truth)
    again = read_truth(tmp_path / "a.parquet")
    assert write_truth(tmp_path / "b.parquet", again) == sha256
    assert again.segment_ids == truth.segment_ids
    for column in COLUMNS[2:]:
        assert np.array_equal(getattr(again, column), getattr(truth, column)), column
    assert pq.read_table(tmp_path / "a.parquet").column_names == list(COLUMNS)
    assert np.array_equal(again.offset_end, np.rint(truth.offset_end_s * TICKS_PER_S))


def test_the_rows_of_a_segment_may_stand_anywhere(truth: WindowTruth) -> None:
    frame = truth.frame()
    mixed = frame.sort_values(["iteration"], kind="stable", ascending=False)
    again = WindowTruth.of_frame(mixed.assign(more="columns"))
    assert again.segment_ids == truth.segment_ids
    assert np.array_equal(again.purity, truth.purity)


def damaged(kind: str, truth: WindowTruth, path: Path) -> None:
    frame = truth.frame()
    if kind == "text":
        path.write_text("not parquet")
        return
    if kind == "column":
        frame = frame.drop(columns="purity")
    if kind == "type":
        frame["regime"] = frame["regime"].astype(np.int64)
    if kind == "missing":
        frame = frame.iloc[1:]
    if kind == "twice":
        frame.loc[1, "iteration"] = 1
    if kind in ("nan", "far", "purity", "regime"):
        column = {"nan": "offset_end_s", "far": "offset_end_s"}.get(kind, kind)
        frame.loc[3, column] = {"nan": np.nan, "far": 2.1, "purity": 1.5, "regime": 7}[kind]
    if kind == "empty":
        frame = frame.iloc[:0]
    types = {"segment_id": pa.string(), "iteration": pa.int16(), "regime": pa.int16() if kind != "type" else pa.int64()}
    columns = {name: pa.array(list(frame[name]), types.get(name, pa.float64())) for name in frame.columns}
    if kind == "null":
        columns["purity"] = pa.array([None, *frame["purity"][1:]], pa.float64())
    pq.write_table(pa.table(columns), path, store_schema=False)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "not a readable parquet file"),
        ("column", "other columns"),
        ("type", "other columns"),
        ("missing", "need 384 rows"),
        ("twice", "different pairs"),
        ("nan", "offset_end_s must be numbers from -2 to 2"),
        ("far", "offset_end_s must be numbers from -2 to 2"),
        ("purity", "purity must be numbers from 0 to 1"),
        ("regime", "do not follow each other"),
        ("null", "an empty cell"),
        ("empty", "has no rows"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(kind: str, says: str, truth: WindowTruth, tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"
    damaged(kind, truth, path)
    with pytest.raises(UsageError, match=says) as caught:
        read_truth(path)
    assert "\n" not in str(caught.value)
    assert "truth.parquet" in str(caught.value)


def test_a_table_that_lacks_a_column_is_refused(truth: WindowTruth) -> None:
    with pytest.raises(UsageError, match="lacks the columns purity, regime"):
        WindowTruth.of_frame(truth.frame().drop(columns=["purity", "regime"]))
    with pytest.raises(UsageError, match="whole numbers"):
        WindowTruth.of_frame(truth.frame().assign(regime=0.5))
    with pytest.raises(UsageError, match="a whole number from 1"):
        WindowTruth.of_frame(truth.frame().assign(iteration=0))


def test_the_protocol_decides_how_many_windows_there_are() -> None:
    short = Protocol(iterations=7)
    assert WindowTruth.of([under(None)], short).regime.shape == (1, 7)
