"""Streams whose offset changes, for training heads and for choosing constants.

Scenes are rendered once, as for fixed offsets (``training.streaming``), and each is heard under several laws: the
picture windows are encoded once, a sound window once for all laws under which it is the same. Laws are drawn as for the
track (``protocol.laws``), in the shares given there. A stream has the track's length: 48 windows, hop 2 s.

Steps, seeds and constants are chosen by ``tracked_acc_tol1`` on validation streams: the share of pure windows that are
at most one class off. It costs a head the windows that it takes to recover and those of its false changes alike. The
track's headline, recovery at no more than one false change an hour, cannot choose: nearly all false changes correct the
first belief, which rests on a few windows, so no head comes within ten times of that rate but one that never moves
(``avbench train tracking`` shows it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.mini import MiniBackbone
from avbench.baselines.streamsync import StreamingLSTM
from avbench.protocol.laws import SHARES, draw_law, gathered, law_of, laws_in_turn, offsets_at
from avbench.protocol.plan import SnapshotKey, keys_of
from avbench.protocol.rules import streaming
from avbench.results.dynamic_truth import WindowTruth
from avbench.scoring import dynamic, survival
from avbench.scoring.metrics import everything_once
from avbench.scoring.streams import Streams as ScoredStreams
from avbench.scoring.streams import checked_streams
from avbench.ticks import TICKS_PER_FRAME, seconds, ticks
from avbench.training.backbone import classes_of, to_luma
from avbench.training.common import Say
from avbench.training.pool import WINDOW_FRAMES, Material, render_material
from avbench.training.streaming import StreamRecipe, StreamSync, cached_snapshots
from avbench.types import CATEGORIES, SegmentRecord

PROTOCOL = streaming(iterations=48)
START = ticks(2)  # room for the offsets, before and after
LENGTH = PROTOCOL.window + (PROTOCOL.iterations - 1) * PROTOCOL.hop
SCENE_S = seconds(START + LENGTH + START)
STEP = ticks(0.8)  # the size of change whose median recovery is told
SNAPSHOT = ("logits", "off", "passed")
PLAIN = ("tracked_acc_tol1", "tracking_error_s", "false_changes_per_h")


class ChangingStreams(NamedTuple):
    """Cached snapshots of N streams under laws, W windows each, and the laws. D: width of the token."""

    logits: Tensor  # (N, W, 21)
    off: Tensor  # (N, W, D)
    passed: Tensor  # (N, W, D)
    labels: Tensor  # (N, W): the class of the offset at each window's end
    segments: tuple[SegmentRecord, ...]

    def windows_from(self, rows: np.ndarray, first: int) -> ChangingStreams:
        """The streams ``rows`` (B,), from window ``first`` on."""
        r = torch.from_numpy(rows)
        logits, off, passed, labels = (x[r, first:] for x in (self.logits, self.off, self.passed, self.labels))
        return ChangingStreams(logits, off, passed, labels, tuple(self.segments[row] for row in rows))

    def loss(self, recipe: StreamRecipe, model: StreamSync, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy, on a batch of streams, after several numbers of windows, against the class of the offset
        at the end of each. Half of the batches begin in the middle of their streams, so that a change may lie anywhere
        in what a head remembers, as it does in a stream without end."""
        n, windows = self.labels.shape
        first = int(rng.integers(1, windows // 2)) if rng.random() < 0.5 else 0
        part = self.windows_from(rng.integers(0, n, recipe.batch), first)
        most = min(recipe.windows, windows - first)
        if isinstance(model.head, StreamingLSTM):
            lengths = list(range(1, most + 1))
        else:
            lengths = sorted(rng.choice(np.arange(1, most + 1), min(6, most), replace=False).tolist())
        logits = model.at_lengths(model.tokens(part), lengths)
        target = neighbour_smoothed(part.labels[:, [n - 1 for n in lengths]].flatten())
        return F.cross_entropy(logits.flatten(0, 1), target)

    def scores(self, model: StreamSync) -> dict[str, float]:
        """What :func:`figures` says of a token map and head."""
        model.eval()
        n, windows = self.labels.shape
        logits = []
        with torch.inference_mode():
            for rows in np.array_split(np.arange(n), max(n // 64, 1)):
                tokens = model.tokens(self.windows_from(rows, 0))
                logits.append(model.at_lengths(tokens, list(range(1, windows + 1))))
        model.train()
        return figures(torch.cat(logits).numpy(), self.segments)


def segments_of(base_seed: int, scenes: int, laws: int) -> list[SegmentRecord]:
    """``laws`` streams of each of ``scenes`` scenes, scene by scene; over all of them, each law has its share."""
    names = [f"{base_seed}-{scene:05d}~{k}" for scene in range(scenes) for k in range(laws)]
    chosen = laws_in_turn(list(SHARES), names, base_seed)
    segments = []
    for name in names:
        law = draw_law(chosen[name], name, base_seed, LENGTH)
        offset, scene = int(offsets_at(law, [0])[0]), name.partition("~")[0]
        label = int(classes_of(np.array([seconds(offset)]))[0])
        segments.append(SegmentRecord(name, scene, scene, START, offset, label, law=law))
    return segments


def scene_snapshots(model: MiniBackbone, scene: Material, segments: Sequence[SegmentRecord]) -> dict[str, Tensor]:
    """Snapshots of a scene's streams: logits (L, W, 21), off and passed (L, W, D)."""
    keys = [keys_of(PROTOCOL, segment) for segment in segments]
    found: dict[SnapshotKey, tuple[Tensor, ...]] = {}
    with torch.inference_mode():
        for same_picture in zip(*keys, strict=True):
            first = same_picture[0].picture // TICKS_PER_FRAME
            picture = torch.from_numpy(scene.picture[None, first : first + WINDOW_FRAMES])
            wanted = list(dict.fromkeys(same_picture))
            sound = torch.from_numpy(np.stack([_heard(scene.sound, key) for key in wanted]))
            video = model.video_features(to_luma(picture)).expand(len(wanted), -1, -1)
            outputs = model.fusion(video, model.encode_audio(sound))[:3]
            found.update(zip(wanted, zip(*outputs, strict=True), strict=True))
    columns = zip(*(found[key] for stream in keys for key in stream), strict=True)
    shape = (len(segments), PROTOCOL.iterations)
    return {name: torch.stack(part).unflatten(0, shape) for name, part in zip(SNAPSHOT, columns, strict=True)}


def _heard(sound: np.ndarray, key: SnapshotKey) -> np.ndarray:
    """(80000,) samples."""
    if key.law:
        return gathered(sound, key.sound, key.window, law_of(key.law))
    return sound[key.sound : key.sound + key.window]


def _render_and_encode(base_seed: int, number: int, segments: list[SegmentRecord], model: MiniBackbone) -> dict:
    scene = render_material(number, base_seed=base_seed, categories=CATEGORIES, duration_s=SCENE_S)
    return scene_snapshots(model, scene, segments)


def changing_streams(
    model: MiniBackbone, folder: Path, base_seed: int, scenes: int, laws: int, say: Say
) -> ChangingStreams:
    """``laws`` streams of each of ``scenes`` scenes, stored in ``folder``, one file per scene; only missing ones are
    computed, by one process. ``UsageError`` if the folder contains snapshots of other backbone weights."""
    segments = segments_of(base_seed, scenes, laws)
    jobs = {
        f"{base_seed}-{scenes}x{laws}-{n:05d}": partial(
            _render_and_encode, base_seed, n, segments[n * laws : (n + 1) * laws]
        )
        for n in range(scenes)
    }
    parts = cached_snapshots(model, folder, jobs, say, workers=1)
    logits, off, passed = (torch.cat([part[name] for part in parts]) for name in SNAPSHOT)
    labels = classes_of(truth_of(segments).offset_end_s).view(len(segments), -1)
    return ChangingStreams(logits, off, passed, labels, tuple(segments))


def truth_of(segments: Sequence[SegmentRecord]) -> WindowTruth:
    """What is so in every window."""
    return WindowTruth.of(segments, PROTOCOL)


def figures(logits: np.ndarray, segments: Sequence[SegmentRecord]) -> dict[str, float]:
    """The track's scores of logits (N, W, 21), rounded: ``tracked_acc_tol1``, ``tracking_error_s``, ``recovery_s``,
    ``median_0.8_s`` (the median recovery of changes of 0.8 s), ``false_changes_per_h`` and, of the windows that end
    after the first 40 s, ``late_false_changes_per_h``: as if the stream's beginning were a change."""
    found = checked_streams(logits, truth_of(segments))
    late = found.ends > dynamic.EXPLAINED
    late_hours = len(found) * late.sum() * seconds(found.hop) / 3600
    ranked, of_step = found.ranked, np.abs(found.changes.delta[found.counted]) == STEP
    values = {name: np.divide(*map(np.sum, dynamic.MEANS[name][0](found))) for name in PLAIN} | {
        "recovery_s": _of_recovery(survival.restricted_mean, found, ranked),
        "median_0.8_s": _of_recovery(survival.median, found, found.counted[of_step]),
        "late_false_changes_per_h": dynamic.falsely_declared(found)[:, late].sum() / late_hours,
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def _of_recovery(function: Callable[..., np.ndarray], found: ScoredStreams, rows: np.ndarray) -> float:
    """A figure of the recovery from some of the changes; nan if there are none."""
    times = dynamic.recovery_times(found).take(rows)
    return float(function(times, everything_once(len(times)), dynamic.AVERAGED_S)[0]) if len(rows) else float("nan")
