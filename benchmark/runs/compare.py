"""Two runs on the same segments: paired differences with intervals. Works on the runs' own files, without their media.

Only runs that differ in nothing but the model are compared; anything else is refused and named.
"""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.protocol.rules import Protocol
from avbench.protocol.signature import signature_fields
from avbench.results.answers import Answers, answers_of, read_segments
from avbench.results.predictions import read_predictions
from avbench.results.run import RunResult, read_run, run_file
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    from avbench.system.progress import Progress


POWER = 0.8


class Compared(NamedTuple):
    """One metric of two runs. ``detectable``: the smallest true difference that these videos would show with
    probability 0.8 (``stats.minimum_detectable_difference``). Nan where undefined."""

    a: float
    b: float
    difference: float  # a minus b
    ci_low: float
    ci_high: float
    p: float
    detectable: float


class Comparison(NamedTuple):
    """``left_out``: segments that only one of the two runs has scored."""

    a: RunResult
    b: RunResult
    n_segments: int
    n_videos: int
    left_out: int
    level: float
    metrics: dict[str, Compared]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Per metric plain data; what is undefined is null."""
        return {
            name: {key: float(x) if math.isfinite(x) else None for key, x in found._asdict().items()}
            | {"n_segments": self.n_segments, "n_videos": self.n_videos}
            for name, found in self.metrics.items()
        }


class _Run(NamedTuple):
    folder: Path
    result: RunResult
    fields: dict[str, str]
    segment_ids: tuple[str, ...]
    streams: np.ndarray  # (N, W, 21)


def compare(
    run_a: Path | str,
    run_b: Path | str,
    data: str | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> Comparison:
    """Every metric of ``run_a`` minus that of ``run_b`` (folders or run.json files), over the same resampled videos.

    Labels and videos come from the runs' own ``segments.parquet``, or from ``data`` (as in ``evaluate``), which must
    then be the very data of the runs. Paired over the segments that both have scored. ``UsageError``: signatures that
    differ in more than the model (every such field is named), files that are damaged or not those the run wrote,
    missing iterations, no common segment.
    """
    from avbench.scoring.metrics import score
    from avbench.scoring.selection import selected_logits
    from avbench.scoring.stats import minimum_detectable_difference, paired_difference

    a, b = _read(run_a), _read(run_b)
    differing = [name for name in a.fields if name != "model" and a.fields[name] != b.fields[name]]
    if differing:
        named = ", ".join(f"{name} ({a.fields[name]} and {b.fields[name]})" for name in differing)
        raise UsageError(f"{a.folder} and {b.folder} cannot be compared, they differ in {named}")
    truth = _truth_of_data(a, data, progress) if data is not None else _truth_of_runs(a, b)
    place = {segment_id: row for row, segment_id in enumerate(truth.segment_ids)}
    rows_b = {segment_id: row for row, segment_id in enumerate(b.segment_ids)}
    common = [segment_id for segment_id in a.segment_ids if segment_id in rows_b]
    if not common:
        raise UsageError(f"{a.folder} and {b.folder} have no scored segment in common")
    unknown = next((segment_id for segment_id in common if segment_id not in place), None)
    if unknown is not None:
        raise UsageError(
            f"segment {unknown} has no label: it is in the predictions of the runs and not in their segments"
        )
    rows_a = {segment_id: row for row, segment_id in enumerate(a.segment_ids)}
    labels = truth.labels[[place[s] for s in common]]
    videos = np.array([truth.videos[place[s]] for s in common])
    selection = str(a.result.protocol["selection"])
    chosen_a = selected_logits(a.streams[[rows_a[s] for s in common]], labels, selection)
    chosen_b = selected_logits(b.streams[[rows_b[s] for s in common]], labels, selection)
    metrics = {}
    for name in chosen_a:
        pair = chosen_a[name], chosen_b[name], labels, videos, n_resamples, seed, level
        found = paired_difference(*pair, metrics=[name])[name]
        detectable = minimum_detectable_difference(*pair, power=POWER, metrics=[name])[name]
        value_a, value_b = score(chosen_a[name], labels)[name], score(chosen_b[name], labels)[name]
        metrics[name] = Compared(value_a, value_b, **found, detectable=detectable)
    left_out = len(a.segment_ids) + len(b.segment_ids) - 2 * len(common)
    return Comparison(a.result, b.result, len(common), len(set(videos)), left_out, level, metrics)


def _read(path: Path | str) -> _Run:
    """A run whose parts fit together."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    result = read_run(path)
    found = signature_fields(result.signature)
    for name, said in _own_fields(result, folder).items():
        if name in found and found[name].partition("|")[0] != said:
            raise UsageError(
                f"{folder}: run.json has been changed: its signature says {name} {found[name]}, its fields say {said}"
            )
    ids, streams = read_predictions(run_file(folder, result, "predictions"))
    iterations = int(result.protocol["iterations"])  # type: ignore[arg-type]  # checked with the signature
    if streams.shape[1] != iterations:
        raise UsageError(f"{folder}: the predictions hold {streams.shape[1]} iterations, the protocol has {iterations}")
    return _Run(folder, result, found, ids, streams)


def _own_fields(result: RunResult, folder: Path) -> dict[str, str]:
    """What the signature must say if nobody has changed run.json."""
    known = {field.name for field in fields(Protocol)}
    try:
        facts: dict[str, Any] = {name: value for name, value in result.protocol.items() if name in known}
        facts["grid"] = OffsetGrid(**facts["grid"])
        facts["common_support"] = tuple(tuple(pair) for pair in facts["common_support"])
        signature = Protocol(**facts).signature()
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"{folder}: run.json names a protocol that this avbench does not know ({error})") from None
    model, data = result.model.fingerprint[:12], result.data.manifest_sha256[:12]
    return signature_fields(f"{signature}|m:{model}|d:{data}|v{result.avbench_version}")


def _truth_of_runs(a: _Run, b: _Run) -> Answers:
    for run in (a, b):
        if run.result.data.labels == "hidden":
            raise UsageError(
                f"{run.folder}: the labels of {run.result.data.name} are hidden; --data names those who know"
            )
        if "segments" not in run.result.files:
            raise UsageError(f"{run.folder} holds no labels (an older avbench made it): name its data with --data")
    first, second = (read_segments(run_file(run.folder, run.result, "segments")) for run in (a, b))
    known = {s: (label, video) for s, label, video in zip(*first[:3], strict=True)}
    for s, label, video in zip(*second[:3], strict=True):
        if known.get(s, (label, video)) != (label, video):
            raise UsageError(f"segment {s} has another label or video in {a.folder} than in {b.folder}")
    return first


def _truth_of_data(run: _Run, data: str, progress: Progress | None) -> Answers:
    from avbench.data.opening import read_data

    facts = run.result.data
    whole = read_data(data, facts.split, progress)
    part = whole.limit(run.result.n_total) if run.result.n_total else whole
    for manifest in (whole, part):
        if manifest.sha256 == facts.manifest_sha256:
            return answers_of(manifest.segments)
    raise UsageError(
        f"{data} is not the data of {run.folder}: data ({whole.sha256[:12]} and {facts.manifest_sha256[:12]}) differ"
    )


def render(found: Comparison) -> str:
    """Plain text: a row per metric."""
    from tabulate import tabulate

    from avbench.scoring.metrics import METRICS

    def number(value: float, signed: bool = False) -> str:
        return f"{value:{'+' if signed else ''}.3f}" if math.isfinite(value) else "–"

    rows = []
    for name, m in found.metrics.items():
        interval = f"{number(m.difference, True)} [{number(m.ci_low, True)}, {number(m.ci_high, True)}]"
        p = f"{m.p:.3f}" if math.isfinite(m.p) else "–"
        rows.append([METRICS[name].title, number(m.a), number(m.b), interval, p, number(m.detectable)])
    headers = ["", found.a.model.name, found.b.model.name, "difference", "p", "detectable"]
    lines = [
        f"{found.a.model.name} minus {found.b.model.name} on {found.a.data.name} {found.a.data.split}: "
        f"{found.n_segments} segments, paired over {found.n_videos} videos, {100 * found.level:g} % intervals",
        tabulate(rows, headers, tablefmt="plain", disable_numparse=True),
        f"detectable: a true difference of this size would be seen with probability {POWER:g}",
    ]
    if found.n_videos < 2:
        lines.append("no intervals: they need segments of two videos at least")
    if found.left_out:
        lines.append(f"left out: {found.left_out} segments that only one of the runs has scored")
    return "\n".join(lines)
