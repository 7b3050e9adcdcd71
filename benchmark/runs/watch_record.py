"""Keep what a watch has seen: all events, and of each window the model's probabilities, in files of bounded length.

``DIR/BEGIN-NUMBER.jsonl``: JSON lines, the first of each file says what was watched, with which model and settings.
A watch that begins anew in the same folder adds files. A crash or a full disk leaves at most the last line cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avbench.scoring.regimes import Evidence
from avbench.types import AvbenchError

SCHEMA_VERSION = 1
LINES = 20_000  # a file: 11 hours at a hop of 2 s, about 10 MB
_SYNC_S = 10.0  # as much may be lost when the power fails
_RETRY_S = 30.0  # after a failure; what comes meanwhile is lost and counted
_URGENT = ("alarm", "clear", "summary")


class Record:
    """A folder that keeps the events. ``head``: what the first line of each file says.

    ``AvbenchError`` if the folder cannot be written at the beginning. Later failures are said once (``say``), counted
    in ``lost`` lines, and tried again.
    """

    def __init__(
        self,
        folder: Path,
        head: dict[str, Any],
        say: Callable[[str], None],
        lines: int = LINES,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._head, self._say, self._lines, self._wall = folder, head, say, lines, wall
        self._name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.lost = self.parts = 0
        self._file: BinaryIO | None = None
        self._written, self._synced, self._retry_at = 0, wall(), 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise AvbenchError(
                f"cannot write to {folder}: {error.strerror or error}; choose another --record"
            ) from error

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None:
        """Add a line."""
        if evidence is not None:
            record = record | {"log_p": _rounded(evidence.log_p), "believed": _rounded(evidence.believed)}
        try:
            if self._file is None and self._wall() < self._retry_at:
                self.lost += 1
                return
            if self._file is None or self._written >= self._lines:
                self.close()
                self._open()
            self._write(record)
            if record["type"] in _URGENT or self._wall() - self._synced > _SYNC_S:
                self._sync()
        except OSError as error:
            if not self.lost:
                self._say(f"the record in {self._folder} has holes: {error.strerror or error}; it is tried again")
            self.lost += 1
            self._retry_at = self._wall() + _RETRY_S
            self._drop()

    def close(self) -> None:
        """Write the last lines to the disk."""
        with contextlib.suppress(OSError):
            self._sync()
        self._drop()

    def _open(self) -> None:
        path = self._folder / f"{self._name}-{self.parts:05}.jsonl"
        self._file = open(path, "xb")  # noqa: SIM115  (it stays open)
        self.parts += 1
        self._written = 0
        self._write({"type": "begin", "schema_version": SCHEMA_VERSION, "part": self.parts - 1, **self._head})
        self._sync()

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._written += 1

    def _sync(self) -> None:
        if self._file is not None:
            self._synced = self._wall()
            os.fsync(self._file.fileno())

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _rounded(log_p: np.ndarray | None) -> list[float] | None:
    """Log probabilities for JSON: four decimals, and no infinity."""
    return None if log_p is None else [round(max(float(x), -1e4), 4) for x in log_p]
