"""The paper's tables and figures, measured: cells with intervals, and verdicts on the orderings that it claims.

Every function takes the replayed streams and returns an :class:`Exhibit`; no snapshot is computed here. Rows and
columns are in the paper's order; rows that the paper does not have come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from avbench import __version__
from avbench.baselines.trivial import TRIVIAL
from avbench.data.inspect import event_credit
from avbench.pages.formats import Origin
from avbench.pages.formats import estimate as estimate_in_words
from avbench.paper import reported
from avbench.paper.replays import Need, Replays
from avbench.protocol.manifest import Manifest
from avbench.results.truth import Truth
from avbench.scoring.metrics import METRICS
from avbench.scoring.selection import selected_logits
from avbench.scoring.stats import (
    FEW_CLUSTERS,
    Bootstrap,
    Difference,
    Estimate,
    bootstrap_scores,
    group_difference,
    paired_difference,
    shares,
)
from avbench.types import CATEGORIES, OffsetGrid, offset_in_words

HOLDS, FAILS, OPEN, TOO_FEW = "holds", "does not hold", "not separable", "too few"
TOO_FEW_IN_WORDS = f"{TOO_FEW}: fewer than {FEW_CLUSTERS} videos, or all agree: they say nothing about others."
ROUNDING = 1e-9  # of a difference of scores: what is narrower has no width
SCORES = ("acc", "acc_tol1", "roc_auc", "map")  # the columns of Tables 3, 5 and 6, in the paper's order
ADDED = "the paper has no such row"
EVENTS_ROW = "segments by audio event"  # of Figure 1


class Cell(NamedTuple):
    """A measured value with its interval, None where undefined. ``paper``: what the paper reports, None for nothing."""

    row: str
    column: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_scored: int
    n_total: int
    paper: float | None


class Claim(NamedTuple):
    """An ordering that the paper claims, and the verdict of the paired difference's interval measured here."""

    claim: str
    verdict: str
    difference: float | None
    ci_low: float | None
    ci_high: float | None


class Curve(NamedTuple):
    """A line of a figure that its table does not hold: one of a ``panel``, points (n,) with intervals, None where
    undefined."""

    panel: str
    row: str
    x: list[float]
    value: list[float | None]
    ci_low: list[float | None]
    ci_high: list[float | None]


@dataclass
class Exhibit:
    """A table or figure. ``settings``: row -> what was run for it; ``measured_on``: the data, in words; ``claimed``:
    whose the claims are; ``few``: why nothing in it has an interval, "" if anything may; ``quotations``: the paper's
    own words; ``signatures``: (row or model, signature), several of one where settings differ; ``own``: the rows, or
    ends of rows, of the reader's own models."""

    name: str
    title: str
    cells: list[Cell] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    measured_on: str = ""
    unit: str = "score"  # or "count"
    claimed: str = "Orderings that the paper claims"
    quotations: Sequence[reported.Quotation] = ()
    curves: list[Curve] = field(default_factory=list)
    signatures: list[tuple[str, str]] = field(default_factory=list)
    version: str = __version__
    own: tuple[str, ...] = ()
    few: str = ""

    @property
    def judged(self) -> list[Claim]:
        """The claims that are shown: none where no interval could decide one."""
        return [] if self.few else self.claims

    @property
    def origin(self) -> Origin:
        """Signature, version and n of its cells."""
        scored = sorted(c.n_scored for c in self.cells) or [0]
        n = f"{scored[0]}" if scored[0] == scored[-1] else f"{scored[0]} to {scored[-1]}"
        total = max((c.n_total for c in self.cells), default=0)
        return Origin(self.signatures, self.version, f"{n} of {total} segments")

    def signature_of(self, row: str) -> str:
        """The signature of a row, one after the other if it has several; of the first model if it names none."""
        first = self.signatures[0][0] if self.signatures else ""
        owner = next((whose for whose, _ in self.signatures if whose and row.endswith(whose)), first)
        return " ".join(signature for whose, signature in self.signatures if whose == owner)

    def is_own(self, row: str) -> bool:
        """Whether a row is of one of the reader's own models."""
        return row.endswith(self.own)

    @property
    def of_claims(self) -> list[str]:
        """What a verdict among the claims means that does not say so itself."""
        return [TOO_FEW_IN_WORDS] if any(c.verdict == TOO_FEW for c in self.judged) else []

    def value(self, row: str, column: str) -> Cell | None:
        """The cell at a row and column, None if there is none."""
        return next((c for c in self.cells if (c.row, c.column) == (row, column)), None)

    @property
    def rows(self) -> list[str]:
        """Row names in order."""
        return list(dict.fromkeys(c.row for c in self.cells))

    @property
    def columns(self) -> list[str]:
        """Column names in order."""
        return list(dict.fromkeys(c.column for c in self.cells))


def number(value: float) -> float | None:
    """The value as a float, None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def verdict(low: float, high: float, n_videos: int) -> str:
    """The verdict of an interval of (claimed larger) - (claimed smaller), over ``n_videos``.

    It is "too few" below ``FEW_CLUSTERS`` videos, without an interval, and with one of no width that is not at 0:
    videos that happen to agree say nothing about others. Of no width at 0, the two say the same: "not separable".
    """
    if n_videos < FEW_CLUSTERS or math.isnan(low) or math.isnan(high):
        return TOO_FEW
    if high - low < ROUNDING:
        return OPEN if abs(low) < ROUNDING else TOO_FEW
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def claim(text: str, found: Difference, n_videos: int, less: bool = False) -> Claim:
    """A claim with its verdict over ``n_videos``; numbers that are not finite become None. ``less``: it says that the
    difference is below 0 (a time is shorter), not above."""
    low, high = found["ci_low"], found["ci_high"]
    said = verdict(-high, -low, n_videos) if less else verdict(low, high, n_videos)
    return Claim(text, said, number(found["difference"]), number(low), number(high))


def videos_of(part: Truth) -> int:
    """How many videos the segments are of."""
    return len(set(part.clusters.tolist()))


def unmeasured(better: str, worse: str, metrics: Sequence[str]) -> list[Claim]:
    """The claims "``better`` > ``worse``" where nothing can be compared."""
    return [Claim(f"{better} > {worse} in {title_of(m)}", TOO_FEW, None, None, None) for m in metrics]


def cell(table: str, row: str, column: str, estimate: Estimate | None, n_scored: int, n_total: int) -> Cell:
    """A cell with the paper's number; ``estimate`` is None where nothing could be measured."""
    value, low, high = estimate or (math.nan,) * 3
    paper = reported.value(table, row, column)
    return Cell(row, column, number(value), number(low), number(high), n_scored, n_total, paper)


def title_of(metric: str) -> str:
    """The metric's name in tables, e.g. "mAP" for "map"."""
    return METRICS[metric].title


# -- Table 3 -----------------------------------------------------------------------------------------------------------

ON_SYNCHFORMER = "StreamSync-Trf on Synchformer"
# row -> (model, selection)
TABLE3_ROWS = {
    "pretrained SparseSync*": ("sparsesync.synthsync-pt", "best_iter"),
    "finetuned SparseSync*": ("sparsesync", "best_iter"),
    "pretrained Synchformer*": ("synchformer", "best_iter"),
    "APA SparseSync": ("sparsesync+apa", "final"),
    "StreamSync-Trf": ("streamsync-trf", "final"),
    "StreamSync-LSTM": ("streamsync-lstm", "final"),
    "APA Synchformer": ("synchformer+apa", "final"),
    ON_SYNCHFORMER: ("synchformer+trf", "final"),
    "constant": ("constant", "final"),
    "prior": ("prior", "final"),
    "uniform": ("uniform", "final"),
    "oracle": ("oracle", "final"),
}
# (better row, worse row, metrics); the paper only predicts the last one
TABLE3_CLAIMS = (
    ("APA SparseSync", "finetuned SparseSync*", ("acc", "map")),
    ("finetuned SparseSync*", "pretrained SparseSync*", ("acc", "map")),
    ("APA Synchformer", "pretrained Synchformer*", ("acc", "map")),
    ("StreamSync-Trf", "APA SparseSync", ("map", "roc_auc")),
    ("StreamSync-LSTM", "APA SparseSync", ("map", "roc_auc")),
    ("APA SparseSync", "StreamSync-Trf", ("acc",)),
    ("APA SparseSync", "StreamSync-LSTM", ("acc",)),
    ("StreamSync-LSTM", "StreamSync-Trf", ("map",)),
    ("APA SparseSync", "APA Synchformer", ("acc", "map")),
    (ON_SYNCHFORMER, "APA Synchformer", ("map", "roc_auc")),
)
MS = "ms"
UNTIMED = "ms: not measured in this run. The paper's are of an NVIDIA L4 at batch 1."
OWN_NOTE = "† (yours): a model given with --model, measured here as the others are; it is not in the paper."
Latencies = Mapping[str, Mapping[str, Any]]  # model -> p50_ms, n, ratio_to_snapshot, unstable, ... of one step
AGAINST = ("APA SparseSync", "StreamSync-Trf")  # what one's own rows are compared with


def table3(replays: Replays, need: Need, boot: Bootstrap) -> Exhibit:
    """Every model at 18 windows; the column of milliseconds is filled by :func:`with_latencies`."""
    part = replays.part(need)
    table = _started("table3", "Table 3: models at 18 windows, hop 2 s", replays)
    chosen: dict[str, dict[str, np.ndarray]] = {}
    for row, (model, selection) in (TABLE3_ROWS | {row: (own, "final") for row, own in replays.own.items()}).items():
        chosen[row] = selected_logits(replays.streams(need, model, 2.0), part.labels, selection)
        table.settings[row] = replays.setting(model, selection, 2.0, 18)
        table.signatures.append((row, replays.signature(need, model, selection)))
        for metric in SCORES:
            estimate = _estimates(chosen[row][metric], part, boot, (metric,))[metric]
            table.cells.append(cell("table3", row, title_of(metric), estimate, len(part), part.n_total))
        table.cells.append(cell("table3", row, MS, None, len(part), part.n_total))
    for better, worse, metrics in TABLE3_CLAIMS:
        found = {m: paired(chosen[better][m], chosen[worse][m], part, boot, (m,))[m] for m in metrics}
        ordered = claims(better, worse, found, videos_of(part))
        predicted = " (the paper only predicts it)" if better == ON_SYNCHFORMER else ""
        table.claims += [c._replace(claim=c.claim + predicted) for c in ordered]
    table.notes += [
        "* single windows, each metric at its best iteration: chosen on these labels, so these rows are optimistic.",
        f"{ON_SYNCHFORMER}, constant, prior, uniform and oracle: {ADDED}; it only predicts the first.",
        *_weights_notes(table, replays.tag),
    ]
    for own in replays.own:
        for other in AGAINST:
            differences = {m: paired(chosen[own][m], chosen[other][m], part, boot, (m,))[m] for m in SCORES}
            table.notes.append(_against(own, other, differences))
    table.notes += [*_own_notes(replays), UNTIMED]
    return table


def with_latencies(table: Exhibit, latencies: Latencies) -> Exhibit:
    """Table 3 with the milliseconds of the models that were timed."""
    cells, settings = list(table.cells), {row: dict(facts) for row, facts in table.settings.items()}
    for i, c in enumerate(cells):
        timed = latencies.get(settings[c.row]["model"]) if c.column == MS else None
        if timed:
            cells[i] = c._replace(value=number(timed["p50_ms"]))
            settings[c.row]["latency"] = dict(timed)
    filled = replace(table, cells=cells, settings=settings)
    filled.notes = [note for note in table.notes if note != UNTIMED] + _latency_notes(filled)
    return filled


def _started(name: str, title: str, replays: Replays) -> Exhibit:
    return Exhibit(name, title, own=tuple(replays.own))


def _against(own: str, other: str, found: Mapping[str, Difference]) -> str:
    said = (
        f"{title_of(metric)} {estimate_in_words(d['difference'], d['ci_low'], d['ci_high'], signed=True)}"
        for metric, d in found.items()
    )
    return f"{own} minus {other}, paired: {', '.join(said)}."


def _own_notes(replays: Replays) -> list[str]:
    """What a dagger means."""
    return [OWN_NOTE] if replays.own else []


def _weights_notes(table: Exhibit, tag: str) -> list[str]:
    """Which rows have weights that were trained for these data."""
    if not tag:
        return []
    ours = [row for row, facts in table.settings.items() if f".{tag}" in facts["model"]]
    others = [row for row in TABLE3_ROWS if row not in ours and TABLE3_ROWS[row][0] not in TRIVIAL]
    return [
        f"Trained on the harder scenes: {', '.join(ours) or 'no row'}. Trained on easier scenes (SynthSync "
        f"version 1): {', '.join(others) or 'no row'}."
    ]


def _latency_notes(table: Exhibit) -> list[str]:
    timed = {row: facts["latency"] for row, facts in table.settings.items() if "latency" in facts}
    if not timed:
        return [UNTIMED]
    some = next(iter(timed.values()))
    ratios = ", ".join(
        f"{row} {facts['ratio_to_snapshot']:.2f}{' (unstable)' if facts['unstable'] else ''}"
        for row, facts in timed.items()
    )
    return [
        f"ms: median of {some['n']} steps measured here on {some['device']} with {some['threads']} thread, batch 1, at "
        "the 18th iteration; a rough guide (`avbench latency` measures properly). The paper's are of an NVIDIA L4.",
        f"Relative to a SparseSync snapshot, the two timed in turn: {ratios}.",
    ]


# -- Table 4, Figure 4, Table 6 ----------------------------------------------------------------------------------------

STREAMING_ROWS = {
    "APA SparseSync": "sparsesync+apa",
    "StreamSync-Trf": "streamsync-trf",
    "StreamSync-LSTM": "streamsync-lstm",
}
TABLE4_WINDOWS = (2, 4, 12, 24, 32, 40, 48)
FIG4_HOPS_S = (1.0, 2.0, 3.0, 4.0)
FIG4_METRICS = ("acc", "map")
STREAMSYNC_LSTM, TABLE6_MODEL = "StreamSync-LSTM", "streamsync-lstm"
TABLE6_ROWS = dict(zip(("talking heads", "voice-overs", "others"), CATEGORIES, strict=True))


def table4(replays: Replays, need: Need, boot: Bootstrap) -> Exhibit:
    """mAP against the number of windows, all on the segments that hold the most."""
    part = replays.part(need)
    table = _started("table4", "Table 4: mAP against the number of windows, hop 2 s", replays)
    at: dict[tuple[str, int], np.ndarray] = {}
    for row, model in (STREAMING_ROWS | dict(replays.own)).items():
        table.signatures.append((row, replays.signature(need, model)))
        streams = replays.streams(need, model, 2.0)
        table.settings[row] = replays.setting(model, "final", 2.0, max(TABLE4_WINDOWS))
        for windows in TABLE4_WINDOWS:
            at[row, windows] = streams[:, windows - 1]
            estimate = _estimates(at[row, windows], part, boot, ("map",))["map"]
            table.cells.append(cell("table4", row, str(windows), estimate, len(part), part.n_total))
    for row in STREAMING_ROWS:
        for more, fewer in ((48, 2), (48, 12)):
            found = paired(at[row, more], at[row, fewer], part, boot, ("map",))
            table.claims += claims(f"{row}: {more} windows", f"{fewer} windows", found, videos_of(part))
    for windows, better, worse in (
        (2, "APA SparseSync", "StreamSync-Trf"),
        (12, "StreamSync-Trf", "APA SparseSync"),
        (24, "StreamSync-Trf", "APA SparseSync"),
        (48, "StreamSync-Trf", "APA SparseSync"),
    ):
        found = paired(at[better, windows], at[worse, windows], part, boot, ("map",))
        table.claims += claims(f"at {windows} windows: {better}", worse, found, videos_of(part))
    table.notes.append("All columns are scored on the segments that hold 48 windows. StreamSync-LSTM: " + ADDED + ".")
    table.notes += _own_notes(replays)
    return table


def fig4(replays: Replays, need: Need, boot: Bootstrap) -> Exhibit:
    """Accuracy and mAP against the hop, 18 windows."""
    part = replays.part(need)
    figure = _started("fig4", "Figure 4: the hop, 18 windows", replays)
    for row, model in (STREAMING_ROWS | dict(replays.own)).items():
        last = {hop_s: replays.streams(need, model, hop_s)[:, -1] for hop_s in FIG4_HOPS_S}
        figure.signatures += [(row, replays.signature(need, model, hop_s=hop_s)) for hop_s in FIG4_HOPS_S]
        figure.settings[row] = replays.setting(model, "final", None, 18)
        for metric in FIG4_METRICS:
            for hop_s, logits in last.items():
                estimate = _estimates(logits, part, boot, (metric,))[metric]
                column = f"{title_of(metric)}, {hop_s:g} s"
                figure.cells.append(cell("fig4", row, column, estimate, len(part), part.n_total))
        for larger, smaller in () if row in replays.own else ((4.0, 1.0), (2.0, 1.0), (4.0, 2.0)):
            found = paired(last[larger], last[smaller], part, boot, FIG4_METRICS)
            figure.claims += claims(f"{row}: hop {larger:g} s", f"hop {smaller:g} s", found, videos_of(part))
    figure.notes += [
        "All hops are scored on the segments that hold 18 windows at each of them.",
        "The values in the paper's Figure 4 are not available, so there is nothing to compare with.",
        *_own_notes(replays),
    ]
    return figure


def table6(replays: Replays, need: Need, boot: Bootstrap) -> Exhibit:
    """StreamSync-LSTM, and one's own models, per category of clips, and overall."""
    part = replays.part(need)
    table = _started("table6", "Table 6: StreamSync-LSTM by category, 18 windows, hop 2 s", replays)
    category = np.array(part.categories, str)
    totals = [s.category for s in replays.manifest.segments]
    groups = {row: category == name for row, name in TABLE6_ROWS.items()} | {"overall": np.ones(len(part), bool)}
    for whose, model in ({"": TABLE6_MODEL} | dict(replays.own)).items():
        logits = replays.streams(need, model, 2.0)[:, -1]
        table.signatures.append((whose or STREAMSYNC_LSTM, replays.signature(need, model)))
        for name, group in groups.items():
            row = f"{name}, {whose}" if whose else name
            total = part.n_total if name == "overall" else totals.count(TABLE6_ROWS[name])
            table.settings[row] = replays.setting(model, "final", 2.0, 18)
            some = part.take(np.flatnonzero(group), total)
            found = _estimates(logits[group], some, boot, SCORES) if group.any() else {}
            for metric in SCORES:
                table.cells.append(cell("table6", row, title_of(metric), found.get(metric), int(group.sum()), total))
    logits = replays.streams(need, TABLE6_MODEL, 2.0)[:, -1]
    for better, worse in (("talking heads", "voice-overs"), ("voice-overs", "others")):
        first, second = groups[better], groups[worse]
        if first.any() and second.any():
            told = (logits, part.labels, part.clusters, first, second, boot)
            n_videos = min(len(set(part.clusters[group])) for group in (first, second))
            differences = {m: group_difference(m, *told) for m in ("acc", "map")}
            table.claims += claims(better, worse, differences, n_videos)
        else:
            table.claims += unmeasured(better, worse, ("acc", "map"))
    table.notes.append("The categories compared contain different segments; their videos are resampled together.")
    table.notes += _own_notes(replays)
    if not any(group.any() for row, group in groups.items() if row != "overall"):
        table.notes.append("No segment of this split has a category.")
    return table


# -- Figure 2 ----------------------------------------------------------------------------------------------------------

FIG2_MODEL = "sparsesync"
SD_EDGES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.5)  # classes; a class is 0.2 s


def isolated_errors(errors: np.ndarray) -> np.ndarray:
    """(N, W) signed class errors -> (N, W) bool: wrong windows whose error no neighbouring window repeats.

    A window is wrong if its class is more than one off (the tolerance of Acc±1). Its error is *uncorrelated* if neither
    the window before nor the one after makes the same error within one class: whatever misled the model in this window
    did not in its neighbours, so averaging over windows can correct it.
    """
    wrong = np.abs(errors) > 1
    same = np.abs(np.diff(errors, axis=1)) <= 1
    repeated = np.zeros_like(wrong)
    repeated[:, 1:] |= same
    repeated[:, :-1] |= same
    return wrong & ~repeated


def fig2(replays: Replays, need: Need, boot: Bootstrap) -> Exhibit:
    """How single windows err: signed class errors, their spread over a segment, and the share of uncorrelated ones."""
    part = replays.part(need)
    figure = _started("fig2", "Figure 2: errors of single windows (finetuned SparseSync, 18 windows, hop 2 s)", replays)
    figure.settings["all"] = replays.setting(FIG2_MODEL, "every iteration", 2.0, 18)
    figure.signatures.append(("finetuned SparseSync", replays.signature(need, FIG2_MODEL)))
    figure.cells += _window_errors(replays.streams(need, FIG2_MODEL, 2.0), part, boot)
    for own, model in replays.own.items():
        if (alone := replays.single_windows(need, model, 2.0)) is not None:
            figure.settings[own] = replays.setting(model, "every iteration, the backbone alone", 2.0, 18)
            figure.signatures.append((own, replays.signature(need, model)))
            found = _window_errors(alone, part, boot)
            figure.cells += [c._replace(row=f"{c.row}, {own}", paper=None) for c in found]
    figure.notes += [
        "Signed class error: predicted minus true class, in classes of 0.2 s; positive: the sound is predicted earlier "
        "than it is.",
        "Uncorrelated: more than one class off, and neither the window before nor the one after is off by the same "
        "within one class.",
        "The values in the paper's Figure 2 are not available, so there is nothing to compare with.",
        *_own_notes(replays),
    ]
    return figure


def _window_errors(logits: np.ndarray, part: Truth, boot: Bootstrap) -> list[Cell]:
    """The cells of one backbone's single windows: ``logits`` (N, W, 21)."""
    n_classes, cells = OffsetGrid().n_classes, []
    errors = logits.argmax(axis=-1) - part.labels[:, None]
    windows = np.full(len(part), errors.shape[1])

    def add(row: str, columns: Sequence[str], parts: np.ndarray, wholes: np.ndarray) -> None:
        for column, estimate in zip(columns, shares(parts, wholes, part.clusters, boot), strict=True):
            cells.append(cell("fig2", row, column, estimate, len(part), part.n_total))

    kinds = np.arange(-(n_classes - 1), n_classes)
    counts = (errors[:, :, None] == kinds).sum(axis=1)
    add(ERROR_ROW, [f"{k:+d}" if k else "0" for k in kinds], counts, windows)
    spread = errors.std(axis=1)
    bins = np.digitize(spread, SD_EDGES) - 1
    names = [f"{a:g} to {b:g}" for a, b in pairwise(SD_EDGES[:-1])] + [f"over {SD_EDGES[-2]:g}"]
    add(SD_ROW, names, np.eye(len(names))[bins], np.ones(len(part)))
    wrong, alone = (np.abs(errors) > 1).sum(axis=1), isolated_errors(errors).sum(axis=1)
    add(ISOLATED_ROW, ["share"], alone[:, None], wrong)
    add("windows more than one class off", ["share"], wrong[:, None], windows)
    return cells


ERROR_ROW = "share of windows by signed class error"
SD_ROW = "share of segments by standard deviation of the error over consecutive windows (classes)"
ISOLATED_ROW = "share of errors that are uncorrelated"


# -- Tables 1 and 2, Figure 1: what the split holds --------------------------------------------------------------------

# channel names in the published lists -> in Table 2
CHANNELS = {"ABCNews": "ABC", "CBSNews": "CBS", "NBCNews": "NBC", "golfshome": "GolfsHome", "mlb": "MLB"}


def table1(manifest: Manifest, facts: Mapping[str, Any]) -> Exhibit:
    """Counts and hours of the split. ``facts``: of :func:`avbench.data.inspect.info`."""
    table = Exhibit("table1", "Table 1: the data set", unit="count")
    n = facts["n_segments"]
    values = {
        "videos": facts["n_videos"],
        "clips": facts["n_clips"],
        "hours": facts["hours"],
        "segments in evaluation and test": n,
        "clip length (s), longest": facts["clip_s"].get("max", math.nan),
        "offset classes": manifest.grid.n_classes,
    }
    for row, found in values.items():
        table.cells.append(_count("table1", row, "data set", found, n))
    table.notes += [
        f"Measured: the given split (offsets: {facts['offset_law']}). The paper's Table 1 is not available; its "
        "reported numbers are from Table 2 and the text, which count all splits.",
    ]
    return table


def table2(manifest: Manifest, facts: Mapping[str, Any]) -> Exhibit:
    """Videos, clips and hours per channel. ``facts``: of :func:`avbench.data.inspect.info`."""
    table = Exhibit("table2", "Table 2: channels", unit="count")
    clips = list(manifest.clips.values())
    n = facts["n_segments"]
    named = {clip.id: CHANNELS.get(clip.channel, clip.channel) for clip in clips}
    published = [c.row for c in reported.of_table("table2") if c.column == "videos" and c.row != "all"]
    here = sorted(set(named.values()) - {""})
    for row in [*published, *(name for name in here if name not in published), "all"]:
        some = [clip for clip in clips if row in (named[clip.id], "all")]
        for column, found in (
            ("videos", len({clip.video_id for clip in some})),
            ("clips", len(some)),
            ("hours", sum(clip.duration for clip in some) / 16_000 / 3600),
        ):
            present = bool(some) or row == "all"
            table.cells.append(_count("table2", row, column, found if present else math.nan, n))
    table.notes.append("Measured: the given split. The paper counts all splits of RealSync.")
    return table


def fig1(manifest: Manifest, facts: Mapping[str, Any]) -> Exhibit:
    """Segments by offset, category, length and, if any are known, audio events. ``facts``: of
    :func:`avbench.data.inspect.info`."""
    figure = Exhibit("fig1", "Figure 1: what the split holds", unit="count")
    n = facts["n_segments"]
    for row in facts["offsets"]:
        figure.cells.append(_count("fig1", "segments by offset (s)", f"{row['offset_s']:+.1f}", row["segments"], n))
    for name, found in facts["categories"].items():
        figure.cells.append(_count("fig1", "segments by category", name or "(none)", found, n))
    for windows, found in facts["support"][2].items():
        figure.cells.append(_count("fig1", "segments that hold so many windows at hop 2 s", str(windows), found, n))
    for name, found in facts["events"].items():
        figure.cells.append(_count("fig1", EVENTS_ROW, name, found, n))
    figure.notes += [
        f"{offset_in_words(0.2)} is +0.2 s.",
        "The values in the paper's Figure 1 are not available; this is the given split.",
    ]
    credit = event_credit(facts["events"])
    figure.notes += [f"{credit[0].upper()}{credit[1:]}."] if credit else []
    return figure


def _count(table: str, row: str, column: str, found: float, n: int) -> Cell:
    return Cell(row, column, number(found), None, None, n, n, reported.value(table, row, column))


# -- shared ------------------------------------------------------------------------------------------------------------


def _estimates(logits: np.ndarray, part: Truth, boot: Bootstrap, metrics: Sequence[str]) -> dict[str, Estimate]:
    return bootstrap_scores(logits, part.labels, part.clusters, boot, metrics)


def paired(
    better: np.ndarray, worse: np.ndarray, part: Truth, boot: Bootstrap, metrics: Sequence[str]
) -> dict[str, Difference]:
    """metric -> paired difference ``better - worse`` of two models' logits (N, 21) on the segments of ``part``."""
    return paired_difference(better, worse, part.labels, part.clusters, boot, metrics)


def claims(better: str, worse: str, found: Mapping[str, Difference], n_videos: int) -> list[Claim]:
    """One claim "``better`` > ``worse``" per metric, each over ``n_videos``."""
    return [claim(f"{better} > {worse} in {title_of(metric)}", d, n_videos) for metric, d in found.items()]


# -- all of them -------------------------------------------------------------------------------------------------------

AT_18 = ((2.0, 18),)
NEEDS = {
    "table3": Need(tuple(model for model, _ in TABLE3_ROWS.values()), AT_18),
    "table4": Need(tuple(STREAMING_ROWS.values()), tuple((2.0, windows) for windows in TABLE4_WINDOWS)),
    "table6": Need((TABLE6_MODEL,), AT_18),
    "fig2": Need((FIG2_MODEL,), AT_18),
    "fig4": Need(tuple(STREAMING_ROWS.values()), tuple((hop_s, 18) for hop_s in FIG4_HOPS_S)),
}
REPLAYED: dict[str, Callable[[Replays, Need, Bootstrap], Exhibit]] = {
    "table3": table3,
    "table4": table4,
    "table6": table6,
    "fig2": fig2,
    "fig4": fig4,
}
STATISTICS: dict[str, Callable[[Manifest, Mapping[str, Any]], Exhibit]] = {
    "table1": table1,
    "table2": table2,
    "fig1": fig1,
}
CHANGING = "changing"
NAMES = ("table1", "table2", "table3", "table4", "table5", "table6", "fig1", "fig2", "fig4", CHANGING)
