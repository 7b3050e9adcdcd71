"""The real hub client against the loopback stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from runs import make_run

from avbench.submissions.check import check
from avbench.submissions.pack import pack

REPO = "org/results"


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.create(REPO)
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("push")
    make_run(root / "run")
    return pack(root / "run", root / "entries", "acme", "toy", {"revision": "v1"})


def push(
    hub: LoopbackHub, folder: Path, home: Path, *options: str, token: str | None = "guest", **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avbench", "submit", "push", str(folder), *options]
    return subprocess.run(
        command, capture_output=True, text=True, env=hub.env(home, token, **env), timeout=300, cwd=home
    )


def test_a_guest_opens_a_pull_request(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    done = push(hub, folder, tmp_path, "--repo", REPO)
    assert done.returncode == 0, done.stderr
    repo = hub.repos["dataset", REPO]
    pull = repo.pulls[-1]
    assert done.stdout.strip() == f"{hub.url}/datasets/{REPO}/discussions/{pull.num}"
    assert pull.author == "guest"
    assert pull.title == "Submission acme__toy/v1/synthsync-test"
    assert "claimed (to be recomputed)" in pull.description
    base = "submissions/acme__toy/v1/synthsync-test"
    commit = repo.at(pull.ref)
    assert commit is not None
    assert sorted(commit.files) == [f"{base}/predictions.parquet", f"{base}/submission.json"]
    assert not repo.at("main").files  # type: ignore[union-attr]
    # what arrived is what was checked: it passes the check again
    arrived = tmp_path / "arrived"
    for path, file in commit.files.items():
        (arrived / path).parent.mkdir(parents=True, exist_ok=True)
        (arrived / path).write_bytes(file.data)
    assert check(arrived / base, n_resamples=0).ok


Push = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def push_here(hub: LoopbackHub, avbench: Push, monkeypatch: pytest.MonkeyPatch) -> Push:
    """The same in this process."""

    def run(folder: Path, *options: str, token: str | None = "guest", endpoint: str = hub.url) -> Any:
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", hub.token(token))
        return avbench("submit", "push", folder, "--endpoint", endpoint, *options)

    return run


def refusal(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


def test_without_a_token(push_here: Push, folder: Path) -> None:
    refusal(push_here(folder, "--repo", REPO, token=None), 1, "hf auth login")


def test_no_such_repository(push_here: Push, folder: Path) -> None:
    refusal(push_here(folder, "--repo", "org/nothing"), 1, "there is no dataset repository org/nothing")


def test_nobody_answers(push_here: Push, folder: Path) -> None:
    refusal(push_here(folder, "--repo", REPO, endpoint="http://127.0.0.1:9"), 1, "cannot be reached")


def test_offline(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    refusal(push(hub, folder, tmp_path, "--repo", REPO, HF_HUB_OFFLINE="1"), 1, "HF_HUB_OFFLINE is set")


def test_a_proxy_that_cannot_be_used(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    done = push(hub, folder, tmp_path, "--repo", REPO, ALL_PROXY="socks5://me:secret@127.0.0.1:9")
    refusal(done, 1, "ALL_PROXY names a SOCKS proxy, for which a package is missing: pip install socksio, or unset")
    assert "secret" not in done.stderr


def test_the_hub_forbids_it(hub: LoopbackHub, push_here: Push, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "before", lambda method, path: 403 if "/commit/main" in path else None)
    refusal(push_here(folder, "--repo", REPO), 1, "(403)")


@pytest.mark.parametrize("repo", ["results", "a/b/c", "../x", "org/na me"])
def test_a_wrong_repository_name(push_here: Push, folder: Path, repo: str) -> None:
    refusal(push_here(folder, "--repo", repo), 2, "ORG/NAME")


@pytest.mark.parametrize("endpoint", ["file:///tmp", "example.org", ""])
def test_a_wrong_endpoint(push_here: Push, folder: Path, endpoint: str) -> None:
    refusal(push_here(folder, "--repo", REPO, endpoint=endpoint), 2, "must begin with https://")


def test_a_wrong_submission_is_not_sent(hub: LoopbackHub, push_here: Push, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    wrong = pack(tmp_path / "run", tmp_path / "entries", "acme", "toy", {"revision": "v9"})
    document = json.loads((wrong / "submission.json").read_text())
    document["claimed"]["acc"] = 1.0
    (wrong / "submission.json").write_text(json.dumps(document))
    before = len(hub.requests)
    refusal(push_here(wrong, "--repo", REPO), 2, "claimed.acc")
    assert len(hub.requests) == before
