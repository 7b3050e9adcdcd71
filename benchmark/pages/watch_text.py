"""A live stream on a terminal: a few lines that are drawn anew with every event."""

from __future__ import annotations

import os
import shutil
from collections import deque
from typing import Any, TextIO

from avbench.types import printable

_LATEST = 5  # events that stay on the screen
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


class WatchText:
    """Is told each event of ``avbench watch``. ``title``: the first line. A terminal that cannot move its cursor
    (TERM is dumb) gets one line an event; without NO_COLOR an alarm is red."""

    def __init__(self, out: TextIO, title: str) -> None:
        self._out, self._title = out, title
        self._moves = os.environ.get("TERM", "dumb") != "dumb"
        self._colours = self._moves and not os.environ.get("NO_COLOR")
        self._window: dict[str, Any] = {}
        self._alarm: dict[str, Any] = {}
        self._latest: deque[str] = deque(maxlen=_LATEST)
        self._drawn = self._windows = 0
        if not self._moves:
            print(printable(title), file=out, flush=True)

    def put(self, record: dict[str, Any], evidence: object = None) -> None:
        """Show one event."""
        kind = record["type"]
        if kind == "window":
            self._window = record
            self._windows += 1
        if kind in ("alarm", "clear"):
            self._alarm = record if kind == "alarm" else {}
        line = f"{clock(record['t_s']):>9}  {in_words(record)}"
        if kind != "window":
            self._latest.append(line)
        if self._moves:
            self._draw()
        else:
            print(printable(line), file=self._out, flush=True)

    def close(self) -> None:
        """What is shown stays."""

    def _draw(self) -> None:
        width = max(shutil.get_terminal_size().columns - 1, 20)
        lines = [self._title]
        if self._window:
            lines.append(f"{clock(self._window['t_s']):>9}  {in_words(self._window)}  ({self._windows} windows)")
        if self._alarm:
            lines.append(f"    ALARM  out of {self._alarm['tolerance']} since {clock(self._alarm['regime_start_s'])}")
        shown = [printable(line)[:width] for line in (*lines, *self._latest)]
        if self._colours and self._alarm:
            shown[len(lines) - 1] = f"{_RED}{shown[len(lines) - 1]}{_PLAIN}"
        up = f"\x1b[{self._drawn}A\r\x1b[J" if self._drawn else ""
        print(up + "\n".join(shown), file=self._out, flush=True)
        self._drawn = len(shown)


def clock(t_s: float) -> str:
    """``3723.4`` -> ``"1:02:03"``."""
    whole = int(t_s)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def in_words(record: dict[str, Any]) -> str:
    """An event of ``avbench watch`` in one line."""
    match record["type"]:
        case "window":
            within = {True: "within tolerance", False: "OUT OF TOLERANCE", None: "cannot be judged"}[record["within"]]
            if record["offset_s"] is None:
                return f"no evidence: {record['why'] or 'not yet'}"
            return f"{record['in_words']}  ±{record['spread_s']:.2f} s  {record['words']}  {within}"
        case "change":
            return f"change: {record['from']['in_words']} -> {record['to']['in_words']}"
        case "alarm":
            return f"ALARM: {record['in_words']}, out of {record['tolerance']}"
        case "clear":
            return f"clear: {record['in_words']}, within {record['tolerance']} again"
        case "lag":
            return f"lag: {record['skipped']} windows skipped, computing was {record['lag_s']:g} s behind"
        case "reconnect" if record["connected"]:
            return f"connected again after {record['outage_s']:g} s"
        case "reconnect":
            return f"not connected ({record['reason']}); attempt {record['attempt'] + 1} in {record['next_s']:g} s"
        case "gap":
            return f"gap: {record['reason']}"
        case "summary":
            windows, alarms = record["windows"], record["alarms"]
            return (
                f"the end: {windows['computed']} windows computed, {windows['skipped']} skipped, "
                f"{windows['uncoverable']} could not be covered; {record['changes']} changes, {alarms} alarms, "
                f"{record['out_of_tolerance_s']:g} s out of tolerance"
            )
    return str(record["type"])
