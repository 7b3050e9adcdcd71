"""``avbench leaderboard``: build the site, export it, review pull requests, make blind sets and audit models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import Progress, add_command, add_force, say

if TYPE_CHECKING:
    from avbench.leaderboard.audit import Audit
    from avbench.leaderboard.entries import Entry, Refused

REVIEW = "review.md"


def add(commands: Any) -> None:
    """Adds ``avbench leaderboard`` and its verbs."""
    leaderboard = commands.add_parser(
        "leaderboard",
        help="build the leaderboard, make blind sets, audit models",
        description="Commands for the maintainers of the leaderboard.",
    )
    verbs = leaderboard.add_subparsers(metavar="VERB", required=True)
    _add_build(verbs)
    _add_publish(verbs)
    _add_export(verbs)
    _add_review(verbs)
    _add_redraw(verbs)
    _add_audit(verbs)


def _add_build(verbs: Any) -> None:
    build = add_command(
        verbs,
        "build",
        _build,
        "check and rank all entries, and write the site",
        "Recomputes every score from the entries' predictions; results are cached for the next build.\n"
        "Each invalid entry is reported on one line and left out; the exit code is then 1.",
        "avbench leaderboard build --entries submissions/entries --out site",
        "avbench leaderboard build --entries submissions/entries --out site --labels blind/labels.json",
    )
    _add_entries(build)
    build.add_argument("--out", type=Path, required=True, metavar="SITE", help="a new folder, or an earlier site")
    build.add_argument("--decisions", type=Path, metavar="FILE", help="the decisions log (default: the built-in one)")
    build.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    build.add_argument("--title", metavar="TEXT", help="of the board")
    build.add_argument("--site-url", default="", metavar="URL", help="where it will stand: links to it get a picture")
    build.add_argument("--repo-url", default="", metavar="URL", help="where entries are sent")
    build.add_argument("--contact", default="", metavar="TEXT", help="an address for questions, shown on the board")


def _add_publish(verbs: Any) -> None:
    publish = add_command(
        verbs,
        "publish",
        _publish,
        "publish a built site as a static Space of the Hugging Face Hub",
        "Makes the Space if there is none; files of an earlier site are replaced or removed, in one commit.\n"
        "Log in with `hf auth login` or set HF_TOKEN.",
        "avbench leaderboard build --entries submissions/entries --out site",
        "avbench leaderboard publish --space ORG/NAME --site site",
    )
    publish.add_argument("--space", required=True, metavar="ORG/NAME", help="the Space on the Hub")
    publish.add_argument("--site", type=Path, default=Path("site"), metavar="SITE", help="(default: site)")
    publish.add_argument("--title", default="avbench leaderboard", metavar="TEXT", help="of the Space")
    publish.add_argument("--endpoint", metavar="URL", help="another hub (default: $HF_ENDPOINT or huggingface.co)")


def _add_export(verbs: Any) -> None:
    export = add_command(
        verbs,
        "export",
        _export,
        "write the entries as CSV, for the Hugging Face Hub or for Every Eval Ever",
        "Exports the recomputed scores. eval-results: files for model cards on the Hub; eval-yaml: the file that makes "
        "a data set there a benchmark; every-eval-ever: records of its schema 0.3.0.",
        "avbench leaderboard export --entries submissions/entries --format csv --out board.csv",
        "avbench leaderboard export --entries submissions/entries --format eval-results --dataset ORG/NAME --out cards",
        "avbench leaderboard export --entries submissions/entries --format eval-yaml --out eval.yaml",
        "avbench leaderboard export --entries submissions/entries --format every-eval-ever --out records",
    )
    _add_entries(export)
    formats = ("csv", "eval-results", "eval-yaml", "every-eval-ever")
    export.add_argument("--format", choices=formats, required=True)
    export.add_argument("--out", type=Path, required=True, metavar="PATH", help="a file (csv, eval-yaml) or a folder")
    export.add_argument("--dataset", metavar="ORG/NAME", help="eval-results: the benchmark's dataset on the Hub")
    export.add_argument("--url", help="eval-results: the address of the leaderboard")
    add_force(export)


def _add_review(verbs: Any) -> None:
    review = add_command(
        verbs,
        "review",
        _review,
        "check the entries that a pull request adds or changes",
        "Writes DIR/review.md, to post as a comment. No code from the entries is run. Exit code 2: not acceptable.",
        "avbench leaderboard review --base main/submissions/entries --entries pr/submissions/entries --out review",
    )
    review.add_argument("--base", type=Path, required=True, metavar="DIR", help="the accepted entries")
    review.add_argument("--entries", type=Path, required=True, metavar="DIR", help="the pull request's entries")
    review.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_force(review)


def _add_entries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--entries", type=Path, required=True, metavar="DIR", help="contains <org>__<name>/<revision>/<track>"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labels of a blind track, to rank its entries too")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="(default: in $AVBENCH_CACHE or ~/.cache)")
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")


def _add_redraw(verbs: Any) -> None:
    redraw = add_command(
        verbs,
        "redraw",
        _redraw,
        "make a blind set of a track: the same scenes, new offsets (or laws, where offsets change)",
        "DIR/inputs is for submitters: the offsets are in the media and written nowhere. Keep DIR/labels.json secret.",
        "avbench leaderboard redraw --track synthsync-test --out blind",
        "avbench leaderboard redraw --track synthsync-test --seed 7 --out try   # reproducible, so not secret",
        "avbench run --model streamsync-trf --data blind/inputs --out blind-run",
        "avbench leaderboard redraw --track synthsync-dynamic-test --out blind",
        "avbench run --model sparsesync+bayes --data blind/inputs --protocol dynamic --out blind-run",
    )
    redraw.add_argument("--track", required=True, metavar="T", help="a name from `avbench submit tracks`")
    redraw.add_argument("--seed", type=int, metavar="N", help="to make the same set again (default: random and secret)")
    redraw.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    redraw.add_argument(
        "--fresh-scenes", action="store_true", help="use scenes that were never published; an audit cannot pair them"
    )
    redraw.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")


def _add_audit(verbs: Any) -> None:
    audit = add_command(
        verbs,
        "audit",
        _audit,
        "test for memorised labels",
        "Compares a model's scores under the public offsets and under redrawn ones, paired. Exit code 1: memorised.",
        "avbench leaderboard audit runs/official runs/redrawn --labels blind/labels.json",
    )
    audit.add_argument("official", type=Path, metavar="OFFICIAL", help="a run or submission on the public track")
    audit.add_argument("redrawn", type=Path, metavar="REDRAWN", help="the same model's on the redrawn set")
    audit.add_argument("--labels", type=Path, required=True, metavar="FILE", help="labels.json of the redrawn set")
    audit.add_argument("--n-resamples", type=int, default=2000, metavar="N", help="bootstrap resamples (default: 2000)")
    audit.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _build(args: argparse.Namespace) -> int:
    from avbench.leaderboard.board import assemble, read_decisions
    from avbench.leaderboard.site import INDEX, About, check_out, write_site

    given = {} if args.title is None else {"title": args.title}
    about = About(url=args.site_url, repo_url=args.repo_url, contact=args.contact, **given).checked()
    check_out(args.out)  # before anything is computed
    decisions = read_decisions(args.decisions)
    entries, refused = _read(args)
    board = assemble(entries, _cache(args), decisions)
    write_site(board, args.out, about)
    if args.json:
        facts = {"site": str(args.out), "entries": len(board.rows), "refused": [list(entry) for entry in refused]}
        print(json.dumps(facts, indent=2))
    else:
        for table in board.tracks:
            print(f"{table.track.name}: {_groups(len(table.rows), len({row.ranked.rank for row in table.rows}))}")
        print(f"site    {args.out / INDEX}")
    return 1 if refused else 0


def _groups(n_entries: int, n_ranks: int) -> str:
    if n_entries < 2:
        return "1 entry" if n_entries else "no entry"
    told = "that can be told apart" if n_ranks > 1 else "that cannot be told apart"
    return f"{n_entries} entries {f'in {n_ranks} groups ' if n_ranks > 1 else ''}{told}"


def _publish(args: argparse.Namespace) -> int:
    from avbench.leaderboard.publish import publish

    print(publish(args.site, args.space, args.title, args.endpoint))
    return 0


def _export(args: argparse.Namespace) -> int:
    from avbench.leaderboard.board import assemble
    from avbench.leaderboard.export import write_csv, write_eval_results, write_eval_yaml, write_every_eval_ever
    from avbench.system.outputs import check_file, check_folder
    from avbench.types import UsageError

    if args.format == "eval-results" and not args.dataset:
        raise UsageError("--format eval-results needs the benchmark's dataset on the Hub: give --dataset ORG/NAME")
    if args.format in ("csv", "eval-yaml"):
        check_file(args.out, "--out", args.force)
    else:
        check_folder(args.out, args.force)
    entries, refused = _read(args)
    board = assemble(entries, _cache(args))
    if args.format == "csv":
        files = [write_csv(board, args.out)]
    elif args.format == "eval-yaml":
        files = [write_eval_yaml(board, args.out)]
    elif args.format == "every-eval-ever":
        files = write_every_eval_ever(board, args.out)
    else:
        files = write_eval_results(board, args.out, args.dataset, args.url)
    print("\n".join(map(str, files)))
    return 1 if refused else 0


def _review(args: argparse.Namespace) -> int:
    from avbench.leaderboard.review import review, to_markdown
    from avbench.system.outputs import check_file, check_folder
    from avbench.system.strict import write_whole

    check_folder(args.out, args.force, ours=REVIEW.__eq__)
    check_file(args.out / REVIEW, "--out", args.force)
    found = review(args.base, args.entries)
    text = to_markdown(found)
    write_whole(args.out / REVIEW, text.encode())
    print(text, end="")
    return 0 if found.ok else 2


def _read(args: argparse.Namespace) -> tuple[list[Entry], list[Refused]]:
    """The entries that ``_add_entries``'s options name; those refused are named on stderr."""
    from avbench.leaderboard.entries import read_entries
    from avbench.submissions.tracks import read_labels
    from avbench.system.outputs import held_in
    from avbench.types import UsageError

    _check_workers(args)
    if args.labels is not None:
        read_labels(args.labels)  # a wrong file is said, even if no entry needs it
    with Progress() as progress:
        entries, refused = read_entries(args.entries, _cache(args), args.labels, args.workers, progress.of("entries"))
    for folder, reason in refused:
        say(f"refused: {folder}: {reason}")
    others = [name for name in held_in(args.entries) if not name.startswith("README")]
    if others and not entries and not refused:  # an empty folder is a board before its first entry
        raise UsageError(f"{args.entries} holds no entries; they are folders <org>__<name>/<revision>/<track> in it")
    return entries, refused


def _check_workers(args: argparse.Namespace) -> None:
    from avbench.types import UsageError

    if args.workers is not None and args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")


def _cache(args: argparse.Namespace) -> Path:
    from avbench.system.cache import cache_root

    return args.cache or cache_root() / "leaderboard"


def _redraw(args: argparse.Namespace) -> int:
    import secrets

    from avbench.leaderboard.redraw import GUESSABLE_SEED, redraw

    _check_workers(args)
    seed = secrets.randbits(128) if args.seed is None else args.seed
    if 0 <= seed < GUESSABLE_SEED:
        say("note: a seed this small can be guessed, and so can the labels; for a secret set, leave out --seed")
    with Progress() as progress:
        made = redraw(args.track, seed, args.out, args.fresh_scenes, args.workers, progress.of("making blind clips"))
    print(f"track   {made.track}: {made.n_segments} segments")
    print(f"inputs  {made.inputs}   for submitters; the offsets are in the media")
    print(f"labels  {made.labels}   keep it secret; `avbench submit check FOLDER --labels {made.labels}`")
    print(f"next    {made.command}")
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
    from avbench.leaderboard.audit import LEVEL
    from avbench.pages.tables import numbers
    from avbench.scoring.dynamic import SHOWN
    from avbench.scoring.metrics import METRICS

    rows = []
    for name, difference in found.differences.items():
        interval = f"{difference['ci_low']:+.3f} ... {difference['ci_high']:+.3f}"
        cells = (f"{found.official[name]:.3f}", f"{found.redrawn[name]:.3f}", f"{difference['difference']:+.3f}")
        title = (METRICS | SHOWN)[name].title
        rows.append((title, *cells, interval, "*" if name in found.deciding else ""))
    headers = ("", "official", "redrawn", "difference", f"{100 * LEVEL:g} % interval", "")
    table = "\n".join(numbers(rows, headers))
    if found.memorised:
        verdict = "MEMORISED: significantly better under the public offsets"
    elif found.consistent:
        verdict = "consistent: no significant difference between public and redrawn offsets"
    else:
        verdict = "not memorised, but significantly better on the redrawn set; inspect"
    return f"{found.model}: {found.n_segments} segments under both offsets\n{table}\n* decides the verdict\n{verdict}"
