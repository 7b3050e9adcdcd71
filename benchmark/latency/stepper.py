"""What is timed: one model, one window at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.engine.replay import snapshot_for
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME, ticks
from avbench.types import ClipRecord, FrontEnd, Snapshot

if TYPE_CHECKING:
    from avbench.registry.options import StreamingModel

ITERATION = 18
WINDOW_S, CLIP_S = 5, 40
N_WINDOWS, N_FILES = 64, 8
MAX_WINDOW_BYTES = 512 * 2**20


@dataclass
class Clock:
    """``now_ns`` with ``synchronise`` called before each start and after each end."""

    name: str
    now_ns: Callable[[], int] = time.perf_counter_ns
    synchronise: Callable[[], None] = lambda: None

    def ms(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """The time of ``call`` in milliseconds, and its result."""
        self.synchronise()
        began = self.now_ns()
        out = call()
        self.synchronise()
        return (self.now_ns() - began) / 1e6, out


def clock_of(device: str) -> Clock:
    """The clock for "cpu", "cuda" or "cuda:N"; on a GPU it waits for all queued work."""
    if not device.startswith("cuda"):
        return Clock("perf_counter_ns")
    import torch

    name = "perf_counter_ns, torch.cuda.synchronize before start and after end"
    return Clock(name, synchronise=partial(torch.cuda.synchronize, device))


class Media:
    """A SynthSync clip as an encoded file, as files of one window each, and as decoded windows."""

    text = f"SynthSync scene of {CLIP_S} s, encoded (H.264, AAC)"

    def __init__(self, folder: Path, seed: int) -> None:
        from avbench.data.scenes import Scene
        from avbench.types import CATEGORIES

        self.folder = folder
        scene = Scene(CATEGORIES[0], 0, seed, CLIP_S + 1)
        frames, sound = list(scene.frames()), scene.audio()
        self.clip = self._write("clip", frames, sound)
        self.files = []
        for i in range(N_FILES):
            first = i * WINDOW_S * FRAME_RATE_HZ
            last = first + WINDOW_S * FRAME_RATE_HZ + 1  # a spare frame for front ends that trim the start
            part = sound[first * TICKS_PER_FRAME : last * TICKS_PER_FRAME]
            self.files.append(self._write(f"window{i}", frames[first:last], part))

    def _write(self, name: str, frames: list[np.ndarray], sound: np.ndarray) -> ClipRecord:
        from avbench.data.encode import encode_clip

        path = self.folder / f"{name}.mp4"
        encode_clip(path, frames, sound)
        return ClipRecord(name, name, path.name, "", len(frames), len(sound))

    def hops(self, clip: ClipRecord, frontend: FrontEnd, hop_s: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The windows of one stream, decoded on request: (1, T, 3, size, size) uint8, (1, N) float32."""
        from avbench.data.media import ClipReader

        with ClipReader(self.folder / clip.path, clip) as reader:
            sound = reader.audio()
            hop, length = ticks(hop_s), ticks(WINDOW_S)
            held: list[np.ndarray] = []
            start, trim = 0, frontend.audio_lead_trim_samples
            grid = reader.frames(frontend)
            while (start + length) // TICKS_PER_FRAME <= clip.n_frames and start + length + trim <= clip.n_samples:
                drop = min(len(held), hop // TICKS_PER_FRAME) if start else 0
                held = held[drop:]
                for _ in range(hop // TICKS_PER_FRAME - drop if start else 0):
                    next(grid)  # a hop longer than the window
                while len(held) < length // TICKS_PER_FRAME:
                    held.append(next(grid)[0])
                yield np.stack(held)[None], sound[None, start + trim : start + trim + length]
                start += hop
            grid.close()

    def windows(self, frontend: FrontEnd, samples: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Distinct windows: at most ``N_WINDOWS``, and no more than ``samples`` needs or memory allows."""
        n_bytes = WINDOW_S * FRAME_RATE_HZ * 3 * frontend.size**2
        n = max(2, min(N_WINDOWS, max(samples, N_FILES), MAX_WINDOW_BYTES // n_bytes))
        hop_frames = (CLIP_S - WINDOW_S) * FRAME_RATE_HZ // (n - 1)
        found = self.hops(self.clip, frontend, hop_frames / FRAME_RATE_HZ)
        return [window for _, window in zip(range(n), found, strict=False)]


class Stepper:
    """A loaded model with its windows on the device, ready to time single steps of a stream."""

    def __init__(
        self, model: StreamingModel, windows: Sequence[tuple[np.ndarray, np.ndarray]], device: str, hop_s: float
    ) -> None:
        self.model, self.hop_s = model, hop_s
        self.backbone: Any = model.backbone
        self.head: Any = model.head
        self.uses_torch = getattr(self.backbone, "uses_torch", True)
        self.device = device if hasattr(self.backbone, "parameters") else "cpu"
        self.windows = [self.give(*window) for window in windows]
        self._snapshots: dict[int, Snapshot] = {}
        self._states: dict[tuple[int, int], Any] = {}

    def give(self, video: np.ndarray, audio: np.ndarray) -> tuple[Any, Any]:
        """One window as the model takes it: tensors on its device, or the arrays if it does not use torch."""
        if not self.uses_torch:
            return video, audio
        import torch

        return torch.from_numpy(video).to(self.device), torch.from_numpy(np.array(audio)).to(self.device)

    def __len__(self) -> int:
        return len(self.windows)

    def snapshot(self, i: int) -> Snapshot:
        """A new snapshot of window ``i``."""
        return Snapshot(*self.backbone.predict(*self.windows[i]))

    def prepare(self, i: int, iteration: int) -> None:
        """Computes the head's state before window ``i``, untimed; history: the preceding windows, wrapping around."""
        if (i, iteration) in self._states:
            return
        state = self.head.init(1)
        for k in range(iteration - 1):
            j = (i - iteration + 1 + k) % len(self)
            if j not in self._snapshots:
                self._snapshots[j] = self.snapshot(j)
            state, _ = self.head.step(state, snapshot_for(self.head, self._snapshots[j]), k * self.hop_s)
        self._states[i, iteration] = state

    def step(self, i: int, iteration: int = ITERATION) -> Any:
        """Window ``i`` as the ``iteration``-th of its stream -> logits (1, 21). Call ``prepare`` first."""
        return self.decide(self.windows[i], self._states[i, iteration], iteration)

    def decide(self, window: tuple[Any, Any], state: Any, iteration: int) -> Any:
        """One step: snapshot of ``window``, then the head from ``state`` -> logits (1, 21)."""
        snapshot = snapshot_for(self.head, Snapshot(*self.backbone.predict(*window)))
        return self.head.step(state, snapshot, (iteration - 1) * self.hop_s)[1]

    def expected(self, iteration: int = ITERATION) -> np.ndarray:
        """(len(self), 21) logits of a plain evaluation: new snapshots, replayed as in ``avbench run``."""
        from avbench.engine.replay import replay

        fresh = [self.snapshot(i) for i in range(len(self))]
        before = (np.arange(len(self))[:, None] + np.arange(1 - iteration, 1)) % len(self)
        logits = np.concatenate([as_array(row.logits) for row in fresh])
        tokens = None if fresh[0].token is None else np.concatenate([as_array(row.token) for row in fresh])[before]
        return replay(self.head, logits[before], tokens, self.hop_s)[:, -1]


def as_array(values: Any) -> np.ndarray:
    """A tensor or array as a float32 array."""
    return np.asarray(values.detach().float().cpu().numpy() if hasattr(values, "detach") else values, np.float32)
