"""Open untrusted media files, and choose the picture and the sound track that are read.

A file may have several tracks of a kind. The one that is read is, in this order: the one that was asked for; the first
that the file marks as default and that can be used; the first that can be used. A track cannot be used if nothing here
decodes it, if it is cover art or a single picture (a thumbnail), or if it is silent while another one is not.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.data.boxes import lacks_index
from avbench.data.packets import packets
from avbench.data.sound import Samples, channels_of
from avbench.system.paths import shown, why_no_file
from avbench.types import MediaError, first_line

if TYPE_CHECKING:
    import av

# FFmpeg's names of the containers that hold picture and sound in one file. Playlists, scripts, image sequences and
# network descriptions are not among them: posing as media, they could make FFmpeg open other files or addresses.
CONTAINERS = (
    *("mov", "mp4", "matroska", "webm", "mpegts", "mpeg", "avi", "flv", "live_flv", "kux", "asf", "asf_o", "ogg"),
    *("mxf", "gxf", "lxf", "rm", "ivr", "nut", "nuv", "wtv", "dv", "swf", "nsv", "pva", "ty", "mtv", "dhav", "mgsts"),
    *("roq", "smk", "bink", "film_cpk", "4xm", "vmd", "xmv", "usm", "ifv", "luodat", "vividas", "lmlm4"),
)
_OPEN_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
WORDS = {"video": "picture", "audio": "sound"}  # FFmpeg's kinds of streams, as people here call them
_SILENCE = 1e-4  # -80 dB below full scale
_SILENCE_LOOKED_FOR_S = 600


@dataclass(frozen=True, slots=True)
class Track:
    """The track of a kind that is read. ``number`` counts from 1 among the file's tracks of that kind, ``of`` is how
    many there are (cover art is none of them). ``passed``: (number, why it cannot be used) of those before it."""

    kind: str  # "video" or "audio"
    index: int  # among all streams of the file
    number: int
    of: int
    is_default: bool
    passed: tuple[tuple[int, str], ...] = ()

    @property
    def about(self) -> str:
        """One line for people: ``"sound track 2 of 2 (default)"``."""
        default = " (default)" if self.is_default and self.of > 1 else ""
        return f"{WORDS[self.kind]} track {self.number} of {self.of}{default}"

    @property
    def warnings(self) -> list[str]:
        """A line about the choice, if there was one."""
        if self.of == 1:
            return []
        passed = "".join(f"; track {number} {why}" for number, why in self.passed)
        return [f"{self.about} is read{passed}"]


@contextlib.contextmanager
def opened(path: Path, clip_id: str, options: Mapping[str, str] | None = None) -> Iterator[av.container.InputContainer]:
    """Open an untrusted media file, with FFmpeg's ``options``. ``MediaError``: missing, a folder, a pipe or device, not
    media."""
    import av

    problem = why_no_file(path)
    if problem:
        raise MediaError(clip_id, f"{shown(path)} {problem}")
    try:
        # absolute, so that no name is taken for a protocol ("a:b.mp4")
        name, all_options = str(path.absolute()), {**(options or {}), **_OPEN_OPTIONS}
        container = av.open(name, metadata_errors="replace", options=all_options)
    except (av.FFmpegError, OSError) as error:
        why = _why_unreadable(path, error)
        raise MediaError(clip_id, f"{shown(path)} is not a readable media file ({why})") from error
    with container:
        yield container


def _why_unreadable(path: Path, error: Exception) -> str:
    import av

    if isinstance(error, av.FFmpegError) and error.errno == errno.EINVAL:  # by format_whitelist
        return "not a container of picture and sound"
    if not path.stat().st_size:
        return "it is empty"
    if lacks_index(path):
        return "its index is missing: it was cut off, or the recording never ended"
    return reason_of(error)


@contextlib.contextmanager
def readable(clip_id: str, what: str) -> Iterator[None]:
    """What FFmpeg raises in this block becomes the ``MediaError`` that ``what`` (in words) is damaged."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise MediaError(clip_id, f"{what} is damaged ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """An FFmpeg or system error in one line."""
    return str(getattr(error, "strerror", None) or first_line(error))


def tracks_of(container: av.container.InputContainer, kind: str) -> list[Any]:
    """The file's picture or sound streams, without cover art."""
    import av

    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return [s for s in container.streams if s.type == kind and not s.disposition & cover]


def choose(path: Path, clip_id: str, kind: str, number: int = 0) -> Track:
    """The track to read; ``number`` from 1 asks for one. ``MediaError``: not media, no such track, none usable."""
    with opened(path, clip_id) as container:
        there = [_Candidate.of(n, stream) for n, stream in enumerate(tracks_of(container, kind), 1)]
    if not there:
        raise MediaError(clip_id, f"the file has no {WORDS[kind]} stream")
    if number:
        if number > len(there):
            raise MediaError(clip_id, f"there is no {WORDS[kind]} track {number}; the file has {len(there)}")
        chosen = there[number - 1]
        if not chosen.decodable:
            raise MediaError(clip_id, f"{WORDS[kind]} track {number} cannot be decoded (no decoder for its codec)")
        return Track(kind, chosen.index, number, len(there), chosen.is_default)
    passed: list[tuple[int, str]] = []
    silent: _Candidate | None = None
    for track in sorted(there, key=lambda t: (not t.is_default, t.number)):
        why = _unusable(path, clip_id, kind, track, alone=len(there) == 1)
        if not why:
            return Track(kind, track.index, track.number, len(there), track.is_default, tuple(passed))
        passed.append((track.number, why))
        silent = silent or (track if why == "is silent" else None)
    if silent:  # they all are
        others = tuple(p for p in passed if p[0] != silent.number)
        return Track(kind, silent.index, silent.number, len(there), silent.is_default, others)
    if len(there) == 1:
        raise MediaError(clip_id, f"the {WORDS[kind]} track {passed[0][1]}")
    raise MediaError(clip_id, f"no {WORDS[kind]} track can be used: " + ", ".join(f"{n} {why}" for n, why in passed))


@dataclass(frozen=True, slots=True)
class _Candidate:
    number: int
    index: int
    is_default: bool
    decodable: bool

    @classmethod
    def of(cls, number: int, stream: Any) -> _Candidate:
        import av

        default = bool(stream.disposition & av.stream.Disposition.default)
        return cls(number, stream.index, default, stream.codec_context is not None)


def _unusable(path: Path, clip_id: str, kind: str, track: _Candidate, alone: bool) -> str:
    """Why a track cannot be used; "" if it can. The only track of its kind is not decoded for this."""
    import av

    if not track.decodable:
        return "cannot be decoded (no decoder for its codec)"
    if alone:
        return ""
    try:
        with opened(path, clip_id) as container:
            stream: Any = container.streams[track.index]
            if kind == "audio":
                channels_of(stream)  # before it is decoded
            frames: Iterator[Any] = (frame for packet in packets(container, stream) for frame in packet.decode())
            return _is_silent(frames) if kind == "audio" else _is_single(frames)
    except (av.FFmpegError, OSError) as error:
        return f"cannot be decoded ({reason_of(error)})"


def _is_single(pictures: Iterator[av.VideoFrame]) -> str:
    n = sum(1 for _, _ in zip(range(2), pictures, strict=False))
    return ("is empty", "is a single picture", "")[n]


def _is_silent(frames: Iterator[av.AudioFrame]) -> str:
    heard_s, samples = 0.0, Samples()
    for frame in frames:
        if np.ptp(samples(frame), axis=1).max() > 2 * _SILENCE:  # (a constant offset is not heard)
            return ""
        heard_s += frame.samples / frame.sample_rate
        if heard_s > _SILENCE_LOOKED_FOR_S:
            break
    return "is silent" if heard_s else "is empty"


def extent_s(container: av.container.InputContainer) -> float:
    """Seconds from the file's first stamp to its end, as declared; 0 if it declares nothing.

    Matroska and NUT declare the last stamp, which is no length where the clock does not begin at 0.
    """
    duration, start = container.duration or 0, container.start_time or 0
    if container.format.name.startswith(("matroska", "nut")) and 0 < start < duration:
        duration -= start
    return duration / 1_000_000
