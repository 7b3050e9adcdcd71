"""The table of a run for a paper: model and reference rows by metric, each value with its interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from avbench.pages.formats import INDENT, Origin, Table, csv_text, estimate
from avbench.pages.run_text import DEFAULT, columns_of, head_notes
from avbench.scoring.stats import too_few
from avbench.ticks import seconds

if TYPE_CHECKING:
    from avbench.results.run import RunResult, Scores
    from avbench.scoring.metrics import Column


def run_table(result: RunResult, metrics: Iterable[str] = (DEFAULT,)) -> Table:
    """``metrics``: as of :func:`avbench.pages.run_text.columns_of`. Scores that are undefined, or whose labels are
    hidden, are dashes."""
    columns = columns_of(metrics, result.protocol.name == "dynamic")
    of = result.n_total
    name = result.model.name + (" (RANDOM WEIGHTS)" if result.model.random_weights is not None else "")
    rows = [[name, *_cells(result.scores, columns), f"{result.n_scored}/{of}"]]
    rows += [
        [INDENT * row.label.startswith("same") + row.label, *_cells(row.scores, columns), f"{row.n}/{of}"]
        for row in result.rows
    ]
    return Table(
        name=f"run-{result.model.name}",
        title=f"{result.model.name} on {measured_on(result)}",
        headers=["", *(column.title for column in columns), "n"],
        rows=rows,
        origin=Origin([("", result.signature)], result.avbench_version, f"{result.n_scored} of {of} segments"),
        notes=_notes(result),
    )


def measured_on(result: RunResult) -> str:
    """Data and setting in words."""
    p, data = result.protocol, result.data
    note = f" ({data.note})" if data.note else ""
    return f"{data.name} {data.split}{note}, {p.name} protocol, {p.iterations} windows, hop {seconds(p.hop):g} s"


def run_csv(result: RunResult) -> str:
    """The table of ``--csv`` with the columns signature (of the run) and version."""
    return csv_text(result.frame().assign(signature=result.signature, version=result.avbench_version))


def _cells(scores: Scores, columns: Iterable[Column]) -> list[str]:
    found = [scores.get(column.name) for column in columns]
    return [estimate(*((None,) * 3 if s is None else (s.value, s.ci_low, s.ci_high))) for s in found]


def _notes(result: RunResult) -> list[str]:
    notes = []
    if result.incomplete:
        notes.append(f"INCOMPLETE: {len(result.failures)} of {result.n_total} segments failed and are not scored.")
    notes += [f"{note}." for note in head_notes(result)]
    if result.unsupported:
        n = len(result.unsupported)
        verb = "is" if n == 1 else "are"
        notes.append(f"{n} segment{'s' * (n > 1)} {verb} too short for this hop and number of windows.")
    if result.data.labels == "hidden":
        notes.append("The labels of this data are hidden: nothing is scored.")
    elif any(score.ci_low is not None for score in result.scores.values()):
        notes.append(f"In brackets: the {100 * result.level:g} % interval, bootstrapped over videos.")
    else:
        notes.append(f"{too_few().capitalize()}.")
    notes += [f"{row.label}: {row.note}." for row in result.rows if row.note]
    return [*notes, *([f"{result.model.weights_note}."] if result.model.weights_note else [])]
