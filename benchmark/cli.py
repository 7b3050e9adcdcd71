"""The command line. Only the standard library is imported until a command runs, so that ``--help`` answers at once.

Results go to stdout, progress and everything else to stderr. Exit codes: 0 well, 1 the run is incomplete or something
failed, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from avbench import __version__

if TYPE_CHECKING:
    from avbench.manifest import Manifest
    from avbench.protocol import Protocol
    from avbench.results import RunResult

SIGN = "A positive offset means that the sound comes early (it leads the picture), a negative one that it is late."
MAX_LINES = 10  # of one kind on the screen; run.json has them all


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Problems a person can act on are one line on stderr."""
    args = _parser().parse_args(argv)
    from avbench.types import AvbenchError, UsageError

    try:
        code = args.command(args)
        print(end="", flush=True)  # sys.stdout is None where the caller has closed it
        return code
    except UsageError as error:
        return _complain(error, 2)
    except AvbenchError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted; what was computed is kept, the same command continues", 130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        _drop_stdout()
        return 1
    except OSError as error:  # what the system refuses here is the output itself: a full disk behind > or a bad folder
        _drop_stdout()
        return _complain(f"{error.filename or 'writing the output'}: {error.strerror or error}", 1)


def _drop_stdout() -> None:
    """What is still buffered goes nowhere: the interpreter would complain of it once more at its end."""
    with contextlib.suppress(AttributeError, OSError):  # it is closed, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(problem: object, code: int) -> int:
    _say(f"error: {' '.join(str(problem).split())}")
    return code


def _say(text: str) -> None:
    print(f"avbench: {text}", file=sys.stderr)


def _say_each(kind: str, lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        _say(f"{kind}: {line}")
    if len(lines) > MAX_LINES:
        _say(f"{kind}: ... and {len(lines) - MAX_LINES} more")


class _Progress:
    """One bar with ETA per stage, on stderr; in a log file (no terminal) it is renewed rarely."""

    def __init__(self) -> None:
        self.stage = ""
        self.bar: Any = None

    def __call__(self, stage: str, done: int, total: int, item: str = "") -> None:
        if stage != self.stage or self.bar is None:
            from tqdm import tqdm

            self.close()
            patience_s = 0.1 if sys.stderr.isatty() else 5.0
            self.stage = stage
            self.bar = tqdm(total=total, desc=stage, unit="clip", file=sys.stderr, mininterval=patience_s)
        if done > self.bar.n:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def of(self, stage: str) -> Any:
        """A ``(done, total, item)`` callback for one stage."""
        return lambda done, total, item="": self(stage, done, total, item)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- commands ----------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from avbench.evaluation import default_out, evaluate

    out = args.out or default_out(args.model)
    # what a user's model prints must not get between the lines of --json
    with _Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        result = evaluate(
            args.model,
            data=args.data,
            split=args.split,
            limit=args.limit,
            protocol=_protocol(args),
            out=out,
            store=args.store,
            seed=args.seed,
            workers=args.workers,
            batch_size=args.batch_size,
            reference_rows=args.reference_rows,
            n_resamples=args.n_resamples,
            progress=progress,
        )
    _report_problems(result)
    if args.json:
        print(result.to_json(), end="")
    else:
        from avbench.report import render

        print(render(result, out))
    return 1 if result.incomplete else 0


def _report_problems(result: RunResult) -> None:
    _say_each("note", result.warnings)
    failed = Counter(f"clip {failure.clip_id}: {failure.reason}" for failure in result.failures)
    _say_each("failed", [f"{reason} ({n} segment{'s' * (n > 1)})" for reason, n in failed.items()])
    if result.unsupported:
        n, of = len(result.unsupported), result.n_total
        _say(f"note: {n} of {of} segments are too short for this hop and number of windows and are not scored")


def _protocol(args: argparse.Namespace) -> Protocol:
    from avbench.protocol import PROTOCOLS

    return PROTOCOLS[args.protocol](hop_s=_hop_s(args), iterations=args.iterations)


def _hop_s(args: argparse.Namespace) -> float:
    from avbench.types import UsageError

    if not math.isfinite(args.hop):
        raise UsageError(f"hop is {args.hop} s; it must be a positive multiple of 0.04 s (one frame)")
    return args.hop


def _sweep(args: argparse.Namespace) -> int:
    from avbench.sweep import render, sweep

    with _Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        rows = sweep(
            args.models,
            data=args.data,
            split=args.split,
            hops_s=args.hops,
            iterations=args.iterations,
            selection=args.selection,
            limit=args.limit,
            store=args.store,
            workers=args.workers,
            n_resamples=args.n_resamples,
            seed=args.seed,
            progress=progress,
        )
    if args.plot:
        from avbench.plots import plot_sweep

        plot_sweep(rows, args.plot, f"{args.data} {args.split}, {rows[0].n_scored} segments, 95 % intervals")
    print(json.dumps([row.to_json() for row in rows], indent=1) if args.json else render(rows))
    return 0


def _models(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from avbench.registry import list_models
    from avbench.types import UsageError

    models = list_models(args.pattern)
    if not models:
        raise UsageError(f"no model matches {args.pattern!r}; `avbench models` lists all (* and ? are wildcards)")
    rows = [(m.name, m.kind, m.description or m.backbone_name, m.trained_on) for m in models]
    print(tabulate(rows, headers=("model", "kind", "what it does", "trained on"), tablefmt="plain"))
    print("\nYour own: path/to/file.py:ClassName[+none|apa|apa-sliding|apa-decay]")
    return 0


def _data_synth(args: argparse.Namespace) -> int:
    from avbench.data import synthsync
    from avbench.types import UsageError

    if args.workers is not None and args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")
    with _Progress() as progress:
        manifest = synthsync.ensure(args.name, args.split, progress=progress.of("making clips"), workers=args.workers)
    print(f"{args.name} {args.split}: {_count(manifest)} in {manifest.media_root}")
    print(f"next    avbench run --model streamsync-trf --data {args.name} --split {args.split}")
    return 0


def _data_from_files(args: argparse.Namespace) -> int:
    from avbench.data.from_files import manifest_from_files
    from avbench.ticks import ticks

    with _Progress() as progress:
        manifest, refused = manifest_from_files(
            args.paths,
            args.out,
            offset_law=args.offsets,
            start_law=args.starts,
            hop=ticks(_hop_s(args)),
            iterations=args.iterations,
            seed=args.seed,
            copy=args.copy,
            name=args.name,
            progress=progress.of("reading"),
        )
    _say_each("refused", [str(error) for error in refused])
    print(f"{args.out}: {_count(manifest)}; {manifest.note}")
    print(f"next    avbench data info {args.out} · avbench run --model xcorr --data {args.out} --iterations 1")
    return 1 if refused else 0


def _data_ls(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from avbench.data import synthsync
    from avbench.manifest import read_manifest
    from avbench.types import UsageError

    if not args.folders:
        rows = [(name, ", ".join(synthsync.SPLIT_SEEDS), "made when first used") for name in synthsync.NAMES]
        print(tabulate(rows, headers=("data", "splits", synthsync.NOTE), tablefmt="plain"))
        return 0
    found = sorted({path.parent for folder in args.folders for path in Path(folder).rglob("manifest.json")})
    if not found:
        raise UsageError(f"there is no manifest under {', '.join(args.folders)}; `avbench data from-files` makes one")
    manifests = [(str(folder), read_manifest(folder)) for folder in found]
    rows = [(folder, ", ".join(m.splits), f"{m.kind}: {_count(m)}") for folder, m in manifests]
    print(tabulate(rows, headers=("data", "splits", "what is in it"), tablefmt="plain"))
    return 0


def _data_info(args: argparse.Namespace) -> int:
    from avbench.data.inspect import info

    facts = info(_manifest(args))
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        from avbench.report import render_info

        print(render_info(facts))
    return 0


def _data_verify(args: argparse.Namespace) -> int:
    from avbench.data.inspect import verify

    manifest = _manifest(args)
    with _Progress() as progress:
        problems = verify(manifest, decode=not args.no_decode, progress=progress.of("checking"))
    for problem in problems:
        print(problem)
    checked = "hashes" if args.no_decode else "hashes, and every frame and sample decoded"
    print(f"{args.data}: {len(problems)} problems" if problems else f"{args.data}: ok ({_count(manifest)}; {checked})")
    return 1 if problems else 0


def _manifest(args: argparse.Namespace) -> Manifest:
    from avbench.evaluation import read_data

    with _Progress() as progress:
        return read_data(args.data, args.split, progress=progress)


def _count(manifest: Manifest) -> str:
    n_clips, n_segments = len(manifest.clips), len(manifest.segments)
    return f"{n_clips} clip{'s' * (n_clips != 1)}, {n_segments} segment{'s' * (n_segments != 1)}"


def _train(args: argparse.Namespace) -> int:
    from avbench.training.recipes import RECIPES, run
    from avbench.types import UsageError

    if args.list:
        for name, recipe in RECIPES.items():
            print(f"{name:18} {recipe}")
        return 0
    if not args.recipe:
        raise UsageError(f"name a recipe: {', '.join(RECIPES)}")
    print(run(args.recipe, args.out, lambda text: print(text, file=sys.stderr, flush=True), args.threads))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from avbench.doctor import examine

    ok = True
    for finding in examine(args.model, store=args.store):
        ok &= finding.ok
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.text}", flush=True)
    print("all well" if ok else "something is wrong: see the lines marked FAIL")
    return 0 if ok else 1


# -- arguments ---------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other problem; the usage is in the help."""
        self.exit(2, f"avbench: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="avbench",
        description="Benchmark harness for audio-visual synchronisation in streaming video.",
        epilog=f"{SIGN}\n\nexample: avbench run --model streamsync-trf",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"avbench {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(
        commands,
        "run",
        _run,
        "evaluate a model and print a table with intervals",
        f"{SIGN}\nIntervals are 95 % and bootstrapped over videos. ms per step is indicative.",
        "avbench run --model streamsync-trf",
        "avbench run --model apa-sparsesync --hop 4 --iterations 8",
        "avbench run --model xcorr --data my_manifest --iterations 3 --json",
        "avbench run --model my_net.py:MyNet+apa --limit 20",
    )
    run.add_argument("--model", required=True, metavar="M", help="a name of `avbench models`, or file.py:Class[+head]")
    run.add_argument("--data", default="synthsync", help="a name of `avbench data ls` (default: synthsync) or a folder")
    run.add_argument("--split", default="test", help="(default: test)")
    run.add_argument("--limit", type=int, metavar="N", help="only the first N segments")
    run.add_argument("--hop", type=float, default=2.0, metavar="S", help="seconds between window starts (default: 2)")
    run.add_argument("--iterations", type=int, default=18, metavar="N", help="windows per segment (default: 18)")
    run.add_argument("--protocol", choices=("streaming", "paper"), default="streaming", help="(default: streaming)")
    run.add_argument("--out", type=Path, metavar="DIR", help="run.json, predictions.parquet (default: runs/DATE-MODEL)")
    run.add_argument("--store", type=Path, metavar="DIR", help="snapshots (default: in $AVBENCH_CACHE or ~/.cache)")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of bootstrap and random guesses (default: 0)")
    run.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    run.add_argument("--batch-size", type=int, default=1, metavar="N", help="windows per call on a GPU (default: 1)")
    run.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    run.add_argument(
        "--no-reference-rows", dest="reference_rows", action="store_false", help="the model alone, nothing beside it"
    )
    run.add_argument("--json", action="store_true", help="print the result as one JSON object, and nothing else")

    sweep = _command(
        commands,
        "sweep",
        _sweep,
        "compare models over hops and window counts",
        "All settings are scored on the segments that every one of them holds; differences are paired.",
        "avbench sweep --models sparsesync+apa streamsync-trf streamsync-lstm --hops 1 2 3 4",
        "avbench sweep --models streamsync-trf --iterations 2 4 12 18 24 32 40 48 --data synthsync-full",
    )
    sweep.add_argument("--models", nargs="+", required=True, metavar="M", help="the others are compared with the first")
    sweep.add_argument(
        "--data", default="synthsync", help="a name of `avbench data ls` (default: synthsync) or a folder"
    )
    sweep.add_argument("--split", default="test", help="(default: test)")
    sweep.add_argument("--hops", nargs="+", type=float, default=[2.0], metavar="S", help="seconds (default: 2)")
    sweep.add_argument("--iterations", nargs="+", type=int, default=[18], metavar="N", help="windows (default: 18)")
    sweep.add_argument("--selection", choices=("final", "best_iter"), default="final", help="(default: final)")
    sweep.add_argument("--limit", type=int, metavar="N", help="only the first N segments")
    sweep.add_argument("--store", type=Path, metavar="DIR", help="snapshots (default: as in `run`)")
    sweep.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    sweep.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    sweep.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy and mAP as FILE.svg or FILE.png")
    sweep.add_argument("--json", action="store_true", help="print a JSON list of rows, and nothing else")

    models = _command(
        commands,
        "models",
        _models,
        "list the models there are",
        "Names are backbone+head; a tag after a dot picks the weights.",
        "avbench models",
        "avbench models '*apa*'",
    )
    models.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="wildcards * and ?")

    _data_parser(commands)

    train = _command(
        commands,
        "train",
        _train,
        "make embedded weights from nothing",
        "Trains a recipe and what it builds on; a killed training continues where it was.",
        "avbench train --list",
        "avbench train streamsync-trf --out train",
    )
    train.add_argument("recipe", nargs="?", metavar="RECIPE")
    train.add_argument("--out", type=Path, default=Path("train"), metavar="DIR", help="(default: train)")
    train.add_argument("--threads", type=int, default=1, metavar="N", help="of torch, beside rendering (default: 1)")
    train.add_argument("--list", action="store_true", help="the recipes and their settings")

    doctor = _command(
        commands,
        "doctor",
        _doctor,
        "check this machine, or a model",
        f"Sends clips with known shifts through encoding, decoding, windows and the classical scorer. {SIGN}",
        "avbench doctor",
        "avbench doctor my_net.py:MyNet",
    )
    doctor.add_argument("model", nargs="?", metavar="MODEL", help="check this model instead of the machine")
    doctor.add_argument("--store", type=Path, metavar="DIR", help="the store to verify (default: as in `run`)")
    return parser


def _data_parser(commands: Any) -> None:
    data = commands.add_parser("data", help="make, list and check data", description="Make, list and check data.")
    verbs = data.add_subparsers(metavar="VERB", required=True)

    synth = _command(
        verbs,
        "synth",
        _data_synth,
        "make the procedural clips",
        "Made once and kept in the cache.",
        "avbench data synth",
        "avbench data synth synthsync-full",
    )
    synth.add_argument("name", nargs="?", default="synthsync", metavar="NAME", help="(default: synthsync)")
    synth.add_argument("--split", default="test", help="train, valid or test (default: test)")
    synth.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")

    files = _command(
        verbs,
        "from-files",
        _data_from_files,
        "make a manifest over your own videos",
        f"The videos are not touched: offsets are imposed when they are read. {SIGN}",
        "avbench data from-files my_videos --out my_manifest",
        "avbench data from-files a.mp4 b.mkv --out m --offsets fixed:0.4 --iterations 3",
    )
    files.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE")
    files.add_argument("--out", type=Path, required=True, metavar="DIR", help="the manifest folder")
    files.add_argument("--offsets", default="uniform", help="uniform, truncnorm[:SD] or fixed:S (default: uniform)")
    files.add_argument("--starts", default="grid:10", help="first, or grid:S: one every S seconds (default: grid:10)")
    files.add_argument("--hop", type=float, default=2.0, metavar="S", help="for --iterations (default: 2)")
    files.add_argument("--iterations", type=int, default=1, metavar="N", help="windows a segment holds (default: 1)")
    files.add_argument("--seed", type=int, default=0, metavar="N", help="of the offsets (default: 0)")
    files.add_argument("--copy", action="store_true", help="copy the videos into the manifest folder")
    files.add_argument("--name", default="", help="of the data (default: the folder's)")

    ls = _command(verbs, "ls", _data_ls, "list data", "Without a folder: what is built in.", "avbench data ls my_data")
    ls.add_argument("folders", nargs="*", metavar="DIR", help="list the manifests under these folders")

    info = _command(verbs, "info", _data_info, "what is in it", "Counts, classes, support.", "avbench data info DIR")
    verify = _command(
        verbs,
        "verify",
        _data_verify,
        "check hashes, durations and labels",
        "Decodes everything.",
        "avbench data verify my_manifest",
    )
    for verb in (info, verify):
        verb.add_argument("data", nargs="?", default="synthsync", metavar="DATA", help="a name or a manifest folder")
        verb.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    verify.add_argument("--no-decode", action="store_true", help="compare hashes only")


def _command(
    commands: Any, name: str, function: Any, summary: str, text: str, *examples: str
) -> argparse.ArgumentParser:
    """A subcommand with its one-line summary and its examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {text}",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    return parser


if __name__ == "__main__":
    sys.exit(main())
