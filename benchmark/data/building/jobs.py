"""File-level jobs in processes of their own: a decoder that crashes or hangs loses only its own file.

A job names a task (``module:function``), gets plain data and returns plain data (JSON). An engine is anything with
``run(jobs) -> outcomes``; the local one keeps worker processes, the Ray one passes the jobs to a cluster that sees
the same folders.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from avbench.system.workers import START_TIMEOUT_S, Lost, Pool, stateless
from avbench.types import AvbenchError, MediaError, UsageError

JOBS_PER_PROCESS = 32  # then the worker is replaced, so that decoders' leaks do not add up


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
    """How a job ended. ``kind``: "done" (``value`` is the result), "refused" (the file cannot be used, ``reason`` says
    why; another try would not help), "failed" (the fault of the machine or the program, not of this file), or
    "crashed" / "timeout" after all retries."""

    job: Job
    kind: str
    value: Any = None
    reason: str = ""
    attempts: int = 1


class Engine(Protocol):
    """Where jobs run. Outcomes come in any order, one for each job."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Run all jobs, with retries; yields one final outcome per job as soon as it is known."""
        ...


def engine_of(name: str, workers: int) -> Engine:
    """``local`` or ``ray``; ``UsageError`` for another name or a Ray that is not installed."""
    if name == "local":
        return LocalEngine(workers)
    if name == "ray":
        return RayEngine()
    raise UsageError(f"unknown engine {name!r}: choose local or ray")


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Runs one job in this process; returns ``{"kind", "value"}`` or ``{"kind", "reason"}`` as in ``Outcome``."""
    try:
        module, name = job["task"].split(":")
        value = getattr(importlib.import_module(module), name)(**job["arguments"])
        return {"kind": "done", "value": json.loads(json.dumps(value))}  # as a record will give it back
    except MediaError as error:
        return {"kind": "refused", "reason": error.reason}
    except (AvbenchError, OSError) as error:
        return {"kind": "failed", "reason": " ".join(str(error).split())}
    except Exception as error:  # a bug, or a plug-in's bug: the file is set aside like one that crashed
        return {"kind": "crashed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}


_Attempt = tuple[Job, int]  # a job, and how many times it has been tried with this one


def _spec(job: Job) -> dict[str, Any]:
    return {"task": job.task, "arguments": job.arguments}


def _outcome(job: Job, answer: dict[str, Any], attempt: int) -> Outcome:
    return Outcome(job, answer["kind"], answer.get("value"), answer.get("reason", ""), attempt)


def _settle(outcome: Outcome, todo: deque[_Attempt]) -> Iterator[Outcome]:
    """The outcome, unless the job will be tried again."""
    if outcome.kind in ("crashed", "timeout") and outcome.attempts <= outcome.job.retries:
        todo.appendleft((outcome.job, outcome.attempts + 1))
    else:
        yield outcome


# -------------------------------------------------------------------------------------------------------------- local


@dataclass
class LocalEngine:
    """``workers`` processes on this machine, each with one thread."""

    workers: int = 1
    jobs_per_process: int = JOBS_PER_PROCESS

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes in the order in which the processes finish; closing the generator kills them."""
        todo = deque((job, 1) for job in jobs)
        pool = Pool[_Attempt, dict[str, Any]](
            partial(stateless, _perform),
            self.workers,
            timeout_of=_timeout_s,
            tasks_per_process=self.jobs_per_process,
            quiet=True,
            one_thread=True,
        )
        with contextlib.closing(pool.run(todo)) as answers:
            for (job, attempt), answer in answers:
                if isinstance(answer, Lost):
                    kind = "timeout" if answer.timed_out else "crashed"
                    outcome = Outcome(job, kind, reason=answer.reason, attempts=attempt)
                else:
                    outcome = _outcome(job, answer, attempt)
                yield from _settle(outcome, todo)


def _perform(attempt: _Attempt) -> dict[str, Any]:
    return perform(_spec(attempt[0]))


def _timeout_s(attempt: _Attempt) -> float:
    return attempt[0].timeout_s


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
        """Outcomes in the order in which Ray finishes them. Starts or joins a cluster if there is no connection yet."""
        ray = self._ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        remote = ray.remote(num_cpus=1, max_retries=0, max_calls=JOBS_PER_PROCESS)(perform)
        # no more than can run at once, so that a job's time does not pass while it waits in Ray's queue
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
        todo = deque((job, 1) for job in jobs)
        running: dict[Any, tuple[Job, int, float]] = {}
        while todo or running:
            while todo and len(running) < at_once:
                job, attempt = todo.popleft()
                handle = remote.remote(_spec(job))
                running[handle] = (job, attempt, time.monotonic() + job.timeout_s + START_TIMEOUT_S)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for handle in ready:
                job, attempt, _ = running.pop(handle)
                outcome = self._answer(handle, job, attempt)
                yield from _settle(outcome, todo)
            for handle, (job, attempt, latest) in list(running.items()):
                if time.monotonic() > latest:
                    del running[handle]
                    ray.cancel(handle, force=True)
                    reason = f"timed out after {job.timeout_s:g} s"
                    yield from _settle(Outcome(job, "timeout", reason=reason, attempts=attempt), todo)

    def _answer(self, handle: Any, job: Job, attempt: int) -> Outcome:
        try:
            answer = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:  # the worker process died
            reason = f"the process died ({type(error).__name__})"
            return Outcome(job, "crashed", reason=reason, attempts=attempt)
        return _outcome(job, answer, attempt)
