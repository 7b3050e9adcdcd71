"""Where an error comes from: the user's own line in a one-line message, and with ``AVBENCH_DEBUG=1``, or ``--debug``,
the traceback behind it, on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from avbench.types import AvbenchError, first_line, in_one_line, printable

VARIABLE = "AVBENCH_DEBUG"  # worker processes inherit it


def turn_on() -> None:
    """For this process and those it starts."""
    os.environ[VARIABLE] = "1"


def is_on() -> bool:
    """Whether tracebacks are shown."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def show(error: BaseException) -> None:
    """Print the traceback of ``error`` if debugging is on, after those of the errors that caused it, oldest first, even
    where ``raise ... from None`` hides them."""
    if not is_on():
        return
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for found in reversed(chain):
        traceback.print_exception(type(found), found, found.__traceback__, chain=False, file=sys.stderr)


def with_users_line(error: BaseException) -> str:
    """The error in one line, with the innermost line of the user's own code that it passed through, if there is one:
    ``ValueError: no such layer (net.py, line 12, in predict)``. Folders are left out: they are nobody's business."""
    said = first_line(error) if isinstance(error, AvbenchError) else in_one_line(error)  # ours need no kind
    if isinstance(error, SyntaxError) and error.filename:  # of a file that does not even start; Python says which line
        return said
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        if _is_users(file, str(frame.f_globals.get("__name__", ""))):
            return f"{said} ({printable(Path(file).name)}, line {line}, in {frame.f_code.co_name})"
    return said


def _is_users(file: str, module: str) -> bool:
    """Whether a file is neither avbench's, nor Python's own, nor of an installed package."""
    parts, first = Path(file).parts, module.partition(".")[0]
    if first == "avbench" or file.startswith("<") or {"site-packages", "dist-packages"} & set(parts):
        return False
    return first == "__main__" or first not in sys.stdlib_module_names
