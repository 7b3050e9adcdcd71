"""How time and memory grow with the number of segments: a made-up data set whose snapshots are put straight into a
store, run through every stage from the manifest to the leaderboard's check. No media are read and no model computes.

As a script, ``python tests/support/scale.py 1000 10000 100000`` prints a table: for each stage its seconds and its peak
memory (RSS) at each number of segments, and the exponent of CPU time that fits them. Each number has a process of its
own.
``--tables-only`` stops before the store: manifest, plan and shares (for a million segments); ``--profile STAGE`` prints
where one stage spends its time; ``--work DIR`` says where the files go (removed afterwards).
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import hashlib
import json
import math
import pstats
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.engine.store import SnapshotStore
from avbench.pages.run_report import report_again
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.protocol.plan import Plan, plan, shares
from avbench.protocol.rules import Protocol, streaming
from avbench.protocol.tracks import TRACKS, Track
from avbench.registry.loading import load
from avbench.registry.names import resolve, resolve_object
from avbench.results.truth import Truth
from avbench.runs.compare import compare
from avbench.runs.evaluate import evaluate
from avbench.submissions import pack as packing
from avbench.submissions import tracks as known_tracks
from avbench.submissions.check import check
from avbench.ticks import TICKS_PER_FRAME
from avbench.types import CATEGORIES, ClipRecord, OffsetGrid, SegmentRecord, Snapshot, SnapshotPredictor

PER_CLIP = 10  # segments
CLIP_S = 120
CHANNELS = 9
N_SHARES = 64


class ToyBackbone(SnapshotPredictor):
    """A model that is never called: all of its snapshots are in the store."""

    uses_torch = False

    def predict(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        raise AssertionError("every snapshot should have been found in the store")


def made_up(n: int, seed: int = 0) -> Manifest:
    """``n`` segments, ten to a clip of two minutes, each clip of a video of its own; offsets are whole hundredths of a
    second, uniform. All of them are long enough for 18 windows two seconds apart."""
    rng, grid = np.random.default_rng(seed), OffsetGrid()
    clips: dict[str, ClipRecord] = {}
    segments = []
    starts, hundredths = rng.integers(50, 75 * 25, n).tolist(), rng.integers(-200, 201, n).tolist()
    classes = {h: grid.class_of(h / 100) for h in range(-200, 201)}
    for row in range(n):
        c = row // PER_CLIP
        clip_id, video_id, channel = f"clip{c:07d}", f"video{c:07d}", f"channel {c % CHANNELS}"
        if clip_id not in clips:
            sha256 = hashlib.sha256(clip_id.encode()).hexdigest()
            path = f"{clip_id}.mp4"
            clips[clip_id] = ClipRecord(clip_id, video_id, path, sha256, CLIP_S * 25, CLIP_S * 16_000, channel)
        segments.append(
            SegmentRecord(
                f"{clip_id}-{row % PER_CLIP}",
                clip_id,
                video_id,
                starts[row] * TICKS_PER_FRAME,
                hundredths[row] * 160,
                classes[hundredths[row]],
                CATEGORIES[row % len(CATEGORIES)],
                channel=channel,
            )
        )
    return Manifest("made up", "files", "", "uniform", clips, tuple(segments), Path("nowhere"))


def fill(store: SnapshotStore, planned: Plan, manifest: Manifest, fingerprint: str, skill: float, seed: int) -> None:
    """Put a snapshot for every key of the plan: noise, in which the class of the sound's offset stands out by
    ``skill``."""
    rng, classes = np.random.default_rng(seed), np.arange(21)
    for clip_id, keys in planned.keys.items():
        shifts = np.array([key.sound - key.picture for key in keys])
        near = np.exp(-(((shifts / 3200 + 10)[:, None] - classes) ** 2))
        logits = (rng.standard_normal((len(keys), 21)) + skill * near).astype(np.float32)
        store.put(fingerprint, manifest.clips[clip_id].as_read, keys, logits)


# ------------------------------------------------------------------------------------------------------------ measuring


class Figures(NamedTuple):
    """What one stage took."""

    seconds: float
    cpu_s: float  # of the processor: on a busy machine the other says little
    peak_mib: float  # of the whole process, while the stage ran


class Watch:
    """Times stages; ``profile`` names the one whose functions are printed."""

    def __init__(self, profile: str = "") -> None:
        self.profile, self.found = profile, dict[str, Figures]()

    def __call__(self, stage: str, do: Callable[[], Any]) -> Any:
        """What ``do()`` returns; its time and peak memory are noted under ``stage``."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
        profiler = cProfile.Profile() if stage == self.profile else None
        began, busy = time.perf_counter(), time.process_time()
        value = profiler.runcall(do) if profiler else do()
        self.found[stage] = Figures(time.perf_counter() - began, time.process_time() - busy, _peak_mib())
        if profiler:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
        took = self.found[stage]
        print(f"{stage}: {took.seconds:.2f} s, CPU {took.cpu_s:.2f} s, {took.peak_mib:.0f} MiB", file=sys.stderr)
        return value


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


@contextlib.contextmanager
def made_up_track(manifest: Manifest, protocol: Protocol) -> Iterator[Track]:
    """A public track of these data while the block runs: real ones are small."""
    plain = next(iter(TRACKS.values()))
    track = replace(plain, name="made-up-v1", manifest_sha256=manifest.sha256, protocol=protocol)
    segments, before = manifest.segments, known_tracks.truth
    answers = replace(Truth.of(segments, len(segments), protocol), sources=tuple(s.id for s in segments))
    TRACKS[track.name] = track
    known_tracks.truth = lambda asked: answers if asked == track else before(asked)  # type: ignore[assignment]
    try:
        yield track
    finally:
        del TRACKS[track.name]
        known_tracks.truth = before


def stages(n: int, work: Path, watch: Watch, tables_only: bool = False) -> None:
    """Run every stage on ``n`` segments, with its files in the folder ``work``."""
    protocol, folder = streaming(), work / "data"
    manifest = watch("make", lambda: made_up(n))
    watch("write manifest", lambda: write_manifest(manifest, folder))
    manifest = watch("read manifest", lambda: read_manifest(folder).split("test"))
    planned = watch("plan", lambda: plan(manifest.segments, manifest.clips, [protocol]))
    watch("shares", lambda: shares(planned, N_SHARES))
    if tables_only:
        return
    store, toy = SnapshotStore(work / "store"), ToyBackbone()
    classical = load(resolve("xcorr")).backbone
    assert classical is not None
    prints = [model_fingerprint(model) for model in (toy, classical)]

    def filled() -> None:
        for seed, fingerprint in enumerate(prints):
            fill(store, planned, manifest, fingerprint, 2.0 - seed, seed)

    watch("fill store", filled)
    n_unique = planned.n_unique  # a few windows are those of two segments
    _replayed(Session(manifest, Compute(store, 1)), toy, protocol, watch)

    def run(head: str, beside: bool) -> Any:
        how, out = Compute(store, 1), work / f"run-{head}"
        return evaluate(toy, str(folder), out=out, compute=how, reference_rows=beside, head=head)

    result = watch("run", lambda: run("apa", True))
    assert result.counters["snapshots_from_store"] == 2 * n_unique
    assert not result.counters.get("snapshots_computed")
    watch("run without rows", lambda: run("none", False))
    watch("report", lambda: report_again(work / "run-apa"))
    watch("compare", lambda: compare(work / "run-apa", work / "run-none"))
    with made_up_track(manifest, protocol):
        packed = watch("submit pack", lambda: packing.pack(work / "run-apa", work / "entries", "acme", "toy"))
        report = watch("submit check", lambda: check(packed))
        assert report.ok, report.errors


def _replayed(session: Session, toy: ToyBackbone, protocol: Protocol, watch: Watch) -> None:
    """Ask the store, gather and replay, as a run does."""
    model = load(resolve_object(toy, "apa"))
    session.need(model, protocol)
    watch("ask store", session.compute)
    watch("gather and replay", lambda: session.predictions(model, protocol))


# ---------------------------------------------------------------------------------------------------------- the script


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log time over log size (least squares); nan with one size."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measured(n: int, work: Path, options: list[str]) -> dict[str, Figures]:
    """The figures of every stage at ``n`` segments, in a process of its own."""
    command = [sys.executable, __file__, "--here", str(n), "--work", str(work), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {stage: Figures(*row) for stage, row in json.loads(done.stdout.splitlines()[-1]).items()}


def table(found: dict[int, dict[str, Figures]]) -> str:
    """The figures as Markdown: a row per stage with CPU seconds, wall seconds and peak memory at each size, and the
    exponent of CPU time."""
    sizes = sorted(found)
    kinds = ("CPU s", "wall s", "MiB")
    head = ["stage", *(f"{kind}, {n:,}" for kind in kinds for n in sizes), "exponent"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for stage in found[sizes[-1]]:
        rows = [found[n][stage] for n in sizes]
        cells = [*(f"{row.cpu_s:.2f}" for row in rows), *(f"{row.seconds:.1f}" for row in rows)]
        cells += [*(f"{row.peak_mib:.0f}" for row in rows), f"{exponent(sizes, [row.cpu_s for row in rows]):.2f}"]
        lines.append(f"| {' | '.join([stage, *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sizes", type=int, nargs="+", help="numbers of segments")
    parser.add_argument("--tables-only", action="store_true", help="manifest, plan and shares only")
    parser.add_argument("--profile", default="", help="print where this stage spends its time")
    parser.add_argument("--work", type=Path, help="where the files go")
    parser.add_argument("--here", action="store_true", help="one size, in this process, as JSON")
    args = parser.parse_args()
    base = args.work or Path(tempfile.gettempdir())
    if args.here:
        watch = Watch(args.profile)
        with tempfile.TemporaryDirectory(prefix="scale-", dir=base) as work:
            stages(args.sizes[0], Path(work), watch, args.tables_only)
        print(json.dumps(watch.found))
        return
    options = [*(["--tables-only"] if args.tables_only else []), *(["--profile", args.profile] if args.profile else [])]
    print(table({n: measured(n, base, options) for n in args.sizes}))


if __name__ == "__main__":
    main()
