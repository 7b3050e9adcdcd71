"""A parquet table from anybody is read whole, or refused before it takes more memory than it may."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avbench.protocol.manifest import read_manifest
from avbench.results.predictions import LOGIT_COLUMNS, parse_predictions
from avbench.system.parquet import read_table, unpacked_bytes
from avbench.types import UsageError


def written(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **{"compression": "zstd", **options})
    return sink.getvalue()


def everything(n: int = 1000) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "repeated": pa.array(["x" * 100] * n),
        "own": pa.array([f"id{i}" for i in range(n)]),
        "large": pa.array([f"id{i}" for i in range(n)], pa.large_string()),
        "binary": pa.array([b"\xff\x00"] * n, pa.binary()),
        "empty": pa.array([None, "q"] * (n // 2)),
        "lists": pa.array([["y" * 100, "z"], [], None, ["w"]] * (n // 4)),
        "whole": pa.array(range(n)),
        "real": pa.array(draw.random(n)),
        "truth": pa.array([True, False] * (n // 2)),
        "fixed": pa.array([b"12345"] * n, pa.binary(5)),
        "dictionary": pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
    }


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
def test_a_table_is_read_as_it_is(compression: str, version: str) -> None:
    data = written(
        everything(),
        compression=compression,
        data_page_version=version,
        row_group_size=300,
        data_page_size=2000,
        write_page_checksum=True,
    )
    assert read_table(data, 2**20).equals(pq.ParquetFile(io.BytesIO(data)).read())


def test_tables_without_rows_or_columns() -> None:
    for columns in ({"a": pa.array([], pa.string())}, {}):
        data = written(columns)
        assert read_table(data, 2**20).equals(pq.ParquetFile(io.BytesIO(data)).read())


def test_the_pages_are_counted() -> None:
    data = written(everything(), row_group_size=300)
    file = pq.ParquetFile(io.BytesIO(data))
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    told = sum(group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns))
    values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    found = unpacked_bytes(data, 2**40)
    assert 0.5 * told + 8 * values < found < told + 20 * values
    assert 5000 < unpacked_bytes(data, 5000) < found


def varint(value: int, length: int = 0) -> bytes:
    """A zigzag number of thrift's, filled up to a length."""
    value, out = value << 1, bytearray()
    while value > 127 or len(out) + 1 < length:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def lying(data: bytes, true: int, said: int) -> bytes:
    """The file with another number in its footer."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    old = varint(true)
    assert old in data[footer:]
    return data[:footer] + data[footer:].replace(old, varint(said, len(old)))


def the_same(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [text])


def one_long_text(lie: bool = False) -> bytes:
    data = written({"a": pa.array(["x" * 50_000_000])}, use_dictionary=False)
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    return lying(data, chunk.total_uncompressed_size, 1000) if lie else data


BOMBS: dict[str, Callable[[], bytes]] = {
    "one long text": one_long_text,
    "one long text, said to be short": lambda: one_long_text(lie=True),
    "a text in every cell": lambda: written({"a": the_same("x" * 10_000, 100_000)}, store_schema=False),
    "a text in every list": lambda: written(
        {"a": pa.ListArray.from_arrays(range(0, 100_001, 10), the_same("x" * 10_000, 100_000))}, store_schema=False
    ),
    "wide cells": lambda: written({"a": pa.array([b"x" * 10_000] * 10_000, pa.binary(10_000))}),
    "long lists of nothing": lambda: written({"a": pa.array([[None] * 20_000_000], pa.list_(pa.int8()))}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 100_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="it takes more memory than a table of this kind may"):
            read_table(data, 2**22)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert pa.total_allocated_bytes() == before


def test_columns_that_overlap_are_refused() -> None:
    data = written({"a": pa.array(range(100)), "b": pa.array(range(100))}, use_dictionary=False, compression="none")
    size = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).total_compressed_size
    with pytest.raises(ValueError, match="its columns are longer than the file"):
        read_table(lying(data, size, 2000), 2**30)


def predictions(ids: list[str]) -> bytes:
    columns: dict[str, Any] = {"segment_id": pa.array(ids, pa.string())}
    columns["iteration"] = pa.array(np.ones(len(ids), np.int16))
    return written(columns | {name: pa.array(np.zeros(len(ids), np.float32)) for name in LOGIT_COLUMNS})


def test_predictions_with_long_names_are_refused() -> None:
    """120 kB of them took 0.9 GB."""
    assert parse_predictions(predictions([f"{i:0200d}" for i in range(2000)]), "p")[1].shape == (2000, 1, 21)
    with pytest.raises(UsageError, match="p is damaged: its pages unpack to more than 1000 bytes a row"):
        parse_predictions(predictions([f"{i:020000d}" for i in range(1000)]), "p")


def test_a_table_of_a_manifest_is_refused_in_one_line(make_clicks: Callable[..., Path]) -> None:
    import hashlib
    import json

    folder = make_clicks()
    rows = pq.ParquetFile(folder / "clips.parquet").read()
    rows = pa.concat_tables([rows] * 50_000).set_column(0, "id", the_same("x" * 10_000, 100_000))
    pq.write_table(rows, folder / "clips.parquet", compression="zstd", store_schema=False)
    meta = json.loads((folder / "manifest.json").read_text())
    meta["tables"]["clips.parquet"] = hashlib.sha256((folder / "clips.parquet").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(meta))
    with pytest.raises(UsageError, match=r"clips\.parquet is not a readable parquet table: it takes more memory"):
        read_manifest(folder)


def test_mutated_tables_end_in_a_usual_exception() -> None:
    good, draw, refused = written(everything(200), row_group_size=100), random.Random(0), 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            read_table(bytes(data), 2**22)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            refused += 1
    assert refused > 250
