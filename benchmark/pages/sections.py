"""Page sections shared by a run's report and a leaderboard entry's page, drawn by ``templates/sections.html``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages import charts, class_in_words
from avbench.results.run import ReferenceRow, Score, Scores, Slice
from avbench.results.truth import Truth
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS, checked_logits, softmax
from avbench.types import CATEGORIES, OffsetGrid, offset_in_words

GRID = OffsetGrid()
N_WORST = 6
FEW_OF_A_CLASS = 5  # on average; with fewer segments the matrix of confusion is nearly empty
CURVES = ("acc", "map", "mae_s")
ROW_COLOURS = {"apa": 1, "one-window": 3}  # of the reference rows whose curves are drawn
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
    few: list[tuple[str, Markup]]  # of few segments, in place of a matrix that is nearly empty: words and chart


def errors(answers: Truth, logits: np.ndarray, at: int, names: Mapping[str, str] | None = None) -> Errors | None:
    """Confusion and worst segments of ``logits`` (N, W, 21) at iteration index ``at``; None without segments.
    ``names``: as of :func:`worst_segments`."""
    if not len(answers.labels):
        return None
    answered = np.argmax(logits[:, at], axis=-1)
    wrong = int(np.count_nonzero(answered != answers.labels))
    rows, worst = confusion(answers.labels, answered), worst_segments(answers, logits, at, names=names)
    few = few_answers(answers, answered) if len(answers) < FEW_OF_A_CLASS * GRID.n_classes else []
    return Errors(at + 1, wrong, len(answers.labels), rows, worst, few)


def few_answers(answers: Truth, answered: np.ndarray) -> list[tuple[str, Markup]]:
    """(words, chart): each answer (N,) against the truth, and how many are off by how much."""
    off = answered - answers.labels
    exact_s = answers.offsets_s
    points = []
    for row, (truth, said) in enumerate(zip(answers.labels.tolist(), answered.tolist(), strict=True)):
        true_s = GRID.offset_of(truth) if exact_s is None else float(exact_s[row])
        colour = 2 if said == truth else 4 if abs(said - truth) == 1 else 1
        told = f"{answers.segment_ids[row]}: {offset_in_words(round(true_s, 2))}, answered: {class_in_words(said)}"
        points.append(charts.Answer(told, true_s, GRID.offset_of(said), colour))
    counts = dict(zip(*(found.tolist() for found in np.unique(off, return_counts=True)), strict=True))
    title = f"answers against true offsets of {len(points)} segments"
    return [
        (
            "Each segment: its true offset and the answer. On the line the answer is right; above it, too early.",
            charts.answers_scatter(points, title),
        ),
        (
            "How far off the answers are. Green: right; yellow: one class off; orange: more.",
            charts.error_bars(counts, "how far off the answers are"),
        ),
    ]


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
    """The first ``n`` segments of :func:`from_the_worst`. ``names``: video -> the name of its file."""
    labels, answered = answers.labels, logits[:, at].argmax(axis=-1)
    found = []
    for r in from_the_worst(answers, logits, at)[:n]:
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


def from_the_worst(answers: Truth, logits: np.ndarray, at: int) -> list[int]:
    """The rows of the segments from the largest error at iteration index ``at`` on; ties are ordered by the probability
    of the truth, lowest first. After the wrong ones the right ones follow, the least certain first."""
    labels, rows = answers.labels, np.arange(len(answers.labels))
    off = np.abs(logits[:, at].argmax(axis=-1) - labels)
    p_truth = softmax(checked_logits(logits[:, at]))[rows, labels]
    return sorted(rows.tolist(), key=lambda r: (-off[r], p_truth[r], answers.segment_ids[r]))


def curve_charts(
    curve: Mapping[int, Scores], beside: Scores | None = None, rows: Sequence[ReferenceRow] = ()
) -> list[tuple[str, Markup]]:
    """(title, chart) of the metrics over the windows seen. ``curve``: window -> scores; ``beside``: scores of the row
    "always in sync", which accuracy has to beat; ``rows``: reference rows, of which those of :func:`drawn_rows` are
    drawn too."""
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
        thin = [
            charts.Line(row.label, list(curve), [point[name].value for point in row.curve], colour=colour, thin=True)
            for row, colour in drawn_rows(rows, len(curve))
            if all(name in point for point in row.curve)
        ]
        trivial = beside[name].value if beside else None
        references = [charts.Reference("", trivial)] if trivial is not None else []  # the legend names it
        title, x_ticks = f"{metric.title} over the windows seen", charts.count_ticks(max(curve))
        y_range = None if metric.unit else (0.0, 1.0)
        chart = charts.curve([*thin, line], title, "windows seen", y_range, references, x_ticks)
        found.append((f"{metric.title}: {metric.description}", chart))
    return found


def drawn_rows(rows: Sequence[ReferenceRow], n_windows: int) -> list[tuple[ReferenceRow, int]]:
    """The reference rows with a curve over ``n_windows`` windows, each with its colour."""
    return [(row, ROW_COLOURS[row.name]) for row in rows if row.name in ROW_COLOURS and len(row.curve) == n_windows > 1]


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
