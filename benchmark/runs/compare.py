"""Compare two runs on the same segments: paired differences with intervals. Needs the runs' files, not their media.

The runs may differ in the model only; any other difference is refused and named.
"""

from __future__ import annotations

import math
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
from avbench.ticks import seconds
from avbench.types import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from avbench.scoring.stats import Bootstrap
    from avbench.system.progress import Progress


POWER = 0.8


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


class Comparison(NamedTuple):
    """Two runs compared on ``n_segments`` segments of ``n_videos`` videos; ``left_out``: the number of segments that
    only one of the two runs has scored."""

    a: RunResult
    b: RunResult
    n_segments: int
    n_videos: int
    left_out: int
    level: float
    metrics: dict[str, Compared]

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


class _Pair(NamedTuple):
    """Streaming predictions (N, W, 21) of two runs on the same segments, with labels (N,) and videos (N,); where
    offsets change, also the truth of every window."""

    a: np.ndarray
    b: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    windows: WindowTruth | None


def compare(
    run_a: Path | str,
    run_b: Path | str,
    data: str | None = None,
    bootstrap: Bootstrap | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Every metric of ``run_a`` minus that of ``run_b`` (folders or run.json files), over the same resampled videos.
    Where offsets change, also every main score of ``scoring.dynamic``, first; the others are then of the last window.

    Labels and videos come from the runs' own ``segments.parquet``, or from ``data`` (as in ``evaluate``), which must
    then be exactly the data of the runs. Paired over the segments that both runs have scored. ``UsageError``:
    signatures that differ in more than the model (each such field is named), damaged or changed files, missing
    iterations, no segment in common.
    """
    from avbench.scoring.stats import DEFAULT

    bootstrap = bootstrap or DEFAULT
    a, b = _read(run_a), _read(run_b)
    _check_same_setting(a, b)
    n_scored = sum(len(run.predictions.segment_ids) for run in (a, b))  # damaged predictions are said before labels
    truth, windows = _truth_of_data(a, data, progress) if data is not None else _truth_of_runs(a, b)
    pair = _paired(a, b, truth, windows)
    return Comparison(
        a.result,
        b.result,
        n_segments=len(pair.labels),
        n_videos=len(set(pair.videos)),
        left_out=n_scored - 2 * len(pair.labels),
        level=bootstrap.level,
        metrics=_changing(pair, a.result.protocol, bootstrap) | _metrics(pair, a.result.protocol.selection, bootstrap),
    )


def _check_same_setting(a: Run, b: Run) -> None:
    fields_a, fields_b = (Signature.parse(run.result.signature).fields() for run in (a, b))
    differing = [name for name in fields_a if name != "model" and fields_a[name] != fields_b[name]]
    if differing:
        named = ", ".join(f"{name} ({fields_a[name]} and {fields_b[name]})" for name in differing)
        raise UsageError(f"{a.folder} and {b.folder} cannot be compared, they differ in {named}")


def _paired(a: Run, b: Run, truth: Truth, windows: WindowTruth | None) -> _Pair:
    """The segments that both runs have scored, in the order of ``a``."""
    (ids_a, streams_a), (ids_b, streams_b) = a.predictions, b.predictions
    rows_a, rows_b = ({segment_id: row for row, segment_id in enumerate(ids)} for ids in (ids_a, ids_b))
    common = [segment_id for segment_id in ids_a if segment_id in rows_b]
    if not common:
        raise UsageError(f"{a.folder} and {b.folder} have no scored segment in common")
    known = truth.of_ids(common)
    if windows is not None:
        windows = windows.take([windows.place[s] for s in common])
    a_streams, b_streams = streams_a[[rows_a[s] for s in common]], streams_b[[rows_b[s] for s in common]]
    return _Pair(a_streams, b_streams, known.labels, known.clusters, windows)


def _changing(pair: _Pair, protocol: Protocol, bootstrap: Bootstrap) -> dict[str, Compared]:
    """The main scores of offsets that change; none where they are fixed."""
    from avbench.scoring.dynamic import SHOWN, compared
    from avbench.scoring.streams import checked_streams

    if pair.windows is None:
        return {}
    given = pair.windows, seconds(protocol.hop), seconds(protocol.window), pair.videos
    a, b = (checked_streams(of, *given) for of in (pair.a, pair.b))
    found = compared(a, b, bootstrap, POWER, tuple(SHOWN))
    return {name: Compared(one.a, one.b, **one.difference, detectable=one.detectable) for name, one in found.items()}


def _metrics(pair: _Pair, selection: str, bootstrap: Bootstrap) -> dict[str, Compared]:
    from avbench.scoring.selection import selected_logits
    from avbench.scoring.stats import paired

    chosen_a, chosen_b = (selected_logits(streams, pair.labels, selection) for streams in (pair.a, pair.b))
    together = [list(chosen_a)] if selection == "final" else [[name] for name in chosen_a]  # those of equal logits
    metrics = {}
    for names in together:
        given = chosen_a[names[0]], chosen_b[names[0]], pair.labels, pair.videos
        for name, one in paired(*given, bootstrap, POWER, names).items():
            metrics[name] = Compared(one.a, one.b, **one.difference, detectable=one.detectable)
    return metrics


def _read(path: Path | str) -> Run:
    """Reads a run and checks that its parts fit together."""
    run = load_run(path)
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


def _truth_of_runs(a: Run, b: Run) -> tuple[Truth, WindowTruth | None]:
    for run in (a, b):
        if run.result.data.labels == "hidden":
            raise UsageError(
                f"{run.folder}: the labels of {run.result.data.name} are hidden; name data with labels with --data"
            )
    first, second = a.truth, b.truth
    if first is None or second is None:
        without = a if first is None else b
        raise UsageError(f"{without.folder} has no labels (written by an older avbench): name its data with --data")
    known = {s: (label, video) for s, label, video in zip(first.segment_ids, first.labels, first.clusters, strict=True)}
    for s, label, video in zip(second.segment_ids, second.labels, second.clusters, strict=True):
        if known.get(s, (label, video)) != (label, video):
            raise UsageError(f"segment {s} has different labels or videos in {a.folder} and {b.folder}")
    return first, _windows_of_runs(a, b)


def _windows_of_runs(a: Run, b: Run) -> WindowTruth | None:
    """What is so in every window, which both runs must agree on."""
    if a.result.protocol.name != "dynamic":
        return None
    first, second = _windows_of_run(a), _windows_of_run(b)
    shared = [s for s in first.segment_ids if s in second.place]
    ours, theirs = (of.take([of.place[s] for s in shared]) for of in (first, second))
    if not all(np.array_equal(getattr(ours, column), getattr(theirs, column)) for column in RANGES):
        raise UsageError(f"{a.folder} and {b.folder} have different truths (truth.parquet) of the same segments")
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
    from tabulate import tabulate

    from avbench.scoring.stats import interval_in_words

    titles, changing = _titles(found), found.a.protocol.name == "dynamic"

    def number(value: float, signed: bool = False) -> str:
        return f"{value:{'+' if signed else ''}.3f}" if math.isfinite(value) else "–"

    rows = []
    for name, m in found.metrics.items():
        interval = f"{number(m.difference, True)} [{number(m.ci_low, True)}, {number(m.ci_high, True)}]"
        p = f"{m.p:.3f}" if math.isfinite(m.p) else "–"
        rows.append([titles[name], number(m.a), number(m.b), interval, p, number(m.detectable)])
    headers = ["", found.a.model.name, found.b.model.name, "difference", "p", "detectable"]
    lines = [
        f"{found.a.model.name} minus {found.b.model.name} on {found.a.data.name} {found.a.data.split}: "
        f"{found.n_segments} segments, paired over {found.n_videos} videos, {100 * found.level:g} % intervals",
        tabulate(rows, headers, tablefmt="plain", disable_numparse=True),
        f"detectable: a true difference of this size would be found with probability {POWER:g}",
    ]
    if changing:
        lines.append("recovery: from changes of at least 0.4 s; last: the last window alone, by what is so at its end")
    if found.n_videos < 2:
        lines.append("no intervals: they need segments from at least two videos")
    else:
        lines.append(interval_in_words(found.level))
    if found.left_out:
        lines.append(f"left out: {found.left_out} segments scored by only one of the runs")
    return "\n".join([*lines, _origin(found).in_words()])


def table(found: Comparison) -> Table:
    """The comparison for a paper, one row per metric."""
    titles, data = _titles(found), found.a.data
    note = f" ({data.note})" if data.note else ""
    rows = [
        [
            titles[name],
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
            f"In brackets: the {100 * found.level:g} % interval"
            f"{'; undefined, as it needs two videos' if found.n_videos < 2 else ''}.",
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
            version=found.a.avbench_version,
            n=found.n_segments,
        )
    )


def _origin(found: Comparison) -> Origin:
    runs = (found.a, found.b)
    signatures = [(run.model.name, run.signature) for run in runs]
    if found.a.model.name == found.b.model.name:
        signatures = [(f"{name} ({side})", text) for side, (name, text) in zip("AB", signatures, strict=True)]
    n = f"{found.n_segments} segments"
    return Origin(signatures, found.a.avbench_version, n)


def _titles(found: Comparison) -> dict[str, str]:
    """The name of each metric in the table."""
    from avbench.scoring.dynamic import SHOWN
    from avbench.scoring.metrics import METRICS

    if found.a.protocol.name != "dynamic":
        return {name: metric.title for name, metric in METRICS.items()}
    return {name: shown.title for name, shown in SHOWN.items()} | {
        name: f"last {metric.title}" for name, metric in METRICS.items()
    }
