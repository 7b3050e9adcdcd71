"""What error bars cost: macro mAP with 1,000 resamples of 32,000 segments (aim: 30 s on one core), and a small run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from avbench.scoring.metrics import METRICS, score
from avbench.scoring.stats import Bootstrap, bootstrap_scores, cluster_bootstrap


def segments(n: int, n_videos: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    g = np.random.default_rng(0)
    labels = g.integers(0, 21, n)
    logits = g.standard_normal((n, 21)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return logits, labels, g.integers(0, n_videos, n)


def test_score_of_32000_segments(benchmark: Any) -> None:
    logits, labels, _ = segments(32_000, 75)
    assert set(benchmark.pedantic(score, (logits, labels), rounds=3)) == set(METRICS)


def test_all_metrics_of_a_small_run(benchmark: Any) -> None:
    found = benchmark.pedantic(
        bootstrap_scores, segments(168, 24), {"bootstrap": Bootstrap(1000)}, rounds=3, warmup_rounds=1
    )
    assert all(e.ci_low < e.ci_high for e in found.values())


@pytest.mark.parametrize("n_resamples", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_map_of_32000_segments(benchmark: Any, n_resamples: int) -> None:
    value, low, high = benchmark.pedantic(
        cluster_bootstrap, ("map", *segments(32_000, 75), Bootstrap(n_resamples)), rounds=1
    )
    assert low < value < high
