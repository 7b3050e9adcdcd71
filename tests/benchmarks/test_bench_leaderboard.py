"""What building the board costs: 200 entries x 2,000 segments, from nothing, and again when nothing has changed.

`pytest -m slow tests/benchmarks/test_bench_leaderboard.py -s` prints the figures. The entries are to a track with
private labels, because no public one has 2,000 segments; a public entry's page has its confusion and worst segments
beside, whose cost is measured by itself.
"""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from entries import make_entry, make_logits

from avbench.leaderboard.entries import score
from avbench.leaderboard.site import INDEX
from avbench.protocol.tracks import TRACKS
from avbench.submissions.tracks import LabelRow, Labels, Truth, read_labels

N_ENTRIES, N_SEGMENTS, PER_VIDEO = 200, 2000, 7
CATEGORIES = ("talking head", "voice-over", "other")


def labels_file(path: Path) -> Path:
    rng = np.random.default_rng(0)
    base = TRACKS["synthsync-test"]
    labels = Labels(
        track="synthsync-test.blind-0000",
        base="synthsync-test",
        manifest_sha256="0" * 64,
        signature=base.protocol.signature(),
        seed=1,
        segments=[
            LabelRow(
                segment_id=f"s{i:05d}",
                source=f"s{i:05d}",
                video_id=f"v{i // PER_VIDEO:04d}",
                category=CATEGORIES[i // PER_VIDEO % 3],
                channel="c",
                offset_ticks=int(label - 10) * 3200,
                offset_class=int(label),
            )
            for i, label in enumerate(rng.integers(0, 21, N_SEGMENTS))
        ],
    )
    path.write_text(labels.to_json())
    return path


def make_board(root: Path, labels: Path, n: int = N_ENTRIES) -> Truth:
    track, truth = read_labels(labels)
    for i in range(n):
        logits = make_logits(truth, track.protocol.iterations, 0.05 + 0.4 * i / n, seed=i)
        make_entry(root, track, truth, f"model-{i:03d}", logits=logits, backbone=f"backbone-{i % 9}", seed=i)
    return truth


def build(*args: object) -> tuple[float, float]:
    """(wall, CPU) seconds of one build in a process of its own, its workers included."""
    command = [sys.executable, "-m", "avbench", "leaderboard", "build", *map(str, args)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def process_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.slow
def test_a_board_of_200_entries(tmp_path: Path) -> None:
    labels = labels_file(tmp_path / "labels.json")
    truth = make_board(tmp_path / "entries", labels)
    args = ("--entries", tmp_path / "entries", "--labels", labels, "--cache", tmp_path / "cache")
    fresh = build(*args, "--out", tmp_path / "site")
    again = build(*args, "--out", tmp_path / "site")
    elsewhere = build(*args, "--out", tmp_path / "site2")
    page = (tmp_path / "site" / INDEX).read_bytes()
    assert (tmp_path / "site2" / INDEX).read_bytes() == page

    # what a public entry costs more: its confusion and worst segments
    private, _ = read_labels(labels)
    public, logits = replace(private, labels="public"), make_logits(truth, 18, 0.3)
    each = [process_s(lambda t=track: score("a", t, truth, logits, tmp_path / t.labels)) for track in (private, public)]
    zipped = len(gzip.compress(page, 9, mtime=0))
    print(
        f"\nfresh {fresh[0]:.1f} s wall, {fresh[1]:.1f} s CPU; nothing changed {again[0]:.1f}, {again[1]:.1f};"
        f" new site from the cache {elsewhere[0]:.1f} s; page {len(page):,} bytes, {zipped:,} gzipped;"
        f" one entry computed {each[0]:.2f} s CPU, one with public labels {each[1]:.2f} s"
    )
    assert zipped < 300_000
    assert fresh[1] < 120, "two cores for a minute"
    assert again[1] < 5
