"""The packets of an opened media file, whatever the file does to its library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av


def packets(container: av.container.InputContainer, *streams: Any) -> Iterator[Any]:
    """The packets of these streams in the order of the file.

    ``OSError`` where PyAV itself stumbles: it looks up a track that appears only later in the file and finds none.
    """
    try:
        yield from container.demux(*streams)
    except IndexError as error:
        raise OSError("a track appears in the middle of the file") from error
