"""File-level jobs in processes of their own: one crashing or hanging decoder loses nothing but its own file.

A job names a task (``module:function``), gets plain data and answers plain data (JSON). An engine is anything with
``run(jobs) -> outcomes``; the local one keeps worker processes, the Ray one hands the jobs to a cluster that sees the
same folders.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from avbench.types import AvbenchError, MediaError, UsageError

JOBS_PER_PROCESS = 32  # a worker is then replaced: what decoders leak does not add up
START_TIMEOUT_S = 120  # for Python itself to start, on top of a job's own limit


@dataclass(frozen=True, slots=True)
class Job:
    """``task``: "module:function", called as ``function(**arguments)``; ``arguments``: what JSON can carry."""

    id: str
    task: str
    arguments: dict[str, Any]
    timeout_s: float
    retries: int = 1  # after a crash or a timeout, not after a refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. ``kind``: "done" (``value`` is the answer), "refused" (the file cannot be used, ``reason`` says
    why: the same again next time), "failed" (the machine's or the program's fault: nothing to do with this file), or
    "crashed" / "timeout" after all retries."""

    job: Job
    kind: str
    value: Any = None
    reason: str = ""
    attempts: int = 1


class Engine(Protocol):
    """Where jobs run. Outcomes come in any order, one for each job."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]: ...


def engine_of(name: str, workers: int) -> Engine:
    """``local`` or ``ray``; ``UsageError`` for another name or a Ray that is not installed."""
    if name == "local":
        return LocalEngine(workers)
    if name == "ray":
        return RayEngine()
    raise UsageError(f"unknown engine {name!r}: there are local and ray")


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Runs one job in this process; the answer is ``{"kind", "value", "reason"}``."""
    try:
        module, name = job["task"].split(":")
        return {"kind": "done", "value": getattr(importlib.import_module(module), name)(**job["arguments"])}
    except MediaError as error:
        return {"kind": "refused", "reason": error.reason}
    except (AvbenchError, OSError) as error:
        return {"kind": "failed", "reason": " ".join(str(error).split())}
    except Exception as error:  # a bug, or a plug-in's bug: the file is set aside like one that crashed
        return {"kind": "crashed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}


# -------------------------------------------------------------------------------------------------------------- local


@dataclass
class LocalEngine:
    """``workers`` processes on this machine."""

    workers: int = 1
    jobs_per_process: int = JOBS_PER_PROCESS
    _crew: list[_Worker] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            todo.put(job)
        done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        stop = threading.Event()
        self._crew = [_Worker(self.jobs_per_process) for _ in range(min(self.workers, len(jobs)))]

        def work(worker: _Worker) -> None:
            try:
                while not stop.is_set():
                    try:
                        job = todo.get_nowait()
                    except queue.Empty:
                        break
                    done.put(worker.do(job))
            except BaseException as error:
                done.put(error)
            finally:
                worker.end()

        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in self._crew]
        try:
            for thread in threads:
                thread.start()
            for _ in jobs:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:  # also when the caller stops early or is interrupted
            stop.set()
            for worker in self._crew:
                worker.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


class _Worker:
    """One process that does one job after the other, replaced after a crash, a timeout or ``limit`` jobs."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self._jobs = 0

    def do(self, job: Job) -> Outcome:
        outcome = Outcome(job, "crashed", reason="stopped")
        for attempt in range(1, job.retries + 2):
            outcome = replace(self._try(job), attempts=attempt)
            if outcome.kind not in ("crashed", "timeout") or self.closed:
                break
        return outcome

    def _try(self, job: Job) -> Outcome:
        limit_s = job.timeout_s
        if self.process is None or self._jobs >= self.limit:
            self._start()
            limit_s += START_TIMEOUT_S
        process = self.process
        assert process is not None
        assert process.stdin is not None
        self._jobs += 1
        try:
            process.stdin.write(json.dumps({"task": job.task, "arguments": job.arguments}).encode() + b"\n")
            process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            self._kill()
            return Outcome(job, "timeout", reason=f"no end after {job.timeout_s:g} s")
        except OSError:
            line = b""
        if not line:
            return Outcome(job, "crashed", reason=self._last_words())
        answer = json.loads(line)
        return Outcome(job, answer["kind"], answer.get("value"), answer.get("reason", ""))

    def _start(self) -> None:
        self._kill()
        if self.closed:
            raise AvbenchError("the build was stopped")
        self._jobs = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        # one thread each: processes are the parallelism, and results must not depend on how many cores there are
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process = self.process = subprocess.Popen(
            [sys.executable, "-m", "avbench.data.building.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | threads,
        )
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lines = lines

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(b"")

        threading.Thread(target=listen, daemon=True).start()

    def _last_words(self) -> str:
        """How the process died and the last line it wrote."""
        assert self.process is not None
        code = self.process.wait()
        try:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        except ValueError:
            how = f"killed by signal {-code}"
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        self._kill()
        return f"the process died ({how}{f'; {said[-1][:200]}' if said else ''})"

    def _kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            self._errors.close()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with _ignored():
                        pipe.close()

    def close(self) -> None:
        """From any thread: ends the process at once (what it was writing is a temporary file); no more retries."""
        self.closed = True
        process = self.process
        if process is not None:
            process.kill()

    def end(self) -> None:
        """From the thread that uses it: the process and its pipes are gone afterwards."""
        self.closed = True
        self._kill()


class _ignored:
    """A pipe to a process that is gone cannot be flushed, and need not be."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


# ---------------------------------------------------------------------------------------------------------------- ray


class RayEngine:
    """The jobs on a Ray cluster (``RAY_ADDRESS``, else one on this machine); all nodes must see the same folders."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError("engine ray needs Ray: pip install 'avbench[ray]'") from error
        self._ray: Any = ray

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        ray = self._ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        remote = ray.remote(num_cpus=1, max_retries=0, max_calls=JOBS_PER_PROCESS)(perform)
        # no more than can run at once: a job's time must not go by while it waits in Ray's queue
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
        todo = [(job, 1) for job in reversed(jobs)]
        running: dict[Any, tuple[Job, int, float]] = {}
        while todo or running:
            while todo and len(running) < at_once:
                job, attempt = todo.pop()
                handle = remote.remote({"task": job.task, "arguments": job.arguments})
                running[handle] = (job, attempt, time.monotonic() + job.timeout_s + START_TIMEOUT_S)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for handle in ready:
                job, attempt, _ = running.pop(handle)
                outcome = self._answer(handle, job, attempt)
                yield from self._settle(outcome, todo)
            for handle, (job, attempt, latest) in list(running.items()):
                if time.monotonic() > latest:
                    del running[handle]
                    ray.cancel(handle, force=True)
                    reason = f"no end after {job.timeout_s:g} s"
                    yield from self._settle(Outcome(job, "timeout", reason=reason, attempts=attempt), todo)

    def _answer(self, handle: Any, job: Job, attempt: int) -> Outcome:
        try:
            answer = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:  # the worker process died
            reason = f"the process died ({type(error).__name__})"
            return Outcome(job, "crashed", reason=reason, attempts=attempt)
        return Outcome(job, answer["kind"], answer.get("value"), answer.get("reason", ""), attempt)

    @staticmethod
    def _settle(outcome: Outcome, todo: list[tuple[Job, int]]) -> Iterator[Outcome]:
        """The outcome, unless the job is to be tried again."""
        if outcome.kind in ("crashed", "timeout") and outcome.attempts <= outcome.job.retries:
            todo.append((outcome.job, outcome.attempts + 1))
        else:
            yield outcome
