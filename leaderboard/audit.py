"""The redraw audit: test whether a model has memorised the public labels.

The model is run on the same segments twice, under the public offsets and under redrawn ones. A model that measures
offsets scores the same on both, up to chance; one that has memorised the public labels scores lower on the redrawn
ones. Both scores use the same resampled videos, so the interval is that of their paired difference.

Where offsets change, the two are the same streams under different laws: windows and changes are counted video by video
on either side, and the videos are what pairs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avbench.protocol.tracks import Track
from avbench.results.predictions import parse_predictions
from avbench.results.run import PREDICTIONS_FILE, RUN_FILE, read_run
from avbench.scoring import survival
from avbench.scoring.dynamic import AVERAGED_S, MEANS, SHOWN, recovery_times
from avbench.scoring.metrics import METRICS, Resamples, score
from avbench.scoring.stats import (
    Bootstrap,
    Difference,
    as_difference,
    distribution,
    paired_difference,
    ratio,
    resamples,
)
from avbench.scoring.streams import Streams
from avbench.submissions.check import read_entry, streams_on
from avbench.submissions.format import MAX_BYTES, SUBMISSION_FILE
from avbench.submissions.tracks import Truth, find, read_labels, truth
from avbench.system.strict import read_bytes
from avbench.types import UsageError

DECIDING = ("acc", "map")
CHANGING = ("tracked_acc", "tracked_acc_tol1", "tracking_error_s")  # compared where offsets change, with recovery_s
DECIDING_CHANGING = ("tracked_acc", "recovery_s")
LEVEL = 0.99  # of each deciding interval: an honest model is flagged in about one audit of a hundred


@dataclass(frozen=True)
class Audit:
    """``differences``: metric -> official minus redrawn. ``memorised``: a ``deciding`` metric is significantly better
    on the public labels. ``consistent``: no deciding metric differs significantly in either direction."""

    model: str
    n_segments: int
    official: dict[str, float]
    redrawn: dict[str, float]
    differences: dict[str, Difference]
    memorised: bool
    consistent: bool
    deciding: tuple[str, ...] = DECIDING

    def to_json(self) -> dict[str, Any]:
        """What ``avbench leaderboard audit --json`` prints; NaN becomes null."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else value

        rows = {
            name: {
                "official": number(self.official[name]),
                "redrawn": number(self.redrawn[name]),
                **{key: number(value) for key, value in self.differences[name].items()},  # type: ignore[arg-type]
            }
            for name in self.differences
        }
        return {
            "model": self.model,
            "n_segments": self.n_segments,
            "memorised": self.memorised,
            "consistent": self.consistent,
            "level": LEVEL,
            "deciding": list(self.deciding),
            "metrics": rows,
        }


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's logits (N, 21) at the last iteration, rows in the truth's order; ``streams``: where offsets change, all
    its windows."""

    model: str
    fingerprint: str
    truth: Truth
    logits: np.ndarray
    streams: Streams | None = None


def audit(official: Predictions, redrawn: Predictions, n_resamples: int = 2000, seed: int = 0) -> Audit:
    """Compares the two on the segments they share. ``UsageError``: the models differ, or no segment is shared."""
    if official.fingerprint != redrawn.fingerprint:
        whose = f"{official.fingerprint[:12]} and {redrawn.fingerprint[:12]}"
        raise UsageError(f"the two are from different models ({whose}): run the same one on both")
    rows = [(row, official.truth.place.get(source)) for row, source in enumerate(redrawn.truth.sources)]
    pairs = np.array([(a, b) for b, a in rows if a is not None], np.int64).reshape(-1, 2)
    if len(pairs) == 0:
        raise UsageError("the redrawn set has none of the official segments (fresh scenes cannot be paired)")
    a, b = pairs[:, 0], pairs[:, 1]
    if official.streams is not None and redrawn.streams is not None:
        both = official.streams.take(a), redrawn.streams.take(b)
        return _audit_changing(official.model, *both, Bootstrap(n_resamples, seed, LEVEL))
    labels_a, labels_b = official.truth.labels[a], redrawn.truth.labels[b]
    found = paired_difference(
        official.logits[a],
        redrawn.logits[b],
        labels_a,
        official.truth.clusters[a],
        Bootstrap(n_resamples, seed, LEVEL),
        labels_b=labels_b,
    )
    better = _better(found, DECIDING)
    return Audit(
        model=official.model,
        n_segments=len(pairs),
        official=score(official.logits[a], labels_a),
        redrawn=score(redrawn.logits[b], labels_b),
        differences=found,
        memorised=any(better),
        consistent=not better,
    )


def _audit_changing(model: str, official: Streams, redrawn: Streams, bootstrap: Bootstrap) -> Audit:
    """The audit of streams under two laws each: the rows of both are the same streams."""
    drawn = resamples(official.videos, bootstrap)
    values: dict[str, list[float]] = {}
    found: dict[str, Difference] = {}
    for name, of in _scores_of_changing().items():
        a, b = (distribution(partial(of, streams), drawn) for streams in (official, redrawn))
        values[name] = [a.value, b.value]
        found[name] = as_difference(a.minus(b), drawn.n_clusters, bootstrap.level)
    better = _better(found, DECIDING_CHANGING)
    return Audit(
        model=model,
        n_segments=len(official),
        official={name: pair[0] for name, pair in values.items()},
        redrawn={name: pair[1] for name, pair in values.items()},
        differences=found,
        memorised=any(better),
        consistent=not better,
        deciding=DECIDING_CHANGING,
    )


def _scores_of_changing() -> dict[str, Callable[[Streams, Resamples], np.ndarray]]:
    """Name -> the score of some streams in each resample of their videos."""

    def mean(name: str, streams: Streams, drawn: Resamples) -> np.ndarray:
        return ratio(*MEANS[name][0](streams), drawn)

    def recovery_s(streams: Streams, drawn: Resamples) -> np.ndarray:
        of_changes = Resamples(drawn.cluster[streams.changes.stream[streams.ranked]], drawn.counts)
        return survival.restricted_mean(recovery_times(streams).take(streams.ranked), of_changes, AVERAGED_S)

    return {name: partial(mean, name) for name in CHANGING} | {"recovery_s": recovery_s}


def _better(found: Mapping[str, Difference], deciding: Sequence[str]) -> list[bool]:
    """For each deciding metric that differs significantly: whether it is better under the public offsets."""
    shown = METRICS | SHOWN
    return [shown[name].higher_is_better == (found[name]["ci_low"] > 0) for name in deciding if _apart(found[name])]


def _apart(difference: Difference) -> bool:
    return difference["ci_low"] > 0 or difference["ci_high"] < 0


def read_official(path: Path | str, base: str) -> Predictions:
    """The predictions on public track ``base``, from the folder of a submission or of a run.

    ``UsageError`` if the folder is neither, or belongs to another track.
    """
    track = find(base)
    return _read(Path(path), track, truth(track), None)


def read_redrawn(path: Path | str, labels: Path | str) -> tuple[Predictions, str]:
    """The predictions on a blind set, from the folder of a submission or of a run, and the name of its public track.

    ``UsageError`` if the folder is neither, or does not fit the labels file ``labels``.
    """
    track, answers = read_labels(labels)
    return _read(Path(path), track, answers, labels), track.name.partition(".blind-")[0]


def _read(path: Path, track: Track, answers: Truth, labels: Path | str | None) -> Predictions:
    if (path / SUBMISSION_FILE).exists():
        entry = read_entry(path, labels)
        if entry.track.name != track.name:
            raise UsageError(f"{path} is a submission to {entry.track.name}, not to {track.name}")
        return _predictions(track, answers, entry.logits, entry.name, entry.submission.run.model_fingerprint)
    if not (path / RUN_FILE).exists():
        raise UsageError(f"{path} has neither a submission ({SUBMISSION_FILE}) nor a run ({RUN_FILE})")
    run = read_run(path)
    if run.data.manifest_sha256 != track.manifest_sha256:
        raise UsageError(f"{path} is a run on {run.data.name}, not on {track.name} (its manifest differs)")
    if run.protocol != track.protocol:
        raise UsageError(f"{path} was run under {run.signature}; track {track.name} needs {track.protocol.signature()}")
    data = read_bytes(path / PREDICTIONS_FILE, MAX_BYTES[PREDICTIONS_FILE])
    ids, logits = parse_predictions(data, str(path / PREDICTIONS_FILE))
    if set(ids) != set(answers.segment_ids):
        raise UsageError(f"{path} has {len(ids)} segments, not the {len(answers.segment_ids)} of {track.name}")
    place = {name: row for row, name in enumerate(ids)}
    ordered = logits[[place[s] for s in answers.segment_ids]]
    return _predictions(track, answers, ordered, run.model.name, run.model.fingerprint)


def _predictions(track: Track, answers: Truth, logits: np.ndarray, model: str, fingerprint: str) -> Predictions:
    """``logits`` (N, W, 21) in the truth's order."""
    streams = streams_on(track, answers, logits) if track.changing else None
    return Predictions(model, fingerprint, answers, logits[:, -1], streams)
