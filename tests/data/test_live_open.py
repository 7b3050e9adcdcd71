"""Addresses of live streams: what FFmpeg may open for them, and what is printed of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from senders import folder_server

from avbench.data.live_open import PROTOCOLS, Address, chosen, opened_live, shown
from avbench.types import AvbenchError, UsageError


@pytest.mark.parametrize("scheme", PROTOCOLS)
def test_a_network_stream_may_never_open_files(scheme: str) -> None:
    address = Address.of(f"{scheme}://host:1/x", options={"protocol_whitelist": "file", "timeout": "5"})
    allowed = address.options["protocol_whitelist"].split(",")
    assert not {"file", "pipe", "concat", "subfile", "fd", "data"} & set(allowed)
    assert address.options["timeout"] == "5"
    assert not address.ends


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtmp://user:secret@host:1935/app/x?key=1#f", "rtmp://host:1935/app/x"),
        ("https://host/a.m3u8?token=secret", "https://host/a.m3u8"),
        ("udp://@239.1.1.1:5000", "udp://239.1.1.1:5000"),
        ("http://[bad", "http://..."),
        ("http://host/\x1b[2J", "http://host/?[2J"),
    ],
)
def test_passwords_and_keys_in_the_query_are_not_shown(url: str, said: str) -> None:
    assert shown(url) == said
    assert Address.of(url).shown == said
    assert "secret" not in repr(Address.of(url)).replace(url, "")


def test_what_is_no_stream(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gopher:// is no protocol of live streams known here"):
        Address.of("gopher://host/x")
    with pytest.raises(AvbenchError, match="does not exist"):
        Address.of(str(tmp_path / "none.ts"))
    with pytest.raises(AvbenchError, match="is a folder"):
        Address.of(str(tmp_path))


def test_a_file_ends_and_a_device_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"x")
    assert Address.of(str(tmp_path / "a.ts")).ends
    assert Address.of("-").ends
    assert not Address.of("testsrc", "lavfi").ends


@pytest.mark.parametrize("line", ["file:///etc/hostname", "/etc/hostname", "concat:/etc/hostname", "secret.ts"])
def test_a_playlist_from_the_network_opens_no_file(tmp_path: Path, line: str) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{line}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(playlist)
    with (
        folder_server(tmp_path) as base,
        pytest.raises(AvbenchError, match="cannot be opened"),
        opened_live(Address.of(base + "a.m3u8"), 5.0, lambda: False),
    ):
        pass


def test_a_local_playlist_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/etc/hostname\n#EXT-X-ENDLIST\n")
    with (
        pytest.raises(AvbenchError, match="cannot be opened"),
        opened_live(Address.of(str(tmp_path / "a.ts")), 5, bool),
    ):
        pass


def test_a_dead_address_is_given_up_in_one_line() -> None:
    for url, why in (("http://127.0.0.1:9/x", "refused"), ("udp://127.0.0.1:33998", "nothing came for 0.5 s")):
        with pytest.raises(AvbenchError, match=why), opened_live(Address.of(url), 0.5, lambda: False):
            pass


def test_a_protocol_that_ffmpeg_lacks_is_named_with_a_way_out() -> None:
    with pytest.raises(AvbenchError) as caught, opened_live(Address.of("srt://127.0.0.1:9"), 0.5, lambda: False):
        pass
    if "lacks this protocol" not in str(caught.value):
        pytest.skip("this PyAV has srt")
    assert "-f mpegts - | avbench watch -" in str(caught.value)


READ = """
import sys
from avbench.data.live_open import Address, opened_live
from avbench.types import AvbenchError
try:
    with opened_live(Address.of("-"), 0.5, lambda: False):
        print("open")
except AvbenchError as error:
    print(error)
"""


def test_a_pipe_into_which_nothing_comes_is_given_up() -> None:
    read, write = os.pipe()
    done = subprocess.run([sys.executable, "-c", READ], stdin=read, capture_output=True, text=True, timeout=60)
    os.close(read)
    os.close(write)
    assert done.stdout == "stdin cannot be opened (nothing came for 0.5 s)\n", done.stderr
    read, write = os.pipe()
    os.write(write, b"G" + bytes(187))  # something comes, but no stream
    done = subprocess.run([sys.executable, "-c", READ], stdin=read, capture_output=True, text=True, timeout=60)
    os.close(read)
    os.close(write)
    assert done.stdout.startswith("stdin cannot be opened ("), done.stderr
    closed = subprocess.run([sys.executable, "-c", READ], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert closed.stdout.startswith("stdin cannot be opened ("), closed.stderr


def test_tracks_are_chosen_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        voices = [out.add_stream("pcm_s16le", rate=rate, layout="mono") for rate in (16_000, 32_000)]
        for voice in voices:
            frame = av.AudioFrame(format="s16", layout="mono", samples=1024)
            frame.sample_rate, frame.pts = voice.rate, 0
            out.mux(voice.encode(frame))
            out.mux(voice.encode(None))
    with opened_live(Address.of(str(path)), 5.0, lambda: False) as container:
        assert chosen(container, "audio", 2).codec_context.sample_rate == 32_000
        assert chosen(container, "audio", 1).codec_context.sample_rate == 16_000
        with pytest.raises(AvbenchError, match="no sound track 3; the stream has 2"):
            chosen(container, "audio", 3)
        with pytest.raises(AvbenchError, match="the stream has no picture"):
            chosen(container, "video", 0)
