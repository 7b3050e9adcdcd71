"""``avbench plan``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from avbench.commands.common import add_command, hop_s


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    parser = add_command(
        commands,
        "plan",
        _plan,
        "say what an evaluation would take, on any number of devices",
        "The clips, windows and files are those of the real plan; times are these counts times measured unit\n"
        'costs, each machine by itself. Figures that were not measured for this table are marked "reported",\n'
        "and what was never measured is a dash and left out.",
        "avbench plan --data my_manifest --model sparsesync.vggsound+apa --devices 8",
        "avbench plan --clips 11124 --model full-sparsesync --devices 64      # as many clips as RealSync",
        "avbench plan --clips 946080 --model full-sparsesync --devices 64     # nine channels for a year",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="a name of `avbench data ls`, folder or hub:ORG/NAME@COMMIT")
    what.add_argument("--clips", type=int, metavar="N", help="no data: N clips that are all alike")
    parser.add_argument("--clip-s", type=float, default=300.0, metavar="S", help="their length (default: 300)")
    parser.add_argument(
        "--every-s", type=float, default=10.0, metavar="S", help="between the starts of their segments (default: 10)"
    )
    parser.add_argument("--split", default="test", help="of --data (default: test)")
    parser.add_argument(
        "--model",
        default="sparsesync",
        metavar="M",
        help="as in `run`; full-sparsesync and full-synchformer: at published size (default: sparsesync)",
    )
    parser.add_argument("--hop", type=float, default=2.0, metavar="S", help="as in `run` (default: 2)")
    parser.add_argument("--iterations", type=int, metavar="N", help="as in `run`")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="that share the clips out (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def _plan(args: argparse.Namespace) -> int:
    from avbench.data.opening import read_labels
    from avbench.protocol.rules import usual
    from avbench.runs.estimate import equal_clips, estimate, model_of, render, work_of
    from avbench.runs.evaluate import most_windows
    from avbench.types import UsageError

    for option, value in (("--devices", args.devices), ("--clips", args.clips)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}; it must be at least 1")
    model = model_of(args.model)
    usual(False, hop_s(args), args.iterations)  # a wrong one is said before any data is read
    if args.clips:
        manifest, name = equal_clips(args.clip_s, args.every_s), f"{args.clips:,} clips of {args.clip_s:g} s"
    else:
        manifest, name = read_labels(args.data, args.split), f"{args.data} {args.split}"
    protocol = usual(manifest.changing, hop_s(args), args.iterations)
    work = work_of(manifest, protocol, args.devices)
    if not work.clips:
        longest = most_windows(manifest, protocol, any)
        fits = f"the longest fits {longest}: try --iterations {longest}" if longest else "not even one window fits"
        raise UsageError(f"no segment of {name} is long enough for {protocol.iterations} windows; {fits}")
    found = estimate(name, work.times(args.clips) if args.clips else work, protocol, model)
    print(json.dumps(found.to_json(), indent=1, allow_nan=False) if args.json else render(found))
    return 0
