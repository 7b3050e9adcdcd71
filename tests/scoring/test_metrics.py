from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, mean_absolute_error, roc_auc_score

from avbench.scoring import metrics
from avbench.scoring.metrics import METRICS, Resamples, absent_classes, cases, score, weight_above
from avbench.scoring.stats import Bootstrap, bootstrap_scores
from avbench.types import NonFiniteError, OffsetGrid, UsageError

NAMES = ["acc", "acc_tol1", "map", "roc_auc", "balanced_acc", "mae_s"]


def logits_of(classes: list[int], n_classes: int = 21) -> np.ndarray:
    """Logits that put nearly everything on the given class of each row."""
    return 20.0 * np.eye(n_classes)[classes]


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def oracle(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The six metrics by scikit-learn, absent classes left out of the macro means; one class alone ranks nothing."""
    probability = softmax(logits.astype(np.float64))
    predicted = np.argmax(logits, axis=1)
    offset_s = np.arange(21) * 0.2 - 2.0
    present = np.unique(labels)
    precision = [average_precision_score(labels == c, probability[:, c]) for c in present]
    area = [roc_auc_score(labels == c, probability[:, c]) for c in present] if len(present) > 1 else [math.nan]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a predicted class that is absent
        balanced = balanced_accuracy_score(labels, predicted)
    return {
        "acc": np.mean(predicted == labels),
        "acc_tol1": np.mean([abs(int(p) - int(t)) <= 1 for p, t in zip(predicted, labels, strict=True)]),
        "map": np.mean(precision) if len(present) > 1 else math.nan,
        "roc_auc": np.mean(area),
        "balanced_acc": balanced,
        "mae_s": mean_absolute_error(offset_s[labels], offset_s[predicted]),
    }


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, from easy to nasty: few values (ties), few classes (absent ones), a single class, halves."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 60))
    classes = draw(st.lists(st.integers(0, 20), min_size=1, max_size=21, unique=True))
    labels = generator.choice(classes, n)
    levels = draw(st.sampled_from([1, 2, 3, 10, 0]))
    logits = generator.standard_normal((n, 21)) if levels == 0 else generator.integers(0, levels, (n, 21)).astype(float)
    logits *= draw(st.sampled_from([1.0, 0.01, 30.0]))
    logits[np.arange(n), labels] += draw(st.sampled_from([0.0, 1.0, 5.0]))
    if draw(st.booleans()):
        logits = logits[generator.integers(0, n, n)]  # whole rows repeated: ties with different labels
    return logits.astype(draw(st.sampled_from([np.float64, np.float32, np.float16]))), labels


@settings(max_examples=400, deadline=None)
@given(scored())
def test_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = case
    ours, theirs = score(logits, labels), oracle(logits, labels)
    assert list(ours) == NAMES
    for name in NAMES:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12, rel=0, nan_ok=True), name


@settings(max_examples=50, deadline=None)
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: object) -> None:
    logits, labels = case
    order = np.array(random.sample(range(len(labels)), len(labels)))  # type: ignore[attr-defined]
    assert score(logits[order], labels[order]) == pytest.approx(score(logits, labels), abs=1e-12, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_the_ends_of_the_scale_may_be_swapped(case: tuple[np.ndarray, np.ndarray]) -> None:
    """Early and late are treated alike; ties in argmax apart, where the first class wins."""
    logits, labels = case
    logits = logits.astype(np.float64) + np.random.default_rng(0).uniform(0, 1e-6, logits.shape)
    mirrored = score(logits[:, ::-1], 20 - labels)
    assert mirrored == pytest.approx(score(logits, labels), abs=1e-12, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(scored(), st.integers(0, 2**32 - 1))
def test_a_weight_is_a_repetition(case: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    logits, labels = case
    times = np.random.default_rng(seed).integers(0, 4, len(labels))
    times[0] += times.sum() == 0
    repeated = score(np.repeat(logits, times, axis=0), np.repeat(labels, times))
    checked = cases(logits, labels)
    weights = np.stack([times, np.zeros_like(times), times])  # one resample does not touch another
    drawn = Resamples(np.arange(len(times)), weights)
    for name, metric in METRICS.items():
        first, nothing, last = metric.function(checked, drawn)
        assert first == pytest.approx(repeated[name], abs=1e-12, nan_ok=True), name
        assert math.isnan(nothing)
        assert last == first or math.isnan(first)


@pytest.mark.parametrize("n_videos", [1, 3, 200])  # with few videos it is computed otherwise than with many
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 80), n_places=st.integers(1, 30))
def test_the_weight_above_a_place_is_the_sum_over_the_cases_before_it(
    n_videos: int, seed: int, n: int, n_places: int
) -> None:
    g = np.random.default_rng(seed)
    cluster, places = g.integers(0, n_videos, n), np.sort(g.integers(0, n + 1, n_places))
    counts = g.integers(0, 5, (n_videos, 7)).astype(np.float32)
    found = weight_above(cluster, places, n_videos, np.float32)(counts)
    expected = [counts[cluster[:place]].sum(axis=0) for place in places]
    np.testing.assert_array_equal(found, np.array(expected))


def test_each_ranking_is_gone_through_once_for_both_scores_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more for the value itself: twice for each class, whatever the number of metrics, cases and videos."""
    calls: list[int] = []
    plain = metrics.ranked_scores
    monkeypatch.setattr(metrics, "ranked_scores", lambda rank, drawn: calls.append(1) or plain(rank, drawn))
    for n in (100, 400):
        calls.clear()
        g = np.random.default_rng(n)
        labels = np.arange(n) % 7
        bootstrap_scores(g.standard_normal((n, 21)), labels, np.arange(n) // 2, Bootstrap(30))
        assert len(calls) == 2 * 7


def test_a_perfect_model_has_the_best_of_everything() -> None:
    labels = np.arange(21)
    assert score(logits_of(list(labels)), labels) == pytest.approx({n: METRICS[n].best for n in NAMES}, abs=1e-12)


def test_a_small_case_by_hand() -> None:
    """Four segments in sync, one late by a class, one early by two; the model always says "in sync"."""
    labels = np.array([10, 10, 10, 10, 9, 12])
    found = score(logits_of([10] * 6), labels)
    assert found["acc"] == pytest.approx(4 / 6)
    assert found["acc_tol1"] == pytest.approx(5 / 6)
    assert found["balanced_acc"] == pytest.approx(1 / 3)
    assert found["roc_auc"] == 0.5  # everything is tied
    assert found["map"] == pytest.approx((4 / 6 + 1 / 6 + 1 / 6) / 3)  # tied: precision = share of the class
    assert found["mae_s"] == pytest.approx((0.2 + 0.4) / 6)


def test_the_scale_does_not_wrap_around() -> None:
    found = score(logits_of([20, 0]), np.array([0, 20]))
    assert found["acc_tol1"] == 0
    assert found["mae_s"] == pytest.approx(METRICS["mae_s"].worst)


def test_the_lowest_class_wins_a_tie() -> None:
    assert score(np.zeros((1, 21)), np.array([0]))["acc"] == 1
    assert score(np.zeros((1, 21)), np.array([20]))["acc"] == 0


def test_what_ranks_cases_is_undefined_for_a_single_class() -> None:
    """Every ranking of one class alone is perfect: a random guess would get a mAP of 1."""
    found = score(np.random.default_rng(0).standard_normal((5, 21)), np.full(5, 3))
    assert [name for name in NAMES if math.isnan(found[name])] == ["map", "roc_auc"]


def test_log_probabilities_are_logits() -> None:
    generator = np.random.default_rng(0)
    probability, labels = generator.dirichlet(np.ones(21), 50), generator.integers(0, 21, 50)
    np.testing.assert_allclose(cases(np.log(probability), labels).probabilities, probability, atol=1e-15)
    assert score(np.log(probability), labels) == pytest.approx(score(np.log(probability) + 7, labels), abs=1e-12)


def test_huge_logits_are_fine() -> None:
    labels = np.array([0, 1])
    assert score(np.array([[1.7e308] + [-1.7e308] * 20, [0.0, 1e5] + [0.0] * 19]), labels)["map"] == 1.0


def test_absent_classes() -> None:
    assert absent_classes(np.arange(21)) == ()
    assert absent_classes([3, 3, 20]) == tuple(c for c in range(21) if c not in (3, 20))


def test_another_grid() -> None:
    grid = OffsetGrid(n_classes=5, max_offset_s=1.0)
    assert score(logits_of([0, 4], 5), [0, 3], grid)["mae_s"] == pytest.approx(0.25)
    with pytest.raises(UsageError, match=r"shape \(2, 5\).*\(N, 21\)"):
        score(logits_of([0, 4], 5), [0, 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_logits_name_the_row(bad: float) -> None:
    logits = np.zeros((4, 21))
    logits[2, 5] = bad
    with pytest.raises(NonFiniteError, match=f"row 2, class 5 is {bad}"):
        score(logits, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 21)), np.zeros(0, int), "no cases"),
        (np.zeros((3, 20)), [0, 1, 2], r"shape \(3, 20\)"),
        (np.zeros(21), [0], r"shape \(21,\)"),
        (np.zeros((2, 21), complex), [0, 1], "complex"),
        (np.array([["x"] * 21]), [0], "type <U1"),
        (np.zeros((3, 21)), [0, 1], r"labels have shape \(2,\)"),
        (np.zeros((2, 21)), [[0], [1]], r"labels have shape \(2, 1\)"),
        (np.zeros((2, 21)), [0.0, 1.0], "float64"),
        (np.zeros((2, 21)), [0, 21], "label 21 in row 1"),
        (np.zeros((2, 21)), [-1, 0], "label -1 in row 0"),
    ],
)
def test_bad_input_is_one_clear_line(logits: object, labels: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        score(logits, labels)
    assert "\n" not in str(caught.value)


def test_the_table_describes_the_metrics() -> None:
    assert list(METRICS) == NAMES
    assert [m.title for m in METRICS.values()] == ["Acc", "Acc±1", "mAP", "ROC-AUC", "bal. acc", "MAE (s)"]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.higher_is_better == (metric.best > metric.worst)
        assert metric.description


# Outcome of the published evaluation code on reproducible logits (mAP and ROC-AUC on float32 softmax).
PUBLISHED = {
    (0, "plain", 500): (0.47999998927116394, 0.6240000128746033, 0.5207709949870332, 0.9019522366093538),
    (0, "half", 2000): (0.48399999737739563, 0.6115000247955322, 0.5148240594425256, 0.9032304736615147),
    (1, "plain", 500): (0.4440000057220459, 0.5879999995231628, 0.48773350514908487, 0.9077149321131127),
    (1, "half", 2000): (0.47749999165534973, 0.6110000014305115, 0.4951380489617392, 0.9019212540358845),
}


def recipe(seed: int, mode: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    digest = hashlib.sha256(f"{seed}:input:metrics.{mode}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
    labels = generator.integers(0, 21, size=n)
    logits = generator.standard_normal((n, 21))
    logits[np.arange(n), labels] += 1.5
    logits[np.arange(n), np.clip(labels + generator.integers(-1, 2, size=n), 0, 20)] += 1
    if mode == "absent":
        labels = np.where(labels == 7, 8, labels)
    return (logits.astype(np.float16) if mode == "half" else logits).astype(np.float32), labels


@pytest.mark.parametrize(("seed", "mode", "n"), PUBLISHED)
def test_equals_the_published_evaluation_code(seed: int, mode: str, n: int) -> None:
    found, published = score(*recipe(seed, mode, n)), PUBLISHED[seed, mode, n]
    one_case = 1.01 / n if mode == "half" else 1e-7  # the published top-k breaks ties of half floats its own way
    assert found["acc"] == pytest.approx(published[0], abs=one_case)
    assert found["acc_tol1"] == pytest.approx(published[1], abs=one_case)
    assert found["map"] == pytest.approx(published[2], abs=1e-6)
    assert found["roc_auc"] == pytest.approx(published[3], abs=1e-6)


GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "public" / "metrics_golden.json"


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the published code are not in this checkout")
def test_equals_every_golden_value_of_the_published_code() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) == 6
    for name, expected in golden.items():
        seed, n, mode = name.split("_")
        logits, labels = recipe(int(seed.removeprefix("seed")), mode, int(n.removeprefix("n")))
        assert logits.astype(np.float64).sum() == pytest.approx(expected["logit_sum"], abs=1e-9), name
        assert np.bincount(labels, minlength=21).tolist() == expected["label_hist"], name
        found, published = score(logits, labels), expected["metrics"]
        one_case = 1.01 / len(labels) if mode == "half" else 1e-7  # as above
        assert found["acc"] == pytest.approx(published["accuracy_1"], abs=one_case), name
        assert found["acc_tol1"] == pytest.approx(published["accuracy_1_tol1"], abs=one_case), name
        if mode == "absent":  # the published code gives up on both (0 and 0.5); here the class is left out and said so
            assert (published["mAP"], published["mROCAUC"]) == (0.0, 0.5)
            assert absent_classes(labels) == (7,)
            assert [found["map"], found["roc_auc"]] == pytest.approx(
                [oracle(logits, labels)["map"], oracle(logits, labels)["roc_auc"]], abs=1e-12
            )
        else:
            assert found["map"] == pytest.approx(published["mAP"], abs=1e-6), name
            assert found["roc_auc"] == pytest.approx(published["mROCAUC"], abs=1e-6), name
