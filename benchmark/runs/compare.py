"""Compare runs on the same segments: paired differences with intervals. Needs the runs' files, not their media.

The runs may differ in the model only; any other difference is refused and named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.engine.session import Session
from avbench.pages.formats import Origin, Table, csv_text, estimate
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.protocol.signature import Signature
from avbench.results.dynamic_truth import RANGES, WindowTruth
from avbench.results.run import RunResult
from avbench.results.truth import Truth
from avbench.runs.loaded import Run, load_run
from avbench.scoring.matrix import POWER, Compared, Comparisons, Matrix, versions, with_enough
from avbench.system.in_python import in_python
from avbench.ticks import seconds
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from avbench.scoring.metrics import Column
    from avbench.scoring.ranking import Drawn
    from avbench.scoring.stats import Bootstrap
    from avbench.system.progress import Progress


class Comparison(NamedTuple):
    """Two runs compared on ``n_segments`` segments of ``n_videos`` videos; ``left_out``: the number of segments that
    only one of the two runs has scored."""

    a: RunResult
    b: RunResult
    n_segments: int
    n_videos: int
    left_out: int
    bootstrap: Bootstrap
    metrics: dict[str, Compared]

    @property
    def level(self) -> float:
        """Of the intervals."""
        return self.bootstrap.level

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Plain data per metric; undefined values are null."""
        return {
            name: {key: float(x) if math.isfinite(x) else None for key, x in found._asdict().items()}
            | {"n_segments": self.n_segments, "n_videos": self.n_videos}
            for name, found in self.metrics.items()
        }

    def frame(self) -> pd.DataFrame:
        """One row a metric: model_a, model_b, metric, a, b, difference (a minus b), ci_low, ci_high, p, detectable (NaN
        where undefined), n_segments, n_videos."""
        import pandas as pd

        models = {"model_a": self.a.model.name, "model_b": self.b.model.name}
        counts = {"n_segments": self.n_segments, "n_videos": self.n_videos}
        return pd.DataFrame(
            [models | {"metric": name} | found._asdict() | counts for name, found in self.metrics.items()]
        )


class _Common(NamedTuple):
    """Streaming predictions (N, W, 21) of each run on the same segments, with labels (N,) and videos (N,); where
    offsets change, also the truth of every window."""

    streams: list[np.ndarray]
    labels: np.ndarray
    videos: np.ndarray
    windows: WindowTruth | None


def compare(
    run_a: Path | str | Run,
    run_b: Path | str | Run,
    data: str | None = None,
    bootstrap: Bootstrap | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Every metric of ``run_a`` minus that of ``run_b``; see :func:`compare_all`, which takes any number of runs."""
    return first_two(compare_all([run_a, run_b], data, bootstrap, progress))


def first_two(found: Comparisons) -> Comparison:
    """The comparison of the first run with the second."""
    a, b = found.runs[:2]
    pairs = {name: matrix.pairs[0, 1] for name, matrix in found.metrics.items()}
    return Comparison(a, b, found.n_segments, found.n_videos, found.left_out, found.bootstrap, pairs)


def compare_all(
    runs: Sequence[Path | str | Run],
    data: str | None = None,
    bootstrap: Bootstrap | None = None,
    progress: Progress | None = None,
    enough: bool = False,
) -> Comparisons:
    """Every metric of each of two or more ``runs`` (folders, run.json files, or what ``load_run`` and
    ``submissions.as_run`` opened) minus that of each other, over the same resampled videos; p-values are corrected for
    the number of pairs (``scoring.matrix.holm``). Where offsets change, also every main score of ``scoring.dynamic``,
    first; the others are then of the last window. ``enough`` (or no ``bootstrap``): more resamples than it says, where
    with so few no difference could be found among so many pairs.

    Labels and videos come from the runs' own ``segments.parquet``, or from ``data`` (as in ``evaluate``), which must
    then be exactly the data of the runs. All pairs are over the same segments: those that every run has scored.
    ``UsageError``: fewer than two runs, signatures that differ in more than the model (each such field is named;
    entries of the leaderboard may differ in the version, too), damaged or changed files, missing iterations, no segment
    in common.
    """
    from avbench.scoring.stats import DEFAULT

    if len(runs) < 2:
        raise UsageError("there is nothing to compare: name at least two runs")
    opened = [_checked(run if isinstance(run, Run) else load_run(run)) for run in runs]
    for pair in combinations(opened, 2):
        _check_same_setting(*pair)
    scored = [set(run.predictions.segment_ids) for run in opened]  # damaged predictions are said before labels
    truth, windows = _truth_of_data(opened[0], data, progress) if data is not None else _truth_of_runs(opened)
    common = _on_common_segments(opened, truth, windows)
    n_videos, n_pairs = len(set(common.videos)), len(runs) * (len(runs) - 1) // 2
    enough, bootstrap = enough or bootstrap is None, bootstrap or DEFAULT
    if enough and n_pairs > 1:
        bootstrap = with_enough(bootstrap, n_pairs, n_videos)
    protocol = opened[0].result.protocol
    drawn = _changing(common, protocol, bootstrap) | _fixed(common, protocol.selection, bootstrap)
    shown = _columns(protocol)
    return Comparisons(
        tuple(run.result for run in opened),
        tuple(run.place for run in opened),
        n_segments=len(common.labels),
        n_videos=n_videos,
        left_out=len(set.union(*scored)) - len(common.labels),
        bootstrap=bootstrap,
        main="recovery_s" if protocol.name == "dynamic" else "map",
        metrics={name: Matrix.of(shown[name], of_runs, bootstrap.level) for name, of_runs in drawn.items()},
    )


def _check_same_setting(a: Run, b: Run) -> None:
    fields_a, fields_b = (Signature.parse(run.result.signature).fields() for run in (a, b))
    free = {"model", "version"} if a.on_board or b.on_board else {"model"}  # as the board itself ranks
    differing = [name for name in fields_a if name not in free and fields_a[name] != fields_b[name]]
    if differing:
        named = ", ".join(f"{name} ({fields_a[name]} and {fields_b[name]})" for name in differing)
        raise UsageError(f"{a.folder} and {b.folder} cannot be compared, they differ in {named}")


def _on_common_segments(runs: Sequence[Run], truth: Truth, windows: WindowTruth | None) -> _Common:
    """The segments that all runs have scored, in the order of the first."""
    rows = [{segment_id: row for row, segment_id in enumerate(run.predictions.segment_ids)} for run in runs]
    common = list(rows[0])
    for run, of_run in zip(runs, rows, strict=True):
        common = [segment_id for segment_id in common if segment_id in of_run]
        if not common:
            others = f"the {len(runs) - 1} others" if len(runs) > 2 else runs[0].folder
            raise UsageError(f"{others} and {run.folder} have no scored segment in common")
    known = truth.of_ids(common)
    if windows is not None:
        windows = windows.take([windows.place[s] for s in common])
    streams = [run.predictions.logits[[of_run[s] for s in common]] for run, of_run in zip(runs, rows, strict=True)]
    return _Common(streams, known.labels, known.clusters, windows)


def _changing(common: _Common, protocol: Protocol, bootstrap: Bootstrap) -> dict[str, list[Drawn]]:
    """The main scores of offsets that change, of each run; none where they are fixed."""
    from avbench.scoring.dynamic import SHOWN, measures
    from avbench.scoring.ranking import resampled_score
    from avbench.scoring.streams import checked_streams

    if common.windows is None:
        return {}
    given = common.windows, seconds(protocol.hop), seconds(protocol.window), common.videos
    found = [measures(checked_streams(of, *given)) for of in common.streams]
    return {
        name: [
            resampled_score(m.of, m.videos, bootstrap, most=m.most, smooth=m.smooth) for m in (f[name] for f in found)
        ]
        for name in SHOWN
    }


def _fixed(common: _Common, selection: str, bootstrap: Bootstrap) -> dict[str, list[Drawn]]:
    from avbench.scoring.metrics import METRICS
    from avbench.scoring.ranking import resampled_metrics
    from avbench.scoring.selection import selected_logits

    chosen = [selected_logits(streams, common.labels, selection) for streams in common.streams]
    together = [list(METRICS)] if selection == "final" else [[name] for name in METRICS]  # those of equal logits
    found: dict[str, list[Drawn]] = {}
    for names in together:
        given = common.labels, common.videos, bootstrap
        of_runs = [resampled_metrics(names, one[names[0]], *given) for one in chosen]
        found |= {name: [one[name] for one in of_runs] for name in names}
    return found


def _checked(run: Run) -> Run:
    """The run, if its parts fit together."""
    result = run.result
    found = Signature.parse(result.signature)
    hashes = result.model.fingerprint, result.data.manifest_sha256
    own = Signature.of(result.protocol, *hashes, result.avbench_version, found.computed)
    for name, said in own.fields().items():
        if found.fields()[name] != said:
            raise UsageError(
                f"{run.folder}: run.json has been changed: its signature says {name} {found.fields()[name]}, "
                f"its fields say {said}"
            )
    return run


def _truth_of_runs(runs: Sequence[Run]) -> tuple[Truth, WindowTruth | None]:
    """What the runs' own files say is true, which all must agree on."""
    for run in runs:
        if run.result.data.labels == "hidden":
            raise UsageError(
                f"{run.folder}: the labels of {run.result.data.name} are hidden; name data with labels with --data"
                f"{in_python('--data')}"
            )
    truths = []
    for run in runs:
        if run.truth is None:
            why = "has no labels (written by an older avbench)"
            raise UsageError(f"{run.folder} {why}: name its data with --data{in_python('--data')}")
        truths.append(run.truth)
    first = truths[0]
    known = {s: (label, video) for s, label, video in zip(first.segment_ids, first.labels, first.clusters, strict=True)}
    for run, other in zip(runs[1:], truths[1:], strict=True):
        for s, label, video in zip(other.segment_ids, other.labels, other.clusters, strict=True):
            if known.get(s, (label, video)) != (label, video):
                raise UsageError(f"segment {s} has different labels or videos in {runs[0].folder} and {run.folder}")
    return first, _windows_of_runs(runs)


def _windows_of_runs(runs: Sequence[Run]) -> WindowTruth | None:
    """What is so in every window, which all runs must agree on."""
    if runs[0].result.protocol.name != "dynamic":
        return None
    first = _windows_of_run(runs[0])
    for run in runs[1:]:
        other = _windows_of_run(run)
        shared = [s for s in first.segment_ids if s in other.place]
        ours, theirs = (of.take([of.place[s] for s in shared]) for of in (first, other))
        if not all(np.array_equal(getattr(ours, column), getattr(theirs, column)) for column in RANGES):
            raise UsageError(
                f"{runs[0].folder} and {run.folder} have different truths (truth.parquet) of the same segments"
            )
    return first


def _windows_of_run(run: Run) -> WindowTruth:
    if run.windows is None or run.windows.segment_ids != run.predictions.segment_ids:
        raise UsageError(f"{run.folder}: truth.parquet is missing or not of these predictions; run it again")
    return run.windows


def _truth_of_data(run: Run, data: str, progress: Progress | None) -> tuple[Truth, WindowTruth | None]:
    facts = run.result.data
    whole = Session.open(data, facts.split, progress=progress).manifest
    for manifest in (whole, whole.limit(run.result.n_total) if run.result.n_total else whole):
        if manifest.sha256 == facts.manifest_sha256:
            return _known(manifest, run.result.protocol)
    raise UsageError(
        f"{data} is not the data of {run.folder}: data ({whole.sha256[:12]} and {facts.manifest_sha256[:12]}) differ"
    )


def _known(manifest: Manifest, protocol: Protocol) -> tuple[Truth, WindowTruth | None]:
    """The truth of all segments of a manifest that are long enough."""
    session = Session(manifest)
    if protocol.name != "dynamic":
        return session.truth(), None
    return session.truth(protocol), WindowTruth.of(session.supported(protocol), protocol)


def render(found: Comparison) -> str:
    """The comparison as plain text, one row per metric."""
    from avbench.pages.compare_text import intervals
    from avbench.pages.tables import numbers
    from avbench.scoring.stats import interval_in_words, too_few

    columns, changing = _columns(found.a.protocol), found.a.protocol.name == "dynamic"

    def number(value: float) -> str:
        return f"{value:.3f}" if math.isfinite(value) else "–"

    rows = []
    for name, m in found.metrics.items():
        interval = estimate(m.difference, m.ci_low, m.ci_high, signed=True)
        p = f"{m.p:.3f}" if math.isfinite(m.p) else "–"
        rows.append([columns[name].title, number(m.a), number(m.b), interval, p, number(m.detectable)])
    headers = ["", found.a.model.name, found.b.model.name, "difference", "p", "detectable"]
    lines = [
        f"{found.a.model.name} minus {found.b.model.name} on {found.a.data.name} {found.a.data.split}: "
        f"{found.n_segments} segments, paired over {found.n_videos} videos"
        f"{'' if too_few(found.n_videos) else f', {intervals(found.bootstrap)}'}",
        *numbers(rows, headers),
        f"detectable: a true difference of this size would be found with probability {POWER:g}",
    ]
    if changing:
        lines.append("recovery: from changes of at least 0.4 s; last: the last window alone, by what is so at its end")
    lines.append(too_few(found.n_videos) or interval_in_words(found.level))
    if found.left_out:
        lines.append(f"left out: {found.left_out} segments scored by only one of the runs")
    return "\n".join([*lines, _origin(found).in_words()])


def table(found: Comparison) -> Table:
    """The comparison for a paper, one row per metric."""
    from avbench.pages.compare_text import intervals
    from avbench.scoring.stats import interval_in_words, too_few

    columns, data = _columns(found.a.protocol), found.a.data
    note = f" ({data.note})" if data.note else ""
    rows = [
        [
            columns[name].title,
            estimate(m.a, None, None),
            estimate(m.b, None, None),
            estimate(m.difference, m.ci_low, m.ci_high, signed=True),
            estimate(m.p, None, None),
            estimate(m.detectable, None, None),
        ]
        for name, m in found.metrics.items()
    ]
    a, b = found.a.model.name, found.b.model.name
    videos = f"{found.n_videos} video{'s' * (found.n_videos != 1)}"
    return Table(
        name="compare",
        title=f"{a} minus {b} on {data.name} {data.split}{note}, paired over {videos}",
        headers=["", a, b, "difference", "p", "detectable"],
        rows=rows,
        origin=_origin(found),
        notes=[
            f"{too_few(found.n_videos).capitalize() or f'In brackets: {intervals(found.bootstrap)}'}.",
            *([] if too_few(found.n_videos) else [interval_in_words(found.level)]),
            f"Detectable: a true difference of this size would be found with probability {POWER:g}.",
            *([f"Left out: {found.left_out} segments scored by only one of the runs."] if found.left_out else []),
        ],
    )


def to_csv(found: Comparison) -> str:
    """The table of :meth:`Comparison.frame` as CSV, with the columns signature_a, signature_b, version and n."""
    return csv_text(
        found.frame().assign(
            signature_a=found.a.signature,
            signature_b=found.b.signature,
            version=versions((found.a, found.b)),
            n=found.n_segments,
        )
    )


def _origin(found: Comparison) -> Origin:
    runs = (found.a, found.b)
    signatures = [(run.model.name, run.signature) for run in runs]
    if found.a.model.name == found.b.model.name:
        signatures = [(f"{name} ({side})", text) for side, (name, text) in zip("AB", signatures, strict=True)]
    n = f"{found.n_segments} segments"
    return Origin(signatures, versions(runs), n)


def _columns(protocol: Protocol) -> dict[str, Column]:
    """How each metric of runs with this protocol is shown."""
    from avbench.scoring.dynamic import SHOWN
    from avbench.scoring.metrics import METRICS

    if protocol.name != "dynamic":
        return dict(METRICS)
    return {**SHOWN, **{name: replace(metric, title=f"last {metric.title}") for name, metric in METRICS.items()}}
