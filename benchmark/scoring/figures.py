"""Label-free figures of a folder of files: what each file has, their means with intervals over files, and the paired
differences from a reference folder. Nothing is left out in silence: what lacks a figure is listed with the reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.scoring.stats import DEFAULT, Bootstrap, difference, estimate, ratio
from avbench.types import offset_in_words

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a file has. ``lower_is_better``: None where neither is."""

    name: str
    title: str
    unit: str
    lower_is_better: bool | None
    description: str
    is_offset: bool = False  # a signed offset in seconds: said in words, too
    most: float = math.inf  # that it can be

    def badness(self, value: float) -> float:
        """A value to sort by, the worst highest."""
        return -value if self.lower_is_better is False else value if self.lower_is_better else abs(value)


@dataclass(frozen=True, slots=True)
class LabelFree:
    """A label-free metric: its figures (the first is what its name means), by whose definition, and the function that
    measures a file. ``measure(file) -> {figure: value}`` raises ``MediaError`` for a file that has no value.
    ``needs``: the network, "synchformer" or "syncnet"."""

    name: str
    figures: tuple[Figure, ...]
    definition: str
    measure: Callable[[Any], dict[str, float]]
    needs: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """What was found of one file. ``reasons``: metric -> why it has no value; ``key``: its name below the folder that
    was given, without its ending, by which it is paired."""

    path: str
    key: str
    duration_s: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unpaired: str = ""  # why there is no pair, where pairs were asked for

    @property
    def error(self) -> str | None:
        """What is missing of this file, in one line; None if nothing is."""
        of_reason: dict[str, list[str]] = {}
        for metric, reason in self.reasons.items():
            of_reason.setdefault(reason, []).append(metric)
        if len(of_reason) == 1 and not self.values:
            return next(iter(of_reason))
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in of_reason.items()) or None


class Mean(NamedTuple):
    """A mean over files with its interval; nan where there is none (fewer than two files)."""

    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class Summary:
    """A figure over all files. ``n_failed``: files without it, ``reasons``: why, and how many; with a reference its own
    mean and the mean of the paired differences (files minus reference), with p for no difference."""

    figure: Figure
    mean: Mean
    median: float
    n_failed: int
    reasons: Mapping[str, int]
    reference: Mean | None = None
    reference_failed: int = 0
    difference: Mean | None = None
    p: float = NAN


@dataclass(frozen=True)
class FileFigures:
    """The figures of files, in the order of their names; ``reference``: those of the reference folder.

    ``model``: name, fingerprint and the like of each network that was used; ``passed_over``: what was no media, one
    line for each reason; ``how``: what decides the figures beside that, in words.
    """

    metrics: tuple[LabelFree, ...]
    files: tuple[FileRow, ...]
    reference: tuple[FileRow, ...] = ()
    paired: bool = False
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    n_passed_over: int = 0
    how: tuple[str, ...] = ()
    bootstrap: Bootstrap = DEFAULT

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures of the metrics, in order."""
        return tuple(figure for metric in self.metrics for figure in metric.figures)

    @property
    def complete(self) -> bool:
        """Whether every file (and every reference) has every figure and, where pairs were asked for, its pair."""
        return not any(row.reasons or row.unpaired for row in (*self.files, *self.reference))

    @cached_property
    def summary(self) -> dict[str, Summary]:
        """Figure's name -> its mean over files with everything beside it."""
        return {figure.name: self._summed(metric, figure) for metric in self.metrics for figure in metric.figures}

    def worst_first(self) -> list[FileRow]:
        """The files by the first figure, the worst first; those without it at the end."""
        first = self.figures[0]

        def order(row: FileRow) -> tuple[bool, float, str]:
            value = row.values.get(first.name)
            return value is None, 0.0 if value is None else -first.badness(value), row.path

        return sorted(self.files, key=order)

    def frame(self) -> pd.DataFrame:
        """One row a file: path, duration_s, every figure (NaN where it has none), warnings, error, unpaired, and with a
        reference ``NAME.reference`` and ``NAME.difference``."""
        import pandas as pd

        others = self._others
        rows = []
        for row in self.files:
            cells: dict[str, Any] = {"path": row.path, "duration_s": row.duration_s}
            cells |= {figure.name: row.values.get(figure.name, NAN) for figure in self.figures}
            if self.paired:
                for figure in self.figures:
                    theirs = others[row.key].values.get(figure.name, NAN) if row.key in others else NAN
                    cells[f"{figure.name}.reference"] = theirs
                    cells[f"{figure.name}.difference"] = row.values.get(figure.name, NAN) - theirs
            cells |= {"warnings": "; ".join(row.warnings), "error": row.error or "", "unpaired": row.unpaired}
            rows.append(cells)
        return pd.DataFrame(rows)

    def document(self) -> dict[str, Any]:
        """Everything as plain data for strict JSON; undefined numbers are None."""
        named = {metric.name: metric.figures[0].name for metric in self.metrics}
        summary = {name: _as_data(found) for name, found in self.summary.items()}
        summary |= {metric: summary[first] for metric, first in named.items() if metric not in summary}
        document: dict[str, Any] = {
            "schema_version": 1,
            "files": [self._row(row, named) for row in self.files],
            "summary": summary,
            "n_files": len(self.files),
            "n_failed": sum(bool(row.reasons) for row in self.files),
            "complete": self.complete,
            "models": {need: dict(facts) for need, facts in self.models.items()},
            "definitions": {metric.name: metric.definition for metric in self.metrics},
            "how": list(self.how),
            "n_passed_over": self.n_passed_over,
            "passed_over": list(self.passed_over),
            "bootstrap": {
                "n_resamples": self.bootstrap.n_resamples,
                "seed": self.bootstrap.seed,
                "level": self.bootstrap.level,
                "over": "files",
            },
        }
        if self.paired:
            document["reference"] = [self._row(row, named) for row in self.reference]
            document["n_unpaired"] = sum(bool(row.unpaired) for row in (*self.files, *self.reference))
        return document

    def _row(self, row: FileRow, named: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {figure.name: row.values.get(figure.name) for figure in self.figures}
        values |= {metric: values[first] for metric, first in named.items()}
        for figure in self.figures:
            if figure.is_offset:
                value = values[figure.name]
                values[f"{figure.name}_in_words"] = None if value is None else offset_in_words(round(value, 2))
        return {
            "path": row.path,
            "duration_s": row.duration_s,
            **values,
            "warnings": list(row.warnings),
            "error": row.error,
            "reasons": dict(row.reasons),
            "unpaired": row.unpaired or None,
        }

    @cached_property
    def _others(self) -> dict[str, FileRow]:
        """The reference's files by the key of the one file that each is paired with."""
        return {row.key: row for row in self.reference if not row.unpaired}

    def _summed(self, metric: LabelFree, figure: Figure) -> Summary:
        values = [row.values[figure.name] for row in self.files if figure.name in row.values]
        reasons = Counter(row.reasons[metric.name] for row in self.files if metric.name in row.reasons)
        mean = _mean(figure, values, self.bootstrap)
        median = float(np.median(values)) if values else NAN
        found = Summary(figure, mean, median, len(self.files) - len(values), dict(reasons.most_common()))
        if not self.paired:
            return found
        theirs = [row for row in self.reference if figure.name in row.values]
        of_theirs = _mean(figure, [row.values[figure.name] for row in theirs], self.bootstrap)
        pairs = [
            (row.values[figure.name], other.values[figure.name])
            for row in self.files
            if (other := self._others.get(row.key)) and figure.name in row.values and figure.name in other.values
        ]
        delta, p = _difference(figure, pairs, self.bootstrap)
        n_failed = len(self.reference) - len(theirs)
        return Summary(figure, mean, median, found.n_failed, found.reasons, of_theirs, n_failed, delta, p)


def pair(files: Sequence[FileRow], reference: Sequence[FileRow]) -> tuple[tuple[FileRow, ...], tuple[FileRow, ...]]:
    """Both, each row with the reason why it has no pair if it has none: no file of its key on the other side, or more
    than one on either."""
    ours, theirs = Counter(row.key for row in files), Counter(row.key for row in reference)

    def told(row: FileRow, others: Counter[str], where: str) -> FileRow:
        if not others[row.key]:
            return replace(row, unpaired=f"{where} no file {row.key}.*")
        if ours[row.key] > 1 or theirs[row.key] > 1:
            return replace(row, unpaired=f"several files are named {row.key}.*")
        return row

    return (
        tuple(told(row, theirs, "the reference has") for row in files),
        tuple(told(row, ours, "the files have") for row in reference),
    )


def _mean(figure: Figure, values: Sequence[float], bootstrap: Bootstrap) -> Mean:
    of = partial(ratio, values, np.ones(len(values)))
    return Mean(*estimate(of, np.arange(len(values)), bootstrap, *_ends(figure)), n=len(values))


def _ends(figure: Figure) -> tuple[float, float]:
    """The least and the most that a figure can be."""
    return -math.inf if figure.lower_is_better is None else 0.0, figure.most  # only signed ones have no direction


def _difference(figure: Figure, pairs: Sequence[tuple[float, float]], bootstrap: Bootstrap) -> tuple[Mean, float]:
    if not pairs:
        return Mean(NAN, NAN, NAN, 0), NAN
    ours, theirs = zip(*pairs, strict=True)
    ones = np.ones(len(pairs))
    of_ours, of_theirs = partial(ratio, ours, ones), partial(ratio, theirs, ones)
    found, _ = difference(of_ours, of_theirs, np.arange(len(pairs)), bootstrap, ends=_ends(figure))
    return Mean(found["difference"], found["ci_low"], found["ci_high"], len(pairs)), found["p"]


def _as_data(found: Summary) -> dict[str, Any]:
    def plain(mean: Mean) -> dict[str, Any]:
        return {name: _defined(value) for name, value in mean._asdict().items()}

    figure = found.figure
    data = plain(found.mean) | {"median": _defined(found.median), "n_failed": found.n_failed}
    data |= {"reasons": dict(found.reasons), "unit": figure.unit, "title": figure.title}
    data |= {"description": figure.description, "lower_is_better": figure.lower_is_better}
    if figure.is_offset:
        data["in_words"] = None if math.isnan(found.mean.value) else offset_in_words(round(found.mean.value, 2))
    if found.reference and found.difference:
        data["reference"] = plain(found.reference) | {"n_failed": found.reference_failed}
        data["difference"] = plain(found.difference) | {"p": _defined(found.p)}
    return data


def _defined(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
