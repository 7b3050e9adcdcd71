"""A page over a folder of runs: every run in one table, with filters, and chosen ones side by side."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

from avbench.pages import interval, number, render, script_text
from avbench.protocol.signature import Signature
from avbench.results.run import RunResult, Score, read_run
from avbench.scoring.below_grid import BELOW_GRID
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS
from avbench.types import AvbenchError

MARK = "avbench · runs"
NAME = "runs.html"
COLUMNS = ("acc", "acc_tol1", "map", "roc_auc", "mae_s")  # of the table; side by side there are all
MOST_RUNS = 2000


class Listed(NamedTuple):
    """One run of the folder. ``folder``: relative to it; ``page``: whether its run.html is there; ``setting``: its
    signature without the model: runs with equal settings can be compared."""

    folder: str
    page: bool
    result: RunResult
    setting: str


class Unread(NamedTuple):
    """A folder with a run.json that cannot be read, and why."""

    folder: str
    reason: str


def run_files(folder: Path) -> list[Path]:
    """Every run.json in a folder and one or two folders below, by name. ``AvbenchError`` if it cannot be listed."""
    try:
        return sorted({*folder.glob("run.json"), *folder.glob("*/run.json"), *folder.glob("*/*/run.json")})
    except OSError as error:
        raise AvbenchError(f"cannot read {folder}: {error.strerror or error}") from error


def find_runs(folder: Path) -> tuple[list[Listed], list[Unread]]:
    """The runs in a folder and the folders in it, newest first, and those that cannot be read. ``AvbenchError`` if the
    folder cannot be listed."""
    paths, found, unread = run_files(folder), [], []
    for path in paths[:MOST_RUNS]:
        name = path.parent.relative_to(folder).as_posix()
        try:
            result = read_run(path)
        except AvbenchError as error:
            unread.append(Unread(name, str(error)))
            continue
        fields = Signature.parse(result.signature).fields()
        setting = " · ".join(f"{field} {value}" for field, value in fields.items() if field != "model")
        setting += f": {result.data.name} {result.data.split}, {result.n_total} segments"
        found.append(Listed(name, (path.parent / "run.html").is_file(), result, setting))
    unread += [Unread(f"{len(paths) - MOST_RUNS} more runs", "too many for one page")] if len(paths) > MOST_RUNS else []
    return sorted(found, key=lambda run: (run.result.created, run.folder), reverse=True), unread


def runs_page(runs: list[Listed], unread: list[Unread], title: str, at: Path = Path()) -> str:
    """The page as text; equal arguments give equal text. ``at``: the folder as it is called where the commands that
    the page advises will be typed."""
    known = {**METRICS, **SHOWN, **BELOW_GRID}
    present = {name for run in runs for name, score in run.result.scores.items() if score.value is not None}
    changing = [name for name in SHOWN if name in present]
    return render(
        "runs_page.html",
        script=script_text("runs.js"),
        mark=MARK,
        title=title,
        runs=[(run, json.dumps(_told(run.result), sort_keys=True), shlex.quote(str(at / run.folder))) for run in runs],
        unread=unread,
        metrics=json.dumps({name: [metric.title, metric.description] for name, metric in known.items()}),
        columns=[(name, known[name]) for name in (*changing[:2], *COLUMNS) if name in present],
        settings=_short({run.setting for run in runs}),
        stand_in=any(run.result.data.note == "procedural stand-in" for run in runs),
        models=sorted({run.result.model.name for run in runs}),
        data=sorted({f"{run.result.data.name} {run.result.data.split}" for run in runs}),
    )


def _told(result: RunResult) -> dict[str, str]:
    """Every score of a run in words, by metric."""
    return {name: _in_words(score) for name, score in result.scores.items()}


def _in_words(score: Score) -> str:
    told = number(score.value)
    between = interval(score.ci_low, score.ci_high)
    return f"{told} ({between})" if between else told


def _short(settings: set[str]) -> dict[str, str]:
    """A letter for each setting: A, B, ..., Z, AA, ..."""
    letters: dict[str, str] = {}
    for setting in sorted(settings):
        n, name = len(letters), ""
        while n >= 0:
            n, name = n // 26 - 1, chr(ord("A") + n % 26) + name
        letters[setting] = name
    return letters
