"""Read published checkpoint files without executing them.

A published ``.pt`` file is a zip archive with a pickle inside. The pickle never reaches ``pickle.load``:
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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from avbench.types import AvbenchError, in_one_line
from avbench.weights.pickled import MAX_BYTES, PickleReader, Refused, Storage, TensorPlace


@dataclass(frozen=True, slots=True)
class Container:
    """The content of a published file: named tensors and the plain values beside them (epoch, loss, ...)."""

    tensors: dict[str, Tensor]
    about: dict[str, int | float | str | bool | None]


# Limits on what a file may ask for; the largest published layout needs 0.15 MB of directory and has 873 weights.
MAX_DIRECTORY_BYTES = 4 * 2**20  # of the archive; for each of its entries zipfile takes some ten times as much memory
MAX_TENSORS = 20_000  # a tensor takes a kilobyte, however small it is
MAX_COPIES = 4  # entries may share a storage (tied weights), but not by the thousand


class _File(io.BufferedReader):
    """A file for ``zipfile``, which reads the archive's whole directory at once: refused while ``reading_directory``
    if it is too large."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.n_bytes = self.seek(0, io.SEEK_END)
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
    and the like are skipped. ``AvbenchError`` (one line) if the file is missing, not a torch zip archive, damaged, or
    *refused* (its pickle names or calls something that is not data, or asks for more memory or time than such a file
    needs; the message says what).
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise AvbenchError(f"checkpoint {path} is not a regular file")
        with _File(path) as file, zipfile.ZipFile(file) as archive:
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
            f"{path.name} is not a torch checkpoint in zip form: is the download complete? (files from before torch "
            "1.6 must be saved again with a newer torch)"
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
    if not isinstance(content, dict):
        raise Refused("it does not contain a dictionary (save the model's state_dict(), not the model)")
    weights = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    found = {key: value for key, value in weights.items() if isinstance(value, TensorPlace)}
    if not found or not all(isinstance(key, str) for key in found):
        raise Refused("it contains no weights under 'model' or 'state_dict'")
    _check_sizes(archive, folder, list(found.values()))
    about = {k: v for k, v in content.items() if isinstance(k, str) and _is_plain(v)}
    buffers: dict[str, bytearray] = {}
    return Container({key: _tensor(archive, folder, value, buffers) for key, value in found.items()}, about)


def _dtype(storage: Storage) -> torch.dtype:
    return getattr(torch, storage.dtype)


def _check_sizes(archive: zipfile.ZipFile, folder: str, tensors: list[TensorPlace]) -> None:
    """Compare every size that the pickle declares with the archive, before any storage is read.

    Expanded tensors (strides of 0 or overlapping) could make terabytes out of a few bytes.
    """
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"it has {len(tensors)} weights, at most {MAX_TENSORS} are read")
    declared = sum(math.prod(tensor.size) * _dtype(tensor.storage).itemsize for tensor in tensors)
    stored = sum(info.file_size for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED)
    if declared > MAX_COPIES * stored:
        raise Refused(f"its tensors take {declared} bytes, the file contains {stored}")
    for tensor in tensors:
        storage, numel = tensor.storage, math.prod(tensor.size)
        if numel > storage.numel:
            raise Refused(f"a tensor of {numel} numbers is larger than its storage of {storage.numel}")
        info, n_bytes = archive.getinfo(f"{folder}data/{storage.member}"), storage.numel * _dtype(storage).itemsize
        if info.compress_type != zipfile.ZIP_STORED or not n_bytes == info.file_size == info.compress_size:
            raise Refused(f"storage {storage.member} is {info.file_size} bytes long, its tensor says {n_bytes}")


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a short string, a bool or None, worth keeping as information about the file."""
    if isinstance(value, int):
        return -(2**63) < value < 2**63
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 1000)


def _tensor(archive: zipfile.ZipFile, folder: str, where: TensorPlace, buffers: dict[str, bytearray]) -> Tensor:
    """``buffers``: the members read up to now; each is read once, whatever kinds of numbers its tensors say it has."""
    member, dtype = where.storage.member, _dtype(where.storage)
    if member not in buffers:
        buffers[member] = bytearray(archive.read(f"{folder}data/{member}"))  # zipfile checks the CRC
    data = buffers[member]
    storage = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    # a copy: tied weights would otherwise be one tensor under two names
    return storage.as_strided(where.size, where.stride, where.offset).clone(memory_format=torch.contiguous_format)
