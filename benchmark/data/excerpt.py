"""A few seconds of a labelled stream as two small clips: with the sound as a model saw it, and shifted back by what the
model believes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avbench.data.apart import MediaFile
from avbench.data.encode import Codec, encode_clip
from avbench.data.media import ClipReader
from avbench.data.orientation import Orientations
from avbench.protocol.laws import offsets_at
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, seconds
from avbench.types import ClipRecord, Law, MediaError

if TYPE_CHECKING:
    import av

LENGTH_S = 8
SIDE_PX = 320  # of the longer side, at most
REACH = 4 * TICKS_PER_S  # a wrong belief shifts the sound by this much more, at most
CODEC = Codec(crf=28, preset="superfast", audio_bit_rate=40_000)


class Excerpt(NamedTuple):
    """What to cut: ``start`` is where the stream begins on the clip's clock, ``length`` how long it is (ticks);
    ``shifted`` says how its sound is shifted and ``believed`` which shifts the model believes, both on the stream's own
    clock; ``seen`` and ``corrected`` are the files to write."""

    clip: ClipRecord
    start: Tick
    length: Tick
    shifted: Law
    believed: Law
    seen: Path
    corrected: Path


def cut_excerpt(file: MediaFile) -> float:
    """Writes both clips of ``file.known``, an :class:`Excerpt`, and returns where they begin, in seconds of the stream.

    Shown is the first change of the offset; where there is none, the loudest stretch. Sound from before the clip's
    beginning or after its end is silence. ``MediaError``: the clip cannot be read; ``AvbenchError``: nothing can be
    written.
    """
    asked: Excerpt = file.known
    with ClipReader(file.path, asked.clip) as reader:
        t = np.arange(asked.length)
        heard = asked.start + t + offsets_at(asked.shifted, t)
        sound = _sound(reader, int(heard.max()) + REACH)
        seen, corrected = _taken(sound, heard), _taken(sound, heard - offsets_at(asked.believed, t))
        for mute in asked.shifted.mutes:
            seen[mute.start : mute.end] = corrected[mute.start : mute.end] = 0
        begin = _begin(asked, seen)
        part = slice(begin, begin + LENGTH_S * TICKS_PER_S)
        first = (asked.start + begin) // TICKS_PER_FRAME
        pictures = _pictures(reader, first, first + len(seen[part]) // TICKS_PER_FRAME)
    for path, samples in ((asked.seen, seen), (asked.corrected, corrected)):
        encode_clip(path, pictures, samples[part], CODEC, end_with_picture=True)
    return seconds(begin)


def _sound(reader: ClipReader, enough: Tick) -> np.ndarray:
    """The clip's sound, of which no more than ``enough`` samples are needed."""
    blocks: list[np.ndarray] = []
    with contextlib.closing(reader.audio_blocks()) as stream:
        for block in stream:
            blocks.append(block)
            if sum(map(len, blocks)) >= enough:
                break
    return np.concatenate(blocks)


def _taken(sound: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N,) samples of the sound at these places, silence where there is none."""
    there = (at >= 0) & (at < len(sound))
    taken = np.zeros(len(at), np.float32)
    taken[there] = sound[at[there]]
    return taken


def _begin(asked: Excerpt, seen: np.ndarray) -> Tick:
    """Where the excerpt begins in the stream: on a picture."""
    length = LENGTH_S * TICKS_PER_S
    last = max(len(seen) - length, 0) // TICKS_PER_FRAME * TICKS_PER_FRAME
    if len(asked.shifted.pieces) > 1:
        return min(max(asked.shifted.pieces[1].start - length // 2, 0) // TICKS_PER_FRAME * TICKS_PER_FRAME, last)
    power = np.append(0.0, np.cumsum(np.square(seen, dtype=np.float64)))
    starts = np.arange(0, last + 1, TICKS_PER_S)
    return int(starts[np.argmax(power[np.minimum(starts + length, len(seen))] - power[starts])])


def _pictures(reader: ClipReader, first: int, end: int) -> list[np.ndarray]:
    """The small pictures of the grid frames from ``first`` up to ``end``, (H, W, 3) uint8 each."""
    reduce, shown, small = _reducer(reader.clip_id), None, np.empty(0, np.uint8)
    found: list[np.ndarray] = []
    for picture in itertools.islice(reader.pictures(), first, end):
        if picture is not shown:
            shown, small = picture, reduce(picture)
        if found and small.shape != found[0].shape:
            raise MediaError(reader.clip_id, "the picture changes its size inside the excerpt")
        found.append(small)
    if len(found) < end - first:
        raise MediaError(reader.clip_id, f"the picture ends before {seconds(end * TICKS_PER_FRAME):g} s")
    return found


def _reducer(clip_id: str) -> Callable[[av.VideoFrame], np.ndarray]:
    """A function: decoded picture -> (H, W, 3) uint8 RGB, upright, its longer side at most ``SIDE_PX``, both even. The
    picture is made small before it is converted: a large one costs no more than it must."""
    from av.video.reformatter import VideoReformatter

    reformatter, orientations = VideoReformatter(), Orientations()

    def reduce(picture: av.VideoFrame) -> np.ndarray:
        scale = min(1.0, SIDE_PX / max(picture.width, picture.height))
        width, height = (max(round(side * scale / 2) * 2, 2) for side in (picture.width, picture.height))
        small = reformatter.reformat(picture, width, height, "rgb24", interpolation="AREA", threads=1)
        return np.ascontiguousarray(orientations.of(picture, clip_id).upright(small.to_ndarray()))

    return reduce
