"""The figures below the grid of a run: one map by name, from the true offsets in seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from avbench.protocol.rules import dynamic
from avbench.results.truth import Truth
from avbench.scoring.below_grid import BELOW_GRID, COLUMNS, below_grid_scores, on_the_grid
from avbench.scoring.calibration import classes_of, ece, reliability
from avbench.scoring.metrics import METRICS, cases, everything_once, softmax
from avbench.scoring.scorer import Scorer
from avbench.scoring.stats import Bootstrap
from avbench.scoring.tolerance import TOLERANCES, alarm_scores
from avbench.ticks import ticks
from avbench.types import Law, OffsetGrid, Piece, SegmentRecord

GRID = OffsetGrid()
CENTRES_S = np.array([GRID.offset_of(c) for c in range(21)])


def segments_at(offsets_s: np.ndarray, law: Law | None = None) -> list[SegmentRecord]:
    return [
        SegmentRecord(f"s{i}", f"v{i // 4}", f"v{i // 4}", 0, ticks(float(o)), GRID.class_of(float(o)), law=law)
        for i, o in enumerate(offsets_s)
    ]


def run(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(3)
    offsets_s = np.round(g.uniform(-0.4, 0.4, n), 2)
    near = np.exp(-(((CENTRES_S - offsets_s[:, None, None]) / 0.2) ** 2))
    return offsets_s, (g.standard_normal((n, 3, 21)) + 4 * near).astype(np.float32)


def test_every_figure_has_a_column_and_an_interval_within_its_range() -> None:
    offsets_s, logits = run()
    found = below_grid_scores(logits[:, -1], offsets_s, np.arange(120) // 4, Bootstrap(200))
    assert list(found) == list(BELOW_GRID)
    assert list(COLUMNS) == [*METRICS, *BELOW_GRID]
    for name, estimate in found.items():
        low, high = sorted((BELOW_GRID[name].best, BELOW_GRID[name].worst))
        assert low <= estimate.ci_low <= estimate.value <= estimate.ci_high <= high, name


def test_the_scores_of_a_run_are_their_definitions_at_the_last_window() -> None:
    offsets_s, logits = run()
    scores = Scorer(Truth.of(segments_at(offsets_s)), Bootstrap(50))(logits)
    assert set(scores) == set(COLUMNS)
    p, labels = softmax(logits[:, -1].astype(np.float64)), classes_of(offsets_s)
    by_class = [brier_score_loss((labels == c).astype(int), p[:, c], pos_label=1) for c in range(21)]
    assert scores["brier"].value == pytest.approx(sum(by_class))
    near = np.abs(np.arange(21) - p.argmax(axis=1)[:, None]) <= 1
    expected = (p * near @ CENTRES_S) / (p * near).sum(axis=1)
    assert scores["offset_error_s"].value == pytest.approx(np.abs(expected - offsets_s).mean())
    for name, table in TOLERANCES.items():
        outside = table.outside(offsets_s)
        auc = roc_auc_score(outside, alarm_scores(p, table))
        assert scores[f"out_of_{name.replace('-', '_')}_roc_auc"].value == pytest.approx(auc), name


def test_offsets_that_are_class_centres_are_the_truth_too() -> None:
    offsets_s = np.array([-0.4, 0.0, 0.2, 2.0])
    assert on_the_grid(offsets_s)
    assert not on_the_grid(np.array([0.0, 0.05]))
    logits = (200 * np.eye(21)[classes_of(offsets_s)])[:, None].astype(np.float32)
    scores = Scorer(Truth.of(segments_at(offsets_s)), Bootstrap(0))(logits)
    assert scores["offset_error_s"].value == pytest.approx(0, abs=1e-12)
    assert scores["within_40_ms"].value == 1


def test_where_offsets_change_the_last_one_counts() -> None:
    law = Law("jump", (Piece(0, 0), Piece(16_000, 3200)))
    changing = Truth.of(segments_at(np.zeros(3), law), protocol=dynamic(iterations=4))
    assert changing.offsets_s is not None
    assert changing.offsets_s.tolist() == [0.2] * 3


def test_where_the_offset_is_unknown_there_are_no_such_scores() -> None:
    offsets_s, logits = run()
    unknown = replace(Truth.of(segments_at(offsets_s)), offsets=None)
    assert set(Scorer(unknown, Bootstrap(0))(logits)) == set(METRICS)
    fixed = Scorer(Truth.of(segments_at(offsets_s)), Bootstrap(0))
    assert set(fixed(logits, "best_iter")) == set(METRICS), "each metric at another window: nothing to add"
    assert set(Scorer(Truth.of([]), Bootstrap(0))(logits[:0])) == set(COLUMNS), "all null, but by name"


def test_the_bins_on_the_page_are_those_of_the_error() -> None:
    offsets_s, logits = run()
    labels = classes_of(offsets_s)
    bins = reliability(logits[:, -1], labels)
    assert sum(b.n for b in bins) == 120
    from_bins = sum(b.n * abs(b.right - b.confidence) for b in bins) / 120
    assert from_bins == pytest.approx(ece(cases(logits[:, -1], labels), everything_once(120))[0])
    assert all(b.low <= b.confidence <= b.high for b in bins)
