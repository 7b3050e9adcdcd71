"""A manifest as a ``datasets.Dataset``: for training and analysis with the Hugging Face library.

A run does not read data through this module: it needs the pinned hashes, which :func:`avbench.data.hub.pull` and
:func:`avbench.protocol.manifest.read_manifest` check. Media columns are never decoded here (``Video(decode=False)``),
so neither torchcodec nor an extra of ``datasets`` is needed; ``av.open(row["video"]["path"])`` opens a clip.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.protocol.manifest import Manifest, clip_columns, clip_row, read_manifest, segment_columns, segment_row
from avbench.types import OffsetGrid, UsageError

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

    from avbench.data.hub import HubRepo

OFFSET_COLUMNS = ("offset_ticks", "offset_s", "offset_class")
TABLES = ("segments", "clips")


def as_dataset(manifest: Manifest) -> Dataset:
    """One row per segment, in the manifest's order, with typed features.

    The columns of ``segment_columns`` (``offset_class`` as a ``ClassLabel``, named by the class's offset in seconds);
    the columns of ``clip_columns``, each with ``clip_`` before its name; and ``video``, the clip's file as
    ``Video(decode=False)``: ``{"path": ..., "bytes": None}``, or None where there is no file. If the labels are hidden
    there are no offset columns. ``MediaError``: a clip's path leaves the media root.
    """
    from datasets import Dataset

    features = _features(manifest)
    of_clips = {name: _of_clip(manifest, name) for name in {s.clip_id for s in manifest.segments}}
    rows = [segment_row(s) | of_clips[s.clip_id] for s in manifest.segments]
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features)


def load_split(
    source: str | Path, split: str, *, table: str = "segments", streaming: bool = False
) -> Dataset | IterableDataset:
    """The rows of one split of a manifest folder or of ``hub:ORG/NAME@COMMIT``, through ``datasets.load_dataset``.

    ``table``: "segments" or "clips" (those of the split, and those its segments are in). The columns are those of the
    parquet table, further ones included; ``offset_class`` is a ``ClassLabel``, and if the labels are hidden there are
    no offset columns. No media are fetched; :func:`as_dataset` has them.

    The tables are verified against the hashes in ``manifest.json``, with one exception: ``streaming`` from a hub reads
    ``splits/`` row group by row group, pinned by the commit alone, and needs the network. A data set that was pulled
    before is read from avbench's cache, also when streaming; without streaming, the hub client's cache serves when
    HF_HUB_OFFLINE is set. ``datasets`` and the hub's client read HF_ENDPOINT when they are imported.

    ``UsageError``: no such table or split, no rows, not a manifest folder, an address that is not pinned;
    ``AvbenchError``: the hub's errors, as :func:`avbench.data.hub.pull`'s.
    """
    if table not in TABLES:
        raise UsageError(f"unknown table {table!r}: there are {', '.join(TABLES)}")
    if not str(source).startswith("hub:"):
        return _load_folder(Path(source), split, table, streaming)
    from avbench.data import hub

    repo, commit = hub.parse_address(str(source))
    pulled = hub.default_folder(repo.name, commit)
    if hub.undamaged(pulled) is not None:
        return _load_folder(pulled, split, table, streaming)
    if not streaming:
        return _load_folder(hub.fetch_tables(repo, commit), split, table, streaming)
    return _stream_hosted(repo, commit, split, table)


def class_names(grid: OffsetGrid) -> list[str]:
    """The offset classes as names, in seconds: "-2", "-1.8", ... "0", ... "2"; positive = the audio is early."""
    return [f"{round(grid.offset_of(c), 6) + 0.0:g}" for c in range(grid.n_classes)]  # + 0.0: no "-0"


def _load_folder(folder: Path, split: str, table: str, streaming: bool) -> Dataset | IterableDataset:
    from datasets import load_dataset

    manifest = read_manifest(folder)
    part = manifest.split(split)
    if not re.fullmatch(r"\w+", split):
        raise UsageError(f"load_dataset takes split names of letters, digits and _ only, not {split!r}; use as_dataset")
    if table == "segments" and not part.segments:  # load_dataset refuses a split without rows
        raise UsageError(f"{manifest.name} has no segments in split {split!r}")
    wanted = [("split", "==", split)] if table == "segments" else [("id", "in", sorted(part.clips))]
    files = {split: str(folder / f"{table}.parquet")}
    rows = load_dataset("parquet", data_files=files, split=split, filters=wanted, streaming=streaming)
    return _typed(rows, table, manifest.grid, manifest.labels_hidden)


def _stream_hosted(repo: HubRepo, commit: str, split: str, table: str) -> IterableDataset:
    from datasets import load_dataset

    from avbench.data import hub

    meta = hub.fetch_meta(repo, commit)
    path = f"splits/{split}-{table}.parquet"
    hub.expect_file(repo, commit, path)
    files = {split: f"hf://datasets/{repo.name}@{commit}/{path}"}
    with hub.hub_errors(repo.name, repo.endpoint, commit, path):
        rows = load_dataset("parquet", data_files=files, split=split, streaming=True)
    grid = OffsetGrid(meta["grid"]["n_classes"], meta["grid"]["max_offset_s"])
    return _typed(rows, table, grid, meta["offset_law"] == "hidden")


def _typed(rows: Any, table: str, grid: OffsetGrid, labels_hidden: bool) -> Any:
    """Segments with ``offset_class`` as a ``ClassLabel``, or without offset columns if the labels are hidden."""
    from datasets import ClassLabel

    if table == "clips":
        return rows
    if labels_hidden:
        return rows.remove_columns(list(OFFSET_COLUMNS))
    return rows.cast_column("offset_class", ClassLabel(names=class_names(grid)))


def _features(manifest: Manifest) -> Features:
    from datasets import ClassLabel, Features, List, Value, Video

    def of(columns: Mapping[str, tuple[str, str]], prefix: str = "") -> dict[str, Any]:
        kinds = {
            name: List(Value("string")) if kind == "list<string>" else Value(kind)
            for name, (kind, _) in columns.items()
        }
        return {prefix + name: kind for name, kind in kinds.items()}

    segments = of(segment_columns(manifest)) | {"offset_class": ClassLabel(names=class_names(manifest.grid))}
    if manifest.labels_hidden:
        segments = {name: kind for name, kind in segments.items() if name not in OFFSET_COLUMNS}
    return Features(segments | of(clip_columns(manifest), "clip_") | {"video": Video(decode=False)})


def _of_clip(manifest: Manifest, name: str) -> dict[str, Any]:
    """What a segment's row has of its clip."""
    clip = manifest.clips[name]
    path = manifest.clip_path(clip) if clip.seen else None
    row = clip_row(clip, manifest.sources.get(name))
    video = {"path": str(path), "bytes": None} if path is not None and path.is_file() else None
    return {f"clip_{key}": row[key] for key in clip_columns(manifest)} | {"video": video}
