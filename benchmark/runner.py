"""The runner: computes the snapshots that the store lacks. Each clip is decoded once, front to back, for all models.

All windows of all segments of a clip are cut from that one pass, in bounded memory. A two-tower backbone encodes each
picture window and each sound window once. What fails is listed with its reason; nothing is put in its place. Worker
processes take clips one by one; a worker that crashes costs its clip only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np

from avbench.clip_pass import CalledModel, ClipPass, cut_windows
from avbench.fingerprint import model_fingerprint
from avbench.manifest import Manifest
from avbench.plan import Plan, SnapshotKey, keys_of, plan
from avbench.precision import exact_float32
from avbench.protocol import Protocol
from avbench.store import SnapshotStore
from avbench.ticks import seconds
from avbench.types import (
    AvbenchError,
    ClipRecord,
    FrontEnd,
    MediaError,
    SnapshotPredictor,
    UsageError,
    Window,
    in_one_line,
)

Factory = Callable[[], SnapshotPredictor]
Progress = Callable[[int, int, str], None]  # snapshots done (or given up), snapshots to do, the clip at work
SAVE_EVERY_S = 30.0  # of a clip: a full-size model takes an hour for five minutes of stream
TELL_EVERY_S = 0.2


class Reader(Interface):
    """What the runner needs of a clip; :class:`avbench.data.media.ClipReader` is the real one."""

    def audio(self) -> np.ndarray:
        """(n_samples,) float32, the whole clip's sound."""

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        """Grid frames 0, 1, ... in order: one (3, size, size) uint8 array per front end."""


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
    loaded = {name: _load(maker, device) for name, maker in predictors.items()}
    fingerprints = {name: model_fingerprint(predictor) for name, predictor in loaded.items()}
    tasks, n_stored = _tasks(planned, manifest, store, set(fingerprints.values()))
    setup = _Setup(
        makers={fingerprint: predictors[name] for name, fingerprint in fingerprints.items()},
        names={fingerprint: name for name, fingerprint in fingerprints.items()},
        store_root=store.root,
        open_clip=open_clip or partial(_open_media, replace(manifest, segments=(), sources={})),
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
    outcomes: dict[str, _Outcome] = {}
    counted: Counter[str] = Counter()
    total = sum(task.n_snapshots for task in tasks)

    def tell(task: _Task, n_done: int) -> None:
        counted[task.clip.id] = n_done
        if progress:
            progress(counted.total(), total, task.clip.id)

    if min(workers, len(tasks)) > 1:
        stream: Generator[tuple[_Task, _Outcome]] = _run_workers(setup, tasks, min(workers, len(tasks)), tell)
    else:
        models = {fingerprints[name]: predictor for name, predictor in loaded.items()}
        stream = _run_here(setup, tasks, models, tell)
    with contextlib.closing(stream):
        for task in tasks[:1]:
            tell(task, 0)
        for task, outcome in stream:
            outcomes[outcome.clip_id] = outcome
            tell(task, task.n_snapshots)
    # in the order of the plan, not of finishing: the same report whatever the number of workers
    _fill(report, [(task, outcomes[task.clip.id]) for task in tasks])
    return report


# ---------------------------------------------------------------------------------------------------- tasks, outcomes


class _Task(NamedTuple):
    clip: ClipRecord
    keys: dict[str, list[SnapshotKey]]  # fingerprint -> what is missing

    @property
    def n_snapshots(self) -> int:
        return sum(map(len, self.keys.values()))


Tell = Callable[[_Task, int], None]  # a task, and how many of its snapshots are done


@dataclass
class _Outcome:
    clip_id: str
    error: str = ""  # why not all that was missing of the clip could be computed
    bad: dict[str, dict[SnapshotKey, str]] = field(default_factory=dict)  # fingerprint -> key -> what went wrong
    warnings: list[str] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    model_s: dict[str, float] = field(default_factory=dict)  # by fingerprint, as the next one
    model_snapshots: dict[str, int] = field(default_factory=dict)


def _tasks(planned: Plan, manifest: Manifest, store: SnapshotStore, models: Iterable[str]) -> tuple[list[_Task], int]:
    """The clips with missing snapshots, and how many snapshots are already stored."""
    tasks, n_stored = [], 0
    models = sorted(models)
    for clip_id, keys in planned.keys.items():
        clip = manifest.clips[clip_id]
        missing = {model: store.missing(model, clip.sha256, keys) for model in models}
        n_stored += sum(len(keys) - len(some) for some in missing.values())
        if any(missing.values()):
            tasks.append(_Task(clip, {model: some for model, some in missing.items() if some}))
    return tasks, n_stored


def _fill(report: RunReport, done: Sequence[tuple[_Task, _Outcome]]) -> None:
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


def _load(maker: SnapshotPredictor | Factory, device: str) -> SnapshotPredictor:
    """The predictor, in eval mode on ``device`` if it is a torch module."""
    predictor: Any = maker if isinstance(maker, SnapshotPredictor) else maker()
    if hasattr(predictor, "eval") and hasattr(predictor, "to"):
        predictor.eval().to(device)
    return predictor


def _open_media(manifest: Manifest, clip: ClipRecord) -> Reader:
    from avbench.data.media import ClipReader, media_sha256

    path = manifest.clip_path(clip)
    if not path.exists():
        raise MediaError(clip.id, f"{path} does not exist")
    # snapshots are filed under this hash: another file's must never get there
    if media_sha256(path) != clip.sha256:
        raise MediaError(clip.id, f"{path} is not the file that the manifest pins (other sha256)")
    return ClipReader(path, clip)


# ------------------------------------------------------------------------------------------------------------ one clip


@dataclass(frozen=True)
class _Setup:
    """All a worker needs to begin; by fingerprint, so that two names of one model are computed once."""

    makers: dict[str, SnapshotPredictor | Factory]
    names: dict[str, str]
    store_root: Path
    open_clip: Callable[[ClipRecord], Reader]
    batch_size: int
    device: str
    n_classes: int

    def models(self, loaded: Mapping[str, SnapshotPredictor]) -> dict[str, CalledModel]:
        return {
            fingerprint: CalledModel(predictor, self.names[fingerprint], self.batch_size, self.device, self.n_classes)
            for fingerprint, predictor in loaded.items()
        }


def _run_clip(
    task: _Task, setup: _Setup, models: Mapping[str, CalledModel], store: SnapshotStore, tell: Tell
) -> _Outcome:
    outcome = _Outcome(task.clip.id)
    passes: dict[str, ClipPass] = {}
    saved_s = told_s = time.monotonic()
    try:
        for _ in _windows_computed(task, setup, models, outcome, passes):
            now_s = time.monotonic()
            if now_s - saved_s > SAVE_EVERY_S:
                _save(task, passes, store)
                saved_s = time.monotonic()
            if now_s - told_s > TELL_EVERY_S:
                tell(task, sum(len(work.results) for work in passes.values()))
                told_s = now_s
    except MediaError as error:
        outcome.error = error.reason
    except AvbenchError:
        raise
    except Exception as error:  # a reader that breaks costs its clip, not the run
        outcome.error = f"reading broke off with {in_one_line(error)}"
    finally:
        _save(task, passes, store)
    for fingerprint, work in passes.items():
        if work.bad:
            outcome.bad[fingerprint] = work.bad
        outcome.counters["snapshots_computed"] += len(work.results)
        outcome.model_snapshots[fingerprint] = len(work.results)
        outcome.model_s[fingerprint] = work.model_s
        outcome.counters.update(work.counters)
    return outcome


def _save(task: _Task, passes: Mapping[str, ClipPass], store: SnapshotStore) -> None:
    """Stores what is new."""
    for fingerprint, work in passes.items():
        keys = sorted(work.results.keys() - work.saved)
        if keys:
            logits = np.stack([work.results[key][0] for key in keys])
            tokens = [token for key in keys if (token := work.results[key][1]) is not None]
            store.put(fingerprint, task.clip.sha256, keys, logits, np.stack(tokens) if tokens else None)
            work.saved.update(keys)


def _windows_computed(
    task: _Task, setup: _Setup, models: Mapping[str, CalledModel], outcome: _Outcome, passes: dict[str, ClipPass]
) -> Iterator[None]:
    """One pass over the clip; ``passes`` (by fingerprint) fill up from one picture window to the next."""
    reader = setup.open_clip(task.clip)
    sound = reader.audio()
    if not sound.any():
        outcome.warnings.append(f"clip {task.clip.id}: the sound is silent from end to end")
    passes |= {fingerprint: ClipPass(models[fingerprint], keys, sound) for fingerprint, keys in task.keys.items()}
    frontends = list(dict.fromkeys(models[fingerprint].predictor.frontend for fingerprint in task.keys))
    windows = {Window(key.picture, key.window) for keys in task.keys.values() for key in keys}
    grid = iter(reader.frames(*frontends))
    try:
        in_order = sorted(windows, key=lambda w: (w.end, w.start))
        for window, held in cut_windows(grid, in_order, task.clip, outcome.counters):
            cut: dict[int, np.ndarray] = {}  # one array per front end, made when first needed
            for work in passes.values():
                which = frontends.index(work.model.predictor.frontend)
                if work.wants(window):
                    if which not in cut:
                        cut[which] = np.stack([arrays[which] for arrays in held])
                    work.add(window, cut[which])
            yield
    finally:
        if hasattr(grid, "close"):
            grid.close()
    for work in passes.values():
        work.finish()
    outcome.counters["clips_decoded"] += 1


# ----------------------------------------------------------------------------------------------------------- processes


def _run_here(
    setup: _Setup, tasks: Sequence[_Task], loaded: Mapping[str, SnapshotPredictor], tell: Tell
) -> Generator[tuple[_Task, _Outcome]]:
    models, store = setup.models(loaded), SnapshotStore(setup.store_root)
    with _same_everywhere(models.values()):
        for task in tasks:
            yield task, _run_clip(task, setup, models, store, tell)


@contextlib.contextmanager
def _same_everywhere(models: Iterable[CalledModel]) -> Iterator[None]:
    """One thread and no TF32: both change sums, and must depend neither on the machine nor on ``workers``."""
    if not any(model.uses_torch for model in models):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with exact_float32():
            yield
    finally:
        torch.set_num_threads(before)


def _run_workers(setup: _Setup, tasks: Sequence[_Task], workers: int, tell: Tell) -> Generator[tuple[_Task, _Outcome]]:
    """Outcomes as they come from ``workers`` processes; a process that dies is replaced while there is work."""
    context = get_context("spawn")  # fork would copy torch's and FFmpeg's threads in whatever state they are
    waiting = deque(tasks)
    running: dict[connection.Connection, tuple[Any, _Task | None]] = {}
    try:
        while waiting or any(task for _, task in running.values()):
            idle = sum(task is None for _, task in running.values())
            while len(running) < workers and idle < len(waiting):
                ours, theirs = context.Pipe()
                process = context.Process(target=_worker, args=(theirs, setup), daemon=True)
                process.start()
                theirs.close()  # so that the worker's end closes when the worker dies
                running[ours] = process, None
                idle += 1
            for pipe in connection.wait(list(running)):
                assert isinstance(pipe, connection.Connection)
                process, task = running[pipe]
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    _end(pipe, process, wait_s=10)
                    del running[pipe]
                    died = f"process died, exit code {process.exitcode}"
                    if task is None:
                        raise AvbenchError(f"a worker {died}, before it took a clip; try --workers 1") from None
                    yield task, _Outcome(task.clip.id, error=f"the worker {died}")
                    continue
                if isinstance(message, AvbenchError):
                    raise message
                if isinstance(message, int):
                    assert task
                    tell(task, message)
                    continue
                running[pipe] = process, waiting.popleft() if waiting else None
                if running[pipe][1]:
                    with contextlib.suppress(OSError):  # it died this moment: noticed on the next round
                        pipe.send(running[pipe][1])
                if isinstance(message, _Outcome):
                    assert task
                    yield task, message
                if running[pipe][1] is None:
                    _end(pipe, process)
                    del running[pipe]
    finally:
        for pipe, (process, _) in running.items():
            _end(pipe, process)


def _end(pipe: connection.Connection, process: Any, wait_s: float = 0) -> None:
    """Nothing is lost by killing: what a worker has reported is on disk."""
    pipe.close()
    if wait_s:
        process.join(wait_s)  # it is dying by itself: let it leave its own exit code
    process.kill()
    process.join()


def _worker(pipe: connection.Connection, setup: _Setup) -> None:
    """A worker process: says "ready", then answers each task with the snapshots it has done, now and then, and its
    outcome; an AvbenchError ends the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    sys.stdout = sys.stderr  # stdout is the parent's result; a user's model may print
    inbox: queue.SimpleQueue[_Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    try:
        loaded = {fingerprint: _load(maker, setup.device) for fingerprint, maker in setup.makers.items()}
        for fingerprint, predictor in loaded.items():
            if model_fingerprint(predictor) != fingerprint:
                raise UsageError(
                    f"model {setup.names[fingerprint]} is another one each time it is made (unseeded weights?)"
                )
        models, store = setup.models(loaded), SnapshotStore(setup.store_root)
        with _same_everywhere(models.values()):
            pipe.send("ready")
            while True:
                pipe.send(_run_clip(inbox.get(), setup, models, store, lambda _, n_done: pipe.send(n_done)))
    except AvbenchError as error:
        pipe.send(AvbenchError(str(error)) if isinstance(error, MediaError) else error)  # it pickles badly
    except Exception as error:
        pipe.send(AvbenchError(f"a worker process failed: {in_one_line(error)}"))


def _listen(pipe: connection.Connection, inbox: queue.SimpleQueue[_Task]) -> None:
    """Tasks from the parent; when the parent is gone, however it went, this process ends at once."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)
