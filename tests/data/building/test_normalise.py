"""Cutting one video: what is on record is used again, and only if it is the record of this very clip."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from stamps import noise, write_media

from avbench.data.building.normalise import Encoding, normalise
from avbench.data.building.records import BuiltVideo
from avbench.types import Gap

ENCODING = Encoding(clip_s=2.0, min_clip_s=1.0, short_side=64)


def cut(raw: Path, folder: Path) -> BuiltVideo:
    for name in ("media", "records"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return normalise(raw, "v", "key", folder / "media", folder / "records", ENCODING)


def test_gaps_of_the_video_are_on_record_with_the_clips_that_they_touch(tmp_path: Path) -> None:
    times = [Fraction(k, 25) for k in range(100) if not 60 <= k < 95]
    raw = write_media(
        tmp_path / "raw.mkv",
        container="matroska",
        times=times,
        sound=noise(4 * 16_000),
        audio_codec="pcm_s16le",
        skip_sound=(30_720, 35_840),
        bf=0,
    )
    made = cut(raw, tmp_path)
    assert [clip.gaps for clip in made.clips] == [
        (Gap("sound", 30_720, 32_000),),
        (Gap("sound", 0, 3840), Gap("picture", 6400, 28_800)),
    ]
    assert BuiltVideo.from_json(json.loads(json.dumps(asdict(made)))) == made


def test_a_clip_on_record_is_not_encoded_again_and_a_foreign_record_counts_for_nothing(tmp_path: Path) -> None:
    times = [Fraction(k, 25) for k in range(85)]
    raw = write_media(tmp_path / "raw.mp4", times=times, sound=noise(round(3.4 * 16_000)))
    made = cut(raw, tmp_path)
    assert [(clip.id, clip.n_frames, clip.n_samples) for clip in made.clips] == [
        ("v_0_2", 50, 32_000),
        ("v_2_4", 35, 22_400),
    ]
    assert made.dropped == ()
    assert BuiltVideo.from_json(json.loads(json.dumps(asdict(made)))) == made
    clip, record = tmp_path / "media" / "v_0_2.mp4", tmp_path / "records" / "v_0_2.json"
    right = record.read_bytes()
    assert json.loads(right) == json.loads(json.dumps(asdict(made.clips[0])))
    first = clip.stat().st_mtime_ns
    assert cut(raw, tmp_path) == made
    assert clip.stat().st_mtime_ns == first
    foreign = json.dumps(asdict(made.clips[0]) | {"key": "other"}).encode()
    for wrong in (b"", b"[]", b"{}", b'{"key": "key"}', foreign):
        before = clip.stat().st_mtime_ns
        record.write_bytes(wrong)
        assert cut(raw, tmp_path) == made
        assert clip.stat().st_mtime_ns != before
        assert record.read_bytes() == right
