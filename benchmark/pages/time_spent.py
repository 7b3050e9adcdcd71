"""Where a run's time went: one bar, and its parts in words."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from avbench.pages import fragment
from avbench.pages.charts import svg
from avbench.results.run import RunResult

WORDS = {
    "decode_s": "reading and cutting clips",
    "wait_s": "waiting for clips to be decoded",
    "transfer_s": "bringing windows to the device",
    "compute_s": "the models' calls",
}
MINUTE_S, HOUR_S = 60, 3600
BAR = (680.0, 10.0)


class Part(NamedTuple):
    """One part of the time: its words, its length as a person reads it, and a dot in the colour it has in the bar."""

    words: str
    length: str
    dot: Markup


def where_time_went(result: RunResult) -> Markup:
    """A bar of the parts that took any time, in the order of the work, and the parts in words; nothing if nothing was
    computed or measured."""
    if result.spent is None:
        return Markup("")
    took = {name: taken for name in WORDS if (taken := getattr(result.spent, name)) > 0}
    left, scale = 0.0, BAR[0] / (sum(took.values()) or 1)
    parts, bar = [], []
    for colour, (name, seconds) in enumerate(took.items()):
        bar.append(_block(colour, left, seconds * scale))
        left += seconds * scale
        parts.append(Part(WORDS[name], in_words(seconds), svg((10, 10), "", "key", [_block(colour, 0, 10)])))
    return fragment("time_spent.html", parts=parts, bar=svg(BAR, "", "chart wide", bar))


def _block(colour: int, left: float, width: float) -> Markup:
    return Markup('<rect class="dot c{}" x="{:.1f}" y="0" width="{:.1f}" height="{:g}"/>').format(
        colour, left, width, BAR[1]
    )


def in_words(seconds: float) -> str:
    """``0.42`` -> "0.42 s", ``75.0`` -> "1 min 15 s", ``8000.0`` -> "2 h 13 min"."""
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"
