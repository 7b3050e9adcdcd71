"""The constants of ``bayes`` and ``cusum``, chosen on validation: ``avbench train tracking``.

Prints a grid of settings on the validation streams, and every other head on the same streams to compare with. The
setting with the highest ``tracked_acc_tol1`` is chosen (``training.dynamic`` says why); the winners are the defaults in
``baselines.tracking``. The record ships as ``baselines/results/tracking.json``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench.baselines.embedded import load_backbone, load_head
from avbench.baselines.tracking import BayesFilter, RestartingApa
from avbench.engine.replay import replay
from avbench.registry.heads import head_class, plain_heads
from avbench.scoring.streams import checked_streams
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import seconds
from avbench.training.common import Say, versions
from avbench.training.dynamic import PROTOCOL, ChangingStreams, changing_streams, figures, truth_of
from avbench.training.streaming import STREAM_VALID_SEED
from avbench.types import OffsetGrid, StreamingHead, UsageError

MAKERS: dict[str, Callable[..., StreamingHead]] = {"bayes": BayesFilter, "cusum": RestartingApa}
SAME_BACKBONE = ("streamsync-trf", "streamsync-lstm", "streamsync-trf.dynamic", "streamsync-lstm.dynamic")
SURE = 20.0  # the logit of the oracle's answer
IN_SYNC = OffsetGrid().class_of(0.0)


@dataclass(frozen=True)
class TrackingRecipe:
    """Which settings are tried, and on what: ``laws_per_scene`` streams of each of ``valid_scenes`` scenes, through the
    embedded ``backbone``. ``change``, ``trust`` and ``threshold``: as ``BayesFilter`` and ``RestartingApa`` say."""

    name: str = "tracking"
    backbone: str = "sparsesync"
    valid_scenes: int = 64
    laws_per_scene: int = 8
    change: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.03, 0.05, 0.1)
    trust: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
    threshold: tuple[float, ...] = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 24.0, 28.0)

    def settings(self, head: str) -> list[dict[str, float]]:
        """All that are tried of a head."""
        if head == "cusum":
            return [{"threshold": threshold} for threshold in self.threshold]
        return [{"change": change, "trust": trust} for change, trust in itertools.product(self.change, self.trust)]


def choose_constants(recipe: TrackingRecipe, out: Path, say: Say = print) -> Path:
    """Write ``out/tracking.json``: the grid, the choice, and the other heads; returns its path. ``UsageError`` if the
    folder of snapshots there belongs to another backbone."""
    backbone = load_backbone(recipe.backbone)
    folder = out / f"snapshots-{recipe.backbone}-embedded-laws"
    streams = changing_streams(backbone, folder, STREAM_VALID_SEED, recipe.valid_scenes, recipe.laws_per_scene, say)
    logits = streams.logits.numpy()
    grid: dict[str, list[dict[str, Any]]] = {}
    for head, make in MAKERS.items():
        grid[head] = []
        for setting in recipe.settings(head):
            said = replay(make(**setting), logits, None, seconds(PROTOCOL.hop))
            grid[head].append({"setting": setting, **figures(said, streams.segments)})
            say(f"{head} {setting} {grid[head][-1]}")
    chosen = {head: best(lines) for head, lines in grid.items()}
    rows = [*other_rows(recipe.backbone, streams), *learned_rows(recipe.backbone, streams)]
    rows += [{"model": f"{recipe.backbone}+{head}", **line} for head, line in chosen.items()]
    for row in rows:
        say(str(row))
    record = {
        "schema_version": 1,
        "what": f"heads on the {len(streams.segments)} validation streams whose offset changes, and how the constants "
        "of bayes and cusum were chosen there",
        "command": f"avbench train {recipe.name}",
        **versions(),
        "recipe": asdict(recipe),
        "chosen": {head: line["setting"] for head, line in chosen.items()},
        "rows": rows,
        "grid": grid,
    }
    path = out / f"{recipe.name}.json"
    atomic_write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def best(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The line with the highest ``tracked_acc_tol1``, the first of equals."""
    return max(lines, key=lambda line: line["tracked_acc_tol1"])


def other_rows(backbone: str, streams: ChangingStreams) -> list[dict[str, Any]]:
    """The oracle, one constant answer, and every head with nothing to choose here."""
    labels = checked_streams(streams.logits.numpy(), truth_of(streams.segments)).labels
    in_sync = np.full_like(labels, IN_SYNC)
    rows = [
        {"model": name, **figures(SURE * np.eye(21)[classes], streams.segments)}
        for name, classes in (("oracle", labels), ("constant", in_sync))
    ]
    for head in plain_heads():
        if head not in MAKERS:
            said = replay(head_class(head)(), streams.logits.numpy(), None, seconds(PROTOCOL.hop))
            rows.append({"model": f"{backbone}+{head}", **figures(said, streams.segments)})
    return rows


def learned_rows(backbone: str, streams: ChangingStreams) -> list[dict[str, Any]]:
    """The embedded learned heads whose backbone is this very one but for the token. ``UsageError`` if one's is not."""
    below, rows = load_backbone(backbone).state_dict(), []
    for name in SAME_BACKBONE:
        model = load_backbone(name)
        other = [key for key, value in model.state_dict().items() if not torch.equal(value, below[key])]
        if not all(key.startswith("token_maker.") for key in other):
            raise UsageError(f"{name} has not the backbone of {backbone}: these snapshots are not its own")
        with torch.inference_mode():
            flat = (x.flatten(0, 1) for x in streams[:3])
            tokens = model.token_maker(*flat).unflatten(0, streams.labels.shape).numpy()
        said = replay(load_head(name), streams.logits.numpy(), tokens, seconds(PROTOCOL.hop))
        rows.append({"model": name, **figures(said, streams.segments)})
    return rows
