"""The report of one run, ``run.html``: scores with intervals, the curve over the windows, where the model errs, its
probabilities on the worst segments, and everything needed to repeat the run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avbench.baselines.families import families
from avbench.pages import class_in_words, render, script_text
from avbench.pages.below_grid import below_grid, pair_section
from avbench.pages.causes import causes, nothing_scored, remedies
from avbench.pages.changing import page_of
from avbench.pages.players import players
from avbench.pages.sections import BY_SLICE, BY_SLICE_CHANGING, curve_charts, drawn_rows, errors, slice_tables
from avbench.pages.segment_table import listed
from avbench.pages.time_spent import where_time_went
from avbench.registry.heads import is_learned
from avbench.results.dynamic_truth import WindowTruth, read_truth
from avbench.results.excerpts import Cut, read_cuts
from avbench.results.predictions import N_CLASSES, read_alarm, read_predictions
from avbench.results.run import REPORT_FILE, ModelInfo, RunResult, Scores, read_run, run_file
from avbench.results.truth import Truth, read_segments
from avbench.scoring.metrics import METRICS
from avbench.scoring.selection import scored_iteration
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import seconds
from avbench.types import AvbenchError, UsageError

MAX_LISTED = 50  # causes of failures and warnings shown; run.json has them all


class Row(NamedTuple):
    """One line of the score table."""

    label: str
    kind: str  # "run", "same" (its own backbone) or "other"
    n: int
    scores: Scores
    note: str


def write_report(
    result: RunResult,
    folder: Path,
    answers: Truth | None,
    logits: np.ndarray,
    windows: WindowTruth | None = None,
    alarm: np.ndarray | None = None,
) -> Path:
    """Writes ``folder/run.html`` with the clips that were cut into the folder; the arguments are those of ``run_page``.
    ``AvbenchError`` if it cannot be written."""
    path = Path(folder) / REPORT_FILE
    cuts = read_cuts(folder, result.files["predictions"].sha256) if "predictions" in result.files else []
    page = run_page(result, answers, logits, windows, alarm, cuts)
    try:
        atomic_write_bytes(path, page.encode("utf-8"))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}; run.json is written") from error
    return path


def report_again(run: Path) -> Path:
    """Rebuilds ``run.html`` from a run's other files; ``UsageError`` if they are missing, changed, or do not belong
    together."""
    run = Path(run)
    result = read_run(run)
    return write_report(result, run if run.is_dir() else run.parent, *read_again(run, result))


class Read(NamedTuple):
    """What a run's files say of its N scored segments: ``run_page`` describes the arguments."""

    answers: Truth | None
    logits: np.ndarray
    windows: WindowTruth | None
    alarm: np.ndarray | None


def read_again(run: Path, result: RunResult) -> Read:
    """The files of a run; ``UsageError`` if they are missing, changed, or do not belong together."""
    folder, iterations = run if run.is_dir() else run.parent, result.protocol.iterations
    if not result.n_scored or result.data.labels == "hidden":
        return Read(None, np.empty((0, iterations, N_CLASSES), np.float32), None, None)
    path = run_file(folder, result, "predictions")
    ids, logits = read_predictions(path)
    answers = read_segments(run_file(folder, result, "segments"))
    windows = read_truth(run_file(folder, result, "truth")) if "truth" in result.files else None
    same = ids == answers.segment_ids and logits.shape[1] == iterations
    if windows is not None:
        same = same and ids == windows.segment_ids and windows.regime.shape[1] == iterations
    if not same:
        raise UsageError(f"{folder}: run.json, predictions and segments are not from one run; run it again")
    return Read(answers, logits, windows, None if windows is None else read_alarm(path))


def run_page(
    result: RunResult,
    answers: Truth | None,
    logits: np.ndarray,
    windows: WindowTruth | None = None,
    alarm: np.ndarray | None = None,
    cuts: Sequence[Cut] = (),
) -> str:
    """The page as text; equal arguments give equal text.

    ``answers``: the truth about the scored segments, in the order of ``logits`` (N, W, 21); None if it is hidden. Both
    may be empty (nothing could be scored). Where offsets change, ``windows`` is the truth of every window, and
    ``alarm`` (N, W) the model's own alarm, if it has one. ``cuts``: the clips beside the page, shown if the truth is.
    """
    changing = page_of(result, answers, windows, logits, alarm)
    at = scored_iteration(result)
    hop_s, window_s = seconds(result.protocol.hop), seconds(result.protocol.window)
    # accuracy of "always in sync" holds for every window only where offsets are fixed
    trivial = next((row.scores for row in result.rows if row.name == "constant"), None) if changing is None else None
    drawn = {} if answers is None else players(result, answers, logits, windows, cuts)
    table = None if answers is None else listed(answers, logits, at)
    return render(
        "run_report.html",
        script=script_text("run.js", sorting=True) if drawn or table else "",
        media="'self' file:" if drawn else "",
        players=drawn,
        table=table,
        result=result,
        nothing=nothing_scored(result),
        causes=[(cause.where, cause.reason, cause.n) for cause in causes(result.failures, result.data.names)],
        remedies=[shlex.join(words) for words in _remedies(result)],
        rows=table_rows(result),
        metrics=list(METRICS.values()),
        curves=curve_charts(dict(enumerate(result.curve, start=1)), trivial, result.rows),
        beside=drawn_rows(result.rows, len(result.curve)),
        dashed=trivial is not None,
        slices=slice_tables(result.slices, BY_SLICE if changing is None else BY_SLICE_CHANGING),
        errors=errors(answers, logits, at, result.data.names) if answers is not None and changing is None else None,
        changing=changing,
        below=below_grid(result.scores, answers, logits[:, at]),
        pairs=pair_section(result.pairs),
        at=at + 1,
        seen_s=window_s + at * hop_s,
        hop_s=hop_s,
        window_s=window_s,
        command=command(result),
        absent=[class_in_words(c) for c in result.absent_classes],
        max_listed=MAX_LISTED,
        time_spent=where_time_went(result),
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
    p, data, model = result.protocol, result.data, result.model
    built_in, whole = _built_in(result)
    if model.name.startswith("python:"):
        where = data.name if built_in else "FOLDER"
        return f"in Python: avbench.evaluate({model.backbone[7:]}, {where!r}, {data.split!r}, head={model.head!r}, ...)"
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
    if not whole:
        words += ["--limit", str(result.n_total)]  # a part of the data, or data whose size is unknown here
    if model.random_weights is not None:
        words += ["--random-weights", str(model.random_weights)]
    elif model.full_size:
        words += ["--weights", "FILE"]
    words += _head_file(model)
    words += _arguments(model.arguments)
    words += ["--dtype", model.dtype] if model.dtype != "float32" else []
    words += ["--compile"] if model.compiled else []
    device = str(result.environment.get("device", "cpu"))
    return " ".join([*words, *(["--device", shlex.quote(device)] if device != "cpu" else [])])


def _head_file(model: ModelInfo) -> list[str]:
    """--head-weights, as of :func:`command`, where neither the package nor the backbone's weights bring the head."""
    base = model.name.removesuffix(f"+{model.head}")
    if base == model.name or not is_learned(model.head) or model.random_weights is not None:
        return []
    family = families().get(base.partition(".")[0])
    its_own = [] if family is None else [family.head, *family.heads]
    if family and family.full and model.full_size:
        its_own.append(family.full.head)
    return [] if model.head in its_own else ["--head-weights", "FILE"]


def _arguments(given: dict[str, str]) -> list[str]:
    """--model-args as it was given; of files only the name is recorded."""
    texts = [f"{name}={text.partition(' (sha256 ')[0]}" for name, text in given.items()]
    return ["--model-args", *map(shlex.quote, texts)] if texts else []


def _remedies(result: RunResult) -> list[list[str]]:
    """What looks for the causes of failures, as of :func:`command`."""
    data = [result.data.name if _built_in(result)[0] else "FOLDER", "--split", result.data.split]
    arguments = [f"{name}={text.partition(' (sha256 ')[0]}" for name, text in result.model.arguments.items()]
    own = [result.model.name, *_head_file(result.model), *(["--model-args", *arguments] if arguments else [])]
    return remedies(result, own, data)


def _built_in(result: RunResult) -> tuple[bool, bool]:
    """Whether the data are built in, and whether all of a built-in split was run. The name of changing offsets alone
    does not say so: the same is given to those that `avbench data dynamic` makes over SynthSync."""
    from avbench.data import dynamic, synthsync

    data = result.data
    if data.split not in synthsync.SPLIT_SEEDS or data.name not in (*synthsync.NAMES, dynamic.NAME):
        return False, False
    if data.name != dynamic.NAME:
        return True, synthsync.planned(data.name, data.split).sha256 == data.manifest_sha256
    planned = dynamic.planned(data.split)
    whole = planned.sha256 == data.manifest_sha256
    return whole or planned.limit(max(result.n_total, 1)).sha256 == data.manifest_sha256, whole
