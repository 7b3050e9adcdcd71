"""``avbench watch`` on streams over the loopback, as a person runs it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from senders import clip, folder_server, free_port, send_live, sending, transport, wait_for_port

from avbench.cli import main

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
LINUX = pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="needs /proc/net to see who receives")


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("watch") / "clip.mp4")


@pytest.fixture(scope="module")
def ts(mp4: Path) -> Path:
    return transport(mp4, mp4.with_suffix(".ts"))


def events(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert {"type", "t_s"} <= set.intersection(*map(set, found))
    return found


def check_changes(text: str, n: int = 2) -> dict[str, Any]:
    """The first ``n`` jumps of the made clip are in the events; the summary."""
    told = events(text)
    changes = [e for e in told if e["type"] == "change"]
    assert len(changes) == n
    for change, at_s, offset_s in zip(changes, (30, 60), (0.4, -0.6), strict=False):
        assert abs(change["t_s"] - at_s) <= 4, "within two hops"
        assert abs(change["to"]["offset_s"] - offset_s) <= 0.02
    assert told[-1]["type"] == "summary"
    windows = told[-1]["windows"]
    assert windows["all_accounted_for"]
    assert windows["computed"] == sum(e["type"] == "window" for e in told)
    assert windows["expected"] == windows["computed"] + windows["skipped"] + windows["uncoverable"]
    return told[-1]


def test_a_pipe(ts: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avbench", "watch", "-", "--model", "xcorr"]
    with open(ts, "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert check_changes(done.stdout)["windows"]["computed"] == 43
    assert done.stderr.startswith("avbench: note: xcorr ")
    assert len(done.stderr.splitlines()) == 1


def test_http_with_a_lost_connection(ts: Path, avbench: Avbench) -> None:
    data = ts.read_bytes()
    with sending(data, drops=(len(data) * 5 // 6, None)) as sender:
        done = avbench("watch", sender.url, "--model", "xcorr+bayes", "--for", "74", "--timeout", "5")
        assert done.returncode == 0, done.stderr
        check_changes(done.stdout)
        done = avbench("watch", sender.url, "--model", "xcorr+bayes", "--for", "40", "--timeout", "5", "--hop", "1")
    assert events(done.stdout)[-1]["windows"]["expected"] == 36


def test_hls(mp4: Path, avbench: Avbench) -> None:
    transport(mp4, mp4.parent / "all.m3u8", "hls", hls_time="4", hls_list_size="0")
    with folder_server(mp4.parent) as base:
        done = avbench("watch", base + "all.m3u8", "--model", "xcorr", "--jsonl")
    assert done.returncode == 0, done.stderr
    check_changes(done.stdout)


@LINUX
@pytest.mark.parametrize(
    ("scheme", "query", "container"),
    [("udp", "?pkt_size=1316", "mpegts"), pytest.param("rtp", "", "rtp_mpegts", marks=pytest.mark.slow)],
)
def test_udp_and_rtp(mp4: Path, avbench: Avbench, scheme: str, query: str, container: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    thread = send_live(mp4, url + query, container, speed=10)
    done = avbench("watch", url, "--model", "xcorr", "--for", "45", "--timeout", "10")
    thread.join()
    assert done.returncode == 0, done.stderr
    check_changes(done.stdout, n=1)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "query", "container"), [("udp", "?pkt_size=1316", "mpegts"), ("rtp", "", "rtp_mpegts")]
)
def test_udp_and_rtp_in_real_time(mp4: Path, avbench: Avbench, scheme: str, query: str, container: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    thread = send_live(mp4, url + query, container, speed=1)
    done = avbench("watch", url, "--model", "xcorr", "--for", "85", "--timeout", "10")
    thread.join()
    assert done.returncode == 0, done.stderr
    check_changes(done.stdout)


@LINUX
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="PyAV cannot serve RTMP, and there is no ffmpeg command")
def test_rtmp(mp4: Path, avbench: Avbench) -> None:
    port = free_port(socket.SOCK_STREAM)
    url = f"rtmp://127.0.0.1:{port}/live/x"
    serve = ["ffmpeg", "-loglevel", "error", "-i", str(mp4), "-c", "copy", "-f", "flv", "-listen", "1", url]
    with subprocess.Popen(serve, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        wait_for_port(port, "tcp")
        done = avbench("watch", url, "--model", "xcorr", "--for", "80", "--timeout", "10")
        server.kill()
    assert done.returncode == 0, done.stderr
    check_changes(done.stdout)


def test_a_broken_address_is_one_line(avbench: Avbench, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/secret?key=1", "udp://127.0.0.1:33995", tmp_path / "none.ts"):
        done = avbench("watch", url, "--model", "xcorr", "--timeout", "0.5")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("avbench: note")]
        assert line.startswith("avbench: error: ")
        assert "key=1" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x://y", "--model", "xcorr"], "x:// is no protocol of live streams"),
        (["-", "--model", "uniform"], "ignores its input"),
        (["-", "--model", "xcorr", "--hop", "0.05"], "hop is 0.05 s"),
        (["-", "--model", "xcorr", "--for", "0"], "--for is 0.0"),
        (["-", "--model", "xcorr", "--timeout", "nan"], "--timeout is nan"),
        (["-", "--model", "xcorr", "--tolerance", "bbc"], "tolerance 'bbc': it is not one of"),
        (["-", "--model", "xcorr", "--alarm-after", "-1"], "must be 0 s or more"),
        (["-", "--model", "xcorr", "--input-option", "x"], "is not KEY=VALUE"),
        (["-", "--model", "xcorr", "--audio-track", "-1"], "tracks are counted from 1"),
        (["-", "--model", "xcorr", "--metrics-host", "x"], "--metrics-host needs --metrics-port"),
        (["-", "--model", "xcorr", "--webhook", "file:///x"], "the webhook's address is not http"),
    ],
)
def test_wrong_requests(avbench: Avbench, words: list[str], said: str) -> None:
    done = avbench("watch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_summary(ts: Path, tmp_path: Path, number: signal.Signals) -> None:
    data = ts.read_bytes()
    with sending(data, bytes_per_s=len(data) / 18) as sender:
        command = [sys.executable, "-m", "avbench", "watch", sender.url, "--model", "xcorr", "--record", "seen"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            assert process.stdout is not None
            first = [process.stdout.readline() for _ in range(3)]
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told = events("".join(first) + out)
    assert [e["type"] for e in told[:3]] == ["window"] * 3
    assert told[-1]["type"] == "summary"
    assert told[-1]["windows"]["all_accounted_for"]
    (part,) = (tmp_path / "seen").iterdir()
    kept = [json.loads(line) for line in part.read_text().splitlines()]
    assert [line["type"] for line in kept] == ["begin", *(e["type"] for e in told)]
    assert {"stream", "model", "fingerprint", "head_fingerprint", "hop_s", "tolerance", "avbench_version"} <= set(
        kept[0]
    )
    assert kept[0]["model"] == "xcorr+bayes"
    assert len(kept[1]["log_p"]) == len(kept[1]["believed"]) == 21


def test_alarms_reach_the_webhook(ts: Path, avbench: Avbench) -> None:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        done = avbench("watch", ts, "--model", "xcorr", "--webhook", hook, "--tolerance", "ebu")
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    alarm = next(e for e in events(done.stdout) if e["type"] == "alarm")
    assert got == [{"stream": str(ts), "model": "xcorr+bayes", **alarm}]
    assert alarm["tolerance"] == "ebu"


@pytest.mark.skipif(not importlib.util.find_spec("prometheus_client"), reason="the extra live is not installed")
def test_the_address_of_the_metrics_is_told(ts: Path, avbench: Avbench) -> None:
    done = avbench("watch", ts, "--model", "xcorr", "--metrics-port", "0", "--for", "10")
    assert done.returncode == 0, done.stderr
    assert "avbench: metrics: http://127.0.0.1:" in done.stderr


def test_a_terminal_gets_a_view_unless_lines_are_asked_for(ts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for more in ([], ["--jsonl"]):
        out = Terminal()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            assert main(["watch", str(ts), "--model", "xcorr", "--for", "12", *more]) == 0
        if more:
            assert events(out.getvalue())[-1]["type"] == "summary"
        else:
            assert "in sync" in out.getvalue()
            assert "the end: 4 windows computed, 0 skipped" in out.getvalue()


@pytest.mark.slow
def test_soak() -> None:
    """One hour of stream, as fast as it goes. ``python tests/support/soak_watch.py`` prints the figures."""
    from soak_watch import check, soak

    check(soak(3600, 0))
