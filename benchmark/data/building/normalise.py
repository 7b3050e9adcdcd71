"""Cut a raw video into uniform clips: H.264 High at 25 fps with short side 256, AAC-LC mono 16 kHz, 5 minutes.

The video is decoded once, front to back, in bounded memory. Picture and sound are cut on one clock, whose time 0 is the
first picture: clip i contains the grid frames from i * 7500 on and exactly the samples that belong to them. Frames are
resized as the readers do it (``media.resized``).
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from avbench.data.building.records import BuiltClip, BuiltVideo
from avbench.data.encode import Codec, encode_clip
from avbench.data.media import ClipReader, media_sha256, resized, rgb_converter
from avbench.data.orientation import Orientations
from avbench.data.probing import Header, clock_warnings, read_header, refuse_truncated, upright_size
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, Tick, ticks
from avbench.types import Gap, MediaError

_ASPECT_SLACK = 0.01  # relative; a picture whose aspect differs more from the first is refused


@dataclass(frozen=True, slots=True)
class Encoding:
    """How clips are made. ``short_side`` in pixels; ``crf``, ``preset``, ``audio_bit_rate``: see ``Codec``."""

    clip_s: float = 300.0
    min_clip_s: float = 30.0  # a shorter remainder at the end of a video is left out
    short_side: int = 256
    crf: int = 18
    preset: str = "veryfast"
    audio_bit_rate: int = 64_000

    @property
    def codec(self) -> Codec:
        """The encoders' part."""
        return Codec(self.crf, self.preset, self.audio_bit_rate)


def normalise(file: Path, video_id: str, key: str, media: Path, records: Path, encoding: Encoding) -> BuiltVideo:
    """Cut ``file`` into clips ``<video_id>_<start>_<end>.mp4`` in ``media``, with one JSON record each in ``records``.

    A clip whose file and record (of the same ``key``) exist is not encoded again. Where one stream ends first, the last
    clip ends with it, on a frame. Clips without any sound and a remainder that is too short are dropped.

    ``MediaError``: unreadable, truncated, damaged, no sound at all, a picture whose shape changes. ``AvbenchError``:
    the clip cannot be written.
    """
    header = read_header(file, video_id)
    reader = ClipReader(file, clip_id=video_id)
    n_samples = round(encoding.clip_s * FRAME_RATE_HZ) * TICKS_PER_FRAME
    size = _target_size((header.width, header.height), encoding.short_side)
    target = _Target(media, records, key, encoding)
    clips: list[BuiltClip] = []
    dropped: list[str] = []
    with contextlib.closing(reader.pictures()) as pictures, contextlib.closing(reader.audio_blocks()) as blocks:
        sound, picture = _Sound(blocks), _Picture(pictures, header, size, video_id)
        for index in itertools.count():
            piece = sound.take(n_samples)
            start_s = index * encoding.clip_s
            clip_id = f"{video_id}_{start_s:g}_{start_s + encoding.clip_s:g}"
            clip = target.write(clip_id, _source(header, start_s, size), piece, picture, reader.gaps)
            if clip is None:
                seconds = min(picture.count / FRAME_RATE_HZ, len(piece) / SAMPLE_RATE_HZ)
                if seconds:
                    dropped.append(f"{clip_id}: the last {seconds:.2f} s are less than {encoding.min_clip_s:g} s")
                break
            if piece.any():
                clips.append(clip)
            else:
                dropped.append(f"{clip_id}: the sound is silent (every sample is zero)")
            if picture.ended or len(piece) < n_samples:
                break
        used = picture.total
        picture.skip(10**9)  # the rest of the longer stream: a few frames, or a damaged file
        sound.drain()
    _check_lengths(header, picture, sound, video_id)
    if (rest := (picture.total - used) / FRAME_RATE_HZ) > 0.1:
        dropped.append(f"{video_id}: the sound ends {rest:.2f} s before the picture, which is cut there")
    if not clips and dropped and all("silent" in text for text in dropped):
        raise MediaError(video_id, "the sound is silent (every sample is zero)")
    if not clips:
        raise MediaError(video_id, f"picture and sound together last less than {encoding.min_clip_s:g} s")
    return BuiltVideo(tuple(clips), tuple(dropped))


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the clips and records of a video go, and how the clips are written."""

    media: Path
    records: Path
    key: str
    encoding: Encoding

    def write(
        self,
        clip_id: str,
        source: dict[str, Any],
        piece: np.ndarray,
        picture: _Picture,
        gaps: Callable[[], tuple[Gap, ...]],
    ) -> BuiltClip | None:
        """Encode the next clip, or skip its frames if it was made before; None if it is too short. ``gaps``: of the
        video, as far as it has been read."""
        limit = len(piece) // TICKS_PER_FRAME
        least = round(self.encoding.min_clip_s * FRAME_RATE_HZ)
        picture.count = 0
        if limit < least:
            picture.skip(limit)
            return None
        known = self._on_record(clip_id, source)
        if known is not None:
            picture.skip(limit)
            return known
        frames = picture.frames(limit)
        first = next(frames, None)
        if first is None:
            return None
        path = self.media / f"{clip_id}.mp4"
        encode_clip(path, itertools.chain([first], frames), piece, self.encoding.codec, end_with_picture=True)
        if picture.count < least:
            path.unlink()
            return None
        clip = BuiltClip(
            id=clip_id,
            path=path.name,
            n_frames=picture.count,
            n_samples=picture.count * TICKS_PER_FRAME,
            n_bytes=path.stat().st_size,
            sha256=media_sha256(path),
            source=source,
            key=self.key,
            gaps=tuple(_inside(gaps(), ticks(source["start_s"]), picture.count * TICKS_PER_FRAME)),
        )
        atomic_write_bytes(self._record(clip_id), json.dumps(asdict(clip), sort_keys=True).encode())
        return clip

    def _on_record(self, clip_id: str, source: dict[str, Any]) -> BuiltClip | None:
        """The clip made earlier from the same source with the same key, if its file is unchanged."""
        try:
            clip = BuiltClip.from_json(json.loads(self._record(clip_id).read_bytes()))
            same = clip.key == self.key and clip.source == source
            return clip if same and media_sha256(self.media / f"{clip_id}.mp4") == clip.sha256 else None
        except (OSError, ValueError, TypeError, MediaError):  # no record or no file, or not one of ours
            return None

    def _record(self, clip_id: str) -> Path:
        return self.records / f"{clip_id}.json"


def _inside(gaps: Iterable[Gap], start: Tick, length: Tick) -> Iterator[Gap]:
    """The gaps of a video in the clip that starts at ``start``, on the clip's clock."""
    for gap in gaps:
        first, last = max(gap.start - start, 0), min(gap.end - start, length)
        if first < last:
            yield Gap(gap.kind, first, last)


class _Sound:
    """16 kHz samples in pieces of any length; ``total`` samples were read."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self.blocks = blocks
        self.ended = False
        self.total = 0
        self._rest = np.zeros(0, np.float32)

    def take(self, n: int) -> np.ndarray:
        """The next (n,) float32 samples, fewer at the end."""
        parts, have = [self._rest], len(self._rest)
        while have < n and not self.ended:
            block = next(self.blocks, None)
            if block is None:
                self.ended = True
            else:
                parts.append(block)
                have += len(block)
        joined = np.concatenate(parts)
        self._rest = joined[n:].copy()
        self.total += min(n, have)
        return joined[:n]

    def drain(self) -> None:
        """Read the rest, to count it."""
        self.total += len(self._rest) + sum(len(block) for block in self.blocks)
        self._rest, self.ended = self._rest[:0], True


class _Picture:
    """The grid frames of a video, resized; ``count`` of the current clip, ``total`` of the video."""

    def __init__(self, pictures: Iterator[Any], header: Header, size: tuple[int, int], video_id: str) -> None:
        self.pictures, self.header, self.size, self.video_id = pictures, header, size, video_id
        self.count = self.total = 0
        self.ended = False
        self._convert, self._orientations = rgb_converter(), Orientations()
        self._shown: Any = None
        self._array: np.ndarray | None = None

    def frames(self, limit: int) -> Iterator[np.ndarray]:
        """At most ``limit`` (H, W, 3) uint8 arrays; a held picture is the same array again."""
        for picture in self._next(limit):
            if picture is not self._shown:
                self._shown, self._array = picture, self._resized(picture)
            assert self._array is not None
            yield self._array

    def skip(self, limit: int) -> None:
        """Pass over at most ``limit`` frames."""
        for _ in self._next(limit):
            pass

    def _next(self, limit: int) -> Iterator[Any]:
        for _ in range(limit):
            picture = next(self.pictures, None)
            if picture is None:
                self.ended = True
                return
            self.count += 1
            self.total += 1
            yield picture

    def _resized(self, picture: Any) -> np.ndarray:
        """The picture at the target size; ``MediaError`` if its aspect differs from the first picture's."""
        orientation = self._orientations.of(picture, self.video_id)
        shape = upright_size(picture.width, picture.height, self.header.pixel_aspect, orientation)
        ratio = (shape[0] * self.header.height) / (shape[1] * self.header.width)
        if abs(ratio - 1) > _ASPECT_SLACK:
            raise MediaError(
                self.video_id,
                f"the picture changes its shape from {self.header.width}x{self.header.height} to {shape[0]}x{shape[1]} "
                f"at {self.total / FRAME_RATE_HZ:.2f} s",
            )
        rgb = self._convert(picture, self.video_id)
        width, height = self.size
        if rgb.shape[:2] == (height, width):
            return np.ascontiguousarray(rgb)
        return np.ascontiguousarray(resized(rgb, (height, width)))


def _target_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(width, height), both even: the shorter is ``short_side``, the other keeps the aspect as closely as possible."""
    width, height = size
    scale = Fraction(short_side, min(width, height))
    return 2 * round(width * scale / 2), 2 * round(height * scale / 2)


def _source(header: Header, start_s: float, size: tuple[int, int]) -> dict[str, Any]:
    """What the raw file declared; kept with every clip: a hidden delay of 64 ms can be traced only through it."""
    warnings = [
        *header.track_warnings,
        *clock_warnings(header.clock_doubt_ms, header.sbr_delay, header.container),
    ]
    if min(size) > min(header.width, header.height):
        warnings.append(f"enlarged from {header.width}x{header.height}")
    return {
        "start_s": start_s,  # of the clip, on the clock of the video's first picture
        "container": header.container,
        "tracks": list(header.tracks),
        "encoder": header.encoder,
        "size": f"{header.width}x{header.height}",
        "pixel_aspect": str(header.pixel_aspect),
        "fps": str(header.fps),
        "video_codec": header.video_codec,
        "audio_codec": header.audio_codec,
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "video_start_s": header.video_start_s,
        "first_audio_packet_s": header.first_audio_packet_s,
        "edit_lists": header.edit_lists,
        "clock_doubt_ms": list(header.clock_doubt_ms),  # how early and late the sound may be in the source
        "warnings": warnings,
    }


def _check_lengths(header: Header, picture: _Picture, sound: _Sound, video_id: str) -> None:
    """Both streams were read to the end: ``MediaError`` if one is shorter than the file declares."""
    picture_s, sound_s = Fraction(picture.total, FRAME_RATE_HZ), Fraction(sound.total, SAMPLE_RATE_HZ)
    # (mpegts declares nothing: its length is only estimated)
    whole_s = None if header.container == "mpegts" or header.duration_s is None else Fraction(header.duration_s)
    refuse_truncated(
        video_id,
        ("picture", picture_s, header.declared_video_s),
        ("sound", sound_s, header.declared_audio_s),
        ("file", max(picture_s, sound_s), whole_s),
        late_s=Fraction(max(header.video_start_s, 0.0)),
    )
