from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_1samp

from avbench.scoring import metrics, stats
from avbench.scoring.metrics import METRICS, score
from avbench.scoring.ranking import rank_groups
from avbench.scoring.stats import (
    Bootstrap,
    Estimate,
    bootstrap_scores,
    cluster_bootstrap,
    cluster_weights,
    group_difference,
    minimum_detectable_difference,
    paired_difference,
    shares,
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
    found, plain = bootstrap_scores(logits, labels, clusters, Bootstrap(300)), score(logits, labels)
    assert list(found) == list(METRICS)
    for name, estimate in found.items():
        assert isinstance(estimate, Estimate)
        assert estimate.value == plain[name]
        assert estimate.ci_low < estimate.ci_high
        if name != "map":  # repeated cases raise mAP, its interval lies low on purpose
            assert estimate.ci_low < estimate.value < estimate.ci_high
    narrow = bootstrap_scores(logits, labels, clusters, Bootstrap(300, level=0.5))
    assert all(found[n].ci_low < narrow[n].ci_low < narrow[n].ci_high < found[n].ci_high for n in METRICS)


def test_one_metric_equals_all_of_them() -> None:
    (logits,), labels, clusters = clustered(1, 20, 5)
    every = bootstrap_scores(logits, labels, clusters, Bootstrap(100, 3))
    for name in METRICS:
        assert cluster_bootstrap(name, logits, labels, clusters, Bootstrap(100, 3)) == tuple(every[name])


def test_the_seed_decides_and_the_order_of_cases_does_not() -> None:
    (logits,), labels, clusters = clustered(2, 20, 5)
    names = np.array([f"video-{c:03d}" for c in clusters])
    first = bootstrap_scores(logits, labels, clusters, Bootstrap(200, 1))
    assert bootstrap_scores(logits, labels, clusters, Bootstrap(200, 1)) == first
    assert bootstrap_scores(logits, labels, clusters, Bootstrap(200, 2)) != first
    order = np.random.default_rng(0).permutation(len(labels))
    shuffled = bootstrap_scores(logits[order], labels[order], names[order], Bootstrap(200, 1))
    for name in METRICS:
        assert shuffled[name] == pytest.approx(first[name], abs=1e-12)


def test_whole_videos_are_drawn() -> None:
    clusters = np.array(["b", "a", "b", "c", "a", "b"])
    weights = cluster_weights(clusters, Bootstrap(500, 0))
    assert weights.shape == (500, 6)
    for name in "abc":
        of_video = weights[:, clusters == name]
        assert (of_video == of_video[:, :1]).all()
    drawn = weights[:, [1, 0, 3]]
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)  # standard error 0.037
    assert set(np.unique(drawn)) == {0, 1, 2, 3}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1, 2, 5, 80]))
def test_a_resample_is_scored_as_if_its_videos_were_there(seed: int, n: int, n_videos: int) -> None:
    g = np.random.default_rng(seed)
    logits, labels = g.integers(0, 3, (n, 21)).astype(float), g.integers(8, 13, n)
    clusters = g.integers(0, n_videos, n)
    drawn = stats.resamples(clusters, Bootstrap(3, seed))
    for name in METRICS:
        sample = stats.distribution_of(name, stats.cases(logits, labels), drawn).sample
        for value, weight in zip(sample, drawn.weights().astype(int), strict=True):
            expected = score(np.repeat(logits, weight, axis=0), np.repeat(labels, weight))[name]
            assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_numbers_of_videos_draw_what_their_names_draw() -> None:
    (logits,), labels, clusters = clustered(4, 12, 5)
    names = np.array([f"video {cluster + 10}" for cluster in clusters])
    n, numbers = stats.numbered(names)
    assert n == 12
    assert numbers.tolist() == clusters.tolist() == stats.numbered(clusters)[1].tolist()
    by_number, by_name = (bootstrap_scores(logits, labels, of, Bootstrap(40)) for of in (numbers, names))
    assert by_number == by_name
    assert stats.numbered(np.array([7, 5, 7]))[1].tolist() == [1, 0, 1]  # those of some of the videos only


def test_equal_draws_are_made_once_and_their_tables_are_shared() -> None:
    first, second = (stats.resamples(np.arange(30), Bootstrap(25, 11)) for _ in range(2))
    assert first.with_left_out is not None
    assert second.with_left_out is not None
    assert first.with_left_out.as_floats is second.with_left_out.as_floats
    assert not first.counts.flags.writeable


def test_blocks_of_resamples_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    (logits,), labels, clusters = clustered(3, 10, 6)
    whole = bootstrap_scores(logits, labels, clusters, Bootstrap(50))
    monkeypatch.setattr(metrics, "BLOCK_CELLS", 29)
    pieces = bootstrap_scores(logits, labels, clusters, Bootstrap(50))
    for name in METRICS:
        assert pieces[name] == pytest.approx(whole[name], abs=1e-12)


def test_one_video_has_no_interval() -> None:
    (logits,), labels, _ = clustered(4, 3, 10)
    for estimate in bootstrap_scores(logits, labels, ["only"] * len(labels), Bootstrap(50)).values():
        assert math.isfinite(estimate.value)
        assert math.isnan(estimate.ci_low)
        assert math.isnan(estimate.ci_high)
    found = paired_difference(logits, logits + 1, labels, ["only"] * len(labels), Bootstrap(50))
    assert all(math.isnan(d["p"]) and d["difference"] == pytest.approx(0, abs=1e-12) for d in found.values())


def test_without_resamples_there_are_values_alone() -> None:
    (logits,), labels, clusters = clustered(4, 5, 10)
    found = bootstrap_scores(logits, labels, clusters, Bootstrap(0))
    assert {n: e.value for n, e in found.items()} == score(logits, labels)
    assert all(math.isnan(e.ci_low) and math.isnan(e.ci_high) for e in found.values())


def test_an_undefined_metric_has_no_interval() -> None:
    (logits,), labels, clusters = clustered(5, 5, 10)
    found = bootstrap_scores(logits, np.full_like(labels, 10), clusters, Bootstrap(50))
    assert all(math.isnan(x) for name in ("roc_auc", "map") for x in found[name])
    assert not any(math.isnan(x) for x in found["acc"])


@pytest.mark.parametrize("metric", ["roc_auc", "map"])
def test_some_undefined_resamples_are_left_out(metric: str) -> None:
    """Of two classes in five videos, one lives in a single video: 1/3 of the resamples hold only the other."""
    clusters, labels = np.repeat(np.arange(5), 4), np.repeat([10, 10, 10, 10, 3], 4)
    logits = np.random.default_rng(0).standard_normal((20, 21))
    sample = stats.distribution_of(
        metric, stats.cases(logits, labels), stats.resamples(clusters, Bootstrap(400))
    ).sample
    assert 0.2 < np.isnan(sample).mean() < 0.45
    assert not any(math.isnan(x) for x in bootstrap_scores(logits, labels, clusters, Bootstrap(400))[metric])
    for undefined in (200, 201):  # of 400
        values = np.concatenate([np.full(undefined, math.nan), np.linspace(0.4, 0.6, 400 - undefined)])
        of = stats.Distribution(0.5, values, np.linspace(0.45, 0.55, 5))
        assert math.isnan(stats.as_estimate(metric, of, 5, 0.95).ci_low) == (undefined > 200)


def test_all_right_gives_an_interval_without_width() -> None:
    labels = np.arange(21)
    found = bootstrap_scores(20 * np.eye(21), labels, labels, Bootstrap(100))
    assert found["acc"] == (1, 1, 1)
    assert found["mae_s"] == (0, 0, 0)


def test_a_better_model_is_told_from_a_worse_one() -> None:
    (good, bad), labels, clusters = clustered(6, 40, 10, (2.0, 0.0))
    found = paired_difference(good, bad, labels, clusters, Bootstrap(500))
    for name, metric in METRICS.items():
        better = found[name]["difference"] > 0
        assert better == metric.higher_is_better
        assert found[name]["p"] < 0.05
        assert found[name]["ci_low"] * found[name]["ci_high"] > 0
    turned = paired_difference(bad, good, labels, clusters, Bootstrap(500))
    for name, difference in turned.items():
        assert difference["difference"] == -found[name]["difference"]
        assert difference["ci_low"] == pytest.approx(-found[name]["ci_high"])
        assert difference["p"] == pytest.approx(found[name]["p"])


def test_a_model_does_not_differ_from_itself() -> None:
    (logits,), labels, clusters = clustered(7, 10, 10)
    for difference in paired_difference(logits, logits, labels, clusters, Bootstrap(100)).values():
        assert difference == {"difference": 0, "ci_low": 0, "ci_high": 0, "p": 1}


def test_pairing_narrows_the_interval() -> None:
    (a, b), labels, clusters = clustered(8, 40, 10, (1.5, 1.5))
    paired = paired_difference(a, b, labels, clusters, metrics=["acc"])["acc"]
    alone = [cluster_bootstrap("acc", x, labels, clusters) for x in (a, b)]
    unpaired_width = math.hypot(*(high - low for _, low, high in alone))
    assert paired["ci_high"] - paired["ci_low"] < 0.9 * unpaired_width


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 80), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_p_and_interval_agree(seed: int, n_clusters: int, level: float) -> None:
    g = np.random.default_rng(seed)
    value = g.normal(0, 2)
    sample = value + g.normal(0, 0.2) + g.standard_normal(999)
    low, high = stats.interval(value, sample, n_clusters, level)
    p = stats._p_value(value, sample, n_clusters)
    assert 0 < p <= 1
    # the end of an interval lies between two resamples: p may be that of one more or one fewer of them beyond 0
    below, above = np.sort(sample[sample < 0]), np.sort(sample[sample >= 0])
    near = [p]
    near += [stats._p_value(value, np.array([*below, -1e-9, *above[1:]]), n_clusters)] if len(above) else []
    near += [stats._p_value(value, np.array([*below[:-1], 1e-9, *above]), n_clusters)] if len(below) else []
    if low > 0 or high < 0:
        assert min(near) < 1 - level + 0.005 or not (len(below) and len(above)), "p is least where none is beyond 0"
    else:
        assert max(near) > 1 - level - 0.005


@pytest.mark.parametrize("n_clusters", [3, 4, 5])
def test_with_few_videos_the_interval_is_that_of_a_t_test(n_clusters: int) -> None:
    """The exact bootstrap standard error of a mean of G videos is sd / sqrt(G), sd taken over G."""
    per_video = np.random.default_rng(n_clusters).normal(1, 1, n_clusters)
    counts = stats.resamples(np.arange(n_clusters), Bootstrap(20_000)).counts
    low, high = stats.interval(per_video.mean(), counts @ per_video / n_clusters, n_clusters, 0.95)
    expected = ttest_1samp(per_video, 0).confidence_interval(0.95)
    assert low == pytest.approx(expected.low, rel=0.05)
    assert high == pytest.approx(expected.high, rel=0.05)
    p = stats._p_value(per_video.mean(), counts @ per_video / n_clusters, n_clusters)
    assert p == pytest.approx(ttest_1samp(per_video, 0).pvalue, rel=0.05)


def test_two_videos_have_no_interval() -> None:
    """With two, an interval would reach 12.7 standard errors to each side: Acc could differ by 4."""
    (a, b), labels, clusters = clustered(9, 2, 10, (0.5, 3.0))
    for estimate in bootstrap_scores(a, labels, clusters, Bootstrap(50)).values():
        assert math.isnan(estimate.ci_low)
        assert math.isnan(estimate.ci_high)
    for found in paired_difference(a, b, labels, clusters, Bootstrap(50)).values():
        assert [math.isnan(found[key]) for key in ("difference", "ci_low", "ci_high", "p")] == [False, True, True, True]
    assert stats.too_few(2) == "too few videos for an interval (n = 2): it needs at least 3"
    assert stats.too_few(3) == ""


def test_no_difference_leaves_what_is_possible() -> None:
    labels, clusters = np.full(9, 10), np.repeat(np.arange(3), 3)
    right = 20 * np.eye(21)[labels]
    wrong = right.copy()
    wrong[:6] = 20 * np.eye(21)[0]  # of one model two of three videos are all wrong
    found = paired_difference(right, wrong, labels, clusters, Bootstrap(200), ["acc", "mae_s"])
    assert found["acc"]["ci_high"] == 1
    assert found["mae_s"]["ci_low"] == -4
    assert found["acc"]["p"] > 0.05, "and 0 is in it"
    assert found["acc"]["ci_low"] < 0


def test_no_interval_leaves_the_range_of_its_metric() -> None:
    (logits,), labels, clusters = clustered(9, 3, 10)
    for name, estimate in bootstrap_scores(logits, labels, clusters, Bootstrap(50)).items():
        least, most = sorted((METRICS[name].worst, METRICS[name].best))
        assert least <= estimate.ci_low <= estimate.value <= estimate.ci_high <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": [1, 2]}, "2 cluster names for 3 cases"),
        ({"clusters": [[1], [2], [3]]}, r"clusters have shape \(3, 1\)"),
        ({"clusters": [0.5, 1.0, math.nan]}, "float64"),
        ({"clusters": [None, "a", "b"]}, "object"),
        ({"metrics": ["map", "recall"]}, "unknown metric 'recall'"),
        ({"labels": [0, 1]}, "labels have shape"),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"logits": np.zeros((3, 21)), "labels": [0, 1, 2], "clusters": ["a", "b", "c"]}
    with pytest.raises(UsageError, match=message) as caught:
        bootstrap_scores(**(call | changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"n_resamples": -1}, "n_resamples is -1"), ({"seed": -1}, "seed is -1"), ({"level": 1.0}, "level is 1.0")],
)
def test_an_impossible_bootstrap_is_one_clear_line(setting: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Bootstrap(**setting)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_non_finite_logits_of_either_model_are_refused() -> None:
    good, bad = np.zeros((3, 21)), np.full((3, 21), math.nan)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(NonFiniteError, match="row 0"):
            paired_difference(*pair, [0, 1, 2], ["a", "b", "c"])


# Groups and shares


@pytest.mark.parametrize("metric", ["acc", "map"])
def test_groups_differ_by_what_their_scores_differ(metric: str) -> None:
    (logits,), labels, clusters = clustered(30, 12, 10)
    first = clusters % 12 < 6  # six videos against six others
    found = group_difference(metric, logits, labels, clusters, first, ~first, Bootstrap(300))
    expected = score(logits[first], labels[first])[metric] - score(logits[~first], labels[~first])[metric]
    assert found["difference"] == pytest.approx(expected, abs=1e-12)
    assert found["ci_low"] < found["ci_high"]


def test_a_group_against_itself_is_no_difference() -> None:
    (logits,), labels, clusters = clustered(31, 12, 10)
    everything = np.ones(len(labels), bool)
    found = group_difference("map", logits, labels, clusters, everything, everything, Bootstrap(50))
    assert (found["difference"], found["ci_low"], found["ci_high"], found["p"]) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.slow
def test_equal_groups_are_rarely_called_different() -> None:
    """Every other case of each video: the groups differ by luck alone, in mAP, which is biased, too."""
    n, called = 200, np.zeros(2)
    for seed in range(n):
        (logits,), labels, clusters = clustered(7000 + seed, 20, 8)
        first = np.arange(len(labels)) % 2 == 0
        for i, metric in enumerate(("acc", "map")):
            called[i] += (
                group_difference(metric, logits, labels, clusters, first, ~first, Bootstrap(300, seed))["p"] < 0.05
            )
    error = 3 * math.sqrt(0.05 * 0.95 / n)
    assert (np.abs(called / n - 0.05) < 0.02 + error).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=30))
def test_shares_are_ratios_of_sums_within_0_and_1(rows: list[tuple[int, int, int]]) -> None:
    parts = np.array([[min(a, b)] for a, b, _ in rows], float)
    wholes = np.array([b for _, b, _ in rows], float)
    (found,) = shares(parts, wholes, np.array([f"v{v}" for *_, v in rows]), Bootstrap(50))
    assert found.value == pytest.approx(parts.sum() / wholes.sum())
    if not math.isnan(found.ci_low):
        assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1


def test_a_share_of_equal_videos_is_a_mean() -> None:
    (logits,), labels, clusters = clustered(32, 12, 10)
    hits = (logits.argmax(axis=1) == labels).astype(float)
    (found,) = shares(hits[:, None], np.ones(len(hits)), clusters, Bootstrap(200))
    assert found == pytest.approx(
        bootstrap_scores(logits, labels, clusters, Bootstrap(200), metrics=["acc"])["acc"], abs=1e-12
    )


def test_shares_of_nothing_are_undefined() -> None:
    (found,) = shares(np.zeros((3, 1)), np.zeros(3), np.array(["a", "b", "c"]), Bootstrap(20))
    assert all(math.isnan(x) for x in found)


# Rankings


def test_what_cannot_be_told_apart_shares_a_rank() -> None:
    (best, near, worse, worst), labels, clusters = clustered(20, 40, 10, (2.5, 2.4, 0.8, -1.0))
    entries = {"worst": worst, "best": best, "near": near, "worse": worse}
    for metric in METRICS:
        ranked = rank_groups(entries, labels, clusters, metric, Bootstrap(400))
        assert [r.rank for r in ranked] == [1, 1, 3, 4]
        assert {r.name for r in ranked[:2]} == {"best", "near"}
        assert [r.name for r in ranked[2:]] == ["worse", "worst"]
        assert [r.leader for r in ranked] == [ranked[0].name, ranked[0].name, "worse", "worst"]
        assert [(r.best_rank, r.worst_rank) for r in ranked] == [(1, 2), (1, 2), (3, 3), (4, 4)]


def test_a_ranking_says_what_the_paired_difference_says() -> None:
    models, labels, clusters = clustered(21, 12, 8, (1.0, 1.2, 1.4, 1.6))
    entries = {f"m{i}": logits for i, logits in enumerate(models)}
    for metric in METRICS:
        ranked = rank_groups(entries, labels, clusters, metric, Bootstrap(300, 5))
        assert ranked[0].to_previous is None
        for place, entry in enumerate(ranked):
            alone = bootstrap_scores(entries[entry.name], labels, clusters, Bootstrap(300, 5), metrics=[metric])[metric]
            assert entry.estimate == pytest.approx(alone)
            for other, found in ((entry.leader, entry.to_leader), (ranked[place - 1].name, entry.to_previous)):
                if found is not None:
                    pair = entries[entry.name], entries[other]
                    expected = paired_difference(*pair, labels, clusters, Bootstrap(300, 5), metrics=[metric])[metric]
                    assert found == pytest.approx(expected, abs=1e-12)
            assert (entry.to_leader["p"] >= 0.05) or entry.leader == entry.name
            assert entry.best_rank <= entry.rank <= place + 1 <= entry.worst_rank


def test_every_entry_is_compared_with_the_leader_not_with_its_neighbour() -> None:
    """A chain: each is like the next one, but the ends differ; so the chain breaks where the leader is left behind."""
    models, labels, clusters = clustered(22, 60, 10, tuple(2.0 - 0.12 * i for i in range(12)))
    ranked = rank_groups({f"m{i:02d}": m for i, m in enumerate(models)}, labels, clusters, "mae_s", Bootstrap(300))
    groups = [r.rank for r in ranked]
    assert groups[0] == 1
    assert 1 < len(set(groups)) < len(groups)
    assert all(rank == place + 1 for place, rank in enumerate(groups) if ranked[place].leader == ranked[place].name)


def test_equal_entries_tie_in_the_order_of_their_names() -> None:
    (logits,), labels, clusters = clustered(23, 10, 8)
    ranked = rank_groups({"b": logits, "a": logits.copy(), "c": logits + 3}, labels, clusters, "acc", Bootstrap(100))
    assert [(r.name, r.rank, r.best_rank, r.worst_rank) for r in ranked] == [(n, 1, 1, 3) for n in "abc"]


def test_one_video_ties_everything() -> None:
    (good, bad), labels, _ = clustered(24, 5, 8, (3.0, -1.0))
    ranked = rank_groups({"good": good, "bad": bad}, labels, ["only"] * len(labels), "acc", Bootstrap(50))
    assert [(r.name, r.rank) for r in ranked] == [("good", 1), ("bad", 1)]
    assert math.isnan(ranked[1].to_leader["p"])
    assert rank_groups({}, labels, ["only"] * len(labels)) == []


def test_an_entry_that_cannot_be_ranked_is_named() -> None:
    (logits,), labels, clusters = clustered(26, 5, 8)
    with pytest.raises(NonFiniteError, match="entry bad: logits row 0"):
        rank_groups({"good": logits, "bad": np.full_like(logits, math.nan)}, labels, clusters)
    with pytest.raises(UsageError, match="entry short: labels have shape"):
        rank_groups({"good": logits, "short": logits[1:]}, labels, clusters)
    with pytest.raises(UsageError, match="entry good: roc_auc is undefined"):
        rank_groups({"good": logits}, np.full_like(labels, 3), clusters, "roc_auc")
    with pytest.raises(UsageError, match="unknown metric 'best'"):
        rank_groups({"good": logits}, labels, clusters, "best")


def test_the_detectable_difference_is_what_a_t_test_could_find() -> None:
    """One case a video, two models that differ in single answers: standard error and quantiles are known exactly."""
    n, labels = 60, np.zeros(60, int)
    a, b = np.tile(20 * np.eye(21)[0], (n, 1)), np.tile(20 * np.eye(21)[0], (n, 1))
    a[:9], b[9:14] = 20 * np.eye(21)[5], 20 * np.eye(21)[5]
    hits = (a.argmax(1) == 0).astype(float) - (b.argmax(1) == 0)
    expected = (t.ppf(0.975, n - 1) + t.ppf(0.8, n - 1)) * hits.std(ddof=1) / math.sqrt(n)
    found = minimum_detectable_difference(a, b, labels, np.arange(n), Bootstrap(20_000), metrics=["acc"])
    assert found == {"acc": pytest.approx(expected, rel=0.03)}


def test_more_videos_show_smaller_differences() -> None:
    found = []
    for n_clusters in (20, 80):
        (a, b), labels, clusters = clustered(27, n_clusters, 10, (1.5, 1.5))
        found.append(minimum_detectable_difference(a, b, labels, clusters, Bootstrap(400)))
    for name in METRICS:
        assert 0.35 < found[1][name] / found[0][name] < 0.75  # 1 / 2 but for the models' own luck
    (a,), labels, clusters = clustered(28, 10, 8)
    assert set(minimum_detectable_difference(a, a, labels, clusters, Bootstrap(50)).values()) == {0}
    assert math.isnan(minimum_detectable_difference(a, a, labels, ["only"] * len(a), Bootstrap(50))["acc"])
    with pytest.raises(UsageError, match="power is"):
        minimum_detectable_difference(a, a, labels, clusters, Bootstrap(50), power=1.5)


# Coverage and size: simulated, with the truth taken from 20,000 videos.


def coverage(metrics: list[str], n_simulations: int, n_clusters: int, per_cluster: int, n_resamples: int) -> np.ndarray:
    """Per metric: the share of simulated samples whose 95 % interval holds the value of the whole population."""
    (logits,), labels, _ = clustered(99, 20_000, 5)
    truth, held = score(logits, labels), np.zeros(len(metrics))
    for seed in range(n_simulations):
        (logits,), labels, clusters = clustered(1000 + seed, n_clusters, per_cluster)
        found = bootstrap_scores(logits, labels, clusters, Bootstrap(n_resamples, seed), metrics=metrics)
        held += [found[m].ci_low <= truth[m] <= found[m].ci_high for m in metrics]
    return held / n_simulations


def size(metrics: list[str], n_simulations: int, n_clusters: int, per_cluster: int, n_resamples: int) -> np.ndarray:
    """Per metric: the share of simulated pairs of equally good models that the test calls different at 5 %."""
    rejected = np.zeros(len(metrics))
    for seed in range(n_simulations):
        (a, b), labels, clusters = clustered(5000 + seed, n_clusters, per_cluster, (1.5, 1.5))
        found = paired_difference(a, b, labels, clusters, Bootstrap(n_resamples, seed), metrics=metrics)
        rejected += [found[m]["p"] < 0.05 for m in metrics]
    return rejected / n_simulations


@pytest.mark.parametrize(("metrics", "n_clusters"), [(["acc", "mae_s"], 10), (["acc", "map"], 30)])
def test_intervals_hold_the_truth_short(metrics: list[str], n_clusters: int) -> None:
    n = 200
    error = 3 * math.sqrt(0.05 * 0.95 / n)  # three standard errors of the simulation, beside the 2 points allowed
    assert (np.abs(coverage(metrics, n, n_clusters, 8, 300) - 0.95) < 0.02 + error).all()


def test_equal_models_are_rarely_called_different_short() -> None:
    n = 200
    error = 3 * math.sqrt(0.05 * 0.95 / n)
    assert (np.abs(size(["acc", "mae_s", "map"], n, 20, 8, 300) - 0.05) < 0.02 + error).all()


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
@pytest.mark.parametrize(("names", "n_clusters"), [(["map"], 24), (RANKED, 75)])
def test_ranked_metrics_too(names: list[str], n_clusters: int) -> None:
    """ROC-AUC, near 1 and skewed, is promised for many videos only (see ``stats.interval``)."""
    held, rejected = coverage(names, 500, n_clusters, 12, 600), size(names, 500, n_clusters, 12, 600)
    assert (np.abs(held - 0.95) < allowed(500)).all(), dict(zip(names, held, strict=True))
    assert (np.abs(rejected - 0.05) < allowed(500)).all(), dict(zip(names, rejected, strict=True))


def test_a_score_of_ones_own_has_the_interval_that_a_metric_has() -> None:
    (logits,), labels, clusters = clustered(0, 30, 8)
    right = logits.argmax(axis=1) == labels
    expected = bootstrap_scores(logits, labels, clusters, Bootstrap(300), ["acc"])["acc"]
    found = stats.estimate(
        lambda drawn: stats.ratio(right, np.ones(len(right)), drawn), clusters, Bootstrap(300), most=1.0
    )
    assert found == pytest.approx(expected, abs=1e-12)
    assert stats.estimate(lambda drawn: stats.ratio(right, right, drawn), clusters, Bootstrap(300)) == (1, 1, 1)
    assert np.isnan(stats.estimate(lambda drawn: stats.ratio(right, 0 * right, drawn), clusters, Bootstrap(300))).all()
    assert np.isnan(stats.estimate(lambda drawn: stats.ratio(right, right, drawn), [], Bootstrap(300))).all()
    assert np.isnan(stats.estimate(lambda drawn: stats.ratio(right, right, drawn), clusters * 0, Bootstrap(300)).ci_low)


def test_the_interval_of_a_median_is_that_of_the_resamples() -> None:
    """The jackknife of a median is no measure of its spread: with two values in the middle it is 0 or far too much."""
    values, clusters = np.repeat([0.0, 1.0, 2.0, 9.0, 9.0, 9.0, 9.0], 3), np.arange(21)

    def medians(drawn: metrics.Resamples) -> np.ndarray:
        return np.array([np.median(np.repeat(values, row[drawn.cluster])) for row in drawn.counts])

    found = stats.estimate(medians, clusters, Bootstrap(300), smooth=False)
    sample = medians(stats.resamples(clusters, Bootstrap(300)))
    assert (found.ci_low, found.ci_high) == stats.interval(9.0, sample, 21, 0.95)
    assert found.ci_low < found.value == 9.0
