"""Text for the terminal: what a data set contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avbench.data.inspect import TOP_EVENTS, event_credit
from avbench.pages.run_text import UNDEFINED
from avbench.pages.tables import table


def _align(heads: Sequence[str]) -> list[str]:
    return ["left"] + ["right"] * (len(heads) - 1)


# -- avbench data info -------------------------------------------------------------------------------------------------


def render_info(facts: Mapping[str, Any]) -> str:
    """The result of ``data.inspect.info`` as text."""
    size = f"{facts['n_clips']} clips, {facts['n_videos']} videos, {facts['n_segments']} segments"
    lines = [
        f"{facts['name']} ({facts['kind']}): {size}, {facts['hours']:.2f} h",
        f"note      {facts['note'] or UNDEFINED}",
        f"offsets   {facts['offset_law']}",
        f"media     {facts['media_root']}",
        f"sha256    {facts['sha256']}",
    ]
    if facts["categories"]:
        lines.append("categories " + " · ".join(f"{key or '(none)'} {n}" for key, n in facts["categories"].items()))
    if facts["unseen_media"]:
        lines.append(f"unseen    {facts['unseen_media']} clips: imported without media; their lengths are as declared")
    heads = [
        "split",
        "channels",
        "videos",
        "clips",
        "segments",
        "hours",
        "clip (s)",
        "per clip",
        "in sync",
        "annotated",
    ]
    rows: list[list[Any]] = [
        [
            *(r[key] for key in ("split", "channels", "videos", "clips", "segments")),
            f"{r['hours']:.2f}",
            *(f"{r[key]:.1f}" for key in ("clip_s", "segments_per_clip")),
            *(f"{100 * r[key]:.1f} %" for key in ("in_sync", "annotated")),
        ]
        for r in facts["overview"]
    ]
    lines += ["", table(rows, heads, align=_align(heads))]
    if len(facts["by_channel"]) > 2:  # more than one channel and the total
        heads = ["channel", "videos", "clips", "hours", "segments"]
        rows = [[r[key] if key != "hours" else f"{r[key]:.2f}" for key in heads] for r in facts["by_channel"]]
        lines += ["", table(rows, heads, align=_align(heads))]
    lines += _laws(facts["laws"])
    lines += ["", "segments per offset" + (" at the beginning" if facts["laws"] else "")]
    lines += _bars({row["in_words"]: row["segments"] for row in facts["offsets"] if row["segments"]})
    lines += _events(facts["events"])
    lines += ["", "segments long enough for this many windows (streaming protocol)"]
    support = facts["support"]
    windows = list(next(iter(support.values())))
    rows = [[f"hop {hop} s", *by_count.values()] for hop, by_count in support.items()]
    heads = ["", *map(str, windows)]
    lines.append(table(rows, heads, align=_align(heads)))
    lines += [f"warning: {text}" for text in facts["warnings"]]
    return "\n".join(lines)


def _laws(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the offsets run, a line for each law; nothing where they are fixed."""
    if not rows:
        return []
    heads = ["law", "streams", "changes", "mean step (s)", "offsets (s)", "muted (s)"]
    cells = [
        [
            *(r[key] for key in ("law", "streams", "changes")),
            f"{r['step_s']:.2f}" if r["changes"] else UNDEFINED,
            "{:.2f} ... {:.2f}".format(*r["offset_s"]),
            f"{r['muted_s']:.1f}",
        ]
        for r in rows
    ]
    return ["", "laws: how the offset of a stream runs", table(cells, heads, align=_align(heads))]


def _events(counts: Mapping[str, int]) -> list[str]:
    """The most frequent events, how many others there are, and whose names they are."""
    if not counts:
        return []
    others, credit = len(counts) - TOP_EVENTS, event_credit(counts)
    lines = ["", "segments per audio event", *_bars(dict(list(counts.items())[:TOP_EVENTS]))]
    if others > 0:
        lines.append(f"  and {others} more events (--json lists them)")
    return [*lines, *([f"  {credit}"] if credit else [])]


def _bars(counts: Mapping[str, int]) -> list[str]:
    longest, width = max(counts.values(), default=0), max(16, *map(len, counts), 0)
    return [f"  {name:{width}} {n:6d}  {'▪' * max(1, round(30 * n / longest))}" for name, n in counts.items()]
