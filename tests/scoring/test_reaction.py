"""How a head's answers run after a change, window by window, on streams with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from avbench.protocol.rules import dynamic
from avbench.results.dynamic_truth import WindowTruth
from avbench.scoring.calibration import classes_of
from avbench.scoring.reaction import SHOWN_WINDOWS, tracked_since
from avbench.scoring.stats import Bootstrap, Estimate
from avbench.scoring.streams import Streams, checked_streams
from avbench.ticks import ticks
from avbench.types import Law, Piece, SegmentRecord

JUMP = ((0.0, 0.0), (30.2, 0.8))
BACK = (*JUMP, (50.2, 0.0))  # ten windows later


def followed(late: int, *laws: tuple[tuple[float, float], ...]) -> Streams:
    """Streams under steps (seconds, seconds), each in a video of its own, answered right but ``late`` windows late."""
    segments = [
        SegmentRecord(f"s{k}", "c", "v", 0, 0, 10, law=Law("any", tuple(Piece(ticks(a), ticks(o)) for a, o in pieces)))
        for k, pieces in enumerate(laws)
    ]
    truth = WindowTruth.of(segments, dynamic())
    labels = classes_of(truth.offset_end_s)
    said = np.concatenate([np.repeat(labels[:, :1], late, axis=1), labels[:, : 48 - late]], axis=1)
    return checked_streams(9.0 * np.eye(21)[said], truth)


def values(found: list[Estimate]) -> list[float]:
    return [estimate.value for estimate in found]


@pytest.mark.parametrize("late", [0, 1, 4])
def test_a_head_that_is_some_windows_late_is_right_from_that_window_on(late: int) -> None:
    found = tracked_since(followed(late, JUMP, JUMP, JUMP), Bootstrap(50))
    assert values(found) == [0.0] * late + [1.0] * (SHOWN_WINDOWS - late)
    assert all(e.ci_low <= e.value <= e.ci_high for e in found)


def test_windows_after_the_next_change_are_left_out() -> None:
    """Of the changes of ``BACK`` the first has ten windows; of one alone nothing is known later."""
    found = values(tracked_since(followed(4, JUMP, BACK), Bootstrap(0)))
    assert found[:4] == [0.0] * 4
    assert found[4:] == [1.0] * (SHOWN_WINDOWS - 4)
    short = (*JUMP, (34.2, -0.4), (38.2, 0.8), (42.2, -0.4))  # two windows each: too short to count, but for the last
    found = values(tracked_since(followed(0, short), Bootstrap(0), windows=30))
    assert found[:28] == [1.0] * 28
    assert math.isnan(found[29])


def test_streams_differ_and_the_share_is_over_changes() -> None:
    right, late = followed(0, JUMP), followed(2, JUMP)
    both = Streams(
        np.concatenate([right.probabilities, late.probabilities]),
        followed(0, JUMP, JUMP).truth,
        np.array(["a", "b"]),
        right.window,
        right.hop,
    )
    assert values(tracked_since(both, Bootstrap(0), windows=3)) == [0.5, 0.5, 1.0]


def test_without_a_change_that_ranks_nothing_is_known() -> None:
    found = tracked_since(followed(0, ((0.0, 0.4),), ((0.0, 0.0), (30.2, 0.2))), Bootstrap(20))
    assert all(math.isnan(value) for value in values(found))
