"""What was meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], otherwise: str | None = None, most: int = 3) -> str:
    """The at most ``most`` names in ``known`` that are close to ``name``, as "did you mean A or B?"; if none is,
    ``otherwise``, by default all of them, as "there are A, B, C"."""
    import difflib  # here, because the command line imports this module for every --help

    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name.casefold(), names, n=most, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return otherwise if otherwise is not None else f"there are {', '.join(names)}"
