"""What an evaluation would take: the work that its plan asks for, times measured unit costs.

Nothing is decoded or computed. The costs are in ``unit_costs.json``, each with its machine and the command that
measured it; those that are quoted from other records say "reported". Machines are never mixed in one sum, and what was
never measured on a machine is left out of its sum, by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench.pages.tables import table
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import Plan, SnapshotKey, plan, shares
from avbench.protocol.rules import Protocol
from avbench.ticks import SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, seconds, ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord, UsageError

ALWAYS_LEFT_OUT = "starting the processes, rows of other models, scores and the page"
_TOWERS = ("picture_window_s", "sound_window_s", "fusion_s")


class Model(NamedTuple):
    """What the work depends on. ``costs``: its name in ``unit_costs.json``, "" if nothing of it was measured.
    ``pixels``: of the pictures that it is given."""

    name: str
    costs: str
    head: str
    two_tower: bool
    token_dim: int | None
    pixels: int


@dataclass(frozen=True)
class Work:
    """What a plan asks for. ``pictures`` and ``sounds``: unique windows of a clip; a backbone without two towers
    computes ``snapshots`` whole. ``head_steps``: windows of all segments. ``decoded_s``: seconds of clips, each read
    from its start to the end of its last window. ``largest_share``: the work of the busiest device over the mean."""

    clips: int
    segments: int
    too_short: int
    snapshots: int
    pictures: int
    sounds: int
    head_steps: int
    decoded_s: float
    devices: int
    largest_share: float

    def times(self, n: int) -> Work:
        """That of ``n`` copies of a single clip."""
        n_each = math.ceil(n / self.devices)
        counts = {name: value * n for name, value in asdict(self).items() if name not in ("devices", "largest_share")}
        return Work(**counts, devices=self.devices, largest_share=n_each * self.devices / n)


@dataclass(frozen=True)
class Time:
    """Seconds on all devices together, by what they go to (None: never measured on this machine, left out of the
    sum), and ``elapsed_s``, those of the busiest device. ``whole_windows``: every snapshot was taken to cost a whole
    window, because the towers were not measured apart: the true time is shorter."""

    machine: str
    reported: bool
    parts_s: dict[str, float | None]
    sum_s: float
    elapsed_s: float
    whole_windows: bool
    leaves_out: list[str]


@dataclass(frozen=True)
class Estimate:
    """The work, its store, and the time on every machine whose costs are known."""

    data: str
    protocol: str
    model: str
    work: Work
    store_bytes: int
    store_files: int
    times: list[Time]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@cache
def unit_costs() -> dict[str, Any]:
    """``unit_costs.json``."""
    found: dict[str, Any] = json.loads((files("avbench.runs") / "unit_costs.json").read_text())
    return found


def model_of(name: str) -> Model:
    """By any name of ``--model``; one that is not in ``unit_costs.json`` is loaded, to see what it is. ``UsageError``
    for a model that reads no media."""
    backbone, _, head = name.partition("+")
    for costs, known in unit_costs()["models"].items():
        if backbone in known["names"]:
            head = head or (backbone if backbone.startswith("streamsync-") else "none")
            return Model(name, costs, head, known["two_tower"], known["token_dim"], known["pixels"])
    from avbench.registry.loading import load
    from avbench.registry.names import resolve

    loaded = load(resolve(name))
    if loaded.backbone is None:
        raise UsageError(f"model {name} reads no media: there is nothing to plan")
    found = loaded.backbone
    return Model(name, "", loaded.head_name, found.two_tower, found.token_dim, found.frontend.size)


def work_of(manifest: Manifest, protocol: Protocol, devices: int = 1) -> Work:
    """The work of a manifest on ``devices`` that share its clips out. ``UsageError`` for fewer than one device."""
    planned = plan(manifest.segments, manifest.clips, [protocol])
    loads = [sum(map(planned.n_of, share)) for share in shares(planned, devices)]
    return Work(
        clips=len(planned.keys),
        segments=sum(map(len, planned.supported.values())),
        too_short=sum(map(len, planned.unsupported.values())),
        snapshots=planned.n_unique,
        pictures=_unique(planned, lambda key: (key.picture, key.window)),
        sounds=_unique(planned, _heard),
        head_steps=planned.n_naive,
        decoded_s=sum(seconds(max(key.picture + key.window for key in keys)) for keys in planned.keys.values()),
        devices=devices,
        largest_share=max(loads) * devices / sum(loads) if planned.keys else 1.0,
    )


def _heard(key: SnapshotKey) -> tuple[Any, ...]:
    """What the sound tower is given: equal for windows that share one encoding."""
    return key[1:]


def _unique(planned: Plan, what: Any) -> int:
    return sum(len({what(key) for key in keys}) for keys in planned.keys.values())


def equal_clips(clip_s: float, every_s: float) -> Manifest:
    """One clip of ``clip_s`` seconds as the data sets of the field are cut: a segment every ``every_s`` seconds, each
    with an offset of its own (drawn evenly, as RealSync's uniform lists), as long as there is room."""
    length, step = (round(x * TICKS_PER_S) if math.isfinite(x) else 0 for x in (clip_s, every_s))
    if not 0 < length <= ticks(300) or step <= 0 or length % TICKS_PER_FRAME or step % TICKS_PER_FRAME:
        raise UsageError(
            f"clips of {clip_s:g} s with a segment every {every_s:g} s: a clip is longer than 0 and at most 300 s, and "
            "both are multiples of 0.04 s (one frame)"
        )
    grid, draw = OffsetGrid(), np.random.default_rng(0)
    segments = []
    for k, start in enumerate(range(step, length, step)):
        offset_s = round(float(draw.uniform(-grid.max_offset_s, grid.max_offset_s)), 2)
        record = SegmentRecord(f"clip-{k}", "clip", "clip", start, ticks(offset_s), grid.class_of(offset_s))
        segments.append(record)
    n_samples = length * SAMPLE_RATE_HZ // TICKS_PER_S
    clip = ClipRecord("clip", "clip", "clip.mp4", "0" * 64, length // TICKS_PER_FRAME, n_samples)
    return Manifest("equal clips", "none", "", "list", {"clip": clip}, tuple(segments), Path())


def estimate(data: str, work: Work, protocol: Protocol, model: Model) -> Estimate:
    """What ``work`` takes with ``model``; ``data``: in words."""
    store = unit_costs()["store"]
    per_snapshot = store["bytes_of_a_snapshot"] + 4 * (model.token_dim or 0)
    return Estimate(
        data=data,
        protocol=f"{protocol.name}, {protocol.iterations} windows, hop {seconds(protocol.hop):g} s",
        model=model.name,
        work=work,
        store_bytes=work.snapshots * per_snapshot + work.clips * store["bytes_of_a_file"],
        store_files=work.clips * store["files_of_a_clip"],
        times=[_time(work, model, machine) for machine in unit_costs()["machines"]],
    )


def _time(work: Work, model: Model, machine: dict[str, Any]) -> Time:
    costs = machine["models"].get(model.costs, {})
    apart = model.two_tower and all(name in costs for name in _TOWERS)
    counts = (work.pictures, work.sounds, work.snapshots)
    whole = costs.get("window_s") if not apart else None
    if whole is None and not model.two_tower and all(name in costs for name in _TOWERS):
        whole = sum(costs[name] for name in _TOWERS)
    towers = [n * costs[name] for n, name in zip(counts, _TOWERS, strict=True)] if apart else [None] * 3
    parts: dict[str, float | None] = {
        "decoding": _product(work.decoded_s, machine["decoding_s_of_a_second"].get(str(model.pixels))),
        **(dict(zip(("pictures", "sound", "fusion"), towers, strict=True)) if apart else {}),
        **({} if apart else {"windows": _product(work.snapshots, whole)}),
        "head": _product(work.head_steps, machine["head_step_s"].get(model.head)),
    }
    total = sum(part for part in parts.values() if part is not None)
    return Time(
        machine=machine["name"],
        reported=machine["reported"],
        parts_s=parts,
        sum_s=total,
        elapsed_s=total / work.devices * work.largest_share,
        whole_windows=whole is not None,
        leaves_out=[name for name, part in parts.items() if part is None],
    )


def _product(n: float, cost: float | None) -> float | None:
    return None if cost is None else n * cost


# -------------------------------------------------------------------------------------------------------------- as text


def render(found: Estimate) -> str:
    """The estimate as plain text."""
    work = found.work
    each = [n / max(work.snapshots, 1) for n in (work.pictures, work.sounds)]
    lines = [
        f"{found.data} · {found.protocol} · {found.model}",
        f"clips     {work.clips:,}, {work.decoded_s / 3600:,.1f} h are decoded",
        f"segments  {work.segments:,}" + (f", and {work.too_short:,} too short" if work.too_short else ""),
        f"windows   {work.snapshots:,} snapshots of {work.pictures:,} picture windows ({each[0]:.2f} each) and "
        f"{work.sounds:,} sound windows ({each[1]:.2f} each); {work.head_steps:,} head steps",
        f"store     {in_bytes(found.store_bytes)} in {found.store_files:,} files",
        f"devices   {work.devices:,}; the largest share is {work.largest_share:.3f} times the mean",
        "",
    ]
    rows = []
    for time in found.times:
        computes = any(time.parts_s.get(name) is not None for name in ("pictures", "windows"))
        shown = [in_time(time.parts_s.get(name)) for name in ("decoding", "pictures", "sound", "fusion", "head")]
        shown[1] = f"<{in_time(time.parts_s['windows'])}" if time.whole_windows else shown[1]
        elapsed = f"{'<' * time.whole_windows}{in_time(time.elapsed_s)}" if computes else "-"
        rows.append([time.machine, *shown, elapsed, ", ".join(_words(time.leaves_out)) or "nothing"])
    headers = ["device", "decoding", "pictures", "sound", "fusion", "head", f"on {work.devices:,}", "leaves out"]
    lines += [table(rows, headers), ""]
    lines += [f"{machine['name']}: {machine['what']} ({machine['command']})" for machine in unit_costs()["machines"]]
    if any(time.whole_windows for time in found.times):
        lines.append(
            "<: every snapshot as a whole window, the towers were not measured apart; shared windows cost less"
        )
    lines.append(f"-: never measured there. All leave out {ALWAYS_LEFT_OUT}")
    return "\n".join(lines)


def _words(parts: Sequence[str]) -> list[str]:
    return ["the model" if part == "windows" else part for part in parts]


def in_time(s: float | None) -> str:
    """Seconds in the unit that a person would choose; "-" for None."""
    if s is None:
        return "-"
    for unit, length_s in (("years", 365.25 * 86400), ("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if s >= 2 * length_s:
            return f"{s / length_s:,.3g} {unit}" if s < 1000 * length_s else f"{s / length_s:,.0f} {unit}"
    return f"{s:.3g} s"


def in_bytes(n: float) -> str:
    """Bytes in the unit that a person would choose."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} bytes"
