"""What a run leaves behind: ``run.json`` (a ``RunResult``), ``predictions.parquet`` (every iteration's logits) and
``segments.parquet`` (what is true of the scored segments, so that two runs can be compared without their media).

All are written whole or not at all and with the same bytes for the same content. JSON is strict: an undefined number
is null, never NaN; a number that is not finite where one is needed is refused when the result is made.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from avbench.atomic import atomic_write_bytes
from avbench.types import AvbenchError, NonFiniteError, OffsetGrid, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from avbench.stats import Estimate
    from avbench.types import SegmentRecord

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "run.html"
SEGMENTS_FILE = "segments.parquet"
SCHEMA_FILE = Path(__file__).parent / "schemas" / "run_result.v1.json"
MAX_RUN_BYTES = 64 * 2**20
MAX_PREDICTIONS_BYTES = 2**30
MAX_PREDICTION_ROWS = 10_000_000  # 32,000 segments of 48 iterations are 1.5 million
R = TypeVar("R", bound=BaseModel)
N_CLASSES = OffsetGrid().n_classes
LOGIT_COLUMNS = tuple(f"logit_{c}" for c in range(N_CLASSES))


def _undefined_is_null(value: Any) -> Any:
    """In Python an undefined score is nan (``metrics.score``), in a result it is None; infinity stays an error."""
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_undefined_is_null)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StrictPart(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is converted from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Score(StrictPart):
    """A metric's value with its interval; null where undefined."""

    value: Number
    ci_low: Number = None
    ci_high: Number = None


Scores = dict[str, Score]


def as_scores(estimates: Mapping[str, Estimate]) -> Scores:
    """What ``stats.bootstrap_scores`` returns, ready for a result."""
    return {name: Score(value=e.value, ci_low=e.ci_low, ci_high=e.ci_high) for name, e in estimates.items()}


class ModelInfo(StrictPart):
    name: str
    backbone: str
    head: str
    fingerprint: str
    description: str = ""
    trained_on: str = "undeclared"
    weights_note: str = ""
    full_size: bool = False
    random_weights: Annotated[int, Field(ge=0)] | None = None  # the seed; such scores mean nothing
    audio_lead_trim_samples: Annotated[int, Field(ge=0)] = 0  # how much earlier than true the model hears the sound
    token: str = ""  # where the head's streaming token comes from; "" if it needs none
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # other than float32: autocast
    compiled: bool = False


class DataInfo(StrictPart):
    name: str
    split: str
    manifest_sha256: Sha256
    n_clips: Annotated[int, Field(ge=0)]
    note: str = ""  # for example "procedural stand-in"
    labels: Literal["public", "hidden"] = "public"  # hidden: no score can be computed, all are null


class Slice(StrictPart):
    n: Annotated[int, Field(ge=0)]
    scores: Scores


class ReferenceRow(StrictPart):
    """A row shown beside the result: a trivial baseline, or the same backbone with another head or window count."""

    name: str
    label: str
    selection: str
    n: Annotated[int, Field(ge=0)]
    scores: Scores
    note: str = ""


class Failure(StrictPart):
    """A segment that could not be scored, and why. Nothing stands in for it."""

    segment_id: str
    clip_id: str
    reason: str


class Latency(StrictPart):
    """A by-product of the run, not a measurement to quote: see ``avbench latency``."""

    ms_per_step: Annotated[float, Field(ge=0)]
    note: Literal["indicative"] = "indicative"


class FileRef(StrictPart):
    path: str  # relative to run.json
    sha256: Sha256


class RunResult(StrictPart):
    """One evaluation: model, data, scores and everything needed to judge or repeat it.

    ``signature`` is protocol|model|data|version. ``scores`` maps a metric's name to its value and interval; ``slices``
    holds "category" and "channel"; ``curve`` has one score map per iteration, ``curve[0]`` being iteration 1;
    ``unsupported`` names the segments too short for the protocol; ``incomplete`` is True if a supported segment is
    missing from the scores.
    """

    schema_version: Literal[1] = 1
    avbench_version: str
    signature: str
    protocol: dict[str, JsonValue]
    model: ModelInfo
    data: DataInfo
    n_scored: Annotated[int, Field(ge=0)]
    n_total: Annotated[int, Field(ge=0)]
    scores: Scores
    slices: dict[str, dict[str, Slice]] = {}
    curve: list[Scores] = []
    rows: list[ReferenceRow] = []
    failures: list[Failure] = []
    unsupported: list[str] = []
    warnings: list[str] = []
    absent_classes: list[int] = []
    incomplete: bool = False
    latency: Latency | None = None
    counters: dict[str, int] = {}
    environment: dict[str, JsonValue] = {}
    seed: int
    n_resamples: Annotated[int, Field(ge=0)]
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    files: dict[str, FileRef] = {}
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]  # UTC

    @model_validator(mode="after")
    def _counts_agree(self) -> RunResult:
        if self.n_scored > self.n_total:
            raise ValueError(f"n_scored is {self.n_scored}, more than n_total, {self.n_total}")
        return self

    def to_json(self) -> str:
        """Strict JSON: keys sorted, two spaces, UTF-8, a newline at the end; equal results give equal text."""
        return strict_json(self)


def strict_json(record: BaseModel) -> str:
    """Keys sorted, two spaces, UTF-8, a newline at the end; ``AvbenchError`` for what strict JSON cannot hold."""
    try:
        text = json.dumps(record.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode("utf-8")
    except ValueError as error:  # NaN inside the free-form protocol or environment, half a surrogate pair
        raise AvbenchError(f"the result cannot be written as JSON: {_one_line(error)}") from error
    return text


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``run.json`` (draft 2020-12), published as ``schemas/run_result.v1.json``."""
    schema = RunResult.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "avbench/run_result.v1.json", **schema}


def json_schema_text() -> str:
    """The text of the published schema file; ``python -m avbench.results`` prints it."""
    return json.dumps(json_schema(), sort_keys=True, indent=2) + "\n"


def write_run(result: RunResult, directory: Path) -> Path:
    """Writes ``directory/run.json`` atomically, making the directory if needed; ``AvbenchError`` if it cannot be."""
    path = Path(directory) / RUN_FILE
    write_whole(path, result.to_json().encode("utf-8"))
    return path


def read_run(path: Path) -> RunResult:
    """Reads ``run.json``, given as the file or its directory. ``UsageError``: not there, not strict JSON, another
    schema version, unknown, missing or wrong fields (the first one is named)."""
    path = Path(path)
    path = path / RUN_FILE if path.is_dir() else path
    return parse_record(read_bytes(path, MAX_RUN_BYTES), path, RunResult, "a run result", "run the evaluation again")


def parse_record(data: bytes, path: Path | str, kind: type[R], what: str, advice: str) -> R:
    """One record of ``kind`` from strict JSON; ``path`` names it in errors. ``UsageError`` as in ``read_run``."""
    document = parse_json(data, path)
    if not isinstance(document, dict):
        raise UsageError(f"{path} does not hold {what} (a JSON object)")
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema_version {json.dumps(version)[:40]}; this avbench reads {SCHEMA_VERSION}: "
            f"{advice}, or use the avbench version that wrote it"
        )
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:60] for part in first["loc"])
        raise UsageError(f"{path}: field {where}: {first['msg']} ({error.error_count()} problem(s) in all)") from None


def write_predictions(path: Path, segment_ids: Sequence[str], logits: Any) -> str:
    """Writes logits (N, W, 21) of N segments and W iterations as parquet, atomically; returns the file's sha256.

    Columns: segment_id (string), iteration (int16, from 1), logit_0 ... logit_20 (float32); rows segment by segment in
    the given order. Equal content gives equal bytes (with one pyarrow version). ``UsageError`` for wrong shapes or a
    repeated segment, ``NonFiniteError`` naming segment and iteration, ``AvbenchError`` if the file cannot be written.
    """
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    array = np.asarray(logits)
    if array.ndim != 3 or array.shape[2] != N_CLASSES or array.dtype.kind != "f" or len(array) != len(segment_ids):
        raise UsageError(
            f"predictions have shape {array.shape} and type {array.dtype} for {len(segment_ids)} segments; needed is "
            f"float (segments, iterations, {N_CLASSES})"
        )
    n, iterations = array.shape[:2]
    if not 1 <= iterations <= np.iinfo(np.int16).max or n == 0:
        raise UsageError(f"predictions have {n} segments and {iterations} iterations; both must be at least 1")
    if len(set(segment_ids)) != n:
        raise UsageError("predictions name a segment twice; every segment is written once")
    with np.errstate(over="ignore"):  # beyond float32 is refused just below, by name
        flat = array.astype(np.float32).reshape(n * iterations, N_CLASSES)
    _refuse_non_finite(flat, segment_ids, iterations)
    columns: dict[str, pa.Array] = {
        "segment_id": pa.array([s for s in segment_ids for _ in range(iterations)], pa.string()),
        "iteration": pa.array(np.tile(np.arange(1, iterations + 1, dtype=np.int16), n)),
    }
    columns |= {name: pa.array(np.ascontiguousarray(flat[:, c])) for c, name in enumerate(LOGIT_COLUMNS)}
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=_predictions_schema()),
        sink,
        compression="zstd",
        use_dictionary=["segment_id"],
        row_group_size=2**17,
        store_schema=False,
    )
    data = sink.getvalue()
    write_whole(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def read_predictions(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Segment ids and logits (N, W, 21) float32, segments in the file's order; checked as in ``parse_predictions``."""
    return parse_predictions(read_bytes(Path(path), MAX_PREDICTIONS_BYTES), str(path))


def parse_predictions(data: bytes, path: str, max_rows: int | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """Segment ids and logits (N, W, 21) float32 of a predictions file's bytes; ``path`` names it in errors.

    Checked, because the file may come from anyone: declared size before parsing, columns and types, every segment with
    every iteration 1 ... W exactly once (in any row order), all logits finite. ``UsageError`` or ``NonFiniteError`` if
    not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    max_rows = MAX_PREDICTION_ROWS if max_rows is None else max_rows
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        n_rows, schema = file.metadata.num_rows, file.schema_arrow
        unpacked = sum(file.metadata.row_group(g).total_byte_size for g in range(file.metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {_one_line(error)}") from None
    if not schema.equals(_predictions_schema(), check_metadata=False):
        found = ", ".join(f"{f.name} {f.type}" for f in list(schema)[:4])
        raise UsageError(
            f"{path} has the columns {found[:200]} ...; needed are segment_id string, iteration int16, "
            f"logit_0 ... logit_{N_CLASSES - 1} float"
        )
    if not 0 < n_rows <= max_rows or unpacked > MAX_PREDICTIONS_BYTES:
        raise UsageError(
            f"{path} declares {n_rows} rows and {unpacked} bytes unpacked; between 1 and {max_rows} rows in "
            f"at most {MAX_PREDICTIONS_BYTES} bytes can be read"
        )
    try:
        compact = pq.ParquetFile(pa.BufferReader(data), read_dictionary=["segment_id"])  # each id once in memory
        table = compact.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is damaged: {_one_line(error)}") from None
    if any(column.null_count for column in table.columns):
        raise UsageError(f"{path} has empty cells; every row needs a segment, an iteration and {N_CLASSES} logits")
    ids, segment = _factorise(table.column("segment_id"))
    iteration = table.column("iteration").to_numpy().astype(np.int64)
    iterations = int(iteration.max())
    pairs = len(np.unique(segment * 2**16 + iteration))
    if iteration.min() < 1 or len(ids) * iterations != n_rows or pairs != n_rows:
        raise UsageError(
            f"{path}: {len(ids)} segments with iterations 1 ... {iterations} need {len(ids) * iterations} rows, each "
            f"pair once; found {n_rows} rows with {pairs} different pairs, iterations from {iteration.min()}"
        )
    place = segment * iterations + iteration - 1
    flat = np.empty((n_rows, N_CLASSES), np.float32)
    for c, name in enumerate(LOGIT_COLUMNS):
        flat[place, c] = table.column(name).to_numpy()
    _refuse_non_finite(flat, ids, iterations)
    return ids, flat.reshape(len(ids), iterations, N_CLASSES)


class Answers(NamedTuple):
    """What is true of N segments, in a file's order."""

    segment_ids: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, offset classes
    videos: tuple[str, ...]  # the clusters of the bootstrap
    categories: tuple[str, ...] = ()  # empty where not told


def answers_of(segments: Sequence[SegmentRecord]) -> Answers:
    return Answers(
        tuple(s.id for s in segments),
        np.array([s.offset_class for s in segments], np.int64),
        tuple(s.video_id for s in segments),
        tuple(s.category for s in segments),
    )


def write_segments(path: Path, segments: Sequence[SegmentRecord]) -> str:
    """Writes segment_id, video_id, offset_class (int16) and category as parquet, atomically; returns the sha256.

    For the one who made the run: whoever scores a submission takes the labels from the data, never from a file of its.
    """
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "segment_id": [s.id for s in segments],
        "video_id": [s.video_id for s in segments],
        "offset_class": [s.offset_class for s in segments],
        "category": [s.category for s in segments],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_segments_schema()), sink, compression="zstd", store_schema=False)
    data = sink.getvalue()
    write_whole(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def read_segments(path: Path) -> Answers:
    """What ``write_segments`` wrote; ``UsageError`` if it is not readable, has other columns, an empty cell, a label
    outside the classes or a segment twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(Path(path), MAX_PREDICTIONS_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        known = file.schema_arrow.equals(_segments_schema(), check_metadata=False)
        table = file.read(use_threads=False) if known and file.metadata.num_rows <= MAX_PREDICTION_ROWS else None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {_one_line(error)}") from None
    if table is None:
        raise UsageError(f"{path} has other columns than segment_id, video_id, offset_class and category")
    ids, videos = table.column("segment_id").to_pylist(), table.column("video_id").to_pylist()
    labels, categories = table.column("offset_class").to_pylist(), table.column("category").to_pylist()
    if None in ids or None in videos or None in categories or len(set(ids)) != len(ids):
        raise UsageError(f"{path} has an empty cell, or names a segment twice")
    if any(label is None or not 0 <= label < N_CLASSES for label in labels):
        raise UsageError(f"{path} has a label outside the classes 0 ... {N_CLASSES - 1}")
    return Answers(tuple(ids), np.array(labels, np.int64), tuple(videos), tuple(categories))


def _segments_schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema([("segment_id", text), ("video_id", text), ("offset_class", pa.int16()), ("category", text)])


def _predictions_schema() -> pa.Schema:
    import pyarrow as pa

    logits = [(name, pa.float32()) for name in LOGIT_COLUMNS]
    return pa.schema([("segment_id", pa.string()), ("iteration", pa.int16()), *logits])


def _factorise(column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct ids in order of appearance, and for every row (N,) int64 which of them it names.

    The file's dictionary is not trusted: it may repeat an id or hold one that no row uses.
    """
    encoded = column.unify_dictionaries().combine_chunks()
    encoded = encoded.chunk(0) if hasattr(encoded, "chunk") else encoded
    names: list[str] = encoded.dictionary.to_pylist()
    known: dict[str, int] = {}
    code = np.array([known.setdefault(name, len(known)) for name in names])
    used, first_row, segment = np.unique(code[encoded.indices.to_numpy()], return_index=True, return_inverse=True)
    appearance = np.argsort(first_row)
    rank = np.empty(len(used), np.int64)
    rank[appearance] = np.arange(len(used))
    by_code = list(known)
    return tuple(by_code[c] for c in used[appearance]), rank[segment]


def _refuse_non_finite(flat: np.ndarray, segment_ids: Sequence[str], iterations: int) -> None:
    bad = ~np.isfinite(flat).all(axis=1)
    if bad.any():
        segment, iteration = divmod(int(bad.argmax()), iterations)
        raise NonFiniteError(
            f"segment {segment_ids[segment]}, iteration {iteration + 1}: the logits hold NaN or infinity (as float32)"
        )


def parse_json(data: bytes, path: Path | str) -> Any:
    """Strict JSON in UTF-8: no NaN, no infinity, no key twice, no half surrogate pair; else ``UsageError``."""

    def refuse(token: str) -> Any:
        raise ValueError(f"{token[:40]} is not a finite number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key appears twice in one object")
        return found

    def finite(token: str) -> float:
        number = float(token)
        return number if math.isfinite(number) else refuse(token)

    try:
        document = json.loads(data.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # an escaped half of a surrogate pair is no text
        return document
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both ValueErrors
        raise UsageError(f"{path} is not strict JSON: {_one_line(error)}") from None


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """A file's bytes; ``UsageError`` if it has more than ``limit_bytes`` or cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit_bytes:
                raise UsageError(f"{path} has {size} bytes; more than {limit_bytes} are not read")
            return file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"cannot read {path}: {_one_line(error)}") from None


def write_whole(path: Path, data: bytes) -> None:
    """Atomically, making the folder if needed; ``AvbenchError`` if it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, data)
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}; nothing was left half-written") from error


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


if __name__ == "__main__":
    print(json_schema_text(), end="")
