"""Holm's correction by its definition, and matrices of differences."""

from __future__ import annotations

import math
from itertools import chain, combinations

import numpy as np
import pytest

from avbench.scoring.matrix import MORE_RESAMPLES, Matrix, holm, with_enough
from avbench.scoring.metrics import METRICS
from avbench.scoring.ranking import Drawn, resampled_metric
from avbench.scoring.stats import Bootstrap, Distribution, Estimate, least_p, p_values, paired_difference

NAN = math.nan


def by_closed_testing(p: list[float]) -> list[float]:
    """What Holm's method is a short cut for: a hypothesis falls when every set that has it falls by Bonferroni."""
    n = range(len(p))
    sets = list(chain.from_iterable(combinations(n, size) for size in range(1, len(p) + 1)))
    return [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if k in s) for k in n]


def test_holm_by_hand_and_by_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    g = np.random.default_rng(0)
    for size in (2, 3, 6):
        p = (g.random(size) ** 3).tolist()
        assert holm(p) == pytest.approx(by_closed_testing(p))


def test_an_undefined_p_is_no_test() -> None:
    found = holm([0.01, NAN, 0.02])
    assert [found[0], found[2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(found[1])


def made(metric: str = "acc", skills: tuple[float, ...] = (0.0, 2.0, 2.1, 4.5), n: int = 240) -> tuple[Matrix, tuple]:
    g = np.random.default_rng(1)
    labels, videos = g.integers(0, 21, n), np.array([f"v{i % 15}" for i in range(n)])
    logits = [g.standard_normal((n, 21)) + skill * np.eye(21)[labels] for skill in skills]
    drawn = [resampled_metric(metric, one, labels, videos, Bootstrap(2000)) for one in logits]
    return Matrix.of(METRICS[metric], drawn, 0.95), (logits, labels, videos)


@pytest.mark.parametrize("metric", ["acc", "map", "mae_s"])
def test_a_matrix_is_the_paired_differences_both_ways(metric: str) -> None:
    matrix, (logits, labels, videos) = made(metric)
    for i in range(4):
        for j in range(4):
            if i == j:
                continue
            expected = paired_difference(logits[i], logits[j], labels, videos, Bootstrap(2000), [metric])[metric]
            found, back = matrix.minus(i, j), matrix.minus(j, i)
            for field, value in expected.items():  # turned round, an interval is the same to rounding
                assert getattr(found, field) == pytest.approx(value, abs=1e-9), (i, j, field)
            assert (found.a, found.b, found.difference) == (back.b, back.a, -back.difference)
            assert (found.ci_low, found.ci_high) == (-back.ci_high, -back.ci_low)
            assert matrix.significant(i, j) == matrix.significant(j, i)
            assert matrix.p_corrected(i, j) >= found.p
            assert not (matrix.better(i, j) and matrix.better(j, i))


@pytest.mark.parametrize("metric", ["acc", "mae_s"])
def test_ranks_follow_what_is_significant(metric: str) -> None:
    matrix, _ = made(metric)
    assert matrix.order[0] == 3
    assert matrix.order[-1] == 0
    assert matrix.ranks(3) == (1, 1)
    assert matrix.ranks(1) == matrix.ranks(2) == (2, 3), "not told apart"
    assert matrix.ranks(0) == (4, 4)


def test_an_undefined_model_has_no_rank_and_comes_last() -> None:
    def drawn(value: float) -> Drawn:
        return Drawn(Estimate(value, value, value), Distribution(value, np.full(50, value), np.full(9, value)), 9)

    matrix = Matrix.of(METRICS["acc"], [drawn(NAN), drawn(0.5), drawn(0.5)], 0.95)
    assert matrix.order == [1, 2, 0]
    assert [matrix.ranks(i) for i in range(3)] == [None, (1, 2), (1, 2)]
    assert matrix.minus(1, 2).p == 1.0
    assert math.copysign(1, matrix.minus(2, 1).difference) == 1, "no minus zero"
    assert math.isnan(matrix.minus(0, 1).p)
    assert not matrix.significant(0, 1)


@pytest.mark.parametrize("n_videos", [4, 8, 24, 120])
def test_the_least_p_is_that_of_resamples_on_one_side(n_videos: int) -> None:
    sample = 5 + np.linspace(-1, 1, 201)[None]
    found = p_values(np.array([5.0]), sample, n_videos)[0]
    assert least_p(201, n_videos) <= found * (1 + 1e-9)
    if n_videos >= 6:
        assert least_p(201, n_videos) == pytest.approx(found)


def test_many_pairs_get_enough_resamples() -> None:
    plain = Bootstrap(1000, 7)
    assert with_enough(plain, 3, 24) == plain
    more = with_enough(plain, 36, 24)
    assert more.n_resamples in MORE_RESAMPLES
    assert more.seed == 7
    assert 36 * least_p(1000, 24) > 0.05, "with the usual number nothing could be found"
    assert 36 * least_p(more.n_resamples, 24) < 0.05
    assert with_enough(plain, 105, 8).n_resamples == MORE_RESAMPLES[-1], "nothing helps with eight videos"
