"""The two kinds of callback that report progress: of one loop, and of work in several stages."""

from __future__ import annotations

from collections.abc import Callable

ItemProgress = Callable[[int, int, str], None]  # done, total, the current item
Progress = Callable[[str, int, int, str], None]  # stage, done, total, the current item


def of_stage(progress: Progress | None, stage: str) -> ItemProgress | None:
    """What reports one stage's loop to ``progress``; None if nobody listens."""
    if progress is None:
        return None
    return lambda done, total, item: progress(stage, done, total, item)
