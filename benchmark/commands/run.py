"""``avbench run``, ``sweep`` and ``models``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from avbench.commands.common import (
    FORMATS,
    SIGN,
    Progress,
    add_command,
    add_compute_options,
    add_csv,
    add_engine,
    add_fetch,
    add_force,
    add_format,
    add_model_options,
    batch_of,
    bootstrap_of,
    by_spaces,
    check_files,
    check_format,
    device_of,
    engine_of,
    fetch_of,
    model_options,
    model_words,
    print_as,
    protocol_of,
    say,
    say_each,
    say_files,
    write_csv,
)
from avbench.commands.config import add_config, recipe_of

if TYPE_CHECKING:
    from avbench.results.run import Failure, RunResult
    from avbench.runs.shared import Share


METRIC_NAMES = (
    "acc acc_tol1 map roc_auc balanced_acc mae_s; offset_error_s offset_error_argmax_s offset_error_median_s "
    "within_40_ms within_80_ms within_125_ms; ece brier rps_s; out_of_TABLE_roc_auc out_of_TABLE_recall_1_percent "
    "out_of_TABLE_recall_5_percent, TABLE being itu_detect itu_accept atsc ebu; where offsets change recovery_s "
    "false_changes_per_h tracked_acc_tol1 tracked_acc tracking_error_s recovery_median_s recovered_within_10_s "
    "recovered_within_20_s recovered_within_40_s auec covering f1_changes"
)  # in words here, because numpy is not loaded for --help; tests/commands/test_run.py compares them with COLUMNS


# what a hop costs: windows share segments of 0.64 s if they start a multiple of 0.32 s apart
_HOP_HELP = "(default: 2; a full-size Synchformer encodes only 6 of the 14 segments of a window anew at 1.92, all at 2)"


def add(commands: Any) -> None:
    """Add ``run``, ``sweep`` and ``models`` to the commands."""
    _add_run(commands)
    _add_sweep(commands)
    _add_models(commands)


def _add_run(commands: Any) -> None:  # one option after the other
    run = add_command(
        commands,
        "run",
        _run,
        "evaluate a model and print a table with intervals",
        f"{SIGN}\nIntervals are 95 % and bootstrapped over videos. ms per step is indicative.",
        "avbench run --model streamsync-trf",
        "avbench run --model apa-sparsesync --hop 4 --iterations 8",
        "avbench run --model xcorr --data my_manifest --iterations 3 --json",
        "avbench run --model sparsesync+bayes --data synthsync-dynamic   # offsets that change",
        "avbench run --model streamsync-trf --metrics acc offset_error_s ece out_of_ebu_roc_auc",
        "avbench run --model my_net.py:MyNet+apa --limit 20",
        "avbench run --model streamsync-trf --engine ray --ray-address auto",
        "avbench run --model my_net.py:MyNet --model-args width=128 ckpt=best.pt --save-config run.yaml",
        "avbench run --config run.yaml --hop 4",
        "avbench run --model streamsync-trf --data hub:ORG/NAME@COMMIT --fetch on-demand --keep-media 20GB",
        "avbench run --model sparsesync+my_head.py:MyHead",
        "avbench run --model sparsesync.vggsound+apa --data my_manifest --iterations 3   # see `avbench weights list`",
    )
    run.add_argument(
        "--model",
        required=True,
        metavar="M",
        help="a name of `avbench models`, or file.py:Class[+head|+file.py:Head]",
    )
    run.add_argument(
        "--data",
        default="synthsync",
        help="a name of `avbench data ls` (default: synthsync), folder or hub:ORG/NAME@COMMIT",
    )
    run.add_argument("--split", default="test", help="(default: test)")
    run.add_argument("--limit", type=int, metavar="N", help="only the first N segments")
    run.add_argument("--hop", type=float, default=2.0, metavar="S", help=f"seconds between window starts {_HOP_HELP}")
    run.add_argument(
        "--iterations", type=int, metavar="N", help="windows per segment (default: 18, where offsets change 48)"
    )
    run.add_argument(
        "--protocol",
        choices=("streaming", "paper", "dynamic"),
        help="(default: streaming, where offsets change dynamic)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="run.json, predictions.parquet (default: runs/DATE-MODEL)")
    run.add_argument("--store", type=Path, metavar="DIR", help="snapshots (default: in $AVBENCH_CACHE or ~/.cache)")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of bootstrap and random guesses (default: 0)")
    run.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    run.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="compute only the snapshots of the I-th of N shares of the clips, and report nothing; `avbench store "
        "merge` joins the stores. Under torchrun each process takes its share by itself, and the first one reports",
    )
    add_engine(run)
    run.add_argument(
        "--keep-going", action="store_true", help="compute on though a model fails in the same way on the first 3 clips"
    )
    run.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    run.add_argument(
        "--no-reference-rows", dest="reference_rows", action="store_false", help="only the model, no other rows"
    )
    run.add_argument(
        "--no-media",
        dest="media",
        action="store_false",
        default=None,
        help="no clips of the worst and the surest segments on the page (also: AVBENCH_NO_MEDIA=1)",
    )
    run.add_argument(
        "--metrics",
        nargs="+",
        default=["default"],
        metavar="NAME",
        help=f"columns of the table: {METRIC_NAMES}; default: the first six; all. run.json and --csv always have all",
    )
    run.add_argument("--json", action="store_true", help="print the result as one JSON object, and nothing else")
    add_format(run)
    add_config(run)
    add_fetch(run)
    add_csv(run, "per line of the table and metric")
    add_force(run)
    add_compute_options(run)
    add_model_options(run)
    run.set_defaults(parser=run)


def _add_sweep(commands: Any) -> None:
    sweep = add_command(
        commands,
        "sweep",
        _sweep,
        "compare models over hops and window counts",
        "All settings are scored on the segments long enough for every one of them (--support own: each on all "
        "segments long enough for it); differences are paired.",
        "avbench sweep --models sparsesync+apa streamsync-trf streamsync-lstm --hops 1 2 3 4",
        "avbench sweep --models streamsync-trf --iterations 2 4 12 18 24 32 40 48 --data synthsync-full",
    )
    sweep.add_argument("--models", nargs="+", required=True, metavar="M", help="the others are compared with the first")
    sweep.add_argument(
        "--data",
        default="synthsync",
        help="a name of `avbench data ls` (default: synthsync), folder or hub:ORG/NAME@COMMIT",
    )
    sweep.add_argument("--split", default="test", help="(default: test)")
    sweep.add_argument("--hops", nargs="+", type=float, default=[2.0], metavar="S", help=f"seconds {_HOP_HELP}")
    sweep.add_argument("--iterations", nargs="+", type=int, default=[18], metavar="N", help="windows (default: 18)")
    sweep.add_argument("--selection", choices=("final", "best_iter"), default="final", help="(default: final)")
    sweep.add_argument(
        "--support",
        choices=("common", "own"),
        default="common",
        help="segments long enough for all settings (default), or for each setting",
    )
    sweep.add_argument("--limit", type=int, metavar="N", help="only the first N segments")
    sweep.add_argument("--store", type=Path, metavar="DIR", help="snapshots (default: as in `run`)")
    sweep.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    add_engine(sweep)
    sweep.add_argument("--n-resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    sweep.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy and mAP as FILE.svg, .png or .pdf")
    sweep.add_argument("--json", action="store_true", help="print a JSON list of rows, and nothing else")
    add_fetch(sweep)
    add_format(sweep)
    add_csv(sweep, "per model, setting and metric")
    add_force(sweep)
    add_compute_options(sweep)
    add_model_options(sweep)


def _add_models(commands: Any) -> None:
    models = add_command(
        commands,
        "models",
        _models,
        "list the available models",
        "Names are backbone+head; a tag after a dot picks the weights. A backbone or a head of your own\n"
        "is named by its file and class, as in my_net.py:MyNet+my_head.py:MyHead, or by an entry point\n"
        "of the groups avbench.models and avbench.heads.",
        "avbench models",
        "avbench models '*apa*'",
    )
    models.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="wildcards * and ?")


class _Shard(NamedTuple):
    """The ``i``-th of ``n`` shares, i from 1 on."""

    i: int
    n: int

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"


def _shard(text: str) -> _Shard:
    """``I/N``."""
    first, slash, last = text.partition("/")
    if not (slash and first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 1/4")
    return _Shard(int(first), int(last))


def _run(args: argparse.Namespace) -> int:
    from avbench.engine.runner import Compute
    from avbench.pages.run_text import columns_of
    from avbench.runs.evaluate import default_out, evaluate
    from avbench.runs.shared import shared_by
    from avbench.system.outputs import claimed
    from avbench.types import UsageError

    check_format(args)
    check_files(args)
    by_spaces("--metrics", args.metrics)
    columns_of(args.metrics)  # a wrong name is said before the work
    protocol, options, engine = protocol_of(args), model_options(args), engine_of(args)
    share = shared_by(args.shard)
    first = not share or args.shard or share.which[0] == 1  # of the processes of one command line: it alone writes
    recipe = recipe_of(args, args.parser) if first else None
    if share and engine:
        raise UsageError("--engine ray shares the clips out by itself: no --shard, torchrun or WORLD_SIZE with it")
    device = device_of(args)
    if share:
        code = _compute_share(args, share, device)
        if not share.reports:
            if recipe:
                say(f"recipe: {recipe.write()}")
            return code
    with contextlib.ExitStack() as stack:
        out = args.out or stack.enter_context(claimed(default_out(args.model)))
        progress = stack.enter_context(Progress())
        # the output of a user's model must not mix with that of --json
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        result = evaluate(
            args.model,
            data=args.data,
            split=args.split,
            limit=args.limit,
            protocol=protocol,
            out=out,
            compute=Compute(
                args.store,
                args.workers,
                device,
                batch_of(args),
                keep_going=args.keep_going,
                engine=engine,
                **fetch_of(args),
            ),
            bootstrap=bootstrap_of(args),
            reference_rows=args.reference_rows,
            options=options,
            progress=progress,
            force=args.force,
            media=args.media,
            on_failure="keep",  # told below
        )
    _report_problems(args, result)
    _print_run(args, result, out, recipe.write() if recipe else "")
    return 1 if result.incomplete else 0


def _print_run(args: argparse.Namespace, result: RunResult, out: Path, recipe: str) -> None:
    """``recipe``: what is said of the recipe that was written; "" if none was."""
    from avbench.pages.run_tables import run_csv, run_table
    from avbench.pages.run_text import render

    if args.csv:
        write_csv(result.frame(), args.csv)
    if recipe and (args.json or args.format != "text"):
        say(f"recipe: {recipe}")
    print_as(
        args,
        text=lambda: render(result, out, args.metrics, _again(args), _doctor(args), recipe),
        tables=lambda: [run_table(result, args.metrics)],
        csv=lambda: run_csv(result),
        json=result.to_json,
    )
    say_files(args)


def _compute_share(args: argparse.Namespace, share: Share, device: str) -> int:
    """Computes one share of the snapshots; 1 if some failed, unless another process reports them (torchrun would end
    that one)."""
    from avbench.engine.runner import Compute
    from avbench.runs.evaluate import open_share

    workers = args.workers or share.workers
    how = Compute(args.store, workers, device, batch_of(args), share.which, args.keep_going, **fetch_of(args))
    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        session = open_share(
            args.model,
            data=args.data,
            split=args.split,
            limit=args.limit,
            protocol=protocol_of(args),
            compute=how,
            reference_rows=args.reference_rows,
            options=model_options(args),
            progress=progress,
        )
        with share.done_together(session.unfinished):
            session.compute()
    computed, stored = session.counters["snapshots_computed"], session.counters["snapshots_from_store"]
    say(f"share {share.which[0]} of {share.which[1]}: {computed} snapshots computed, {stored} were stored")
    _report_failures(session.failures)
    return 1 if session.failures and not share.waits else 0


def _report_failures(failures: Sequence[Failure], names: Mapping[str, str] | None = None) -> None:
    """One line for all that failed of one cause; run.json has them one by one. ``names``: as of ``causes``."""
    from avbench.pages.causes import causes

    say_each("failed", [str(cause) for cause in causes(failures, names)])


def _again(args: argparse.Namespace) -> list[str]:
    """The options with which another model's run can be compared with this one."""
    words = ["--data", args.data]
    for name, usual in (("split", "test"), ("limit", None), ("hop", 2.0), ("iterations", None), ("protocol", None)):
        value = getattr(args, name)
        words += [] if value == usual else [f"--{name}", f"{value:g}" if name == "hop" else str(value)]
    words += [] if args.fetch == "all" else ["--fetch", args.fetch]  # such data may be larger than the disk
    return words + ([] if args.keep_media is None else ["--keep-media", str(args.keep_media)])


def _doctor(args: argparse.Namespace) -> list[str]:
    """What the doctor is asked about: a model of one's own, or one with options, which it needs too."""
    given = model_words(args)
    return [args.model, *given] if ".py:" in args.model or given else []


def _report_problems(args: argparse.Namespace, result: RunResult) -> None:
    say_each("note", result.warnings)
    if result.n_scored or args.json or args.format != FORMATS[0]:  # else the result itself says why there is none
        _report_failures(result.failures, result.data.names)


def _sweep(args: argparse.Namespace) -> int:
    from avbench.engine.runner import Compute
    from avbench.runs.sweep import Settings, no_intervals, origin_of, render, sweep, tables

    check_format(args)
    by_spaces("--models", args.models)
    check_files(args)
    engine = engine_of(args)
    with Progress() as progress, contextlib.redirect_stdout(sys.stderr):
        rows = sweep(
            args.models,
            Settings(args.hops, args.iterations, args.selection, args.support),
            data=args.data,
            split=args.split,
            limit=args.limit,
            compute=Compute(args.store, args.workers, device_of(args), batch_of(args), engine=engine, **fetch_of(args)),
            bootstrap=bootstrap_of(args),
            options=model_options(args),
            progress=progress,
        )
    if args.plot:
        from avbench.runs.sweep_plot import plot_sweep

        fewest, most = min(row.n_scored for row in rows), max(row.n_scored for row in rows)
        n = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        title = f"{rows[0].measured_on}, {n} segments, {no_intervals(rows) or '95 % intervals'}"
        plot_sweep(rows, args.plot, title, small_print=origin_of(rows).in_words())
    if args.csv:
        write_csv(rows.frame(), args.csv)
    print_as(
        args,
        text=lambda: render(rows),
        tables=lambda: tables(rows),
        csv=rows.to_csv,
        json=lambda: json.dumps([row.to_json() for row in rows], indent=1),
    )
    say_files(args)
    return 0


def _models(args: argparse.Namespace) -> int:
    from avbench.pages.tables import table
    from avbench.registry.heads import plain_heads
    from avbench.registry.names import list_models
    from avbench.registry.user_files import HEAD, registered
    from avbench.types import UsageError

    models = list_models(args.pattern)
    if not models:
        raise UsageError(f"no model matches {args.pattern!r}; `avbench models` lists all (* and ? are wildcards)")
    rows = [(m.name, m.kind, m.description or m.backbone_name, m.trained_on) for m in models]
    print(table(rows, ("model", "kind", "what it does", "trained on")))
    heads = "|".join([*plain_heads(), *sorted(registered(HEAD))])
    print(f"\nYour own: path/to/file.py:ClassName[+{heads}], +trf or +lstm with --head-weights FILE")
    print("Your own head: BACKBONE+path/to/file.py:ClassName, a class that subclasses avbench.StreamingHead")
    print("Full size: sparsesync, synchformer, streamsync-* with --weights FILE, or NAME.TAG of `avbench weights list`")
    return 0
