"""Picture streams with holes, damage, strange stamps or none: what is shown when, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from stamps import RAW, index_of, indices, lag_of, noise, write_media

from avbench.data.media import ClipReader
from avbench.data.pictures import PictureStream
from avbench.data.probing import probe
from avbench.ticks import ticks
from avbench.types import ClipRecord, Gap, MediaError, Reading

SOUND = noise(64_000)
FOUR_S = [Fraction(k, 25) for k in range(100)]


def placed(path: Path, **how: Any) -> list[tuple[Fraction, int]]:
    """(start in seconds, index) of every picture."""
    reader = ClipReader(path, **how)
    found = []
    for start, _, picture in reader.placed_pictures():
        found.append(
            (start * picture.time_base, index_of(picture.to_ndarray(format="rgb24")[:, 8:72].transpose(2, 0, 1)))
        )
    return found


def gaps(path: Path, **how: Any) -> list[tuple[float, float]]:
    reader = ClipReader(path, **how)
    for _ in reader.placed_pictures():
        pass
    return [(round(float(a), 3), round(float(b), 3)) for a, b in reader.picture_gaps]


def damage(path: Path, number: int) -> None:
    """Overwrite the ``number``-th picture packet, in decoding order."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
        at, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    start = data.find(bytes(packet), at, at + size + 64)
    assert start >= 0
    data[start + 6 : start + size] = bytes(size - 6)
    path.write_bytes(data)


def with_hole(path: Path, container: str, **how: Any) -> Path:
    """Pictures 0 to 24, none for 2 s, pictures 25 to 49."""
    times = [Fraction(k, 25) for k in range(25)] + [3 + Fraction(k, 25) for k in range(25)]
    return write_media(path, container=container, times=times, sound=SOUND, **how)


# ------------------------------------------------------------------------------------------------------ holes and holds


@pytest.mark.parametrize("bf", [0, 2])
def test_a_hole_is_a_gap_where_the_stream_does_not_ask_for_it(tmp_path: Path, bf: int) -> None:
    for container, suffix in (("matroska", "mkv"), ("mpegts", "ts")):
        path = with_hole(tmp_path / f"c.{suffix}", container, bf=bf)
        assert gaps(path) == [(1.0, 3.0)]
        shown = indices(ClipReader(path))
        assert shown == [*range(25), *[24] * 50, *range(25, 50)]
        assert lag_of(ClipReader(path).audio(), SOUND) == 0
        assert "the picture is missing or damaged for 2.00 s at 1.00 s" in probe(path).warnings


@pytest.mark.parametrize("bf", [0, 2])
def test_a_picture_that_the_stream_holds_for_long_is_no_gap(tmp_path: Path, bf: int) -> None:
    path = with_hole(tmp_path / "c.mp4", "mp4", bf=bf)
    assert gaps(path) == []
    assert indices(ClipReader(path)) == [*range(25), *[24] * 50, *range(25, 50)]
    assert "the picture stands still for 2.04 s at 0.96 s" in probe(path).warnings


def test_the_length_of_a_gap_is_a_parameter(tmp_path: Path) -> None:
    path = with_hole(tmp_path / "c.mkv", "matroska")
    assert gaps(path, reading=Reading(picture_gap=ticks(2.5))) == []
    assert starts(streamed([packet(500 * k) for k in range(4)])) == [0, 500, 1000, 1500]
    for gap_s, expected in ((0.6, []), (0.4, [(40, 500), (540, 1000), (1040, 1500)])):
        stream = streamed([packet(500 * k) for k in range(4)], gap_s=gap_s)
        starts(stream)
        assert in_ms(stream.facts.gaps) == expected


def test_a_last_picture_that_stands_for_long_is_shown_to_its_end(tmp_path: Path) -> None:
    """A frozen end: the packet says how long, and the container agrees."""
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for k in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * k, np.uint8), "rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            for packet in stream.encode(picture):
                packet.duration = 75 if k == 24 else 1
                out.mux(packet)
    reader = ClipReader(path)
    assert len(list(reader.pictures())) == 24 + 75


def test_a_reader_tells_of_a_gap_before_it_gives_the_picture_after_it(tmp_path: Path) -> None:
    path = with_hole(tmp_path / "c.mkv", "matroska")
    for reading in (Reading(), Reading(gaps=(Gap("picture", 16_000, 48_000),))):
        reader = ClipReader(path, ClipRecord("c1", "v", path.name, "", 100, 64_000, reading=reading))
        known = [bool(reader.gaps()) for _ in reader.frames(RAW)]
        assert known[:24] == [False] * 24
        assert all(known[25:])
        assert reader.gaps() == (Gap("picture", 16_000, 48_000),)
    assert probe(path).reading.gaps == reader.gaps()


# --------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(("codec", "pixels"), [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")])
def test_one_picture_that_cannot_be_decoded_is_a_gap(tmp_path: Path, codec: str, pixels: str) -> None:
    path = write_media(
        tmp_path / "c.mkv",
        container="matroska",
        codec=codec,
        pixels=pixels,
        times=FOUR_S,
        sound=SOUND,
        time_base=Fraction(1, 25),
    )
    damage(path, 50)
    found, holes = placed(path), gaps(path)
    assert len(found) >= 98
    assert holes
    assert 2.0 in {round(start, 2) for start, _ in holes}
    assert all(end - start <= 0.081 for start, end in holes)
    assert [index for _, index in found[:50]] == list(range(50))
    assert found[-1] == (Fraction(99, 25), 99)
    assert lag_of(ClipReader(path).audio(), SOUND) == 0
    assert any("missing or damaged for 0.0" in w for w in probe(path).warnings)


def test_pictures_that_the_decoder_calls_corrupt_are_not_shown() -> None:
    packets = steady(100)
    for k in (40, 41, 60):
        packets[k].pictures[0].is_corrupt = True
    stream = streamed(packets)
    starts = [start for start, _, _ in stream]
    assert starts == [40 * k for k in range(100) if k not in (40, 41, 60)]
    assert in_ms(stream.facts.gaps) == [(1600, 1680), (2400, 2440)]
    assert stream.facts.damaged == 3


def test_a_stream_that_is_mostly_broken_is_refused(tmp_path: Path) -> None:
    times = FOUR_S[:30]
    path = write_media(
        tmp_path / "c.mkv",
        container="matroska",
        codec="mjpeg",
        pixels="yuvj420p",
        times=times,
        sound=SOUND,
        time_base=Fraction(1, 25),
    )
    for number in range(5, 15):
        damage(path, number)
    with pytest.raises(MediaError, match=r"10 of 30 pictures are damaged or out of order"):
        probe(path)
    for number in range(30):
        damage(path, number)
    with pytest.raises(MediaError, match="no picture can be decoded"):
        probe(path)


# --------------------------------------------------------------------------------------------------------------- stamps


class Packet(SimpleNamespace):
    """Stands in for a packet of a demuxer: decodes to what it was given."""

    def decode(self) -> Iterable[Any]:
        if self.failure:
            raise av.error.InvalidDataError(1, "broken")
        return self.pictures


def packet(pts: int | None, dts: int | None = None, shows: int | str | None = "same", **changes: Any) -> Packet:
    stamp = pts if shows == "same" else shows
    picture = SimpleNamespace(pts=stamp, duration=40, is_corrupt=False, time_base=Fraction(1, 1000))
    fields: dict[str, Any] = {
        "pts": pts,
        "dts": dts,
        "size": 9,
        "duration": 40,
        "failure": False,
        "pictures": [picture],
    }
    return Packet(**{**fields, **changes})


def steady(n: int) -> list[Packet]:
    return [packet(40 * k, 40 * k) for k in range(n)]


def streamed(packets: list[Packet], name: str = "matroska,webm", **how: Any) -> PictureStream:
    container = SimpleNamespace(format=SimpleNamespace(name=name), demux=lambda stream: packets)
    stream = SimpleNamespace(time_base=Fraction(1, 1000), guessed_rate=25, duration=None, start_time=None)
    return PictureStream(container, stream, lambda reason: MediaError("c1", reason), **how)


def in_ms(stretches: list[tuple[Fraction, Fraction]]) -> list[tuple[int, int]]:
    return [(round(1000 * a), round(1000 * b)) for a, b in stretches]


def starts(stream: PictureStream) -> list[int]:
    return [start for start, _, _ in stream]


def test_of_two_pictures_with_one_stamp_the_later_one_is_shown() -> None:
    packets = [packet(t) for t in (0, 40, 80, 80, 160, 200)]
    wins = packets[3].pictures[0]
    stream = streamed(packets)
    assert [(start, length) for start, length, _ in stream] == [(0, 40), (40, 40), (80, 80), (160, 40), (200, 40)]
    assert [picture for start, _, picture in streamed(packets) if start == 80] == [wins]
    assert stream.facts.same_stamp == 1


def test_a_missing_stamp_is_found_by_the_rate() -> None:
    packets = [packet(None if k in (7, 8, 20) else 1000 + 40 * k) for k in range(40)]
    stream = streamed(packets)
    assert starts(stream) == [40 * k for k in range(40)]
    assert stream.facts.unstamped == 3
    assert stream.facts.gaps == []


def test_pictures_before_the_first_stamp_are_left_out() -> None:
    stream = streamed([packet(None if k < 3 else 40 * k) for k in range(40)])
    assert starts(stream) == [40 * k for k in range(37)]
    assert stream.origin_s == Fraction(120, 1000)


def test_a_stream_without_stamps_is_refused() -> None:
    for n in (20, 300):
        with pytest.raises(MediaError, match="the picture has no time stamps"):
            starts(streamed([packet(None) for _ in range(n)]))


def test_a_picture_stamped_too_early_is_left_out() -> None:
    packets = steady(40)
    packets[20].pictures[0].pts = 700
    stream = streamed(packets)
    assert starts(stream) == [40 * k for k in range(40) if k != 20]
    assert stream.facts.late == 1


def test_recordings_joined_with_an_overlap_have_a_gap_there() -> None:
    second = [packet(1600 - 400 + 40 * k) for k in range(60)]
    stream = streamed(steady(40) + second)
    assert starts(stream) == [*(40 * k for k in range(40)), *range(1600, 1200 + 60 * 40, 40)]
    assert in_ms(stream.facts.gaps) == [(1200, 1560)]


@pytest.mark.parametrize(
    ("by", "words"), [(-1300, "jumps back by 1.26 s at 1.56 s"), (700_000, "jumps ahead by 700.04 s")]
)
def test_another_clock_is_refused(by: int, words: str) -> None:
    second = [packet(1600 + by + 40 * k) for k in range(60)]
    with pytest.raises(MediaError, match=f"the clock of the picture {words}"):
        starts(streamed(steady(40) + second))


def test_stamps_in_decoding_order_only_are_refused_where_nothing_better_is_known() -> None:
    order = [k + {0: 0, 1: 2, 2: 0, 3: -2}[k % 4] for k in range(80)]
    with pytest.raises(MediaError, match="pictures are damaged or out of order"):
        starts(streamed([packet(40 * k) for k in order]))


def test_a_clock_that_wraps_goes_on(tmp_path: Path) -> None:
    """33 bits at 90 kHz: the clock of mpegts starts anew after 26.5 hours."""
    first_s = Fraction(2**33, 90_000) - 2
    path = write_media(tmp_path / "c.ts", container="mpegts", times=FOUR_S, sound=SOUND, first_s=first_s)
    assert indices(ClipReader(path)) == list(range(100))
    assert lag_of(ClipReader(path).audio(), SOUND) == 0


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(MediaError, match="the picture stream is empty"):
        starts(streamed([]))


# -------------------------------------------------------------------------------- containers without stamps of showing


@pytest.mark.parametrize(
    ("codec", "pixels", "bf", "doubt_ms"),
    [
        ("libx264", "yuv420p", 0, 0),
        ("libx264", "yuv420p", 2, 80),
        ("mpeg4", "yuv420p", 0, 0),
        ("mjpeg", "yuvj420p", 0, 0),
        ("ffv1", "yuv420p", 0, 0),
    ],
)
def test_avi_shows_the_nth_picture_at_the_nth_place(
    tmp_path: Path, codec: str, pixels: str, bf: int, doubt_ms: int
) -> None:
    path = write_media(
        tmp_path / "c.avi",
        container="avi",
        codec=codec,
        pixels=pixels,
        bf=bf,
        times=FOUR_S,
        audio_codec="pcm_s16le",
        sound=SOUND,
        time_base=Fraction(1, 25),
    )
    assert placed(path) == [(Fraction(k, 25), k) for k in range(100)]
    assert lag_of(ClipReader(path).audio(), SOUND) == 0
    info = probe(path)
    assert (info.is_cfr_25, info.video_start_s, info.n_frames) == (True, 0.0, 100)
    assert [w for w in info.warnings if "B-frames" in w] == (
        [
            "the file says when pictures are decoded, not when they are shown (as AVI does), and they are reordered "
            f"(B-frames): the picture may be up to {doubt_ms} ms early or late"
        ]
        if doubt_ms
        else []
    )


def test_an_empty_place_in_avi_repeats_the_picture_and_is_no_gap(tmp_path: Path) -> None:
    times = [Fraction(k, 25) for k in (*range(25), *range(75, 100))]
    path = write_media(
        tmp_path / "c.avi",
        container="avi",
        bf=0,
        times=times,
        audio_codec="pcm_s16le",
        sound=SOUND,
        time_base=Fraction(1, 25),
    )
    assert placed(path) == [(at, k) for k, at in enumerate(times)]
    assert gaps(path) == []


def test_avi_goes_on_in_step_after_damage(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "c.avi",
        container="avi",
        codec="mjpeg",
        pixels="yuvj420p",
        times=FOUR_S,
        audio_codec="pcm_s16le",
        sound=SOUND,
        time_base=Fraction(1, 25),
    )
    damage(path, 50)
    assert placed(path) == [(Fraction(k, 25), k) for k in range(100) if k != 50]
    assert gaps(path) == [(2.0, 2.04)]


def test_reordered_pictures_without_stamps_stay_in_step_after_damage() -> None:
    """The decoder shows a picture a packet late. One packet is broken, another (a repeat) brings no picture."""
    packets = [packet(40 * k + 40, 40 * k, shows=None) for k in range(50)]
    packets[0].pictures = []
    packets[20].failure, packets[30].pictures = True, []
    packets.append(packet(None, None, shows=None, size=0))  # the flush
    stream = streamed(packets, name="avi", as_decoded=True)
    assert starts(stream) == [40 * k for k in range(50) if k not in (19, 29)]
    assert in_ms(stream.facts.gaps) == [(760, 800)]
    assert stream.facts.reorder_doubt_s == Fraction(40, 1000)


# ---------------------------------------------------------------------------------------------------- repeated pictures


def test_an_empty_packet_repeats_the_picture_and_is_no_damage() -> None:
    empty = {"size": 0, "failure": True}  # FFmpeg calls it an invalid argument
    packets = [packet(40 * k, 40 * k, **(empty if 10 <= k < 40 or k % 2 else {})) for k in range(60)]
    stream = streamed([*packets, packet(None, size=0, pictures=[])])
    assert starts(stream) == [40 * k for k in range(60) if not (10 <= k < 40 or k % 2)]
    assert not stream.facts.gaps
    assert stream.facts.damaged == 0
    assert in_ms(stream.facts.holds) == [(320, 1600)]
