"""Worker processes: each takes clips one by one; one that dies costs its clip only."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from multiprocessing import connection, get_context
from typing import Any

from avbench.engine.clip_pass import CalledModel
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.job import Outcome, Setup, Task, Tell, load_predictor, run_clip
from avbench.engine.store import SnapshotStore
from avbench.system.precision import exact_float32
from avbench.types import AvbenchError, MediaError, SnapshotPredictor, UsageError, in_one_line


def run_here(
    setup: Setup, tasks: Sequence[Task], loaded: Mapping[str, SnapshotPredictor], tell: Tell
) -> Generator[tuple[Task, Outcome]]:
    models, store = setup.models(loaded), SnapshotStore(setup.store_root)
    with _same_everywhere(models.values()):
        for task in tasks:
            yield task, run_clip(task, setup, models, store, tell)


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


def run_workers(setup: Setup, tasks: Sequence[Task], workers: int, tell: Tell) -> Generator[tuple[Task, Outcome]]:
    """Outcomes as they come from ``workers`` processes; a process that dies is replaced while there is work."""
    context = get_context("spawn")  # fork would copy torch's and FFmpeg's threads in whatever state they are
    waiting = deque(tasks)
    running: dict[connection.Connection, tuple[Any, Task | None]] = {}
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
                    yield task, Outcome(task.clip.id, error=f"the worker {died}")
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
                if isinstance(message, Outcome):
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


def _worker(pipe: connection.Connection, setup: Setup) -> None:
    """A worker process: says "ready", then answers each task with the snapshots it has done, now and then, and its
    outcome; an AvbenchError ends the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    sys.stdout = sys.stderr  # stdout is the parent's result; a user's model may print
    inbox: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    try:
        loaded = {fingerprint: load_predictor(maker, setup.device) for fingerprint, maker in setup.makers.items()}
        for fingerprint, predictor in loaded.items():
            if model_fingerprint(predictor) != fingerprint:
                raise UsageError(
                    f"model {setup.names[fingerprint]} is another one each time it is made (unseeded weights?)"
                )
        models, store = setup.models(loaded), SnapshotStore(setup.store_root)
        with _same_everywhere(models.values()):
            pipe.send("ready")
            while True:
                pipe.send(run_clip(inbox.get(), setup, models, store, lambda _, n_done: pipe.send(n_done)))
    except AvbenchError as error:
        pipe.send(AvbenchError(str(error)) if isinstance(error, MediaError) else error)  # it pickles badly
    except Exception as error:
        pipe.send(AvbenchError(f"a worker process failed: {in_one_line(error)}"))


def _listen(pipe: connection.Connection, inbox: queue.SimpleQueue[Task]) -> None:
    """Tasks from the parent; when the parent is gone, however it went, this process ends at once."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)
