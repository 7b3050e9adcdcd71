"""``avbench train fullsize``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from avbench.commands.common import add_command, say


def add(verbs: Any) -> None:
    fullsize = add_command(
        verbs,
        "fullsize",
        _fullsize,
        "train the published models at full size on real clips",
        "Phase 1 trains the streaming parts over a frozen SparseSync, phase 2 everything. A killed training continues "
        "where it was, to the same weights. Several GPUs: put `torchrun --nproc-per-node N -m` before `avbench`.",
        "avbench train fullsize --list",
        "avbench train fullsize --data train-manifest --init sparsesync.safetensors --out trained",
        "avbench train fullsize --recipe published-trf --data DIR --valid valid --init FILE --device cuda",
    )
    fullsize.add_argument("--recipe", default="paper-trf", metavar="NAME", help="see --list (default: paper-trf)")
    fullsize.add_argument("--data", metavar="DIR", help="manifest folder; its split 'train' if it has one")
    fullsize.add_argument("--valid", metavar="SPLIT", help="split of the same manifest to validate on")
    fullsize.add_argument("--init", type=Path, metavar="FILE", help="SparseSync weights, converted or as published")
    # what `avbench train` has too keeps the value given there
    inherit: Any = argparse.SUPPRESS
    fullsize.add_argument("--out", type=Path, default=inherit, metavar="DIR", help="(default: train)")
    fullsize.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting of the recipe (repeatable)"
    )
    fullsize.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    fullsize.add_argument("--autocast", choices=("bfloat16",), help="mixed precision; not the reference")
    fullsize.add_argument("--readers", type=int, default=1, metavar="N", help="decoding threads (default: 1)")
    fullsize.add_argument("--threads", type=int, default=inherit, metavar="N", help="of torch on a CPU (default: 1)")
    fullsize.add_argument("--list", action="store_true", default=inherit, help="the recipes and their settings")


def _fullsize(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch

    from avbench.protocol.manifest import read_manifest
    from avbench.training.fullsize.loop import train
    from avbench.training.fullsize.recipe import RECIPES
    from avbench.types import UsageError
    from avbench.weights.checkpoints import load_weights

    if args.list:
        for name, recipe in RECIPES.items():
            print(f"{name:20} {' '.join(f'{k}={v}' for k, v in asdict(recipe).items() if k != 'size')}")
        return 0
    if args.recipe not in RECIPES:
        raise UsageError(f"unknown recipe {args.recipe!r}: there are {', '.join(RECIPES)}")
    settings = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: it must be NAME=VALUE")
        settings[name] = value
    recipe = RECIPES[args.recipe].changed(settings)
    if not args.data or not args.init:
        raise UsageError("--data (a manifest folder) and --init (SparseSync weights) are needed")
    whole = read_manifest(Path(args.data))
    manifest = whole.split("train") if "train" in whole.splits else whole
    if manifest is whole and args.valid:
        raise UsageError(
            f"{whole.name} has no split 'train': it would be trained on what --valid {args.valid} looks at"
        )
    if manifest is whole and os.environ.get("RANK", "0") == "0":  # one of torchrun's processes speaks
        say(f"note: {whole.name} has no split 'train': all of it ({', '.join(whole.splits)}) is trained on")
    torch.set_num_threads(max(args.threads, 1))
    path = train(
        recipe,
        manifest,
        load_weights(args.init),
        args.out,
        valid=whole.split(args.valid) if args.valid else None,
        device=args.device,
        autocast=torch.bfloat16 if args.autocast else None,
        readers=args.readers,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(path)
    return 0
