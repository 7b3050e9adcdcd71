"""Check a submission and recompute its scores. Trusts none of its figures and runs none of its content.

Imports neither torch nor anything that unpickles or evaluates code; ``tests/security/test_submissions.py`` proves it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.protocol.tracks import Track, signature_problem
from avbench.results.predictions import parse_predictions
from avbench.results.run import Scores
from avbench.scoring.dynamic import HEADLINE, headline
from avbench.scoring.scorer import as_scores, scorer_of
from avbench.scoring.stats import Bootstrap
from avbench.scoring.streams import Streams, checked_streams
from avbench.submissions.format import (
    LATENCY_FILE,
    PREDICTIONS_FILE,
    Folder,
    Problem,
    Provenance,
    Submission,
    ValidationError,
    plain_texts,
    read_folder,
    refuse,
)
from avbench.submissions.tracks import Truth, known, measures, window_truth
from avbench.system.strict import parse_json
from avbench.ticks import seconds
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from avbench.latency.record import LatencyRecord

CLAIM_TOLERANCE = 1e-6  # equal float32 predictions give float64 scores that agree far more closely than this
# every v1 submission claims these, and one to a track of offsets that change all its measures
V1_METRICS = ("acc", "acc_tol1", "map", "roc_auc", "balanced_acc", "mae_s")


@dataclass(frozen=True, eq=False)
class Entry:
    """A submission with valid format and predictions. ``logits`` (N, W, 21) float32, rows in the truth's order."""

    folder: Path
    submission: Submission
    track: Track
    truth: Truth
    logits: np.ndarray
    latency: LatencyRecord | None = None

    @property
    def name(self) -> str:
        """``<org>__<model>/<revision>/<track>``."""
        return self.submission.entry


@dataclass(frozen=True)
class Report:
    """The result of a check. ``recomputed`` is empty if the predictions could not be scored."""

    ok: bool
    errors: tuple[Problem, ...]
    claimed: Mapping[str, float | None]
    recomputed: Scores
    entry: Entry | None = None

    def to_json(self) -> dict[str, Any]:
        """What ``avbench submit check --json`` prints."""
        return {
            "ok": self.ok,
            "entry": self.entry.name if self.entry else None,
            "errors": [problem._asdict() for problem in self.errors],
            "claimed": dict(self.claimed),
            "recomputed": {name: value.model_dump() for name, value in self.recomputed.items()},
        }


def check(folder: Path | str, labels: Path | str | None = None, n_resamples: int = 1000, seed: int = 0) -> Report:
    """Checks a submission's format, hashes and completeness, and recomputes its scores beside the claimed ones.

    ``labels``: the maintainers' labels file of a blind track. Every problem is in the report, never raised; a problem
    with the labels file is under the field ``labels``.
    """
    claimed: Mapping[str, float | None] = {}
    try:
        read = read_folder(folder)
        claimed = read.submission.claimed
        entry = entry_of(read, labels)
    except ValidationError as error:
        return Report(False, error.problems, claimed, {})
    except UsageError as error:
        return Report(False, ValidationError([Problem("labels", str(error))]).problems, claimed, {})
    recomputed = scores(entry, n_resamples, seed)
    errors = claim_problems(entry.submission, entry.track, {name: s.value for name, s in recomputed.items()})
    return Report(not errors, tuple(errors), claimed, recomputed, entry)


def read_entry(folder: Path | str, labels: Path | str | None = None, verify: bool = True) -> Entry:
    """Reads and checks a submission; ``ValidationError`` names the fields that are wrong.

    ``verify`` also recomputes the claimed scores (about a second); pass False if that was already done for the same
    predictions and labels.
    """
    entry = entry_of(read_folder(folder), labels)
    if verify:
        problems = claim_problems(entry.submission, entry.track, values(entry))
        if problems:
            raise ValidationError(problems)
    return entry


def entry_of(read: Folder, labels: Path | str | None = None) -> Entry:
    """The submission in a folder already read, with its track and its predictions in the track's order.

    ``ValidationError`` if its run, latency record or predictions do not fit the track.
    """
    submission = read.submission
    track, truth = known(submission.track, labels)
    _check_run(submission, track, truth)
    latency = check_latency(read.content[LATENCY_FILE], submission.run) if LATENCY_FILE in read.content else None
    logits = _predictions(read.content[PREDICTIONS_FILE], track, truth)
    return Entry(read.path, submission, track, truth, logits, latency)


def scores(entry: Entry, n_resamples: int = 1000, seed: int = 0) -> Scores:
    """The entry's scores with their intervals, as ``avbench run`` computes them: all ``measures`` of its track,
    which are claimed, and those of ``BELOW_GRID``, which are not (they need the offsets in seconds)."""
    return scores_on(entry.track, entry.truth, entry.logits, Bootstrap(n_resamples, seed))


def values(entry: Entry) -> dict[str, float | None]:
    """The entry's scores without intervals; None where undefined."""
    return {name: score.value for name, score in scores(entry, n_resamples=0).items()}


def scores_on(track: Track, truth: Truth, logits: np.ndarray, bootstrap: Bootstrap) -> Scores:
    """All ``measures`` of a track, of logits (N, W, 21) whose rows are in the truth's order."""
    found = scorer_of(truth, window_truth(track, truth), track.protocol, bootstrap)(logits)
    if not track.changing:
        return found
    first = headline(streams_on(track, truth, logits), bootstrap)["recovery_s"]
    return found | as_scores({HEADLINE: first})


def streams_on(track: Track, truth: Truth, logits: np.ndarray) -> Streams:
    """The streams of a track of offsets that change, as ``scoring.dynamic`` takes them."""
    protocol, windows = track.protocol, window_truth(track, truth)
    assert windows is not None
    return checked_streams(logits, windows, seconds(protocol.hop), seconds(protocol.window), truth.clusters)


def claim_problems(submission: Submission, track: Track, true: Mapping[str, float | None]) -> list[Problem]:
    """One problem for each claimed score that differs from ``true``, is missing, or names no metric."""
    claimed, known_here = submission.claimed, measures(track)
    problems = [
        Problem(f"claimed.{name}", f"there is no metric {name}; the metrics are {', '.join(known_here)}")
        for name in claimed
        if name not in known_here
    ]
    if track.labels == "private" and not claimed:
        return problems
    needed = known_here if track.changing else V1_METRICS
    problems += [Problem(f"claimed.{name}", "is missing") for name in needed if name not in claimed]
    for name in known_here:
        if name in claimed and not _same(claimed[name], true[name]):
            said, found = (_number(value) for value in (claimed[name], true[name]))
            problems.append(Problem(f"claimed.{name}", f"says {said}; the predictions score {found}"))
    return problems


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=0, abs_tol=CLAIM_TOLERANCE)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"


def _check_run(submission: Submission, track: Track, truth: Truth) -> None:
    run = submission.run
    problems = []

    def must_be(field: str, found: object, expected: object) -> None:
        if found != expected:
            problems.append(Problem(f"run.{field}", f"is {found}; track {track.name} needs {expected}"))

    must_be("manifest_sha256", run.manifest_sha256, track.manifest_sha256)
    wrong = signature_problem(run.signature, track, run.model_fingerprint, run.avbench_version)
    problems += [Problem("run.signature", wrong)] if wrong else []
    must_be("n_segments", run.n_segments, len(truth.segment_ids))
    must_be("iterations", run.iterations, track.protocol.iterations)
    if problems:
        raise ValidationError(problems)


def check_latency(data: bytes, run: Provenance) -> LatencyRecord:
    """Parses and checks the latency record of a submission with this ``run``.

    It must be of the same model, have at least 662 steps and passed audits, and its figures must follow from its raw
    times. ``ValidationError`` if not.
    """
    from avbench.latency.record import LEADERBOARD_SAMPLES, REFUSED, UNSTABLE, parse_latency, summary

    try:
        plain_texts(parse_json(data, LATENCY_FILE), "latency")
        record = parse_latency(data)
    except ValidationError:
        raise
    except UsageError as error:
        text = str(error).removeprefix(f"{LATENCY_FILE}: ")
        named = re.match(r"field (ratio_to_snapshot) ", text)
        field = f"latency.{named[1]}" if named else "latency"
        raise refuse(field, text[named.end() :] if named else text) from None
    own = summary(record.times_ms)
    problems = []
    if record.model.fingerprint != run.model_fingerprint:
        problems.append(Problem("latency.model.fingerprint", "differs from that of the run: another model was timed"))
    if record.n < LEADERBOARD_SAMPLES or not record.leaderboard:
        problems.append(
            Problem("latency.n", f"is {record.n}; `avbench latency --leaderboard` times {LEADERBOARD_SAMPLES} steps")
        )
    problems += [
        Problem(f"latency.audits.{name}", f"failed: {audit.text}")
        for name, audit in record.audits.items()
        if not audit.ok
    ]
    worst = max(own.iqr_over_median, summary(record.snapshot_times_ms).iqr_over_median)
    if worst > REFUSED:
        problems.append(Problem("latency.iqr_over_median", f"is {worst:.0%}; at most {REFUSED:.0%} is accepted"))
    if record.unstable != (worst > UNSTABLE):
        problems.append(Problem("latency.unstable", f"is {record.unstable}, but the spread is {worst:.0%}"))
    if not _same(record.p99_ms, own.p99_ms):
        problems.append(
            Problem("latency.p99_ms", f"says {_number(record.p99_ms)}; its times give {_number(own.p99_ms)}")
        )
    if problems:
        raise ValidationError(problems)
    return record


def _predictions(data: bytes, track: Track, truth: Truth) -> np.ndarray:
    """(N, W, 21) float32 in the truth's order, with every segment of the track exactly once and every iteration."""
    n, iterations = len(truth.segment_ids), track.protocol.iterations
    try:
        ids, logits = parse_predictions(data, PREDICTIONS_FILE, max_rows=4 * n * iterations)
    except AvbenchError as error:
        raise refuse("predictions", str(error)) from None
    present = set(ids)
    missing = [name for name in truth.segment_ids if name not in present]
    unknown = [name for name in ids if name not in truth.place]
    problems = []
    for what, names in (("predictions lack", missing), ("the track has no", unknown)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            problems.append(Problem("predictions.segment_id", f"{what} segment {names[0]}{more}"))
    if logits.shape[1] != iterations:
        problems.append(
            Problem("predictions.iteration", f"iterations are 1 ... {logits.shape[1]}; they must be 1 ... {iterations}")
        )
    if problems:
        raise ValidationError(problems)
    ordered = np.empty_like(logits)
    ordered[[truth.place[name] for name in ids]] = logits
    return ordered
