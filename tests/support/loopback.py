"""A web server on this machine's loopback that serves one file, with ranges, and misbehaves on request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """``breaks_after``: bytes after which the connection is cut (None: never); ``redirect``: answer with this address
    instead; ``ranges``: whether a part can be asked for. ``asked`` collects the requests: (path, headers)."""

    data: bytes
    etag: str = '"v1"'
    status: int = 200
    breaks_after: int | None = None
    redirect: str = ""
    ranges: bool = True
    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def serving(data: bytes, **how: Any) -> Iterator[Served]:
    served = Served(data, **how)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            served.asked.append((self.path, dict(self.headers)))
            if served.redirect:
                self.send_response(302)
                self.send_header("Location", served.redirect)
                self.end_headers()
                return
            if served.status != 200:
                self.send_error(served.status)
                return
            first, wanted = 0, self.headers.get("Range", "")
            if served.ranges and wanted and self.headers.get("If-Range", served.etag) == served.etag:
                first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(served.data) > 0:
                self.send_error(416)
                return
            body = served.data[first:]
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(served.data) - 1}/{len(served.data)}")
            if served.etag:
                self.send_header("ETag", served.etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body if served.breaks_after is None else body[: served.breaks_after])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
