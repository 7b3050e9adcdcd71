"""Charts as inline SVG for pages: equal numbers give equal bytes.

matplotlib is not used here: these charts take their colours, light or dark, from the page's stylesheet, need no style
attributes (the content security policy forbids them), are a few kilobytes and cost no import. For figure files see
``avbench.pages.drawing``. Every label is escaped. An undefined value (None) leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from avbench.pages import class_in_words, interval, number, signed
from avbench.types import offset_in_words

LEVELS = 10  # shades of a heat map; ``page.css`` has a colour for each
LEFT, RIGHT, TOP, BOTTOM = 38.0, 10.0, 12.0, 34.0  # margins
CURVE_SIZE, SCATTER_SIZE = (340.0, 220.0), (680.0, 340.0)


class Line(NamedTuple):
    """One line with its band: x (n,), values and bounds (n,), None where undefined; ``colour`` 0 ... 7."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    colour: int = 0
    thin: bool = False  # of a row beside the run


class Point(NamedTuple):
    """One point of a scatter chart; ``colour`` 0 ... 7."""

    label: str
    x: float
    y: float
    colour: int = 0
    href: str = ""  # a fragment or a relative path of the same site


class Interval(NamedTuple):
    """A row of a forest chart; ``colour`` 0 ... 7."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    href: str = ""  # as of a point
    colour: int = 0


class Reference(NamedTuple):
    """A dashed horizontal line, such as a trivial row; ``label`` "": it is named elsewhere."""

    label: str
    y: float


class Axes:
    """Maps data to picture coordinates and draws the grid with its labels."""

    def __init__(
        self,
        size: tuple[float, float],
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        log_x: bool = False,
    ) -> None:
        self.width, self.height = size
        self.log_x = log_x
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        """Where a value lies from left to right."""
        low, high = self.x_range
        if self.log_x:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies from top to bottom."""
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def frame(self, x_ticks: Iterable[float], x_label: str, y_ticks: Iterable[float]) -> Markup:
        """The grid, the axis and their labels."""
        out = []
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        for value in y_ticks:
            y = self.y(value)
            out.append(_line("grid", LEFT, y, right, y))
            out.append(text_at("tick end", LEFT - 6, y + 3.5, _plain(value)))
        for value in x_ticks:
            x = self.x(value)
            out.append(_line("grid", x, bottom, x, bottom + 4))
            out.append(text_at("tick mid", x, bottom + 15, _plain(value)))
        out.append(_line("axis", LEFT, bottom, right, bottom))
        out.append(text_at("label mid", (LEFT + right) / 2, self.height - 3, x_label))
        return Markup("").join(out)


def curve(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_range: tuple[float, float] | None = (0.0, 1.0),
    references: Sequence[Reference] = (),
    x_ticks: Sequence[float] = (),
) -> Markup:
    """Lines with bands. ``y_range`` None: from 0 to a round number above the data; ``x_ticks`` empty: label every x."""
    size = CURVE_SIZE
    xs = sorted({x for line in lines for x in line.x})
    if y_range is None:
        there = [v for line in lines for v in (*line.y, *line.high) if v is not None]
        y_range = (0.0, nice_top(max([*there, *(r.y for r in references)], default=1.0)))
    axes = Axes(size, (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] - 1, xs[0] + 1), y_range)
    out = [axes.frame(x_ticks or xs, x_label, nice_ticks(*y_range))]
    for reference in references:
        y = axes.y(reference.y)
        out.append(_line("reference", LEFT, y, size[0] - RIGHT, y))
        if reference.label:
            out.append(text_at("note end", size[0] - RIGHT, y - 4, reference.label))
    for line in lines:
        if line.low and line.high:
            for run in _runs([v is not None and w is not None for v, w in zip(line.low, line.high, strict=True)]):
                upper = [(axes.x(line.x[i]), axes.y(line.high[i])) for i in run]  # type: ignore[arg-type]
                lower = [(axes.x(line.x[i]), axes.y(line.low[i])) for i in reversed(run)]  # type: ignore[arg-type]
                out.append(Markup('<path class="band c{}" d="{}Z"/>').format(line.colour, path_of(upper + lower)))
    for line in lines:
        for run in _runs([v is not None for v in line.y]):
            points = [(axes.x(line.x[i]), axes.y(line.y[i])) for i in run]  # type: ignore[arg-type]
            if len(points) > 1:
                thin = " thin" if line.thin else ""
                out.append(Markup('<path class="line c{}{}" d="{}"/>').format(line.colour, thin, path_of(points)))
        for i, value in enumerate(line.y):
            if value is not None:
                bounds = interval(line.low[i], line.high[i]) if line.low and line.high else ""
                told = f"{line.label}, {x_label} {_plain(line.x[i])}: {number(value)}" + (bounds and f" ({bounds})")
                out.append(_dot(axes.x(line.x[i]), axes.y(value), 1.6 if line.thin else 2.6, line.colour, told))
    return svg(size, title, "chart", out)


def scatter(
    points: Sequence[Point],
    front: Sequence[int],
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[float, float] = SCATTER_SIZE,
) -> Markup:
    """Points with y from 0 to 1 over a logarithmic x axis; those in ``front`` (indices) are connected and named."""
    y_range = (0.0, 1.0)
    low, high = min(p.x for p in points), max(p.x for p in points)
    axes = Axes(size, (low / 1.4, high * 1.6), y_range, log_x=True)
    out = [axes.frame(_log_ticks(low / 1.4, high * 1.6), x_label, nice_ticks(*y_range))]
    steps: list[tuple[float, float]] = []
    for i in sorted(front, key=lambda i: points[i].x):
        x, y = axes.x(points[i].x), axes.y(points[i].y)
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    if len(steps) > 1:
        out.append(Markup('<path class="front" d="{}"/>').format(path_of(steps)))
    for i, point in enumerate(points):
        told = f"{point.label}: {y_label} {number(point.y, 3)}, {x_label} {point.x:.3g}"
        dot = _dot(axes.x(point.x), axes.y(point.y), 4.5 if i in front else 3.2, point.colour, told)
        out.append(Markup('<a href="{}">{}</a>').format(point.href, dot) if point.href else dot)
    out += _named(axes, [points[i] for i in front][:12], size)
    out.append(text_at("label", LEFT, TOP - 3, y_label))
    return svg(size, title, "chart wide", out)


def interval_bar(value: float | None, low: float | None, high: float | None, top: float = 1.0) -> Markup:
    """A dot with its interval on a line from 0 to ``top``, for a table cell."""
    size = (120.0, 14.0)

    def x(v: float) -> float:
        return 4 + 112 * min(1.0, max(0.0, v / top))

    out = [_line("grid", 4, 7, 116, 7)]
    if value is not None:
        if low is not None and high is not None:
            out.append(_line("whisker", x(low), 7, x(high), 7))
        out.append(Markup('<circle class="dot c0" cx="{:.1f}" cy="7" r="3.5"/>').format(x(value)))
    return svg(size, "", "bar", out)


def forest(rows: Sequence[Interval], title: str, x_label: str, zero: bool = False, names_px: float = 190.0) -> Markup:
    """One line a row: its name, and its value with its interval on a common axis. ``zero``: values are differences;
    the axis holds 0, marked by a line, and rows of colour 7 are grey as a whole. ``names_px``: room for the names, 0
    for a phone: names are above their lines then. An undefined value leaves its line empty."""
    narrow = not names_px
    height, width, longest = (34.0, 328.0, 44) if narrow else (20.0, 640.0, 31)
    left, right = (6.0, width - 6) if narrow else (names_px, width - 60)
    there = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    low, high = (
        min([*there, 0.0]) if zero else min(there, default=0.0),
        max([*there, 0.0] if zero else there, default=1.0),
    )
    edge = 0.04 * ((high - low) or 1.0)
    low, high = low - edge, high + edge
    bottom = 6 + height * len(rows)
    middles = [6 + height * place + (23 if narrow else height / 2) for place in range(len(rows))]
    spans = [(y - 8, y + 8) for y in middles] if narrow else [(4.0, bottom)]  # no line goes through a name

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    out = []
    for tick in nice_ticks(low, high):
        kind = "reference" if zero and tick == 0 else "grid"
        out += [_line(kind, x(tick), top, x(tick), end) for top, end in spans]
        out.append(text_at("tick mid", x(tick), bottom + 14, _plain(tick)))
    for y, row in zip(middles, rows, strict=True):
        text = _cut(row.label, longest)
        name = text_at("label", 0, y - 12, text) if narrow else text_at("label end", names_px - 10, y + 4, text)
        out.append(Markup('<a href="{}">{}</a>').format(row.href, name) if row.href else name)
        if row.value is None:
            continue
        if row.low is not None and row.high is not None:
            out.append(_line("whisker c7" if zero and row.colour == 7 else "whisker", x(row.low), y, x(row.high), y))
        ends = interval(row.low, row.high, 3, " to " if zero else "–")
        told = f"{row.label}: {number(row.value, 3)}" + (f" ({ends})" if ends else "")
        out.append(_dot(x(row.value), y, 3.6, row.colour, told))
        value = signed(row.value) if zero else number(row.value)
        out.append(text_at("tick end", width, y - 12, value) if narrow else text_at("tick", width - 52, y + 3.5, value))
    label = _cut(x_label, 52) if narrow else x_label
    out.append(text_at("label mid", (left + right) / 2, bottom + 30, label))
    return svg((width, bottom + 34), title, "chart wide", out)


def belief(probabilities: np.ndarray, truth: int, title: str) -> Markup:
    """A model's ``probabilities`` (W, 21) over the stream: one column per window, early sound at the top.

    The darker a cell, the more probable the offset; the true offset is framed.
    """
    n_windows, n_classes = probabilities.shape
    cell_w, cell_h, left, bottom = 234 / n_windows, 6.0, 46.0, 14.0
    width, height = left + 234 + 2, n_classes * cell_h + bottom + 2
    shade = heat_level(probabilities)
    out = [
        Markup('<rect class="field" x="{:.1f}" y="1" width="234" height="{:.1f}"/>').format(left, n_classes * cell_h)
    ]
    for level in range(1, LEVELS + 1):
        cells = [
            f"M{left + run[0] * cell_w:.1f} {1 + (n_classes - 1 - c) * cell_h:.0f}h{len(run) * cell_w:.1f}v6H"
            f"{left + run[0] * cell_w:.1f}z"
            for c in range(n_classes)
            for run in _runs((shade[:, c] == level).tolist())
        ]
        if cells:
            out.append(Markup('<path class="h{}" d="{}"/>').format(level, "".join(cells)))
    y = 1 + (n_classes - 1 - truth) * cell_h
    out.append(Markup('<rect class="truth" x="{:.1f}" y="{:.1f}" width="234" height="{}"/>').format(left, y, cell_h))
    middle = 1 + (n_classes // 2) * cell_h + cell_h / 2 + 3.5
    out += [text_at("tick end", left - 5, 10, "2 s early"), text_at("tick end", left - 5, middle, "in sync")]
    out.append(text_at("tick end", left - 5, n_classes * cell_h, "2 s late"))
    for n in count_ticks(n_windows):
        out.append(text_at("tick mid", left + (n - 0.5) * cell_w, height - 3, str(n)))
    told = f"{title}; the truth is {class_in_words(truth)}"
    return svg((width, height), told, "belief", out)


class Answer(NamedTuple):
    """One answer against the truth, in seconds; ``colour`` 0 ... 7."""

    label: str
    true_s: float
    said_s: float
    colour: int


def answers_scatter(answers: Sequence[Answer], title: str) -> Markup:
    """What was answered against what is true, both from -2 to 2 s: right answers are on the line. Answers that would
    hide each other lie beside each other."""
    size = (340.0, 300.0)
    axes = Axes(size, (-2.2, 2.2), (-2.2, 2.2))
    out = [axes.frame((-2, -1, 0, 1, 2), "true offset, seconds", (-2, -1, 0, 1, 2))]
    out.append(text_at("label", LEFT, TOP - 3, "answer"))
    out.append(_line("reference", axes.x(-2.2), axes.y(-2.2), axes.x(2.2), axes.y(2.2)))
    taken: dict[tuple[int, int], int] = {}
    for answer in answers:
        place = round(answer.true_s / 0.1), round(answer.said_s / 0.1)
        n = taken[place] = taken.get(place, -1) + 1
        around, turn = 3.2 * math.sqrt(n), 2.4 * n  # a spiral
        x, y = axes.x(answer.true_s) + around * math.cos(turn), axes.y(answer.said_s) + around * math.sin(turn)
        out.append(_dot(x, y, 3.4, answer.colour, answer.label))
    return svg(size, title, "chart", out)


def error_bars(counts: Mapping[int, int], title: str) -> Markup:
    """How many answers (``counts``) are off by each number of classes, 0.2 s each."""
    size = (340.0, 300.0)
    reach = max(3, *(abs(off) for off in counts)) + 0.5
    axes = Axes(size, (-0.2 * reach, 0.2 * reach), (0.0, nice_top(max(counts.values()))))
    ticks = [round(tick, 1) for tick in nice_ticks(-0.2 * reach, 0.2 * reach)]
    out = [axes.frame(ticks, "answer minus truth, seconds", nice_ticks(*axes.y_range))]
    out.append(text_at("label", LEFT, TOP - 3, "segments"))
    for off, n in sorted(counts.items()):
        left, right = axes.x(0.2 * (off - 0.4)), axes.x(0.2 * (off + 0.4))
        told = f"{n} off by {_plain(round(0.2 * off, 1))} s" if off else f"{n} right"
        colour = 2 if off == 0 else 4 if abs(off) == 1 else 1
        out.append(
            Markup(
                '<rect class="dot c{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(colour, left, axes.y(n), right - left, axes.y(0) - axes.y(n), told)
        )
    return svg(size, title, "chart", out)


def believed_line(
    ends_s: Sequence[float],
    believed_s: Sequence[float],
    true_s: Sequence[float],
    shown_s: tuple[float, float],
    title: str,
) -> Markup:
    """The believed offset after each window of a stream, early sound at the top, with the true one dashed. ``shown_s``:
    the part that a player shows; the line with class "cursor" is for its script to move."""
    size = (420.0, 132.0)
    reach = 1.15 * max(0.5, *map(abs, believed_s), *map(abs, true_s))
    axes = Axes(size, (0.0, ends_s[-1]), (-reach, reach))
    top, bottom = TOP, size[1] - BOTTOM
    left, right = (axes.x(min(t, ends_s[-1])) for t in shown_s)
    out = [
        Markup('<rect class="shown" x="{:.1f}" y="{}" width="{:.1f}" height="{:.1f}"/>').format(
            left, top, right - left, bottom - top
        )
    ]
    out.append(axes.frame(nice_ticks(0, ends_s[-1]), "seconds of stream", nice_ticks(-reach, reach, most=5)))
    true = [(axes.x(t), axes.y(offset)) for t, offset in zip((0.0, *ends_s), (true_s[0], *true_s), strict=True)]
    out.append(Markup('<path class="true" d="{}"/>').format(path_of(true)))
    points = [(axes.x(t), axes.y(offset)) for t, offset in zip(ends_s, believed_s, strict=True)]
    if len(points) > 1:
        out.append(Markup('<path class="line c0" d="{}"/>').format(path_of(points)))
    for (x, y), end, offset in zip(points, ends_s, believed_s, strict=True):
        if len(points) > 24:  # the dots would hide the line
            break
        out.append(_dot(x, y, 2.6, 0, f"after {_plain(end)} s: {offset_in_words(round(offset, 2))}"))
    cursor = Markup('<path class="cursor" data-from="{0:.2f}" data-to="{1:.2f}" d="M{0:.2f} {2:.1f}L{0:.2f} {3:.1f}"/>')
    out.append(cursor.format(left, right, top, bottom))
    return svg(size, title, "chart believed", out)


def lag_curves(lags: Sequence[int], curves: Sequence[tuple[Sequence[float], bool]]) -> Markup:
    """How well a mouth fits the sound at each lag (frames): a line for each (curve, whether it makes the sound)."""
    size = (320.0, 150.0)
    values = [value for curve, _ in curves for value in curve]
    low, high = math.floor(min(values)), math.ceil(max(values))
    axes = Axes(size, (min(lags), max(lags)), (low, max(high, low + 1)))
    ticks = [lag for lag in range(-100, 101, 10) if min(lags) <= lag <= max(lags)]
    out = [axes.frame(ticks, "lag, frames", nice_ticks(*axes.y_range, most=4))]
    if 0 in ticks:
        out.append(_line("reference", axes.x(0), TOP, axes.x(0), size[1] - BOTTOM))
    for scores, fits in curves:
        points = [(axes.x(lag), axes.y(score)) for lag, score in zip(lags, scores, strict=True)]
        out.append(Markup('<path class="line {}" d="{}"/>').format("c2" if fits else "c7 thin", path_of(points)))
    best = [lags[int(np.argmax(scores))] for scores, _ in curves]
    return svg(size, "lag curves with peaks at " + ", ".join(map(_plain, best)), "lags", out)


def heat_level(share: np.ndarray) -> np.ndarray:
    """Shares 0 ... 1 -> levels 0 (blank) ... ``LEVELS``, slightly raised so that small shares are visible."""
    shares = np.clip(np.asarray(share, np.float64), 0, 1)
    return np.where(shares < 0.02, 0, np.ceil(shares**0.8 * LEVELS - 1e-9)).astype(int)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most ``most`` round values within the range."""
    raw = (high - low) / max(1, most - 1)
    magnitude = 10 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw - 1e-12)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def nice_top(value: float) -> float:
    """A round number not below ``value``, for the end of an axis."""
    if value <= 0:
        return 1.0
    magnitude = 10 ** math.floor(math.log10(value))
    return next(m * magnitude for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * magnitude >= value - 1e-12)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]


def count_ticks(last: int, most: int = 7) -> list[int]:
    """The counts from 1 to ``last`` to label: the first, round ones, the last."""
    step = next((s for s in (1, 2, 3, 5, 6, 10, 12, 20, 25, 50, 100) if last / s <= most), -(-last // most))
    between = (n for n in range(step, last, step) if min(n - 1, last - n) >= step / 2)
    return sorted({1, *between, last})


def _runs(there: Sequence[bool]) -> list[list[int]]:
    """Runs of consecutive indices where ``there`` is true."""
    runs: list[list[int]] = []
    for i, yes in enumerate(there):
        if yes and i and there[i - 1]:
            runs[-1].append(i)
        elif yes:
            runs.append([i])
    return runs


def _named(axes: Axes, points: Sequence[Point], size: tuple[float, float]) -> list[Markup]:
    """Names beside points, moved up where they would overlap; left of a point near the right edge."""
    out: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda p: (-p.y, p.x)):
        text = point.label if len(point.label) <= 28 else point.label[:27] + "…"
        x, y, width = axes.x(point.x), axes.y(point.y) - 7, 6.2 * len(text)
        on_left = x + 8 + width > size[0] - RIGHT
        start = x - 8 - width if on_left else x + 8
        while any(abs(y - other) < 12 and start < end and begin < start + width for begin, end, other in taken):
            y -= 12
        taken.append((start, start + width, y))
        out.append(text_at("name end" if on_left else "name", x - 8 if on_left else x + 8, max(y, TOP), text))
    return out


def _cut(text: str, longest: int) -> str:
    """At most so many characters of a label."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """The path through some points of a picture."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def text_at(kind: str, x: float, y: float, text: str) -> Markup:
    """A label, whose ``kind`` the stylesheet knows."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _dot(x: float, y: float, radius: float, colour: int, told: str) -> Markup:
    return Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        colour, x, y, radius, told
    )


def svg(size: tuple[float, float], title: str, kind: str, parts: Iterable[Markup]) -> Markup:
    """A picture of its parts. ``title`` empty: the picture repeats the text beside it, so screen readers skip it."""
    told = Markup('role="img" aria-label="{}"').format(escape(title)) if title else Markup('aria-hidden="true"')
    head = Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" {}>').format(kind, *size, told)
    return head + Markup("").join(parts) + Markup("</svg>")
