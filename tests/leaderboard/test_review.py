"""The review of a pull request's entries, and what its comment may contain."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from entries import make_entry, make_logits

from avbench.leaderboard.review import review, to_markdown
from avbench.protocol.tracks import TRACKS
from avbench.scoring.metrics import METRICS
from avbench.submissions.tracks import truth

Avbench = Callable[..., subprocess.CompletedProcess[str]]
TRACK = TRACKS["synthsync-test"]
TRUTH = truth(TRACK)
GOOD = make_logits(TRUTH, 18, 0.35)


@pytest.fixture
def pull(tmp_path: Path) -> Path:
    """``main`` holds one accepted entry, ``pr`` the same and what the test adds."""
    make_entry(tmp_path / "main", TRACK, TRUTH, "old", logits=GOOD)
    shutil.copytree(tmp_path / "main", tmp_path / "pr")
    return tmp_path / "pr"


def test_only_what_changed_is_checked_and_shown(avbench: Avbench, pull: Path) -> None:
    new = make_entry(pull, TRACK, TRUTH, "new", logits=GOOD)
    done = avbench("leaderboard", "review", "--base", "main", "--entries", "pr", "--out", "out")
    assert done.returncode == 0, done.stderr
    text = (pull.parent / "out" / "review.md").read_text(encoding="utf-8")
    assert done.stdout == text
    assert f"`{new.relative_to(pull).as_posix()}`: valid" in text
    assert "acme__old" not in text
    for metric in METRICS.values():
        assert f"| {metric.title} |" in text
    assert text.endswith("Every change is valid.\n")


def test_nothing_changed_and_no_folders() -> None:
    found = review(Path("nowhere"), Path("nor here"))
    assert found.ok
    assert to_markdown(found) == "No entry is added, changed or removed.\n"


def test_a_lie_a_change_a_removal_and_strays(avbench: Avbench, pull: Path) -> None:
    make_entry(pull, TRACK, TRUTH, "liar", logits=GOOD, claimed=dict.fromkeys(METRICS, 0.999))
    old = next(pull.glob("acme__old/*/*"))
    (old / "predictions.parquet").write_bytes(b"PAR1")
    (pull / "acme__old" / "run.sh").write_text("exit 1")
    (pull / ".hidden").mkdir()
    gone = make_entry(pull.parent / "main", TRACK, TRUTH, "gone", logits=GOOD)
    done = avbench("leaderboard", "review", "--base", "main", "--entries", "pr", "--out", "out")
    assert done.returncode == 2
    text = done.stdout
    assert text.count("**refused**") == 2
    assert "- `claimed.acc`: `says 0.999; the predictions score " in text
    assert "- `files.predictions.bytes`" in text
    assert "**Not an entry**: `acme__old/run.sh`" in text
    assert "**Not an entry**: `.hidden`" in text
    assert f"Removed: `{gone.relative_to(pull.parent / 'main').as_posix()}`" in text
    assert "**Not acceptable as it is**" in text


def test_private_labels_are_left_to_who_has_them(pull: Path) -> None:
    folder = make_entry(pull, TRACK, TRUTH, "blind", logits=GOOD)
    folder.rename(folder.with_name("synthsync-test.blind-0123"))
    found = review(pull.parent / "main", pull)
    assert found.ok
    assert found.checked == {}
    assert "a maintainer who has them will check it" in to_markdown(found)


@pytest.mark.parametrize("text", ["`](http://x) @everyone", "<img src=x onerror=alert(1)>", "a | b", "# head\n# line"])
def test_a_stranger_cannot_write_in_the_comment(pull: Path, text: str) -> None:
    folder = next(pull.glob("acme__old/*/*"))
    document = json.loads((folder / "submission.json").read_text())
    document["card"][text] = text
    (folder / "submission.json").write_text(json.dumps(document))
    written = to_markdown(review(pull.parent / "main", pull))
    for line in written.splitlines():
        outside = "".join(line.split("`")[::2])
        assert not set(outside) & set("<@|]"), line
        assert line.count("`") % 2 == 0


def test_links_are_not_followed(pull: Path) -> None:
    old = next(pull.glob("acme__old/*/*"))
    real = pull.parent / "elsewhere"
    old.rename(real)
    old.symlink_to(real)
    found = review(pull.parent / "main", pull)
    assert not found.ok
    assert "is a link" in to_markdown(found)
