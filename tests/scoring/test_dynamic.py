"""Scores of streams whose offset may change: hand-made streams with known answers, and the definitions written out."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import CensoredData, chi2, ecdf

from avbench.protocol.laws import SHARES, draw_law, offsets_at
from avbench.protocol.rules import streaming
from avbench.results import dynamic_truth
from avbench.results.dynamic_truth import Changes, WindowTruth
from avbench.scoring import dynamic, segmentation, streams, survival
from avbench.scoring.alarms import alarm_times
from avbench.scoring.dynamic import PAIRED, SHOWN, falsely_declared, main_scores, paired, price, recovery_times, score
from avbench.scoring.stats import Bootstrap, paired_difference
from avbench.scoring.streams import checked_streams
from avbench.ticks import TICKS_PER_S, ticks
from avbench.types import Law, NonFiniteError, OffsetGrid, Piece, SegmentRecord, UsageError

GRID = OffsetGrid()
LONG = streaming(iterations=48)
STREAM = ticks(99)
PLAIN = Bootstrap(0)  # no intervals
NUMBERS = (
    "tracked_acc",
    "tracked_acc_tol1",
    "tracking_error_s",
    "auec",
    "recovery_s",
    "recovery_median_s",
    "recovered_within_10_s",
    "recovered_within_20_s",
    "recovered_within_40_s",
    "false_changes_per_h",
    "covering",
    "f1_changes",
)


def steps(*pieces: tuple[float, float]) -> Law:
    """A law of constant pieces from (seconds, seconds)."""
    return Law("any", tuple(Piece(ticks(at), ticks(offset)) for at, offset in pieces))


def truth_of(*laws: Law) -> WindowTruth:
    segments = [SegmentRecord(f"s{k}", "c", "v", 0, law.pieces[0].offset, 10, law=law) for k, law in enumerate(laws)]
    return WindowTruth.of(segments, LONG)


def drawn(n: int, seed: int = 0, names: tuple[str, ...] = tuple(SHARES)) -> list[Law]:
    return [draw_law(names[k % len(names)], f"s{k}", seed, STREAM) for k in range(n)]


def saying(classes: np.ndarray) -> np.ndarray:
    """Logits that put everything on the given classes: (N, W) -> (N, W, 21)."""
    return 100.0 * np.eye(21)[classes]


def labels_of(truth: WindowTruth) -> np.ndarray:
    return np.array([[GRID.class_of(offset) for offset in row] for row in truth.offset_end_s])


def later(classes: np.ndarray, windows: int) -> np.ndarray:
    """The same, some windows late."""
    return np.concatenate([np.repeat(classes[:, :1], windows, axis=1), classes[:, : 48 - windows]], axis=1)


def value(found: dict, name: str) -> float:
    return found[name]["value"]


# One jump by 0.8 s at 30.2 s: window 13, which ends at 31 s, is the first that has it.
JUMP = steps((0, 0.0), (30.2, 0.8))
FIRST = 13


# -------------------------------------------------------------------------------------------- streams with known scores


def test_a_perfect_tracker() -> None:
    truth = truth_of(JUMP, steps((0, -0.4)))
    found = score(saying(labels_of(truth)), truth, bootstrap=PLAIN)
    for name in ("tracked_acc", "tracked_acc_tol1", "recovered_within_10_s"):
        assert value(found, name) == 1
    for name in ("tracking_error_s", "auec"):
        assert value(found, name) == pytest.approx(0, abs=1e-12)
    assert value(found, "false_changes_per_h") == 0
    assert value(found, "recovery_s") == pytest.approx(0.8)  # no window ends sooner
    assert value(found, "recovery_median_s") == pytest.approx(0.8)
    assert value(found, "f1_changes") == 1
    # declared at the third window: of 45 scored windows 10 and 35 are cut into 12 and 33
    assert value(found, "covering") == pytest.approx((1 + (10 * 10 / 12 + 35 * 33 / 35) / 45) / 2)
    assert value(found["headline"], "recovery_s") == value(found, "recovery_s")
    assert found["headline"]["raised"] is False
    assert (found["n_changes"], found["n_counted"], found["n_ranked"]) == (1, 1, 1)


def test_one_that_never_moves() -> None:
    truth = truth_of(JUMP, steps((0, -0.4)))
    found = score(saying(np.repeat(labels_of(truth)[:, :1], 48, axis=1)), truth, bootstrap=PLAIN)
    assert value(found, "auec") == pytest.approx(1)
    assert value(found, "recovery_s") == 40
    assert value(found, "recovery_median_s") == 40
    assert value(found, "recovered_within_40_s") == 0
    assert value(found, "false_changes_per_h") == 0
    assert value(found, "tracking_error_s") == pytest.approx(0.8 * 35 / 90)
    # 35 windows of 90 are wrong, two of them not pure (they hold 0.8 and 2.8 of 5 s), nor is the one of 4.8 s
    assert value(found, "tracked_acc") == pytest.approx(1 - 32 / 87)
    assert [row["events"] for row in found["recovery"]] == [0, 0]
    assert found["recovery"][-1]["time_s"] == pytest.approx(99 - 30.2)
    assert value(found, "f1_changes") == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_one_that_is_some_windows_late(windows: int) -> None:
    truth = truth_of(JUMP)
    found = score(saying(later(labels_of(truth), windows)), truth, bootstrap=PLAIN)
    assert value(found, "recovery_s") == pytest.approx(0.8 + 2 * windows)
    assert value(found, "auec") == pytest.approx(windows / 20)
    assert value(found, "tracking_error_s") == pytest.approx(0.8 * windows / 45)
    assert value(found, "false_changes_per_h") == 0
    pure_and_wrong = max(windows - 3, 0)
    assert value(found, "tracked_acc_tol1") == pytest.approx(1 - pure_and_wrong / 42)


def test_one_that_flickers() -> None:
    """Four windows out and back every 10 on a steady stream: each way is a false change."""
    truth = truth_of(steps((0, 0.0)))
    classes = np.where(np.arange(48) % 10 >= 6, 15, 10)[None]
    found = score(saying(classes), truth, bootstrap=PLAIN)
    changes = 4 * 2  # out at 8, 18, 28, 38 and back at 12, 22, 32, 42
    assert found["false_changes"]["n"] == changes
    assert value(found, "false_changes_per_h") == pytest.approx(changes / (90 / 3600))
    assert found["false_changes"]["run_s"] == pytest.approx((8 - 3 + 1) * 2)
    assert found["headline"]["held"] == 5  # out for 4 windows, which then hold no class; back for 6
    assert found["headline"]["raised"] is True
    assert value(found["headline"], "false_changes_per_h") == 0
    assert math.isnan(value(found, "recovery_s"))  # there is no change to recover from
    assert found["recovery"] == []


# ------------------------------------------------------------------------------------ when things happen, and mutations


def check_when_a_change_is_recovered_from() -> None:
    truth = truth_of(JUMP)
    times = recovery_times(checked_streams(saying(later(labels_of(truth), 2)), truth))
    assert times.time_s.tolist() == pytest.approx([31 + 2 * 2 - 30.2])
    assert times.event.tolist() == [True]


def check_when_a_change_is_declared() -> None:
    """The 40 s after a change end with it explained; a moment later it is not. Nor is it at the change itself."""
    classes = np.full((2, 48), 10)
    classes[:, FIRST + 20 - 2 :] = 16  # declared at window 33, which ends at 71 s
    for at_s, n_false in ((31.0, 0), (30.96, 2)):
        truth = truth_of(steps((0, 0.0), (at_s, 0.8)), steps((0, 0.0), (at_s, 0.2)))
        found = falsely_declared(checked_streams(saying(classes), truth))
        assert np.flatnonzero(found.any(axis=0)).tolist() == ([33] if n_false else [])
        assert found.sum() == n_false
    classes[:, FIRST - 2 :] = 16  # declared at window 13, which ends at 31 s
    found = falsely_declared(checked_streams(saying(classes), truth_of(*(steps((0, 0.0), (t, 0.8)) for t in (31, 30)))))
    assert found.sum(axis=1).tolist() == [1, 0]


def check_what_is_so_is_so_at_the_end_of_a_window() -> None:
    truth = truth_of(JUMP)
    classes = np.full((1, 48), 10)
    classes[:, FIRST:] = 14
    assert checked_streams(saying(classes), truth).labels.tolist() == classes.tolist()
    found = score(saying(classes), truth, bootstrap=PLAIN)
    assert value(found, "tracking_error_s") == pytest.approx(0, abs=1e-12)
    assert value(found, "tracked_acc") == 1


def check_that_three_windows_in_a_row_are_a_recovery() -> None:
    classes = labels_of(truth_of(JUMP))
    classes[0, FIRST + 2] = 0  # two were right before
    times = recovery_times(checked_streams(saying(classes), truth_of(JUMP)))
    assert times.time_s == pytest.approx([0.8 + 2 * 3])


def check_at_which_window_a_change_is_declared() -> None:
    """The third that says so."""
    classes = np.repeat([[10, 14]], [20, 28], axis=1)
    stable = segmentation.stable_classes(classes)
    assert stable[0, :25].tolist() == [-1, -1, *[10] * 18, -1, -1, 14, 14, 14]
    assert np.argwhere(segmentation.declared_changes(stable, 2)).tolist() == [[0, 22]]
    truth = truth_of(steps((0, 0.0), (44.2, 0.8)))  # window 20 is the first that has it
    assert dynamic.covering_of(checked_streams(saying(classes), truth))[0].tolist() == pytest.approx(
        [(17 * 17 / 19 + 28 * 26 / 28) / 45]
    )


def check_the_warm_up_is_not_scored() -> None:
    """Nonsense in the first three windows, and a change before their end, are nobody's business."""
    truth = truth_of(steps((0, 0.0)), steps((0, 0.0), (8, 0.8)))
    classes = labels_of(truth)
    classes[:, :3] = [0, 20, 0]
    found = score(saying(classes), truth, bootstrap=PLAIN)
    assert (value(found, "tracked_acc"), value(found, "false_changes_per_h")) == (1, 0)
    assert value(found, "tracking_error_s") == pytest.approx(0, abs=1e-12)
    assert (value(found, "covering"), value(found, "f1_changes")) == (1, 1)
    assert (found["n_changes"], found["n_counted"]) == (1, 0)
    assert (found["false_changes"]["hours"] * 3600, found["false_changes"]["watched_s"]) == (180, 90)


def check_watching_ends_with_the_stream() -> None:
    """A stream that never follows a jump at 80.2 s is watched for 18.8 s: it is censored there, and one that follows
    one after 0.8 s does not make half of them recover late."""
    late = steps((0, 0.0), (80.2, 0.8))
    truth = truth_of(late, JUMP)
    classes = labels_of(truth)
    classes[0] = 10
    found = score(saying(classes), truth, bootstrap=PLAIN)
    times = recovery_times(checked_streams(saying(classes), truth))
    assert times.time_s.tolist() == pytest.approx([18.8, 0.8])
    assert times.event.tolist() == [False, True]
    assert value(found, "recovered_within_40_s") == 0.5
    assert value(found, "recovery_s") == pytest.approx((0.8 + 40) / 2)  # half is still away at 40 s, as far as is known
    last = {"time_s": pytest.approx(18.8), "at_risk": 1, "events": 0, "censored": 1, "survival": 0.5}
    assert found["recovery"][-1] == last


CHECKS = (
    check_when_a_change_is_recovered_from,
    check_when_a_change_is_declared,
    check_at_which_window_a_change_is_declared,
    check_what_is_so_is_so_at_the_end_of_a_window,
    check_that_three_windows_in_a_row_are_a_recovery,
    check_the_warm_up_is_not_scored,
    check_watching_ends_with_the_stream,
)


@pytest.mark.parametrize("check", CHECKS)
def test_streams_are_scored_as_the_definition_says(check: Callable[[], None]) -> None:
    check()


def window_early(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """What it says of each window, one window early."""
    return lambda *args: np.roll(function(*args), -1, axis=1)


def index_early(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *args: function(*args) - 1


def change_early(function: Callable[..., Changes]) -> Callable[..., Changes]:
    def early(truth: WindowTruth, window: int, hop: int) -> Changes:
        found = function(truth, window, hop)
        return found._replace(at=found.at - hop, begun=found.begun - hop)

    return early


@pytest.mark.parametrize(
    ("module", "name", "mutated", "check"),
    [
        (dynamic, "declared_changes", window_early, check_when_a_change_is_declared),
        (streams, "stable_classes", window_early, check_when_a_change_is_declared),
        (segmentation, "declared_changes", window_early, check_at_which_window_a_change_is_declared),
        (segmentation, "stable_classes", window_early, check_at_which_window_a_change_is_declared),
        (dynamic, "declared_changes", window_early, check_at_which_window_a_change_is_declared),
        (streams, "changes_of", change_early, check_when_a_change_is_declared),
        (streams, "changes_of", change_early, check_when_a_change_is_recovered_from),
        (dynamic, "first_from", index_early, check_when_a_change_is_recovered_from),
        (streams, "classes_of", window_early, check_what_is_so_is_so_at_the_end_of_a_window),
        (streams, "believed_offsets_s", window_early, check_what_is_so_is_so_at_the_end_of_a_window),
    ],
)
def test_what_dates_a_change_one_window_early_is_caught(
    module: object,
    name: str,
    mutated: Callable[..., Callable[..., object]],
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mutation of the code, caught by a check of ``test_streams_are_scored_as_the_definition_says``."""
    assert_caught(module, name, mutated, check, monkeypatch)


def assert_caught(
    module: object,
    name: str,
    mutated: Callable[..., object],
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check passes, and fails where ``module.name`` is what ``mutated`` makes of it."""
    check()
    monkeypatch.setattr(module, name, mutated(getattr(module, name)))
    with pytest.raises(AssertionError):
        check()


def at_its_start(offsets_at: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The offsets one window earlier: those at the windows' starts for those at their ends."""
    return lambda law, t: offsets_at(law, np.maximum(np.asarray(t) - LONG.window, 0))


def over_the_window(_: property) -> property:
    return property(lambda truth: np.rint(truth.offset_mean_s * TICKS_PER_S).astype(np.int64))


def watched_on(function: Callable[..., Changes]) -> Callable[..., Changes]:
    """The last change of a stream is watched for as long as one likes."""

    def longer(truth: WindowTruth, window: int, hop: int) -> Changes:
        found = function(truth, window, hop)
        last = found.until_window == truth.regime.shape[1]
        return found._replace(until=np.where(last, found.at + ticks(40), found.until))

    return longer


def all_seen(_: type) -> Callable[..., survival.Times]:
    return lambda time_s, event: survival.Times(time_s, np.ones_like(event))


def only_those_seen(function: Callable[..., survival.Times]) -> Callable[..., survival.Times]:
    """What was censored is left out. (The rows of the other cases stay: it never was at risk.)"""

    def seen(found: streams.Streams, *held: int) -> survival.Times:
        times = function(found, *held)
        return survival.Times(np.where(times.event, times.time_s, 0), times.event)

    return seen


@pytest.mark.parametrize(
    ("module", "name", "mutated", "check"),
    [
        (dynamic_truth, "offsets_at", at_its_start, check_what_is_so_is_so_at_the_end_of_a_window),
        (WindowTruth, "offset_end", over_the_window, check_what_is_so_is_so_at_the_end_of_a_window),
        (streams, "WARM_UP", lambda _: 0, check_the_warm_up_is_not_scored),
        (streams, "WARM_UP", lambda _: 2, check_the_warm_up_is_not_scored),
        (streams, "WARM_UP", lambda _: 4, check_the_warm_up_is_not_scored),
        (dynamic, "WARM_UP", lambda _: 0, check_the_warm_up_is_not_scored),
        (dynamic, "Times", all_seen, check_watching_ends_with_the_stream),
        (dynamic, "recovery_times", only_those_seen, check_watching_ends_with_the_stream),
        (streams, "changes_of", watched_on, check_watching_ends_with_the_stream),
        (dynamic, "HELD", lambda _: 2, check_that_three_windows_in_a_row_are_a_recovery),
        (dynamic, "EXPLAINED", lambda ticks_of: ticks_of - LONG.hop, check_when_a_change_is_declared),
        (dynamic, "EXPLAINED", lambda ticks_of: ticks_of + 640, check_when_a_change_is_declared),
    ],
)
def test_what_scores_a_stream_otherwise_is_caught(
    module: object,
    name: str,
    mutated: Callable[..., object],
    check: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More mutations: a label of another instant, a warm-up that is scored, what was not seen any more forgotten."""
    assert_caught(module, name, mutated, check, monkeypatch)


# ------------------------------------------------------------------------------------------ the definitions written out


def recovery_by_hand(law: Law, classes: list[int]) -> list[tuple[float, bool, int]]:
    """(seconds, seen, |delta| in ticks) of every change that counts, from the law's pieces."""
    ends = [ticks(5) + k * ticks(2) for k in range(48)]
    so = [GRID.class_of(o / TICKS_PER_S) for o in offsets_at(law, ends).tolist()]
    regimes = [piece for piece in law.pieces if not piece.slope_ppm]
    changes = [(b.start, abs(b.offset - a.offset)) for a, b in itertools.pairwise(regimes)]
    found = []
    for k, (at, size) in enumerate(changes):
        until = changes[k + 1][0] if k + 1 < len(changes) else ends[-1] + 1
        mine = [i for i in range(48) if at <= ends[i] < until]
        if len(mine) < 3 or mine[0] < 3:
            continue
        held = [i for i in mine[:-2] if all(abs(classes[j] - so[j]) <= 1 for j in (i, i + 1, i + 2))]
        time = ends[held[0]] - at if held else min(until, ends[-1]) - at
        found.append((time / TICKS_PER_S, bool(held), size))
    return found


def moving(laws: list[Law], seed: int) -> np.ndarray:
    """Logits of a tracker that is late, off, and unsure by turns."""
    g = np.random.default_rng(seed)
    classes = labels_of(truth_of(*laws))
    for row in classes:
        row[:] = later(row[None], int(g.integers(0, 12)))[0]
        if g.random() < 0.5:
            begin = int(g.integers(3, 40))
            row[begin : begin + int(g.integers(1, 6))] = g.integers(0, 21)
    near = np.exp(-((np.arange(21) - classes[..., None]) ** 2) / 2)
    return 8 * near + g.standard_normal((len(laws), 48, 21))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([("jump", "hold"), ("multi", "excursion", "ramp"), tuple(SHARES)]))
def test_scores_are_their_definitions(seed: int, names: tuple[str, ...]) -> None:
    laws = [law for law in drawn(12, seed, names) if law.name != "drops"]  # its changes can share a hop
    truth, logits = truth_of(*laws), moving(laws, seed)
    found = score(logits, truth, bootstrap=PLAIN)
    classes, so = logits.argmax(axis=2), labels_of(truth)
    pure = [(n, i) for n in range(len(laws)) for i in range(3, 48) if truth.purity[n, i] == 1]
    off = np.array([abs(classes[n, i] - so[n, i]) for n, i in pure])
    assert value(found, "tracked_acc") == pytest.approx((off == 0).mean(), nan_ok=True)
    assert value(found, "tracked_acc_tol1") == pytest.approx((off <= 1).mean(), nan_ok=True)
    cases = [row for law, stream in zip(laws, classes.tolist(), strict=True) for row in recovery_by_hand(law, stream)]
    ranked = [(t, seen) for t, seen, size in cases if size >= 6400]
    assert (found["n_counted"], found["n_ranked"]) == (len(cases), len(ranked))
    if any(seen for _, seen in ranked):
        curve = ecdf(CensoredData([t for t, seen in ranked if seen], right=[t for t, seen in ranked if not seen])).sf
        fine = np.arange(0, 40, 0.02) + 0.01  # changes are on pictures, windows end on whole seconds
        assert value(found, "recovery_s") == pytest.approx(curve.evaluate(fine).sum() * 0.02, abs=1e-9)
        for s in (10, 20, 40):
            assert value(found, f"recovered_within_{s}_s") == pytest.approx(1 - curve.evaluate(s), abs=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_false_changes_and_the_error_curve_are_their_definitions(seed: int) -> None:
    laws = drawn(10, seed, ("jump", "excursion", "hold"))
    truth, logits = truth_of(*laws), moving(laws, seed)
    found = score(logits, truth, bootstrap=PLAIN)
    classes = logits.argmax(axis=2)
    p = np.exp(logits - logits.max(axis=2, keepdims=True))
    false, areas, errors = 0, [], []
    for n, law in enumerate(laws):
        changes = [(b.start / 16000, (b.offset - a.offset) / 16000) for a, b in itertools.pairwise(law.pieces)]
        last = None
        for i in range(2, 48):
            three = sorted(classes[n, i - 2 : i + 1])
            if max(three[2] - three[1], three[1] - three[0]) > 1:
                continue
            if last is not None and abs(three[1] - last) >= 2:
                false += not any(at < 5 + 2 * i <= at + 40 for at, _ in changes)
            last = three[1]
        top = classes[n]
        believed = []
        for i in range(48):
            near = [c for c in (top[i] - 1, top[i], top[i] + 1) if 0 <= c <= 20]
            believed.append(sum(p[n, i, c] * GRID.offset_of(c) for c in near) / p[n, i, near].sum())
        error = np.abs(np.array(believed) - truth.offset_end_s[n])
        errors += error[3:].tolist()
        for k, (at, delta) in enumerate(changes):
            until = changes[k + 1][0] if k + 1 < len(changes) else 1000
            mine = [i for i in range(48) if at <= 5 + 2 * i < until]
            if len(mine) >= 3 and abs(delta) > 0.39:
                areas.append(error[mine[:20]].mean() / abs(delta))
    assert found["false_changes"]["n"] == false
    assert value(found, "false_changes_per_h") == pytest.approx(false / (len(laws) * 90 / 3600))
    assert value(found, "auec") == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)
    assert value(found, "tracking_error_s") == pytest.approx(np.mean(errors))


def test_recovery_is_censored_at_the_next_change() -> None:
    truth = truth_of(steps((0, 0.0), (30.2, 0.8), (50.2, 0.0)))
    times = recovery_times(checked_streams(saying(np.full((1, 48), 10)), truth))
    assert times.time_s == pytest.approx([20, 0.8])
    assert times.event.tolist() == [False, True]


def test_three_windows_in_a_row_must_agree_before_the_next_change() -> None:
    two = steps((0, 0.0), (30.2, 0.8), (36.2, 0.0))  # three windows; the third comes too late for the second to count
    classes = np.full((1, 48), 10)
    classes[0, FIRST + 1 : FIRST + 3] = 14
    assert recovery_times(checked_streams(saying(classes), truth_of(two))).event.tolist() == [False, True]


def test_a_change_that_cannot_be_seen_to_be_recovered_from_does_not_count() -> None:
    """Three windows are needed: not in the warm-up, at the stream's end, or in a regime of 4 s."""
    early, late, short = (
        steps((0, 0.0), (8, 0.8)),
        steps((0, 0.0), (96, 0.8)),
        steps((0, 0.0), (40.2, 0.8), (44.2, 0.0)),
    )
    found = score(saying(np.full((3, 48), 10)), truth_of(early, late, short), bootstrap=PLAIN)
    assert (found["n_changes"], found["n_counted"]) == (4, 1)
    assert value(found, "recovery_s") == pytest.approx(0.8)


@pytest.mark.parametrize(("windows", "f1"), [(8, 1.0), (9, 0.5)])
def test_a_change_found_more_than_10_windows_late_is_not_found(windows: int, f1: float) -> None:
    """It is declared two windows later still."""
    truth = truth_of(JUMP)
    assert value(score(saying(later(labels_of(truth), windows)), truth, bootstrap=PLAIN), "f1_changes") == f1


def test_small_changes_do_not_rank() -> None:
    truth = truth_of(*(steps((0, 0.0), (30.2, size)) for size in (0.2, 0.39, 0.4, 0.8, 1.6, 2.0)))
    found = score(saying(labels_of(truth)), truth, bootstrap=PLAIN)
    assert found["n_ranked"] == 4
    assert {size: group["n"] for size, group in found["recovery_by_size"].items()} == {
        "<0.4": 2,
        "0.4-0.8": 1,
        "0.8-1.6": 1,
        ">=1.6": 2,
    }
    assert len(found["recovery"]) == 2
    assert found["recovery"][0] == {"time_s": 0.0, "at_risk": 4, "events": 0, "censored": 0, "survival": 1.0}


def test_declaring_a_change_while_the_offset_slides_is_not_false() -> None:
    """A slide from 20 s on that settles at 40 s: the change is at 40 s, and was under way before."""
    slide = Law("ramp", (Piece(0, 0), Piece(ticks(20), 0, 80_000), Piece(ticks(40), ticks(1.6))))
    drifting = Law("drift", (Piece(0, 0), Piece(ticks(20), 0, 2_800)))
    classes = np.full((2, 48), 10)
    classes[:, 12:] = 14  # declared at window 14, which ends at 33 s
    false = falsely_declared(checked_streams(saying(classes), truth_of(slide, drifting)))
    assert np.argwhere(false).tolist() == [[1, 14]]  # the drift never gets anywhere: nothing explains it
    tracker = labels_of(truth_of(slide, slide))
    assert not falsely_declared(checked_streams(saying(tracker), truth_of(slide, slide))).any()


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_the_truth_itself_has_no_false_change_and_recovers_at_once(seed: int) -> None:
    truth = truth_of(*drawn(21, seed))
    found = score(saying(labels_of(truth)), truth, bootstrap=PLAIN)
    assert found["false_changes"]["n"] == 0
    assert value(found, "tracked_acc") == 1
    assert not value(found, "recovery_s") > 2
    assert not value(found, "recovered_within_10_s") < 1


def test_the_rate_of_false_changes_has_the_exact_poisson_interval() -> None:
    truth = truth_of(*[steps((0, 0.0))] * 4)
    classes = np.full((4, 48), 10)
    classes[0, 20:] = 13
    found = score(saying(classes), truth, bootstrap=PLAIN)["false_changes"]
    assert (found["n"], found["hours"]) == (1, pytest.approx(0.1))
    assert found["poisson_low"] == pytest.approx(chi2.ppf(0.025, 2) / 2 / 0.1)
    assert found["poisson_high"] == pytest.approx(chi2.ppf(0.975, 4) / 2 / 0.1)
    assert (found["n_first"], found["watched_s"]) == (1, 3 * 90 + (22 - 3 + 1) * 2)
    assert found["run_s"] == found["watched_s"]
    none = score(saying(np.full((4, 48), 10)), truth, bootstrap=PLAIN)["false_changes"]
    assert none["poisson_low"] == 0
    assert none["poisson_high"] == pytest.approx(chi2.ppf(0.975, 2) / 2 / 0.1)
    assert math.isnan(none["run_s"])


def test_the_headline_pays_for_a_raised_threshold() -> None:
    """Jumps of 0.4 and 1.6 s that are tracked at once, one of 1.6 s 15 windows late, and 4 windows of a false step."""
    laws = [steps((0, 0.0), (30.2, 0.4)), *[steps((0, 0.0), (30.2, 1.6))] * 2, steps((0, 0.0))]
    classes = labels_of(truth_of(*laws))
    classes[2] = later(classes[2:3], 15)[0]
    classes[3, 20:24] = 13
    found = score(saying(classes), truth_of(*laws), bootstrap=PLAIN)
    assert value(found, "recovery_s") == pytest.approx((0.8 + 0.8 + 30.8) / 3)
    assert (found["headline"]["held"], found["headline"]["raised"]) == (5, True)
    assert value(found["headline"], "false_changes_per_h") == 0
    assert value(found["headline"], "recovery_s") == pytest.approx((0.8 + 0.8 + 30.8) / 3 + 2 * 2)  # two windows later
    assert value(found["headline"], "tracked_acc_tol1") == value(found, "tracked_acc_tol1")


def test_standing_still_is_no_better_than_following_with_mistakes() -> None:
    """One that follows 5 windows late and errs for 4 windows every 20, and one that always says "in sync"."""
    laws = [steps((0, 0.0), (31.0 + k, 0.8)) for k in range(6)]
    truth = truth_of(*laws)
    follows = later(labels_of(truth), 5)
    follows[:, 12:16] = 3
    still = np.full_like(follows, 10)
    restless, steady = (score(saying(classes), truth, bootstrap=PLAIN)["headline"] for classes in (follows, still))
    assert (restless["raised"], steady["raised"]) == (True, False)
    assert value(restless, "recovery_s") < value(steady, "recovery_s") == 40


def test_a_first_belief_that_is_put_right_is_a_false_change() -> None:
    truth = truth_of(steps((0, 0.0)), steps((0, 0.0)))
    classes = np.full((2, 48), 10)
    classes[0, :10] = 13
    found = score(saying(classes), truth, bootstrap=PLAIN)
    assert found["false_changes"]["n"] == 1
    assert found["headline"]["held"] == 11  # as the first belief was held for 10


# -------------------------------------------------------------------------------------------------- tolerance and drift


def test_how_soon_and_how_surely_the_alarm_is_raised() -> None:
    """A model's own alarm, two windows after the sound leaves tolerance at 30.2 s; it is back at 50.2 s."""
    truth = truth_of(steps((0, 0.0), (30.2, 0.8), (50.2, 0.0)), steps((0, 0.0)))
    alarm = np.zeros((2, 48))
    alarm[0, FIRST + 2 : FIRST + 11] = 0.9  # one window too long
    alarm[1, 5] = 0.6
    logits = saying(labels_of(truth))
    found = score(logits, truth, alarm=alarm, bootstrap=PLAIN)["alarm"]
    for table in found.values():
        assert (table["missed_s"], table["outside_s"]) == (4, 20)
        assert (table["false_s"], table["within_s"]) == (4, 160)
        assert (table["n_left"], table["limit"]) == (1, 0.5)
        assert value(table, "to_alarm_s") == pytest.approx(0.8 + 4)
    silent = score(logits, truth, alarm=np.zeros((2, 48)), bootstrap=PLAIN)["alarm"]["ebu"]
    assert (value(silent, "to_alarm_s"), silent["missed_s"]) == (40, 20)
    assert value(silent, "roc_auc") == 0.5
    own = score(logits, truth, bootstrap=PLAIN)["alarm"]["ebu"]  # from the logits
    assert value(own, "roc_auc") == 1
    assert (value(own, "to_alarm_s"), own["missed_s"], own["false_s"]) == (pytest.approx(0.8), 0, 0)


def test_waiting_for_an_alarm_ends_where_the_sound_is_back_in_tolerance() -> None:
    truth = truth_of(steps((0, 0.0), (30.2, 0.8), (50.2, 0.0)), steps((0, 0.0), (30.2, 0.8)))
    found = checked_streams(saying(labels_of(truth)), truth)
    outside = truth.offset_end_s > 0.045
    times, stream = alarm_times(found, outside, np.arange(48) == [[23], [47]])  # 51 s: too late; 99 s
    assert times.time_s == pytest.approx([49 - 30.2, 99 - 30.2])
    assert times.event.tolist() == [False, True]
    assert stream.tolist() == [0, 1]


def test_a_slide_out_of_tolerance_counts_from_the_last_window_within() -> None:
    slide = Law("ramp", (Piece(0, 0), Piece(ticks(20), 0, 20_000), Piece(ticks(60), ticks(0.8))))
    truth = truth_of(slide)  # 45 ms early at 22.25 s: the window that ends at 23 s is the first outside itu-detect
    alarm = (np.arange(48) >= 12)[None] * 1.0  # the window that ends at 29 s
    found = score(saying(labels_of(truth)), truth, alarm=alarm, bootstrap=PLAIN)["alarm"]["itu-detect"]
    assert found["n_left"] == 1
    assert value(found, "to_alarm_s") == 29 - 21


def test_drift_is_found_where_the_model_can_see_it() -> None:
    slopes = [2_800, -2_800, 999, 170, -23]
    laws = [Law("drift", (Piece(0, 0, slope),)) for slope in slopes]
    laws += [steps((0, 0.0)), steps((0, 0.4)), JUMP, draw_law("drops", "s", 0, STREAM)]
    truth = truth_of(*laws)
    sharp = -(((np.arange(21) * 0.2 - 2 - truth.offset_end_s[..., None]) / 0.1) ** 2)
    found = score(sharp, truth, bootstrap=PLAIN)["drift"]
    assert (found["n_straight"], found["n_drifting"]) == (7, 5)
    assert value(found, "roc_auc") == 1
    blind = score(saying(np.full((9, 48), 10)), truth, bootstrap=PLAIN)["drift"]
    assert value(blind, "roc_auc") == 0.5
    assert value(blind, "error_ppm") == pytest.approx(np.mean(np.abs(slopes)), abs=1)
    assert value(found, "error_ppm") < value(blind, "error_ppm")


# ---------------------------------------------------------------------------------------------- intervals, input, price


@pytest.fixture(scope="module")
def many() -> tuple[list[Law], np.ndarray, np.ndarray]:
    laws = drawn(60)
    return laws, moving(laws, 0), np.array([f"v{k // 2}" for k in range(60)])


def test_intervals_are_over_videos_and_contain_the_value(many: tuple[list[Law], np.ndarray, np.ndarray]) -> None:
    laws, logits, videos = many
    found = score(logits, truth_of(*laws), videos=videos, bootstrap=Bootstrap(200))
    alone = score(logits, truth_of(*laws), bootstrap=Bootstrap(200))
    for name in NUMBERS:
        assert found[name]["ci_low"] <= value(found, name) <= found[name]["ci_high"], name
        assert value(found, name) == pytest.approx(value(alone, name), abs=1e-12), name
        if name != "recovery_median_s":
            assert found[name]["ci_low"] < found[name]["ci_high"], name
    assert found["tracking_error_s"] != alone["tracking_error_s"]
    one = score(logits, truth_of(*laws), videos=["v"] * 60, bootstrap=Bootstrap(200))
    assert math.isnan(one["recovery_s"]["ci_low"])


def test_the_same_call_gives_the_same_scores_as_plain_data(many: tuple[list[Law], np.ndarray, np.ndarray]) -> None:
    laws, logits, videos = many
    names = [law.name for law in laws]
    truth = truth_of(*laws)
    found = [
        json.dumps(score(logits, of, videos=videos, laws=names, bootstrap=Bootstrap(20)))
        for of in (truth, truth.frame())
    ]
    assert found[0] == found[1]


def test_the_order_of_the_streams_does_not_matter(many: tuple[list[Law], np.ndarray, np.ndarray]) -> None:
    laws, logits, videos = many
    order = np.random.default_rng(1).permutation(60)
    truth = truth_of(*laws)
    found = score(logits, truth, videos=videos, bootstrap=Bootstrap(50))
    other = score(logits[order], truth.take(order), videos=videos[order], bootstrap=Bootstrap(50))
    for name in NUMBERS:
        assert list(found[name].values()) == pytest.approx(list(other[name].values()), abs=1e-9), name


def test_scores_by_law_are_those_of_its_streams(many: tuple[list[Law], np.ndarray, np.ndarray]) -> None:
    laws, logits, videos = many
    names = np.array([law.name for law in laws])
    truth = truth_of(*laws)
    found = score(logits, truth, videos=videos, laws=names, bootstrap=Bootstrap(50))["by_law"]
    assert set(found) == set(SHARES)
    rows = np.flatnonzero(names == "jump")
    alone = score(logits[rows], truth.take(rows), videos=videos[rows], bootstrap=Bootstrap(50))
    assert found["jump"] == {"n": len(rows), **{name: alone[name] for name in NUMBERS}}
    assert score(logits, truth, bootstrap=PLAIN)["by_law"] == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"logits": np.zeros((2, 48, 20))}, r"logits have shape \(2, 48, 20\)"),
        ({"logits": np.zeros((3, 48, 21))}, r"needs \(2, 48, 21\)"),
        ({"videos": ["a"]}, "video names"),
        ({"laws": ["a"]}, "names of laws"),
        ({"alarm": np.zeros((2, 47))}, "alarm has shape"),
        ({"alarm": np.full((2, 48), 1.5)}, "numbers from 0 to 1"),
        ({"alarm": np.full((2, 48), np.nan)}, "numbers from 0 to 1"),
        ({"hop_s": 6.0}, "no longer than the window"),
        ({"hop_s": 0.0}, "must be above 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(changes: dict, says: str) -> None:
    given_ = {"logits": np.zeros((2, 48, 21)), "truth": truth_of(JUMP, JUMP), "bootstrap": PLAIN} | changes
    with pytest.raises(UsageError, match=says) as caught:
        score(given_.pop("logits"), given_.pop("truth"), **given_)
    assert "\n" not in str(caught.value)


def test_logits_must_be_finite_and_streams_longer_than_the_warm_up() -> None:
    logits = np.zeros((1, 48, 21))
    logits[0, 5, 3] = np.nan
    with pytest.raises(NonFiniteError, match="segment s0, iteration 6: logits contain NaN"):
        score(logits, truth_of(JUMP))
    short = WindowTruth.of([SegmentRecord("s", "c", "v", 0, 0, 10)], streaming(iterations=3))
    with pytest.raises(UsageError, match="first 3 are not scored"):
        score(np.zeros((1, 3, 21)), short)


def test_a_track_of_fixed_offsets_can_be_scored_too() -> None:
    segments = [SegmentRecord(f"s{c}", "c", "v", 0, ticks(GRID.offset_of(c)), c) for c in range(21)]
    truth = WindowTruth.of(segments, streaming(iterations=18))
    logits = saying(np.repeat(np.arange(21)[:, None], 18, axis=1))
    logits[0, 10:] = logits[20, 10:]
    found = score(logits, truth, bootstrap=PLAIN)
    assert value(found, "tracked_acc") == pytest.approx(1 - 8 / (21 * 15))
    assert found["n_changes"] == 0
    assert found["false_changes"]["n"] == 1
    assert math.isnan(value(found, "recovery_s"))


def test_the_price_is_the_paired_difference_on_steady_streams() -> None:
    g = np.random.default_rng(0)
    laws = drawn(40, names=("hold", "jump"))
    truth, videos = truth_of(*laws), np.arange(40) // 2
    steady = np.array([law.name == "hold" for law in laws])
    ours, theirs = (saying(labels_of(truth)) / 50 + g.standard_normal((40, 48, 21)) for _ in range(2))
    found = price(ours, theirs, truth, videos, Bootstrap(50))
    labels = labels_of(truth)[steady, -1]
    expected = paired_difference(ours[steady, -1], theirs[steady, -1], labels, videos[steady], Bootstrap(50))
    assert found == expected
    with pytest.raises(UsageError, match="no stream has a constant offset"):
        price(ours[~steady], theirs[~steady], truth.take(np.flatnonzero(~steady)), videos[~steady])
    with pytest.raises(UsageError, match="those on the fixed track"):
        price(ours, theirs[:2], truth, videos)


# -- two models --------------------------------------------------------------------------------------------------------


def test_a_model_that_is_four_windows_later_recovers_eight_seconds_later() -> None:
    truth = truth_of(*drawn(20, names=("jump",)))
    soon = saying(labels_of(truth))
    late = saying(later(labels_of(truth), 4))
    videos = [f"v{k // 2}" for k in range(20)]
    found = paired(soon, late, truth, videos=videos, bootstrap=Bootstrap(99))
    assert set(found) == set(PAIRED)
    recovery = found["recovery_s"]
    assert (recovery["difference"], recovery["ci_low"], recovery["ci_high"]) == pytest.approx((-8, -8, -8))
    assert recovery["p"] < 0.05
    assert found["false_changes_per_h"]["difference"] == 0
    assert found["tracked_acc_tol1"]["difference"] > 0 > found["tracking_error_s"]["difference"]
    other_way = paired(late, soon, truth, videos=videos, bootstrap=Bootstrap(99))
    for name, one in found.items():
        assert other_way[name]["difference"] == -one["difference"]


def test_paired_differences_are_those_of_the_scores_and_of_the_same_resamples() -> None:
    truth = truth_of(*drawn(24, seed=3))
    true, random = labels_of(truth), np.random.default_rng(5)
    ours, theirs = (saying(np.clip(true + random.integers(-2, 3, true.shape), 0, 20)) for _ in range(2))
    videos = np.array([f"v{k % 8}" for k in range(24)])
    given = {"videos": videos, "bootstrap": Bootstrap(200)}
    found = paired(ours, theirs, truth, metrics=tuple(SHOWN), **given)
    of_ours, of_theirs = (score(of, truth, **given) for of in (ours, theirs))
    assert set(found) == set(main_scores(checked_streams(ours, truth)))
    for name, one in found.items():
        assert one["difference"] == pytest.approx(value(of_ours, name) - value(of_theirs, name)), name
        assert one["p"] >= 0.05 or not one["ci_low"] <= 0 <= one["ci_high"], name
    same = paired(ours, ours, truth, **given)
    assert all((one["difference"], one["ci_low"], one["ci_high"]) == (0, 0, 0) for one in same.values())

    # on streams that hold, every scored window is pure: the share within one class is a plain metric's
    held = truth_of(*drawn(12, names=("hold",)))
    labels = labels_of(held)
    a, b = (saying(np.clip(labels + random.integers(-2, 3, labels.shape), 0, 20)) for _ in range(2))
    names = np.array([f"v{k % 6}" for k in range(12)])
    flat = [of[:, 3:].reshape(-1, 21) for of in (a, b)]
    plain = paired_difference(*flat, labels[:, 3:].ravel(), np.repeat(names, 45), Bootstrap(60), metrics=["acc_tol1"])
    one = paired(a, b, held, videos=names, bootstrap=Bootstrap(60))["tracked_acc_tol1"]
    assert one == pytest.approx(plain["acc_tol1"])


def test_pairs_without_a_change_that_ranks_have_no_difference_in_recovery() -> None:
    truth = truth_of(*drawn(4, names=("hold",)))
    ours = saying(labels_of(truth))
    assert all(math.isnan(part) for part in paired(ours, ours, truth)["recovery_s"].values())
    with pytest.raises(UsageError, match="unknown score 'acc'"):
        paired(ours, ours, truth, metrics=["acc"])
    with pytest.raises(UsageError, match="logits have shape"):
        paired(ours, ours[:2], truth)
