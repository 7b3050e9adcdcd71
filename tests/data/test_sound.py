"""Sound of every kind: channels and sample formats, stamps that jitter, holes, overlaps, damage, levels, HE-AAC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from stamps import lag_of, noise, write_media

from avbench.data.media import ClipReader
from avbench.data.probing import clock_doubt_ms, clock_warnings, probe, read_header
from avbench.data.sound import SoundStream, sbr_delay_samples
from avbench.types import Gap, MediaError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
RATE = 16_000  # so that nothing is resampled and samples are compared as they are
Change = Callable[[int, av.Packet], "av.Packet | None"]


def write_sound(
    path: Path,
    sound: np.ndarray,
    change: Change = lambda _, packet: packet,
    *,
    codec: str = "pcm_s16le",
    container: str = "matroska",
    layout: str = "mono",
    rate: int = RATE,
    frame: int = 1600,
    first_s: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
) -> Path:
    """A file with (n,) or (channels, n) ``sound`` alone. ``change(k, packet)`` gives the packet to write, or None."""
    sound = np.atleast_2d(sound)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options=options or {})
        packets: list[av.Packet] = []
        for begin in range(0, sound.shape[1], frame):
            piece = np.ascontiguousarray(sound[:, begin : begin + frame].T.reshape(1, -1), np.float32)
            one = av.AudioFrame.from_ndarray(piece, "flt", layout)  # packed: from_ndarray fails with eight planes
            one.sample_rate, one.time_base, one.pts = rate, Fraction(1, rate), begin + round(first_s * rate)
            packets += stream.encode(one)
        for k, packet in enumerate(packets + stream.encode(None)):
            changed = change(k, packet)
            if changed is not None:
                out.mux(changed)
    return path


def read(path: Path, origin: Fraction = Fraction(0), **options: Any) -> tuple[np.ndarray, SoundStream]:
    """All of a file's sound, and the stream that read it."""
    with av.open(str(path)) as container:
        stream = SoundStream(
            container, container.streams.audio[0], origin, lambda reason: MediaError("c", reason), **options
        )
        return np.concatenate(list(stream)), stream


def refusal(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        read(path)
    return str(caught.value)


def ms(gaps: list[tuple[Fraction, Fraction]]) -> list[tuple[int, int]]:
    return [(round(1000 * start), round(1000 * end)) for start, end in gaps]


# ------------------------------------------------------------------------------------------------ channels and formats


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_mono_and_stereo_are_the_exact_mean(tmp_path: Path, codec: str, channels: int) -> None:
    said = np.round(noise(channels * 4000).reshape(channels, -1) * 100) / 128  # exact in every format
    path = write_sound(tmp_path / "c.mkv", said, codec=codec, layout=("mono", "stereo")[channels - 1])
    heard, stream = read(path)
    np.testing.assert_array_equal(heard, said.mean(axis=0, dtype=np.float32))
    assert list(stream.warnings()) == []


READ_ALL = """
import json, sys
from fractions import Fraction
import av, numpy as np
from avbench.data.sound import SoundStream, channels_of
for path in sys.argv[1:]:
    with av.open(path) as container:
        stream = container.streams.audio[0]
        n = channels_of(stream)
        heard = np.concatenate(list(SoundStream(container, stream, Fraction(0), ValueError)))
        print(json.dumps([n, len(heard), float(np.abs(heard).max()), int(np.abs(heard).argmax())]), flush=True)
"""


def read_apart(paths: list[Path]) -> list[list[float]]:
    """[channels, samples, peak, sample of the peak] of each file, read in a process of its own, which must live."""
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, f"{len(done.stdout.splitlines())} files read, then: {done.stderr[-300:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def click(channels: int, at: int = 2000, n: int = 4000) -> np.ndarray:
    sound = np.zeros((channels, n), np.float32)
    sound[-1, at] = 0.5
    return sound


def test_any_number_of_channels_is_averaged(tmp_path: Path) -> None:
    numbers = [*range(1, 18), 24, 32, 63, 64]
    paths = [
        write_sound(tmp_path / f"{n}.{suffix}", click(n), container=container, layout=f"{n}C")
        for n in numbers
        for suffix, container in (("mkv", "matroska"), ("wav", "wav"))
    ]
    for path, (n, samples, peak, at) in zip(paths, read_apart(paths), strict=True):
        assert (str(n), samples, at) == (path.stem, 4000, 2000)
        assert peak == pytest.approx(0.5 / n, rel=1e-3)


def test_eight_planes_of_a_codec(tmp_path: Path) -> None:
    """PyAV's arrays of such frames read past the list of planes, which kills the process."""
    said = np.tile(noise(8000), (8, 1))
    paths = [
        write_sound(tmp_path / f"{codec}.mkv", said, codec=codec, layout="7.1", rate=48_000)
        for codec in ("aac", "libopus")
    ]
    for n, _, peak, _ in read_apart(paths):
        assert n == 8
        assert peak == pytest.approx(np.abs(said[0]).max(), rel=0.5)


def test_layouts_that_list_their_channels(tmp_path: Path) -> None:
    """A mov names its channels in an order of its own: PyAV frees the list of them twice, which kills the process."""
    paths = []
    for n, layout, tag in ((7, "6.1", 125), (8, "7.1", 126), (8, "7.1", 127), (8, "7.1", 128), (3, "3.0", 114)):
        path = write_sound(tmp_path / f"{n}-{tag}.mov", click(n), container="mov", layout=layout)
        data = bytearray(path.read_bytes())
        at = data.find(b"chan") + 8
        data[at : at + 8] = (tag << 16 | n).to_bytes(4, "big") + bytes(4)
        path.write_bytes(data)
        paths.append(path)
    for path, (n, samples, peak, at) in zip(paths, read_apart(paths), strict=True):
        assert (str(n), samples, at) == (path.stem.split("-")[0], 4000, 2000)
        assert peak == pytest.approx(0.5 / n, rel=1e-3)


def test_more_channels_than_can_be_mixed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="65C")
        packet = av.Packet(bytes(2 * 65 * 1000))
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, RATE)
        out.start_encoding()
        out.mux(packet)
    assert refusal(path) == "clip c: the sound has 65 channels; 1 to 64 are read"


@pytest.mark.parametrize("rate", [1000, 1_000_000])
def test_absurd_rates_are_refused(tmp_path: Path, rate: int) -> None:
    path = write_sound(tmp_path / "c.wav", click(1), container="wav", rate=rate)
    assert refusal(path) == f"clip c: the sound's rate is {rate} Hz; 4000 to 768000 Hz are read"


def joined_ts(folder: Path, first: dict[str, Any], then: dict[str, Any]) -> tuple[Path, np.ndarray]:
    """3 s of noise in mpegts from 1 s on; after 1.5 s of it it goes on in another form. And the noise at 16 kHz."""
    said = noise(3 * RATE)
    data = b""
    for k, how in enumerate((first, then)):
        at_s = 1.5 * k + np.arange(how["rate"] * 3 // 2) / how["rate"]
        half = np.interp(at_s, np.arange(len(said)) / RATE, said)
        sound = np.tile(half, ({"mono": 1, "stereo": 2, "5.1": 6}[how["layout"]], 1))
        path = folder / f"{k}.ts"
        write_sound(path, sound, container="mpegts", codec="aac", frame=1024, first_s=1 + Fraction(3 * k, 2), **how)
        data += path.read_bytes()
    (folder / "joined.ts").write_bytes(data)
    return folder / "joined.ts", said


def test_channels_that_change_are_read_on(tmp_path: Path) -> None:
    path, said = joined_ts(tmp_path, {"rate": RATE, "layout": "stereo"}, {"rate": RATE, "layout": "5.1"})
    heard, stream = read(path, Fraction(1))
    changes = [w for w in stream.warnings() if "number of channels" in w]
    assert len(changes) == 1
    assert "changes from 2 to 6 at 1.4" in changes[0]
    for part in (slice(4000, 20_000), slice(28_000, 44_000)):
        assert lag_of(heard[part], said[part]) == 0
        assert np.corrcoef(heard[part], said[part])[0, 1] > 0.9


@pytest.mark.parametrize(("rate", "then"), [(48_000, 44_100), (16_000, 48_000)])
def test_a_rate_that_changes_is_read_on(tmp_path: Path, rate: int, then: int) -> None:
    path, said = joined_ts(tmp_path, {"rate": rate, "layout": "mono"}, {"rate": then, "layout": "mono"})
    heard, stream = read(path, Fraction(1))
    assert any(f"sample rate of the sound changes from {rate} to {then} at 1.4" in w for w in stream.warnings())
    for part in (slice(4000, 20_000), slice(28_000, 44_000)):
        assert lag_of(heard[part], said[part]) == 0
        assert np.corrcoef(heard[part], said[part])[0, 1] > 0.9


# -------------------------------------------------------------------------------------- stamps, holes, overlaps, damage


def restamped(offset_ms: Callable[[int], float]) -> Change:
    def change(k: int, packet: av.Packet) -> av.Packet:
        packet.pts += round(Fraction(offset_ms(k)) / 1000 / packet.time_base)
        packet.dts = k  # (a muxer wants them to rise, and not above the pts)
        return packet

    return change


def dropped(*numbers: int) -> Change:
    return lambda k, packet: None if k in numbers else packet


SAID = noise(4 * RATE)  # 40 packets of 1600 samples, 100 ms each
STAMPED = [
    lambda k: 4 * np.sin(2.1 * k) + 4,
    lambda k: 8 * (k % 3),
    lambda k: 3000 * (k in (10, 33)),
]


@pytest.mark.parametrize("offset_ms", STAMPED, ids=["jitter", "in turns", "lone stamps"])
def test_jittering_stamps_put_no_holes_into_the_sound(tmp_path: Path, offset_ms: Callable[[int], float]) -> None:
    path = write_sound(tmp_path / "c.mkv", SAID, restamped(offset_ms))
    heard, stream = read(path)
    first = round(stream.start_s * RATE)
    assert 0 <= first <= 20 * RATE // 1000
    np.testing.assert_array_equal(heard[first:], np.round(SAID * 32768).clip(-32768, 32767).astype(np.float32) / 32768)
    assert (stream.patched, stream.gaps, list(stream.warnings())) == (0, [], [])


def pcm(sound: np.ndarray) -> np.ndarray:
    """As it comes back from 16 bit."""
    return (sound * 32768).round().clip(-32768, 32767).astype(np.float32) / 32768


def test_lost_packets_are_silence_and_are_reported(tmp_path: Path) -> None:
    said = pcm(SAID)
    path = write_sound(tmp_path / "c.mkv", SAID, dropped(5, 6, 25))
    heard, stream = read(path)
    said[8000:11_200] = said[40_000:41_600] = 0
    np.testing.assert_array_equal(heard, said)
    assert ms(stream.gaps) == [(500, 700), (2500, 2600)]
    assert list(stream.warnings()) == [
        "the sound is missing for 0.200 s at 0.50 s (2 times, 0.300 s in all): read as silence"
    ]
    assert stream.patched == 0


def test_what_counts_as_a_gap_is_a_setting(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "c.mkv", SAID, dropped(5, 6, 25))
    heard, stream = read(path, gap_limit_s=Fraction(1, 10))
    assert stream.gaps == [(Fraction(1, 2), Fraction(7, 10))]
    assert stream.patched == 1600
    np.testing.assert_array_equal(heard, read(path)[0])


def test_a_hole_of_seconds_is_read_in_blocks(tmp_path: Path) -> None:
    said = pcm(SAID)
    path = write_sound(tmp_path / "c.mkv", SAID, restamped(lambda k: 100_000 * (k >= 19)))
    with av.open(str(path)) as container:
        stream = SoundStream(container, container.streams.audio[0], Fraction(0), ValueError)
        blocks = list(stream)
    assert max(map(len, blocks)) == RATE
    heard = np.concatenate(blocks)
    np.testing.assert_array_equal(heard, np.concatenate([said[:30_400], np.zeros(100 * RATE), said[30_400:]]))
    assert ms(stream.gaps) == [(1900, 101_900)]


@pytest.mark.parametrize("overlap_ms", [20, 100, 125, 900])
def test_where_sound_overlaps_the_later_wins(tmp_path: Path, overlap_ms: int) -> None:
    """As in a file that was joined of two: the second begins before the first has ended."""
    path = write_sound(tmp_path / "c.mkv", SAID, restamped(lambda k: -overlap_ms * (k >= 20)))
    heard, stream = read(path)
    said, at = pcm(SAID), (2000 - overlap_ms) * RATE // 1000
    np.testing.assert_array_equal(heard, np.concatenate([said[:at], said[32_000:]]))
    assert ms(stream.gaps) == [(2000 - overlap_ms, 2000)]
    where = f"for {overlap_ms / 1000:.3f} s at {at / RATE:.2f} s"
    assert list(stream.warnings()) == [f"the sound overlaps itself {where}: the later sound is read"]


@pytest.mark.parametrize(
    ("offset_ms", "reason"),
    [
        (lambda k: 601_000 * (k >= 19), "the sound's clock jumps ahead by 601.000 s at 1.90 s; cut the file there"),
        (lambda k: -1200 * (k >= 20), "the sound's clock jumps back by 1.200 s at 2.00 s; cut the file there"),
        (lambda k: 700_000, "the sound begins 700 s after the picture"),
    ],
)
def test_a_clock_that_is_set_anew_is_refused(tmp_path: Path, offset_ms: Callable[[int], float], reason: str) -> None:
    assert refusal(write_sound(tmp_path / "c.mkv", SAID, restamped(offset_ms))) == f"clip c: {reason}"


def test_a_hole_before_the_picture_does_not_matter(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "c.mkv", SAID, restamped(lambda k: 2000 * (k >= 10)))
    heard, stream = read(path, Fraction(3))
    np.testing.assert_array_equal(heard, pcm(SAID[16_000:]))
    assert (stream.gaps, list(stream.warnings())) == ([], [])


def test_sound_without_stamps_is_refused(tmp_path: Path) -> None:
    with av.open(str(write_sound(tmp_path / "c.mkv", SAID))) as container:
        demux = container.demux

        class Unstamped:
            def demux(self, stream: Any) -> Any:
                for packet in demux(stream):
                    packet.pts = packet.dts = None
                    yield packet

        with pytest.raises(ValueError, match="no time stamps"):
            list(SoundStream(Unstamped(), container.streams.audio[0], Fraction(0), ValueError))


def broken(*numbers: int) -> Change:
    """Packets of AAC whose bytes are not AAC."""

    def change(k: int, packet: av.Packet) -> av.Packet:
        if k not in numbers:
            return packet
        other = av.Packet(b"\xa5" * packet.size)
        other.pts, other.dts, other.time_base, other.stream = packet.pts, packet.dts, packet.time_base, packet.stream
        other.duration, other.is_keyframe = packet.duration, True
        return other

    return change


@pytest.mark.parametrize(
    ("container", "damage"),  # (in mpegts the end of a broken packet is not known)
    [("mp4", dropped), ("matroska", dropped), ("mpegts", dropped), ("mp4", broken), ("matroska", broken)],
)
def test_a_lost_or_broken_aac_packet_moves_nothing(
    tmp_path: Path, container: str, damage: Callable[..., Change]
) -> None:
    path = write_sound(
        tmp_path / "c", SAID, damage(20, 21, 40), codec="aac", container=container, frame=1024, first_s=Fraction(1)
    )
    heard, stream = read(path, Fraction(1))
    gaps = [(19 * 1024, 21 * 1024), (39 * 1024, 40 * 1024)]  # the first packet is before the sound
    assert [(round(start * RATE), round(end * RATE)) for start, end in stream.gaps] == gaps
    if damage is broken:
        assert "3 damaged packets of the sound left out" in list(stream.warnings())
    for start, end in gaps:
        assert not heard[start + 1 : end].any()
    for part in (slice(1000, 17_000), slice(23_000, 37_000), slice(42_000, 60_000)):
        assert lag_of(heard[part], SAID[part]) == 0
        assert np.corrcoef(heard[part], SAID[part])[0, 1] > 0.95


def test_sound_that_is_mostly_damaged_is_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "c.mkv", SAID, broken(*range(20, 60)), codec="aac", frame=1024)
    assert "most packets of the sound cannot be decoded (40 of 6" in refusal(path)
    path = write_sound(tmp_path / "c.mkv", SAID, broken(*range(100)), codec="aac", frame=1024)
    line = refusal(path)
    assert "no packet of the sound can be decoded (" in line
    assert "Invalid data" in line


def test_samples_that_are_no_numbers_are_damage(tmp_path: Path) -> None:
    sound = SAID.copy()
    sound[4800] = np.nan
    sound[9000] = np.inf
    sound[12_000] = 1e30
    heard, stream = read(write_sound(tmp_path / "c.mkv", sound, codec="pcm_f32le"))
    assert np.isfinite(heard).all()
    assert ms(stream.gaps) == [(300, 400), (500, 600), (700, 800)]
    assert list(stream.warnings())[1] == "3 damaged packets of the sound left out"


def test_a_pause_that_opus_announces_is_no_gap(tmp_path: Path) -> None:
    """Packets that are left out after one of a byte or two (DTX) are silence; after another they are lost."""
    speech = noise(2 * 48_000, rate=48_000)
    speech[24_000:72_000] = 0

    def announced(k: int, packet: av.Packet) -> av.Packet | None:
        if k == 40:
            other = av.Packet(bytes([bytes(packet)[0] & 0xFC]))
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            other.stream, other.duration = packet.stream, packet.duration
            return other
        return None if 40 < k < 60 else packet

    for change, n_gaps in ((announced, 0), (dropped(*range(41, 60)), 1)):
        path = write_sound(tmp_path / "c.mkv", speech, change, codec="libopus", rate=48_000, frame=960)
        heard, stream = read(path)
        assert len(stream.gaps) == n_gaps
        assert stream.patched == 0
        said = speech[::3]
        for part in (slice(1000, 7500), slice(25_000, 31_000)):
            assert abs(lag_of(heard[part], said[part])) <= 8  # the clock has ticks of a millisecond


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder is not there")
def test_a_recorder_that_stamps_every_ten_milliseconds() -> None:
    """A real clip whose stamps jump by 0, 10 or 20 ms to and fro while its samples add up: refused before."""
    reader = ClipReader(SHARED / "media/real/event/SpecVQGAN__video_03051.mp4")
    sound = reader.sound_facts()
    assert reader.gaps() == ()
    assert sound.warnings == ()
    assert abs(sound.start_s) < Fraction(1, 100)
    assert sound.patched < 441
    assert abs(sound.n_samples - 10 * RATE) < 400


def test_a_clip_says_what_is_missing_and_is_the_same_in_blocks(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "c.mkv", container="matroska", sound=SAID, skip_sound=(10_240, 20_480), audio_codec="pcm_s16le"
    )
    reader = ClipReader(path)
    sound = reader.audio()
    assert reader.gaps() == (Gap("sound", 10_240, 20_480),)
    assert not sound[10_240:20_480].any()
    assert sound[:10_240].any()
    assert sound[20_480:20_500].any()
    np.testing.assert_array_equal(np.concatenate(list(reader.audio_blocks())), sound)
    assert reader.sound_facts().n_samples == len(sound)
    assert "the sound is missing for 0.640 s at 0.64 s: read as silence" in probe(path).warnings


# --------------------------------------------------------------------------------------------------------------- levels


def warnings(path: Path) -> list[str]:
    return list(read(path)[1].warnings())


@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le"])
@pytest.mark.parametrize("right", [-1.0, -0.9])
def test_left_and_right_that_cancel_out_are_said_to(tmp_path: Path, codec: str, right: float) -> None:
    path = write_sound(tmp_path / "c.mkv", np.stack([SAID, right * SAID]), codec=codec, layout="stereo")
    (warning,) = warnings(path)
    assert warning.startswith("left and right cancel out (opposite phase): their mean, which is what is read, is ")
    if right == -0.9:
        assert "is 26 dB below them" in warning
    elif codec != "aac":
        assert "is zero throughout" in warning


@pytest.mark.parametrize(
    ("channels", "layout"),
    [
        ([SAID, noise(4 * RATE, seed=1)], "stereo"),
        ([SAID, -0.7 * SAID], "stereo"),
        ([SAID, 0 * SAID], "stereo"),
        ([SAID, *[0 * SAID] * 7], "7.1"),
        ([noise(4 * RATE, seed=k) for k in range(16)], "16C"),
    ],
)
def test_channels_that_leave_something_are_not(tmp_path: Path, channels: list[np.ndarray], layout: str) -> None:
    assert warnings(write_sound(tmp_path / "c.mkv", np.stack(channels), layout=layout)) == []


def test_silence_and_near_silence_are_flagged_with_their_level(tmp_path: Path) -> None:
    def said(sound: np.ndarray) -> list[str]:
        return warnings(write_sound(tmp_path / "c.mkv", sound, codec="pcm_f32le"))

    hiss = np.random.default_rng(0).uniform(-1, 1, 4 * RATE)
    assert said(0 * hiss) == ["the sound is silent (every sample is zero)"]
    level = "-95 dB on average, -90 dB at most (0 dB is full scale)"
    assert said(10 ** (-90 / 20) * hiss) == [f"the sound is nearly silent: {level}"]
    assert said(10 ** (-50 / 20) * SAID) == [
        "the sound is nearly silent: -64 dB on average, -51 dB at most (0 dB is full scale)"
    ]
    assert said(10 ** (-40 / 20) * SAID) == []
    clicks = np.zeros(4 * RATE)
    clicks[::RATE] = 0.5
    assert said(clicks) == []
    both = np.stack([10 ** (-90 / 20) * hiss, -(10 ** (-90 / 20)) * hiss])  # too faint to speak of their phase
    path = write_sound(tmp_path / "c.mkv", both, codec="pcm_f32le", layout="stereo")
    assert warnings(path) == ["the sound is silent (every sample is zero)"]


# --------------------------------------------------------------------------------------------------------------- HE-AAC

HE_AAC = SHARED / "field" / "he_aac.m4a"  # clicks, the first at 0.6 s; its encoder delays them by 105 ms


@pytest.mark.skipif(not HE_AAC.is_file(), reason="the shared folder is not there")
@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("mp4", {}),
        ("mov", {}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("mp4", {"use_editlist": "0"}),
        ("matroska", {}),
        ("mpegts", {}),
    ],
)
def test_the_delay_of_he_aac_is_within_the_doubt(tmp_path: Path, container: str, options: dict[str, str]) -> None:
    path = tmp_path / "c"
    with av.open(str(HE_AAC)) as source, av.open(str(path), "w", format=container, options=options) as out:
        video = out.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = out.add_stream_from_template(source.streams.audio[0])
        for k in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), k, np.uint8), "rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.pts is not None and packet.pts < 2 * 24_000:
                packet.stream = sound
                out.mux(packet)
    info = probe(path)
    early_ms, late_ms = info.clock_doubt_ms
    heard = np.abs(ClipReader(path).audio()[8000:14_000])
    lag_ms = 1000 * (8000 + int(np.argmax(heard > heard.max() / 4))) / RATE - 600
    assert -early_ms <= lag_ms <= late_ms < 110
    assert lag_ms > 50
    (warning,) = [w for w in info.warnings if "late in the source" in w]
    assert warning.startswith(
        f"the delay of HE-AAC (SBR) is not fully signalled: the sound may be up to {late_ms:.0f} ms"
    )
    header = read_header(path)
    assert header.clock_doubt_ms == info.clock_doubt_ms
    assert clock_warnings(header.clock_doubt_ms, header.sbr_delay) == [warning]


def test_how_much_of_the_delay_is_in_doubt() -> None:
    edits = {"tracks": [{"kind": "video", "edits": [[1000, 0]]}]}

    def late_ms(first_packet_s: float, sbr_delay: int = 5186, edits: dict[str, Any] = edits) -> float:
        return clock_doubt_ms("aac", 48_000, first_packet_s, 0.0, edits, sbr_delay)[1]

    assert late_ms(0.0) == late_ms(0.0, edits={}) == pytest.approx(1000 * 5186 / 48_000, abs=1e-3)
    assert late_ms(-2048 / 48_000) == late_ms(0.0)  # a packet or less may come from a cut
    assert late_ms(-4224 / 48_000) == pytest.approx(1000 * 962 / 48_000, abs=1e-3)  # without the decoder's share
    assert late_ms(-5186 / 48_000) == late_ms(-5058 / 48_000) == 0
    assert late_ms(-0.5) == late_ms(0.0)  # more than any delay: a cut
    # other AAC: as before, in mp4 only
    assert late_ms(0.0, 0) == pytest.approx(1000 * 1024 / 48_000, abs=1e-3)
    assert late_ms(-0.001, 0) == late_ms(0.0, 0, {}) == 0
    assert clock_doubt_ms("opus", 48_000, 0.0, 0.0, edits) == (0, 0)


@pytest.mark.parametrize("name", ["aac", "aac_latm"])
def test_the_delay_of_he_aac_is_in_doubt_however_it_is_packed(name: str) -> None:
    codec = SimpleNamespace(name=name, profile="HE-AAC", frame_size=2048)
    delay = sbr_delay_samples(SimpleNamespace(codec_context=codec))
    assert delay == 5186
    assert clock_doubt_ms(name, 48_000, 1.4, 1.48, {}, delay) == (0, pytest.approx(108.042))


@pytest.mark.parametrize(
    ("loud", "words"),
    [
        (0.0, "the sound is silent (every sample is 0.25)"),
        (0.0003, "the sound is nearly silent: -75 dB on average, -70 dB at most (0 dB is full scale)"),
        (0.03, None),
    ],
)
def test_a_constant_offset_is_not_heard(tmp_path: Path, loud: float, words: str | None) -> None:
    rng = np.random.default_rng(0)
    said = np.float32(0.25) + rng.uniform(-loud, loud, 2 * RATE).astype(np.float32)
    _, stream = read(write_sound(tmp_path / "s.mkv", said, codec="pcm_f32le"))
    assert list(stream.warnings()) == ([words] if words else [])
