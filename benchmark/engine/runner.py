"""The runner: computes the snapshots that the store lacks. Each clip is decoded once, front to back, for all models.

All windows of all segments of a clip are cut from that one pass, in bounded memory. A two-tower backbone encodes each
picture window and each sound window once, and one like Synchformer each piece of these that windows share. What fails
is listed with its reason and never replaced. Worker processes take clips one by one; a worker that crashes loses only
its clip. Media that avbench did not make are always decoded in a worker process, unless a model cannot be built there:
what crashes its decoder must not end the run. For accelerators worker processes only decode, and this process computes
meanwhile (``pipeline``).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from avbench.engine.job import Backbone, Factory, Outcome, Reader, Setup, Task, open_media
from avbench.engine.pipeline import run_overlapped
from avbench.engine.store import SnapshotStore
from avbench.engine.workers import run_apart, run_here, run_workers
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import Plan, SnapshotKey, keys_of, plan, shares
from avbench.protocol.rules import Protocol
from avbench.results.run import Failure, Spent
from avbench.system import machine
from avbench.system.cache import default_store
from avbench.system.devices import device_meant, on_cpu
from avbench.system.in_python import in_python
from avbench.system.progress import ItemProgress
from avbench.system.workers import can_be_sent
from avbench.ticks import seconds
from avbench.types import ClipRecord, SnapshotPredictor, UsageError

AUTO_BATCH = 32  # windows per call at first, halved when memory runs out
GIVE_UP_AFTER = 3  # clips in a row on which a model fails in the same way, before it has worked on any
LARGE_BYTES = 100 * 2**20  # of weights; with more, memory for activations is counted too


@dataclass(frozen=True)
class Compute:
    """Where and how snapshots are computed. None of it changes a score, except that accelerators round differently.

    ``store``: a folder (None: the user's). ``workers``: processes that decode and compute, or that decode for an
    accelerator (None: as many as cores and memory allow). ``device``: a torch device, or "auto". ``batch_size``:
    windows per model call on an accelerator (None: as many as fit its memory); on the CPU windows are computed one by
    one. ``share``: (i, n), only the i-th of n shares of the clips, i from 1 on (None: all of them). ``keep_going``:
    compute on though a model has failed in the same way on each of the first ``GIVE_UP_AFTER`` clips. ``overlapped``:
    whether processes decode while this one computes, in batches of windows of all clips (None: on accelerators, if
    media are decoded).
    ``on_demand``: each clip of hosted data is fetched when its turn comes; at most ``keep_bytes`` of them are on the
    disk (None: as many as it holds). ``engine``: runs the tasks in place of the worker processes of this machine
    (:class:`avbench.engine.on_ray.OnRay`).
    """

    store: SnapshotStore | Path | str | None = None
    workers: int | None = None
    device: str = "cpu"
    batch_size: int | None = 1
    share: tuple[int, int] | None = None
    keep_going: bool = False
    overlapped: bool | None = None
    on_demand: bool = False
    keep_bytes: int | None = None
    engine: Callable[..., Generator[tuple[Task, Outcome]]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", device_meant(self.device))
        for name, value in (("workers", self.workers), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        if self.keep_bytes is not None and not self.on_demand:
            raise UsageError("how much media may be kept is asked only where they are fetched on demand")
        if self.share and not 1 <= self.share[0] <= self.share[1]:
            raise UsageError(
                f"share {self.share[0]} of {self.share[1]} does not exist; shares are 1 to {self.share[1]}"
            )

    @property
    def on_cpu(self) -> bool:
        """Whether models run on the CPU."""
        return on_cpu(self.device)

    def opened(self) -> SnapshotStore:
        """The store; ``StoreError`` if it cannot be used."""
        return self.store if isinstance(self.store, SnapshotStore) else SnapshotStore(self.store or default_store())

    def using(self, store: SnapshotStore, workers: int) -> Compute:
        """The same with an open store and a number of workers."""
        return replace(self, store=store, workers=workers)


def default_workers(backbones: Iterable[Backbone], device: str = "cpu") -> int:
    """One worker process per core, fewer if memory is short: each needs memory for every backbone, a clip's sound and
    frames and, with a large backbone, the activations of a window (2.7 GB in all, measured for Synchformer). One if a
    backbone cannot be built in a worker. For an accelerator workers only decode: one core is left to this process."""
    backbones = list(backbones)
    if not on_cpu(device):
        return max(1, min(machine.worker_count(machine.GIB), machine.cores() - 1))
    if any(backbone.make is None for backbone in backbones):
        return 1
    sizes = [sum(p.numel() * p.element_size() for p in _parameters(b.predictor)) for b in backbones]
    return machine.worker_count(machine.GIB * (2 if max(sizes, default=0) > LARGE_BYTES else 1) + sum(sizes))


def _parameters(predictor: Any) -> Iterable[Any]:
    return predictor.parameters() if hasattr(predictor, "parameters") else ()


@dataclass
class RunReport:
    """What a run did. ``fingerprints``, ``failures_of``, ``model_s`` and ``model_snapshots`` are keyed by model name.
    ``spent``: where the time went; it is not among ``counters``, which are the same however the work was spread.

    ``counters``: clips_decoded, frames_decoded, picture_windows_encoded, sound_windows_encoded, snapshots_computed,
    snapshots_from_store; picture_segments_encoded, sound_segments_encoded of models that cut windows into segments.
    ``model_s``: seconds in the model's own calls; ``model_snapshots``: how many it computed.
    """

    plan: Plan
    fingerprints: dict[str, str]
    failures_of: dict[str, list[Failure]]
    counters: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    model_s: dict[str, float] = field(default_factory=dict)
    model_snapshots: dict[str, int] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)

    @property
    def failures(self) -> list[Failure]:
        """The failures of all models, each once."""
        return list(dict.fromkeys(f for failures in self.failures_of.values() for f in failures))

    def ms_per_snapshot(self, model: str) -> float | None:
        """Milliseconds of a model's own calls per snapshot; None if everything came from the store.

        Indicative only: the latency protocol measures.
        """
        count = self.model_snapshots.get(model, 0)
        return 1000 * self.model_s[model] / count if count else None


def compute(  # noqa: PLR0913  (what is computed and how, and who is told of it)
    manifest: Manifest,
    protocols: Sequence[Protocol],
    predictors: Mapping[str, Backbone | SnapshotPredictor | Factory],
    how: Compute,
    *,
    open_clip: Callable[[ClipRecord], Reader] | None = None,
    progress: ItemProgress | None = None,
    finished: Callable[[ClipRecord, RunReport], None] | None = None,
) -> RunReport:
    """Make sure the store contains every snapshot of ``predictors`` that ``protocols`` need on ``manifest``.

    ``predictors``: name -> backbone, predictor, or a function without arguments that makes it; several workers need
    such a function, and a picklable one. One worker computes in this process if the media are synthetic or a predictor
    cannot be made elsewhere. Batches are halved when an accelerator's memory runs out; on the CPU windows are computed
    one by one and by one thread per process, so that scores depend neither on the batch nor on the number of workers or
    cores. ``open_clip`` replaces reading the manifest's media; picklable if there are several workers. One with a true
    attribute ``decodes`` reads media too, and is called in a worker process where that is possible; one with ``ahead``
    is told here which clips come next (:class:`avbench.data.on_demand.OnDemand`). If ``how`` overlaps the two, models
    stay in this process and workers decode for it; an ``open_clip`` that cannot be pickled forbids it.

    A clip or model that fails is reported and the run goes on; but a model that has never worked and fails in the same
    way on the first ``GIVE_UP_AFTER`` clips ends it, and the others are reported as not tried, unless ``how`` says to
    keep going. ``StoreError`` (disk full, damaged shard) and
    ``UsageError`` (a model whose output has the wrong shape) end it; snapshots stored before are kept, and within a
    clip they are stored every ``SAVE_EVERY_S``. ``progress`` is also called before the first window. ``finished`` is
    told of every clip that was computed as soon as it is, with a report of that clip alone.
    """
    store = how.opened()
    planned = plan(manifest.segments, manifest.clips, protocols)
    if how.share:
        mine = shares(planned, how.share[1])[how.share[0] - 1]
        planned = replace(planned, keys={clip_id: keys for clip_id, keys in planned.keys.items() if clip_id in mine})
    backbones = {name: Backbone.of(maker, how.device) for name, maker in predictors.items()}
    workers = how.workers or default_workers(backbones.values(), how.device)
    decodes = bool(getattr(open_clip, "decodes", open_clip is None))
    overlapped = not how.on_cpu and decodes if how.overlapped is None else how.overlapped
    tasks, n_stored = _tasks(planned, manifest, store, {backbone.fingerprint for backbone in backbones.values()})
    setup = Setup(
        makers={backbone.fingerprint: backbone.make for backbone in backbones.values() if backbone.make},
        names={backbone.fingerprint: name for name, backbone in backbones.items()},
        store_root=store.root,
        open_clip=open_clip or partial(open_media, replace(manifest, segments=(), sources={})),
        batch_size=1 if how.on_cpu and not overlapped else how.batch_size or AUTO_BATCH,
        device=how.device,
        n_classes=_n_classes(protocols),
    )
    overlapped = overlapped and not how.engine and can_be_sent(setup.open_clip)
    if not overlapped and (how.overlapped or not how.on_cpu):
        workers = 1  # several were to decode, not to keep a model each on one device
    lonely = next((name for name, backbone in backbones.items() if backbone.make is None), None)
    if lonely and workers > 1 and not overlapped and not how.engine:
        raise UsageError(f"model {lonely}: several workers need a function that makes it, not the model itself")
    fingerprints = {name: backbone.fingerprint for name, backbone in backbones.items()}
    report = RunReport(planned, fingerprints, {name: [] for name in predictors})
    report.counters["snapshots_from_store"] = n_stored
    workers = min(workers, len(tasks))
    loaded = {backbone.fingerprint: backbone.predictor for backbone in backbones.values()}
    run: Callable[..., Generator[tuple[Task, Outcome]]]
    if how.engine:
        run = partial(how.engine, setup, tasks)
    elif overlapped:
        run = partial(run_overlapped, setup, tasks, loaded, workers)
    elif workers > 1:
        run = partial(run_workers, setup, tasks, workers=workers)
    else:
        apart = (
            decodes and manifest.kind != "synthetic" and len(setup.makers) == len(setup.names) and can_be_sent(setup)
        )
        run = partial(run_apart if apart else run_here, setup, tasks, loaded=loaded)

    def ended(task: Task, outcome: Outcome) -> None:
        if done_with:
            done_with(task.clip)
        if finished:
            alone = RunReport(planned, fingerprints, {name: [] for name in predictors})
            _fill(alone, [(task, outcome)])
            finished(task.clip, alone)

    watch = None if how.keep_going else _NeverWorked(setup.names, _untried(tasks, planned, backbones.values()))
    ahead = getattr(open_clip, "ahead", lambda clips, workers: contextlib.nullcontext())
    with ahead([task.clip for task in tasks], workers) as done_with:
        outcomes = _outcomes(run, tasks, progress, ended, watch, n_stored)
    if watch and watch.verdict:
        report.warnings.append(watch.in_words(len(outcomes), len(tasks) - len(outcomes)))
        for task in tasks:
            if task.clip.id not in outcomes:
                outcomes[task.clip.id] = Outcome(task.clip.id, error=f"not tried: {watch.verdict}")
                ended(task, outcomes[task.clip.id])
    # in the plan's order, not as they finish: the report does not depend on the number of workers
    _fill(report, [(task, outcomes[task.clip.id]) for task in tasks])
    return report


def unfinished(
    manifest: Manifest, protocols: Sequence[Protocol], backbones: Iterable[Backbone], store: SnapshotStore
) -> list[str]:
    """The clips of which the store lacks snapshots that :func:`compute` would make, in the plan's order."""
    planned = plan(manifest.segments, manifest.clips, protocols)
    return [task.clip.id for task in _tasks(planned, manifest, store, {b.fingerprint for b in backbones})[0]]


def _untried(tasks: Sequence[Task], planned: Plan, backbones: Iterable[Backbone]) -> set[str]:
    """The fingerprints of the models of which no snapshot is stored yet."""
    missing: Counter[str] = Counter()
    for task in tasks:
        missing.update({fingerprint: len(keys) for fingerprint, keys in task.keys.items()})
    return {backbone.fingerprint for backbone in backbones if missing[backbone.fingerprint] == planned.n_unique}


class _NeverWorked:
    """Tells when a model is not worth going on with: it has failed on the first clips, each time in the same way."""

    def __init__(self, names: Mapping[str, str], untried: set[str]) -> None:
        self.names, self.untried = names, untried
        self.reasons: dict[str, list[str]] = {}
        self.verdict = ""

    def saw(self, outcome: Outcome) -> None:
        """Takes one clip's outcome into account."""
        for fingerprint in outcome.model_snapshots:
            reason = outcome.broken.get(fingerprint, "")
            if not reason:
                self.untried.discard(fingerprint)
            if fingerprint not in self.untried:
                continue
            reasons = self.reasons.setdefault(fingerprint, [])
            reasons.append(reason)
            if len(reasons) >= GIVE_UP_AFTER and len(set(reasons[-GIVE_UP_AFTER:])) == 1:
                self.verdict = f"model {self.names[fingerprint]} {reason} on each of the first {len(reasons)} clips"

    def in_words(self, n_tried: int, n_untried: int) -> str:
        """What was done, in one line."""
        tried = f"{n_tried} clip{'s' * (n_tried != 1)} tried, {n_untried} not"
        return f"the run was stopped, {tried}: {self.verdict}; --keep-going computes on{in_python('--keep-going')}"


def _outcomes(
    run: Callable[..., Generator[tuple[Task, Outcome]]],
    tasks: Sequence[Task],
    progress: ItemProgress | None,
    ended: Callable[[Task, Outcome], None],
    watch: _NeverWorked | None,
    n_stored: int,
) -> dict[str, Outcome]:
    """Run all tasks, telling ``ended`` of each; returns the outcome of each clip by its id. ``watch`` may end it early,
    if tasks are left. ``progress`` counts on from the ``n_stored`` snapshots that are there already."""
    outcomes: dict[str, Outcome] = {}
    counted: Counter[str] = Counter()
    total = n_stored + sum(task.n_snapshots for task in tasks)

    def tell(task: Task, n_done: int) -> None:
        counted[task.clip.id] = n_done
        if progress:
            progress(n_stored + counted.total(), total, task.clip.id)

    with contextlib.closing(run(tell=tell)) as stream:
        for task in tasks[:1]:
            tell(task, 0)
        for task, outcome in stream:
            outcomes[outcome.clip_id] = outcome
            failed = outcome.error or any(outcome.bad.values())
            tell(task, sum(outcome.model_snapshots.values()) if failed else task.n_snapshots)
            ended(task, outcome)
            if watch:
                watch.saw(outcome)
                if watch.verdict and len(outcomes) < len(tasks):
                    break
                watch.verdict = ""
    return outcomes


def _tasks(planned: Plan, manifest: Manifest, store: SnapshotStore, models: Iterable[str]) -> tuple[list[Task], int]:
    """The clips with missing snapshots, and how many snapshots are already stored."""
    tasks, n_stored = [], 0
    models = sorted(models)
    for clip_id, keys in planned.keys.items():
        clip = manifest.clips[clip_id]
        missing = {model: store.missing(model, clip.as_read, keys) for model in models}
        n_stored += sum(len(keys) - len(some) for some in missing.values())
        if any(missing.values()):
            tasks.append(Task(clip, {model: some for model, some in missing.items() if some}))
    return tasks, n_stored


def _fill(report: RunReport, done: Sequence[tuple[Task, Outcome]]) -> None:
    """Add up the outcomes; turn missing windows into failures of the segments that need them."""
    held: dict[str, dict[str, list[tuple[int, SnapshotKey]]]] = {}  # clip -> segment -> its (iteration, key) pairs
    failed = {outcome.clip_id for _, outcome in done if outcome.error or outcome.bad}
    for protocol, segments in report.plan.supported.items():
        for segment in segments:
            if segment.clip_id in failed:
                pairs = held.setdefault(segment.clip_id, {}).setdefault(segment.id, [])
                pairs += enumerate(keys_of(protocol, segment), 1)
    for task, outcome in done:
        report.counters.update(outcome.counters)
        report.spent += outcome.spent
        report.warnings += outcome.warnings
        for name, model in report.fingerprints.items():
            report.model_s[name] = report.model_s.get(name, 0.0) + outcome.model_s.get(model, 0.0)
            report.model_snapshots[name] = report.model_snapshots.get(name, 0) + outcome.model_snapshots.get(model, 0)
            # a clip that cannot be read loses all its segments, even those whose snapshots an earlier run stored:
            # which ones these are depends on when that run was killed
            broke_off, bad = bool(outcome.error) and model in task.keys, outcome.bad.get(model, {})
            for segment_id, pairs in held.get(outcome.clip_id, {}).items():
                first = next(((i, key) for i, key in pairs if broke_off or key in bad), None)
                if first:
                    i, key = first
                    reason = outcome.error or (
                        f"model {name} {outcome.bad[model][key]}, iteration {i} (window at {seconds(key.picture):g} s)"
                    )
                    report.failures_of[name].append(
                        Failure(segment_id=segment_id, clip_id=outcome.clip_id, reason=reason)
                    )


def _n_classes(protocols: Sequence[Protocol]) -> int:
    numbers = {protocol.grid.n_classes for protocol in protocols}
    if len(numbers) != 1:
        raise UsageError(f"the protocols of one run must share one offset grid; these have {sorted(numbers)} classes")
    return numbers.pop()
