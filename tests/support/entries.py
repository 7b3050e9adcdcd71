"""Made-up leaderboard entries: real folders in the submission format, with predictions as good as one wants."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from avbench.latency.record import LatencyRecord, Warmup, summary
from avbench.protocol.tracks import Track
from avbench.results.predictions import write_predictions
from avbench.results.run import ModelInfo
from avbench.scoring.stats import Bootstrap
from avbench.submissions.check import scores_on
from avbench.submissions.format import Card, FileInfo, Files, Provenance, Submission, TrainingData, write_folder
from avbench.submissions.tracks import Truth, measures


def make_logits(truth: Truth, windows: int, skill: float, seed: int = 0) -> np.ndarray:
    """(N, W, 21) float32: the truth stands out the more, the larger ``skill`` and the later the window; neighbouring
    classes get a part of it, talking heads a little less."""
    rng = np.random.default_rng(seed)
    n = len(truth.labels)
    logits = 1.5 * np.cumsum(rng.standard_normal((n, windows, 21)), axis=1) / np.arange(1, windows + 1)[:, None] ** 0.9
    gain = (
        skill
        * np.sqrt(np.arange(1, windows + 1))
        * np.where(np.array(truth.categories) == "talking head", 0.8, 1)[:, None]
    )
    near = np.exp(-np.abs(np.arange(21) - truth.labels[:, None]) / 0.7)
    return (logits + gain[:, :, None] * near[:, None]).astype(np.float32)


def _claimed(track: Track, truth: Truth, logits: np.ndarray) -> dict[str, float | None]:
    """What an honest entry claims."""
    found = scores_on(track, truth, logits, Bootstrap(0))
    return {name: found[name].value for name in measures(track)}


def make_entry(
    root: Path,
    track: Track,
    truth: Truth,
    name: str,
    skill: float = 1.0,
    seed: int = 0,
    logits: np.ndarray | None = None,
    ratio: float | None = None,
    claimed: dict[str, float] | None = None,
    **card: Any,
) -> Path:
    """A right entry below ``root``; ``ratio``: with a latency.json that says so; ``card``: other fields than the usual
    ones."""
    windows = track.protocol.iterations
    said = make_logits(truth, windows, skill, seed) if logits is None else logits
    predictions = root / f".{name}-predictions.parquet"
    root.mkdir(parents=True, exist_ok=True)
    sha256 = write_predictions(predictions, truth.segment_ids, said)
    content = {"predictions.parquet": predictions.read_bytes()}
    predictions.unlink()
    fingerprint = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    if ratio is not None:
        content["latency.json"] = make_latency(ratio, fingerprint)
    infos = {key: FileInfo(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for key, data in content.items()}
    fields: dict[str, Any] = {
        "org": "acme",
        "name": name,
        "revision": fingerprint[:12],
        "description": "A made-up model for a test.",
        "paper_url": "https://example.org/paper",
        "code_url": "https://example.org/code",
        "parameters": 1_234_567,
        "backbone": "sparsesync",
        "head": "apa",
        "training_data": TrainingData(status="declared", datasets=["SynthSync training scenes"]),
        "licence": "MIT",
    }
    submission = Submission(
        track=track.name,
        card=Card(**(fields | card)),
        run=Provenance(
            model=name,
            signature=f"{track.protocol.signature()}|m:{fingerprint[:12]}|d:{track.manifest_sha256[:12]}|v0.1.0",
            model_fingerprint=fingerprint,
            manifest_sha256=track.manifest_sha256,
            avbench_version="0.1.0",
            created="2026-11-25T12:00:00+00:00",
            n_segments=len(truth.labels),
            iterations=windows,
            environment={"python": "3.11.7", "cores": 2},
        ),
        claimed=_claimed(track, truth, said) if claimed is None else claimed,
        files=Files(predictions=infos["predictions.parquet"], latency=infos.get("latency.json")),
    )
    assert sha256 == submission.files.predictions.sha256
    return write_folder(root, submission, content)


def make_latency(ratio: float, fingerprint: str, seed: int = 0, n: int = 662, **changes: Any) -> bytes:
    """A latency.json of steps that take ``ratio`` times a snapshot of 20 ms, all figures from its own times."""
    rng = np.random.default_rng(seed)
    times_ms = (20 * ratio * (1 + 0.02 * rng.standard_normal(n))).tolist()
    snapshot_ms = (20 * (1 + 0.02 * rng.standard_normal(n))).tolist()
    mine, reference = summary(times_ms), summary(snapshot_ms)
    fields: dict[str, Any] = {
        "avbench_version": "0.1.0",
        "mode": "step",
        "model": ModelInfo(name="made-up", backbone="sparsesync", head="apa", fingerprint=fingerprint),
        "reference": "sparsesync",
        "reference_fingerprint": "0" * 64,
        "device": "cpu",
        "threads": 1,
        "clock": "perf_counter",
        "media": "made up",
        "n_windows": 64,
        "hop_s": 2.0,
        "iteration": 18,
        "leaderboard": True,
        "n": n,
        "p50_ms": mine.p50_ms,
        "p90_ms": mine.p90_ms if mine.p90_ms is not None else max(times_ms),
        "p99_ms": mine.p99_ms,
        "iqr_over_median": mine.iqr_over_median,
        "unstable": False,
        "ratio_to_snapshot": mine.p50_ms / reference.p50_ms,
        "snapshot": reference,
        "warmup": Warmup(steps=50, seconds=5.0, settled=True, first_step_ms=100.0),
        "times_ms": times_ms,
        "snapshot_times_ms": snapshot_ms,
        "created": "2026-11-25T12:00:00+00:00",
    }
    return LatencyRecord(**(fields | changes)).to_json().encode()
