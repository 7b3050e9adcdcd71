"""One picture of a media file as a JPEG, for a page: the file is entered near it, not decoded from its beginning."""

from __future__ import annotations

import base64
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from avbench.data.apart import MediaFile
from avbench.data.media import ClipReader, rgb_converter
from avbench.types import MediaError

if TYPE_CHECKING:
    import av

WIDTH_PX = 640


def still(file: MediaFile) -> str:
    """The picture on show at a moment, at most 640 pixels wide, as a JPEG in base64. ``file.known``: (seconds on the
    container's own clock, how the file is read). ``MediaError``: there is none."""
    at_s, reading = file.known
    reader = ClipReader(file.path, clip_id=file.clip_id, reading=reading)
    with reader.stream("video") as (container, stream):
        container.seek(max(round(at_s * 1_000_000), 0))  # to the key picture before
        shown = None
        for picture in container.decode(stream):
            if shown is not None and picture.time is not None and picture.time > at_s:
                break
            shown = picture
        if shown is None:
            raise MediaError(file.clip_id, f"there is no picture at {at_s:g} s")
        return base64.b64encode(_jpeg(shown, file.clip_id)).decode()


def _jpeg(picture: av.VideoFrame, clip_id: str) -> bytes:
    """The picture upright and small."""
    import av

    upright: Any = av.VideoFrame.from_ndarray(rgb_converter()(picture, clip_id).copy(), format="rgb24")
    scale = min(1.0, WIDTH_PX / upright.width)
    width, height = (max(round(side * scale / 2) * 2, 2) for side in (upright.width, upright.height))
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
    small = upright.reformat(width, height, "yuvj420p", interpolation="AREA")
    return b"".join(bytes(packet) for packet in (*codec.encode(small), *codec.encode(None)))
