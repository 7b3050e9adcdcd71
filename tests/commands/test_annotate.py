"""``avbench data annotate``: scores, files, the page, corrections, and what is said where weights are missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import realclips

from avbench.data.building import stages
from avbench.protocol.manifest import read_manifest

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
MINE = """
import numpy as np
class Faces:
    def faces(self, picture): return []
class Speech:
    def speech(self, audio): return np.ones(len(audio) // 640, np.float32)
class Lips:
    def features(self, audio): return audio
    def score(self, faces, features, first_frame): raise AssertionError("no face was found")
class Events:
    def events(self, audio): return ["Gunshot, gunfire"]
"""


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Options for annotators of the user's own that find speech everywhere and no faces."""
    (tmp_path / "mine.py").write_text(MINE)
    return [word for role in ("faces", "speech", "lips", "events") for word in (f"--{role}", f"mine.py:{role.title()}")]


def lines_of(done: subprocess.CompletedProcess[str], kind: str) -> list[str]:
    return [line.partition(f"{kind}: ")[2] for line in done.stderr.splitlines() if f"avbench: {kind}: " in line]


def test_it_scores_and_writes(avbench: Avbench, clicks: Path, own: list[str], tmp_path: Path) -> None:
    done = avbench("data", "annotate", "--data", clicks, "--score", "--out", "m", *own)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line.split()[-4:] for line in done.stdout.splitlines()}
    # the fixture's segments are half "talking head", half "voice-over"; without faces all speech is a voice-over
    assert lines["talking head"] == ["2", "0", "-", "0.000"]
    assert lines["voice-over"] == ["2", "4", "0.500", "1.000"]
    segments = read_manifest(tmp_path / "m").segments
    assert {(s.category, s.events) for s in segments} == {("voice-over", ("Gunshot, gunfire", "speech"))}
    rows = [json.loads(line) for line in (tmp_path / "m" / "annotations.jsonl").read_text().splitlines()]
    assert [row["clip_id"] for row in rows] == ["one", "two"]


def test_nothing_to_do_and_wrong_requests_are_one_line(
    avbench: Avbench, clicks: Path, own: list[str], tmp_path: Path
) -> None:
    (tmp_path / "c.csv").write_text("segment_id,category,events\nnobody,other,\n")
    for words, text in (
        ((), "give --score, --out DIR or --page FILE"),
        (("--corrections", "c.csv"), "give --score, --out DIR or --page FILE"),
        (("--out", "m", "--corrections", "c.csv"), "c.csv row 2: there is no segment 'nobody' in the data"),
        (("--out", "m", "--workers", "0"), "workers is 0"),
        (("--page", "."), "--page . is a folder; name a file in it"),
        (("--out", "m", "--lips", "lrasd"), "lips: lrasd is not in the cache: `avbench weights fetch lrasd`"),
        (("--out", "m", "--faces", "haar"), "no annotator of faces is named 'haar'"),
    ):
        done = avbench("data", "annotate", "--data", clicks, *own, *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_without_weights_the_categories_are_empty_and_the_reason_is_said(
    avbench: Avbench, clicks: Path, tmp_path: Path
) -> None:
    done = avbench("data", "annotate", "--data", clicks, "--score", "--out", "m")
    assert done.returncode == 0, done.stderr
    for role, name, then in (
        ("faces", "yunet", "categories are left empty"),
        ("lips", "lrasd", "categories are left empty"),
        ("events", "efficientat", "only measured levels (signal) are given"),
    ):
        line = f"avbench: {role}: {name} is not in the cache: `avbench weights fetch {name}`; until then {then}"
        assert done.stderr.splitlines().count(line) == 1
    assert lines_of(done, "no category") == ["4 of 4 segments: there is no annotator for faces and lips"]
    assert [
        line.split()[-3] for line in done.stdout.splitlines() if line.startswith(("talking", "voice", "other"))
    ] == [
        "0",
        "0",
        "0",
    ]
    segments = read_manifest(tmp_path / "m").segments
    assert {s.category for s in segments} == {""}
    assert all("onset" in s.events for s in segments)  # the clips are clicks
    # roles that were left out on purpose are not complained about
    quiet = avbench(
        "data",
        "annotate",
        "--data",
        clicks,
        "--out",
        "m",
        "--faces",
        "none",
        "--lips",
        "none",
        "--events",
        "none",
        "--force",
    )
    assert "fetch" not in quiet.stderr
    assert {s.events for s in read_manifest(tmp_path / "m").segments} == {()}


def test_a_person_sees_a_page_and_corrects(avbench: Avbench, clicks: Path, own: list[str], tmp_path: Path) -> None:
    done = avbench("data", "annotate", "--data", clicks, "--page", "pages/labels.html", *own)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "labels.html").read_text()
    assert page.count("data:image/jpeg") == 4 * 5  # pictures of the scene; there are no faces
    assert "one-0,voice-over,&#34;Gunshot, gunfire;speech&#34;" in page
    (tmp_path / "c.csv").write_text('segment_id,category,events\none-0,other,"Gunshot, gunfire"\ntwo-1,,none\n')
    done = avbench(
        "data", "annotate", "--data", clicks, "--corrections", "c.csv", "--out", "m", "--page", "m.html", *own
    )
    assert "m: 2 clips, 4 segments, 4 annotated, 2 corrected" in done.stdout
    told = {s.id: (s.category, s.events) for s in read_manifest(tmp_path / "m").segments}
    found = ("voice-over", ("Gunshot, gunfire", "speech"))
    assert told == {
        "one-0": ("other", ("Gunshot, gunfire",)),
        "one-1": found,
        "two-0": found,
        "two-1": ("voice-over", ()),
    }
    assert "corrected, found was “voice-over”" in (tmp_path / "m.html").read_text()


def test_measurements_of_our_own_annotators_are_kept_and_those_of_others_are_not(
    avbench: Avbench, clicks: Path, own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ("--faces", "none", "--lips", "none", "--events", "signal")
    assert avbench("data", "annotate", "--data", clicks, "--out", "m", "--force", *plain).returncode == 0
    assert avbench("data", "annotate", "--data", clicks, "--out", "m", "--force", *own).returncode == 0
    asked: list[int] = []
    run = stages.LocalEngine.run
    monkeypatch.setattr(stages.LocalEngine, "run", lambda self, jobs: asked.append(len(jobs)) or run(self, jobs))
    assert avbench("data", "annotate", "--data", clicks, "--out", "m", "--force", *plain).returncode == 0
    assert avbench("data", "annotate", "--data", clicks, "--out", "m", "--force", *plain[:5], "none").returncode == 0
    assert avbench("data", "annotate", "--data", clicks, "--out", "m", "--force", *own).returncode == 0
    assert asked == [0, 2, 2]


@pytest.mark.skipif(not realclips.MODELS.is_dir(), reason="the weights in ../shared/models are not here")
def test_with_fetched_weights_a_real_speaker_is_a_talking_head(
    avbench: Avbench, own_cache: Path, tmp_path: Path
) -> None:
    """From the weights' names to the manifest and the page, nothing named but the data."""
    folder = own_cache / "weights" / "annotators"
    folder.mkdir(parents=True)
    for file in realclips.MODELS.iterdir():
        shutil.copy(file, folder / file.name)
    clip = realclips.REAL / "talk" / "LivePortrait__d20.mp4"
    assert avbench("data", "from-files", clip, "--out", "d", "--offsets", "fixed:0").returncode == 0
    done = avbench("data", "annotate", "--data", "d", "--out", "m", "--page", "m.html")
    assert done.returncode == 0, done.stderr
    assert "fetch" not in done.stderr
    (segment,) = read_manifest(tmp_path / "m").segments
    assert segment.category == "talking head"
    assert "Speech" in segment.events
    page = (tmp_path / "m.html").read_text()
    assert "makes the sound (excess" in page
    assert page.count("data:image/jpeg") >= 10
