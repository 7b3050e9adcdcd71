"""Clips are measured by their packets as decoding would, and a file that cannot be read costs nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import workertasks

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.data.probing import probe
from avbench.data.realsync import measuring
from avbench.data.realsync.entries import Entry
from avbench.data.realsync.measuring import measure, measure_clips
from avbench.types import AS_EVER, MediaError

FIRST = replace(AS_EVER, video_track=1, audio_track=1)  # as of a manifest that does not say it
REAL = Path(__file__).resolve().parents[4] / "shared" / "media"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_packets_say_the_same_as_decoding(tmp_path: Path, suffix: str) -> None:
    for seconds_ in (5, 7):
        path = tmp_path / f"{seconds_}{suffix}"
        encode_clip(path, *click_and_flash(seconds_))
        info = probe(path, reading=FIRST)
        assert measure(path, "c") == (media_sha256(path), info.n_frames, info.n_samples)


@pytest.mark.parametrize("part", [slice(0, None, 12), pytest.param(slice(None), marks=pytest.mark.slow)])
def test_packets_of_real_clips(part: slice) -> None:
    files = sorted(REAL.rglob("*.mp4"))[part]
    if not files:
        pytest.skip("the real clips are not here (shared/media beside the repository)")
    compared = 0
    for path in files:
        try:
            info = probe(path, reading=FIRST)
        except MediaError:  # a file that the reader refuses has no figures to compare
            continue
        compared += 1
        got = measure(path, path.stem)
        assert got[1] == info.n_frames
        assert abs(got[2] - info.n_samples) <= 1024, path  # the padding of the last packet
    assert compared > 0.9 * len(files)


def test_a_file_that_kills_its_reader_is_refused_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_measure", workertasks.measure_clip)
    names = [f"c{k}" for k in range(10)]
    for name in names:
        (tmp_path / f"{name}.mkv").touch()
    times = {"start_s": 0.0, "start": 0, "offset_s": 0.0, "offset": 0, "label": 10}
    entries = [Entry(name, name, "v", name, 0, channel="", split="test", **times) for name in names]
    for few in (entries, entries[3:4]):  # one file alone does not take this process with it either
        seen, refused = measure_clips(tmp_path, few, 2)
        assert set(seen) == {entry.clip_id for entry in few} - {"c3"}
        assert refused == {"c3": "the decoder died (SIGSEGV) while reading it"}
