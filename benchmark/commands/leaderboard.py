"""``avbench leaderboard``: blind sets and their audit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import Progress, add_command, say

if TYPE_CHECKING:
    from avbench.leaderboard.audit import Audit


def add(commands: Any) -> None:
    leaderboard = commands.add_parser(
        "leaderboard", help="blind sets and audits", description="What the leaderboard's maintainers do."
    )
    verbs = leaderboard.add_subparsers(metavar="VERB", required=True)
    _add_redraw(verbs)
    _add_audit(verbs)


def _add_redraw(verbs: Any) -> None:
    redraw = add_command(
        verbs,
        "redraw",
        _redraw,
        "make a blind set of a track: the same scenes, new offsets",
        "DIR/inputs is for submitters: the offsets are in the media and nowhere told. DIR/labels.json is to be kept.",
        "avbench leaderboard redraw --track synthsync-test --out blind",
        "avbench leaderboard redraw --track synthsync-test --seed 7 --out try   # the same again: not for a secret",
        "avbench run --model streamsync-trf --data blind/inputs --out blind-run",
    )
    redraw.add_argument("--track", required=True, metavar="T", help="of `avbench submit tracks`")
    redraw.add_argument(
        "--seed", type=int, metavar="N", help="the same set again (default: drawn at random, kept secret)"
    )
    redraw.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    redraw.add_argument(
        "--fresh-scenes", action="store_true", help="scenes never published; cannot be paired in an audit"
    )
    redraw.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")


def _add_audit(verbs: Any) -> None:
    audit = add_command(
        verbs,
        "audit",
        _audit,
        "does a model know the public labels by heart?",
        "Compares its scores under the public offsets and under redrawn ones, paired. Exit code 1: it does.",
        "avbench leaderboard audit runs/official runs/redrawn --labels blind/labels.json",
    )
    audit.add_argument("official", type=Path, metavar="OFFICIAL", help="a run's or a submission's folder, public track")
    audit.add_argument("redrawn", type=Path, metavar="REDRAWN", help="the same model's on the redrawn set")
    audit.add_argument("--labels", type=Path, required=True, metavar="FILE", help="labels.json of the redrawn set")
    audit.add_argument("--n-resamples", type=int, default=2000, metavar="N", help="of the bootstrap (default: 2000)")
    audit.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def _redraw(args: argparse.Namespace) -> int:
    import secrets

    from avbench.leaderboard.redraw import GUESSABLE_SEED, redraw
    from avbench.types import UsageError

    if args.workers is not None and args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")
    seed = secrets.randbits(128) if args.seed is None else args.seed
    if seed < GUESSABLE_SEED:
        say("note: so small a seed can be guessed, and the labels with it; for a secret set leave --seed out")
    with Progress() as progress:
        made = redraw(args.track, seed, args.out, args.fresh_scenes, args.workers, progress.of("making blind clips"))
    print(f"track   {made.track}: {made.n_segments} segments")
    print(f"inputs  {made.inputs}   for submitters; the offsets are in the media")
    print(f"labels  {made.labels}   keep it; `avbench submit check FOLDER --labels {made.labels}`")
    print(f"next    avbench run --model MODEL --data {made.inputs}")
    return 0


def _audit(args: argparse.Namespace) -> int:
    from avbench.leaderboard.audit import audit, read_official, read_redrawn
    from avbench.types import UsageError

    if args.n_resamples < 1:
        raise UsageError(f"n_resamples is {args.n_resamples}; it must be at least 1")
    redrawn, base = read_redrawn(args.redrawn, args.labels)
    found = audit(read_official(args.official, base), redrawn, args.n_resamples)
    print(json.dumps(found.to_json(), indent=2) if args.json else _table(found))
    return 1 if found.memorised else 0


def _table(found: Audit) -> str:
    from tabulate import tabulate

    from avbench.leaderboard.audit import DECIDING, LEVEL
    from avbench.metrics import METRICS

    rows = []
    for name, difference in found.differences.items():
        interval = f"{difference['ci_low']:+.3f} ... {difference['ci_high']:+.3f}"
        cells = (f"{found.official[name]:.3f}", f"{found.redrawn[name]:.3f}", f"{difference['difference']:+.3f}")
        rows.append((METRICS[name].title, *cells, interval, "*" if name in DECIDING else ""))
    headers = ("", "official", "redrawn", "difference", f"{100 * LEVEL:g} % interval", "")
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    if found.memorised:
        verdict = "MEMORISED: it is better under the public offsets than chance allows"
    elif found.consistent:
        verdict = "consistent: what it knows does not depend on the public labels"
    else:
        verdict = "not memorised, but the redrawn set suits it better than chance allows: look at it"
    return f"{found.model}: {found.n_segments} segments under both offsets\n{table}\n* decides\n{verdict}"
