"""Splits: every video is in one of them, hours come near the shares, channels are balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.data.building.split import NAMES, parse_shares, split_videos
from avbench.types import UsageError

VIDEOS = st.dictionaries(
    st.text("abcdef0123", min_size=1, max_size=6),
    st.tuples(st.floats(60, 9000), st.sampled_from(["ABC", "CBS", "CNN", "MLB"])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80)
@given(videos=VIDEOS, seed=st.integers(0, 5))
def test_every_video_is_in_one_split_and_hours_come_near_the_shares(
    videos: dict[str, tuple[float, str]], seed: int
) -> None:
    hours = {name: length for name, (length, _) in videos.items()}
    channels = {name: channel for name, (_, channel) in videos.items()}
    shares = parse_shares("90/5/5")
    split = split_videos(hours, channels, shares, seed)
    assert set(split) == set(videos)
    again = dict(reversed(hours.items()))
    assert split_videos(again, channels, shares, seed) == split
    total, longest = sum(hours.values()), max(hours.values())
    for name, share in zip(NAMES, shares, strict=True):
        given_s = sum(length for video, length in hours.items() if split[video] == name)
        assert abs(given_s - share * total) <= 2 * longest + 1e-6
    if len(videos) >= 3:
        assert set(split.values()) == set(NAMES)


def test_channels_are_balanced_and_the_seed_matters() -> None:
    rng = np.random.default_rng(0)
    hours = {f"{c}{n:03d}": float(rng.uniform(1200, 9000)) for c in "ABC" for n in range(200)}
    channels = {name: name[0] for name in hours}
    split = split_videos(hours, channels, parse_shares("90/5/5"), 0)
    for channel in "ABC":
        total = sum(length for name, length in hours.items() if channels[name] == channel)
        for name in ("valid", "test"):
            part = sum(hours[v] for v in hours if channels[v] == channel and split[v] == name)
            assert part / total == pytest.approx(0.05, abs=0.01)
    assert split != split_videos(hours, channels, parse_shares("90/5/5"), 1)
    assert set(split_videos(hours, channels, parse_shares("0/0/1"), 0).values()) == {"test"}
    assert set(split_videos(hours, channels, parse_shares("0/50/50"), 0).values()) == {"test", "valid"}


def test_shares_are_three_numbers() -> None:
    assert parse_shares("90/5/5") == pytest.approx((0.9, 0.05, 0.05))
    for text in ("", "1/2", "a/b/c", "0/0/0", "-1/1/1", "nan/1/1", "1/1/1/1"):
        with pytest.raises(UsageError, match="three shares"):
            parse_shares(text)
