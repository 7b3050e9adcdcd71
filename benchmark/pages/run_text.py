"""The text that ``avbench run`` and ``avbench data info`` print, no wider than a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.pages import fragment
from avbench.pages.causes import causes, nothing_scored, remedies
from avbench.pages.formats import estimate
from avbench.pages.tables import numbers
from avbench.registry.options import FROM_BACKBONE
from avbench.scoring.below_grid import BELOW_GRID
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS, Column
from avbench.scoring.stats import interval_in_words, too_few
from avbench.system.spelling import nearest
from avbench.ticks import seconds
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    from avbench.results.run import PairScore, RunResult, Score, Scores


UNDEFINED = "–"
OTHER_BACKBONE = "the head was trained on snapshots of another backbone"  # how the run's note on it begins
MOST_CAUSES = 10  # of failures, where nothing was scored
TABLE_CHANGING = (
    "recovery_s",
    "recovery_median_s",
    "false_changes_per_h",
    "tracked_acc_tol1",
    "tracked_acc",
    "tracking_error_s",
)
COLUMNS: dict[str, Column] = {**METRICS, **BELOW_GRID, **SHOWN}
DEFAULT, ALL = "default", "all"  # what --metrics takes besides names
PER_TABLE = len(METRICS)  # columns side by side; more follow in further tables, so that a terminal holds them


def columns_of(names: Iterable[str] = (DEFAULT,), changing: bool = False) -> list[Column]:
    """The columns that --metrics names, each once: scores by name, "default" (``METRICS``, where offsets are
    ``changing`` those of ``TABLE_CHANGING``) or "all". ``UsageError`` for another name, with the nearest ones."""
    usual = {name: SHOWN[name] for name in TABLE_CHANGING} if changing else METRICS
    everything = {**SHOWN, **METRICS} if changing else {**METRICS, **BELOW_GRID}
    chosen: dict[str, Column] = {}
    for name in names:
        if name not in (DEFAULT, ALL, *COLUMNS):
            raise UsageError(f"unknown metric {name!r}: {nearest(name, (DEFAULT, ALL, *COLUMNS))}")
        chosen |= usual if name == DEFAULT else everything if name == ALL else {name: COLUMNS[name]}
    return list(chosen.values())


def render(
    result: RunResult,
    folder: Path,
    metrics: Iterable[str] = (DEFAULT,),
    again: Sequence[str] = ("--data", "DATA"),
    doctor: Sequence[str] = (),
    recipe: str = "",
) -> str:
    """The text printed after a run: header, table of scores (``metrics``: as of :func:`columns_of`), slices, pairs, the
    paths of its files (``recipe``: where its options were written), and what to try next (``again``: the options of a
    run on the same data; ``doctor``: what the doctor is asked about)."""
    from avbench.results.run import REPORT_FILE

    if nothing_scored(result):
        return _nothing(result, folder, again, doctor, recipe)
    if result.data.labels == "hidden":
        return _without_scores(result, folder, recipe)
    columns = columns_of(metrics, result.protocol.name == "dynamic")
    parts = [
        *_found(result, _table(result, columns)),
        f"report  {folder / REPORT_FILE}",
        *_files(result, folder, recipe),
        f"signature  {result.signature}",
        _next(result, again, doctor),
    ]
    return "\n".join(parts)


def summary(result: RunResult, folder: Path | None = None) -> str:
    """What ``print(result)`` shows: the text printed after a run, without what to try next; ``folder``: where its files
    are, if they are told."""
    if nothing_scored(result):
        lines = _causes(result)
    elif result.data.labels == "hidden":
        lines = _hidden(result)
    else:
        lines = _found(result, _table(result, columns_of(changing=result.protocol.name == "dynamic")))
    return "\n".join([*lines, *_where(result, folder), f"signature  {result.signature}"])


def summary_html(result: RunResult, folder: Path | None = None) -> str:
    """The same for a notebook, as a piece of HTML: the table of scores with what stands around it."""
    if nothing_scored(result) or result.data.labels == "hidden":
        return fragment("score_table.html", headers=[], rows=[], lines=[summary(result, folder)])
    headers, rows = _rows(result, columns_of(changing=result.protocol.name == "dynamic"), facts=True)
    header, *below = _found(result, "\n".join(_table_notes(result)))
    lines = [*below, *_where(result, folder), f"signature  {result.signature}"]
    return fragment("score_table.html", header=header, headers=headers, rows=rows, lines=lines)


def _where(result: RunResult, folder: Path | None) -> list[str]:
    """Where the page, if it is there, and the files of a result are; nothing if that is not told."""
    from avbench.results.run import REPORT_FILE

    if folder is None:
        return []
    page = folder / REPORT_FILE
    return [*([f"report  {page}"] if page.is_file() else []), *_files(result, folder, "")]


def _found(result: RunResult, table: str) -> list[str]:
    """What was found: header, ``table`` of scores, slices, pairs, and what is missing from them."""
    changing = changing_lines(result) if result.dynamic else []
    parts = [_header(result), table, *changing, *_slices(result), *_pairs(result), *head_notes(result)]
    if result.incomplete:
        parts.append(f"INCOMPLETE: {len(result.failures)} of {result.n_total} segments failed and are not scored")
    if result.unsupported:
        parts.append(f"not scored: {len(result.unsupported)} segments too short for this hop and number of windows")
    if result.absent_classes:
        n, of = len(result.absent_classes), OffsetGrid().n_classes
        alone = "" if n < of - 1 else "; mAP and ROC-AUC are undefined with one class alone"
        parts.append(f"{n} of {of} classes have no segment; means over classes leave them out{alone}")
    return [*parts, *_model_notes(result)]


def _nothing(result: RunResult, folder: Path, again: Sequence[str], doctor: Sequence[str], recipe: str) -> str:
    """The text where nothing was scored: the causes, and what looks for them."""
    from avbench.results.run import REPORT_FILE

    data = [again[1], *(again[2:4] if "--split" in again else [])]  # they come first
    commands = remedies(result, doctor or [result.model.name], data)
    lines = [*_causes(result), f"report  {folder / REPORT_FILE}", *_files(result, folder, recipe)]
    return "\n".join([*lines, *_commands(commands)])


def _causes(result: RunResult) -> list[str]:
    """Why nothing was scored; no table that could only be empty."""
    found = causes(result.failures, result.data.names)
    lines = [_header(result), nothing_scored(result), *(f"  {cause}" for cause in found[:MOST_CAUSES])]
    if len(found) > MOST_CAUSES:
        lines.append(f"  ... and {len(found) - MOST_CAUSES} more causes, all in run.json")
    return [*lines, *_model_notes(result)]


def _files(result: RunResult, folder: Path, recipe: str) -> list[str]:
    names = " · ".join(["run.json", *(file.path for file in result.files.values())])
    return [f"files   {folder}: {names}", *([f"recipe  {recipe}"] if recipe else [])]


def _commands(commands: Sequence[Sequence[str]]) -> list[str]:
    """What to do next, a command a line, each as it can be pasted into a shell."""
    return [f"{'' if n else 'next':8}{shlex.join(words)}" for n, words in enumerate(commands)]


def head_notes(result: RunResult) -> list[str]:
    """The run's note on a head that was trained on another backbone, in capitals, for beside the scores."""
    return [f"ANOTHER BACKBONE: {text}" for text in result.warnings if text.startswith(OTHER_BACKBONE)]


def _without_scores(result: RunResult, folder: Path, recipe: str) -> str:
    """The text for a run on data whose labels are hidden."""
    lines = [*_hidden(result), *_files(result, folder, recipe), f"signature  {result.signature}"]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", result.model.name).strip("-._") or "model"
    words = ["avbench", "submit", "pack", str(folder), "--out", "entries", "--org", "my-org", "--name", name[:64]]
    return "\n".join([*lines, f"next    {shlex.join(words)}"])


def _hidden(result: RunResult) -> list[str]:
    """What a run on such data says in place of scores."""
    n = f"{result.n_scored}/{result.n_total}"
    lines = [_header(result), f"{result.model.name}: {n} segments predicted, none scored"]
    lines += [f"INCOMPLETE: {len(result.failures)} segments failed"] if result.incomplete else []
    return [*lines, "the labels of this data are hidden: maintainers score it after submission", *_model_notes(result)]


def _model_notes(result: RunResult) -> list[str]:
    model = result.model
    lines = [f"note    {model.weights_note}"] if model.weights_note else []
    facts = []
    if model.full_size:
        heard = (
            f"{model.audio_lead_trim_samples} samples early, as in training"
            if model.audio_lead_trim_samples
            else "unshifted"
        )
        facts += [f"full size, trained on {model.trained_on}", f"sound heard {heard}"]
    facts += [" ".join(f"{name}={text}" for name, text in model.arguments.items())] if model.arguments else []
    facts += [f"autocast to {model.dtype}"] if model.dtype != "float32" else []
    facts += ["compiled"] if model.compiled else []
    facts += [f"streaming token {model.token}"] if model.token not in ("", FROM_BACKBONE) else []
    return [*lines, *([f"model   {' · '.join(facts)}"] if facts else [])]


def _header(result: RunResult) -> str:
    p, data, where = result.protocol, result.data, result.environment
    note = f"{data.note}, " if data.note else ""
    hop_s = seconds(p.hop)
    device, workers = str(where.get("device", "")).upper(), where.get("workers", 1)
    return (
        f"{data.name} {data.split} ({note}{_count(data.n_clips, 'clip')}) · {p.name} protocol: "
        f"{_count(p.iterations, 'window')}, hop {hop_s:g} s · {device}, "
        f"{_count(int(workers), 'process', 'es')}"  # type: ignore[arg-type]
    )


def _table(result: RunResult, columns: Sequence[Column]) -> str:
    """One table for every ``PER_TABLE`` columns, or fewer on a narrow terminal; the first of these also says how many
    segments are scored, and how fast."""
    tables = []
    for first in range(0, len(columns), PER_TABLE):
        headers, rows = _rows(result, columns[first : first + PER_TABLE], facts=not first)
        tables += numbers(rows, headers)
    return "\n".join([*tables, *_table_notes(result)])


def _table_notes(result: RunResult) -> list[str]:
    """What the table's cells mean."""
    if any(score.ci_low is not None for score in result.scores.values()):
        level = f"{100 * result.level:g} %"
        spread = f"± half-width of the {level} interval, bootstrapped over videos; exact bounds in run.json"
        meaning = [interval_in_words(result.level)]
    else:
        spread, meaning = too_few(), []
    return [f"{spread}   * {_latency_note(result)}", *meaning]


def _rows(result: RunResult, columns: Sequence[Column], facts: bool) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table; ``facts``: with how many segments are scored, how fast, and notes."""
    latency = f"{result.latency.ms_per_step:.0f}" if result.latency else UNDEFINED
    of = result.n_total
    name = result.model.name + (" (RANDOM WEIGHTS)" if result.model.random_weights is not None else "")
    rows = [[name, *_cells(result.scores, columns), *([f"{result.n_scored}/{of}", latency, ""] if facts else [])]]
    for row in result.rows:
        indent = "  " if row.label.startswith("same") else ""
        rows.append(
            [indent + row.label, *_cells(row.scores, columns), *([f"{row.n}/{of}", "", row.note] if facts else [])]
        )
    headers = ["", *(column.title for column in columns), *(["n", "ms/step*", ""] if facts else [])]
    return headers, rows


def _latency_note(result: RunResult) -> str:
    if result.latency:
        return "indicative: model calls only, one thread"
    if result.n_scored and result.counters:
        return "all snapshots came from the store"
    return "nothing was timed"


def _cells(scores: Scores, columns: Sequence[Column]) -> list[str]:
    return [_cell(scores.get(column.name), bounded=column.unit == "") for column in columns]


def _cell(score: Score | PairScore | None, bounded: bool) -> str:
    """``.62 ±.05``; only seconds keep the leading zero."""
    if score is None or score.value is None:
        return UNDEFINED
    text = _number(score.value, bounded)
    if score.ci_low is not None and score.ci_high is not None:
        text += f" ±{_number((score.ci_high - score.ci_low) / 2, bounded)}"
    return text


def _number(value: float, bounded: bool) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("0") if bounded and text.startswith("0.") else text


def changing_lines(result: RunResult) -> list[str]:
    """What a run over offsets that change says below its table: the headline, recovery by size, laws, the price."""
    found: dict[str, Any] = dict(result.dynamic)
    head = found["headline"]
    raised = f" (a class is believed once it was held for {head['held']} windows)" if head["raised"] else ""
    false_changes = f"{_spoken(head['false_changes_per_h'])} false changes an hour{raised}"
    lines = [
        f"headline: back within one class {_spoken(head['recovery_s'], 's')} after a change of at least 0.4 s, on "
        f"average up to 40 s, at {false_changes}"
        if head["recovery_s"]["value"] is not None
        else f"headline: {false_changes}; no offset changes by 0.4 s or more"
    ]
    sizes = [
        f"{size} s: {_spoken(part['recovery_median_s'], 's')} (n {part['n']})"
        for size, part in found["recovery_by_size"].items()
        if part["n"]
    ]
    lines += [f"median recovery by size of the change: {' · '.join(sizes)}"] if sizes else []
    laws = [f"{law} {_spoken(part['tracked_acc_tol1'])} (n {part['n']})" for law, part in found["by_law"].items()]
    lines.append(f"tracked ±1 by law: {' · '.join(laws)}")
    if found["price"]:
        n, acc = found["price"]["n"], found["price"]["acc"]
        lines.append(
            f"price: on the {n} streams whose offset stays, mutes change the last window's Acc by {_change(acc)}"
        )
    return lines


def _spoken(estimate: Mapping[str, float | None], unit: str = "") -> str:
    """A value and its interval, ``6.1 s [5.0, 7.2]``."""
    if estimate["value"] is None:
        return UNDEFINED
    ends = [estimate["ci_low"], estimate["ci_high"]]
    spread = "" if None in ends else f" [{', '.join(f'{end:.2f}' for end in ends)}]"
    return f"{estimate['value']:.2f}{' ' if unit else ''}{unit}{spread}"


def _change(found: Mapping[str, float | None]) -> str:
    """``-0.120 [-0.300, +0.010]``, with the interval where there is one."""
    return estimate(found["difference"], found["ci_low"], found["ci_high"], signed=True)


def _slices(result: RunResult) -> list[str]:
    categories = result.slices.get("category", {})
    if not categories:
        return []
    metric, title = ("tracked_acc_tol1", "tracked ±1") if result.dynamic else ("map", "mAP")
    cells = (f"{name} {_cell(part.scores.get(metric), True)} (n {part.n})" for name, part in categories.items())
    return [f"by category ({title}): {' · '.join(cells)}"]


def _pairs(result: RunResult) -> list[str]:
    """How often a stream in sync is found more probably so than its shifted copies."""
    if not result.pairs:
        return []
    cells = []
    for pair in result.pairs:
        if pair.direction == "both":
            what = "all" if pair.shift_s is None else f"{pair.shift_s:g} s"
            cells.append(f"{what} {_cell(pair, True)} (n {pair.n})")
    return [f"pairs, share with the one in sync ahead (a guess: .50): {' · '.join(cells)}"]


def _next(result: RunResult, again: Sequence[str], doctor: Sequence[str]) -> str:
    others = [m for m in ("streamsync-trf", "streamsync-lstm", "apa-synchformer") if m != result.model.name]
    if result.protocol.name == "dynamic":
        others = [f"sparsesync+{'bayes' if result.model.head == 'cusum' else 'cusum'}"]
    return "\n".join(_commands([["avbench", "run", "--model", others[0], *again], ["avbench", "doctor", *doctor]]))


def _count(n: int, word: str, plural: str = "s") -> str:
    return f"{n} {word}{'' if n == 1 else plural}"
