"""What a model says of one media file: its regimes, the windows behind them, and the judgement at each tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.scoring.calibration import believed_offsets_s, centres_s
from avbench.scoring.regimes import Evidence, Regime, judged, tables_with, verdicts, why_not_judged
from avbench.scoring.tolerance import TOLERANCES, Tolerance
from avbench.system.paths import path_text

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = {True: "within", False: "outside", None: "not judged"}
DIGITS = 4  # of seconds and probabilities in JSON and tables


@dataclass(frozen=True)
class Prediction:
    """The answer for one file; with ``error``, in one line, there is none. Times in seconds on the clip's clock, whose
    0 is the first picture; a positive offset means that the sound comes early."""

    path: str  # as the user named it
    file: Path  # where it is
    model: str
    hop_s: float
    window_s: float = 5.0
    duration_s: float = 0.0  # that both picture and sound cover
    fps: float | None = None  # of the source
    video_track: int | None = None  # counted from 1 among the file's
    audio_track: int | None = None
    tracks: tuple[str, ...] = ()  # those that were read, in words
    windows: tuple[Evidence, ...] = field(default=(), repr=False)
    regimes: tuple[Regime, ...] = ()
    asked: Tolerance | None = None  # the tolerance that the user asked for
    warnings: tuple[str, ...] = ()
    error: str = ""
    repair: str = ""  # the command that would mend a constant offset
    picture_at_s: float = 0.0  # the first picture's time on the container's own clock
    sound_first_s: float = 0.0  # by how much the file begins before its first picture

    @property
    def tables(self) -> list[Tolerance]:
        """All tolerance tables, and the one asked for."""
        return tables_with(self.asked)

    @property
    def tolerance(self) -> dict[str, bool | None]:
        """Table's name -> whether the whole file is within it; None if that cannot be said."""
        return verdicts(self.regimes, self.tables)

    @property
    def within(self) -> bool | None:
        """Whether the file is within the tolerance asked for, else within all of them; None if that cannot be said."""
        said = self.tolerance
        if self.asked:
            return said[self.asked.name]
        return False if False in said.values() else None if None in said.values() else True

    @property
    def why_not_judged(self) -> str:
        """Why it cannot be said whether the file is within the tolerance asked for, or all of them; "" if it can."""
        if self.error or self.within is not None:
            return ""
        tables = [self.asked] if self.asked else self.tables
        said = (why_not_judged(regime, table) for table in tables for regime in self.regimes)
        return next(filter(None, said), "no evidence")

    @property
    def verdict(self) -> str:
        """The answer to the tolerance asked for: ``within ebu``, ``not judged: atsc (why)``; "" if none was."""
        if self.asked is None or self.error:
            return ""
        why, name = self.why_not_judged, self.asked.name
        return f"{VERDICTS[None]}: {name} ({why})" if why else f"{VERDICTS[self.within]} {name}"

    @property
    def worst(self) -> Regime | None:
        """The regime with the largest offset, in proportion to how sure it is; None without evidence."""
        heard = [regime for regime in self.regimes if regime.offset_s is not None]
        return max(heard, key=lambda r: abs(r.offset_s or 0.0) * r.confidence, default=None)

    @property
    def rank(self) -> tuple[int, float, str]:
        """Sorts files, the worst first: outside, not judged, within, failed."""
        place = 3 if self.error else {False: 0, None: 1, True: 2}[self.within]
        worst = self.worst
        return place, -abs(worst.offset_s or 0.0) * worst.confidence if worst else 0.0, self.path

    def frame(self) -> pd.DataFrame:
        """One row a window: start_s, offset_s (what the head believes after it), p_-2.0 ... p_+2.0 (its
        probabilities), and reason: why there is no evidence, "" if there is."""
        import pandas as pd

        names = [f"p_{offset_s:+.1f}" for offset_s in centres_s()]
        believed = [window.believed for window in self.windows]
        p = np.array([np.full(len(names), np.nan) if b is None else np.exp(b) for b in believed])
        p = p.reshape(len(believed), len(names))
        columns: dict[str, Any] = {
            "start_s": [window.start_s for window in self.windows],
            "offset_s": [None if b is None else float(believed_offsets_s(np.exp(b))) for b in believed],
        }
        columns |= {name: p[:, k] for k, name in enumerate(names)}
        columns["reason"] = [window.why for window in self.windows]
        return pd.DataFrame(columns).astype({"offset_s": float})

    def as_json(self) -> dict[str, Any]:
        """Plain data, as ``avbench predict --json`` prints it."""
        return {
            "path": shown_path(self.path),
            "duration_s": round(self.duration_s, DIGITS),
            "audio_track": self.audio_track,
            "video_track": self.video_track,
            "windows": len(self.windows),
            "regimes": [self.regime_as_json(regime) for regime in self.regimes],
            "tolerance": {table.name: None for table in self.tables} if self.error else self.tolerance,
            "asked": self.asked.name if self.asked else None,
            "verdict": None if self.error or not self.asked else VERDICTS[self.within],
            "why_not_judged": (self.asked and self.why_not_judged) or None,
            "warnings": list(self.warnings),
            "error": self.error or None,
            "model": self.model,
            "hop_s": self.hop_s,
            "fps": self.fps,
            "tracks": list(self.tracks),
            "repair": self.repair or None,
        }

    def regime_as_json(self, regime: Regime) -> dict[str, Any]:
        """One regime as plain data."""
        numbers = {
            name: None if (value := getattr(regime, name)) is None else round(value, DIGITS)
            for name in ("start_s", "end_s", "offset_s", "spread_s", "confidence")
        }
        return {
            **numbers,
            "words": regime.words,
            "in_words": regime.in_words,
            "windows": regime.n_windows,
            "why": regime.why,
            "tolerance": {table.name: judged(regime, table) for table in self.tables},
        }


def shown_path(path: str) -> str:
    """A path for JSON and tables: as it is if it is text, else with ``\\xNN`` for the bytes that are none."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return path_text(path)
    return path


# of a CSV file, whatever was asked and answered: column -> the type of its cells
COLUMNS = {
    **dict.fromkeys(("path", "model"), "str"),
    **dict.fromkeys(("start_s", "end_s", "offset_s", "spread_s", "confidence"), "float"),
    **dict.fromkeys(("words", "in_words"), "str"),
    "windows": "Int64",  # whole numbers that may be missing
    "why": "str",
    **dict.fromkeys((f"within_{name}" for name in TOLERANCES), "str"),
    **dict.fromkeys(("asked", "verdict", "why_not_judged", "error"), "str"),
}


def frame_of(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """One row a regime, for a CSV file; a file that failed has one row with its error. Always the same ``COLUMNS``, of
    the same types; a cell with nothing to say is empty."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        path = shown_path(prediction.path)
        shared = {"path": path, "model": prediction.model, "asked": prediction.asked.name if prediction.asked else ""}
        rows += [{**shared, **_row(prediction, regime)} for regime in prediction.regimes]
        if prediction.error:
            rows.append({**shared, "error": prediction.error})
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    text = [name for name, kind in COLUMNS.items() if kind == "str"]
    return frame.fillna(dict.fromkeys(text, "")).astype(COLUMNS)


def _row(prediction: Prediction, regime: Regime) -> dict[str, Any]:
    """What is said of one regime, in the columns that are its own."""
    told = prediction.regime_as_json(regime)
    within = {f"within_{name}": {True: "yes", False: "no", None: ""}[said] for name, said in told["tolerance"].items()}
    asked = prediction.asked
    verdict = VERDICTS[judged(regime, asked)] if asked else ""
    why = why_not_judged(regime, asked) if asked else ""
    cells = {**told, **within, "verdict": verdict, "why_not_judged": why}
    return {name: value for name, value in cells.items() if name in COLUMNS}
