"""A run on disk, opened for analysis: its result, predictions and labels, and a table of its segments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from avbench.results.dynamic_truth import WindowTruth, read_truth
from avbench.results.predictions import read_predictions
from avbench.results.run import RunResult, read_run, run_file
from avbench.results.truth import Truth, read_segments
from avbench.runs.shown import Evaluation
from avbench.scoring.selection import scored_iteration
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd


class Predictions(NamedTuple):
    """Every iteration's logits (N, W, 21) float32 of N segments, in the order of ``segment_ids``."""

    segment_ids: tuple[str, ...]
    logits: np.ndarray


@dataclass(frozen=True, eq=False)
class Run:
    """What ``avbench run`` wrote into ``folder``. ``predictions``, ``truth`` and ``windows`` are read when
    first used; a file that is missing, or not the one that the run wrote (its hash is in run.json), is a
    ``UsageError``."""

    folder: Path
    result: RunResult
    on_board: ClassVar[bool] = False  # an entry of the leaderboard, which compares over the versions of avbench

    @property
    def place(self) -> str:
        """Where it lies, in a word that tells it apart from another run of the same model."""
        return self.folder.resolve().name

    @cached_property
    def predictions(self) -> Predictions:
        """The streaming predictions. ``UsageError`` too if no segment was scored, or if their number of iterations is
        not that of the protocol."""
        found = Predictions(*read_predictions(run_file(self.folder, self.result, "predictions")))
        iterations = self.result.protocol.iterations
        if found.logits.shape[1] != iterations:
            raise UsageError(
                f"{self.folder}: the predictions have {found.logits.shape[1]} iterations, the protocol has {iterations}"
            )
        return found

    @cached_property
    def truth(self) -> Truth | None:
        """Labels, videos and categories of the scored segments; None if the run wrote none (hidden labels)."""
        if "segments" not in self.result.files:
            return None
        return read_segments(run_file(self.folder, self.result, "segments"))

    @cached_property
    def windows(self) -> WindowTruth | None:
        """What is so in every window of the scored segments; None if the run wrote none: offsets are fixed, or labels
        hidden."""
        if "truth" not in self.result.files:
            return None
        return read_truth(run_file(self.folder, self.result, "truth"))

    def frame(self) -> pd.DataFrame:
        """One row a scored segment, in the order of ``predictions``: segment_id, video_id, category, offset_s (the
        label's), predicted_offset_s, error_s (predicted minus label).

        Predictions are those of the iteration that the run scores: the last, or under ``best_iter`` the one with the
        best accuracy. Without labels only segment_id and predicted_offset_s are known; the rest is missing (None, NaN).
        """
        import pandas as pd

        ids, logits = self.predictions
        grid = self.result.protocol.grid
        offsets_s = np.array([grid.offset_of(c) for c in range(grid.n_classes)])
        predicted_s = offsets_s[logits[:, scored_iteration(self.result)].argmax(axis=-1)]
        videos, categories, labels_s = self._told(ids, offsets_s)
        columns = {
            "segment_id": ids,
            "video_id": videos,
            "category": categories,
            "offset_s": labels_s,
            "predicted_offset_s": predicted_s,
            "error_s": (predicted_s - labels_s).round(6),  # offsets are decimals: 0.2, not 0.19999999999999996
        }
        return pd.DataFrame(columns)

    def _told(self, ids: tuple[str, ...], offsets_s: np.ndarray) -> tuple[list[Any], list[Any], np.ndarray]:
        """Video, category (None where unknown) and label in seconds (N,) of each segment."""
        if self.truth is None:
            return [None] * len(ids), [None] * len(ids), np.full(len(ids), np.nan)
        truth = self.truth.of_ids(ids)
        return truth.clusters.tolist(), list(truth.categories), offsets_s[truth.labels]


def load_run(run: Path | str) -> Run:
    """Opens what ``avbench run`` wrote, given as the folder or its ``run.json``; reads ``run.json`` only. Errors as in
    :func:`avbench.results.read_run`."""
    path = Path(run)
    folder = path if path.is_dir() else path.parent
    return Run(folder, Evaluation.of(read_run(path), folder))
