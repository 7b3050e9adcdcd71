"""``segments.parquet``: the truth of a run, with and without the offsets in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avbench.results.truth import Truth, is_segments, read_segments, write_segments
from avbench.types import SegmentRecord, UsageError

SEGMENTS = [
    SegmentRecord(f"s{i}", "c", "v", 0, offset, label) for i, (offset, label) in enumerate([(800, 10), (0, 10)])
]


def test_offsets_come_back_and_a_file_from_before_has_none(tmp_path: Path) -> None:
    truth, path = Truth.of(SEGMENTS), tmp_path / "segments.parquet"
    write_segments(path, truth)
    again = read_segments(path)
    assert again.offsets_s is not None
    assert again.offsets_s.tolist() == [0.05, 0.0]
    assert again.take([1]).offsets_s.tolist() == [0.0]  # type: ignore[union-attr]
    write_segments(path, replace(truth, offsets=None))
    assert pq.read_schema(path).names == ["segment_id", "video_id", "offset_class", "category"]
    assert is_segments(path)
    assert read_segments(path).offsets is None


def test_the_cache_key_covers_the_offsets() -> None:
    truth = Truth.of(SEGMENTS)
    moved = replace(truth, offsets=np.array([801, 0]))
    assert len({truth.sha256, moved.sha256, replace(truth, offsets=None).sha256}) == 3


@pytest.mark.parametrize("offsets", [[800, 32_001], [800, None]])
def test_an_offset_that_cannot_be_is_refused(offsets: list[int | None], tmp_path: Path) -> None:
    path = tmp_path / "segments.parquet"
    write_segments(path, Truth.of(SEGMENTS))
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, "offset_ticks", pa.array(offsets, pa.int32())), path, store_schema=False)
    with pytest.raises(UsageError, match="offset that is missing or beyond 2 s"):
        read_segments(path)
