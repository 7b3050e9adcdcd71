"""Open what a person names as a live stream: a network address, a pipe on stdin, a file, a capture device.

A stream is untrusted, as a file is: FFmpeg may use the protocols that the given address needs and no other, so that a
playlist from the network cannot open files of this machine, and only containers of picture and sound.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.data.streams import CONTAINERS, WORDS, reason_of, tracks_of
from avbench.system.paths import why_no_file
from avbench.types import AvbenchError, UsageError, printable

if TYPE_CHECKING:
    import av

STDIN = "-"
_HTTP = "http,https,httpproxy,tls,tcp,crypto"  # crypto: encrypted HLS
# the protocols that a stream may use, by the scheme of its address
PROTOCOLS = {
    "udp": "udp",
    "rtp": "rtp,udp",
    "srt": "srt",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "tcp": "tcp",
    "rtsp": "rtsp,rtp,srtp,udp,tcp",
    "rtsps": "rtsp,rtp,srtp,udp,tcp,tls",
    "http": _HTTP,
    "https": _HTTP,
}
# containers that only streams have: HLS and what its segments may be, RTP, RTSP
_STREAMED = ("hls", "aac", "mp3", "ac3", "eac3", "rtp", "rtsp", "sdp")
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream comes from. ``shown``: the address as it may be printed, without passwords and query. ``ends``:
    whether its end is the end of the stream, so that there is nothing to connect to again."""

    url: str
    shown: str
    ends: bool
    options: Mapping[str, str] = field(repr=False)
    format: str = ""

    @classmethod
    def of(cls, url: str, format: str = "", options: Mapping[str, str] | None = None) -> Address:
        """``format``: FFmpeg's name of a container or capture device ("": found out). ``options``: more of FFmpeg's.
        ``UsageError`` for an address that is none, or with a protocol that is not known here."""
        given = dict(options or {})
        containers = {"format_whitelist": ",".join(CONTAINERS)}
        if url == STDIN:
            return cls(url, "stdin", True, given | containers | {"protocol_whitelist": ""}, format)
        scheme, colon, _ = url.partition("://")
        if not colon:
            if format and not os.path.exists(url):  # a capture device by its name
                return cls(url, printable(url), False, given, format)
            if not format and (problem := why_no_file(Path(url))):
                raise AvbenchError(
                    f"{printable(url)} {problem}; give an address such as udp://..., a file, or - (stdin)"
                )
            device = {} if format else containers | {"protocol_whitelist": "file"}
            return cls(os.path.abspath(url), printable(url), not format, given | device, format)
        if scheme not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise UsageError(
                f"{printable(scheme)}:// is no protocol of live streams known here ({known}, or - for stdin)"
            )
        only = {
            "format_whitelist": ",".join((*CONTAINERS, *_STREAMED)),
            "protocol_whitelist": PROTOCOLS[scheme],
            "overrun_nonfatal": "1",  # udp: where decoding is too slow, packets are lost, not the connection
        }
        return cls(url, shown(url), False, given | only, format)


def shown(url: str) -> str:
    """An address as it may be printed and kept: its user, password, query and fragment are left out."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return printable(url.partition("://")[0]) + "://..."
    return printable(urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", "")))


@contextlib.contextmanager
def opened_live(
    address: Address, timeout_s: float, stopped: Callable[[], bool]
) -> Iterator[av.container.InputContainer]:
    """Open the stream. It is given up where nothing comes for ``timeout_s``, and on a pipe when ``stopped()``.

    ``AvbenchError``: it cannot be opened, in one line. While it is read, FFmpeg's errors come as they are.
    A pipe is only given up until it is open.
    """
    import av

    pipe = _Pipe(timeout_s, stopped) if address.url == STDIN else None
    source: Any = pipe or address.url
    try:
        container = av.open(
            source,
            format=address.format or None,
            metadata_errors="replace",
            options=dict(address.options),
            timeout=(timeout_s, timeout_s),
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AvbenchError(f"{address.shown} cannot be opened ({why_not(error, timeout_s)})") from error
    if pipe:
        pipe.opened = True
    with container:
        yield container


def why_not(error: Exception, timeout_s: float) -> str:
    """Why a stream cannot be opened or read on, in a few words."""
    import av

    if isinstance(error, av.error.ExitError):
        return f"nothing came for {timeout_s:g} s"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return (
            "the FFmpeg inside PyAV lacks this protocol; let another FFmpeg receive it: "
            "ffmpeg -i URL -c copy -f mpegts - | avbench watch -"
        )
    if isinstance(error, ValueError) and not isinstance(error, av.FFmpegError):
        return "no such format" if "format" in str(error) else printable(str(error))
    return reason_of(error)


def chosen(container: av.container.InputContainer, kind: str, number: int, related: Any = None) -> Any:
    """The picture or sound stream ("video", "audio") that is read: number ``number`` of its kind, or FFmpeg's choice
    (0), in the same programme as ``related``. ``AvbenchError``: there is none, or it cannot be decoded."""
    there = tracks_of(container, kind)
    if not there:
        raise AvbenchError(f"the stream has no {WORDS[kind]}")
    if number > len(there):
        raise AvbenchError(f"there is no {WORDS[kind]} track {number}; the stream has {len(there)}")
    best = there[number - 1] if number else container.streams.best(kind, related=related)  # type: ignore[arg-type]
    stream: Any = best if best in there else there[0]
    if stream.codec_context is None:
        raise AvbenchError(f"the {WORDS[kind]} cannot be decoded (no decoder for its codec)")
    return stream


class _Pipe:
    """Stdin for FFmpeg, read until ``stopped()``. ``TimeoutError`` if nothing comes for ``timeout_s`` before the stream
    is ``opened``; after that a pause is a pause, for there is nobody to connect to again."""

    def __init__(self, timeout_s: float, stopped: Callable[[], bool]) -> None:
        self._timeout_s, self._stopped, self.opened = timeout_s, stopped, False
        try:
            self._file = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):
            raise UsageError("stdin is closed; pipe a stream into it") from None
        if os.isatty(self._file):
            raise UsageError("stdin is a terminal; pipe a stream into it: ... | avbench watch -")

    def read(self, n_bytes: int) -> bytes:
        """The next bytes; b"" at the end."""
        until = time.monotonic() + self._timeout_s
        while not self._stopped():
            if select.select([self._file], [], [], _POLL_S)[0]:
                return os.read(self._file, n_bytes)
            if not self.opened and time.monotonic() > until:
                raise TimeoutError(f"nothing came for {self._timeout_s:g} s")
        return b""
