"""``avbench compare``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_csv,
    add_format,
    bootstrap_of,
    check_csv,
    check_format,
    print_as,
    write_csv,
)


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    parser = add_command(
        commands,
        "compare",
        _compare,
        "test whether two runs differ, metric by metric",
        "Differences are paired over the same resampled videos. The runs may differ in the model only: another\n"
        "protocol, data set or avbench version is refused.",
        "avbench compare runs/2026-11-25-streamsync-trf runs/2026-11-25-apa-sparsesync",
        "avbench compare RUN_A RUN_B --json",
    )
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="a folder that `avbench run` wrote")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="the run to compare it with")
    parser.add_argument("--data", help="take the labels from this data instead of the runs' own files")
    parser.add_argument(
        "--n-resamples", type=int, default=1000, metavar="N", help="bootstrap resamples (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="bootstrap seed (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with one member per metric")
    add_format(parser)
    add_csv(parser, "per metric")


def _compare(args: argparse.Namespace) -> int:
    from avbench.runs.compare import compare, render, table, to_csv

    check_format(args)
    check_csv(args.csv)
    bootstrap = bootstrap_of(args)
    with Progress() as progress:
        found = compare(args.run_a, args.run_b, data=args.data, bootstrap=bootstrap, progress=progress)
    if args.csv:
        write_csv(found.frame(), args.csv)
    print_as(
        args,
        text=lambda: render(found),
        tables=lambda: [table(found)],
        csv=lambda: to_csv(found),
        json=lambda: json.dumps(found.to_json(), indent=1, allow_nan=False),
    )
    return 0
