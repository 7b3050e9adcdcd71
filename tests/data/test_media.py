"""Stamped clips: every frame carries its index as a barcode, the sound is seeded noise, so that an error of one frame
or one sample is seen as such."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stamps import HEIGHT, RAW, WIDTH, index_of, indices, lag_of, noise, stamp, write_media

from avbench.data.encode import encode_clip
from avbench.data.media import ClipReader, media_sha256
from avbench.data.probing import MediaInfo, probe
from avbench.types import ClipRecord, FrontEnd, Gap, MediaError, Reading, UsageError


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "stamped.mp4"
    encode_clip(path, (stamp(k) for k in range(200)), noise(8 * 16_000))
    return path


def record(path: Path, **changes: object) -> ClipRecord:
    fields: dict[str, object] = {"id": "c1", "video_id": "v", "path": path.name, "sha256": "", "n_frames": 200}
    return ClipRecord(**{**fields, "n_samples": 128_000, **changes})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- what avbench writes, it reads


def test_own_clip_is_exact_to_the_frame_and_the_sample(clip_path: Path) -> None:
    with ClipReader(clip_path, record(clip_path)) as reader:
        assert indices(reader) == list(range(200))
        audio = reader.audio()
    assert audio.dtype == np.float32
    assert audio.shape == (128_000,)
    assert lag_of(audio, noise(128_000)) == 0
    assert np.corrcoef(audio, noise(128_000))[0, 1] > 0.95
    with av.open(str(clip_path)) as container:
        times = [f.pts * f.time_base for f in container.decode(video=0)]
    assert times == [Fraction(k, 25) for k in range(200)]


def test_probe_of_an_own_clip_has_no_warnings(clip_path: Path) -> None:
    info = probe(clip_path)
    assert (info.n_frames, info.n_samples, info.fps, info.is_cfr_25) == (200, 128_000, 25, True)
    assert (info.width, info.height, info.rotation) == (WIDTH, HEIGHT, 0)
    assert (info.sample_rate, info.channels, info.duration_s) == (16_000, 1, 8.0)
    assert info.first_audio_packet_s == -0.064
    assert info.warnings == ()


@settings(max_examples=12, deadline=None)
@given(n_frames=st.integers(1, 40), n_samples=st.integers(1, 30_000))
def test_any_length_comes_back(n_frames: int, n_samples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "c.mp4"
    encode_clip(path, (stamp(k) for k in range(n_frames)), noise(n_samples))
    with ClipReader(path, record(path, n_frames=n_frames, n_samples=n_samples)) as reader:
        assert indices(reader) == list(range(n_frames))
        assert reader.audio().shape == (n_samples,)
    assert probe(path).n_frames == n_frames
    assert probe(path).n_samples == n_samples


# ------------------------------------------------------------------------------------------------- several front ends


def test_several_front_ends_share_one_decode(clip_path: Path) -> None:
    small = FrontEnd(size=32)
    pairs = list(ClipReader(clip_path, record(clip_path)).frames(RAW, small))
    assert len(pairs) == 200
    assert {(a.shape, b.shape, a.dtype) for a, b in pairs} == {((3, 64, 64), (3, 32, 32), np.dtype(np.uint8))}
    alone = list(ClipReader(clip_path, record(clip_path)).frames(small))
    assert all(np.array_equal(b, c) for (_, b), (c,) in zip(pairs, alone, strict=True))


def test_square_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    path = tmp_path / "square.mp4"
    encode_clip(path, (stamp(k, 64, 64) for k in range(5)), noise(3200))
    square = [f for (f,) in ClipReader(path).frames(FrontEnd(size=64))]
    crop = [f for (f,) in ClipReader(path).frames(FrontEnd(size=64, fit="crop"))]
    with av.open(str(path)) as container:
        plain = [f.to_ndarray(format="rgb24").transpose(2, 0, 1) for f in container.decode(video=0)]
    for a, b, c in zip(square, crop, plain, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)


def test_square_resizes_the_short_side_as_antialiased_bilinear(clip_path: Path) -> None:
    with av.open(str(clip_path)) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    whole = torch.nn.functional.interpolate(planes, size=(32, 40), mode="bilinear", antialias=True)[0].numpy()
    (frame,) = next(iter(ClipReader(clip_path).frames(FrontEnd(size=32))))
    assert np.array_equal(frame, whole[:, :, 4:36])
    # the published models: a crop out of a picture whose short side was brought to a size first
    whole = torch.nn.functional.interpolate(planes, size=(48, 60), mode="bilinear", antialias=True)[0].numpy()
    (frame,) = next(iter(ClipReader(clip_path).frames(FrontEnd(size=40, fit="crop", short_side=48))))
    assert np.array_equal(frame, whole[:, 4:44, 10:50])
    (frame,) = next(iter(ClipReader(clip_path).frames(FrontEnd(size=40, fit="crop", short_side=64))))
    assert np.array_equal(frame, rgb[12:52, 20:60].transpose(2, 0, 1)), "nothing is resized that has the size"


def test_the_whole_picture_with_its_short_side(clip_path: Path) -> None:
    """Training cuts at random: it gets all of the 80 x 64 picture, untouched at its own size."""
    (whole,), (crop,) = (next(iter(ClipReader(clip_path).frames(f))) for f in (FrontEnd(size=64, fit="short"), RAW))
    assert whole.shape == (3, 64, 80)
    assert np.array_equal(whole[:, :, 8:72], crop)
    (large,) = next(iter(ClipReader(clip_path).frames(FrontEnd(size=128, fit="short"))))
    assert large.shape == (3, 128, 160)


def test_impossible_front_ends_are_refused(clip_path: Path) -> None:
    reader = ClipReader(clip_path)
    for frontend, word in (
        (FrontEnd(fps=30), "25 fps"),
        (FrontEnd(sample_rate=8000), "16000 Hz"),
        (FrontEnd(fit="stretch"), "fit"),
        (FrontEnd(size=0), "positive"),
        (FrontEnd(size=64, short_side=72), "needs fit 'crop'"),
        (FrontEnd(size=64, audio_lead_trim_samples=-1), "audio_lead_trim_samples is -1; it must be 0 or more"),
        (FrontEnd(size=64, fit="crop", short_side=60), "at least size"),
    ):
        with pytest.raises(UsageError, match=word):
            next(iter(reader.frames(frontend)))
    with pytest.raises(MediaError, match="80x64, the model's crop needs 224x224"):
        next(iter(reader.frames(FrontEnd(size=224, fit="crop"))))


# ------------------------------------------------------------------------------------------ clocks and foreign formats


@pytest.mark.parametrize(
    ("container", "suffix", "audio_codec"),
    [("mp4", "mp4", "aac"), ("matroska", "mkv", "aac"), ("mpegts", "ts", "aac"), ("mov", "mov", "pcm_s16le")],
)
def test_containers_put_every_frame_and_sample_where_it_belongs(
    tmp_path: Path, container: str, suffix: str, audio_codec: str
) -> None:
    path = write_media(
        tmp_path / f"c.{suffix}", container=container, audio_codec=audio_codec, sound=noise(48_000), options={}
    )
    info = probe(path)
    reader = ClipReader(path)
    assert indices(reader) == list(range(75))
    assert info.n_frames == 75
    assert info.is_cfr_25
    assert lag_of(reader.audio(), noise(48_000)) == 0
    assert 0 <= info.n_samples - 48_000 < 1024


def test_a_clock_that_does_not_begin_at_zero_is_the_same_clip(tmp_path: Path) -> None:
    path = write_media(tmp_path / "c.mkv", container="matroska", sound=noise(48_000), first_s=7)
    reader = ClipReader(path)
    assert probe(path).video_start_s == 7.0
    assert indices(reader) == list(range(75))
    assert lag_of(reader.audio(), noise(48_000)) == 0


@pytest.mark.parametrize("delay_s", [Fraction(1, 5), Fraction(-1, 5)])
def test_a_delayed_track_is_heard_when_its_time_stamps_say(tmp_path: Path, delay_s: Fraction) -> None:
    said = noise(48_000)
    first_s = max(0, -delay_s)  # no time stamp before zero
    path = write_media(tmp_path / "c.mkv", container="matroska", sound=said, sound_at_s=delay_s, first_s=first_s)
    audio = ClipReader(path).audio()
    assert lag_of(audio, said) == 3200 * (1 if delay_s > 0 else -1)
    warnings = probe(path).warnings
    if delay_s > 0:
        assert not audio[:2000].any()
        assert any("begins 0." in w and "silence" in w for w in warnings)
    else:
        assert any("s before the picture; the clip ends with the sound" in w for w in warnings)


@pytest.mark.parametrize("options", [{"movflags": "frag_keyframe+empty_moov"}, {"use_editlist": "0"}])
def test_fragmented_mp4_and_mp4_without_edit_list(tmp_path: Path, options: dict[str, str]) -> None:
    """B-frames delay the picture by 80 ms there and the priming packet stays in: placed by pts, both come out right.
    (Files of other makers may differ by up to 64 ms without a trace, hence the warning.)"""
    path = write_media(tmp_path / "c.mp4", sound=noise(48_000), options=options)
    info, reader = probe(path), ClipReader(path)
    assert (info.video_start_s, info.audio_start_s, info.first_audio_packet_s) == (0.08, 0.0, 0.0)
    assert indices(reader) == list(range(75))
    assert lag_of(reader.audio(), noise(48_000)) == 0
    assert [w for w in info.warnings if "64 ms" not in w] == []
    assert len(info.warnings) == 1


def test_a_delayed_track_in_mp4(tmp_path: Path) -> None:
    path = write_media(tmp_path / "c.mp4", sound=noise(48_000), sound_at_s=Fraction(1, 5))
    assert lag_of(ClipReader(path).audio(), noise(48_000)) == 3200


@pytest.mark.parametrize(
    ("rate", "layout"), [(44_100, "stereo"), (48_000, "5.1"), (16_000, "stereo"), (22_050, "mono")]
)
def test_other_rates_and_channels_become_16_khz_mono_without_lag(tmp_path: Path, rate: int, layout: str) -> None:
    said = noise(3 * rate, rate=rate)
    path = write_media(tmp_path / "c.mp4", rate=rate, layout=layout, sound=said)
    info = probe(path)
    assert (info.sample_rate, info.channels) == (rate, {"mono": 1, "stereo": 2, "5.1": 6}[layout])
    heard = ClipReader(path).audio()
    at = np.arange(48_000) * rate / 16_000
    assert lag_of(heard, np.interp(at, np.arange(len(said)), said).astype(np.float32)) == 0
    assert abs(info.n_samples - 48_000) <= 1024


def test_30_fps_shows_the_picture_of_the_middle_of_each_frame(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "c.mp4", times=[Fraction(k, 30) for k in range(90)], rate_hint=30, sound=noise(48_000)
    )
    info = probe(path)
    assert (info.n_frames, info.fps, info.is_cfr_25) == (75, 30, False)
    # (a middle at which the picture changes, every fifth: the earlier one in odd seconds)
    centred = [(2 * k + 1) * 30 // 50 - (k % 5 == 2 and k // 25 % 2) for k in range(75)]
    assert indices(ClipReader(path)) == centred
    assert indices(ClipReader(path, reading=Reading(grid="latest"))) == [k * 30 // 25 for k in range(75)]
    assert any("30 fps" in w and "20 ms early or late" in w for w in info.warnings)


def test_a_manifest_says_by_which_rule_its_clips_are_read(tmp_path: Path) -> None:
    """Manifests from before there was a choice mean the rule of their time."""
    path = write_media(
        tmp_path / "c.mp4", times=[Fraction(k, 30) for k in range(90)], rate_hint=30, sound=noise(48_000)
    )
    clip = record(path, n_frames=75, n_samples=48_000)
    assert indices(ClipReader(path, clip)) == indices(ClipReader(path, reading=Reading(grid="latest")))
    with pytest.raises(UsageError, match="grid is 'next'"):
        indices(ClipReader(path, reading=Reading(grid="next")))


def test_50_fps_takes_every_second_picture_and_12_5_fps_holds_each(tmp_path: Path) -> None:
    fast = write_media(
        tmp_path / "f.mkv", container="matroska", times=[Fraction(k, 50) for k in range(100)], rate_hint=50
    )
    assert indices(ClipReader(fast)) == [*range(1, 50, 2), *range(50, 100, 2)]  # a tie: the second second shows earlier
    assert indices(ClipReader(fast, reading=Reading(grid="latest"))) == list(range(0, 100, 2))
    slow = write_media(tmp_path / "s.mp4", times=[Fraction(2 * k, 25) for k in range(20)], sound=noise(25_600))
    reader = ClipReader(slow)
    assert indices(reader) == [k // 2 for k in range(40)]
    frames = [frame for (frame,) in reader.frames(RAW)]
    assert frames[0] is frames[1]
    assert probe(slow).n_frames == 40


@settings(max_examples=10, deadline=None)
@given(steps_ms=st.lists(st.integers(20, 120), min_size=5, max_size=60))
def test_varying_rate_shows_what_was_on_show_at_the_instant(
    steps_ms: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    starts_ms = np.cumsum([0, *steps_ms]).tolist()
    times = [Fraction(ms, 1000) for ms in starts_ms]
    path = write_media(
        tmp_path_factory.mktemp("vfr") / "c.mp4", times=times, sound=noise(3200), time_base=Fraction(1, 1000)
    )
    for grid, instant_ms in (("latest", 0), ("centred", 20)):
        seen = indices(ClipReader(path, reading=Reading(grid=grid)))
        assert len(seen) >= (starts_ms[-1] - instant_ms) // 40 + 1
        for k, index in enumerate(seen):
            at_ms = 40 * k + instant_ms
            earlier = grid == "centred" and at_ms in starts_ms and k // 25 % 2
            assert index == max(i for i, ms in enumerate(starts_ms) if ms <= at_ms) - earlier


def test_jittering_25_fps_loses_no_picture_and_says_so(tmp_path: Path) -> None:
    times = [Fraction(40 * k + (0, 12, -9, 3)[k % 4], 1000) for k in range(75)]
    path = write_media(tmp_path / "c.mkv", container="matroska", times=times, sound=noise(48_000), bf=0)
    info = probe(path)
    assert indices(ClipReader(path)) == list(range(75))
    assert (info.n_frames, info.is_cfr_25) == (75, True)
    assert [w for w in info.warnings if "25 fps" in w] == [
        "pictures are up to 12 ms off the 25 fps grid, on which they are read"
    ]


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_a_still_picture_is_said_and_a_small_movement_is_none(tmp_path: Path, codec: str) -> None:
    grain = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)

    def write(name: str, moves: bool) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            video = out.add_stream(codec, rate=25, options={"crf": "35", "g": "10"} if codec == "libx264" else {})
            video.width, video.height = 160, 120
            video.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
            voice = out.add_stream("aac", rate=16_000, layout="mono")
            for k in range(50):
                image = grain.copy()
                image[40:56, 80:96] = 200 if moves and k == 30 else 60  # one picture of 50, 1 % of its area
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(video.encode(frame))
            sound = av.AudioFrame.from_ndarray(noise(32_000)[None], "fltp", "mono")
            sound.sample_rate, sound.pts = 16_000, 0
            out.mux(voice.encode(sound))
            out.mux(video.encode(None))
            out.mux(voice.encode(None))
        return path

    assert "the picture never changes (a still image)" in probe(write("still.mp4", False)).warnings
    assert not any("never changes" in w for w in probe(write("moves.mp4", True)).warnings)


def test_odd_size_and_fast_codec(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "c.mkv", container="matroska", codec="ffv1", pixels="yuv444p", size=(81, 65), sound=noise(48_000)
    )
    info = probe(path)
    assert (info.width, info.height) == (81, 65)
    assert indices(ClipReader(path)) == list(range(75))
    (square,) = next(iter(ClipReader(path).frames(FrontEnd(size=32))))
    assert square.shape == (3, 32, 32)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    path = write_media(tmp_path / "c.mp4", size=(96, 64), sound=noise(48_000), rotate=degrees)
    info = probe(path)
    assert info.rotation == degrees % 360
    assert (info.width, info.height) == ((96, 64) if degrees == 180 else (64, 96))
    (turned,) = next(iter(ClipReader(path).frames(RAW)))
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = np.rot90(stored, {90: 1, 180: 2, -90: 3}[degrees])
    top, left = round((expected.shape[0] - 64) / 2.0), round((expected.shape[1] - 64) / 2.0)
    assert np.array_equal(turned, expected[top : top + 64, left : left + 64].transpose(2, 0, 1))


# --------------------------------------------------------------------------------------------------------- bad input


def refusal(path: Path, clip: ClipRecord | None = None) -> str:
    """The one line with which both probing and reading a file are refused (reading, if only a manifest can tell)."""

    def read() -> None:
        if clip is None:
            probe(path, "c1")
        else:
            reader = ClipReader(path, clip)
            reader.audio()
            list(reader.frames(RAW))

    with pytest.raises(MediaError) as caught:
        read()
    assert caught.value.clip_id == "c1"
    line = str(caught.value)
    assert line.startswith("clip c1: ")
    assert "\n" not in line
    return line


def test_missing_folder_text_and_empty_files(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.mp4")
    assert "is a folder" in refusal(tmp_path)
    for name, data in (("text.mp4", b"once upon a time\n" * 100), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(data)
        assert "not a readable media file" in refusal(tmp_path / name)
        assert "not a readable media file" in refusal(tmp_path / name, record(tmp_path))
    with pytest.raises(MediaError, match="does not exist"):
        media_sha256(tmp_path / "no.mp4")


def test_playlists_and_scripts_posing_as_media_open_nothing_else(clip_path: Path, tmp_path: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{clip_path}\n#EXT-X-ENDLIST\n"
    script = f"ffconcat version 1.0\nfile {clip_path}\n"
    for name, text in (("p.m3u8", playlist), ("p.mp4", playlist), ("c.mp4", script)):
        (tmp_path / name).write_text(text)
        assert "not a readable media file" in refusal(tmp_path / name)


def test_a_name_is_never_taken_for_a_protocol(clip_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b.mp4").write_bytes(clip_path.read_bytes())
    assert probe(Path("a:b.mp4")).n_frames == 200


def test_a_missing_stream_is_named(tmp_path: Path) -> None:
    mute = write_media(tmp_path / "mute.mp4")
    assert "no sound stream" in refusal(mute)
    assert "no sound stream" in refusal(mute, record(mute))
    blind = write_media(tmp_path / "blind.mp4", times=[], sound=noise(16_000))
    assert "no picture stream" in refusal(blind)
    assert "no picture stream" in refusal(blind, record(blind))


def test_truncated_files_are_refused(clip_path: Path, tmp_path: Path) -> None:
    data = clip_path.read_bytes()
    for name, part in (("half.mp4", data[: len(data) // 2]), ("tail.mp4", data[:-200])):
        (tmp_path / name).write_bytes(part)
        line = refusal(tmp_path / name)
        assert "not a readable media file" in line or "truncated" in line
    # with the index in front a truncated file opens, and only the count tells
    fast = write_media(tmp_path / "fast.mp4", sound=noise(48_000), options={"movflags": "faststart"})
    data = fast.read_bytes()
    fast.write_bytes(data[: len(data) * 6 // 10])
    assert "truncated" in refusal(fast) or "damaged" in refusal(fast)
    line = refusal(fast, record(fast, n_frames=75, n_samples=48_000))
    assert " ends at " in line or "damaged" in line
    # mkv and ts can be cut anywhere: the manifest's counts are what holds
    for container, suffix in (("matroska", "mkv"), ("mpegts", "ts")):
        path = write_media(tmp_path / f"c.{suffix}", container=container, sound=noise(48_000))
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        line = refusal(path, record(path, n_frames=75, n_samples=48_000))
        assert " ends at " in line or "damaged" in line


def test_damage_in_the_middle_is_never_passed_over(clip_path: Path, tmp_path: Path) -> None:
    """Overwritten stretches are refused or gaps or, where the decoder cannot notice, leave all counts as promised."""
    data = bytearray(clip_path.read_bytes())
    lines = []
    rng = np.random.default_rng(3)
    for trial in range(12):
        broken = bytearray(data)
        at = int(len(data) * (0.1 + 0.07 * trial))
        broken[at : at + 3000] = rng.bytes(3000)
        path = tmp_path / f"d{trial}.mp4"
        path.write_bytes(broken)
        try:
            found = probe(path, "c1")
            assert found.n_frames == 200
            lines += [str(gap) for gap in found.reading.gaps[:1]]
        except MediaError as error:
            lines.append(str(error))
    assert len(lines) >= 8
    assert not any("\n" in line for line in lines)


def test_a_clip_shorter_than_its_manifest(clip_path: Path) -> None:
    line = refusal(clip_path, record(clip_path, n_frames=250))
    assert line == "clip c1: picture ends at 8.00 s, the manifest says 10.00 s"
    line = refusal(clip_path, record(clip_path, n_samples=160_000))
    assert line == "clip c1: sound ends at 8.00 s, the manifest says 10.00 s"


def test_holes_in_the_sound_are_gaps_and_silence_is_said(tmp_path: Path) -> None:
    hole = write_media(
        tmp_path / "h.mkv",
        container="matroska",
        sound=noise(48_000),
        skip_sound=(10_240, 20_480),
        audio_codec="pcm_s16le",
    )
    found = probe(hole)
    assert found.reading.gaps == (Gap("sound", 10_240, 20_480),)
    assert "the sound is missing for 0.640 s at 0.64 s: read as silence" in found.warnings
    heard = ClipReader(hole).audio()
    assert not heard[10_240:20_480].any()
    assert lag_of(heard[20_480:], noise(48_000)[20_480:]) == 0
    silent = tmp_path / "s.mp4"
    encode_clip(silent, (stamp(k) for k in range(25)), np.zeros(16_000, np.float32))
    assert any("silent" in w for w in probe(silent).warnings)


def test_a_file_too_long_for_a_clip_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    times, sound = [Fraction(0), Fraction(7200)], np.zeros(16_000, np.float32)
    long = write_media(tmp_path / "l.mp4", times=times, sound=sound, time_base=Fraction(1, 1000))
    assert "lasts 120 min, clips of 60 min at most are read; cut it" in refusal(long)


def test_early_stop_closes_the_file(clip_path: Path) -> None:
    frames = ClipReader(clip_path).frames(RAW)
    assert index_of(next(frames)[0]) == 0
    frames.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(frames)


def test_probe_returns_plain_immutable_data(clip_path: Path) -> None:
    info = probe(clip_path)
    assert isinstance(info, MediaInfo)
    with pytest.raises(AttributeError):
        info.n_frames = 3  # type: ignore[misc]
