"""Run folders made without a model: what `avbench run` leaves behind, for tests of submissions and the leaderboard."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from avbench import __version__
from avbench.protocol.signature import Signature
from avbench.protocol.tracks import TRACKS, Track
from avbench.results.predictions import write_predictions
from avbench.results.run import RunResult, Score, write_run
from avbench.scoring.calibration import classes_of
from avbench.scoring.stats import Bootstrap
from avbench.submissions.check import scores_on
from avbench.submissions.tracks import HEADLINE, Truth, truth, window_truth


def logits_for(labels: np.ndarray, iterations: int, skill: float = 2.0, seed: int = 0) -> np.ndarray:
    """(N, W, 21) float32: noise, with ``skill`` added at the label."""
    logits = np.random.default_rng(seed).standard_normal((len(labels), iterations, 21)).astype(np.float32)
    logits[np.arange(len(labels)), :, labels] += skill
    return logits


def logits_on(track: Track, answers: Truth, skill: float = 2.0, seed: int = 0, late: int = 0) -> np.ndarray:
    """``logits_for`` the labels of a track; where offsets change, those of each window, ``late`` windows late."""
    windows = window_truth(track, answers)
    if windows is None:
        return logits_for(answers.labels, track.protocol.iterations, skill, seed)
    logits = logits_for(answers.labels, track.protocol.iterations, 0.0, seed)
    labels = classes_of(windows.offset_end_s)
    labels = labels[:, np.maximum(np.arange(labels.shape[1]) - late, 0)]
    np.put_along_axis(logits, labels[..., None], skill + np.take_along_axis(logits, labels[..., None], 2), 2)
    return logits


def make_run(
    folder: Path,
    track: Track | str = "synthsync-test",
    answers: Truth | None = None,
    logits: np.ndarray | None = None,
    model: str = "toy",
    **changes: Any,
) -> RunResult:
    """``run.json`` and ``predictions.parquet`` in ``folder``, honest: the scores are those of the predictions."""
    track = TRACKS[track] if isinstance(track, str) else track
    answers = answers or truth(track)
    logits = logits_on(track, answers) if logits is None else logits
    fingerprint = hashlib.sha256(model.encode()).hexdigest()
    sha256 = write_predictions(folder / "predictions.parquet", answers.segment_ids, logits)
    hidden = track.labels == "private"
    scores = scores_on(track, answers, logits, Bootstrap(0))
    values = {name: Score(value=None if hidden else found.value) for name, found in scores.items()}
    first = values.pop(HEADLINE, None)
    dynamic = {"headline": {"recovery_s": first.model_dump()}} if first else {}
    facts: dict[str, Any] = {
        "avbench_version": __version__,
        "signature": str(Signature.of(track.protocol, fingerprint, track.manifest_sha256, __version__)),
        "protocol": track.protocol,
        "model": {
            "name": model,
            "backbone": "toy",
            "head": "none",
            "fingerprint": fingerprint,
            "description": "noise that knows a little",
            "trained_on": "nothing",
        },
        "data": {
            "name": track.name if hidden else track.data,
            "split": "test",
            "manifest_sha256": track.manifest_sha256,
            "n_clips": 24,
            "note": "procedural stand-in",
            "labels": "hidden" if hidden else "public",
        },
        "n_scored": len(answers.labels),
        "n_total": len(answers.labels),
        "scores": values,
        "dynamic": dynamic,
        "seed": 0,
        "n_resamples": 0,
        "environment": {"python": "3.11", "cores": 2, "device": "cpu"},
        "files": {"predictions": {"path": "predictions.parquet", "sha256": sha256}},
        "created": "2026-01-02T03:04:05+00:00",
    }
    result = RunResult(**(facts | changes))
    write_run(result, folder)
    return result
