"""The record that ``avbench latency`` writes, its file format, and the statistics of times.

:mod:`avbench.latency.measure` measures the times. Reading a record imports neither torch nor a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from avbench.results.run import ModelInfo
from avbench.system.strict import (
    Many,
    Named,
    Number,
    StrictPart,
    parse_record,
    read_bytes,
    strict_json,
    write_whole,
)
from avbench.types import UsageError

Mode = Literal["step", "end_to_end", "realtime_factor", "streams"]
LATENCY_FILE = "latency.json"
SCHEMA_FILE = Path(__file__).parent / "schemas" / "latency.v1.json"
MAX_LATENCY_BYTES = 16 * 2**20

LEADERBOARD_SAMPLES = 662  # the fewest from which a 99th percentile can be estimated (see ``percentile_ms``)
CONFIDENCE = 0.99
UNSTABLE = 0.10  # interquartile range over median
REFUSED = 0.25  # the same, from which a leaderboard refuses


# -- the record --------------------------------------------------------------------------------------------------------


class Timing(StrictPart):
    """Statistics of ``n`` times in milliseconds; ``p90_ms`` and ``p99_ms`` as in ``percentile_ms``, null where n is too
    small."""

    n: Annotated[int, Field(ge=1)]
    p50_ms: Annotated[float, Field(ge=0)]
    p90_ms: Number
    p99_ms: Number
    iqr_over_median: Annotated[float, Field(ge=0)]


class Warmup(StrictPart):
    """Untimed calls before the measurement. ``settled``: the medians of the last two blocks differ by less than 2 %."""

    steps: int
    seconds: float
    settled: bool
    first_step_ms: float  # compilation and allocation included


class Audit(StrictPart):
    """One check of the measurement: the checked ``value``, its ``limit``, and the result in words."""

    ok: bool
    value: float
    limit: float
    text: str


class Probe(StrictPart):
    """One tried number of streams; ``met``: ``p99_ms`` is below the hop."""

    streams: int
    n: int
    p99_ms: float
    met: bool


class LatencyRecord(StrictPart):
    """One measurement of one model; published as ``schemas/latency.v1.json``.

    ``p90_ms`` is the MLPerf early-stopping estimate: with 99 % confidence at least 90 % of all steps are faster. With
    fewer than 64 samples there is none, and ``p90_ms`` is the slowest sample (``warnings`` says so). ``times_ms`` are
    all times in the order they were taken: per step, file, hop or decision, depending on ``mode``.
    ``ratio_to_snapshot``: median over the median of ``reference`` in the same mode (in ``streams``: of a step).
    """

    schema_version: Literal[1] = 1
    kind: Literal["latency"] = "latency"
    avbench_version: str
    mode: Mode
    model: ModelInfo
    reference: str
    reference_fingerprint: str
    device: str
    threads: Annotated[int, Field(ge=1)]
    clock: str
    media: str
    n_windows: Annotated[int, Field(ge=1)]
    hop_s: float
    iteration: Annotated[int, Field(ge=1)]
    leaderboard: bool
    n: Annotated[int, Field(ge=1)]
    p50_ms: Annotated[float, Field(ge=0)]
    p90_ms: Annotated[float, Field(ge=0)]
    p99_ms: Number = None
    iqr_over_median: Annotated[float, Field(ge=0)]
    unstable: bool
    ratio_to_snapshot: Annotated[float, Field(ge=0)]
    snapshot: Timing
    by_iteration: Named[str, Timing] = Field(default_factory=dict)
    warmup: Warmup
    realtime_factor: Number = None
    streams: Annotated[int, Field(ge=0)] | None = None
    probes: Many[Probe] = Field(default_factory=list)
    audits: Named[str, Audit] = Field(default_factory=dict)
    parameters: int | None = None
    peak_memory_mb: Number = None
    warnings: Many[str] = Field(default_factory=list)
    environment: Named[str, JsonValue] = Field(default_factory=dict)
    times_ms: Many[Annotated[float, Field(ge=0)]]
    snapshot_times_ms: Many[Annotated[float, Field(ge=0)]]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]  # UTC

    @property
    def audits_passed(self) -> bool:
        """Whether all audits passed."""
        return all(audit.ok for audit in self.audits.values())

    def to_json(self) -> str:
        """The content of ``latency.json``."""
        return strict_json(self)


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``latency.json`` (draft 2020-12), published as ``schemas/latency.v1.json``."""
    schema = LatencyRecord.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "avbench/latency.v1.json", **schema}


def json_schema_text() -> str:
    """The text of the published schema file; ``python -m avbench.latency.record`` prints it."""
    return json.dumps(json_schema(), sort_keys=True, indent=2) + "\n"


def latency_file(path: Path) -> Path:
    """``path``, or ``latency.json`` in it if it is a folder."""
    return Path(path) / LATENCY_FILE if Path(path).is_dir() else Path(path)


def write_latency(record: LatencyRecord, path: Path) -> Path:
    """Writes the record atomically to ``path``, or as ``latency.json`` into ``path`` if that is a folder."""
    path = latency_file(path)
    write_whole(path, record.to_json().encode("utf-8"))
    return path


def read_latency(path: Path) -> LatencyRecord:
    """Reads and checks ``latency.json``; ``path`` is the file or its folder. Errors as in ``parse_latency``."""
    path = latency_file(path)
    return parse_latency(read_bytes(path, MAX_LATENCY_BYTES), path)


def parse_latency(data: bytes, path: Path | str = LATENCY_FILE) -> LatencyRecord:
    """Parses and checks the bytes of a latency file; ``path`` names it in errors. ``UsageError``: not strict JSON,
    unknown schema version, wrong fields, or figures that do not agree with the file's own times."""
    record = parse_record(data, path, LatencyRecord, "a latency record", "measure again")
    if not record.times_ms or not record.snapshot_times_ms:
        raise UsageError(f"{path}: it contains no times")
    expected, reference = summary(record.times_ms), summary(record.snapshot_times_ms)
    slowest = max(record.times_ms)
    ratio = record.ratio_to_snapshot if record.mode == "streams" else expected.p50_ms / max(reference.p50_ms, 1e-9)
    for name, found, said in (
        ("n", len(record.times_ms), record.n),
        ("p50_ms", expected.p50_ms, record.p50_ms),
        ("p90_ms", slowest if expected.p90_ms is None else expected.p90_ms, record.p90_ms),
        ("iqr_over_median", expected.iqr_over_median, record.iqr_over_median),
        ("snapshot.p50_ms", reference.p50_ms, record.snapshot.p50_ms),
        ("ratio_to_snapshot", ratio, record.ratio_to_snapshot),
    ):
        if not np.isclose(found, said, rtol=1e-9):
            raise UsageError(f"{path}: field {name} is {said:g}, but its own times give {found:g}")
    return record


# -- statistics of times -----------------------------------------------------------------------------------------------


def percentile_ms(times_ms: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> float | None:
    """The early-stopping estimate of MLPerf (inference rules, "early stopping"): with ``confidence``, at least
    ``percentile`` of all steps are at most this slow. None if there are too few samples.

    With n samples, t is the largest number with P[Binomial(n, 1 - percentile) <= t] <= 1 - confidence; the t - 1
    slowest samples are dropped, the slowest of the rest is the estimate. It takes 64 samples for 0.9, 662 for 0.99.
    """
    from scipy.stats import binom

    n = len(times_ms)
    t = int(binom.ppf(1 - confidence, n, 1 - percentile)) if n else 0
    while t >= 0 and binom.cdf(t, n, 1 - percentile) > 1 - confidence:
        t -= 1
    return float(np.sort(times_ms)[n - t]) if t >= 1 else None


def summary(times_ms: Sequence[float]) -> Timing:
    """Median, estimates of p90 and p99, and the interquartile range over the median."""
    low, median, high = np.percentile(times_ms, [25, 50, 75])
    return Timing(
        n=len(times_ms),
        p50_ms=float(median),
        p90_ms=percentile_ms(times_ms, 0.9),
        p99_ms=percentile_ms(times_ms, 0.99),
        iqr_over_median=float((high - low) / median) if median else 0.0,
    )


if __name__ == "__main__":
    print(json_schema_text(), end="")
