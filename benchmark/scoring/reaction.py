"""How the answers of a head run after a change, window by window: what a figure shows beside the survival curve."""

from __future__ import annotations

from functools import partial

import numpy as np

from avbench.results.dynamic_truth import Changes
from avbench.scoring.stats import DEFAULT, Bootstrap, Estimate, estimate, ratio
from avbench.scoring.streams import Streams

SHOWN_WINDOWS = 21  # at hop 2 s: up to 40 s after a change


def tracked_since(found: Streams, bootstrap: Bootstrap = DEFAULT, windows: int = SHOWN_WINDOWS) -> list[Estimate]:
    """Of the ranked changes: the share whose k-th window from the change on (k = 0 ... ``windows`` - 1) is at most one
    class off, with its interval over videos.

    Window 0 is the first at whose end the new offset holds: it ends less than a hop after the change. Windows after the
    next change or the stream's end are left out; nan where no window is left.
    """
    some = Changes(*(column[found.ranked] for column in found.changes))
    near = np.abs(found.predicted - found.labels) <= 1
    videos, estimates = found.videos[some.stream], []
    for k in range(windows):
        window = some.window + k
        there = window < some.until_window
        right = there & near[some.stream, np.minimum(window, found.n_windows - 1)]
        estimates.append(estimate(partial(ratio, right, there), videos, bootstrap, most=1.0))
    return estimates
