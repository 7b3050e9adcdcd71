"""``avbench data pairs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    SIGN,
    add_command,
    add_force,
    as_data,
    count,
    hop_s,
    say_each,
    say_next,
    show,
    split_words,
    unmade_of,
    with_clips,
)


def add_verb(verbs: Any) -> None:
    """Add ``pairs`` to the verbs of ``avbench data``."""
    pairs = add_command(
        verbs,
        "pairs",
        _data_pairs,
        "make pairs of streams, in sync and shifted",
        "For every stream of DATA: itself with its media's own sound (taken to be in sync), and copies with the sound "
        "early and late by each shift.\n`avbench run` then says how often a model finds the one in sync more probable. "
        f"Nothing is copied: shifts are applied when the media are read.\n{SIGN}",
        "avbench data pairs synthsync --shifts 0.05,0.1,0.2,0.3,0.5 --out pairs",
        "avbench data pairs my_manifest --shifts 0.1,0.5 --limit 100 --iterations 1 --out pairs",
    )
    pairs.add_argument("data", metavar="DATA", help="a name of `avbench data ls`, a folder or hub:ORG/NAME@COMMIT")
    pairs.add_argument("--out", type=Path, required=True, metavar="DIR", help="the manifest folder")
    pairs.add_argument(
        "--shifts",
        type=_seconds,
        default="0.05,0.1,0.2,0.3,0.5",
        metavar="S,S,...",
        help="seconds, each in both directions (default: 0.05,0.1,0.2,0.3,0.5)",
    )
    pairs.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")
    pairs.add_argument("--limit", type=int, metavar="N", help="only N streams, drawn at random")
    pairs.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the streams that --limit draws (default: 0)"
    )
    pairs.add_argument("--hop", type=float, default=2.0, metavar="S", help="for --iterations (default: 2)")
    pairs.add_argument(
        "--iterations", type=int, default=1, metavar="N", help="windows that must fit in a stream (default: 1)"
    )
    pairs.add_argument("--name", default="", help="of the data (default: that of DATA with -pairs)")
    add_force(pairs)


def _seconds(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seconds such as 0.05,0.1,0.5") from None


def _data_pairs(args: argparse.Namespace) -> int:
    from avbench.data.pairs import make_pairs
    from avbench.protocol.manifest import write_manifest
    from avbench.protocol.rules import streaming
    from avbench.system.outputs import check_folder

    protocol = streaming(hop_s(args), args.iterations)
    check_folder(args.out, args.force)
    manifest, short = make_pairs(
        unmade_of(args), args.shifts, limit=args.limit, seed=args.seed, protocol=protocol, name=args.name
    )
    write_manifest(with_clips(manifest), args.out)
    say_each("left out", [f"segment {name} has no room for its shifted copies" for name in short])
    originals = sum(not segment.pair_of for segment in manifest.segments)
    pairs = len(manifest.segments) - originals
    show(f"{args.out}: {count(manifest)}: {originals} streams in sync, {pairs} pairs")
    windows = ("--iterations", args.iterations, *(() if args.hop == 2 else ("--hop", f"{args.hop:g}")))
    say_next([("run", "--model", "sparsesync", "--data", as_data(args.out), *split_words(manifest), *windows)])
    return 0
