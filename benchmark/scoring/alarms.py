"""How soon, and how surely, a stream that leaves tolerance raises the alarm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from avbench.scoring import survival
from avbench.scoring.segmentation import first_from
from avbench.scoring.stats import DEFAULT, Bootstrap, estimate
from avbench.scoring.streams import WARM_UP, Streams
from avbench.scoring.survival import Times
from avbench.scoring.tolerance import FALSE_ALARMS, Tolerance, alarm_limit, alarm_scores, tolerance_scores
from avbench.ticks import TICKS_PER_S

OWN_ALARM = 0.5  # a model's own alarm is raised above this
AVERAGED_S = 40.0


def alarm_at(found: Streams, table: Tolerance, bootstrap: Bootstrap = DEFAULT) -> dict[str, Any]:
    """One table's ``tolerance_scores`` over the scored windows, each judged by the offset at its end; and of the
    decisions: ``missed_s`` of ``outside_s`` and ``false_s`` of ``within_s`` seconds of stream, and the time from
    leaving tolerance to the alarm, ``to_alarm_s`` (mean up to 40 s) and ``to_alarm_median_s``, over ``n_left`` times.

    The alarm is raised above ``limit``: 0.5 of the model's own alarm; else what 5 % of the windows within tolerance
    exceed. The time runs from the change, or where the offset slid out from the last window's end within; it is
    censored where the offset is back within, or at the end of the stream.
    """
    scores = alarm_scores(found.probabilities, table) if found.alarm is None else found.alarm
    outside = table.outside(found.truth.offset_end_s)
    n_scored = found.n_windows - WARM_UP
    flat = scores[:, WARM_UP:].ravel(), found.truth.offset_end_s[:, WARM_UP:].ravel()
    result = tolerance_scores(*flat, table, np.repeat(found.videos, n_scored), bootstrap)
    limit = OWN_ALARM if found.alarm is not None else alarm_limit(flat[0], table.outside(flat[1]), FALSE_ALARMS[-1])
    raised, hop_s = scores > limit, found.hop / TICKS_PER_S
    out, wrong = outside[:, WARM_UP:], (raised != outside)[:, WARM_UP:]
    for name, windows in (("outside_s", out), ("within_s", ~out), ("missed_s", out & wrong), ("false_s", ~out & wrong)):
        result[name] = float(windows.sum() * hop_s)
    times, stream = alarm_times(found, outside, raised)
    for name, function in (("to_alarm_s", survival.restricted_mean), ("to_alarm_median_s", survival.median)):
        averaged, smooth = partial(function, times, limit_s=AVERAGED_S), function is not survival.median
        result[name] = estimate(averaged, found.videos[stream], bootstrap, most=AVERAGED_S, smooth=smooth)
    return result | {"n_left": len(times), "limit": limit}


def alarm_times(found: Streams, outside: np.ndarray, raised: np.ndarray) -> tuple[Times, np.ndarray]:
    """The times from leaving tolerance to the alarm, and the stream of each; (N, W) bool: out of tolerance, alarm."""
    left = outside & ~np.concatenate([np.ones((len(found), 1), bool), outside[:, :-1]], axis=1) & found.scored
    stream, first = np.nonzero(left)
    begun = np.broadcast_to(np.append(0, found.ends[:-1]), left.shape).copy()
    begun[found.changes.stream, found.changes.window] = found.changes.at
    back, alarmed = (first_from(mask)[stream, first] for mask in (~outside, raised))
    seen = alarmed < back
    end = found.ends[np.where(seen, alarmed, back - 1)]
    return Times((end - begun[stream, first]) / TICKS_PER_S, seen), stream
