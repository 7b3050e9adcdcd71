"""Cores and memory: what this process and its workers may use, what it has used, and whether memory ran out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


def cores() -> int:
    """Cores this process may use: containers and batch systems often allow fewer than the machine has."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(allowed, 1)


def free_memory_bytes() -> int | None:
    """Memory that more processes can use before the system starts killing some; None if the system does not say."""
    rooms = []
    for line in _read(_MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        rooms.append(int(limit) - int(used))
    return min(rooms, default=None)


def worker_count(bytes_each: int) -> int:
    """Default number of worker processes, each using ``bytes_each``: one per core, fewer if memory is short."""
    free = free_memory_bytes()
    return cores() if free is None else max(1, min(cores(), free // bytes_each))


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    for line in _read(_STATUS).splitlines():
        # of this program only; getrusage() includes the process that started it, if that one was larger
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, so that a smaller batch may help."""
    import torch

    # libraries used by torch report it as a RuntimeError with their own messages
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)
    return said or isinstance(error, torch.OutOfMemoryError)


def free_gpu_memory() -> None:
    """Return unused GPU memory that torch has cached to the system."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
