"""Hosted data larger than the disk: each clip is fetched when its turn comes, verified, and makes room when it is done.

The tables are fetched and verified at once, into a folder of avbench's cache that has no media yet; what it holds is
:mod:`avbench.data.media_cache`'s business. An :class:`OnDemand` opens the clips of such a folder, in any process; its
``ahead`` fetches the next few while others are decoded.
"""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from avbench.data import hub
from avbench.data.media import ClipReader, media_sha256
from avbench.data.media_cache import FACTS, Lock, MediaCache
from avbench.protocol.manifest import Manifest
from avbench.system.atomic import atomic_write_bytes
from avbench.system.cache import cache_root
from avbench.system.in_python import in_python
from avbench.types import AvbenchError, ClipRecord, MediaError, UsageError

SIZES = "sizes.json"
AHEAD = 2  # clips that are fetched before their turn
LOOK_S = 0.5  # between two tries to fetch ahead where there is no room yet
TRY_AGAIN_S = (1.0, 4.0)  # after so long, where the hub cannot be reached
LEAVE_S = 1.0  # for the last fetch to end by itself


def root() -> Path:
    """Where data sets with media on demand are: ``on-demand/ORG--NAME/COMMIT`` in avbench's cache."""
    return cache_root() / "on-demand"


def open_tables(address: str) -> Manifest:
    """The manifest of ``hub:ORG/NAME@COMMIT``, its tables fetched and verified unless they are there and undamaged, its
    media not. A data set that was pulled whole is opened there. Errors as :func:`avbench.data.hub.pull`'s."""
    repo, revision = hub.parse_address(address)
    whole = hub.undamaged(hub.default_folder(repo.name, revision))
    if whole is not None:
        return whole
    folder = root() / repo.name.replace("/", "--") / revision
    manifest = hub.undamaged(folder) if (folder / FACTS).is_file() else None
    if manifest is None:
        manifest = hub.place_tables(repo, revision, folder)
        _write(folder / FACTS, {"repo": repo.name, "revision": revision, "keep_bytes": None})
    return manifest


def media_of(manifest: Manifest, keep_bytes: int | None) -> OnDemand | None:
    """What opens the clips of a manifest of :func:`open_tables`; None if it was pulled whole.

    ``keep_bytes``: how many bytes of media may be on the disk. ``UsageError``: not even the largest clip fits;
    ``AvbenchError``: the hub's errors, where the sizes of the clips are not known yet.
    """
    folder = manifest.media_root.parent
    if not (folder / FACTS).is_file():
        return None
    facts = _read(folder / FACTS)
    repo, revision = hub.parse_address(f"hub:{facts.get('repo')}@{facts.get('revision')}")
    sizes = _sizes(folder, repo, revision, [clip.path for clip in manifest.clips.values() if clip.seen])
    largest = max(sizes, key=lambda path: sizes[path], default="")
    if keep_bytes is not None and largest and sizes[largest] > keep_bytes:
        raise UsageError(
            f"the largest clip, {largest}, has {sizes[largest]} bytes and --keep-media is {keep_bytes}; give at least "
            f"--keep-media {-(-sizes[largest] // 10**6)}MB{in_python(f'--keep-media {sizes[largest]}')}"
        )
    if facts.get("keep_bytes") != keep_bytes:
        _write(folder / FACTS, facts | {"keep_bytes": keep_bytes})
    return OnDemand(replace(manifest, segments=(), sources={}), repo, revision, MediaCache(folder, keep_bytes), sizes)


class Kept(NamedTuple):
    """What the cache holds of one data set: clips that are there, of how many; their bytes, how many may be kept (None:
    what the disk holds)."""

    address: str
    n_clips: int
    n_of: int
    n_bytes: int
    keep_bytes: int | None
    cache: MediaCache


def kept() -> list[Kept]:
    """Every data set whose media are fetched on demand, by address."""
    found = []
    for path in sorted(root().glob(f"*/*/{FACTS}")):
        facts = _read(path)
        manifest = hub.undamaged(path.parent)
        keep = facts.get("keep_bytes")
        cache = MediaCache(path.parent, keep if isinstance(keep, int) else None)
        held = cache.listing()
        n_of = len(manifest.clips) if manifest else 0
        address = f"hub:{facts.get('repo')}@{facts.get('revision')}"
        found.append(Kept(address, len(held), n_of, sum(one.n_bytes for one in held), cache.keep_bytes, cache))
    return found


def _sizes(folder: Path, repo: hub.HubRepo, revision: str, paths: Sequence[str]) -> dict[str, int]:
    """The sizes of these media, from what the folder knows and else from the hub."""
    known = {path: size for path, size in _read(folder / SIZES).items() if isinstance(size, int)}
    lacking = [path for path in paths if path not in known]
    if lacking:
        known |= hub.media_sizes(repo, revision, lacking)
        _write(folder / SIZES, known)
    return {path: known[path] for path in paths}


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: object) -> None:
    try:
        atomic_write_bytes(path, (json.dumps(content) + "\n").encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------------------------ opening a clip


class HeldReader(ClipReader):
    """A reader whose file stays on the disk as long as the reader is there."""

    def __init__(self, path: Path, clip: ClipRecord, lock: Lock) -> None:
        super().__init__(path, clip)
        self._lock = lock


@dataclass(frozen=True)
class OnDemand:
    """Opens clips (``open_clip`` of :func:`avbench.engine.runner.compute`), each fetched if it is not there. It can be
    pickled. ``sizes``: bytes of each file by its path."""

    manifest: Manifest
    repo: hub.HubRepo
    revision: str
    cache: MediaCache
    sizes: dict[str, int] = field(repr=False)
    decodes = True  # in a worker process, if that is possible

    @property
    def at_once(self) -> int | None:
        """How many clips of any size fit beside each other; None: there is no limit."""
        largest = max(self.sizes.values(), default=0)
        return self.cache.keep_bytes // largest if self.cache.keep_bytes is not None and largest else None

    def __call__(self, clip: ClipRecord) -> HeldReader:
        """A reader of the clip's file, which stays there as long as the reader does. ``MediaError`` if it cannot be
        had: the hub's errors, a full disk, a file that is damaged again after it was fetched anew, no room."""
        path = self.manifest.clip_path(clip)
        try:
            fetch = partial(self._fetched, clip, again=True)
            good = partial(_is_pinned, clip)
            lock = self.cache.at_hand(clip.path, self.sizes[clip.path], fetch, good, f"clip {clip.id}")
        except MediaError:
            raise
        except (AvbenchError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            full = isinstance(cause, OSError) and cause.errno == errno.ENOSPC
            said = f"the disk of {self.cache.folder} is full" if full else str(error)
            raise MediaError(clip.id, f"not fetched: {said}") from error
        return HeldReader(path, clip, lock)

    def _fetched(self, clip: ClipRecord, folder: Path, *, again: bool) -> Path:
        """The clip's file, fetched into ``folder`` and verified. ``again``: fetched anew once if it is damaged."""
        pauses_s = list(TRY_AGAIN_S) if again else []
        anew = False
        while True:
            try:
                file = hub.fetch_into(folder, self.repo, self.revision, clip.path, anew=anew)
            except AvbenchError as error:
                if not (pauses_s and hub.may_pass(error)):
                    raise
                time.sleep(pauses_s.pop(0))
                continue
            if _is_pinned(clip, file):
                return file
            if anew or not again:
                break
            anew = True
        raise MediaError(
            clip.id,
            f"{hub.MEDIA}/{clip.path} of {self.repo.name} is not the file that the manifest pins (other sha256)",
        )

    @contextlib.contextmanager
    def ahead(self, clips: Sequence[ClipRecord], workers: int) -> Iterator[Callable[[ClipRecord], None]]:
        """Fetch the clips in this order in the background, at most ``AHEAD`` before their turn, if there is room.
        Gives a function to call with each clip that is done. What cannot be fetched is left to the one who needs it."""
        thread = _Ahead(self, clips, workers)
        thread.start()
        try:
            yield thread.done
        finally:
            thread.leave()

    def fetch_ahead(self, clip: ClipRecord) -> bool:
        """Whether the clip is there, or now is; False: there is no room yet."""
        self.manifest.clip_path(clip)  # stays inside the folder
        return self.cache.fetch_ahead(clip.path, self.sizes[clip.path], partial(self._fetched, clip, again=False))


def _is_pinned(clip: ClipRecord, file: Path) -> bool:
    return media_sha256(file) == clip.sha256


class _Ahead(threading.Thread):
    """Walks ahead of the decoders. A clip's turn has come when ``workers`` are left of those before it."""

    def __init__(self, media: OnDemand, clips: Sequence[ClipRecord], workers: int) -> None:
        super().__init__(daemon=True)  # a fetch that hangs does not keep the program
        self.media, self.clips, self.reach = media, clips, max(workers, 1) + AHEAD
        self.ended: set[str] = set()
        self.leaving = False
        self.news = threading.Condition()

    def done(self, clip: ClipRecord) -> None:
        with self.news:
            self.ended.add(clip.id)
            self.news.notify_all()

    def leave(self) -> None:
        with self.news:
            self.leaving = True
            self.news.notify_all()
        self.join(LEAVE_S)

    def run(self) -> None:
        for place, clip in enumerate(self.clips):
            self._wait(partial(self._is_near, place))
            while not self.leaving and clip.id not in self.ended:
                try:
                    if self.media.fetch_ahead(clip):
                        break
                    patience_s: float | None = LOOK_S
                except (AvbenchError, OSError):
                    patience_s = None  # who needs it will say so; until then nothing else is tried
                self._wait(partial(self.ended.__contains__, clip.id), patience_s)

    def _is_near(self, place: int) -> bool:
        return place < len(self.ended) + self.reach

    def _wait(self, until: Callable[[], bool], at_most_s: float | None = None) -> None:
        with self.news:
            self.news.wait_for(lambda: self.leaving or until(), at_most_s)
