"""A cache smaller than what goes through it: never over its cap, nothing taken from those who use it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from avbench.data import media_cache
from avbench.data.media_cache import Lock, MediaCache, key_of
from avbench.types import AvbenchError

MB = 1000


@pytest.fixture
def cache(tmp_path: Path) -> MediaCache:
    return MediaCache(tmp_path, 2 * MB)


def fetch(folder: Path) -> Path:
    (folder / "x").write_bytes(b"x" * MB)
    return folder / "x"


def at_hand(cache: MediaCache, path: str) -> Lock:
    return cache.at_hand(path, MB, fetch, lambda file: True, f"clip {path}")


def there(cache: MediaCache) -> list[str]:
    return [held.path for held in cache.listing()]


def bytes_in(folder: Path) -> int:
    return sum(p.stat().st_size for below in ("media", "incoming") for p in (folder / below).rglob("*") if p.is_file())


def test_the_least_recently_needed_makes_room(cache: MediaCache) -> None:
    at_hand(cache, "a").release()
    at_hand(cache, "sub/b").release()
    at_hand(cache, "a").release()
    at_hand(cache, "c").release()
    assert there(cache) == ["a", "c"]
    assert bytes_in(cache.folder) == 2 * MB
    assert {p.name for p in (cache.folder / "held").iterdir()} == {key_of("a"), key_of("c")}, "no lock is left over"


def test_what_is_in_use_stays_and_others_wait(cache: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [at_hand(cache, "a"), at_hand(cache, "b")]
    monkeypatch.setattr(media_cache, "WAIT_S", 0.0)
    with pytest.raises(AvbenchError, match="all are in use, so there is no room for clip c"):
        at_hand(cache, "c")
    assert there(cache) == ["a", "b"]
    monkeypatch.setattr(media_cache, "WAIT_S", 60.0)
    waiting = threading.Thread(target=lambda: at_hand(cache, "c").release())
    waiting.start()
    del held[0]  # nothing refers to the lock any more
    waiting.join(30)
    assert there(cache) == ["b", "c"]


def test_what_was_fetched_ahead_stays_until_there_is_no_other_way(cache: MediaCache) -> None:
    assert cache.fetch_ahead("a", MB, fetch)
    at_hand(cache, "b").release()
    assert cache.fetch_ahead("c", MB, fetch), "b was used and makes room"
    assert there(cache) == ["a", "c"]
    assert not cache.fetch_ahead("d", MB, fetch), "two are needed soon"
    in_use = at_hand(cache, "a")
    assert not cache.fetch_ahead("d", MB, fetch)
    at_hand(cache, "e").release()
    assert there(cache) == ["a", "e"], "a clip whose turn has come takes the place of one fetched ahead"
    in_use.release()


def test_a_file_that_another_fetches_is_not_fetched_twice(cache: MediaCache) -> None:
    begun, go_on, n_fetched = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> Path:
        n_fetched.append(1)
        begun.set()
        assert go_on.wait(60)
        return fetch(folder)

    def need() -> None:
        cache.at_hand("a", MB, slow, lambda file: True, "clip a")

    threads = [threading.Thread(target=need) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    assert cache.fetch_ahead("a", MB, slow), "somebody sees to it"
    assert bytes_in(cache.folder) == 0
    at_hand(cache, "b").release()
    assert not cache.fetch_ahead("c", 2 * MB, fetch), "what is on its way counts"
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert (n_fetched, there(cache)) == ([1], ["b", "a"])


def test_a_damaged_file_is_fetched_anew(cache: MediaCache) -> None:
    at_hand(cache, "a").release()
    (cache.folder / "media" / "a").write_bytes(b"?")
    cache.at_hand("a", MB, fetch, lambda file: file.stat().st_size == MB, "clip a").release()
    assert (cache.folder / "media" / "a").read_bytes() == b"x" * MB


def test_a_fetch_that_fails_leaves_nothing(cache: MediaCache) -> None:
    def broken(folder: Path) -> Path:
        (folder / "part").write_bytes(b"x" * 10)
        raise AvbenchError("no network")

    with pytest.raises(AvbenchError, match="no network"):
        cache.at_hand("a", MB, broken, lambda file: True, "clip a")
    assert bytes_in(cache.folder) == 0
    at_hand(cache, "a").release()


def test_a_killed_process_holds_nothing(cache: MediaCache) -> None:
    code = (
        "import os, sys; from pathlib import Path; from avbench.data.media_cache import MediaCache\n"
        "def fetch(folder):\n"
        "    (folder / 'x').write_bytes(b'x' * 900); print('now', flush=True); sys.stdin.read(); return folder / 'x'\n"
        "MediaCache(Path(sys.argv[1]), 2000).at_hand('a', 1000, fetch, lambda file: True, 'clip a')\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code, str(cache.folder)], **pipes)  # type: ignore[call-overload]
    assert other.stdout.readline() == b"now\n"
    assert bytes_in(cache.folder) == 900
    assert not cache.fetch_ahead("b", 1500, fetch)
    other.kill()
    other.communicate()
    assert cache.fetch_ahead("b", 1500, fetch), "what it left on its way was removed"
    assert bytes_in(cache.folder) == MB


def test_without_a_cap_the_disk_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MediaCache(tmp_path)
    for name in "abc":
        at_hand(cache, name).release()
    assert there(cache) == ["a", "b", "c"]

    def free(folder: Path) -> object:  # a disk with room for two files beside what is left free
        used = bytes_in(Path(folder))
        return shutil._ntuple_diskusage(10**12, used, media_cache.LEFT_FREE_BYTES + 2 * MB - used)

    monkeypatch.setattr(shutil, "disk_usage", free)
    at_hand(cache, "d").release()
    assert there(cache) == ["c", "d"]


def test_pruning_keeps_what_is_in_use(cache: MediaCache) -> None:
    held = at_hand(cache, "a")
    at_hand(cache, "b").release()
    assert cache.prune() == MB
    assert there(cache) == ["a"]
    held.release()
    assert cache.prune() == MB
    assert cache.prune() == 0


def test_a_lock_whose_file_was_removed_is_taken_on_the_new_file(tmp_path: Path) -> None:
    first = Lock(tmp_path / "lock", fcntl.LOCK_EX)
    got: list[Lock] = []
    waiting = threading.Thread(target=lambda: got.append(Lock(tmp_path / "lock", fcntl.LOCK_EX)))
    waiting.start()
    while waiting.is_alive() and len(os.listdir(f"/proc/self/task/{waiting.native_id}/fd")) == 0:
        pass
    os.unlink(tmp_path / "lock")
    first.release()
    waiting.join(30)
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_disk_that_is_nearly_full_still_takes_what_the_cap_allows(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12 - 5000, 5000))
    held = at_hand(cache, "a")
    at_hand(cache, "b").release()
    at_hand(cache, "c").release()
    assert there(cache) == ["a", "c"]
    assert not cache.fetch_ahead("d", MB, fetch), "there is no room to spare"
    held.release()
