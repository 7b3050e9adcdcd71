"""``avbench train``: the embedded recipes by name, and the verbs ``head`` and ``fullsize``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands import train_fullsize, train_head
from avbench.commands.common import Progress, add_command, add_log_to

VERBS = (train_head, train_fullsize)
# written out: importing the recipes would load torch for `--help`
RECIPES = (
    *("sparsesync-pt", "sparsesync", "synchformer", "streamsync-trf", "streamsync-lstm", "synchformer-trf"),
    *("sparsesync-pt.hard", "sparsesync.hard", "streamsync-trf.hard", "streamsync-lstm.hard"),
    *("streamsync-trf.dynamic", "streamsync-lstm.dynamic", "tracking", "words"),
    *("table5-k3-h12", "table5-k2-h12", "table5-k4-h12", "table5-k3-h6", "table5-k3-h18"),
)
TABLE5 = "table5"  # all of its rows and the record of them


def add(commands: Any) -> None:
    """Add ``train`` to the commands."""
    train = add_command(
        commands,
        "train",
        _train,
        "train an embedded model, a head for a backbone, or a full-size model",
        "Trains a recipe and first what it builds on. Progress is saved; run the same command to resume. table5: all "
        "recipes of the paper's Table 5, and the record that `avbench paper table5` shows.",
        "avbench train --list",
        "avbench train streamsync-trf --out train",
        "avbench train table5 --out train",
        "avbench train head --head lstm --backbone my_net.py:MyNet",
        "avbench train fullsize --help",
    )
    train.add_argument("--list", action="store_true", help="list the recipes and their settings")
    _options(train, out=Path("train"), threads=1, log_to=None)
    verbs = train.add_subparsers(dest="recipe", metavar="RECIPE", title="what to train")
    for module in VERBS:
        module.add(verbs)
    for name in (*RECIPES, TABLE5):
        recipe = add_command(
            verbs,
            name,
            _train,
            f"the recipe {name}",
            "Runs first what it builds on.",
            f"avbench train {name} --out train",
        )
        # also options of `avbench train` itself: a value given before the recipe's name counts
        _options(recipe, out=argparse.SUPPRESS, threads=argparse.SUPPRESS, log_to=argparse.SUPPRESS)


def _options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    parser.add_argument(
        "--out", type=Path, default=defaults["out"], metavar="DIR", help="output folder (default: train)"
    )
    text = "CPU threads of torch; rendering has its own process (default: 1)"
    parser.add_argument("--threads", type=int, default=defaults["threads"], metavar="N", help=text)
    add_log_to(parser, default=defaults["log_to"])


def _train(args: argparse.Namespace) -> int:
    from avbench.training import table5
    from avbench.training.common import Told
    from avbench.training.logging_to import logger
    from avbench.training.recipes import RECIPES, run
    from avbench.types import UsageError

    if args.list:
        for name, recipe in RECIPES.items():
            print(f"{name:18} {recipe}")
        return 0
    if not args.recipe:
        names = f"{', '.join(RECIPES)}, {table5.NAME} (all of its rows), head or fullsize"
        raise UsageError(f"name a recipe: {names}")
    with Progress() as progress, logger(args.log_to, args.out, args.recipe, {"recipe": args.recipe}) as log:
        told = Told(progress.line, progress, log)
        if args.recipe == table5.NAME:
            done = table5.train(args.out, told, args.threads, progress=progress)
        else:
            done = run(args.recipe, args.out, told, args.threads)
    print(done)
    return 0
