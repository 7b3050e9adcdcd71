"""Scores of streams whose offset may change: is what is believed so *now*, how soon is a change seen, and how often is
one seen that is not there.

The truth of a window is the offset at its end (``avbench.results.dynamic_truth``). The first ``WARM_UP`` windows are
not scored. Each score is one function below, of ``Streams``; ``score`` computes all, with intervals over videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.results.dynamic_truth import Changes, WindowTruth
from avbench.scoring import survival
from avbench.scoring.alarms import alarm_at
from avbench.scoring.calibration import believed_offsets_s
from avbench.scoring.metrics import GRID, Column, Resamples
from avbench.scoring.segmentation import HELD, covering, declared_changes, f1, first_from, stable_classes
from avbench.scoring.stats import (
    DEFAULT,
    Bootstrap,
    Difference,
    Estimate,
    difference,
    estimate,
    paired_difference,
    ratio,
)
from avbench.scoring.streams import WARM_UP, Streams, checked_streams
from avbench.scoring.survival import Times
from avbench.scoring.tolerance import TOLERANCES, roc_auc
from avbench.ticks import TICKS_PER_S, Tick, ticks
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

MOVED = 2  # classes by which the stable class must move for a change to be declared
EXPLAINED: Tick = ticks(40)  # how long after a change declaring one is not false
AVERAGED_S = 40.0  # recovery is averaged up to here
RECOVERED_S = (10, 20, 40)
SIZES_S = {"<0.4": (0.0, 0.4), "0.4-0.8": (0.4, 0.8), "0.8-1.6": (0.8, 1.6), ">=1.6": (1.6, 4.1)}  # of a change
AUEC_WINDOWS = 20
MARGIN_WINDOWS = 10
FALSE_PER_H = 1.0  # a model above has its declaring threshold raised for the headline
DRIFTING_PPM = 500
INF = float("inf")
PAIRED = ("recovery_s", "false_changes_per_h", "tracked_acc_tol1", "tracking_error_s")  # what two models differ in


def score(  # noqa: PLR0913  (what outside checks call)
    logits: Any,
    truth: WindowTruth | pd.DataFrame,
    *,
    hop_s: float = 2.0,
    window_s: float = 5.0,
    videos: Sequence[str] | np.ndarray | None = None,
    laws: Sequence[str] | None = None,
    alarm: Any = None,
    bootstrap: Bootstrap = DEFAULT,
) -> dict[str, Any]:
    """All scores of ``logits`` (N, W, 21), real and finite, against the truth of N segments in the same order: the
    table of ``truth.parquet`` or a ``WindowTruth``.

    ``videos`` (N,) names what the bootstrap draws (None: each segment is a video of its own). ``laws`` (N,) names the
    law of each segment, for scores by law. ``alarm`` (N, W) in [0, 1]: the model's own probability of being out of
    tolerance, raised above 0.5.

    Returns plain numbers, lists and dicts; an estimate is {value, ci_low, ci_high}, nan where undefined.
    - ``tracked_acc``, ``tracked_acc_tol1``, ``tracking_error_s``, ``auec``, ``false_changes_per_h``, ``covering``,
      ``f1_changes``; of the ranked changes ``recovery_s`` (restricted mean), ``recovery_median_s`` and
      ``recovered_within_10_s`` (20, 40): estimates. ``n_changes``, ``n_counted`` and ``n_ranked`` changes.
    - ``recovery``: the Kaplan-Meier table of the ranked changes; ``recovery_by_size``: by |delta| in seconds.
    - ``false_changes``, ``alarm`` (by tolerance), ``drift``, ``headline``, ``by_law``: see the functions of that name.
    ``UsageError`` for other shapes or tables, ``NonFiniteError`` for logits that are not finite.
    """
    found = checked_streams(logits, truth, hop_s, window_s, videos, alarm)
    scores: dict[str, Any] = main_scores(found, bootstrap)
    for name, rows in (("changes", found.changes.at), ("counted", found.counted), ("ranked", found.ranked)):
        scores[f"n_{name}"] = len(rows)
    scores["recovery"] = recovery_table(found)
    scores["recovery_by_size"] = recovery_by_size(found, bootstrap)
    scores["false_changes"] = false_changes(found, bootstrap.level)
    scores["alarm"] = {table.name: alarm_at(found, table, bootstrap) for table in TOLERANCES.values()}
    scores["drift"] = drift(found, bootstrap)
    scores["headline"] = headline(found, bootstrap)
    scores["by_law"] = by_law(found, laws, bootstrap)
    return _plain(scores)


class Measure(NamedTuple):
    """A main score of some streams: in each resample of ``videos`` (those of the streams, or of the changes that it is
    about), its largest value, and whether it is ``smooth`` (no median)."""

    of: Callable[[Resamples], np.ndarray]
    videos: np.ndarray
    most: float
    smooth: bool = True

    def estimate(self, bootstrap: Bootstrap) -> Estimate:
        """Its value and interval."""
        return estimate(self.of, self.videos, bootstrap, most=self.most, smooth=self.smooth)


def measures(found: Streams) -> dict[str, Measure]:
    """The scores that are one number each."""
    means = {name: _mean(function(found), found, most) for name, (function, most) in MEANS.items()}
    return means | _recovery(found, recovery_times(found), found.ranked)


def main_scores(found: Streams, bootstrap: Bootstrap = DEFAULT) -> dict[str, Estimate]:
    """The scores that are one number each, with their intervals."""
    return {name: measure.estimate(bootstrap) for name, measure in measures(found).items()}


def paired(  # noqa: PLR0913  (two models, and what score takes)
    logits_a: Any,
    logits_b: Any,
    truth: WindowTruth | pd.DataFrame,
    *,
    hop_s: float = 2.0,
    window_s: float = 5.0,
    videos: Sequence[str] | np.ndarray | None = None,
    bootstrap: Bootstrap = DEFAULT,
    metrics: Sequence[str] = PAIRED,
) -> dict[str, Difference]:
    """Main scores of model A minus those of model B on the same streams, over the same resamples of videos: name ->
    {difference, ci_low, ci_high, p}, for ``metrics`` (of ``SHOWN``; by default ``PAIRED``).

    ``logits_a`` and ``logits_b``: (N, W, 21) each, of the N segments of ``truth`` in its order; the other arguments as
    of ``score``. A difference is in the score's own unit: a negative one of ``recovery_s`` says that A recovers sooner.
    It is the difference of the two scores, each over the same changes. ``p`` and the interval agree, as in
    ``stats.paired_difference``; all are nan where the score is undefined (no change that ranks). ``UsageError`` for an
    unknown metric; other errors as ``score``.
    """
    unknown = [name for name in metrics if name not in SHOWN]
    if unknown:
        raise UsageError(f"unknown score {unknown[0]!r} of changing offsets; there are {', '.join(SHOWN)}")
    a, b = (checked_streams(of, truth, hop_s, window_s, videos) for of in (logits_a, logits_b))
    return {name: pair.difference for name, pair in compared(a, b, bootstrap, metrics=metrics).items()}


class Pair(NamedTuple):
    """A main score of two models: ``difference`` is a minus b; ``detectable`` as
    ``stats.minimum_detectable_difference``."""

    a: float
    b: float
    difference: Difference
    detectable: float


def compared(
    a: Streams, b: Streams, bootstrap: Bootstrap = DEFAULT, power: float = 0.8, metrics: Sequence[str] | None = None
) -> dict[str, Pair]:
    """Main scores (all by default) of two models on the same streams."""
    of_a, of_b, plain = measures(a), measures(b), replace(bootstrap, n_resamples=0)
    pairs = {}
    for name in of_a if metrics is None else metrics:
        first, second = of_a[name], of_b[name]
        found = difference(first.of, second.of, first.videos, bootstrap, first.smooth, power, (0.0, first.most))
        pairs[name] = Pair(first.estimate(plain).value, second.estimate(plain).value, *found)
    return pairs


def by_law(found: Streams, laws: Sequence[str] | None, bootstrap: Bootstrap = DEFAULT) -> dict[str, dict[str, Any]]:
    """Law -> ``n`` and ``main_scores`` of its streams; ``UsageError`` unless there is one law for each."""
    if laws is None:
        return {}
    names = np.asarray(laws, str)
    if names.shape != (len(found),):
        raise UsageError(f"there are {names.shape} names of laws for {len(found)} segments")
    rows = {name: np.flatnonzero(names == name) for name in np.unique(names).tolist()}
    return {name: {"n": len(some), **main_scores(found.take(some), bootstrap)} for name, some in rows.items()}


# -- shares and means: each (Streams) -> a sum and a size per stream, (N,) each ----------------------------------------


def tracked_acc(found: Streams, tolerance: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of the scored pure windows: those whose class is right, to within ``tolerance`` classes."""
    pure = (found.truth.purity == 1) & found.scored
    right = pure & (np.abs(found.predicted - found.labels) <= tolerance)
    return right.sum(axis=1), pure.sum(axis=1)


def tracked_acc_tol1(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Of the scored pure windows: those at most one class off."""
    return tracked_acc(found, 1)


def tracking_error_s(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Over all scored windows: distance in seconds between the believed offset and the one at the window's end."""
    return found.errors_s[:, found.scored].sum(axis=1), np.full(len(found), found.scored.sum())


def auec(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Area under the error curve, over the ranked changes: the mean error of the next 20 windows (of those before the
    next change and the stream's end) as a share of the change; 1: never moved, 0: moved at once."""
    some = Changes(*(column[found.ranked] for column in found.changes))
    summed = np.concatenate([np.zeros((len(found), 1)), np.cumsum(found.errors_s, axis=1)], axis=1)
    last = np.minimum(some.window + AUEC_WINDOWS, some.until_window)
    error_s = (summed[some.stream, last] - summed[some.stream, some.window]) / (last - some.window)
    each = error_s / (np.abs(some.delta) / TICKS_PER_S)
    return np.bincount(some.stream, each, len(found)), np.bincount(some.stream, minlength=len(found))


def false_changes_per_h(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Declared changes that no change explains, per scored hour. What is first believed of a stream and then put right
    is one."""
    return falsely_declared(found).sum(axis=1), found.hours


def covering_of(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Covering of the true regimes by the declared ones, over the scored windows; a mean over streams."""
    return _over_cuts(found, covering, found.n_windows - WARM_UP)


def f1_changes(found: Streams) -> tuple[np.ndarray, np.ndarray]:
    """F1 of the declared changes, within 10 windows, over the scored windows; a mean over streams."""
    return _over_cuts(found, f1, MARGIN_WINDOWS)


MEANS: dict[str, tuple[Callable[[Streams], tuple[np.ndarray, np.ndarray]], float]] = {  # and the largest value
    "tracked_acc": (tracked_acc, 1.0),
    "tracked_acc_tol1": (tracked_acc_tol1, 1.0),
    "tracking_error_s": (tracking_error_s, 2 * GRID.max_offset_s),
    "auec": (auec, INF),
    "false_changes_per_h": (false_changes_per_h, INF),
    "covering": (covering_of, 1.0),
    "f1_changes": (f1_changes, 1.0),
}


def _mean(sums: tuple[np.ndarray, np.ndarray], found: Streams, most: float = INF) -> Measure:
    return Measure(lambda drawn: ratio(*sums, drawn), found.videos, most)


def _over_cuts(found: Streams, function: Callable[..., float], setting: int) -> tuple[np.ndarray, np.ndarray]:
    true = np.zeros((len(found), found.n_windows), bool)
    true[found.changes.stream, found.changes.window] = True
    declared = declared_changes(found.stable, MOVED)
    cuts = [[set(np.flatnonzero(row[WARM_UP:]).tolist()) - {0} for row in of] for of in (true, declared)]
    return np.array([function(a, b, setting) for a, b in zip(*cuts, strict=True)]), np.ones(len(found))


# -- recovery ----------------------------------------------------------------------------------------------------------


def recovery_times(found: Streams, held: int = HELD) -> Times:
    """For each change the time until the end of the first of ``held`` windows in a row that are within one class, all
    before the next change; censored there, or at the end of the stream. More than 3 are believed as much later."""
    changes, n_windows = found.changes, found.n_windows
    near = np.abs(found.predicted - found.labels) <= 1
    all_near = np.zeros_like(near)
    if held <= n_windows:
        all_near[:, : n_windows - held + 1] = np.lib.stride_tricks.sliding_window_view(near, held, axis=1).all(axis=2)
    first = first_from(all_near)[changes.stream, changes.window]
    recovered = first + held <= changes.until_window
    end = np.where(recovered, found.ends[np.minimum(first + held - HELD, n_windows - 1)], changes.until)
    return Times((end - changes.at) / TICKS_PER_S, recovered)


def recovery_table(found: Streams) -> list[dict[str, Any]]:
    """The Kaplan-Meier table of the ranked changes."""
    return survival.table(recovery_times(found).take(found.ranked))


def _recovery(found: Streams, times: Times, rows: np.ndarray) -> dict[str, Measure]:
    """Recovery over some of the changes."""
    some, videos = times.take(rows), found.videos[found.changes.stream[rows]]

    def of(function: Callable[..., np.ndarray], limit_s: float, most: float) -> Measure:
        return Measure(partial(function, some, limit_s=limit_s), videos, most, smooth=function is not survival.median)

    return {
        "recovery_s": of(survival.restricted_mean, AVERAGED_S, AVERAGED_S),
        "recovery_median_s": of(survival.median, AVERAGED_S, AVERAGED_S),
        **{f"recovered_within_{s}_s": of(survival.share_within, s, 1.0) for s in RECOVERED_S},
    }


def recovery_by_size(found: Streams, bootstrap: Bootstrap = DEFAULT) -> dict[str, dict[str, Any]]:
    """|delta| in seconds -> ``n``, the estimates of recovery, and the Kaplan-Meier ``table``."""
    times, size = recovery_times(found), np.abs(found.changes.delta[found.counted])
    groups = {}
    for name, (low, high) in SIZES_S.items():
        rows = found.counted[(size >= ticks(low)) & (size < ticks(high))]
        table = survival.table(times.take(rows))
        estimates = {key: measure.estimate(bootstrap) for key, measure in _recovery(found, times, rows).items()}
        groups[name] = {"n": len(rows), **estimates, "table": table}
    return groups


# -- false changes -----------------------------------------------------------------------------------------------------


def falsely_declared(found: Streams, held: int = HELD) -> np.ndarray:
    """(N, W) bool: a change is declared there, and none happened within the 40 s before. While the offset moves
    towards a change, declaring one is right, too. ``held``: how many windows make a class stable."""
    changes = found.changes
    explained = np.zeros((len(found), found.n_windows), bool)
    after = (changes.begun[:, None] < found.ends) & (found.ends <= changes.at[:, None] + EXPLAINED)
    np.logical_or.at(explained, changes.stream, after)
    stable = found.stable if held == HELD else stable_classes(found.predicted, held)
    return declared_changes(stable, MOVED) & ~explained & found.scored


def false_changes(found: Streams, level: float = 0.95) -> dict[str, Any]:
    """``n`` false changes in ``hours`` of scored stream; their rate an hour with its exact Poisson interval (Garwood
    1936), ``poisson_low`` and ``poisson_high``, which is not 0 where none happened. On streams whose offset never
    changes: ``run_s``, the mean time to the first false change (time watched by false changes seen; nan if none),
    ``n_first`` of these, and the time ``watched_s``."""
    from scipy.special import gammaincinv

    false = falsely_declared(found)
    n, hours = int(false.sum()), float(found.hours.sum())
    low = float(gammaincinv(n, (1 - level) / 2)) if n else 0.0
    high = float(gammaincinv(n + 1, (1 + level) / 2))
    first = first_from(false)[found.constant, 0]
    seen, hop_s = int((first < found.n_windows).sum()), found.hop / TICKS_PER_S
    watched_s = float((np.minimum(first + 1, found.n_windows) - WARM_UP).sum() * hop_s)
    return {
        "n": n,
        "hours": hours,
        "poisson_low": low / hours,
        "poisson_high": high / hours,
        "run_s": watched_s / seen if seen else float("nan"),
        "n_first": seen,
        "watched_s": watched_s,
    }


def headline(found: Streams, bootstrap: Bootstrap = DEFAULT) -> dict[str, Any]:
    """``recovery_s`` at no more than one false change an hour, with that rate, and ``tracked_acc_tol1``.

    A model above one an hour has its threshold raised: a class is only believed once it was ``held`` for more windows
    than 3, the fewest that keep it to one an hour, and it recovers from a change as much later. ``raised`` says if that
    was needed. (Raising the classes by which it must move instead would be no use: a false belief may lie
    anywhere, so no size but the largest keeps to one an hour, and then standing still is best.)
    """
    held = believed_after(found)
    rates = falsely_declared(found, held).sum(axis=1), found.hours
    return {
        "recovery_s": _recovery(found, recovery_times(found, held), found.ranked)["recovery_s"].estimate(bootstrap),
        "false_changes_per_h": _mean(rates, found).estimate(bootstrap),
        "tracked_acc_tol1": _mean(tracked_acc_tol1(found), found, 1.0).estimate(bootstrap),
        "held": held,
        "raised": held > HELD,
    }


def believed_after(found: Streams) -> int:
    """The fewest windows, from 3 on, that a class must be held to be stable, so that at most one false change is
    declared an hour."""
    held, allowed = HELD, FALSE_PER_H * found.hours.sum()
    while falsely_declared(found, held).sum() > allowed:
        held += 1
    return held


def headline_recovery(found: Streams) -> tuple[Callable[[Resamples], np.ndarray], np.ndarray]:
    """The ``recovery_s`` of ``headline`` in each resample of videos, (R,) seconds, and the video of each change that
    ranks: what a ranking is drawn from. These videos are the same for all predictions on equal streams."""
    times = recovery_times(found, believed_after(found)).take(found.ranked)
    function = partial(survival.restricted_mean, times, limit_s=AVERAGED_S)
    return function, found.videos[found.changes.stream[found.ranked]]


# -- drift, price ------------------------------------------------------------------------------------------------------


def drift(found: Streams, bootstrap: Bootstrap = DEFAULT) -> dict[str, Any]:
    """Theil-Sen slopes over the scored windows, in ppm, of the streams whose offset runs straight through them
    (``n_straight``): ``roc_auc`` of telling those that drift by 500 ppm or more; and ``error_ppm``, the mean error over
    the ``n_drifting`` that are not constant. Where an offset moves for a part of the stream, see recovery."""
    from scipy.stats import theilslopes

    ends_s = found.ends[WARM_UP:] / TICKS_PER_S
    offset_s = found.truth.offset_end_s[:, WARM_UP:]
    true = (offset_s[:, -1] - offset_s[:, 0]) / max(ends_s[-1] - ends_s[0], 1e-9)
    line = offset_s[:, :1] + true[:, None] * (ends_s - ends_s[0])
    straight = np.flatnonzero((np.abs(offset_s - line) <= 2 / TICKS_PER_S).all(axis=1))
    believed_s = believed_offsets_s(found.probabilities[:, WARM_UP:])
    slopes = [theilslopes(believed_s[row], ends_s)[0] if len(ends_s) > 1 else 0.0 for row in straight]
    rate, true = np.array(slopes, np.float64) * 1e6, true[straight] * 1e6
    moving, videos = true != 0, found.videos[straight]
    errors, positive = np.where(moving, np.abs(rate - true), 0.0), np.abs(true) >= DRIFTING_PPM
    return {
        "n_straight": len(straight),
        "n_drifting": int(moving.sum()),
        "error_ppm": estimate(lambda drawn: ratio(errors, moving, drawn), videos, bootstrap),
        "roc_auc": estimate(lambda drawn: roc_auc(np.abs(rate), positive, drawn), videos, bootstrap, most=1.0),
    }


def price(
    logits: Any,
    fixed_logits: Any,
    truth: WindowTruth | pd.DataFrame,
    videos: Sequence[str] | np.ndarray,
    bootstrap: Bootstrap = DEFAULT,
) -> dict[str, Difference]:
    """What following changes costs where there are none: every metric at the last window of the streams whose offset
    never changes, ``logits`` (N, W, 21) minus those on the fixed-offset track with as many windows, paired.
    ``UsageError`` without such a stream, or as ``checked_streams`` and ``stats.paired_difference``."""
    found = checked_streams(logits, truth, videos=videos)
    rows = np.flatnonzero(found.constant)
    if np.shape(fixed_logits) != np.shape(logits):
        raise UsageError(f"logits have shape {np.shape(logits)}, those on the fixed track {np.shape(fixed_logits)}")
    if not len(rows):
        raise UsageError("no stream has a constant offset, so there is none to compare with the fixed-offset track")
    ours, theirs = (np.asarray(of)[rows, -1] for of in (logits, fixed_logits))
    return paired_difference(ours, theirs, found.labels[rows, -1], found.videos[rows], bootstrap)


SHOWN: dict[str, Column] = {
    column.name: column
    for column in (
        Column("recovery_s", "recovery (s)", "s", 0.0, AVERAGED_S, False, "mean time until right again, up to 40 s"),
        Column("false_changes_per_h", "false/h", "1/h", 0.0, INF, False, "changes declared where none happened"),
        Column("tracked_acc_tol1", "tracked ±1", "", 1.0, 0.0, True, "share of windows within a class of what is so"),
        Column("tracked_acc", "tracked", "", 1.0, 0.0, True, "share of windows whose class is what is so at their end"),
        Column(
            "tracking_error_s", "error (s)", "s", 0.0, 4.0, False, "mean distance from the offset at a window's end"
        ),
        Column("recovery_median_s", "median (s)", "s", 0.0, AVERAGED_S, False, "median time until right again"),
        *(
            Column(f"recovered_within_{s}_s", f"in {s} s", "", 1.0, 0.0, True, f"share right again within {s} s")
            for s in RECOVERED_S
        ),
        Column("auec", "AUEC", "", 0.0, INF, False, "error after a change: 1 never moved, 0 moved at once"),
        Column("covering", "covering", "", 1.0, 0.0, True, "how well the declared regimes cover the true ones"),
        Column("f1_changes", "F1", "", 1.0, 0.0, True, "F1 of the declared changes, within 10 windows"),
    )
}
HEADLINE = "headline_recovery_s"  # as a score of its own, where models are ranked
HEADLINE_SHOWN = Column(
    HEADLINE,
    "recovery at ≤ 1 false/h (s)",
    "s",
    0.0,
    AVERAGED_S,
    False,
    "mean time from a change until right again, up to 40 s, at no more than one false change an hour",
)


def _plain(value: Any) -> Any:
    """Estimates as dicts, however deep."""
    if isinstance(value, Estimate):
        return value._asdict()
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
