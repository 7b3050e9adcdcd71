"""The loop of ``avbench watch``: alarms with hysteresis, events in order, and the same answers as for the file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from senders import clip, sending, transport

from avbench.data import live
from avbench.data.live import LiveOptions, LiveSource
from avbench.data.live_open import Address
from avbench.registry.names import load_model
from avbench.runs.answering import Answering
from avbench.runs.watch import Alarm, Alerts, JsonLines, Watch, watch
from avbench.scoring.regimes import Evidence
from avbench.scoring.tolerance import tolerance_of
from avbench.types import AvbenchError, NonFiniteError, UsageError

EBU = tolerance_of("ebu")


def alarms(verdicts: str, hop_s: float = 2.0, **times: float) -> list[tuple[float, bool]]:
    """When an alarm is raised (True) or cleared; verdicts: "i" within, "o" outside, "?" cannot be judged."""
    alarm = Alarm(EBU, **times)
    found = []
    for k, verdict in enumerate(verdicts):
        if alarm.judge(5 + k * hop_s, {"i": True, "o": False, "?": None}[verdict]):
            found.append((5 + k * hop_s, alarm.raised))
    return found


def test_an_alarm_waits_and_is_cleared_later() -> None:
    assert alarms("iiii" + "o" * 10 + "i" * 20) == [(21.0, True), (51.0, False)]
    assert alarms("iiii" + "o" * 4 + "i" * 20) == [], "8 s outside are too few"
    assert alarms("iiii" + "ooooi" * 10) == []
    assert alarms("iii" + "o" * 8 + "iiiiiiiiio" * 10) == [(19.0, True)], "a fault that comes and goes is one alarm"
    assert alarms("iio", after_s=0, clear_after_s=0) == [(9.0, True)]


def test_what_cannot_be_judged_counts_for_neither_side() -> None:
    assert alarms("i" + "?" * 50) == []
    assert alarms("iooo" + "?" * 50 + "o") == []
    assert alarms("iooo" + "?" * 50 + "oo") == [(115.0, True)], "and takes nothing back"


def test_what_was_not_seen_does_not_count() -> None:
    assert alarms("ioo", hop_s=100.0) == [(205.0, True)], "5 s each"
    assert alarms("io", hop_s=100.0) == []


@given(st.text("io?", max_size=60))
def test_alarms_take_turns_and_the_time_outside_is_that_of_the_windows(verdicts: str) -> None:
    found = alarms(verdicts)
    assert [raised for _, raised in found] == [k % 2 == 0 for k in range(len(found))]
    alarm = Alarm(EBU)
    for k, verdict in enumerate(verdicts):
        alarm.judge(5 + 2 * k, {"i": True, "o": False, "?": None}[verdict])
    assert alarm.outside_s == 2 * verdicts.count("o") + (3 if verdicts[:1] == "o" else 0)


def test_times_that_are_none() -> None:
    for times in ({"after_s": -1}, {"clear_after_s": float("nan")}, {"after_s": float("inf")}):
        with pytest.raises(UsageError, match="must be 0 s or more"):
            Alarm(EBU, **times)


# ------------------------------------------------------------------------------------------------- whole streams


@pytest.fixture(scope="module")
def ts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mp4 = clip(tmp_path_factory.mktemp("watch") / "clip.mp4")
    return transport(mp4, mp4.with_suffix(".ts"))


class Kept:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.evidence: list[Evidence | None] = []
        self.closed = 0

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None:
        self.records.append(json.loads(json.dumps(record, allow_nan=False)))
        self.evidence.append(evidence)

    def close(self) -> None:
        self.closed += 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.records if r["type"] == kind]


def watched(url: str | Path, **options: Any) -> tuple[Kept, dict[str, Any], Watch]:
    answering = Answering(load_model("xcorr+bayes"), 2.0)
    source = LiveSource(Address.of(str(url)), answering.frontend, LiveOptions(timeout_s=5.0, **options))
    kept = Kept()
    state = Watch(source, Alarm(tolerance_of("itu-accept")))
    return kept, watch(source, answering, state.alarm, [kept], state), state


def test_two_jumps_of_the_sound_are_changes_and_an_alarm(ts: Path) -> None:
    kept, summary, state = watched(ts)
    changes = kept.of("change")
    assert len(changes) == summary["changes"] == 2
    for change, at_s, before_s, after_s in zip(changes, (30, 60), (0.0, 0.4), (0.4, -0.6), strict=True):
        assert abs(change["t_s"] - at_s) <= 4, "within two hops"
        assert change["t_s"] < change["declared_s"] <= at_s + 20
        assert abs(change["from"]["offset_s"] - before_s) <= 0.02
        assert abs(change["to"]["offset_s"] - after_s) <= 0.02
    assert changes[0]["to"]["in_words"] == "audio 0.4 s early"
    (alarm,) = kept.of("alarm")
    assert 40 <= alarm["t_s"] <= 60
    assert abs(alarm["regime_start_s"] - 30) <= 4
    assert kept.of("clear") == []
    assert summary["alarm"] is True
    assert summary["windows"] == {
        "computed": 43,
        "skipped": 0,
        "uncoverable": 0,
        "expected": 43,
        "all_accounted_for": True,
    }
    offsets = [r["offset_s"] for r in summary["regimes"]]
    assert [round(x, 1) for x in offsets] == [0.0, 0.4, -0.6]
    assert kept.closed == 1
    assert kept.records[-1]["type"] == "summary"
    assert (state.t_s, state.connected, state.within) == (89.0, True, False)


def test_every_window_is_told_with_its_evidence(ts: Path) -> None:
    kept, _, _ = watched(ts, for_s=21)
    told = kept.of("window")
    assert [w["t_s"] for w in told] == [5.0 + 2 * k for k in range(9)]
    assert set(told[0]) == {
        *("type", "t_s", "at", "start_s", "offset_s", "spread_s", "confidence", "words", "in_words", "why", "within"),
        "lag_s",
    }
    assert told[-1]["within"] is True
    for record, evidence in zip(kept.records, kept.evidence, strict=True):
        assert (evidence is not None) == (record["type"] == "window")
        assert evidence is None or evidence.believed is not None


def test_a_stream_that_breaks_off_is_told_and_goes_on(ts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BACK_OFF_S", (0.3,))
    data = ts.read_bytes()
    with sending(data, drops=(len(data) // 2, None)) as sender:
        kept, summary, _ = watched(sender.url, for_s=100)
    assert summary["reconnects"] >= 1
    assert summary["gaps"] >= 1
    windows = summary["windows"]
    assert windows["all_accounted_for"]
    assert windows["uncoverable"] >= 2
    assert len(kept.of("window")) == windows["computed"]
    times = [r["t_s"] for r in kept.records if r["type"] != "change"]
    assert times == sorted(times)
    assert {r["connected"] for r in kept.of("reconnect")} == {True, False}


def test_a_stream_that_cannot_be_opened_has_no_summary(tmp_path: Path) -> None:
    answering = Answering(load_model("xcorr+bayes"), 2.0)
    source = LiveSource(Address.of("http://127.0.0.1:9/x"), answering.frontend, LiveOptions(timeout_s=1.0))
    kept = Kept()
    with pytest.raises(AvbenchError, match="cannot be opened"):
        watch(source, answering, Alarm(EBU), [kept])
    assert (kept.records, kept.closed) == ([], 1)


def test_a_model_that_breaks_still_has_its_summary(ts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Evidence:
        raise NonFiniteError("model xcorr: NaN")

    monkeypatch.setattr(Answering, "observe", broken)
    answering = Answering(load_model("xcorr+bayes"), 2.0)
    source = LiveSource(Address.of(str(ts)), answering.frontend, LiveOptions(for_s=10))
    kept = Kept()
    with pytest.raises(NonFiniteError):
        watch(source, answering, Alarm(EBU), [kept])
    assert [r["type"] for r in kept.records] == ["summary"]


def test_json_lines_and_alerts() -> None:
    out = io.StringIO()
    JsonLines(out).put({"type": "window", "t_s": 5.0, "in_words": "größer"})
    assert out.getvalue() == '{"type": "window", "t_s": 5.0, "in_words": "größer"}\n'

    sent: list[dict[str, Any]] = []

    class Hook:
        def send(self, message: dict[str, Any]) -> None:
            sent.append(message)

        def close(self) -> None:
            sent.append({"closed": True})

    alerts = Alerts(Hook(), {"stream": "udp://x"})  # type: ignore[arg-type]
    for kind in ("window", "change", "alarm", "clear", "gap", "summary"):
        alerts.put({"type": kind, "t_s": 1.0})
    alerts.close()
    assert sent == [
        {"stream": "udp://x", "type": "alarm", "t_s": 1.0},
        {"stream": "udp://x", "type": "clear", "t_s": 1.0},
        {"closed": True},
    ]
