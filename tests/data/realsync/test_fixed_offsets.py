"""The fixed offsets of LRS3, VGGSound and AudioSet: any number of classes, and the file's name says which."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.data.realsync.fixed_offsets import read_paths
from avbench.data.realsync.importing import read_lists
from avbench.protocol.manifest import read_manifest
from avbench.types import OffsetGrid, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
Row = tuple[str, float, float]  # path, offset, start
RANGES = {3: 1.0, 21: 2.0, 41: 2.0}
LRS3, VGGSOUND = "pretrain/-FOCpMAww2_/00002", "---g-f_I2yQ_1000_11000"
TEST, VALID = "eval/--4gqARaEJE_0_10000", "balanced/VxllecRDquc_0_9000"


def write(file: Path, rows: Sequence[Row]) -> Path:
    """A list in the published form."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, row)) for row in rows]
    file.write_text("\n".join(["path,offset_sec,vstart_sec", *lines]) + "\n")
    return file


def read(name: str, *rows: Row, folder: str = "") -> Any:
    return read_paths(name, folder, [(k, [str(field) for field in row]) for k, row in enumerate(rows, 2)])


def imported(avbench: Avbench, lists: Path, out: Path) -> dict[str, Any]:
    done = avbench("data", "import-realsync", "--lists", lists, "--media", "none", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --------------------------------------------------------------------------------------------------- what the lists are


def test_a_list_of_each_data_set(avbench: Avbench, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    write(lists / "audioset_test_size21_crop5.csv", [(TEST, -1.4, 4.92), ("eval/--BfvyPmVMo_20000_30000", 0.2, 1.04)])
    write(lists / "audioset_valid_size21_crop5.csv", [(VALID, 1.6, 2.36)])
    write(lists / "vggsound_valid_size21_crop5.csv", [(VGGSOUND, 0.4, 3.44)])
    write(lists / "lrs3_train_size21_crop5.csv", [(LRS3, -2.0, 3.0)])
    report = imported(avbench, lists, tmp_path / "out")["lists"]
    assert {name: (one["family"], one["splits"], one["segments"]) for name, one in report.items()} == {
        "audioset_test_size21_crop5": ("audioset", {"test": 2}, 2),
        "audioset_valid_size21_crop5": ("audioset", {"valid": 1}, 1),
        "lrs3_train_size21_crop5": ("lrs3", {"train": 1}, 1),
        "vggsound_valid_size21_crop5": ("vggsound", {"valid": 1}, 1),
    }
    assert report["audioset_test_size21_crop5"]["support"]["streaming"]["2"]["1"] == 2
    assert report["audioset_test_size21_crop5"]["support"]["streaming"]["2"]["4"] == 0  # 11 s in clips of 10 s
    assert "models are selected on" in report["audioset_valid_size21_crop5"]["role"]
    assert "reported on" in report["audioset_test_size21_crop5"]["role"]
    manifest = read_manifest(tmp_path / "out" / "audioset_valid_size21_crop5")
    (clip,), (segment,) = manifest.clips.values(), manifest.segments
    assert (clip.id, clip.video_id, clip.path) == ("balanced_VxllecRDquc_0_9000", "VxllecRDquc", f"{VALID}.mp4")
    assert (clip.n_frames, clip.n_samples, clip.split) == (225, 144_000, "valid")
    assert (segment.offset_s, segment.offset_class, segment.start, segment.split) == (1.6, 18, 59 * 640, "valid")
    (row,) = pq.read_table(tmp_path / "out" / "audioset_valid_size21_crop5" / "segments.parquet").to_pylist()
    assert (row["published_offset_s"], row["published_start_s"]) == (1.6, 2.36)


def test_the_published_folders_are_read_as_they_are(avbench: Avbench, tmp_path: Path) -> None:
    """Two files of one name in two folders are two lists; a folder alone says as much as one among others."""
    name = "test_size21_crop5_min-2.00_max2.00.csv"
    write(tmp_path / "data" / "fixed_offsets_audioset" / name, [(TEST, 0.2, 1)])
    write(tmp_path / "data" / "fixed_offsets_vggsound" / name, [(VGGSOUND, 0.2, 1)])
    write(tmp_path / "data" / "other" / name, [(VGGSOUND, 0.2, 1)])
    report = imported(avbench, tmp_path / "data", tmp_path / "out")
    stem = name.removesuffix(".csv")
    assert set(report["lists"]) == {f"audioset_{stem}", f"vggsound_{stem}"}
    assert report["other_files"] == ["other: not a published list"]
    found, _ = read_lists(tmp_path / "data" / "fixed_offsets_audioset")
    assert [one.name for one in found] == [f"audioset_{stem}"]


@pytest.mark.parametrize("n", RANGES)
def test_the_name_says_the_classes(avbench: Avbench, tmp_path: Path, n: int) -> None:
    grid, lists = OffsetGrid(n, RANGES[n]), tmp_path / "lists"
    rows = [(VGGSOUND, grid.offset_of(c), 2.0) for c in range(n)]
    write(lists / f"test_size{n}_crop5_min-{RANGES[n]:.2f}_max{RANGES[n]:.2f}.csv", rows)
    write(lists / f"vggsound_valid_size{n}_crop5.csv", rows)  # the range is known
    for name, one in imported(avbench, lists, tmp_path / "out")["lists"].items():
        assert (one["classes"], one["max_offset_s"], one["on_grid"]) == (n, RANGES[n], n)
        assert one["class_histogram"] == [1] * n
        assert one["in_sync_share"] == pytest.approx(1 / n)
        manifest = read_manifest(tmp_path / "out" / name)
        assert manifest.grid == grid
        assert [(s.offset_class, s.offset_s) for s in manifest.segments] == [(c, r[1]) for c, r in enumerate(rows)]
    described = avbench("data", "info", tmp_path / "out" / f"vggsound_valid_size{n}_crop5")
    assert described.returncode == 0, described.stderr
    assert described.stdout.count("▪") == 30 * n
    assert f"audio {RANGES[n]:g} s late" in described.stdout


@pytest.mark.parametrize(("n", "step_s"), [(3, 1.0), (41, 0.1)])
def test_classes_that_no_protocol_has_are_not_run(avbench: Avbench, tmp_path: Path, n: int, step_s: float) -> None:
    write(tmp_path / "lists" / f"vggsound_test_size{n}_crop5.csv", [(VGGSOUND, step_s, 2.0)])
    imported(avbench, tmp_path / "lists", tmp_path / "out")
    data = tmp_path / "out" / f"vggsound_test_size{n}_crop5"
    for what in (
        ("run", "--model", "constant"),
        ("run", "--model", "xcorr", "--iterations", 1),
        ("sweep", "--models", "xcorr", "constant", "--iterations", 1),
        ("paper", "--out", tmp_path / "paper"),
    ):
        done = avbench(*what, "--data", data)
        assert done.returncode == 2, done.stdout
        assert len(done.stderr.splitlines()) == 1
        assert f"has {n} offset classes within +-{RANGES[n]:g} s, but models and protocols have 21" in done.stderr


def test_windows_of_another_length_are_said(avbench: Avbench, tmp_path: Path) -> None:
    write(tmp_path / "lists" / "lrs3_test_size3_crop2_min-1.00_max1.00.csv", [(LRS3, 1.0, 7.48)])
    (one,) = imported(avbench, tmp_path / "lists", tmp_path / "out")["lists"].values()
    assert "drawn for windows of 2 s (those of avbench have 5 s)" in one["role"]
    assert one["lengths_unknown"] == 1


def test_lists_of_the_same_clips_are_no_leak_and_others_are(tmp_path: Path) -> None:
    from avbench.data.realsync.importing import import_lists

    lists = tmp_path / "lists"
    write(lists / "vggsound_test_size21_crop5.csv", [(VGGSOUND, 0.2, 1)])
    write(lists / "vggsound_test_size3_crop5.csv", [(VGGSOUND, 1.0, 1)])
    assert import_lists(lists, None, tmp_path / "out")["warnings"] == []
    write(lists / "vggsound_valid_size41_crop5.csv", [(VGGSOUND, 0.1, 2)])
    write(lists / "audioset_test_size21_crop5.csv", [(f"eval/{VGGSOUND}", 0.2, 1)])
    said = import_lists(lists, None, tmp_path / "out")["warnings"]
    assert len(said) == 5
    assert sum("these lists must not overlap" in text for text in said) == 2  # valid and test of VGGSound
    assert sum("never train or select on one and report on the other" in text for text in said) == 3


# ------------------------------------------------------------------------------------------------------ strict reading


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("audioset_test_size21_crop5.csv", (VALID, 0.2, 1), "line 2: balanced/ is the split valid of AudioSet, but"),
        ("audioset_test_size21_crop5.csv", (LRS3, 0.2, 1), "is not eval|balanced|unbalanced/VIDEO_T0_T1 in ms,offset"),
        ("audioset_size21.csv", ("other/--4gqARaEJE_0_10000", 0.2, 1), "is not eval|balanced|unbalanced/VIDEO_T0_T1"),
        ("vggsound_test_size21_crop5.csv", (TEST, 0.2, 1), "is not VIDEO_T0_T1 in ms,offset,start"),
        ("vggsound_test_size21_crop5.csv", ("../../etc/passwd", 0.2, 1), "is not VIDEO_T0_T1 in ms,offset,start"),
        ("vggsound_test_size21_crop5.csv", (VGGSOUND, 0.1, 1), "offset 0.1 s is none of 21 classes 0.2 s apart"),
        ("vggsound_test_size3_crop5.csv", (VGGSOUND, 0.2, 1), "offset 0.2 s is none of 3 classes 1 s apart"),
        ("vggsound_test_size3_crop5.csv", (VGGSOUND, 2.0, 1), "offset 2.0 s is outside [-1, 1] s"),
        ("vggsound_test_size41_crop5.csv", (VGGSOUND, 0.05, 1), "offset 0.05 s is none of 41 classes 0.1 s apart"),
        ("vggsound_test_size21_crop5.csv", (VGGSOUND, 0.2, 10), "start 10 s is outside the clip of 10 s"),
        ("vggsound_test_size21_crop5.csv", (VGGSOUND, 0.2, -1), "is not VIDEO_T0_T1 in ms,offset,start"),
        ("vggsound_test_size21.csv", ("---g-f_I2yQ_11000_1000", 0.2, 1), "start 1 s is outside the clip of -10 s"),
        ("test_size21_crop5.csv", ("nothing", 0.2, 1), "'nothing' is not part/VIDEO/NUMBER (LRS3) or VIDEO_T0_T1 in"),
        ("vggsound_test_size20_crop5.csv", (VGGSOUND, 0.2, 1), "size20; the number of classes must be odd"),
        ("vggsound_test_size11_crop5.csv", (VGGSOUND, 0.2, 1), "size11 but not how large the offsets are"),
        ("vggsound_test_size21_min-2.00.csv", (VGGSOUND, 0.2, 1), "must say both ends of the offsets"),
        ("vggsound_test_size21_min-2.00_max1.00.csv", (VGGSOUND, 0.2, 1), "must say both ends of the offsets"),
    ],
)
def test_what_contradicts_itself_is_named(avbench: Avbench, tmp_path: Path, name: str, row: Row, said: str) -> None:
    write(tmp_path / "lists" / name, [row])
    done = avbench(
        "data", "import-realsync", "--lists", tmp_path / "lists", "--media", "none", "--out", tmp_path / "out"
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr
    assert name in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_row_is_of_the_family_of_the_first() -> None:
    with pytest.raises(UsageError, match=r"list\.csv line 3: 'pretrain/.*' is not VIDEO_T0_T1 in ms,offset,start"):
        read("list.csv", (VGGSOUND, 0.2, 1), (LRS3, 0.2, 1))
    assert read("list.csv", (TEST, 0.2, 1)).name == "audioset_list"
    assert read("list.csv", (LRS3, 0.2, 1)).family == "lrs3"
    bare = read("audioset_test_size21.csv", (VGGSOUND, 0.2, 1))  # AudioSet's clips without the folder
    assert (bare.family, bare.entries[0].clip_id) == ("audioset", VGGSOUND)


def test_a_list_without_rows_and_two_of_one_name(tmp_path: Path) -> None:
    write(tmp_path / "vggsound_test_size21_crop5.csv", [])
    with pytest.raises(UsageError, match=r"vggsound_test_size21_crop5\.csv has no rows below its header"):
        read_lists(tmp_path)
    write(tmp_path / "vggsound_test_size21_crop5.csv", [(VGGSOUND, 0.2, 1)])
    write(tmp_path / "fixed_offsets_vggsound" / "test_size21_crop5.csv", [(VGGSOUND, 0.2, 1)])
    with pytest.raises(UsageError, match=r"both the list vggsound_test_size21_crop5; import one of them"):
        read_lists(tmp_path)


def test_a_name_without_classes_means_the_usual_ones_and_others_are_told(tmp_path: Path) -> None:
    assert read("vggsound_test.csv", (VGGSOUND, 0.2, 1)).warnings == ()
    (said,) = read("vggsound_test.csv", (VGGSOUND, 0.2, 1), (VGGSOUND, 0.1, 1), (VGGSOUND, -0.1, 1)).warnings
    assert "2 of 3 offsets lie between 21 classes 0.2 s apart" in said
    assert "must say size3 or size41 in its name" in said


def test_a_range_that_is_not_the_usual_one() -> None:
    assert read("lrs3_size11_min-1.00_max1.00.csv", (LRS3, 0.8, 1)).grid == OffsetGrid(11, 1.0)
    assert read("lrs3_size21_min-1.00_max1.00.csv", (LRS3, 0.1, 1)).grid == OffsetGrid(21, 1.0)


@given(st.data())
def test_rows_come_out_as_they_were_put_in(data: st.DataObject) -> None:
    n = data.draw(st.sampled_from([3, 21, 41]))
    grid, split = OffsetGrid(n, RANGES[n]), data.draw(st.sampled_from(["train", "valid", "test"]))
    part = {"train": "unbalanced", "valid": "balanced", "test": "eval"}[split]
    video = st.text("ABCabc019_-", min_size=11, max_size=11)
    slices = st.tuples(video, st.integers(0, 900), st.integers(1, 10), st.integers(0, n - 1), st.integers(0, 99))
    rows, expected = [], []
    for name, t0, length, label, percent in data.draw(st.lists(slices, min_size=1, max_size=5)):
        start = round(length * percent / 100, 2)
        rows.append((f"{part}/{name}_{1000 * t0}_{1000 * (t0 + length)}", grid.offset_of(label), start))
        expected.append((name, label, 16_000 * length, start, split, (1000 * t0, 1000 * (t0 + length))))
    entries = read(f"{split}_size{n}_crop5.csv", *rows, folder="fixed_offsets_audioset").entries
    assert [(e.video_id, e.label, e.length, e.start_s, e.split, e.span_ms) for e in entries] == expected
    assert len({e.id for e in entries}) == len(rows)
