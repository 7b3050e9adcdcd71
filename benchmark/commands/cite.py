"""``avbench cite``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from avbench.commands.common import add_command, say, show


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    cite = add_command(
        commands,
        "cite",
        _cite,
        "print BibTeX for avbench, the paper, and what your runs used",
        "Of each run: its model, and the data that it was trained and tested on. What has no entry is named.",
        "avbench cite",
        "avbench cite runs > avbench.bib",
    )
    cite.add_argument("runs", nargs="*", type=Path, metavar="RUN_DIR", help="folders of runs, or of such folders")


def _cite(args: argparse.Namespace) -> int:
    from avbench.runs.citing import bibtex, cited, comment

    found, unknown = cited(args.runs)
    lacking = [f"no entry for {what}: cite it as its authors ask" for what in unknown]
    parts = [bibtex(key, reasons) for key, reasons in found.items()]
    show("\n\n".join([*parts, *(["\n".join(map(comment, lacking))] if lacking else [])]))
    if not sys.stdout.isatty():  # else they have just been read
        for line in lacking:
            say(line)
    return 0
