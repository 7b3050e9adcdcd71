"""The two small clips of a stream: which part, how large, and that their sound is shifted as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avbench.data.apart import MediaFile
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.excerpt import LENGTH_S, SIDE_PX, Excerpt, cut_excerpt
from avbench.data.media import ClipReader, media_sha256
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, ticks
from avbench.types import ClipRecord, FrontEnd, Law, MediaError, Piece

CLIP_S = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipRecord]:
    path = tmp_path_factory.mktemp("clip") / "c.mp4"
    encode_clip(path, *click_and_flash(CLIP_S))
    return path, ClipRecord("c", "c", "c.mp4", media_sha256(path), CLIP_S * FRAME_RATE_HZ, CLIP_S * SAMPLE_RATE_HZ)


def fixed(offset_s: float) -> Law:
    return Law("", (Piece(0, ticks(offset_s)),))


def asked(
    clip: ClipRecord, folder: Path, shifted: Law, believed: Law, start_s: float = 2, length_s: int = 13
) -> Excerpt:
    return Excerpt(clip, ticks(start_s), ticks(length_s), shifted, believed, folder / "s.mp4", folder / "c.mp4")


def lag_s(path: Path) -> list[float]:
    """By how much each flash is later than the click next to it, in seconds: positive where the sound is early."""
    with ClipReader(path) as reader:
        sound = reader.audio()
        bright = np.array([frame[0].mean() for frame in reader.frames(FrontEnd(size=64))])
    flashes = np.flatnonzero((bright[1:] > 128) & (bright[:-1] < 128)) + 1
    loud = np.abs(sound) > 0.15
    clicks = [k for k in np.flatnonzero(loud) if not loud[max(k - 2000, 0) : k].any()]
    times = np.array(clicks) / SAMPLE_RATE_HZ
    return [float(t - times[np.argmin(np.abs(times - t))]) for t in flashes / FRAME_RATE_HZ]


@pytest.mark.parametrize(("offset_s", "believed_s"), [(0.12, 0.12), (-0.08, 0.04)])
def test_the_sound_is_shifted_as_seen_and_back_as_believed(
    offset_s: float, believed_s: float, clip: tuple[Path, ClipRecord], tmp_path: Path
) -> None:
    wanted = asked(clip[1], tmp_path, fixed(offset_s), fixed(believed_s))
    begin_s = cut_excerpt(MediaFile("c", clip[0], wanted))
    assert 0 <= begin_s <= 13 - LENGTH_S
    for path, left_s in ((wanted.seen, offset_s), (wanted.corrected, offset_s - believed_s)):
        with ClipReader(path) as reader:
            assert len(reader.audio()) == LENGTH_S * SAMPLE_RATE_HZ
        assert np.median(lag_s(path)) == pytest.approx(left_s, abs=0.01)


def test_the_first_change_is_in_the_middle(clip: tuple[Path, ClipRecord], tmp_path: Path) -> None:
    change = Law("jump", (Piece(0, ticks(0.1)), Piece(ticks(8), ticks(-0.1))))
    wanted = asked(clip[1], tmp_path, change, fixed(0.1))
    assert cut_excerpt(MediaFile("c", clip[0], wanted)) == 8 - LENGTH_S / 2
    lags = lag_s(wanted.seen)
    assert (lags[0], lags[-1]) == (pytest.approx(0.1, abs=0.01), pytest.approx(-0.1, abs=0.01))


def test_the_loudest_stretch_is_shown_and_sound_beyond_the_clip_is_silence(tmp_path: Path) -> None:
    frames, _ = click_and_flash(CLIP_S)
    sound = np.zeros(CLIP_S * SAMPLE_RATE_HZ, np.float32)
    sound[11 * SAMPLE_RATE_HZ :] = 0.3 * np.sin(np.arange(9 * SAMPLE_RATE_HZ) / 5)
    encode_clip(tmp_path / "x.mp4", frames, sound)
    record = ClipRecord("x", "x", "x.mp4", "0" * 64, len(frames), len(sound))
    wanted = asked(record, tmp_path, fixed(0), fixed(-1.5), start_s=1, length_s=19)
    assert cut_excerpt(MediaFile("x", tmp_path / "x.mp4", wanted)) == 10.0
    with ClipReader(wanted.corrected) as reader:
        heard = reader.audio()
    assert np.abs(heard[-SAMPLE_RATE_HZ * 2 // 5 :]).max() < 0.01, "there is none after the clip's end"
    assert np.abs(heard[: 6 * SAMPLE_RATE_HZ]).max() > 0.2


def test_pictures_are_made_small_and_stay_upright(tmp_path: Path) -> None:
    frames = np.zeros((2 * FRAME_RATE_HZ, 480, 270, 3), np.uint8)
    frames[:, :240] = 255
    encode_clip(tmp_path / "tall.mp4", frames, np.zeros(2 * SAMPLE_RATE_HZ, np.float32))
    record = ClipRecord("t", "t", "tall.mp4", "0" * 64, len(frames), 2 * SAMPLE_RATE_HZ)
    wanted = asked(record, tmp_path, fixed(0), fixed(0), start_s=0, length_s=2)
    assert cut_excerpt(MediaFile("t", tmp_path / "tall.mp4", wanted)) == 0
    with ClipReader(wanted.seen) as reader:
        picture = next(reader.pictures())
        assert (picture.height, picture.width) == (SIDE_PX, 180)
        grey = picture.to_ndarray(format="gray")
    assert grey[:100].min() > 200
    assert grey[-100:].max() < 50


def test_a_clip_that_ends_too_early_is_a_media_error(clip: tuple[Path, ClipRecord], tmp_path: Path) -> None:
    wanted = asked(clip[1], tmp_path, fixed(0), fixed(0), start_s=15, length_s=13)
    with pytest.raises(MediaError, match="the picture ends before 2"):
        cut_excerpt(MediaFile("c", clip[0], wanted))
    assert not wanted.seen.exists()
