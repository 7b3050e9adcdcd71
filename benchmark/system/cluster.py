"""Tasks on a Ray cluster: each runs wherever a core is free; a process or machine that is lost costs only its task."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from avbench.system.workers import START_TIMEOUT_S, Lost, Tell
from avbench.types import AvbenchError, UsageError, in_one_line

T = TypeVar("T")
R = TypeVar("R")
LOOK_EVERY_S = 0.5
ANSWER_S = 10.0  # for a cluster to be reached
_begun: dict[str, Any] = {}  # in a worker process: what ``begin`` gave, by its run
_kept_open = contextlib.ExitStack()


def installed_ray() -> Any:
    """The module; ``UsageError`` if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("engine ray needs Ray: pip install 'avbench[ray]'") from error
    return ray


@dataclass(frozen=True)
class Cluster(Generic[T, R]):
    """As a :class:`~avbench.system.workers.Pool`, but its processes are those of a Ray cluster. Every machine of it has
    the same avbench; what ``begin`` reads must be there.

    ``address``: of a running cluster (None: ``RAY_ADDRESS``, else one is started on this machine).
    ``timeout_of(task)``: the seconds it may take. ``tasks_per_process``: a process is then replaced (0: never).
    ``at_once``: the most tasks that run at a time (None: as many as the cluster has cores). ``gpus``: that each task
    needs. ``UsageError`` if Ray is not installed.
    """

    begin: Callable[[], AbstractContextManager[Callable[[T, Tell], R]]]
    address: str | None = None
    timeout_of: Callable[[T], float] | None = None
    tasks_per_process: int = 0
    at_once: int | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        installed_ray()  # a missing one is said before any work

    @property
    def ray(self) -> Any:
        """The module."""
        return installed_ray()

    def join(self) -> None:
        """Joins or starts the cluster, if there is no connection yet; ``AvbenchError`` if it does not answer."""
        if self.ray.is_initialized():
            return
        try:
            self._knock()
            self.ray.init(address=self.address, log_to_driver=False, include_dashboard=False, logging_level="warning")
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            address = self.address or os.environ.get("RAY_ADDRESS")
            where = f"the Ray cluster at {address}" if address else "a Ray cluster"
            raise AvbenchError(f"{where} cannot be used: {in_one_line(error)}") from error

    def _knock(self) -> None:
        """``OSError`` if nobody listens at the address: Ray would try for minutes, and then end this process."""
        host, _, port = (self.address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host, int(port)), ANSWER_S).close()

    def run(self, tasks: Iterable[T], told: Callable[[T, Any], None] | None = None) -> Generator[tuple[T, R | Lost]]:
        """Each task with its result, in the order in which they finish; joins the cluster first.

        A deque of tasks is emptied; tasks may be added to it (to be tried again) until the generator ends, and closing
        it ends what still runs. ``told(task, message)`` gets what tasks tell, all of it before their result. An
        ``AvbenchError`` of a task is raised here, any other exception as one.
        """
        self.join()
        ray, begin, run = self.ray, self.ray.put(self.begin), uuid.uuid4().hex
        remote = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=0, max_calls=self.tasks_per_process)(_call)
        # no more than can run at once, so that a task's time does not pass while it waits in Ray's queue
        at_once = self._room()
        waiting = tasks if isinstance(tasks, deque) else deque(tasks)
        running: dict[Any, tuple[T, float]] = {}  # handle -> its task, and when it must have ended
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [ray.cancel(handle, force=True) for handle in running])
            post = stack.enter_context(_Post.opened(told)) if told else None
            while waiting or running:
                while waiting and len(running) < at_once:
                    task = waiting.popleft()
                    limit_s = self.timeout_of(task) + START_TIMEOUT_S if self.timeout_of else math.inf
                    box = post.box(task) if post else None
                    running[remote.remote(run, begin, box, task)] = (task, time.monotonic() + limit_s)
                ready, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY_S)
                if post:
                    post.deliver()
                for handle in ready:
                    yield running.pop(handle)[0], self._answer(handle)
                for handle, (task, latest_s) in list(running.items()):
                    if time.monotonic() > latest_s and self.timeout_of:
                        del running[handle]
                        ray.cancel(handle, force=True)
                        yield task, Lost(f"timed out after {self.timeout_of(task):g} s", timed_out=True)

    def _room(self) -> int:
        """How many tasks can run at once."""
        has = self.ray.cluster_resources()
        if self.gpus and has.get("GPU", 0) < self.gpus:
            raise AvbenchError("the Ray cluster has no GPU: choose --device cpu, or add machines that have one")
        room = min(has.get("CPU", 1), has["GPU"] // self.gpus if self.gpus else math.inf, self.at_once or math.inf)
        return max(1, int(room))

    def _answer(self, handle: Any) -> R | Lost:
        try:
            answer: R = self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # raised by the task; else its process died, or its machine
            if isinstance(cause, AvbenchError):
                raise cause from None
            if cause:
                raise AvbenchError(f"a worker of the Ray cluster failed: {in_one_line(cause)}") from error
            return Lost(f"the process died ({type(error).__name__})")
        return answer


class _Post:
    """Brings what running tasks tell to this process, in a queue that all machines reach."""

    def __init__(self, queue: Any, told: Callable[[Any, Any], None]) -> None:
        self.queue, self.told = queue, told
        self.tasks: list[Any] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, told: Callable[[Any, Any], None]) -> Generator[_Post]:
        from ray.util.queue import Queue

        queue = Queue(actor_options={"num_cpus": 0})
        try:
            yield cls(queue, told)
        finally:
            queue.shutdown(force=True)

    def box(self, task: Any) -> tuple[Any, int]:
        """What the task needs to tell something."""
        self.tasks.append(task)
        return self.queue, len(self.tasks) - 1

    def deliver(self) -> None:
        from ray.exceptions import RayError

        try:
            messages = self.queue.get_nowait_batch(self.queue.qsize())
        except RayError as error:
            raise AvbenchError("the Ray cluster lost what its tasks told; run the same command again") from error
        for number, message in messages:
            self.told(self.tasks[number], message)


def _call(
    run: str, begin: Callable[[], Any], box: tuple[Any, int] | None, task: Any
) -> Any:  # in a process of the cluster
    if run not in _begun:
        _kept_open.close()  # of an earlier run
        _begun.clear()
        _begun[run] = _kept_open.enter_context(begin())

    def tell(message: Any) -> None:
        if box:
            box[0].put((box[1], message))

    return _begun[run](task, tell)
