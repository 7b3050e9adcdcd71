"""Watch a live stream: its windows through a model and a head, the regimes they show, alarms, and who is told.

The same backbone, head and tracker answer as in ``avbench predict`` and in the benchmark; nothing is stored unless
asked, and memory stays bounded however long it runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from avbench.data.live import LiveEvent, LiveSource, LiveWindow
from avbench.runs.answering import Answering
from avbench.scoring.regimes import Change, Evidence, Regime, judged
from avbench.scoring.tolerance import Tolerance
from avbench.system.webhook import Webhook
from avbench.types import UsageError

# what most viewers object to; the other tables are within one class of most models, which could then never judge
TOLERANCE = "itu-accept"
ALARM_AFTER_S = 10.0  # out of tolerance: two windows that share nothing agree, and a single cut or mute is over
CLEAR_AFTER_S = 20.0  # within it: longer, so that a fault that comes and goes is one alarm
KEPT_REGIMES = 100  # past ones that the summary names


class Sink(Protocol):
    """Is told all that happens, as a JSON object, and the evidence of windows. It may not raise for what it can
    survive."""

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None: ...

    def close(self) -> None: ...


@dataclass
class Alarm:
    """Raised when the stream has been judged out of tolerance for ``after_s``, cleared when it has been within for
    ``clear_after_s``.

    Windows that cannot be judged (no evidence, or the spread reaches across the limit) count for neither side and take
    nothing back: this, and the two times, are the hysteresis. A window counts for the time since the one before it, at
    most ``most_s``: what was not seen does not count.
    """

    table: Tolerance
    after_s: float = ALARM_AFTER_S
    clear_after_s: float = CLEAR_AFTER_S
    most_s: float = 5.0
    raised: bool = False
    outside_s: float = 0.0  # in all
    _against_s: float = 0.0  # how long the windows have contradicted ``raised``
    _last_s: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.after_s < float("inf") or not 0 <= self.clear_after_s < float("inf"):
            raise UsageError("the times before an alarm and before it is cleared must be 0 s or more")

    def judge(self, t_s: float, within: bool | None) -> bool:
        """One more window, which ends at ``t_s``: whether the alarm is raised or cleared by it."""
        passed_s = self.most_s if self._last_s is None else min(t_s - self._last_s, self.most_s)
        self._last_s = t_s
        if within is None:
            return False
        if not within:
            self.outside_s += passed_s
        if within != self.raised:  # as it is
            self._against_s = 0.0
            return False
        self._against_s += passed_s
        if self._against_s < (self.clear_after_s if self.raised else self.after_s):
            return False
        self.raised, self._against_s = not self.raised, 0.0
        return True


@dataclass
class Watch:
    """What is known of the stream now; the counts are of the whole watch."""

    source: LiveSource
    alarm: Alarm
    t_s: float = 0.0
    regime: Regime | None = None
    within: bool | None = None
    lag_s: float = 0.0
    connected: bool = True
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("changes", "alarms", "gaps", "lags", "reconnects"), 0)
    )


def watch(
    source: LiveSource, answering: Answering, alarm: Alarm, sinks: Sequence[Sink], state: Watch | None = None
) -> dict[str, Any]:
    """Follow ``source`` to its end and tell ``sinks`` (which are closed at the end) of everything; the summary.

    Errors as from ``LiveSource``, and ``NonFiniteError`` for a model that gives no number; the summary is told in that
    case, too, if there was a stream.
    """
    run = _Run(answering, state or Watch(source, alarm), sinks)
    with contextlib.ExitStack() as closing:
        for sink in sinks:
            closing.callback(sink.close)
        try:
            with source:
                for item in source:
                    run.window(item) if isinstance(item, LiveWindow) else run.event(item)
        finally:
            if source.account.connections:
                run.end()
    return run.summary()


class _Run:
    def __init__(self, answering: Answering, state: Watch, sinks: Sequence[Sink]) -> None:
        self.answering, self.state, self.sinks = answering, state, sinks
        self.tracker = answering.tracker(KEPT_REGIMES)
        self.alarm_since_s = 0.0

    def window(self, window: LiveWindow) -> None:
        """One window of the stream, or why there is none."""
        state, end_s = self.state, round(window.start_s + self.answering.window_s, 6)
        if window.video is None or window.audio is None:
            evidence = Evidence(window.start_s, None, None, why=window.why)
        else:
            evidence = self.answering.observe(window.start_s, window.video, window.audio)
        change = self.tracker.add(evidence)
        state.t_s, state.regime = end_s, self.tracker.current(end_s)
        state.within = None if evidence.believed is None else judged(state.regime, state.alarm.table)
        state.lag_s = max(state.source.t_s - end_s, 0.0)
        if window.video is not None:
            facts = _told(state.regime) | {"why": evidence.why or state.regime.why, "within": state.within}
            self.tell("window", end_s, {"start_s": window.start_s, **facts, "lag_s": round(state.lag_s, 2)}, evidence)
        if change is not None:
            self._change(change)
        if state.alarm.judge(end_s, state.within):
            self._alarm(end_s, state.regime)

    def _change(self, change: Change) -> None:
        self.state.counts["changes"] += 1
        facts = {"declared_s": change.declared_s, "from": _told(change.before), "to": _told(change.after)}
        self.tell("change", round(change.t_s, 3), facts)

    def _alarm(self, end_s: float, regime: Regime) -> None:
        state = self.state
        facts: dict[str, Any] = {"tolerance": state.alarm.table.name, "regime_start_s": round(regime.start_s, 3)}
        if state.alarm.raised:
            state.counts["alarms"] += 1
            self.alarm_since_s = end_s
        else:
            facts["lasted_s"] = round(end_s - self.alarm_since_s, 3)
        self.tell("alarm" if state.alarm.raised else "clear", end_s, facts | _told(regime))

    def event(self, event: LiveEvent) -> None:
        """Something that happened to the stream."""
        state = self.state
        if event.kind == "reconnect":
            state.connected = bool(event.facts["connected"])
            state.counts["reconnects"] += state.connected
        else:
            state.counts[f"{event.kind}s"] += 1
        state.t_s = max(state.t_s, event.t_s)
        self.tell(event.kind, event.t_s, event.facts)

    def tell(self, kind: str, t_s: float, facts: dict[str, Any], evidence: Evidence | None = None) -> None:
        """All sinks."""
        record = {"type": kind, "t_s": t_s, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        for sink in self.sinks:
            sink.put(record, evidence)

    def summary(self) -> dict[str, Any]:
        """What came of it all."""
        state, account = self.state, self.state.source.account
        t_s = state.source.t_s
        regimes = [
            {"start_s": round(r.start_s, 3), "end_s": round(r.end_s, 3), **_told(r)} for r in self.tracker.regimes(t_s)
        ]
        return {
            "windows": {
                "computed": account.computed,
                "skipped": account.skipped,
                "uncoverable": account.uncoverable,
                "expected": state.source.expected,
                "all_accounted_for": account.windows == state.source.expected,
            },
            **state.counts,
            "damaged_packets": account.damaged,
            "silence_patched_s": round(state.source.intake.patched_s, 3),
            "out_of_tolerance_s": round(state.alarm.outside_s, 3),
            "tolerance": state.alarm.table.name,
            "alarm": state.alarm.raised,
            "regimes": regimes,
        }

    def end(self) -> None:
        """Tell the summary."""
        self.tell("summary", self.state.source.t_s, self.summary())


def _told(regime: Regime) -> dict[str, Any]:
    """A regime's offset as events tell it."""
    offset_s, spread_s = (None if x is None else round(x, 4) for x in (regime.offset_s, regime.spread_s))
    return {
        "offset_s": offset_s,
        "spread_s": spread_s,
        "confidence": round(regime.confidence, 4),
        "words": regime.words,
        "in_words": regime.in_words,
    }


# --------------------------------------------------------------------------------------------------------------- sinks


class JsonLines:
    """Prints each event as one line of JSON, at once. ``BrokenPipeError`` when nobody reads any more."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None:
        """Print it."""
        print(json.dumps(record, ensure_ascii=False, allow_nan=False), file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is held back."""


class Alerts:
    """Sends alarms, and that they are over, to a webhook. ``about``: what is said beside them, such as the address."""

    def __init__(self, webhook: Webhook, about: dict[str, Any]) -> None:
        self.webhook, self._about = webhook, about

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None:
        """Send it if it is an alarm or the end of one."""
        if record["type"] in ("alarm", "clear"):
            self.webhook.send(self._about | record)

    def close(self) -> None:
        """Send what still waits."""
        self.webhook.close()
