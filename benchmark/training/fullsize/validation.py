"""Validation of a full-size training, shared by its processes."""

from __future__ import annotations

import numpy as np
import torch

from avbench.baselines.sparsesync import SparseSync
from avbench.scoring.metrics import score
from avbench.training.fullsize.data import ValidationStreams
from avbench.training.fullsize.model import Eyes, mixed_precision, streams
from avbench.training.fullsize.processes import Workers


@torch.no_grad()
def validate(
    model: SparseSync, data: ValidationStreams, workers: Workers, autocast: torch.dtype | None = None
) -> dict[str, float | int]:
    """Scores at the last window on every segment of ``data``, at its own offset, and the number ``n`` of segments.

    The processes share the segments; all of them get the same scores. Leaves ``model`` in evaluation mode.
    """
    model.eval()
    eyes = Eyes(model, workers.device.type == "cpu")
    found: list[tuple[int, list[float], int]] = []
    for number in range(workers.rank, len(data.items), workers.n):
        example = data[number]
        with mixed_precision(workers.device, autocast):
            snapshot, streaming = streams(model, eyes, [example], data.recipe, range(0), 0)
        logits = (snapshot if streaming is None else streaming)[0, -1].float().cpu()
        found.append((number, logits.tolist(), example.label))
    found = sorted(workers.gathered(found))
    scores = score(np.array([f[1] for f in found], np.float32), np.array([f[2] for f in found]))
    return {key: round(value, 4) for key, value in scores.items()} | {"n": len(found)}
