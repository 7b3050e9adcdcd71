"""How a stored picture is turned and mirrored to be shown, from the display matrix of the file.

The matrix maps a stored point (x right, y down) to the shown one: x' = a x + c y, y' = b x + d y, in 16.16 fixed point.
Quarter turns and mirrorings are followed; scales are the pixel aspect, which is read elsewhere. A matrix of zeros says
nothing and changes nothing, as in FFmpeg's players; any other matrix (a slant, a turn by 45 degrees) is refused.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.types import MediaError

if TYPE_CHECKING:
    import av

_SLANT = math.tan(math.radians(1))  # a turn that is off by less is taken for a quarter turn


@dataclass(frozen=True, slots=True)
class Orientation:
    """What is done to a stored picture, in this order."""

    transposed: bool = False  # rows become columns
    left_right: bool = False  # mirrored
    upside_down: bool = False  # mirrored top to bottom
    note: str = ""  # what a person should know of it

    @property
    def mirrored(self) -> bool:
        """Whether writing in the shown picture and in the stored one run in opposite directions."""
        return self.transposed ^ self.left_right ^ self.upside_down

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise; a mirrored picture is turned first and then mirrored left to right."""
        left_right = self.left_right ^ self.mirrored
        return {(False, False): 0, (True, False): 90, (False, True): 180, (True, True): 270}[
            self.transposed, left_right
        ]

    def upright(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, ...) as stored -> a view of the picture as it is shown, (W, H, ...) where it is transposed."""
        if self is AS_STORED:  # (asked for every picture)
            return rgb
        if self.transposed:
            rgb = rgb.swapaxes(0, 1)
        return rgb[:: -1 if self.upside_down else 1, :: -1 if self.left_right else 1]


AS_STORED = Orientation()


class Orientations:
    """How the pictures of one stream are shown: a matrix holds until another one comes (H.264 may carry one in its key
    pictures only).

    Side data are looked at in the first picture and where the rotation changes: PyAV keeps a picture whose side data
    were asked for in memory until the garbage collector comes by.
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._last = AS_STORED

    def of(self, picture: av.VideoFrame, clip_id: str) -> Orientation:
        """Of the next decoded picture. ``MediaError`` if it takes more than quarter turns and mirrorings."""
        if picture.rotation != self._rotation:
            self._rotation = picture.rotation
            matrix: Any = picture.side_data.get("DISPLAYMATRIX")  # type: ignore[call-overload]  # (a name works as well)
            if matrix is not None:
                self._last = _of(bytes(matrix), clip_id)
        return self._last


def _of(matrix: bytes, clip_id: str) -> Orientation:
    a, b, u, c, d, v = struct.unpack("=9i", matrix)[:6]
    if not any((a, b, c, d)):
        return Orientation(note="the display matrix is all zeros: the picture is shown as it is stored")
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not (u or v):
        if straight and max(abs(b), abs(c)) <= _SLANT * straight:
            return Orientation(False, a < 0, d < 0)
        if crossed and max(abs(a), abs(d)) <= _SLANT * crossed:
            return Orientation(True, c < 0, b < 0)
    turn = math.degrees(math.atan2(b, a))
    raise MediaError(
        clip_id,
        f"the display matrix of the picture is no quarter turn or mirroring (its top edge is turned by {turn:.0f} "
        "degrees); only those can be shown: re-encode the file upright",
    )
