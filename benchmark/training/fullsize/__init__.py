"""Training of the full-size StreamSync (and fine-tuning of SparseSync) on real clips, as in the paper.

Phase 1 trains the new parts alone (token, PASS, streaming head) over a frozen SparseSync; phase 2 trains everything,
with the base's gradient through K of the H windows. Where the published code does something else than the paper says,
the recipe has a named option; ``RECIPES`` holds both readings.

Everything drawn (order, offsets, augmentation, dropout) is a function of the seed, the step and the place in the
batch. A training that was killed therefore continues to the same weights, and several processes (``torchrun``) compute
what one would, to rounding.

``recipe``     the typed configuration and the named ones
``plan``       what happens when
``data``       streams drawn from a manifest
``model``      what is frozen, the pass over a batch, the loss
``processes``  one process, or those of torchrun
``keeper``     checkpoint, log, weights
``loop``       ``train``
"""
