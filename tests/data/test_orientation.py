"""Display matrices: every turn and mirroring as a player shows it, everything else refused at once and alike."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mp4_boxes import set_matrix
from stamps import noise

from avbench.data.encode import encode_clip
from avbench.data.media import ClipReader
from avbench.data.orientation import Orientation, Orientations
from avbench.data.probing import probe, read_header, upright_size
from avbench.types import FrontEnd, MediaError

SIZE = (96, 64)
LEVELS = np.array([[40, 100], [160, 220]])  # A B, C D
EIGHT = [Orientation(bool(k & 1), bool(k & 2), bool(k & 4)) for k in range(8)]
# (a, b, c, d) of x' = ax + cy, y' = bx + dy -> what a player shows of [[A, B], [C, D]], in reading order
MATRICES = {
    (1, 0, 0, 1): "ABCD",
    (-1, 0, 0, 1): "BADC",
    (1, 0, 0, -1): "CDAB",
    (-1, 0, 0, -1): "DCBA",
    (0, 1, 1, 0): "ACBD",
    (0, 1, -1, 0): "CADB",  # a quarter turn clockwise
    (0, -1, 1, 0): "BDAC",
    (0, -1, -1, 0): "DBCA",
    (2, 0, 0, 1): "ABCD",  # wide pixels
    (0.999, 0.01, -0.01, 0.999): "ABCD",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "c.mp4"
    image = np.kron(LEVELS, np.ones((SIZE[1] // 2, SIZE[0] // 2)))[..., None].repeat(3, 2).astype(np.uint8)
    encode_clip(path, (image for _ in range(75)), noise(48_000))
    return path


def turned(plain: Path, path: Path, *matrix: float) -> Path:
    path.write_bytes(plain.read_bytes())
    set_matrix(path, *matrix)
    return path


def quarters(rgb: np.ndarray) -> list[np.ndarray]:
    """The picture's four quarters, in reading order."""
    return [part for half in np.split(rgb, 2, 0) for part in np.split(half, 2, 1)]


@pytest.mark.parametrize("orientation", EIGHT, ids=str)
def test_rotation_and_mirroring_say_what_is_done(orientation: Orientation) -> None:
    picture = np.arange(24).reshape(4, 6)
    expected = np.rot90(picture, orientation.rotation // 90)
    expected = expected[:, ::-1] if orientation.mirrored else expected
    assert np.array_equal(orientation.upright(picture), expected)


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_a_picture_is_shown_as_its_matrix_says(plain: Path, tmp_path: Path, matrix: tuple[float, ...]) -> None:
    path = turned(plain, tmp_path / "c.mp4", *matrix)
    stored = next(ClipReader(plain).placed_pictures())[2].to_ndarray(format="rgb24")
    shown = next(ClipReader(path).frames(FrontEnd(size=64, fit="short")))[0].transpose(1, 2, 0)
    levels = dict(zip("ABCD", LEVELS.reshape(-1), strict=True))
    assert [q.mean() for q in quarters(shown)] == pytest.approx([levels[name] for name in MATRICES[matrix]], abs=3)
    info, header = probe(path), read_header(path)
    assert (info.width, info.height) == (shown.shape[1], shown.shape[0])
    assert (header.width > header.height) == (info.width > info.height)
    orientation = Orientation(info.width < info.height)
    assert upright_size(*SIZE, header.pixel_aspect, orientation) == (header.width, header.height)
    assert np.array_equal(np.rot90(stored, info.rotation // 90)[:, :: -1 if info.mirrored else 1], shown)


def test_a_matrix_of_zeros_changes_nothing_and_is_said(plain: Path, tmp_path: Path) -> None:
    path = turned(plain, tmp_path / "c.mp4", 0, 0, 0, 0)
    info = probe(path)
    assert (info.rotation, info.mirrored, info.width) == (0, False, 96)
    assert [w for w in info.warnings if "display matrix is all zeros" in w]
    first, same = (next(ClipReader(p).frames(FrontEnd(size=64, fit="short")))[0] for p in (plain, path))
    assert np.array_equal(first, same)


def test_a_matrix_holds_until_another_one_comes() -> None:
    """H.264 may carry it in its key pictures only."""

    def picture(rotation: int, *matrix: int) -> Any:
        a, b, c, d = (65536 * x for x in matrix) if matrix else (0, 0, 0, 0)
        data = struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        return SimpleNamespace(rotation=rotation, side_data={"DISPLAYMATRIX": data} if matrix else {})

    stream = Orientations()
    mirrored, turned, none = picture(-180, -1, 0, 0, 1), picture(-90, 0, 1, -1, 0), picture(0)
    shown = [stream.of(p, "c1") for p in (mirrored, none, none, mirrored, none, turned, none)]
    assert [(o.rotation, o.mirrored) for o in shown] == [(0, True)] * 5 + [(270, False)] * 2


@pytest.mark.parametrize(
    "matrix",
    [
        (math.cos(math.pi / 4), math.sin(math.pi / 4), -math.sin(math.pi / 4), math.cos(math.pi / 4)),
        (1, 0, 0.5, 1),
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (1, 1, 1, 1),
        (math.cos(0.05), math.sin(0.05), -math.sin(0.05), math.cos(0.05)),
    ],
    ids=["45 degrees", "slant", "a line", "another line", "a point", "3 degrees"],
)
def test_other_matrices_are_refused_everywhere_in_the_same_words(
    plain: Path, tmp_path: Path, matrix: tuple[float, ...]
) -> None:
    path = turned(plain, tmp_path / "c.mp4", *matrix)
    lines = set()
    for read in (probe, read_header, lambda p: next(ClipReader(p).frames(FrontEnd(size=64)))):
        with pytest.raises(MediaError, match="is no quarter turn or mirroring") as caught:
            read(path)  # type: ignore[operator]
        lines.add(str(caught.value))
    assert len(lines) == 1
