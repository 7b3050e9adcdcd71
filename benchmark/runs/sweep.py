"""Sweep over hops and window counts: each snapshot is computed once, each setting is replayed from the store.

Settings are compared on the segments long enough for all of them, so a longer stream cannot win by having easier
segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench import __version__
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.pages.formats import Origin, Table, csv_text, estimate
from avbench.pages.tables import numbers
from avbench.protocol.rules import SUPPORTS, Protocol
from avbench.registry.facts import signature_of
from avbench.registry.loading import load_all
from avbench.registry.names import check_files, only_learned, resolve, takes_arguments
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.scoring.metrics import METRICS
from avbench.scoring.selection import selected_logits
from avbench.scoring.stats import (
    DEFAULT,
    Bootstrap,
    Difference,
    Estimate,
    bootstrap_scores,
    interval_in_words,
    paired_difference,
    too_few,
)
from avbench.system.devices import check_device
from avbench.system.progress import Progress
from avbench.ticks import Tick, seconds, ticks
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

SETTING_COLUMNS = ("model", "hop_s", "iterations", "selection", "n_scored", "n_total")
DIFFERENCE_COLUMNS = {  # column of the table -> key of a paired difference
    "difference": "difference",
    "difference_ci_low": "ci_low",
    "difference_ci_high": "ci_high",
    "p": "p",
}
OWN_SUPPORT = "each setting on all segments long enough for it: do not compare settings, their segments differ"


class SweepRow(NamedTuple):
    """Scores of one model at one setting. ``against``: paired differences from the row that ``reference`` names ("" for
    none); ``measured_on``: the data in words; ``n_videos``: of the segments scored."""

    model: str
    hop_s: float
    iterations: int
    selection: str
    n_scored: int
    n_total: int
    scores: dict[str, Estimate]
    reference: str
    against: dict[str, Difference]
    signature: str = ""
    measured_on: str = ""
    n_videos: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined values (an interval over too few videos) are null."""

        def plain(values: Mapping[str, float]) -> dict[str, float | None]:
            return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}

        row = {name: value for name, value in self._asdict().items() if name != "n_videos"}
        row["scores"] = {name: plain(estimate._asdict()) for name, estimate in self.scores.items()}
        row["against"] = {name: plain(difference) for name, difference in self.against.items()}  # type: ignore[arg-type]
        return row


@dataclass(frozen=True)
class Settings:
    """What a sweep runs over: every hop x number of windows, scored at ``selection`` ("final" or "best_iter": each
    metric at its best iteration up to the count) on the segments long enough for all settings (``support`` "common")
    or each setting on all segments long enough for it ("own": then compare models only, not settings)."""

    hops_s: Sequence[float] = (2.0,)
    iterations: Sequence[int] = (18,)
    selection: str = "final"
    support: str = "common"

    def __post_init__(self) -> None:
        if self.selection not in ("final", "best_iter"):
            raise UsageError(f"selection is {self.selection!r}; a sweep supports final and best_iter")
        if self.support not in SUPPORTS:
            raise UsageError(f"support is {self.support!r}; it must be one of {', '.join(SUPPORTS)}")
        if not self.hops_s or not self.iterations:
            raise UsageError("a sweep needs at least one model, one hop and one number of windows")
        for hop_s in self.hops_s:
            if not math.isfinite(hop_s):
                raise UsageError(f"hop is {hop_s} s; it must be a positive multiple of 0.04 s (one frame)")

    def protocols(self) -> dict[tuple[Tick, int], Protocol]:
        """(hop, windows) -> the protocol to replay: with common support that of the largest count, whose first
        windows are the shorter streams."""
        counts = sorted(set(self.iterations))
        pairs = tuple((ticks(hop_s), n) for hop_s in self.hops_s for n in counts)
        if self.support == "own":
            return {(hop, n): Protocol(hop=hop, iterations=n) for hop, n in pairs}
        return {
            (hop, n): Protocol(hop=hop, iterations=counts[-1], support="common", common_support=pairs)
            for hop, n in pairs
        }


class SweepResult(tuple[SweepRow, ...]):
    """The rows of a sweep: models in the order asked for, each at every setting."""

    def to_csv(self) -> str:
        """The table of :meth:`frame` as CSV, with the columns signature, version and n."""
        signatures = {(row.model, row.hop_s, row.iterations): row.signature for row in self}
        frame = self.frame()
        keys = zip(frame["model"], frame["hop_s"], frame["iterations"], strict=True)
        return csv_text(
            frame.assign(signature=[signatures[key] for key in keys], version=__version__, n=frame["n_scored"])
        )

    def frame(self) -> pd.DataFrame:
        """One row a metric, model and setting: model, hop_s, iterations, selection, n_scored, n_total, metric, value,
        ci_low, ci_high, reference, difference, difference_ci_low, difference_ci_high, p (NaN where undefined)."""
        import pandas as pd

        rows = []
        for row in self:
            setting = {name: getattr(row, name) for name in SETTING_COLUMNS}
            for metric, scored in row.scores.items():
                found: dict[str, Any] = {"metric": metric, **scored._asdict(), "reference": row.reference}
                against = row.against.get(metric)
                found |= {
                    column: against[key] if against else math.nan  # type: ignore[literal-required]
                    for column, key in DIFFERENCE_COLUMNS.items()
                }
                rows.append(setting | found)
        return pd.DataFrame(rows)


def sweep(  # noqa: PLR0913  (the options of `avbench sweep`; what belongs together is bundled)
    models: Sequence[str],
    settings: Settings | None = None,
    data: str = "synthsync",
    split: str = "test",
    limit: int | None = None,
    compute: Compute | None = None,
    bootstrap: Bootstrap = DEFAULT,
    options: ModelOptions | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Scores of every model at every setting.

    Each row is compared, paired over the same resampled videos, with the first model at the same setting; the first
    model's rows are compared with its first setting. ``options`` (weight files, precision) apply to the models with
    trained weights, not to the trivial and classical ones. ``UsageError`` if no segment is long enough for all
    settings; ``AvbenchError`` if a segment fails.
    """
    settings, compute = settings or Settings(), compute or Compute()
    if not models:
        raise UsageError("a sweep needs at least one model, one hop and one number of windows")
    if options and options.model_args and not any(map(takes_arguments, models)):
        raise UsageError("none of the models takes arguments: --model-args goes with a class of your own")
    resolved = [resolve(name, _options_of(name, options or ModelOptions(), compute)) for name in dict.fromkeys(models)]
    for name in models:
        check_files(name, _options_of(name, options or ModelOptions(), compute))
    session = Session.open(data, split, limit, compute, bootstrap.seed, progress)
    if session.manifest.changing:
        raise UsageError(
            f"a sweep takes offsets for fixed, and those of {session.manifest.name} change while the streams run: use "
            "`avbench run`, and `avbench compare` on its runs"
        )
    planned = settings.protocols()
    _check_support(session, settings, planned)
    loaded = {model.name: model for model in load_all(resolved, check_device(compute.device))}
    for model in loaded.values():
        session.need(model, *planned.values())
    session.compute()
    session.refuse_failures("; a sweep needs all")
    note = f" ({session.manifest.note})" if session.manifest.note else ""
    on = f"{session.manifest.name} {split}{note}"
    rows = _rows([loaded[name] for name in models], session, settings, planned, bootstrap)
    return SweepResult(row._replace(measured_on=on) for row in rows)


def _options_of(name: str, options: ModelOptions, compute: Compute) -> ModelOptions | None:
    """The options for this model; None if it has no trained weights."""
    given = options.model_args if takes_arguments(name) else {}
    return only_learned(name, replace(options.made_quick(compute.device), model_args=given))


def _check_support(session: Session, settings: Settings, planned: Mapping[tuple[Tick, int], Protocol]) -> None:
    for (hop, n), protocol in planned.items():
        if session.supported(protocol):
            continue
        hops, counts = (
            ", ".join(f"{h:g}" for h in settings.hops_s),
            ", ".join(map(str, sorted(set(settings.iterations)))),
        )
        common = settings.support == "common"
        what = f"all of hops {hops} s x {counts} windows" if common else f"hop {seconds(hop):g} s x {n} windows"
        raise UsageError(
            f"no segment of {session.manifest.name} is long enough for {what}: sweep fewer hops or windows at once"
        )


def _rows(
    models: Sequence[StreamingModel],
    session: Session,
    settings: Settings,
    planned: Mapping[tuple[Tick, int], Protocol],
    bootstrap: Bootstrap,
) -> Iterator[SweepRow]:
    first_model: dict[tuple[Tick, int], dict[str, np.ndarray]] = {}
    selection = settings.selection
    for model in models:
        for (hop, n), protocol in planned.items():
            truth = session.truth(protocol)
            streams = session.predictions(model, protocol)[:, :n]
            chosen = selected_logits(streams, truth.labels, selection)
            reference, other = "", None
            if model is models[0]:
                first_model.setdefault((hop, n), chosen)
                start = next(iter(first_model))
                if (hop, n) != start and settings.support == "common":
                    reference = f"{model.name}, hop {seconds(start[0]):g} s, {start[1]} windows"
                    other = first_model[start]
            else:
                reference, other = f"{models[0].name}, same setting", first_model[hop, n]
            told = truth.labels, truth.clusters, bootstrap
            yield SweepRow(
                model=model.name,
                hop_s=seconds(hop),
                iterations=n,
                selection=selection,
                n_scored=len(truth),
                n_total=truth.n_total,
                scores={m: bootstrap_scores(logits, *told, [m])[m] for m, logits in chosen.items()},
                reference=reference,
                against={m: paired_difference(chosen[m], found, *told, [m])[m] for m, found in (other or {}).items()},
                signature=str(signature_of(session, model, replace(protocol, iterations=n, selection=selection))),
                n_videos=len(set(truth.clusters.tolist())),
            )


def render(rows: Sequence[SweepRow]) -> str:
    """The sweep as plain text: a table of scores, then the paired differences."""
    titles = [m.title for m in METRICS.values()]
    first = rows[0]
    common = len({row.n_scored for row in rows}) == 1
    table = [
        [*_setting(row), *(estimate(*row.scores[name]) for name in METRICS)]
        + ([] if common else [f"{row.n_scored}/{row.n_total}"])
        for row in rows
    ]
    headers = ["model", "hop (s)", "windows", *titles, *([] if common else ["n"])]
    text = "\n".join(numbers(table, headers, repeated=3))
    scored = f"{first.n_scored}/{first.n_total} segments long enough for every setting" if common else OWN_SUPPORT
    text += f"\n{first.selection} iteration · {scored} · 95 %\n{no_intervals(rows) or interval_in_words(0.95)}"
    differences = [
        [*_setting(row), row.reference, *map(_difference, row.against.values())] for row in rows if row.against
    ]
    if differences:
        text += "\n\npaired differences (same resampled videos)\n"
        headers = ["model", "hop (s)", "windows", "minus", *titles]
        text += "\n".join(numbers(differences, headers, repeated=4))
    return f"{text}\n{origin_of(rows).in_words()}"


def tables(rows: Sequence[SweepRow]) -> list[Table]:
    """The sweep for a paper: the scores, then, if there are any, the paired differences."""
    first, origin = rows[0], origin_of(rows)
    titles = [m.title for m in METRICS.values()]
    common = len({row.n_scored for row in rows}) == 1
    setting = f"{first.measured_on}, {first.selection} iteration"
    scored = "All settings are scored on the segments long enough for each of them." if common else f"{OWN_SUPPORT}."
    few = no_intervals(rows)
    notes = [f"{scored} {few.capitalize() or 'In brackets: 95 %'}."]
    scores = [
        [*_setting(row), *(estimate(*row.scores[name]) for name in METRICS), f"{row.n_scored}/{row.n_total}"]
        for row in rows
    ]
    headers = ["model", "hop (s)", "windows", *titles]
    found = [Table("sweep", f"Sweep on {setting}", [*headers, "n"], scores, origin, notes)]
    differences = [
        [*_setting(row), row.reference, *(_difference(row.against[name]) for name in METRICS)]
        for row in rows
        if row.against
    ]
    if differences:
        title = f"Paired differences on {setting}"
        found.append(Table("sweep-differences", title, [*headers[:3], "minus", *titles], differences, origin))
    return found


def no_intervals(rows: Sequence[SweepRow]) -> str:
    """Why there are no intervals in some rows; "" if every row has enough videos."""
    return too_few(min(row.n_videos for row in rows))


def _setting(row: SweepRow) -> list[str]:
    return [row.model, f"{row.hop_s:g}", str(row.iterations)]


def _difference(found: Difference) -> str:
    return estimate(found["difference"], found["ci_low"], found["ci_high"], signed=True)


def origin_of(rows: Sequence[SweepRow]) -> Origin:
    """Signature, version and n of all rows."""
    counts = sorted({row.n_scored for row in rows})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return Origin([(row.model, row.signature) for row in rows], __version__, f"{n} of {rows[0].n_total} segments")
