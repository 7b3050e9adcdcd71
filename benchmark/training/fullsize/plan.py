"""The schedule: the streams of each step, its learning rate, and the windows that carry a gradient into SparseSync."""

from __future__ import annotations

import numpy as np

from avbench.training.fullsize.recipe import FullSizeRecipe


class Plan:
    """The schedule of one training on ``n_items`` streams; every answer is a function of the step (from 0)."""

    def __init__(self, recipe: FullSizeRecipe, n_items: int) -> None:
        self.recipe, self.n_items = recipe, n_items
        self.per_epoch = -(-n_items // recipe.batch)
        self.total = recipe.phase1_steps + recipe.epochs * self.per_epoch

    def phase(self, step: int) -> int:
        """1 or 2."""
        return 1 if step < self.recipe.phase1_steps else 2

    def ends_stage(self, steps_done: int) -> bool:
        """Whether phase 1, or an epoch of phase 2, is complete after ``steps_done`` (at least 1) steps."""
        done = steps_done - self.recipe.phase1_steps
        return done >= 0 and done % self.per_epoch == 0

    def batch(self, step: int) -> list[int]:
        """Items of one step. Phase 1 cycles through the items; each epoch of phase 2 uses every item once, so its last
        batch may be smaller."""
        size = self.recipe.batch
        if self.phase(step) == 1:
            places = range(step * size, (step + 1) * size)
            return [int(self._order(1, p // self.n_items)[p % self.n_items]) for p in places]
        epoch, inside = divmod(step - self.recipe.phase1_steps, self.per_epoch)
        return [int(i) for i in self._order(2, epoch)[inside * size : (inside + 1) * size]]

    def _order(self, phase: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.recipe.seed, phase, epoch, 1]).permutation(self.n_items)

    def rate(self, step: int) -> float:
        """The learning rate of one step."""
        recipe = self.recipe
        if recipe.schedule == "published":
            if step < 500:
                share = 0.01 + 0.99 * step / 500
            elif step < 5500:
                share = 1.0
            else:
                share = max(1e-4, 1 - (1 - 1e-4) * (step - 5500) / 7000)
            return recipe.lr * share
        done = step - recipe.phase1_steps
        return recipe.lr if done < 0 else recipe.lr * (1 - done / (self.total - recipe.phase1_steps))

    def part(self, step: int, chunk: int) -> int:
        """Which of the batch's ``accumulation`` parts a chunk of ``microbatch`` streams belongs to."""
        n_chunks = -(-len(self.batch(step)) // self.recipe.microbatch)
        return chunk * self.recipe.accumulation // n_chunks

    def gradient_windows(self, step: int, part: int = 0) -> range:
        """Windows that carry a gradient into SparseSync, for one part of the batch; none in phase 1."""
        recipe = self.recipe
        k, h = recipe.gradient_windows, recipe.windows
        if self.phase(step) == 1:
            return range(0)
        iteration = step * recipe.accumulation + part
        if recipe.gradient_place == "cycle":
            first = iteration % (h - 2 * k) + k
        else:
            first = int(np.random.default_rng([recipe.seed, iteration, 2]).integers(h - k + 1))
        return range(first, first + k)

    def rng(self, step: int, place: int) -> np.random.Generator:
        """The generator for the stream at ``place`` in the step's batch: its start, offset and augmentation."""
        return np.random.default_rng([self.recipe.seed, step, place, 3])
