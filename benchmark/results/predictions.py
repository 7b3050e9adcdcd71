"""``predictions.parquet``: every iteration's logits of every scored segment, and the model's own alarms if any."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.system.parquet import unpacked_bytes
from avbench.system.strict import one_line, read_bytes, write_whole
from avbench.types import NonFiniteError, OffsetGrid, UsageError, printable

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PREDICTIONS_BYTES = 2**30
BYTES_PER_ROW = 1000  # in memory: an id of at most 200 characters and 22 numbers
MAX_PREDICTION_ROWS = 10_000_000  # 32,000 segments of 48 iterations are 1.5 million
N_CLASSES = OffsetGrid().n_classes
ALARM = "alarm"  # a column that only some files have
LOGIT_COLUMNS = tuple(f"logit_{c}" for c in range(N_CLASSES))


def write_predictions(path: Path, segment_ids: Sequence[str], logits: Any, alarm: Any = None) -> str:
    """Writes logits (N, W, 21) of N segments and W iterations as parquet, atomically; returns the file's sha256.

    Columns: segment_id (string), iteration (int16, from 1), logit_0 ... logit_20 (float32), and with ``alarm`` (N, W),
    the model's own probability of being out of tolerance, alarm (float32); rows segment by segment in the given order.
    Equal content gives equal bytes (with one pyarrow version). ``UsageError`` for wrong shapes or a
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
    if alarm is not None:
        columns[ALARM] = pa.array(_checked_alarm(alarm, (n, iterations)))
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=_predictions_schema(alarm is not None)),
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
    return _parsed(data, path, max_rows)[:2]


def read_alarm(path: Path) -> np.ndarray | None:
    """The alarms (N, W) float32 of a predictions file, None if it has none; errors as ``parse_predictions``."""
    return _parsed(read_bytes(Path(path), MAX_PREDICTIONS_BYTES), str(path))[2]


def _parsed(
    data: bytes, path: str, max_rows: int | None = None
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Segment ids, logits, and alarms if there are any."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    max_rows = MAX_PREDICTION_ROWS if max_rows is None else max_rows
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        n_rows, schema = file.metadata.num_rows, file.schema_arrow
        unpacked = sum(file.metadata.row_group(g).total_byte_size for g in range(file.metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {one_line(error)}") from None
    with_alarm = ALARM in schema.names
    if not schema.equals(_predictions_schema(with_alarm), check_metadata=False):
        found = printable(", ".join(f"{f.name} {f.type}" for f in list(schema)[:4]))
        raise UsageError(
            f"{path} has the columns {found[:200]} ...; needed are segment_id string, iteration int16, "
            f"logit_0 ... logit_{N_CLASSES - 1} float, and perhaps {ALARM} float"
        )
    if not 0 < n_rows <= max_rows or unpacked > MAX_PREDICTIONS_BYTES:
        raise UsageError(
            f"{path} declares {n_rows} rows and {unpacked} bytes unpacked; between 1 and {max_rows} rows in "
            f"at most {MAX_PREDICTIONS_BYTES} bytes can be read"
        )
    try:
        limit = BYTES_PER_ROW * n_rows + 2**20
        if unpacked_bytes(data, limit) > limit:
            raise ValueError(f"its pages unpack to more than {BYTES_PER_ROW} bytes a row")
        compact = pq.ParquetFile(pa.BufferReader(data), read_dictionary=["segment_id"])  # each id once in memory
        table = compact.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is damaged: {one_line(error)}") from None
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
    alarm = None
    if with_alarm:
        alarm = np.empty((len(ids), iterations), np.float32)
        alarm.flat[place] = table.column(ALARM).to_numpy()
        _checked_alarm(alarm, alarm.shape, f"{path}: ")
    return ids, flat.reshape(len(ids), iterations, N_CLASSES), alarm


def _predictions_schema(with_alarm: bool = False) -> pa.Schema:
    import pyarrow as pa

    names = [*LOGIT_COLUMNS, ALARM] if with_alarm else LOGIT_COLUMNS
    return pa.schema([("segment_id", pa.string()), ("iteration", pa.int16()), *((n, pa.float32()) for n in names)])


def _checked_alarm(alarm: Any, shape: tuple[int, ...], where: str = "") -> np.ndarray:
    """The alarms, flat float32; ``UsageError`` unless there is a number from 0 to 1 for each segment and iteration."""
    array = np.asarray(alarm, np.float32)
    if array.shape != shape or not ((array >= 0) & (array <= 1)).all():
        raise UsageError(
            f"{where}alarms have shape {array.shape}; needed are numbers from 0 to 1, one for each of {shape[0]} "
            f"segments and {shape[1]} iterations"
        )
    return array.ravel()


def _factorise(column: pa.ChunkedArray) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct ids in order of appearance, and for every row (N,) int64 which of them it names.

    The file's dictionary is not trusted: it may repeat an id or contain one that no row uses.
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
            f"segment {segment_ids[segment]}, iteration {iteration + 1}: logits contain NaN or infinity (as float32)"
        )
