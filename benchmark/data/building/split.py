"""Divide whole videos into train, valid and test: balanced over channels, seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from avbench.types import UsageError

NAMES = ("train", "valid", "test")


def parse_shares(text: str) -> tuple[float, float, float]:
    """``"90/5/5"`` -> shares of train, valid and test that sum to 1; ``UsageError`` for any other text."""
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or not all(0 <= part <= 1000 for part in parts) or not sum(parts) > 0:
        raise UsageError(f"split {text!r} must be three shares train/valid/test, like 90/5/5 or 0/0/100")
    total = sum(parts)
    return parts[0] / total, parts[1] / total, parts[2] / total


def split_videos(
    durations_s: Mapping[str, float], channels: Mapping[str, str], shares: Sequence[float], seed: int
) -> dict[str, str]:
    """Video id -> split. ``durations_s`` and ``channels`` are per video id.

    Channel by channel, the videos are put in a seeded random order and assigned so that the hours of every split come
    as close to its share as whole videos allow. Hours are counted over this channel and the ones before it: what one
    channel cannot give (5 % of three videos) the next ones do. A split with a share above 0 gets at least one video if
    there are enough; train comes last.
    """
    split: dict[str, str] = {}
    given, target = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0.0)
    order = sorted({channels[video] for video in durations_s}, key=lambda channel: _lot("channel", channel, seed))
    for channel in order:
        videos = [video for video in durations_s if channels[video] == channel]
        videos.sort(key=lambda video: _lot("video", video, seed))
        hours = sum(durations_s[video] for video in videos)
        for name, share in zip(NAMES, shares, strict=True):
            target[name] += share * hours
        for name in ("test", "valid"):
            while videos:
                length = durations_s[videos[0]]
                lacking = target[name] - given[name]
                if lacking < length / 2:  # closer to the share without it
                    break
                split[videos.pop(0)] = name
                given[name] += length
        for video in videos:
            split[video] = "train" if shares[0] > 0 else "test" if shares[2] > 0 else "valid"
            given[split[video]] += durations_s[video]
    _fill_empty(split, shares, seed)
    return split


def _fill_empty(split: dict[str, str], shares: Sequence[float], seed: int) -> None:
    """Move one video from the largest split to each empty split that has a share."""
    for name, share in (("test", shares[2]), ("valid", shares[1]), ("train", shares[0])):
        if share <= 0 or name in split.values():
            continue
        counts = {other: sum(value == other for value in split.values()) for other in NAMES}
        richest = max(NAMES, key=lambda other: counts[other])
        if counts[richest] > 1:
            video = min((v for v in split if split[v] == richest), key=lambda v: _lot("video", v, seed))
            split[video] = name


def _lot(kind: str, name: str, seed: int) -> bytes:
    """A sort key that gives a random order; it depends on the name and the seed only."""
    return hashlib.sha256(f"avbench split {seed} {kind} {name}".encode()).digest()
