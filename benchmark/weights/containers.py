"""Read published checkpoint files without executing them.

A published ``.pt`` file is a zip archive with a pickle inside or, from before torch 1.6, some pickles one after another
and the numbers behind them (SyncNet's). The pickle never reaches ``pickle.load``:
:mod:`avbench.weights.pickled` finds out where the tensors are, replaces every other object by a stand-in, and refuses
anything that would call code. ``torch.load(weights_only=True)`` cannot replace it: that refuses the configuration
classes in published files unless each is importable, refuses pickle protocol 4, runs ``bytearray(10**12)``, and builds
tensors far larger than the file.

A file costs at most a few times its length in memory and time that grows with its length, whatever is in it: every
size that it declares is compared with the file before anything is read.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from avbench.types import AvbenchError, in_one_line
from avbench.weights.pickled import MAX_BYTES, PickleReader, Refused, Storage, TensorPlace, first_pickle


@dataclass(frozen=True, slots=True)
class Container:
    """The content of a published file: named tensors and the plain values beside them (epoch, loss, ...)."""

    tensors: dict[str, Tensor]
    about: dict[str, int | float | str | bool | None]


# Limits on what a file may ask for; the largest published layout needs 0.15 MB of directory and has 873 weights.
MAX_DIRECTORY_BYTES = 4 * 2**20  # of the archive; for each of its entries zipfile takes some ten times as much memory
MAX_TENSORS = 20_000  # a tensor takes a kilobyte, however small it is
MAX_COPIES = 4  # entries may share a storage (tied weights), but not by the thousand

# torch's form before 1.6: the pickles of a magic number, of the form's version, of facts about the machine, of the
# content and of a list of storages; then of each storage the count (8 bytes) and its numbers
OLD_MAGIC, OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001
OLD_BEGINS = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class _File(io.BufferedReader):
    """A file for ``zipfile``, which reads the archive's whole directory at once: refused while ``reading_directory``
    if it is too large."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.n_bytes = self.seek(0, io.SEEK_END)
        self.seek(0)
        self.reading_directory = True

    def read(self, size: int | None = -1, /) -> bytes:
        left = self.n_bytes - self.tell()
        n = left if size is None or size < 0 else min(size, left)
        if self.reading_directory and n > MAX_DIRECTORY_BYTES:
            raise Refused(f"its directory is {n} bytes long, at most {MAX_DIRECTORY_BYTES} are read")
        return super().read(size)


def read_container(path: Path) -> Container:
    """Read the weights in a published ``.pt`` / ``.pth`` file without executing anything in it.

    Known layouts: the weights under ``model`` or ``state_dict``, or the bare state dict. Optimizer states, arguments
    and the like are skipped. ``AvbenchError`` (one line) if the file is missing, not a torch checkpoint, damaged, or
    *refused* (its pickle names or calls something that is not data, or asks for more memory or time than such a file
    needs; the message says what).
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise AvbenchError(f"checkpoint {path} is not a regular file")
        with _File(path) as file:
            if file.peek(len(OLD_BEGINS)).startswith(OLD_BEGINS):
                file.reading_directory = False
                return _read_old(file, file.n_bytes)
            with zipfile.ZipFile(file) as archive:
                file.reading_directory = False
                return _read_archive(archive, file.n_bytes)
    except Refused as refused:
        said = "".join(c if c.isprintable() else "?" for c in str(refused)[:200])
        raise AvbenchError(f"{path.name} is refused and was not executed: {said}") from refused
    except AvbenchError:
        raise
    except FileNotFoundError as error:
        raise AvbenchError(f"checkpoint {path} does not exist") from error
    except zipfile.BadZipFile as error:
        raise AvbenchError(
            f"{path.name} is not a torch checkpoint in zip form or in that of torch before 1.6: is the download "
            "complete?"
        ) from error
    except OSError as error:
        raise AvbenchError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # anything a damaged or hostile pickle makes the reader raise
        raise AvbenchError(f"{path.name} is damaged: {in_one_line(error)[:150]}") from error


def _read_archive(archive: zipfile.ZipFile, n_bytes: int) -> Container:
    members = archive.infolist()
    pickles = [info for info in members if re.fullmatch(r"[^/]+/data\.pkl", info.filename)]
    if len(pickles) != 1:
        raise Refused(f"it contains {len(pickles)} files named data.pkl; it must contain one")
    stored = sum(info.compress_size for info in members)
    if stored > n_bytes:  # (zipfile notices members that overlap since Python 3.11.8 only)
        raise Refused(f"its members take {stored} bytes, the file is {n_bytes} bytes long")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if pickles[0].file_size > MAX_BYTES or pickles[0].compress_type != zipfile.ZIP_STORED:
        raise Refused(f"its pickle is {pickles[0].file_size} bytes long, or compressed")
    if f"{folder}byteorder" in archive.NameToInfo:
        with archive.open(f"{folder}byteorder") as file:
            if file.read(7) != b"little":
                raise Refused("its numbers are stored big-endian")
    content = PickleReader(archive.read(pickles[0])).load()
    inside = f"{folder}data/"
    sizes = {
        info.filename.removeprefix(inside): info.file_size
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        else _COMPRESSED
        for info in members
        if info.filename.startswith(inside)
    }
    # zipfile checks the CRC
    return _container(content, sizes, lambda member: archive.read(f"{inside}{member}"), _stored_plainly(members))


_COMPRESSED = -1  # the size of a member that is stored otherwise than as it is


def _stored_plainly(members: list[zipfile.ZipInfo]) -> int:
    return sum(info.file_size for info in members if info.compress_type == zipfile.ZIP_STORED)


def _read_old(file: BinaryIO, n_bytes: int) -> Container:
    """A file of torch before 1.6."""

    def next_pickle() -> PickleReader:
        begin = file.tell()
        data = first_pickle(file.read(MAX_BYTES))
        file.seek(begin + len(data))
        return PickleReader(data, keep_lists=True)

    if next_pickle().load() != OLD_MAGIC or next_pickle().load() != OLD_VERSION:
        raise Refused("its form is none of torch's")
    machine = next_pickle().load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("its numbers are stored big-endian")
    reader = next_pickle()
    content, members = reader.load(), next_pickle().load()
    places: dict[str, tuple[int, int]] = {}  # member -> where its numbers begin, and how many bytes they are
    for member in members if isinstance(members, list) else []:
        if not isinstance(member, str) or member not in reader.storages or member in places:
            raise Refused("its list of storages names one that nothing uses, or one twice")
        count, begin = int.from_bytes(file.read(8), "little"), file.tell()
        length = count * _dtype(reader.storages[member]).itemsize
        if begin + length > n_bytes:
            raise Refused(f"storage {member} has {count} numbers, more than the file: is the download complete?")
        places[member] = begin, length
        file.seek(begin + length)

    def read(member: str) -> bytes:
        begin, length = places[member]
        file.seek(begin)
        return file.read(length)

    return _container(content, {member: length for member, (_, length) in places.items()}, read, n_bytes)


def _container(content: Any, sizes: Mapping[str, int], read: Callable[[str], bytes], stored: int) -> Container:
    """The weights in an unpickled ``content``. ``sizes``: of each storage in bytes; ``stored``: of all together."""
    if not isinstance(content, dict):
        raise Refused("it does not contain a dictionary (save the model's state_dict(), not the model)")
    weights = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    found = {key: value for key, value in weights.items() if isinstance(value, TensorPlace)}
    if not found or not all(isinstance(key, str) for key in found):
        raise Refused("it contains no weights under 'model' or 'state_dict'")
    _check_sizes(list(found.values()), sizes, stored)
    about = {k: v for k, v in content.items() if isinstance(k, str) and _is_plain(v)}
    buffers: dict[str, bytearray] = {}
    return Container({key: _tensor(read, value, buffers) for key, value in found.items()}, about)


def _dtype(storage: Storage) -> torch.dtype:
    return getattr(torch, storage.dtype)


def _check_sizes(tensors: list[TensorPlace], sizes: Mapping[str, int], stored: int) -> None:
    """Compare every size that the pickle declares with what is stored, before any storage is read.

    Expanded tensors (strides of 0 or overlapping) could make terabytes out of a few bytes.
    """
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"it has {len(tensors)} weights, at most {MAX_TENSORS} are read")
    declared = sum(math.prod(tensor.size) * _dtype(tensor.storage).itemsize for tensor in tensors)
    if declared > MAX_COPIES * stored:
        raise Refused(f"its tensors take {declared} bytes, the file contains {stored}")
    for tensor in tensors:
        storage, numel = tensor.storage, math.prod(tensor.size)
        if numel > storage.numel:
            raise Refused(f"a tensor of {numel} numbers is larger than its storage of {storage.numel}")
        there, n_bytes = sizes[storage.member], storage.numel * _dtype(storage).itemsize
        if there == _COMPRESSED:
            raise Refused(f"storage {storage.member} is compressed")
        if n_bytes != there:
            raise Refused(f"storage {storage.member} is {there} bytes long, its tensor says {n_bytes}")


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a short string, a bool or None, worth keeping as information about the file."""
    if isinstance(value, int):
        return -(2**63) < value < 2**63
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 1000)


def _tensor(read: Callable[[str], bytes], where: TensorPlace, buffers: dict[str, bytearray]) -> Tensor:
    """``buffers``: the members read up to now; each is read once, whatever kinds of numbers its tensors say it has."""
    member, dtype = where.storage.member, _dtype(where.storage)
    if member not in buffers:
        buffers[member] = bytearray(read(member))
    data = buffers[member]
    storage = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    # a copy: tied weights would otherwise be one tensor under two names
    return storage.as_strided(where.size, where.stride, where.offset).clone(memory_format=torch.contiguous_format)
