"""Read a parquet table from anybody: what it would take in memory is found out before it does.

A few kilobytes of parquet can unpack to any size: pages are compressed, the sizes in the footer need not be true, and
one long text may stand in a million cells. So the headers of the pages, which the decoder goes by, are added up first
(:func:`unpacked_bytes`), and texts are decoded once each and put into every cell only if there is room for that.
The footer is read here too: pyarrow ends the process when some of its fields are asked for and damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FOOTER_BYTES = 2**24
TAIL = 8  # bytes: the footer's length and the letters PAR1
I32, I64, LIST, STRUCT = 5, 6, 9, 12  # kinds of values in the compact form of thrift
_Fields = dict[tuple[int, int], Any]  # (id of a field, kind) -> its value


def read_table(data: bytes, limit_bytes: int) -> pa.Table:
    """The whole table in a parquet file.

    ``ValueError`` (one line) if its pages or its cells take more than ``limit_bytes``; ``pa.ArrowException``,
    ``OSError`` or ``ValueError`` if it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = limit_bytes - _within(unpacked_bytes(data, limit_bytes), limit_bytes)
    file = pq.ParquetFile(pa.BufferReader(data))
    leaves = [file.schema.column(i) for i in range(len(file.schema.names))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    once = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    parts = []
    for group in range(once.num_row_groups):  # one by one: texts in lists cannot be read across groups in this way
        part = once.read_row_group(group, use_threads=False)
        left -= _within(sum(_cell_bytes(chunk) for column in part.columns for chunk in column.chunks), left)
        parts.append(part.cast(file.schema_arrow))
    return pa.concat_tables(parts) if parts else file.read()


def _within(n_bytes: int, limit_bytes: int) -> int:
    if n_bytes > limit_bytes:
        raise ValueError("it takes more memory than a table of this kind may")
    return n_bytes


def _cell_bytes(array: pa.Array) -> int:
    """What a column takes if each of its cells has a text of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return 8 * len(array) + _cell_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return array.nbytes
    lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    used = array.indices.drop_null().to_numpy(zero_copy_only=False)
    return 8 * len(array) + (int(np.bincount(used, minlength=len(lengths)) @ lengths) if len(lengths) else 0)


def unpacked_bytes(data: bytes, limit_bytes: int) -> int:
    """The bytes of all pages when they are unpacked, and of all their values, by the headers of the pages; counted up
    to ``limit_bytes`` only. ``data``: the whole file.

    ``ValueError`` if the footer or a header is damaged, or the columns are longer than the file.
    """
    length = int.from_bytes(data[-TAIL:-4], "little")
    if data[-4:] != b"PAR1" or length > min(MAX_FOOTER_BYTES, len(data) - TAIL):
        raise ValueError("it has no footer")
    try:
        footer = _struct(data, len(data) - TAIL - length)[0]
        leaves = [leaf for leaf in footer[2, LIST] if not leaf.get((5, I32))]  # those without children
        widths = [max(leaf.get((2, I32), 0), 8) for leaf in leaves]  # values of fixed length say it
        chunks = [chunk[3, STRUCT] for group in footer[4, LIST] for chunk in group[1, LIST]]
        places = [(chunk[9, I64], chunk.get((11, I64), 0), chunk[7, I64]) for chunk in chunks]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("its footer is damaged") from None
    found, left = 0, len(data) - TAIL - length
    for i, (data_page, dictionary_page, n_bytes) in enumerate(places):
        begin = min((at for at in (data_page, dictionary_page) if at > 0), default=0)  # 0: there is none
        left -= n_bytes
        if n_bytes < 0 or begin < 0 or begin + n_bytes > len(data) or left < 0:  # (columns that overlap, too)
            raise ValueError("its columns are longer than the file")
        for page_bytes, n_values in _pages(data, begin, begin + n_bytes):
            found += page_bytes + widths[i % len(widths)] * n_values
            if found > limit_bytes:
                return found
    return found


# ----------------------------------------------------------------------------- footer and headers: thrift, compact form


def _pages(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Of each page between two places: the bytes when it is unpacked, and the number of values."""
    while at < end:
        try:
            header, at = _struct(data, at)
            unpacked, packed = header[2, I32], header[3, I32]
            kinds = [header.get((field, STRUCT), {}) for field in (5, 7, 8)]  # data, dictionary, data of version 2
            n_values = sum(kind.get((1, I32), 0) for kind in kinds)
        except (IndexError, KeyError, TypeError, RecursionError):
            raise ValueError("the header of a page is damaged") from None
        if min(unpacked, packed, n_values) < 0:
            raise ValueError("a page has a negative size")
        yield unpacked, n_values
        at += packed


def _struct(data: bytes, at: int) -> tuple[_Fields, int]:
    """The fields of a struct, and the place behind it: whole numbers, structs and lists of these; None in place of
    every other value. The decoder passes over a field of another kind than it expects, so the kind is in the key."""
    found: _Fields = {}
    field = 0
    while kind := data[at] & 15:
        delta, at = data[at] >> 4, at + 1
        if delta:
            field += delta
        else:
            field, at = _number(data, at)
        if kind > 2:  # 1 and 2 are True and False, with no byte of their own
            found[field, kind], at = _value(data, at, kind)
    return found, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    """A value and the place behind it. ``kind``: its type in the compact form."""
    match kind:
        case 1 | 2 | 3:
            return None, at + 1
        case 4 | 5 | 6:  # I32 and I64 among them
            return _number(data, at)
        case 7:
            return None, at + 8
        case 8:
            length, at = _varint(data, at)
            return None, at + length
        case 9 | 10:  # LIST, or a set
            n, inner, at, items = data[at] >> 4, data[at] & 15, at + 1, []
            if n == 15:
                n, at = _varint(data, at)
            for _ in range(n):
                item, at = _value(data, at, inner)
                items.append(item)
            return items, at
        case 12:  # STRUCT
            return _struct(data, at)
    raise ValueError("it has a value of an unknown kind")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("it has a number that is too long")


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
