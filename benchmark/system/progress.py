"""The two kinds of callback that report progress: of one loop, and of work in several stages."""

from __future__ import annotations

from collections.abc import Callable

ItemProgress = Callable[[int, int, str], None]  # done, total, item

Progress = Callable[[str, int, int, str], None]  # stage, done, total, item
