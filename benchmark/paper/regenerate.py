"""``avbench paper``: the asked-for tables and figures of one split, all from one store."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.data.inspect import info
from avbench.data.opening import read_data
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.paper import records
from avbench.paper.exhibits import NAMES, NEEDS, REPLAYED, STATISTICS, TABLE3_ROWS, Cell, Exhibit, Latencies, table3
from avbench.paper.replays import Replays, summary
from avbench.paper.reported import of_table
from avbench.paper.write import markdown, write, write_text
from avbench.protocol.manifest import Manifest
from avbench.scoring.stats import Bootstrap
from avbench.system.cache import writable
from avbench.system.progress import Progress
from avbench.types import UsageError

ALL = "all"


@dataclass
class Outcome:
    exhibits: list[Exhibit]
    files: list[Path]
    counters: dict[str, int]
    failures: list[Any]
    warnings: list[str]
    wall_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        return bool(self.failures)


def regenerate(
    names: Sequence[str] = (ALL,),
    out: Path = Path("paper"),
    data: str = "synthsync",
    split: str = "test",
    limit: int | None = None,
    store: Path | str | None = None,
    workers: int | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    latency_samples: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Writes the tables and figures ``names`` into ``out`` (each NAME.md, .csv, .json; figures also .svg and .png), and
    paper.md and paper.json over all of them.

    ``data``, ``split``, ``limit``, ``store``, ``workers``, ``seed``: as in ``evaluate``. ``latency_samples``: steps
    timed a model for Table 3's ms, 0 for none. A table whose windows no segment holds is written with empty cells and
    says so; ``UsageError`` if that is so of every table that needs any, or for an unknown name.
    """
    began = time.monotonic()
    wanted = _wanted(names)
    for name, value, least in (
        ("limit", limit, 1),
        ("workers", workers, 1),
        ("n_resamples", n_resamples, 0),
        ("latency_samples", latency_samples, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}; it must be at least {least}")
    folder = writable(out, "--out")
    boot = Bootstrap(n_resamples, seed)
    manifest = read_data(data, split, progress, limit)
    needs = [NEEDS[name] for name in wanted if name in NEEDS]
    held = {name: any(_holds(manifest, p) for p in NEEDS[name].protocols) for name in wanted if name in NEEDS}
    if held and not any(held.values()) and len(held) == len(wanted):
        settings = max(windows for need in needs for _, windows in need.settings)
        raise UsageError(
            f"no segment of {manifest.name} is long enough for {', '.join(held)} (up to {settings} windows); "
            "`avbench data info` says how many windows the segments hold"
        )
    replays = None
    if any(held.values()):
        needed = [NEEDS[name] for name in wanted if held.get(name)]
        replays = Replays(Session(manifest, Compute(store, workers), seed, progress), needed)
    latencies = _latencies(latency_samples, progress) if "table3" in wanted and replays and held["table3"] else {}
    facts = info(manifest) if any(name in STATISTICS for name in wanted) else {}
    exhibits = []
    for name in wanted:
        if name in STATISTICS:
            exhibit = STATISTICS[name](manifest, facts)
        elif name == "table5":
            exhibit = records.table5(boot, records.read())
        elif not held[name] or replays is None or not len(replays.part(NEEDS[name])):
            exhibit = _empty(name, manifest)
        elif name == "table3":
            exhibit = table3(replays, NEEDS[name], boot, latencies)
        else:
            exhibit = REPLAYED[name](replays, NEEDS[name], boot)
        note = f"{manifest.note}, " if manifest.note else ""
        clips = f"{len(manifest.clips)} clip{'s' * (len(manifest.clips) != 1)}"
        exhibit.measured_on = exhibit.measured_on or f"{manifest.name} {split} ({note}{clips})"
        exhibits.append(exhibit)
    outcome = Outcome(
        exhibits=exhibits,
        files=[path for exhibit in exhibits for path in write(exhibit, folder)],
        counters=dict(sorted(replays.session.counters.items())) if replays else {},
        failures=replays.session.failures if replays else [],
        warnings=replays.session.warnings if replays else [],
    )
    outcome.wall_s = round(time.monotonic() - began, 1)
    outcome.facts = {
        "schema_version": 1,
        "data": {"name": manifest.name, "split": split, "note": manifest.note, "sha256": manifest.sha256},
        "n_segments": len(manifest.segments),
        "n_resamples": n_resamples,
        "seed": seed,
        "counters": outcome.counters,
        "incomplete": outcome.incomplete,
        "failures": [f.model_dump() for f in outcome.failures],
        "wall_s": outcome.wall_s,
        "files": [path.name for path in outcome.files],
        "claims": {e.name: [c._asdict() for c in e.claims] for e in exhibits if e.claims},
    }
    text = json.dumps(outcome.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    outcome.files += [
        write_text(folder / "paper.md", overview(outcome)),
        write_text(folder / "paper.json", text),
    ]
    return outcome


def overview(outcome: Outcome) -> str:
    """Everything on one page, figures included."""
    parts = ["# The paper's tables and figures, measured again\n"]
    if outcome.counters:
        parts.append(f"Replayed from one store: {summary(outcome.counters)}.\n")
    for exhibit in outcome.exhibits:
        parts.append(markdown(exhibit, level=2))
        if exhibit.name.startswith("fig"):
            parts.append(f"![{exhibit.title}]({exhibit.name}.svg)\n")
    return "\n".join(parts)


def _wanted(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in (*NAMES, ALL):
            raise UsageError(f"there is no {name!r} in the paper; there are {', '.join(NAMES)} and {ALL}")
    return [name for name in NAMES if name in names or ALL in names or not names]


def _holds(manifest: Manifest, protocol: Any) -> bool:
    return any(protocol.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)


def _empty(name: str, manifest: Manifest) -> Exhibit:
    """The table's shape without a number: no segment holds its windows."""
    most = max(windows for _, windows in NEEDS[name].settings)
    hops = ", ".join(f"{hop:g}" for hop in dict.fromkeys(hop for hop, _ in NEEDS[name].settings))
    exhibit = Exhibit(name, f"{name.replace('table', 'Table ').replace('fig', 'Figure ')}: nothing could be scored")
    n = len(manifest.segments)
    exhibit.cells = [Cell(c.row, c.column, None, None, None, 0, n, c.value) for c in of_table(name)]
    exhibit.notes = [
        f"No segment of this split holds {most} windows at hop {hops} s: `avbench data info` says what fits."
    ]
    return exhibit


def _latencies(samples: int, progress: Progress | None) -> Latencies:
    """One step of every model of Table 3 that looks at media, measured in this process, outside the store."""
    if not samples:
        return {}
    from avbench.latency.measure import measure
    from avbench.latency.modes import Request
    from avbench.registry.names import resolve

    models = [model for model, _ in TABLE3_ROWS.values() if resolve(model).load_backbone is not None]
    found = {}
    for done, model in enumerate(models):
        if progress:
            progress("timing models", done, len(models), model)
        record = measure(model, Request(samples=samples))
        found[model] = {
            key: getattr(record, key)
            for key in ("mode", "p50_ms", "p90_ms", "n", "ratio_to_snapshot", "unstable", "device", "threads")
        }
    return found
