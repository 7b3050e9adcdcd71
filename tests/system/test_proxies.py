"""A proxy that cannot be used ends every command that needs the network in one line, without the proxy's password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from avbench.system import proxies

COMMIT = "a" * 40
NEEDS_THE_HUB = [
    ("data", "pull", "org/clips", "--revision", COMMIT),
    ("data", "pull", "org/clips"),
    ("data", "info", f"hub:org/clips@{COMMIT}"),
    ("run", "--model", "xcorr", "--data", f"hub:org/clips@{COMMIT}"),
]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("command", NEEDS_THE_HUB, ids=lambda command: " ".join(command[:2]))
def test_a_socks_proxy_ends_in_one_line(
    command: tuple[str, ...], avbench_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    done = avbench_process(*command)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines == [line for line in lines if line.startswith("avbench: error: ")], done.stderr
    assert lines[0].removeprefix("avbench: error: ") == (
        "ALL_PROXY names a SOCKS proxy, for which a package is missing: pip install socksio, or unset ALL_PROXY"
    )


@pytest.mark.parametrize("address", ["socks9://me:secret@x", "http://[::1", "http://me:secret@host:port", "://"])
def test_an_invalid_proxy_is_named_and_not_shown(
    address: str, avbench_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", address)
    done = avbench_process(*NEEDS_THE_HUB[0])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "https_proxy" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "http_proxy"])
@pytest.mark.parametrize("address", ["socks5://me:secret@127.0.0.1:9", "http://me:secret@127.0.0.1:9", "http://h:port"])
def test_a_download_through_such_a_proxy_ends_in_one_line(
    name: str, address: str, avbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, address)
    for url in ("http://127.0.0.1:9/a.pt", "https://127.0.0.1:9/a.pt"):
        done = avbench("weights", "fetch", "sparsesync.x", "--url", url)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("avbench: error: ")]
        assert f"cannot fetch {url}" in line
        assert ("SOCKS proxy in " + name in line) == address.startswith("socks")
        assert ("a proxy is set in " + name in line) == address.startswith("http")
        assert "secret" not in done.stderr


def test_without_a_proxy_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxies.proxy_settings() == {}
    assert proxies.proxy_hint() == proxies.proxy_hint(socks=False) == ""
    assert proxies.unusable_proxy() is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert proxies.proxy_settings() == {"HTTPS_PROXY": ""}
    assert proxies.proxy_hint() == "; a proxy is set in HTTPS_PROXY"
