"""Several models compared in pairs on the same segments: differences, corrected for their number, and ranks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.scoring.metrics import Column
from avbench.scoring.ranking import Drawn
from avbench.scoring.stats import Bootstrap, Estimate, as_difference, detectable, least_p
from avbench.system.spelling import nearest
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from avbench.results.run import RunResult

POWER = 0.8
MORE_RESAMPLES = (2000, 5000, 10_000, 20_000)
MAIN, ALL = "main", "all"  # what stands for metrics besides their names


class Compared(NamedTuple):
    """One metric of two runs. ``detectable``: the smallest true difference that these videos would reveal with
    probability 0.8 (``stats.minimum_detectable_difference``). Nan where undefined."""

    a: float
    b: float
    difference: float  # a minus b
    ci_low: float
    ci_high: float
    p: float
    detectable: float

    def turned(self) -> Compared:
        """The same as b minus a."""
        difference, low, high = 0 - self.difference, 0 - self.ci_high, 0 - self.ci_low  # 0 stays 0, not -0
        return self._replace(a=self.b, b=self.a, difference=difference, ci_low=low, ci_high=high)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's method: the chance of even one false "they differ" among all of
    them stays below the level at which they are read. A nan is no test: it stays one and is not counted."""
    tests = sorted((i for i, x in enumerate(p) if not math.isnan(x)), key=lambda i: p[i])
    corrected, least = [math.nan] * len(p), 0.0
    for place, i in enumerate(tests):
        least = max(least, min(1.0, (len(tests) - place) * p[i]))
        corrected[i] = least
    return corrected


def with_enough(bootstrap: Bootstrap, n_pairs: int, n_videos: int) -> Bootstrap:
    """``bootstrap`` with more resamples, if the correction for ``n_pairs`` could not find a difference with its own."""
    wanted = (1 - bootstrap.level) / n_pairs / 2  # half: the first difference that is found need not be the largest
    tries = [bootstrap.n_resamples, *(n for n in MORE_RESAMPLES if n > bootstrap.n_resamples)]
    enough = next((n for n in tries if least_p(n, n_videos) < wanted), tries[-1])
    return replace(bootstrap, n_resamples=enough)


@dataclass(frozen=True, eq=False)
class Matrix:
    """One metric of K models. ``values``: of each, with the interval of it alone; ``pairs`` and ``corrected``: of the
    models i < j, the difference i minus j, and its p after ``holm`` over all pairs of this metric."""

    column: Column
    values: tuple[Estimate, ...]
    pairs: dict[tuple[int, int], Compared]
    corrected: dict[tuple[int, int], float]
    level: float

    @classmethod
    def of(cls, column: Column, drawn: Sequence[Drawn], level: float) -> Matrix:
        """From one score of each model, over the same resamples of videos."""
        places = list(combinations(range(len(drawn)), 2))
        pairs = {(i, j): _compared(drawn[i], drawn[j], level) for i, j in places}
        corrected = dict(zip(places, holm([pair.p for pair in pairs.values()]), strict=True))
        return cls(column, tuple(one.estimate for one in drawn), pairs, corrected, level)

    def minus(self, row: int, other: int) -> Compared:
        """The difference of two models, ``row`` minus ``other``."""
        return self.pairs[row, other] if row < other else self.pairs[other, row].turned()

    def p_corrected(self, row: int, other: int) -> float:
        """Its p after the correction."""
        return self.corrected[min(row, other), max(row, other)]

    def significant(self, row: int, other: int) -> bool:
        """Whether the two differ after the correction, at 1 - ``level``."""
        return self.p_corrected(row, other) < 1 - self.level

    def better(self, row: int, other: int) -> bool:
        """Whether ``row`` is significantly better than ``other``."""
        return self.significant(row, other) and (self.minus(row, other).difference > 0) == self.column.higher_is_better

    @property
    def order(self) -> list[int]:
        """The models, the best value first; equal ones as they were given, undefined ones last."""
        sign = -1 if self.column.higher_is_better else 1
        return sorted(
            range(len(self.values)),
            key=lambda i: (math.isnan(self.values[i].value), sign * np.nan_to_num(self.values[i].value)),
        )

    def ranks(self, row: int) -> tuple[int, int] | None:
        """The best and the worst rank that a model can have: behind those that are significantly better, before those
        that are significantly worse. None where the metric is undefined."""
        if math.isnan(self.values[row].value):
            return None
        others = [i for i, one in enumerate(self.values) if i != row and not math.isnan(one.value)]
        n_better, n_worse = sum(self.better(i, row) for i in others), sum(self.better(row, i) for i in others)
        return 1 + n_better, 1 + len(others) - n_worse


def _compared(a: Drawn, b: Drawn, level: float) -> Compared:
    found = a.distribution.minus(b.distribution)
    least = detectable(found, a.n_videos, level, POWER)
    return Compared(
        a.distribution.value, b.distribution.value, **as_difference(found, a.n_videos, level), detectable=least
    )


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Several runs or leaderboard entries compared in pairs, all on the same ``n_segments`` segments of ``n_videos``
    videos. ``left_out``: the number of segments that some of them have scored and not all. ``places``: where each lies,
    in a word; ``names``: of the models, told apart by that where two are equal. ``metrics``: by name, the ``main`` one
    among them."""

    runs: tuple[RunResult, ...]
    places: tuple[str, ...]
    n_segments: int
    n_videos: int
    left_out: int
    bootstrap: Bootstrap
    main: str
    metrics: dict[str, Matrix]

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, each once."""
        names = [run.model.name for run in self.runs]
        for apart in (self.places, [_letter(i) for i in range(len(names))]):
            often = Counter(names)
            names = [
                f"{run.model.name} ({word})" if often[name] > 1 else name
                for run, name, word in zip(self.runs, names, apart, strict=True)
            ]
        return tuple(names)

    @property
    def n_pairs(self) -> int:
        """The number of pairs, for which each metric's p-values are corrected."""
        return len(self.runs) * (len(self.runs) - 1) // 2

    @property
    def undecidable(self) -> bool:
        """Whether no corrected p can be significant: too many pairs for so few resamples or videos."""
        return 1 - self.bootstrap.level <= self.n_pairs * least_p(self.bootstrap.n_resamples, self.n_videos)

    def chosen(self, names: Iterable[str]) -> list[Matrix]:
        """The metrics of these names, each once; "main" and "all" are names, too. ``UsageError`` for another one."""
        found: dict[str, Matrix] = {}
        for name in names:
            if name not in (MAIN, ALL, *self.metrics):
                raise UsageError(f"unknown metric {name!r}: {nearest(name, (MAIN, ALL, *self.metrics))}")
            found |= self.metrics if name == ALL else {(key := self.main if name == MAIN else name): self.metrics[key]}
        return list(found.values())

    def frame(self) -> pd.DataFrame:
        """One row a metric and pair: model_a, model_b, metric, a, b, difference (a minus b), ci_low, ci_high, p,
        detectable (NaN where undefined), p_holm, significant (by p_holm), n_segments, n_videos, n_pairs."""
        import pandas as pd

        counts = {"n_segments": self.n_segments, "n_videos": self.n_videos, "n_pairs": self.n_pairs}
        return pd.DataFrame([row | counts for matrix in self.metrics.values() for row in self._pairs(matrix)])

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined values are null. ``metrics``: by name, each with every run's value, interval and ranks,
        the best first, and every pair."""
        return {
            "n_segments": self.n_segments,
            "n_videos": self.n_videos,
            "left_out": self.left_out,
            "n_pairs": self.n_pairs,
            "correction": "holm, over the pairs of each metric",
            "level": self.bootstrap.level,
            "n_resamples": self.bootstrap.n_resamples,
            "seed": self.bootstrap.seed,
            "main": self.main,
            "runs": [
                {"name": name, "place": place, "signature": run.signature, "version": run.avbench_version}
                for name, place, run in zip(self.names, self.places, self.runs, strict=True)
            ],
            "metrics": {
                matrix.column.name: {
                    "runs": [
                        {"name": self.names[i], **_plain(matrix.values[i]._asdict()), "ranks": matrix.ranks(i)}
                        for i in matrix.order
                    ],
                    "pairs": [_plain({k: v for k, v in row.items() if k != "metric"}) for row in self._pairs(matrix)],
                }
                for matrix in self.metrics.values()
            },
        }

    def _pairs(self, matrix: Matrix) -> Iterator[dict[str, Any]]:
        for (i, j), pair in matrix.pairs.items():
            yield {
                "model_a": self.names[i],
                "model_b": self.names[j],
                "metric": matrix.column.name,
                **pair._asdict(),
                "p_holm": matrix.corrected[i, j],
                "significant": matrix.significant(i, j),
            }


def versions(runs: Iterable[RunResult]) -> str:
    """The versions of avbench that made the runs, in words."""
    return " and ".join(dict.fromkeys(run.avbench_version for run in runs))


def _letter(i: int) -> str:
    """A, B, ..., Z, AA, ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them."""
    return {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in row.items()}
