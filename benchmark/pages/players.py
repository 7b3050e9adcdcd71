"""The worst and the surest segments of a run, to be watched: each as the model saw it and shifted back by what the
model believes, with the believed offset running along. Drawn by ``templates/players.html`` and ``run.js``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from avbench.pages import charts
from avbench.pages.sections import GRID, from_the_worst
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.excerpts import FOLDER, SHIFTS, Cut, Kind
from avbench.results.run import RunResult
from avbench.results.truth import Truth
from avbench.scoring.calibration import believed_offsets_s
from avbench.scoring.metrics import checked_logits, softmax
from avbench.scoring.selection import scored_iteration
from avbench.ticks import seconds
from avbench.types import offset_in_words

N_OF_A_KIND = 3
KINDS: tuple[Kind, ...] = ("worst", "surest")


class Pick(NamedTuple):
    """A segment worth watching: the ``number``-th of its kind, from 1, and its row among the scored ones."""

    kind: Kind
    number: int
    row: int


class Player(NamedTuple):
    """One segment on the page. ``truth`` and ``said``: its offset and what the model believes, in words; ``left``: what
    is left of the offset in the corrected clip, in words ("" where offsets change)."""

    kind: str
    id: str
    video: str
    category: str
    truth: str
    said: str
    left: str
    wrong: bool
    p: float
    seen: str  # addresses as seen from the page
    corrected: str
    start_s: float
    end_s: float
    chart: Markup
    steps: str  # JSON: [seconds of stream, what is believed from then on, in words], ...
    reason: str  # why it cannot be watched; "" if it can


def picks(result: RunResult, answers: Truth, logits: np.ndarray, windows: WindowTruth | None) -> list[Pick]:
    """The segments to watch, given ``logits`` (N, W, 21): the worst and, of the others that are right, those with the
    surest answer. Where offsets change (``windows``): those with the largest and the smallest mean error."""
    if not len(answers):
        return []
    if windows is not None:
        error_s = np.abs(beliefs_s(logits) - windows.offset_end_s).mean(axis=1)
        order = sorted(range(len(error_s)), key=lambda row: (-error_s[row], answers.segment_ids[row]))
        worst, surest = order[:N_OF_A_KIND], order[: N_OF_A_KIND - 1 : -1][:N_OF_A_KIND]
    else:
        at = scored_iteration(result)
        worst = from_the_worst(answers, logits, at)[:N_OF_A_KIND]
        p, said = softmax(checked_logits(logits[:, at])).max(axis=1), logits[:, at].argmax(axis=1)
        right = [row for row in np.flatnonzero(said == answers.labels).tolist() if row not in worst]
        surest = sorted(right, key=lambda row: (-p[row], answers.segment_ids[row]))[:N_OF_A_KIND]
    rows: dict[Kind, list[int]] = {"worst": worst, "surest": surest}
    return [Pick(kind, number, row) for kind in KINDS for number, row in enumerate(rows[kind], 1)]


def beliefs_s(logits: np.ndarray) -> np.ndarray:
    """``logits`` (..., 21) -> the believed offsets in seconds, (...)."""
    flat = checked_logits(logits.reshape(-1, logits.shape[-1]))
    return believed_offsets_s(softmax(flat)).reshape(logits.shape[:-1])


def players(
    result: RunResult, answers: Truth, logits: np.ndarray, windows: WindowTruth | None, cuts: Sequence[Cut]
) -> dict[str, list[Player]]:
    """Kind -> the segments that were cut, in order; those that the run does not have are left out."""
    found: dict[str, list[Player]] = {}
    for cut in sorted(cuts, key=lambda cut: (KINDS.index(cut.kind), cut.number)):
        if cut.segment_id in answers.place:
            row = answers.place[cut.segment_id]
            true_s = _true_s(answers, row) if windows is None else windows.offset_end_s[row]
            player = _player(result, answers, row, logits[row], np.broadcast_to(true_s, len(logits[row])), cut)
            found.setdefault(cut.kind, []).append(player)
    return found


def _true_s(answers: Truth, row: int) -> float:
    known = answers.offsets_s
    return GRID.offset_of(int(answers.labels[row])) if known is None else float(known[row])


def _player(result: RunResult, answers: Truth, row: int, logits: np.ndarray, true_s: np.ndarray, cut: Cut) -> Player:
    changing = result.protocol.name == "dynamic"
    at = len(logits) - 1 if changing else scored_iteration(result)
    believed_s, p = beliefs_s(logits), softmax(checked_logits(logits)).max(axis=1)
    ends_s = [seconds(result.protocol.window + i * result.protocol.hop) for i in range(len(logits))]
    words = [
        f"{offset_in_words(round(b, 2))} (p {q:.2f})" for b, q in zip(believed_s.tolist(), p.tolist(), strict=True)
    ]
    end_s = cut.start_s + cut.length_s
    holds = not changing or float(np.ptp(true_s)) == 0
    told = f"{cut.segment_id}: the believed offset after each window"
    address = {shift: f"{FOLDER}/{cut.name(shift)}" for shift in SHIFTS}
    return Player(
        kind=cut.kind,
        id=cut.segment_id,
        video=str(answers.clusters[row]),
        category=answers.categories[row] if answers.categories else "",
        truth=offset_in_words(round(float(true_s[at]), 2)) if holds else "changes",
        said="" if changing else offset_in_words(round(float(believed_s[at]), 2)),
        left="" if changing else offset_in_words(round(float(true_s[at] - believed_s[at]), 2)),
        wrong=not changing and int(logits[at].argmax()) != int(answers.labels[row]),
        p=float(p[at]),
        **address,
        start_s=cut.start_s,
        end_s=end_s,
        chart=charts.believed_line(ends_s, believed_s.tolist(), true_s.tolist(), (cut.start_s, end_s), told),
        steps=json.dumps([[end, said] for end, said in zip(ends_s, words, strict=True)], ensure_ascii=False),
        reason=cut.reason,
    )
