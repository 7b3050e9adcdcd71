"""A toy run for tests, importable by worker processes: procedural clips without media, models without torch.

As a script: ``python toy_run.py STORE PREDICTIONS WORKERS SLEEP_S SAVE_EVERY_S OVERLAPPED`` makes all snapshots, then
the predictions; OVERLAPPED is 1 for the pipeline of accelerators, with batches of 5 windows.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from avbench.baselines.apa import Apa
from avbench.engine import job
from avbench.engine.replay import gather, replay
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import streaming
from avbench.ticks import ticks
from avbench.types import ClipRecord, FrontEnd, MediaError, OffsetGrid, SegmentRecord, Snapshot, SnapshotPredictor

PROTOCOL = streaming(hop_s=1, iterations=4)


def toy_manifest(n_clips: int = 4, duration_s: int = 14, offsets_s: tuple[float, ...] = (0.0, -0.8, 1.0)) -> Manifest:
    """Every clip has one segment per offset; segments start every second from 1 s on."""
    clips, segments = {}, []
    for c in range(n_clips):
        name = f"clip{c}"
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        clips[name] = ClipRecord(name, f"video{c}", f"{name}.mp4", sha256, duration_s * 25, duration_s * 16_000)
        for k, offset_s in enumerate(offsets_s):
            offset_class = OffsetGrid().class_of(offset_s)
            segments.append(
                SegmentRecord(f"{name}-{k}", name, f"video{c}", ticks(1 + k), ticks(offset_s), offset_class)
            )
    return Manifest("toy", "synthetic", "", "list", clips, tuple(segments), Path("nowhere"))


class ToyReader:
    """Frame k says k in its first two bytes, then noise; sound is noise. What is read is counted."""

    def __init__(self, clip: ClipRecord, sleep_s: float = 0.0) -> None:
        self.clip, self.sleep_s, self.n_read = clip, sleep_s, 0

    def audio(self) -> np.ndarray:
        rng = np.random.default_rng(int(self.clip.sha256[:8], 16))
        return rng.uniform(-1, 1, self.clip.n_samples).astype(np.float32)

    def gaps(self) -> tuple[()]:
        return ()

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        rng = np.random.default_rng(int(self.clip.sha256[8:16], 16))
        for k in range(self.clip.n_frames):
            if self.sleep_s and k % 10 == 0:
                time.sleep(self.sleep_s)
            self.n_read += 1
            largest = rng.integers(0, 256, (3, 16, 16), np.uint8)
            largest[0, 0, :2] = divmod(k, 256)
            yield tuple(largest[:, : f.size, : f.size] for f in frontends)


class ToyModel(SnapshotPredictor):
    """Logits and a token from fixed random maps of picture and sound; no torch."""

    uses_torch = False
    token_dim = 4

    def __init__(self, seed: int = 0, size: int = 8, two_tower: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.frontend = FrontEnd(size=size)
        self.two_tower = two_tower
        self.picture = rng.standard_normal((size * size * 3, 25))
        self.sound = rng.standard_normal((1000, 25))

    def encode_video(self, video: np.ndarray) -> np.ndarray:
        assert video.dtype == np.uint8
        weight = np.linspace(1, 2, video.shape[1])[:, None]
        return np.stack([(v.reshape(len(v), -1) / 255 @ self.picture * weight).mean(axis=0) for v in video])

    def encode_audio(self, audio: np.ndarray) -> np.ndarray:
        assert audio.dtype == np.float32
        return np.stack([(a.reshape(-1, 1000).astype(np.float64) @ self.sound).std(axis=0) for a in audio])

    def fuse(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        out = np.tanh(video / 5) * audio / 5
        return Snapshot(out[:, :21], out[:, 21:])

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        return self.fuse(self.encode_video(video), self.encode_audio(audio))


class Misshapen(ToyModel):
    """A model whose output has the wrong shape."""

    def __init__(self, width: int, token_dim: int | None) -> None:
        super().__init__()
        self.width, self.token_dim = width, token_dim

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        return Snapshot(np.zeros((1, self.width)), np.zeros((1, 4)))


class Broken(ToyModel):
    """Never works. ``by_clip``: in another way on each clip; ``until``: only before this call."""

    def __init__(self, by_clip: bool = False, until: float = np.inf) -> None:
        super().__init__(0)
        self.by_clip, self.until = by_clip, until

    def fingerprint_parts(self) -> dict[str, object]:
        return {"by_clip": self.by_clip, "until": self.until}

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        calls = vars(self).setdefault("calls", [])
        calls.append(1)
        if len(calls) <= self.until:
            raise RuntimeError(f"bug {len(calls)}" if self.by_clip else "bug")
        return super().predict(video, audio)


def open_toy(clip: ClipRecord, sleep_s: float = 0.0, bad: str = "", how: str = "") -> ToyReader:
    """``bad``: the clip that fails, and ``how``: "media", "bug", "crash" (SIGSEGV), "killed" (SIGKILL)."""
    if clip.id == bad:
        if how == "media":
            raise MediaError(clip.id, "picture ends at 4.32 s, the manifest says 14.00 s")
        if how == "bug":
            raise IndexError("list index out of range")
        os.kill(os.getpid(), signal.SIGSEGV if how == "crash" else signal.SIGKILL)
    return ToyReader(clip, sleep_s)


class DiesOnce(ToyReader):
    """Its process dies after 200 frames of clip1, unless the file ``once`` says that this has happened before."""

    def __init__(self, clip: ClipRecord, once: Path) -> None:
        super().__init__(clip)
        self.once = once

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        for k, arrays in enumerate(super().frames(*frontends)):
            if k == 200 and self.clip.id == "clip1" and not self.once.exists():
                self.once.touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            yield arrays


def unseeded() -> ToyModel:
    return ToyModel(seed=int.from_bytes(os.urandom(4), "big"))


def main(
    store_root: str, predictions: str, workers: str, sleep_s: str, save_every_s: str, overlapped: str = "0"
) -> None:
    job.SAVE_EVERY_S = float(save_every_s)
    manifest, store = toy_manifest(), SnapshotStore(store_root)
    makers = {"plain": partial(ToyModel, 0), "towers": partial(ToyModel, 1, 16, True)}
    opener = partial(open_toy, sleep_s=float(sleep_s))
    how = Compute(store, int(workers), batch_size=5, overlapped=overlapped == "1")
    report = compute(manifest, [PROTOCOL], makers, how, open_clip=opener)
    assert not report.failures, report.failures
    parts = []
    for name in makers:
        logits, tokens = gather(store, manifest.clips, manifest.segments, PROTOCOL, report.fingerprints[name])
        assert tokens is not None
        parts += [replay(Apa(), logits, tokens, 1.0).tobytes(), tokens.tobytes()]
    Path(predictions).write_bytes(b"".join(parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
