"""``avbench doctor metrics``: compare our metrics with scikit-learn's, which define them.

scikit-learn is imported here only, when the check runs. It serves as the reference implementation; the metrics
themselves are our own because the bootstrap needs them for thousands of resamples at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from avbench.scoring.metrics import METRICS, score
from avbench.system.findings import Finding
from avbench.types import OffsetGrid

TOLERANCE = 1e-12
N_DRAWS = 40
ROWS = (1, 2, 10, 60, 400)  # numbers of cases in turn
LEVELS = (0, 1, 2, 3, 10)  # distinct logit values in turn, few of them making ties; 0: continuous
CLASSES = (21, 13, 5, 2, 1, 20, 3)  # classes with cases in turn; the others are absent
NAN = float("nan")


def examine_metrics(seed: int = 0) -> Iterator[Finding]:
    """One finding per metric: equal to the reference within ``TOLERANCE`` on all draws, or where it differs most."""
    drawn = [_draw(np.random.default_rng([seed, i]), i) for i in range(N_DRAWS)]
    ours = [score(logits, labels) for logits, labels in drawn]
    for name, (source, reference) in REFERENCES.items():
        gaps = [_gap(found[name], reference(*draw)) for found, draw in zip(ours, drawn, strict=True)]
        worst = int(np.argmax(gaps))
        logits, labels = drawn[worst]
        theirs = reference(logits, labels)
        if gaps[worst] <= TOLERANCE:
            text = f"agrees with {source} on {N_DRAWS} draws (largest difference {gaps[worst]:.2g})"
        else:
            where = f"{len(labels)} cases of {len(np.unique(labels))} classes"
            text = f"DIFFERS from {source}: {ours[worst][name]!r} here, {theirs!r} there, on {where}"
        yield Finding(gaps[worst] <= TOLERANCE, f"{METRICS[name].title}: {text}")
    unchecked = [metric.title for name, metric in METRICS.items() if name not in REFERENCES]
    if unchecked:
        yield Finding(False, f"no independent definition of {', '.join(unchecked)}")


def _draw(generator: np.random.Generator, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 21) and labels (N,), with ties and absent classes in turn."""
    n, levels, n_classes = ROWS[i % len(ROWS)], LEVELS[i // len(ROWS) % len(LEVELS)], CLASSES[i % len(CLASSES)]
    labels = generator.choice(generator.permutation(OffsetGrid().n_classes)[:n_classes], n)
    shape = (n, OffsetGrid().n_classes)
    logits = generator.integers(0, levels, shape).astype(float) if levels else generator.standard_normal(shape)
    logits[np.arange(n), labels] += generator.choice([0.0, 1.0, 3.0])
    return logits, labels


def _gap(ours: float, theirs: float) -> float:
    """Absolute difference; 0 where both are undefined, infinite where only one is."""
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


# -- references: (logits (N, 21), labels (N,)) -> value ----------------------------------------------------------------


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, logits.argmax(axis=1)))


def _accuracy_within_one(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.abs(logits.argmax(axis=1) - labels) <= 1))


def _average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    p, present = _softmax(logits), np.unique(labels)
    if len(present) < 2:
        return NAN  # every ranking of one class alone is perfect
    return float(np.mean([average_precision_score(labels == c, p[:, c]) for c in present]))


def _roc_auc(logits: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    p, present = _softmax(logits), np.unique(labels)
    if len(present) < 2:
        return NAN  # undefined: scikit-learn raises or warns, depending on its version
    return float(np.mean([roc_auc_score(labels == c, p[:, c]) for c in present]))


def _balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import balanced_accuracy_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of predicted classes that are absent
        return float(balanced_accuracy_score(labels, logits.argmax(axis=1)))


def _mean_absolute_error(logits: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import mean_absolute_error

    offset_s = np.array([OffsetGrid().offset_of(c) for c in range(OffsetGrid().n_classes)])
    return float(mean_absolute_error(offset_s[labels], offset_s[logits.argmax(axis=1)]))


REFERENCES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "acc": ("scikit-learn's accuracy_score", _accuracy),
    "acc_tol1": ("its definition in numpy", _accuracy_within_one),
    "map": ("the macro mean of scikit-learn's average_precision_score", _average_precision),
    "roc_auc": ("the macro mean of scikit-learn's one-vs-rest roc_auc_score", _roc_auc),
    "balanced_acc": ("scikit-learn's balanced_accuracy_score", _balanced_accuracy),
    "mae_s": ("scikit-learn's mean_absolute_error", _mean_absolute_error),
}
