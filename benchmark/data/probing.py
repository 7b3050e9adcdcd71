"""What a media file says of itself (``read_header``) and what it really holds (``probe``), with what is in doubt."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.data.boxes import edit_lists
from avbench.data.media import GRID_SLACK_PER_S, ClipReader, grid_frames, opened, stream_of
from avbench.data.sound import AAC_SAMPLES
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from avbench.types import MediaError

MAX_CLIP_S = 3600  # probing refuses longer files: a clip's sound is held in memory as a whole
_DECLARED_SLACK_S = Fraction(1, 2)  # a file ending this much before its own declared duration is truncated


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file really holds, by decoding all of it. Times in seconds of the container's own clock."""

    n_frames: int  # on the 25 fps grid
    n_samples: int  # at 16 kHz
    fps: Fraction  # of the source; the mean rate where it varies
    is_cfr_25: bool  # every picture sits exactly on the 25 fps grid
    width: int  # upright, after rotation
    height: int
    rotation: int  # degrees counter-clockwise that the container asks for
    sample_rate: int
    channels: int
    video_start_s: float
    audio_start_s: float
    first_audio_packet_s: float | None  # negative: priming is signalled by an edit list; 0 in mp4: none is signalled
    container: str
    encoder: str
    warnings: tuple[str, ...]
    edit_lists: dict[str, Any] = field(default_factory=dict)  # of an mp4, see boxes.py
    clock_doubt_ms: tuple[float, float] = (0.0, 0.0)  # how early and how late the sound may be without a trace in it

    @property
    def duration_s(self) -> float:
        """Seconds covered by both streams."""
        return min(self.n_frames / FRAME_RATE_HZ, self.n_samples / SAMPLE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself; only its first picture is decoded. Times in seconds."""

    container: str
    encoder: str
    duration_s: float | None  # declared by the container; estimated in mpegts
    width: int  # upright, after rotation, in square pixels
    height: int
    fps: Fraction | None  # as FFmpeg guesses it
    pixel_aspect: Fraction
    video_codec: str
    audio_codec: str
    sample_rate: int
    channels: int
    video_start_s: float  # pts of the first picture
    first_audio_packet_s: float | None
    declared_video_s: Fraction | None
    declared_audio_s: Fraction | None
    edit_lists: dict[str, Any]
    clock_doubt_ms: tuple[float, float]


def read_header(path: Path, clip_id: str | None = None) -> Header:
    """``MediaError``: missing, a folder, not media, no picture or no sound stream, a first picture that is damaged."""
    path = Path(path)
    reader = ClipReader(path)
    reader.clip_id = name = clip_id or path.name
    with opened(path, name) as container:
        for kind, word in (("video", "picture"), ("audio", "sound")):
            if stream_of(container, kind) is None:
                raise MediaError(name, f"the file has no {word} stream")
    with contextlib.closing(reader.placed_pictures()) as pictures:
        rotation = next(pictures)[2].rotation
    with reader.stream("video") as (container, stream):
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        width, height = upright_size(stream.codec_context.width, stream.codec_context.height, aspect, rotation)
        container_name, duration = container.format.name, container.duration
        encoder = container.metadata.get("encoder", "") or stream.metadata.get("encoder", "")
        fps, video_codec = stream.guessed_rate, stream.codec_context.name
        declared_video_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
    with reader.stream("audio") as (container, stream):
        packet = next((p for p in container.demux(stream) if p.pts is not None), None)
        first_packet_s = None if packet is None else float(packet.pts * packet.time_base)
        sound = stream.codec_context
        declared_audio_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
    start_s = float(reader.origin_s or 0)
    edits = edit_lists(path)
    return Header(
        container=container_name,
        encoder=encoder,
        duration_s=None if duration is None else duration / 1_000_000,
        width=width,
        height=height,
        fps=None if fps is None else Fraction(fps),
        pixel_aspect=aspect,
        video_codec=video_codec,
        audio_codec=sound.name,
        sample_rate=sound.sample_rate,
        channels=sound.layout.nb_channels,
        video_start_s=start_s,
        first_audio_packet_s=first_packet_s,
        declared_video_s=declared_video_s,
        declared_audio_s=declared_audio_s,
        edit_lists=edits,
        clock_doubt_ms=clock_doubt_ms(sound.name, sound.sample_rate, first_packet_s, start_s, edits),
    )


def clock_warnings(doubt: tuple[float, float]) -> list[str]:
    """The same in words."""
    early, late = doubt
    if not late:
        return []
    # nobody can tell from the file whether its maker had compensated the delay of its encoder
    text = f"no AAC encoder delay is signalled: the sound may be up to {late:.0f} ms late in the source itself"
    return [text + (f", or {early:.0f} ms early" if early else "")]


def upright_size(width: int, height: int, aspect: Fraction, rotation: int) -> tuple[int, int]:
    """Width and height a viewer sees: pixels made square by widening, then turned."""
    wide = round(width * aspect)
    return (height, wide) if rotation % 180 else (wide, height)


def clock_doubt_ms(
    codec: str, rate: int, first_packet_s: float | None, video_start_s: float, edits: dict[str, Any]
) -> tuple[float, float]:
    """How many ms (early, late) the sound may be in the source itself without the file showing it; (0, 0): nothing
    is in doubt.

    An mp4 whose AAC track signals no encoder delay may have been compensated by its maker or not: 1024 samples late
    at most with the common encoders. One without an edit list on a picture that begins after 0 may contain the delay
    of reordered pictures, or a real one: the sound is then early by up to that.
    """
    if codec != "aac" or not edits or first_packet_s is None or first_packet_s < 0:
        return (0.0, 0.0)
    edited = any(track["edits"] for track in edits["tracks"] if track["kind"] == "video")
    return (0.0 if edited else round(1000 * max(video_start_s, 0.0), 3), round(1000 * AAC_SAMPLES / rate, 3))


def probe(path: Path, clip_id: str | None = None) -> MediaInfo:
    """Decode both streams of a file to the end and say what is in it.

    ``MediaError`` (one line, by name): missing, a folder, not media, truncated, damaged, a hole in a stream, no picture
    stream, no sound stream. What can be worked with but should be known is in ``warnings``.
    """
    path = Path(path)
    name = clip_id or path.name
    reader = ClipReader(path)
    reader.clip_id = name
    with opened(path, name) as container:
        for kind, word in (("video", "picture"), ("audio", "sound")):
            if stream_of(container, kind) is None:
                raise MediaError(name, f"the file has no {word} stream")
        length_s = (container.duration or 0) / 1_000_000
        if length_s > MAX_CLIP_S:
            raise MediaError(
                name, f"lasts {length_s / 60:.0f} min, clips of {MAX_CLIP_S // 60} min at most are read; cut it"
            )
    warnings: list[str] = []

    starts: list[Fraction] = []
    rotations, sizes, interlaced = set(), set(), False
    end, n_frames, clock = Fraction(0), 0, Fraction(1)
    for start_pts, duration, picture in reader.placed_pictures():
        start, clock = start_pts * picture.time_base, picture.time_base
        starts.append(start)
        rotations.add(picture.rotation % 360)
        sizes.add((picture.width, picture.height))
        interlaced |= bool(picture.interlaced_frame)
        end, n_frames = start + duration * clock, grid_frames(start_pts + duration, clock)
    sound = reader.placed_sound()
    origin = reader.origin_s or Fraction(0)

    with reader.stream("video") as (container, stream):
        rate = stream.guessed_rate
        mean = Fraction(len(starts) - 1) / starts[-1] if len(starts) > 1 else Fraction(rate or FRAME_RATE_HZ)
        fps = Fraction(rate) if rate and abs(mean - rate) < rate / 500 else mean.limit_denominator(1001)
        aspect = stream.sample_aspect_ratio
        declared_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
        whole_s = None if container.duration is None else Fraction(container.duration, 1_000_000)
        encoder = container.metadata.get("encoder", "") or stream.metadata.get("encoder", "")
        kind = container.format.name
    with reader.stream("audio") as (container, stream):
        sample_rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
        codec = stream.codec_context.name
        declared_sound_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
        packet = next((p for p in container.demux(stream) if p.pts is not None), None)
        first_packet_s = None if packet is None else float(packet.pts * packet.time_base)

    sound_s = Fraction(len(sound.samples), SAMPLE_RATE_HZ)
    if whole_s is not None:  # (mpegts declares nothing: its length is only estimated)
        whole_s = None if kind == "mpegts" else whole_s - max(origin, Fraction(0))
    lengths: list[tuple[str, Fraction, Fraction | None]] = [
        ("picture", end, declared_s),
        ("sound", sound_s - sound.start_s, declared_sound_s),
        ("file", max(end, sound_s), whole_s),
    ]
    for word, has, says in lengths:
        if says is not None and has < says - _DECLARED_SLACK_S:
            raise MediaError(
                name, f"truncated: the {word} ends at {float(has):.2f} s, {float(says):.2f} s are declared"
            )

    slack = min(clock / 2, Fraction(1, GRID_SLACK_PER_S))
    is_cfr_25 = all(abs(start - Fraction(k, FRAME_RATE_HZ)) <= slack for k, start in enumerate(starts))
    if not is_cfr_25:
        steps: list[Fraction] = [b - a for a, b in itertools.pairwise(starts)]
        regular = not steps or max(steps) <= min(steps) + 2 * clock
        warnings.append(
            f"source is {float(fps):.6g} fps{'' if regular else ', varying'}: "
            "the picture is read on the 25 fps grid, up to one source frame old"
        )
    if len(sizes) > 1:
        warnings.append(f"the picture size changes: {', '.join(f'{w}x{h}' for w, h in sorted(sizes))}")
    if len(rotations) > 1:
        raise MediaError(name, "the picture's rotation changes within the file")
    if interlaced:
        warnings.append("the picture is interlaced; it is read without deinterlacing")
    if aspect and abs(aspect - 1) > Fraction(1, 100):
        warnings.append(f"pixels are not square ({aspect.numerator}:{aspect.denominator}); they are taken as they are")
    if sound.start_s * 1000 > 1:
        warnings.append(f"sound begins {float(sound.start_s):.3f} s after the picture; that stretch is silence")
    if end - sound_s > Fraction(1, 10):
        warnings.append(f"sound ends {float(end - sound_s):.2f} s before the picture; the clip ends with the sound")
    if sound.patched:
        warnings.append(f"{1000 * sound.patched / sample_rate:.1f} ms of short holes in the sound are silence")
    if not sound.samples.any():
        warnings.append("the sound is silent (every sample is zero)")
    edits = edit_lists(path)
    doubt = clock_doubt_ms(codec, sample_rate, first_packet_s, float(origin), edits)
    warnings += clock_warnings(doubt)

    width, height = next(iter(sorted(sizes)))
    rotation = rotations.pop()
    return MediaInfo(
        n_frames=n_frames,
        n_samples=len(sound.samples),
        fps=fps,
        is_cfr_25=is_cfr_25,
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        rotation=rotation,
        sample_rate=sample_rate,
        channels=channels,
        video_start_s=float(origin),
        audio_start_s=float(origin + sound.start_s),
        first_audio_packet_s=first_packet_s,
        container=kind,
        encoder=encoder,
        warnings=tuple(warnings),
        edit_lists=edits,
        clock_doubt_ms=doubt,
    )
