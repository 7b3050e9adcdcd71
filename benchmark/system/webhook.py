"""Tell a web address of something: JSON by POST, from a thread of its own, so that a slow receiver delays nobody."""

from __future__ import annotations

import json
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

from avbench import __version__
from avbench.types import UsageError, first_line

TIMEOUT_S = 5.0  # to connect, and for each part of the answer
PAUSES_S = (1.0, 4.0, 15.0)  # before each retry
CAPACITY = 100  # messages that wait; what comes beyond that is dropped and counted
_LEAVE_S = 10.0  # to send what still waits, at the end


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Only the given address is told anything: a redirect is a failure, by its code."""


class Webhook:
    """Sends messages to ``url`` in order. ``say`` gets one line when sending fails, once until one succeeds again.

    ``sent`` and ``failed`` count messages. ``UsageError`` for an address that is not http or https, or that holds a
    password.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        *,
        timeout_s: float = TIMEOUT_S,
        pauses_s: Sequence[float] = PAUSES_S,
        capacity: int = CAPACITY,
    ) -> None:
        check_address(url)
        self.url, self._say, self._timeout_s, self._pauses_s = url, say, timeout_s, pauses_s
        self.sent = self.failed = 0
        self._told = False
        self._leaving = threading.Event()
        self._waiting: queue.Queue[bytes | None] = queue.Queue(capacity)
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._thread = threading.Thread(target=self._run, name="avbench-webhook", daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        """Hand a message to the thread; it is dropped if too many wait already. Never waits."""
        try:
            self._waiting.put_nowait(json.dumps(message, allow_nan=False).encode())
        except queue.Full:
            self._fail(f"{self._waiting.maxsize} messages wait already")

    def close(self, patience_s: float = _LEAVE_S) -> None:
        """Send what still waits, for ``patience_s`` at most; what has not been sent then has failed."""
        self._leaving.set()
        until = time.monotonic() + patience_s
        while self._thread.is_alive() and time.monotonic() < until:
            try:
                self._waiting.put(None, timeout=0.1)
                break
            except queue.Full:
                pass
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._thread.is_alive():
            while not self._waiting.empty():
                if self._waiting.get_nowait() is not None:
                    self.failed += 1
            self._fail("there is no time left at the end")

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        for pause_s in (*self._pauses_s, None):
            problem, final = self._post(message)
            if not problem:
                self.sent += 1
                self._told = False
                return
            if final or pause_s is None:
                break
            self._leaving.wait(pause_s)
        self._fail(problem)

    def _post(self, message: bytes) -> tuple[str, bool]:
        """What went wrong, "" if nothing did; and whether trying again is useless."""
        headers = {"Content-Type": "application/json", "User-Agent": f"avbench/{__version__}"}
        try:
            request = urllib.request.Request(self.url, message, headers, method="POST")  # noqa: S310  (checked)
            with self._opener.open(request, timeout=self._timeout_s):
                return "", True
        except urllib.error.HTTPError as error:
            error.close()
            if error.code // 100 == 3:
                return f"it redirects (status {error.code}), which is not followed", True
            return f"status {error.code}", error.code // 100 == 4 and error.code not in (408, 429)
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            return first_line(reason) if isinstance(reason, Exception) else str(reason), False

    def _fail(self, problem: str) -> None:
        self.failed += 1
        if not self._told:
            self._told = True
            self._say(f"the webhook does not get its messages: {problem}")


def check_address(url: str) -> None:
    """``UsageError`` for an address that is not http or https, or that holds a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        fine = False
    if not fine:
        raise UsageError("the webhook's address is not http://HOST/... or https://HOST/...")
    if parts.username or parts.password:
        raise UsageError("the webhook's address holds a user or password, which is not sent; use a secret path instead")
