"""Scores with intervals, all over the same resampled videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avbench.protocol.rules import Protocol
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.run import Score, Scores, Slice
from avbench.results.truth import Truth
from avbench.scoring import dynamic
from avbench.scoring.below_grid import BELOW_GRID, below_grid_scores
from avbench.scoring.calibration import classes_of
from avbench.scoring.metrics import METRICS, score
from avbench.scoring.selection import selected_logits
from avbench.scoring.stats import DEFAULT, Bootstrap, Estimate, bootstrap_scores, numbered
from avbench.scoring.streams import Streams, checked_streams
from avbench.ticks import seconds

CURVE_RESAMPLES = 300  # the intervals along a curve are only for display; the final score uses all resamples


class Scorer:
    """Scores streaming predictions against ``truth``, every row over the same resampled videos."""

    def __init__(self, truth: Truth, bootstrap: Bootstrap = DEFAULT) -> None:
        self.truth, self.bootstrap = truth, bootstrap
        self._videos = numbered(truth.clusters)[1] if len(truth) else truth.clusters
        self._few = replace(bootstrap, n_resamples=min(bootstrap.n_resamples, CURVE_RESAMPLES))

    def __call__(self, logits: np.ndarray, selection: str = "final") -> Scores:
        """``logits`` (N, W, 21) -> metric -> score, at the iteration that ``selection`` picks (for each metric). All
        null if there is nothing to score. With selection "final" and known offsets also those of ``BELOW_GRID``."""
        offsets_s = self.truth.offsets_s if selection == "final" else None
        if not len(self.truth):
            return {name: Score(value=None) for name in (*METRICS, *(() if offsets_s is None else BELOW_GRID))}
        if selection == "final":  # all metrics at one iteration: bootstrapped together
            scores, videos = self._scores(logits[:, -1], self.bootstrap), self._videos
            if offsets_s is not None:
                scores |= as_scores(below_grid_scores(logits[:, -1], offsets_s, videos, self.bootstrap))
            return scores
        chosen = selected_logits(logits, self.truth.labels, selection)
        return {name: self._scores(found, self.bootstrap, [name])[name] for name, found in chosen.items()}

    def curve(self, logits: np.ndarray) -> list[Scores]:
        """One score map per iteration, from at most ``CURVE_RESAMPLES`` resamples; empty without segments."""
        if not len(self.truth):
            return []
        return [self._scores(logits[:, i], self._few) for i in range(logits.shape[1])]

    def values(self, logits: np.ndarray, metrics: Sequence[str]) -> list[Scores]:
        """The values of these metrics at each iteration, without intervals; empty without segments."""
        if not len(self.truth):
            return []
        labels = self._labels(logits.shape[1])
        found = [score(logits[:, i], labels[:, i]) for i in range(logits.shape[1])]
        return [{name: Score(value=values[name]) for name in metrics} for values in found]

    def recovery(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """The Kaplan-Meier table of recovery from changes; empty where offsets are fixed."""
        return []

    def slices(self, logits: np.ndarray, selection: str) -> dict[str, dict[str, Slice]]:
        """By category and by channel, where the truth names any."""
        return {
            kind: {
                name: Slice(n=len(rows), scores=self._taken(rows)(logits[rows], selection))
                for name, rows in groups.items()
            }
            for kind, groups in self.truth.groups().items()
        }

    def _labels(self, iterations: int) -> np.ndarray:
        """(N, W): the true class at each iteration."""
        return np.repeat(self.truth.labels[:, None], iterations, axis=1)

    def _taken(self, rows: np.ndarray) -> Scorer:
        """A scorer of some of the segments."""
        return Scorer(self.truth.take(rows), self._few)

    def _scores(self, logits: np.ndarray, bootstrap: Bootstrap, metrics: Sequence[str] | None = None) -> Scores:
        return as_scores(bootstrap_scores(logits, self.truth.labels, self._videos, bootstrap, metrics))


class ChangingScorer(Scorer):
    """Scores of streams whose offsets may change: those of the last window, as ever, and the main scores of
    ``dynamic``."""

    def __init__(self, truth: Truth, windows: WindowTruth, protocol: Protocol, bootstrap: Bootstrap = DEFAULT) -> None:
        super().__init__(truth, bootstrap)
        self.windows, self.protocol = windows, protocol
        self.window_s, self.hop_s = seconds(protocol.window), seconds(protocol.hop)

    def __call__(self, logits: np.ndarray, selection: str = "final") -> Scores:
        """As of ``Scorer``, and the dynamic scores, which are of all windows whatever the selection."""
        scores = super().__call__(logits, selection)
        if not len(self.truth):
            return scores | {name: Score(value=None) for name in dynamic.SHOWN}
        return scores | as_scores(dynamic.main_scores(self._streams(logits), self.bootstrap))

    def curve(self, logits: np.ndarray) -> list[Scores]:
        """As of ``Scorer``, each iteration against what is so at the end of its window."""
        if not len(self.truth):
            return []
        labels = self._labels(logits.shape[1])
        return [
            as_scores(bootstrap_scores(logits[:, i], labels[:, i], self._videos, self._few))
            for i in range(logits.shape[1])
        ]

    def recovery(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """As ``dynamic.score`` gives it."""
        return dynamic.recovery_table(self._streams(logits)) if len(self.truth) else []

    def details(self, logits: np.ndarray, laws: Sequence[str], alarm: np.ndarray | None = None) -> dict[str, Any]:
        """What ``dynamic.score`` returns; undefined numbers are None."""
        found = dynamic.score(
            logits,
            self.windows,
            hop_s=self.hop_s,
            window_s=self.window_s,
            videos=self.truth.clusters,
            laws=laws,
            alarm=alarm,
            bootstrap=self._few,
        )
        return undefined_is_none(found)

    def _labels(self, iterations: int) -> np.ndarray:
        return classes_of(self.windows.offset_end_s)

    def _taken(self, rows: np.ndarray) -> Scorer:
        return ChangingScorer(self.truth.take(rows), self.windows.take(rows), self.protocol, self._few)

    def _streams(self, logits: np.ndarray) -> Streams:
        return checked_streams(logits, self.windows, self.hop_s, self.window_s, self.truth.clusters)


def scorer_of(truth: Truth, windows: WindowTruth | None, protocol: Protocol, bootstrap: Bootstrap = DEFAULT) -> Scorer:
    """The scorer of predictions; ``windows``: the truth of every window, where offsets change."""
    if windows is None:
        return Scorer(truth, bootstrap)
    return ChangingScorer(truth, windows if len(truth) else windows.take([]), protocol, bootstrap)


def undefined_is_none(value: Any) -> Any:
    """``value`` with every nan in it as None, however deep: what strict JSON takes."""
    if isinstance(value, dict):
        return {name: undefined_is_none(part) for name, part in value.items()}
    if isinstance(value, list):
        return [undefined_is_none(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def as_scores(estimates: Mapping[str, Estimate]) -> Scores:
    """What ``stats.bootstrap_scores`` returns, ready for a result."""
    return {name: Score(value=e.value, ci_low=e.ci_low, ci_high=e.ci_high) for name, e in estimates.items()}
