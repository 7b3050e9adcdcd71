"""``avbench train fullsize``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from avbench.commands.common import Progress, add_command, add_log_to, say


def add(verbs: Any) -> None:
    """Add ``fullsize`` to the verbs of ``avbench train``."""
    fullsize = add_command(
        verbs,
        "fullsize",
        _fullsize,
        "train the published models at full size on real clips",
        "Phase 1 trains the streaming parts on a frozen SparseSync, phase 2 everything. A killed training resumes when "
        "you run it again, to the same weights. Several GPUs: put `torchrun --nproc-per-node N -m` before `avbench`.",
        "avbench train fullsize --list",
        "avbench train fullsize --data train-manifest --init sparsesync.safetensors --out trained",
        "avbench train fullsize --recipe published-trf --data DIR --valid valid --init FILE --device cuda",
    )
    fullsize.add_argument("--recipe", default="paper-trf", metavar="NAME", help="see --list (default: paper-trf)")
    fullsize.add_argument("--data", metavar="DIR", help="manifest folder; its split 'train' is used if it has one")
    fullsize.add_argument("--valid", metavar="SPLIT", help="split of the same manifest to validate on")
    fullsize.add_argument("--init", type=Path, metavar="FILE", help="SparseSync weights, converted or as published")
    # options of `avbench train` itself: a value given before `fullsize` counts
    inherit: Any = argparse.SUPPRESS
    fullsize.add_argument("--out", type=Path, default=inherit, metavar="DIR", help="output folder (default: train)")
    fullsize.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting of the recipe (repeatable)"
    )
    fullsize.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    fullsize.add_argument("--autocast", choices=("bfloat16",), help="mixed precision; not the reference")
    fullsize.add_argument("--readers", type=int, default=1, metavar="N", help="decoding threads (default: 1)")
    fullsize.add_argument("--threads", type=int, default=inherit, metavar="N", help="CPU threads of torch (default: 1)")
    add_log_to(fullsize, default=inherit)
    fullsize.add_argument("--list", action="store_true", default=inherit, help="list the recipes and their settings")


def _fullsize(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch

    from avbench.protocol.manifest import read_manifest
    from avbench.training.common import Told
    from avbench.training.fullsize.loop import Compute, train
    from avbench.training.fullsize.recipe import RECIPES
    from avbench.training.logging_to import logger
    from avbench.types import UsageError
    from avbench.weights.checkpoints import load_weights

    if args.list:
        for name, recipe in RECIPES.items():
            print(f"{name:20} {' '.join(f'{k}={v}' for k, v in asdict(recipe).items() if k != 'size')}")
        return 0
    if args.recipe not in RECIPES:
        raise UsageError(f"unknown recipe {args.recipe!r}: choose from {', '.join(RECIPES)}")
    settings = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: it must be NAME=VALUE")
        settings[name] = value
    recipe = RECIPES[args.recipe].changed(settings)
    if not args.data or not args.init:
        raise UsageError("--data (a manifest folder) and --init (SparseSync weights) are required")
    whole = read_manifest(Path(args.data))
    manifest = whole.split("train") if "train" in whole.splits else whole
    if manifest is whole and args.valid:
        raise UsageError(
            f"{whole.name} has no split 'train': training and validation data (--valid {args.valid}) would overlap"
        )
    if manifest is whole and os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints
        say(f"note: {whole.name} has no split 'train': training uses all of it ({', '.join(whole.splits)})")
    torch.set_num_threads(max(args.threads, 1))
    logged = args.log_to if os.environ.get("RANK", "0") == "0" else None
    with Progress("step") as progress, logger(logged, args.out, args.recipe, asdict(recipe)) as log:
        path = train(
            recipe,
            manifest,
            load_weights(args.init),
            args.out,
            valid=whole.split(args.valid) if args.valid else None,
            compute=Compute(args.device, torch.bfloat16 if args.autocast else None, args.readers),
            say=Told(progress.line, progress, log),
        )
    print(path)
    return 0
