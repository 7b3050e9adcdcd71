"""``avbench train``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from avbench.commands.common import Progress, add_command


def add(commands: Any) -> None:
    train = add_command(
        commands,
        "train",
        _train,
        "make embedded weights from nothing",
        "Trains a recipe and what it builds on; a killed training continues where it was. table5: all recipes of the "
        "paper's Table 5, and the record that `avbench paper table5` shows.",
        "avbench train --list",
        "avbench train streamsync-trf --out train",
        "avbench train table5 --out train",
    )
    train.add_argument("recipe", nargs="?", metavar="RECIPE")
    train.add_argument("--out", type=Path, default=Path("train"), metavar="DIR", help="(default: train)")
    train.add_argument("--threads", type=int, default=1, metavar="N", help="of torch, beside rendering (default: 1)")
    train.add_argument("--list", action="store_true", help="the recipes and their settings")


def _train(args: argparse.Namespace) -> int:
    from avbench.training import table5
    from avbench.training.recipes import RECIPES, run
    from avbench.types import UsageError

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if args.list:
        for name, recipe in RECIPES.items():
            print(f"{name:18} {recipe}")
        return 0
    if not args.recipe:
        raise UsageError(f"name a recipe: {', '.join(RECIPES)}, or {table5.NAME} for all of its rows")
    if args.recipe == table5.NAME:
        with Progress() as progress:
            print(table5.train(args.out, tell, args.threads, progress=progress))
    else:
        print(run(args.recipe, args.out, tell, args.threads))
    return 0
