"""Where avbench keeps files on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from avbench.types import AvbenchError


def cache_root() -> Path:
    """$AVBENCH_CACHE, or avbench in the platform's cache folder."""
    if os.environ.get("AVBENCH_CACHE"):
        return Path(os.environ["AVBENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avbench"


def default_store() -> Path:
    """The user's store: ``store`` in $AVBENCH_CACHE, or in avbench's folder of the platform's cache."""
    return cache_root() / "store"


def writable(folder: Path, option: str) -> Path:
    """``folder``, created if missing; ``AvbenchError`` if it is not writable, so that this is known before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise AvbenchError(f"cannot write to {folder}: {reason}; choose another folder with {option}") from error
    return folder
