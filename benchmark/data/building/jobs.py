"""File-level jobs in processes of their own: a decoder that crashes or hangs loses only its own file.

A job names a task (``module:function``), gets plain data and returns plain data (JSON). An engine is anything with
``run(jobs) -> outcomes``; the local one keeps worker processes, the Ray one passes the jobs to a cluster that sees
the same folders.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from avbench.system.cluster import Cluster
from avbench.system.workers import Lost, Pool, stateless
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


class _Runs(Protocol):
    """A :class:`Pool` or a :class:`Cluster`."""

    def run(self, tasks: deque[_Attempt]) -> Generator[tuple[_Attempt, dict[str, Any] | Lost]]: ...


def _outcomes(where: _Runs, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """One outcome for each job; those that crash or time out are tried again."""
    todo = deque((job, 1) for job in jobs)
    with contextlib.closing(where.run(todo)) as answers:
        for (job, attempt), answer in answers:
            if isinstance(answer, Lost):
                kind = "timeout" if answer.timed_out else "crashed"
                outcome = Outcome(job, kind, reason=answer.reason, attempts=attempt)
            else:
                reason = answer.get("reason", "")
                outcome = Outcome(job, answer["kind"], answer.get("value"), reason, attempts=attempt)
            if outcome.kind in ("crashed", "timeout") and attempt <= job.retries:
                todo.appendleft((job, attempt + 1))
            else:
                yield outcome


def _perform(attempt: _Attempt) -> dict[str, Any]:
    job, _ = attempt
    return perform({"task": job.task, "arguments": job.arguments})


def _timeout_s(attempt: _Attempt) -> float:
    return attempt[0].timeout_s


# -------------------------------------------------------------------------------------------------------------- local


@dataclass
class LocalEngine:
    """``workers`` processes on this machine, each with one thread."""

    workers: int = 1
    jobs_per_process: int = JOBS_PER_PROCESS

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes in the order in which the processes finish; closing the generator kills them."""
        pool = Pool[_Attempt, dict[str, Any]](
            partial(stateless, _perform),
            self.workers,
            timeout_of=_timeout_s,
            tasks_per_process=self.jobs_per_process,
            quiet=True,
            one_thread=True,
        )
        yield from _outcomes(pool, jobs)


# ---------------------------------------------------------------------------------------------------------------- ray


class RayEngine:
    """The jobs on a Ray cluster (``RAY_ADDRESS``, else one on this machine); all nodes must see the same folders."""

    def __init__(self) -> None:
        self.cluster = Cluster[_Attempt, dict[str, Any]](
            partial(stateless, _perform), timeout_of=_timeout_s, tasks_per_process=JOBS_PER_PROCESS
        )

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes in the order in which Ray finishes them. Starts or joins a cluster if there is no connection yet."""
        yield from _outcomes(self.cluster, jobs)
