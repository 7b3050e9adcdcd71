"""One stream of a run over changing offsets as a figure file: what is believed at every window, and what is so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avbench.pages.changing import Teller
from avbench.pages.drawing import COLOURS, check_format, drawing, write_figure
from avbench.pages.run_report import read_again
from avbench.results.run import read_run
from avbench.scoring.streams import checked_streams
from avbench.ticks import seconds
from avbench.types import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from avbench.pages.stream_charts import Tracked


def plot_stream(run: Path, path: Path, stream: str | None = None) -> str:
    """Draws a stream of a run (a folder or its run.json) as SVG or PNG and returns its id. ``stream`` None: the typical
    one of the law ``jump`` if there is one, else the one in the middle by mean error. ``UsageError``: no such stream, a
    run of fixed offsets or without labels, neither SVG nor PNG, or files as in ``read_again``."""
    check_format(path)
    run = Path(run)
    result = read_run(run)
    read = read_again(run, result)
    if read.windows is None or read.answers is None:
        hidden = result.data.labels == "hidden"
        why = "its labels are hidden" if hidden else "its offsets are fixed; over --data synthsync-dynamic they change"
        raise UsageError(f"{run}: no stream to draw, because {why}")
    hop_s, window_s = seconds(result.protocol.hop), seconds(result.protocol.window)
    teller = Teller(result, checked_streams(read.logits, read.windows, hop_s, window_s, alarm=read.alarm))
    row = read.windows.place.get(stream) if stream else _typical(teller)
    if row is None:
        raise UsageError(f"{run} has no stream {stream}; the first one is {read.windows.segment_ids[0]}")
    name, law = read.windows.segment_ids[row], teller.law(row)
    with drawing(7.2, 2.9) as figure:
        axes = figure.subplots()
        _draw(axes, teller.tracked(row))
        note = f", {result.data.note}" if result.data.note else ""
        title = f"{result.model.name} on {name}{f' ({law})' if law else ''}{note}"
        axes.set_title(title, fontsize=9, loc="left", parse_math=False)
        write_figure(figure, path)
    return name


def _typical(teller: Teller) -> int:
    order = teller.order()
    jumps = [row for row in order if teller.law(row) == "jump"]
    seen = [row for row in jumps if _changes_within(teller.tracked(row))]  # the windows may end before
    rows = seen or jumps or order
    return rows[(len(rows) - 1) // 2]


def _changes_within(stream: Tracked) -> bool:
    return any(t < stream.ends_s[-1] for t in stream.changes_s)


def _draw(axes: Axes, stream: Tracked) -> None:
    """The stream, early sound at the top; marks as on the page."""
    blue, green, red = COLOURS[2], COLOURS[3], COLOURS[6]
    axes.axvspan(0, stream.unscored_s, color="0.93", lw=0)
    for start_s, end_s in stream.muted_s:
        axes.axvspan(start_s, end_s, color="0.75", lw=0)
    axes.fill_between(stream.ends_s, stream.low_s, stream.high_s, color=blue, alpha=0.18, lw=0, label="80 % band")
    axes.plot(stream.ends_s, stream.believed_s, color=blue, lw=1.8, label="believed")
    axes.plot(*zip(*stream.true, strict=True), color=COLOURS[0], lw=1.2, ls=(0, (5, 2)), label="true offset")
    for times_s, mark, colour, height, label in (
        (stream.changes_s, "^", COLOURS[0], -2.25, "change"),
        (stream.declared_s, "v", green, 2.25, "declared"),
        (stream.false_s, "x", red, 2.25, "declared, none happened"),
    ):
        if times_s:
            axes.plot(times_s, [height] * len(times_s), mark, color=colour, ms=5, mew=1.8, label=label)
    axes.set(xlim=(0, stream.ends_s[-1]), ylim=(-2.5, 2.5), xlabel="seconds of stream")
    axes.set_ylabel("audio late  <  offset (s)  <  early")
    axes.grid(alpha=0.25, lw=0.5)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
