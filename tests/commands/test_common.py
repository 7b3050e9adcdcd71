"""``--format`` of the commands that print a table, and what a progress line counts."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avbench.commands.common import Progress
from avbench.latency.record import LatencyRecord
from avbench.protocol.manifest import read_manifest, write_manifest

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
RUN = ("run", "--model", "uniform", "--iterations", "2", "--n-resamples", "20")
SWEEP = ("sweep", "--models", "uniform", "constant", "--iterations", "1", "2", "--n-resamples", "20")


def test_every_format_says_signature_version_and_n(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    def printed(*words: object) -> str:
        done = avbench(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = (*RUN, "--data", clicks, "--out", tmp_path / "uniform")
    runs = [tmp_path / "uniform", tmp_path / "constant"]
    printed(*run, "--model", "constant", "--out", runs[1])
    for command, of in (
        (run, " of 4 segments"),
        ((*SWEEP, "--data", clicks), " of 4 segments"),
        (("compare", *runs, "--n-resamples", "20"), " segments"),
        (("paper", "table1", "--data", clicks, "--out", tmp_path / "paper"), " of 4 segments"),
    ):
        latex, markdown, lines = (printed(*command, "--format", form) for form in ("latex", "md", "csv"))
        for table in latex.split("\\end{table}")[:-1]:
            check_latex(table, of)
        assert "`avb|" in markdown
        assert f"avbench 0.1.0; n = 4{of}" in markdown
        rows = list(csv.DictReader(io.StringIO(lines)))
        assert {row["version"] for row in rows} == {"0.1.0"}
        assert {row["n"] for row in rows} == {"4"}
        signatures = {row[column] for row in rows for column in row if column.startswith("signature")}
        assert all(signature.startswith("avb|") and signature.endswith("|v0.1.0") for signature in signatures)
    same = (json.loads(printed(*run, *asked)) for asked in (("--json",), ("--format", "json")))
    first, second = ({k: v for k, v in result.items() if k not in ("created", "environment")} for result in same)
    assert first == second


def check_latex(table: str, of: str) -> None:
    """Its structure is balanced, each row has all columns; header, caption and note say what the numbers are of."""
    lines = table.strip().splitlines()
    (caption,) = [line for line in lines if line.startswith("\\caption{")]
    header, note = lines[0], lines[lines.index("\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright") + 1]
    assert header.startswith("% ")
    assert all(said in header for said in ("avb|", f"avbench 0.1.0; n = 4{of}"))
    assert all(said in note for said in ("signature", "avb\\textbar{}", "avbench 0.1.0"))
    assert f"n = 4{of}" in caption + note  # not in the caption of what the paper reports
    assert [table.count(f"\\{word}rule") for word in ("top", "mid", "bottom")] == [1, 1, 1]
    (columns,) = [line.partition("{tabular}{")[2] for line in lines if line.startswith("\\begin{tabular}")]
    assert {line.count(" & ") + 1 for line in lines if line.endswith(" \\\\")} == {len(columns) - 1}


def test_formats_that_contradict_or_are_none_are_refused_before_the_work(avbench: Avbench, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for words, said in (
        (("--json", "--format", "csv"), "--json and --format csv contradict each other"),
        (("--format", "pdf"), "invalid choice: 'pdf': there are text, md, latex, csv, json"),
    ):
        for command in (
            (*RUN, "--data", nowhere),
            (*SWEEP, "--data", nowhere),
            ("compare", nowhere, nowhere),
            ("paper", "table1", "--data", nowhere),
            ("latency", "--model", "no-such-model"),
        ):
            done = avbench(*command, *words)
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert said in line


def test_the_signature_of_a_latency_names_mode_device_and_both_models() -> None:
    from avbench.commands.latency import _csv, _table

    facts = {"name": "my_net.py:A_B", "backbone": "b", "head": "none", "fingerprint": "0123456789abcdef"}
    times = {"n": 3, "p50_ms": 2.0, "p90_ms": 2.5, "p99_ms": None, "iqr_over_median": 0.25}
    record = LatencyRecord.model_validate(
        {
            **{"avbench_version": "0.1.0", "mode": "step", "model": facts, "reference": "sparsesync", "device": "cpu"},
            **{"reference_fingerprint": "fedcba9876543210", "clock": "c", "media": "m", "n_windows": 2, "threads": 1},
            **{"hop_s": 2.0, "iteration": 18, "leaderboard": False, "unstable": True, "ratio_to_snapshot": 0.5},
            **{"snapshot": times | {"p90_ms": None}, "created": "2026-01-01T00:00:00Z", **times},
            "warmup": {"steps": 1, "seconds": 1.0, "settled": True, "first_step_ms": 1.0},
            "times_ms": [1.0, 2.0, 2.5],
            "snapshot_times_ms": [4.0, 4.0, 4.0],
        }
    )
    table = _table(record)
    signature = "avb|latency:step|cpu|t1|float32|h2.000|i18|m:0123456789ab|reference:fedcba987654|v0.1.0"
    assert table.origin.in_words() == f"signature {signature}; avbench 0.1.0; n = 3 timed"
    assert table.rows[0][:5] == ["my_net.py:A_B", "3", "2.00", "2.50", "–"]
    assert any("UNSTABLE" in note for note in table.notes)
    lines = list(csv.DictReader(io.StringIO(_csv(record))))
    assert [line["row"] for line in lines] == ["my_net.py:A_B", "sparsesync (reference)"]
    assert {(line["signature"], line["version"], line["n"]) for line in lines} == {(signature, "0.1.0", "3")}
    assert lines[1]["p90_ms"] == ""


def test_a_stage_in_passes_counts_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress("decoding and snapshots, pass 1 of 2", 7, 7)
        progress("written", 3, 3)
    said = capsys.readouterr().err
    assert "pass 1 of 2: 7 of 7 snapshots" in said
    assert "written: 3 of 3 tables and figures" in said


def test_the_next_command_names_the_split_where_there_is_no_test(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clicks()
    manifest = read_manifest(data)
    clips = {name: replace(clip, split="valid") for name, clip in manifest.clips.items()}
    segments = tuple(replace(segment, split="valid") for segment in manifest.segments)
    write_manifest(replace(manifest, clips=clips, segments=segments), data)
    done = avbench("data", "pairs", data, "--shifts", "0.2", "--out", "pairs")
    last = done.stdout.splitlines()[-1]
    assert last == "next    avbench run --model sparsesync --data ./pairs --split valid --iterations 1", done.stderr
    words = ["run", "--model", "uniform", *shlex.split(last)[5:], "--n-resamples", 20, "--no-reference-rows"]
    assert avbench(*words).returncode == 0
