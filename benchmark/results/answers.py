"""``segments.parquet``: what is true of the scored segments, so that runs can be compared without their media."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.results.predictions import MAX_PREDICTION_ROWS, MAX_PREDICTIONS_BYTES, N_CLASSES
from avbench.system.strict import one_line, read_bytes, write_whole
from avbench.types import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from avbench.types import SegmentRecord


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
        raise UsageError(f"{path} is not a readable parquet file: {one_line(error)}") from None
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
