"""``avbench data build``: killed and run again, plug-ins that crash, what is asked for wrongly."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stamps import noise, write_media

from avbench.protocol.manifest import read_manifest

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
RULES = ("--min-duration-s", 4, "--min-height", 60, "--clip-s", 6, "--min-clip-s", 2, "--short-side", 64)
EVENTS = """
from pathlib import Path
import numpy as np, os
class Faces:
    def faces(self, picture): return [(0, 0, 40, 40)]
class Speech:
    def speech(self, audio): return np.ones(len(audio) // 640, np.float32)
class Score:
    raw, excess, lags, curve = 1.0, 1.0, np.arange(-25, 26), np.exp(-np.arange(-25, 26) ** 2 / 50.0)
    seen, reason = (), ""
class Lips:
    def features(self, audio): return audio
    def score(self, faces, features, first_frame):
        assert faces.shape[1:] == (112, 112)
        return Score()
class Events:
    def events(self, audio):
        if Path("crash").exists() and abs(float(np.abs(audio).mean()) - float(Path("crash").read_text())) < 1e-6:
            os._exit(9)
        return ["noise"]
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two channels of two short videos each, with sounds of their own."""
    for n, name in enumerate(("news/a.mp4", "news/b.mkv", "sport/c.ts", "sport/d.mp4")):
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        container = {"mp4": "mp4", "mkv": "matroska", "ts": "mpegts"}[path.suffix[1:]]
        sound = noise((7 + n) * 16_000, seed=n)
        # so wide that no change of the barcode in its middle is taken for a cut
        write_media(path, container=container, times=_times(7 + n), sound=sound, size=(640, 64))
    (tmp_path / "mine.py").write_text(EVENTS)
    return tmp_path / "raw"


def _times(length_s: int) -> list:  # type: ignore[type-arg]
    from fractions import Fraction

    return [Fraction(k, 25) for k in range(length_s * 25)]


def own(*roles: str) -> list[str]:
    """The plug-ins of the tests: nothing but Python has to be loaded."""
    return [word for role in roles for word in (f"--{role}", f"mine.py:{role.title()}")]


ROLES = own("faces", "speech", "lips", "events")


def tree(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(out).items() if not name.startswith(".build")}


def build(avbench: Avbench, raw: Path, out: str, *more: object) -> subprocess.CompletedProcess[str]:
    return avbench("data", "build", "--videos", raw, "--out", out, *RULES, *more)


def test_from_a_folder_to_a_split_with_a_report(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    (raw / "news" / "notes.txt").write_text("")
    done = build(avbench, raw, "out", "--split", "50/25/25", *ROLES)
    assert done.returncode == 0, done.stderr
    assert "avbench: passed over: news/notes.txt: not a video by its name" in done.stderr.splitlines()
    assert "every clip decoded and checked: ok" in done.stdout
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest.splits) == {"train", "valid", "test"}
    assert {clip.channel for clip in manifest.clips.values()} == {"news", "sport"}
    by_video = {clip.video_id: set() for clip in manifest.clips.values()}
    for clip in manifest.clips.values():
        by_video[clip.video_id].add(clip.split)
    assert set(by_video) == {"news--a", "news--b", "sport--c", "sport--d"}
    assert all(len(splits) == 1 for splits in by_video.values())
    assert manifest.offset_law == "truncnorm"
    # the file's own words: speech was said to be everywhere and every mouth to follow it
    assert {s.category for s in manifest.segments} == {"talking head"}
    assert {s.events for s in manifest.segments} == {("noise", "speech")}
    report = json.loads((tmp_path / "out" / "build_report.json").read_text())
    assert report["statistics"]["n_segments"] == len(manifest.segments)
    assert report["passed_over"] == ["news/notes.txt: not a video by its name"]
    assert str(tmp_path) not in json.dumps(report["statistics"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "annotations.jsonl").read_text().splitlines()]
    assert [row["clip_id"] for row in rows] == sorted(manifest.clips)
    assert all(row["tracks"][0]["excess"] == 1 and row["chunks"] for row in rows)
    verified = avbench("data", "verify", tmp_path / "out")
    assert verified.returncode == 0, verified.stdout
    # other laws over the same clips: nothing is encoded again
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "media").iterdir()}
    assert build(avbench, raw, "out", "--split", "0/0/100", "--offsets", "uniform", *ROLES).returncode == 0
    assert read_manifest(tmp_path / "out").splits == ("test",)
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "media").iterdir()}


def _killed_builds(raw: Path, tmp_path: Path, kills: int, most_s: float, seed: int) -> int:
    """Runs a build that is killed at random instants until one gets through; how many were killed."""
    command = [sys.executable, "-m", "avbench", "data", "build", "--videos", str(raw), "--out", "b/out"]
    command += [*map(str, RULES), "--workers", "2", *ROLES]
    dice, killed = random.Random(seed), 0
    for attempt in range(kills + 1):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0.2, most_s) if attempt < kills else 600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        if process.wait() == 0:
            break
    assert process.returncode == 0
    return killed


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert build(avbench, raw, "a/out", *ROLES).returncode == 0
    # at one instant in each stage: as soon as the first record of its jobs is there
    command = [sys.executable, "-m", "avbench", "data", "build", "--videos", str(raw), "--out", "b/out"]
    command += [*map(str, RULES), "--workers", "2", *ROLES]
    for stage in ("headers", "clips", "annotations", "checks"):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        folder = tmp_path / "b" / "out" / ".build" / stage
        while process.poll() is None and not (folder.is_dir() and any(folder.glob("*.json"))):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the build was through before it was killed at {stage}"
    assert build(avbench, raw, "b/out", *ROLES).returncode == 0
    assert results(tmp_path / "b" / "out") == results(tmp_path / "a" / "out")
    assert tree(tmp_path / "b" / "out") == tree(tmp_path / "a" / "out")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_instants_gives_the_same_bytes(avbench: Avbench, raw: Path, tmp_path: Path, seed: int) -> None:
    assert build(avbench, raw, "a/out", *ROLES).returncode == 0
    assert _killed_builds(raw, tmp_path, 12, 4.0, seed) > 0
    assert tree(tmp_path / "b" / "out") == tree(tmp_path / "a" / "out")


@pytest.mark.slow
def test_a_plug_in_that_crashes_on_one_clip_loses_only_that(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    assert build(avbench, raw, "good/out", *ROLES).returncode == 0
    from avbench.data.media import ClipReader

    victim = "sport--c_0_6"
    heard = ClipReader(tmp_path / "good" / "out" / "media" / f"{victim}.mp4").audio()
    (tmp_path / "crash").write_text(repr(float(np.abs(heard[: 4 * 16_000]).mean())))
    done = build(avbench, raw, "out", *ROLES)
    assert done.returncode == 1
    assert f"set aside: annotating: {victim}: the worker process died (exit code 9), 2 times" in done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert {s.clip_id for s in manifest.segments if not s.category} == {victim}
    # it stays set aside until it is asked for again
    (tmp_path / "crash").unlink()
    assert build(avbench, raw, "out", *ROLES).returncode == 1
    assert build(avbench, raw, "out", *ROLES, "--retry").returncode == 0
    assert results(tmp_path / "out") == results(tmp_path / "good" / "out")


def test_a_changed_video_is_made_anew_and_a_removed_one_leaves(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    plain = ("--no-annotations", "--split", "0/0/100")
    assert build(avbench, raw, "out", *plain).returncode == 0
    before = read_manifest(tmp_path / "out")
    write_media(raw / "news" / "a.mp4", times=_times(7), sound=noise(7 * 16_000, seed=99))
    (raw / "sport" / "c.ts").unlink()
    assert build(avbench, raw, "out", *plain).returncode == 0
    after = read_manifest(tmp_path / "out")
    assert set(after.clips) == {name for name in before.clips if not name.startswith("sport--c")}
    changed = {name for name in after.clips if after.clips[name].sha256 != before.clips[name].sha256}
    assert changed == {"news--a_0_6"}
    assert sorted(p.name for p in (tmp_path / "out" / "media").iterdir()) == sorted(
        c.path for c in after.clips.values()
    )
    (tmp_path / "out" / "media" / "news--b_0_6.mp4").unlink()
    assert build(avbench, raw, "out", *plain).returncode == 0
    again = read_manifest(tmp_path / "out")
    assert (set(again.clips), again.sha256) == (set(after.clips), after.sha256)


def test_wrong_requests_are_one_line(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for words, code, text in (
        (("--videos", "nowhere"), 2, "does not exist"),
        (("--videos", "empty"), 2, "no video files found"),
        (("--out", "full"), 2, "full is not empty and not a build's folder"),
        (("--out", "mine.py"), 2, "mine.py is not a folder"),
        (("--split", "90/10"), 2, "must be three shares"),
        (("--offsets", "list"), 2, "brings its offsets"),
        (("--offsets", "hidden"), 2, "brings its offsets"),
        (("--offsets", "bell"), 2, "is not one of"),
        (("--clip-s", 4), 2, "clips of 4 s cannot hold segments of 5 s"),
        (("--short-side", 63), 2, "short side is 63"),
        (("--crf", 99), 2, "crf is 99"),
        (("--workers", 0), 2, "workers is 0"),
        (("--engine", "slurm"), 2, "choose local or ray"),
        (("--faces", "haar"), 2, "no annotator of faces is named 'haar'"),
        (("--faces", "yunet"), 2, "faces: yunet is not in the cache: `avbench weights fetch yunet`"),
        (("--lips", "lrasd"), 2, "lips: lrasd is not in the cache: `avbench weights fetch lrasd`"),
        (("--events", "audioset:nowhere"), 2, "annotat"),
        (("--lips", "mine.py:Nothing"), 2, "mine.py:Nothing cannot be used"),
        (("--min-duration-s", 3000), 2, "none of the 4 videos can be used; the first: news--a: lasts 7.0 s"),
    ):
        done = avbench("data", "build", "--videos", raw, "--out", f"o{code}", *RULES, *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        assert len(lines) == 1
        assert text in lines[0]
        assert "Traceback" not in done.stderr


def test_a_link_out_of_the_folder_is_named(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    (raw / "news" / "a.mp4").rename(tmp_path / "elsewhere.mp4")
    (raw / "news" / "a.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    done = build(avbench, raw, "out", "--no-annotations")
    assert done.returncode == 2
    assert "a link in" in done.stderr
    assert "elsewhere.mp4; move or copy that file into it" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="file locks are POSIX here")
def test_one_build_at_a_time(avbench: Avbench, raw: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out" / ".build").mkdir(parents=True)
    with open(tmp_path / "out" / ".build" / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = build(avbench, raw, "out", "--no-annotations")
    assert done.returncode == 1
    assert "another build is running in out" in done.stderr
