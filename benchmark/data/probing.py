"""Read what a media file declares (``read_header``) and measure what it really contains (``probe``), with warnings."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from avbench.data.boxes import edit_lists
from avbench.data.edits import left_out_s, there_s
from avbench.data.grid import Grid
from avbench.data.media import MEASURED, ClipReader, SoundFacts
from avbench.data.orientation import Orientation, Orientations
from avbench.data.packets import packets
from avbench.data.pictures import PictureFacts
from avbench.data.sound import AAC_NAMES, AAC_SAMPLES, channels_of, sbr_delay_samples
from avbench.data.streams import WORDS, extent_s, opened
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from avbench.types import MediaError, Reading

MAX_CLIP_S = 3600  # longer files are refused as clips: the whole sound of a clip is kept in memory
_JITTER_S = Fraction(1, 200)  # of the pictures of a 25 fps source: more is said
_STILL_LEVELS = 20  # of 255: a smaller change of a part of the picture is a trace of coding
_TOLD = 3  # so many stretches of a kind are named in a warning
_LEAST_DOUBT_S = 0.005  # less is not worth a warning
_DELAYED = ("aac", "mp3", "mp2", "ac3", "eac3", "wma")  # sound whose encoders delay it
_LONGEST_DELAY = 1105  # samples, of the common mp3 encoders with their decoder; AAC's is 1024
_DECLARED_SLACK_S = Fraction(1, 2)  # a stream that ends this much before its declared duration is truncated


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file really contains, measured by decoding all of it. Times in seconds of the container's own clock."""

    n_frames: int  # on the 25 fps grid
    n_samples: int  # at 16 kHz
    fps: Fraction  # of the source; the mean rate where it varies
    is_cfr_25: bool  # grid frame k is exactly picture k
    width: int  # as shown: turned
    height: int
    rotation: int  # degrees counter-clockwise that the container asks for, before ``mirrored``
    sample_rate: int
    channels: int
    video_start_s: float
    audio_start_s: float
    first_audio_packet_s: float | None  # negative: an edit list signals the priming; 0 in mp4: none is signalled
    container: str
    encoder: str
    warnings: tuple[str, ...]
    tracks: tuple[str, ...] = ()  # those that were read, in words
    reading: Reading = MEASURED  # how the file is to be read from now on: the tracks, and the gaps that were found
    edit_lists: dict[str, Any] = field(default_factory=dict)  # of an mp4, see boxes.py
    clock_doubt_ms: tuple[float, float] = (0.0, 0.0)  # how early and how late the sound may be with no trace in it
    mirrored: bool = False  # left to right, after the rotation
    streams: tuple[int, int] = (0, 1)  # picture and sound that were read, counted from 0 among all of the file's

    @property
    def duration_s(self) -> float:
        """Seconds that both streams cover."""
        return min(self.n_frames / FRAME_RATE_HZ, self.n_samples / SAMPLE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file declares; only its first picture is decoded. Times in seconds."""

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
    tracks: tuple[str, ...]  # those that are read, in words
    track_warnings: tuple[str, ...]
    edit_lists: dict[str, Any]
    clock_doubt_ms: tuple[float, float]
    sbr_delay: int  # samples, of HE-AAC; 0: other sound


def read_header(path: Path, clip_id: str | None = None) -> Header:
    """What the file declares, without decoding it.

    ``MediaError``: missing, a folder, not media, no picture or no sound stream, a first picture that is damaged.
    """
    path = Path(path)
    reader = ClipReader(path, clip_id=clip_id)
    for kind in WORDS:
        reader.track(kind)  # refused before anything is decoded
    with contextlib.closing(reader.placed_pictures()) as pictures:
        orientation = Orientations().of(next(pictures)[2], reader.clip_id)
    video, audio = _Video.read(reader), _Audio.read(reader)
    aspect = video.pixel_aspect or Fraction(1)
    width, height = upright_size(video.width, video.height, aspect, orientation)
    start_s = float(reader.origin_s or 0)
    edits = edit_lists(path)
    return Header(
        container=video.container,
        encoder=video.encoder,
        duration_s=video.extent_s or None,
        width=width,
        height=height,
        fps=video.fps,
        pixel_aspect=aspect,
        video_codec=video.codec,
        audio_codec=audio.codec,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        video_start_s=start_s,
        first_audio_packet_s=audio.first_packet_s,
        declared_video_s=video.declared_s,
        declared_audio_s=audio.declared_s,
        tracks=_tracks(reader),
        track_warnings=_track_warnings(reader),
        edit_lists=edits,
        clock_doubt_ms=_doubt_ms(video, audio, start_s, edits),
        sbr_delay=audio.sbr_delay,
    )


def clock_warnings(doubt: tuple[float, float], sbr_delay: int = 0, container: str = "") -> list[str]:
    """``clock_doubt_ms`` in words; no line where nothing is in doubt. ``sbr_delay``: not 0 for HE-AAC."""
    early, late = doubt
    if not late:
        return []
    # the file does not tell whether its maker compensated the delay of the encoder
    text = "the delay of HE-AAC (SBR) is not fully signalled" if sbr_delay else "no AAC encoder delay is signalled"
    if container == "avi":
        text = "AVI cannot signal the delay of the sound's encoder"
    text += f": the sound may be up to {late:.0f} ms late in the source itself"
    return [text + (f", or {early:.0f} ms early" if early else "")]


def upright_size(width: int, height: int, aspect: Fraction, orientation: Orientation) -> tuple[int, int]:
    """Width and height a viewer sees: widened to square pixels, then turned."""
    wide = round(width * aspect)
    return (height, wide) if orientation.transposed else (wide, height)


def clock_doubt_ms(
    codec: str,
    rate: int,
    first_packet_s: float | None,
    video_start_s: float,
    edits: dict[str, Any],
    sbr_delay: int = 0,
) -> tuple[float, float]:
    """How many ms (early, late) the sound may be off in the source itself, with no trace in the file; (0, 0): no doubt.

    If the AAC track of an mp4 signals no encoder delay, its maker may have compensated it or not: the sound is at most
    1024 samples late with the common encoders. If the picture begins after 0 and has no edit list, the delay may come
    from reordered pictures or be real: the sound is then early by up to that delay.

    HE-AAC, in any container (``sbr_delay``: see ``sbr_delay_samples``): what is signalled often leaves out the
    decoder's share or counts samples at half their rate. FFmpeg applies what an edit list signals (the first packet is
    then before 0); what iTunSMPB signals it cuts off without moving the sound. The sound may be late by what is missing
    from the largest delay. A first packet by up to its own length before 0 may stem from a cut and signals nothing.
    """
    if codec not in AAC_NAMES or first_packet_s is None or not (edits or sbr_delay):
        return (0.0, 0.0)
    signalled_s, delay_s, packet_s = (
        max(-first_packet_s, 0.0),
        (sbr_delay or AAC_SAMPLES) / rate,
        2 * AAC_SAMPLES / rate,
    )
    late_s = 0.0 if signalled_s and not sbr_delay else delay_s
    if sbr_delay and packet_s < signalled_s < delay_s + packet_s:
        late_s -= signalled_s
    if late_s < _LEAST_DOUBT_S:
        return (0.0, 0.0)
    edited = not edits or any(track["edits"] for track in edits["tracks"] if track["kind"] == "video")
    early_s = 0.0 if signalled_s or edited else max(video_start_s, 0.0)
    return (round(1000 * early_s, 3), round(1000 * late_s, 3))


def _doubt_ms(video: _Video, audio: _Audio, origin_s: float, edits: dict[str, Any]) -> tuple[float, float]:
    """``clock_doubt_ms`` of a file. An AVI begins both streams at 0: its maker shifts the picture by whole frames, or
    the sound comes late by the delay of its encoder."""
    if video.container == "avi" and audio.codec.startswith(_DELAYED):
        frame_ms = 1000 / float(video.fps or FRAME_RATE_HZ)
        delay = max(audio.sbr_delay, _LONGEST_DELAY)
        return (round(frame_ms, 3), round(1000 * delay / audio.sample_rate, 3))
    return clock_doubt_ms(audio.codec, audio.sample_rate, audio.first_packet_s, origin_s, edits, audio.sbr_delay)


def probe(
    path: Path, clip_id: str | None = None, reading: Reading = MEASURED, longest_s: float = MAX_CLIP_S
) -> MediaInfo:
    """Decode both streams of a file to the end and return what was found.

    ``reading``: the tracks that are wanted (0: see ``streams.choose``), the grid, and the length of a hole that is a
    gap. ``MediaError`` (one line, with the clip's name): missing, a folder, not media, longer than ``longest_s``,
    truncated, damaged throughout, no picture, no sound. Problems that do not prevent its use are in ``warnings``.
    Memory does not grow with the file's length.
    """
    path = Path(path)
    reader = ClipReader(path, clip_id=clip_id, reading=reading)
    name = reader.clip_id
    reading = replace(reading, video_track=reader.track("video").number, audio_track=reader.track("audio").number)
    with opened(path, name) as container:
        length_s = extent_s(container)
    if length_s > longest_s:
        raise MediaError(
            name, f"lasts {length_s / 60:.0f} min, clips of {longest_s / 60:.0f} min at most are read; cut it"
        )
    shown = _Pictures.decode(reader)
    sound = reader.sound_facts()
    video, audio = _Video.read(reader), _Audio.read(reader)
    origin = reader.origin_s or Fraction(0)
    _refuse_short(name, shown, sound, (video, audio), origin)
    fps = shown.fps(video.fps)
    edits = edit_lists(path)
    doubt = _doubt_ms(video, audio, float(origin), edits)
    warnings = [
        *_track_warnings(reader),
        *_picture_warnings(shown, fps, video.pixel_aspect, reading.grid),
        *_sound_warnings(sound, shown.end_s, audio.sample_rate),
        *clock_warnings(doubt, audio.sbr_delay, video.container),
    ]
    orientation = shown.orientation(name)
    width, height = upright_size(*min(shown.sizes), Fraction(1), orientation)
    return MediaInfo(
        n_frames=shown.n_frames,
        n_samples=sound.n_samples,
        fps=fps,
        is_cfr_25=shown.is_cfr_25,
        width=width,
        height=height,
        rotation=orientation.rotation,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        video_start_s=float(origin),
        audio_start_s=float(origin + sound.start_s),
        first_audio_packet_s=audio.first_packet_s,
        container=video.container,
        encoder=video.encoder,
        warnings=tuple(warnings),
        tracks=_tracks(reader),
        reading=replace(reading, gaps=reader.gaps()),
        edit_lists=edits,
        clock_doubt_ms=doubt,
        mirrored=orientation.mirrored,
        streams=(reader.track("video").index, reader.track("audio").index),
    )


def _refuse_short(
    clip_id: str, shown: _Pictures, sound: SoundFacts, declared: tuple[_Video, _Audio], origin: Fraction
) -> None:
    """``MediaError`` if a stream, or the file, ends before it should. ``origin``: the first picture's stamp."""
    video, audio = declared
    sound_s = Fraction(sound.n_samples, SAMPLE_RATE_HZ)
    # (mpegts declares nothing: its length is only estimated)
    whole_s = None if video.container == "mpegts" else video.duration_s
    if whole_s is not None:
        whole_s -= max(origin, Fraction(0))
    refuse_truncated(
        clip_id,
        ("picture", shown.end_s, video.declared_s),
        ("sound", sound_s - sound.start_s, audio.declared_s),
        ("file", max(shown.end_s, sound_s), whole_s),
    )


def refuse_truncated(
    clip_id: str, *lengths: tuple[str, Fraction, Fraction | None], late_s: Fraction = Fraction(0)
) -> None:
    """``MediaError`` for the first of ``lengths``, (stream, decoded seconds, declared seconds or None), that ends over
    half a second before its declared end; ``late_s`` more is allowed."""
    for stream, found_s, declared_s in lengths:
        if declared_s is not None and found_s < declared_s - _DECLARED_SLACK_S - late_s:
            raise MediaError(
                clip_id,
                f"truncated: the {stream} ends at {float(found_s):.2f} s, {float(declared_s):.2f} s are declared",
            )


# ---------------------------------------------------------------------------------------------------- declared values


@dataclass(frozen=True, slots=True)
class _Video:
    """What the container declares of the file and of its picture stream."""

    container: str
    encoder: str
    duration_s: Fraction | None  # of the whole file, from the clock's 0
    extent_s: float  # of the whole file, from its first stamp
    width: int  # as stored
    height: int
    pixel_aspect: Fraction | None
    fps: Fraction | None  # as FFmpeg guesses it
    codec: str
    declared_s: Fraction | None  # of the picture stream

    @classmethod
    def read(cls, reader: ClipReader) -> _Video:
        with reader.stream("video") as (container, stream):
            duration, aspect, rate = container.duration, stream.sample_aspect_ratio, stream.guessed_rate
            declared_s = _declared_s(container, stream, reader.path)
            whole_s, length_s = None if duration is None else Fraction(duration, 1_000_000), extent_s(container)
            if declared_s is not None and left_out_s(reader.path, stream.id):  # (FFmpeg counts that twice)
                whole_s, length_s = declared_s, float(declared_s)
            return cls(
                container=container.format.name,
                encoder=container.metadata.get("encoder", "") or stream.metadata.get("encoder", ""),
                duration_s=whole_s,
                extent_s=length_s,
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                pixel_aspect=Fraction(aspect) if aspect else None,
                fps=None if rate is None else Fraction(rate),
                codec=stream.codec_context.name,
                declared_s=declared_s,
            )


@dataclass(frozen=True, slots=True)
class _Audio:
    """What the container declares of the sound stream, and the time of its first packet."""

    codec: str
    sample_rate: int
    channels: int
    declared_s: Fraction | None
    first_packet_s: float | None
    sbr_delay: int  # see sbr_delay_samples

    @classmethod
    def read(cls, reader: ClipReader) -> _Audio:
        with reader.stream("audio") as (container, stream):
            packet = next((p for p in packets(container, stream) if p.pts is not None), None)
            return cls(
                codec=stream.codec_context.name,
                sample_rate=stream.codec_context.sample_rate,
                channels=channels_of(stream),
                declared_s=_declared_s(container, stream, reader.path),
                first_packet_s=None if packet is None else float(packet.pts * packet.time_base),
                sbr_delay=sbr_delay_samples(stream),
            )


def _declared_s(container: Any, stream: Any, path: Path) -> Fraction | None:
    """The track's own length, of what its edit list plays; None where FFmpeg only repeats the file's."""
    if not container.format.name.startswith(("mov", "avi")) or stream.duration is None:
        return None
    declared_s: Fraction = Fraction(stream.duration) * stream.time_base - left_out_s(path, stream.id)
    there = there_s(path, stream.id)
    return declared_s if there is None else min(declared_s, there)


def _tracks(reader: ClipReader) -> tuple[str, ...]:
    return tuple(reader.track(kind).about for kind in ("video", "audio"))


def _track_warnings(reader: ClipReader) -> tuple[str, ...]:
    return tuple(text for kind in ("video", "audio") for text in reader.track(kind).warnings)


# ----------------------------------------------------------------------------------------------------- decoded values


@dataclass(frozen=True, slots=True)
class _Pictures:
    """What decoding the whole picture stream showed. Times in seconds of the clip's clock."""

    starts_s: list[Fraction]  # of every picture
    end_s: Fraction
    clock_s: Fraction  # one tick of the stream's clock
    n_frames: int  # on the 25 fps grid
    is_cfr_25: bool  # grid frame k is exactly picture k
    sizes: set[tuple[int, int]]  # (width, height) as stored
    orientations: set[Orientation]
    interlaced: bool
    still: bool  # the picture never changes
    facts: PictureFacts

    @classmethod
    def decode(cls, reader: ClipReader) -> _Pictures:
        starts_s: list[Fraction] = []
        sizes, orientations, shown_as, interlaced, still = set(), set(), Orientations(), False, _Stillness()
        grid, start, end, is_cfr_25 = Grid(reader.reading.grid, Fraction(1)), 0, 0, True
        for count, (start, length, picture) in enumerate(reader.placed_pictures()):
            if not count:
                grid = Grid(reader.reading.grid, picture.time_base)
            end = start + length
            starts_s.append(start * grid.base)
            is_cfr_25 &= grid.first_frame(start) == count
            sizes.add((picture.width, picture.height))
            orientations.add(shown_as.of(picture, reader.clip_id))
            interlaced |= bool(picture.interlaced_frame)
            still.look(picture)
        n_frames = max(grid.n_frames(end), grid.first_frame(start))
        return cls(
            starts_s=starts_s,
            end_s=end * grid.base,
            clock_s=grid.base,
            n_frames=n_frames,
            is_cfr_25=is_cfr_25 and n_frames == len(starts_s),
            sizes=sizes,
            orientations=orientations,
            interlaced=interlaced,
            still=still.never_changes,
            facts=reader.picture_facts,
        )

    def orientation(self, clip_id: str) -> Orientation:
        """``MediaError`` if there are several."""
        if len(self.orientations) > 1:
            raise MediaError(clip_id, "the orientation of the picture changes within the file")
        return min(self.orientations, key=str)

    @property
    def _whole_s(self) -> list[Fraction]:
        """``starts_s`` without the first one if an edit list begins inside its picture."""
        steps_s = [b - a for a, b in itertools.pairwise(self.starts_s)]
        return self.starts_s[1:] if len(steps_s) > 2 and steps_s[0] < min(steps_s[1:]) else self.starts_s

    @property
    def is_regular(self) -> bool:
        """Whether all pictures are shown for the same time, within the rounding of the stream's clock."""
        steps_s: list[Fraction] = [b - a for a, b in itertools.pairwise(self._whole_s)]
        return not steps_s or max(steps_s) <= min(steps_s) + 2 * self.clock_s

    def fps(self, guessed: Fraction | None) -> Fraction:
        """FFmpeg's guess where the pictures confirm it to 0.2 %, else their mean rate."""
        whole_s = self._whole_s
        many = len(whole_s) > 1
        mean = Fraction(len(whole_s) - 1) / (whole_s[-1] - whole_s[0]) if many else guessed or Fraction(FRAME_RATE_HZ)
        return guessed if guessed and abs(mean - guessed) < guessed / 500 else mean.limit_denominator(1001)

    @property
    def jitter_s(self) -> Fraction:
        """How far the pictures of a 25 fps source are off their grid frames."""
        return max(abs(start_s - Fraction(k, FRAME_RATE_HZ)) for k, start_s in enumerate(self.starts_s))


class _Stillness:
    """Whether the picture ever changes: thumbnails are compared with the first one, until one differs.

    Of a still image, the mean of 8 x 8 pixels changes by 2 grey levels when it is coded well and by 15 when coded badly
    (H.264 at crf 23 and 40); in real clips it changed by 74 and more. A file that moves costs a few thumbnails.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self.never_changes = True
        self._reformatter = VideoReformatter()
        self._first: np.ndarray | None = None

    def look(self, picture: Any) -> None:
        """At the next picture."""
        if not self.never_changes:
            return
        width, height = max(picture.width // 8, 1), max(picture.height // 8, 1)
        small = self._reformatter.reformat(picture, width, height, "gray", interpolation="AREA", threads=1)
        thumbnail = small.to_ndarray().astype(np.int16)
        if self._first is None:
            self._first = thumbnail
        elif thumbnail.shape != self._first.shape or np.abs(thumbnail - self._first).max() > _STILL_LEVELS:
            self.never_changes = False


def _picture_warnings(shown: _Pictures, fps: Fraction, pixel_aspect: Fraction | None, grid: str) -> Iterator[str]:
    yield from _grid_warnings(shown, fps, grid)
    yield from _gap_warnings(shown.facts)
    if shown.still and len(shown.starts_s) > 1:
        yield "the picture never changes (a still image)"
    if len(shown.sizes) > 1:
        yield f"the picture size changes: {', '.join(f'{w}x{h}' for w, h in sorted(shown.sizes))}"
    if shown.interlaced:
        yield "the picture is interlaced; it is read without deinterlacing"
    if pixel_aspect and abs(pixel_aspect - 1) > Fraction(1, 100):
        ratio = f"{pixel_aspect.numerator}:{pixel_aspect.denominator}"
        yield f"pixels are not square ({ratio}); they are taken as they are"
    yield from (orientation.note for orientation in shown.orientations if orientation.note)


def _grid_warnings(shown: _Pictures, fps: Fraction, grid: str) -> Iterator[str]:
    if not shown.is_cfr_25:
        how = "changes are seen up to 20 ms early or late" if grid == "centred" else "up to one source frame old"
        yield (
            f"source is {float(fps):.6g} fps{'' if shown.is_regular else ', varying'}: "
            f"the picture is read on the 25 fps grid, {how}"
        )
    elif shown.jitter_s > _JITTER_S:
        yield f"pictures are up to {1000 * float(shown.jitter_s):.0f} ms off the 25 fps grid, on which they are read"


def _gap_warnings(facts: PictureFacts) -> Iterator[str]:
    """What the stream lacks, in words."""
    for what, stretches in (("stands still", facts.holds), ("is missing or damaged", facts.gaps)):
        told = [f"for {float(end - start):.2f} s at {float(start):.2f} s" for start, end in stretches[:_TOLD]]
        more = f" and {len(stretches) - _TOLD} times more" if len(stretches) > _TOLD else ""
        if told:
            yield f"the picture {what} {', '.join(told)}{more}"
    for count, why in (
        (facts.late, "out of order: their time stamps lie before those of the picture before; they are left out"),
        (facts.same_stamp, "stamped with the same time as the next picture; they are left out"),
        (facts.unstamped, "without a time stamp; they are placed by the picture rate"),
    ):
        if count:
            yield f"{count} of {facts.shown + facts.late + facts.same_stamp} pictures are {why}"
    if facts.reorder_doubt_s:
        yield (
            "the file says when pictures are decoded, not when they are shown (as AVI does), and they are reordered "
            f"(B-frames): the picture may be up to {1000 * float(facts.reorder_doubt_s):.0f} ms early or late"
        )


def _sound_warnings(sound: SoundFacts, picture_end_s: Fraction, sample_rate: int) -> Iterator[str]:
    sound_s = Fraction(sound.n_samples, SAMPLE_RATE_HZ)
    if sound.start_s * 1000 > 1:
        yield f"sound begins {float(sound.start_s):.3f} s after the picture; that stretch is silence"
    if picture_end_s - sound_s > Fraction(1, 10):
        yield f"sound ends {float(picture_end_s - sound_s):.2f} s before the picture; the clip ends with the sound"
    if sound.patched:
        yield f"{1000 * sound.patched / sample_rate:.1f} ms of short holes in the sound are silence"
    yield from sound.warnings
