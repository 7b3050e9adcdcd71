"""Why segments of a run were not scored: failures gathered by cause, and what to say where nothing was scored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from avbench.results.run import Failure, RunResult

_WINDOW = re.compile(r", iteration \d+ \(window at [\d.]+ s\)$")  # in which window a model failed: of one cause
_OF_MODEL = ("model ", "not tried: model ")  # how a reason begins that is the model's fault; others are of the media
_NAMED = 3


class Cause(NamedTuple):
    """One reason, without the window in which it was met first, and the number of segments of each clip."""

    reason: str
    clips: Counter[str]

    @property
    def n(self) -> int:
        """The number of segments that failed so."""
        return self.clips.total()

    @property
    def of_model(self) -> bool:
        """Whether the model failed, and not the reading of the clip."""
        return self.reason.startswith(_OF_MODEL)

    @property
    def where(self) -> str:
        """The first few clips, and how many more there are."""
        names = list(self.clips)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"clip{'s' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more}"

    def __str__(self) -> str:
        return f"{self.where}: {self.reason} ({_segments(self.n)})"


def causes(failures: Sequence[Failure], names: Mapping[str, str] | None = None) -> list[Cause]:
    """The causes in the order in which they are met first. ``names``: clip id -> the name of its file, where that says
    more."""
    found: dict[str, Counter[str]] = {}
    for failure in failures:
        clip = (names or {}).get(failure.clip_id, failure.clip_id)
        found.setdefault(_WINDOW.sub("", failure.reason), Counter())[clip] += 1
    return [Cause(reason, clips) for reason, clips in found.items()]


def nothing_scored(result: RunResult) -> str:
    """One line that says that nothing was scored, and how that came; "" if something was."""
    if result.n_scored:
        return ""
    failed, short = len(result.failures), len(result.unsupported)
    parts = [f"{failed} of {_segments(result.n_total)} failed"] if failed else []
    parts += [f"{short} of {_segments(result.n_total)} too short for this hop and number of windows"] if short else []
    return f"nothing was scored: {', '.join(parts) or 'there is no segment'}"


def remedies(result: RunResult, doctor: Sequence[str], data: Sequence[str]) -> list[list[str]]:
    """The commands that look for what made segments fail: the doctor for the model (``doctor``: what it is asked
    about), a check of the media for the data (``data``: as of --data and --split)."""
    found = causes(result.failures)
    commands = [["avbench", "doctor", *doctor]] if any(cause.of_model for cause in found) else []
    broken = any(not cause.of_model for cause in found)
    return commands + ([["avbench", "data", "verify", *data]] if broken else [])


def _segments(n: int) -> str:
    return f"{n} segment{'s' * (n != 1)}"
