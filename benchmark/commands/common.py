"""What the commands share: how they speak, how they show progress, and arguments that several of them take."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest
    from avbench.protocol.rules import Protocol
    from avbench.registry.options import ModelOptions

SIGN = "A positive offset means that the sound comes early (it leads the picture), a negative one that it is late."
MAX_LINES = 10  # of one kind on the screen; run.json has them all


def complain(problem: object, code: int) -> int:
    text = " ".join(str(problem).split())
    say(f"error: {''.join(c if c.isprintable() else '?' for c in text)}")  # it may quote a stranger's file
    return code


def say(text: str) -> None:
    print(f"avbench: {text}", file=sys.stderr)


def say_each(kind: str, lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        say(f"{kind}: {line}")
    if len(lines) > MAX_LINES:
        say(f"{kind}: ... and {len(lines) - MAX_LINES} more")


UNITS = {  # what is counted, where it is not clips
    **dict.fromkeys(("decoding and snapshots", "train snapshots", "valid snapshots"), "snapshot"),
    "timing": "sample",
    "timing models": "model",
    "entries": "entry",
    **dict.fromkeys(("reading", "fetching data", "fetching and verifying", "uploading", "hashing media"), "file"),
}


class Progress:
    """One bar with ETA per stage, on stderr; in a log file (no terminal) it is renewed rarely. ``unit`` "B": bytes."""

    def __init__(self, unit: str = "clip") -> None:
        self.unit = unit
        self.stage = ""
        self.bar: Any = None

    def __call__(self, stage: str, done: int, total: int, item: str = "") -> None:
        if stage != self.stage or self.bar is None:
            from tqdm import tqdm

            self.close()
            patience_s = 0.1 if sys.stderr.isatty() else 5.0
            self.stage = stage
            self.bar = tqdm(
                total=total,
                desc=stage,
                unit=UNITS.get(stage, self.unit),
                unit_scale=self.unit == "B",
                file=sys.stderr,
                mininterval=patience_s,
            )
        if done > self.bar.n:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def of(self, stage: str) -> Any:
        """A ``(done, total, item)`` callback for one stage."""
        return lambda done, total, item="": self(stage, done, total, item)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def protocol_of(args: argparse.Namespace) -> Protocol:
    from avbench.protocol.rules import PROTOCOLS

    return PROTOCOLS[args.protocol](hop_s=hop_s(args), iterations=args.iterations)


def hop_s(args: argparse.Namespace) -> float:
    from avbench.types import UsageError

    if not math.isfinite(args.hop):
        raise UsageError(f"hop is {args.hop} s; it must be a positive multiple of 0.04 s (one frame)")
    return args.hop


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What a request may add to a model's name; :func:`model_options` reads it."""
    group = parser.add_argument_group("weights and precision")
    group.add_argument("--weights", type=Path, metavar="FILE", help="converted, published .pt, or of `avbench train`")
    group.add_argument("--head-weights", type=Path, metavar="FILE", help="a learned head of its own, for +trf or +lstm")
    group.add_argument(
        "--random-weights",
        type=int,
        nargs="?",
        const=0,
        metavar="SEED",
        help="full size, whatever no file gives is random: the scores mean nothing",
    )
    group.add_argument("--dtype", default="float32", help="float32, or autocast to bfloat16 or float16")
    group.add_argument("--compile", action="store_true", help="with torch.compile")


def model_options(args: argparse.Namespace) -> ModelOptions:
    from avbench.registry.options import ModelOptions

    return ModelOptions(args.weights, args.head_weights, args.random_weights, args.dtype, args.compile)


def manifest_of(args: argparse.Namespace) -> Manifest:
    from avbench.data.opening import read_data

    with Progress() as progress:
        return read_data(args.data, args.split, progress=progress)


def count(manifest: Manifest) -> str:
    n_clips, n_segments = len(manifest.clips), len(manifest.segments)
    return f"{n_clips} clip{'s' * (n_clips != 1)}, {n_segments} segment{'s' * (n_segments != 1)}"


def add_command(
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
    parser.set_defaults(command=function, prog=parser.prog)
    return parser
