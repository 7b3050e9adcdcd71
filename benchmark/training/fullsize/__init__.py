"""Training of the full-size StreamSync (and fine-tuning of SparseSync) on real clips, as in the paper.

Phase 1 trains the new parts alone (token, PASS, streaming head) over a frozen SparseSync; phase 2 trains everything,
with the base's gradient through K of the H windows. Where the published code does something else than the paper says,
the recipe has a named option; ``RECIPES`` holds both readings.

Everything drawn (order, offsets, augmentation, dropout) is a function of the seed, the step and the place in the
batch. On a CPU a training that was killed therefore continues to the same weights (a GPU's sums need not be the same
twice), and several processes (``torchrun``) compute what one would, to rounding. Where BatchNorm's statistics move
(``published-trf``) they do not: each process updates its own, and the mean is taken after every step.

``published-trf`` has the named deviations of the published code. It is not its run to the letter: that one computes in
float16 with a scaled loss, validates every 250 steps and runs until it is stopped (``epochs`` says here when); here it
is validated after each phase and epoch. A training in mixed precision uses bfloat16.

``recipe``     the typed configuration and the named ones
``plan``       what happens when
``data``       streams drawn from a manifest
``ahead``      decoded before they are needed
``model``      what is frozen, the pass over a batch, the loss
``processes``  one process, or those of torchrun
``keeper``     checkpoint, log, weights
``loop``       ``train``
"""
