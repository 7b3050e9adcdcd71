"""Edit lists, read from the boxes of files whose clocks are known; junk says nothing and harms nothing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stamps import noise, stamp, write_media

from avbench.data.boxes import edit_lists, track_clock
from avbench.data.encode import encode_clip
from avbench.data.probing import probe, read_header


def test_the_priming_of_an_own_clip_is_in_its_edit_list(tmp_path: Path) -> None:
    encode_clip(tmp_path / "c.mp4", (stamp(k) for k in range(25)), noise(16_000))
    found = edit_lists(tmp_path / "c.mp4")
    assert (found["movie_timescale"], found["fragmented"]) == (16_000, False)
    tracks = {track["kind"]: track for track in found["tracks"]}
    assert tracks["video"]["edits"] == [[16_000, 0]]
    assert (tracks["audio"]["timescale"], tracks["audio"]["edits"]) == (16_000, [[16_000, 1024]])


def test_a_delayed_track_has_an_empty_edit_and_fragments_are_noticed(tmp_path: Path) -> None:
    late = write_media(tmp_path / "late.mp4", sound=noise(48_000), first_s=1)
    video = next(t for t in edit_lists(late)["tracks"] if t["kind"] == "video")
    assert video["edits"][0] == [1000, -1]
    fragmented = write_media(tmp_path / "f.mp4", sound=noise(48_000), options={"movflags": "frag_keyframe+empty_moov"})
    assert edit_lists(fragmented)["fragmented"] is True
    info, head = probe(fragmented), read_header(fragmented)
    assert info.clock_doubt_ms == head.clock_doubt_ms == (80.0, 64.0)
    assert info.edit_lists == head.edit_lists


def test_other_containers_and_missing_files_say_nothing(tmp_path: Path) -> None:
    mkv = write_media(tmp_path / "c.mkv", container="matroska", sound=noise(48_000))
    assert edit_lists(mkv) == {}
    assert edit_lists(tmp_path / "no.mp4") == {}


@pytest.mark.parametrize("bf", [0, 2])
@pytest.mark.parametrize("options", [{}, {"movflags": "negative_cts_offsets"}], ids=["plain", "negative offsets"])
def test_the_times_of_pictures_are_those_that_ffmpeg_reads(tmp_path: Path, bf: int, options: dict[str, str]) -> None:
    times = [Fraction(k, 25) + Fraction(k % 3, 100) for k in range(40)]
    path = write_media(tmp_path / "c.mp4", times=times, bf=bf, sound=noise(16_000), options=options)
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        expected = [p.pts for p in container.demux(video=0) if p.size]
    clock = track_clock(path, 1)
    assert clock is not None
    assert (clock.kind, clock.timescale) == ("video", 90_000)
    assert clock.shown.tolist() == expected


@settings(max_examples=150)
@given(data=st.binary(max_size=200), at=st.integers(0, 400), cut=st.integers(0, 3000))
def test_damaged_boxes_never_raise(data: bytes, at: int, cut: int, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.getbasetemp() / "boxes"
    whole = folder / "whole.mp4"
    if not whole.exists():
        folder.mkdir(exist_ok=True)
        options = {"movflags": "faststart"}
        times = [Fraction(k, 25) for k in range(5)]
        write_media(whole, sound=np.zeros(3200, np.float32), times=times, options=options)
    good = whole.read_bytes()
    for damaged in (data, good[:at] + data + good[at + len(data) :], good[:cut]):
        (folder / "x.mp4").write_bytes(damaged)
        assert isinstance(edit_lists(folder / "x.mp4"), dict)
        assert track_clock(folder / "x.mp4", 1) is None or track_clock(folder / "x.mp4", 1).id == 1  # type: ignore[union-attr]
