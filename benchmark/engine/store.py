"""The snapshot store: a backbone's snapshots, computed once and read from disk afterwards.

``ROOT/store.json`` names the schema; ``ROOT/<model>/<media>.r<reader>.safetensors`` is one shard: all snapshots of one
model on one clip, as one version of the reader decodes it. The name is made of the first 32 hex digits of the model's
fingerprint, those of the clip's ``as_read``, and ``READER_VERSION``. A shard contains ``keys`` (M, 5) or (M, 6) int64
(``SnapshotKey.row``, sorted; without the sixth number where all are 0), ``logits`` (M, 21) float32, ``token`` (M, D)
float32 if the model has one, and one JSON text under the metadata name ``avbench``: the full hashes, the reader version
and a checksum of the arrays. The same
snapshots give the same bytes, in any order of adding. A damaged shard is an error: it is neither used nor silently
computed again.

Code that changes makes snapshots missing in two ways. Models change often and belong to the user: their sources are
hashed into the fingerprint. There is one reader for everyone, and a new comment in it must not discard hours of work:
its version is raised by hand, and a test fails when its code changes. Shards of other reader versions, or from
before there were any, stay where they are and are never used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from avbench.data.media import READER_VERSION
from avbench.protocol.plan import SnapshotKey
from avbench.system.atomic import atomic_write_bytes, sweep_folder
from avbench.system.in_python import in_python
from avbench.types import NonFiniteError, StoreError, UsageError

_OTHER_FOLDER = f"delete it, or use another --store{in_python('--store')}"
SCHEMA_VERSION = 1
_NAME_DIGITS = 32
_FOREIGN = "it belongs to another model or clip, or of another reader version"
_forbidden = 0  # depth of SnapshotStore.forbidden() blocks


class _Shard(NamedTuple):
    keys: np.ndarray  # (M, 6) int64, rows of SnapshotKey
    logits: np.ndarray
    token: np.ndarray | None

    @classmethod
    def empty(cls, logits: np.ndarray, token: np.ndarray | None) -> _Shard:
        return cls(_rows([]), logits[:0], None if token is None else token[:0])


class _Filed(NamedTuple):
    """What identifies a shard."""

    model: str
    media: str
    reader: int | None  # None: written before there were reader versions

    def path(self, root: Path) -> Path:
        reader = "" if self.reader is None else f".r{self.reader}"
        return root / self.model[:_NAME_DIGITS] / f"{self.media[:_NAME_DIGITS]}{reader}.safetensors"


class SnapshotStore:
    """A folder of snapshots, created if missing. Any number of processes may read and write it at the same time.

    ``model`` is always a fingerprint and ``media`` a clip's ``as_read``: the sha256 of its file, or of that and of the
    rules by which it is read (64 hex digits each). Every problem with the folder (another schema, a damaged shard,
    read-only, disk full) raises a one-line ``StoreError``.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._swept: set[Path] = set()  # folders in which nothing is left that was half-written before
        _check_allowed()
        with _one_line(f"cannot open the snapshot store {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            self._check_schema()

    def missing(self, model: str, media: str, keys: Sequence[SnapshotKey]) -> list[SnapshotKey]:
        """The ``keys`` that are not stored, sorted and without duplicates."""
        shard, wanted = self._read(model, media), list(dict.fromkeys(keys))
        absent = _find(shard.keys, _rows(wanted)) < 0 if shard else [True] * len(wanted)
        return sorted(itertools.compress(wanted, absent))

    def put(
        self, model: str, media: str, keys: Sequence[SnapshotKey], logits: np.ndarray, tokens: np.ndarray | None = None
    ) -> None:
        """Add snapshots: ``logits`` (K, 21) float32, ``tokens`` (K, D) float32 or None. They are on disk on return.

        A snapshot that is already stored is not changed. ``NonFiniteError`` for NaN or infinity; ``StoreError`` for
        duplicate keys or arrays that do not fit.
        """
        logits = np.ascontiguousarray(logits, np.float32)
        tokens = None if tokens is None else np.ascontiguousarray(tokens, np.float32)
        _check_put(keys, logits, tokens)
        if not keys:
            return
        path = self._path(model, media)
        with _one_line(f"cannot write {path}"):
            path.parent.mkdir(exist_ok=True)
            with _locked(path):
                old = self._read(model, media) or _Shard.empty(logits, tokens)
                merged = _merge(path, old, _Shard(_rows(keys), logits, tokens))
                if len(merged.keys) > len(old.keys):
                    self._write(path, _to_bytes(merged, _filed(model, media)))

    def get(
        self, model: str, media: str, keys: Sequence[SnapshotKey] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read snapshots: ``logits`` (K, 21) float32 and ``tokens`` (K, D) float32 or None, in the order of ``keys``.

        ``keys``: a sequence of keys, or their rows as an array (K, 6) int64 (see ``plan.key_rows``). ``StoreError``
        if one of them is not stored.
        """
        shard, wanted = self._read(model, media), _rows(keys)
        rows = _find(shard.keys, wanted) if shard else np.full(len(wanted), -1)
        absent = int((rows < 0).sum())
        if shard is None or absent:
            raise StoreError(
                f"{absent} of {len(wanted)} snapshots are not in {self._path(model, media)}; compute them first"
            )
        return shard.logits[rows], None if shard.token is None else shard.token[rows]

    def absorb(self, other: SnapshotStore) -> tuple[int, int]:
        """Add all that ``other`` holds, of every reader version: the number of snapshots that were new, and of those
        that both had.

        ``StoreError`` if the two disagree about a snapshot (they were computed on unequal devices, say), or for a
        damaged shard of either; what was added before that is kept.
        """
        added = same = 0
        for source in other._shards():
            theirs, filed = _from_bytes(source, _read_bytes(source))
            path = filed.path(self.root)
            with _one_line(f"cannot write {path}"):
                path.parent.mkdir(exist_ok=True)
                with _locked(path):
                    ours = _Shard.empty(theirs.logits, theirs.token)
                    if path.exists():
                        ours, found = _from_bytes(path, _read_bytes(path))
                        if found != filed:
                            raise _damaged(path, _FOREIGN)
                    merged = _merge(path, ours, theirs)
                    _check_equal(path, source, merged, theirs)
                    new = len(merged.keys) - len(ours.keys)
                    if new:
                        self._write(path, _to_bytes(merged, filed))
            added, same = added + new, same + len(theirs.keys) - new
        return added, same

    def listing(self) -> list[tuple[str, int, int, int]]:
        """(first digits of the model's fingerprint, shards, snapshots, bytes on disk) of every model. ``StoreError``
        for a damaged shard."""
        found: dict[str, list[int]] = {}
        for path in self._shards():
            data = _read_bytes(path)
            row = found.setdefault(path.parent.name, [0, 0, 0])
            for k, more in enumerate((1, len(_from_bytes(path, data)[0].keys), len(data))):
                row[k] += more
        return [(model, shards, n, n_bytes) for model, (shards, n, n_bytes) in sorted(found.items())]

    def prune(self, model: str) -> tuple[int, int]:
        """Delete the shards of the model whose fingerprint begins with ``model``: how many there were, and their bytes.
        ``UsageError`` unless exactly one model begins like that."""
        _check_allowed()
        folders = [path for path in sorted(self.root.glob("*")) if path.is_dir() and path.name.startswith(model)]
        if len(folders) != 1 or not model:
            raise UsageError(f"{len(folders)} models in {self.root} begin with {model!r}; give more of the fingerprint")
        shards = n_bytes = 0
        with _one_line(f"cannot prune {folders[0]}"):
            sweep_folder(folders[0])
            for path in sorted(folders[0].glob("*.safetensors")):
                with _locked(path):
                    n_bytes += path.stat().st_size
                    path.unlink()
                shards += 1
            for lock in folders[0].glob("*.lock"):
                lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another process has begun to write there
                folders[0].rmdir()
        return shards, n_bytes

    def verify(self) -> list[str]:
        """Read every shard. Returns one line per damaged shard; an empty list if all are valid."""
        problems = []
        for path in self._shards():
            try:
                _from_bytes(path, _read_bytes(path))
            except StoreError as error:
                problems.append(str(error))
        return problems

    def size(self) -> tuple[int, int, int]:
        """The number of shards, snapshots, and bytes on disk. ``StoreError`` for a damaged shard."""
        shards = snapshots = n_bytes = 0
        for path in self._shards():
            data = _read_bytes(path)
            shards, n_bytes = shards + 1, n_bytes + len(data)
            snapshots += len(_from_bytes(path, data)[0].keys)
        return shards, snapshots, n_bytes

    @staticmethod
    @contextlib.contextmanager
    def forbidden() -> Iterator[None]:
        """Inside this block, using any store in this process raises ``StoreError``: latency is measured, not read."""
        global _forbidden
        _forbidden += 1
        try:
            yield
        finally:
            _forbidden -= 1

    def _check_schema(self) -> None:
        path = self.root / "store.json"
        if not path.exists():
            # hidden files do not count: another process may be writing its store.json at this moment
            foreign = [name for name in os.listdir(self.root) if not name.startswith(".")]
            if foreign and not path.exists():
                raise StoreError(f"{self.root} is not a snapshot store: it contains other files and no store.json")
            atomic_write_bytes(path, json.dumps({"schema_version": SCHEMA_VERSION}).encode() + b"\n")
        try:
            version = json.loads(path.read_bytes())["schema_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{path} is damaged; {_OTHER_FOLDER}") from error
        if type(version) is not int or version != SCHEMA_VERSION:
            raise StoreError(
                f"snapshot store {self.root} has schema {version!r}, but this avbench writes {SCHEMA_VERSION}; "
                f"{_OTHER_FOLDER}"
            )

    def _path(self, model: str, media: str) -> Path:
        return _filed(model, media).path(self.root)

    def _write(self, path: Path, data: bytes) -> None:
        """Writes a shard. What killed writers left is looked for once in each folder, and where a shard is replaced,
        not for every new one: that would list all others each time."""
        if path.parent not in self._swept:
            sweep_folder(path.parent)
            self._swept.add(path.parent)
        atomic_write_bytes(path, data, swept=not path.exists())

    def _shards(self) -> list[Path]:
        _check_allowed()
        return sorted(self.root.glob("*/*.safetensors"))

    def _read(self, model: str, media: str) -> _Shard | None:
        _check_allowed()
        for what, name in (("model fingerprint", model), ("media hash", media)):
            if len(name) != 64 or set(name) - set("0123456789abcdef"):
                raise StoreError(f"the {what} must be 64 lower-case hex digits, not {name!r}")
        path = self._path(model, media)
        if not path.exists():
            return None
        shard, found = _from_bytes(path, _read_bytes(path))
        if found != _filed(model, media):
            raise _damaged(path, _FOREIGN)
        return shard


def _filed(model: str, media: str) -> _Filed:
    """With this avbench's reader version: snapshots of another version count as missing."""
    return _Filed(model, media, READER_VERSION)


def _check_allowed() -> None:
    if _forbidden:
        raise StoreError("the snapshot store may not be opened while latency is measured")


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{what}: {error.strerror or error}; free space and run again, or use another --store{in_python('--store')}"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclusive access to one shard among all processes on this machine; if a process dies, its lock is released."""
    with open(path.with_suffix(".lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_bytes(path: Path) -> bytes:
    with _one_line(f"cannot read {path}"):
        return path.read_bytes()


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"damaged snapshot shard {path} ({why}): delete it and run again")


def _check_put(keys: Sequence[SnapshotKey], logits: np.ndarray, tokens: np.ndarray | None) -> None:
    for name, array in (("logits", logits), ("tokens", tokens)):
        if array is None:
            continue
        if array.ndim != 2 or len(array) != len(keys):
            raise StoreError(f"{name} of shape {array.shape} do not fit {len(keys)} snapshots")
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if bad.size:
            raise NonFiniteError(f"{name} of {keys[bad[0]]} contain NaN or infinity; nothing was stored")
    if len(set(keys)) != len(keys):
        raise StoreError("duplicate keys in one put()")


def _rows(keys: Sequence[SnapshotKey] | np.ndarray) -> np.ndarray:
    """The rows of keys, (K, 6) int64."""
    rows = keys if isinstance(keys, np.ndarray) else [key.row for key in keys]
    return np.asarray(rows, np.int64).reshape(-1, len(SnapshotKey._fields))


def _find(stored: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row in ``stored`` (M, 6), which has no duplicates, of each of ``wanted`` (K, 6); -1 if it is missing."""
    both = np.concatenate([stored, wanted])
    if not len(both):
        return np.empty(0, np.int64)
    order = np.lexsort(both.T[::-1])
    begins = np.any(both[order][1:] != both[order][:-1], axis=1)
    same = np.empty(len(both), np.int64)  # equal keys have equal numbers
    same[order] = np.concatenate([[0], np.cumsum(begins)])
    place = np.full(same.max() + 1, -1)
    place[same[: len(stored)]] = np.arange(len(stored))
    return place[same[len(stored) :]]


def _merge(path: Path, old: _Shard, new: _Shard) -> _Shard:
    """The snapshots of both, sorted by key; if both have a snapshot, the old one is kept."""
    if (old.token is None) != (new.token is None) or old.logits.shape[1:] != new.logits.shape[1:]:
        raise StoreError(f"{path} contains snapshots of another shape; nothing was stored")
    if old.token is not None and new.token is not None and old.token.shape[1:] != new.token.shape[1:]:
        raise StoreError(f"{path} contains tokens of another width; nothing was stored")
    fresh = _find(old.keys, new.keys) < 0
    keys = np.concatenate([old.keys, new.keys[fresh]])
    order = np.lexsort(keys.T[::-1])
    token = None
    if old.token is not None and new.token is not None:
        token = np.concatenate([old.token, new.token[fresh]])[order]
    return _Shard(keys[order], np.concatenate([old.logits, new.logits[fresh]])[order], token)


def _check_equal(path: Path, source: Path, merged: _Shard, theirs: _Shard) -> None:
    """``StoreError`` unless ``merged`` holds the very snapshots of ``theirs``."""
    rows = _find(merged.keys, theirs.keys)
    same = np.array_equal(merged.logits[rows], theirs.logits)
    if theirs.token is not None and merged.token is not None:
        same = same and np.array_equal(merged.token[rows], theirs.token)
    if not same:
        raise StoreError(
            f"{source} and {path} disagree about the same snapshots (computed on unequal devices, or with another "
            "precision?): keep one of them"
        )


def _to_bytes(shard: _Shard, filed: _Filed) -> bytes:
    # without laws, as before there were any
    arrays = {"keys": shard.keys if shard.keys[:, 5].any() else shard.keys[:, :5], "logits": shard.logits}
    if shard.token is not None:
        arrays["token"] = shard.token
    meta = {
        "schema_version": SCHEMA_VERSION,
        "model": filed.model,
        "media": filed.media,
        "reader_version": filed.reader,
        "sha256": _checksum(arrays, filed),
    }
    # one metadata entry only: safetensors writes several in an order of its own, and the bytes would differ
    return save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {"avbench": json.dumps(meta)})


def _from_bytes(path: Path, data: bytes) -> tuple[_Shard, _Filed]:
    """The shard and what identifies it; ``StoreError`` if anything is wrong."""
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        meta: dict[str, Any] = json.loads(header["__metadata__"]["avbench"])
        version, checksum = meta["schema_version"], meta["sha256"]
        found = _Filed(str(meta["model"]), str(meta["media"]), meta.get("reader_version"))
        keys, logits, token = arrays["keys"], arrays["logits"], arrays.get("token")
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, "cannot be read") from error
    if version != SCHEMA_VERSION:
        raise _damaged(path, f"schema {version!r}, this avbench reads {SCHEMA_VERSION}")
    if checksum != _checksum(arrays, found):
        raise _damaged(path, "wrong checksum")
    if found.path(path.parent.parent) != path:
        raise _damaged(path, _FOREIGN)
    if keys.ndim != 2 or keys.shape[1] not in (5, 6):
        raise _damaged(path, "keys of another shape")
    return _Shard(np.pad(keys, ((0, 0), (0, 6 - keys.shape[1]))), logits, token), found


def _checksum(arrays: dict[str, np.ndarray], filed: _Filed) -> str:
    reader = "" if filed.reader is None else f" reader {filed.reader}"
    digest = hashlib.sha256(f"{filed.model} {filed.media}{reader}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
