"""The report of one run, ``run.html``: scores with intervals, the curve over the windows, where the model errs, what it
believed in its worst moments, and everything needed to repeat the run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.atomic import atomic_write_bytes
from avbench.metrics import METRICS, checked_logits
from avbench.pages import charts, class_in_words, render
from avbench.results import REPORT_FILE, RunResult, Score, Scores
from avbench.ticks import seconds
from avbench.types import AvbenchError, OffsetGrid, SegmentRecord

N_WORST = 8
CURVES = ("acc", "map", "mae_s")
BY_SLICE = ("acc", "map", "mae_s")
GRID = OffsetGrid()
MAX_LISTED = 50  # failures and the like; run.json has them all


class Row(NamedTuple):
    """One line of the score table."""

    label: str
    kind: str  # "run", "same" (its own backbone) or "other"
    n: int
    scores: Scores
    note: str


class Belief(NamedTuple):
    """One segment, and what the model believed at each iteration."""

    segment: SegmentRecord
    said: int  # class at the scored iteration
    p_said: float
    p_truth: float
    steps: list[tuple[int, int, float, float]]  # iteration, top class, its probability, that of the truth
    chart: Markup


def write_report(
    result: RunResult, folder: Path, segments: Sequence[SegmentRecord], logits: np.ndarray, limited: bool = False
) -> Path:
    """Writes ``folder/run.html``; the arguments are those of ``run_page``. ``AvbenchError`` if it cannot be written."""
    path = Path(folder) / REPORT_FILE
    page = run_page(result, segments, logits, limited)
    try:
        atomic_write_bytes(path, page.encode("utf-8"))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}; run.json is there") from error
    return path


def run_page(result: RunResult, segments: Sequence[SegmentRecord], logits: np.ndarray, limited: bool = False) -> str:
    """The page as text, the same for the same arguments.

    ``segments``: the scored ones, in the order of ``logits`` (N, W, 21); both may be empty (nothing could be scored).
    ``limited``: the run was restricted to its first segments (``--limit``), which the command to repeat it says.
    """
    at = scored_iteration(result)
    labels = np.array([s.offset_class for s in segments], np.int64)
    hop_s, window_s = (seconds(int(result.protocol[name])) for name in ("hop", "window"))  # type: ignore[arg-type]
    context: dict[str, Any] = {"confusion": None, "worst": [], "wrong": 0}
    if len(segments):
        answered = np.argmax(logits[:, at], axis=-1)
        context = {
            "confusion": confusion(labels, answered),
            "worst": worst_segments(segments, logits, at),
            "wrong": int(np.count_nonzero(answered != labels)),
        }
    return render(
        "run_report.html",
        result=result,
        rows=table_rows(result),
        metrics=list(METRICS.values()),
        curves=curve_charts(result),
        slices=slice_tables(result),
        at=at + 1,
        seen_s=window_s + at * hop_s,
        hop_s=hop_s,
        window_s=window_s,
        offsets_s=[GRID.offset_of(c) for c in range(GRID.n_classes)],
        command=command(result, limited),
        absent=[class_in_words(c) for c in result.absent_classes],
        max_listed=MAX_LISTED,
        **context,
    )


def scored_iteration(result: RunResult) -> int:
    """Index of the iteration that the page looks into: the last one, or under ``best_iter`` the one of the best
    accuracy."""
    from avbench.replay import selected_iteration

    values = [scores["acc"].value for scores in result.curve]
    if not values:
        return int(result.protocol["iterations"]) - 1  # type: ignore[arg-type]
    return selected_iteration(str(result.protocol["selection"]), values, higher_is_better=True)


def table_rows(result: RunResult) -> list[Row]:
    rows = [Row(result.model.name, "run", result.n_scored, result.scores, "")]
    for row in result.rows:
        kind = "same" if row.label.startswith("same") else "other"
        rows.append(Row(row.label, kind, row.n, row.scores, row.note))
    return rows


def curve_charts(result: RunResult) -> list[tuple[str, Markup]]:
    """(title, chart) of the metrics over the windows seen, with the trivial row that accuracy has to beat."""
    if len(result.curve) < 2:
        return []
    trivial = next((row for row in result.rows if row.name == "constant"), None)
    found = []
    for name in CURVES:
        metric = METRICS[name]
        points = [scores.get(name, Score(value=None)) for scores in result.curve]
        line = charts.Line(
            metric.title,
            [i + 1 for i in range(len(points))],
            [p.value for p in points],
            [p.ci_low for p in points],
            [p.ci_high for p in points],
        )
        beside = trivial.scores[name].value if trivial else None
        references = [charts.Reference("always in sync", beside)] if beside is not None else []
        y_range = None if metric.unit else (0.0, 1.0)
        title, x_ticks = f"{metric.title} over the windows seen", charts.count_ticks(len(points))
        chart = charts.curve([line], title, "windows seen", y_range, references, x_ticks)
        found.append((f"{metric.title}: {metric.description}", chart))
    return found


def slice_tables(result: RunResult) -> list[dict[str, Any]]:
    """Per kind of slice (category, channel): its rows, and where the bars of MAE end."""
    tables = []
    for kind, parts in result.slices.items():
        if len(parts) < 2 and kind != "category":
            continue
        errors = [part.scores["mae_s"] for part in parts.values()]
        top_s = charts.nice_top(max(e.ci_high or e.value or 0.0 for e in errors))
        tops = {name: top_s if METRICS[name].unit else 1.0 for name in BY_SLICE}
        rows = [
            (name, part.n, [(part.scores[m], _bar(part.scores[m], tops[m])) for m in BY_SLICE])
            for name, part in parts.items()
        ]
        tables.append({"kind": kind, "rows": rows, "metrics": [METRICS[m] for m in BY_SLICE], "top_s": top_s})
    return tables


def _bar(score: Score, top: float) -> Markup:
    return charts.interval_bar(score.value, score.ci_low, score.ci_high, top)


def confusion(labels: np.ndarray, answered: np.ndarray) -> list[dict[str, Any]]:
    """Rows of the matrix, the latest sound first: ``truth``, ``n`` and per answered class (count, shade)."""
    counts = np.zeros((GRID.n_classes, GRID.n_classes), np.int64)
    np.add.at(counts, (labels, answered), 1)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    shades = charts.heat_level(shares)
    return [
        {"truth": c, "n": int(totals[c]), "cells": list(zip(counts[c].tolist(), shades[c].tolist(), strict=True))}
        for c in range(GRID.n_classes)
    ]


def worst_segments(segments: Sequence[SegmentRecord], logits: np.ndarray, at: int, n: int = N_WORST) -> list[Belief]:
    """The ``n`` segments that are furthest off at iteration index ``at``, the surest error first among equals; where
    fewer are wrong, the least sure of the right ones follow."""
    labels = np.array([s.offset_class for s in segments], np.int64)
    rows = np.arange(len(segments))
    flat = checked_logits(logits.reshape(-1, GRID.n_classes))
    exponentials = np.exp(flat - flat.max(axis=1, keepdims=True))
    p = (exponentials / exponentials.sum(axis=1, keepdims=True)).reshape(logits.shape)
    answered = logits[:, at].argmax(axis=-1)
    off = np.abs(answered - labels)
    p_truth = p[rows, at, labels]
    order = sorted(rows.tolist(), key=lambda r: (-off[r], p_truth[r], segments[r].id))[:n]
    found = []
    for r in order:
        top = logits[r].argmax(axis=-1)
        steps = [(i + 1, int(c), float(p[r, i, c]), float(p[r, i, labels[r]])) for i, c in enumerate(top)]
        chart = charts.belief(p[r], int(labels[r]), f"belief about {segments[r].id} at each window")
        said = int(answered[r])
        found.append(Belief(segments[r], said, float(p[r, at, said]), float(p_truth[r]), steps, chart))
    return found


def command(result: RunResult, limited: bool) -> str:
    """The command line that repeats the run. A manifest folder has no address in a result: its place is left open."""
    from avbench.data.synthsync import NAMES

    p, data = result.protocol, result.data
    words = ["avbench", "run", "--model", shlex.quote(result.model.name)]
    words += ["--data", data.name if data.name in NAMES else "FOLDER", "--split", shlex.quote(data.split)]
    words += ["--protocol", str(p["name"]), "--hop", f"{seconds(int(p['hop'])):g}"]  # type: ignore[arg-type]
    words += ["--iterations", str(p["iterations"]), "--seed", str(result.seed), "--n-resamples", str(result.n_resamples)]
    if limited:
        words += ["--limit", str(result.n_total)]
    return " ".join(words)
