"""Offsets that change: what a law says at every instant, and how laws are drawn."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.protocol import laws
from avbench.protocol.laws import (
    SETTLED_S,
    SHARES,
    draw_law,
    extremes,
    gathered,
    inside,
    law_of,
    law_text,
    laws_in_turn,
    offsets_at,
)
from avbench.protocol.offsets import draw_offset
from avbench.ticks import TICKS_PER_FRAME, ticks
from avbench.types import Law, OffsetGrid, Piece, UsageError, Window

STREAM = ticks(99)
PIECES = st.lists(
    st.tuples(st.integers(1, 4000), st.integers(-32_000, 32_000), st.sampled_from([0, 0, 23, -999, 88_000, -88_000])),
    min_size=1,
    max_size=5,
)


def by_hand(law: Law, t: int) -> int:
    """The definition, with exact fractions."""
    start, offset, slope = max((piece for piece in law.pieces if piece.start <= t), default=law.pieces[0])
    return offset + (Fraction((t - start) * slope, 1_000_000)).__floor__()


@given(PIECES, st.lists(st.integers(0, 40_000), min_size=1, max_size=20))
def test_the_offset_at_an_instant_is_the_definition_s(pieces: list[tuple[int, int, int]], times: list[int]) -> None:
    starts = np.cumsum([0] + [gap for gap, _, _ in pieces[1:]]).tolist()
    law = Law(
        "any", tuple(Piece(start, offset, slope) for start, (_, offset, slope) in zip(starts, pieces, strict=True))
    )
    edges = [t for piece in law.pieces for t in (piece.start - 1, piece.start, piece.start + 1) if t >= 0]
    assert offsets_at(law, times + edges).tolist() == [by_hand(law, t) for t in times + edges]
    every = [by_hand(law, t) for t in range(0, 6000)]
    assert extremes(law, 6000) == (min(every), max(every))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SHARES)), st.text(min_size=1, max_size=8), st.integers(0, 3))
def test_drawn_laws_keep_within_the_grid_and_change_on_pictures(name: str, segment_id: str, seed: int) -> None:
    law = draw_law(name, segment_id, seed, STREAM)
    assert law.name == name
    assert law.pieces[0].start == 0
    assert all(piece.start % TICKS_PER_FRAME == 0 for piece in law.pieces)
    assert all(m.start % TICKS_PER_FRAME == 0 and m.length % TICKS_PER_FRAME == 0 for m in law.mutes)
    assert [p.start for p in law.pieces] == sorted({p.start for p in law.pieces})
    low, high = extremes(law, STREAM)
    assert -32_000 <= low <= high <= 32_000
    assert draw_law(name, segment_id, seed, STREAM) == law
    assert bool(law.mutes) <= (name == "hold")
    if name in ("jump", "excursion", "ramp"):
        assert ticks(SETTLED_S) <= law.pieces[1].start < STREAM


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SHARES)), st.integers(0, 30), st.integers(-50, 94 * 25))
def test_what_is_heard_in_a_window_is_what_the_law_says(name: str, seed: int, frame: int) -> None:
    law = draw_law(name, "s", seed, STREAM)
    window = Window(frame * TICKS_PER_FRAME, ticks(5))
    sound = np.random.default_rng(0).standard_normal(STREAM + 104_000).astype(np.float32)
    base = 72_000  # the segment's start in the clip
    first, within = inside(law, window)
    t = np.arange(window.start, window.end)
    truth = sound[base + t + offsets_at(law, t)]
    for mute in law.mutes:
        truth[(t >= mute.start) & (t < mute.end)] = 0
    begin = base + window.start + first
    heard = gathered(sound, begin, window.length, within) if within else sound[begin : begin + window.length]
    assert np.array_equal(heard, truth)
    assert law_of(law_text(within)) == within if within else len(set(offsets_at(law, t).tolist())) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"name":"x"}',
        '{"name":"x","pieces":[]}',
        '{"name":"x","pieces":[[0,0.5,0]]}',
        '{"name":"x","pieces":[[0,0,0],[0,1,0]]}',
        '{"name":"x","pieces":[[640,0,0]]}',
        '{"name":"x","pieces":[[0,0,0]],"mutes":[[0,0]]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_law_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a law"):
        law_of(text)


def test_each_law_is_what_it_is_called() -> None:
    many = {name: [draw_law(name, f"s{n}", 0, STREAM) for n in range(120)] for name in SHARES}
    assert {len(law.pieces) for law in many["hold"]} == {1}
    muted = sum(bool(law.mutes) for law in many["hold"])
    assert 40 <= muted <= 80
    steps = Counter(abs(law.pieces[1].offset - law.pieces[0].offset) for law in many["jump"])
    assert set(steps) == {ticks(s) for s in (0.2, 0.4, 0.8, 1.6)}
    assert max(law.pieces[1].start for law in many["jump"]) <= ticks(60)
    away = Counter(law.pieces[2].start - law.pieces[1].start for law in many["excursion"])
    assert set(away) == {ticks(s) for s in (10, 20, 40)}
    assert all(law.pieces[0].offset == law.pieces[2].offset for law in many["excursion"])
    gaps = [b.start - a.start for law in many["multi"] for a, b in zip(law.pieces, law.pieces[1:], strict=False)]
    assert min(gaps) >= ticks(15)
    assert ticks(30) < np.mean(gaps) < ticks(45)
    assert all(abs(law.pieces[1].slope_ppm) <= 80_000 for law in many["ramp"])
    drops = [b.offset - a.offset for law in many["drops"] for a, b in zip(law.pieces, law.pieces[1:], strict=False)]
    assert all(drop % 640 == 0 and drop < 0 for drop in drops)
    slopes = {abs(piece.slope_ppm) for law in many["drift"] for piece in law.pieces} - {0}
    assert slopes == {23, 170, 999, 2_800, 88_000}


def test_a_stream_that_holds_has_its_fixed_offset() -> None:
    grid = OffsetGrid()
    for n in range(20):
        assert draw_law("hold", f"s{n}", 5, STREAM).pieces[0].offset == draw_offset("uniform", f"s{n}", 5, grid)


def test_laws_are_dealt_out_by_their_shares() -> None:
    dealt = Counter(laws_in_turn(list(SHARES), [f"s{n}" for n in range(200)], 0).values())
    assert dealt == {name: 200 * share for name, share in SHARES.items()}
    two = Counter(laws_in_turn(["jump", "multi"], [f"s{n}" for n in range(70)], 1).values())
    assert two == {"jump": 50, "multi": 20}
    assert laws_in_turn(["jump"], ["a"], 0) == {"a": "jump"}


@pytest.mark.parametrize(
    "do",
    [
        lambda: draw_law("leap", "s", 0, STREAM),
        lambda: laws_in_turn(["leap"], ["s"], 0),
        lambda: laws_in_turn([], ["s"], 0),
    ],
)
def test_unknown_laws_are_refused(do: object) -> None:
    with pytest.raises(UsageError, match="hold, jump, excursion, multi, ramp, drops, drift"):
        do()  # type: ignore[operator]


def test_the_label_of_a_stream_s_last_window_is_within_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what is so at the first tick after the stream."""
    length, fine = 1_000_000, Law("drift", (Piece(0, 31_000, 1_000),))
    tried = [Law("drift", (Piece(0, 31_001, 1_000),)), fine]
    assert offsets_at(tried[0], [length - 1, length]).tolist() == [32_000, 32_001]
    monkeypatch.setitem(laws._DRAWS, "drift", lambda lot, _: tried[lot.attempt])
    assert draw_law("drift", "s", 0, length) == fine


def test_a_stream_too_short_for_its_law_is_refused() -> None:
    with pytest.raises(UsageError, match="segment s: its 12 s are too short for the law excursion"):
        draw_law("excursion", "s", 0, ticks(12))
