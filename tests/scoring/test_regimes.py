"""Regimes of made streams with known answers: when the offset changed, what it is, and what cannot be said."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.scoring.regimes import (
    WEAK_MATCH,
    Change,
    Evidence,
    Regime,
    RegimeTracker,
    judged,
    peak,
    tables_with,
    verdicts,
)
from avbench.scoring.tolerance import TOLERANCES, tolerance_of
from avbench.types import OffsetGrid

WINDOW_S, HOP_S = 5.0, 2.0
LAGS_S = np.arange(-210, 211) * 0.01
CENTRES_S = np.array([OffsetGrid().offset_of(c) for c in range(21)])


def said(offset_s: float | None, sharp: float = 6.0) -> np.ndarray:
    """(21,) log probabilities: a bell around an offset; flat for None."""
    logits = np.zeros(21) if offset_s is None else -sharp * (np.abs(CENTRES_S - offset_s) / 0.2) ** 2
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def window(start_s: float, offset_s: float | None, *, curve: bool = False, believed_s: float | None = None) -> Evidence:
    """A window that says ``offset_s``, heard by a head that believes it, or ``believed_s``."""
    bell = None if not curve or offset_s is None else 20 * np.exp(-(((LAGS_S - offset_s) / 0.05) ** 2) / 2)
    return Evidence(start_s, said(offset_s), said(offset_s if believed_s is None else believed_s), bell)


def follow(offsets_s: Sequence[float | None], **options: object) -> tuple[RegimeTracker, list[Change]]:
    """A tracker after windows at hop 2 s that say these offsets; "None": nothing to judge by."""
    curves = bool(options.pop("curve", False))
    tracker = RegimeTracker(WINDOW_S, HOP_S, **options)  # type: ignore[arg-type]
    changes = []
    for k, offset_s in enumerate(offsets_s):
        start_s = k * HOP_S
        if offset_s is None:
            changes.append(tracker.add(Evidence(start_s, None, None, why="the sound is silent")))
        else:
            changes.append(tracker.add(window(start_s, offset_s, curve=curves)))
    return tracker, [change for change in changes if change]


def end_s(n_windows: int) -> float:
    return (n_windows - 1) * HOP_S + WINDOW_S


def test_one_offset_is_one_regime() -> None:
    tracker, changes = follow([0.4] * 20)
    assert not changes
    (only,) = tracker.regimes(end_s(20))
    assert (only.start_s, only.end_s, only.words, only.n_windows) == (0.0, 43.0, "sure", 20)
    assert only.offset_s == pytest.approx(0.4, abs=0.01)
    assert only.in_words == "audio 0.4 s early"
    assert only.spread_s == pytest.approx(0.2 / 12**0.5, abs=0.02)  # no finer than the classes


def test_a_curve_that_is_low_at_the_offset_is_not_trusted() -> None:
    for least, words in ((19.0, "sure"), (21.0, "unsure")):  # the curves of ``window`` are 20 high
        tracker, _ = follow([0.4] * 20, lags_s=LAGS_S, curve=True, least_curve=least)
        assert tracker.current(end_s(20)).words == words
        assert tracker.current(end_s(20)).why == (WEAK_MATCH if words == "unsure" else "")
    tracker, _ = follow([0.4] * 10 + [None] * 10, lags_s=LAGS_S, curve=True, least_curve=21.0)
    assert [r.words for r in tracker.regimes(end_s(20))] == ["unsure", "no evidence"]


def test_a_word_below_the_confidence_says_why() -> None:
    for most, words, why in (("sure", "sure", ""), ("likely", "likely", "weak"), ("unsure", "unsure", "weak")):
        tracker, _ = follow([0.4] * 20, most=most, why_most="weak")
        only = tracker.current(end_s(20))
        assert only.confidence > 0.95
        assert (only.words, only.why) == (words, why)


@pytest.mark.parametrize("after_s", [-1.4, 0.0, 0.8, 2.0])
def test_a_change_is_dated_at_the_middle_of_the_windows_that_turn(after_s: float) -> None:
    tracker, (change,) = follow([0.4] * 10 + [after_s] * 10)
    assert change.t_s == pytest.approx(18 + (WINDOW_S + HOP_S) / 2)  # between the middles of windows 9 and 10
    assert change.declared_s == 24 + WINDOW_S  # three windows say so
    assert [regime.offset_s for regime in tracker.regimes(43)] == pytest.approx([0.4, after_s], abs=0.02)
    assert [regime.end_s for regime in tracker.regimes(43)] == [change.t_s, 43]


def test_a_change_between_windows_that_say_nothing_is_dated_in_the_middle_of_them() -> None:
    tracker = RegimeTracker(WINDOW_S, HOP_S)
    at = [0.0] * 10 + [None] * 8 + [1.0] * 10  # flat windows, which the head hears: it goes on to believe the last
    believed = [0.0] * 18 + [1.0] * 10
    changes = [
        tracker.add(window(k * HOP_S, said_s, believed_s=b))
        for k, (said_s, b) in enumerate(zip(at, believed, strict=True))
    ]
    (change,) = [c for c in changes if c]
    assert change.t_s == pytest.approx(14 * HOP_S + (WINDOW_S - HOP_S) / 2, abs=0.1)


@given(st.lists(st.sampled_from([-2.07, -2.04, -1.84, -1.8, 1.78, 1.83, 2.05, 2.08]), min_size=2, max_size=4))
def test_curves_may_peak_beyond_the_last_class(offsets_s: list[float]) -> None:
    """A curve is measured some way beyond the grid, so that an offset of the last class has a peak."""
    said_s = [offset_s for offset_s in offsets_s for _ in range(10)]
    tracker, _ = follow(said_s, lags_s=LAGS_S, curve=True)
    for regime in tracker.regimes(end_s(len(said_s))):
        assert regime.offset_s is not None
        assert min(abs(regime.offset_s - offset_s) for offset_s in offsets_s) < 0.2


def test_a_move_beyond_the_last_class_is_a_change() -> None:
    tracker, (change,) = follow([-1.84] * 10 + [-2.04] * 10, lags_s=LAGS_S, curve=True)
    assert change.t_s == pytest.approx(18 + (WINDOW_S + HOP_S) / 2, abs=0.5)
    assert [r.offset_s for r in tracker.regimes(43)] == pytest.approx([-1.84, -2.04], abs=0.02)


def test_a_slip_of_one_window_is_no_change() -> None:
    tracker, changes = follow([0.0] * 10 + [1.0] + [0.0] * 10)
    assert not changes
    assert len(tracker.regimes(end_s(21))) == 1


def test_an_offset_between_two_classes_makes_no_change() -> None:
    rng = np.random.default_rng(0)
    _, changes = follow([0.1 + float(e) for e in rng.normal(0, 0.03, 60)])
    assert not changes


def test_a_step_of_one_class_is_a_change_once_four_windows_measure_it() -> None:
    tracker, (change,) = follow([0.0] * 12 + [0.2] * 12)
    assert change.declared_s == (12 + 3) * HOP_S + WINDOW_S
    assert [r.offset_s for r in tracker.regimes(51)] == pytest.approx([0.0, 0.2], abs=0.02)


@pytest.mark.parametrize(("before_s", "after_s"), [(0.11, 0.29), (0.33, 0.15), (-0.62, 1.234)])
def test_curves_measure_what_classes_cannot(before_s: float, after_s: float) -> None:
    tracker, (change,) = follow([before_s] * 12 + [after_s] * 12, curve=True, lags_s=LAGS_S)
    assert change.t_s == pytest.approx(22 + (WINDOW_S + HOP_S) / 2, abs=0.1)
    found = tracker.regimes(51)
    assert [r.offset_s for r in found] == pytest.approx([before_s, after_s], abs=0.003)
    assert all(r.spread_s is not None and r.spread_s < 0.04 for r in found)


def test_silence_is_a_regime_without_an_offset() -> None:
    tracker, changes = follow([0.4] * 10 + [None] * 10 + [0.4] * 10)
    assert not changes
    first, blank, last = tracker.regimes(end_s(30))
    assert (blank.start_s, blank.end_s, blank.offset_s, blank.words) == (23.0, 40.0, None, "no evidence")
    assert blank.why == "the sound is silent"
    assert blank.in_words == "no evidence"
    assert first.end_s == 23.0
    assert last.offset_s == pytest.approx(0.4, abs=0.01)


def test_an_offset_that_changed_during_silence_is_a_change() -> None:
    _, (change,) = follow([0.4] * 10 + [None] * 10 + [-0.6] * 10)
    assert change.t_s == 40.0
    assert (change.before.offset_s, change.after.offset_s) == pytest.approx((0.4, -0.6), abs=0.01)


def test_two_silent_windows_end_nothing() -> None:
    tracker, _ = follow([0.4] * 10 + [None] * 2 + [0.4] * 10)
    assert len(tracker.regimes(end_s(22))) == 1


def test_nothing_but_silence() -> None:
    tracker, _ = follow([None] * 30)
    (only,) = tracker.regimes(end_s(30))
    assert (only.start_s, only.end_s, only.offset_s, only.confidence) == (0.0, 63.0, None, 0.0)


def test_no_window_at_all() -> None:
    (only,) = RegimeTracker(WINDOW_S, HOP_S).regimes(0.0)
    assert (only.offset_s, only.words) == (None, "no evidence")


def test_a_weak_model_never_says_sure() -> None:
    for most in ("likely", "unsure"):
        tracker, _ = follow([0.4] * 20, most=most)
        assert tracker.current(43).words == most


def test_regimes_cover_the_stream_without_overlap() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        parts = rng.integers(1, 12, 8)
        offsets = [None if rng.random() < 0.2 else float(rng.choice(CENTRES_S)) for _ in parts]
        tracker, _ = follow([o for o, n in zip(offsets, parts, strict=True) for _ in range(n)])
        found = tracker.regimes(end_s(int(parts.sum())))
        assert (found[0].start_s, found[-1].end_s) == (0.0, end_s(int(parts.sum())))
        for before, after in itertools.pairwise(found):
            assert before.end_s == after.start_s
        assert all(regime.start_s < regime.end_s for regime in found)


def test_a_stream_without_end_keeps_little() -> None:
    offsets = [0.4 if (k // 30) % 2 else -0.4 for k in range(3000)]
    tracker, changes = follow(offsets, keep=5)
    assert len(changes) == 99
    assert len(tracker.past) == 5
    assert len(tracker._latest) <= 64
    still, _ = follow([0.4] * 3000)
    assert len(still._latest) <= 64
    assert still.current(end_s(3000)).n_windows == 3000


def regime(offset_s: float | None, spread_s: float | None = 0.01, words: str = "sure") -> Regime:
    return Regime(0, 10, offset_s, spread_s, 1.0, words)


def test_a_tolerance_is_judged_from_offset_and_spread() -> None:
    ebu, detect = TOLERANCES["ebu"], TOLERANCES["itu-detect"]
    assert judged(regime(0.0), ebu) is True
    assert judged(regime(0.1), ebu) is False
    assert judged(regime(-0.1), ebu) is False
    assert judged(regime(-0.1), detect) is True  # late by 100 ms: within 125
    assert judged(regime(0.04), ebu) is None  # at the limit
    assert judged(regime(0.0, 0.06), ebu) is None  # too wide
    assert judged(regime(0.6, 0.06), ebu) is False
    assert judged(regime(0.6, words="unsure"), ebu) is None
    assert judged(regime(None, None, "no evidence"), ebu) is None


def test_a_stream_is_as_good_as_its_worst_regime() -> None:
    ebu = [TOLERANCES["ebu"]]
    good, bad, unknown = regime(0.0), regime(0.5), regime(0.0, words="unsure")
    assert verdicts([good, good], ebu) == {"ebu": True}
    assert verdicts([good, unknown], ebu) == {"ebu": None}
    assert verdicts([unknown, bad], ebu) == {"ebu": False}
    assert verdicts([], ebu) == {"ebu": None}


def test_a_tolerance_of_ones_own_stands_beside_the_tables() -> None:
    assert [t.name for t in tables_with(None)] == list(TOLERANCES)
    assert [t.name for t in tables_with(TOLERANCES["ebu"])] == list(TOLERANCES)
    assert [t.name for t in tables_with(tolerance_of("-0.2/0.1"))] == [*TOLERANCES, "-0.2/0.1"]


def test_the_peak_of_a_curve() -> None:
    bell = np.exp(-(((LAGS_S - 0.123) / 0.05) ** 2) / 2)
    place_s, width_s = peak(bell, LAGS_S, 0.2, 0.3) or (0.0, 0.0)
    assert place_s == pytest.approx(0.123, abs=0.001)
    assert width_s == pytest.approx(0.05, abs=0.01)
    assert peak(bell, LAGS_S, 1.0, 0.3) is None  # its highest value there is at the border
    assert peak(np.zeros(421), LAGS_S, 0.0, 0.3) is None
