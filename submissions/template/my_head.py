"""A streaming head: what the windows said up to now -> what the stream says now. Copy this file and make it yours.

MyHead adds up the log-probabilities of the windows and forgets: evidence that is HALF_LIFE_S old counts half.
``time_s`` tells how far apart the windows are, so the head forgets by the second, whatever the hop is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avbench import Snapshot, StreamingHead

HALF_LIFE_S = 20.0


class MyHead(StreamingHead):
    """Adds up log-probabilities and forgets with a half-life of ``HALF_LIFE_S`` seconds."""

    uses_torch = False  # `step` is given numpy arrays; leave this line out and it is given torch tensors
    needs_token = False  # True: `snapshot.token` (B, D) is there, and backbones without one are refused

    def init(self, batch: int) -> tuple[float, Any]:
        """The state of ``batch`` streams before their first window: (time of the last window, (B, 21) evidence)."""
        return 0.0, np.zeros((batch, 21))

    def step(self, state: tuple[float, Any], snapshot: Snapshot, time_s: float) -> tuple[tuple[float, Any], Any]:
        """One window of each stream: ``snapshot.logits`` (B, 21) -> the new state, and the stream's logits (B, 21).

        All memory is in the state, none on ``self``: several streams are stepped in turn.
        """
        last_s, evidence = state
        logits = snapshot.logits.astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        evidence = 0.5 ** ((time_s - last_s) / HALF_LIFE_S) * evidence + log_probability
        return (time_s, evidence), evidence.astype(np.float32)
