"""A decoding process of the overlapped pipeline: reads clips and passes their pictures and sound on, each once.

A clip is told as: its length (``Began``), its sound in pieces (``Sound``), then for each picture window the frames that
were not passed on before (``Frames``) and the window itself (``Cut``). Sound and frames go through the slab, in runs
that fit into a slot; the rest is small and goes through the pipe. No model is loaded here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from avbench.engine.job import ClipReading, Outcome, Reader, Task, only_this_clip
from avbench.engine.slab import SLOT_BYTES, Place, Slab
from avbench.system.in_python import in_python
from avbench.ticks import frames
from avbench.types import AvbenchError, ClipRecord, FrontEnd, Gap, Window, in_one_line


class Began(NamedTuple):
    """A clip was opened."""

    n_samples: int


class Sound(NamedTuple):
    """Samples from ``first`` on: (n,) float32."""

    first: int
    place: Place


class Frames(NamedTuple):
    """Frames from grid index ``first`` on, as front end ``which`` of the clip wants them: (n, 3, size, size) uint8."""

    which: int
    first: int
    place: Place


class Cut(NamedTuple):
    """All frames of a window have been passed on. No later window needs frames before grid index ``keep_from``."""

    window: Window
    gaps: tuple[Gap, ...]
    keep_from: int


Message = Began | Sound | Frames | Cut | None  # None: still here
Send = Callable[[Message], None]


@dataclass(frozen=True)
class Source:
    """All that a decoding process needs. ``frontends``: what each model (by fingerprint) wants to be given."""

    open_clip: Callable[[ClipRecord], Reader]
    frontends: Mapping[str, FrontEnd]


@contextlib.contextmanager
def ready_to_decode(source: Source) -> Iterator[Callable[[Task, Send], Outcome]]:
    """In a worker: gives ``decode(task, tell)``, whose outcome is that of reading alone."""
    slabs = _OwnSlab()
    try:
        yield lambda task, tell: decode_clip(task, source, slabs, tell)
    except AvbenchError:
        raise
    except Exception as error:
        raise AvbenchError(f"a decoding process failed: {in_one_line(error)}") from error


class _OwnSlab:
    """This process's slab, made anew if an array does not fit into a slot."""

    def __init__(self) -> None:
        self.slab: Slab | None = None

    def that_holds(self, n_bytes: int, tell: Send) -> Slab:
        if self.slab is None or n_bytes > self.slab.slot_bytes:
            if self.slab:
                self.slab.close()
            try:
                self.slab = Slab(max(SLOT_BYTES, n_bytes), lambda: None)
            except OSError as error:
                raise AvbenchError(
                    f"a decoding process gets no memory to pass pictures on ({error.strerror}); use fewer --workers"
                    f"{in_python('--workers')}"
                ) from error
        self.slab.still_here = lambda: tell(None)
        return self.slab


def decode_clip(task: Task, source: Source, slabs: _OwnSlab, tell: Send) -> Outcome:
    """Read one clip, once, and tell all that its models need of it; the outcome has its error, warnings, counters."""
    outcome = Outcome(task.clip.id)
    with only_this_clip(outcome):
        reading = ClipReading(task, source.frontends, outcome)
        sound = reading.open(source.open_clip)
        tell(Began(len(sound)))
        slab = slabs.that_holds(1, tell)
        n = slab.slot_bytes // sound.itemsize
        for first in range(0, len(sound), n):
            _send_sound(sound[first : first + n], first, slab, tell)
        sent: set[int] = set()
        for (window, held, gaps), keep_from in zip(reading.windows(), _kept_from(reading.in_order), strict=False):
            begin = frames(window.start)
            new = [k for k in range(begin, frames(window.end)) if k not in sent]
            for run in _runs(new):
                for which in range(len(reading.frontends)):
                    _send_frames(which, run[0], [held[k - begin][which] for k in run], slabs, tell)
            sent = {k for k in sent.union(new) if k >= keep_from}
            tell(Cut(window, gaps, keep_from))
        outcome.counters["clips_decoded"] += 1
    return outcome


def _kept_from(windows: Sequence[Window]) -> list[int]:
    """For each window the first frame that a later one needs (none: the window's own end)."""
    kept = [frames(windows[-1].end)] if windows else []
    for window in reversed(windows[1:]):
        kept.append(min(kept[-1], frames(window.start)))
    return kept[::-1]


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Ascending numbers as runs without holes."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _send_sound(samples: np.ndarray, first: int, slab: Slab, tell: Send) -> None:
    def fill(there: np.ndarray) -> None:
        there[:] = samples

    tell(Sound(first, slab.put(samples.shape, np.dtype(np.float32), fill)))


def _send_frames(which: int, first: int, run: Sequence[np.ndarray], slabs: _OwnSlab, tell: Send) -> None:
    slab = slabs.that_holds(run[0].nbytes, tell)
    n = max(slab.slot_bytes // max(run[0].nbytes, 1), 1)
    for at in range(0, len(run), n):
        some = run[at : at + n]

        def fill(there: np.ndarray, some: Sequence[Any] = some) -> None:
            np.stack(some, out=there)

        tell(Frames(which, first + at, slab.put((len(some), *run[0].shape), run[0].dtype, fill)))
