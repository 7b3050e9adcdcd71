"""Batches decoded before their step needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from avbench.training.fullsize.data import Example, TrainingStreams
from avbench.training.fullsize.plan import Plan
from avbench.training.fullsize.processes import Workers


class Ahead:
    """This process's examples, decoded ahead by ``readers`` threads in the order they are needed.

    A step's batch is cut into chunks of ``microbatch`` streams; process r of n computes the chunks r, r + n, r + 2n ...
    """

    def __init__(self, data: TrainingStreams, plan: Plan, workers: Workers, first_step: int, readers: int) -> None:
        self.data, self.plan, self.workers = data, plan, workers
        self.pool = ThreadPoolExecutor(max_workers=max(readers, 1))
        self.lookahead = 2 * max(readers, 1) * plan.recipe.microbatch
        self.queue: deque[Future[Example]] = deque()
        self.todo = (job for step in range(first_step, plan.total) for _, jobs in self._chunks(step) for job in jobs)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def _chunks(self, step: int) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
        """(chunk, [(item, step, place in the batch)]) of this process."""
        size = self.plan.recipe.microbatch
        jobs = [(item, step, place) for place, item in enumerate(self.plan.batch(step))]
        chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        return ((c, chunks[c]) for c in range(self.workers.rank, len(chunks), self.workers.n))

    def of(self, step: int) -> Iterator[tuple[int, list[Example]]]:
        """(chunk, its examples) of this process, in order. Steps are asked for in order, without gaps.

        ``MediaError`` if a clip cannot be read.
        """
        for chunk, jobs in self._chunks(step):
            yield chunk, [self._next() for _ in jobs]

    def _next(self) -> Example:
        for item, step, place in islice(self.todo, 1 + self.lookahead - len(self.queue)):
            self.queue.append(self.pool.submit(self.data.draw, item, self.plan.rng(step, place)))
        return self.queue.popleft().result()
