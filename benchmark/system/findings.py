"""What a check found: ``avbench doctor`` and ``avbench weights verify`` report one finding after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from avbench.types import printable


class Finding(NamedTuple):
    """One result of a check, in words. ``warning``: nothing is broken, but someone should inspect it."""

    ok: bool
    text: str
    warning: bool = False


def print_findings(findings: Iterable[Finding]) -> tuple[bool, bool]:
    """Prints each finding as soon as it is made, one line each, marked "ok", "warn" or "FAIL".

    Returns whether all are ok, and whether any is a warning. Texts may quote a stranger's file: see ``printable``.
    """
    ok, warned = True, False
    for finding in findings:
        ok &= finding.ok
        warned |= finding.warning
        mark = "FAIL" if not finding.ok else "warn" if finding.warning else "ok  "
        print(f"{mark}  {printable(finding.text)}", flush=True)
    return ok, warned


def first_of(problems: Sequence[str]) -> str:
    """The first of several problems, and how many more there are: what one line has room for."""
    return problems[0] + (f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else "")
