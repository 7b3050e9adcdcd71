"""Write clips: H.264 and AAC in an mp4, every picture and every sample at its exact time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avbench.data.sound import AAC_SAMPLES
from avbench.data.streams import reason_of
from avbench.system.atomic import whole
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    import av


@dataclass(frozen=True, slots=True)
class Codec:
    """Encoder settings: ``crf``, ``preset`` and ``mbtree`` for x264, ``audio_bit_rate`` (bits per second) for AAC.

    ``mbtree`` is off: with it (and x264's vector code) the bytes of some clips depend on what the process did before,
    if frames are decoded while others are encoded.
    """

    crf: int = 26
    preset: str = "veryfast"
    audio_bit_rate: int = 48_000
    mbtree: bool = False

    def x264(self) -> dict[str, str]:
        """Options of libx264. bf=0: the first picture has pts 0 and needs no edit list; g=25: a seek decodes one second
        at most."""
        return {"crf": str(self.crf), "preset": self.preset, "g": "25", "bf": "0", "mbtree": str(int(self.mbtree))}


def encode_clip(
    path: Path,
    frames: Iterable[np.ndarray],
    audio: np.ndarray,
    codec: Codec | None = None,
    *,
    end_with_picture: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write an mp4 clip: H.264 High at 25 fps (frame k at pts k/25 s exactly) and AAC-LC 16 kHz mono (no lag).

    ``frames``: (H, W, 3) uint8 RGB arrays, or one (T, H, W, 3) array; H and W even. ``audio``: (N,) float32 in [-1, 1];
    ``end_with_picture`` drops the samples after the last frame. ``codec``: None for the defaults.
    The same input gives the same bytes: one encoder thread (the output of libx264 depends on the thread count). The
    file appears under ``path`` only when complete, and when ``check``, which gets it under another name, has not
    raised. ``UsageError`` for input of another shape; ``AvbenchError`` if the file cannot be written.
    """
    import av

    path = Path(path)
    sound = np.ascontiguousarray(audio, dtype=np.float32)
    if sound.ndim != 1 or not sound.size or not np.isfinite(sound).all():
        raise UsageError(f"{path.name}: audio must be (N,) finite samples with N > 0, not {np.shape(audio)}")
    # the default movie clock of 1 ms would round the sound's length in the edit list to 16 samples
    clock = {"movie_timescale": str(SAMPLE_RATE_HZ)}
    try:
        with whole(path) as temporary:
            with av.open(str(temporary), "w", format="mp4", options=clock) as container:
                _encode(container, path.name, iter(frames), sound, codec or Codec(), end_with_picture)
            if check:
                check(temporary)
    except (OSError, av.FFmpegError) as error:
        raise AvbenchError(f"cannot write {path}: {reason_of(error)}") from error


def _encode(
    container: av.container.OutputContainer,
    name: str,
    frames: Iterator[np.ndarray],
    sound: np.ndarray,
    codec: Codec,
    end_with_picture: bool,
) -> None:
    import av

    first = next(frames, None)
    if first is None:
        raise UsageError(f"{name}: there are no frames to encode")
    shape = np.shape(first)
    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
        raise UsageError(f"{name}: frames must be (H, W, 3) with even H and W, not {shape}")

    video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options=codec.x264())
    video.height, video.width = shape[:2]
    video.pix_fmt = "yuv420p"
    video.thread_count = 1
    voice = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=codec.audio_bit_rate)
    position, held = 0, AAC_SAMPLES if end_with_picture else 0

    def write_sound(until: int) -> None:
        """Write whole AAC packets up to sample ``until``: the streams stay interleaved and memory bounded."""
        nonlocal position
        while position < min(until, sound.size):
            piece = av.AudioFrame.from_ndarray(sound[None, position : position + AAC_SAMPLES], "fltp", "mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE_HZ, position, Fraction(1, SAMPLE_RATE_HZ)
            container.mux(voice.encode(piece))
            position += piece.samples

    for count, image in enumerate(itertools.chain([first], frames)):
        if image.shape != shape or image.dtype != np.uint8:
            raise UsageError(f"{name}: frame {count} is {image.shape} {image.dtype}, frame 0 was {shape} uint8")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        picture.pts, picture.time_base = count, Fraction(1, FRAME_RATE_HZ)
        container.mux(video.encode(picture))
        write_sound((count + 1) * TICKS_PER_FRAME - held)
    if end_with_picture:
        sound = sound[: (count + 1) * TICKS_PER_FRAME]
    write_sound(sound.size)
    container.mux(video.encode(None))
    container.mux(voice.encode(None))
