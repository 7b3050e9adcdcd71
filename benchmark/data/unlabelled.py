"""Files without labels as clips: of any length from a second on. The sound of hours waits in a temporary file, not in
memory; a file shorter than a window is padded to one."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np

from avbench.data.media import ClipReader
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick
from avbench.types import ClipRecord, FrontEnd, Gap

WINDOW = 5 * TICKS_PER_S
LEAST = TICKS_PER_S  # a shorter file is not answered
FORGET_FRAMES = 25 * 60  # so often the memory of the sound is given back
UNHEARD = TICKS_PER_S  # if more would be left at the end, there is one more window


def padded(clip: ClipRecord) -> ClipRecord:
    """The clip, as long as one window at least: see :class:`WholeFile`."""
    n_frames = max(clip.n_frames, WINDOW // TICKS_PER_FRAME)
    return replace(clip, n_frames=n_frames, n_samples=max(clip.n_samples, WINDOW))


def window_starts(duration: Tick, hop: Tick) -> list[Tick]:
    """Where the windows of a clip begin, each on a frame: one a hop, and one up to the clip's end if more than
    ``UNHEARD`` would be left. A clip shorter than a window has one."""
    last = max(duration - WINDOW, 0) // TICKS_PER_FRAME * TICKS_PER_FRAME
    starts = list(range(0, last + 1, hop))
    return [*starts, last] if duration - WINDOW - starts[-1] > UNHEARD else starts


class WholeFile:
    """Reads a clip as :class:`~avbench.data.media.ClipReader` does; where it is longer than its file, the last picture
    is held and silence follows. ``folder``: for the temporary file with the sound, 230 MB an hour (None: the system's).
    """

    def __init__(self, path: Path, clip: ClipRecord, folder: Path | None = None) -> None:
        self.clip, self.folder = clip, folder
        self.reader = ClipReader(path, clip_id=clip.id, reading=clip.reading)
        self._mapped: mmap.mmap | None = None  # the sound

    def audio(self) -> np.ndarray:
        """(n_samples,) float32, read from the disk when it is looked at. The file has no name: it goes with its last
        reader, even if that is killed."""
        left = self.clip.n_samples
        with tempfile.TemporaryFile(dir=self.folder) as file:
            with contextlib.closing(self.reader.audio_blocks()) as blocks:
                for block in blocks:
                    file.write(block[:left].tobytes())
                    left -= min(len(block), left)
            file.truncate(4 * self.clip.n_samples)
            self._mapped = mmap.mmap(file.fileno(), 4 * self.clip.n_samples, access=mmap.ACCESS_READ)
        return np.frombuffer(self._mapped, np.float32)

    def frames(self, *frontends: FrontEnd) -> Generator[tuple[np.ndarray, ...]]:
        """``clip.n_frames`` grid frames, as ``ClipReader.frames`` gives them."""
        count, held = 0, None
        with contextlib.closing(self.reader.frames(*frontends)) as grid:
            for held in itertools.islice(grid, self.clip.n_frames):
                if count % FORGET_FRAMES == 0 and self._mapped:
                    self._mapped.madvise(mmap.MADV_DONTNEED)  # what was heard need not stay in memory
                yield held
                count += 1
        while held is not None and count < self.clip.n_frames:
            yield held
            count += 1

    def gaps(self) -> tuple[Gap, ...]:
        """What is missing in the sound, and in the frames so far."""
        return self.reader.gaps()
