"""Worker processes: each takes clips one by one; one that dies loses only its clip."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial

from avbench.engine.clip_pass import CalledModel
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.job import Outcome, Setup, Task, Tell, load_predictor, run_clip
from avbench.engine.store import SnapshotStore
from avbench.system.precision import exact_float32
from avbench.system.workers import Lost, Pool
from avbench.types import AvbenchError, SnapshotPredictor, UsageError, in_one_line

STALL_S = 1800.0  # without another window of a clip: its decoder will not end


def run_here(
    setup: Setup, tasks: Sequence[Task], loaded: Mapping[str, SnapshotPredictor], tell: Tell
) -> Generator[tuple[Task, Outcome]]:
    """Outcomes of the tasks in order, computed in this process with the ``loaded`` predictors (by fingerprint)."""
    models, store = setup.models(loaded), SnapshotStore(setup.store_root)
    with same_everywhere(models.values()):
        for task in tasks:
            yield task, run_clip(task, setup, models, store, tell)


@contextlib.contextmanager
def same_everywhere(models: Iterable[CalledModel]) -> Iterator[None]:
    """One thread and no TF32: both change sums, which must depend neither on the machine nor on ``workers``."""
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


def run_apart(
    setup: Setup, tasks: Sequence[Task], loaded: Mapping[str, SnapshotPredictor], tell: Tell
) -> Generator[tuple[Task, Outcome]]:
    """As ``run_here`` in one worker process, so that a decoder's death costs only its clip; in this process for models
    that would be others there."""
    done = 0
    try:
        with contextlib.closing(run_workers(setup, tasks, 1, tell)) as outcomes:
            for outcome in outcomes:
                yield outcome
                done += 1
    except _BuiltAnew:
        if done:
            raise
        yield from run_here(setup, tasks, loaded, tell)


class _BuiltAnew(UsageError):
    """A model that is another one each time it is built."""


def run_workers(setup: Setup, tasks: Sequence[Task], workers: int, tell: Tell) -> Generator[tuple[Task, Outcome]]:
    """Outcomes in the order in which ``workers`` processes finish them."""
    pool = Pool[Task, Outcome](
        partial(ready_to_run, setup),
        workers,
        timeout_of=lambda task: STALL_S,
        start_timeout_s=math.inf,  # a large model may take long to load
        second_try=True,
    )
    with contextlib.closing(pool.run(tasks, tell)) as outcomes:
        for task, outcome in outcomes:
            yield task, Outcome(task.clip.id, error=outcome.reason) if isinstance(outcome, Lost) else outcome


@contextlib.contextmanager
def ready_to_run(
    setup: Setup, store: SnapshotStore | None = None
) -> Iterator[Callable[[Task, Callable[[int], None]], Outcome]]:
    """In a worker: loads the models once and gives ``run(task, tell)``; ``tell`` gets the number of snapshots done.
    ``store``: in place of the one that ``setup`` names."""
    try:
        loaded = {fingerprint: load_predictor(maker, setup.device) for fingerprint, maker in setup.makers.items()}
        for fingerprint, predictor in loaded.items():
            if model_fingerprint(predictor) != fingerprint:
                raise _BuiltAnew(
                    f"model {setup.names[fingerprint]} gets different weights each time it is built: have its "
                    "constructor load a checkpoint or call torch.manual_seed(0) first; `avbench doctor` checks the rest"
                )
        models, store = setup.models(loaded), store or SnapshotStore(setup.store_root)
        with same_everywhere(models.values()):
            yield lambda task, tell: run_clip(task, setup, models, store, lambda _, n_done: tell(n_done))
    except AvbenchError:
        raise
    except Exception as error:
        raise AvbenchError(f"a worker process failed: {in_one_line(error)}") from error
