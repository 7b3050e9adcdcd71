"""A webhook that is slow, hangs, redirects, refuses or is not there: nobody waits for it, and it is told once."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from avbench.system.webhook import Webhook
from avbench.types import UsageError


class Receiver:
    """Answers with the statuses in turn (the last one for ever), after ``answer()``."""

    def __init__(self, *statuses: int, answer: Callable[[], None] = lambda: None) -> None:
        self.statuses, self.answer = list(statuses) or [200], answer
        self.got: list[Any] = []
        self.paths: list[str] = []
        self.url = ""


@contextlib.contextmanager
def receiving(*statuses: int, answer: Callable[[], None] = lambda: None) -> Iterator[Receiver]:
    receiver = Receiver(*statuses, answer=answer)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_POST(self) -> None:
            receiver.paths.append(self.path)
            receiver.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            receiver.answer()
            statuses = receiver.statuses
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            with contextlib.suppress(OSError):
                self.end_headers()

        do_GET = do_POST

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


def hook(url: str, **how: Any) -> tuple[Webhook, list[str]]:
    said: list[str] = []
    return Webhook(url, said.append, **{"timeout_s": 5.0, "pauses_s": (0.01, 0.02, 0.03), **how}), said


def test_messages_arrive_in_order_as_json() -> None:
    with receiving() as receiver:
        webhook, said = hook(receiver.url)
        for k in range(5):
            webhook.send({"type": "alarm", "k": k, "text": "ü"})
        webhook.close()
    assert [m["k"] for m in receiver.got] == list(range(5))
    assert receiver.got[0] == {"type": "alarm", "k": 0, "text": "ü"}
    assert (webhook.sent, webhook.failed, said) == (5, 0, [])


def test_a_failure_is_tried_again_three_times() -> None:
    with receiving(503, 500, 429, 200) as receiver:
        webhook, said = hook(receiver.url)
        webhook.send({"k": 1})
        webhook.close()
    assert len(receiver.got) == 4
    assert (webhook.sent, webhook.failed, said) == (1, 0, [])


def test_a_failure_that_stays_is_counted_and_told_once_until_it_is_over() -> None:
    with receiving(500) as receiver:
        webhook, said = hook(receiver.url, pauses_s=())
        for k in range(3):
            webhook.send({"k": k})
        _wait(lambda: webhook.failed == 3)
        assert said == ["the webhook does not get its messages: status 500"]
        receiver.statuses[:] = [200]
        webhook.send({"k": 3})
        _wait(lambda: webhook.sent == 1)
        receiver.statuses[:] = [404]
        webhook.send({"k": 4})
        webhook.close()
    assert (webhook.sent, webhook.failed) == (1, 4)
    assert said[1:] == ["the webhook does not get its messages: status 404"]


@pytest.mark.parametrize(("status", "tries"), [(301, 1), (302, 1), (307, 1), (308, 1), (403, 1), (404, 1), (500, 4)])
def test_redirects_are_not_followed_and_refusals_are_final(status: int, tries: int) -> None:
    with receiving(status) as receiver:
        webhook, said = hook(receiver.url)
        webhook.send({})
        webhook.close()
    assert receiver.paths == ["/hook"] * tries
    assert webhook.failed == 1
    assert ("redirects" in said[0]) == (status // 100 == 3)


def test_a_receiver_that_hangs_delays_nobody() -> None:
    release = threading.Event()
    with receiving(answer=lambda: bool(release.wait(30))) as receiver:
        webhook, said = hook(receiver.url, capacity=3, timeout_s=30.0)
        for k in range(10):
            webhook.send({"k": k})  # would hang here
        _wait(lambda: len(receiver.got) == 1)
        assert webhook.failed >= 6, "one is on its way and three wait"
        assert said == ["the webhook does not get its messages: 3 messages wait already"]
        webhook.close(patience_s=0.3)
        assert webhook.failed == 10
        release.set()


def test_a_receiver_that_is_not_there_or_answers_nonsense() -> None:
    webhook, said = hook("http://127.0.0.1:9/x")
    webhook.send({})
    webhook.close()
    assert (webhook.failed, len(said)) == (1, 1)
    with receiving(answer=lambda: (_ for _ in ()).throw(OSError)) as receiver:
        receiver.answer = lambda: 1 / 0  # the connection breaks off
        webhook, said = hook(receiver.url, pauses_s=())
        webhook.send({})
        webhook.close()
    assert (webhook.failed, len(said)) == (1, 1)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "file:///etc/passwd", "host/x", "http://", "http://host:0x/", "http://user:pw@host/", ""]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="webhook's address") as caught:
        Webhook(url, print)
    assert "pw" not in str(caught.value)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
