"""Readers of media that do to their process what some decoders do with some files; worker processes import them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time

from avbench.data.apart import MediaFile
from avbench.data.media import media_sha256
from avbench.data.probing import MediaInfo, probe
from avbench.engine.job import Reader, open_media
from avbench.protocol.manifest import Manifest
from avbench.types import ClipRecord, MediaError, UsageError


def at_its_name(file: MediaFile) -> str:
    """What reading does to the process, or raises, as the file's name says."""
    what = file.path.stem
    if what == "segfault":
        ctypes.string_at(0)
    if what == "abort":
        os.abort()
    if what == "endless":
        time.sleep(600)
    if what == "greedy":
        return str(len(bytearray(2**33)))
    if what == "bug":
        raise ValueError("no such\nbox")
    if what == "refused":
        raise MediaError(file.clip_id, "the file has no sound stream")
    if what == "full":
        raise UsageError("the disk is full")
    return f"{what} {os.getpid()}"


def measure(longest_s: float, file: MediaFile) -> tuple[MediaInfo, str]:
    """As from-files does it, but the decoder dies on files whose name contains "deadly"."""
    die_at_deadly(file.clip_id)
    return probe(file.path, file.clip_id, longest_s=longest_s), media_sha256(file.path)


def problems(file: MediaFile) -> list[str]:
    """As ``verify``, with the same decoder, finding nothing."""
    die_at_deadly(file.clip_id)
    return []


def open_clip(manifest: Manifest, clip: ClipRecord) -> Reader:
    """As a run, with the same decoder."""
    die_at_deadly(clip.id)
    return open_media(manifest, clip)


class Opener:
    """The same as an ``open_clip`` that says of itself that it decodes."""

    decodes = True

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def __call__(self, clip: ClipRecord) -> Reader:
        return open_clip(self.manifest, clip)


def die_at_deadly(clip_id: str) -> None:
    if "deadly" in clip_id:
        assert multiprocessing.parent_process(), "it would have ended the whole command"
        os.kill(os.getpid(), signal.SIGSEGV)
