"""DeSync: how far out of sync Synchformer hears a file to be, without labels. Two published variants, and the offset.

Both variants cut the whole file into segments of 16 pictures and 10,240 samples that begin every 8 pictures (0.32 s),
put 14 of them together, and take |offset| of the most probable of the 21 classes. They differ in which 14:

``first_last`` (hkchengrex/av-benchmark): the first 14 and the last 14, which may overlap or be the same; a file of
fewer than 14 segments has no value. ``consecutive`` (JavisVerse/JavisDiT): one group after the other; what is left at
the end makes a last group of the file's last 14 segments, and a file of fewer than 14 repeats its segments in a circle.

A file's value is the mean over its groups, a folder's the mean over files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from avbench.scoring.calibration import believed_offsets_s, centres_s
from avbench.scoring.metrics import checked_logits, softmax
from avbench.ticks import FRAME_RATE_HZ

GROUP = 14  # segments that are judged together
SEGMENT_FRAMES, STEP_FRAMES = 16, 8
SEGMENT_SAMPLES, STEP_SAMPLES = 10_240, 5_120
OFFSET_STEP = 6  # segments between the groups of ``offset_s``: 1.92 s

LogitsAt = Mapping[int, np.ndarray]  # first segment of a group -> (21,) logits


def members(start: int, n: int) -> tuple[int, ...]:
    """The 14 segments of the group that begins at ``start`` in a file of ``n`` segments, in a circle if it has fewer
    than 14."""
    return tuple((start + i) % n if n < GROUP else start + i for i in range(GROUP))


def first_last(n: int) -> tuple[int, ...]:
    """The first segments of the two groups of a file of ``n`` segments; none if it is too short."""
    return (0, n - GROUP) if n >= GROUP else ()


def consecutive(n: int) -> tuple[int, ...]:
    """The first segments of the groups of a file of ``n`` segments; none without a segment."""
    if n <= GROUP:
        return (0,) if n else ()
    return (*range(0, n - GROUP, GROUP), n - GROUP)


def every_two_seconds(n: int) -> tuple[int, ...]:
    """The first segments of windows of 14 every 1.92 s; none if the file is too short for one."""
    return tuple(range(0, n - GROUP + 1, OFFSET_STEP))


def is_start(segment: int) -> bool:
    """Whether a group may begin at this segment, however long the file is; the last 14 are a group besides."""
    return segment % GROUP == 0 or segment % OFFSET_STEP == 0


def too_short(n: int, variant: str = "") -> str:
    """Why a file of ``n`` segments has no value, in words; "" if it has one. ``variant``: "consecutive" pads."""
    least = 1 if variant == "consecutive" else GROUP
    if n >= least:
        return ""
    needed_s = ((least - 1) * STEP_FRAMES + SEGMENT_FRAMES) / FRAME_RATE_HZ
    return f"too short: it has {n} segments of 0.64 s, needed are {least} ({needed_s:g} s of picture and sound)"


def desync_s(logits: LogitsAt, starts: Sequence[int]) -> float:
    """Mean |offset| in seconds of the most probable class (the lowest wins a tie) over the groups that begin at
    ``starts``. ``NonFiniteError`` for logits that are not finite."""
    rows = checked_logits(np.stack([logits[start] for start in starts]))
    return float(np.abs(centres_s()[rows.argmax(axis=-1)]).mean())


def offset_s(logits: LogitsAt, n: int) -> float:
    """The believed offset in seconds of a file of ``n`` segments (14 or more): class probabilities averaged over its
    windows, then the mean offset of the most probable class and its two neighbours. Positive: the sound is early.
    """
    rows = checked_logits(np.stack([logits[start] for start in every_two_seconds(n)]))
    return float(believed_offsets_s(softmax(rows).mean(axis=0)))
