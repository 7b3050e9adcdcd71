"""What a check found."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """``warning``: nothing is broken, but it should be looked at."""

    ok: bool
    text: str
    warning: bool = False
