"""Sweeps over hops and window counts: every snapshot computed once, every setting replayed, one common support.

Settings are compared on the segments that all of them can hold, so a longer stream never wins by easier segments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.baselines.trivial import TRIVIAL
from avbench.data.opening import read_data
from avbench.protocol.rules import SUPPORTS, Protocol
from avbench.registry.facts import default_workers
from avbench.registry.options import ModelOptions
from avbench.system.cache import default_store
from avbench.system.progress import Progress
from avbench.ticks import seconds, ticks
from avbench.types import AvbenchError, UsageError

if TYPE_CHECKING:
    from avbench.scoring.stats import Difference, Estimate


OWN_SUPPORT = "each setting on all segments that hold it: do not compare settings, longer streams are other segments"


class SweepRow(NamedTuple):
    """One model at one setting. ``against``: paired differences to the row named by ``reference`` ("" for none)."""

    model: str
    hop_s: float
    iterations: int
    selection: str
    n_scored: int
    n_total: int
    scores: dict[str, Estimate]
    reference: str
    against: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is undefined (an interval over one video) is null."""

        def plain(values: Mapping[str, float]) -> dict[str, float | None]:
            return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}

        row = self._asdict()
        row["scores"] = {name: plain(estimate._asdict()) for name, estimate in self.scores.items()}
        row["against"] = {name: plain(difference) for name, difference in self.against.items()}  # type: ignore[arg-type]
        return row


def sweep(
    models: Sequence[str],
    data: str = "synthsync",
    split: str = "test",
    hops_s: Sequence[float] = (2.0,),
    iterations: Sequence[int] = (18,),
    selection: str = "final",
    support: str = "common",
    limit: int | None = None,
    store: Path | str | None = None,
    workers: int | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    options: ModelOptions | None = None,
) -> list[SweepRow]:
    """Scores of every model at every hop x window count, on the segments that all settings hold (``support``
    "common") or each setting on all segments that it holds ("own": then only models are compared, not settings).

    Each row is compared, paired over the same resampled videos, with the first model at the same setting; the first
    model's rows are compared with its first setting. ``selection``: "final" or "best_iter" (each metric at the best of
    the iterations up to the count). ``options`` (weight files, precision) go to every model that looks at media and
    learns; the others stay as they are. ``UsageError`` if no segment holds all settings; ``AvbenchError`` if one fails.
    """
    from avbench.engine.replay import gather, replay
    from avbench.engine.runner import compute
    from avbench.engine.store import SnapshotStore
    from avbench.registry.loading import load
    from avbench.registry.names import resolve
    from avbench.scoring.selection import selected_logits
    from avbench.scoring.stats import bootstrap_scores, paired_difference

    if selection not in ("final", "best_iter"):
        raise UsageError(f"selection is {selection!r}; a sweep knows final and best_iter")
    if support not in SUPPORTS:
        raise UsageError(f"support is {support!r}; it must be one of {', '.join(SUPPORTS)}")
    if not models or not hops_s or not iterations:
        raise UsageError("a sweep needs at least one model, one hop and one number of windows")
    computed = replace(options or ModelOptions(), quick=True)
    plain = {name for name in models if name in TRIVIAL or name.partition("+")[0] == "xcorr"}
    resolved = {name: resolve(name, None if name in plain else computed) for name in models}
    manifest = read_data(data, split, progress, limit)
    counts = sorted(set(iterations))
    settings = tuple((ticks(hop_s), n) for hop_s in hops_s for n in counts)
    # (hop, windows) -> how it is planned: at the largest count, whose beginnings the shorter streams are, or by itself
    planned = {
        (hop, n): Protocol(hop=hop, iterations=counts[-1], support="common", common_support=settings)
        if support == "common"
        else Protocol(hop=hop, iterations=n)
        for hop, n in settings
    }
    protocols = list(dict.fromkeys(planned.values()))
    held = {p: [s for s in manifest.segments if p.supports(s, manifest.clips[s.clip_id])] for p in protocols}
    for (hop, n), protocol in planned.items():
        if not held[protocol]:
            what = (
                f"hop {seconds(hop):g} s x {n} windows"
                if support == "own"
                else f"all of hops {', '.join(f'{h:g}' for h in hops_s)} s x {', '.join(map(str, counts))} windows"
            )
            raise UsageError(f"no segment of {manifest.name} holds {what}: sweep fewer hops or windows at once")
    loaded = {name: load(model) for name, model in resolved.items()}
    backbones = {m.backbone_name: m.load_backbone for m in loaded.values() if m.load_backbone is not None}
    opened = SnapshotStore(store or default_store())
    tell = (lambda done, total, item: progress("decoding and snapshots", done, total, item)) if progress else None
    report = compute(
        manifest,
        protocols,
        backbones,
        opened,
        workers=workers or default_workers(loaded.values()),
        progress=tell,
    )
    if report.failures:
        first = report.failures[0]
        raise AvbenchError(
            f"{len(report.failures)} segments failed, first clip {first.clip_id}: {first.reason}; a sweep needs all"
        )
    streams_of: dict[tuple[str, Protocol], np.ndarray] = {}

    def predictions(name: str, protocol: Protocol) -> np.ndarray:
        """(N, W, 21): what the model says after each window."""
        if (name, protocol) not in streams_of:
            model, segments = loaded[name], held[protocol]
            if model.load_backbone is None:
                found = TRIVIAL[model.name][1](segments, manifest, protocol.iterations, seed)
            else:
                stored = gather(opened, manifest.clips, segments, protocol, report.fingerprints[model.backbone_name])
                found = replay(model.head, *stored, seconds(protocol.hop))  # type: ignore[arg-type]
            streams_of[name, protocol] = found
        return streams_of[name, protocol]

    rows: list[SweepRow] = []
    first_model: dict[tuple[float, int], dict[str, np.ndarray]] = {}
    for name in models:
        for (hop, n), protocol in planned.items():
            hop_s, segments = seconds(hop), held[protocol]
            labels = np.array([s.offset_class for s in segments])
            videos = np.array([s.video_id for s in segments])
            chosen = selected_logits(predictions(name, protocol)[:, :n], labels, selection)
            scores = {
                metric: bootstrap_scores(logits, labels, videos, n_resamples, seed, metrics=[metric])[metric]
                for metric, logits in chosen.items()
            }
            reference, other = "", None
            if name == models[0]:
                first_model[hop_s, n] = chosen
                start = next(iter(first_model))
                if (hop_s, n) != start and support == "common":
                    reference, other = f"{name}, hop {start[0]:g} s, {start[1]} windows", first_model[start]
            else:
                reference, other = f"{models[0]}, same setting", first_model[hop_s, n]
            against = {
                metric: paired_difference(chosen[metric], logits, labels, videos, n_resamples, seed, metrics=[metric])[
                    metric
                ]
                for metric, logits in (other or {}).items()
            }
            n_scored, n_total = len(segments), len(manifest.segments)
            rows.append(SweepRow(name, hop_s, n, selection, n_scored, n_total, scores, reference, against))
    return rows


def render(rows: Sequence[SweepRow]) -> str:
    """Plain text: a table of scores, then the paired differences."""
    from tabulate import tabulate

    from avbench.scoring.metrics import METRICS

    def interval(value: float, low: float, high: float) -> str:
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    titles = [m.title for m in METRICS.values()]
    first = rows[0]
    common = len({row.n_scored for row in rows}) == 1
    table = [
        [row.model, f"{row.hop_s:g}", row.iterations, *(interval(*row.scores[name]) for name in METRICS)]
        + ([] if common else [f"{row.n_scored}/{row.n_total}"])
        for row in rows
    ]
    headers = ["model", "hop (s)", "windows", *titles, *([] if common else ["n"])]
    text = tabulate(table, headers, tablefmt="plain", disable_numparse=True)
    scored = f"{first.n_scored}/{first.n_total} segments hold every setting" if common else OWN_SUPPORT
    text += f"\n{first.selection} iteration · {scored} · 95 %"
    differences = [
        [row.model, f"{row.hop_s:g}", row.iterations]
        + [interval(d["difference"], d["ci_low"], d["ci_high"]) for d in row.against.values()]
        + [row.reference]
        for row in rows
        if row.against
    ]
    if differences:
        text += "\n\npaired differences (same resampled videos)\n"
        headers = ["model", "hop (s)", "windows", *titles, "minus"]
        text += tabulate(differences, headers, tablefmt="plain", disable_numparse=True)
    return text
