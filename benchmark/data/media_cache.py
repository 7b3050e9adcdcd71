"""Media files on a disk that cannot hold them all: what is there, what is in use, and what makes room.

    on-demand.json     which data set this is, and what may be kept
    media/...          whole, verified files
    incoming/KEY-SIZE  a file on its way; SIZE bytes are counted for it from the start
    held/KEY           a lock per file: shared by those who use it, exclusive while it is fetched or removed
    lock               held for a moment by whoever counts, places or removes

The locks end with their processes, so that several runs, shares and workers can use one cache and any of them may be
killed. When a file was last needed is the time of its lock's file; a file that was fetched ahead has a time to come.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from avbench.system.in_python import in_python
from avbench.types import AvbenchError

MEDIA, INCOMING, HELD, FACTS = "media", "incoming", "held", "on-demand.json"
LEFT_FREE_BYTES = 2**30  # on the disk, for snapshots and results
NEEDED_SOON_S = 86_400.0  # how long a file that was fetched ahead stays ahead of those that were used
WAIT_S = 1200.0  # for room that others take; less than a worker may be silent
LOOK_S = 0.1  # between two looks whether there is room


class Lock:
    """A lock on a file, made if it is not there; it ends when nothing refers to it any more, or with the process."""

    def __init__(self, path: Path, how: int) -> None:
        """``how``: of ``fcntl``. ``BlockingIOError``: somebody else has it and ``how`` says not to wait."""
        self.path = path
        while True:
            self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self.handle, how)
                if os.path.samestat(os.fstat(self.handle), os.stat(path)):
                    return
            except FileNotFoundError:
                pass  # removed before it was locked: another file takes its place
            except BaseException:
                self.release()
                raise
            self.release()

    def share(self) -> None:
        """Let others use the file too."""
        fcntl.flock(self.handle, fcntl.LOCK_SH)

    def needed(self, in_s: float = 0.0) -> None:
        """Note when the file is needed: now, or in so many seconds."""
        os.utime(self.handle, (time.time() + in_s,) * 2)

    def release(self) -> None:
        """End it now."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.release()


class Held(NamedTuple):
    """A whole file in the cache: its path in the data set, bytes, and when it was last needed."""

    path: str
    n_bytes: int
    needed_s: float


@dataclass(frozen=True)
class MediaCache:
    """The media of one data set in ``folder``, with those on their way never more than ``keep_bytes`` (None: as many as
    the disk holds)."""

    folder: Path
    keep_bytes: int | None = None

    def at_hand(
        self, path: str, n_bytes: int, fetch: Callable[[Path], Path], good: Callable[[Path], bool], name: str
    ) -> Lock:
        """The lock of a file that is there and ``good``; the file stays at least until the lock is gone.

        ``fetch(folder)`` gets it into an empty folder if need be; others that are not in use make room, those that were
        fetched ahead last. If all are in use this waits. ``AvbenchError``: no room for ``WAIT_S`` seconds; errors of
        ``fetch``. ``name``: of the file, for errors.
        """
        target, key = self.folder / MEDIA / path, key_of(path)
        while True:
            lock = self._lock(key, fcntl.LOCK_SH)  # waits if another one fetches it just now
            if target.is_file() and good(target):
                break
            lock.release()
            try:
                lock = self._lock(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOOK_S)
                continue
            try:
                if not (target.is_file() and good(target)):
                    target.unlink(missing_ok=True)
                    self._wait_for_room(key, n_bytes, name)
                    self._fetch(path, n_bytes, fetch, lock)
                with self._counting():  # nobody can take it away between the two locks
                    lock.share()
                break
            except BaseException:
                lock.release()
                raise
        lock.needed()
        return lock

    def fetch_ahead(self, path: str, n_bytes: int, fetch: Callable[[Path], Path]) -> bool:
        """Fetch a file that is needed soon, if there is room without the others that are; whether it is there now, or
        somebody else sees to it."""
        try:
            lock = self._lock(key_of(path), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        try:
            if not (self.folder / MEDIA / path).is_file():
                if not self._make_room(key_of(path), n_bytes, ahead=True):
                    return False
                self._fetch(path, n_bytes, fetch, lock)
            lock.needed(NEEDED_SOON_S)
        finally:
            lock.release()
        return True

    def listing(self) -> list[Held]:
        """The whole files, the least recently needed first."""
        found = []
        for file in self._files(MEDIA):
            with contextlib.suppress(FileNotFoundError):  # it has just made room
                path = file.relative_to(self.folder / MEDIA).as_posix()
                try:
                    needed_s = (self.folder / HELD / key_of(path)).stat().st_mtime
                except FileNotFoundError:
                    needed_s = 0.0
                found.append(Held(path, file.stat().st_size, needed_s))
        return sorted(found, key=lambda held: (held.needed_s, held.path))

    def prune(self) -> int:
        """Remove every file that is not in use; how many bytes it were."""
        with self._counting():
            self._on_its_way()
            return self._freed(self.listing(), sys.maxsize, all_or_none=False)

    def _lock(self, key: str, how: int) -> Lock:
        try:
            (self.folder / HELD).mkdir(parents=True, exist_ok=True)
            return Lock(self.folder / HELD / key, how)
        except BlockingIOError:
            raise
        except OSError as error:
            raise AvbenchError(f"cannot lock a file in {self.folder}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        lock = Lock(self.folder / "lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.release()

    def _files(self, below: str) -> Iterator[Path]:
        for folder, _, names in os.walk(self.folder / below):
            yield from (Path(folder) / name for name in names)

    def _fetch(self, path: str, n_bytes: int, fetch: Callable[[Path], Path], lock: Lock) -> None:
        """Fetch a file for which there is room, and put it in its place; ``lock`` is exclusive."""
        incoming, target = self._incoming(key_of(path), n_bytes), self.folder / MEDIA / path
        try:
            file = fetch(incoming)
            with self._counting():  # nobody counts it twice
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
                lock.needed()
                shutil.rmtree(incoming, ignore_errors=True)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _incoming(self, key: str, n_bytes: int) -> Path:
        return self.folder / INCOMING / f"{key}-{n_bytes}"

    def _wait_for_room(self, key: str, n_bytes: int, name: str) -> None:
        until_s = time.monotonic() + WAIT_S
        while not self._make_room(key, n_bytes):
            if time.monotonic() > until_s:
                raise AvbenchError(
                    f"{self.keep_bytes} bytes may be kept and all are in use, so there is no room for {name}; "
                    "give a larger --keep-media or fewer --workers, and the same command again"
                    f"{in_python('--keep-media', '--workers')}"
                )
            gc.collect()  # a reader that failed may still hold its file
            time.sleep(LOOK_S)

    def _make_room(self, key: str, n_bytes: int, ahead: bool = False) -> bool:
        """Reserve room for a file, removing others if need be; whether there is. ``ahead``: not those needed soon."""
        incoming = self._incoming(key, n_bytes)
        with self._counting():
            shutil.rmtree(incoming, ignore_errors=True)  # of one who was killed
            over, lacking = 0, n_bytes + LEFT_FREE_BYTES - shutil.disk_usage(self.folder).free
            if self.keep_bytes is not None or lacking > 0:
                held = self.listing()
                if self.keep_bytes is not None:
                    over = sum(one.n_bytes for one in held) + self._on_its_way() + n_bytes - self.keep_bytes
                unused = [one for one in held if not (ahead and one.needed_s > time.time())]
                n_freed = self._freed(unused, max(over, lacking), all_or_none=ahead)
                if n_freed < (max(over, lacking) if ahead else over):
                    return False
            incoming.mkdir(parents=True)
        return True

    def _freed(self, held: list[Held], n_bytes: int, all_or_none: bool) -> int:
        """Remove the first files that are not in use, until they make ``n_bytes``; how many bytes it were.
        ``all_or_none``: nothing is removed where it would be too little."""
        locks: list[tuple[Held, Lock]] = []
        n_freed = 0
        for one in held:
            if n_freed >= n_bytes:
                break
            with contextlib.suppress(BlockingIOError):
                locks.append((one, self._lock(key_of(one.path), fcntl.LOCK_EX | fcntl.LOCK_NB)))
                n_freed += one.n_bytes
        if all_or_none and n_freed < n_bytes:
            locks.clear()
            return 0
        for one, lock in locks:
            (self.folder / MEDIA / one.path).unlink(missing_ok=True)
            lock.path.unlink(missing_ok=True)
            lock.release()
        return n_freed

    def _on_its_way(self) -> int:
        """Bytes reserved by those who are fetching; what killed ones have left is removed."""
        n_bytes = 0
        for folder in (self.folder / INCOMING).glob("*-*"):
            key, _, size = folder.name.rpartition("-")
            try:
                self._lock(key, fcntl.LOCK_EX | fcntl.LOCK_NB).release()
            except BlockingIOError:
                n_bytes += int(size)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return n_bytes


def key_of(path: str) -> str:
    """The name of a file's lock."""
    return hashlib.sha256(path.encode()).hexdigest()[:32]
