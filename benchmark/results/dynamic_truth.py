"""What is so in every window of streams whose offsets may change, and ``truth.parquet``, which stores it.

- A *regime* is a stretch of constant offset; adjacent pieces of a law with equal offsets are one. Regimes are counted
  from 1; a stream of fixed offset has one. While the offset moves (a sloped piece) there is no regime: the number
  stays that of the last one, 0 if none has been.
- A window *ends* at e, the first tick after it. What is so at its end is what holds at e: a change exactly at e has
  happened already, though the window holds nothing of it (purity 0).
- *Purity* is the share of the window under the latest regime; 0 while the offset moves.
- A *change* is the beginning of a regime with another offset than the regime before; a slide is a change where it
  settles.

``changes_of`` finds the changes again from the table alone: a regime begins at e - purity x window of its first window.
That is exact to the tick for a regime in which a window ends, if the hop is no longer than the window. A regime in
which no window ends leaves only its number: the regimes around it look like neighbours. So several changes within one
hop are one, at the time of the last (at the window's end, if the offset moves by then). What changes before the end of
the first window is not seen, either.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avbench.protocol.laws import offsets_at
from avbench.protocol.rules import Protocol
from avbench.results.predictions import MAX_PREDICTION_ROWS, MAX_PREDICTIONS_BYTES
from avbench.system.strict import one_line, read_bytes, write_whole
from avbench.ticks import TICKS_PER_S, Tick
from avbench.types import Law, OffsetGrid, Piece, SegmentRecord, UsageError, Window

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TRUTH_FILE = "truth.parquet"
_REACH_S = OffsetGrid().max_offset_s
RANGES = {
    "offset_end_s": (-_REACH_S, _REACH_S),
    "offset_mean_s": (-_REACH_S, _REACH_S),
    "purity": (0.0, 1.0),
    "regime": (0, 2**15 - 1),
}
COLUMNS = ("segment_id", "iteration", *RANGES)


class Changes(NamedTuple):
    """C changes of N streams, stream by stream in time order; each array is (C,) int64. Times are in ticks from the
    beginning of the first window."""

    stream: np.ndarray  # row of the stream
    window: np.ndarray  # the first window at whose end the new offset holds, from 0
    at: np.ndarray  # when the new regime begins
    begun: np.ndarray  # when the way there began: ``at``, or the end of the last window in which the old regime held
    delta: np.ndarray  # new offset minus old, ticks
    until: np.ndarray  # when the next change happens, or the last window ends
    until_window: np.ndarray  # the first window of the next change, or the number of windows


@dataclass(frozen=True, eq=False)
class WindowTruth:
    """The truth of N streams of W windows, in order. All arrays are (N, W)."""

    segment_ids: tuple[str, ...]
    offset_end_s: np.ndarray  # float64, the offset at the window's end
    offset_mean_s: np.ndarray  # float64, its mean over the window
    purity: np.ndarray  # float64
    regime: np.ndarray  # int64

    @classmethod
    def of(cls, segments: Sequence[SegmentRecord], protocol: Protocol) -> WindowTruth:
        """The truth of ``segments`` of a manifest under ``protocol``; ``UsageError`` if an offset leaves the grid."""
        shape = (len(segments), protocol.iterations)
        end, mean, purity = np.empty(shape), np.empty(shape), np.ones(shape)
        regime = np.ones(shape, np.int64)
        for row, segment in enumerate(segments):
            end[row] = mean[row] = segment.offset_s
            if segment.law:
                windows = [Window(w.start - segment.start, w.length) for w in protocol.picture_windows(segment)]
                end[row] = offsets_at(segment.law, [w.end for w in windows]) / TICKS_PER_S
                furthest = float(end[row][np.abs(end[row]).argmax()])
                if abs(furthest) > protocol.grid.max_offset_s:
                    reach = f"[-{protocol.grid.max_offset_s:g}, {protocol.grid.max_offset_s:g}] s"
                    raise UsageError(
                        f"segment {segment.id}: its law goes to {furthest:g} s in this stream, outside {reach}"
                    )
                mean[row] = [_mean(segment.law, w) / TICKS_PER_S for w in windows]
                regime[row], purity[row] = zip(*_latest_regime(segment.law, windows), strict=True)
        return cls(tuple(s.id for s in segments), end, mean, purity, regime)

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, name: str = "the truth") -> WindowTruth:
        """The truth as a table with one row a segment and iteration (``COLUMNS``; others are not looked at). Segments
        stand in the order in which they appear. ``UsageError``, which calls the table ``name``, if a column is missing,
        a segment lacks an iteration or has one twice, or a number is none or out of its range."""
        missing = [column for column in COLUMNS if column not in frame.columns]
        if missing:
            raise UsageError(f"{name} lacks the columns {', '.join(missing)}")
        if not len(frame):
            raise UsageError(f"{name} has no rows")
        ids, place, iterations = _places(frame, name)
        columns = {}
        for column, (low, high) in RANGES.items():
            values = frame[column].to_numpy()
            if values.dtype.kind not in "fiu" or not ((low <= values) & (values <= high)).all():
                raise UsageError(f"{name}: {column} must be numbers from {low:g} to {high:g}")
            columns[column] = np.empty(len(frame), np.float64)
            columns[column][place] = values
        if (columns["regime"] % 1).any():
            raise UsageError(f"{name}: regime must be whole numbers")
        end, mean, purity, regime = (columns[column].reshape(len(ids), iterations) for column in RANGES)
        if (np.diff(regime) < 0).any():
            row = int((np.diff(regime) < 0).any(axis=1).argmax())
            raise UsageError(f"{name}: the regimes of segment {ids[row]} do not follow each other")
        return cls(ids, end, mean, purity, regime.astype(np.int64))

    def frame(self) -> pd.DataFrame:
        """The table that ``of_frame`` reads, segment by segment."""
        import pandas as pd

        n, iterations = self.regime.shape
        columns: dict[str, object] = {
            "segment_id": np.repeat(np.array(self.segment_ids, object), iterations),
            "iteration": np.tile(np.arange(1, iterations + 1, dtype=np.int16), n),
        }
        return pd.DataFrame(columns | {column: getattr(self, column).ravel() for column in RANGES})

    def take(self, rows: Sequence[int] | np.ndarray) -> WindowTruth:
        """Some of the streams, in the order of ``rows`` (indices)."""
        rows = np.asarray(rows, np.int64)
        return WindowTruth(
            tuple(self.segment_ids[row] for row in rows), *(getattr(self, column)[rows] for column in RANGES)
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Row of each segment id."""
        return {name: row for row, name in enumerate(self.segment_ids)}

    @property
    def offset_end(self) -> np.ndarray:
        """``offset_end_s`` in ticks, (N, W) int64."""
        return np.rint(self.offset_end_s * TICKS_PER_S).astype(np.int64)

    @property
    def settled(self) -> np.ndarray:
        """(N, W) bool: whether a regime holds at the window's end."""
        first = np.diff(self.regime, axis=1, prepend=self.regime[:, :1]) > 0
        return first | (self.purity > 0)


def changes_of(truth: WindowTruth, window: Tick, hop: Tick) -> Changes:
    """All changes that can be seen in the table (see the head of this file), for windows of these ticks."""
    offset, settled = truth.offset_end, truth.settled
    iterations = offset.shape[1]
    ends = window + hop * np.arange(iterations)
    # the last window before each one at whose end a regime held; -1: none
    last = np.maximum.accumulate(np.where(settled, np.arange(iterations), -1), axis=1)
    before = np.concatenate([np.full((len(offset), 1), -1), last[:, :-1]], axis=1)
    old = np.take_along_axis(offset, np.maximum(before, 0), axis=1)
    begins = np.diff(truth.regime, axis=1, prepend=truth.regime[:, :1]) > 0
    stream, first = np.nonzero(begins & (before >= 0) & (offset != old))
    at = ends[first] - np.rint(truth.purity[stream, first] * window).astype(np.int64)
    slid = before[stream, first] < first - 1
    same = np.append(stream[1:] == stream[:-1], np.zeros(min(len(stream), 1), bool))  # the next row is of this stream
    following, following_at = np.roll(first, -1), np.roll(at, -1)
    return Changes(
        stream=stream,
        window=first,
        at=at,
        begun=np.where(slid, ends[before[stream, first]], at),
        delta=(offset - old)[stream, first],
        until=np.where(same, following_at, ends[-1]),
        until_window=np.where(same, following, iterations),
    )


def write_truth(path: Path, truth: WindowTruth) -> str:
    """Writes the table as parquet, atomically; returns the sha256. Columns: segment_id (string), iteration (int16, from
    1), offset_end_s, offset_mean_s, purity (float64), regime (int16)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    table = pa.Table.from_pandas(truth.frame(), schema=_schema(), preserve_index=False).replace_schema_metadata()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    data = sink.getvalue()
    write_whole(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def read_truth(path: Path) -> WindowTruth:
    """What ``write_truth`` wrote; ``UsageError`` if it is not readable, has other columns or an empty cell, or as
    ``WindowTruth.of_frame``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(Path(path), MAX_PREDICTIONS_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        known = file.schema_arrow.equals(_schema(), check_metadata=False)
        table = file.read(use_threads=False) if known and file.metadata.num_rows <= MAX_PREDICTION_ROWS else None
        if table is not None:
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is not a readable parquet file: {one_line(error)}") from error
    if table is None:
        raise UsageError(f"{path} has other columns than {', '.join(COLUMNS)}")
    if any(column.null_count for column in table.columns):
        raise UsageError(f"{path} has an empty cell")
    return WindowTruth.of_frame(table.to_pandas(), str(path))


# --------------------------------------------------------------------------------------------------------- one window


def _mean(law: Law, window: Window) -> float:
    """The mean offset in ticks over a window on the segment's clock: an exact sum, divided once."""
    starts = [min(max(piece.start, window.start), window.end) for piece in law.pieces[1:]]
    stretches = itertools.pairwise([window.start, *starts, window.end])
    return sum(_sum(piece, *stretch) for piece, stretch in zip(law.pieces, stretches, strict=True)) / window.length


def _sum(piece: Piece, start: Tick, end: Tick) -> int:
    if not piece.slope_ppm:
        return piece.offset * (end - start)
    past = np.arange(start, end) - piece.start
    return int((piece.offset + past * piece.slope_ppm // 1_000_000).sum())


def _latest_regime(law: Law, windows: Sequence[Window]) -> list[tuple[int, float]]:
    """Number and purity of the latest regime of each window, on the segment's clock."""
    regimes, starts = _regimes(law.pieces), [piece.start for piece in law.pieces]
    found = []
    for window in windows:
        number, begin = regimes[max(bisect_right(starts, window.end) - 1, 0)]
        found.append((number, max(window.end - max(begin, window.start), 0) / window.length))
    return found


def _regimes(pieces: Sequence[Piece]) -> list[tuple[int, float]]:
    """For each piece: the number of the regime that it belongs to and the tick where that began; if it is sloped, the
    last regime's number and infinity. The first piece has been so for ever."""
    found: list[tuple[int, float]] = []
    number, before = 0, None
    for piece in pieces:
        if piece.slope_ppm:
            begin = math.inf
        elif before and before.offset == piece.offset and not before.slope_ppm:
            begin = found[-1][1]
        else:
            number, begin = number + 1, piece.start if before else -math.inf
        found.append((number, begin))
        before = piece
    return found


# ---------------------------------------------------------------------------------------------------------- the table


def _places(frame: pd.DataFrame, name: str) -> tuple[tuple[str, ...], np.ndarray, int]:
    """The segments, the place of each row in (segments x iterations), and the number of iterations."""
    import pandas as pd

    code, ids = pd.factorize(frame["segment_id"])
    iteration = frame["iteration"].to_numpy()
    if iteration.dtype.kind not in "iu" or code.min() < 0 or iteration.min() < 1:
        raise UsageError(f"{name}: every row needs a segment_id and an iteration, a whole number from 1")
    iterations = int(iteration.max())
    place = code.astype(np.int64) * iterations + iteration.astype(np.int64) - 1
    if len(ids) * iterations != len(frame) or len(np.unique(place)) != len(frame):
        raise UsageError(
            f"{name}: {len(ids)} segments with iterations 1 ... {iterations} need {len(ids) * iterations} rows, each "
            f"pair once; found {len(frame)} rows with {len(np.unique(place))} different pairs"
        )
    return tuple(map(str, ids)), place, iterations


def _schema() -> pa.Schema:
    import pyarrow as pa

    number = pa.float64()
    return pa.schema(
        [
            ("segment_id", pa.string()),
            ("iteration", pa.int16()),
            ("offset_end_s", number),
            ("offset_mean_s", number),
            ("purity", number),
            ("regime", pa.int16()),
        ]
    )
