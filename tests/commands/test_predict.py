"""``avbench predict`` as its users meet it: answers, tables, exit codes, and files of every kind of badness."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from offsetclips import JUMPS, click_clip, shifted

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.synthsync import clip_specs

Avbench = Callable[..., subprocess.CompletedProcess[str]]
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg on this machine")


@pytest.fixture(scope="session")
def jumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 s of clicks and flashes whose sound jumps twice; read only."""
    return click_clip(tmp_path_factory.mktemp("jumps") / "jumps.mp4", 110, JUMPS)


@pytest.fixture(scope="session")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 s of clicks that come 0.4 s before their flashes; read only."""
    return click_clip(tmp_path_factory.mktemp("early") / "early.mp4", 14, [(0.0, 0.4)])


def files(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The answers of a call with --json."""
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)["files"]


def run_ffmpeg(*args: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, args)], check=True, stdin=subprocess.DEVNULL)


# -- what it answers -------------------------------------------------------------------------------------------------


def test_clicks_that_jump_twice(avbench_process: Avbench, jumps: Path) -> None:
    done = avbench_process("predict", jumps, "--model", "xcorr", "--json")
    assert done.returncode == 0, done.stderr
    (told,) = files(done)
    assert told["path"] == str(jumps)
    assert (told["duration_s"], told["error"], told["model"]) == (110, None, "xcorr+bayes")
    assert (told["audio_track"], told["video_track"]) == (1, 1)
    assert told["windows"] == 53  # the last second is not worth one more
    assert set(told["tolerance"]) == {"itu-detect", "itu-accept", "atsc", "ebu"}
    assert set(told["tolerance"].values()) == {False}
    found = told["regimes"]
    assert [r["start_s"] for r in found] == pytest.approx([at_s for at_s, _ in JUMPS], abs=4)
    assert [r["end_s"] for r in found] == [*(r["start_s"] for r in found[1:]), 110]
    assert [r["offset_s"] for r in found] == pytest.approx([offset_s for _, offset_s in JUMPS], abs=0.02)
    assert [r["in_words"] for r in found] == ["audio 0.17 s early", "audio 0.62 s late", "audio 0.34 s early"]
    assert any("weak evidence" in warning for warning in told["warnings"])


@pytest.mark.slow
def test_synthsync_whose_sound_jumps_twice(avbench_process: Avbench, tmp_path: Path) -> None:
    scene = clip_specs("test", 1)[0].scene()
    law = [(0.0, 0.4), (38.0, -0.8), (77.0, 0.0)]
    encode_clip(tmp_path / "jumps.mp4", scene.frames(), shifted(scene.audio(), law))
    (told,) = files(avbench_process("predict", "jumps.mp4", "--model", "sparsesync", "--json"))
    found = told["regimes"]
    assert [r["start_s"] for r in found] == pytest.approx([at_s for at_s, _ in law], abs=4)
    assert [r["offset_s"] for r in found] == pytest.approx([offset_s for _, offset_s in law], abs=0.2)
    assert {r["words"] for r in found} == {"unsure"}  # embedded weights know nothing of real media
    assert set(told["tolerance"].values()) == {None}


def test_text_says_it_in_words_and_names_the_tracks(avbench: Avbench, early: Path) -> None:
    done = avbench("predict", early, "--model", "xcorr")
    assert done.returncode == 0
    assert f"{early}   0:14 · 25 fps · picture track 1 of 1 · sound track 1 of 1 · xcorr+bayes" in done.stdout
    assert "0:00 - 0:14  audio 0.4 s early  +0.40 ±0.0" in done.stdout
    assert "likely  outside itu-detect, itu-accept, atsc, ebu" in done.stdout
    assert "fix       ffmpeg -n -copyts -i " in done.stdout
    assert not list(Path().glob("*.html"))


def test_without_published_weights_the_answer_says_so_once(avbench: Avbench, early: Path) -> None:
    help_ = "`avbench predict --fetch FILE` gets synchformer.audioset"
    done = avbench("predict", early)
    said = [line for line in (done.stdout + done.stderr).splitlines() if help_ in line]
    assert said == [f"  note      no published weights for real media are in the cache: {help_}"]
    assert (done.stdout + done.stderr).count("weak evidence") == 1
    again = avbench("predict", early, "--json")
    (told,) = files(again)
    assert told["model"] == "xcorr+bayes"
    assert told["warnings"][-1].endswith(help_)
    assert not any(said in again.stderr for said in ("published", "computed", "failed"))


def test_the_exit_code_is_the_verdict(avbench: Avbench, early: Path, tmp_path: Path) -> None:
    still = click_clip(tmp_path / "silent.mp4", 8, [(0.0, 100.0)])
    for tolerance, clip, code in (
        ("ebu", early, 3),
        ("0.5/0.1", early, 0),
        ("-0.1/0.5", early, None),
        ("ebu", still, 1),
    ):
        args = ("predict", clip, "--model", "xcorr", "--json", f"--tolerance={tolerance}")
        done = avbench(*args)
        assert done.returncode == (0 if code is None else code), (tolerance, done.stderr)
        assert files(done)[0]["tolerance"][tolerance] is {0: True, 3: False, 1: None}[done.returncode]
    assert avbench("predict", early, "--tolerance", "narrow").returncode == 2
    assert (
        avbench("predict", early, tmp_path / "none.mp4", "--model", "xcorr", "--tolerance", "0.5/0.1").returncode == 1
    )


def test_a_hop_that_is_no_frame_and_options_without_a_model_are_refused(avbench: Avbench, early: Path) -> None:
    for args, said in (
        (("--hop", "0.03"), "hop is 0.03 s; it must be a positive multiple of 0.04 s"),
        (("--hop", "nan"), "hop is nan s; it must be a positive multiple"),
        (("--dtype", "bfloat16"), "name it with --model"),
        (("--model", "constant"), "ignores its input"),
        (("--audio-track", "-1"), "tracks are counted from 1"),
        (("--model", "xcor"), "did you mean xcorr?"),
    ):
        done = avbench("predict", early, *args)
        assert done.returncode == 2, args
        assert said in done.stderr


def test_what_is_not_there_is_said_once_and_first(avbench_process: Avbench, tmp_path: Path) -> None:
    done = avbench_process("predict", "gone.mp4")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "avbench: error: gone.mp4: does not exist\n", "no word of the model, nor of windows"


def test_what_is_not_there_among_several_is_in_the_table_only(avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("predict", "gone.mp4", "none.mp4", "--csv", "all.csv")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("does not exist") == 2
    with open(tmp_path / "all.csv", newline="") as table:
        assert [row["error"] for row in csv.DictReader(table)] == ["does not exist"] * 2
    (told,) = files(avbench("predict", "gone.mp4", "--json"))
    assert told["error"] == "does not exist"


def test_files_are_named_as_they_were_given(avbench: Avbench, tmp_path: Path) -> None:
    """Relative to where the user is, without the id of the clip."""
    (tmp_path / "any" / "folder").mkdir(parents=True)
    (tmp_path / "any" / "folder" / "broken.mp4").write_text("no video")
    done = avbench("predict", "any", "--model", "xcorr")
    assert "avbench: error: any/folder/broken.mp4: is not a readable media file" in done.stderr
    for given in ("any", "any/folder/broken.mp4"):
        done = avbench("data", "from-files", given, "--out", "data")
        assert "files can be used; the first: any/folder/broken.mp4: is not a readable media file" in done.stderr
        assert str(tmp_path) not in done.stderr
    done = avbench("submit", "check", "any/where")
    assert "any/where is not a folder" in done.stderr
    assert str(tmp_path) not in done.stderr


# -- many files ------------------------------------------------------------------------------------------------------


def test_one_broken_file_of_ten_costs_only_itself(avbench: Avbench, tmp_path: Path) -> None:
    for k in range(9):
        click_clip(tmp_path / f"{k:02}.mp4", 5, [(0.0, 0.2)], seed=k)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "00.mp4").read_bytes()[:3000])
    paths = sorted(tmp_path.glob("*.mp4"))
    done = avbench("predict", *paths, "--model", "xcorr", "--json", "--csv", "all.csv", "--workers", "2")
    told = files(done)
    assert done.returncode == 1
    assert [f["path"] for f in told] == [str(path) for path in paths]
    assert [f["path"] for f in told if f["error"]] == [str(tmp_path / "broken.mp4")]
    assert "\n" not in told[-1]["error"]
    assert all(f["regimes"] for f in told if not f["error"])
    with open("all.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["path"] for row in rows] == [f["path"] for f in told]
    assert (rows[0]["words"], rows[0]["within_ebu"], rows[-1]["offset_s"]) == ("unsure", "", "")  # of one window
    assert (rows[0]["windows"], rows[-1]["windows"]) == ("1", "")


def test_a_folder_is_a_table_worst_first_and_the_second_call_computes_nothing(avbench: Avbench, tmp_path: Path) -> None:
    folder = tmp_path / "rushes"
    (folder / "sub").mkdir(parents=True)
    click_clip(folder / "a in sync.mp4", 8)
    click_clip(folder / "sub" / "late.mp4", 14, [(0.0, -0.6)])
    click_clip(folder / "silent.mp4", 8, [(0.0, 100.0)])
    (folder / "bad.mkv").write_bytes(b"no media")
    (folder / "notes.txt").write_text("x")
    first = avbench("predict", "rushes", "--model", "xcorr", "--out", "pages")
    assert first.returncode == 1
    assert "passed over: notes.txt" in first.stderr
    lines = first.stdout.splitlines()
    order = [name for line in lines for name in ("late.mp4", "silent.mp4", "sync.mp4", "bad.mkv") if name in line]
    assert order[0] == "late.mp4"
    assert order[-1] == "bad.mkv"
    assert order.index("silent.mp4") < 3
    assert "passed over: notes.txt: not a video by its name" in first.stderr
    assert lines[-1] == "files   pages/index.html"
    assert lines[-2].startswith("4 files: 1 outside")
    assert [first.stdout.count(said) for said in ("xcorr+bayes", "weak evidence")] == [1, 1]
    assert "1 error" in lines[-2]
    computed = 9
    assert f"{computed} windows computed, 0 from the store, 1 of 4 files failed" in first.stderr
    assert sorted(p.name for p in Path("pages").iterdir()) == [
        "a_in_sync.avbench.html",
        "bad.avbench.html",
        "index.html",
        "silent.avbench.html",
        "sub--late.avbench.html",
    ]
    again = avbench("predict", "rushes", "--model", "xcorr", "--out", "pages", "--jsonl")
    assert f"0 windows computed, {computed} from the store" in again.stderr
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert sorted(f["path"] for f in told) == [  # as they are answered
        f"rushes/{n}" for n in ("a in sync.mp4", "bad.mkv", "silent.mp4", "sub/late.mp4")
    ]


def test_nothing_of_the_users_is_replaced(avbench: Avbench, early: Path, tmp_path: Path) -> None:
    clip = shutil.copy(early, tmp_path / "clip.mp4")
    page = tmp_path / "clip.avbench.html"
    page.write_text("mine")
    done = avbench("predict", clip, "--model", "xcorr", "--page")
    assert done.returncode == 2
    assert "is there and not a page of avbench predict; give --force to replace it" in done.stderr
    assert page.read_text() == "mine"
    assert avbench("predict", clip, "--model", "xcorr", "--page", "--force").returncode == 0
    assert "avbench · predict" in page.read_text()
    assert avbench("predict", clip, "--model", "xcorr", "--page").returncode == 0  # its own page


# -- odd files -------------------------------------------------------------------------------------------------------


def test_short_silent_and_still_files(avbench: Avbench, tmp_path: Path) -> None:
    frames, sound = click_and_flash(8)
    encode_clip(tmp_path / "silent.mp4", frames, 0 * sound)
    encode_clip(tmp_path / "still.mp4", frames[:1].repeat(200, axis=0), sound)
    encode_clip(tmp_path / "1.5s.mp4", frames[:38], sound[:24_000])
    encode_clip(tmp_path / "0.4s.mp4", frames[:10], sound[:6400])
    names = ("silent.mp4", "still.mp4", "1.5s.mp4", "0.4s.mp4")
    done = avbench("predict", *names, "--model", "xcorr", "--json")
    assert done.returncode == 1
    silent, still, short, shortest = files(done)
    for told, why in ((silent, "the sound is silent"), (still, "the picture stands still")):
        (regime,) = told["regimes"]
        assert (regime["words"], regime["offset_s"], regime["why"]) == ("no evidence", None, why)
        assert (regime["start_s"], regime["end_s"]) == (0, 8)
        assert told["tolerance"]["ebu"] is None
    assert (short["windows"], short["regimes"][0]["words"]) == (1, "unsure")
    assert short["regimes"][0]["end_s"] == short["duration_s"] == pytest.approx(1.5, abs=0.02)
    assert "padded to 5 s with the last picture and silence" in short["warnings"][0]
    assert shortest["error"] == "lasts 0.40 s; at least 1 s of picture and sound is needed"


def test_odd_names(avbench_process: Avbench, early: Path, tmp_path: Path) -> None:
    names = ["a b.mp4", "grüße.mp4", "-n.mp4", os.fsdecode(b"\xff\xfe.mp4")]
    for name in names:
        shutil.copy(early, tmp_path / name)
    done = avbench_process("predict", "--model", "xcorr", "--json", "--page", "--", *names)
    told = files(done)
    assert [f["path"] for f in told] == ["a b.mp4", "grüße.mp4", "-n.mp4", r"\xff\xfe.mp4"]
    assert not any(f["error"] for f in told)
    assert "-i './a b.mp4' -itsoffset" in told[0]["repair"]
    assert r"$'./\xff\xfe.in-sync.mp4'" in told[3]["repair"]
    assert len(list(tmp_path.glob("*.avbench.html"))) == 4
    assert avbench_process("predict", "--model", "xcorr", "--", *names).returncode == 0


def test_media_from_stdin(early: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avbench", "predict", "-", "--model", "xcorr", "--json"]
    with open(early, "rb") as media:
        done = subprocess.run(command, stdin=media, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    (told,) = files(done)
    assert (told["path"], told["repair"]) == ("-", None)
    assert told["regimes"][0]["offset_s"] == pytest.approx(0.4, abs=0.02)
    assert not list(tmp_path.glob("avbench-stdin*"))


@needs_ffmpeg
def test_the_track_that_is_asked_for_is_heard_and_named(avbench: Avbench, tmp_path: Path) -> None:
    click_clip(tmp_path / "a.mp4", 10, [(0.0, 0.4)])
    click_clip(tmp_path / "b.mp4", 10, [(0.0, -0.6)])
    inputs = ("-i", tmp_path / "a.mp4", "-i", tmp_path / "b.mp4")
    run_ffmpeg(*inputs, "-map", "0:v", "-map", "0:a", "-map", "1:a", "-c", "copy", tmp_path / "two.mkv")
    found = {}
    for track in (0, 1, 2):
        chosen = ("--audio-track", track) if track else ()
        (told,) = files(avbench("predict", "two.mkv", "--model", "xcorr", "--json", *chosen))
        found[track] = told["regimes"][0]["offset_s"]
        assert told["audio_track"] == (track or 1)
        assert f"sound track {track or 1} of 2 (default)"[:22] in told["tracks"][1]
    assert list(found.values()) == pytest.approx([0.4, 0.4, -0.6], abs=0.02)
    done = avbench("predict", "two.mkv", "--model", "xcorr", "--audio-track", 3)
    assert done.returncode == 1
    assert "there is no sound track 3; the file has 2" in done.stderr


@needs_ffmpeg
@pytest.mark.parametrize(
    ("offset_s", "ending"),
    [
        (0.43, "mp4"),
        (0.43, "mkv"),
        (-0.57, "ts"),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in ((-0.57, "mp4"), (-0.57, "mkv"), (0.43, "ts"))),
    ],
)
def test_the_command_that_is_printed_repairs_the_file(
    avbench: Avbench, tmp_path: Path, offset_s: float, ending: str
) -> None:
    click_clip(tmp_path / "made.mp4", 14, [(0.0, offset_s)])
    broken = tmp_path / f"off by a bit.{ending}"
    run_ffmpeg("-i", tmp_path / "made.mp4", "-c", "copy", broken)
    (told,) = files(avbench("predict", broken, "--model", "xcorr", "--json"))
    assert told["regimes"][0]["offset_s"] == pytest.approx(offset_s, abs=0.02)
    subprocess.run(f"{told['repair']} -v error", shell=True, check=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    repaired = tmp_path / f"off by a bit.in-sync.{ending}"
    (after,) = files(avbench("predict", repaired, "--model", "xcorr", "--json"))
    assert after["regimes"][0]["offset_s"] == pytest.approx(0, abs=0.02)
    assert after["repair"] is None
    codecs = [streams(path) for path in (broken, repaired)]
    assert codecs[0] == codecs[1]


def streams(path: Path) -> list[str]:
    """Hashes of the compressed pictures: equal if they were copied."""
    args = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:v", "-c", "copy", "-f", "framehash", "-"]
    lines = subprocess.run(args, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    return [line.rpartition(",")[2] for line in lines.splitlines() if not line.startswith("#")]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder is not there")
def test_every_real_clip_and_every_odd_file_ends_with_an_answer_or_one_line(tmp_path: Path) -> None:
    found = [SHARED / "media"]
    if FFMPEG and shutil.which("mkvmerge"):
        made = tmp_path / "field"
        subprocess.run([sys.executable, SHARED / "field" / "make_cases.py", made], check=True, capture_output=True)
        found.append(made)
    command = [sys.executable, "-m", "avbench", "predict", *map(str, found), "--model", "xcorr", "--json"]
    told = files(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path))
    assert len(told) > 40
    for answer in told:
        assert answer["regimes"] or answer["error"], answer
        assert "\n" not in (answer["error"] or "")
        assert "Error" not in (answer["error"] or "").split(":")[0], answer
    print(f"{sum(not f['error'] for f in told)} answered, {sum(bool(f['error']) for f in told)} refused")
    for answer in told:
        if answer["error"]:
            print(f"{answer['path']}: {answer['error']}")
    assert np.mean([not f["error"] for f in told]) > 0.7
