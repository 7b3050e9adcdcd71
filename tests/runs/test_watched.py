"""The page of a record: what was kept of a watch becomes an answer again, whatever became of its last lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avbench.cli import main
from avbench.runs.watch_record import Record
from avbench.runs.watched import is_record, read_record, write_watch_page
from avbench.scoring.regimes import Evidence
from avbench.types import UsageError

HEAD = {
    "stream": "udp://239.1.1.1:5000",
    "model": "xcorr+bayes",
    "window_s": 5.0,
    "hop_s": 2.0,
    "tolerance": {"name": "ebu", "early_s": 0.04, "late_s": 0.06},
}


def says(top: int) -> np.ndarray:
    logits = np.full(21, -6.0)
    logits[top] = 0.0
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def recorded(folder: Path, tops: list[int | None], summary: bool = True, **head: object) -> Path:
    """A record of windows whose class is ``tops``; None: no evidence."""
    record = Record(folder, HEAD | head, lambda text: None)
    for k, top in enumerate(tops):
        p = None if top is None else says(top)
        why = "" if p is not None else "the sound is silent"
        line = {"type": "window", "t_s": 2.0 * k + 5, "start_s": 2.0 * k, "why": why}
        record.put(line, Evidence(2.0 * k, p, p, why=why))
    if summary:
        regime = {"start_s": 0.0, "end_s": 2.0 * len(tops) + 3, "offset_s": 0.4, "spread_s": 0.06, "confidence": 0.99}
        regimes = [regime | {"words": "likely", "in_words": "audio 0.4 s early"}]
        record.put({"type": "summary", "t_s": 2.0 * len(tops) + 3, "regimes": regimes})
    record.close()
    return folder


def test_a_record_becomes_an_answer(tmp_path: Path) -> None:
    found = read_record(recorded(tmp_path, [12] * 10 + [None] * 2))
    assert (found.path, found.model, found.duration_s, found.hop_s) == (
        "udp://239.1.1.1:5000",
        "xcorr+bayes",
        27.0,
        2.0,
    )
    assert [w.why for w in found.windows][-3:] == ["", "the sound is silent", "the sound is silent"]
    (regime,) = found.regimes
    assert (regime.offset_s, regime.words) == (0.4, "likely")
    assert found.asked is not None
    assert found.tolerance["ebu"] is False
    assert not found.warnings


def test_a_watch_that_was_killed_is_followed_anew_and_its_last_line_left_out(tmp_path: Path) -> None:
    (part,) = recorded(tmp_path, [10] * 12 + [14] * 12, summary=False).iterdir()
    part.write_bytes(part.read_bytes()[:-40])
    found = read_record(tmp_path)
    assert [r.offset_s for r in found.regimes] == pytest.approx([0.0, 0.8], abs=0.05)
    assert {r.words for r in found.regimes} == {"unsure"}
    assert len(found.windows) == 23
    assert any("followed anew" in warning for warning in found.warnings)
    assert any("1 line of the record" in warning for warning in found.warnings)


def test_the_latest_watch_in_a_folder_is_told(tmp_path: Path) -> None:
    recorded(tmp_path, [10] * 5)
    recorded(tmp_path, [12] * 7, stream="rtmp://example.org/live")
    found = read_record(tmp_path)
    assert (found.path, len(found.windows)) == ("rtmp://example.org/live", 7)


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path, [12] * 10, stream="udp://<b>239.1.1.1</b>")
    assert main(["report", str(tmp_path)]) == 0
    page = tmp_path / "watch.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;239.1.1.1" in text
    assert "<b>" not in text
    assert "audio 0.4 s early" in text.lower()
    assert main(["report", str(tmp_path), "--stream", "x"]) == 2


def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path) -> None:
    assert not is_record(tmp_path)
    with pytest.raises(UsageError, match="has no record"):
        read_record(tmp_path)
    (tmp_path / "20260101T000000.000000Z-00000.jsonl").write_text('{"type": "begin", "schema_version": 99}\n')
    assert is_record(tmp_path)
    with pytest.raises(UsageError, match="no record of this version"):
        write_watch_page(tmp_path)
    damaged = recorded(tmp_path / "damaged", [12] * 3, summary=False)
    (part,) = damaged.iterdir()
    lines = part.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"log_p": [0.0, 1.0]})
    part.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="is damaged"):
        read_record(damaged)


def test_a_watch_leaves_a_record_of_which_a_page_is_made(tmp_path: Path) -> None:
    from offsetclips import click_clip

    clip = click_clip(tmp_path / "clip.mp4", 20, ((0.0, 0.4),))
    asked = [sys.executable, "-m", "avbench"]
    seen = [*asked, "watch", str(clip), "--model", "xcorr", "--jsonl", "--record", str(tmp_path / "seen")]
    done = subprocess.run(seen, capture_output=True, text=True, timeout=120, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    found = read_record(tmp_path / "seen")
    assert len(found.windows) == summary["windows"]["computed"]
    assert [r.offset_s for r in found.regimes] == [r["offset_s"] for r in summary["regimes"]]
    assert write_watch_page(tmp_path / "seen").is_file()
