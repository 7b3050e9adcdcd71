"""The report of one run, ``run.html``: scores with intervals, the curve over the windows, where the model errs, its
probabilities on the worst segments, and everything needed to repeat the run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avbench.pages import class_in_words, render
from avbench.pages.sections import curve_charts, errors, slice_tables
from avbench.results.predictions import N_CLASSES, read_predictions
from avbench.results.run import REPORT_FILE, RunResult, Scores, read_run
from avbench.results.truth import Truth, read_segments
from avbench.scoring.metrics import METRICS
from avbench.scoring.selection import scored_iteration
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import seconds
from avbench.types import AvbenchError, UsageError

MAX_LISTED = 50  # failures and warnings shown; run.json has them all


class Row(NamedTuple):
    """One line of the score table."""

    label: str
    kind: str  # "run", "same" (its own backbone) or "other"
    n: int
    scores: Scores
    note: str


def write_report(result: RunResult, folder: Path, answers: Truth | None, logits: np.ndarray) -> Path:
    """Writes ``folder/run.html``; the arguments are those of ``run_page``. ``AvbenchError`` if it cannot be written."""
    path = Path(folder) / REPORT_FILE
    page = run_page(result, answers, logits)
    try:
        atomic_write_bytes(path, page.encode("utf-8"))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}; run.json is written") from error
    return path


def report_again(run: Path) -> Path:
    """Rebuilds ``run.html`` from a run's other files; ``UsageError`` if they are missing, changed, or do not belong
    together."""
    from avbench.results.run import run_file

    run = Path(run)
    result = read_run(run)
    folder = run if run.is_dir() else run.parent
    iterations = result.protocol.iterations
    answers, logits = None, np.empty((0, iterations, N_CLASSES), np.float32)
    if result.n_scored and result.data.labels == "public":
        ids, logits = read_predictions(run_file(folder, result, "predictions"))
        answers = read_segments(run_file(folder, result, "segments"))
        if ids != answers.segment_ids or logits.shape[1] != iterations:
            raise UsageError(f"{folder}: run.json, predictions and segments are not from one run; run it again")
    return write_report(result, folder, answers, logits)


def run_page(result: RunResult, answers: Truth | None, logits: np.ndarray) -> str:
    """The page as text; equal arguments give equal text.

    ``answers``: the truth about the scored segments, in the order of ``logits`` (N, W, 21); None if it is hidden. Both
    may be empty (nothing could be scored).
    """
    at = scored_iteration(result)
    hop_s, window_s = seconds(result.protocol.hop), seconds(result.protocol.window)
    trivial = next((row.scores for row in result.rows if row.name == "constant"), None)
    return render(
        "run_report.html",
        result=result,
        rows=table_rows(result),
        metrics=list(METRICS.values()),
        curves=curve_charts(dict(enumerate(result.curve, start=1)), trivial),
        slices=slice_tables(result.slices),
        errors=errors(answers, logits, at) if answers is not None else None,
        at=at + 1,
        seen_s=window_s + at * hop_s,
        hop_s=hop_s,
        window_s=window_s,
        command=command(result),
        absent=[class_in_words(c) for c in result.absent_classes],
        max_listed=MAX_LISTED,
    )


def table_rows(result: RunResult) -> list[Row]:
    """The lines of the score table: the run, then its reference rows."""
    rows = [Row(result.model.name, "run", result.n_scored, result.scores, "")]
    for row in result.rows:
        kind = "same" if row.label.startswith("same") else "other"
        rows.append(Row(row.label, kind, row.n, row.scores, row.note))
    return rows


def command(result: RunResult) -> str:
    """The command line that repeats the run. A result does not record the paths of a manifest folder or of a weight
    file: FOLDER and FILE stand for them."""
    from avbench.data import dynamic, synthsync
    from avbench.data.opening import planned

    p, data, model = result.protocol, result.data, result.model
    built_in = data.name in (*synthsync.NAMES, dynamic.NAME) and data.split in synthsync.SPLIT_SEEDS
    words = ["avbench", "run", "--model", shlex.quote(model.name)]
    words += ["--data", data.name if built_in else "FOLDER", "--split", shlex.quote(data.split)]
    words += ["--protocol", p.name, "--hop", f"{seconds(p.hop):g}"]
    words += [
        "--iterations",
        str(p.iterations),
        "--seed",
        str(result.seed),
        "--n-resamples",
        str(result.n_resamples),
    ]
    if not built_in or planned(data.name, data.split).sha256 != data.manifest_sha256:
        words += ["--limit", str(result.n_total)]  # a part of the data, or data whose size is unknown here
    if model.random_weights is not None:
        words += ["--random-weights", str(model.random_weights)]
    elif model.full_size:
        words += ["--weights", "FILE"]
    words += ["--dtype", model.dtype] if model.dtype != "float32" else []
    words += ["--compile"] if model.compiled else []
    device = str(result.environment.get("device", "cpu"))
    return " ".join([*words, *(["--device", shlex.quote(device)] if device != "cpu" else [])])
