"""``avbench paper``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_compute_options,
    add_fetch,
    add_force,
    add_format,
    add_model_args,
    batch_of,
    bootstrap_of,
    by_spaces,
    check_format,
    device_of,
    fetch_of,
    model_options,
    print_as,
    put_before,
    say,
    say_each,
)

if TYPE_CHECKING:
    from avbench.paper.regenerate import Outcome


def add(commands: Any) -> None:
    """Add ``paper`` to the commands."""
    paper = add_command(
        commands,
        "paper",
        _paper,
        "regenerate the paper's tables and figures, with intervals and verdicts",
        "By default on the procedural stand-in whose difficulty was calibrated to the paper's. "
        "All tables are replayed from one store; snapshots that it lacks are computed first, once for all tables. The "
        "paper's numbers are printed separately, and each ordering that the paper claims gets a verdict. NAME: table1 "
        "... table6, fig1, fig2, fig4, changing, or all (default). changing is what the paper expected and did not "
        "measure: whether a learned head reacts faster than averaging when the offset changes. It takes data whose "
        "offsets change (synthsync-dynamic) as they are and imposes laws on the clips of others.",
        "avbench paper all --out paper",
        "avbench paper table3 --data synthsync-hard-full --out paper-full",
        "avbench paper table4 fig4 --data my_manifest --split test",
        "avbench paper changing --data synthsync-dynamic",
        "avbench paper table3 table4 fig4 --model my_net.py:MyNet+apa",
        "avbench paper table3 --format latex",
    )
    paper.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="table1 ... table6, fig1, fig2, fig4, changing, all"
    )
    paper.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="M",
        help="your own models, named as in `run`: a marked row each in Tables 3, 4, 6, Figures 2, 4 and changing",
    )
    add_model_args(paper)
    paper.add_argument("--out", type=Path, default=Path("paper"), metavar="DIR", help="output folder (default: paper)")
    paper.add_argument(
        "--data",
        default="synthsync-hard",
        help="a name of `avbench data ls` (default: synthsync-hard), folder or hub:ORG/NAME@COMMIT",
    )
    paper.add_argument("--split", default="test", help="split to score (default: test)")
    paper.add_argument("--limit", type=int, metavar="N", help="only the first N segments")
    paper.add_argument("--store", type=Path, metavar="DIR", help="store of the snapshots (default: as in `run`)")
    paper.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    paper.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="bootstrap resamples (default: 1000)")
    paper.add_argument("--seed", type=int, default=0, metavar="N", help="seed of bootstrap and guesses (default: 0)")
    paper.add_argument(
        "--latency-samples",
        type=int,
        default=30,
        metavar="N",
        help="steps timed for Table 3's ms, 0: none (default: 30)",
    )
    add_fetch(paper)
    add_compute_options(paper)
    add_force(paper)
    paper.add_argument("--json", action="store_true", help="print only paper.json")
    add_format(paper)


def _paper(args: argparse.Namespace) -> int:
    from avbench.engine.runner import Compute
    from avbench.paper.exhibits import NAMES
    from avbench.paper.regenerate import ALL, regenerate
    from avbench.paper.write import csv_of_all, tables

    check_format(args)
    by_spaces("--model", args.model)
    for option, words in (("--model", args.model), ("--model-args", args.model_args)):
        put_before(option, words, "an exhibit", lambda word: word in (*NAMES, ALL))
    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        outcome = regenerate(
            args.names,
            out=args.out,
            data=args.data,
            split=args.split,
            limit=args.limit,
            compute=Compute(args.store, args.workers, device_of(args), batch_of(args), **fetch_of(args)),
            bootstrap=bootstrap_of(args),
            own=args.model,
            latency_samples=args.latency_samples,
            options=model_options(args),
            progress=progress,
            force=args.force,
        )
    say_each("note", outcome.warnings)
    failed = Counter(f"clip {failure.clip_id}: {failure.reason}" for failure in outcome.failures)
    say_each("failed", [f"{reason} ({n} segment{'s' * (n > 1)})" for reason, n in failed.items()])
    if outcome.incomplete:
        n = len({failure.segment_id for failure in outcome.failures})
        say(f"INCOMPLETE: {n} segments failed and are excluded from every replayed table")
    print_as(
        args,
        text=lambda: _text(outcome, args.out),
        tables=lambda: [table for exhibit in outcome.exhibits for table in tables(exhibit)],
        csv=lambda: csv_of_all(outcome.exhibits),
        json=lambda: json.dumps(outcome.facts, indent=1, ensure_ascii=False),
    )
    return 1 if outcome.incomplete else 0


def _text(outcome: Outcome, out: Path) -> str:
    """One or two tables whole, else the verdicts."""
    from avbench.paper.replays import summary
    from avbench.paper.write import plain, verdicts_for_a_terminal

    few = len(outcome.exhibits) <= 2
    lines = ["\n\n".join(map(plain, outcome.exhibits)) if few else verdicts_for_a_terminal(outcome.exhibits)]
    lines += [] if few else list(dict.fromkeys(exhibit.few for exhibit in outcome.exhibits if exhibit.few))
    lines += [f"\n{summary(outcome.counters)} · {outcome.wall_s:.0f} s"] if outcome.counters else []
    where = f"{out}: {len(outcome.files)} files, index.html shows everything on one page, paper.md the same as Markdown"
    return "\n".join([*lines, f"files   {where}"])
