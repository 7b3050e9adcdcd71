"""``avbench submit``: pack a run, check a submission, push it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import add_command, say

_FOLDER = "<org>__<name>/<revision>/<track>, or a folder with that alone in it, as `pack --out` makes it"

if TYPE_CHECKING:
    from avbench.submissions.check import Report


def add(commands: Any) -> None:
    """Adds ``avbench submit`` and its verbs."""
    submit = commands.add_parser(
        "submit",
        help="pack a run, check a submission, push it",
        description="Pack a run, check a submission, push it. Scores are always recomputed from the predictions.",
    )
    verbs = submit.add_subparsers(metavar="VERB", required=True)
    _add_pack(verbs)
    _add_check(verbs)
    _add_push(verbs)
    tracks = add_command(verbs, "tracks", _tracks, "list the tracks to submit to", "", "avbench submit tracks")
    tracks.add_argument("--json", action="store_true", help="print a JSON list")


def _add_pack(verbs: Any) -> None:
    pack = add_command(
        verbs,
        "pack",
        _pack,
        "make a submission from a run",
        "Prints the folder made: DIR/<org>__<name>/<revision>/<track>.",
        "avbench submit pack runs/2026-11-24-streamsync-trf --out my_submission --org acme --name streamsync-trf",
        "avbench submit pack RUN --out DIR --org acme --name my-net --card card.json --revision v2",
    )
    pack.add_argument("run", type=Path, metavar="RUN_DIR", help="the output folder of `avbench run`")
    pack.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to make the submission's folder")
    pack.add_argument("--org", required=True, help="short name of your organisation, or your own")
    pack.add_argument("--name", required=True, help="the model's name on the leaderboard")
    pack.add_argument("--card", type=Path, metavar="FILE", help="JSON file with the fields below; options override it")
    pack.add_argument("--revision", help="(default: the start of the model's fingerprint)")
    pack.add_argument("--description", help="one or two sentences")
    pack.add_argument("--paper-url", metavar="URL")
    pack.add_argument("--code-url", metavar="URL")
    pack.add_argument("--parameters", type=int, metavar="N", help="number of parameters of the model")
    pack.add_argument(
        "--training-data", choices=("none", "declared", "undeclared"), help="(default: what the model declares)"
    )
    pack.add_argument("--dataset", action="append", metavar="TEXT", help="a training data set; repeat for several")
    pack.add_argument("--contact", metavar="TEXT", help="shown publicly")
    pack.add_argument("--licence", metavar="TEXT", help="of the model")
    pack.add_argument("--latency", type=Path, metavar="FILE", help="a latency.json to add")


def _add_check(verbs: Any) -> None:
    check = add_command(
        verbs,
        "check",
        _check,
        "check a submission and recompute its scores",
        "Checks format, hashes and completeness, then shows the recomputed scores beside the claimed ones.",
        "avbench submit check my_submission/acme__streamsync-trf/1f3a55e0c9d2/synthsync-test",
        "avbench submit check FOLDER --labels labels.json --json",
    )
    check.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help=_FOLDER,
    )
    check.add_argument("--labels", type=Path, metavar="FILE", help="labels of a blind track (maintainers only)")
    check.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="bootstrap resamples (default: 1000)")
    check.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _add_push(verbs: Any) -> None:
    push = add_command(
        verbs,
        "push",
        _push,
        "open a pull request with a submission",
        "Opens it on a dataset repository of the Hugging Face Hub and prints its address.\n"
        "Log in with `hf auth login` or set HF_TOKEN.",
        "avbench submit push my_submission/acme__streamsync-trf/1f3a55e0c9d2/synthsync-test --repo org/results",
    )
    push.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help=_FOLDER,
    )
    push.add_argument("--repo", required=True, metavar="ORG/NAME", help="the dataset repository of the results")
    push.add_argument("--endpoint", metavar="URL", help="another hub (default: HF_ENDPOINT, or the public one)")


def _pack(args: argparse.Namespace) -> int:
    from avbench.submissions.format import Problem, ValidationError
    from avbench.submissions.pack import pack, read_card

    card = read_card(args.card) if args.card else {}
    for name in ("revision", "description", "paper_url", "code_url", "parameters", "contact", "licence"):
        if getattr(args, name) is not None:
            card[name] = getattr(args, name)
    if args.training_data or args.dataset:
        card["training_data"] = {"status": args.training_data or "declared", "datasets": args.dataset or []}
    try:
        print(pack(args.run, args.out, args.org, args.name, card, args.latency))
    except ValidationError as error:
        raise ValidationError(Problem(_as_given(p.field, args), p.message) for p in error.problems) from None
    return 0


def _as_given(field: str, args: argparse.Namespace) -> str:
    """A field as the option that gave it, if one did."""
    part, _, name = field.partition(".")
    if part == "latency":
        return " ".join(["--latency", name]).strip()
    name = name.partition(".")[0]
    return f"--{name.replace('_', '-')}" if part == "card" and getattr(args, name, None) is not None else field


def _check(args: argparse.Namespace) -> int:
    from avbench.submissions.check import check
    from avbench.submissions.format import find_submission
    from avbench.types import UsageError

    if args.n_resamples < 0:
        raise UsageError(f"n_resamples is {args.n_resamples}; it must be 0 (no intervals) or more")
    folder = find_submission(args.folder)
    report = check(folder, args.labels, args.n_resamples)
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
        return 0 if report.ok else 2
    if report.recomputed:
        print(_table(report))
    if not report.ok:
        from avbench.submissions.format import ValidationError

        sys.stdout.flush()  # the table comes before the error
        raise ValidationError(report.errors)
    _say_valid(report, folder)
    return 0


def _say_valid(report: Report, folder: Path) -> None:
    """The verdict, what comes next, and what readers of the board will miss."""
    assert report.entry is not None
    card = report.entry.submission.card
    lacking = [name for name in ("description", "licence", "contact") if not getattr(card, name)]
    print(f"valid: {report.entry.name}; next: {shlex.join(['avbench', 'submit', 'push', str(folder)])} --repo ORG/NAME")
    if lacking:
        options = " ".join(f"--{name}" for name in lacking)
        say(f"note: the board will show no {' and no '.join(lacking)}: `avbench submit pack` takes {options}")


def _table(report: Report) -> str:
    from avbench.pages.tables import numbers
    from avbench.scoring.stats import interval_in_words, too_few
    from avbench.submissions.tracks import measures

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    entry, rows = report.entry, []
    assert entry is not None
    for name, metric in measures(entry.track).items():
        found = report.recomputed[name]
        interval = f"{cell(found.ci_low)} ... {cell(found.ci_high)}"
        claimed = cell(report.claimed[name]) if name in report.claimed else "–"
        rows.append((metric.title, claimed, cell(found.value), interval))
    table = numbers(rows, ("", "claimed", "recomputed", "95 % interval"))
    n, iterations = entry.logits.shape[:2]
    return "\n".join(
        [
            f"{entry.name}: {n} segments x {iterations} iterations",
            *table,
            interval_in_words(0.95) if any(s.ci_low is not None for s in report.recomputed.values()) else too_few(),
            f"track   {entry.track.title}",
            f"signature  {entry.submission.run.signature}",
        ]
    )


def _push(args: argparse.Namespace) -> int:
    from avbench.submissions.format import find_submission
    from avbench.submissions.push import push

    print(push(find_submission(args.folder), args.repo, args.endpoint))
    return 0


def _tracks(args: argparse.Namespace) -> int:
    from avbench.pages.tables import table
    from avbench.submissions.tracks import main_tracks

    tracks = main_tracks()
    if args.json:
        print(json.dumps(tracks, indent=2))
        return 0
    rows = [(t["name"], t["segments"], t["labels"], t["command"]) for t in tracks]
    print(table(rows, ("track", "segments", "labels", "a run for it")))
    return 0
