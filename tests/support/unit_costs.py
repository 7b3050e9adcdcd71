"""Measures the unit costs that ``avbench plan`` multiplies: CPU seconds on one thread, the median of several.

``python tests/support/unit_costs.py [--full]`` prints the rows for benchmark/runs/unit_costs.json; ``--full``: also
SparseSync at published size (random weights: they cost the same), some two minutes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench.baselines.mini import MiniSparseSync, MiniSynchformer
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.data.media import ClipReader
from avbench.data.opening import read_data
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey
from avbench.registry.loading import load_all, load_plain_head
from avbench.registry.names import resolve
from avbench.ticks import TICKS_PER_FRAME
from avbench.types import FrontEnd, Snapshot
from avbench.weights.checkpoints import drawn_weights

CLIPS_256 = Path(__file__).resolve().parents[2].parent / "shared" / "media" / "vggsound_h264"


def cpu_s(work: Callable[[], Any], times: int) -> float:
    """Median CPU seconds of a call, after one that does not count."""
    work()
    costs = []
    for _ in range(times):
        began = time.process_time()
        work()
        costs.append(time.process_time() - began)
    return statistics.median(costs)


def towers(model: Any, size: int, times: int) -> Iterator[tuple[str, float]]:
    video = torch.randint(0, 256, (1, 125, 3, size, size), dtype=torch.uint8)
    sound = 0.1 * torch.randn(1, 80_000)
    pictures, heard = model.encode_video(video), model.encode_audio(sound)
    yield "picture_window", cpu_s(lambda: model.encode_video(video), times)
    yield "sound_window", cpu_s(lambda: model.encode_audio(sound), times)
    yield "fusion", cpu_s(lambda: model.fuse(pictures, heard), times)


def decoding(paths: list[Path], frontend: FrontEnd) -> float:
    """CPU seconds per second of a clip: sound, and pictures for one front end."""

    def read(path: Path) -> float:
        reader = ClipReader(path)
        reader.audio()
        return sum(1 for _ in reader.frames(frontend)) / 25

    lasts_s = sum(map(read, paths))
    return cpu_s(lambda: [read(path) for path in paths], 5) / lasts_s


def head_step(name: str) -> float:
    """Of one stream, the mean over 18 steps."""
    head = load_plain_head(name) if name == "apa" else load_all([resolve(name)])[0].head
    snapshots = [Snapshot(torch.randn(1, 21), torch.randn(1, getattr(head, "dim", 96))) for _ in range(18)]

    def stream() -> None:
        state = head.init(1)
        for k, snapshot in enumerate(snapshots):
            state, _ = head.step(state, snapshot, 2.0 * k)

    return cpu_s(stream, 20) / 18


def shard_bytes(n: int, width: int) -> int:
    """On disk, of a shard of ``n`` snapshots with tokens of ``width`` values."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [SnapshotKey(TICKS_PER_FRAME * k, TICKS_PER_FRAME * k) for k in range(n)]
        logits, tokens = np.zeros((n, 21), np.float32), np.zeros((n, width), np.float32)
        SnapshotStore(folder).put("0" * 64, "1" * 64, keys, logits, tokens)
        files = [path for path in Path(folder).glob("*/*") if path.is_file()]
        assert len(files) == 2, "a shard and its lock"
        return sum(path.stat().st_size for path in files)


def store_s(n_clips: int = 300, n: int = 468) -> dict[str, float]:
    """CPU seconds a clip of ``n`` snapshots without tokens: to store it, to see that nothing is missing, to merge it
    into another store."""
    keys = [SnapshotKey(TICKS_PER_FRAME * k, TICKS_PER_FRAME * k) for k in range(n)]
    logits, names = np.zeros((n, 21), np.float32), [f"{k:064x}"[::-1] for k in range(n_clips)]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        store, costs = SnapshotStore(one), {}
        for what, do in (
            ("store_s", lambda: [store.put("0" * 64, name, keys, logits) for name in names]),
            ("missing_s", lambda: [store.missing("0" * 64, name, keys) for name in names]),
            ("merge_s", lambda: SnapshotStore(two).absorb(store)),
        ):
            began = time.process_time()
            do()
            costs[what] = (time.process_time() - began) / n_clips
    return costs


def measured(full: bool) -> Iterator[dict[str, Any]]:
    """The rows."""
    for name, make in (("sparsesync", MiniSparseSync), ("synchformer", MiniSynchformer)):
        for unit, cost in towers(make().eval(), make().frontend.size, 15):
            yield {"model": name, "unit": unit, "s": cost}
    synthetic = read_data("synthsync", "test")
    some = [synthetic.clip_path(clip) for clip in list(synthetic.clips.values())[:2]]
    yield {"model": "", "unit": "decoding", "pixels": 64, "s": decoding(some, FrontEnd(size=64))}
    if CLIPS_256.is_dir():
        some = sorted(CLIPS_256.glob("*.mp4"))[:3]
        cost = decoding(some, FrontEnd(size=224, fit="crop", short_side=256))
        yield {"model": "", "unit": "decoding", "pixels": 224, "s": cost}
    for name in ("apa", "streamsync-trf", "streamsync-lstm"):
        yield {"model": "", "unit": "head_step", "head": name, "s": head_step(name)}
    many, one = shard_bytes(1000, 96), shard_bytes(1, 96)
    each = (many - one) / 999
    yield {"unit": "store", "bytes_of_a_snapshot": each - 4 * 96, "bytes_of_a_file": one - each, "files_of_a_clip": 2}
    yield {"unit": "store", "snapshots_of_a_clip": 468, **store_s()}
    if full:
        with torch.device("meta"):
            empty = SparseSync()
        empty.load_state_dict(drawn_weights(empty.state_dict(), 0), assign=True)
        for unit, cost in towers(fast(empty.eval()), 224, 3):
            yield {"model": "sparsesync at published size", "unit": unit, "s": cost}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        for row in measured("--full" in sys.argv):
            print(json.dumps({k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}), flush=True)
