"""Which tracks of a file are read, what is opened at all, and what a person is told about both."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stamps import lag_of, noise, stamp, write_media

from avbench.data.media import ClipReader
from avbench.data.probing import probe
from avbench.data.streams import choose, opened
from avbench.types import ClipRecord, MediaError, Reading

SECOND = 16_000


def write_tracks(
    path: Path, sounds: list[tuple[np.ndarray, bool]], pictures: tuple[int, ...] = (50,), picture_default: int = 0
) -> Path:
    """A file with several tracks: ``sounds`` as (samples at 16 kHz, marked as default), ``pictures`` as numbers of
    pictures at 25 fps."""
    default = av.stream.Disposition.default
    with av.open(str(path), "w") as out:
        videos, voices = [], []
        for n in range(len(pictures)):
            video = out.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height, video.pix_fmt = 80, 64, "yuv420p"
            video.disposition = default if n == picture_default else 0
            videos.append(video)
        for _, marked in sounds:
            voice = out.add_stream("pcm_s16le" if path.suffix == ".mov" else "aac", rate=SECOND, layout="mono")
            voice.disposition = default if marked else 0
            voices.append(voice)
        for video, count in zip(videos, pictures, strict=True):
            for k in range(count):
                frame = av.VideoFrame.from_ndarray(stamp(k), "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(video.encode(frame))
        for voice, (samples, _) in zip(voices, sounds, strict=True):
            for begin in range(0, len(samples), 1024):
                piece = np.ascontiguousarray(samples[None, begin : begin + 1024])
                frame = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
                if path.suffix == ".mov":
                    frame = av.AudioFrame.from_ndarray((piece * 32767).astype(np.int16), "s16", "mono")
                frame.sample_rate, frame.pts, frame.time_base = SECOND, begin, Fraction(1, SECOND)
                out.mux(voice.encode(frame))
        for stream in (*videos, *voices):
            out.mux(stream.encode(None))
    return path


ONE, OTHER, SILENCE = noise(2 * SECOND, 1), noise(2 * SECOND, 2), np.zeros(2 * SECOND, np.float32)


@pytest.mark.parametrize(
    ("sounds", "wanted", "words"),
    [
        ([(ONE, False), (OTHER, True)], OTHER, "sound track 2 of 2 (default) is read"),
        ([(ONE, True), (OTHER, False)], ONE, "sound track 1 of 2 (default) is read"),
        ([(ONE, False), (OTHER, False)], ONE, "sound track 1 of 2 is read"),
        ([(SILENCE, True), (OTHER, False)], OTHER, "sound track 2 of 2 is read; track 1 is silent"),
        ([(SILENCE, False), (SILENCE, True)], SILENCE, "sound track 2 of 2 (default) is read; track 1 is silent"),
    ],
)
def test_the_default_and_usable_track_is_read_and_named(
    sounds: list[tuple[np.ndarray, bool]], wanted: np.ndarray, words: str, tmp_path: Path
) -> None:
    path = write_tracks(tmp_path / "tracks.mkv", sounds)
    found = probe(path)
    assert words in found.warnings
    heard = ClipReader(path).audio()
    if wanted.any():
        assert abs(lag_of(heard, wanted)) <= 16
        assert np.corrcoef(heard[1600:-1600], wanted[1600 : len(heard) - 1600])[0, 1] > 0.9
    else:
        assert np.abs(heard).max() < 1e-3
    clip = ClipRecord("c", "c", path.name, "", found.n_frames, found.n_samples, reading=found.reading)
    assert np.array_equal(ClipReader(path, clip).audio(), heard[: found.n_samples])


def test_a_track_that_is_asked_for_is_read(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "tracks.mkv", [(ONE, True), (OTHER, False)])
    assert abs(lag_of(ClipReader(path, reading=Reading(audio_track=2)).audio(), OTHER)) <= 16
    with pytest.raises(MediaError, match="there is no sound track 3; the file has 2"):
        probe(path, reading=Reading(audio_track=3))


def test_a_manifest_that_does_not_say_it_means_the_first_track(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "tracks.mkv", [(ONE, False), (OTHER, True)])
    clip = ClipRecord("c", "c", path.name, "", 50, 30_000)
    assert abs(lag_of(ClipReader(path, clip).audio(), ONE)) <= 16


def test_a_thumbnail_is_not_the_picture(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "thumbnail.mkv", [(ONE, True)], pictures=(1, 50))
    found = probe(path)
    assert found.n_frames == 50
    assert found.tracks == ("picture track 2 of 2", "sound track 1 of 1")
    assert "picture track 2 of 2 is read; track 1 is a single picture" in found.warnings


@pytest.mark.parametrize("code", [b"apac", b"ac-4", b"zzzz"])
def test_a_track_without_a_decoder_is_passed_or_refused(code: bytes, tmp_path: Path) -> None:
    def retagged(path: Path) -> Path:
        data = path.read_bytes()
        at = data.find(b"sowt")
        path.write_bytes(data[:at] + code + data[at + 4 :])
        return path

    two = retagged(write_tracks(tmp_path / "two.mov", [(ONE, True), (OTHER, True)]))
    assert "sound track 2 of 2 (default) is read; track 1 cannot be decoded (no decoder for its codec)" in (
        probe(two).warnings
    )
    assert abs(lag_of(ClipReader(two).audio(), OTHER)) <= 16
    one = retagged(write_tracks(tmp_path / "one.mov", [(ONE, True)]))
    with pytest.raises(MediaError, match=r"the sound track cannot be decoded \(no decoder for its codec\)"):
        probe(one)
    with pytest.raises(MediaError, match=r"sound track 1 cannot be decoded \(no decoder"):
        probe(two, reading=Reading(audio_track=1))


def test_a_file_that_cannot_be_opened_is_refused_for_its_reason(tmp_path: Path) -> None:
    whole = write_tracks(tmp_path / "whole.mov", [(ONE, True)]).read_bytes()
    for name, data, why in (
        ("empty.mp4", b"", "it is empty"),
        ("cut.mp4", whole[: len(whole) // 2], "its index is missing: it was cut off, or the recording never ended"),
        ("text.mp4", b"no film " * 99, "Invalid data found when processing input"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError) as refused, opened(tmp_path / name, "c"):
            pass
        assert refused.value.reason.endswith(f"is not a readable media file ({why})")


def test_a_track_of_a_constant_offset_is_silent(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "tracks.mov", [(SILENCE + np.float32(0.25), True), (OTHER, False)])
    assert "sound track 2 of 2 is read; track 1 is silent" in probe(path).warnings


@pytest.mark.parametrize("container", ["matroska", "nut"])
def test_a_clock_that_begins_late_does_not_make_a_file_long(tmp_path: Path, container: str) -> None:
    path = write_media(tmp_path / "late", container=container, sound=noise(3 * SECOND), first_s=2 * 3600)
    assert probe(path).duration_s == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("make", ["fifo", "socket"])
def test_what_is_not_a_file_is_refused_at_once(make: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    if make == "fifo":
        os.mkfifo(path)
    else:
        import socket

        socket.socket(socket.AF_UNIX).bind(str(path))
    for do in (probe, lambda p: choose(p, "c", "video")):
        with pytest.raises(MediaError, match=r"is a (named pipe|socket), not a file"):
            do(path)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.ts\n", "ffconcat version 1.0\n"]
)
def test_a_playlist_is_never_followed(text: str, tmp_path: Path) -> None:
    write_media(tmp_path / "other.ts", container="mpegts", sound=noise(3 * SECOND))
    path = tmp_path / "list.mp4"
    path.write_text(text + "file 'other.ts'\n")
    with pytest.raises(MediaError, match="is not a readable media file"), opened(path, "c"):
        pass


@pytest.mark.parametrize(
    ("name", "container", "codec", "audio"),
    [
        ("a.flv", "flv", "libx264", "aac"),
        ("a.mpg", "vob", "mpeg2video", "mp2"),
        ("a.asf", "asf", "mpeg4", "mp2"),
        ("a.ogv", "ogg", "libvpx", "libvorbis"),
        ("a.mxf", "mxf", "mpeg2video", "pcm_s16le"),
        ("a.nut", "nut", "libx264", "aac"),
    ],
)
def test_what_ffmpeg_reads_is_read(name: str, container: str, codec: str, audio: str, tmp_path: Path) -> None:
    rate = 48_000
    try:
        path = write_media(
            tmp_path / name,
            container=container,
            codec=codec,
            audio_codec=audio,
            rate=rate,
            layout="stereo",
            sound=noise(4 * rate, rate=rate),
            size=(160, 128),
            scale=2,
            time_base=Fraction(1, 25),
            bf=0,
        )
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    found = probe(path)
    assert found.n_frames in (74, 75, 76)
    assert found.n_samples > 2.8 * SECOND


@pytest.mark.parametrize(("audio", "doubt"), [("libmp3lame", True), ("aac", True), ("pcm_s16le", False)])
def test_avi_cannot_say_how_late_its_sound_is(audio: str, doubt: bool, tmp_path: Path) -> None:
    rate = 48_000
    path = write_media(
        tmp_path / "a.avi",
        container="avi",
        codec="mpeg4",
        audio_codec=audio,
        rate=rate,
        sound=noise(3 * rate, rate=rate),
        time_base=Fraction(1, 25),
    )
    found = probe(path)
    assert found.clock_doubt_ms == ((40, 23.021) if doubt else (0, 0))
    said = "AVI cannot signal the delay of the sound's encoder: the sound may be up to 23 ms late"
    assert any(said in text for text in found.warnings) == doubt
