"""``avbench paper``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_compute_options,
    add_fetch,
    add_force,
    batch_of,
    bootstrap_of,
    device_of,
    fetch_of,
    model_options,
    say,
    say_each,
)


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
    )
    paper.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="table1 ... table6, fig1, fig2, fig4, changing, all"
    )
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


def _paper(args: argparse.Namespace) -> int:
    from avbench.engine.runner import Compute
    from avbench.paper.regenerate import regenerate
    from avbench.paper.replays import summary
    from avbench.paper.write import markdown, verdicts_for_a_terminal

    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        outcome = regenerate(
            args.names,
            out=args.out,
            data=args.data,
            split=args.split,
            limit=args.limit,
            compute=Compute(args.store, args.workers, device_of(args), batch_of(args), **fetch_of(args)),
            bootstrap=bootstrap_of(args),
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
    if args.json:
        print(json.dumps(outcome.facts, indent=1, ensure_ascii=False))
    else:
        few = len(outcome.exhibits) <= 2
        text = "\n".join(markdown(e) for e in outcome.exhibits) if few else verdicts_for_a_terminal(outcome.exhibits)
        print(text)
        if outcome.counters:
            print(f"\n{summary(outcome.counters)} · {outcome.wall_s:.0f} s")
        print(f"files   {args.out}: {len(outcome.files)} files, paper.md shows everything on one page")
    return 1 if outcome.incomplete else 0
