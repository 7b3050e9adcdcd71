"""Page sections shared by a run's report and a leaderboard entry's page, drawn by ``templates/sections.html``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages import charts
from avbench.results.run import Score, Scores, Slice
from avbench.results.truth import Truth
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS, checked_logits, softmax
from avbench.types import CATEGORIES, OffsetGrid

GRID = OffsetGrid()
N_WORST = 6
CURVES = ("acc", "map", "mae_s")
BY_SLICE = ("acc", "map", "mae_s")
BY_SLICE_CHANGING = ("tracked_acc_tol1", "recovery_s", "tracking_error_s")


class Belief(NamedTuple):
    """One segment with the model's probabilities at each iteration."""

    id: str
    category: str
    truth: int
    said: int  # class at the scored iteration
    p_said: float
    p_truth: float
    steps: list[tuple[int, int, float, float]]  # iteration, top class, its probability, probability of the truth
    chart: Markup
    name: str = ""  # of its file, where that says more than the id


class Errors(NamedTuple):
    """Where a model errs at one iteration. ``confusion``: rows of the matrix as :func:`confusion` returns them."""

    at: int  # iteration, from 1
    wrong: int
    n: int
    confusion: list[dict[str, Any]]
    worst: list[Belief]


def errors(answers: Truth, logits: np.ndarray, at: int, names: Mapping[str, str] | None = None) -> Errors | None:
    """Confusion and worst segments of ``logits`` (N, W, 21) at iteration index ``at``; None without segments.
    ``names``: as of :func:`worst_segments`."""
    if not len(answers.labels):
        return None
    answered = np.argmax(logits[:, at], axis=-1)
    wrong = int(np.count_nonzero(answered != answers.labels))
    rows, worst = confusion(answers.labels, answered), worst_segments(answers, logits, at, names=names)
    return Errors(at + 1, wrong, len(answers.labels), rows, worst)


def confusion(labels: np.ndarray, answered: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the confusion matrix, latest sound first: ``truth`` (class), ``n`` and ``cells`` (count, shade)."""
    counts = np.zeros((GRID.n_classes, GRID.n_classes), np.int64)
    np.add.at(counts, (labels, answered), 1)
    totals = counts.sum(axis=1)
    shades = charts.heat_level(counts / np.maximum(totals, 1)[:, None])
    return [
        {"truth": c, "n": int(totals[c]), "cells": list(zip(counts[c].tolist(), shades[c].tolist(), strict=True))}
        for c in range(GRID.n_classes)
    ]


def worst_segments(
    answers: Truth, logits: np.ndarray, at: int, n: int = N_WORST, names: Mapping[str, str] | None = None
) -> list[Belief]:
    """The ``n`` segments with the largest error at iteration index ``at``; ties are ordered by the probability of the
    truth, lowest first. If fewer are wrong, the least certain of the right ones follow. ``names``: video -> the name of
    its file."""
    labels, rows = answers.labels, np.arange(len(answers.labels))
    answered = logits[:, at].argmax(axis=-1)
    off = np.abs(answered - labels)
    p_truth = softmax(checked_logits(logits[:, at]))[rows, labels]
    found = []
    for r in sorted(rows.tolist(), key=lambda r: (-off[r], p_truth[r], answers.segment_ids[r]))[:n]:
        category = answers.categories[r] if answers.categories else ""
        p, truth, said = softmax(checked_logits(logits[r])), int(labels[r]), int(answered[r])
        top = logits[r].argmax(axis=-1)
        steps = [(i + 1, int(c), float(p[i, c]), float(p[i, truth])) for i, c in enumerate(top)]
        chart = charts.belief(p, truth, f"belief about {answers.segment_ids[r]} at each window")
        found.append(
            Belief(
                answers.segment_ids[r],
                category,
                truth,
                said,
                float(p[at, said]),
                float(p[at, truth]),
                steps,
                chart,
                (names or {}).get(str(answers.clusters[r]), ""),
            )
        )
    return found


def curve_charts(curve: Mapping[int, Scores], beside: Scores | None = None) -> list[tuple[str, Markup]]:
    """(title, chart) of the metrics over the windows seen. ``curve``: window -> scores; ``beside``: scores of the row
    "always in sync", which accuracy has to beat."""
    if len(curve) < 2:
        return []
    found = []
    for name in CURVES:
        metric = METRICS[name]
        points = [scores.get(name, Score(value=None)) for scores in curve.values()]
        line = charts.Line(
            metric.title,
            list(curve),
            [p.value for p in points],
            [p.ci_low for p in points],
            [p.ci_high for p in points],
        )
        trivial = beside[name].value if beside else None
        references = [charts.Reference("always in sync", trivial)] if trivial is not None else []
        title, x_ticks = f"{metric.title} over the windows seen", charts.count_ticks(max(curve))
        y_range = None if metric.unit else (0.0, 1.0)
        chart = charts.curve([line], title, "windows seen", y_range, references, x_ticks)
        found.append((f"{metric.title}: {metric.description}", chart))
    return found


def slice_tables(slices: Mapping[str, Mapping[str, Slice]], names: Sequence[str] = BY_SLICE) -> list[dict[str, Any]]:
    """Per kind of slice (category, channel): its rows, and where the bars of each metric (``names``) end."""
    tables = []
    for kind, found in slices.items():
        parts = {name: found[name] for name in in_order(found)} if kind == "category" else found
        if len(parts) < 2 and kind != "category":
            continue
        metrics = {name: (METRICS | SHOWN)[name] for name in names}
        tops = {
            name: charts.nice_top(max(_end(part.scores[name]) for part in parts.values())) if metric.unit else 1.0
            for name, metric in metrics.items()
        }
        rows = [
            (name, part.n, [(part.scores[m], _bar(part.scores[m], tops[m])) for m in names])
            for name, part in parts.items()
        ]
        bars = [(metric.title, tops[name]) for name, metric in metrics.items() if metric.unit]
        tables.append({"kind": kind, "rows": rows, "metrics": list(metrics.values()), "bars": bars})
    return tables


def in_order(categories: Iterable[str]) -> list[str]:
    """Categories in the paper's order, then the others by name."""
    there = set(categories)
    return [*(c for c in CATEGORIES if c in there), *sorted(there - set(CATEGORIES))]


def _end(score: Score) -> float:
    return score.ci_high or score.value or 0.0


def _bar(score: Score, top: float) -> Markup:
    return charts.interval_bar(score.value, score.ci_low, score.ci_high, top)
