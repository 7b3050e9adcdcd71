"""Files without labels: which windows they get, what short ones are padded with, where their sound waits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import itertools

from offsetclips import click_clip

from avbench.data.media import MEASURED, ClipReader, media_sha256
from avbench.data.probing import probe
from avbench.data.unlabelled import UNHEARD, WINDOW, WholeFile, padded, window_starts
from avbench.ticks import TICKS_PER_FRAME, ticks
from avbench.types import ClipRecord, FrontEnd, MediaError


def record(path: Path) -> ClipRecord:
    info = probe(path)
    sha256 = media_sha256(path)
    return ClipRecord("c", "c", path.name, sha256, info.n_frames, info.n_samples, reading=info.reading)


@given(st.integers(1, 20_000_000), st.integers(1, 400))
def test_windows_cover_a_clip_to_within_a_second_of_its_end(duration: int, hop_frames: int) -> None:
    hop = hop_frames * TICKS_PER_FRAME
    starts = window_starts(duration, hop)
    assert starts[0] == 0
    assert all(start % TICKS_PER_FRAME == 0 for start in starts)
    assert all(0 < b - a <= hop for a, b in itertools.pairwise(starts))
    assert starts[-1] + WINDOW <= max(duration, WINDOW)
    assert duration - (starts[-1] + WINDOW) <= UNHEARD
    assert starts[:-1] == [k * hop for k in range(len(starts) - 1)]


def test_no_window_is_added_for_less_than_a_second() -> None:
    assert window_starts(ticks(10), ticks(2)) == [0, ticks(2), ticks(4)]
    assert window_starts(ticks(10.04), ticks(2)) == [0, ticks(2), ticks(4), ticks(5.04)]
    assert window_starts(ticks(1), ticks(2)) == [0]


def test_a_short_file_is_padded_with_its_last_picture_and_silence(tmp_path: Path) -> None:
    path = click_clip(tmp_path / "short.mp4", 2)
    clip = padded(record(path))
    assert (clip.n_frames, clip.n_samples) == (125, 80_000)
    reader = WholeFile(path, clip, tmp_path)
    plain = ClipReader(path)
    sound, heard = reader.audio(), plain.audio()
    assert sound.shape == (80_000,)
    np.testing.assert_array_equal(sound[: len(heard)], heard)
    assert not sound[len(heard) :].any()
    frames = [arrays[0] for arrays in reader.frames(FrontEnd(size=32))]
    shown = [arrays[0] for arrays in plain.frames(FrontEnd(size=32))]
    assert len(frames) == 125
    np.testing.assert_array_equal(frames[: len(shown)], shown)
    assert all(frame is frames[len(shown) - 1] for frame in frames[len(shown) :])


def test_a_long_file_is_read_as_it_is_and_its_sound_is_on_the_disk(tmp_path: Path) -> None:
    path = click_clip(tmp_path / "long.mp4", 8)
    clip = record(path)
    assert padded(clip) == clip
    reader = WholeFile(path, clip, tmp_path)
    sound = reader.audio()
    assert not sound.flags.owndata
    np.testing.assert_array_equal(sound, ClipReader(path).audio()[: clip.n_samples])
    assert sum(1 for _ in reader.frames(FrontEnd(size=8))) == clip.n_frames
    assert reader.gaps() == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mp4"]  # nothing to be cleaned up


def test_a_file_longer_than_clips_may_be_is_measured_where_that_is_wanted(tmp_path: Path) -> None:
    path = click_clip(tmp_path / "c.mp4", 8)
    with pytest.raises(MediaError, match="lasts 0 min, clips of 0 min at most are read"):
        probe(path, longest_s=7)
    assert probe(path, reading=replace(MEASURED), longest_s=9).n_frames == 200
