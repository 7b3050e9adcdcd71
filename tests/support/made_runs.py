"""A run of a model that was never there, for tests of its page, and texts that a stranger could have put into it."""

from __future__ import annotations

import numpy as np
from entries import make_logits

from avbench.protocol.rules import streaming
from avbench.protocol.tracks import TRACKS
from avbench.results.run import RunResult
from avbench.results.truth import Truth
from avbench.scoring.scorer import Scorer
from avbench.scoring.stats import Bootstrap
from avbench.submissions.tracks import truth
from avbench.types import SegmentRecord

SHA = "0123456789abcdef" * 4
TRACK = TRACKS["synthsync-test"]
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "{{7*7}}", "</style>")


def made_up(windows: int = 18, skill: float = 0.35, n: int | None = None) -> tuple[RunResult, Truth, np.ndarray]:
    """A run of a model that was never there, on the labels of the SynthSync test split."""
    true = truth(TRACK)
    rows = slice(0, n)
    logits = make_logits(true, windows, skill)[rows]
    segments = [
        SegmentRecord(id, video, video, 0, 0, int(label), category=category, channel=channel)
        for id, video, label, category, channel in zip(
            true.segment_ids[rows],
            true.clusters[rows],
            true.labels[rows],
            true.categories[rows],
            true.channels[rows],
            strict=True,
        )
    ]
    known = Truth.of(segments)
    score = Scorer(known, Bootstrap(40, 0))
    scores = score(logits)
    result = RunResult(
        avbench_version="0.1.0",
        signature="avb|streaming:1|w5.000|h2.000|n18|m:1f3a|d:8211|v0.1.0",
        protocol=streaming(iterations=windows),
        model={"name": "streamsync-trf", "backbone": "sparsesync", "head": "trf", "fingerprint": SHA},
        data={
            "name": "synthsync",
            "split": "test",
            "manifest_sha256": TRACK.manifest_sha256,
            "n_clips": 24,
            "note": "procedural stand-in",
        },
        n_scored=len(segments),
        n_total=len(segments),
        scores=scores,
        slices=score.slices(logits, "final"),
        curve=score.curve(logits),
        rows=[{"name": "constant", "label": "always in sync", "selection": "final", "n": 1, "scores": scores}],
        warnings=["a word of warning"],
        absent_classes=[0],
        environment={"python": "3.11", "device": "cpu"},
        seed=0,
        n_resamples=40,
        created="2026-01-02T03:04:05Z",
    )
    return result, known, logits
