"""Reading and writing clips with PyAV, everything placed by ``pts * time_base`` and never by counting.

A clip has one clock: time 0 is the instant of its first picture (pts 0 in the files avbench writes; 1.48 s in many
mpegts files), and both streams are read on it. Grid frame k is what a viewer sees at k/25 s, sample k is what is heard
at k/16000 s. Offsets are imposed by whoever cuts windows out of these two, never here and never by muxing.

What this module promises was measured: a constant error of 64 ms (one AAC packet) is a third of a class.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.data.boxes import edit_lists
from avbench.data.sound import AAC_SAMPLES, SoundStream
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME
from avbench.types import AvbenchError, ClipRecord, FrontEnd, MediaError, UsageError

if TYPE_CHECKING:
    import av

MAX_CLIP_S = 3600  # probing refuses longer files: a clip's sound is held in memory as a whole
_GRID_SLACK_PER_S = 2000  # 1/2000 s: containers with a 1 ms clock (mkv) round picture times by up to half of it
_PICTURE_HOLE_S = 1  # a longer step between two pictures is damage, not a slow source
# playlists and scripts posing as media could otherwise make FFmpeg open other files or addresses
_OPEN_OPTIONS = {"format_whitelist": "mp4,matroska,mpegts,avi", "protocol_whitelist": "file"}
_DECLARED_SLACK_S = Fraction(1, 2)  # a file ending this much before its own declared duration is truncated


# ---------------------------------------------------------------------------------------------------------- writing


def encode_clip(
    path: Path,
    frames: Iterable[np.ndarray],
    audio: np.ndarray,
    *,
    crf: int = 26,
    preset: str = "veryfast",
    audio_bit_rate: int = 48_000,
    end_with_picture: bool = False,
    mbtree: bool = False,
) -> None:
    """Write an mp4 clip: H.264 High at 25 fps (frame k at pts k/25 s exactly) and AAC-LC 16 kHz mono (no lag).

    ``frames``: (H, W, 3) uint8 RGB arrays, or one (T, H, W, 3) array; H and W even. ``audio``: (N,) float32 in [-1, 1];
    with ``end_with_picture`` what lasts longer than the frames is left out.
    The same input gives the same bytes: one encoder thread (libx264's output depends on the thread count), and no
    ``mbtree``: with it (and x264's vector code) some clips' bytes depend on what the process did before, where frames
    are decoded while others are encoded. The file appears under ``path`` only when complete. ``UsageError`` for input
    of another shape; ``AvbenchError`` if the file cannot be written.
    """
    import av

    path = Path(path)
    sound = np.ascontiguousarray(audio, dtype=np.float32)
    if sound.ndim != 1 or not sound.size or not np.isfinite(sound).all():
        raise UsageError(f"{path.name}: audio must be (N,) finite samples with N > 0, not {np.shape(audio)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # bf=0: the first picture has pts 0 and no edit list is needed; g=25: a seek never decodes more than one second
    options = {"crf": str(crf), "preset": preset, "g": "25", "bf": "0", "mbtree": str(int(mbtree))}
    try:
        # the default movie clock of 1 ms would round the sound's length in the edit list to 16 samples
        clock = {"movie_timescale": str(SAMPLE_RATE_HZ)}
        with av.open(str(temporary), "w", format="mp4", options=clock) as container:
            _encode(container, path.name, iter(frames), sound, options, audio_bit_rate, end_with_picture)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, av.FFmpegError) as error:
        raise AvbenchError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(
    container: av.container.OutputContainer,
    name: str,
    frames: Iterator[np.ndarray],
    sound: np.ndarray,
    options: dict[str, str],
    bit_rate: int,
    end_with_picture: bool,
) -> None:
    import av

    first = next(frames, None)
    if first is None:
        raise UsageError(f"{name}: there are no frames to encode")
    shape = np.shape(first)
    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
        raise UsageError(f"{name}: frames must be (H, W, 3) with even H and W, not {shape}")

    video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options=options)
    video.height, video.width = shape[:2]
    video.pix_fmt = "yuv420p"
    video.thread_count = 1
    voice = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=bit_rate)
    position, held = 0, AAC_SAMPLES if end_with_picture else 0

    def write_sound(until: int) -> None:
        """Whole AAC packets up to sample ``until``: the two streams stay interleaved, memory stays bounded."""
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


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Sound:
    samples: np.ndarray  # (n_samples,) float32, 16 kHz
    start_s: Fraction  # of the first decoded sample on the clip's clock (negative: before the picture)
    patched: int  # native samples of short holes that were left silent


class ClipReader:
    """One clip's picture and sound on the clip's clock. Each stream is decoded linearly, once, by one thread.

    With ``clip`` given, exactly ``clip.n_frames`` frames and ``clip.n_samples`` samples come out, or a ``MediaError``
    that says what is missing; without it, everything the file holds. A context manager for symmetry with files: no
    file stays open between calls.
    """

    def __init__(self, path: Path, clip: ClipRecord | None = None) -> None:
        self.path = Path(path)
        self.clip = clip
        self.clip_id = clip.id if clip else self.path.name
        self._sound: _Sound | None = None
        self._origin: Fraction | None = None

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._sound = None

    def audio(self) -> np.ndarray:
        """(n_samples,) float32 mono 16 kHz; sample k is at k/16000 s of the clip's clock.

        Native 16 kHz mono comes out untouched; channels are averaged; another rate is resampled over the whole clip at
        once, so that the phase does not depend on where a window starts. Sound that begins after the picture is
        preceded by silence. ``MediaError``: unreadable, no sound, a hole, or shorter than the manifest says.
        """
        samples = self._read_sound().samples
        if self.clip is None:
            return samples
        if len(samples) < self.clip.n_samples:
            raise self._error(
                f"sound ends at {len(samples) / SAMPLE_RATE_HZ:.2f} s, "
                f"the manifest says {self.clip.n_samples / SAMPLE_RATE_HZ:.2f} s"
            )
        return samples[: self.clip.n_samples]

    def audio_blocks(self) -> Generator[np.ndarray]:
        """The same sound as :meth:`audio` of a reader without ``clip``, in (n,) float32 blocks of about a second.

        Memory stays bounded however long the file is; the concatenated blocks are exactly what ``audio`` returns.
        """
        self._find_origin()
        assert self._origin is not None
        with self._open("audio") as (container, stream):
            yield from SoundStream(container, stream, self._origin, self._error)

    def pictures(self) -> Generator[av.VideoFrame]:
        """The decoded picture of every grid frame k, in order: what :meth:`frames` converts. A picture held over
        several grid frames is the same object again."""
        yield from self._grid()

    def frames(self, *frontends: FrontEnd) -> Generator[tuple[np.ndarray, ...]]:
        """For each grid frame k one (3, size, size) uint8 RGB array per front end; the picture is decoded once
        (front ends with fit "short" get the whole picture, its short side ``size``).

        Grid frame k is the last picture with pts <= k/25 s: for a 25 fps source exactly its k-th frame. A picture
        held over several grid frames is the same array object again. ``MediaError``: unreadable, no picture, a hole,
        or a stream that ends before the manifest says; ``UsageError`` for a front end no clip can serve.
        """
        for frontend in frontends:
            _check_frontend(frontend)
        reformat, clip_id, n_frames = rgb_converter(), self.clip_id, self.clip.n_frames if self.clip else None
        shown: Any = None
        arrays: tuple[np.ndarray, ...] = ()
        shape: tuple[int, ...] = ()
        count = 0
        with contextlib.closing(self._grid()) as grid:
            for picture in grid:
                if picture is not shown:
                    shown, rgb = picture, reformat(picture, clip_id)
                    if rgb.shape != shape:
                        shape, fits = rgb.shape, [_fit(rgb.shape, frontend, clip_id) for frontend in frontends]
                    arrays = tuple([fit(rgb) for fit in fits])
                yield arrays
                count += 1
                if count == n_frames:
                    return
        if self.clip:
            raise self._error(
                f"picture ends at {count / FRAME_RATE_HZ:.2f} s, "
                f"the manifest says {self.clip.n_frames / FRAME_RATE_HZ:.2f} s"
            )

    def _grid(self) -> Generator[av.VideoFrame]:
        """The decoded picture of every 25 fps grid instant, in order (held pictures repeated)."""
        held: Any = None
        count, end, base = 0, 0, Fraction(1)
        up = down = slack = 1
        for start, duration, picture in self._pictures():
            if held is None:
                base = picture.time_base
                # _grid_frames_before(start, base) with its constant parts worked out once: this runs for every frame
                up, down = base.numerator * _GRID_SLACK_PER_S * FRAME_RATE_HZ, base.denominator * _GRID_SLACK_PER_S
                slack = base.denominator * FRAME_RATE_HZ
            else:
                until = -((slack - start * up) // down)
                while count < until:
                    yield held
                    count += 1
            held, end = picture, start + duration
        until = _grid_frames(end, base)
        while held is not None and count < until:
            yield held
            count += 1

    def _pictures(self) -> Generator[tuple[int, int, Any]]:
        """(start on the clip's clock, duration), both in units of the frame's time base, and the decoded frame.

        Plain integers, as exact as fractions and cheap enough to check every frame for holes.
        """
        with self._open("video") as (container, stream):
            base = stream.time_base
            longest = _PICTURE_HOLE_S * base.denominator // base.numerator
            usual = round(1 / (base * (stream.guessed_rate or FRAME_RATE_HZ)))
            first = last = None
            for picture in container.decode(stream):
                now = picture.pts
                if now is None or picture.is_corrupt:
                    at = f"{0.0 if last is None or first is None else float((last - first) * base):.2f} s"
                    what = "is damaged" if picture.is_corrupt else "has no time stamps (remux the file to mp4)"
                    raise self._error(f"the picture {what} at about {at}")
                if first is None:
                    first = now
                    self._origin = Fraction(now * base)
                if last is not None:
                    usual = now - last
                    if not 0 < usual <= longest:
                        what = "has a hole" if usual > 0 else "runs backwards"
                        raise self._error(
                            f"the picture {what} of {float(abs(usual) * base):.2f} s at "
                            f"{float((last - first) * base):.2f} s"
                        )
                last = now
                duration = picture.duration or 0
                # a missing or absurd duration (mpegts) is replaced by the last step, or by the file's rate
                yield now - first, duration if 0 < duration <= 2 * usual else usual, picture
            if first is None:
                raise self._error("the picture stream holds no picture")

    def _read_sound(self) -> _Sound:
        if self._sound is None:
            self._find_origin()
            assert self._origin is not None
            with self._open("audio") as (container, stream):
                placed = SoundStream(container, stream, self._origin, self._error)
                samples = np.concatenate(list(placed))
            self._sound = _Sound(samples, placed.start_s, placed.patched)
        return self._sound

    def _find_origin(self) -> None:
        """Time 0 of the clip: the first picture's pts."""
        if self._origin is None:
            with contextlib.closing(self._pictures()) as pictures:
                next(pictures)

    @contextlib.contextmanager
    def _open(self, kind: str) -> Iterator[tuple[av.container.InputContainer, Any]]:
        """The opened file and its first stream of ``kind``; every FFmpeg error inside becomes a ``MediaError``."""
        import av

        try:
            with _opened(self.path, self.clip_id) as container:
                stream = _stream_of(container, kind)
                if stream is None:
                    raise self._error(f"the file has no {'picture' if kind == 'video' else 'sound'} stream")
                # one thread: the same cost, no thread pool per clip, and errors at the frame they belong to
                stream.codec_context.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                yield container, stream
        except (av.FFmpegError, OSError) as error:
            raise self._error(
                f"the {'picture' if kind == 'video' else 'sound'} is damaged ({_reason(error)})"
            ) from error

    def _error(self, reason: str) -> MediaError:
        return MediaError(self.clip_id, reason)


@contextlib.contextmanager
def _opened(path: Path, clip_id: str) -> Iterator[av.container.InputContainer]:
    import av

    try:
        if path.is_dir():
            raise MediaError(clip_id, f"{path} is a folder, not a media file")
        if not path.exists():
            raise MediaError(clip_id, f"{path} does not exist")
        # absolute, so that no name is taken for a protocol ("a:b.mp4")
        container = av.open(str(path.absolute()), metadata_errors="replace", options=_OPEN_OPTIONS)
    except (av.FFmpegError, OSError) as error:
        raise MediaError(clip_id, f"{path} is not a readable media file ({_reason(error)})") from error
    with container:
        yield container


def _stream_of(container: av.container.InputContainer, kind: str) -> Any:
    """First picture or sound stream (cover art is not a picture stream), or None."""
    import av

    for stream in container.streams:
        if stream.type == kind and not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def _grid_frames_before(instant: int, base: Fraction) -> int:
    """How many grid instants 0, 1/25, ... lie more than the clock slack (0.5 ms) before ``instant``, rounded up.

    A picture whose pts is up to 0.5 ms after k/25 s still counts as shown at k/25 s.
    """
    late = instant * base.numerator * _GRID_SLACK_PER_S - base.denominator
    return max(0, -(-late * FRAME_RATE_HZ // (base.denominator * _GRID_SLACK_PER_S)))


def _grid_frames(end: int, base: Fraction) -> int:
    """Length of the grid for a picture that ends at ``end``: 2 ms of rounding must not conjure up one more frame."""
    return max(1, _grid_frames_before(end - round(Fraction(3, 2000) / base), base))


# ------------------------------------------------------------------------------------------------------------ picture


def _check_frontend(frontend: FrontEnd) -> None:
    if frontend.short_side and (frontend.fit != "crop" or frontend.short_side < frontend.size):
        raise UsageError(
            f"front end short_side is {frontend.short_side}; it goes with fit 'crop' and is at least size "
            f"({frontend.size})"
        )
    if frontend.fit not in ("square", "crop", "short"):
        raise UsageError(f"front end fit is {frontend.fit!r}; it must be 'square', 'crop' or 'short'")
    if frontend.fps != FRAME_RATE_HZ or frontend.sample_rate != SAMPLE_RATE_HZ:
        raise UsageError(
            f"front end wants {frontend.fps} fps and {frontend.sample_rate} Hz; clips are read at 25 fps and 16000 Hz"
        )
    if frontend.size < 1:
        raise UsageError(f"front end size is {frontend.size}; it must be positive")


def rgb_converter() -> Any:
    """Decoded frame -> (H, W, 3) uint8 RGB, upright. One scaler for the whole clip, one thread: a scaler (with its
    thread pool) made anew for every frame costs fifteen times as much."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()

    def convert(picture: av.VideoFrame, clip_id: str) -> np.ndarray:
        plane = reformatter.reformat(picture, format="rgb24", threads=1).planes[0]
        # a view with the scaler's row padding: only the part a front end cuts out is ever copied
        buffer: Any = plane
        rgb: np.ndarray = np.ndarray((plane.height, plane.width, 3), np.uint8, buffer, 0, (plane.line_size, 3, 1))
        if not picture.rotation:
            return rgb
        turns, rest = divmod(picture.rotation, 90)
        if rest:
            raise MediaError(
                clip_id, f"the picture is rotated by {picture.rotation} degrees; only multiples of 90 work"
            )
        return np.rot90(rgb, turns)  # FFmpeg and numpy both count counter-clockwise

    return convert


def _fit(shape: tuple[int, ...], frontend: FrontEnd, clip_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """What makes (H, W, 3) of this shape (3, size, size), contiguous; with fit "short" (3, size, wider) or
    (3, higher, size)."""
    size, short = frontend.size, min(shape[:2])
    wanted = (frontend.short_side or short) if frontend.fit == "crop" else size
    if wanted != short:
        height, width = (wanted * side // short for side in shape[:2])
    else:
        height, width = shape[:2]
    if frontend.fit == "short":
        rows = columns = slice(None)
    elif height < size or width < size:
        raise MediaError(clip_id, f"the picture is {width}x{height}, the model's crop needs {size}x{size}")
    else:
        # Python's round (half to even), as in the published code
        top, left = round((height - size) / 2.0), round((width - size) / 2.0)
        rows, columns = slice(top, top + size), slice(left, left + size)
    if wanted != short:
        return lambda rgb: _resized(rgb, (height, width))[rows, columns].transpose(2, 0, 1).copy()
    if frontend.fit == "short" or height == width == size:
        return lambda rgb: rgb.transpose(2, 0, 1).copy()
    return lambda rgb: rgb[rows, columns].transpose(2, 0, 1).copy()


def _resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear in torch (bit-identical to torchvision's; swscale differs by up to 69 grey levels)."""
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    resized = interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


# ------------------------------------------------------------------------------------------------------------ probing


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
    with _opened(path, name) as container:
        for kind, word in (("video", "picture"), ("audio", "sound")):
            if _stream_of(container, kind) is None:
                raise MediaError(name, f"the file has no {word} stream")
    with contextlib.closing(reader._pictures()) as pictures:
        rotation = next(pictures)[2].rotation
    with reader._open("video") as (container, stream):
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        width, height = upright_size(stream.codec_context.width, stream.codec_context.height, aspect, rotation)
        container_name, duration = container.format.name, container.duration
        encoder = container.metadata.get("encoder", "") or stream.metadata.get("encoder", "")
        fps, video_codec = stream.guessed_rate, stream.codec_context.name
        declared_video_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
    with reader._open("audio") as (container, stream):
        packet = next((p for p in container.demux(stream) if p.pts is not None), None)
        first_packet_s = None if packet is None else float(packet.pts * packet.time_base)
        sound = stream.codec_context
        declared_audio_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
    start_s = float(reader._origin or 0)
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
    with _opened(path, name) as container:
        for kind, word in (("video", "picture"), ("audio", "sound")):
            if _stream_of(container, kind) is None:
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
    for start_pts, duration, picture in reader._pictures():
        start, clock = start_pts * picture.time_base, picture.time_base
        starts.append(start)
        rotations.add(picture.rotation % 360)
        sizes.add((picture.width, picture.height))
        interlaced |= bool(picture.interlaced_frame)
        end, n_frames = start + duration * clock, _grid_frames(start_pts + duration, clock)
    sound = reader._read_sound()
    origin = reader._origin or Fraction(0)

    with reader._open("video") as (container, stream):
        rate = stream.guessed_rate
        mean = Fraction(len(starts) - 1) / starts[-1] if len(starts) > 1 else Fraction(rate or FRAME_RATE_HZ)
        fps = Fraction(rate) if rate and abs(mean - rate) < rate / 500 else mean.limit_denominator(1001)
        aspect = stream.sample_aspect_ratio
        declared_s = None if stream.duration is None else Fraction(stream.duration) * stream.time_base
        whole_s = None if container.duration is None else Fraction(container.duration, 1_000_000)
        encoder = container.metadata.get("encoder", "") or stream.metadata.get("encoder", "")
        kind = container.format.name
    with reader._open("audio") as (container, stream):
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

    slack = min(clock / 2, Fraction(1, _GRID_SLACK_PER_S))
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


def media_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes; ``MediaError`` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(Path(path).name, f"cannot be read ({_reason(error)})") from error
