"""What ``avbench watch`` is given in the tests: flashes and clicks whose sound jumps, as MPEG-TS, and servers of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip

JUMPS = ((0.0, 1), (0.4, 2), (-0.6, 3))  # (seconds early, seed) of three parts


def clip(path: Path, part_s: int = 30, parts: Sequence[tuple[float, int]] = JUMPS) -> Path:
    """An mp4 of flashes and clicks, ``part_s`` seconds for each of the parts."""
    made = [click_and_flash(part_s, early_s, seed) for early_s, seed in parts]
    encode_clip(path, np.concatenate([m[0] for m in made]), np.concatenate([m[1] for m in made]))
    return path


def transport(source: Path, path: Path, format: str = "mpegts", later_s: float = 0, **options: str) -> Path:
    """The same in another container, packet by packet, with all stamps ``later_s`` later."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=format, options=options) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is not None and packet.pts is not None:
                later = round(later_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


@dataclass
class Sender:
    """``drops``: after how many bytes the connections are cut, in turn (the last one holds for all further ones; None:
    never). ``bytes_per_s``: how fast it is sent (None: at once). ``refuse``: connections that are turned away."""

    data: bytes
    drops: Sequence[int | None] = (None,)
    bytes_per_s: float | None = None
    refuse: int = 0
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def sending(data: bytes, **how: object) -> Iterator[Sender]:
    """An HTTP server of a live MPEG-TS: it has no length, and begins anew with every connection."""
    sender = Sender(data, **how)  # type: ignore[arg-type]
    served = [0]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            sender.asked.append(self.path)
            if sender.refuse:
                sender.refuse -= 1
                self.send_error(503)
                return
            drop = sender.drops[min(served[0], len(sender.drops) - 1)]
            served[0] += 1
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._send(sender.data[:drop])
            self.close_connection = True

        def _send(self, body: bytes) -> None:
            if not sender.bytes_per_s:
                self.wfile.write(body)
                return
            began = time.monotonic()
            for at in range(0, len(body), 9400):
                time.sleep(max(began + at / sender.bytes_per_s - time.monotonic(), 0))
                self.wfile.write(body[at : at + 9400])

    with _serving(Handler) as port:
        sender.url = f"http://127.0.0.1:{port}/live.ts"
        yield sender


@contextlib.contextmanager
def folder_server(folder: Path, asked: list[str] | None = None) -> Iterator[str]:
    """An HTTP server of the files in a folder; its address. ``asked`` collects the paths."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            if asked is not None:
                asked.append(self.path)

    with _serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/"


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def send_live(source: Path, url: str, format: str, speed: float) -> threading.Thread:
    """Send a file's packets to a udp or rtp ``url`` from a thread that begins when the receiver is there, ``speed``
    times as fast as they are played."""

    def send() -> None:
        wait_for_port(int(url.rpartition(":")[2].partition("?")[0]), "udp")
        with (
            contextlib.suppress(av.FFmpegError, OSError),  # the receiver has seen enough
            av.open(str(source)) as given,
            av.open(url, "w", format=format) as out,
        ):
            streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
            began = time.monotonic()
            for packet in given.demux():
                if packet.dts is not None:
                    due = began + float(packet.dts * packet.time_base) / speed
                    time.sleep(max(due - time.monotonic(), 0))
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def free_port(kind: int) -> int:
    """A port of this machine that nobody uses: ``socket.SOCK_STREAM`` or ``SOCK_DGRAM``."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, protocol: str) -> None:
    """Wait until a process of this machine receives at the port, without connecting to it."""
    deadline = time.monotonic() + 60
    while f":{port:04X} " not in Path(f"/proc/net/{protocol}").read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody receives at {protocol} port {port}")
        time.sleep(0.02)
