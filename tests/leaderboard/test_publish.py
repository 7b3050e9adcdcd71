"""A site as a static Space, through the hub's own client and a hub on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for name, text in {"index.html": "<p>the board", "data.json": "[]", "entries/a/b.html": "an entry"}.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    (site / ".hidden").write_text("mine")
    os.symlink("/etc/hostname", site / "link.html")
    return site


def publish(
    hub: LoopbackHub, home: Path, *args: object, token: str | None = "owner"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avbench", "leaderboard", "publish", *map(str, args)]
    return subprocess.run(command, env=hub.env(home, token), capture_output=True, text=True)


def test_a_site_becomes_a_static_space_and_is_replaced(hub: LoopbackHub, site: Path, tmp_path: Path) -> None:
    done = publish(hub, tmp_path / "home", "--space", "org/board", "--site", site, "--title", "Our board: 2026")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/spaces/org/board"
    repo = hub.repos["space", "org/board"]
    head = repo.at()
    assert head is not None
    assert set(head.files) - {".gitattributes"} == {"index.html", "data.json", "entries/a/b.html", "README.md"}
    readme = repo.file("README.md").decode()
    assert readme.startswith("---\ntitle: 'Our board: 2026'\n")
    assert "\nsdk: static\n" in readme

    (site / "entries" / "a" / "b.html").rename(site / "entries" / "a" / "c.html")
    assert publish(hub, tmp_path / "home", "--space", "org/board", "--site", site).returncode == 0
    head = repo.at()
    assert head is not None
    assert "entries/a/c.html" in head.files
    assert "entries/a/b.html" not in head.files


def test_what_is_no_site_or_may_not_be_sent_is_one_line(hub: LoopbackHub, site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for args, token, code in (
        (("--space", "org/board", "--site", tmp_path), "owner", 2),
        (("--space", "no slash", "--site", site), "owner", 2),
        (("--space", "org/board", "--site", site), "guest", 1),
        (("--space", "org/board", "--site", site), None, 1),
    ):
        done = publish(hub, home, *args, token=token)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1), done.stderr
    assert not hub.repos
