"""Clips on a Ray cluster: its processes decode and compute, this one stores.

The snapshots come back to this process, which alone writes the store: the cluster needs no shared folder for it, and a
worker that is lost can leave nothing half written. The media must be readable on every machine under the same paths
(procedural clips are made where they are needed), and so must the files of a user's model and of weights.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from avbench import __version__
from avbench.data.media import READER_VERSION
from avbench.engine.job import Outcome, Setup, Task, Tell
from avbench.engine.store import SnapshotStore
from avbench.engine.workers import ready_to_run
from avbench.protocol.plan import SnapshotKey
from avbench.system.cluster import Cluster, installed_ray
from avbench.system.workers import Lost
from avbench.system.workers import Tell as Send
from avbench.types import AvbenchError, UsageError

TRIES = 3  # of a clip whose worker is lost
HERE = f"avbench {__version__} with reader {READER_VERSION}"
_Attempt = tuple[Task, int]  # a task, and how many times it has been tried with this one
_Put = tuple[str, str, Sequence[SnapshotKey], np.ndarray, np.ndarray | None]  # the arguments of SnapshotStore.put


class OnRay:
    """Runs tasks on the Ray cluster at ``address`` (None: ``RAY_ADDRESS``, else one on this machine), ``at_once`` of
    them at a time (None: one for each core, or GPU). ``UsageError`` if Ray is not installed."""

    def __init__(self, address: str | None = None, at_once: int | None = None) -> None:
        self.address, self.at_once = address, at_once
        installed_ray()

    def __call__(self, setup: Setup, tasks: Sequence[Task], tell: Tell) -> Generator[tuple[Task, Outcome]]:
        """Outcomes in the order in which the cluster finishes them; their snapshots are stored by then."""
        if setup.makers.keys() != setup.names.keys():
            raise UsageError("engine ray needs a model by its name or file: an object of this process cannot be sent")
        on_gpu = setup.device.startswith("cuda")
        # Ray shows each task the GPUs that are its own
        cluster = Cluster[_Attempt, Outcome](
            partial(_begin, replace(setup, device="cuda") if on_gpu else setup, HERE),
            self.address,
            at_once=self.at_once,
            gpus=int(on_gpu),
        )
        store = SnapshotStore(setup.store_root)

        def told(attempt: _Attempt, message: int | _Put) -> None:
            if isinstance(message, int):
                tell(attempt[0], message)
            else:
                store.put(*message)

        todo = deque((task, 1) for task in tasks)
        with contextlib.closing(cluster.run(todo, told)) as ends:
            for (task, attempt), end in ends:
                if not isinstance(end, Lost):
                    yield task, end
                elif attempt < TRIES:
                    todo.append((task, attempt + 1))
                else:
                    yield task, Outcome(task.clip.id, error=f"{end.reason}, each of {TRIES} times")


class _Sender(SnapshotStore):
    """Takes the place of the store in a worker: sends what is put to the process that has one."""

    def __init__(self) -> None:
        self.send: Send

    def put(
        self, model: str, media: str, keys: Sequence[SnapshotKey], logits: np.ndarray, tokens: np.ndarray | None = None
    ) -> None:
        self.send((model, media, keys, logits, tokens))


@contextlib.contextmanager
def _begin(setup: Setup, there: str) -> Iterator[Callable[[_Attempt, Send], Outcome]]:
    """In a worker: loads the models once; ``there``: what the process that asks for it runs."""
    if there != HERE:
        raise AvbenchError(f"a machine of the Ray cluster has {HERE}, this one has {there}: install the same on all")
    sender = _Sender()
    with ready_to_run(setup, sender) as run:

        def do(attempt: _Attempt, send: Send) -> Outcome:
            sender.send = send
            return run(attempt[0], send)

        yield do
