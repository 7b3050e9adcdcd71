"""The table of a run's segments, with filters and a download. Drawn by ``templates/segment_table.html``; ``sorting.js``
sorts it, ``run.js`` filters and saves it, and without them the table is complete."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avbench.pages.sections import GRID, in_order
from avbench.results.truth import Truth
from avbench.scoring.metrics import checked_logits, softmax

MAX_ROWS = 500  # a browser sorts so many at once, and the page stays small


class Line(NamedTuple):
    """One segment at the scored iteration. Offsets in seconds, positive: the sound comes early; ``truth`` and ``said``
    are classes, ``true_s`` the exact offset where it is known."""

    id: str
    video: str
    category: str
    truth: int
    true_s: float
    said: int
    said_s: float
    error_s: float
    p_said: float
    p_truth: float

    @property
    def right(self) -> bool:
        """Whether the answer is the right class."""
        return self.said == self.truth


class Listed(NamedTuple):
    """The lines that are shown, of ``n`` segments: all, or every ``step``-th; what can be picked in the filters."""

    lines: list[Line]
    n: int
    step: int
    classes: list[int]
    categories: list[str]


def listed(answers: Truth, logits: np.ndarray, at: int) -> Listed | None:
    """The table of ``logits`` (N, W, 21) at iteration index ``at``; None without segments."""
    n = len(answers)
    if not n:
        return None
    step = -(-n // MAX_ROWS)
    rows = np.arange(0, n, step)
    p = softmax(checked_logits(logits[rows, at]))
    said, exact_s = p.argmax(axis=1).tolist(), answers.offsets_s
    lines = []
    for place, (row, answer) in enumerate(zip(rows.tolist(), said, strict=True)):
        truth = int(answers.labels[row])
        true_s = GRID.offset_of(truth) if exact_s is None else float(exact_s[row])
        lines.append(
            Line(
                id=answers.segment_ids[row],
                video=str(answers.clusters[row]),
                category=answers.categories[row] if answers.categories else "",
                truth=truth,
                true_s=round(true_s, 4),
                said=answer,
                said_s=GRID.offset_of(answer),
                error_s=round(GRID.offset_of(answer) - true_s, 4),
                p_said=float(p[place, answer]),
                p_truth=float(p[place, truth]),
            )
        )
    categories = in_order(line.category for line in lines if line.category)
    return Listed(lines, n, step, sorted({line.truth for line in lines}), categories)
