"""``avbench doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    SIGN,
    add_command,
    add_compute_options,
    add_model_options,
    batch_of,
    device_of,
    model_options,
)


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check this machine, a model, a streaming head, or the metrics",
        "Without MODEL: sends clips with known shifts through encoding, decoding, windows and the classical scorer.\n"
        f"{SIGN}\n"
        "`avbench doctor metrics` compares the metrics with scikit-learn's on random predictions.",
        "avbench doctor",
        "avbench doctor my_net.py:MyNet",
        "avbench doctor my_head.py:MyHead",
        "avbench doctor metrics",
    )
    doctor.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="check a model, file.py:Head alone, or `metrics`, instead of the machine",
    )
    doctor.add_argument("--store", type=Path, metavar="DIR", help="the store to verify (default: as in `run`)")
    add_compute_options(doctor, batch="auto", each="windows of the model checks (auto: 3)")
    add_model_options(doctor)


def _doctor(args: argparse.Namespace) -> int:
    from avbench.doctor.machine import examine
    from avbench.doctor.model import WINDOWS, On
    from avbench.system.findings import print_findings

    on = On(device_of(args), batch_of(args) or WINDOWS)
    ok, warned = print_findings(examine(args.model, store=args.store, options=model_options(args), on=on))
    well = "all well, but inspect the lines marked warn" if warned else "all well"
    print(well if ok else "something is wrong: see the lines marked FAIL")
    return 0 if ok else 1
