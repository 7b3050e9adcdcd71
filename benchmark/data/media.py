"""Read clips with PyAV; every frame and sample is placed by ``pts * time_base``, never by counting.

A clip has one clock: time 0 is the instant of its first picture (pts 0 in the files avbench writes; 1.48 s in many
mpegts files), and both streams are read on it. Grid frame k is what a viewer sees from k/25 s on (``grid.py`` says
which picture that is at other rates), sample k is what is heard at k/16000 s. Offsets are imposed by the code that cuts
windows out of these two, never here and never by muxing.

The tests measure this alignment: a constant error of 64 ms (one AAC packet) is a third of a class.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.data.edits import UNEDITED, EditList, edits_to_follow
from avbench.data.grid import Grid
from avbench.data.orientation import Orientations
from avbench.data.packets import packets
from avbench.data.pictures import PictureFacts, PictureStream
from avbench.data.sound import SoundStream
from avbench.data.streams import WORDS, Track, choose, opened, readable, reason_of
from avbench.system.paths import shown, why_no_file
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from avbench.types import ClipRecord, FrontEnd, Gap, MediaError, Reading, UsageError

if TYPE_CHECKING:
    import av

# Part of the key of every stored snapshot. Raise it whenever a picture or a sound sample that a model is given may have
# changed: decoding, placing on the clip's clock, resampling, resizing, cropping, cutting windows. Snapshots of other
# versions are then missing and computed again. tests/engine/test_sources.py fails when the sources change.
READER_VERSION = 2

# how a file is read that has not been measured yet: tracks are chosen, and the holes found become gaps
MEASURED = Reading(grid="centred", sound_gap=SAMPLE_RATE_HZ // 100)
# containers that say when pictures are shown
_STAMPED = ("mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "mpeg", "flv")
_ENOUGH_PACKETS = 50  # to see whether any of a container's packets says when its picture is shown


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """What a file's sound is, measured to its end."""

    n_samples: int  # at 16 kHz
    start_s: Fraction  # of the first decoded sample on the clip's clock (negative: before the picture)
    patched: int  # native samples of short holes that were left silent
    warnings: tuple[str, ...] = ()  # what is unusual in the sound, in words


class ClipReader:
    """One clip's picture and sound on the clip's clock. Each stream is decoded once, front to back, by one thread.

    With ``clip`` given, exactly ``clip.n_frames`` frames and ``clip.n_samples`` samples are read as ``clip.reading``
    says, or a ``MediaError`` says what is missing; without it, everything in the file as ``reading`` says, and errors
    name ``clip_id`` (default: the file's name). Track 0 of ``reading`` leaves the choice to ``streams.choose``. Holes
    inside the streams are filled (the picture before is held, silence) and told by ``gaps``.
    It is a context manager so that it is used like a file; no file stays open between calls.

    ``picture_facts`` is what reading the pictures found, among it ``picture_gaps``: final when they have been read to
    the end.
    """

    def __init__(
        self, path: Path, clip: ClipRecord | None = None, clip_id: str | None = None, reading: Reading = MEASURED
    ) -> None:
        self.path = Path(path)
        self.clip = clip
        self.clip_id = clip.id if clip else clip_id or self.path.name
        self.reading = clip.reading if clip else reading
        self._tracks: dict[str, Track] = {}
        self.picture_facts = PictureFacts()
        self._sound_gaps: list[tuple[Fraction, Fraction]] = []
        self._sound: np.ndarray | None = None
        self.origin_s: Fraction | None = None  # time of the first picture, once one of the streams has been read

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._sound = None

    def audio(self) -> np.ndarray:
        """(n_samples,) float32 mono 16 kHz; sample k is at k/16000 s of the clip's clock.

        16 kHz mono is not changed; channels are averaged; another rate is resampled over the whole clip at once, so
        that the phase does not depend on where a window starts. Sound that begins after the picture is preceded by
        silence; so is what is missing (see ``gaps``). ``MediaError``: unreadable, no sound, or shorter than the
        manifest says.
        """
        if self._sound is None:  # decoded only once
            self._sound = np.concatenate(list(self.audio_blocks()))
        samples = self._sound
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

        Memory stays bounded for files of any length; the concatenated blocks are exactly what ``audio`` returns.
        """
        self._find_origin()
        with self._sound_stream() as sound:
            yield from sound

    def pictures(self) -> Generator[av.VideoFrame]:
        """The decoded picture of every grid frame k, in order, before :meth:`frames` converts it. A picture held over
        several grid frames is the same object again."""
        yield from self._grid()

    def frames(self, *frontends: FrontEnd) -> Generator[tuple[np.ndarray, ...]]:
        """For each grid frame k one (3, size, size) uint8 RGB array per front end; the picture is decoded once
        (front ends with fit "short" get the whole picture, its short side ``size``).

        Of a 25 fps source, grid frame k is exactly its k-th picture. A picture held over several grid frames is the
        same array object again. ``MediaError``: unreadable, no picture, mostly damaged, or not as the manifest says;
        ``UsageError`` for a front end with impossible settings.
        """
        for frontend in frontends:
            check_frontend(frontend)
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
                        shape, fits = rgb.shape, [fitting(rgb.shape, frontend, clip_id) for frontend in frontends]
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
        """The decoded picture of every 25 fps grid frame, in order (held pictures repeated)."""
        held: Any = None
        grid = Grid(self.reading.grid, Fraction(1))
        count = end = 0
        for start, length, picture in self.placed_pictures():
            if held is None:
                grid = Grid(self.reading.grid, picture.time_base)
            else:
                until = grid.first_frame(start)
                while count < until:
                    yield held
                    count += 1
            held, end = picture, start + length
        until = grid.n_frames(end)
        while held is not None and count < until:
            yield held
            count += 1

    def placed_pictures(self) -> Generator[tuple[int, int, Any]]:
        """(start on the clip's clock, length, decoded picture) in order; the times are whole numbers of the picture's
        time base. The picture before stands in for damaged and missing ones: see ``picture_gaps``."""
        with self._picture_stream() as pictures:
            self.picture_facts = pictures.facts
            for placed in pictures:
                self.origin_s = pictures.origin_s
                yield placed

    @property
    def picture_gaps(self) -> list[tuple[Fraction, Fraction]]:
        """(start_s, end_s) of every gap in the picture that was found, on the clip's clock."""
        return self.picture_facts.gaps

    @contextlib.contextmanager
    def _picture_stream(self) -> Iterator[PictureStream]:
        """The pictures of the file, opened in the way in which this container must be read."""
        with self._placed_stream("video") as (container, stream, edits):
            yield PictureStream(
                container,
                stream,
                self._error,
                edits=edits,
                as_decoded=edits is None and self._stamped_as_decoded(container.format.name, stream),
                gap_s=Fraction(self.reading.picture_gap, SAMPLE_RATE_HZ),
            )

    @contextlib.contextmanager
    def _sound_stream(self) -> Iterator[SoundStream]:
        with self._placed_stream("audio") as (container, stream, edits):
            assert self.origin_s is not None
            gap_s = Fraction(self.reading.sound_gap, SAMPLE_RATE_HZ)
            placed = SoundStream(container, stream, self.origin_s, self._error, gap_limit_s=gap_s, edits=edits)
            self._sound_gaps = placed.gaps
            yield placed

    @contextlib.contextmanager
    def _placed_stream(self, kind: str) -> Iterator[tuple[av.container.InputContainer, Any, EditList | None]]:
        """The opened file, its stream, and the edit list where FFmpeg must leave it to us."""
        with self.stream(kind) as (container, stream):
            is_mp4 = "mp4" in container.format.name.split(",")
            edits = edits_to_follow(self.path, stream.id, kind, self.clip_id) if is_mp4 else None
            if edits is None:
                yield container, stream, None
                return
        with self.stream(kind, UNEDITED) as (container, stream):
            yield container, stream, edits

    def _stamped_as_decoded(self, container: str, stream: Any) -> bool:
        """Whether the file says only when pictures are decoded, not when they are shown (AVI, ASF, AVI in Matroska).
        FFmpeg then makes times up, up to several pictures late."""
        if container in _STAMPED or (container == "matroska,webm" and not stream.codec_context.codec_tag.strip("\0")):
            return False
        with self.stream("video", {"fflags": "nofillin"}) as (plain, its_stream):
            first = list(itertools.islice((p for p in packets(plain, its_stream) if p.size), _ENOUGH_PACKETS))
            return any(p.dts is not None for p in first) and all(p.pts is None for p in first)

    def sound_facts(self) -> SoundFacts:
        """What :meth:`audio` returns without ``clip``, measured in bounded memory; the same errors."""
        self._find_origin()
        with self._sound_stream() as placed:
            n_samples = sum(map(len, placed))
        return SoundFacts(n_samples, placed.start_s, placed.patched, tuple(placed.warnings()))

    def gaps(self) -> tuple[Gap, ...]:
        """What is missing inside the picture and the sound, as far as they have been read, in time order."""
        found = [("sound", *ends) for ends in self._sound_gaps]
        found += [("picture", *ends) for ends in self.picture_gaps]
        gaps = [Gap(kind, floor(start * SAMPLE_RATE_HZ), ceil(end * SAMPLE_RATE_HZ)) for kind, start, end in found]
        return tuple(sorted(gaps, key=lambda gap: (gap.start, gap.end, gap.kind)))

    def _find_origin(self) -> None:
        """Set time 0 of the clip: the first picture's pts."""
        if self.origin_s is None:
            with self._picture_stream() as pictures, contextlib.closing(pictures.__iter__()) as placed:
                next(placed)
                self.origin_s = pictures.origin_s

    def track(self, kind: str) -> Track:
        """The track of ``kind`` ("video" or "audio") that is read. ``MediaError``: there is none that can be."""
        if kind not in self._tracks:
            number = self.reading.video_track if kind == "video" else self.reading.audio_track
            if self.clip and not number:  # a manifest that does not say it means the first one
                number = 1
            self._tracks[kind] = choose(self.path, self.clip_id, kind, number)
        return self._tracks[kind]

    @contextlib.contextmanager
    def stream(
        self, kind: str, options: Mapping[str, str] | None = None
    ) -> Iterator[tuple[av.container.InputContainer, Any]]:
        """The opened file and the stream of ``kind`` that is read; every FFmpeg error inside becomes a ``MediaError``.
        ``options``: more of FFmpeg's for reading the container."""
        track = self.track(kind)
        with readable(self.clip_id, f"the {WORDS[kind]}"), opened(self.path, self.clip_id, options) as container:
            stream: Any = container.streams[track.index]
            # one thread: the same cost, no thread pool per clip, and errors at the frame they belong to
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            yield container, stream

    def _error(self, reason: str) -> MediaError:
        return MediaError(self.clip_id, reason)


# ------------------------------------------------------------------------------------------------------------ picture


def check_frontend(frontend: FrontEnd) -> None:
    """``UsageError`` for a front end with impossible settings."""
    if frontend.short_side and (frontend.fit != "crop" or frontend.short_side < frontend.size):
        raise UsageError(
            f"front end short_side is {frontend.short_side}; it needs fit 'crop' and must be at least size "
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
    if frontend.audio_lead_trim_samples < 0:
        raise UsageError(
            f"front end audio_lead_trim_samples is {frontend.audio_lead_trim_samples}; it must be 0 or more"
        )


def rgb_converter() -> Any:
    """A function (decoded frame, clip id) -> (H, W, 3) uint8 RGB, upright. It keeps one scaler for the whole clip, with
    one thread: a new scaler (with its thread pool) for every frame costs fifteen times as much."""
    from av.video.reformatter import VideoReformatter

    reformatter, orientations = VideoReformatter(), Orientations()

    def convert(picture: av.VideoFrame, clip_id: str) -> np.ndarray:
        plane = reformatter.reformat(picture, format="rgb24", threads=1).planes[0]
        # a view with the scaler's row padding: only the part a front end cuts out is ever copied
        buffer: Any = plane
        rgb: np.ndarray = np.ndarray((plane.height, plane.width, 3), np.uint8, buffer, 0, (plane.line_size, 3, 1))
        return orientations.of(picture, clip_id).upright(rgb)

    return convert


def fitting(shape: tuple[int, ...], frontend: FrontEnd, clip_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """The function that turns (H, W, 3) arrays of this shape into (3, size, size), contiguous; with fit "short" into
    (3, size, wider) or (3, higher, size)."""
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
        return lambda rgb: resized(rgb, (height, width))[rows, columns].transpose(2, 0, 1).copy()
    if frontend.fit == "short" or height == width == size:
        return lambda rgb: rgb.transpose(2, 0, 1).copy()
    return lambda rgb: rgb[rows, columns].transpose(2, 0, 1).copy()


def resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8 (not contiguous), by torch's antialiased bilinear resizing.

    Bit-identical to torchvision's; swscale differs by up to 69 grey levels. ``size``: (height, width) in pixels.
    """
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    scaled = interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return scaled[0].permute(1, 2, 0).numpy()


def media_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes; ``MediaError`` if it cannot be read or is no file (a pipe would never end)."""
    problem = why_no_file(Path(path))
    if problem:
        raise MediaError(Path(path).name, f"{shown(path)} {problem}")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(Path(path).name, f"cannot be read ({reason_of(error)})") from error
