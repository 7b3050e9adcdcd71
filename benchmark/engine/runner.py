"""The runner: computes the snapshots that the store lacks. Each clip is decoded once, front to back, for all models.

All windows of all segments of a clip are cut from that one pass, in bounded memory. A two-tower backbone encodes each
picture window and each sound window once. What fails is listed with its reason; nothing is put in its place. Worker
processes take clips one by one; a worker that crashes costs its clip only.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.job import Factory, Outcome, Reader, Setup, Task, load_predictor, open_media
from avbench.engine.store import SnapshotStore
from avbench.engine.workers import run_here, run_workers
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import Plan, SnapshotKey, keys_of, plan
from avbench.protocol.rules import Protocol
from avbench.ticks import seconds
from avbench.types import ClipRecord, SnapshotPredictor, UsageError

Progress = Callable[[int, int, str], None]  # snapshots done (or given up), snapshots to do, the clip at work


class Failure(NamedTuple):
    """A segment without a score, and why."""

    segment_id: str
    clip_id: str
    reason: str


@dataclass
class RunReport:
    """What a run did. ``fingerprints``, ``failures_of``, ``model_s`` and ``model_snapshots`` are by the models' names.

    ``counters``: clips_decoded, frames_decoded, picture_windows_encoded, sound_windows_encoded, snapshots_computed,
    snapshots_from_store. ``model_s``: seconds in the model's own calls, ``model_snapshots``: how many it computed.
    """

    plan: Plan
    fingerprints: dict[str, str]
    failures_of: dict[str, list[Failure]]
    counters: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    model_s: dict[str, float] = field(default_factory=dict)
    model_snapshots: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> list[Failure]:
        """The failures of all models, each once."""
        return list(dict.fromkeys(f for failures in self.failures_of.values() for f in failures))

    def ms_per_snapshot(self, model: str) -> float | None:
        """Indicative only (the latency protocol measures); None if everything came from the store."""
        count = self.model_snapshots.get(model, 0)
        return 1000 * self.model_s[model] / count if count else None


def compute(
    manifest: Manifest,
    protocols: Sequence[Protocol],
    predictors: Mapping[str, SnapshotPredictor | Factory],
    store: SnapshotStore,
    *,
    workers: int = 1,
    batch_size: int = 1,
    device: str = "cpu",
    open_clip: Callable[[ClipRecord], Reader] | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Make sure the store holds every snapshot of ``predictors`` that ``protocols`` need on ``manifest``.

    ``predictors``: name -> predictor, or a function without arguments that makes it; with ``workers`` > 1 it must be
    such a function, and picklable. ``workers`` = 1 computes in this process. ``batch_size``: windows per model call on
    an accelerator, halved when its memory runs out; on the CPU windows are always computed one by one and by one
    thread a process, so that scores depend neither on the batch nor on the number of workers or cores.
    ``open_clip``: replaces reading the manifest's media (tests); picklable if ``workers`` > 1.

    A clip or model that fails is reported and the run goes on. ``StoreError`` (disk full, damaged shard) and
    ``UsageError`` (a model whose output has the wrong shape) end it; what was stored until then stays, and within a
    clip snapshots are stored every ``SAVE_EVERY_S``. ``progress`` is called before the first window, too.
    """
    if workers < 1 or batch_size < 1:
        raise UsageError(f"workers is {workers} and batch_size {batch_size}; both must be at least 1")
    planned = plan(manifest.segments, manifest.clips, protocols)
    loaded = {name: load_predictor(maker, device) for name, maker in predictors.items()}
    fingerprints = {name: model_fingerprint(predictor) for name, predictor in loaded.items()}
    tasks, n_stored = _tasks(planned, manifest, store, set(fingerprints.values()))
    setup = Setup(
        makers={fingerprint: predictors[name] for name, fingerprint in fingerprints.items()},
        names={fingerprint: name for name, fingerprint in fingerprints.items()},
        store_root=store.root,
        open_clip=open_clip or partial(open_media, replace(manifest, segments=(), sources={})),
        batch_size=1 if device.startswith("cpu") else batch_size,
        device=device,
        n_classes=_n_classes(protocols),
    )
    if workers > 1:
        for name, maker in predictors.items():
            if isinstance(maker, SnapshotPredictor):
                raise UsageError(f"model {name}: with several workers pass a function that makes it, not the model")

    report = RunReport(planned, fingerprints, {name: [] for name in predictors})
    report.counters["snapshots_from_store"] = n_stored
    outcomes: dict[str, Outcome] = {}
    counted: Counter[str] = Counter()
    total = sum(task.n_snapshots for task in tasks)

    def tell(task: Task, n_done: int) -> None:
        counted[task.clip.id] = n_done
        if progress:
            progress(counted.total(), total, task.clip.id)

    if min(workers, len(tasks)) > 1:
        stream: Generator[tuple[Task, Outcome]] = run_workers(setup, tasks, min(workers, len(tasks)), tell)
    else:
        models = {fingerprints[name]: predictor for name, predictor in loaded.items()}
        stream = run_here(setup, tasks, models, tell)
    with contextlib.closing(stream):
        for task in tasks[:1]:
            tell(task, 0)
        for task, outcome in stream:
            outcomes[outcome.clip_id] = outcome
            tell(task, task.n_snapshots)
    # in the order of the plan, not of finishing: the same report whatever the number of workers
    _fill(report, [(task, outcomes[task.clip.id]) for task in tasks])
    return report


def _tasks(planned: Plan, manifest: Manifest, store: SnapshotStore, models: Iterable[str]) -> tuple[list[Task], int]:
    """The clips with missing snapshots, and how many snapshots are already stored."""
    tasks, n_stored = [], 0
    models = sorted(models)
    for clip_id, keys in planned.keys.items():
        clip = manifest.clips[clip_id]
        missing = {model: store.missing(model, clip.sha256, keys) for model in models}
        n_stored += sum(len(keys) - len(some) for some in missing.values())
        if any(missing.values()):
            tasks.append(Task(clip, {model: some for model, some in missing.items() if some}))
    return tasks, n_stored


def _fill(report: RunReport, done: Sequence[tuple[Task, Outcome]]) -> None:
    """Add up the outcomes; turn windows that are still missing into the segments that need them."""
    held: dict[str, dict[str, list[tuple[int, SnapshotKey]]]] = {}  # clip -> segment -> its (iteration, key) pairs
    failed = {outcome.clip_id for _, outcome in done if outcome.error or outcome.bad}
    for protocol, segments in report.plan.supported.items():
        for segment in segments:
            if segment.clip_id in failed:
                pairs = held.setdefault(segment.clip_id, {}).setdefault(segment.id, [])
                pairs += enumerate(keys_of(protocol, segment), 1)
    for task, outcome in done:
        report.counters.update(outcome.counters)
        report.warnings += outcome.warnings
        for name, model in report.fingerprints.items():
            report.model_s[name] = report.model_s.get(name, 0.0) + outcome.model_s.get(model, 0.0)
            report.model_snapshots[name] = report.model_snapshots.get(name, 0) + outcome.model_snapshots.get(model, 0)
            # a clip that breaks off loses all of its segments, however much of it an earlier run had stored: which
            # part that is depends on when that run was killed
            broke_off, bad = bool(outcome.error) and model in task.keys, outcome.bad.get(model, {})
            for segment_id, pairs in held.get(outcome.clip_id, {}).items():
                first = next(((i, key) for i, key in pairs if broke_off or key in bad), None)
                if first:
                    i, key = first
                    reason = outcome.error or (
                        f"model {name} {outcome.bad[model][key]}, iteration {i} (window at {seconds(key.picture):g} s)"
                    )
                    report.failures_of[name].append(Failure(segment_id, outcome.clip_id, reason))


def _n_classes(protocols: Sequence[Protocol]) -> int:
    numbers = {protocol.grid.n_classes for protocol in protocols}
    if len(numbers) != 1:
        raise UsageError(f"the protocols of one run must share one offset grid; these have {sorted(numbers)} classes")
    return numbers.pop()
