"""The view of a live stream on a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from avbench.pages.watch_text import WatchText, clock, in_words

OFFSET = {"offset_s": 0.4, "spread_s": 0.05, "confidence": 0.9, "words": "sure", "in_words": "audio 0.4 s early"}
WINDOW = {"type": "window", "t_s": 3725.0, "start_s": 3720.0, **OFFSET, "why": "", "within": False, "lag_s": 0.1}
ALARM = {"type": "alarm", "t_s": 3725.0, "tolerance": "ebu", "regime_start_s": 3700.0, **OFFSET}
EVENTS: list[tuple[dict[str, Any], str]] = [
    (WINDOW, "audio 0.4 s early  ±0.05 s  sure  OUT OF TOLERANCE"),
    (WINDOW | {"within": None}, "audio 0.4 s early  ±0.05 s  sure  cannot be judged"),
    (WINDOW | {"offset_s": None, "spread_s": None, "why": "the sound is silent"}, "no evidence: the sound is silent"),
    ({"type": "change", "from": {"in_words": "in sync"}, "to": OFFSET}, "change: in sync -> audio 0.4 s early"),
    (ALARM, "ALARM: audio 0.4 s early, out of ebu"),
    (ALARM | {"type": "clear", "in_words": "in sync"}, "clear: in sync, within ebu again"),
    ({"type": "gap", "reason": "the picture is missing"}, "gap: the picture is missing"),
    ({"type": "lag", "skipped": 3, "lag_s": 6.25}, "lag: 3 windows skipped, computing was 6.25 s behind"),
    ({"type": "reconnect", "connected": True, "outage_s": 4.5}, "connected again after 4.5 s"),
    (
        {"type": "reconnect", "connected": False, "reason": "refused", "attempt": 1, "next_s": 2},
        "not connected (refused); attempt 2 in 2 s",
    ),
]


@pytest.mark.parametrize(("record", "said"), EVENTS)
def test_each_event_in_words(record: dict[str, Any], said: str) -> None:
    assert in_words(record) == said


def test_clock() -> None:
    assert [clock(t) for t in (0, 59.9, 3723.4, 360_000)] == ["0:00:00", "0:00:59", "1:02:03", "100:00:00"]


def shown(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "50")
    out = io.StringIO()
    view = WatchText(out, "udp://host\x1b[2J · xcorr+bayes · ebu")
    for k in range(8):
        view.put({"type": "gap", "t_s": float(k), "reason": f"number {k}, " + "long " * 20})
    view.put(WINDOW)
    view.put(ALARM)
    view.close()
    return out.getvalue()


def screen(text: str) -> list[str]:
    """What a terminal shows: the cursor goes up and the rest is erased."""
    lines: list[str] = []
    for part in re.split(r"(\x1b\[\d+A\r\x1b\[J)", text):
        up = re.match(r"\x1b\[(\d+)A", part)
        if up:
            lines = lines[: len(lines) - int(up[1])]
        else:
            lines += part.splitlines()
    return lines


def test_a_few_lines_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, TERM="xterm")
    lines = screen(text)
    assert lines[0] == "udp://host?[2J · xcorr+bayes · ebu"
    assert "audio 0.4 s early" in lines[1]
    assert lines[2] == "\x1b[31m    ALARM  out of ebu since 1:01:40\x1b[0m"
    assert [line.split()[2:4] for line in lines[3:7]] == [["number", f"{k},"] for k in (4, 5, 6, 7)]
    assert len(lines) == 8
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) < 50 for line in lines), "no line is wrapped"


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, TERM="xterm", NO_COLOR="1")
    assert "\x1b[31m" not in text
    assert "    ALARM  out of ebu since 1:01:40" in screen(text)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {}])
def test_a_dumb_terminal_gets_one_line_an_event(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    text = shown(monkeypatch, **environment)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 11
