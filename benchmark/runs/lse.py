"""LSE-D, LSE-C and SyncNet's offset of one media file, as the published pipeline measures them over a face.

The file's longest face track is cut out and compared with its sound, 5 frames at a time. Faces are followed as
published (found in every picture, joined by an overlap of more than 0.5, at most 25 frames missing, at least 100 in
all); the detector is another one, so its name stands beside the figures. Crops are compared as they are decoded: the
published pipeline writes them through two lossy codecs first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avbench.baselines.syncnet import (
    REACH_FRAMES,
    WINDOW_FRAMES,
    SyncNet,
    as_int16,
    is_silent,
    lag_distances,
    lse_of,
    mfcc,
    sound_windows,
)
from avbench.data.annotate import rgb_pictures
from avbench.data.face_boxes import FaceBoxes
from avbench.data.faces import FaceTrack, Following, YuNet, face_crop, face_tracks, face_views
from avbench.data.media import ClipReader
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME
from avbench.types import MediaError, offset_in_words

SHORTEST_TRACK = 100  # frames, of the published pipeline
SHORTEST_FACE = 25  # frames: less than a second says nothing over lags of 0.6 s to either side
PIECE_FRAMES = 100  # cropped and encoded at a time: 15 MB of crops, 0.25 GB in the network


@dataclass(frozen=True, slots=True)
class LseFigures:
    """The figures of one file. ``offset_frames``: the published sign, which is avbench's: positive, the sound is early,
    by frames of 40 ms. ``n_frames``: of the face that was measured. ``detector``: what found the face. ``words``: the
    offset in both conventions, and what is unusual."""

    lse_d: float
    lse_c: float
    offset_frames: int
    n_frames: int
    detector: str
    words: str


def measure_lse(path: Path, network: SyncNet, *, boxes: FaceBoxes | None = None, device: str = "cpu") -> LseFigures:
    """The figures of a media file over its longest face track (of several as long, the first and leftmost).

    ``network`` is moved to ``device`` and set to evaluation; its detector finds the faces unless ``boxes`` has that
    file's. The file is decoded twice, in bounded memory but for 0.1 MB for every second of the face. Faces under 100
    frames are measured if there is no longer one, and it is said. ``MediaError`` with the reason: unreadable, no sound,
    no face, a face under a second, silence. ``UsageError``: no detector.
    """
    network.eval().to(device)
    reader = ClipReader(Path(path))
    reader.track("audio")  # said before all pictures are looked at
    known = boxes.of(reader.path) if boxes else ()
    track = _longest(_within(known, reader) if known else _followed(reader, network))
    if track is None:
        raise MediaError(reader.clip_id, "its boxes lie after its last picture" if known else "no face is seen in it")
    samples = _sound(reader, track)
    n_frames = min(len(track.boxes), len(samples) // TICKS_PER_FRAME)
    if n_frames < SHORTEST_FACE:
        seen = f"the longest face is seen with sound for {n_frames / FRAME_RATE_HZ:g} s"
        raise MediaError(reader.clip_id, f"too short: {seen}, LSE needs {SHORTEST_FACE / FRAME_RATE_HZ:g} s")
    if is_silent(samples):
        raise MediaError(reader.clip_id, "the sound is silent while the face is seen")
    with torch.inference_mode():
        lse_d, lse_c, offset_frames = lse_of(_mean_distances(reader, track, mfcc(samples), n_frames, network, device))
    words = f"SyncNet {offset_frames:+d} frames: {offset_in_words(offset_frames / FRAME_RATE_HZ)}"
    if abs(offset_frames) == REACH_FRAMES:
        words += ", the furthest that is looked for"
    if n_frames < SHORTEST_TRACK:
        published = SHORTEST_TRACK / FRAME_RATE_HZ
        words += f"; over {n_frames / FRAME_RATE_HZ:g} s of a face (published figures need {published:g} s)"
    detector = f"boxes of {boxes.source}" if boxes and known else _name(network)
    return LseFigures(lse_d, lse_c, offset_frames, n_frames, detector, words)


def _name(network: SyncNet) -> str:
    detector = network.face_detector()
    return "yunet" if isinstance(detector, YuNet) else type(detector).__name__


def _followed(reader: ClipReader, network: SyncNet) -> list[FaceTrack]:
    how = Following(every=1, same_iou=0.5, longest_gap=25, shortest=1)
    return face_tracks(rgb_pictures(reader), network.face_detector(), how)


def _within(tracks: tuple[FaceTrack, ...], reader: ClipReader) -> list[FaceTrack]:
    """The tracks up to the file's last picture."""
    n_pictures = sum(1 for _ in reader.pictures())
    cut = (FaceTrack(t.first_frame, t.boxes[: max(0, n_pictures - t.first_frame)]) for t in tracks)
    return [track for track in cut if len(track.boxes)]


def _longest(tracks: list[FaceTrack]) -> FaceTrack | None:
    return max(tracks, key=lambda track: len(track.boxes), default=None)


def _sound(reader: ClipReader, track: FaceTrack) -> np.ndarray:
    """(N,) int16, the sound of the track, as far as there is any."""
    first, last = track.first_frame * TICKS_PER_FRAME, track.end_frame * TICKS_PER_FRAME
    parts, begin = [np.zeros(0, np.int16)], 0
    for block in reader.audio_blocks():
        parts.append(as_int16(block[max(first - begin, 0) : max(last - begin, 0)]))
        begin += len(block)
        if begin >= last:
            break
    return np.concatenate(parts)


def _mean_distances(
    reader: ClipReader, track: FaceTrack, columns: np.ndarray, n_frames: int, network: SyncNet, device: str
) -> Tensor:
    """(31,) float64: the mean distance at each lag, over all windows of the track; its features are never all there."""
    windows = sound_windows(columns)[: n_frames - WINDOW_FRAMES]
    total, done = torch.zeros(2 * REACH_FRAMES + 1, dtype=torch.float64), 0
    for crops in _overlapping(reader, track):
        lips = network.face_features(crops, device)[: len(windows) - done]
        if not len(lips):
            break
        # the sound of these lips, and of the lags to either side; beyond the track's ends its features are zero
        first, last = done - REACH_FRAMES, done + len(lips) + REACH_FRAMES
        there = network.sound_features(windows[max(first, 0) : last], device)
        beyond = max(-first, 0), max(last - len(windows), 0)
        sound = torch.nn.functional.pad(there, (0, 0, *beyond))
        total += lag_distances(lips, sound).double().sum(1).cpu()
        done += len(lips)
    return total / done


def _overlapping(reader: ClipReader, track: FaceTrack) -> Iterator[np.ndarray]:
    """The track's crops, (T, 224, 224, 3) uint8 RGB at a time; each time begins with the last 4 of the time before, so
    that every window of 5 frames is whole in one of them."""
    kept: np.ndarray | None = None
    for _, _, crops in face_views(rgb_pictures(reader), [track], PIECE_FRAMES, face_crop):
        whole = crops if kept is None else np.concatenate([kept, crops])
        yield whole
        kept = whole[-(WINDOW_FRAMES - 1) :]
