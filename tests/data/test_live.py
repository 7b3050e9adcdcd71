"""A live stream as windows: the same as the file's, over pipes and HTTP, cut off and taken up again, too fast for the
reader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from senders import clip, folder_server, sending, transport

from avbench.data import live
from avbench.data.live import LiveEvent, LiveOptions, LiveSource, LiveWindow
from avbench.data.live_intake import Sound
from avbench.data.live_open import Address
from avbench.data.media import ClipReader
from avbench.types import AvbenchError, FrontEnd, UsageError

SMALL = FrontEnd(size=64)
PARTS = ((0.0, 1), (0.4, 2))


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("live") / "clip.mp4", 15, PARTS)


@pytest.fixture(scope="module")
def ts(mp4: Path) -> Path:
    return transport(mp4, mp4.with_suffix(".ts"))


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BACK_OFF_S", (0.2, 0.4))


def read(url: str | Path, frontend: FrontEnd = SMALL, **options: Any) -> tuple[list[Any], LiveSource]:
    source = LiveSource(Address.of(str(url)), frontend, LiveOptions(**{"timeout_s": 5.0, **options}))
    with source:
        return list(source), source


def windows(items: list[Any]) -> list[LiveWindow]:
    return [item for item in items if isinstance(item, LiveWindow)]


def events(items: list[Any], kind: str = "") -> list[LiveEvent]:
    return [item for item in items if isinstance(item, LiveEvent) and kind in ("", item.kind)]


def check_account(items: list[Any], source: LiveSource) -> None:
    """Every window is accounted for, once, in order; times do not go back."""
    account = source.account
    given = windows(items)
    assert account.windows == source.expected
    assert account.computed == sum(w.video is not None for w in given)
    assert account.uncoverable == sum(w.video is None for w in given)
    assert account.skipped >= sum(e.facts["skipped"] for e in events(items, "lag"))
    starts = [w.start_s for w in given]
    assert starts == sorted(set(starts))
    times = [i.start_s + source.options.window_s if isinstance(i, LiveWindow) else i.t_s for i in items]
    assert times == sorted(times)


@pytest.mark.parametrize("container", ["mpegts", "matroska", "flv", "mp4"])
@pytest.mark.parametrize("frontend", [SMALL, FrontEnd(size=32, fit="crop", audio_lead_trim_samples=1000)])
def test_the_windows_are_those_of_the_file(mp4: Path, tmp_path: Path, container: str, frontend: FrontEnd) -> None:
    path = transport(mp4, tmp_path / "a", container) if container != "mp4" else mp4
    items, source = read(path, frontend)
    assert events(items) == []
    assert source.expected == len(items) == 13 == source.account.computed
    reader = ClipReader(path)
    pictures, sound = np.stack([f for (f,) in reader.frames(frontend)]), reader.audio()
    trim = frontend.audio_lead_trim_samples
    for k, window in enumerate(windows(items)):
        assert window.start_s == 2.0 * k
        assert window.video is not None
        assert np.array_equal(window.video, pictures[50 * k : 50 * k + 125])
        heard = sound[32_000 * k + trim : 32_000 * k + trim + 80_000]
        assert window.audio is not None
        assert np.abs(window.audio[: len(heard)] - heard).max() < 1e-6


def test_other_rates_are_brought_to_the_grid(mp4: Path, tmp_path: Path) -> None:
    import av

    path, rng = tmp_path / "a.ts", np.random.default_rng(0)
    sound = np.convolve(rng.standard_normal(48_000 * 12), np.ones(24) / 24, "same").astype(np.float32)
    with av.open(str(path), "w") as out:
        video, voice = out.add_stream("libx264", rate=30), out.add_stream("aac", rate=48_000, layout="stereo")
        video.width, video.height, video.pix_fmt, video.thread_count = 64, 64, "yuv420p", 1
        for k in range(360):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 16 + k % 30 * 7, np.uint8), "rgb24")))
            piece = np.stack([sound[k * 1600 : (k + 1) * 1600]] * 2)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48_000, k * 1600
            out.mux(voice.encode(frame))
        out.mux(video.encode(None))
        out.mux(voice.encode(None))
    items, source = read(path)
    reader = ClipReader(path)
    pictures, heard = np.stack([f for (f,) in reader.frames(SMALL)]), reader.audio()
    assert len(windows(items)) == source.expected >= 3
    for k, window in enumerate(windows(items)):
        assert window.video is not None
        assert window.audio is not None
        assert np.array_equal(window.video, pictures[50 * k : 50 * k + 125])
        assert np.abs(window.audio - heard[32_000 * k : 32_000 * k + 80_000]).max() < 1e-5


def test_a_transport_stream_whose_clock_wraps_has_no_event(mp4: Path, tmp_path: Path) -> None:
    path = transport(mp4, tmp_path / "a.ts", later_s=int((2**33 / 90_000 - 12) * 25) / 25)  # whole frames: no rounding
    items, source = read(path)
    assert events(items) == []
    assert source.account.computed == source.expected == 13
    plain, _ = read(transport(mp4, tmp_path / "b.ts"))
    for window, other in zip(items, plain, strict=True):
        assert np.array_equal(window.video, other.video)
        assert np.abs(window.audio - other.audio).max() < 1e-3


PIPED = """
import sys
from avbench.data.live import LiveOptions, LiveSource, LiveWindow
from avbench.data.live_open import Address
from avbench.types import FrontEnd
with LiveSource(Address.of("-"), FrontEnd(size=64), LiveOptions()) as source:
    starts = [x.start_s for x in source if isinstance(x, LiveWindow) and x.video is not None]
print(starts, source.expected, source.account.connections)
"""


def test_a_pipe_that_ends_is_the_end_of_the_stream(ts: Path) -> None:
    with open(ts, "rb") as file:
        done = subprocess.run([sys.executable, "-c", PIPED], stdin=file, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{[2.0 * k for k in range(13)]} 13 1\n", done.stderr


def test_a_connection_that_is_cut_is_taken_up_again(ts: Path) -> None:
    data = ts.read_bytes()
    cut = len(data) * 2 // 3 + 77
    with sending(data, drops=(cut, cut, None)) as sender:
        items, source = read(sender.url, for_s=60)
    check_account(items, source)
    assert len(sender.asked) >= 3
    gaps, again = events(items, "gap"), events(items, "reconnect")
    assert [g.facts["reason"].partition(":")[0] for g in gaps][:2] == ["the connection is lost"] * 2
    assert [e.facts["connected"] for e in again][:4] == [False, True, False, True]
    assert 0.1 < again[1].facts["outage_s"] < 10
    assert 18 < gaps[0].t_s < 22
    assert source.account.connections == 3
    assert source.account.computed >= 6 + 6 + 6
    assert source.account.uncoverable >= 4
    assert source.t_s == 60.0


def test_attempts_that_fail_are_told_and_the_clock_goes_on(ts: Path) -> None:
    with sending(ts.read_bytes()) as sender:
        source = LiveSource(Address.of(sender.url), SMALL, LiveOptions(timeout_s=5.0, for_s=45.0))
        items: list[Any] = []
        with source:
            for item in source:
                items.append(item)
                if len(windows(items)) == 3:
                    sender.refuse = 3
    check_account(items, source)
    again = events(items, "reconnect")
    assert [e.facts["connected"] for e in again[:5]] == [False] * 4 + [True]
    assert [e.facts["attempt"] for e in again[:5]] == [1, 2, 3, 4, 4]
    assert "503" in again[1].facts["reason"] or "Server" in again[1].facts["reason"]
    assert [e.facts["next_s"] for e in again[:4]] == [0.2, 0.4, 0.4, 0.4]
    assert again[4].t_s - again[0].t_s > 1.0, "the pauses are time of the stream"


def test_a_recording_on_a_server_ends(mp4: Path, ts: Path) -> None:
    transport(mp4, mp4.parent / "vod.m3u8", "hls", hls_time="4", hls_list_size="0", hls_playlist_type="vod")
    with folder_server(mp4.parent) as base:
        for name in ("vod.m3u8", ts.name):
            items, source = read(base + name)
            assert (len(items), source.expected, source.account.computed) == (13, 13, 13), name
            assert source.account.connections == 1


def test_a_playlist_that_grows_is_followed(ts: Path, tmp_path: Path) -> None:
    transport(ts, tmp_path / "all.m3u8", "hls", hls_time="2", hls_list_size="0")
    lines = (tmp_path / "all.m3u8").read_text().splitlines()
    segments = [lines[i : i + 2] for i, line in enumerate(lines) if line.startswith("#EXTINF")]
    assert len(segments) >= 8
    head = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]

    def publish(n: int) -> None:
        text = "\n".join([*head, *(line for s in segments[:n] for line in s)]) + "\n"
        (tmp_path / "new.m3u8").write_text(text)
        os.replace(tmp_path / "new.m3u8", tmp_path / "live.m3u8")

    publish(3)
    stop = threading.Event()

    def grow() -> None:
        for n in range(4, len(segments) + 1):
            stop.wait(0.3)
            publish(n)

    thread = threading.Thread(target=grow)
    thread.start()
    with folder_server(tmp_path) as base:
        items, source = read(base + "live.m3u8", for_s=20)
    stop.set()
    thread.join()
    check_account(items, source)
    assert (source.account.computed, source.account.connections) == (8, 1)


def test_of_several_sizes_only_one_is_fetched(ts: Path, tmp_path: Path) -> None:
    master = ["#EXTM3U"]
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
        transport(ts, tmp_path / name / "all.m3u8", "hls", hls_time="2", hls_list_size="0")
        bandwidth = {"low": 100_000, "high": 900_000}[name]
        master += [f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},RESOLUTION=64x64", f"{name}/all.m3u8"]
    (tmp_path / "master.m3u8").write_text("\n".join(master) + "\n")
    asked: list[str] = []
    with folder_server(tmp_path, asked) as base:
        items, source = read(base + "master.m3u8")
    check_account(items, source)
    assert source.account.computed == 13
    fetched = {name: {path for path in asked if name in path and path.endswith(".ts")} for name in ("low", "high")}
    most, least = sorted(map(len, fetched.values()), reverse=True)
    assert most >= 8
    assert least <= 3, "what it takes to find out what there is"


def test_a_dead_address_is_one_line(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/x", "udp://127.0.0.1:33997"):
        with pytest.raises(AvbenchError) as caught:
            read(url, timeout_s=0.5)
        assert str(caught.value).startswith(f"{url} cannot be opened (")
    (tmp_path / "text.ts").write_text("no media\n" * 1000)
    with pytest.raises(AvbenchError, match="cannot be opened"):
        read(tmp_path / "text.ts")


def test_a_stream_without_sound_or_too_small_for_the_model_is_one_line(mp4: Path, tmp_path: Path) -> None:
    import av

    silent = tmp_path / "a.ts"
    with av.open(str(mp4)) as given, av.open(str(silent), "w") as out:
        video = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
    with pytest.raises(AvbenchError, match=r"a\.ts: the stream has no sound$"):
        read(silent)
    with pytest.raises(AvbenchError, match="the picture is 64x64, the model's crop needs 224x224"):
        read(mp4, FrontEnd(size=224, fit="crop"))


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 0.05, float("nan")])
def test_a_hop_that_is_no_number_of_frames(hop_s: float) -> None:
    with pytest.raises(UsageError, match="hop is"):
        LiveSource(Address.of("-"), SMALL, LiveOptions(hop_s=hop_s))


def test_the_ring_is_bounded_and_a_fast_sender_waits(ts: Path) -> None:
    source = LiveSource(Address.of(str(ts)), SMALL, LiveOptions())
    with source:
        stream = iter(source)
        first = next(stream)
        time.sleep(0.7)
        ahead = source.ring.latest
        assert isinstance(first, LiveWindow)
        assert ahead < source.ring.rows + 60 < 30 * 25, "it has not read the file to its end"
        rest = list(stream)
    check_account([first, *rest], source)
    assert source.account.computed == 13


# -------------------------------------------------------------------------------- a fake stream, on a clock of its own


class Fake:
    """A source whose frames come in the time of a fake clock: ``play`` lets ``s`` seconds pass."""

    def __init__(self, url: str = "udp://host:1", **options: Any) -> None:
        self.now, self.k = 0.0, 0
        self.source = LiveSource(Address.of(url), FrontEnd(size=2), LiveOptions(**options), lambda: self.now)
        self.source.account.connections = 1
        self.source.intake._room = lambda row: None  # one thread only: nobody to wait for
        self.items: list[Any] = []
        self._stream = iter(self.source)

    def play(self, s: float, missing: bool = False) -> None:
        for _ in range(round(s * 25)):
            self.now += 0.04
            if not missing:
                picture = np.full((3, 2, 2), self.k % 250, np.uint8)
                self.source.intake.picture(self.k * 3600, live.Fraction(1, 90_000), "", lambda p=picture: p)
                sound = Sound(self.k * 640, live.Fraction(1, 16_000), 16_000, 1, np.zeros(640, np.float32))
                self.source.intake.sound(sound)
            self.k += 1

    def take(self, compute_s: float = 0.0, most: int = 10**6) -> int:
        """Take what there is, each window costing ``compute_s``; how many windows were computed."""
        n = 0
        while n < most and (self.source._next <= self.source._known() - 1 or self.source._is_due()):
            item = next(self._stream)
            self.items.append(item)
            if isinstance(item, LiveWindow) and item.video is not None:
                n += 1
                self.play(compute_s)
        if n < most:
            self.source._wait()
        return n

    def finish(self) -> None:
        self.source.intake.end()
        self.source._over = True
        self.items += list(self._stream)
        check_account(self.items, self.source)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is that of a fake clock."""
    monkeypatch.setattr(live, "_POLL_S", 1e-4)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("compute_s", "kept"), [(0.5, 1.0), (1.8, 1.0), (4.0, 0.5), (7.0, 2 / 7), (30.0, 2 / 30)])
def test_a_slow_machine_skips_and_counts_and_stays_close(compute_s: float, kept: float) -> None:
    fake = Fake()
    fake.play(8)
    lags: list[float] = []
    while fake.now < 200:
        before = len(fake.items)
        fake.take(compute_s, most=1)
        if len(fake.items) > before and isinstance(fake.items[-1], LiveWindow):
            begun_at = fake.now - compute_s
            lags.append(begun_at - (fake.items[-1].start_s + 5))
        else:
            fake.play(0.4)
    fake.finish()
    account = fake.source.account
    assert account.computed / fake.source.expected == pytest.approx(kept, abs=0.08)
    assert account.uncoverable == 0
    assert (account.skipped > 0) == (kept < 1)
    assert bool(events(fake.items, "lag")) == (kept < 1)
    assert max(lags) < 5 + 2 + max(compute_s, 1.0), "the newest window is next"
    assert np.mean(lags) < 5 + 2


@pytest.mark.usefixtures("no_waiting")
def test_an_outage_is_not_lag() -> None:
    fake = Fake()
    for _ in range(10):
        fake.play(2)
        fake.take()
    for _ in range(30):  # the reader waits meanwhile
        fake.play(1, missing=True)
        fake.take()
    for _ in range(10):
        fake.play(2)
        fake.take()
    fake.finish()
    account = fake.source.account
    assert account.skipped == 0
    assert account.uncoverable == pytest.approx(17, abs=1)
    assert fake.source.expected == (70 - 5) // 2 + 1
    assert events(fake.items, "gap")


@pytest.mark.usefixtures("no_waiting")
def test_a_burst_after_a_stall_is_not_lag() -> None:
    fake = Fake()
    for _ in range(10):
        fake.play(2)
        fake.take()
    fake.now += 10  # the network stalls, and then delivers what it held back
    fake.take()
    now = fake.now
    fake.play(10)
    fake.now = now + 0.5
    fake.take(0.3)
    fake.finish()
    assert fake.source.account.skipped == fake.source.account.uncoverable == 0


@pytest.mark.usefixtures("no_waiting")
def test_a_pipe_that_pauses_is_told_once_and_goes_on() -> None:
    fake = Fake("-")
    for _ in range(2):
        for _ in range(4):
            fake.play(2)
            fake.take()
        for _ in range(40):
            fake.now += 1
            fake.take()
    fake.play(2)
    fake.take()
    fake.finish()
    assert [e.facts["reason"] for e in events(fake.items)] == ["nothing has come for 20 s"] * 2
    assert fake.source.account.computed == fake.source.expected == (18 - 5) // 2 + 1


def test_stopping_accounts_for_what_was_not_taken() -> None:
    fake = Fake()
    fake.play(10)
    fake.take()
    fake.play(12)
    fake.source.stop()
    fake.items += list(fake._stream)
    check_account(fake.items, fake.source)
    assert (fake.source.account.computed, fake.source.expected, fake.source.account.skipped) == (3, 9, 6)


def test_a_failure_in_the_thread_reaches_the_reader(ts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[None]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(live.Intake, "picture", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        read(ts)


def test_a_thread_that_waits_for_the_network_does_not_hold_up_the_end() -> None:
    with LiveSource(Address.of("udp://127.0.0.1:33996"), SMALL, LiveOptions(timeout_s=3.0)) as source:
        source.stop()
        assert list(source) == []
    check: Callable[[], bool] = source._thread.is_alive
    deadline = time.monotonic() + 30
    while check() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not check(), "and it ends, too"
