"""Sound of every kind: channels and sample formats, stamps that jitter, holes, overlaps, damage, levels, HE-AAC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stamps import lag_of, noise

from avbench.data.sound import SoundStream
from avbench.types import MediaError

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
    frame: int = 1000,
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
