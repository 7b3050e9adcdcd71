"""What a watch keeps: parts of bounded length that each say what they are of, also after failures."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avbench.runs.watch_record import Record
from avbench.scoring.regimes import Evidence
from avbench.types import AvbenchError

HEAD = {"stream": "udp://x", "fingerprint": "f" * 64}


def lines(folder: Path) -> list[list[dict[str, Any]]]:
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())]


def test_each_part_begins_with_what_it_is_of(tmp_path: Path) -> None:
    record = Record(tmp_path / "new" / "record", HEAD, print, lines=10)
    p = np.log(np.full(21, 1 / 21))
    p[3] = -np.inf
    for k in range(25):
        record.put({"type": "window", "t_s": k}, Evidence(k - 5.0, p, None))
    record.put({"type": "summary", "t_s": 25})
    record.close()
    parts = lines(tmp_path / "new" / "record")
    assert [len(part) for part in parts] == [10, 10, 9]
    for k, part in enumerate(parts):
        assert part[0] == {"type": "begin", "schema_version": 1, "part": k, **HEAD}
    told = [line for part in parts for line in part[1:]]
    assert [line["t_s"] for line in told] == list(range(26))
    assert told[0]["believed"] is None
    assert told[0]["log_p"][:4] == [round(-np.log(21), 4)] * 3 + [-1e4]
    assert "log_p" not in told[-1]
    assert record.lost == 0


def test_a_second_watch_adds_to_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        record = Record(tmp_path, HEAD, print)
        record.put({"type": "gap", "t_s": 1.0})
        record.close()
    assert [len(part) for part in lines(tmp_path)] == [2, 2]


def test_events_are_there_at_once_and_alarms_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    now = [0.0]
    record = Record(tmp_path, HEAD, print, wall=lambda: now[0])
    n = len(synced)
    record.put({"type": "window", "t_s": 1.0})
    assert len(lines(tmp_path)[0]) == 2
    assert len(synced) == n
    record.put({"type": "alarm", "t_s": 1.0})
    assert len(synced) == n + 1
    now[0] = 11.0
    record.put({"type": "window", "t_s": 2.0})
    record.put({"type": "window", "t_s": 3.0})
    assert len(synced) == n + 2
    record.close()


def test_a_full_disk_is_said_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], []
    record = Record(tmp_path, HEAD, said.append, wall=lambda: now[0])
    record.put({"type": "window", "t_s": 0})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Record, "_write", full)
        for k in range(1, 5):
            record.put({"type": "window", "t_s": k})
    record.put({"type": "window", "t_s": 5})
    assert record.lost == 5
    assert len(said) == 1
    assert "No space left on device" in said[0]
    now[0] += 31
    record.put({"type": "window", "t_s": 6})
    record.close()
    assert [[line.get("t_s") for line in part] for part in lines(tmp_path)] == [[None, 0], [None, 6]]
    assert record.lost == 5


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AvbenchError, match=r"cannot write to .*; choose another --record"):
        Record(tmp_path / "file", HEAD, print)
