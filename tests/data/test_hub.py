"""Hosted data sets: the real client and a stand-in for the hub, from push to a result, and every way it may fail."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import LoopbackHub

from avbench.data import hub as hosted
from avbench.data.media import media_sha256
from avbench.protocol.manifest import read_manifest
from avbench.types import AvbenchError, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
REPO = "org/clicks"
NOBODY = "0" * 40


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def cli(hub: LoopbackHub, avbench: Avbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Avbench:
    """``cli("pull", ...)``: avbench data in this process, with a cache of its own; ``as_`` says who asks."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))

    def run(*args: object, as_: str | None = None) -> subprocess.CompletedProcess[str]:
        if as_ is None:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        else:
            monkeypatch.setenv("HF_TOKEN", f"hf_{as_}")
        return avbench("data", *args, "--endpoint", hub.url)

    return run


@pytest.fixture
def pushed(hub: LoopbackHub, cli: Avbench, clicks: Path) -> str:
    """The commit of the click clips on the hub."""
    done = cli("push", clicks, "--repo", REPO, as_="owner")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[2]


def fails(done: subprocess.CompletedProcess[str], *said: str, code: int = 1) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("avbench: error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in lines[0]


def files_of(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): media_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------ the whole story


def test_push_pull_load_run_and_all_of_it_offline(hub: LoopbackHub, clicks: Path, tmp_path: Path) -> None:
    def avbench(*args: object, token: str | None = None, offline: bool = False) -> subprocess.CompletedProcess[str]:
        env = hub.env(tmp_path / "hf", token=token, offline=offline, AVBENCH_CACHE=str(tmp_path / "cache"))
        command = [sys.executable, "-m", "avbench", *map(str, args)]
        return subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = avbench("data", "push", clicks, "--repo", REPO, token="owner")
    assert done.returncode == 0, done.stderr
    commit = hub.repos["dataset", REPO].refs["main"]
    assert commit in done.stdout
    done = avbench("data", "pull", REPO, "--revision", commit)
    assert done.returncode == 0, done.stderr
    assert f"hub:{REPO}@{commit}" in done.stdout
    pulled = tmp_path / "cache" / "hub" / "org--clicks" / commit
    assert read_manifest(pulled).sha256 == read_manifest(clicks).sha256
    assert read_manifest(pulled).media_root == pulled / "media"
    assert avbench("data", "verify", pulled).returncode == 0
    code = (
        "import datasets, json\n"
        f"segments = datasets.load_dataset('{REPO}', 'segments', revision='{commit}')\n"
        f"clips = datasets.load_dataset('{REPO}', 'clips', revision='{commit}', split='test')\n"
        "columns = segments['test']['offset_s'], clips['path'], clips['sha256']\n"
        "print(json.dumps([list(segments), *map(list, columns)]))\n"
    )
    manifest = read_manifest(clicks)
    expected = [
        ["test"],
        [s.offset_s for s in manifest.segments],
        [c.path for c in manifest.clips.values()],
        [c.sha256 for c in manifest.clips.values()],
    ]
    run = ("run", "--model", "xcorr", "--iterations", "3", "--workers", "1", "--n-resamples", "20", "--json")
    results = []
    for offline in (False, True):
        if offline:
            hub.stop()
            shutil.rmtree(pulled)
        env = hub.env(tmp_path / "hf", offline=offline)
        loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert loaded.returncode == 0, loaded.stderr
        assert json.loads(loaded.stdout) == expected
        done = avbench(*run, "--data", f"hub:{REPO}@{commit}", "--out", "run", "--store", "store", offline=offline)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0]["n_scored"] == 4
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["signature"] == results[1]["signature"]
    # what was never pulled cannot be had offline
    done = avbench("data", "pull", "org/other", "--revision", NOBODY, offline=True)
    fails(done, "HF_HUB_OFFLINE is set", "manifest.json of org/other", "pull it once online")


def test_a_pull_killed_halfway_continues(hub: LoopbackHub, make_clicks: Callable[..., Path], tmp_path: Path) -> None:
    data = make_clicks(clips=("a", "b", "c", "d"), duration_s=8)
    env = hub.env(tmp_path / "hf", token="owner", AVBENCH_CACHE=str(tmp_path / "cache"))
    command = [sys.executable, "-m", "avbench", "data"]
    done = subprocess.run([*command, "push", data, "--repo", REPO], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commit = done.stdout.split()[2]
    out = tmp_path / "out"
    hub.stall_after("media/c.mp4", 1000)
    pull = [*command, "pull", REPO, "--revision", commit, "--out", str(out)]
    process = subprocess.Popen(pull, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert hub.stalled.wait(60)
    deadline = time.monotonic() + 60
    while not all((out / "media" / f"{name}.mp4").exists() for name in "abd") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.go_on.set()
    assert not (out / "media" / "c.mp4").exists()
    assert not (out / "manifest.json").exists()  # an unfinished folder is no data set
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read_manifest(out)
    before = len(hub.requests)
    done = subprocess.run(pull, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fetched = {
        path.rpartition("/")[2] for method, path in hub.requests[before:] if method == "GET" and "resolve" in path
    }
    assert fetched == {"c.mp4", "README.md"}  # the others were there already
    assert files_of(out / "media") == files_of(data / "media")
    assert read_manifest(out).sha256 == read_manifest(data).sha256
    # an undisturbed pull elsewhere gives the same bytes
    done = subprocess.run([*pull[:-1], str(tmp_path / "again")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "again") == files_of(out)


# -------------------------------------------------------------------------------------------------------------- pushing


def test_what_is_hosted(hub: LoopbackHub, pushed: str, clicks: Path) -> None:
    repo = hub.repos["dataset", REPO]
    assert repo.refs["main"] == pushed
    assert list(repo.at(pushed).files) == [
        "README.md",
        "clips.parquet",
        "manifest.json",
        "media/one.mp4",
        "media/two.mp4",
        "segments.parquet",
        "splits/test-clips.parquet",
        "splits/test-segments.parquet",
    ]
    assert json.loads(repo.file("manifest.json"))["media_root"] == "media"
    assert repo.file("segments.parquet") == (clicks / "segments.parquet").read_bytes()
    assert len(repo.commits) == 2  # the empty repository, and everything in one commit
    text = repo.file("README.md").decode()
    for words in ("config_name: segments", "split: test", "comes early", "sha256", "`offset_s`", "schema version 1"):
        assert words in text


def test_pushing_again_sends_only_what_changed(
    hub: LoopbackHub, cli: Avbench, make_clicks: Callable[..., Path]
) -> None:
    first = cli("push", make_clicks("first"), "--repo", REPO, as_="owner")
    puts = [r for r in hub.requests if r[0] == "PUT"]
    assert len(puts) == 6  # two clips and four tables
    again = cli("push", "first", "--repo", REPO, as_="owner")
    assert again.stdout == first.stdout
    assert [r for r in hub.requests if r[0] == "PUT"] == puts
    other = cli("push", make_clicks("second", clips=("one", "three")), "--repo", REPO, as_="owner")
    assert other.returncode == 0, other.stderr
    files = hub.repos["dataset", REPO].at().files
    assert [p for p in files if p.startswith("media/")] == ["media/one.mp4", "media/three.mp4"]
    assert "media/two.mp4" in hub.repos["dataset", REPO].at(first.stdout.split()[2]).files  # the old pin still holds


def test_pushes_that_are_refused(hub: LoopbackHub, cli: Avbench, make_clicks: Callable[..., Path]) -> None:
    data = make_clicks()
    fails(cli("push", data, "--repo", "not a name", as_="owner"), "is not a valid repository name", code=2)
    fails(cli("push", data.parent, "--repo", REPO, as_="owner"), "is not a manifest folder", code=2)
    fails(cli("push", data, "--repo", "org/other", as_="guest"), "your token does not allow this on org/other")
    fails(cli("push", data, "--repo", REPO), "log")
    fails(cli("push", data, "--repo", REPO, as_="stranger"), "rejected the token")
    (data / "media" / "two.mp4").write_bytes(b"another film")
    fails(cli("push", data, "--repo", REPO, as_="owner"), "not pushed: clip two", "has changed (other sha256)")
    (data / "media" / "two.mp4").unlink()
    fails(cli("push", data, "--repo", REPO, as_="owner"), "not pushed: clip two", "does not exist")
    assert ("dataset", REPO) not in hub.repos


def test_private_means_private(hub: LoopbackHub, cli: Avbench, clicks: Path) -> None:
    assert cli("push", clicks, "--repo", REPO, "--private", as_="owner").returncode == 0
    assert hub.repos["dataset", REPO].private
    hub.create("org/open")
    fails(cli("push", clicks, "--repo", "org/open", "--private", as_="owner"), "already exists and is public")
    assert len(hub.repos["dataset", "org/open"].commits) == 1


def test_labels_alone_can_be_hosted_and_meet_their_media_elsewhere(
    hub: LoopbackHub, cli: Avbench, clicks: Path, tmp_path: Path, avbench: Avbench
) -> None:
    done = cli("push", clicks, "--repo", REPO, "--no-media", as_="owner")
    commit = done.stdout.split()[2]
    assert not any(p.startswith("media/") for p in hub.repos["dataset", REPO].at().files)
    fails(cli("pull", REPO, "--revision", commit, "--out", "a"), "has no media/one.mp4")
    done = cli("pull", REPO, "--revision", commit, "--out", "b", "--media-root", clicks / "media")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "b").media_root == clicks / "media"
    assert avbench("data", "verify", "b").returncode == 0
    other = tmp_path / "media"
    shutil.copytree(clicks / "media", other)
    (other / "two.mp4").write_bytes(b"another film")
    fails(cli("pull", REPO, "--revision", commit, "--out", "c", "--media-root", other), "two.mp4 is not the file")
    (other / "two.mp4").unlink()
    (other / "two.mp4").symlink_to(clicks / "media" / "two.mp4")
    fails(cli("pull", REPO, "--revision", commit, "--out", "c", "--media-root", other), "through a link")
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_published_lists_without_media_are_hosted_as_such(
    hub: LoopbackHub, cli: Avbench, avbench: Avbench, tmp_path: Path
) -> None:
    lists = Path(__file__).parent / "lists"
    avbench("data", "import-realsync", "--lists", lists, "--media", "none", "--out", tmp_path / "rs")
    done = cli("push", tmp_path / "rs" / "normal.evaluation", "--repo", REPO, as_="owner")
    assert done.returncode == 0, done.stderr
    commit = done.stdout.split()[2]
    assert "splits/test_broken-segments.parquet" in hub.repos["dataset", REPO].at().files
    done = cli("pull", REPO, "--revision", commit, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "4 clips have labels only" in done.stderr
    rows = pq.read_table(tmp_path / "out" / "segments.parquet").to_pylist()
    assert {"published_offset_s", "broken"} <= set(rows[0])  # its own columns came along
    assert len(rows) == 8


# -------------------------------------------------------------------------------------------------------------- pulling


def test_only_a_commit_is_a_pin(hub: LoopbackHub, cli: Avbench, pushed: str, avbench: Avbench, tmp_path: Path) -> None:
    fails(cli("pull", REPO), "'main' can move", pushed, code=2)
    fails(cli("pull", REPO, "--revision", pushed[:10]), "is abbreviated; give all 40 digits", code=2)
    done = cli("pull", REPO, "--allow-moving", "--out", "here")
    assert done.returncode == 0, done.stderr
    origin = json.loads((tmp_path / "here" / "pulled.json").read_text())
    assert origin == {"repo": REPO, "revision": pushed, "asked_for": "main"}
    for data in (f"hub:{REPO}", f"hub:{REPO}@main", f"hub:{REPO}@{pushed[:12]}", "hub:../x@" + pushed, "hub:@"):
        done = avbench("run", "--model", "xcorr", "--data", data)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_pulls_that_cannot_be(
    hub: LoopbackHub, cli: Avbench, pushed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails(cli("pull", REPO, "--revision", NOBODY), f"{REPO} has no revision {NOBODY}")
    fails(cli("pull", REPO, "--revision", "v9", "--allow-moving"), f"{REPO} has no revision v9")
    fails(cli("pull", "org/none", "--revision", pushed), "there is no data set org/none")
    fails(cli("pull", "none", "--revision", pushed), "is not a valid repository name", code=2)
    fails(cli("pull", REPO, "--revision", pushed, as_="stranger"), "rejected the token")
    hub.create("org/else")
    empty = hub.commit("org/else", {"data.csv": b"1"})
    fails(cli("pull", "org/else", "--revision", empty), "has no manifest.json", "it is not an avbench data set")
    hub.create("org/secret", private=True)
    secret = hub.commit("org/secret", dict(_bytes(hub, pushed)))
    for who in (None, "guest"):
        fails(cli("pull", "org/secret", "--revision", secret, as_=who), "no data set org/secret", "or it is private")
    assert cli("pull", "org/secret", "--revision", secret, "--out", "secret", as_="owner").returncode == 0
    (tmp_path / "file").write_text("")
    fails(cli("pull", REPO, "--revision", pushed, "--out", "file"), "file is not a folder", code=2)
    hub.before = lambda method, path: 403 if "resolve" in path and path.endswith("two.mp4") else None
    done = cli("pull", REPO, "--revision", pushed, "--out", "broken")
    fails(done, REPO)
    assert not (tmp_path / "broken" / "manifest.json").exists()
    for asked, revision in (("paths-info", pushed[::-1]), ("api/datasets", "main")):  # 200, and something else in it
        hub.before = lambda method, path, asked=asked: 200 if asked in path else None  # type: ignore[misc]
        fails(cli("pull", REPO, "--revision", revision, "--out", "odd"), "127.0.0.1")
    hub.stop()
    fails(cli("pull", REPO, "--revision", "main"), "cannot be reached")
    fails(cli("pull", REPO, "--revision", pushed[::-1]), "cannot be reached")
    fails(cli("push", tmp_path / "secret", "--repo", REPO, as_="owner"), "cannot be reached")


def test_an_error_of_our_own_code_is_not_blamed_on_the_hub(
    hub: LoopbackHub, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of these kinds are the errors that the client raises when a server is no hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))

    def broken(*args: object) -> None:
        raise KeyError("a bug of ours")

    repo = hosted.HubRepo(REPO, hub.url, hub.token("owner"))
    with pytest.raises(KeyError, match="a bug of ours"):
        hosted.push(clicks, repo, progress=broken)
    commit = hosted.push(clicks, repo)
    with pytest.raises(KeyError, match="a bug of ours"):
        hosted.pull(repo, commit, tmp_path / "out", progress=broken)
    monkeypatch.setattr(hosted, "card", broken)
    with pytest.raises(KeyError, match="a bug of ours"):
        hosted.push(clicks, repo)


def test_the_cause_of_a_hub_error_is_kept(hub: LoopbackHub, pushed: str, tmp_path: Path) -> None:
    from huggingface_hub.errors import RevisionNotFoundError

    with pytest.raises(AvbenchError, match="has no revision") as caught:
        hosted.pull(hosted.HubRepo(REPO, hub.url), "v9", tmp_path / "out", allow_moving=True)
    assert isinstance(caught.value.__cause__, RevisionNotFoundError)


def _bytes(hub: LoopbackHub, commit: str) -> Iterator[tuple[str, bytes]]:
    for path, file in hub.repos["dataset", REPO].at(commit).files.items():  # type: ignore[union-attr]
        yield path, file.data


def test_a_changed_file_is_refused_and_not_remembered(
    hub: LoopbackHub, cli: Avbench, pushed: str, clicks: Path, tmp_path: Path
) -> None:
    film = (clicks / "media" / "two.mp4").read_bytes()
    hub.tamper(REPO, "media/two.mp4", film[:-1] + b"x", pushed)
    done = cli("pull", REPO, "--revision", pushed, "--out", "out")
    fails(done, "media/two.mp4 is not the file that the manifest pins (other sha256)", "it was discarded")
    assert not (tmp_path / "out" / "media" / "two.mp4").exists()
    assert not (tmp_path / "out" / "manifest.json").exists()
    hub.tamper(REPO, "media/two.mp4", film, pushed)
    assert cli("pull", REPO, "--revision", pushed, "--out", "out").returncode == 0
    # a file that was changed after the pull is put right by pulling again
    (tmp_path / "out" / "media" / "one.mp4").write_bytes(b"damaged, and with it the client's cache")
    assert cli("pull", REPO, "--revision", pushed, "--out", "out").returncode == 0
    assert files_of(tmp_path / "out" / "media") == files_of(clicks / "media")


def test_a_whole_folder_needs_no_hub(hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path) -> None:
    assert cli("pull", REPO, "--revision", pushed, "--out", "out").returncode == 0
    shutil.rmtree(tmp_path / "hf-cache")
    hub.stop()
    done = cli("pull", REPO, "--revision", pushed, "--out", "out")
    assert done.returncode == 0, done.stderr
    fails(cli("pull", REPO, "--revision", NOBODY, "--out", "out"), "cannot be reached")  # another revision is not there
    (tmp_path / "out" / "media" / "one.mp4").write_bytes(b"damaged")
    fails(cli("pull", REPO, "--revision", pushed, "--out", "out"), "cannot be reached")


def test_a_folder_that_holds_something_else_is_kept(
    hub: LoopbackHub, cli: Avbench, pushed: str, clicks: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / "media").mkdir(parents=True)
    for path in (mine / "segments.parquet", mine / "media" / "one.mp4"):
        path.write_text("my own")
    pull = ("pull", REPO, "--revision", pushed, "--out", "mine")
    fails(cli(*pull), "mine already holds media, segments.parquet; give --force", code=2)
    assert not any(r[1].endswith(".mp4") for r in hub.requests if r[0] == "GET"), "told before anything was fetched"
    assert {path.read_text() for path in mine.rglob("*") if path.is_file()} == {"my own"}
    assert cli(*pull, "--force").returncode == 0
    assert files_of(mine / "media") == files_of(clicks / "media")
    assert cli(*pull).returncode == 0, "the same data set may be pulled again"
    other = hub.commit(REPO, {"README.md": b"another commit"})
    fails(cli("pull", REPO, "--revision", other, "--out", "mine"), f"holds {REPO} at {pushed}", code=2)
    assert cli("pull", REPO, "--revision", other, "--out", "mine", "--force").returncode == 0


def test_a_changed_table_is_refused(hub: LoopbackHub, cli: Avbench, pushed: str) -> None:
    table = pq.read_table(io.BytesIO(hub.repos["dataset", REPO].file("segments.parquet")))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, 2), sink)
    hub.tamper(REPO, "segments.parquet", sink.getvalue(), pushed)
    fails(
        cli("pull", REPO, "--revision", pushed, "--out", "out"),
        "segments.parquet is not the table that manifest.json pins",
    )


# --------------------------------------------------------------------------- what is damaged on its way or in the cache


def damage(hub: LoopbackHub, tmp_path: Path, path: str) -> bytes:
    """Other bytes of the same size in the client's cache, in place of one hosted file; returns the right ones."""
    (kept,) = (tmp_path / "hf-cache").rglob(f"snapshots/*/{path}")
    right = kept.read_bytes()
    kept.resolve().unlink()  # a pulled folder may share the bytes
    kept.resolve().write_bytes(right[: len(right) // 2] + bytes(len(right) - len(right) // 2))
    return right


def fetched(hub: LoopbackHub, before: int) -> list[str]:
    """The hosted files that were asked for since, in order."""
    asked = [path for method, path in hub.requests[before:] if method == "GET" and "/resolve/" in path]
    return [path.partition("?")[0].rpartition("/")[2] for path in asked]


@pytest.mark.parametrize("path", ["clips.parquet", "segments.parquet", "manifest.json", "media/one.mp4"])
def test_a_damaged_file_in_the_clients_cache_is_fetched_anew(
    hub: LoopbackHub, cli: Avbench, pushed: str, clicks: Path, tmp_path: Path, path: str
) -> None:
    assert cli("pull", REPO, "--revision", pushed, "--out", "first").returncode == 0
    right = damage(hub, tmp_path, path)
    before = len(hub.requests)
    done = cli("pull", REPO, "--revision", pushed, "--out", "second")
    assert done.returncode == 0, done.stderr
    name = path.rpartition("/")[2]
    assert name in fetched(hub, before)
    assert set(fetched(hub, before)) <= {name, "manifest.json"}  # what is whole is not fetched again
    assert files_of(tmp_path / "second" / "media") == files_of(clicks / "media")
    before = len(hub.requests)
    assert cli("pull", REPO, "--revision", pushed, "--out", "third").returncode == 0
    assert fetched(hub, before) == []  # the right one is kept
    (kept,) = (tmp_path / "hf-cache").rglob(f"snapshots/*/{path}")
    assert kept.read_bytes() == right


def test_a_damaged_file_serves_no_other_revision(
    hub: LoopbackHub, cli: Avbench, pushed: str, clicks: Path, tmp_path: Path
) -> None:
    """The client keeps the bytes once for all revisions: a new one would be linked to the damaged file."""
    assert cli("pull", REPO, "--revision", pushed, "--out", "first").returncode == 0
    later = hub.commit(REPO, {"note.txt": b"nothing else changed"})
    for path in ("segments.parquet", "media/two.mp4"):
        damage(hub, tmp_path, path)
    done = cli("pull", REPO, "--revision", later, "--out", "second")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "second").sha256 == read_manifest(clicks).sha256
    assert files_of(tmp_path / "second" / "media") == files_of(clicks / "media")


@pytest.mark.parametrize("path", ["segments.parquet", "media/two.mp4"])
def test_what_stays_wrong_is_refused_after_one_more_try(
    hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path, path: str
) -> None:
    right = hub.repos["dataset", REPO].file(path)
    hub.tamper(REPO, path, right[:-1] + b"x", pushed)
    before = len(hub.requests)
    fails(cli("pull", REPO, "--revision", pushed, "--out", "out"), path)
    name = path.rpartition("/")[2]
    assert fetched(hub, before).count(name) == 2
    assert not list((tmp_path / "hf-cache").rglob(f"snapshots/*/{path}"))  # nothing wrong is kept
    hub.tamper(REPO, path, right, pushed)
    assert cli("pull", REPO, "--revision", pushed, "--out", "out").returncode == 0


@pytest.mark.parametrize("path", ["segments.parquet", "manifest.json", "media/two.mp4"])
def test_without_the_hub_the_damage_is_named(
    hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path, path: str
) -> None:
    assert cli("pull", REPO, "--revision", pushed, "--out", "first").returncode == 0
    damage(hub, tmp_path, path)
    hub.stop()
    done = cli("pull", REPO, "--revision", pushed, "--out", "second")
    fails(done, path.rpartition("/")[2], "could not be fetched anew", "cannot be reached")
    done = cli("pull", REPO, "--revision", pushed, "--out", "first")
    assert done.returncode == 0, done.stderr  # a whole folder needs neither


def test_a_pulled_folder_that_was_damaged_is_pulled_again(
    hub: LoopbackHub, avbench: Avbench, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avbench.data.dataset import load_split

    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path / "cache"))
    repo = hosted.HubRepo(REPO, hub.url)
    folder = hosted.default_folder(REPO, pushed)
    monkeypatch.setattr(hosted, "parse_address", lambda address: (repo, pushed))
    assert hosted.open_address(f"hub:{REPO}@{pushed}").media_root == folder / "media"
    for name in ("clips.parquet", "manifest.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        assert len(load_split(f"hub:{REPO}@{pushed}", "test")) == 4
        assert len(hosted.open_address(f"hub:{REPO}@{pushed}").segments) == 4
        assert len(read_manifest(folder).segments) == 4


def test_meta_that_was_damaged_is_fetched_anew(hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path) -> None:
    assert cli("pull", REPO, "--revision", pushed, "--out", "first").returncode == 0
    damage(hub, tmp_path, "manifest.json")
    assert hosted.fetch_meta(hosted.HubRepo(REPO, hub.url), pushed)["kind"] == "files"


# ------------------------------------------------------------------------------------------------ a hub is not trusted


def republish(hub: LoopbackHub, folder: Path, change: Callable[[dict[str, Any]], None], **columns: Any) -> str:
    """A hostile commit: the manifest's tables with some column replaced, every hash made right again."""
    import hashlib

    files = dict(_bytes(hub, "main"))
    table = pq.read_table(io.BytesIO(files["clips.parquet"]))
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    files["clips.parquet"] = sink.getvalue()
    meta = json.loads(files["manifest.json"])
    meta["tables"]["clips.parquet"] = hashlib.sha256(files["clips.parquet"]).hexdigest()
    change(meta)
    files["manifest.json"] = json.dumps(meta).encode()
    return hub.commit(REPO, files)


@pytest.mark.parametrize("path", ["../../escaped.mp4", "/tmp/escaped.mp4", "a/../../escaped.mp4", "..\\escaped.mp4"])
def test_no_path_of_a_hosted_manifest_leaves_the_folder(
    hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path, path: str
) -> None:
    commit = republish(hub, tmp_path, lambda meta: None, path=[path, "two.mp4"])
    fails(cli("pull", REPO, "--revision", commit, "--out", "deep/out"), "clips.parquet row 0 column path")
    assert not list(tmp_path.rglob("escaped*"))


def test_a_media_root_elsewhere_is_refused(hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path) -> None:
    for root in ("/etc", "..", "media/../.."):
        commit = republish(hub, tmp_path, lambda meta, root=root: meta.update(media_root=root))  # type: ignore[misc]
        fails(cli("pull", REPO, "--revision", commit, "--out", "out"), "media_root in manifest.json must be 'media'")


def test_nothing_is_written_through_a_link(hub: LoopbackHub, cli: Avbench, pushed: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "media").symlink_to(outside)
    fails(
        cli("pull", REPO, "--revision", pushed, "--out", "out", "--force"),
        "points outside",
        "nothing was written there",
    )
    assert not list(outside.iterdir())
    (tmp_path / "out" / "media").unlink()
    (tmp_path / "out" / "media").mkdir()
    (tmp_path / "out" / "media" / "one.mp4").symlink_to(outside / "one.mp4")
    fails(
        cli("pull", REPO, "--revision", pushed, "--out", "out", "--force"),
        "points outside",
        "nothing was written there",
    )
    assert not list(outside.iterdir())


def test_sizes_are_capped(
    hub: LoopbackHub, cli: Avbench, pushed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(hosted.MAX_BYTES, "media", 1000)
    fails(cli("pull", REPO, "--revision", pushed, "--out", "out"), "media/one.mp4 has", "1000 are allowed")
    assert not [r for r in hub.requests if r[0] == "GET" and r[1].endswith(".mp4")]  # before a byte of it was fetched
    monkeypatch.setattr(hosted, "MAX_ROWS", 1)
    fails(cli("pull", REPO, "--revision", pushed, "--out", "out"), "is too large", "rows")
    monkeypatch.setitem(hosted.MAX_BYTES, "manifest.json", 10)
    monkeypatch.setattr(hosted, "MAX_ROWS", 100)
    shutil.rmtree(tmp_path / "hf-cache")
    fails(cli("pull", REPO, "--revision", pushed, "--out", "out"), "manifest.json has", "10 are allowed")


@pytest.mark.parametrize("meta", [b"[]", b"{", b'{"schema_version": 99}', b"[" * 100_000])
def test_a_manifest_that_is_none(hub: LoopbackHub, cli: Avbench, pushed: str, meta: bytes) -> None:
    commit = hub.commit(REPO, {"manifest.json": meta})
    fails(cli("pull", REPO, "--revision", commit, "--out", "out"), f"{REPO}: manifest.json")


def test_a_table_that_is_none(hub: LoopbackHub, cli: Avbench, pushed: str) -> None:
    commit = hub.commit(REPO, {"clips.parquet": b"PAR1 not at all PAR1"})
    fails(cli("pull", REPO, "--revision", commit, "--out", "out"), "clips.parquet is not a readable parquet table")


def test_the_card_says_whose_event_classes_are_in_the_table(clicks: Path) -> None:
    manifest = read_manifest(clicks)
    for event, credited in (("Bird vocalization, bird call, bird song", True), ("onset", False)):
        segments = tuple(replace(s, events=(event,)) for s in manifest.segments)
        assert (
            "- event classes: AudioSet, CC BY 4.0\n" in hosted.card(replace(manifest, segments=segments))
        ) == credited


def test_names_of_repositories_stay_names() -> None:
    for name in ("a", "a/b/c", "../b", "a/..", "a/b..c", "a/.b", "/b", "a/", "a b/c", "a/b--c", "a" * 99 + "/b"):
        with pytest.raises(UsageError):
            hosted.HubRepo(name)
    assert os.sep not in hosted.default_folder("org/name", NOBODY).parent.name
    with pytest.raises(AvbenchError):
        hosted._inside(Path("/nonexistent-folder-of-a-test"), "../x")
