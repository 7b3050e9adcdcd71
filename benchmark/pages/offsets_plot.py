"""Figure 1 of the paper: the distribution of offsets in a data set."""

from __future__ import annotations

from pathlib import Path

from avbench.data.inspect import counts_of, offsets
from avbench.protocol.manifest import Manifest


def plot_offsets(manifest: Manifest, path: Path) -> None:
    """Figure 1: how often each offset occurs, the classes in seconds; a second panel with the most frequent audio
    events if the manifest has any. ``UsageError``: neither SVG nor PNG; ``AvbenchError``: cannot be written."""
    from avbench.pages.drawing import COLOURS, check_format, drawing, write_figure

    check_format(path)
    rows = offsets(manifest)
    events = list(counts_of(event for s in manifest.segments for event in s.events).items())[:12]
    with drawing(4.6 * (2 if events else 1), 3.2) as figure:
        axes = figure.subplots(1, 2 if events else 1, squeeze=False)[0]
        width = 0.8 * (rows[1]["offset_s"] - rows[0]["offset_s"])
        axes[0].bar([r["offset_s"] for r in rows], [r["segments"] for r in rows], width, color=COLOURS[2])
        axes[0].set_xlabel("offset (s): audio late  <  0 in sync  <  audio early")
        axes[0].set_ylabel("segments")
        axes[0].set_title(f"{manifest.name}, {len(manifest.segments)} segments", fontsize=9)
        if events:
            names, counts = [name for name, _ in reversed(events)], [n for _, n in reversed(events)]
            axes[1].barh(names, counts, color=COLOURS[1])
            axes[1].set_xlabel("segments with the audio event")
        for axis in axes:
            axis.grid(alpha=0.25, lw=0.5, axis="x" if axis is not axes[0] else "y")
        write_figure(figure, path)
