"""``avbench latency``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_compute_options,
    add_force,
    add_model_options,
    device_of,
    hop_s,
    model_options,
    one_window,
    say,
    say_each,
)

if TYPE_CHECKING:
    from avbench.latency.record import LatencyRecord, Timing

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
    add_model_options(parser)


def _latency(args: argparse.Namespace) -> int:
    from avbench.latency.measure import measure
    from avbench.latency.modes import Request
    from avbench.latency.record import latency_file, write_latency
    from avbench.system.outputs import check_file

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
    print(record.to_json() if args.json else _text(record), end="" if args.json else "\n")
    if path:
        say(f"written: {path}")
    return 0 if record.audits_passed else 1


def _text(record: LatencyRecord) -> str:
    from tabulate import tabulate

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    def row(label: str, times: LatencyRecord | Timing) -> list[Any]:
        percentiles = (cell(ms) for ms in (times.p50_ms, times.p90_ms, times.p99_ms))
        return [label, times.n, *percentiles, f"{times.iqr_over_median:.0%}"]

    others = [(k, times) for k, times in record.by_iteration.items() if k != str(record.iteration)]
    rows = [
        row(record.model.name, record),
        *(row(f"  iteration {k}", times) for k, times in others),
        row(f"{record.reference} (reference)", record.snapshot),
    ]
    where = record.environment.get("gpu") or record.environment.get("cpu")
    threads = f"{record.threads} thread{'s' * (record.threads > 1)}"
    setting = f"{record.device}, {threads}, {record.model.dtype}, batch 1, iteration {record.iteration}"
    lines = [
        f"{record.mode} · {where} · {setting}",
        tabulate(
            rows, ["", "n", "p50 (ms)", "p90 (ms)", "p99 (ms)", "spread"], tablefmt="plain", disable_numparse=True
        ),
        f"ratio to the {record.reference} snapshot  {record.ratio_to_snapshot:.2f}",
    ]
    if record.realtime_factor is not None:
        lines.append(f"real-time factor  {record.realtime_factor:.1f} s of stream per second")
    if record.streams is not None:
        lines.append(f"streams within a hop of {record.hop_s:g} s  {record.streams}")
    lines += [f"audit {name}: {'passed' if a.ok else 'FAILED'}, {a.text}" for name, a in record.audits.items()]
    if record.unstable:
        lines.append(
            "UNSTABLE: the spread (interquartile range over median) is above 10 %; measure again on an idle machine"
        )
    return "\n".join(lines)
