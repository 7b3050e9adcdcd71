"""Pairs of streams, in sync and shifted, against counting them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.scoring.metrics import softmax
from avbench.scoring.pairwise import in_sync_scores, pair_scores
from avbench.scoring.stats import Bootstrap
from avbench.ticks import ticks
from avbench.types import OffsetGrid, SegmentRecord

SHIFTS_S = (0.05, 0.2)


def pairs(n: int) -> list[SegmentRecord]:
    """``n`` streams in sync, each followed by its shifted copies; two streams to a video."""
    found = []
    for i in range(n):
        found.append(SegmentRecord(f"s{i}", f"v{i // 2}", f"v{i // 2}", 0, 0, 10))
        for shift_s in SHIFTS_S:
            for offset_s in (shift_s, -shift_s):
                label = OffsetGrid().class_of(offset_s)
                name = f"s{i}{offset_s:+g}"
                found.append(
                    SegmentRecord(name, f"v{i // 2}", f"v{i // 2}", 0, ticks(offset_s), label, pair_of=f"s{i}")
                )
    return found


@st.composite
def answered(draw: st.DrawFn) -> tuple[list[SegmentRecord], np.ndarray]:
    """Streams with logits, often tied."""
    segments = pairs(draw(st.integers(1, 5)))
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = g.integers(0, draw(st.sampled_from([1, 2, 50])) + 1, (len(segments), 1, 21))
    return segments, np.repeat(logits, draw(st.integers(1, 3)), axis=1).astype(np.float32)


def test_the_score_is_the_mean_probability_of_being_in_sync() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 4, 21)).astype(np.float32)
    by_hand = [np.mean([softmax(w[None].astype(np.float64))[0, 10] for w in stream]) for stream in logits]
    assert in_sync_scores(logits) == pytest.approx(by_hand)


@settings(max_examples=40)
@given(answered())
def test_the_shares_are_those_counted_one_by_one_and_ties_are_wrong(
    case: tuple[list[SegmentRecord], np.ndarray],
) -> None:
    segments, logits = case
    score = dict(zip((s.id for s in segments), in_sync_scores(logits).tolist(), strict=True))
    found = pair_scores(segments, logits, Bootstrap(0))
    keys = [(p.shift_s, p.direction) for p in found]
    assert keys == [(s, d) for s in (None, *SHIFTS_S) for d in ("both", "early", "late")]
    for pair in found:
        chosen = [
            s
            for s in segments
            if s.pair_of
            and (pair.shift_s is None or abs(s.offset_s) == pair.shift_s)
            and (pair.direction == "both" or (s.offset > 0) == (pair.direction == "early"))
        ]
        won = sum(score[s.pair_of] > score[s.id] for s in chosen)
        assert (pair.n, pair.value) == (len(chosen), pytest.approx(won / len(chosen)))


@settings(max_examples=25)
@given(answered(), st.floats(0.1, 5))
def test_more_belief_in_the_streams_in_sync_never_lowers_a_share(
    case: tuple[list[SegmentRecord], np.ndarray], more: float
) -> None:
    segments, logits = case
    surer = logits.copy()
    surer[[not s.pair_of for s in segments], :, 10] += more
    before, after = (pair_scores(segments, x, Bootstrap(0)) for x in (logits, surer))
    assert all(b.value is not None and a.value is not None for a, b in zip(after, before, strict=True))
    assert all((a.value or 0) >= (b.value or 0) for a, b in zip(after, before, strict=True))


def test_one_that_says_the_same_of_all_is_never_right_and_one_that_knows_always() -> None:
    segments = pairs(6)
    same = pair_scores(segments, np.zeros((len(segments), 2, 21), np.float32), Bootstrap(50))
    assert {pair.value for pair in same} == {0.0}
    knows = np.zeros((len(segments), 2, 21), np.float32)
    knows[[not s.pair_of for s in segments], :, 10] = 1
    assert {pair.value for pair in pair_scores(segments, knows, Bootstrap(50))} == {1.0}


def test_intervals_are_over_videos() -> None:
    segments = pairs(40)
    logits = np.random.default_rng(1).standard_normal((len(segments), 2, 21)).astype(np.float32)
    every = pair_scores(segments, logits, Bootstrap(200))[0]
    assert every.value is not None
    assert every.ci_low is not None
    assert every.ci_high is not None
    assert every.ci_low < every.value < every.ci_high
    one = [s for s in segments if s.video_id == "v0"]
    alone = pair_scores(one, logits[: len(one)], Bootstrap(200))[0]
    assert (alone.n, alone.ci_low) == (8, None), "of one video no interval is known"


def test_a_pair_of_which_one_is_missing_does_not_count() -> None:
    segments = pairs(3)
    kept = [s for s in segments if s.id not in ("s0", "s1+0.2")]
    found = pair_scores(kept, np.zeros((len(kept), 1, 21), np.float32), Bootstrap(0))
    assert {(p.shift_s, p.direction): p.n for p in found}[None, "both"] == 7
    assert pair_scores(segments[:1], np.zeros((1, 1, 21)), Bootstrap(0)) == []
