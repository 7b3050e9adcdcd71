"""What predictions are scored against, and ``segments.parquet``, which stores it for comparing runs without media."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from avbench.protocol.laws import law_text, offsets_at
from avbench.results.predictions import BYTES_PER_ROW, MAX_PREDICTION_ROWS, MAX_PREDICTIONS_BYTES, N_CLASSES
from avbench.system.parquet import read_table
from avbench.system.strict import one_line, read_bytes, write_whole
from avbench.ticks import TICKS_PER_S, Tick, seconds, ticks
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from avbench.protocol.rules import Protocol
    from avbench.types import Law, SegmentRecord

V = TypeVar("V")


OFFSETS = "offset_ticks"  # the column of segments.parquet that runs before it was added do not have


@dataclass(frozen=True, eq=False)
class Truth:
    """True classes and groups of N segments in order: of a run, a track, a paper's table or a leaderboard entry."""

    segment_ids: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, offset classes
    clusters: np.ndarray  # (N,) str, video names: what the bootstrap resamples
    categories: tuple[str, ...] = ()  # empty if unknown
    channels: tuple[str, ...] = ()  # empty if unknown
    sources: tuple[str, ...] = ()  # of a blind track: the public segment that each one shows
    n_total: int = 0  # segments of the split that these were taken from
    offsets: np.ndarray | None = None  # (N,) int64, ticks; None: unknown
    laws: tuple[Law | None, ...] = ()  # how their offsets run; empty where all are fixed

    @classmethod
    def of(
        cls, segments: Sequence[SegmentRecord], n_total: int | None = None, protocol: Protocol | None = None
    ) -> Truth:
        """The truth of ``segments`` of a manifest; ``n_total``: segments of the split (None: these are all). Where an
        offset changes, label and offset are what is so at the end of the last window of ``protocol`` (None: at the
        start)."""
        return cls(
            segment_ids=tuple(s.id for s in segments),
            labels=np.array([_last_class(s, protocol) for s in segments], np.int64),
            clusters=np.array([s.video_id for s in segments], str),
            categories=tuple(s.category for s in segments),
            channels=tuple(s.channel for s in segments),
            n_total=len(segments) if n_total is None else n_total,
            offsets=np.array([_last_offset(s, protocol) for s in segments], np.int64),
            laws=tuple(s.law for s in segments) if any(s.law for s in segments) else (),
        )

    def __len__(self) -> int:
        return len(self.segment_ids)

    def take(self, rows: Sequence[int] | np.ndarray, n_total: int | None = None) -> Truth:
        """Some of the segments, in the order of ``rows`` (indices)."""
        rows = np.asarray(rows, np.int64)

        def some(values: tuple[V, ...]) -> tuple[V, ...]:
            return tuple(values[row] for row in rows) if values else ()

        return Truth(
            segment_ids=some(self.segment_ids),
            labels=self.labels[rows],
            clusters=self.clusters[rows],
            categories=some(self.categories),
            channels=some(self.channels),
            sources=some(self.sources),
            n_total=self.n_total if n_total is None else n_total,
            offsets=None if self.offsets is None else self.offsets[rows],
            laws=some(self.laws),
        )

    @property
    def offsets_s(self) -> np.ndarray | None:
        """(N,) float64: ``offsets`` in seconds, positive where the sound comes early."""
        return None if self.offsets is None else self.offsets / TICKS_PER_S

    def of_ids(self, segment_ids: Sequence[str]) -> Truth:
        """The segments of these ids, in this order; ``UsageError`` naming the first that is unknown."""
        unknown = next((name for name in segment_ids if name not in self.place), None)
        if unknown is not None:
            raise UsageError(f"segment {unknown} has no label: it is in predictions but not in segments.parquet")
        return self.take([self.place[name] for name in segment_ids])

    def groups(self) -> dict[str, dict[str, np.ndarray]]:
        """ "category" and "channel" -> name -> the rows of that name, (n,) int64; unknown names are left out."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for kind, names in (("category", self.categories), ("channel", self.channels)):
            for name in sorted(set(names) - {""}):
                found.setdefault(kind, {})[name] = np.flatnonzero(np.array(names) == name)
        return found

    @cached_property
    def place(self) -> dict[str, int]:
        """Row of each segment id."""
        return {name: row for row, name in enumerate(self.segment_ids)}

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that a score depends on besides the predictions: a cache key."""
        rows = [list(self.segment_ids), self.labels.tolist(), self.clusters.tolist()]
        rows += [list(self.categories), list(self.channels), [] if self.offsets is None else self.offsets.tolist()]
        if self.laws:
            rows.append([law_text(law) if law else "" for law in self.laws])
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _last_offset(segment: SegmentRecord, protocol: Protocol | None) -> Tick:
    if segment.law is None or protocol is None:
        return segment.offset
    end = protocol.picture_windows(segment)[-1].end - segment.start
    return int(offsets_at(segment.law, [end])[0])


def _last_class(segment: SegmentRecord, protocol: Protocol | None) -> int:
    if segment.law is None or protocol is None:
        return segment.offset_class
    return protocol.grid.class_of(seconds(_last_offset(segment, protocol)))


def write_segments(path: Path, truth: Truth) -> str:
    """Writes segment_id, video_id, offset_class (int16) and category as parquet, atomically; returns the sha256. Where
    the offsets are known there is a fifth column, offset_ticks (int32).

    For the person who made the run: a submission is scored against the labels of the data, never against this file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "segment_id": list(truth.segment_ids),
        "video_id": truth.clusters.tolist(),
        "offset_class": truth.labels,
        "category": list(truth.categories) or [""] * len(truth),
    }
    if truth.offsets is not None:
        columns[OFFSETS] = truth.offsets
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=_segments_schema(truth.offsets is not None)),
        sink,
        compression="zstd",
        store_schema=False,
    )
    data = sink.getvalue()
    write_whole(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def is_segments(path: Path) -> bool:
    """Whether the file has the columns of what ``write_segments`` writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return _is_known(found)


def read_segments(path: Path) -> Truth:
    """What ``write_segments`` wrote; ``UsageError`` if it is not readable, has other columns, an empty cell, a label
    outside the classes, an offset beyond 2 s or a segment twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(Path(path), MAX_PREDICTIONS_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        readable = _is_known(file.schema_arrow) and file.metadata.num_rows <= MAX_PREDICTION_ROWS
        table = read_table(data, BYTES_PER_ROW * file.metadata.num_rows + 2**20) if readable else None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {one_line(error)}") from error
    if table is None:
        raise UsageError(
            f"{path} has other columns than segment_id, video_id, offset_class, category and perhaps {OFFSETS}"
        )
    ids, videos = table.column("segment_id").to_pylist(), table.column("video_id").to_pylist()
    labels, categories = table.column("offset_class").to_pylist(), table.column("category").to_pylist()
    if None in ids or None in videos or None in categories or len(set(ids)) != len(ids):
        raise UsageError(f"{path} has an empty cell, or names a segment twice")
    if any(label is None or not 0 <= label < N_CLASSES for label in labels):
        raise UsageError(f"{path} has a label outside the classes 0 ... {N_CLASSES - 1}")
    return Truth(
        segment_ids=tuple(ids),
        labels=np.array(labels, np.int64),
        clusters=np.array(videos, str),
        categories=tuple(categories),
        n_total=len(ids),
        offsets=_offsets(table, path) if OFFSETS in table.column_names else None,
    )


def _offsets(table: pa.Table, path: Path) -> np.ndarray:
    found, most = table.column(OFFSETS).to_pylist(), ticks(OffsetGrid().max_offset_s)
    if any(offset is None or abs(offset) > most for offset in found):
        raise UsageError(f"{path} has an offset that is missing or beyond {seconds(most):g} s")
    return np.array(found, np.int64)


def _segments_schema(with_offsets: bool) -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    columns = [("segment_id", text), ("video_id", text), ("offset_class", pa.int16()), ("category", text)]
    return pa.schema([*columns, *([(OFFSETS, pa.int32())] if with_offsets else [])])


def _is_known(schema: pa.Schema) -> bool:
    """Whether these are the columns of a file from ``write_segments``, of this version or of one without offsets."""
    return any(bool(schema.equals(_segments_schema(there), check_metadata=False)) for there in (True, False))
