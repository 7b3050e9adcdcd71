"""Training of the full-size StreamSync (and fine-tuning of SparseSync) on real clips, as in the paper.

Phase 1 trains only the new parts (token, PASS, streaming head) on a frozen SparseSync; phase 2 trains everything, and
K of the H windows carry a gradient into SparseSync. Where the published code differs from the paper, the recipe has a
named option; ``RECIPES`` contains both versions.

Everything random (order, offsets, augmentation, dropout) depends only on the seed, the step and the place in the batch.
On a CPU a killed training therefore continues to the same weights (sums on a GPU may differ from run to run), and
several processes (``torchrun``) compute the same as one, up to rounding. This does not apply where BatchNorm's
statistics move (``published-trf``): each process updates its own, and they are averaged after every step.

``published-trf`` has the named deviations of the published code, but does not repeat its run exactly: that one uses
float16 with a scaled loss, validates every 250 steps and runs until it is stopped. Here ``epochs`` sets the length,
validation follows each phase and epoch, and mixed precision means bfloat16.

``recipe``      the typed configuration and the named recipes
``plan``        the schedule
``data``        streams drawn from a manifest
``ahead``       decoding ahead of the step
``model``       what is frozen, the pass over a batch, the loss
``processes``   one process, or those of torchrun
``validation``  scores on held-out segments
``keeper``      checkpoint, log, weights
``loop``        ``train``
"""
