"""Which of two is in sync: a stream, or the same stream with its sound shifted? The question of AV-SyncBench (2026), of
data made by ``avbench data pairs``. A model that guesses is right in half of the pairs; ties are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from avbench.results.run import PairScore
from avbench.scoring.metrics import GRID, checked_logits, softmax
from avbench.scoring.stats import DEFAULT, Bootstrap, estimate, ratio
from avbench.ticks import seconds
from avbench.types import SegmentRecord

IN_SYNC = GRID.class_of(0.0)
_DIRECTIONS: dict[Literal["both", "early", "late"], int] = {"both": 0, "early": 1, "late": -1}


def in_sync_scores(logits: Any) -> np.ndarray:
    """(N, W, 21) streaming predictions -> (N,): the probability of being in sync, averaged over the stream. Errors as
    in ``metrics.checked_logits``."""
    logits = np.asarray(logits)
    n, windows, classes = logits.shape
    in_sync = softmax(checked_logits(logits.reshape(n * windows, classes)))[:, IN_SYNC]
    return in_sync.reshape(n, windows).mean(axis=1)


def pair_scores(segments: Sequence[SegmentRecord], logits: Any, bootstrap: Bootstrap = DEFAULT) -> list[PairScore]:
    """The share of pairs with score(original) > score(shifted): over all shifts, then for each shift and direction.

    ``logits`` (N, W, 21) of ``segments`` (N); a pair of which one is not there (it failed, or is too short) does not
    count. Intervals are over videos. Empty where no segment is a shifted one.
    """
    row_of = {segment.id: row for row, segment in enumerate(segments)}
    shifted = [row for row, segment in enumerate(segments) if segment.pair_of in row_of]
    if not shifted:
        return []
    scores = in_sync_scores(logits)
    offsets = np.array([segments[row].offset for row in shifted])
    videos = np.array([segments[row].video_id for row in shifted])
    right = scores[[row_of[segments[row].pair_of] for row in shifted]] > scores[shifted]
    found = []
    for size in (None, *sorted(set(np.abs(offsets).tolist()))):
        for direction, sign in _DIRECTIONS.items():
            chosen = ((np.abs(offsets) == size) | (size is None)) & ((np.sign(offsets) == sign) | (sign == 0))
            value = estimate(partial(ratio, right & chosen, chosen), videos, bootstrap, most=1.0)
            shift_s = None if size is None else seconds(size)
            n = int(chosen.sum())
            found.append(PairScore(shift_s=shift_s, direction=direction, n=n, **value._asdict()))
    return found
