"""``avbench score``: label-free figures of files and folders."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    SIGN,
    Progress,
    add_command,
    add_compute_options,
    add_csv,
    add_force,
    add_model_options,
    batch_of,
    bootstrap_of,
    check_files,
    complain,
    device_of,
    model_options,
    say_each,
    say_files,
    show,
    workers_of,
    write_csv,
)

if TYPE_CHECKING:
    from avbench.scoring.figures import FileFigures

DEFAULT_METRICS = "desync.first-last,desync.consecutive"
NAMES = ("score.json", "score.csv", "score.html")  # in --out


def add(commands: Any) -> None:  # one option after the other
    """Add ``score`` to the commands."""
    score = add_command(
        commands,
        "score",
        _score,
        "label-free figures of files: DeSync in two variants, LSE, the believed offset",
        "How well sound fits the pictures of generated or other video, by the published definitions, per file and in "
        "all, with intervals over files, by published networks, which are downloaded first (`avbench weights fetch "
        "synchformer.audioset`, for lse syncnet.v2). What cannot be measured is listed with the reason; then the exit "
        f"code is 1. --list explains the metrics. {SIGN}",
        "avbench score generated --metrics desync.first-last,desync.consecutive",
        "avbench score generated --reference originals --metrics desync.first-last,lse --out figures",
        "avbench score clip.mp4 --metrics offset --json",
        "avbench score generated --seconds 8   # as much of each file as the published codes read",
    )
    score.add_argument("paths", nargs="*", metavar="FOLDER|FILE", help="folders are searched recursively")
    score.add_argument(
        "--metrics",
        default=DEFAULT_METRICS,
        metavar="A,B",
        help=f"of desync.first-last, desync.consecutive, lse, offset (default: {DEFAULT_METRICS})",
    )
    score.add_argument("--reference", type=Path, metavar="DIR", help="compare with the files of the same names in it")
    score.add_argument("--model", metavar="M", help="the Synchformer (default: synchformer.audioset)")
    score.add_argument("--syncnet", metavar="M", help="the network of lse (default: syncnet.v2)")
    score.add_argument("--boxes", type=Path, metavar="FILE", help="the faces' boxes, for lse")
    score.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="read only the beginning of each file (default: all; lse always reads all)",
    )
    score.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core; 1 on a GPU)")
    score.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    score.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    score.add_argument("--out", type=Path, metavar="DIR", help=f"write {', '.join(NAMES)} into this folder")
    score.add_argument("--page", type=Path, metavar="FILE", help="write a page: means, files, reasons, definitions")
    score.add_argument("--json", action="store_true", help="print the result as one JSON object, and nothing else")
    score.add_argument("--list", action="store_true", help="print the metrics with their definitions")
    add_csv(score, "per file")
    add_force(score)
    add_compute_options(score, batch="auto", each="segments of Synchformer")
    add_model_options(score)


def _score(args: argparse.Namespace) -> int:
    from avbench.pages.score_text import render_metrics, render_scores
    from avbench.runs.figures import METRICS, How, checked_metrics, score_files
    from avbench.types import UsageError

    if args.list:
        show(render_metrics(list(METRICS.values())))
        return 0
    if not args.paths:
        raise UsageError("nothing to score: name a folder or a file, or give --list")
    names = [name.strip() for name in args.metrics.split(",") if name.strip()]
    checked_metrics(names)  # before the work, as the outputs
    _check_outputs(args)
    device = device_of(args)
    how = How(
        model=args.model,
        options=model_options(args),
        syncnet=args.syncnet,
        device=device,
        workers=_workers(args, device),
        length_s=args.seconds,
        boxes=args.boxes,
        batch_size=batch_of(args),
    )
    bootstrap = bootstrap_of(args)
    try:
        # the output of a user's model must not mix with that of --json
        with Progress("file") as progress, contextlib.redirect_stdout(sys.stderr):
            found = score_files(
                args.paths,
                names,
                reference=args.reference,
                how=how,
                besides=args.out,
                bootstrap=bootstrap,
                progress=progress.of("measuring"),
            )
    except KeyboardInterrupt:
        return complain("interrupted; nothing was written", 130)
    _say_problems(found)
    _write(args, found)
    if args.json:
        print(_as_json(found), end="")
    else:
        show(render_scores(found))
    say_files(args, *([args.out / name for name in NAMES] if args.out else []))
    return 0 if found.complete else 1


def _workers(args: argparse.Namespace, device: str) -> int:
    """--workers; one on an accelerator, because each would keep the networks in its memory."""
    from avbench.system.devices import on_cpu

    if args.workers is None and not on_cpu(device):
        return 1
    return workers_of(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuses outputs that cannot be written, before the work."""
    from avbench.system.outputs import check_folder
    from avbench.types import UsageError

    check_files(args)
    if args.out is not None:
        check_folder(args.out, args.force)
    if args.boxes is not None and not args.boxes.is_file():
        raise UsageError(f"--boxes {args.boxes} is no file")


def _say_problems(found: FileFigures) -> None:
    say_each("passed over", found.passed_over)
    say_each("without", [f"{row.path}: {row.error}" for row in found.files if row.error])
    say_each("reference without", [f"{row.path}: {row.error}" for row in found.reference if row.error])
    say_each("unpaired", [f"{row.path}: {row.unpaired}" for row in (*found.files, *found.reference) if row.unpaired])


def _write(args: argparse.Namespace, found: FileFigures) -> None:
    from avbench.pages.score_page import score_page
    from avbench.system.strict import write_whole
    from avbench.types import printable

    if args.csv:
        write_csv(found.frame(), args.csv)
    title = printable(", ".join(args.paths[:3]) + (f" and {len(args.paths) - 3} more" if len(args.paths) > 3 else ""))
    if args.page:
        write_whole(args.page, score_page(found, title).encode())
    if args.out:
        data, csv, page = (args.out / name for name in NAMES)
        write_whole(data, _as_json(found).encode())
        write_csv(found.frame(), csv)
        write_whole(page, score_page(found, title).encode())


def _as_json(found: FileFigures) -> str:
    return json.dumps(found.document(), indent=1, allow_nan=False) + "\n"
