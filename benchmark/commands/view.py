"""``avbench view``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from avbench.commands.common import add_command, say


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    view = add_command(
        commands,
        "view",
        _view,
        "make one page of a folder of runs: filters, side by side",
        "Writes runs.html into the folder: every run in it or one or two folders below, with filters; chosen runs are\n"
        "shown side by side. A file to open in any browser, without a server.",
        "avbench view",
        "avbench view experiments --open",
    )
    view.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), metavar="DIR", help="with runs in it (default: runs)"
    )
    view.add_argument("--open", action="store_true", help="open the page in the browser")
    view.add_argument("--force", action="store_true", help="replace a runs.html that is not such a page")


def _view(args: argparse.Namespace) -> int:
    from avbench.pages.runs_page import MARK, NAME, find_runs, runs_page
    from avbench.system.outputs import check_writable
    from avbench.system.strict import write_whole
    from avbench.types import UsageError

    page = args.folder / NAME
    if not args.folder.is_dir():
        raise UsageError(f"{args.folder} is no folder; name one that `avbench run` wrote runs into")
    if page.is_dir() or (page.exists() and not args.force and MARK.encode() not in page.read_bytes()):
        raise UsageError(f"{page} is there and not a page of avbench view; give --force to replace it")
    check_writable(args.folder, "DIR")
    runs, unread = find_runs(args.folder)
    if not runs and not unread:
        raise UsageError(f"{args.folder} holds no run; `avbench run` writes them to runs/ unless --out says otherwise")
    at = Path(os.path.relpath(args.folder))  # as the commands that the page advises will name it
    write_whole(page, runs_page(runs, unread, args.folder.resolve().name, at).encode("utf-8", "replace"))
    for one in unread:
        say(f"{one.folder} is left out: {one.reason}")
    print(page)
    if args.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 1 if unread else 0
