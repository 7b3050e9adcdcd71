"""What "sure", "likely" and "unsure" are worth, and how changes are found: ``avbench train words``.

Follows the validation streams whose offset changes with several settings of ``scoring.regimes.Rules`` and counts what
came true. The shipped rules are a choice among these settings, between early and few: the record, which ships as
``baselines/results/words.json``, shows what the others would have cost.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench.baselines.embedded import load_backbone
from avbench.engine.replay import replay
from avbench.protocol.laws import offsets_at
from avbench.registry.heads import head_class
from avbench.scoring.metrics import log_softmax
from avbench.scoring.regimes import WORDS, Change, Evidence, Regime, RegimeTracker, Rules
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import seconds, ticks
from avbench.training.common import Say, versions
from avbench.training.dynamic import LENGTH, PROTOCOL, changing_streams
from avbench.training.streaming import STREAM_VALID_SEED
from avbench.types import SegmentRecord

GRADUAL = ("ramp", "drift")  # their offset has no regimes
RIGHT_S = 0.2  # a regime's offset is right if it is that near to the true one for most of its time
DATED_S = 10.0  # a change counts as found, or as true, if the other one is that near
STEP_S = 0.3  # smaller steps need not be found: classes are 0.2 s apart
_EVERY = ticks(0.2)


@dataclass(frozen=True)
class WordsRecipe:
    """What is followed, and the settings that are tried: each field of ``Rules`` by itself, and heads."""

    name: str = "words"
    backbone: str = "sparsesync"
    valid_scenes: int = 64
    laws_per_scene: int = 8
    hold: tuple[int, ...] = (2, 3, 4)
    trust: tuple[float, ...] = (0.15, 0.2, 0.3, 0.4, 0.6)
    enough: tuple[float, ...] = (2.0, 3.0, 5.0)
    certain: tuple[float, ...] = (0.7, 0.9, 0.97)
    heads: tuple[str, ...] = ("bayes", "cusum", "apa", "apa-sliding")

    def settings(self) -> list[Rules]:
        """Today's rules first, then those that differ from them in one field."""
        tried = {name: getattr(self, name) for name in ("hold", "trust", "enough", "certain")}
        others = [Rules(**{name: value}) for name, values in tried.items() for value in values]
        return list(dict.fromkeys([Rules(), *others]))


class Followed(NamedTuple):
    """One stream: its law, and what a tracker made of it."""

    segment: SegmentRecord
    regimes: list[Regime]
    changes: list[Change]


def measure_words(recipe: WordsRecipe, out: Path, say: Say = print) -> Path:
    """Write ``out/words.json`` and return its path. ``UsageError`` if the folder of snapshots there belongs to another
    backbone."""
    folder = out / f"snapshots-{recipe.backbone}-embedded-laws"
    streams = changing_streams(
        load_backbone(recipe.backbone), folder, STREAM_VALID_SEED, recipe.valid_scenes, recipe.laws_per_scene, say
    )
    logits, rows = streams.logits.numpy(), []
    for rules, head in itertools.chain(
        ((rules, recipe.heads[0]) for rules in recipe.settings()), ((Rules(), head) for head in recipe.heads[1:])
    ):
        row = {"head": head, "rules": asdict(rules), **figures(follow(logits, streams.segments, head, rules))}
        rows.append(row)
        say(str(row))
    record = {
        "schema_version": 1,
        "what": f"regimes of the {len(streams.segments)} validation streams whose offset changes, through the embedded "
        f"{recipe.backbone}; its words are not capped here",
        "command": f"avbench train {recipe.name}",
        **versions(),
        "recipe": asdict(recipe),
        "rows": rows,
    }
    path = out / f"{recipe.name}.json"
    atomic_write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def follow(logits: np.ndarray, segments: Sequence[SegmentRecord], head: str, rules: Rules) -> list[Followed]:
    """Each stream with its regimes: ``logits`` (N, W, 21) of its windows."""
    hop_s, window_s = seconds(PROTOCOL.hop), seconds(PROTOCOL.window)
    alone, believed = log_softmax(logits), log_softmax(replay(head_class(head)(), logits, None, hop_s))
    found = []
    for segment, says, after in zip(segments, alone, believed, strict=True):
        tracker = RegimeTracker(window_s, hop_s, rules=rules)
        changes = [tracker.add(Evidence(k * hop_s, says[k], after[k])) for k in range(len(says))]
        found.append(Followed(segment, tracker.regimes(seconds(LENGTH)), [c for c in changes if c]))
    return found


def figures(found: Sequence[Followed]) -> dict[str, Any]:
    """For each word how many regimes bear it and the share that is right; of streams with sudden changes alone: the
    share of steps that are found, how far off they are dated and how late they are declared (medians), and how many
    changes an hour are declared where there is none; of sure regimes the share whose error is within one and two
    spreads."""
    right: dict[str, list[bool]] = defaultdict(list)
    z, dates_s, delays_s, n_steps, n_false, hours = [], [], [], 0, 0, 0.0
    for segment, regimes, changes in found:
        assert segment.law is not None
        for regime in regimes:
            off_s = _off_s(segment, regime)
            if len(off_s):
                right[regime.words].append(bool((off_s <= RIGHT_S).mean() > 0.5))
                z += [float(np.median(off_s)) / regime.spread_s] if regime.words == WORDS[0] and regime.spread_s else []
        if segment.law.name in GRADUAL:
            continue
        hours += seconds(LENGTH) / 3600
        moments_s = [seconds(piece.start) for piece in segment.law.pieces[1:]]
        n_false += sum(not _near(change.t_s, moments_s) for change in changes)
        for step_s in _steps_s(segment):
            n_steps += 1
            near = min(changes, key=lambda change: abs(change.t_s - step_s), default=None)
            if near and abs(near.t_s - step_s) <= DATED_S:
                dates_s.append(abs(near.t_s - step_s))
                delays_s.append(near.declared_s - step_s)
    shares = {word: {"n": len(right[word]), "right": _mean(right[word])} for word in WORDS if right[word]}
    return {
        "words": shares,
        "steps": n_steps,
        "found": _mean([1.0] * len(dates_s) + [0.0] * (n_steps - len(dates_s))),
        "date_error_s": _quantile(dates_s, 0.5),
        "date_error_p90_s": _quantile(dates_s, 0.9),
        "declared_after_s": _quantile(delays_s, 0.5),
        "false_changes_per_h": round(n_false / hours, 2) if hours else None,
        "within_one_spread": _mean([value <= 1 for value in z]),
        "within_two_spreads": _mean([value <= 2 for value in z]),
    }


def _off_s(segment: SegmentRecord, regime: Regime) -> np.ndarray:
    """How far the true offset is from the regime's, every 0.2 s of its time; empty if the regime has none."""
    if regime.offset_s is None or segment.law is None:
        return np.zeros(0)
    at = np.arange(ticks(regime.start_s), min(ticks(regime.end_s), LENGTH), _EVERY)
    return np.abs(offsets_at(segment.law, at) / ticks(1) - regime.offset_s)


def _steps_s(segment: SegmentRecord) -> list[float]:
    """When the offset moves by ``STEP_S`` or more at once."""
    assert segment.law is not None
    starts = np.array([piece.start for piece in segment.law.pieces[1:]], np.int64)
    jumps = np.abs(offsets_at(segment.law, starts) - offsets_at(segment.law, starts - 1)) / ticks(1)
    return [seconds(int(start)) for start, jump in zip(starts, jumps, strict=True) if jump >= STEP_S]


def _near(at_s: float, moments_s: Sequence[float]) -> bool:
    return any(abs(at_s - moment_s) <= DATED_S for moment_s in moments_s)


def _mean(values: Sequence[Any]) -> float | None:
    return round(float(np.mean(values)), 3) if len(values) else None


def _quantile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 2) if len(values) else None
