"""A submission as its user meets it: run -> pack -> check; then what it is refused for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import logits_for, make_run

from avbench.protocol.rules import streaming
from avbench.protocol.tracks import TRACKS
from avbench.results.predictions import write_predictions
from avbench.results.run import write_run
from avbench.scoring.metrics import METRICS
from avbench.scoring.scorer import Scorer
from avbench.scoring.stats import Bootstrap
from avbench.submissions import format as form
from avbench.submissions.check import Report, check, read_entry
from avbench.submissions.format import ValidationError, find_entries
from avbench.submissions.pack import pack
from avbench.submissions.tracks import common_segments, truth
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = Path(__file__).parent
TRACK = "synthsync-test"


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound submission's folder; read only."""
    root = tmp_path_factory.mktemp("packed")
    make_run(root / "run")
    return pack(root / "run", root / "entries", "acme", "toy", {"revision": "v1", "paper_url": "https://example.org/p"})


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    copy = tmp_path / "entries" / Path(*packed.parts[-3:])
    shutil.copytree(packed, copy)
    return copy


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "submission.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rewrite_predictions(folder: Path, table_or_bytes: pa.Table | bytes) -> None:
    """Other predictions under hashes that fit."""
    path = folder / "predictions.parquet"
    if isinstance(table_or_bytes, bytes):
        path.write_bytes(table_or_bytes)
    else:
        pq.write_table(table_or_bytes, path, compression="zstd")
    data = path.read_bytes()
    edit(folder, lambda d: d["files"]["predictions"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))


def table(folder: Path) -> pa.Table:
    return pq.read_table(folder / "predictions.parquet")


def only_error(folder: Path, field: str, says: str = "", labels: Path | None = None) -> Report:
    report = check(folder, labels, n_resamples=0)
    assert not report.ok
    assert report.errors[0].field == field, report.errors
    assert says in report.errors[0].message, report.errors
    return report


# -- the user's way


def test_run_pack_check(avbench: Avbench, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    done = avbench("submit", "pack", "run", "--out", "mine", "--org", "acme", "--name", "toy", "--licence", "MIT")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    fingerprint = hashlib.sha256(b"toy").hexdigest()
    assert folder == Path("mine") / "acme__toy" / fingerprint[:12] / TRACK
    assert sorted(p.name for p in folder.iterdir()) == ["predictions.parquet", "submission.json"]
    said = avbench("submit", "check", folder)
    assert said.returncode == 0, said.stderr
    last = said.stdout.splitlines()[-1]
    assert last == f"valid: {folder.relative_to('mine')}; next: avbench submit push {folder} --repo ORG/NAME"
    assert "note: the board will show no contact: `avbench submit pack` takes --contact" in said.stderr
    assert "recomputed" in said.stdout
    assert "168 segments x 18 iterations" in said.stdout
    report = json.loads(avbench("submit", "check", folder, "--json").stdout)
    assert set(report) >= {"ok", "errors", "claimed", "recomputed"}
    assert report["ok"] is True
    assert report["errors"] == []
    for name, value in report["claimed"].items():
        again = report["recomputed"][name]
        assert again["value"] == pytest.approx(value, abs=1e-9)
        assert again["ci_low"] <= value <= again["ci_high"]


def test_what_lies_below_the_grid_is_recomputed_but_not_claimed(tmp_path: Path) -> None:
    answers = truth(TRACKS[TRACK])
    logits = logits_for(answers.labels, 18)
    scores = Scorer(answers, Bootstrap(0))(logits)
    make_run(tmp_path / "run", logits=logits, scores=scores)
    report = check(pack(tmp_path / "run", tmp_path / "mine", "acme", "toy"), n_resamples=0)
    assert report.ok
    assert set(report.claimed) == set(METRICS)
    assert report.recomputed == scores


def test_a_wrong_claim_is_one_line_with_its_field(avbench: Avbench, folder: Path) -> None:
    edit(folder, lambda d: d["claimed"].update(acc=0.99))
    done = avbench("submit", "check", folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "claimed.acc: says 0.99; the predictions score 0." in done.stderr
    report = json.loads(avbench("submit", "check", folder, "--json").stdout)
    assert report["ok"] is False
    assert report["errors"][0]["field"] == "claimed.acc"
    assert report["recomputed"]["acc"]["value"] < 0.99  # the true score is told all the same


def test_packing_takes_a_card_and_options_over_it(avbench: Avbench, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    card = {"description": "from the card", "parameters": 5, "training_data": {"status": "undeclared"}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    options = (
        "--card",
        "card.json",
        "--parameters",
        "7",
        "--dataset",
        "LRS3",
        "--dataset",
        "VoxCeleb2",
        "--revision",
        "r1",
    )
    done = avbench("submit", "pack", "run", "--out", "mine", "--org", "a-b", "--name", "Toy.2", *options)
    assert done.returncode == 0, done.stderr
    entry = read_entry(done.stdout.strip())
    assert entry.submission.entry == f"a-b__Toy.2/r1/{TRACK}"
    assert entry.submission.card.description == "from the card"
    assert entry.submission.card.parameters == 7
    assert entry.submission.card.training_data.model_dump() == {"status": "declared", "datasets": ["LRS3", "VoxCeleb2"]}
    again = avbench("submit", "pack", "run", "--out", "mine", "--org", "a-b", "--name", "Toy.2", *options)
    assert again.returncode == 2
    assert "already exists" in again.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"incomplete": True, "failures": [{"segment_id": "s", "clip_id": "c", "reason": "r"}]}, "incomplete"),
        ({"protocol": streaming(hop_s=9.0)}, "belongs to no track"),
        ({"signature": "avb|streaming:1|w5.000|h9.000|m:1|d:2|v0.1.0"}, "run.signature"),
        ({"scores": {}}, "claimed.acc"),
        ({"scores": {"acc": {"value": 1.0}}}, "claimed.acc_tol1"),
    ],
)
def test_runs_that_cannot_be_packed(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    make_run(tmp_path / "run", **changes)
    with pytest.raises(UsageError, match=says):
        pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")
    assert not (tmp_path / "mine").exists()


def test_predictions_that_are_not_the_runs_cannot_be_packed(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    answers = truth(TRACKS[TRACK])
    write_predictions(tmp_path / "run" / "predictions.parquet", answers.segment_ids, logits_for(answers.labels, 18, 9))
    with pytest.raises(UsageError, match="does not match run"):
        pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")


def test_a_user_models_folder_is_not_told(tmp_path: Path) -> None:
    make_run(tmp_path / "run", model="/home/me/secret/my_net.py:MyNet+apa")
    entry = read_entry(pack(tmp_path / "run", tmp_path / "mine", "acme", "toy"))
    assert entry.submission.run.model == "my_net.py:MyNet+apa"
    assert "secret" not in (entry.folder / "submission.json").read_text()


def test_nor_is_a_user_heads_folder(tmp_path: Path) -> None:
    names = {
        "name": "/home/me/secret/my_net.py:MyNet+/home/me/secret/my_head.py:MyHead",
        "backbone": "/home/me/secret/my_net.py:MyNet",
        "head": "my_head.py:MyHead",
    }
    result = make_run(tmp_path / "run")
    write_run(result.model_copy(update={"model": result.model.model_copy(update=names)}), tmp_path / "run")
    entry = read_entry(pack(tmp_path / "run", tmp_path / "mine", "acme", "toy"))
    assert entry.submission.run.model == "my_net.py:MyNet+my_head.py:MyHead"
    assert (entry.submission.card.backbone, entry.submission.card.head) == ("my_net.py:MyNet", "my_head.py:MyHead")
    assert "secret" not in (entry.folder / "submission.json").read_text()


@pytest.mark.parametrize("track", [name for name in TRACKS if not name.startswith("synthsync-full")])
def test_every_track_can_be_submitted_to(track: str, tmp_path: Path) -> None:
    make_run(tmp_path / "run", track)
    folder = pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")
    assert folder.name == track
    assert check(folder, n_resamples=0).ok


def test_entries_are_found_in_order(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    made = [pack(tmp_path / "run", tmp_path / "mine", "acme", name) for name in ("b", "a")]
    (tmp_path / "mine" / "README.md").write_text("no entry")
    (tmp_path / "mine" / ".git" / "x" / "y").mkdir(parents=True)
    assert find_entries(tmp_path / "mine") == sorted(made)


def test_rows_may_come_in_any_order(folder: Path) -> None:
    before = read_entry(folder)
    mixed = table(folder).take(np.random.default_rng(0).permutation(168 * 18))
    rewrite_predictions(folder, mixed)
    assert np.array_equal(read_entry(folder).logits, before.logits)


# -- what is refused: the predictions


def test_a_missing_segment(folder: Path) -> None:
    rewrite_predictions(folder, table(folder).slice(18))
    only_error(folder, "predictions.segment_id", "lack segment ss-test-th-000_010")


def test_a_doubled_segment(folder: Path) -> None:
    rewrite_predictions(folder, pa.concat_tables([table(folder), table(folder).slice(0, 18)]))
    only_error(folder, "predictions", "each pair once")


def test_another_segment(folder: Path) -> None:
    t = table(folder)
    ids = ["ss-test-xx-999_010" if s == "ss-test-th-000_010" else s for s in t["segment_id"].to_pylist()]
    rewrite_predictions(folder, t.set_column(0, t.schema.field(0), pa.array(ids)))
    report = only_error(folder, "predictions.segment_id", "lack segment")
    assert "the track has no segment" in report.errors[1].message


def test_a_missing_iteration(folder: Path) -> None:
    t = table(folder)
    rewrite_predictions(folder, t.filter(pa.compute.less(t["iteration"], 18)))
    only_error(folder, "predictions.iteration", "1 ... 17")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(folder: Path, bad: float) -> None:
    t = table(folder)
    column = t["logit_3"].to_numpy().copy()
    column[40] = bad
    rewrite_predictions(folder, t.set_column(5, t.schema.field(5), pa.array(column)))
    only_error(folder, "predictions", "ss-test-th-000_030, iteration 5")


def test_too_many_rows_are_not_read(folder: Path) -> None:
    rewrite_predictions(folder, pa.concat_tables([table(folder)] * 5))
    only_error(folder, "predictions", "rows")


def test_a_file_of_other_columns(folder: Path) -> None:
    rewrite_predictions(folder, table(folder).rename_columns(["clip", *table(folder).column_names[1:]]))
    only_error(folder, "predictions", "columns")


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    data = (folder / "predictions.parquet").read_bytes()[:keep]
    rewrite_predictions(folder, data)
    only_error(folder, "predictions" if keep else "files.predictions.bytes")


def test_an_oversized_file_is_not_read(folder: Path) -> None:
    with open(folder / "predictions.parquet", "wb") as file:
        file.truncate(form.MAX_BYTES["predictions.parquet"] + 1)  # sparse
    only_error(folder, "files.predictions", "the limit is")


def test_an_oversized_card_is_not_read(folder: Path) -> None:
    edit(folder, lambda d: d["card"].update(description="x" * 2**19))
    only_error(folder, "submission.json", "the limit is")


# -- what is refused: the form


def test_a_wrong_hash(folder: Path) -> None:
    edit(folder, lambda d: d["files"]["predictions"].update(sha256="0" * 64))
    only_error(folder, "files.predictions.sha256", "sha256 differs")


def test_another_signature(folder: Path) -> None:
    edit(folder, lambda d: d["run"].update(signature=d["run"]["signature"].replace("h2.000", "h3.000")))
    only_error(folder, "run.signature", "needs avb|streaming:1|w5.000|h2.000")


@pytest.mark.parametrize("how", ["|lead1280", "|bfloat16", "|lead0|float16|compiled"])
def test_how_the_logits_were_computed_may_stand_in_the_signature(folder: Path, how: str) -> None:
    edit(folder, lambda d: d["run"].update(signature=d["run"]["signature"].replace("|d:", f"{how}|d:")))
    assert check(folder, n_resamples=0).ok


@pytest.mark.parametrize("how", ["|random0", "|lead5|random17", "|x", "|d:1"])
def test_nothing_else_may(folder: Path, how: str) -> None:
    edit(folder, lambda d: d["run"].update(signature=d["run"]["signature"].replace("|d:", f"{how}|d:")))
    only_error(folder, "run.signature")


@pytest.mark.parametrize(
    ("field", "value"),
    [("manifest_sha256", "0" * 64), ("n_segments", 167), ("iterations", 17), ("model_fingerprint", "0" * 64)],
)
def test_a_run_of_something_else(folder: Path, field: str, value: object) -> None:
    edit(folder, lambda d: d["run"].update({field: value}))
    report = check(folder, n_resamples=0)
    assert not report.ok
    assert {p.field for p in report.errors} <= {f"run.{field}", "run.signature"}


def test_claims(folder: Path) -> None:
    edit(folder, lambda d: (d["claimed"].pop("map"), d["claimed"].update(fame=1.0, mae_s=None)))
    found = {p.field: p.message for p in check(folder, n_resamples=0).errors}
    assert "no metric" in found["claimed.fame"]
    assert found["claimed.map"] == "is missing"
    assert "says undefined" in found["claimed.mae_s"]


@pytest.mark.parametrize("value", [True, "0.5", [0.5], {"value": 0.5}])
def test_a_claim_is_a_number(folder: Path, value: object) -> None:
    edit(folder, lambda d: d["claimed"].update(acc=value))
    only_error(folder, "claimed.acc")


def test_unknown_fields_are_refused(folder: Path) -> None:
    edit(folder, lambda d: d["files"]["predictions"].update(path="../../etc/passwd"))
    only_error(folder, "files.predictions.path", "not permitted")


@pytest.mark.parametrize("key", ["", " ", "\u3000", "\x1b[2J", "é", "a\nb", "x" * 500])
def test_keys_that_are_no_names(folder: Path, key: str) -> None:
    edit(folder, lambda d: d.update({key: 1}))
    (problem,) = check(folder, n_resamples=0).errors
    assert problem.field.strip()
    assert problem.field.isascii()
    assert problem.field.isprintable()
    assert len(problem.field) <= 100


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.0, True])
def test_another_schema_version(folder: Path, version: object) -> None:
    edit(folder, lambda d: d.update(schema_version=version))
    only_error(folder, "schema_version", "this avbench reads 1")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "\xff"])
def test_what_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "submission.json").write_bytes(text.encode("latin-1"))
    report = check(folder, n_resamples=0)
    assert report.errors[0].field in ("submission.json", "schema_version")


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (field, name)
        for field in ("org", "name", "revision")
        for name in (
            "..",
            "../x",
            "/abs",
            "a/b",
            "a\\b",
            "C:",
            "a__b",
            "con",
            "NUL.txt",
            "x.",
            "",
            "a" * 65,
            "a\x00",
            " a",
            "é",
        )
    ],
)
def test_names_that_are_no_safe_folder(folder: Path, field: str, name: str) -> None:
    edit(folder, lambda d: d["card"].update({field: name}))
    only_error(folder, f"card.{field}")


def test_the_folder_must_be_where_its_file_says(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "other" / "acme__toy" / "v2" / TRACK
    shutil.copytree(folder, moved)
    only_error(moved, "folder", f"submission.json says acme__toy/v1/{TRACK}")


def test_links_are_refused(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.parquet"
    shutil.move(folder / "predictions.parquet", target)
    (folder / "predictions.parquet").symlink_to(target)
    only_error(folder, "folder", "is a link")


@pytest.mark.parametrize("up", [0, 1, 2])
def test_linked_folders_are_refused(folder: Path, tmp_path: Path, up: int) -> None:
    real = folder if up == 0 else folder.parents[up - 1]
    moved = tmp_path / "moved"
    shutil.move(real, moved)
    real.symlink_to(moved, target_is_directory=True)
    only_error(folder, "folder", "is a link")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "predictions.parquet").unlink()
    os.mkfifo(folder / "predictions.parquet")
    only_error(folder, "folder", "not a regular file")


@pytest.mark.parametrize("name", ["setup.py", ".hidden", "predictions.parquet.bak", "a\x1b[2Jb"])
def test_nothing_else_may_lie_there(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    report = only_error(folder, "folder", "nothing else")
    assert "\x1b" not in report.errors[0].message


def test_a_latency_file_needs_its_hash(folder: Path) -> None:
    (folder / "latency.json").write_text("{}")
    only_error(folder, "files.latency", "no hash")


def latency_record(folder: Path, n: int = 662, **changes: Any) -> dict[str, Any]:
    """A latency record of the submitted model whose figures its times bear out."""
    from avbench.latency.record import LatencyRecord, Warmup, summary

    rng = np.random.default_rng(0)
    times, reference = 10 + 0.1 * rng.random(n), 5 + 0.05 * rng.random(n)
    own, snapshot = summary(times), summary(reference)
    run = json.loads((folder / "submission.json").read_text())["run"]
    record = LatencyRecord(
        avbench_version="0.1.0",
        mode="step",
        model={"name": "toy", "backbone": "toy", "head": "none", "fingerprint": run["model_fingerprint"]},  # type: ignore[arg-type]
        reference="sparsesync",
        reference_fingerprint="ab",
        device="cpu",
        threads=1,
        clock="perf_counter",
        media="synthsync",
        n_windows=64,
        hop_s=2.0,
        iteration=18,
        leaderboard=True,
        n=n,
        p50_ms=own.p50_ms,
        p90_ms=own.p90_ms or float(times.max()),
        p99_ms=own.p99_ms,
        iqr_over_median=own.iqr_over_median,
        unstable=False,
        ratio_to_snapshot=own.p50_ms / snapshot.p50_ms,
        snapshot=snapshot,
        warmup=Warmup(steps=50, seconds=5.0, settled=True, first_step_ms=30.0),
        environment={"cpu": "some CPU", "cores": 2},
        times_ms=times.tolist(),
        snapshot_times_ms=reference.tolist(),
        created="2026-01-02T03:04:05+00:00",
    )
    return json.loads(record.to_json()) | changes


def add_latency(folder: Path, record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    (folder / "latency.json").write_bytes(data)
    info = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(folder, lambda d: d["files"].update(latency=info))


def test_latency_comes_along(folder: Path) -> None:
    add_latency(folder, latency_record(folder))
    entry = read_entry(folder)
    assert entry.latency is not None
    assert entry.latency.n == 662


def test_latency_is_packed(packed: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "latency.json").write_text(json.dumps(latency_record(packed)))
    made = pack(tmp_path / "run", tmp_path / "mine", "acme", "toy", latency=tmp_path / "latency.json")
    assert check(made, n_resamples=0).ok


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"p50_ms": 1.0}, "latency"),
        ({"p99_ms": 1.0}, "latency.p99_ms"),
        ({"ratio_to_snapshot": 0.5}, "latency.ratio_to_snapshot"),
        ({"unstable": True}, "latency.unstable"),
        ({"leaderboard": False}, "latency.n"),
        ({"model": {"name": "x", "backbone": "x", "head": "x", "fingerprint": "0"}}, "latency.model.fingerprint"),
        ({"audits": {"outputs": {"ok": False, "value": 1.0, "limit": 0.0, "text": "other"}}}, "latency.audits.outputs"),
        ({"device": "<script>"}, "latency.device"),
        ({"environment": {"cpu": ["x", {"y": "javascript:x"}]}}, "latency.environment.cpu.1.y"),
        ({"times_ms": []}, "latency"),
        ({"extra": 1}, "latency"),
    ],
)
def test_latency_is_not_believed_either(folder: Path, changes: dict[str, Any], field: str) -> None:
    add_latency(folder, latency_record(folder, **changes))
    only_error(folder, field)


def test_too_few_times(folder: Path) -> None:
    add_latency(folder, latency_record(folder, n=600))
    assert "latency.n" in {p.field for p in check(folder, n_resamples=0).errors}


def test_a_missing_file(folder: Path) -> None:
    (folder / "predictions.parquet").unlink()
    only_error(folder, "files.predictions", "not in the folder")


@pytest.mark.parametrize("where", ["nowhere", "a-file"])
def test_no_folder(avbench: Avbench, tmp_path: Path, where: str) -> None:
    (tmp_path / "a-file").write_text("")
    done = avbench("submit", "check", where)
    assert done.returncode == 2
    assert "folder:" in done.stderr


def test_a_private_track_needs_its_labels(folder: Path) -> None:
    moved = folder.parent / f"{TRACK}.blind-0123abcd"
    folder.rename(moved)
    edit(moved, lambda d: d.update(track=moved.name))
    only_error(moved, "track", "--labels")


def test_no_such_track(folder: Path) -> None:
    moved = folder.parent / "realsync-test"
    folder.rename(moved)
    edit(moved, lambda d: d.update(track=moved.name))
    only_error(moved, "track", "there is no track")


# -- what a person may write

TEXTS = ("description", "contact", "licence", "backbone", "head")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "x</td><td>",
    "&lt;script&gt;",
    "&#60;b",
    "javascript:alert(1)",
    "JaVaScRiPt : alert(1)",
    "data:text/html,x",
    "two\nlines",
    "tab\there",
    "\x1b[31mred",
    "nul\x00",
    "\u202eright to left",
    "zero\u200bwidth",
    " leading",
    "",
    "x" * 1001,
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", TEXTS)
def test_hostile_text(folder: Path, field: str, text: str) -> None:
    edit(folder, lambda d: d["card"].update({field: text}))
    report = only_error(folder, f"card.{field}")
    assert report.errors[0].message.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_elsewhere(folder: Path, text: str) -> None:
    edit(folder, lambda d: d["card"].update(training_data={"status": "declared", "datasets": ["LRS3", text]}))
    only_error(folder, "card.training_data.datasets.1")
    edit(folder, lambda d: d["card"].update(training_data={"status": "none", "datasets": []}))
    edit(folder, lambda d: d["run"].update(model=text))
    only_error(folder, "run.model")
    edit(folder, lambda d: d["run"].update(model="toy", environment={"cpu": text}))
    assert check(folder, n_resamples=0).errors[0].field.startswith("run.environment.cpu")
    edit(folder, lambda d: d["run"].update(environment={text or "A": 1}))
    assert check(folder, n_resamples=0).errors[0].field.startswith("run.environment")


@pytest.mark.parametrize("field", ["paper_url", "code_url"])
@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html;base64,PHN2Zz4=",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "//example.org",
        "example.org",
        "https://",
        "https:///x",
        "https://user:secret@example.org/",
        "https://exa mple.org/",
        'https://example.org/"onmouseover="x',
        "https://example.org/<b>",
        "https://example.org/\n",
        "https://example.org:port/",
        "https://[::1",
        "HTTPS://example.org/é",
        "https://example.org/" + "x" * 300,
        " https://example.org",
        "",
    ],
)
def test_addresses(folder: Path, field: str, address: str) -> None:
    edit(folder, lambda d: d["card"].update({field: address}))
    only_error(folder, f"card.{field}")


def test_training_data_is_declared_or_not(folder: Path) -> None:
    for data in ({"status": "declared", "datasets": []}, {"status": "none", "datasets": ["x"]}):
        edit(folder, lambda d, data=data: d["card"].update(training_data=data))
        only_error(folder, "card.training_data")
    edit(folder, lambda d: d["card"].update(training_data={"status": "maybe"}))
    only_error(folder, "card.training_data.status")


# -- format and tracks stay what they are


def test_the_published_schema_is_that_of_the_types(packed: Path) -> None:
    assert form.SCHEMA_PATH.read_text() == form.json_schema_text(), "python -m avbench.submissions.format > the file"
    jsonschema.validate(json.loads((packed / "submission.json").read_text()), json.loads(form.SCHEMA_PATH.read_text()))


def test_the_frozen_v1_submission_stays_readable() -> None:
    """Made once with format v1; never to be made again."""
    (folder,) = find_entries(HERE / "data" / "v1")
    report = check(folder)
    assert report.ok, report.errors
    assert report.recomputed["acc"].value == pytest.approx(0.6071428571428571, abs=1e-12)


@pytest.mark.parametrize("name", TRACKS)
def test_tracks_pin_what_avbench_describes(name: str) -> None:
    answers = truth(TRACKS[name])  # refuses if the manifest's hash is another
    assert len(answers.segment_ids) == len(answers.labels) == len(answers.clusters)
    assert len(set(answers.clusters)) in (24, 120)


def test_common_segments_of_the_hops() -> None:
    hops = [TRACKS[name] for name in ("synthsync-test", "synthsync-test-hop1", "synthsync-test-hop4")]
    assert common_segments(hops) == truth(hops[2]).segment_ids


def test_tracks_are_listed(avbench: Avbench) -> None:
    listed = json.loads(avbench("submit", "tracks", "--json").stdout)
    assert {row["name"] for row in listed} == set(TRACKS)
    assert "synthsync-full-test" in avbench("submit", "tracks").stdout


def test_validation_errors_are_usage_errors() -> None:
    with pytest.raises(ValidationError, match=r"^a: b \(and 1 more problem\)$"):
        raise ValidationError([form.Problem("a", "b"), form.Problem("c", "d")])


def test_a_name_with_other_signs_is_told_which_there_may_be(avbench: Avbench, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    done = avbench("submit", "pack", "run", "--out", "mine", "--org", "Acme Inc", "--name", "toy")
    assert done.returncode == 2
    assert "error: --org: may have" in done.stderr
    assert "letters A-Z and a-z, digits, and . _ -" in done.stderr
    assert "pattern" not in done.stderr
