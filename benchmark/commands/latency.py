"""``avbench latency``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_compute_options,
    add_force,
    add_format,
    add_model_options,
    check_format,
    device_of,
    hop_s,
    model_options,
    one_window,
    print_as,
    say,
    say_each,
)

if TYPE_CHECKING:
    from avbench.latency.record import LatencyRecord, Timing
    from avbench.pages.formats import Origin, Table

ONE_WINDOW = "a step is timed with one window"


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    parser = add_command(
        commands,
        "latency",
        _latency,
        "measure how long a model takes per step, and audit the measurement",
        "Modes: step (tensors on the device -> logits, at the 18th iteration with a full history),\n"
        "end_to_end (encoded bytes -> decision), realtime_factor (one stream, hop by hop),\n"
        "streams (how many streams get 99 % of their decisions within the hop).\n"
        "The ratio is to the SparseSync snapshot, timed alternately; only ratios are comparable between machines.",
        "avbench latency --model streamsync-trf",
        "avbench latency --model streamsync-lstm --mode streams --device cuda",
        "avbench latency --model my_net.py:MyNet+apa --leaderboard --out latency.json",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="M",
        help="a name of `avbench models`, or file.py:Class[+head|+file.py:Head]",
    )
    parser.add_argument(
        "--mode", choices=("step", "end_to_end", "realtime_factor", "streams"), default="step", help="(default: step)"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="timed steps (default: 100; leaderboard, streams: 662)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads on the CPU (default: 1)")
    parser.add_argument("--hop", type=float, default=2.0, metavar="S", help="seconds between windows (default: 2)")
    parser.add_argument(
        "--leaderboard", action="store_true", help="strict settings; fail if a leaderboard would refuse"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record with all times to a file or folder")
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print only the record, as one JSON object")
    add_compute_options(parser, one=ONE_WINDOW)
    add_format(parser)
    add_model_options(parser)


def _latency(args: argparse.Namespace) -> int:
    from avbench.latency.measure import measure
    from avbench.latency.modes import Request
    from avbench.latency.record import latency_file, write_latency
    from avbench.system.outputs import check_file

    check_format(args)
    if args.out is not None:
        check_file(latency_file(args.out), "--out", args.force)

    one_window(args, ONE_WINDOW)
    request = Request(
        mode=args.mode,
        samples=args.samples,
        device=args.device,
        threads=args.threads,
        hop_s=hop_s(args),
        leaderboard=args.leaderboard,
    )
    device_of(args)
    # what a user's model prints must not mix with the JSON on stdout
    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        record = measure(args.model, request, model_options(args), progress=progress)
    say_each("note", record.warnings)
    say_each("audit failed", [audit.text for audit in record.audits.values() if not audit.ok])
    path = write_latency(record, args.out) if args.out else None
    print_as(
        args,
        text=lambda: _text(record),
        tables=lambda: [_table(record)],
        csv=lambda: _csv(record),
        json=record.to_json,
    )
    if path:
        say(f"written: {path}")
    return 0 if record.audits_passed else 1


def _text(record: LatencyRecord) -> str:
    from avbench.pages.tables import numbers

    lines = [
        _setting(record),
        *numbers(_rows(record), HEADERS),
        *_measured(record),
    ]
    lines += [f"audit {name}: {'passed' if a.ok else 'FAILED'}, {a.text}" for name, a in record.audits.items()]
    if record.unstable:
        lines.append(
            "UNSTABLE: the spread (interquartile range over median) is above 10 %; measure again on an idle machine"
        )
    return "\n".join([*lines, _origin(record).in_words()])


HEADERS = ["", "n", "p50 (ms)", "p90 (ms)", "p99 (ms)", "spread"]


def _timed(record: LatencyRecord) -> Iterator[tuple[str, LatencyRecord | Timing]]:
    """What each line of the table is of, and its times."""
    yield record.model.name, record
    for k, times in record.by_iteration.items():
        if k != str(record.iteration):
            yield f"  iteration {k}", times
    yield f"{record.reference} (reference)", record.snapshot


def _rows(record: LatencyRecord) -> list[list[str]]:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    return [
        [label, str(t.n), *(cell(ms) for ms in (t.p50_ms, t.p90_ms, t.p99_ms)), f"{t.iqr_over_median:.0%}"]
        for label, t in _timed(record)
    ]


def _setting(record: LatencyRecord) -> str:
    where = record.environment.get("gpu") or record.environment.get("cpu")
    threads = f"{record.threads} thread{'s' * (record.threads > 1)}"
    setting = f"{record.device}, {threads}, {record.model.dtype}, batch 1, iteration {record.iteration}"
    return f"{record.mode} · {where} · {setting}"


def _measured(record: LatencyRecord) -> list[str]:
    """The figures that are no row of the table."""
    lines = [f"ratio to the {record.reference} snapshot  {record.ratio_to_snapshot:.2f}"]
    if record.realtime_factor is not None:
        lines.append(f"real-time factor  {record.realtime_factor:.1f} s of stream per second")
    if record.streams is not None:
        lines.append(f"streams within a hop of {record.hop_s:g} s  {record.streams}")
    return lines


def _origin(record: LatencyRecord) -> Origin:
    """A measurement has no data; its signature names the mode, the setting and the two models."""
    from avbench.pages.formats import Origin
    from avbench.protocol.signature import DIGITS

    model, reference = record.model.fingerprint[:DIGITS], record.reference_fingerprint[:DIGITS]
    parts = [f"latency:{record.mode}", record.device, f"t{record.threads}", record.model.dtype]
    parts += ["compiled"] if record.model.compiled else []
    parts += [f"h{record.hop_s:.3f}", f"i{record.iteration}", f"m:{model}", f"reference:{reference}"]
    signature = "|".join(("avb", *parts, f"v{record.avbench_version}"))
    return Origin([(record.model.name, signature)], record.avbench_version, f"{record.n} timed")


def _table(record: LatencyRecord) -> Table:
    from avbench.pages.formats import Table

    notes = [*(" ".join(line.split()) for line in _measured(record)), "Spread: interquartile range over median."]
    notes += [f"Audit {name} FAILED: {audit.text}" for name, audit in record.audits.items() if not audit.ok]
    notes += ["UNSTABLE: the spread is above 10 %; measure again on an idle machine."] if record.unstable else []
    title = f"Latency of {record.model.name}: {_setting(record)}"
    rows = [[row[0].strip(), *row[1:]] for row in _rows(record)]
    return Table(f"latency-{record.model.name}", title, HEADERS, rows, _origin(record), notes)


def _csv(record: LatencyRecord) -> str:
    """One line per row of the table, with the columns signature, version and n."""
    import pandas as pd

    from avbench.pages.formats import csv_text

    ((_, signature),) = _origin(record).signatures
    shared = {"mode": record.mode, "device": record.device, "ratio_to_snapshot": record.ratio_to_snapshot}
    rows = [
        {"row": label.strip(), "n": t.n, "p50_ms": t.p50_ms, "p90_ms": t.p90_ms, "p99_ms": t.p99_ms}
        | {"iqr_over_median": t.iqr_over_median, **shared, "signature": signature, "version": record.avbench_version}
        for label, t in _timed(record)
    ]
    return csv_text(pd.DataFrame(rows))
