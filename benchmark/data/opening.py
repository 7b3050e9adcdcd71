"""Open any ``--data``: an embedded split, a track's name, a manifest folder, or a hub address."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from avbench.system.progress import Progress, of_stage
from avbench.system.spelling import nearest
from avbench.types import UsageError

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest


def read_data(
    data: str,
    split: str | None = "test",
    progress: Progress | None = None,
    limit: int | None = None,
    on_demand: bool = False,
) -> Manifest:
    """The manifest that ``data`` names: a SynthSync name (its clips are made if they are not there), a track's name, a
    folder, or ``hub:ORG/NAME@COMMIT`` (pulled if it is not there; ``on_demand``: its tables only).

    ``split`` None: all of a folder, the test split of SynthSync. ``limit``: only the first so many segments, and no
    other clip is made. ``UsageError`` for an unknown name or split, and for ``on_demand`` where nothing is hosted.
    """
    manifest = read_unmade(data, split, progress, on_demand)
    return made(manifest if limit is None else manifest.limit(limit), progress)


def made(manifest: Manifest, progress: Progress | None = None) -> Manifest:
    """``manifest``, or what was derived from it, with the clips of SynthSync that :func:`read_unmade` did not make."""
    from avbench.data import synthsync

    unmade = any(clip.sha256 == synthsync.NOT_MADE for clip in manifest.clips.values())
    if manifest.spec_sha256 not in synthsync.specifications() or not unmade:
        return manifest
    return synthsync.with_media(manifest, progress=of_stage(progress, "making clips"))


def read_unmade(
    data: str, split: str | None = "test", progress: Progress | None = None, on_demand: bool = False
) -> Manifest:
    """As :func:`read_data`, but no clips of SynthSync are made: for who derives from it what is read, and then asks
    :func:`made` for its clips."""
    from avbench.data import dynamic, synthsync
    from avbench.protocol.manifest import read_manifest
    from avbench.protocol.tracks import DATA_OF_TRACK

    if data in DATA_OF_TRACK:
        data, split = DATA_OF_TRACK[data]
    if on_demand and not data.startswith("hub:"):
        raise UsageError(f"{data} is not hosted, so nothing is fetched on demand; that goes with hub:ORG/NAME@COMMIT")
    if data == dynamic.NAME or data in synthsync.NAMES:
        manifest = planned(data, "test" if split is None else split)
    elif not data.startswith("hub:") and os.sep not in data and not Path(data).exists():
        built_in = (*synthsync.NAMES, dynamic.NAME, *DATA_OF_TRACK)
        otherwise = f"it is neither {', '.join(dict.fromkeys(built_in))} nor a manifest folder"
        raise UsageError(f"unknown data {data!r}: {nearest(data, built_in, otherwise)}")
    else:
        if on_demand:
            from avbench.data.on_demand import open_tables

            manifest = open_tables(data)
        elif data.startswith("hub:"):
            from avbench.data.hub import open_address

            manifest = open_address(data, of_stage(progress, "fetching data"))
        else:
            manifest = read_manifest(_manifest_folder(Path(data)))
        manifest = manifest if split is None else manifest.split(split)
    if not manifest.segments:
        raise UsageError(f"{data} has no segments in split {split!r}")
    return manifest


def read_labels(data: str, split: str = "test") -> Manifest:
    """As :func:`read_data`, but media are neither made nor fetched: for commands that only count."""
    return read_unmade(data, split, on_demand=data.startswith("hub:"))


def planned(data: str, split: str = "test") -> Manifest:
    """The manifest of a built-in split without its media, so that nothing is made: every clip, segment, label and law.
    ``UsageError`` for an unknown name or split."""
    from avbench.data import dynamic, synthsync

    return dynamic.planned(split) if data == dynamic.NAME else synthsync.planned(data, split)


def _manifest_folder(path: Path) -> Path:
    """The folder with the manifest; ``UsageError`` with advice if there is something else at ``path``."""
    inputs = path / "inputs"  # of a redrawn set: its labels lie beside them
    if (path / "manifest.json").exists():
        return path
    if inputs.is_dir():
        return inputs
    if path.exists():
        what = "a folder without manifest.json" if path.is_dir() else "a file, and no manifest folder"
        name = shlex.quote(str(path))
        raise UsageError(
            f"{path} is {what}; of videos, `avbench data from-files {name} --out DIR` makes one, and "
            f"`avbench predict {name}` says their offsets without labels"
        )
    return path
