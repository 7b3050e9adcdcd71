"""Alignment end to end: stamped raw videos of every kind go through ``avbench data build`` and come out of the reader
with 0 frames and 0 samples of error; where a file cannot say, the bound it leaves is on record."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stamps import indices, lag_of, noise, write_media

from avbench.data.media import ClipReader
from avbench.data.probing import probe
from avbench.protocol.manifest import Manifest, read_manifest

LENGTH_S = 8
BUILD = ("--min-duration-s", 4, "--min-height", 60, "--clip-s", 6, "--min-clip-s", 1, "--short-side", 64)
LAWS = ("--starts", "first", "--offsets", "fixed:0.4", "--split", "0/0/100", "--no-annotations")
SOUND = {rate: noise(LENGTH_S * rate, rate=rate) for rate in (16_000, 44_100, 48_000)}
VFR_MS = np.cumsum([0, *np.random.default_rng(1).integers(20, 80, 400)]).tolist()
VFR_MS = [ms for ms in VFR_MS if ms < LENGTH_S * 1000]
FILM = [Fraction(k * 1001, 30_000) for k in range(LENGTH_S * 30)]
EVEN = [Fraction(k, 25) for k in range(LENGTH_S * 25)]


@dataclass(frozen=True)
class Case:
    """A raw video: how it is written, and which source picture grid frame k shows."""

    suffix: str
    write: dict[str, object]
    shown: Callable[[int], int] = lambda k: k
    late: int = 0  # samples by which the sound is to be found late (a delay that belongs to the video)
    n_frames: int = LENGTH_S * 25


def of_rate(rate: int, **more: object) -> dict[str, object]:
    return {"sound": SOUND[rate], "rate": rate, **more}


def in_the_middle(times: list[float]) -> Callable[[int], int]:
    """The picture on show at the middle of the frame. At a tie (half a millisecond is the rounding of containers'
    clocks) the later one in even seconds, the earlier one in odd ones."""
    return lambda k: int(np.searchsorted(times, (2 * k + 1) / 50 + (-0.0005 if k // 25 % 2 else 0.0005 + 1e-9))) - 1


MKV, TS = {"container": "matroska"}, {"container": "mpegts"}
CASES = {
    "mp4": Case("mp4", of_rate(16_000)),
    "mkv": Case("mkv", of_rate(48_000, **MKV)),
    "mpegts": Case("ts", of_rate(48_000, **TS)),
    "mov-pcm": Case("mov", of_rate(48_000, container="mov", audio_codec="pcm_s16le")),
    "fragmented": Case("mp4", of_rate(16_000, options={"movflags": "frag_keyframe+empty_moov+delay_moov"})),
    "fragmented-no-edits": Case("mp4", of_rate(16_000, options={"movflags": "frag_keyframe+empty_moov"})),
    "no-edit-list": Case("mp4", of_rate(44_100, options={"use_editlist": "0"})),
    "44k-stereo": Case("mp4", of_rate(44_100, layout="stereo")),
    "48k-5.1": Case("mkv", of_rate(48_000, layout="5.1", **MKV)),
    "late-sound": Case("mkv", of_rate(48_000, sound_at_s=Fraction(1, 5), **MKV), late=3200),
    "late-sound-mp4": Case("mp4", of_rate(16_000, sound_at_s=Fraction(1, 5)), late=3200),
    # the sound of a late picture began before time 0; what is left of it ends 0.2 s before the picture
    "late-picture": Case(
        "mkv", of_rate(48_000, sound_at_s=Fraction(-1, 5), first_s=Fraction(1, 5), **MKV), late=-3200, n_frames=195
    ),
    "starts-at-7-s": Case("mkv", of_rate(44_100, first_s=7, **MKV)),
    "29.97-fps": Case(
        "mp4",
        of_rate(48_000, times=FILM, rate_hint=30, time_base=Fraction(1, 30_000)),
        in_the_middle([float(t) for t in FILM]),
    ),
    "50-fps": Case(
        "ts",
        of_rate(48_000, times=[Fraction(k, 50) for k in range(400)], rate_hint=50, **TS),
        in_the_middle([k / 50 for k in range(400)]),
    ),
    "varying": Case(
        "mp4",
        of_rate(48_000, times=[Fraction(ms, 1000) for ms in VFR_MS], time_base=Fraction(1, 1000)),
        in_the_middle([ms / 1000 for ms in VFR_MS]),
    ),
    "rotated-90": Case("mp4", of_rate(16_000, rotate=90, turned=True, size=(64, 96))),
    "rotated-180": Case("mp4", of_rate(16_000, rotate=180, turned=True, size=(96, 64))),
    "odd-size": Case("mkv", of_rate(44_100, codec="ffv1", pixels="yuv444p", size=(97, 65), **MKV)),
    "large": Case("mp4", of_rate(16_000, size=(320, 192), scale=3)),
    "short-sound": Case("mp4", {"sound": SOUND[16_000][: 6 * 16_000 + 300]}, n_frames=150),
}
REFUSED = {
    "mute": "the file has no sound stream",
    "blind": "the file has no picture stream",
    "silent": "the sound is silent (every sample is zero)",
    "text": "not a readable media file",
    "cut-off": "truncated: ",
    "short": "lasts 3.0 s, the minimum is 4 s",
    "small": "is 40x40, the minimum short side is 60",
    "twin": "the same file as kinds--mp4",
}


def raw_videos(root: Path) -> None:
    good, bad = root / "kinds", root / "refused"
    good.mkdir(parents=True)
    bad.mkdir()
    for name, case in CASES.items():
        write_media(good / f"{name}.{case.suffix}", **{"times": EVEN, **case.write})  # type: ignore[arg-type]
    write_media(bad / "mute.mp4", times=EVEN)
    write_media(bad / "blind.mp4", times=[], sound=SOUND[16_000])
    write_media(bad / "silent.mp4", times=EVEN, sound=np.zeros(128_000, np.float32))
    (bad / "text.mp4").write_text("once upon a time")
    write_media(bad / "short.mp4", sound=noise(48_000))
    write_media(bad / "small.mp4", times=EVEN, size=(40, 40), sound=SOUND[16_000], scale=0)
    (bad / "twin.mp4").write_bytes((good / "mp4.mp4").read_bytes())
    whole = write_media(bad / "cut-off.mkv", times=EVEN, sound=SOUND[16_000], **MKV)  # type: ignore[arg-type]
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])


def avbench(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avbench", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)


def tree(out: Path) -> dict[str, str]:
    """Hash of every file of a build."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """All cases and all refusals through one build."""
    folder = tmp_path_factory.mktemp("stamps")
    raw_videos(folder / "raw")
    said = avbench(folder, "data", "build", "--videos", "raw", "--out", "out", *BUILD, *LAWS)
    return folder / "out", said


@pytest.fixture(scope="module")
def manifest(built: tuple[Path, subprocess.CompletedProcess[str]]) -> Manifest:
    return read_manifest(built[0])


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_video_comes_out_aligned(name: str, manifest: Manifest) -> None:
    case = CASES[name]
    clips = [clip for clip in manifest.clips.values() if clip.video_id == f"kinds--{name}"]
    assert sum(clip.n_frames for clip in clips) == case.n_frames
    assert [clip.n_frames for clip in clips[:-1]] == [150] * (len(clips) - 1)
    rate = int(str(case.write.get("rate", 16_000)))
    at = np.arange(LENGTH_S * 16_000) * rate / 16_000
    said = np.interp(at, np.arange(len(SOUND[rate])), SOUND[rate]).astype(np.float32)
    said = np.concatenate([np.zeros(max(case.late, 0), np.float32), said[max(-case.late, 0) :]])
    for clip in clips:
        first = round(25 * manifest.sources[clip.id]["start_s"])
        with ClipReader(manifest.clip_path(clip), clip) as reader:
            assert indices(reader) == [case.shown(first + k) % 256 for k in range(clip.n_frames)]
            heard = reader.audio()
        expected = said[first * 640 :]
        # the two codecs leave noise below; a shift of a sample would move the peak
        assert lag_of(heard, expected) == 0
        assert np.corrcoef(heard, expected[: len(heard)])[0, 1] > 0.9


def test_what_comes_out_has_one_shape(manifest: Manifest) -> None:
    for clip in manifest.clips.values():
        path = manifest.clip_path(clip)
        info = probe(path)
        assert (info.is_cfr_25, info.sample_rate, info.channels, info.video_start_s) == (True, 16_000, 1, 0.0)
        assert (min(info.width, info.height), info.width % 2, info.height % 2, info.rotation) == (64, 0, 0, 0)
        assert (info.n_frames, info.n_samples) == (clip.n_frames, clip.n_samples)
        assert clip.n_samples == 640 * clip.n_frames
        assert info.first_audio_packet_s == -0.064
        assert info.warnings == ()
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.codec_context.profile) == ("h264", "High")
            assert (audio.codec_context.name, audio.codec_context.profile) == ("aac", "LC")
            assert not video.codec_context.has_b_frames
            gaps = np.diff([k for k, packet in enumerate(container.demux(video)) if packet.is_keyframe])
            assert gaps.max(initial=0) <= 25


def test_the_container_s_word_is_on_record(manifest: Manifest) -> None:
    source = manifest.sources["kinds--mp4_0_6"]
    audio = next(t for t in source["edit_lists"]["tracks"] if t["kind"] == "audio")
    assert audio["edits"][0][1] == 1024  # the priming that the file signals
    assert source["clock_doubt_ms"] == [0, 0]
    assert len(source["sha256"]) == 64
    assert source["file"] == "kinds/mp4.mp4"
    assert source["tracks"] == ["picture track 1 of 1", "sound track 1 of 1"]
    assert manifest.sources["kinds--fragmented_0_6"]["edit_lists"]["fragmented"] is True
    doubtful = manifest.sources["kinds--no-edit-list_0_6"]
    assert doubtful["edit_lists"]["tracks"][0]["edits"] == []
    assert doubtful["clock_doubt_ms"] == [80, pytest.approx(1024 / 44.1, abs=0.01)]
    assert any("no AAC encoder delay is signalled" in text for text in doubtful["warnings"])
    assert manifest.sources["kinds--late-picture_0_6"]["video_start_s"] == 0.2


def test_a_delay_the_file_hides_stays_within_the_bound_on_record(tmp_path: Path) -> None:
    """Priming that is left in and not signalled, as packagers do: nothing in the file tells it from late sound."""
    (tmp_path / "raw").mkdir()
    options = {"movflags": "frag_keyframe+empty_moov"}
    write_media(
        tmp_path / "raw" / "v.mp4",
        times=EVEN,
        sound=SOUND[16_000],
        sound_at_s=Fraction(1024, 16_000),
        bf=0,
        options=options,
    )
    said = avbench(tmp_path, "data", "build", "--videos", "raw", "--out", "out", *BUILD, *LAWS)
    assert said.returncode == 0, said.stderr
    manifest = read_manifest(tmp_path / "out")
    clip, source = manifest.clips["v_0_6"], manifest.sources["v_0_6"]
    lag = lag_of(ClipReader(manifest.clip_path(clip)).audio(), SOUND[16_000])
    early_ms, late_ms = source["clock_doubt_ms"]
    assert lag == 1024
    assert -early_ms <= 1000 * lag / 16_000 <= late_ms
    assert (early_ms, late_ms) == (0, 64)


def test_refusals_are_named_and_the_rest_is_built(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, said = built
    report = json.loads((out / "build_report.json").read_text())
    assert {name.removeprefix("refused--") for name in report["refused"]} == set(REFUSED)
    for name, reason in REFUSED.items():
        assert reason in report["refused"][f"refused--{name}"]
        assert sum(f"refused: refused--{name}: " in line for line in said.stderr.splitlines()) == 1
    assert "Traceback" not in said.stderr
    assert said.returncode == 0
    assert (report["n_videos"], report["n_used"]) == (len(CASES) + len(REFUSED), len(CASES))
    assert report["problems"] == []
    assert any("kinds--short-sound: the sound ends 2.00 s before" in note for note in report["notes"])


@pytest.mark.slow
def test_two_workers_give_the_same_bytes_and_a_finished_build_is_left_as_it_is(
    built: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = built
    before = tree(out)
    command = ("data", "build", "--videos", "raw", *BUILD, *LAWS)
    said = avbench(out.parent, *command, "--out", "two/out", "--workers", 2)
    assert said.returncode == 0, said.stderr
    assert tree(out.parent / "two" / "out") == before
    times = {path: path.stat().st_mtime_ns for path in (out / "media").iterdir()}
    assert avbench(out.parent, *command, "--out", "out").returncode == 0
    assert tree(out) == before
    assert times == {path: path.stat().st_mtime_ns for path in (out / "media").iterdir()}
    assert "ok" in avbench(out.parent, "data", "verify", out).stdout
