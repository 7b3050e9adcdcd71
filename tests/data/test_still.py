"""One picture of a file: the one on show at that moment, upright, as a JPEG."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
import pytest

from avbench.data.apart import MediaFile
from avbench.data.encode import encode_clip
from avbench.data.media import MEASURED
from avbench.data.still import WIDTH_PX, still
from avbench.types import MediaError


def decoded(text: str) -> np.ndarray:
    with av.open(io.BytesIO(base64.b64decode(text)), format="mjpeg") as file:
        (picture,) = file.decode(video=0)
        return picture.to_ndarray(format="rgb24")


def test_the_picture_of_a_moment(tmp_path: Path) -> None:
    levels = np.arange(20, 220).astype(np.uint8)  # frame k has level 20 + k
    frames = np.broadcast_to(levels[:, None, None, None], (200, 400, 800, 3))
    encode_clip(tmp_path / "c.mp4", frames, np.zeros(128_000, np.float32))
    for at_s in (0.0, 3.0, 3.02, 7.9, 100.0):
        picture = decoded(still(MediaFile("c", tmp_path / "c.mp4", (at_s, MEASURED))))
        assert picture.shape == (WIDTH_PX // 2, WIDTH_PX, 3)
        assert picture.mean() == pytest.approx(20 + min(int(at_s * 25), 199), abs=3)


def test_what_has_no_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"no media")
    with pytest.raises(MediaError):
        still(MediaFile("c", tmp_path / "c.mp4", (0.0, MEASURED)))
