"""The page of one file's answer: the timeline of what is believed, the regimes, the worst moment, the repair, and the
file itself where the browser can play it; and the index of a folder's pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from avbench.pages import render, script_text
from avbench.pages.charts import BOTTOM, LEFT, RIGHT, TOP, Axes, nice_ticks, path_of, svg, text_at
from avbench.pages.predict_text import clock, measured, shared_facts, signed, standing, worst_of
from avbench.scoring.calibration import believed_offsets_s, centres_s
from avbench.scoring.prediction import VERDICTS, Prediction
from avbench.scoring.regimes import Evidence, Regime, judged
from avbench.scoring.tolerance import Tolerance

MARK = "avbench · predict"  # on every page of this module: such a file may be replaced
WIDE, NARROW = (1056.0, 280.0), (358.0, 250.0)  # on a desk, on a phone
LEAST_REACH_S, MOST_REACH_S = 0.3, 2.2  # of the timeline, on each side of 0
APART_S = 0.1  # half a class: a bar and the windows' line that differ by more are explained
MOST_APART = 5  # of such explanations
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


class Row(NamedTuple):
    """A regime in the table."""

    regime: Regime
    measured: str
    verdicts: list[tuple[str, str]]  # class of the cell and word, one for each tolerance


def predict_page(prediction: Prediction, picture: str = "", video: str = "", picture_s: float | None = None) -> str:
    """The page as text; equal arguments give equal text. ``picture``: of the moment ``picture_s``, a JPEG in base64;
    ``video``: the address of the file as seen from the page; each may be missing."""
    return render(
        "predict_page.html",
        script=script_text("predict.js"),
        media="'self' file:" if video else "",
        mark=MARK,
        p=prediction,
        rows=[_row(prediction, regime) for regime in prediction.regimes],
        charts=[] if prediction.error else [(kind, timeline(prediction, size)) for kind, size in _SIZES],
        picture=picture,
        picture_at="" if picture_s is None else clock(picture_s),
        video=video,
        clock=clock,
        facts=_facts(prediction),
        error=as_sentence(prediction.error),
        apart=_apart(prediction),
    )


def as_sentence(error: str) -> str:
    """Why a file has no answer, with the subject that most of these texts leave to the file's name before them."""
    begins = error.partition(" ")[0] in ("is", "has", "does", "lasts", "ends", "holds", "cannot")
    return f"it {error}" if begins else error


_SIZES = (("only-wide", WIDE), ("only-narrow", NARROW))


def index_page(predictions: Sequence[Prediction], pages: Sequence[str]) -> str:
    """The page of many answers, the worst first. ``pages``: the address of each one's own page, "" without."""
    order = sorted(range(len(predictions)), key=lambda k: predictions[k].rank)
    rows = [(predictions[k], standing(predictions[k]), *worst_of(predictions[k]), pages[k]) for k in order]
    facts, n_failed = shared_facts(predictions), sum(bool(p.error) for p in predictions)
    return render("predict_index.html", mark=MARK, rows=rows, n_failed=n_failed, facts=facts)


def _row(prediction: Prediction, regime: Regime) -> Row:
    words = {True: ("right", VERDICTS[True]), False: ("wrong", VERDICTS[False]), None: ("", "–")}
    return Row(regime, measured(regime), [words[judged(regime, table)] for table in prediction.tables])


def _apart(prediction: Prediction) -> list[str]:
    """Where a regime's bar lies elsewhere than the windows' line at its end, in words: a page has one answer."""
    found = []
    for regime in prediction.regimes:
        drawn = (w.believed for w in prediction.windows if _at_s(prediction, w) <= regime.end_s)
        heard = [believed for believed in drawn if believed is not None]
        if regime.offset_s is None or not heard:
            continue
        line_s = float(believed_offsets_s(np.exp(heard[-1])))
        if abs(line_s - regime.offset_s) < APART_S:
            continue
        unsure = ", and the model is unsure of both" if regime.words == "unsure" else ""
        found.append(
            f"{clock(regime.start_s)} – {clock(regime.end_s)}: the line ends at {signed(line_s)} s, the bar lies at "
            f"{signed(regime.offset_s)} s. The bar is the answer{unsure}."
        )
    more = len(found) - MOST_APART
    return [*found[:MOST_APART], f"So it is in {more} more of them."] if more > 0 else found


def _at_s(prediction: Prediction, window: Evidence) -> float:
    """Where a window is drawn: at its middle."""
    return min(window.start_s + prediction.window_s / 2, prediction.duration_s)


def _facts(prediction: Prediction) -> list[tuple[str, str]]:
    if prediction.error:
        return []  # nothing was read
    n, silent = len(prediction.windows), sum(window.believed is None for window in prediction.windows)
    windows = f"{n}, one each {prediction.hop_s:g} s, each of {prediction.window_s:g} s; {silent} without evidence"
    source = [f"{prediction.fps:.5g} fps"] if prediction.fps else []
    return [
        ("length", f"{clock(prediction.duration_s)} of picture and sound"),
        *([("source", "; ".join([*source, ", ".join(prediction.tracks)]))] if prediction.tracks else []),
        ("model", prediction.model),
        ("windows", windows),
    ]


# ------------------------------------------------------------------------------------------------------- the timeline


def timeline(prediction: Prediction, size: tuple[float, float]) -> Markup:
    """What is believed over time, early sound at the top: windows as a line with their spread, regimes as bars with
    theirs, tolerances as bands around 0, and marks where windows have no evidence."""
    reach_s = _reach_s(prediction)
    axes = Axes(size, (0.0, prediction.duration_s), (-reach_s, reach_s))
    out = [_band(axes, table) for table in sorted(prediction.tables, key=lambda t: -(t.early_s + t.late_s))]
    out += [axes.frame((), "", nice_ticks(-reach_s, reach_s)), _times(axes)]
    # outside the plot, where neither what is drawn nor the ticks lie
    out.append(text_at("label", LEFT, TOP - 4, "\N{UPWARDS ARROW} sound early (s)"))
    out.append(text_at("label", LEFT, size[1] - 3, "\N{DOWNWARDS ARROW} sound late"))
    out += _believed(prediction, axes)
    out += [_bar(axes, regime) for regime in prediction.regimes if regime.offset_s is not None]
    hop_s, bottom = prediction.hop_s, size[1] - BOTTOM
    for window in prediction.windows:
        if window.believed is None:
            middle_s = _at_s(prediction, window)
            out.append(_rect("muted", axes, middle_s - hop_s / 2, middle_s + hop_s / 2, bottom - 5, bottom))
    out.append(Markup('<path class="cursor" d="M{0:.1f} {1:.1f}L{0:.1f} {2:.1f}"/>').format(LEFT, TOP, bottom))
    out.append(
        Markup(
            '<rect class="hit" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" data-duration="{:.4f}"/>'
        ).format(LEFT, TOP, size[0] - LEFT - RIGHT, bottom - TOP, prediction.duration_s)
    )
    told = "; ".join(f"{clock(r.start_s)} to {clock(r.end_s)} {r.in_words}" for r in prediction.regimes[:5])
    return svg(size, f"timeline of the believed offset: {told}", "chart timeline", out)


def _reach_s(prediction: Prediction) -> float:
    """How far the timeline goes: it holds the regimes with their spread."""
    ends = [abs(r.offset_s) + 2 * (r.spread_s or 0) for r in prediction.regimes if r.offset_s is not None]
    return min(max(LEAST_REACH_S, 1.25 * max(ends, default=0.0)), MOST_REACH_S)


def _times(axes: Axes) -> Markup:
    """The labels below, at round times."""
    end_s, room = axes.x_range[1], max((axes.width - LEFT - RIGHT) // 62, 1)
    step_s = next((step for step in STEPS_S if end_s / step <= room), STEPS_S[-1])
    y = axes.height - BOTTOM + 15
    marks = [text_at("tick mid", axes.x(t), y, clock(t)) for t in np.arange(0, end_s + 1e-6, step_s).tolist()]
    return Markup("").join(marks)


def _band(axes: Axes, table: Tolerance) -> Markup:
    top, bottom = axes.y(min(table.early_s, axes.y_range[1])), axes.y(max(-table.late_s, axes.y_range[0]))
    drawn = _rect("within", axes, 0.0, axes.x_range[1], top, bottom)
    return Markup("<g>{}<title>within {}</title></g>").format(drawn, escape(f"{table.name} ({table.source})"))


def _bar(axes: Axes, regime: Regime) -> Markup:
    assert regime.offset_s is not None
    assert regime.spread_s is not None
    low, high = (axes.y(_inside(regime.offset_s + k * regime.spread_s, axes)) for k in (-1, 1))
    y = axes.y(_inside(regime.offset_s, axes))
    line = path_of([(axes.x(regime.start_s), y), (axes.x(regime.end_s), y)])
    title = f"{clock(regime.start_s)} - {clock(regime.end_s)}: {regime.in_words}, {measured(regime)}, {regime.words}"
    drawn = _rect("band c1", axes, regime.start_s, regime.end_s, high, low)
    return Markup('<g>{}<path class="line c1 main" d="{}"/><title>{}</title></g>').format(drawn, line, title)


def _believed(prediction: Prediction, axes: Axes) -> Iterable[Markup]:
    """The windows' own line, broken where there is no evidence, at the middle of each window."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for window in prediction.windows:
        if window.believed is None:
            runs.append([])
            continue
        p = np.exp(window.believed)
        offset_s = float(believed_offsets_s(p))
        spread_s = float(np.sqrt((p * (centres_s() - offset_s) ** 2).sum()))
        at_s = _at_s(prediction, window)
        runs[-1].append((at_s, offset_s, spread_s))
    for run in filter(None, runs):
        upper = [(axes.x(t), axes.y(_inside(o + s, axes))) for t, o, s in run]
        lower = [(axes.x(t), axes.y(_inside(o - s, axes))) for t, o, s in reversed(run)]
        yield Markup('<path class="band c0" d="{}Z"/>').format(path_of(upper + lower))
        yield Markup('<path class="line c0 thin" d="{}"/>').format(
            path_of([(axes.x(t), axes.y(_inside(o, axes))) for t, o, _ in run])
        )


def _inside(offset_s: float, axes: Axes) -> float:
    return min(max(offset_s, axes.y_range[0]), axes.y_range[1])


def _rect(kind: str, axes: Axes, start_s: float, end_s: float, top: float, bottom: float) -> Markup:
    low, high = (axes.x(min(max(t, 0.0), axes.x_range[1])) for t in (start_s, end_s))
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, low, top, high - low, bottom - top
    )
