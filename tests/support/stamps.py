"""Stamped media: every frame carries its index as a barcode, the sound is seeded noise, so that an error of one frame
or one sample is seen as such."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avbench.data.media import ClipReader
from avbench.types import FrontEnd

BITS = 10
CELL = 8
WIDTH, HEIGHT = BITS * CELL, 64
RAW = FrontEnd(size=64, fit="crop")  # a centre crop: the barcode's middle 64 columns, see index_of


def stamp(index: int, width: int = WIDTH, height: int = HEIGHT, scale: int = 1) -> np.ndarray:
    """(height, width, 3): bit b of ``index`` is a white or black column of 8 ``scale`` pixels, in the middle."""
    image = np.full((height, width, 3), 90, np.uint8)
    left, cell = round((width - 64 * scale) / 2.0), CELL * scale
    for bit in range(8):
        image[:, left + bit * cell : left + (bit + 1) * cell] = 235 if index >> bit & 1 else 16
    return image


def index_of(frame: np.ndarray) -> int:
    """Barcode of a (3, 64, 64) centre crop."""
    middle = frame[1, 24:40].astype(int).mean(axis=0).reshape(8, CELL)[:, 2:6].mean(axis=1)
    return sum(1 << bit for bit in range(8) if middle[bit] > 128)


def indices(reader: ClipReader) -> list[int]:
    return [index_of(frame) for (frame,) in reader.frames(RAW)]


def noise(n: int, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """(n,) float32 noise without much above 3 kHz, which a 48 kbit/s encoder keeps."""
    white = np.random.default_rng(seed).standard_normal(max(n, 1600))
    spectrum = np.fft.rfft(white)
    spectrum[np.fft.rfftfreq(len(white), 1 / rate) > 3000] = 0
    shaped = np.fft.irfft(spectrum, len(white))
    return (0.2 * shaped / shaped.std())[:n].astype(np.float32).clip(-1, 1)


def lag_of(heard: np.ndarray, said: np.ndarray) -> int:
    """Samples by which ``heard`` comes later than ``said``."""
    n = min(len(heard), len(said))
    spectrum = np.fft.rfft(heard[:n], 2 * n) * np.conj(np.fft.rfft(said[:n], 2 * n))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < n else peak - 2 * n


def write_media(
    path: Path,
    *,
    times: list[Fraction] | None = None,
    container: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rate: int = 16_000,
    layout: str = "mono",
    audio_codec: str = "aac",
    sound: np.ndarray | None = None,
    sound_at_s: Fraction | int = 0,
    first_s: Fraction | int = 0,
    rotate: int = 0,
    turned: bool = False,
    scale: int = 1,
    bf: int = 2,
    rate_hint: int = 25,
    time_base: Fraction = Fraction(1, 90_000),
    skip_sound: tuple[int, int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A file unlike the ones avbench writes: any container, rate, clock, delay or rotation. ``size``: as stored."""
    times = times if times is not None else [Fraction(k, 25) for k in range(75)]
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        video = None
        if times:
            video = out.add_stream(codec, rate=rate_hint, options={"bf": str(bf)} if codec == "libx264" else {})
            video.width, video.height, video.pix_fmt = *size, pixels
            video.bit_rate = 2_000_000
            video.codec_context.time_base = time_base
            video.thread_count = 1
            if rotate:
                video.set_display_rotation(rotate)
        voice = None
        if sound is not None:
            voice = out.add_stream(audio_codec, rate=rate, layout=layout)
            channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
            for begin in range(0, len(sound), 1024):
                if skip_sound and skip_sound[0] <= begin < skip_sound[1]:
                    continue
                piece = np.repeat(sound[None, begin : begin + 1024], channels, axis=0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "fltp", layout)
                if audio_codec.startswith("pcm"):
                    piece = np.ascontiguousarray((piece.T * 32767).astype(np.int16).reshape(1, -1))
                    frame = av.AudioFrame.from_ndarray(piece, "s16", layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = begin + round((sound_at_s + first_s) * rate)
                out.mux(voice.encode(frame))
        for k, at in enumerate(times):
            assert video is not None
            image = stamp(k, *size, scale)
            if turned:  # stored lying, so that the rotation sets it upright
                upright = (size[1], size[0]) if rotate % 180 else size
                image = np.rot90(stamp(k, *upright, scale), -rotate // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = round((at + first_s) / time_base), time_base
            out.mux(video.encode(frame))
        for stream in (video, voice):
            if stream is not None:
                out.mux(stream.encode(None))
    return path
