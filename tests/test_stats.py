from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from avbench import metrics, stats
from avbench.metrics import METRICS, score
from avbench.stats import (
    Estimate,
    bootstrap_scores,
    cluster_bootstrap,
    cluster_weights,
    paired_difference,
)
from avbench.types import NonFiniteError, UsageError


def clustered(
    seed: int, n_clusters: int, per_cluster: int, gains: tuple[float, ...] = (1.5,)
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Logits of one model per gain, labels and video numbers. Videos differ in length and in difficulty."""
    g = np.random.default_rng(seed)
    sizes = g.integers(per_cluster // 2, 2 * per_cluster, n_clusters)
    clusters = np.repeat(np.arange(n_clusters), sizes)
    labels = g.integers(0, 21, len(clusters))
    near = np.exp(-((np.arange(21) - labels[:, None]) ** 2) / 2)
    video = 0.8 * g.standard_normal(n_clusters)
    models = []
    for gain in gains:
        ease = 1.0 + gain + (video + 0.4 * g.standard_normal(n_clusters))[clusters]  # a model has its own bad videos
        models.append(g.standard_normal((len(labels), 21)) + ease[:, None] * near)
    return models, labels, clusters


def test_scores_come_with_intervals_around_them() -> None:
    (logits,), labels, clusters = clustered(0, 30, 8)
    found, plain = bootstrap_scores(logits, labels, clusters, n_resamples=300), score(logits, labels)
    assert list(found) == list(METRICS)
    for name, estimate in found.items():
        assert isinstance(estimate, Estimate)
        assert estimate.value == plain[name]
        assert estimate.ci_low < estimate.ci_high
        if name != "map":  # repeated cases raise mAP, its interval lies low on purpose
            assert estimate.ci_low < estimate.value < estimate.ci_high
    narrow = bootstrap_scores(logits, labels, clusters, n_resamples=300, level=0.5)
    assert all(found[n].ci_low < narrow[n].ci_low < narrow[n].ci_high < found[n].ci_high for n in METRICS)


def test_one_metric_equals_all_of_them() -> None:
    (logits,), labels, clusters = clustered(1, 20, 5)
    every = bootstrap_scores(logits, labels, clusters, n_resamples=100, seed=3)
    for name in METRICS:
        assert cluster_bootstrap(name, logits, labels, clusters, n_resamples=100, seed=3) == tuple(every[name])


def test_the_seed_decides_and_the_order_of_cases_does_not() -> None:
    (logits,), labels, clusters = clustered(2, 20, 5)
    names = np.array([f"video-{c:03d}" for c in clusters])
    first = bootstrap_scores(logits, labels, clusters, n_resamples=200, seed=1)
    assert bootstrap_scores(logits, labels, clusters, n_resamples=200, seed=1) == first
    assert bootstrap_scores(logits, labels, clusters, n_resamples=200, seed=2) != first
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = bootstrap_scores(logits[order], labels[order], names[order], n_resamples=200, seed=1)
    for name in METRICS:
        assert shuffled[name] == pytest.approx(first[name], abs=1e-12)


def test_whole_videos_are_drawn() -> None:
    clusters = np.array(["b", "a", "b", "c", "a", "b"])
    weights = cluster_weights(clusters, n_resamples=500, seed=0)
    assert weights.shape == (500, 6)
    for name in "abc":
        of_video = weights[:, clusters == name]
        assert (of_video == of_video[:, :1]).all()
    drawn = weights[:, [1, 0, 3]]
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)  # standard error 0.037
    assert set(np.unique(drawn)) == {0, 1, 2, 3}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 5))
def test_a_resample_is_scored_as_if_its_videos_were_there(seed: int, n: int, n_videos: int) -> None:
    g = np.random.default_rng(seed)
    logits, labels = g.integers(0, 3, (n, 21)).astype(float), g.integers(8, 13, n)
    clusters = g.integers(0, n_videos, n)
    drawn = stats.resamples(clusters, 3, seed)
    for name in METRICS:
        _, sample = stats._distribution(name, stats.cases(logits, labels), drawn)
        for value, weight in zip(sample, drawn.weights().astype(int), strict=True):
            expected = score(np.repeat(logits, weight, axis=0), np.repeat(labels, weight))[name]
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_blocks_of_resamples_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    (logits,), labels, clusters = clustered(3, 10, 6)
    whole = bootstrap_scores(logits, labels, clusters, n_resamples=50)
    monkeypatch.setattr(metrics, "BLOCK_CELLS", 29)
    pieces = bootstrap_scores(logits, labels, clusters, n_resamples=50)
    for name in METRICS:
        assert pieces[name] == pytest.approx(whole[name], abs=1e-12)


def test_one_video_has_no_interval() -> None:
    (logits,), labels, _ = clustered(4, 3, 10)
    for estimate in bootstrap_scores(logits, labels, ["only"] * len(labels), n_resamples=50).values():
        assert math.isfinite(estimate.value)
        assert math.isnan(estimate.ci_low)
        assert math.isnan(estimate.ci_high)
    found = paired_difference(logits, logits + 1, labels, ["only"] * len(labels), n_resamples=50)
    assert all(math.isnan(d["p"]) and d["difference"] == pytest.approx(0, abs=1e-12) for d in found.values())


def test_without_resamples_there_are_values_alone() -> None:
    (logits,), labels, clusters = clustered(4, 5, 10)
    found = bootstrap_scores(logits, labels, clusters, n_resamples=0)
    assert {n: e.value for n, e in found.items()} == score(logits, labels)
    assert all(math.isnan(e.ci_low) and math.isnan(e.ci_high) for e in found.values())


def test_an_undefined_metric_has_no_interval() -> None:
    (logits,), labels, clusters = clustered(5, 5, 10)
    found = bootstrap_scores(logits, np.full_like(labels, 10), clusters, n_resamples=50)
    assert all(math.isnan(x) for x in found["roc_auc"])
    assert not any(math.isnan(x) for x in found["acc"])


def test_some_undefined_resamples_are_left_out() -> None:
    """Of two classes in five videos, one lives in a single video: 1/3 of the resamples hold only the other."""
    clusters, labels = np.repeat(np.arange(5), 4), np.repeat([10, 10, 10, 10, 3], 4)
    logits = np.random.default_rng(0).standard_normal((20, 21))
    sample = stats._distribution("roc_auc", stats.cases(logits, labels), stats.resamples(clusters, 400))[1]
    assert 0.2 < np.isnan(sample).mean() < 0.45
    assert not any(math.isnan(x) for x in bootstrap_scores(logits, labels, clusters, 400)["roc_auc"])
    logits, labels, clusters = logits[12:], labels[12:], clusters[12:]  # two videos: 1/2 hold only one class
    for seed in range(4):
        drawn = stats.resamples(clusters, 400, seed)
        undefined = np.isnan(stats._distribution("roc_auc", stats.cases(logits, labels), drawn)[1]).mean()
        found = bootstrap_scores(logits, labels, clusters, 400, seed)["roc_auc"]
        assert math.isnan(found.ci_low) == (undefined > 0.5)


def test_all_right_gives_an_interval_without_width() -> None:
    labels = np.arange(21)
    found = bootstrap_scores(20 * np.eye(21), labels, labels, n_resamples=100)
    assert found["acc"] == (1, 1, 1)
    assert found["mae_s"] == (0, 0, 0)


def test_a_better_model_is_told_from_a_worse_one() -> None:
    (good, bad), labels, clusters = clustered(6, 40, 10, (2.0, 0.0))
    found = paired_difference(good, bad, labels, clusters, n_resamples=500)
    for name, metric in METRICS.items():
        better = found[name]["difference"] > 0
        assert better == metric.higher_is_better
        assert found[name]["p"] < 0.05
        assert found[name]["ci_low"] * found[name]["ci_high"] > 0
    turned = paired_difference(bad, good, labels, clusters, n_resamples=500)
    for name, difference in turned.items():
        assert difference["difference"] == -found[name]["difference"]
        assert difference["ci_low"] == pytest.approx(-found[name]["ci_high"])
        assert difference["p"] == pytest.approx(found[name]["p"])


def test_a_model_does_not_differ_from_itself() -> None:
    (logits,), labels, clusters = clustered(7, 10, 10)
    for difference in paired_difference(logits, logits, labels, clusters, n_resamples=100).values():
        assert difference == {"difference": 0, "ci_low": 0, "ci_high": 0, "p": 1}


def test_pairing_narrows_the_interval() -> None:
    (a, b), labels, clusters = clustered(8, 40, 10, (1.5, 1.5))
    paired = paired_difference(a, b, labels, clusters, metrics=["acc"])["acc"]
    alone = [cluster_bootstrap("acc", x, labels, clusters) for x in (a, b)]
    unpaired_width = math.hypot(*(high - low for _, low, high in alone))
    assert paired["ci_high"] - paired["ci_low"] < 0.9 * unpaired_width


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_p_and_interval_agree(seed: int, n_clusters: int, level: float) -> None:
    g = np.random.default_rng(seed)
    value = g.normal(0, 2)
    sample = value + g.normal(0, 0.2) + g.standard_normal(999)
    low, high = stats._interval(value, sample, n_clusters, level)
    p = stats._p_value(value, sample, n_clusters)
    assert 0 < p <= 1
    if p < 1 - level - 0.02:
        assert low > 0 or high < 0
    if p > 1 - level + 0.02:
        assert low <= 0 <= high


@pytest.mark.parametrize("n_clusters", [2, 3, 5])
def test_with_few_videos_the_interval_is_that_of_a_t_test(n_clusters: int) -> None:
    """The exact bootstrap standard error of a mean of G videos is sd / sqrt(G), sd taken over G."""
    per_video = np.random.default_rng(n_clusters).normal(1, 1, n_clusters)
    counts = stats.resamples(np.arange(n_clusters), 20_000).counts
    low, high = stats._interval(per_video.mean(), counts @ per_video / n_clusters, n_clusters, 0.95)
    expected = ttest_1samp(per_video, 0).confidence_interval(0.95)
    assert low == pytest.approx(expected.low, rel=0.05)
    assert high == pytest.approx(expected.high, rel=0.05)
    p = stats._p_value(per_video.mean(), counts @ per_video / n_clusters, n_clusters)
    assert p == pytest.approx(ttest_1samp(per_video, 0).pvalue, rel=0.05)


def test_no_interval_leaves_the_range_of_its_metric() -> None:
    (logits,), labels, clusters = clustered(9, 2, 10)
    for name, estimate in bootstrap_scores(logits, labels, clusters, n_resamples=50).items():
        least, most = sorted((METRICS[name].worst, METRICS[name].best))
        assert least <= estimate.ci_low <= estimate.value <= estimate.ci_high <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": [1, 2]}, "2 cluster names for 3 cases"),
        ({"clusters": [[1], [2], [3]]}, r"clusters have shape \(3, 1\)"),
        ({"clusters": [0.5, 1.0, math.nan]}, "float64"),
        ({"clusters": [None, "a", "b"]}, "object"),
        ({"n_resamples": -1}, "n_resamples is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"level": 1.0}, "level is 1.0"),
        ({"metrics": ["map", "recall"]}, "unknown metric 'recall'"),
        ({"labels": [0, 1]}, "labels have shape"),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"logits": np.zeros((3, 21)), "labels": [0, 1, 2], "clusters": ["a", "b", "c"]}
    with pytest.raises(UsageError, match=message) as caught:
        bootstrap_scores(**(call | changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_non_finite_logits_of_either_model_are_refused() -> None:
    good, bad = np.zeros((3, 21)), np.full((3, 21), math.nan)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(NonFiniteError, match="row 0"):
            paired_difference(*pair, [0, 1, 2], ["a", "b", "c"])


# Coverage and size: simulated, with the truth taken from 20,000 videos.


def coverage(metrics: list[str], n_simulations: int, n_clusters: int, per_cluster: int, n_resamples: int) -> np.ndarray:
    """Per metric: the share of simulated samples whose 95 % interval holds the value of the whole population."""
    (logits,), labels, _ = clustered(99, 20_000, 5)
    truth, held = score(logits, labels), np.zeros(len(metrics))
    for seed in range(n_simulations):
        (logits,), labels, clusters = clustered(1000 + seed, n_clusters, per_cluster)
        found = bootstrap_scores(logits, labels, clusters, n_resamples, seed, metrics=metrics)
        held += [found[m].ci_low <= truth[m] <= found[m].ci_high for m in metrics]
    return held / n_simulations


def size(metrics: list[str], n_simulations: int, n_clusters: int, per_cluster: int, n_resamples: int) -> np.ndarray:
    """Per metric: the share of simulated pairs of equally good models that the test calls different at 5 %."""
    rejected = np.zeros(len(metrics))
    for seed in range(n_simulations):
        (a, b), labels, clusters = clustered(5000 + seed, n_clusters, per_cluster, (1.5, 1.5))
        found = paired_difference(a, b, labels, clusters, n_resamples, seed, metrics=metrics)
        rejected += [found[m]["p"] < 0.05 for m in metrics]
    return rejected / n_simulations


@pytest.mark.parametrize("n_clusters", [10, 40])
def test_intervals_hold_the_truth_short(n_clusters: int) -> None:
    n = 300
    error = 3 * math.sqrt(0.05 * 0.95 / n)  # three standard errors of the simulation, beside the 2 points allowed
    assert (np.abs(coverage(["acc", "mae_s"], n, n_clusters, 8, 400) - 0.95) < 0.02 + error).all()


def test_equal_models_are_rarely_called_different_short() -> None:
    n = 300
    error = 3 * math.sqrt(0.05 * 0.95 / n)
    assert (np.abs(size(["acc", "mae_s"], n, 20, 8, 400) - 0.05) < 0.02 + error).all()


MEANS, RANKED = ["acc", "acc_tol1", "balanced_acc", "mae_s"], ["map", "roc_auc"]


def allowed(n_simulations: int) -> float:
    """2 points (93-97 %, 3-7 %), and two standard errors of the simulation itself."""
    return 0.02 + 2 * math.sqrt(0.05 * 0.95 / n_simulations)


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [12, 75])
def test_intervals_hold_the_truth(n_clusters: int) -> None:
    held = coverage(MEANS, 2000, n_clusters, 12, 1000)
    assert (np.abs(held - 0.95) < allowed(2000)).all(), dict(zip(MEANS, held, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [12, 75])
def test_equal_models_are_rarely_called_different(n_clusters: int) -> None:
    rejected = size(MEANS, 2000, n_clusters, 12, 1000)
    assert (np.abs(rejected - 0.05) < allowed(2000)).all(), dict(zip(MEANS, rejected, strict=True))


@pytest.mark.slow
def test_ranked_metrics_too() -> None:
    """Macro mAP and ROC-AUC cost much more: fewer simulations."""
    held, rejected = coverage(RANKED, 500, 75, 20, 600), size(RANKED, 500, 75, 20, 600)
    assert (np.abs(held - 0.95) < allowed(500)).all(), dict(zip(RANKED, held, strict=True))
    assert (np.abs(rejected - 0.05) < allowed(500)).all(), dict(zip(RANKED, rejected, strict=True))
