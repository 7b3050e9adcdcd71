"""Training of the full-size StreamSync (and fine-tuning of SparseSync) on real clips, as in the paper.

Phase 1 trains the new parts alone (token, PASS, streaming head) over a frozen SparseSync; phase 2 trains everything,
with the base's gradient through K of the H windows. Where the published code does something else than the paper says,
the recipe has a named option; ``RECIPES`` holds both readings.

Everything drawn (order, offsets, augmentation, dropout) is a function of the seed, the step and the place in the
batch. On a CPU a training that was killed therefore continues to the same weights (a GPU's sums need not be the same
twice), and several processes (``torchrun``) compute what one would, to rounding. Where BatchNorm's statistics move
(``published-trf``) they do not: each process updates its own, and the mean is taken after every step.

``published-trf`` has the named deviations of the published code and is not its run: that one cuts the gradient at
different windows in the two iterations of a step, and ends by patience on validation mAP.

``recipe``     the typed configuration and the named ones
``plan``       what happens when
``data``       streams drawn from a manifest
``model``      what is frozen, the pass over a batch, the loss
``processes``  one process, or those of torchrun
``keeper``     checkpoint, log, weights
``loop``       ``train``
"""
