"""``avbench train head``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_compute_options,
    add_force,
    add_log_to,
    add_model_args,
    batch_of,
    device_of,
    model_options,
    model_words,
    say_next,
)


def add(verbs: Any) -> None:
    """Add ``head`` to the verbs of ``avbench train``."""
    head = add_command(
        verbs,
        "head",
        _head,
        "train a streaming head on any backbone",
        "The backbone is frozen: its snapshots of the training clips are stored once, and the head is trained on them.",
        "avbench train head --head lstm --backbone my_net.py:MyNet --out heads",
        "avbench run --model my_net.py:MyNet+lstm --head-weights heads/my_net-MyNet-lstm.safetensors",
    )
    head.add_argument("--backbone", required=True, metavar="M", help="a name of `avbench models`, or file.py:Class")
    add_model_args(head)
    head.add_argument("--head", choices=("lstm", "trf"), default="lstm", help="(default: lstm)")
    head.add_argument("--data", default="synthsync", help="data with the splits train and valid (default: synthsync)")
    head.add_argument("--offsets", type=int, default=6, metavar="N", help="streams per clip (default: 6)")
    head.add_argument("--limit", type=int, metavar="N", help="only the first N clips of each split")
    head.add_argument("--steps", type=int, default=600, metavar="N", help="training steps (default: 600)")
    head.add_argument("--seed", type=int, default=0, metavar="N", help="of offsets, weights and batches (default: 0)")
    head.add_argument("--out", type=Path, default=Path("train"), metavar="DIR", help="output folder (default: train)")
    head.add_argument("--store", type=Path, metavar="DIR", help="store of the snapshots (default: as in `run`)")
    head.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    add_force(head)
    add_compute_options(head)
    add_log_to(head, default=argparse.SUPPRESS)  # given before `head` it counts, too


def _head(args: argparse.Namespace) -> int:
    from avbench.engine.runner import Compute
    from avbench.registry.names import backbone_alone
    from avbench.training.common import Told
    from avbench.training.head import HeadRecipe, train_head
    from avbench.training.logging_to import logger

    name = backbone_alone(args.backbone)
    recipe = HeadRecipe(args.backbone, args.head, args.data, args.offsets, args.limit, steps=args.steps, seed=args.seed)
    how = Compute(args.store, args.workers, device_of(args), batch_of(args))
    settings = {name: value for name, value in vars(recipe).items() if value is not None}
    with Progress() as progress, logger(args.log_to, args.out, f"{args.head} on {name}", settings) as log:
        path = train_head(
            recipe,
            args.out,
            how,
            Told(progress.line, progress, log),
            progress,
            model_options(args),
            force=args.force,
        )
    print(path)
    run = ("run", "--model", f"{name}+{args.head}", "--head-weights", path, *model_words(args))
    say_next([run], to=sys.stderr)
    return 0
