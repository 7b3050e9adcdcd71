"""Worker processes. Each does one task after another; one that dies costs only the task it was doing.

A death may be another task's doing: earlier ones of the same worker may have spoilt its memory, those of other workers
may have used up the machine's. Such a task is tried once more, alone in a new process, before it is given up.

Workers are spawned: a fork would copy the threads of torch and FFmpeg in an unknown state. They read no stdin, print to
stderr, leave Ctrl-C to this process, and end as soon as this process ends, even if it was killed.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import connection, reduction
from typing import Any, Generic, NoReturn, TypeVar

from avbench.system import debug
from avbench.types import AvbenchError, in_one_line

T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[Any], None]

START_TIMEOUT_S = 120  # for a worker of tasks with a time limit to start
START_TRIES = 3  # workers in a row that die while starting
EXIT_TIMEOUT_S = 10  # for a dying worker to leave its own exit code
_SPAWN = multiprocessing.get_context("spawn")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the result of a task whose worker died, or was killed at the time limit (``timed_out``).

    ``how``: the signal or exit code. ``in_doubt``: another task may have been the cause.
    """

    reason: str
    timed_out: bool = False
    how: str = field(default="", compare=False)
    in_doubt: bool = field(default=False, compare=False)


def each(
    do: Callable[[T], R],
    tasks: Sequence[T],
    workers: int,
    *,
    isolated: bool = False,
    timeout_of: Callable[[T], float] | None = None,
    memory_bytes: float = math.inf,
) -> Generator[tuple[T, R | Lost]]:
    """Each task with ``do(task)``, in the order they finish.

    ``isolated``: always in worker processes, of one thread each and quiet, so that no task can end this process; else
    one worker, or one task, works in this process, in order and without limits. ``timeout_of``, ``memory_bytes``: see
    :class:`Pool`. ``do``, tasks and results must be picklable. An exception in ``do`` is raised here and ends all
    workers.
    """
    if not isolated and min(workers, len(tasks)) <= 1:
        yield from ((task, do(task)) for task in tasks)
    else:
        pool = Pool[T, R](
            partial(stateless, do),
            workers,
            timeout_of=timeout_of,
            quiet=isolated and not debug.is_on(),
            one_thread=isolated,
            memory_bytes=memory_bytes,
            second_try=True,
        )
        yield from pool.run(tasks)


def can_be_sent(value: Any) -> bool:
    """Whether ``value`` can be given to a worker process: whether it can be pickled."""
    try:
        pickle.dumps(value)
    except Exception:  # whatever its classes raise
        return False
    return True


@contextlib.contextmanager
def stateless(do: Callable[[T], R]) -> Iterator[Callable[[T, Tell], R]]:
    """``begin`` of a :class:`Pool` that needs no preparation and sends no messages."""
    yield lambda task, tell: do(task)


@dataclass(frozen=True)
class Pool(Generic[T, R]):
    """At most ``workers`` processes, started when there is work for them.

    ``begin``: picklable; entered once in each worker, gives the function ``do(task, tell)`` -> result. Whatever is
    passed to ``tell`` goes to this process at once. ``timeout_of(task)``: seconds it may take until it ends or tells
    something; ``start_timeout_s``: for a worker to start, where tasks have a limit. ``tasks_per_process``: a worker is
    then replaced. ``quiet``: what workers print is dropped, except the last line of one that dies. ``one_thread``:
    numeric libraries use one thread per worker. ``memory_bytes``: what each may allocate. ``second_try``: a task that
    is lost while another may be to blame is tried again, alone, when all others are done.
    """

    begin: Callable[[], AbstractContextManager[Callable[[T, Tell], R]]]
    workers: int
    timeout_of: Callable[[T], float] | None = None
    tasks_per_process: float = math.inf
    quiet: bool = False
    one_thread: bool = False
    memory_bytes: float = math.inf
    second_try: bool = False
    start_timeout_s: float = START_TIMEOUT_S

    def run(self, tasks: Iterable[T], told: Callable[[T, Any], None] | None = None) -> Generator[tuple[T, R | Lost]]:
        """Each task with its result, in the order they finish. Closing the generator kills the workers.

        A deque of tasks is emptied; tasks may be added to it (to be tried again) until the generator ends.
        ``told(task, message)`` gets what tasks tell. An exception in a worker is raised here; ``AvbenchError`` if
        workers cannot be started.
        """
        again: list[T] = []
        with contextlib.closing(self._once(tasks, told)) as ends:
            for task, end in ends:
                if self.second_try and isinstance(end, Lost) and end.in_doubt:
                    again.append(task)
                else:
                    yield task, end
        if again:
            yield from replace(self, workers=1, tasks_per_process=1)._once(again, told)

    def _once(self, tasks: Iterable[T], told: Callable[[T, Any], None] | None) -> Generator[tuple[T, R | Lost]]:
        """``run`` without second tries."""
        waiting = tasks if isinstance(tasks, deque) else deque(tasks)
        crew: list[_Worker] = []
        failed_starts = 0
        try:
            while waiting or any(worker.busy for worker in crew):
                n_starting = sum(not worker.busy for worker in crew)
                for _ in range(min(self.workers - len(crew), len(waiting) - n_starting)):
                    crew.append(_Worker(self))
                for worker in _with_news(crew):
                    kind, content = worker.receive()
                    if kind == "error":
                        raise content
                    if kind == "told":
                        worker.allow()
                        if told:
                            told(worker.task, content)
                        continue
                    was_busy, task = worker.busy, worker.task
                    if kind == "lost" or not waiting or worker.n_tasks >= self.tasks_per_process:
                        worker.end()
                        crew.remove(worker)
                    else:
                        worker.give(waiting.popleft())
                    if was_busy:
                        yield task, content
                    failed_starts = failed_starts + 1 if kind == "lost" and not was_busy else 0
                    if failed_starts == START_TRIES:
                        hint = "a script that starts workers needs `if __name__ == '__main__':`"
                        raise AvbenchError(f"worker processes do not start: {content.reason}; {hint}")
        finally:
            for worker in crew:
                worker.end()


class _Worker:
    """One process, as seen from the one that started it. ``busy``: it has a task."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.busy, self.n_tasks = pool, False, 0
        self.task: Any = None
        self.pipe, theirs = _SPAWN.Pipe()
        self.printed = tempfile.TemporaryFile() if pool.quiet else None  # noqa: SIM115 (closed in end())
        self.process = _SPAWN.Process(
            target=_work, args=(theirs, pool.begin, pool.quiet, pool.memory_bytes), daemon=True
        )
        with _environment(_ONE_THREAD if pool.one_thread else {}):
            self.process.start()
        theirs.close()  # so that the pipe ends when the worker dies
        if self.printed and self.process.pid:
            with contextlib.suppress(OSError):  # it died already: noticed when it is read
                reduction.send_handle(self.pipe, self.printed.fileno(), self.process.pid)
        self._limit(pool.start_timeout_s if pool.timeout_of else math.inf)

    def _limit(self, limit_s: float) -> None:
        self.limit_s, self.deadline_s = limit_s, time.monotonic() + limit_s

    def give(self, task: Any) -> None:
        self.busy, self.task = True, task
        self.n_tasks += 1
        self.allow()
        with contextlib.suppress(OSError):  # it died already: noticed when it is read
            self.pipe.send(task)

    def allow(self) -> None:
        """From now on, as long as its task may take."""
        self._limit(self.pool.timeout_of(self.task) if self.pool.timeout_of else math.inf)

    def receive(self) -> tuple[str, Any]:
        """Its next message: ready, told, done, error; or lost, if there will be none."""
        try:
            if self.pipe.poll():
                message: tuple[str, Any] = self.pipe.recv()
                return message
        except (EOFError, OSError):
            return "lost", self._death()
        return "lost", Lost(f"timed out after {self.limit_s:g} s", timed_out=True)

    def _death(self) -> Lost:
        """Its signal or exit code, and the last line it printed."""
        self.process.join(EXIT_TIMEOUT_S)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        names = {s.value: s.name for s in signal.Signals}
        how = names.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"
        reason = f"the worker process died ({'killed by ' * (code < 0)}{how}"
        if self.printed:
            self.printed.seek(0)
            lines = self.printed.read()[-2000:].decode(errors="replace").strip().splitlines()
            reason += f"; {lines[-1][:200]}" if lines else ""
        # the system kills one of several processes when memory runs out
        in_doubt = self.n_tasks > 1 or (code == -signal.SIGKILL and self.pool.workers > 1)
        return Lost(f"{reason})", how=how, in_doubt=in_doubt)

    def end(self) -> None:
        """Kills it: results that were received are complete, and files get their names only when they are."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if self.printed:
            self.printed.close()


def _with_news(crew: Sequence[_Worker]) -> list[_Worker]:
    """Waits until workers have sent something, died or reached their time limit; these workers."""
    left_s = min(worker.deadline_s for worker in crew) - time.monotonic()
    ready = connection.wait([worker.pipe for worker in crew], None if left_s == math.inf else max(left_s, 0))
    now_s = time.monotonic()
    return [worker for worker in crew if worker.pipe in ready or worker.deadline_s <= now_s]


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment variables for a process that is started meanwhile: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---------------------------------------------------------------------------------------------------- in the worker


def _work(
    pipe: connection.Connection, begin: Callable[[], AbstractContextManager[Any]], quiet: bool, memory_bytes: float
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which kills this process
    _limit_memory(memory_bytes)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # models and plug-ins may start processes of their own
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if quiet:
        os.dup2(reduction.recv_handle(pipe), 2)
    with contextlib.suppress(OSError):  # the parent was started without stderr
        os.dup2(2, 1)  # stdout is for the parent's results
    sys.stdout = sys.stderr

    def tell(message: Any) -> None:
        pipe.send(("told", message))

    try:
        with begin() as do:
            pipe.send(("ready", None))
            while True:
                pipe.send(("done", do(_next_task(pipe), tell)))
    except Exception as error:
        pipe.send(("error", _picklable(error)))


def _limit_memory(n_bytes: float) -> None:
    if n_bytes < math.inf:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        with contextlib.suppress(ValueError, OSError):  # a stricter limit is set already
            resource.setrlimit(resource.RLIMIT_DATA, (round(n_bytes), hard))


def _next_task(pipe: connection.Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone


def _end_with_parent() -> NoReturn:
    parent = multiprocessing.parent_process()
    assert parent
    connection.wait([parent.sentinel])
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    """The error, with its traceback as a note if it is a bug; its text alone if it does not survive pickling."""
    debug.show(error)  # its traceback does not leave this process
    text = in_one_line(error)
    if isinstance(error, AvbenchError):
        text = str(error)
    else:
        error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (made here)
    except Exception:
        return AvbenchError(text)
    return error
