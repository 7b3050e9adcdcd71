"""Training scenes, rendered while training runs and never stored.

Scenes are numbered; scene ``i`` is the same wherever and whenever it is rendered, and what a training step draws from
depends only on the step, so a killed training continues exactly.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing as mp
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import av
import numpy as np

from avbench.data.scenes import N_CHANNELS, STANDARD, Difficulty, Scene
from avbench.ticks import SAMPLE_RATE_HZ, TICKS_PER_FRAME, ticks
from avbench.types import CATEGORIES

WINDOW_FRAMES = 125
WINDOW_SAMPLES = 80_000
MAX_OFFSET_SAMPLES = ticks(2)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory; no effect on other systems.

    By default every large tensor gets newly mapped pages, which costs half the time of a training step on a CPU.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2_000_000_000)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2_000_000_000)  # M_TRIM_THRESHOLD


class Material(NamedTuple):
    """A rendered scene."""

    picture: np.ndarray  # (frames, 64, 64) uint8: the decoded Y plane, limited range
    sound: np.ndarray  # (samples,) float32


def through_codec(frames: Iterator[np.ndarray], crf: int) -> np.ndarray:
    """Encode RGB frames (64, 64, 3) uint8 with H.264 in memory; returns the decoded Y planes (T, 64, 64) uint8.

    Models always get decoded video, and the codec removes more than half of the sensor noise.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "veryfast", "bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        source.streams.video[0].thread_type = "NONE"
        planes = []
        for picture in source.decode(video=0):
            plane = picture.planes[0]
            planes.append(np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[:64, :64].copy())
    return np.stack(planes)


def render_material(
    number: int, *, base_seed: int, categories: tuple[str, ...], duration_s: float, difficulty: Difficulty = STANDARD
) -> Material:
    """Scene ``number`` of a family of scenes, ``duration_s`` long; families with another ``base_seed`` are distinct."""
    rng = np.random.default_rng([base_seed, number])
    category, channel = categories[number % len(categories)], int(rng.integers(N_CHANNELS))
    scene = Scene(category, channel, base_seed + number, duration_s, difficulty)
    picture = through_codec(scene.frames(), crf=int(rng.integers(22, 31)))
    return Material(picture, scene.audio())


@dataclass(frozen=True)
class PoolSize:
    """How much a pool contains: up to ``size`` scenes of ``duration_s``, from the start at least ``warm``; a new scene
    arrives every ``steps_per_scene`` training steps."""

    duration_s: float
    size: int
    warm: int
    steps_per_scene: int = 1


class Pool:
    """A sliding pool of the newest scenes of one family: at step ``s`` the ``size`` scenes before number
    ``warm + s // steps_per_scene``. Rendered ahead by a process of its own, which :meth:`close` ends.
    """

    def __init__(
        self,
        size: PoolSize,
        *,
        base_seed: int,
        categories: tuple[str, ...] = CATEGORIES,
        first_step: int = 0,
        difficulty: Difficulty = STANDARD,
    ) -> None:
        self.size = size
        self.scenes: deque[Material] = deque(maxlen=size.size)
        family = {"base_seed": base_seed, "categories": categories, "difficulty": difficulty}
        render = partial(render_material, duration_s=size.duration_s, **family)  # type: ignore[arg-type]
        self.next = max(self._end(first_step) - size.size, 0)
        self._processes = mp.get_context("spawn").Pool(1)
        self._stream = _ahead(self._processes, render, self.next)

    def _end(self, step: int) -> int:
        """One past the newest scene's number at a step."""
        return self.size.warm + step // self.size.steps_per_scene

    def at(self, step: int) -> deque[Material]:
        """The scenes at a step; steps must not decrease."""
        while self.next < self._end(step):
            self.scenes.append(next(self._stream))
            self.next += 1
        return self.scenes

    def close(self) -> None:
        """End the rendering process."""
        self._processes.terminate()


def _ahead(processes: object, render: partial[Material], first: int, depth: int = 6) -> Iterator[Material]:
    """Scenes in order from number ``first``, rendered ``depth`` ahead."""
    jobs: deque = deque()
    number = first
    while True:
        while len(jobs) < depth:
            jobs.append(processes.apply_async(render, (number,)))  # type: ignore[attr-defined]
            number += 1
        yield jobs.popleft().get()


class Batch(NamedTuple):
    """B picture windows, each with K sound windows."""

    picture: np.ndarray  # (B, 125, 64, 64) uint8
    sound: np.ndarray  # (B, K, 80000) float32
    offset_s: np.ndarray  # (B, K)


def draw_batch(
    scenes: Sequence[Material],
    rng: np.random.Generator,
    batch: int,
    offsets: int,
    max_shift: int = MAX_OFFSET_SAMPLES,
) -> Batch:
    """Draw ``batch`` picture windows, each with ``offsets`` sound windows whose offsets are uniform in
    [-``max_shift``, ``max_shift``] samples (2 s by default)."""
    picture, sound, offset = [], [], np.empty((batch, offsets))
    for row in range(batch):
        scene = scenes[int(rng.integers(len(scenes)))]
        first = int(rng.integers(50, len(scene.picture) - WINDOW_FRAMES - 50))
        picture.append(scene.picture[first : first + WINDOW_FRAMES])
        shift = rng.integers(-max_shift, max_shift + 1, offsets)
        offset[row] = shift / SAMPLE_RATE_HZ
        starts = first * TICKS_PER_FRAME + shift
        sound.append(np.stack([scene.sound[a : a + WINDOW_SAMPLES] for a in starts]))
    return Batch(np.stack(picture), np.stack(sound), offset)
