"""The published lists: counts, labels, leaks and gaps are told; what does not fit is named by file and line."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.data.realsync.entries import Entry
from avbench.data.realsync.importing import import_lists, read_lists
from avbench.data.realsync.own_lists import entry_of
from avbench.data.realsync.report import support
from avbench.protocol.manifest import read_manifest
from avbench.protocol.rules import Protocol, streaming
from avbench.ticks import seconds, ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord, UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
MADE_UP = Path(__file__).parent / "lists"
PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "lists"
published = pytest.mark.skipif(
    not (PUBLISHED / "sports_and_news_normal.evaluation.csv").is_file(),
    reason="the published lists are not here (they would lie in shared/lists beside the repository)",
)
# offset half way between two classes -> class, as the published code's float32 arithmetic decides it
TIES = dict(
    zip(
        (-1.9, -1.7, -1.5, -1.3, -1.1, -0.9, -0.7, -0.5, -0.3, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9),
        (0, 1, 2, 4, 4, 6, 7, 8, 8, 9, 10, 12, 12, 13, 14, 15, 16, 17, 19, 19),
        strict=True,
    )
)


def imported(avbench: Avbench, lists: Path, out: Path, media: object = "none") -> dict[str, Any]:
    done = avbench("data", "import-realsync", "--lists", lists, "--media", media, "--out", out, "--force", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def table(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "segments.parquet").to_pylist()


# ------------------------------------------------------------------------------------------------------- made-up lists


def test_every_shape_of_id_is_understood(avbench: Avbench, tmp_path: Path) -> None:
    report = imported(avbench, MADE_UP, tmp_path / "out")
    assert set(report["lists"]) == {
        "normal.evaluation",
        "normal.test",
        "uniform.evaluation",
        "made_up_vggsound",
        "made_up_lrs3",
    }
    one = report["lists"]["normal.evaluation"]
    assert (one["segments"], one["usable"], one["videos"], one["clips"]) == (8, 5, 3, 4)
    assert one["broken"] == {"broken": 1, "broken_short": 1, "broken_silence": 1}
    assert one["splits"] == {"test": 5, "test_broken": 3}
    assert one["channels"] == {"news": {"segments": 5, "videos": 1}, "sport": {"segments": 3, "videos": 2}}
    assert one["duplicates"] == {"segments": 1, "usable": 0, "rows": 0}  # 10 s is there whole and broken
    rows = {r["id"]: r for r in table(tmp_path / "out" / "normal.evaluation")}
    under = rows["_1_2_3_4_5x_600_900_20_5"]
    assert (under["clip_id"], under["video_id"], under["start_s"]) == ("_1_2_3_4_5x_600_900", "_1_2_3_4_5x", 20.48)
    assert (under["published_start_s"], under["offset_s"], under["offset_class"]) == (20.5, -2.0, 0)
    assert one["starts_s"]["between_frames"] == 1
    assert rows["AbCdEfGhI-0_0_300_broken_silence_10_0"]["broken"] == "broken_silence"
    manifest = read_manifest(tmp_path / "out" / "normal.evaluation")
    clip = manifest.clips["_1_2_3_4_5x_600_900"]
    assert clip.path == "_1_2_3_4_5x/_1_2_3_4_5x_600_900.mkv"
    assert (clip.n_frames, clip.n_samples, clip.seen) == (7500, 4_800_000, False)
    assert manifest.splits == ("test", "test_broken")
    assert "reported on" in one["role"]
    assert report["lists"]["normal.test"]["splits"] == {"valid": 1}  # models are selected on it, whatever its name
    assert (report["other_files"], report["media"]) == (["README.md: not a published list"], None)


def test_labels_follow_the_float32_rule_after_rounding(avbench: Avbench, tmp_path: Path) -> None:
    imported(avbench, MADE_UP, tmp_path)
    rows = table(tmp_path / "uniform.evaluation")
    assert {r["published_offset_s"]: r["offset_class"] for r in rows if r["published_offset_s"] in TIES} == TIES
    by_id = {r["id"].rsplit("_", 2)[1]: r for r in rows if r["video_id"] == "UnIfOrM0000"}
    assert (by_id["220"]["offset_s"], by_id["220"]["offset_class"]) == (0.1, 10)
    assert (by_id["230"]["offset_s"], by_id["230"]["offset_class"]) == (-2.0, 0)
    assert (by_id["240"]["offset_s"], by_id["240"]["offset_class"]) == (-0.1, 9)
    same = next(r for r in rows if r["id"] == "AbCdEfGhI-0_0_300_20_0")
    assert same["published_offset_s"] == 1.2345678901234567
    assert (same["offset_s"], same["offset_ticks"]) == (1.23, 19_680)
    assert read_manifest(tmp_path / "uniform.evaluation").offset_law == "uniform"
    assert read_manifest(tmp_path / "normal.evaluation").offset_law == "list"


def test_a_video_in_two_families_is_a_leak_and_is_said(avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("data", "import-realsync", "--lists", MADE_UP, "--media", "none", "--out", tmp_path)
    assert "normal.evaluation and uniform.evaluation share 1 videos and 1 segments with other offsets" in done.stderr
    assert "never train or select on one and report on the other" in done.stderr
    overlap = next(
        o
        for o in imported(avbench, MADE_UP, tmp_path)["overlaps"]
        if o["lists"] == ["normal.evaluation", "uniform.evaluation"]
    )
    assert {k: overlap[k] for k in ("videos", "clips", "segments", "ids", "other_offsets")} == {
        "videos": 1,
        "clips": 1,
        "segments": 1,
        "ids": 1,
        "other_offsets": 1,
    }


def test_further_tracks(avbench: Avbench, tmp_path: Path) -> None:
    report = imported(avbench, MADE_UP, tmp_path)
    vgg = table(tmp_path / "made_up_vggsound")
    assert [r["id"] for r in vgg] == [
        "AbCdEfGhI-0_58000_68000_4_64_0",
        "AbCdEfGhI-0_58000_68000_4_64_1",
        "_1_2_3_4_5x_0_10000_0_54_0",
    ]
    assert [r["split"] for r in vgg] == ["test", "test_not_in_sync", "test"]
    assert [r["start_s"] for r in vgg] == [4.64, 4.64, 0.52]
    clip = read_manifest(tmp_path / "made_up_vggsound").clips["_1_2_3_4_5x_0_10000"]
    assert (clip.path, clip.n_frames) == ("_1_2_3_4_5x_0_10000.mkv".replace("mkv", "mp4"), 250)
    lrs = read_manifest(tmp_path / "made_up_lrs3")
    assert [(s.id, s.video_id, s.offset_s) for s in lrs.segments] == [
        ("pretrain_-MTR_RO5SRA_00002_2_96_0", "-MTR_RO5SRA", 0.2),
        ("test_-MTR_RO5SRA_00004_4_32_0", "-MTR_RO5SRA", -2.0),
    ]
    assert {c.path for c in lrs.clips.values()} == {
        "pretrain/-MTR_RO5SRA/00002.mp4",
        "test/-MTR_RO5SRA/00004.mp4",
    }
    assert {c.duration for c in lrs.clips.values()} == {0}  # nothing promises a length
    assert report["lists"]["made_up_lrs3"]["lengths_unknown"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("csv", "AbCdEfGhI-0_0_300_10_0", "AbCdEfGhI-0_0_300_10"),
            "line 1: 'AbCdEfGhI-0_0_300_10' is not VIDEO_T0_T1",
        ),
        (("csv", "-0_0_300_broken_30_0", "-0_0_300_damaged_30_0"), "line 3: 'AbCdEfGhI-0_0_300_damaged_30_0' is not"),
        (("csv", "300_20_0,20.0,", "300_20_0,21.0,"), "line 2: start 21.0 does not match the id"),
        (
            ("csv", ",10.0,news", ",ten,news"),
            "line 1: start 'ten' is not a number of seconds (and 1 more such problems)",
        ),
        (("csv", ",290.0,news", ",290.0"), "line 5: 2 fields instead of id,start,channel"),
        (
            ("csv", "900_1200_260_0,260.0", "900_1200_300_0,300.0"),
            "line 8: ----------z_900_1200_300_0: 300 s is outside the slice",
        ),
        (
            ("csv", "----------z_900_1200_260_0,260.0,sport\n", ""),
            "json has an offset for '----------z_900_1200_260_0'",
        ),
        (
            ("csv", "_600_900_0_0,0.0,sport\n", "_600_900_0_0,0.0,sport\n_1_2_3_4_5x_600_900_0_0,0.0,sport\n"),
            "already in",
        ),
        (
            ("json", '"offset_sec": 1.8', '"offset_sec": 2.8'),
            "line 8: ----------z_900_1200_260_0: offset 2.8 s is outside",
        ),
        (("json", '"offset_sec": 1.8', '"offset_sec": NaN'), "offset nan is not a number of seconds"),
        (("json", '"offset_sec": 1.8', '"offset_sec": "1.8"'), "offset '1.8' is not a number"),
        (("json", '"offset_sec": 1.8', '"offset": 1.8'), "lacks offset_sec or v_start_i_sec"),
        (
            ("json", '"v_start_i_sec": 260.0', '"v_start_i_sec": 250.0'),
            "start is 260.0 in the .csv, 250.0 in the .json",
        ),
        (("json", "----------z_900_1200_260_0", "----------y_900_1200_260_0"), "has no offset in the .json"),
        (("json", "{", "[", 1), "made_up_normal.evaluation.json cannot be read"),
        (("json", "----------z_900_1200_260_0", "_1_2_3_4_5x_600_900_0_0"), "appears twice"),
    ],
)
def test_a_row_that_does_not_fit_is_named(avbench: Avbench, tmp_path: Path, change: tuple[Any, ...], said: str) -> None:
    lists = tmp_path / "lists"
    shutil.copytree(MADE_UP, lists)
    kind, old, new, *count = change
    path = lists / f"made_up_normal.evaluation.{kind}"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, *count))
    done = avbench("data", "import-realsync", "--lists", lists, "--media", "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_requests_that_cannot_be_met(avbench: Avbench, tmp_path: Path) -> None:
    def fails(lists: Path, said: str, media: object = "none", code: int = 2) -> None:
        done = avbench("data", "import-realsync", "--lists", lists, "--media", media, "--out", tmp_path / "out")
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert said in done.stderr

    fails(tmp_path / "nowhere", "is not a folder with published lists")
    fails(tmp_path, "there is no published list")
    fails(MADE_UP, "nowhere is not a folder", media=tmp_path / "nowhere")
    shutil.copytree(MADE_UP, tmp_path / "lists")
    (tmp_path / "lists" / "made_up_normal.test.json").unlink()
    fails(tmp_path / "lists", "needs made_up_normal.test.json in the same folder")
    shutil.copy(MADE_UP / "made_up_normal.test.json", tmp_path / "lists")
    (tmp_path / "lists" / "made_up_lrs3.csv").write_text("path,offset_sec,vstart_sec\n../../etc/passwd,0.2,1\n")
    fails(tmp_path / "lists", "made_up_lrs3.csv line 2: '../../etc/passwd,0.2,1' is not part/VIDEO/NUMBER")
    (tmp_path / "lists" / "made_up_lrs3.csv").write_bytes(b"\xff\xfe\x00")
    fails(tmp_path / "lists", "it is not UTF-8")


# --------------------------------------------------------------------------------------------------------------- media


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode_clip(path, *click_and_flash(48))
    return path


def test_media_where_they_are_can_be_run_and_the_rest_is_listed(avbench: Avbench, tmp_path: Path, clip: Path) -> None:
    media = tmp_path / "media"
    (media / "AbCdEfGhI-0").mkdir(parents=True)
    shutil.copy(clip, media / "AbCdEfGhI-0" / "AbCdEfGhI-0_0_300.mp4")  # not the usual suffix
    (media / "-MTR_RO5SRA").mkdir()
    (media / "----------z_900_1200.mkv").write_text("not media")  # flat
    done = avbench("data", "import-realsync", "--lists", MADE_UP, "--media", media, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1  # a file had to be refused
    assert "refused: clip ----------z_900_1200" in done.stderr
    one = json.loads(done.stdout)["lists"]["normal.evaluation"]
    assert (one["media"]["clips_seen"], one["media"]["clips_missing"]) == (1, 2)
    assert one["media"]["missing"] == ["AbCdEfGhI-0_300_600", "_1_2_3_4_5x_600_900"]
    assert list(one["media"]["refused"]) == ["----------z_900_1200"]
    manifest = read_manifest(tmp_path / "out" / "normal.evaluation")
    seen = manifest.clips["AbCdEfGhI-0_0_300"]
    assert (seen.sha256, seen.path) == (media_sha256(clip), "AbCdEfGhI-0/AbCdEfGhI-0_0_300.mp4")
    assert (seen.n_frames, seen.n_samples) == (48 * 25, 48 * 16_000)
    # one segment of the clip is run; the segments whose clips are not there are failures, by name
    args = ("--model", "xcorr", "--data", tmp_path / "out" / "normal.evaluation", "--iterations", 4, "--workers", 1)
    done = avbench("run", *args, "--out", tmp_path / "run", "--json", "--n-resamples", 20)
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["n_scored"], result["n_total"]) == (2, 5)
    assert {f["segment_id"] for f in result["failures"]} == {
        "_1_2_3_4_5x_600_900_20_5",
        "_1_2_3_4_5x_600_900_0_0",
        "----------z_900_1200_260_0",
    }
    assert all("its media was missing when the manifest was written" in f["reason"] for f in result["failures"])
    assert result["incomplete"]
    checked = avbench("data", "verify", tmp_path / "out" / "normal.evaluation", "--split", "test")
    assert checked.returncode == 1
    assert "clip _1_2_3_4_5x_600_900: its media was missing" in checked.stdout


def test_a_clip_that_could_be_two_files_is_refused_and_links_are_not_followed_out(
    avbench: Avbench, tmp_path: Path, clip: Path
) -> None:
    media = tmp_path / "media"
    for folder in ("a", "b"):
        (media / folder).mkdir(parents=True)
        shutil.copy(clip, media / folder / "AbCdEfGhI-0_0_300.mp4")
    (media / "tEsT0000000_0_300.mkv").symlink_to(clip)
    done = avbench("data", "import-realsync", "--lists", MADE_UP, "--media", media, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "refused: clip AbCdEfGhI-0_0_300: 2 files could be it" in done.stderr
    assert "refused: clip tEsT0000000_0_300:" in done.stderr
    assert "through a link" in done.stderr
    assert not any(c.seen for c in read_manifest(tmp_path / "out" / "normal.evaluation").clips.values())
    (media / "AbCdEfGhI-0").mkdir()
    shutil.copy(clip, media / "AbCdEfGhI-0" / "AbCdEfGhI-0_0_300.mp4")  # where it belongs: no doubt
    (media / "tEsT0000000_0_300.mkv").unlink()
    again = ("data", "import-realsync", "--lists", MADE_UP, "--media", media, "--out", tmp_path / "out")
    refused = avbench(*again)
    assert refused.returncode == 2
    assert "already holds a manifest; give --force to replace it" in refused.stderr
    done = avbench(*again, "--force")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "out" / "normal.evaluation").clips["AbCdEfGhI-0_0_300"].seen


@published
def test_a_published_list_is_run_on_the_one_real_clip_there_is(avbench: Avbench, tmp_path: Path) -> None:
    media = PUBLISHED.parent / "media" / "vggsound_h264"
    if not media.is_dir():
        pytest.skip("the real clips are not here (shared/media beside the repository)")
    lists = tmp_path / "lists"
    lists.mkdir()
    shutil.copy(PUBLISHED / "vggsound_sparse_clean_fixed_offsets.csv", lists)
    report = imported(avbench, lists, tmp_path / "out", media)
    (name,) = report["lists"]
    assert report["lists"][name]["media"]["clips_seen"] == 1
    data = tmp_path / "out" / name
    args = ("--iterations", 1, "--workers", 1, "--json", "--n-resamples", 20, "--no-reference-rows")
    done = avbench("run", "--model", "xcorr", "--data", data, *args)
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert (result["n_scored"], result["n_total"]) == (1, 444)
    assert len(result["failures"]) + len(result["unsupported"]) == 443


def test_labels_alone_score_a_model_that_looks_at_nothing(avbench: Avbench, tmp_path: Path) -> None:
    imported(avbench, MADE_UP, tmp_path / "out")
    args = ("--data", tmp_path / "out" / "normal.evaluation", "--json", "--n-resamples", 20, "--iterations", 2)
    done = avbench("run", "--model", "constant", *args)
    assert json.loads(done.stdout)["scores"]["acc"]["value"] == pytest.approx(2 / 5)
    done = avbench("run", "--model", "constant", "--data", tmp_path / "out" / "made_up_lrs3")
    assert done.returncode == 2
    assert "made_up_lrs3 was imported without media" in done.stderr


@given(
    video=st.text("ABCabc019_-", min_size=11, max_size=11),
    t0=st.integers(0, 99_999),
    length=st.integers(1, 900),
    broken=st.sampled_from(["", "broken", "broken_silence", "broken_short"]),
    start_ms=st.integers(0, 899_999),
    offset_s=st.floats(-2, 2),
)
def test_ids_are_taken_apart_as_they_were_put_together(
    video: str, t0: int, length: int, broken: str, start_ms: int, offset_s: float
) -> None:
    start = f"{start_ms // 1000}.{start_ms % 1000:03d}".rstrip("0")
    start += "0" if start.endswith(".") else ""
    name = f"{video}_{t0}_{t0 + length}{'_' if broken else ''}{broken}_{start.replace('.', '_')}"
    labels = {"offset_sec": offset_s, "v_start_i_sec": float(start)}
    entry = entry_of([name, start, "news"], labels, "test")
    if start_ms >= 1000 * length:
        assert "is outside the slice" in str(entry)
        return
    assert not isinstance(entry, str), entry
    assert (entry.video_id, entry.clip_id) == (video, f"{video}_{t0}_{t0 + length}")
    assert (entry.broken, entry.length, entry.start_s) == (broken, 16_000 * length, start_ms / 1000)
    assert entry.split == ("test_broken" if broken else "test")
    assert 0 <= 16_000 * entry.start_s - entry.start < 640 + 1e-6
    assert entry.offset == ticks(round(offset_s, 2))
    assert entry.label == OffsetGrid().class_of(seconds(entry.offset)) == OffsetGrid().class_of(offset_s)


@given(st.lists(st.tuples(st.integers(0, 7500), st.integers(-200, 200)), min_size=1, max_size=6))
def test_support_is_the_protocols(rows: list[tuple[int, int]]) -> None:
    clip = ClipRecord("c", "v", "c.mkv", "a" * 64, 7500, 4_800_000)
    entries, segments = [], []
    for start, offset in rows:
        more = {"start": 640 * start, "offset": 160 * offset}
        entries.append(
            Entry(
                "s", "c", "v", "c", 4_800_000, start / 25, offset_s=offset / 100, label=0, channel="", split="t", **more
            )
        )
        segments.append(SegmentRecord("s", "c", "v", offset_class=0, **more))
    counted = support(entries, {}, "streaming")
    for hop, windows in counted.items():
        for n, count in windows.items():
            protocol: Protocol = streaming(hop_s=hop, iterations=n)
            assert count == sum(protocol.supports(s, clip) for s in segments)


# ------------------------------------------------------------------------------------------------- the published lists

DOCUMENTED = {
    "normal.evaluation": {
        "segments": 32_065,
        "usable": 17_644,
        "broken": {"broken": 757, "broken_short": 122, "broken_silence": 13_542},
        "videos": 65,
        "clips": 621,
        "usable_clips": 620,
        "histogram": "91,246,402,509,604,837,988,1101,1254,1933,16115,1964,1184,1120,989,809,711,487,369,268,84",
        "channels": {
            "golfshome": 1832,
            "NFL": 3877,
            "CBSNews": 4506,
            "ABCNews": 4051,
            "NHL": 3608,
            "NBCNews": 1712,
            "mlb": 5111,
            "CNN": 3301,
            "WTA": 4067,
        },
    },
    "uniform.evaluation": {
        "segments": 16_944,
        "usable": 16_944,
        "broken": {},
        "videos": 74,
        "clips": 618,
        "usable_clips": 618,
        "histogram": "401,850,846,820,900,819,814,866,898,828,905,805,916,855,857,814,857,824,749,918,402",
        "channels": {
            "ABCNews": 2113,
            "NFL": 1650,
            "NBCNews": 2106,
            "golfshome": 1432,
            "WTA": 1721,
            "CNN": 1796,
            "CBSNews": 2063,
            "mlb": 2391,
            "NHL": 1672,
        },
    },
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The published lists, imported once; in seconds of this machine's time."""
    out = tmp_path_factory.mktemp("realsync")
    started = time.process_time()
    report = import_lists(PUBLISHED, None, out)
    print(f"imported in {time.process_time() - started:.1f} s of CPU time")
    return report, out


@published
@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_published_lists_have_the_documented_counts(real: tuple[dict[str, Any], Path], name: str) -> None:
    (report, out), says = real, DOCUMENTED[name]
    one = report["lists"][name]
    for key in ("segments", "usable", "broken", "videos", "clips", "usable_clips"):
        assert one[key] == says[key], key
    assert ",".join(map(str, one["class_histogram"])) == says["histogram"]
    assert {c: n["segments"] for c, n in one["channels"].items()} == says["channels"]
    offsets = json.loads((PUBLISHED / f"sports_and_news_{name}.json").read_text())
    rows = table(out / name)
    assert len(rows) == says["segments"]
    assert {r["id"]: r["published_offset_s"] for r in rows} == {i: o["offset_sec"] for i, o in offsets.items()}
    assert all(abs(r["offset_s"] - r["published_offset_s"]) <= 0.005 + 1e-9 for r in rows)
    assert Counter(r["offset_class"] for r in rows) == dict(enumerate(one["class_histogram"]))


@published
def test_the_published_lists_support_what_is_documented(real: tuple[dict[str, Any], Path]) -> None:
    lists = real[0]["lists"]
    one = lists["uniform.evaluation"]
    lost = {n: one["segments"] - one["support"]["published"][hop][n] for hop, n in ((2, 18), (1, 12))}
    assert lost == {18: 2165, 12: 397}
    assert round(100 * lost[18] / one["segments"], 1) == 12.8
    assert one["starts_s"] == {"first": 20.0, "last": 290.0, "between_frames": 0}
    assert lists["normal.evaluation"]["starts_s"]["first"] == 10.0
    assert round(100 * lists["normal.evaluation"]["in_sync_share"], 1) == 50.3
    assert lists["normal.evaluation"]["on_grid"] == 32_065
    assert {c: n["videos"] for c, n in one["channels"].items()} == {
        "ABCNews": 6,
        "NFL": 5,
        "NBCNews": 19,
        "golfshome": 13,
        "WTA": 5,
        "CNN": 13,
        "CBSNews": 5,
        "mlb": 3,
        "NHL": 5,
    }
    overlap = next(o for o in real[0]["overlaps"] if o["lists"] == ["normal.evaluation", "uniform.evaluation"])
    assert overlap["videos"] > 0
    assert overlap["other_offsets"] == overlap["segments"] > 0


@published
def test_the_other_published_tracks(real: tuple[dict[str, Any], Path]) -> None:
    lists = real[0]["lists"]
    assert lists["lrs3_test_size21_crop5"]["segments"] == 5966
    vgg = lists["vggsound_sparse_clean_fixed_offsets"]
    assert vgg["splits"] == {"test": 444, "test_not_in_sync": 202}
    assert (vgg["clips"], vgg["duplicates"]["rows"]) == (451, 1)
    assert any(line.startswith("vggsound_sparse_clean.csv: contains no offsets") for line in real[0]["other_files"])


def test_reading_says_how_the_folder_is_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"normal\.evaluation\.csv"):
        read_lists(tmp_path)
