"""Manifests as ``datasets``: typed, from a folder and from a hub, normal and streaming, without decoding anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from loopback_hub import LoopbackHub

from avbench.data import as_dataset, hub, load_split
from avbench.data.dataset import class_names
from avbench.protocol.manifest import CLIP_COLUMNS, SEGMENT_COLUMNS, Manifest, read_manifest, write_manifest
from avbench.types import UNSEEN_SHA256, MediaError, OffsetGrid, UsageError

REPO = "org/clicks"


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def two_splits(clicks: Path, folder: Path) -> Manifest:
    """The clips of ``clicks`` in a folder of their own, "one" in split train, "two" in test, with events."""
    manifest = read_manifest(clicks)
    split_of = {"one": "train", "two": "test"}
    clips = {name: replace(clip, split=split_of[name]) for name, clip in manifest.clips.items()}
    segments = tuple(replace(s, split=split_of[s.clip_id], events=("click", s.id)) for s in manifest.segments)
    manifest = replace(manifest, clips=clips, segments=segments, sources={"one": {"container": "mp4"}})
    write_manifest(manifest, folder)
    return read_manifest(folder)


def test_a_dataset_has_every_column_typed(clicks: Path, tmp_path: Path) -> None:
    from datasets import ClassLabel, List, Value, Video

    manifest = two_splits(clicks, tmp_path / "data")
    data = as_dataset(manifest)
    clip_columns = {f"clip_{name}" for name in CLIP_COLUMNS}
    assert set(data.column_names) == {*SEGMENT_COLUMNS, *clip_columns, "video"}
    assert data.features["offset_class"] == ClassLabel(names=class_names(OffsetGrid()))
    assert data.features["video"] == Video(decode=False)
    assert data.features["events"] == List(Value("string"))
    assert data.features["start_ticks"] == data.features["clip_n_frames"] == Value("int64")
    assert data.features["offset_s"] == data.features["clip_duration_s"] == Value("float64")
    assert data["id"][:] == [s.id for s in manifest.segments]
    for row, segment in zip(data, manifest.segments, strict=True):
        clip = manifest.clips[segment.clip_id]
        assert (row["start_ticks"], row["offset_ticks"]) == (segment.start, segment.offset)
        assert (row["offset_s"], row["offset_class"]) == (segment.offset_s, segment.offset_class)
        assert (row["split"], row["events"], row["category"]) == (segment.split, list(segment.events), segment.category)
        assert (row["clip_id"], row["clip_sha256"], row["clip_split"]) == (clip.id, clip.sha256, clip.split)
        assert json.loads(row["clip_source"] or "{}") == manifest.sources.get(clip.id, {})
        assert row["video"] == {"path": str(manifest.clip_path(clip)), "bytes": None}
    with av.open(data[0]["video"]["path"]) as container:
        assert container.streams.video
    label = data.features["offset_class"]
    assert [float(label.int2str(row["offset_class"])) for row in data] == pytest.approx(data["offset_s"][:])


def test_class_names_are_the_offsets_in_seconds() -> None:
    names = class_names(OffsetGrid())
    assert (names[0], names[9], names[10], names[11], names[20]) == ("-2", "-0.2", "0", "0.2", "2")
    assert len(set(class_names(OffsetGrid(1000, 60.0)))) == 1000


def test_media_that_are_not_there_are_none(clicks: Path, make_clicks: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_clicks()
    (folder / "media" / "one.mp4").unlink()
    manifest = read_manifest(folder)
    assert [row["video"] is None for row in as_dataset(manifest)] == [True, True, False, False]
    unseen = replace(manifest.clips["two"], sha256=UNSEEN_SHA256)
    assert set(as_dataset(replace(manifest, clips=manifest.clips | {"two": unseen}))["video"]) == {None}
    (folder / "media" / "one.mp4").symlink_to(clicks / "media" / "one.mp4")
    with pytest.raises(MediaError, match="outside the media root"):
        as_dataset(manifest)


def test_hidden_labels_are_no_labels(clicks: Path, tmp_path: Path) -> None:
    manifest = read_manifest(clicks)
    zero = OffsetGrid().class_of(0.0)
    segments = tuple(replace(s, offset=0, offset_class=zero) for s in manifest.segments)
    write_manifest(replace(manifest, segments=segments, offset_law="hidden"), tmp_path / "hidden")
    for streaming in (False, True):
        rows = list(load_split(tmp_path / "hidden", "test", streaming=streaming))
        assert set(rows[0]) == set(SEGMENT_COLUMNS) - {"offset_ticks", "offset_s", "offset_class"}
        assert len(rows) == len(segments)
    assert not [name for name in as_dataset(read_manifest(tmp_path / "hidden")).column_names if "offset" in name]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_split_of_a_folder(clicks: Path, tmp_path: Path, streaming: bool) -> None:
    manifest = two_splits(clicks, tmp_path / "data")
    for split, name in (("train", "one"), ("test", "two")):
        data = load_split(tmp_path / "data", split, streaming=streaming)
        assert (data.split, data.features["offset_class"].names) == (split, class_names(manifest.grid))
        expected = [s for s in manifest.segments if s.split == split]
        assert [(r["id"], r["offset_class"], r["events"]) for r in data] == [
            (s.id, s.offset_class, list(s.events)) for s in expected
        ]
        clips = list(load_split(str(tmp_path / "data"), split, table="clips", streaming=streaming))
        assert [(c["id"], c["sha256"]) for c in clips] == [(name, manifest.clips[name].sha256)]
    with pytest.raises(UsageError, match="has no split 'mars'; it has train, test"):
        load_split(tmp_path / "data", "mars", streaming=streaming)


def test_splits_that_load_dataset_cannot_have(clicks: Path, tmp_path: Path) -> None:
    manifest = two_splits(clicks, tmp_path / "data")
    segments = tuple(replace(s, split="my test") for s in manifest.segments if s.split == "test")
    write_manifest(replace(manifest, segments=segments), tmp_path / "odd")
    with pytest.raises(UsageError, match="letters, digits and _ only, not 'my test'"):
        load_split(tmp_path / "odd", "my test")
    assert as_dataset(read_manifest(tmp_path / "odd").split("my test")).num_rows == len(segments)
    with pytest.raises(UsageError, match="no segments in split 'train'"):
        load_split(tmp_path / "odd", "train")
    assert load_split(tmp_path / "odd", "train", table="clips")["id"][:] == ["one"]


def test_a_published_list_keeps_its_own_columns_and_odd_split_names(
    avbench: Callable[..., Any], tmp_path: Path
) -> None:
    lists = Path(__file__).parent / "lists"
    avbench("data", "import-realsync", "--lists", lists, "--media", "none", "--out", tmp_path / "rs")
    folder = tmp_path / "rs" / "normal.evaluation"
    broken = [s for s in read_manifest(folder).segments if s.split == "test_broken"]
    rows = list(load_split(folder, "test_broken"))
    assert [r["id"] for r in rows] == [s.id for s in broken]
    assert all(r["broken"].startswith("broken") for r in rows)
    clips = load_split(folder, "test_broken", table="clips")
    assert set(clips["id"]) == {s.clip_id for s in broken}  # though the clips' own split is "test"


def test_a_damaged_folder_is_refused(make_clicks: Callable[..., Path]) -> None:
    folder = make_clicks()
    data = (folder / "segments.parquet").read_bytes()
    (folder / "segments.parquet").write_bytes(data[:-8] + b"00000000")
    with pytest.raises(UsageError, match=r"is not the table that manifest\.json pins"):
        load_split(folder, "test")
    for source, said in (("hub:org/name@main", "can move"), ("hub:org/name", "is not pinned"), ("nothing", "no such")):
        with pytest.raises(UsageError, match=said):
            load_split(source, "test")
    with pytest.raises(UsageError, match="unknown table 'media'"):
        load_split(folder, "test", table="media")


# ---------------------------------------------------------------------------------------------------------- from a hub

# in a process of its own: HF_ENDPOINT is read when the libraries are imported
HOSTED = """
import itertools, json, sys
from avbench.data import load_split
from avbench.types import AvbenchError
for address, streaming, table in itertools.product(sys.argv[1:], (False, True), ("segments", "clips")):
    address, _, split = address.partition("#")
    try:
        data = load_split(address, split, table=table, streaming=streaming)
        labels = data.features["offset_class"].names if table == "segments" else None
        print(json.dumps([type(data).__name__, labels, list(data)]))
    except AvbenchError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
assert "torchcodec" not in sys.modules
"""


@pytest.fixture
def loopback() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


def test_a_split_of_a_hosted_data_set(loopback: LoopbackHub, clicks: Path, tmp_path: Path) -> None:
    manifest = two_splits(clicks, tmp_path / "data")

    def ask(*addresses: str, offline: bool = False) -> list[Any]:
        env = loopback.env(tmp_path / "hf", offline=offline, AVBENCH_CACHE=os.environ["AVBENCH_CACHE"])
        command = [sys.executable, "-c", HOSTED, *addresses]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    # pushed by the library in this process: only its address must be known
    commit = hub.push(tmp_path / "data", hub.HubRepo(REPO, loopback.url, loopback.token("owner")))
    address = f"hub:{REPO}@{commit}"
    loaded = ask(f"{address}#train", f"{address}#mars", f"hub:{REPO}@{'0' * 40}#train")
    loaded, mars, nowhere = loaded[:4], loaded[4:8], loaded[8:]
    assert [kind for kind, _, _ in loaded] == ["Dataset", "Dataset", "IterableDataset", "IterableDataset"]
    segments = [s for s in manifest.segments if s.split == "train"]
    for i in (0, 2):
        _, labels, rows = loaded[i]
        assert labels == class_names(manifest.grid)
        assert [(r["id"], r["offset_s"], r["offset_class"], r["events"]) for r in rows] == [
            (s.id, s.offset_s, s.offset_class, list(s.events)) for s in segments
        ]
        assert [c["path"] for c in loaded[i + 1][2]] == ["one.mp4"]
    assert not [r for r in loopback.requests if r[0] == "GET" and r[1].endswith(".mp4")]  # no media were fetched

    assert all("has no split 'mars'; it has train, test" in line for line in mars[:2])
    assert all(f"AvbenchError: {REPO} has no splits/mars-" in line for line in mars[2:])
    assert nowhere == [f"AvbenchError: {REPO} has no revision {'0' * 40}"] * 4

    # offline the cache serves, but there is nothing to stream from
    loopback.stop()
    offline = ask(f"{address}#train", offline=True)
    assert offline[:2] == loaded[:2]
    assert len(offline) == 4
    assert all("HF_HUB_OFFLINE is set" in line for line in offline[2:])


def test_a_changed_hosted_table_is_refused(
    loopback: LoopbackHub, clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    repo = hub.HubRepo(REPO, loopback.url, loopback.token("owner"))
    commit = hub.push(clicks, repo)
    assert read_manifest(hub.fetch_tables(repo, commit)).sha256 == read_manifest(clicks).sha256
    other = loopback.commit(REPO, {"segments.parquet": (clicks / "clips.parquet").read_bytes()})
    with pytest.raises(hub.AvbenchError, match=r"segments\.parquet is not the table that manifest\.json pins"):
        hub.fetch_tables(repo, other)


def test_a_pulled_data_set_needs_no_hub(loopback: LoopbackHub, clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = hub.HubRepo(REPO, loopback.url, loopback.token("owner"))
    commit = hub.push(clicks, repo)
    hub.pull(repo, commit)
    loopback.stop()
    ids = [s.id for s in read_manifest(clicks).segments]
    for streaming in (False, True):
        assert [row["id"] for row in load_split(f"hub:{REPO}@{commit}", "test", streaming=streaming)] == ids


@pytest.mark.parametrize(
    "code",
    [
        "import avbench, avbench.data, avbench.data.hub",
        "from avbench.cli import main; sys.argv = ['avbench']; main(['data', 'ls'])",
        "import avbench.cli; avbench.cli._parser().format_help()",
    ],
)
def test_datasets_is_loaded_on_use_only(code: str) -> None:
    code = f"import sys; {code}; sys.exit('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_knows_its_names() -> None:
    import avbench.data

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = avbench.data.nothing
