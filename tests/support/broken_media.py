"""Small media files of many kinds, the same broken in many ways, and a worker that reads them under a memory limit.

files = whole_files(folder)
broken = break_file(files, seed)  # of the same files the same seed makes the same bytes
for path, outcomes in Pool(reading, workers=1).run([...]): ...
"""

from __future__ import annotations

import contextlib
import random
import resource
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avbench.types import MediaError, UsageError

SECONDS, FPS, WIDTH, HEIGHT = 2, 25, 96, 64
ADDRESS_SPACE_BYTES = 3 * 2**30  # above what a worker has mapped when it starts: what asks for more is refused
# file name, format, video codec and pixel format, sound codec and rate, options of the format
KINDS: tuple[tuple[str, str, tuple[str, str] | None, tuple[str, int] | None, dict[str, str]], ...] = (
    ("h264_aac.mp4", "mp4", ("libx264", "yuv420p"), ("aac", 44_100), {}),
    ("fragments.mp4", "mp4", ("libx264", "yuv420p"), ("aac", 16_000), {"movflags": "frag_keyframe+empty_moov"}),
    ("vp9_opus.mkv", "matroska", ("libvpx-vp9", "yuv420p"), ("libopus", 48_000), {}),
    ("h264_flac.mkv", "matroska", ("libx264", "yuv420p"), ("flac", 44_100), {}),
    ("vp8_vorbis.webm", "webm", ("libvpx", "yuv420p"), ("vorbis", 44_100), {}),
    ("h264_aac.ts", "mpegts", ("libx264", "yuv420p"), ("aac", 48_000), {}),
    ("mpeg4_mp3.avi", "avi", ("mpeg4", "yuv420p"), ("libmp3lame", 44_100), {}),
    ("mjpeg_pcm.mov", "mov", ("mjpeg", "yuvj420p"), ("pcm_s16le", 48_000), {}),
    ("flv_mp3.flv", "flv", ("flv", "yuv420p"), ("libmp3lame", 44_100), {}),
    ("mpeg1_mp2.mpg", "mpeg", ("mpeg1video", "yuv420p"), ("mp2", 48_000), {}),
    ("mpeg2_ac3.vob", "vob", ("mpeg2video", "yuv420p"), ("ac3", 48_000), {}),
    ("wmv2_wma2.asf", "asf", ("wmv2", "yuv420p"), ("wmav2", 44_100), {}),
    ("vp8_opus.ogv", "ogg", ("libvpx", "yuv420p"), ("libopus", 48_000), {}),
    ("sound.ogg", "ogg", None, ("vorbis", 44_100), {}),
    ("sound.wav", "wav", None, ("pcm_s16le", 16_000), {}),
)


def whole_files(folder: Path) -> list[Path]:
    """One file of each kind, 2 s each."""
    return [_write(folder / name, *how) for name, *how in KINDS]  # type: ignore[arg-type]


def _write(
    path: Path, container: str, video: tuple[str, str] | None, sound: tuple[str, int] | None, options: dict[str, str]
) -> Path:
    import av

    rng = np.random.default_rng(len(path.name))
    with av.open(str(path), "w", format=container, options=options) as out:
        streams: list[tuple[Any, Iterator[Any]]] = []
        if video:
            picture = out.add_stream(video[0], rate=FPS)
            picture.width, picture.height, picture.pix_fmt, picture.thread_count = WIDTH, HEIGHT, video[1], 1
            streams.append((picture, _pictures(rng, video[1])))
        if sound:
            voice = out.add_stream(sound[0], rate=sound[1], options={"strict": "experimental"})  # of vorbis
            voice.layout, voice.bit_rate, voice.thread_count = "stereo", 96_000, 1
            streams.append((voice, _sounds(rng, sound[1])))
        for stream, frames in streams:
            for frame in frames:
                out.mux(stream.encode(frame))
        for stream, _ in streams:
            out.mux(stream.encode(None))
    return path


def _pictures(rng: np.random.Generator, pix_fmt: str) -> Iterator[Any]:
    import av

    still = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for k in range(SECONDS * FPS):
        frame = av.VideoFrame.from_ndarray(np.roll(still, 3 * k, axis=1), format="rgb24").reformat(format=pix_fmt)
        frame.pts, frame.time_base = k, Fraction(1, FPS)
        yield frame


def _sounds(rng: np.random.Generator, rate: int) -> Iterator[Any]:
    import av

    noise = (3000 * rng.standard_normal((1, 2 * SECONDS * rate))).astype(np.int16)
    for first in range(0, SECONDS * rate, 1000):
        frame = av.AudioFrame.from_ndarray(noise[:, 2 * first : 2 * (first + 1000)], format="s16", layout="stereo")
        frame.pts, frame.time_base, frame.sample_rate = first, Fraction(1, rate), rate
        yield frame


# ------------------------------------------------------------------------------------------------------------- breaking


@dataclass(frozen=True)
class Broken:
    """A broken file: its bytes, what it was made from, and how, in words."""

    name: str
    data: bytes
    how: str


def break_file(files: Sequence[Path], seed: int) -> Broken:
    """The file number ``seed`` modulo their number, broken in one to three ways that the seed chooses."""
    rng, path = random.Random(seed), files[seed % len(files)]
    data, said = bytearray(path.read_bytes()), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        how = rng.choice(WAYS)
        data = how(data, rng) or bytearray(b"\0")
        said.append(how.__name__.removeprefix("_"))
    return Broken(f"{seed}_{path.name}", bytes(data), f"seed {seed}: {path.name}, {', '.join(said)}")


def _stretch(data: bytearray, rng: random.Random, most: float = 0.3) -> slice:
    first = rng.randrange(len(data))
    return slice(first, first + 1 + rng.randrange(max(1, int(most * len(data)))))


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere; as often as not near the beginning or the end, where headers and indices are."""
    near = min(len(data), 1500)
    return rng.choice((rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)))


def _bytes_flipped(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 4, 16, 64))):
        data[_place(data, rng)] = rng.randrange(256)
    return data


def _truncated(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _piece_lost(data: bytearray, rng: random.Random) -> bytearray:
    del data[_stretch(data, rng)]
    return data


def _pieces_swapped(data: bytearray, rng: random.Random) -> bytearray:
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _piece_doubled(data: bytearray, rng: random.Random) -> bytearray:
    piece = _stretch(data, rng)
    return data[: piece.stop] + data[piece] + data[piece.stop :]


def _zeros(data: bytearray, rng: random.Random) -> bytearray:
    piece = _stretch(data, rng)
    data[piece] = bytes(len(data[piece]))
    return data


def _absurd_sizes(data: bytearray, rng: random.Random) -> bytearray:
    """Numbers near headers replaced by the largest, the smallest and others that make no sense."""
    numbers = (0, 1, 7, 8, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 8)
    for _ in range(rng.choice((1, 2, 8))):
        at, order = _place(data, rng), rng.choice("<>")
        wide = struct.pack(f"{order}I", rng.choice(numbers)) if rng.random() < 0.7 else struct.pack(f"{order}Q", 2**63)
        data[at : at + len(wide)] = wide
    return data


def _boxes(data: bytearray, first: int = 0, last: int | None = None) -> list[tuple[int, int]]:
    """(start, end) of the boxes of an mp4 or mov, nested ones too; of another file whatever looks like one."""
    found, at, end = [], first, len(data) if last is None else last
    while at + 8 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > end or not bytes(data[at + 4 : at + 8]).isalnum():
            break
        found.append((at, at + size))
        if bytes(data[at + 4 : at + 8]) in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"):
            found += _boxes(data, at + 8, at + size)
        at += size
    return found


def _box_size(data: bytearray, rng: random.Random) -> bytearray:
    boxes = _boxes(data)
    if not boxes:
        return _absurd_sizes(data, rng)
    at, _ = rng.choice(boxes)
    data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 8, 9, 2**31 - 1, 2**32 - 1)))
    return data


def _box_doubled(data: bytearray, rng: random.Random) -> bytearray:
    boxes = _boxes(data)
    if not boxes:
        return _piece_doubled(data, rng)
    first, last = rng.choice(boxes)
    return data[:last] + data[first:last] * rng.choice((1, 1, 3, 100)) + data[last:]


def _box_numbers(data: bytearray, rng: random.Random) -> bytearray:
    """What a table of an mp4 begins with: its counts, times and sizes."""
    boxes = _boxes(data)
    if not boxes:
        return _absurd_sizes(data, rng)
    first, last = rng.choice(boxes)
    at = first + 8 + 4 * rng.randrange(max(1, min(6, (last - first - 8) // 4)))
    data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1)))
    return data


WAYS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _bytes_flipped,
    _truncated,
    _piece_lost,
    _pieces_swapped,
    _piece_doubled,
    _zeros,
    _absurd_sizes,
    _box_size,
    _box_doubled,
    _box_numbers,
)


# -------------------------------------------------------------------------------------------------------- in the worker


@dataclass(frozen=True)
class Outcome:
    """What came of a file. ``kind``: "read", "refused" (``text``: the line) or "bug" (``text``: the traceback);
    ``mib``: the most memory that was held while it was read, above what was held before."""

    kind: str
    text: str
    mib: float


@contextlib.contextmanager
def reading() -> Iterator[Callable[[Path, Any], list[Outcome]]]:
    """``begin`` of a :class:`avbench.system.workers.Pool`: reads a file as every command may: measured by its packets,
    and decoded to the end."""
    from avbench.data.probing import probe
    from avbench.data.realsync.measuring import measure

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    yield lambda path, tell: [outcome_of(partial(read, clip_id=path.name), path) for read in (measure, probe)]


def outcome_of(read: Callable[[Path], Any], path: Path) -> Outcome:
    """Read a file, whatever comes of it."""
    before = _held_mib(peak=False)
    try:
        got = read(path)
        kind, text = ("refused", got) if isinstance(got, str) else ("read", "")
    except (MediaError, UsageError) as error:
        kind, text = "refused", str(error)
    except BaseException:
        kind, text = "bug", traceback.format_exc()
    return Outcome(kind, text, _held_mib(peak=True) - before)


def _held_mib(peak: bool) -> float:
    """Memory held by this process; ``peak``: the most since the last call without it, where the system tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if not peak:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:" if peak else "VmRSS:"))
    return int(line.split()[1]) / 1024
