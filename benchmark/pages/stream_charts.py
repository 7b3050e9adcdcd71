"""Charts of streams whose offset changes, as inline SVG for pages: one stream being tracked, and how many changes are
not recovered from after a time. In the style of ``avbench.pages.charts``: equal numbers give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages.charts import BOTTOM, RIGHT, TOP, Axes, path_of, svg, text_at

STREAM_SIZE, RECOVERY_SIZE = (340.0, 214.0), (440.0, 300.0)
LABELS = 122.0  # room for the names beside the recovery curves
APART = 13.0  # least distance of two names
MARK = 4.0  # half the size of a mark


class Tracked(NamedTuple):
    """One stream: what is believed at the end of each of W windows, and what is so. Times in seconds from the stream's
    beginning, offsets in seconds."""

    ends_s: np.ndarray  # (W,)
    believed_s: np.ndarray  # (W,)
    low_s: np.ndarray  # (W,) the band that holds 80 % of the probability
    high_s: np.ndarray  # (W,)
    true: Sequence[tuple[float, float]]  # corners of the true offset: (time, offset)
    changes_s: Sequence[float]  # when it changes
    declared_s: Sequence[float]  # when the model declares a change that happened
    false_s: Sequence[float]  # and one that did not
    muted_s: Sequence[tuple[float, float]]  # (from, until)
    alarm_s: Sequence[tuple[float, float]]  # when the model's own alarm is raised
    unscored_s: float  # until then nothing is scored


class Survival(NamedTuple):
    """One curve of recovery: at each time (ascending, the first 0) the share of changes not yet recovered from."""

    label: str
    steps: Sequence[tuple[float, float]]
    colour: int
    dashes: int = 0  # kind of line, 0 ... 3
    main: bool = False


def tracked(stream: Tracked, title: str, reach_s: float = 2.0) -> Markup:
    """One stream over time, early sound at the top: the true offset as a dark stepped line, the believed one with its
    80 % band; triangles below: changes; above: declared changes, a cross where none happened."""
    size = STREAM_SIZE
    axes = Axes(size, (0.0, float(stream.ends_s[-1])), (-1.15 * reach_s, 1.15 * reach_s))
    top, bottom = TOP, size[1] - BOTTOM
    out = [_stretch("unscored", axes, 0.0, stream.unscored_s, top, bottom)]
    out += [_stretch("muted", axes, start, end, top, bottom) for start, end in stream.muted_s]
    out.append(axes.frame(range(0, int(stream.ends_s[-1]) + 1, 20), "seconds of stream", (-2, -1, 0, 1, 2)))
    times = stream.ends_s.tolist()
    band = [
        *zip(times, stream.high_s.tolist(), strict=True),
        *zip(times[::-1], stream.low_s[::-1].tolist(), strict=True),
    ]
    believed = list(zip(times, stream.believed_s.tolist(), strict=True))
    for kind, points, close in (("band c0", band, "Z"), ("true", stream.true, ""), ("line c0", believed, "")):
        drawn = path_of([(axes.x(t), axes.y(offset)) for t, offset in points])
        out.append(Markup('<path class="{}" d="{}{}"/>').format(kind, drawn, close))
    out += [_triangle("change", axes.x(t), bottom - 1, -MARK) for t in stream.changes_s]
    out += [_triangle("declared", axes.x(t), top + 1, MARK) for t in stream.declared_s]
    out += [_cross(axes.x(t), top + MARK) for t in stream.false_s]
    out += [_stretch("alarm", axes, start, end, bottom + 1, bottom + 4) for start, end in stream.alarm_s]
    return svg(size, title, "chart stream", out)


def key(kind: str) -> Markup:
    """The sign of one kind of mark or line, for a legend."""
    size = (22.0, 12.0)
    drawn = {
        "true": Markup('<path class="true" d="M1 6L21 6"/>'),
        "believed": Markup('<path class="band c0" d="M1 1L21 1L21 11L1 11Z"/><path class="line c0" d="M1 6L21 6"/>'),
        "change": _triangle("change", 11, 10, -MARK),
        "declared": _triangle("declared", 11, 2, MARK),
        "false": _cross(11, 6),
        "muted": Markup('<rect class="muted" x="3" y="0" width="16" height="12"/>'),
        "unscored": Markup('<rect class="unscored" x="3" y="0" width="16" height="12"/>'),
        "alarm": Markup('<rect class="alarm" x="1" y="4" width="20" height="4"/>'),
    }[kind]
    return svg(size, "", "sign", [drawn])


def stroke(curve: Survival) -> Markup:
    """The line of a curve of recovery, for the table beside it."""
    kind = f"line c{curve.colour} d{curve.dashes}{' main' if curve.main else ''}"
    return svg((34.0, 8.0), "", "sign stroke", [Markup('<path class="{}" d="M0 4L34 4"/>').format(kind)])


def recovery(curves: Sequence[Survival], title: str, until_s: float = 40.0) -> Markup:
    """Step curves of the share of changes not yet recovered from, each with its name at its right end."""
    size = RECOVERY_SIZE
    axes = Axes((size[0] - LABELS, size[1]), (0.0, until_s), (0.0, 1.0))
    out = [axes.frame(range(0, int(until_s) + 1, 10), "seconds after the change", (0, 0.25, 0.5, 0.75, 1))]
    ends = []
    for curve in sorted(curves, key=lambda c: c.main):  # the run's own is drawn last, on top
        corners = [(axes.x(t), axes.y(share)) for t, share in staircase(curve.steps, until_s)]
        kind = f"line c{curve.colour} d{curve.dashes}{' main' if curve.main else ''}"
        out.append(Markup('<path class="{}" d="{}"/>').format(kind, path_of(corners)))
        ends.append((corners[-1][1], curve))
    right = axes.width - RIGHT
    for end, y, curve in _apart(ends, size[1] - BOTTOM):
        leader = path_of([(right, end), (right + 10, y)])
        out.append(Markup('<path class="line c{} thin" d="{}"/>').format(curve.colour, leader))
        out.append(text_at("name" if curve.main else "label", right + 13, y + 3.5, curve.label))
    return svg(size, title, "chart recovery", out)


def staircase(steps: Sequence[tuple[float, float]], until_s: float) -> list[tuple[float, float]]:
    """The corners of a step curve, which stays as it is after the last step, up to ``until_s``."""
    corners = [steps[0]]
    for t, share in steps[1:]:
        if t > until_s:
            break
        corners += [(t, corners[-1][1]), (t, share)]
    return [*corners, (until_s, corners[-1][1])]


def _apart(ends: Sequence[tuple[float, Survival]], lowest: float) -> list[tuple[float, float, Survival]]:
    """Where each curve ends, from top to bottom, where its name stands, and the curve: no name is nearer than ``APART``
    to another."""
    order = sorted(ends, key=lambda end: (end[0], end[1].label))
    heights: list[float] = []
    for y, _ in order:
        heights.append(max(y, heights[-1] + APART if heights else TOP))
    for i in range(len(heights) - 1, -1, -1):  # and none below the picture
        limit = heights[i + 1] - APART if i + 1 < len(heights) else lowest
        heights[i] = min(heights[i], limit)
    return [(y, height, curve) for (y, curve), height in zip(order, heights, strict=True)]


def _stretch(kind: str, axes: Axes, start_s: float, end_s: float, top: float, bottom: float) -> Markup:
    low, high = (axes.x(min(max(t, axes.x_range[0]), axes.x_range[1])) for t in (start_s, end_s))
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, low, top, high - low, bottom - top
    )


def _triangle(kind: str, x: float, y: float, size: float) -> Markup:
    """A triangle whose base is at ``y`` and whose tip is 2 x ``size`` further."""
    points = [(x - abs(size), y), (x + abs(size), y), (x, y + 2 * size)]
    return Markup('<path class="{}" d="{}Z"/>').format(kind, path_of(points))


def _cross(x: float, y: float) -> Markup:
    a, b = path_of([(x - MARK, y - MARK), (x + MARK, y + MARK)]), path_of([(x - MARK, y + MARK), (x + MARK, y - MARK)])
    return Markup('<path class="false" d="{}{}"/>').format(a, b)
