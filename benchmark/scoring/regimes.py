"""From what a model says of each window to what a person asks: since when is the sound off, by how much, how sure?

A *regime* is a stretch with one offset. A head's belief decides when a new one has begun; the windows themselves date
its beginning, afterwards: where the stretch is cut in two so that both halves fit best. Nothing here knows the future,
so a live stream gives the same regimes as its recording.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avbench.scoring.calibration import centres_s, step_s
from avbench.scoring.metrics import GRID
from avbench.scoring.tolerance import TOLERANCES, Tolerance
from avbench.types import offset_in_words

WORDS = ("sure", "likely", "unsure", "no evidence")
SURE, LIKELY = 0.95, 0.75  # least confidence for the word
HOLD_NEXT = (
    4  # windows in a row for a move to the class beside, which an offset between two classes often seems to make
)
LEAST_MOVE_S = 0.15  # for such a move: how far the measured offset must have moved as well
MISSING = 3  # windows without evidence that end a regime
KEPT = 64  # latest windows, to date a change
JUDGED = 0.9  # least probability of being within a tolerance, or outside, to say so
PICTURE_STEP_S = 0.04  # no curve is finer than the pictures are
WEAK_MATCH = "picture and sound match too weakly at this offset"
_SMALLEST = 1e-12
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Rules:
    """When a regime is believed. Chosen on validation streams by ``avbench train words``.

    ``hold``: windows in a row in which the head must mean the same class or its neighbours. ``trust``: the share of one
    window's log probabilities that counts when many are taken together: windows overlap, and models are too sure.
    ``enough``: for a move of one class or less, how much better, in trusted logits, the windows since then must
    fit the new offset than the old one; a farther move is the head's word alone.
    ``certain``: the least confidence for a first regime.
    """

    hold: int = 3
    trust: float = 0.3
    enough: float = 3.0
    certain: float = 0.9


class Evidence(NamedTuple):
    """What one window says. ``log_p`` and ``believed`` are None where there is nothing to judge by; ``why`` says it."""

    start_s: float  # of the window, on the stream's clock
    log_p: np.ndarray | None  # (21,) log probabilities of the window alone
    believed: np.ndarray | None  # (21,) the head's log probabilities after it
    curve: np.ndarray | None = None  # (L,) a model's finer evidence, at its ``lags_s``
    why: str = ""


@dataclass(frozen=True, slots=True)
class Regime:
    """A stretch of a stream and its offset; ``offset_s`` and ``spread_s`` are None where there is no evidence.

    ``spread_s``: one standard deviation. ``confidence``: the probability of this offset, to one
    class, from all its windows. ``why``: there is no evidence, or ``words`` are less sure than ``confidence`` alone.
    """

    start_s: float
    end_s: float
    offset_s: float | None
    spread_s: float | None
    confidence: float
    words: str
    n_windows: int = 0
    why: str = ""

    @property
    def in_words(self) -> str:
        """The offset as a person says it."""
        return "no evidence" if self.offset_s is None else offset_in_words(round(self.offset_s, 2))


class Change(NamedTuple):
    """A new regime has begun: ``t_s`` is when (dated afterwards), ``declared_s`` the end of the window that showed
    it."""

    t_s: float
    declared_s: float
    before: Regime
    after: Regime


def judged(regime: Regime, table: Tolerance) -> bool | None:
    """Whether the regime is within the tolerance; None if that cannot be said: its spread is too wide for the table, or
    the model is not sure enough."""
    if regime.offset_s is None or regime.spread_s is None or regime.words in WORDS[2:]:
        return None

    def below(limit_s: float) -> float:
        return 0.5 * (1 + math.erf((limit_s - regime.offset_s) / (regime.spread_s * math.sqrt(2))))  # type: ignore[operator]

    within = below(table.early_s) - below(-table.late_s)
    return True if within >= JUDGED else False if within <= 1 - JUDGED else None


def why_not_judged(regime: Regime, table: Tolerance) -> str:
    """Why :func:`judged` cannot say whether the regime is within the tolerance; "" if it can."""
    if judged(regime, table) is not None:
        return ""
    if regime.offset_s is None:
        return f"no evidence: {regime.why}" if regime.why else "no evidence"
    if regime.words not in WORDS[2:]:
        return "its limits are nearer than the spread allows"
    # other reasons lie in the model or in the file's length, and are among the notes
    return f"the model is unsure: {regime.why}" if regime.why == WEAK_MATCH else "the model is unsure"


def verdicts(regimes: Sequence[Regime], tables: Sequence[Tolerance]) -> dict[str, bool | None]:
    """For each table whether a whole stream is within it: False if a regime is outside, None if one cannot be judged or
    there is none."""
    found: dict[str, bool | None] = {}
    for table in tables:
        said = [judged(regime, table) for regime in regimes]
        found[table.name] = False if False in said else None if None in said or not said else True
    return found


def tables_with(asked: Tolerance | None) -> list[Tolerance]:
    """All tables, and the one that the user asked for if it is not among them."""
    tables = list(TOLERANCES.values())
    return tables if asked is None or asked.name in TOLERANCES else [*tables, asked]


# ---------------------------------------------------------------------------------------------------------- following


class _Sums(NamedTuple):
    """What some windows say together."""

    n: int
    p: np.ndarray  # (21,)
    log_p: np.ndarray  # (21,)
    curve: np.ndarray | None

    @classmethod
    def of(cls, windows: Iterable[Evidence], start: _Sums | None = None) -> _Sums:
        """Of the windows and what was summed up before."""
        n, p, log_p, curve = start or cls(0, np.zeros(GRID.n_classes), np.zeros(GRID.n_classes), None)
        for window in windows:
            assert window.log_p is not None
            n, p, log_p = n + 1, p + np.exp(window.log_p), log_p + window.log_p
            if window.curve is not None:
                curve = window.curve if curve is None else curve + window.curve
        return cls(n, p, log_p, curve)


class _Move(NamedTuple):
    """To which class the offset moved, and at which of the latest windows (between two of them: a fraction)."""

    top: int
    cut: float


class RegimeTracker:
    """Follows one stream: ``add`` its windows in order, ask for ``regimes`` at any time.

    ``lags_s``: (L,) offsets of the windows' curves. ``most``: the surest word that the model may use, and ``why_most``
    why. ``keep``: how many past regimes are remembered (None: all), for streams without end. ``least_curve``: logits
    that the windows' mean curve must reach at a regime's offset for more than "unsure".
    """

    def __init__(  # noqa: PLR0913  (what is known of the stream and of its model)
        self,
        window_s: float,
        hop_s: float,
        *,
        lags_s: np.ndarray | None = None,
        most: str = "sure",
        why_most: str = "",
        keep: int | None = None,
        rules: Rules = Rules(),
        least_curve: float = -math.inf,
    ) -> None:
        self.rules, self.least_curve = rules, least_curve
        self.window_s, self.hop_s, self.lags_s, self.most, self.why_most = window_s, hop_s, lags_s, most, why_most
        self.past: deque[Regime] = deque(maxlen=keep)
        self._last_class: int | None = None  # of the latest regime that is over
        self._missed = 0  # windows without evidence, up to now
        self._begin(0.0)

    def _begin(self, start_s: float, windows: Sequence[Evidence] = (), top: int | None = None) -> None:
        """A new regime is open. ``top``: its class; None: as the next windows say, until they agree."""
        self._start_s, self._why = start_s, ""
        self._class, self._settled = top, top is not None
        self._older = _Sums.of(())  # its windows that are no longer among the latest
        self._latest: deque[Evidence] = deque(windows)

    def add(self, window: Evidence) -> Change | None:
        """One more window; the change that it shows, if it shows one."""
        if window.believed is None:
            self._miss(window)
            return None
        if self._missed >= MISSING and self._why:
            self._end(window.start_s)
        self._missed = 0
        self._latest.append(window)
        if len(self._latest) > KEPT:
            self._older = _Sums.of([self._latest.popleft()], self._older)
        top = int(window.believed.argmax())
        if not self._settled:
            return self._settle(top, window.start_s + self.window_s)
        move = self._far(top) or self._near(top)
        return self._change(move, window.start_s + self.window_s) if move else None

    def current(self, end_s: float) -> Regime:
        """The regime that goes on, as it stands."""
        return self._as_regime(end_s)

    def regimes(self, end_s: float) -> list[Regime]:
        """All remembered regimes up to ``end_s``, the end of the stream so far."""
        return [*self.past, self.current(end_s)]

    def _miss(self, window: Evidence) -> None:
        """A window without evidence: several in a row end the regime."""
        self._missed += 1
        if not self._latest:
            self._why = self._why or window.why
        elif self._missed == MISSING:
            self._end(self._latest[-1].start_s + self.window_s)
            self._why = window.why

    def _end(self, at_s: float) -> None:
        """The open regime is over, and what follows is not known yet."""
        if at_s > self._start_s:
            self.past.append(self._as_regime(at_s))
        if self._latest:
            self._last_class = self._class
        self._begin(at_s)

    def _settle(self, top: int, declared_s: float) -> Change | None:
        """The class of a new regime, once its windows agree; a change if it is not that of the regime before."""
        certain = _together(_Sums.of(self._latest, self._older).log_p, top, self.rules.trust) >= self.rules.certain
        self._class, self._settled = top, certain and self._held(top)
        before = self._last_class
        if not self._settled or before is None or abs(top - before) < 2:
            return None
        last = next(regime for regime in reversed(self.past) if regime.offset_s is not None)
        return Change(self._start_s, declared_s, last, self.current(declared_s))

    def _held(self, top: int) -> bool:
        """Whether the head meant ``top`` or its neighbours in the latest windows."""
        latest = list(self._latest)[-self.rules.hold :]
        return len(latest) == self.rules.hold and all(abs(_top(w) - top) <= 1 for w in latest)

    def _far(self, top: int) -> _Move | None:
        """A move to a class that is not beside the regime's, once the head holds it."""
        assert self._class is not None
        if abs(top - self._class) < 2 or not self._held(top):
            return None
        return _Move(
            top, _cut([float(w.log_p[top] - w.log_p[self._class]) for w in self._latest if w.log_p is not None])
        )

    def _near(self, top: int) -> _Move | None:
        """A move of one class or less: an offset between two classes often seems to make one, so the latest windows
        must also measure another offset than those before."""
        assert self._class is not None
        latest = list(self._latest)
        if abs(top - self._class) > 1 or self._older.n + len(latest) < 2 * HOLD_NEXT:
            return None
        new_s = self._near_s(_Sums.of(latest[-HOLD_NEXT:]), top)
        old_s = self._near_s(_Sums.of(latest[:-HOLD_NEXT], self._older), None)
        if new_s is None or old_s is None or abs(new_s - old_s) < LEAST_MOVE_S:
            return None
        gain = self._gain(latest, old_s, new_s)
        cut = _cut(gain)
        if len(latest) - cut < HOLD_NEXT or sum(gain[round(cut) :]) < self.rules.enough:
            return None
        return _Move(_nearest_class(new_s), cut)

    def _near_s(self, sums: _Sums, top: int | None) -> float | None:
        """The offset that some windows measure near the regime's class: by the peak of their curves, or, where there
        are none, by the classes, if the head holds ``top``."""
        assert self._class is not None
        if self.lags_s is not None and sums.curve is not None:
            found = peak(sums.curve / sums.n, self.lags_s, centres_s()[self._class], 2.5 * step_s())
            return found[0] if found else None
        if top is None:
            return self._measured(sums, self._class)[0]
        after = list(self._latest)[-HOLD_NEXT:]
        held = top != self._class and all(_top(w) == top for w in after)
        return self._measured(sums, top)[0] if held else None

    def _gain(self, windows: Sequence[Evidence], old_s: float, new_s: float) -> list[float]:
        """How much better each window fits the new offset than the old one, as a difference of logits that are trusted
        in part."""
        if self.lags_s is not None:
            at = [int(np.abs(self.lags_s - place_s).argmin()) for place_s in (old_s, new_s)]
            return [self.rules.trust * float(w.curve[at[1]] - w.curve[at[0]]) for w in windows if w.curve is not None]
        old, new = _nearest_class(old_s), _nearest_class(new_s)
        return [self.rules.trust * float(w.log_p[new] - w.log_p[old]) for w in windows if w.log_p is not None]

    def _change(self, move: _Move, declared_s: float) -> Change:
        at_s, last = self._dated(move), self._class
        before = self._as_regime(at_s)
        self.past.append(before)
        self._last_class = last
        self._begin(at_s, [w for w in self._latest if w.start_s > at_s - _SLACK_S] or [self._latest[-1]], move.top)
        return Change(at_s, declared_s, before, self.current(declared_s))

    def _dated(self, move: _Move) -> float:
        """When the offset moved. What a window says turns when the change is in its middle."""
        starts_s = [w.start_s for w in self._latest]
        first_s = float(np.interp(move.cut, np.arange(len(starts_s)), starts_s))
        return max(first_s + (self.window_s - self.hop_s) / 2, self._start_s)

    def _as_regime(self, end_s: float) -> Regime:
        """The open regime, if it ended now. What began in it and ended after it does not count."""
        whole = [w for w in self._latest if w.start_s + self.window_s < end_s + _SLACK_S] or list(self._latest)[:1]
        if not whole or self._class is None:
            return Regime(self._start_s, end_s, None, None, 0.0, WORDS[3], 0, self._why)
        sums = _Sums.of(whole, self._older)
        confidence = _together(sums.log_p, self._class, self.rules.trust)
        words = WORDS[0] if confidence >= SURE else WORDS[1] if confidence >= LIKELY else WORDS[2]
        n_apart = max(sums.n * self.hop_s / self.window_s, 1.0)  # windows that overlap say the same again
        offset_s, width_s, step_s = self._measured(sums, self._class)
        spread_s = math.hypot(width_s / math.sqrt(n_apart), step_s / math.sqrt(12))
        most, why = self.most, self.why_most
        if sums.curve is not None and self.lags_s is not None and most in WORDS[:2]:
            height = sums.curve[np.abs(self.lags_s - offset_s).argmin()] / sums.n
            most, why = (most, why) if height >= self.least_curve else (WORDS[2], WEAK_MATCH)
        less_sure = WORDS.index(most) > WORDS.index(words)
        words, why = (most, why) if less_sure else (words, "")
        return Regime(self._start_s, end_s, offset_s, spread_s, confidence, words, sums.n, why)

    def _measured(self, sums: _Sums, top: int) -> tuple[float, float, float]:
        """The offset near class ``top``, how wide the evidence of one window is around it, and the step in which it was
        measured: from the curve, if there is one with a peak there, else from the classes."""
        if sums.curve is not None and self.lags_s is not None:
            found = peak(sums.curve / sums.n, self.lags_s, centres_s()[top], 1.5 * step_s())
            if found:
                return *found, PICTURE_STEP_S
        near = slice(max(top - 1, 0), top + 2)
        p = sums.p[near] / max(sums.p[near].sum(), _SMALLEST)
        mean_s = float((p * centres_s()[near]).sum())
        return mean_s, math.sqrt(float((p * (centres_s()[near] - mean_s) ** 2).sum())), step_s()


def peak(curve: np.ndarray, lags_s: np.ndarray, near_s: float, within_s: float) -> tuple[float, float] | None:
    """The place of the curve's peak at most ``within_s`` from ``near_s``, and its width (one standard deviation if it
    is a bell), in seconds; None if the highest value there is at the border or the curve is flat.

    ``curve`` and ``lags_s``: (L,), the lags evenly spaced and rising. The place is the vertex of the parabola through
    the highest value and its neighbours; the width is that at half height above the median.
    """
    inside = np.flatnonzero(np.abs(lags_s - near_s) <= within_s + _SLACK_S)
    if len(inside) < 3:
        return None
    top = int(inside[curve[inside].argmax()])
    if top in (inside[0], inside[-1]) or not curve[top] > np.median(curve):
        return None
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    step = float(lags_s[1] - lags_s[0])
    below = curve < (middle + np.median(curve)) / 2
    low = top - int(np.argmax(below[top::-1])) if below[: top + 1].any() else 0
    high = top + int(np.argmax(below[top:])) if below[top:].any() else len(curve) - 1
    return float(lags_s[top] + shift * step), (high - low) * step / 2.355


def _nearest_class(measured_s: float) -> int:
    """A curve may peak beyond the last class, unlike the offset that a label names."""
    return GRID.class_of(float(np.clip(round(measured_s, 2), -GRID.max_offset_s, GRID.max_offset_s)))


def _cut(gain: Sequence[float]) -> float:
    """Where the windows begin to be of a new offset, from how much better each fits it than the old one: the mean over
    all cuts in proportion to how well the windows after it fit the new offset and those before it the old one."""
    after = np.cumsum(gain[::-1])[::-1]
    weights = np.exp(after - after.max())
    return float((weights * np.arange(len(weights))).sum() / weights.sum())


def _top(window: Evidence) -> int:
    """The class that the head believes most."""
    assert window.believed is not None
    return int(window.believed.argmax())


def _together(log_p: np.ndarray, top: int, trust: float) -> float:
    """The probability of a class and its neighbours from the summed log probabilities (21,) of many windows, each
    trusted in part."""
    trusted = trust * (log_p - log_p.max())
    p = np.exp(trusted)
    return float(p[max(top - 1, 0) : top + 2].sum() / p.sum())
