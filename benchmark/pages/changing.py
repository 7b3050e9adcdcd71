"""What the page of a run says where offsets change: streams as they were tracked, recovery, false changes, alarms,
drift, and what following changes costs. Drawn by ``templates/changing.html``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages import stream_charts
from avbench.pages.sections import confusion
from avbench.pages.stream_charts import Survival, Tracked
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.run import RecoveryStep, RunResult
from avbench.results.truth import Truth
from avbench.scoring.alarms import OWN_ALARM
from avbench.scoring.calibration import believed_offsets_s, centres_s, step_s
from avbench.scoring.dynamic import MOVED, SIZES_S, falsely_declared, recovery_times
from avbench.scoring.segmentation import HELD, declared_changes
from avbench.scoring.stats import too_few
from avbench.scoring.streams import WARM_UP, Streams, checked_streams
from avbench.scoring.tolerance import TOLERANCES
from avbench.ticks import TICKS_PER_S, seconds

N_WORST, N_LISTED = 4, 12
BAND = 0.8  # of the probability
AT_S = (5, 10, 20, 30, 40)
# the reference rows whose recovery is drawn, with colour and kind of line; the run's own is solid and thick
CURVES = {
    "apa": ("APA", 1, 0),
    "apa-sliding": ("sliding APA", 1, 1),
    "apa-decay": ("decaying APA", 1, 2),
    "bayes": ("Bayes filter", 2, 0),
    "cusum": ("cusum", 2, 1),
    "one-window": ("one window", 3, 1),
    "oracle": ("the labels", 7, 0),
}

LEGEND = {
    "true": "true offset",
    "believed": "believed, with the band that holds 80 % of the probability",
    "change": "change",
    "declared": "declared change",
    "false": "declared where none happened",
    "muted": "sound muted",
    "alarm": "the model's own alarm",
    "unscored": "not scored",
}


class Stream(NamedTuple):
    """One stream: how it was tracked, and why it is shown."""

    id: str
    law: str
    why: str  # "worst", or "typical of jump"
    changes: list[str]  # recovery from each change that ranks
    n_changes: int
    n_false: int
    tracked: float | None  # share of pure windows within one class; None if there is none
    error_s: float
    chart: Markup
    steps: list[tuple[float, float, float, float, float]]  # end of the window, true, believed, low, high


class Listed(NamedTuple):
    """A line of the table of worst streams; ``picture``: which one on the page is of it, from 1; 0 if none is."""

    stream: Stream
    picture: int


class Followed(NamedTuple):
    """What is shown of the streams. ``confusion``: of all scored windows, of which ``wrong`` of ``n`` are."""

    shown: list[Stream]
    listed: list[Listed]
    n: int
    marks: dict[str, bool]  # sign -> whether there is one
    unknown_laws: bool
    confusion: list[dict[str, Any]]
    wrong: int
    n_windows: int


class RecoveryRow(NamedTuple):
    """Shares of changes not recovered from after ``AT_S`` seconds, of one row; None where nothing is known."""

    label: str
    main: bool
    sign: Markup
    shares: list[float | None]


class Page(NamedTuple):
    """What the page of a run says besides where offsets change. ``streams`` is None if there is none to show."""

    streams: Followed | None
    recovery_chart: Markup | None
    recovery_rows: list[RecoveryRow]
    sizes: list[tuple[str, Any]]  # of a change, with what is known of recovery from such
    tolerances: list[tuple[str, Any]]  # a table's name, with what is known of alarms
    laws: list[tuple[str, Any]]  # a law's name, with the scores of its streams
    legend: list[tuple[str, str]]  # sign, words
    signs: dict[str, Markup]
    undefined: list[str]
    n_worst: int


def page_of(
    result: RunResult,
    answers: Truth | None,
    windows: WindowTruth | None,
    logits: np.ndarray,
    alarm: np.ndarray | None = None,
) -> Page | None:
    """The sections of a run whose offsets change; None if it is none, or if nothing was scored. Arguments as of
    ``followed``; without the truth no stream is shown."""
    found: dict[str, Any] = dict(result.dynamic)
    if not found:
        return None
    streams = None if answers is None or windows is None else followed(result, answers, windows, logits, alarm)
    legend = list(LEGEND.items())
    if streams is not None:
        legend = [(kind, words) for kind, words in legend if streams.marks.get(kind, True)]
    chart, rows = recovery_rows(result)
    by_size, alarms, by_law = found["recovery_by_size"], found["alarm"], found["by_law"]
    return Page(
        streams=streams,
        recovery_chart=chart,
        recovery_rows=rows,
        # in an order of their own: a file's is another than that of a result just made
        sizes=[(size, by_size[size]) for size in SIZES_S],
        tolerances=[(name, alarms[name]) for name in TOLERANCES if name in alarms],
        laws=[(law, by_law[law]) for law in sorted(by_law)],
        legend=legend,
        signs={kind: stream_charts.key(kind) for kind, _ in legend},
        undefined=undefined(result),
        n_worst=min(N_WORST, len(streams.shown)) if streams else 0,
    )


def followed(
    result: RunResult, answers: Truth, windows: WindowTruth, logits: np.ndarray, alarm: np.ndarray | None
) -> Followed | None:
    """The streams of a run; None if it has none. ``logits`` (N, W, 21), ``alarm`` (N, W) of the model's own, in the
    order of ``answers`` and ``windows``."""
    if not len(answers):
        return None
    hop_s, window_s = seconds(result.protocol.hop), seconds(result.protocol.window)
    found = checked_streams(logits, windows, hop_s, window_s, answers.clusters, alarm)
    told = Teller(result, found)
    order, why = told.order(), told.chosen()
    shown = [told.stream(row, reason) for row, reason in why.items()]
    pictures = {row: n for n, row in enumerate(why, 1)}
    listed = [Listed(told.stream(row, ""), pictures.get(row, 0)) for row in order[:N_LISTED]]
    labels, said = found.labels[:, WARM_UP:].ravel(), found.predicted[:, WARM_UP:].ravel()
    laws = result.laws
    return Followed(
        shown,
        listed,
        len(found),
        {"muted": any(laws[s.id].mutes for s in shown if s.id in laws), "alarm": alarm is not None},
        not laws,
        confusion(labels, said),
        int(np.count_nonzero(labels != said)),
        len(labels),
    )


def chosen(order: Sequence[int], laws: Sequence[str]) -> dict[int, str]:
    """The streams to show and why, given their rows from the worst on and the law of each row: the worst ones, and of
    each law the one in the middle (of two the worse), unless it is among these."""
    why = dict.fromkeys(order[:N_WORST], "among the worst")
    for law in sorted(set(laws)):
        rows = [row for row in order if laws[row] == law]
        middle = rows[(len(rows) - 1) // 2]
        if middle not in why:
            why[middle] = f"typical of {law}" if law else "typical"
    return why


class Teller:
    """Says what happened in single streams (rows) of a run."""

    def __init__(self, result: RunResult, found: Streams) -> None:
        self.result, self.found = result, found
        self.errors_s = found.errors_s[:, found.scored].mean(axis=1)
        self.times = recovery_times(found)
        self.false = falsely_declared(found)
        self.declared = declared_changes(found.stable, MOVED) & found.scored
        self.near = np.abs(found.predicted - found.labels) <= 1
        self.pure = (found.truth.purity == 1) & found.scored

    def order(self) -> list[int]:
        """The streams from the largest mean error over the scored windows on, ties by name."""
        names = self.found.truth.segment_ids
        return sorted(range(len(names)), key=lambda row: (-self.errors_s[row], names[row]))

    def chosen(self) -> dict[int, str]:
        """The streams that the page shows, and why."""
        return chosen(self.order(), [self.law(row) for row in range(len(self.found))])

    def law(self, row: int) -> str:
        """The name of its law, empty if the run does not say."""
        known = self.result.laws.get(self.found.truth.segment_ids[row])
        return known.name if known else ""

    def stream(self, row: int, why: str) -> Stream:
        """All that the page says of it."""
        found = self.found
        name, law = found.truth.segment_ids[row], self.law(row)
        tracked, pure = self.tracked(row), self.pure[row]
        rows = [r for r in found.ranked.tolist() if found.changes.stream[r] == row]
        chart = stream_charts.tracked(tracked, f"{name}: believed and true offset over the stream")
        columns = (tracked.ends_s, found.truth.offset_end_s[row], tracked.believed_s, tracked.low_s, tracked.high_s)
        return Stream(
            id=name,
            law=law,
            why=why,
            changes=[self.recovery(r) for r in rows],
            n_changes=int(np.count_nonzero(found.changes.stream == row)),
            n_false=int(self.false[row].sum()),
            tracked=float(self.near[row][pure].mean()) if pure.any() else None,
            error_s=float(self.errors_s[row]),
            chart=chart,
            steps=[tuple(values) for values in np.stack(columns, axis=1).tolist()],
        )

    def recovery(self, change: int) -> str:
        """How long recovery from a change (a row of ``changes``) took."""
        time_s = self.times.time_s[change]
        return f"{time_s:.1f} s" if self.times.event[change] else f"not within {time_s:.1f} s"

    def tracked(self, row: int) -> Tracked:
        """What its chart shows."""
        found, changes = self.found, self.found.changes
        ends_s = found.ends / TICKS_PER_S
        low_s, high_s = band_s(found.probabilities[row])
        known = self.result.laws.get(found.truth.segment_ids[row])
        false = self.false[row]
        alarm = np.zeros(found.n_windows, bool) if found.alarm is None else found.alarm[row] > OWN_ALARM
        starts_s = np.append(0.0, ends_s[:-1])
        return Tracked(
            ends_s=ends_s,
            believed_s=believed_offsets_s(found.probabilities[row]),
            low_s=low_s,
            high_s=high_s,
            true=corners(found, row),
            changes_s=[float(t) / TICKS_PER_S for t in changes.at[changes.stream == row]],
            declared_s=ends_s[self.declared[row] & ~false].tolist(),
            false_s=ends_s[false].tolist(),
            muted_s=[(mute.start_s, mute.end_s) for mute in known.mutes] if known else [],
            alarm_s=list(zip(starts_s[alarm].tolist(), ends_s[alarm].tolist(), strict=True)),
            unscored_s=float(ends_s[WARM_UP - 1]),
        )


def band_s(probabilities: np.ndarray, share: float = BAND) -> tuple[np.ndarray, np.ndarray]:
    """(W, 21) -> the offsets in seconds, (W,) each, between which ``share`` of the probability lies, as much left out
    on either side; a class's probability lies evenly within half a step of its centre."""
    edges = np.append(centres_s() - step_s() / 2, centres_s()[-1] + step_s() / 2)
    below = np.concatenate([np.zeros((len(probabilities), 1)), np.cumsum(probabilities, axis=1)], axis=1)
    tails = ((1 - share) / 2, (1 + share) / 2)
    low, high = (np.array([np.interp(tail * row[-1], row, edges) for row in below]) for tail in tails)
    return low, high


def corners(found: Streams, row: int) -> list[tuple[float, float]]:
    """The true offset of a stream as a line from the beginning: straight between the ends of windows, but for changes
    at once, which are vertical where they happen."""
    offsets_s, ends_s = found.truth.offset_end_s[row], found.ends / TICKS_PER_S
    changes = found.changes
    of = changes.stream == row
    sudden = {
        int(window): at / TICKS_PER_S
        for window, at, begun in zip(changes.window[of], changes.at[of], changes.begun[of], strict=True)
        if at == begun
    }
    line = [(0.0, float(offsets_s[0]))]
    for i, (end, offset) in enumerate(zip(ends_s.tolist(), offsets_s.tolist(), strict=True)):
        if i in sudden:
            line += [(sudden[i], line[-1][1]), (sudden[i], offset)]
        line.append((end, offset))
    return line


def recovery_rows(result: RunResult) -> tuple[Markup | None, list[RecoveryRow]]:
    """The curves of recovery, of the run and of its reference rows, as a chart and in numbers; nothing if no change
    ranks."""
    if not result.recovery:
        return None, []
    curves = [Survival(result.model.name, _steps(result.recovery), 0, main=True)]
    for row in result.rows:
        if row.name in CURVES and row.recovery:
            label, colour, dashes = CURVES[row.name]
            curves.append(Survival(label, _steps(row.recovery), colour, dashes))
    rows = [RecoveryRow(c.label, c.main, stream_charts.stroke(c), [share_at(c.steps, t) for t in AT_S]) for c in curves]
    chart = stream_charts.recovery([_short(c) for c in curves], "share of changes not yet recovered from over time")
    return chart, rows


def share_at(steps: Sequence[tuple[float, float]], time_s: float) -> float:
    """The share not recovered from at a time."""
    return [share for t, share in steps if t <= time_s][-1]


def _steps(table: Sequence[RecoveryStep]) -> list[tuple[float, float]]:
    start = [] if table[0].time_s == 0 else [(0.0, 1.0)]
    return [*start, *((step.time_s, step.survival) for step in table)]


def _short(curve: Survival, most: int = 17) -> Survival:
    return curve if len(curve.label) <= most else curve._replace(label=curve.label[: most - 1] + "…")


def undefined(result: RunResult) -> list[str]:
    """Why some of the numbers are not defined, a sentence each."""
    found: dict[str, Any] = dict(result.dynamic)
    said = []
    if not found["n_ranked"]:
        said.append(
            "Recovery is – because no change ranks: it needs a change of at least 0.4 s after the first "
            f"{WARM_UP} windows, with {HELD} windows left before the next one."
        )
    if found["drift"]["roc_auc"]["value"] is None:
        said.append(
            "Telling drift is – because it needs streams that drift steadily by 500 ppm or more, and some that do not."
        )
    if any(not part["n_left"] for part in found["alarm"].values()):
        said.append("A time to the alarm is – where no stream left tolerance after the first windows.")
    if any(part[name]["value"] is None for part in found["by_law"].values() for name in ("recovery_s", "tracked_acc")):
        said.append(
            "By law, recovery is – where no change ranks, tracked ±1 where no window is pure (the offset moves in all)."
        )
    if result.scores["tracked_acc"].value is not None and result.scores["tracked_acc"].ci_low is None:
        said.append(f"{too_few().capitalize()}.")
    elif result.scores["recovery_s"].value is not None and result.scores["recovery_s"].ci_low is None:
        said.append("Recovery has no interval: the changes that rank are in too few videos.")
    return said
