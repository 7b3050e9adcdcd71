"""Scores with intervals, all over the same resampled videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.results.run import Score, Scores
from avbench.types import SegmentRecord

if TYPE_CHECKING:
    from avbench.scoring.stats import Estimate


LEVEL = 0.95
CURVE_RESAMPLES = 300  # the intervals along a curve are for looking at; the last point has the full number


class Scorer:
    """Scores with intervals over the same resampled videos for every row."""

    def __init__(self, segments: Sequence[SegmentRecord], n_resamples: int, seed: int) -> None:
        self.segments, self.n_resamples, self.seed = segments, n_resamples, seed
        self.labels = np.array([s.offset_class for s in segments], np.int64)
        self.clusters = np.array([s.video_id for s in segments])
        self.few = min(n_resamples, CURVE_RESAMPLES)

    def __call__(self, logits: np.ndarray, selection: str = "final") -> dict[str, Any]:
        """``logits`` (N, W, 21) -> metric -> score, at the iteration that ``selection`` picks (for each metric)."""
        from avbench.scoring.metrics import METRICS, score
        from avbench.scoring.selection import selected_iteration

        if not self.segments:
            return self._none()
        if selection == "final":
            return self._bootstrap(logits[:, -1])
        values = [score(logits[:, i], self.labels) for i in range(logits.shape[1])]
        chosen = {}
        for name, metric in METRICS.items():
            by_iteration = [v[name] for v in values]
            defined = np.isfinite(by_iteration).any()
            best = selected_iteration(selection, by_iteration, metric.higher_is_better) if defined else -1
            chosen[name] = self._bootstrap(logits[:, best], metrics=[name])[name]
        return chosen

    def curve(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """One score map per iteration; fewer resamples than the last one, which is the score itself."""
        if not self.segments:
            return []
        return [self._bootstrap(logits[:, i], self.few) for i in range(logits.shape[1])]

    def slices(self, logits: np.ndarray, selection: str) -> dict[str, dict[str, Any]]:
        """By category and by channel, where the manifest names any."""
        from avbench.results.run import Slice

        out: dict[str, dict[str, Any]] = {}
        for kind in ("category", "channel"):
            names = [getattr(s, kind) for s in self.segments]
            for name in sorted(set(names) - {""}):
                rows = [i for i, n in enumerate(names) if n == name]
                part = Scorer([self.segments[i] for i in rows], self.few, self.seed)
                out.setdefault(kind, {})[name] = Slice(n=len(rows), scores=part(logits[rows], selection))
        return out

    def _bootstrap(
        self, logits: np.ndarray, n_resamples: int | None = None, metrics: Sequence[str] | None = None
    ) -> dict[str, Any]:
        from avbench.scoring.scorer import as_scores
        from avbench.scoring.stats import bootstrap_scores

        n = self.n_resamples if n_resamples is None else n_resamples
        return as_scores(
            bootstrap_scores(logits, self.labels, self.clusters, n, self.seed, level=LEVEL, metrics=metrics)
        )

    @staticmethod
    def _none() -> dict[str, Any]:
        from avbench.results.run import Score
        from avbench.scoring.metrics import METRICS

        return {name: Score(value=None) for name in METRICS}


def as_scores(estimates: Mapping[str, Estimate]) -> Scores:
    """What ``stats.bootstrap_scores`` returns, ready for a result."""
    return {name: Score(value=e.value, ci_low=e.ci_low, ci_high=e.ci_high) for name, e in estimates.items()}
