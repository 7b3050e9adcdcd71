"""``avbench compare``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_csv,
    add_force,
    add_format,
    bootstrap_of,
    check_files,
    check_format,
    print_as,
    put_before,
    say,
    say_files,
    write_csv,
)

if TYPE_CHECKING:
    from avbench.scoring.matrix import Comparisons, Matrix


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    parser = add_command(
        commands,
        "compare",
        _compare,
        "test whether runs or leaderboard entries differ, metric by metric",
        "Differences are paired over the same resampled videos. The runs may differ in the model only: another\n"
        "protocol, data set or avbench version is refused (entries of the board may be of another version).\n"
        "With three or more: a matrix, row minus column, over the segments that all have scored; p-values are\n"
        "corrected for the number of pairs by Holm's method.",
        "avbench compare runs/2026-11-25-streamsync-trf runs/2026-11-25-apa-sparsesync",
        "avbench compare RUN_A RUN_B RUN_C --page compare.html",
        "avbench compare RUN board:avbench/streamsync-trf board:avbench/xcorr --metrics map acc",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="two or more: a folder that `avbench run` wrote, the folder of an entry, or board:ORG/NAME[@REVISION]",
    )
    parser.add_argument(
        "--entries",
        type=Path,
        metavar="DIR",
        help="where board:ORG/NAME is looked up (default: submissions/entries here, in a folder above, or in the clone "
        "that avbench was installed from)",
    )
    parser.add_argument("--track", metavar="NAME", help="which entries are meant, if only such of the board are named")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="what is shown: names such as map, main, or all (default: all; the text, the tables and the plot of more "
        "than two runs have the main one: mAP, or the recovery where offsets change)",
    )
    parser.add_argument("--data", help="take the labels from this data instead of the runs' own files")
    parser.add_argument(
        "--n-resamples",
        type=int,
        metavar="N",
        help="bootstrap resamples (default: 1000, or as many as so many pairs need, up to 20000)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="bootstrap seed (default: 0)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page: matrices and forest charts")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw each model minus the best as FILE.svg, .png or .pdf"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with one member per metric")
    add_format(parser)
    add_csv(parser, "per metric and pair")
    add_force(parser)


def _compare(args: argparse.Namespace) -> int:
    from avbench.runs.compare import compare_all
    from avbench.submissions.as_run import BOARD, opened
    from avbench.system.strict import write_whole
    from avbench.types import UsageError

    check_format(args)
    check_files(args)
    enough = args.n_resamples is None
    args.n_resamples = 1000 if enough else args.n_resamples
    bootstrap = bootstrap_of(args)
    put_before("--metrics", args.metrics or [], "a run", lambda word: word.startswith(BOARD) or Path(word).exists())
    if len(args.runs) < 2:
        raise UsageError(f"there is nothing to compare {args.runs[0]} with: name two runs or more")
    runs = opened(args.runs, _entries(args), args.track)
    _refuse_twice(args.runs)
    with Progress() as progress:
        found = compare_all(runs, args.data, bootstrap, progress, enough)
    every, few = found.chosen(args.metrics or ["all"]), found.chosen(args.metrics or ["main"])
    found = replace(found, metrics={matrix.column.name: matrix for matrix in every})
    if args.page is not None:
        from avbench.pages.compare_page import compare_page

        write_whole(args.page, compare_page(found, every).encode("utf-8", "replace"))
    if args.plot is not None:
        from avbench.pages.compare_plot import plot_compared

        plot_compared(found, few, args.plot)
    _print(args, found, few)
    return 0


def _refuse_twice(names: Sequence[str]) -> None:
    """``UsageError`` if two names are of one run."""
    from avbench.results.run import RUN_FILE
    from avbench.submissions.as_run import BOARD
    from avbench.types import UsageError

    seen: dict[str, str] = {}
    for name in names:
        path = Path(name)
        own = name if name.startswith(BOARD) else str((path.parent if path.name == RUN_FILE else path).resolve())
        if own in seen:
            raise UsageError(f"{seen[own]} and {name} are the same run twice: there is nothing to compare in it")
        seen[own] = name


def _entries(args: argparse.Namespace) -> Path | None:
    """Where entries of the board are looked up, None if none is named; said where nobody named it."""
    from avbench.submissions.as_run import BOARD
    from avbench.submissions.clone import ENTRIES, entries_folder

    named = [name for name in args.runs if name.startswith(BOARD)]
    if args.entries is not None or not named:
        return args.entries  # type: ignore[no-any-return]
    folder = entries_folder(named[0])
    if folder != ENTRIES:
        say(f"board: {folder}")
    return folder


def _print(args: argparse.Namespace, found: Comparisons, few: list[Matrix]) -> None:
    """Two runs metric by metric, more as a matrix of each of ``few``."""
    from avbench.pages import compare_text
    from avbench.runs.compare import first_two, render, table, to_csv

    if len(found.runs) > 2:
        if args.csv:
            write_csv(found.frame(), args.csv)
        print_as(
            args,
            text=lambda: compare_text.render(found, few),
            tables=lambda: compare_text.tables(found, few),
            csv=lambda: compare_text.to_csv(found),
            json=lambda: json.dumps(found.to_json(), indent=1, allow_nan=False),
        )
        say_files(args)
        return
    two = first_two(found)
    if args.csv:
        write_csv(two.frame(), args.csv)
    print_as(
        args,
        text=lambda: render(two),
        tables=lambda: [table(two)],
        csv=lambda: to_csv(two),
        json=lambda: json.dumps(two.to_json(), indent=1, allow_nan=False),
    )
    say_files(args)
