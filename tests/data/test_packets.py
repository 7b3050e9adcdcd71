"""What a file does to PyAV while its packets are read is the file's fault, and only that is."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from avbench.data.packets import packets
from avbench.data.streams import readable
from avbench.types import MediaError


def test_a_track_that_appears_late_is_an_error_of_the_file() -> None:
    def demux(stream: Any) -> Iterator[int]:
        yield 1
        raise IndexError("stream index 2 is out of range")

    given = packets(SimpleNamespace(demux=demux), None)  # type: ignore[arg-type]
    assert next(given) == 1
    with pytest.raises(OSError, match="a track appears in the middle of the file"):
        next(given)


def test_a_mistake_of_whoever_reads_them_is_not_taken_for_damage() -> None:
    with pytest.raises(IndexError, match="mine"), readable("c", "the sound"):
        raise IndexError("mine")
    with pytest.raises(MediaError, match="clip c: the sound is damaged"), readable("c", "the sound"):
        raise OSError("a track appears in the middle of the file")
