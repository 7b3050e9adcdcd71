"""Edit lists: pictures and sound are where the list says, to the tick and the sample, also where FFmpeg puts them
elsewhere."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mp4_boxes import set_edits
from stamps import index_of, lag_of, noise, write_media

from avbench.data.boxes import edit_lists, track_clock
from avbench.data.edits import UNEDITED, EditList, edits_to_follow
from avbench.data.media import ClipReader
from avbench.data.probing import probe, read_header
from avbench.types import MediaError

TICKS = 12_800  # a second of the pictures' clock
MOVIE = 1000  # of the lists'
SOUND_HZ = 16_000
SOUND = noise(4 * SOUND_HZ)


def written(path: Path, fps: int = 25, **how: object) -> Path:
    """4 s of stamped pictures, with B-frames that begin late on their own clock, and of noise."""
    times = [Fraction(k, fps) for k in range(4 * fps)]
    base = Fraction(1, TICKS)
    return write_media(path, times=times, rate_hint=fps, time_base=base, sound=SOUND, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("plain") / "c.mp4")


def stored(path: Path) -> tuple[list[int], np.ndarray]:
    """The pictures' own stamps, and all sound, as FFmpeg reads both without lists."""
    with av.open(str(path), options=UNEDITED) as container:
        stamps = sorted(p.pts for p in container.demux(video=0) if p.size)
    with av.open(str(path), options=UNEDITED) as container:
        return stamps, np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


def by_the_list(stamps: list[int], edits: Sequence[tuple[int, int]]) -> list[tuple[Fraction, int]]:
    """(when it is shown in seconds, index) of each picture."""
    shown, at_s = [], Fraction(0)
    ends = [*stamps[1:], 2 * stamps[-1] - stamps[-2]]
    for length, begin in edits:
        length_s = Fraction(length, MOVIE)
        if begin >= 0:
            for index, (low, high) in enumerate(zip(stamps, ends, strict=True)):
                first, last = max(low, begin), min(high, begin + length_s * TICKS if length else high)
                if last - first > TICKS / 2000:
                    shown.append((at_s + Fraction(first - begin) / TICKS, index))
        at_s += length_s
    return shown


def read(path: Path) -> tuple[Fraction, list[tuple[Fraction, int]]]:
    """(time of the first picture, the same as :func:`by_the_list`) as the reader places them."""
    reader, shown = ClipReader(path), []
    for start, _, picture in reader.placed_pictures():
        index = index_of(picture.to_ndarray(format="rgb24")[:, 8:72].transpose(2, 0, 1))
        assert reader.origin_s is not None
        shown.append((reader.origin_s + start * picture.time_base, index))
    assert reader.origin_s is not None
    return reader.origin_s, shown


FRAME = TICKS // 25
FIRST = 2 * FRAME  # B-frames delay the first picture by two on the track's clock
PICTURE_LISTS = {
    "ordinary": [(4000, FIRST)],
    "inside a picture": [(3000, FIRST + 3 * FRAME + 200)],
    "one tick after a picture": [(3000, FIRST + 3 * FRAME + 1)],
    "one tick before a picture": [(3000, FIRST + 3 * FRAME - 1)],
    "delayed, inside a picture": [(500, -1), (3000, FIRST + 3 * FRAME + 200)],
    "from the track's start": [(4000, 0)],
    "between start and first picture": [(4000, FIRST - 300)],
    "without a length": [(0, FIRST + 3 * FRAME + 200)],
    "two stretches": [(1000, FIRST), (1000, FIRST + 60 * FRAME)],
    "two, inside pictures": [(1010, FIRST + 100), (1000, FIRST + 60 * FRAME + 300)],
    "two of odd lengths": [(333, FIRST + 7), (1777, FIRST + 20 * FRAME + 511)],
    "empty in the middle": [(1000, FIRST), (700, -1), (1000, FIRST + 40 * FRAME + 100)],
    "many short ones": [(90, FIRST + k * 5 * FRAME + 37 * k) for k in range(18)],
}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("edits", PICTURE_LISTS.values(), ids=PICTURE_LISTS)
def test_pictures_are_where_the_list_says(
    plain: Path, tmp_path: Path, edits: list[tuple[int, int]], version: int
) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(plain.read_bytes())
    set_edits(path, "video", edits, version)
    expected = by_the_list(stored(path)[0], edits)
    origin_s, shown = read(path)
    assert [index for _, index in shown] == [index for _, index in expected]
    off = [abs(a - b) for (a, _), (b, _) in zip(shown, expected, strict=True)]
    assert max(off) <= (Fraction(1, TICKS) if edits == PICTURE_LISTS["one tick before a picture"] else 0)
    # the sound keeps its own list, and so its distance to the pictures
    assert lag_of(ClipReader(path).audio(), SOUND) == round(-origin_s * SOUND_HZ)


@pytest.mark.parametrize(
    ("fps", "codec", "bf"), [(10, "libx264", 3), (50, "libx264", 2), (15, "mpeg4", 0), (25, "libx265", 2)]
)
def test_a_cut_inside_a_picture_at_other_rates_and_of_other_codecs(
    tmp_path: Path, fps: int, codec: str, bf: int
) -> None:
    """What ``ffmpeg -ss T -c copy`` writes: both lists begin at T."""
    path = written(tmp_path / "c.mov", fps=fps, codec=codec, bf=bf, container="mov")
    stamps, sound = stored(path)
    cut_s = Fraction(1301, 1000)
    picture, heard = [(2500, stamps[0] + round(cut_s * TICKS))], [(2500, 1024 + round(cut_s * SOUND_HZ))]
    set_edits(path, "video", picture)
    set_edits(path, "audio", heard)
    origin_s, shown = read(path)
    assert origin_s == 0
    assert shown == by_the_list(stamps, picture)
    assert np.array_equal(ClipReader(path).audio()[:32_000], sound[heard[0][1] :][:32_000])


@pytest.mark.parametrize("negative", [False, True], ids=["offsets from 0", "negative offsets"])
def test_fragments(tmp_path: Path, negative: bool) -> None:
    """FFmpeg shows pictures too late in fragments with negative offsets, and those before a list's start in all."""
    options = {"movflags": "frag_keyframe+delay_moov" + ("+negative_cts_offsets" if negative else "")}
    path = written(tmp_path / "c.mp4", options=options)
    assert edit_lists(path)["fragmented"]
    origin_s, shown = read(path)
    assert origin_s == 0
    assert shown == [(Fraction(k, 25), k) for k in range(100)]
    assert lag_of(ClipReader(path).audio(), SOUND) == 0


def test_fragments_that_begin_before_their_lists(tmp_path: Path) -> None:
    """``ffmpeg -ss T -c copy -movflags frag_keyframe+delay_moov``: the lengths it declares contain what is left out."""
    path = written(tmp_path / "c.mp4", options={"movflags": "frag_keyframe+delay_moov"})
    data, at = bytearray(path.read_bytes()), 0
    cut_s = Fraction(1301, 1000)
    for rate, first in ((TICKS, FIRST), (SOUND_HZ, 1024)):
        at = data.index(b"elst", at) + 4
        assert data[at : at + 8] == bytes([0, 0, 0, 0, 0, 0, 0, 1])  # version 0, one stretch
        assert struct.unpack_from(">i", data, at + 12) == (first,)
        struct.pack_into(">i", data, at + 12, first + round(cut_s * rate))
    path.write_bytes(data)
    origin_s, shown = read(path)
    assert origin_s == 0
    assert shown == by_the_list([FIRST + k * FRAME for k in range(100)], [(0, FIRST + round(cut_s * TICKS))])
    assert lag_of(ClipReader(path).audio(), SOUND[round(cut_s * SOUND_HZ) :]) == 0
    info, header = probe(path), read_header(path)
    assert info.n_frames == 67
    assert header.duration_s == pytest.approx(info.duration_s, abs=0.1)


def test_fragments_with_negative_offsets_and_no_list(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov+negative_cts_offsets"}
    path = written(tmp_path / "c.mp4", options=options)
    clock = track_clock(path, 1)
    assert clock is not None
    assert clock.edits == []
    assert clock.earliest < 0
    assert read(path) == (0, [(Fraction(k, 25), k) for k in range(100)])


SOUND_LISTS = {
    "two stretches": [(1000, 1024), (2000, 1024 + 20_000 + 300)],
    "delayed": [(300, -1), (3000, 1024 + 77)],
    "three": [(500, 1024), (1003, 1024 + 16_000 + 7), (997, 1024 + 40_000 + 11)],
    "without a length": [(0, 1024 + 500)],
    "empty for 10 ms": [(1000, 1024), (10, -1), (2000, 1024 + 20_300)],
}


@pytest.mark.parametrize("edits", SOUND_LISTS.values(), ids=SOUND_LISTS)
def test_sound_is_where_the_list_says(plain: Path, tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(plain.read_bytes())
    set_edits(path, "audio", edits)
    sound = stored(path)[1]
    parts = []
    for length, begin in edits:
        n = length * SOUND_HZ // MOVIE or len(sound)
        parts.append(sound[begin : begin + n] if begin >= 0 else np.zeros(n, np.float32))
    expected, heard = np.concatenate(parts), ClipReader(path).audio()
    n = min(len(expected), len(heard))
    assert abs(len(expected) - len(heard)) < 2048  # FFmpeg may keep the end of the last packet
    assert np.array_equal(heard[:n], expected[:n])


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize(
    ("edits", "speed", "words"),
    [
        ([(1000, 30_000), (1000, FIRST)], 1, "plays parts twice or out of order"),
        ([(1000, FIRST), (1000, FIRST)], 1, "plays parts twice or out of order"),
        ([(1000, FIRST), (1000, 30_000)], 2, "plays a part at 2 times its speed"),
    ],
)
def test_lists_that_cannot_be_followed_are_refused(
    plain: Path, tmp_path: Path, kind: str, edits: list[tuple[int, int]], speed: int, words: str
) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(plain.read_bytes())
    set_edits(path, kind, edits, speed=speed)
    word = "picture" if kind == "video" else "sound"
    with pytest.raises(MediaError, match=f"the edit list of the {word} {words}"):
        probe(path)


def test_an_ordinary_file_is_left_to_ffmpeg(plain: Path, tmp_path: Path) -> None:
    assert edits_to_follow(plain, 1, "video", "c") is None
    assert edits_to_follow(plain, 2, "audio", "c") is None
    unlisted = tmp_path / "c.mp4"
    unlisted.write_bytes(plain.read_bytes())
    set_edits(unlisted, "video", None)
    assert edits_to_follow(unlisted, 1, "video", "c") is None
    assert edits_to_follow(unlisted, 99, "video", "c") is None


def test_a_cut_does_not_change_the_picture_rate(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(plain.read_bytes())
    set_edits(path, "video", [(3000, FIRST + 3 * FRAME + 200)])
    info = probe(path)
    assert info.fps == 25
    assert not any("varying" in w for w in info.warnings)


@settings(max_examples=100)
@given(data=st.data())
def test_pieces_cover_what_the_stretches_cover(data: st.DataObject) -> None:
    """Of any forward list: the pieces of successive frames are the stretches, without a hole and in order."""
    edges = sorted(data.draw(st.sets(st.integers(0, 3000), min_size=2, max_size=8)))
    stretches, played = [], data.draw(st.integers(0, 50))
    for low, high in zip(edges[::2], edges[1::2], strict=False):
        stretches.append((low, high, played))
        played += high - low
    edits = EditList(Fraction(1, 16_000), 1, 0, tuple(stretches))
    size = data.draw(st.integers(1, 400))
    heard: dict[int, int] = {}
    for start in range(0, 3200, size):
        for first, last, at_s in edits.sound(start, size, 16_000):
            for k in range(first, last):
                place = int(at_s * 16_000) + k - first
                assert place not in heard
                heard[place] = start + k
    assert heard == {at + k: low + k for low, high, at in stretches for k in range(high - low)}


@pytest.mark.parametrize(("kind", "begin"), [("video", FIRST + 30 * FRAME), ("audio", 2 * SOUND_HZ)])
def test_a_list_that_asks_for_more_than_there_is_makes_no_truncated_file(
    plain: Path, tmp_path: Path, kind: str, begin: int
) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(plain.read_bytes())
    set_edits(path, kind, [(4000, begin)])
    info = probe(path)
    assert info.n_frames == (70 if kind == "video" else 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(MediaError, match=r"truncated|its index is missing"):
        probe(path)
