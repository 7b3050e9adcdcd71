"""``avbench report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from avbench.commands.common import add_command


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    report = add_command(
        commands,
        "report",
        _report,
        "rebuild a run's page from its files",
        "`avbench run` already writes the page; use this if it was lost, or after updating avbench.",
        "avbench report runs/2026-11-25-streamsync-trf",
    )
    report.add_argument("run", type=Path, metavar="RUN_DIR", help="a folder that `avbench run` wrote")


def _report(args: argparse.Namespace) -> int:
    from avbench.pages.run_report import report_again

    print(report_again(args.run))
    return 0
