"""Statistics of a split, shaped like the paper's Tables 1 and 2 and Figure 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avbench.data.inspect import by_channel, info, offsets, overview
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.ticks import ticks
from avbench.types import ClipRecord, SegmentRecord


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Three videos on two channels, four clips of 300 s, splits of 4 and 2 segments."""
    clips, segments = {}, []
    for n, (video, channel, split) in enumerate(
        [("v1", "news", "test"), ("v1", "news", "test"), ("v2", "sport", "test"), ("v3", "sport", "valid")]
    ):
        clip = ClipRecord(f"c{n}", video, f"c{n}.mp4", f"{n}" * 64, 7500, 4_800_000, channel, split)
        clips[clip.id] = clip
        for k, offset_s in enumerate((0.0, 0.4) if n % 2 else (0.0,)):
            segments.append(
                SegmentRecord(
                    id=f"s{n}-{k}",
                    clip_id=clip.id,
                    video_id=video,
                    start=ticks(10 * k),
                    offset=ticks(offset_s),
                    offset_class=12 if k else 10,
                    category="other" if k else "",
                    events=("speech", "bell") if k else ("speech",),
                    channel=channel,
                    split=split,
                )
            )
    return Manifest("made up", "files", "", "list", clips, tuple(segments), tmp_path / "media")


def test_overview_has_one_row_a_split_and_the_whole(manifest: Manifest) -> None:
    rows = {r["split"]: r for r in overview(manifest)}
    assert list(rows) == ["valid", "test", "all"]
    assert {k: rows["all"][k] for k in ("channels", "videos", "clips", "segments")} == {
        "channels": 2,
        "videos": 3,
        "clips": 4,
        "segments": 6,
    }
    assert rows["test"]["hours"] == pytest.approx(0.25)
    assert rows["test"]["clip_s"] == 300
    assert rows["valid"]["segments_per_clip"] == 2
    assert rows["all"]["in_sync"] == pytest.approx(4 / 6)
    assert rows["valid"]["annotated"] == 0.5
    assert [r["split"] for r in overview(manifest.split("test"))] == ["test"]


def test_channels_add_up_to_the_total(manifest: Manifest) -> None:
    news, sport, total = by_channel(manifest)
    assert (news["channel"], news["videos"], news["clips"], news["segments"]) == ("news", 1, 2, 3)
    assert (sport["channel"], sport["videos"], sport["clips"], sport["segments"]) == ("sport", 2, 2, 3)
    assert total["channel"] == "total"
    for key in ("videos", "clips", "hours", "segments"):
        assert total[key] == pytest.approx(news[key] + sport[key])


def test_the_histogram_names_every_class(manifest: Manifest) -> None:
    rows = offsets(manifest)
    assert len(rows) == 21
    assert (rows[10]["segments"], rows[12]["segments"]) == (4, 2)
    assert (rows[12]["offset_s"], rows[12]["in_words"]) == (0.4, "audio 0.4 s early")
    assert sum(r["share"] for r in rows) == pytest.approx(1)


def test_info_prints_the_tables_and_draws_the_figure(
    manifest: Manifest, tmp_path: Path, avbench: Callable[..., object]
) -> None:
    write_manifest(manifest, tmp_path / "data")
    done = avbench("data", "info", tmp_path / "data", "--plot", tmp_path / "fig1.svg")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["total", "3", "4", "0.33", "6"] in lines
    assert ["all", "2", "3", "4", "6", "0.33", "300.0", "1.5", "66.7", "%", "33.3", "%"] in lines
    svg = (tmp_path / "fig1.svg").read_text()
    assert "audio early" in svg
    assert "speech" in svg  # the events have a panel of their own
    avbench("data", "info", tmp_path / "data", "--plot", tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == svg
    assert json.loads(avbench("data", "info", tmp_path / "data", "--json").stdout)["by_channel"][-1]["segments"] == 6
    refused = avbench("data", "info", tmp_path / "data", "--plot", "fig1.gif")
    assert refused.returncode == 2
    assert "ends in .svg or .png or .pdf" in refused.stderr


def test_an_empty_manifest_has_rows_of_nothing(manifest: Manifest) -> None:
    empty = replace(manifest, clips={}, segments=())
    assert overview(empty) == []
    assert by_channel(empty) == [{"channel": "total", "videos": 0, "clips": 0, "hours": 0.0, "segments": 0}]
    assert info(empty)["unseen_media"] == 0


def test_reading_back_changes_no_statistic(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(manifest, tmp_path / "data")
    assert overview(read_manifest(tmp_path / "data")) == overview(manifest)
