"""``AVBENCH_DEBUG=1``, or ``--debug``: the traceback behind a one-line message, on stderr."""

from __future__ import annotations

import os
import sys
import traceback

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
