"""A manifest over a user's own videos: what fits is labelled, what does not is refused by name."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import deadly
import numpy as np
import pytest

from avbench.data import from_files, inspect
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.folders import find_media
from avbench.data.from_files import SegmentRules, TooShort, manifest_from_files
from avbench.data.inspect import SUPPORT_HOPS_S, SUPPORT_WINDOWS, info, verify
from avbench.data.media import ClipReader
from avbench.protocol.manifest import Manifest, read_manifest
from avbench.protocol.rules import streaming
from avbench.ticks import ticks
from avbench.types import FrontEnd, UsageError

AT_ONCE = SegmentRules(offset_law="fixed:0", start_law="first")  # 5 s are enough


def video(path: Path, length_s: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = (np.full((32, 32, 3), (k * 5) % 256, np.uint8) for k in range(round(length_s * 25)))
    encode_clip(path, frames, 0.1 * rng.standard_normal(round(length_s * 16_000)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    video(root / "news" / "a b.mp4", 32, 1)
    video(root / "news" / "a_b.MP4", 12, 2)
    video(root / "sport" / "long.mp4", 50, 3)
    video(root / "short.mp4", 3, 4)
    (root / "text.mp4").write_text("not a video")
    (root / "notes.txt").write_text("not looked at")
    (root / ".hidden.mp4").write_text("not looked at")
    return root


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, list[str], Path]:
    out = tmp_path_factory.mktemp("out") / "mine"
    manifest, refused = manifest_from_files([folder], out)
    return manifest, [str(r) for r in refused], out


def test_a_folder_becomes_a_manifest(made: tuple[Manifest, list[str], Path], folder: Path) -> None:
    manifest, refused, out = made
    assert manifest.name == "mine"
    assert set(manifest.clips) == {"news--a_b.mp4", "news--a_b.MP4~2", "sport--long"}
    assert {c.channel for c in manifest.clips.values()} == {"news", "sport"}
    assert [len([s for s in manifest.segments if s.clip_id == c]) for c in manifest.clips] == [3, 1, 5]
    assert [r.split(":")[0] for r in refused] == [f"clip {folder / name}" for name in ("short.mp4", "text.mp4")]
    assert refused[1].endswith("text.mp4: is not a readable media file (Invalid data found when processing input)")
    assert "too short: picture and sound together last 3.00 s" in refused[0]
    again = read_manifest(out)
    assert again.sha256 == manifest.sha256
    assert again.media_root == folder
    assert verify(again) == []
    for clip in again.clips.values():
        with ClipReader(again.clip_path(clip), clip) as reader:
            assert len(reader.audio()) == clip.n_samples
            assert sum(1 for _ in reader.frames(FrontEnd(size=32))) == clip.n_frames


def test_every_segment_holds_its_windows_and_keeps_the_grid(made: tuple[Manifest, list[str], Path]) -> None:
    manifest = made[0]
    for segment in manifest.segments:
        assert streaming(iterations=1).supports(segment, manifest.clips[segment.clip_id])
        nominal = ticks(segment.id.partition("@")[2])
        if nominal:
            assert segment.start == nominal
        else:
            assert segment.start == -(-max(0, -segment.offset) // 640) * 640


def test_labels_do_not_depend_on_the_other_files(made: tuple[Manifest, list[str], Path], folder: Path) -> None:
    manifest = made[0]
    out = made[2].parent / "fewer"
    fewer, _ = manifest_from_files([folder / "news", folder / "sport" / "long.mp4"], out)
    long = [s for s in manifest.segments if s.clip_id == "sport--long"]
    assert [s for s in fewer.segments if s.clip_id == "sport--long"] == long
    other, _ = manifest_from_files([folder / "sport"], out, SegmentRules(seed=1))
    assert [s.offset for s in other.segments] != [s.offset for s in long]


def test_iterations_decide_what_fits(folder: Path, tmp_path: Path) -> None:
    rules = SegmentRules(iterations=10, offset_law="fixed:0.4", hop=ticks(3))
    manifest, refused = manifest_from_files([folder], tmp_path, rules)
    assert {s.clip_id for s in manifest.segments} == {"sport--long"}
    assert [s.start for s in manifest.segments] == [0, ticks(10)]
    assert {s.offset_class for s in manifest.segments} == {12}
    assert len(refused) == 4
    assert "last 32.00 s, 32.40 s are needed with its offset" in str(refused[0])
    first, _ = manifest_from_files([folder], tmp_path, SegmentRules(start_law="first"))
    assert len(first.segments) == len(first.clips) == 3


def test_copies_make_a_folder_that_can_be_moved(folder: Path, tmp_path: Path) -> None:
    manifest, _ = manifest_from_files([folder / "news"], tmp_path / "out", copy=True)
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = read_manifest(tmp_path / "moved")
    assert moved.sha256 == manifest.sha256
    assert moved.media_root == tmp_path / "moved" / "media"
    assert verify(moved) == []
    assert sorted(p.name for p in moved.media_root.iterdir()) == sorted(c.path for c in moved.clips.values())


def test_usage_errors(folder: Path, tmp_path: Path) -> None:
    for arguments, word in (
        ({"offset_law": "gauss"}, "offset law"),
        ({"offset_law": "list"}, "brings its offsets"),
        ({"offset_law": "hidden"}, "brings its offsets"),
        ({"start_law": "somewhere"}, "start law"),
        ({"iterations": 0}, "iterations is 0"),
        ({"hop": 641}, "hop"),
        ({"iterations": 50}, "none of the 5 files can be used; the first: .*/news/a b.mp4: too short"),
    ):
        with pytest.raises(UsageError, match=word):
            manifest_from_files([folder], tmp_path, SegmentRules(**arguments))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not exist"):
        find_media([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no video files"):
        find_media([tmp_path])


def test_progress_counts_every_file(folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    manifest_from_files([folder], tmp_path, progress=lambda done, total, _: calls.append((done, total)))
    assert calls == [(k, 5) for k in range(6)]


def test_a_clip_that_is_only_too_short_is_no_damaged_one(folder: Path, tmp_path: Path) -> None:
    _, refused = manifest_from_files([folder], tmp_path)
    assert [isinstance(error, TooShort) for error in refused] == [True, False]


# --------------------------------------------------------------------------------------- files that kill their decoder


def test_a_file_on_which_the_decoder_dies_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate(("a", "deadly", "b", "deadly2")):
        video(tmp_path / "videos" / f"{name}.mp4", 6, seed)
    everything, _ = manifest_from_files([tmp_path / "videos"], tmp_path / "everything", AT_ONCE)
    monkeypatch.setattr(from_files, "_measure", deadly.measure)
    manifest, refused = manifest_from_files([tmp_path / "videos"], tmp_path / "out", AT_ONCE, workers=2)
    assert [str(error) for error in refused] == [
        f"clip {tmp_path / 'videos' / name}.mp4: the decoder died (SIGSEGV) while reading it"
        for name in ("deadly", "deadly2")
    ]
    assert manifest.clips == {name: clip for name, clip in everything.clips.items() if "deadly" not in name}
    monkeypatch.setattr(inspect, "_problems", deadly.problems)
    assert verify(everything) == [
        f"clip {name}: the decoder died (SIGSEGV) while reading it" for name in ("deadly", "deadly2")
    ]


def test_eight_channels_are_read_or_refused_and_cost_no_other(tmp_path: Path) -> None:
    """7.1 in AAC: eight planes of samples, on which a reader may die."""
    video(tmp_path / "videos" / "good.mp4", 6)
    with av.open(str(tmp_path / "videos" / "wide.mp4"), "w") as container:
        picture, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48_000)
        picture.width = picture.height = 64
        picture.pix_fmt, sound.layout = "yuv420p", "7.1"
        images, wave = click_and_flash(6)
        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:64, :64]), "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(picture.encode(frame))
        for k in range(0, 48_000 * 6, 1024):
            part = np.repeat(np.repeat(wave, 3)[k : k + 1024], 8)[None].astype(np.float32)  # channels by turns
            piece = av.AudioFrame.from_ndarray(part, "flt", "7.1")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, k, Fraction(1, 48_000)
            container.mux(sound.encode(piece))
        container.mux([*picture.encode(None), *sound.encode(None)])
    manifest, refused = manifest_from_files([tmp_path / "videos"], tmp_path / "out", AT_ONCE)
    assert "good" in manifest.clips
    assert set(manifest.clips) | {Path(error.clip_id).stem for error in refused} == {"good", "wide"}


# ----------------------------------------------------------------------------------------------------- unusual names


def test_names_of_every_kind_are_kept(tmp_path: Path) -> None:
    raw = [
        b"caf\xe9.mp4",
        b"-x: 100%41 #1.mp4",
        b"new\nline.mp4",
        b"\x1b[31mred.mp4",
        b"back\\xe9slash.mp4",
        "日本.mp4".encode(),
        b"a:b.mp4",
    ]
    for seed, name in enumerate(raw):
        video(Path(os.fsdecode(bytes(tmp_path / "videos") + b"/" + name)), 6, seed)
    manifest, refused = manifest_from_files([tmp_path / "videos"], tmp_path / "out", AT_ONCE)
    assert not refused
    assert all(clip_id.isascii() and clip_id.isprintable() for clip_id in manifest.clips)
    again = read_manifest(tmp_path / "out")
    assert again.sha256 == manifest.sha256
    assert {os.fsencode(again.clip_path(clip).name) for clip in again.clips.values()} == set(raw)
    assert verify(again) == []
    copied, _ = manifest_from_files([tmp_path / "videos"], tmp_path / "copies", AT_ONCE, copy=True)
    assert all(path.name.isascii() for path in copied.media_root.iterdir())
    assert verify(read_manifest(tmp_path / "copies")) == []


def test_a_media_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/k\xfc"))
    video(folder / "a.mp4", 6)
    manifest_from_files([folder], tmp_path / "out", AT_ONCE)
    assert read_manifest(tmp_path / "out").media_root == folder
    inside, _ = manifest_from_files([folder], folder / "out", AT_ONCE)
    assert (inside.name, read_manifest(folder / "out").sha256) == ("out", inside.sha256)
    named_by_it, _ = manifest_from_files([folder], Path(os.fsdecode(bytes(tmp_path) + b"/o\xfc")), AT_ONCE)
    assert named_by_it.name == "o?"


# ------------------------------------------------------------------------------------------------------ info, verify


def test_info_counts(made: tuple[Manifest, list[str], Path]) -> None:
    manifest = made[0]
    facts = info(manifest)
    assert (facts["n_clips"], facts["n_videos"], facts["n_segments"]) == (3, 3, 9)
    assert facts["hours"] == pytest.approx((32 + 12 + 50) / 3600)
    assert sum(facts["class_histogram"]) == 9
    assert facts["splits"]["test"]["segments"] == 9
    assert facts["channels"] == {"sport": 5, "news": 4}
    for hop in SUPPORT_HOPS_S:
        for n in SUPPORT_WINDOWS:
            protocol = streaming(hop_s=hop, iterations=n)
            count = sum(protocol.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)
            assert facts["support"][hop][n] == count


def test_verify_names_what_changed(folder: Path, tmp_path: Path) -> None:
    manifest, _ = manifest_from_files([folder / "news", folder / "sport"], tmp_path, copy=True)
    paths = {c.id: manifest.clip_path(c) for c in manifest.clips.values()}
    names = list(paths)
    paths[names[0]].unlink()
    shutil.copyfile(paths[names[2]], paths[names[1]])
    problems = verify(manifest)
    assert len(problems) == 2
    assert "does not exist" in problems[0]
    assert names[1] in problems[1]
    assert "has changed" in problems[1]

    clip = manifest.clips[names[2]]
    lying = replace(manifest, clips={names[2]: replace(clip, n_frames=clip.n_frames + 5)})
    lying = replace(lying, segments=tuple(s for s in manifest.segments if s.clip_id == names[2]))
    assert verify(lying, decode=False) == []
    assert verify(lying) == [f"clip {names[2]}: n_frames is {clip.n_frames}, the manifest says {clip.n_frames + 5}"]

    late = replace(lying.segments[0], start=clip.duration // 640 * 640 - 640)
    assert any("leaves the clip" in p for p in verify(replace(lying, segments=(late,)), decode=False))
