"""``avbench report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands.common import Progress, add_command, add_force, check_files


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    report = add_command(
        commands,
        "report",
        _report,
        "rebuild a run's page from its files",
        "`avbench run` already writes the page; use this if it was lost, or after updating avbench.\n"
        "The clips on it are kept; --data cuts them anew, if it is what the run was computed from.\n"
        "With --plot it draws one stream of a run over changing offsets instead: what was believed, and what was so.\n"
        "Of the folder of `avbench watch --record` it makes the page watch.html: the latest watch in it.",
        "avbench report runs/2026-11-25-streamsync-trf",
        "avbench report RUN_DIR --plot tracked.svg --stream clip_7@10",
        "avbench report RUN_DIR --every-eval-ever record.json --evaluator 'My group' --relationship first_party",
        "avbench report seen   # of avbench watch URL --record seen",
    )
    report.add_argument(
        "run", type=Path, metavar="RUN_DIR", help="a folder that `avbench run` or `watch --record` wrote"
    )
    report.add_argument("--data", metavar="DATA", help="the run's data, as of `avbench run`: cut the page's clips anew")
    report.add_argument("--plot", type=Path, metavar="FILE", help="draw a stream as SVG or PNG, and leave the page")
    report.add_argument("--stream", metavar="ID", help="which one (default: a typical one with a jump)")
    report.add_argument(
        "--every-eval-ever",
        type=Path,
        metavar="FILE",
        help="write the scores as a record of Every Eval Ever (schema 0.3.0), and leave the page",
    )
    report.add_argument("--evaluator", default="unknown", metavar="NAME", help="who evaluated, for that record")
    report.add_argument(
        "--relationship",
        default="other",
        choices=("first_party", "third_party", "collaborative", "other"),
        help="of who evaluated to the model's makers, for that record (default: other)",
    )
    add_force(report)


def _report(args: argparse.Namespace) -> int:
    from avbench.pages.run_report import report_again
    from avbench.runs.watched import is_record, write_watch_page
    from avbench.types import UsageError

    if is_record(args.run):
        if args.plot or args.stream or args.data or args.every_eval_ever:
            raise UsageError(
                "--plot, --stream, --data and --every-eval-ever are for runs, not for the record of a watch"
            )
        print(write_watch_page(args.run))
        return 0

    if args.every_eval_ever:
        return _export(args)
    if args.plot:
        from avbench.pages.stream_plot import plot_stream

        check_files(args)
        print(f"{args.plot}  stream {plot_stream(args.run, args.plot, args.stream)}")
        return 0
    if args.stream:
        raise UsageError("--stream names the stream to draw: add --plot FILE")
    if args.data:
        from avbench.runs.run_clips import cut_again

        with Progress() as progress:
            cut_again(args.run, args.data, progress)
    print(report_again(args.run))
    return 0


def _export(args: argparse.Namespace) -> int:
    import json

    from avbench.pages.every_eval_ever import of_run, record
    from avbench.results.run import read_run
    from avbench.system.outputs import check_file
    from avbench.system.strict import write_whole

    check_file(args.every_eval_ever, "--every-eval-ever", args.force)
    found = record(of_run(read_run(args.run), args.evaluator, args.relationship))
    write_whole(
        args.every_eval_ever, (json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    )
    print(args.every_eval_ever)
    return 0
