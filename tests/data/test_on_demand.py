"""Hosted data larger than what may be kept: the real client, a stand-in for the hub, and a cap of two clips' size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from loopback_hub import LoopbackHub

from avbench.data import on_demand
from avbench.data.on_demand import OnDemand, media_of, open_tables
from avbench.data.opening import read_data
from avbench.types import MediaError, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
REPO = "org/clicks"
CLIPS = ("a", "b", "c", "d", "e")
OPTIONS = ("--model", "xcorr+apa", "--iterations", "1", "--n-resamples", "20", "--no-reference-rows", "--workers", "1")


class Hosted(NamedTuple):
    """A data set on a hub. ``cap``: bytes of two of its clips, the largest ones."""

    hub: LoopbackHub
    address: str
    sizes: dict[str, int]
    folder: Path  # the manifest folder that was published

    @property
    def cap(self) -> int:
        return 2 * max(self.sizes.values())

    def fetched(self) -> list[str]:
        """The clips that were asked for, in this order."""
        asked = [path for method, path in self.hub.requests if method == "GET" and "/resolve/" in path]
        return [path.rpartition("/")[2].removesuffix(".mp4") for path in asked if path.endswith(".mp4")]


@pytest.fixture
def hosted(five_clicks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hosted]:
    """Five clips on a hub, which this process and its workers take for the hub."""
    from huggingface_hub import constants

    with LoopbackHub() as hub:
        for name, value in hub.env(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        hub.create(REPO)
        files = {p.relative_to(five_clicks).as_posix(): p.read_bytes() for p in five_clicks.rglob("*") if p.is_file()}
        commit = hub.commit(REPO, files)
        sizes = {name: len(files[f"media/{name}.mp4"]) for name in CLIPS}
        yield Hosted(hub, f"hub:{REPO}@{commit}", sizes, five_clicks)


def media(hosted: Hosted, keep_bytes: int | None = None) -> OnDemand:
    found = media_of(open_tables(hosted.address), keep_bytes)
    assert found is not None
    return found


class Watched(NamedTuple):
    peak_bytes: list[int]

    @property
    def most(self) -> int:
        return max(self.peak_bytes)


@contextmanager
def watched(root: Path) -> Iterator[Watched]:
    """Looks all the time at the bytes of all media files, whole or on their way, that are below a folder."""
    seen, over = Watched([0]), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.peak_bytes.append(bytes_below(root))
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def bytes_below(folder: Path) -> int:
    """Bytes of the files that are there at one moment: those that are seen before it and after it."""
    before, after = files_below(folder), files_below(folder)
    return sum(n_bytes for number, n_bytes in before.items() if number in after)


def files_below(folder: Path) -> dict[int, int]:
    """Number on the disk (a file that is moved keeps it) -> bytes, of all media files below a folder."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            if {"media", "incoming"} & set(Path(at).relative_to(folder).parts):
                with suppress(FileNotFoundError):
                    facts = os.stat(os.path.join(at, name))
                    found[facts.st_ino] = facts.st_size
    return found


def predictions(out: Path) -> bytes:
    return (out / "predictions.parquet").read_bytes()


# ------------------------------------------------------------------------------------------------------ the whole story


def test_a_cap_of_two_clips_evaluates_the_whole_set(
    hosted: Hosted, avbench: Avbench, tmp_path: Path, own_cache: Path
) -> None:
    run = ("run", *OPTIONS, "--data", hosted.address, "--fetch", "on-demand", "--keep-media", f"{hosted.cap}B")
    with watched(own_cache / "on-demand") as seen:
        done = avbench(*run, "--out", "out", "--store", "store")
    assert done.returncode == 0, done.stderr
    assert sorted(hosted.fetched()) == sorted(CLIPS), "each clip once"
    assert hosted.cap / 2 < seen.most <= hosted.cap
    assert bytes_below(tmp_path / "hf") == 0, "the client keeps no second copy"
    folder = own_cache / "on-demand" / "org--clicks" / hosted.address.partition("@")[2]
    assert 0 < bytes_below(folder) <= hosted.cap
    whole = avbench("run", *OPTIONS, "--data", hosted.folder, "--out", "whole", "--store", "other")
    assert whole.returncode == 0, whole.stderr
    assert predictions(tmp_path / "out") == predictions(tmp_path / "whole")
    assert json.loads((tmp_path / "out/run.json").read_text())["n_scored"] == 2 * len(CLIPS)
    # all is stored: the hub need not be there
    hosted.hub.stop()
    again = avbench(*run, "--out", "again", "--store", "store")
    assert again.returncode == 0, again.stderr
    assert predictions(tmp_path / "again") == predictions(tmp_path / "out")
    # and the cache says what it holds
    listed = avbench("data", "cache")
    n_kept = len(list((folder / "media").iterdir()))
    assert f"{n_kept} of {len(CLIPS)}" in listed.stdout
    pruned = avbench("data", "cache", "--prune", hosted.address)
    assert pruned.returncode == 0, pruned.stderr
    assert bytes_below(folder) == 0


# ------------------------------------------------------------------------------------------------------ opening a clip


def test_readers_hold_their_files_and_let_them_go(hosted: Hosted) -> None:
    found = media(hosted, hosted.cap)
    assert found.at_once == 2
    clips = list(found.manifest.clips.values())
    readers = [found(clip) for clip in clips[:2]]
    kept = [held.path for held in found.cache.listing()]
    assert kept == ["a.mp4", "b.mp4"]
    assert not found.fetch_ahead(clips[2]), "both are in use"
    assert len(readers[0].audio()) == clips[0].n_samples
    del readers[0]
    assert found.fetch_ahead(clips[2])
    assert [held.path for held in found.cache.listing()] == ["b.mp4", "c.mp4"]


def test_what_is_damaged_on_the_disk_is_fetched_anew(hosted: Hosted) -> None:
    found = media(hosted)
    clip = found.manifest.clips["a"]
    path = found(clip).path
    path.write_bytes(b"damaged")
    assert len(found(clip).audio()) == clip.n_samples
    assert hosted.fetched() == ["a", "a"]


def test_a_wrong_file_is_fetched_anew_once_and_then_named(hosted: Hosted) -> None:
    found = media(hosted)
    hosted.hub.tamper(REPO, "media/b.mp4", b"?" * hosted.sizes["b"], hosted.address.partition("@")[2])
    with pytest.raises(MediaError, match=r"clip b: media/b.mp4 of org/clicks is not the file that the manifest pins"):
        found(found.manifest.clips["b"])
    assert hosted.fetched() == ["b", "b"]
    assert found.cache.listing() == []
    found(found.manifest.clips["a"])


def test_a_network_that_is_gone(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "TRY_AGAIN_S", (0.01, 0.01))
    found = media(hosted)
    held = found(found.manifest.clips["a"])
    hosted.hub.stop()
    with pytest.raises(MediaError, match=r"clip b: not fetched: .* cannot be reached") as refused:
        found(found.manifest.clips["b"])
    assert "b.mp4" not in refused.value.reason, "one line for all clips that fail so"
    assert len(held.audio())
    assert found(found.manifest.clips["a"]).path == held.path, "what is there needs no network"


def test_a_full_disk_is_said(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    found = media(hosted)
    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(MediaError, match=r"clip a: not fetched: the disk of .* is full"):
        found(found.manifest.clips["a"])


def test_the_next_few_are_fetched_ahead_and_no_more(hosted: Hosted) -> None:
    found = media(hosted)
    clips = list(found.manifest.clips.values())
    reach = 1 + on_demand.AHEAD

    def fetched(n: int) -> bool:
        until_s = time.monotonic() + 60
        while len(found.cache.listing()) < n and time.monotonic() < until_s:
            time.sleep(0.01)
        return len(found.cache.listing()) == n

    with found.ahead(clips, 1) as done:
        assert fetched(reach)
        time.sleep(0.1)
        assert fetched(reach), "no more than that"
        done(clips[0])
        assert fetched(reach + 1)
    assert hosted.fetched() == list(CLIPS[: reach + 1])


def test_what_cannot_be_fetched_ahead_is_left_to_its_turn(hosted: Hosted) -> None:
    found = media(hosted)
    clips = list(found.manifest.clips.values())
    hosted.hub.tamper(REPO, "media/a.mp4", b"?", hosted.address.partition("@")[2])
    with found.ahead(clips[:2], 1) as done:
        done(clips[0])
        until_s = time.monotonic() + 60
        while not found.cache.listing() and time.monotonic() < until_s:
            time.sleep(0.01)
    assert [held.path for held in found.cache.listing()] == ["b.mp4"]


# ------------------------------------------------------------------------------------------------------ asking for it


def test_a_cap_below_the_largest_clip_is_refused_at_once(hosted: Hosted, avbench: Avbench) -> None:
    largest = max(hosted.sizes.values())
    words = ("run", *OPTIONS, "--data", hosted.address, "--fetch", "on-demand", "--keep-media", f"{largest - 1}B")
    done = avbench(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"has {largest} bytes" in done.stderr
    assert "give at least --keep-media 1MB" in done.stderr
    assert hosted.fetched() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "synthsync", "--fetch", "on-demand"), "synthsync is not hosted"),
        (("--keep-media", "20GB"), "--keep-media goes with --fetch on-demand"),
        (("--fetch", "on-demand", "--keep-media", "much"), "'much' is no size such as 500MB or 20GB"),
        (("--fetch", "on-demand", "--data", "hub:org/clicks@main"), "'main' can move"),
    ],
)
def test_impossible_requests(avbench: Avbench, words: Sequence[str], said: str) -> None:
    done = avbench("run", "--model", "xcorr", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_a_cache_that_is_empty(avbench: Avbench) -> None:
    assert avbench("data", "cache", "--json").stdout == "[]\n"
    assert "0 data sets" in avbench("data", "cache", "--prune", "all").stderr
    done = avbench("data", "cache", "--prune", "hub:org/other@" + "0" * 40)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_what_was_pulled_whole_is_used_where_it_is(hosted: Hosted) -> None:
    whole = read_data(hosted.address)
    manifest = read_data(hosted.address, on_demand=True)
    assert manifest.media_root == whole.media_root
    assert media_of(manifest, 1) is None


def test_damaged_tables_are_fetched_anew(hosted: Hosted) -> None:
    folder = open_tables(hosted.address).media_root.parent
    (folder / "segments.parquet").write_bytes(b"damaged")
    assert open_tables(hosted.address).sha256 == read_data(str(hosted.folder)).sha256


def test_pictures_and_sound_only_of_what_is_asked_for(hosted: Hosted) -> None:
    """Of the first segments' clips alone the sizes are asked, so that a small part may be run with a small cap."""
    found = media_of(read_data(hosted.address, limit=2, on_demand=True), hosted.sizes["a"])
    assert found is not None
    assert list(found.sizes) == ["a.mp4"]
    with pytest.raises(UsageError, match="the largest clip"):
        media_of(read_data(hosted.address, on_demand=True), min(hosted.sizes.values()) - 1)


# -------------------------------------------------------------------------------------- killed, shared, several at once


def start(hosted: Hosted, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "avbench", "run", *OPTIONS, "--data", hosted.address, "--fetch", "on-demand"]
    command += ["--keep-media", f"{hosted.cap}B", *more]
    folder.mkdir(exist_ok=True)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, preexec_fn=heed, **pipes)  # type: ignore[call-overload, no-any-return]


def finished(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return err


@pytest.fixture
def expected(hosted: Hosted, avbench: Avbench, tmp_path: Path) -> bytes:
    """The predictions with all media at hand."""
    done = avbench("run", *OPTIONS, "--data", hosted.folder, "--out", tmp_path / "whole", "--store", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    return predictions(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_resumed(
    hosted: Hosted, expected: bytes, tmp_path: Path, own_cache: Path, how: signal.Signals
) -> None:
    hosted.hub.stall_after("media/c.mp4", 1000)
    with watched(own_cache / "on-demand") as seen:
        process = start(hosted, tmp_path, "--out", "out", "--store", "store")
        assert hosted.hub.stalled.wait(100)
        until_s = time.monotonic() + 100
        while len(list((tmp_path / "store").rglob("*.safetensors"))) < 2 and time.monotonic() < until_s:
            time.sleep(0.02)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode != 0
        hosted.hub.go_on.set()
        hosted.hub.requests.clear()
        finished(start(hosted, tmp_path, "--out", "out", "--store", "store"))
    again = hosted.fetched()
    assert "c" in again
    assert set(again) <= {"c", "d", "e"}, "what was stored is not fetched again"
    assert len(again) == len(set(again))
    assert seen.most <= hosted.cap
    assert predictions(tmp_path / "out") == expected


@pytest.mark.slow
def test_each_share_fetches_its_own_clips(hosted: Hosted, expected: bytes, tmp_path: Path) -> None:
    asked = []
    for i in (1, 2):
        hosted.hub.requests.clear()
        finished(start(hosted, tmp_path, "--shard", f"{i}/2", "--store", "store"))
        asked.append(set(hosted.fetched()))
    assert asked[0] | asked[1] == set(CLIPS)
    assert not asked[0] & asked[1]
    finished(start(hosted, tmp_path, "--out", "out", "--store", "store"))
    assert predictions(tmp_path / "out") == expected


@pytest.mark.slow
def test_two_runs_share_one_cache(hosted: Hosted, expected: bytes, tmp_path: Path, own_cache: Path) -> None:
    with watched(own_cache / "on-demand") as seen:
        both = [start(hosted, tmp_path / name, "--out", "out", "--store", "store") for name in ("one", "two")]
        for process in both:
            finished(process)
    assert seen.most <= hosted.cap
    assert predictions(tmp_path / "one/out") == predictions(tmp_path / "two/out") == expected


@pytest.mark.slow
def test_several_workers_and_torchrun(hosted: Hosted, expected: bytes, tmp_path: Path, own_cache: Path) -> None:
    with watched(own_cache / "on-demand") as seen:
        finished(start(hosted, tmp_path, "--workers", "3", "--out", "out", "--store", "store"))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        run = ["run", *OPTIONS, "--data", hosted.address, "--fetch", "on-demand", "--keep-media", f"{hosted.cap}B"]
        command = [*launcher, "avbench", *run, "--out", "out2", "--store", "store2"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert seen.most <= hosted.cap
    assert predictions(tmp_path / "out") == predictions(tmp_path / "out2") == expected


@pytest.mark.slow
def test_a_network_that_goes_in_the_middle_leaves_a_partial_run(
    hosted: Hosted, expected: bytes, tmp_path: Path
) -> None:
    hosted.hub.before = lambda method, path: 503 if path.endswith(("d.mp4", "e.mp4")) else None
    process = start(hosted, tmp_path, "--out", "out", "--store", "store")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    failed = [line for line in err.splitlines() if line.startswith("avbench: failed: ")]
    assert [line.partition(": not fetched: ")[0].split()[-1] for line in failed] == ["d", "e"], err
    assert all("answered 503" in line for line in failed)
    assert "Retrying" not in err
    hosted.hub.before = None
    hosted.hub.requests.clear()
    finished(start(hosted, tmp_path, "--out", "out", "--store", "store"))
    assert sorted(hosted.fetched()) == ["d", "e"]
    assert predictions(tmp_path / "out") == expected


@pytest.mark.slow
def test_sweep_and_paper_take_it_too(hosted: Hosted, avbench: Avbench) -> None:
    words = ("--data", hosted.address, "--fetch", "on-demand", "--keep-media", f"{hosted.cap}B", "--store", "store")
    done = avbench("sweep", "--models", "xcorr", "--iterations", 1, "--n-resamples", 20, *words)
    assert done.returncode == 0, done.stderr
    assert sorted(hosted.fetched()) == sorted(CLIPS)
