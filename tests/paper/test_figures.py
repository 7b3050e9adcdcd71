"""Where a figure puts its labels."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from avbench.paper.figures import LABEL_GAP, apart


@given(st.lists(st.floats(0, 1), max_size=12))
def test_labels_keep_their_order_stay_inside_and_do_not_touch(places: list[float]) -> None:
    found = apart(places, LABEL_GAP)
    assert len(found) == len(places)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found)
    order = sorted(range(len(places)), key=lambda i: places[i])
    assert all(found[b] - found[a] >= LABEL_GAP - 1e-9 for a, b in itertools.pairwise(order))


def test_labels_that_touch_nothing_stay_where_they_are() -> None:
    assert apart([0.9, 0.1, 0.5], 0.05) == [0.9, 0.1, 0.5]
    assert apart([], 0.05) == []
    assert apart([0.0, 0.0], 0.1) == [0.0, 0.1]
    assert apart([1.0, 1.0], 0.1) == [0.9, 1.0]
