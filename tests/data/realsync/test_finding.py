"""Clips are found under every name that hosted copies have, and one that may be another is not taken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.folders import VIDEO
from avbench.data.realsync.entries import Entry
from avbench.data.realsync.finding import FoundClips, find_clips
from avbench.protocol.manifest import read_manifest

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
ID = "_a-1_30_40b"  # a video's name may look like times
NAMES = [
    f"{ID}_30000_40000.mp4",
    f"{ID}_000030.mp4",
    f"{ID}_30.mp4",
    f"{ID}_30_40.mp4",
    f"{ID}_000030_000040.mp4",
    f"{ID}_30000.mp4",
    f"{ID}_30.0_40.0.mp4",
    f"{ID}_30.000.mp4",
    f"{ID}.mp4",
    f"test/{ID}_000030.mp4",
    f"video/train/playing drums/{ID}_000030.MP4",
    f"eval_segments/{ID}_30000_40000.MpG",
]


def entry(stem: str, span_ms: tuple[int, int] | None = None) -> Entry:
    video = next(word for word in stem.split("/")[::-1] if len(word) >= 11)[:11]
    length = 16 * (span_ms[1] - span_ms[0]) if span_ms else 0
    times = {"start_s": 0.0, "start": 0, "offset_s": 0.0, "offset": 0, "label": 10}
    return Entry("s", stem, video, stem, length, channel="", split="test", span_ms=span_ms, **times)


def slices(*spans_s: tuple[int, int], video: str = ID, unit: int = 1000) -> list[Entry]:
    """Clips of a video as VGGSound names them (``unit`` 1: as RealSync does)."""
    return [entry(f"{video}_{a * unit}_{b * unit}", (1000 * a, 1000 * b)) for a, b in spans_s]


def found(folder: Path, names: list[str], *entries: Entry) -> FoundClips:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return find_clips(folder, {one.clip_id: one for one in entries})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_slice_is_known(tmp_path: Path, name: str) -> None:
    one, other = *slices((30, 40)), *slices((30, 40), video="another_one")
    got = found(tmp_path, [name, "30000_40000.mp4", f"x{ID}_30.mp4", f"{ID}_31.mp4", f"{ID}_30_41.mp4"], one, other)
    assert (got.files, got.doubtful) == ({one.clip_id: tmp_path / name}, {})
    assert got.by_video_alone == ({one.clip_id} if name == f"{ID}.mp4" else set())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"{ID}_30000_40000.mp4", f"{ID}_000030.mp4"], "2 files could be it"),
        ([f"{ID}_30.mp4", f"{ID}_30.mkv"], "2 files could be it"),
        ([f"train/{ID}_000030.mp4", f"test/{ID}_000030.mp4"], "2 files could be it"),
        ([f"a/{ID}.mp4", f"b/{ID}.webm"], "2 files could be it"),
    ],
)
def test_two_files_for_a_clip_are_both_named(tmp_path: Path, names: list[str], said: str) -> None:
    (one,) = slices((30, 40))
    got = found(tmp_path, names, one)
    assert got.files == {}
    assert said in got.doubtful[one.clip_id]
    assert all(str(tmp_path / name) in got.doubtful[one.clip_id] for name in names)


def test_one_file_for_two_clips_names_both(tmp_path: Path) -> None:
    first, second, other = slices((0, 10), (30, 40), (0, 300))
    got = found(tmp_path, [f"{ID}_0.mp4", f"{ID}_30000_40000.mp4"], first, second, other)
    assert got.files == {second.clip_id: tmp_path / f"{ID}_30000_40000.mp4"}
    for clip in (first, other):
        assert f"{ID}_0.mp4 could be {ID} from 0 to 10 s or {ID} from 0 to 300 s" in got.doubtful[clip.clip_id]
    shutil.move(tmp_path / f"{ID}_0.mp4", tmp_path / f"{ID}_000000_000010.mp4")
    assert set(found(tmp_path, [], first, second, other).files) == {first.clip_id, second.clip_id}


def test_the_name_of_the_video_alone_says_least(tmp_path: Path) -> None:
    first, second = slices((0, 10), (30, 40))
    got = found(tmp_path, [f"{ID}.mp4"], first, second)
    assert got.files == {}
    assert f"{ID} from 0 to 10 s or {ID} from 30 to 40 s" in got.doubtful[first.clip_id]
    got = found(tmp_path, [f"x/{ID}_000000.mp4", f"x/{ID}_000030.mp4"], first, second)
    assert set(got.files) == {first.clip_id, second.clip_id}
    assert got.by_video_alone == set()


def test_where_the_list_says_there_is_no_doubt(tmp_path: Path) -> None:
    (one,) = slices((30, 40))
    got = found(tmp_path, [f"{ID}_30000_40000.mp4", f"copy/{ID}_30000_40000.mkv", f"{ID}_30000_40000.wav"], one)
    assert got.files == {one.clip_id: tmp_path / f"{ID}_30000_40000.mp4"}


def test_the_same_slice_in_two_data_sets_is_one_file(tmp_path: Path) -> None:
    (one,), two = slices((30, 40)), entry(f"eval/{ID}_30000_40000", (30_000, 40_000))
    got = found(tmp_path, [f"{ID}_000030.mp4"], one, two)
    assert set(got.files) == {one.clip_id, two.clip_id}


def test_slices_of_realsync_are_in_seconds(tmp_path: Path) -> None:
    (one,) = slices((0, 300), unit=1)
    assert found(tmp_path, [f"x/{ID}_0_300.mkv"], one).files


@pytest.mark.parametrize(
    "name",
    [
        "pretrain/-FOCpMAww28/00002.mp4",
        "lrs3/pretrain/-FOCpMAww28/00002.MP4",
        "-FOCpMAww28/00002.mp4",
        "-FOCpMAww28_00002.mp4",
        "pretrain/-FOCpMAww28_00002.mkv",
        "all/pretrain_-FOCpMAww28_00002.mp4",
    ],
)
def test_every_name_of_a_sentence_is_known(tmp_path: Path, name: str) -> None:
    one = entry("pretrain/-FOCpMAww28/00002")
    others = ["00002.mp4", "other_video/00002.mp4", "trainval/-FOCpMAww28/00002.mp4", "test_-FOCpMAww28_00002.mp4"]
    assert found(tmp_path, [name, *others], one).files == {one.clip_id: tmp_path / name}


def test_a_sentence_of_two_parts_needs_its_part(tmp_path: Path) -> None:
    one, two = entry("pretrain/-FOCpMAww28/00002"), entry("trainval/-FOCpMAww28/00002")
    got = found(tmp_path, ["-FOCpMAww28/00002.mp4"], one, two)
    assert got.files == {}
    assert f"could be {one.clip_id} or {two.clip_id}" in got.doubtful[one.clip_id]
    shutil.rmtree(tmp_path / "-FOCpMAww28")
    got = found(tmp_path, ["x/pretrain/-FOCpMAww28/00002.mp4", "y/trainval/-FOCpMAww28/00002.mp4"], one, two)
    assert {clip: path.parts[-4] for clip, path in got.files.items()} == {one.clip_id: "x", two.clip_id: "y"}


@given(
    video=st.text("ABCabc019_-", min_size=11, max_size=11),
    first_ms=st.integers(0, 3600).map(lambda s: 1000 * s) | st.integers(0, 3_600_000),
    form=st.sampled_from(["{ms}_{ms1}", "{s}", "{s:06}", "{s}_{s1}", "{s:06}_{s1:06}", "{ms}", "{f}", "{f}_{f1}"]),
)
def test_a_name_never_means_another_slice(
    tmp_path_factory: pytest.TempPathFactory, video: str, first_ms: int, form: str
) -> None:
    """A file named after one slice is that one's, or in doubt; and no other's."""
    if "s" in form.replace("ms", "") and first_ms % 1000:
        first_ms -= first_ms % 1000
    times = {"ms": first_ms, "s": first_ms // 1000, "f": f"{first_ms / 1000:.3f}"}
    ends = {"ms1": first_ms + 10_000, "s1": first_ms // 1000 + 10, "f1": f"{first_ms / 1000 + 10:.3f}"}
    spans = [(first_ms, first_ms + 10_000), (first_ms + 10_000, first_ms + 20_000), (1000 * first_ms, 10**9)]
    mine, *others = [entry(f"{video}_{a}_{b}", (a, b)) for a, b in dict.fromkeys(spans)]
    got = found(tmp_path_factory.mktemp("media"), [f"{video}_{form.format(**times, **ends)}.mp4"], mine, *others)
    assert mine.clip_id in {*got.files, *got.doubtful}
    assert not set(got.files) & {other.clip_id for other in others}


def test_a_sound_file_beside_a_video_is_not_taken_for_it() -> None:
    assert not VIDEO & {"wav", "mp3", "aac", "flac", "ogg", "opus", "m4a", "json", "csv"}


# -------------------------------------------------------------------------------------------------- through the command


def clip(path: Path, seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_clip(path, *click_and_flash(seconds))


def test_hosted_names_are_imported_and_the_rest_is_told(avbench: Avbench, tmp_path: Path) -> None:
    rows = [(f"hosted_{k}___", first) for k, first in enumerate((30, 40, 50, 60, 70, 80, 90))]
    lists, media = tmp_path / "lists", tmp_path / "media"
    lists.mkdir()
    lines = [f"{video}_{1000 * first}_{1000 * first + 10_000},0.2,4.0" for video, first in rows]
    (lists / "vggsound_test_size21_crop5.csv").write_text("\n".join(["path,offset_sec,vstart_sec", *lines]))
    clip(media / "test" / "dog barking" / f"{rows[0][0]}_000030.mp4", 10)
    clip(media / f"{rows[1][0]}_40000_50000.MKV", 10)
    clip(media / f"{rows[2][0]}.mp4", 10)  # no longer than the slice
    clip(media / f"{rows[3][0]}.mp4", 12)  # the whole video
    clip(media / f"{rows[4][0]}_000070.mp4", 3)
    os.mkfifo(media / f"{rows[5][0]}_000080.mp4")
    done = avbench("data", "import-realsync", "--lists", lists, "--media", media, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)["lists"]["vggsound_test_size21_crop5"]["media"]
    assert (told["clips_seen"], told["clips_missing"]) == (3, 1)
    assert told["missing"] == [lines[6].split(",")[0]]
    why = list(told["refused"].values())
    assert len(why) == 3
    assert any("lasts 12.0 s, the clip 10 s: it may be the whole video" in text for text in why)
    assert any("lasts 3.0 s, but a segment of the list starts at 4 s" in text for text in why)
    assert any("not a file" in text for text in why)
    data = tmp_path / "out" / "vggsound_test_size21_crop5"
    manifest = read_manifest(data)
    seen = {c.video_id: c.path for c in manifest.clips.values() if c.seen}
    assert seen[rows[0][0]] == f"test/dog barking/{rows[0][0]}_000030.mp4"
    args = ("--iterations", 1, "--json", "--n-resamples", 20, "--workers", 1, "--out", tmp_path / "run")
    done = avbench("run", "--model", "xcorr", "--data", data, *args)
    assert json.loads(done.stdout)["n_scored"] == 3


def test_a_folder_whose_name_is_no_text(avbench: Avbench, tmp_path: Path) -> None:
    lists, media = tmp_path / "lists", tmp_path / "media"
    lists.mkdir()
    (lists / "vggsound_test_size21_crop5.csv").write_text(f"path,offset_sec,vstart_sec\n{ID}_30000_40000,0.2,1\n")
    folder = Path(os.fsdecode(os.fsencode(media) + b"/caf\xe9"))
    clip(folder / f"{ID}_000030.mp4", 6)
    done = avbench("data", "import-realsync", "--lists", lists, "--media", media, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (manifest,) = (read_manifest(path.parent) for path in (tmp_path / "out").rglob("manifest.json"))
    assert [path.name for path in map(manifest.clip_path, manifest.clips.values())] == [f"{ID}_000030.mp4"]
    assert all(manifest.clip_path(one).is_file() for one in manifest.clips.values())
    assert "Traceback" not in done.stderr
