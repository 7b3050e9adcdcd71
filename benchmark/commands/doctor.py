"""``avbench doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands.common import SIGN, add_command, add_model_options, model_options


def add(commands: Any) -> None:
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check this machine, or a model",
        f"Sends clips with known shifts through encoding, decoding, windows and the classical scorer. {SIGN}",
        "avbench doctor",
        "avbench doctor my_net.py:MyNet",
    )
    doctor.add_argument("model", nargs="?", metavar="MODEL", help="check this model instead of the machine")
    doctor.add_argument("--store", type=Path, metavar="DIR", help="the store to verify (default: as in `run`)")
    add_model_options(doctor)


def _doctor(args: argparse.Namespace) -> int:
    from avbench.doctor.machine import examine

    ok, warned = True, False
    for finding in examine(args.model, store=args.store, options=model_options(args)):
        ok &= finding.ok
        warned |= finding.warning
        mark = "FAIL" if not finding.ok else "warn" if finding.warning else "ok  "
        print(f"{mark}  {finding.text}", flush=True)
    well = "all well, but look at the lines marked warn" if warned else "all well"
    print(well if ok else "something is wrong: see the lines marked FAIL")
    return 0 if ok else 1
