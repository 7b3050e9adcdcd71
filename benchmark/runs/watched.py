"""From the record of a watch (:mod:`avbench.runs.watch_record`) back to an answer, and to its page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avbench.pages.predict_page import predict_page
from avbench.runs.watch_record import SCHEMA_VERSION
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import WORDS, Evidence, Regime, RegimeTracker
from avbench.scoring.tolerance import TOLERANCES, Tolerance
from avbench.system.strict import write_whole
from avbench.types import UsageError, printable

PAGE = "watch.html"
MOST_WINDOWS = 43_200  # on a page: a day at a hop of 2 s
LONGEST_LINE = 100_000  # bytes; a window takes 600


def is_record(folder: Path) -> bool:
    """Whether a folder is one that ``avbench watch --record`` filled."""
    return folder.is_dir() and not (folder / "run.json").exists() and any(folder.glob("*T*Z-*.jsonl"))


def write_watch_page(folder: Path) -> Path:
    """Write ``watch.html`` into the folder of a record: the latest watch in it. ``UsageError`` as in ``read_record``;
    ``AvbenchError`` if it cannot be written."""
    page = folder / PAGE
    write_whole(page, predict_page(read_record(folder)).encode("utf-8", "replace"))
    return page


def read_record(folder: Path) -> Prediction:
    """The latest watch in the folder of a record, as an answer: its latest ``MOST_WINDOWS`` windows, and the regimes
    that its summary tells (followed anew if it was killed). A last line that is cut off is left out, and said.
    ``UsageError``: the folder has no record, or not one of this version."""
    parts = sorted(folder.glob("*T*Z-*.jsonl"))
    if not parts:
        raise UsageError(f"{folder} has no record of avbench watch (files BEGIN-NUMBER.jsonl)")
    begun = parts[-1].name.rpartition("-")[0]
    lines, broken = [], 0
    for part in parts:
        if part.name.startswith(f"{begun}-"):
            for line in _lines(part):
                if line is None:
                    broken += 1
                else:
                    lines.append(line)
    head = next((line for line in lines if line.get("type") == "begin"), None)
    if head is None or head.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{parts[-1]} is no record of this version of avbench watch")
    try:
        return _answer(folder, head, lines, broken)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the record in {folder} is damaged: {printable(str(error))}") from None


def _lines(part: Path) -> Iterator[dict[str, Any] | None]:
    """The objects in a file; None for a line that is none."""
    with open(part, "rb") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            yield found if isinstance(found, dict) else None


def _answer(folder: Path, head: dict[str, Any], lines: list[dict[str, Any]], broken: int) -> Prediction:
    told = [line for line in lines if line.get("type") == "window"]
    windows = tuple(_window(line) for line in told[-MOST_WINDOWS:])
    table = TOLERANCES.get(str(head["tolerance"]["name"])) or Tolerance(
        printable(str(head["tolerance"]["name"])),
        float(head["tolerance"]["early_s"]),
        float(head["tolerance"]["late_s"]),
        "the user",
    )
    hop_s, window_s = float(head["hop_s"]), float(head["window_s"])
    end_s = max((float(line["t_s"]) for line in lines if "t_s" in line), default=0.0)
    summary = next((line for line in lines if line.get("type") == "summary"), None)
    warnings = [f"{len(told) - len(windows)} earlier windows are not drawn"] if len(told) > len(windows) else []
    warnings += [] if summary else ["it was not ended with a summary: the regimes are followed anew from its windows"]
    warnings += [f"{broken} line{'s' * (broken > 1)} of the record cannot be read and are left out"] if broken else []
    counts = {kind: sum(line.get("type") == kind for line in lines) for kind in ("alarm", "gap", "lag", "reconnect")}
    warnings += [f"{n} {kind} event{'s' * (n > 1)} in the record" for kind, n in counts.items() if n]
    return Prediction(
        path=printable(str(head["stream"])),
        file=folder,
        model=printable(str(head["model"])),
        hop_s=hop_s,
        window_s=window_s,
        duration_s=end_s,
        windows=windows,
        regimes=_regimes(summary) if summary else _followed(windows, window_s, hop_s, end_s),
        asked=table,
        warnings=tuple(warnings),
    )


def _window(line: dict[str, Any]) -> Evidence:
    log_p, believed = (None if line[name] is None else _row(line[name]) for name in ("log_p", "believed"))
    why = "" if believed is not None else printable(str(line.get("why") or ""))  # else it is of the words, not of this
    return Evidence(float(line["start_s"]), log_p, believed, why=why)


def _row(values: list[float]) -> np.ndarray:
    row = np.asarray(values, np.float64)
    if row.shape != (21,) or not np.isfinite(row).all():
        raise ValueError(f"probabilities of shape {row.shape}")
    return row


def _regimes(summary: dict[str, Any]) -> tuple[Regime, ...]:
    return tuple(
        Regime(
            start_s=float(line["start_s"]),
            end_s=float(line["end_s"]),
            offset_s=_number(line["offset_s"]),
            spread_s=_number(line["spread_s"]),
            confidence=float(line["confidence"]),
            words=WORDS[WORDS.index(line["words"])],
        )
        for line in summary["regimes"]
    )


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"an offset of {value}")
    return float(value)


def _followed(windows: tuple[Evidence, ...], window_s: float, hop_s: float, end_s: float) -> tuple[Regime, ...]:
    """By the windows alone; never sure, because what the model's word is worth is not in the record."""
    tracker = RegimeTracker(window_s, hop_s, most="unsure")
    for window in windows:
        tracker.add(window)
    return tuple(tracker.regimes(end_s))
