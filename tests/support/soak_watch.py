"""The soak of ``avbench watch``: hours of a looped stream whose connection is cut every few minutes.

``python tests/support/soak_watch.py [STREAM_S [SPEED]]`` prints memory, open files and the account of the windows, and
fails unless memory is flat and every window is accounted for. By default one hour of stream at 5 times its speed, which
takes 12 minutes; speed 0: as fast as it goes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from senders import clip, sending, transport

CONNECTION_S = 240  # of stream, after which the connection is cut
GROWTH = 1.05  # most that memory may grow from a tenth of the way to the end


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no VmRSS")


def soak(stream_s: float, speed: float) -> dict[str, Any]:
    """Run it: what was sampled on the way, and the summary."""
    with tempfile.TemporaryDirectory() as folder:
        parts = [(early_s, seed) for seed, early_s in enumerate((0.0, 0.4, -0.6, 0.2, -0.2, 0.0, 0.6, -0.4, 0.0, 0.2))]
        made = clip(Path(folder, "clip.mp4"), 30, parts)
        data = transport(made, Path(folder, "clip.ts")).read_bytes()
        rate = len(data) / (30 * len(parts))
        cut = int(CONNECTION_S * rate)
        with sending(data, drops=(cut,), bytes_per_s=rate * speed if speed else None) as sender:
            command = [sys.executable, "-m", "avbench", "watch", sender.url, "--model", "xcorr", "--jsonl"]
            command += ["--for", str(stream_s), "--record", str(Path(folder, "record")), "--metrics-port", "0"]
            began = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                samples = sampled(process, stream_s)
            wall_s = time.monotonic() - began
            recorded = sum(1 for part in Path(folder, "record").iterdir() for _ in part.open())
    assert process.returncode == 0, process.returncode
    return samples | {
        "wall_s": wall_s,
        "speed": stream_s / wall_s,
        "connections": len(sender.asked),
        "recorded": recorded,
    }


def sampled(process: subprocess.Popen[str], stream_s: float) -> dict[str, Any]:
    """Memory and open files at a tenth, at half, and at the end of the stream, and the last line."""
    assert process.stdout is not None
    marks = {0.1: "10 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 0.99: "99 %"}
    found: dict[str, Any] = {"at": {}, "lines": 0, "types": {}}
    for line in process.stdout:
        event = json.loads(line)
        found["lines"] += 1
        found["types"][event["type"]] = found["types"].get(event["type"], 0) + 1
        for share in [s for s in marks if event["t_s"] >= s * stream_s and event["type"] == "window"]:
            found["at"][marks.pop(share)] = {
                "rss_mib": round(rss_mib(process.pid), 1),
                "open_files": len(os.listdir(f"/proc/{process.pid}/fd")),
                "threads": len(os.listdir(f"/proc/{process.pid}/task")),
            }
    return found | {"summary": event}


def check(found: dict[str, Any]) -> None:
    """Memory is flat, files do not pile up, every window is accounted for."""
    windows, at = found["summary"]["windows"], found["at"]
    assert windows["all_accounted_for"], windows
    assert windows["expected"] == windows["computed"] + windows["skipped"] + windows["uncoverable"] > 0
    assert found["types"]["window"] == windows["computed"]
    assert found["summary"]["reconnects"] >= found["connections"] - 2 > 0
    assert at["99 %"]["rss_mib"] < GROWTH * at["10 %"]["rss_mib"], at
    assert at["99 %"]["open_files"] <= at["10 %"]["open_files"] + 2, at
    assert found["recorded"] >= found["lines"]


if __name__ == "__main__":
    stream_s, speed = (float(x) for x in (*sys.argv[1:], *("3600", "5")[len(sys.argv) - 1 :]))
    result = soak(stream_s, speed)
    result["summary"].pop("regimes")
    print(json.dumps(result, indent=1))
    check(result)
