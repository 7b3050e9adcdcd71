"""Messages name the options of the command line. Where Python can ask for the same, they name its argument, too."""

from __future__ import annotations

ARGUMENTS = {
    "--data": "data=...",
    "--device": "Compute(device=...)",
    "--force": "force=True",
    "--iterations": "iterations=...",
    "--keep-going": "Compute(keep_going=True)",
    "--keep-media": "Compute(keep_bytes=...)",
    "--model": "model=...",
    "--out": "out=...",
    "--store": "Compute(store=...)",
    "--workers": "Compute(workers=...)",
}


def in_python(*options: str) -> str:
    """What is said after a sentence that names ``options``: `` (in Python: force=True, out=...)``. An option may have
    its value: of "--iterations 4" it is ``iterations=4``. ``KeyError`` for an option that has no argument."""
    asked = []
    for option in options:
        name, _, value = option.partition(" ")
        asked.append(ARGUMENTS[name].replace("...", value or "..."))
    return f" (in Python: {', '.join(asked)})"
