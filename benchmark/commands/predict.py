"""``avbench predict``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
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
    add_tracks,
    batch_of,
    check_files,
    chosen_tracks,
    device_of,
    hop_s,
    model_options,
    say,
    say_each,
    say_files,
    show,
    workers_of,
    write_csv,
)

if TYPE_CHECKING:
    from avbench.runs.predict import Asked, Predictor
    from avbench.scoring.prediction import Prediction

OUTSIDE = 3  # the exit code
INDEX = "index.html"  # in the folder of --out


def add(commands: Any) -> None:
    """Add ``predict`` to the commands."""
    parser = add_command(
        commands,
        "predict",
        _predict,
        "say what offset media files have, since when, and how sure that is",
        f"{SIGN}\nFiles may have any container, rate and length from a second on. Without --model the best published "
        "weights in the\ncache answer. Exit code with --tolerance: 0 all within, 3 a file is outside, 1 one was not "
        "judged or read;\nwithout: 0, or 1 if a file could not be read.",
        "avbench predict news.mp4",
        "avbench predict news.mp4 --model synchformer.audioset --page",
        "avbench predict rushes/ --tolerance ebu --out pages --csv rushes.csv",
        "avbench predict a.mkv b.mkv --audio-track 2 --json",
        "cat news.ts | avbench predict - --model xcorr",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="FILE|FOLDER|-", help="media files, folders of them, or - for stdin"
    )
    parser.add_argument(
        "--model", metavar="M", help="a name of `avbench models` or file.py:Class; +bayes if no head is named"
    )
    parser.add_argument(
        "--fetch", action="store_true", help="first get the weights synchformer.audioset into the cache"
    )
    parser.add_argument(
        "--hop", type=float, default=2.0, metavar="S", help="seconds between window starts (default: 2)"
    )
    add_tracks(parser, "the default one, if it can be used")
    parser.add_argument(
        "--tolerance",
        metavar="T",
        help="itu-detect, itu-accept, atsc, ebu, or EARLY/LATE in seconds such as 0.045/0.125: sets the exit code",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    output.add_argument("--jsonl", action="store_true", help="print a JSON object a file, as soon as it is answered")
    add_csv(parser, "a regime")
    parser.add_argument("--page", action="store_true", help="write FILE.avbench.html beside each file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write a page a file, and an index, into this folder")
    add_force(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: as cores and memory allow)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="snapshot store (default: in the user's cache)")
    add_compute_options(parser, batch="auto")
    add_model_options(parser)


def _predict(args: argparse.Namespace) -> int:
    from avbench.runs.predict import files_of
    from avbench.system.outputs import check_writable

    check_files(args)
    if args.out is not None:
        check_writable(args.out, "--out")
    with contextlib.ExitStack() as stack:
        paths = [path for path in args.paths if path != "-"]
        files, left_out = files_of(paths, args.out, workers_of(args)) if paths else ([], [])
        say_each("passed over", left_out)
        there = "-" in args.paths or any(not asked.error for asked in files)
        predictor = _predictor(args, args.fetch and there)
        if "-" in args.paths:
            files.append(stack.enter_context(_spooled()))
        pages = _pages(args, files)
        with Progress() as progress:

            def ready(answer: Prediction) -> None:
                progress.close()
                print(json.dumps(answer.as_json(), allow_nan=False), flush=True)

            answers = predictor.answer(files, progress, ready if args.jsonl else None)
        _write_pages(args, answers, pages)
    return _told(args, answers, pages, predictor)


def _predictor(args: argparse.Namespace, fetch: bool) -> Predictor:
    """The model that answers; ``fetch``: its weights are got first."""
    from avbench.engine.runner import Compute
    from avbench.runs.predict import BEST, READING, Predictor, fetch_best
    from avbench.scoring.tolerance import tolerance_asked
    from avbench.system.cache import default_store, writable

    tolerance = None if args.tolerance is None else tolerance_asked(args.tolerance)
    reading = chosen_tracks(args, READING)
    if fetch:
        with Progress(unit="B") as progress:
            fetch_best(progress.of(f"fetching {BEST}"))
    store = writable(args.store or default_store(), "--store")
    how = Compute(store, args.workers, device_of(args), batch_of(args))
    return Predictor(args.model, model_options(args), hop_s=hop_s(args), how=how, reading=reading, tolerance=tolerance)


@contextlib.contextmanager
def _spooled() -> Iterator[Asked]:
    """What arrives on stdin, as a file for as long as it is needed."""
    from avbench.runs.predict import STDIN, Asked

    with tempfile.TemporaryDirectory(prefix="avbench-stdin-") as folder:
        file = Path(folder).resolve() / "stdin"
        with open(file, "wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        yield Asked(file, STDIN)


def _pages(args: argparse.Namespace, files: list[Asked]) -> dict[Path, Path]:
    """File -> where its page goes; refused before the work if that would replace what is not ours."""
    from avbench.runs.predict_pages import check_pages, pages_beside, pages_in

    if args.out is None:
        found = pages_beside(files) if args.page else {}
        check_pages([*found.values()], args.force)
        return found
    found = pages_in(args.out, files)
    check_pages([*found.values(), args.out / INDEX], args.force)
    return found


def _write_pages(args: argparse.Namespace, answers: list[Prediction], pages: dict[Path, Path]) -> None:
    from avbench.runs.predict_pages import write_index, write_pages

    if pages:
        write_pages(answers, pages)
    if args.out is not None:
        write_index(answers, pages, args.out / INDEX)


def _told(args: argparse.Namespace, answers: list[Prediction], pages: dict[Path, Path], predictor: Predictor) -> int:
    """Prints the answers, each fact once: the error of a single file is only said on stderr. Returns the exit code."""
    from avbench.pages.predict_text import in_text, table_of
    from avbench.scoring.prediction import frame_of

    if args.csv:
        write_csv(frame_of(answers), args.csv)
    failed = [answer for answer in answers if answer.error]
    if args.json:
        print(json.dumps({"files": [answer.as_json() for answer in answers]}, indent=1, allow_nan=False))
    elif not args.jsonl:
        if len(answers) > 1:
            show(table_of(answers))
        for answer in answers if len(answers) == 1 and not failed else ():
            page = pages.get(answer.file)
            show(in_text(answer, str(page) if page else ""))
    say_files(args, *([args.out / INDEX] if args.out else []))
    if failed and (args.json or args.jsonl or len(answers) == 1):
        say_each("error", [f"{answer.path}: {answer.error}" for answer in failed])
    counters = predictor.counters
    computed, stored = counters["snapshots_computed"], counters["snapshots_from_store"]
    if len(answers) > 1 and (computed or stored):
        say(f"{computed} windows computed, {stored} from the store, {len(failed)} of {len(answers)} files failed")
    return _code(args, answers)


def _code(args: argparse.Namespace, answers: list[Prediction]) -> int:
    if args.tolerance is None:
        return 1 if any(answer.error for answer in answers) else 0
    said = [None if answer.error else answer.within for answer in answers]
    return OUTSIDE if False in said else 1 if None in said else 0
