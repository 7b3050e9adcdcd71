"""The few types everything is made of. Importing this module loads neither torch nor pandas."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, seconds

if TYPE_CHECKING:
    import torch

CATEGORIES = ("talking head", "voice-over", "other")


class AvbenchError(Exception):
    """A problem a person can act on: the message is one clear line (what, where, what to do)."""


class UsageError(AvbenchError):
    """The request itself is wrong (unknown name, impossible combination): exit code 2."""


class MediaError(AvbenchError):
    """A clip cannot be read as its manifest promises. ``clip_id`` names it; ``reason`` is printable."""

    def __init__(self, clip_id: str, reason: str) -> None:
        self.clip_id, self.reason = clip_id, printable(reason)  # it may quote a file's name
        super().__init__(f"clip {clip_id}: {self.reason}")

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.clip_id, self.reason)  # as itself from a worker process


class StoreError(AvbenchError):
    """The snapshot store cannot be used as it is (other schema, damaged shard, disk full, read-only)."""


class NonFiniteError(AvbenchError):
    """A model produced NaN or infinity; the message names the segment or window."""


class FailedSegmentsWarning(UserWarning):
    """Some segments of an evaluation failed and are not scored; the message says how many, and why."""


def printable(text: str) -> str:
    """``text`` on one line, with "?" for what a terminal or a page would obey or could not show: control and
    direction characters, and bytes of file names that are no text."""
    spaced = " ".join(text.splitlines()).replace("\t", " ")
    return "".join("?" if unicodedata.category(c) in _NOT_SHOWN else c for c in spaced)


_NOT_SHOWN = ("Cc", "Cf", "Cs")


def first_line(error: BaseException) -> str:
    """The first line of what somebody else's error says, printable, with the next one where it ends in a colon; its
    kind if it says nothing."""
    lines = [line for line in map(str.strip, str(error).splitlines()) if line] or [type(error).__name__]
    return printable(" ".join(lines[: 2 if lines[0].endswith(":") else 1]))


def in_one_line(error: BaseException) -> str:
    """Somebody else's error as a part of one of ours: its kind and the first line of what it says."""
    kind, text = type(error).__name__, first_line(error)
    return kind if text == kind else f"{kind}: {text}"


@dataclass(frozen=True, slots=True)
class OffsetGrid:
    """21 offset classes, -2.0 ... +2.0 s in steps of 0.2 s; class 10 is in sync (paper sec. 3).

    A positive offset means that the window's sound is taken from *later* in the source: the audio is early.
    """

    n_classes: int = 21
    max_offset_s: float = 2.0

    @property
    def offsets_s(self) -> np.ndarray:
        """(n_classes,) float32, seconds: float64 linspace cast to float32, as in the published code."""
        return _offsets_s(self).copy()

    def class_of(self, offset_s: float) -> int:
        """Class of a continuous offset in seconds.

        Published rule: round to 0.01 s, then the nearest grid value *in float32*, the first one winning a tie; the
        float32 rounding decides offsets halfway between two classes. ``UsageError`` outside the grid or if not finite.
        """
        if not np.isfinite(offset_s) or abs(offset_s) > self.max_offset_s + 1e-9:
            raise UsageError(f"offset {offset_s} s is outside [-{self.max_offset_s}, {self.max_offset_s}] s")
        distance = np.abs(_offsets_s(self) - np.float32(round(float(offset_s), 2)))
        return int(np.argmin(distance))

    def offset_of(self, class_index: int) -> float:
        """Offset in seconds of a class, as the decimal a person would write (0.4, not 0.4000001)."""
        if not 0 <= class_index < self.n_classes:
            raise UsageError(f"class {class_index} is outside 0 ... {self.n_classes - 1}")
        step = 2 * self.max_offset_s / (self.n_classes - 1)
        return round(-self.max_offset_s + step * class_index, 6)


@cache
def _offsets_s(grid: OffsetGrid) -> np.ndarray:
    return np.linspace(-grid.max_offset_s, grid.max_offset_s, grid.n_classes).astype(np.float32)


def offset_in_words(offset_s: float) -> str:
    """``0.4`` -> ``"audio 0.4 s early"``: the sign convention is always said in words."""
    if round(abs(offset_s), 2) == 0:
        return "in sync"
    return f"audio {abs(offset_s):g} s {'early' if offset_s > 0 else 'late'}"


UNSEEN_SHA256 = hashlib.sha256(b"").hexdigest()  # the hash of no bytes: of a media file that nobody has seen


class Gap(NamedTuple):
    """A stretch that is missing inside a file. Readers fill it (with silence, or the picture before it is held), and
    no window that is scored touches it."""

    kind: str  # "picture" or "sound"
    start: Tick  # on the clip's clock
    end: Tick


GRIDS = ("latest", "centred")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a clip's file is read: settled when the file is measured, and pinned by the manifest from then on.

    ``grid``: which picture grid frame k shows: "latest", the last one that begins by k/25 s, or "centred", the one on
    show at (k + 1/2)/25 s. Tracks are counted from 1 among the file's picture or sound tracks; 0 is the first one that
    is no cover art. Longer holes than ``sound_gap`` and ``picture_gap`` (ticks) are in ``gaps``, in time order.

    The defaults are the rules of manifests that do not say how their clips are read.
    """

    grid: str = "latest"
    video_track: int = 0
    audio_track: int = 0
    sound_gap: Tick = TICKS_PER_S // 50
    picture_gap: Tick = TICKS_PER_S
    gaps: tuple[Gap, ...] = ()

    def as_text(self) -> str:
        """As JSON with sorted keys, without the fields that have their default; "" if all have."""
        plain = Reading()
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)}
        return json.dumps(said, sort_keys=True, separators=(",", ":")) if said else ""

    def gap_in(self, kind: str, window: Window) -> Gap | None:
        """The first gap in the picture or the sound (``kind``) that touches the window."""
        inside = (gap for gap in self.gaps if gap.kind == kind and gap.start < window.end and window.start < gap.end)
        return next(inside, None)


AS_EVER = Reading()  # how files are read whose manifest does not say it


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One media file after normalisation (25 fps picture, 16 kHz mono sound).

    A list of labels can be read where the media are not: such a clip has ``UNSEEN_SHA256``, its frames and samples are
    what its name promises (0 if that promises nothing), and it cannot be decoded.
    """

    id: str
    video_id: str
    path: str  # relative to the manifest's media root, "/"-separated
    sha256: str  # of the file's bytes
    n_frames: int  # at 25 fps
    n_samples: int  # at 16 kHz
    channel: str = ""
    split: str = "test"
    reading: Reading = AS_EVER

    @property
    def as_read(self) -> str:
        """64 hex digits that differ where the pictures or samples read from the clip may: of its file and of the rules
        by which it is read."""
        rules = replace(self.reading, gaps=()).as_text()
        return hashlib.sha256(f"{self.sha256} {rules}".encode()).hexdigest() if rules else self.sha256

    @property
    def seen(self) -> bool:
        """Whether the media was there when its manifest was made."""
        return self.sha256 != UNSEEN_SHA256

    @property
    def duration(self) -> Tick:
        """Ticks covered by both streams."""
        return min(self.n_frames * TICKS_PER_FRAME, self.n_samples)


class Piece(NamedTuple):
    """A piece of a law: from ``start`` on (ticks of the segment's own clock) the offset is ``offset`` ticks, and moves
    by ``slope_ppm`` millionths of the time that passes."""

    start: Tick
    offset: Tick
    slope_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Law:
    """How the offset of a stream runs over time: its pieces, the first from 0 on, and stretches of muted sound."""

    name: str
    pieces: tuple[Piece, ...]
    mutes: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One labelled stream, the unit that is scored: a start in a clip and its audio offset (both in ticks).

    The offset is fixed, unless there is a ``law``: ``offset`` and its class are then those of the stream's beginning.
    ``pair_of``: the segment that shows the same pictures in sync, for shifted ones of ``avbench data pairs``.
    """

    id: str
    clip_id: str
    video_id: str  # the cluster of the bootstrap: segments of one video are not independent
    start: Tick
    offset: Tick
    offset_class: int
    category: str = ""
    events: tuple[str, ...] = ()
    channel: str = ""
    split: str = "test"
    law: Law | None = None
    pair_of: str = ""

    @property
    def offset_s(self) -> float:
        """The audio offset in seconds; positive: the sound comes early."""
        return seconds(self.offset)


class Window(NamedTuple):
    """A stretch of one stream of a clip, in ticks."""

    start: Tick
    length: Tick

    @property
    def end(self) -> Tick:
        """The first tick after the window."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """What a model wants to be given. ``fit``: "square" resizes the short side to ``size`` and cuts the centre
    square; "crop" cuts the centre ``size`` x ``size``, resizing the short side to ``short_side`` first if that is not 0
    (the published models: 224 out of 256, to which all their clips were brought); "short" resizes the
    short side and cuts nothing (training, which cuts at random).
    """

    size: int = 64
    fps: int = 25
    sample_rate: int = 16_000
    fit: str = "square"
    audio_lead_trim_samples: int = 0
    short_side: int = 0


class SegmentLayout(NamedTuple):
    """How a backbone cuts a window into segments: ``n`` of them, of ``frames`` pictures and as much sound, one
    every ``step`` pictures, all of them together in the middle of the window."""

    n: int
    frames: int
    step: int

    def starts(self, n_frames: int) -> range:
        """The first picture of each segment, counted from the start of a window of ``n_frames`` pictures; below 0 if
        the window is too short."""
        first = (n_frames - (self.n - 1) * self.step - self.frames) // 2
        return range(first, first + self.n * self.step, self.step)

    def cut(self, window: Any, per_frame: int = 1) -> list[Any]:
        """A window's pictures, (T, ...), or its samples, (T * ``per_frame``,), as segments: views of it."""
        starts = self.starts(len(window) // per_frame)
        return [window[first * per_frame : (first + self.frames) * per_frame] for first in starts]


class Snapshot(NamedTuple):
    """What a backbone says of one window alone.

    ``logits``: (B, 21) float32; ``token``: (B, D) float32 streaming token, or None where there is no hook.
    """

    logits: Any
    token: Any = None


class SnapshotPredictor:
    """Base class of every backbone; subclass it alone or together with ``torch.nn.Module``.

    ``predict`` is all that is required. Set ``token_dim`` and return a token to offer the streaming-token hook.
    A two-tower backbone may set ``two_tower = True`` and offer ``encode_video(video)``, ``encode_audio(audio)`` and
    ``fuse(video_features, audio_features) -> Snapshot``, which must equal ``predict``: the runner then encodes each
    picture window once per clip. One that cuts windows into segments and encodes each by itself may say so with
    ``segment_layout`` and offer ``encode_video_segments(video (N, frames, 3, size, size))``,
    ``encode_audio_segments(audio (N, samples))`` and ``fuse_segments(video (B, n, ...), audio (B, n, ...)) ->
    Snapshot``, which must equal ``predict`` too: segments that windows of a clip share are then encoded once. If a
    subclass overrides ``predict``, ``encode_video``, ``encode_audio`` or ``fuse``, whole windows are encoded again,
    unless it says ``segment_layout`` anew. A backbone whose sound front end looks beyond a window may offer
    ``stretch_sound(audio (N,)) -> (..., T)``, what it hears of a whole stretch, one column every ``column_samples``:
    under the ``paper`` protocol ``predict`` / ``encode_audio`` then get each window's columns of it, (B, ..., T'), in
    place of samples, and a window's edges hear their real neighbours. ``uses_torch = False``: windows are numpy arrays,
    not tensors.
    """

    frontend: FrontEnd = FrontEnd()
    token_dim: int | None = None
    two_tower: bool = False
    segment_layout: SegmentLayout | None = None
    description: str = ""
    trained_on: str = "undeclared"

    def predict(self, video: torch.Tensor, audio: torch.Tensor) -> Snapshot:
        """``video`` (B, T, 3, size, size) uint8 RGB at 25 fps, ``audio`` (B, N) float32 in [-1, 1] at 16 kHz."""
        raise TypeError(f"{type(self).__name__} does not define predict(video, audio)")


class StreamingHead:
    """Turns the snapshots up to now into the streaming prediction; causal by construction.

    ``init(batch) -> state``; ``step(state, snapshot, time_s) -> (state, logits (B, 21))`` is called once per
    iteration, in time order; ``time_s`` is the stream time of the window in seconds since the first window, so a head
    can know the hop. ``needs_token``: the snapshot must carry a streaming token. ``uses_torch = False``: the
    snapshots are numpy arrays, not tensors. A head may offer ``replay(logits (N, W, 21), tokens, times_s (W,))``, all
    steps at once, which must equal stepping; and ``alarm(state) -> (B,)``, its own probability in [0, 1] that the sound
    is out of tolerance, asked after each step.
    """

    needs_token: bool = False

    def init(self, batch: int) -> Any:
        """The state of ``batch`` streams before their first window."""
        raise TypeError(f"{type(self).__name__} does not define init(batch)")

    def step(self, state: Any, snapshot: Snapshot, time_s: float) -> tuple[Any, Any]:
        """The state after one more window, and the streaming prediction: logits (B, 21)."""
        raise TypeError(f"{type(self).__name__} does not define step(state, snapshot, time_s)")
