"""Charts of streams whose offset changes, as drawings."""

from __future__ import annotations

import re

import numpy as np

from avbench.pages.stream_charts import APART, Survival, Tracked, key, recovery, staircase, tracked

ENDS = np.arange(5.0, 101.0, 2.0)


def stream(**changes: object) -> Tracked:
    zero = np.zeros(48)
    plain = {"true": [(0.0, 0.0), (99.0, 0.0)], "changes_s": [], "declared_s": [], "false_s": [], "muted_s": []}
    return Tracked(
        **{
            "ends_s": ENDS,
            "believed_s": zero,
            "low_s": zero - 0.1,
            "high_s": zero + 0.1,
            "alarm_s": [],
            "unscored_s": 9.0,
            **plain,
            **changes,
        }
    )  # type: ignore[arg-type]


def test_every_mark_is_drawn_where_it_happens() -> None:
    plain = tracked(stream(), "a stream")
    marks = {
        "changes_s": [30.0, 60.0],
        "declared_s": [40.0],
        "false_s": [70.0],
        "muted_s": [(50.0, 52.0)],
        "alarm_s": [(30.0, 40.0)],
    }
    told = tracked(stream(**marks), "a stream")
    for kind, n in (("change", 2), ("declared", 1), ("false", 1), ("muted", 1), ("alarm", 1)):
        assert (plain.count(f'class="{kind}"'), told.count(f'class="{kind}"')) == (0, n)
    # 99 s of stream on 292 points, from 38 on
    starts = [float(x) for x in re.findall(r'class="change" d="M([\d.]+) ', told)]
    assert starts == [round(38 + t / 99 * 292 - 4, 1) for t in (30, 60)]
    assert 'aria-label="a stream"' in told
    assert tracked(stream(**marks), "a stream") == told


def test_every_sign_of_the_legend_can_be_drawn() -> None:
    for kind in ("true", "believed", "change", "declared", "false", "muted", "unscored", "alarm"):
        assert key(kind).startswith('<svg class="sign"')


def test_a_step_curve_stays_until_its_next_step() -> None:
    assert staircase([(0.0, 1.0), (4.0, 0.5), (50.0, 0.0)], 40.0) == [(0.0, 1.0), (4.0, 1.0), (4.0, 0.5), (40.0, 0.5)]
    assert staircase([(0.0, 1.0)], 40.0) == [(0.0, 1.0), (40.0, 1.0)]


def test_names_of_curves_that_end_together_do_not_overlap() -> None:
    curves = [Survival(f"head {k}", [(0.0, 1.0), (5.0 + k, 0.0)], k % 8) for k in range(8)]
    drawn = recovery([*curves, Survival("high", [(0.0, 1.0)], 1)], "recovery")
    heights = [float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', drawn)]
    assert len(heights) == 9
    assert all(b - a >= APART - 0.11 for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False))
    assert max(heights) <= 300 - 34 + 3.6


def test_names_are_escaped() -> None:
    drawn = recovery([Survival("<b>", [(0.0, 1.0)], 0, main=True)], "<i>")
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert "&lt;b&gt;" in drawn
