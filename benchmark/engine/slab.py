"""Memory that a decoding process shares with the process that computes: a slab, cut into slots.

The decoding process fills a slot and tells its place; the other one reads it and gives it back. A process that is
ahead waits until a slot is free, so what has been decoded and not yet taken fills at most one slab for each process. A
slab has no name that could be left behind: it goes with the last process that has it, even if that is killed. No lock
is involved: a slot's state is one byte, which each side sets in its turn, so a death on one side never stops the other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

SLOT_BYTES = 8 * 2**20  # 55 pictures of 224 x 224
N_SLOTS = 8
HEADER_BYTES = mmap.PAGESIZE  # the slots' states: 0 free, 1 full
LONGEST_NAP_S = 0.005
STILL_HERE_S = 60.0  # a process that waits for a slot says so: it is not stuck


class Place(NamedTuple):
    """Where an array lies: in which file (``slab`` tells two of one path apart), in which slot, and what it is."""

    path: str
    slab: str
    slab_bytes: int
    slot: int
    slot_bytes: int
    shape: tuple[int, ...]
    dtype: str


class Slab:
    """The side of the process that writes. ``still_here`` is called every ``STILL_HERE_S`` while it waits."""

    def __init__(self, slot_bytes: int, still_here: Callable[[], None], n_slots: int = N_SLOTS) -> None:
        self.slot_bytes, self.n_slots, self.still_here = slot_bytes, n_slots, still_here
        self.name, n_bytes = uuid.uuid4().hex, HEADER_BYTES + slot_bytes * n_slots
        self.file, self.path = _unnamed_file()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.file, 0, n_bytes)  # an error now, where memory is short, and not a signal later
        else:
            os.ftruncate(self.file, n_bytes)
        self.memory = mmap.mmap(self.file, n_bytes)

    def put(self, shape: tuple[int, ...], dtype: np.dtype, fill: Callable[[np.ndarray], None]) -> Place:
        """Waits for a free slot, lets ``fill`` write an array into it, and says where it is."""
        slot = self._free_slot()
        n_items, at = int(np.prod(shape)), HEADER_BYTES + slot * self.slot_bytes
        fill(np.frombuffer(self.memory, dtype, n_items, at).reshape(shape))
        self.memory[slot] = 1
        return Place(self.path, self.name, len(self.memory), slot, self.slot_bytes, shape, dtype.str)

    def _free_slot(self) -> int:
        self._wait_until(lambda: 0 in self.memory[: self.n_slots])
        return self.memory.find(b"\0", 0, self.n_slots)

    def _wait_until(self, true: Callable[[], bool]) -> None:
        nap_s, told_s = 0.0002, time.monotonic()
        while not true():
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, LONGEST_NAP_S)
            if time.monotonic() - told_s > STILL_HERE_S:
                self.still_here()
                told_s = time.monotonic()

    def close(self) -> None:
        """Give the memory up when the other process has taken everything in it."""
        self._wait_until(lambda: not any(self.memory[: self.n_slots]))
        with contextlib.suppress(BufferError):  # an array still looks at it: it goes with that
            self.memory.close()
        os.close(self.file)


def _unnamed_file() -> tuple[int, str]:
    """A file in memory, and the path under which another process finds it: one without a name, where there are such."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("avbench")
        return file, f"/proc/{os.getpid()}/fd/{file}"
    return tempfile.mkstemp(prefix="avbench-slab-")


class Slabs:
    """The side of the process that reads. ``pinned``: CUDA copies straight from the slabs, which it locks in memory."""

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._memories: dict[str, mmap.mmap] = {}
        self._locked: dict[str, int] = {}  # address of each that CUDA has locked

    def view(self, place: Place) -> np.ndarray:
        """The array itself, until ``free``. ``OSError``: the process that wrote it died before its slab was seen."""
        memory = self._memory(place)
        at = HEADER_BYTES + place.slot * place.slot_bytes
        return np.frombuffer(memory, place.dtype, int(np.prod(place.shape)), at).reshape(place.shape)

    def free(self, place: Place) -> None:
        """Give the slot back."""
        self._memories[place.slab][place.slot] = 0

    def _memory(self, place: Place) -> mmap.mmap:
        if place.slab not in self._memories:
            with open(place.path, "r+b") as file:
                memory = mmap.mmap(file.fileno(), place.slab_bytes)
            if not place.path.startswith("/proc/"):
                os.unlink(place.path)
            if self.pinned:
                self._lock(place.slab, memory)
            self._memories[place.slab] = memory
        return self._memories[place.slab]

    def _lock(self, slab: str, memory: mmap.mmap) -> None:
        import torch

        address = np.frombuffer(memory, np.uint8).ctypes.data
        # where the system allows no more locked memory, CUDA copies through a buffer of its own: slower, no less right
        if int(torch.cuda.cudart().cudaHostRegister(address, len(memory), 0)) == 0:
            self._locked[slab] = address

    def drop(self, slabs: Iterable[str]) -> None:
        """Forget slabs whose writers are gone."""
        for slab in list(slabs):
            if (address := self._locked.pop(slab, None)) is not None:
                import torch

                torch.cuda.cudart().cudaHostUnregister(address)
            self._memories.pop(slab, None)

    def close(self) -> None:
        """Forget all slabs."""
        self.drop(self._memories)
