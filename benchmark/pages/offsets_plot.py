"""Figure 1 of the paper: the distribution of offsets in a data set, and of its audio events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avbench.data.inspect import TOP_EVENTS, event_counts, event_credit, offsets
from avbench.pages.drawing import COLOURS, check_format, drawing, write_figure
from avbench.protocol.manifest import Manifest

LONGEST_NAME = 30  # characters that leave room for the bars


def plot_offsets(manifest: Manifest, path: Path) -> None:
    """Figure 1: how often each offset occurs, the classes in seconds; a second panel with the most frequent audio
    events if the manifest has any. ``UsageError``: neither SVG nor PNG; ``AvbenchError``: cannot be written."""
    check_format(path)
    rows = offsets(manifest)
    events = event_counts(manifest)
    with drawing(4.6 + (5.6 if events else 0), 3.2) as figure:
        axes = figure.subplots(1, 2 if events else 1, squeeze=False)[0]
        width = 0.8 * (rows[1]["offset_s"] - rows[0]["offset_s"])
        axes[0].bar([r["offset_s"] for r in rows], [r["segments"] for r in rows], width, color=COLOURS[2])
        axes[0].set_xlabel("offset (s): audio late  <  0 in sync  <  audio early")
        axes[0].set_ylabel("segments")
        note = f" ({manifest.note})" if manifest.note else ""
        title = f"{manifest.name}{note}, {len(manifest.segments)} segments"
        axes[0].set_title(title, fontsize=9, parse_math=False)
        axes[0].yaxis.get_major_locator().set_params(integer=True)
        axes[0].grid(alpha=0.25, lw=0.5, axis="y")
        if events:
            event_bars(axes[1], events)
        write_figure(figure, path)


def event_bars(axis: Any, counts: Mapping[str, int]) -> None:
    """The most frequent events on ``axis``, the first on top: how many segments have each (``event_counts``), how many
    other events there are, and whose names they are."""
    shown = list(counts.items())[:TOP_EVENTS]
    axis.barh(range(len(shown)), [n for _, n in shown], color=COLOURS[1])
    axis.set_yticks(range(len(shown)), [short_name(name) for name, _ in shown], parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("\n".join(["segments with the audio event", *filter(None, [event_credit(counts)])]))
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(counts) > len(shown):
        axis.set_title(f"the {len(shown)} most frequent of {len(counts)} events", fontsize=9)
    axis.grid(alpha=0.25, lw=0.5, axis="x")


def short_name(name: str) -> str:
    """An event's name with at most 30 characters, cut where its next word begins: AudioSet's have up to 41."""
    if len(name) <= LONGEST_NAME:
        return name
    cut = name[: LONGEST_NAME - 1]
    whole = cut.rpartition(",")[0] or cut.rpartition(" ")[0] or cut
    return f"{whole.rstrip(' ,')}…"
