from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example as with_example
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from avbench.protocol.rules import streaming
from avbench.results import predictions as predictions_file
from avbench.results import run as results
from avbench.results.predictions import read_predictions, write_predictions
from avbench.results.run import RunResult, check_earlier_run, check_run_folder, read_run, write_run
from avbench.results.truth import Truth, write_segments
from avbench.scoring.scorer import as_scores
from avbench.scoring.stats import Bootstrap, bootstrap_scores
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, NonFiniteError, UsageError

SHA = "0123456789abcdef" * 4


def example(**changes: Any) -> RunResult:
    logits, labels = np.random.default_rng(0).standard_normal((12, 21)), np.arange(12)
    scores = as_scores(bootstrap_scores(logits, labels, labels // 2, Bootstrap(20)))
    fields: dict[str, Any] = {
        "avbench_version": "0.1.0",
        "signature": "avb|streaming:1|w5.000|m:1f3a|d:99|v0.1.0",
        "protocol": streaming(support="common", common_support=((32000, 18),)),
        "model": {"name": "streamsync-trf", "backbone": "mini", "head": "trf", "fingerprint": "1f3a"},
        "data": {"name": "synthsync", "split": "test", "manifest_sha256": SHA, "n_clips": 6, "note": "stand-in"},
        "n_scored": 12,
        "n_total": 14,
        "scores": scores,
        "slices": {"category": {"talking head": {"n": 12, "scores": scores}}},
        "curve": [scores, scores],
        "rows": [{"name": "constant", "label": "always in sync", "selection": "final", "n": 12, "scores": scores}],
        "failures": [{"segment_id": "s13", "clip_id": "c7", "reason": "the picture ends at 3 s – too early"}],
        "unsupported": ["s14"],
        "warnings": ["classes 12 ... 20 have no segment"],
        "absent_classes": list(range(12, 21)),
        "incomplete": True,
        "latency": {"ms_per_step": 3.5},
        "counters": {"forwards": 216},
        "environment": {"torch": "2.6", "threads": 2},
        "seed": 0,
        "n_resamples": 20,
        "files": {"predictions": {"path": "predictions.parquet", "sha256": SHA}},
        "created": "2026-01-02T03:04:05Z",
    }
    return RunResult(**(fields | changes))


def predictions(n: int = 5, iterations: int = 3) -> tuple[tuple[str, ...], np.ndarray]:
    logits = np.random.default_rng(n).standard_normal((n, iterations, 21)).astype(np.float32)
    return tuple(f"clip-{n - i}/segment-{i}" for i in range(n)), logits


def strict(path: Path) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# run.json


def test_a_result_survives_the_disk(tmp_path: Path) -> None:
    result = example()
    path = write_run(result, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "run.json"
    assert read_run(path) == read_run(path.parent) == result
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_the_file_is_plain_strict_json_with_what_outside_checks_read(tmp_path: Path) -> None:
    document = strict(write_run(example(), tmp_path))
    assert document["schema_version"] == 1
    for key in ("signature", "model", "data", "n_scored", "n_total", "scores", "slices", "curve", "failures"):
        assert key in document
    assert set(document["scores"]) == {"acc", "acc_tol1", "map", "roc_auc", "balanced_acc", "mae_s"}
    assert all(set(s) == {"value", "ci_low", "ci_high"} for s in document["scores"].values())
    assert "– too early" in (tmp_path / "run.json").read_text(encoding="utf-8")


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    shuffled = dict(reversed(list(example().model_dump().items())))
    shuffled["protocol"] = dict(reversed(list(shuffled["protocol"].items())))
    assert RunResult(**shuffled).to_json() == example().to_json()


def test_undefined_is_null(tmp_path: Path) -> None:
    logits, labels = np.random.default_rng(0).standard_normal((12, 21)), np.full(12, 10)
    scores = as_scores(bootstrap_scores(logits, labels, labels, Bootstrap(20)))
    document = strict(write_run(example(scores=scores), tmp_path))
    assert document["scores"]["roc_auc"] == {"value": None, "ci_low": None, "ci_high": None}
    assert document["scores"]["acc"]["value"] is not None
    assert document["scores"]["acc"]["ci_low"] is None  # a single video
    assert read_run(tmp_path).scores["roc_auc"].value is None


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_infinity_is_refused_where_it_is_made(bad: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        example(scores={"acc": {"value": bad}})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_free_fields_hold_no_nan_either(bad: float, tmp_path: Path) -> None:
    with pytest.raises((ValidationError, AvbenchError)):
        write_run(example(environment={"load": bad}), tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_text_that_utf8_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvbenchError, match="surrogates not allowed"):
        write_run(example(warnings=["\ud800"]), tmp_path)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"n_scored": 15}, "n_scored is 15"),
        ({"n_scored": -1}, "n_scored"),
        ({"seed": "0"}, "seed"),
        ({"schema_version": 2}, "schema_version"),
        ({"created": "yesterday"}, "created"),
        ({"level": 1.0}, "level"),
        ({"scores": {"acc": {"value": 0.5, "low": 0.4}}}, "low"),
        ({"latency": {"ms_per_step": 1.0, "note": "precise"}}, "note"),
        ({"spent": {"decode_s": -1.0}}, "decode_s"),
        ({"spent": {"sleep_s": 1.0}}, "sleep_s"),
        ({"files": {"predictions": {"path": "p", "sha256": "beef"}}}, "sha256"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        example(**changes)


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    path = write_run(example(), tmp_path)
    good = strict(path)

    def refused(document: Any, message: str) -> None:
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        with pytest.raises(UsageError, match=message) as caught:
            read_run(path)
        assert "\n" not in str(caught.value)

    refused(good | {"surprise": 1}, "field surprise: Extra inputs")
    refused({k: v for k, v in good.items() if k != "seed"}, "field seed: Field required")
    refused(good | {"data": good["data"] | {"n_clips": "six"}}, "field data.n_clips")
    refused(good | {"schema_version": 0}, "schema_version 0; this avbench reads 1")
    refused(good | {"schema_version": True}, "schema_version true")
    refused({k: v for k, v in good.items() if k != "schema_version"}, "schema_version null")
    refused([good], "not contain a run result")
    refused("{", "not strict JSON")
    refused("[" * 100_000, "not strict JSON")
    refused('{"schema_version": 1, "schema_version": 1}', "twice")
    refused(json.dumps(good).replace('"seed": 0', '"seed": NaN'), "NaN is not a finite number")
    refused(json.dumps(good).replace('"threads": 2', '"threads": 1e999'), "1e999 is not a finite number")
    refused(good | {"signature": "\ud800"}, "surrogates not allowed")
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UsageError, match="not strict JSON"):
        read_run(path)
    with pytest.raises(UsageError, match=r"cannot read .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(example(), tmp_path)
    monkeypatch.setattr(results, "MAX_RUN_BYTES", 100)
    with pytest.raises(UsageError, match="more than 100 are not read"):
        read_run(tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_result_reads_or_is_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    text = bytearray(example().to_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.mktemp("mutated") / "run.json"
    path.write_bytes(text)
    problem = None
    try:
        read_run(path).to_json()
    except AvbenchError as error:
        problem = str(error)
    assert problem is None or "\n" not in problem


def test_the_published_schema_is_the_types_own() -> None:
    assert results.SCHEMA_FILE.read_text(encoding="utf-8") == results.json_schema_text(), (
        "regenerate with: python -m avbench.results > benchmark/results/schemas/run_result.v1.json"
    )


def test_the_published_schema_accepts_and_refuses() -> None:
    schema, document = results.json_schema(), json.loads(example().to_json())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    for broken in (document | {"surprise": 1}, document | {"schema_version": 2}, document | {"n_scored": -1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


# tables


def test_the_score_table_as_a_frame(tmp_path: Path) -> None:
    result = example()
    frame = result.frame()
    assert list(frame.columns) == ["row", "kind", "selection", "n", "metric", "value", "ci_low", "ci_high"]
    assert len(frame) == 2 * len(result.scores)
    lines = frame.drop_duplicates("row")[["row", "kind", "selection", "n"]].values.tolist()
    assert lines == [["streamsync-trf", "model", "final", 12], ["always in sync", "reference", "final", 12]]
    own = frame[frame.kind == "model"].set_index("metric")
    for name, score in result.scores.items():
        assert own.loc[name, ["value", "ci_low", "ci_high"]].tolist() == [score.value, score.ci_low, score.ci_high]
    write_run(result, tmp_path)
    assert read_run(tmp_path).frame().equals(frame)


def test_what_is_undefined_is_nan_in_a_frame() -> None:
    nothing = {name: {"value": None} for name in ("acc", "map")}
    frame = example(scores=nothing, rows=[]).frame()
    assert frame.metric.tolist() == ["acc", "map"]
    assert frame[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert str(frame.value.dtype) == "float64"


def test_the_curve_as_a_frame() -> None:
    first, second = ({"acc": {"value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}} for v in (0.25, 0.5))
    frame = example(curve=[first, second]).curve_frame()
    assert frame.to_dict("records") == [
        {"iteration": i, "metric": "acc", "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for i, v in ((1, 0.25), (2, 0.5))
    ]
    assert example(curve=[]).curve_frame().empty


# predictions.parquet


def test_predictions_survive_the_disk(tmp_path: Path) -> None:
    ids, logits = predictions()
    path = tmp_path / "deep" / "predictions.parquet"
    write_predictions(path, ids, logits)
    again_ids, again = read_predictions(path)
    assert again_ids == ids
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, logits)


def test_the_columns_are_those_promised(tmp_path: Path) -> None:
    ids, logits = predictions(2, 3)
    write_predictions(tmp_path / "p.parquet", ids, logits)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["segment_id", "iteration", *(f"logit_{c}" for c in range(21))]
    assert [str(t) for t in table.schema.types] == ["string", "int16"] + ["float"] * 21
    assert table.column("segment_id").to_pylist() == [ids[0]] * 3 + [ids[1]] * 3
    assert table.column("iteration").to_pylist() == [1, 2, 3, 1, 2, 3]
    assert table.column("logit_20").to_pylist() == logits[:, :, 20].ravel().tolist()


def test_equal_predictions_give_equal_bytes_and_the_returned_hash(tmp_path: Path) -> None:
    import hashlib

    ids, logits = predictions(50, 18)
    hashes = [
        write_predictions(tmp_path / name, list(ids), logits.astype(kind)) for name, kind in (("a", "f4"), ("b", "f8"))
    ]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert hashes == [hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()] * 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=12, unique=True), st.integers(1, 4), st.integers(0, 99))
def test_any_ids_and_any_row_order(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], iterations: int, seed: int
) -> None:
    ids = [i.encode("utf-8", "replace").decode() for i in ids]
    if len(set(ids)) < len(ids):
        return
    g, path = np.random.default_rng(seed), tmp_path_factory.mktemp("rows") / "p.parquet"
    logits = g.standard_normal((len(ids), iterations, 21)).astype(np.float32)
    write_predictions(path, ids, logits)
    shuffled = pq.read_table(path).take(pa.array(g.permutation(len(ids) * iterations)))
    pq.write_table(shuffled, path, row_group_size=3)
    found_ids, found = read_predictions(path)
    place = [ids.index(i) for i in found_ids]
    assert sorted(place) == list(range(len(ids)))
    np.testing.assert_array_equal(found, logits[place])


def test_wrong_predictions_are_not_written(tmp_path: Path) -> None:
    ids, logits = predictions()
    path = tmp_path / "p.parquet"
    holed = logits.copy()
    holed[3, 1, 20] = math.nan
    with pytest.raises(NonFiniteError, match=f"segment {ids[3]}, iteration 2"):
        write_predictions(path, ids, holed)
    with pytest.raises(NonFiniteError, match="iteration 1"):
        write_predictions(path, ids, logits.astype(np.float64) * 1e300)
    for bad_ids, bad, message in (
        (ids, logits[:, :, :20], "shape"),
        (ids, logits[:, 0], "shape"),
        (ids[:-1], logits, "4 segments"),
        (ids, logits.astype(int), "int64"),
        ((), logits[:0], "0 segments"),
        (ids, logits[:, :0], "0 iterations"),
        ((ids[0],) * 5, logits, "twice"),
    ):
        with pytest.raises(UsageError, match=message):
            write_predictions(path, bad_ids, bad)
    assert not list(tmp_path.iterdir())


def changed(path: Path, **columns: Any) -> None:
    """Rewrites the file with some columns replaced (None removes one)."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.remove_column(place)
        if values is not None:
            table = table.add_column(place, name, values)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"iteration": pa.array([1, 2, 1, 1], pa.int16())}, "4 rows with 3 different pairs"),
        ({"iteration": pa.array([0, 1, 0, 1], pa.int16())}, "need 2 rows"),
        ({"iteration": pa.array([0, 2, 1, 2], pa.int16())}, "iterations from 0"),
        ({"iteration": pa.array([1, 3, 1, 3], pa.int16())}, "need 6 rows"),
        ({"iteration": pa.array([1, 2, 1, 32767], pa.int16())}, "need 65534 rows"),
        ({"iteration": pa.array([1, 2, 1, None], pa.int16())}, "empty cells"),
        ({"segment_id": pa.array(["a", "a", "b", None])}, "empty cells"),
        ({"segment_id": pa.array(["a", "a", "b", "c"])}, "3 segments"),
        ({"segment_id": pa.array([1, 1, 2, 2])}, "columns segment_id int64"),
        ({"iteration": pa.array([1, 2, 1, 2], pa.int64())}, "iteration int64"),
        ({"logit_7": None}, "needed are segment_id"),
        ({"logit_7": pa.array([0.0, 0, 0, 0], pa.float64())}, "needed are segment_id"),
        ({"logit_7": pa.array([0.0, 0, 0, None], pa.float32())}, "empty cells"),
    ],
)
def test_reading_refuses_what_is_not_each_pair_once(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, *predictions(2, 2))
    changed(path, **columns)
    with pytest.raises(UsageError, match=message) as caught:
        read_predictions(path)
    assert "\n" not in str(caught.value)


def test_reading_refuses_non_finite_logits_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    ids, logits = predictions(2, 2)
    write_predictions(path, ids, logits)
    changed(path, logit_3=pa.array([0.0, 0.0, 0.0, math.inf], pa.float32()))
    with pytest.raises(NonFiniteError, match=f"segment {ids[1]}, iteration 2"):
        read_predictions(path)


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"seg\nment\x1b[31m": ["a"], "logit\r": [0.0]}), path)
    with pytest.raises(UsageError) as refused:
        read_predictions(path)
    assert "seg ment?[31m" in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
@with_example(151168)  # a line break in the name of a column
def test_mutated_predictions_read_or_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    g, path = np.random.default_rng(seed), tmp_path_factory.mktemp("mutated") / "p.parquet"
    write_predictions(path, *predictions(4, 2))
    data = bytearray(path.read_bytes())
    for place in g.integers(0, len(data), 3):
        data[place] = g.integers(256)
    path.write_bytes(data)
    problem = None
    try:
        _, logits = read_predictions(path)
        assert np.isfinite(logits).all()
    except AvbenchError as error:
        problem = str(error)
    assert problem is None or "\n" not in problem


def test_reading_refuses_damage_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.parquet"
    write_predictions(path, *predictions(20, 3))
    whole = path.read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match="not a readable parquet file"):
            read_predictions(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_predictions(tmp_path / "nowhere.parquet")
    path.write_bytes(whole)
    monkeypatch.setattr(predictions_file, "MAX_PREDICTION_ROWS", 59)
    with pytest.raises(UsageError, match="declares 60 rows"):
        read_predictions(path)
    monkeypatch.setattr(predictions_file, "MAX_PREDICTIONS_BYTES", len(whole) - 1)
    with pytest.raises(UsageError, match="are not read"):
        read_predictions(path)


# writing whole or not at all


def test_a_failed_write_is_one_line_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(example(), tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(AvbenchError, match=r"cannot write .*run\.json: No space left on device") as caught:
                write_run(example(seed=1), tmp_path)
            with pytest.raises(AvbenchError, match="No space left"):
                write_predictions(tmp_path / "predictions.parquet", *predictions())
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AvbenchError, match="cannot write"):
        write_run(example(), tmp_path / "file" / "run")


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "a", b"data")
    assert not list(tmp_path.iterdir())


def test_data_is_on_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    atomic_write_bytes(tmp_path / "a", b"one")
    atomic_write_bytes(tmp_path / "a", b"two")
    assert calls == ["fsync", "replace", "fsync"] * 2
    assert (tmp_path / "a").read_bytes() == b"two"


def test_numbers_load_without_torch() -> None:
    code = (
        "import sys, avbench.scoring.metrics, avbench.scoring.stats, avbench.results; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------------------- the folder of a run


def test_a_run_does_not_replace_a_table_that_no_run_has_written(tmp_path: Path) -> None:
    check_run_folder(tmp_path)
    write_segments(tmp_path / "segments.parquet", Truth(("a",), np.zeros(1, int), np.array(["v"]), ("",), n_total=1))
    check_run_folder(tmp_path)
    for content in (b"my own", b"PAR1 not at all PAR1"):
        (tmp_path / "segments.parquet").write_bytes(content)
        with pytest.raises(UsageError, match=r"segments\.parquet is not from a run and would be replaced"):
            check_run_folder(tmp_path)


def test_a_run_does_not_lie_among_what_is_not_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.html").write_text("")
    (tmp_path / "latency.json").write_text("")
    check_run_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"already holds thesis\.tex; give --force"):
        check_run_folder(tmp_path)
    check_run_folder(tmp_path, force=True)


def test_an_unreadable_earlier_run_is_not_replaced(tmp_path: Path) -> None:
    check_earlier_run(tmp_path, "signature", 1000, 0, True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"already holds another run .*; give --force"):
        check_earlier_run(tmp_path, "signature", 1000, 0, True)


@pytest.mark.parametrize(
    ("n_resamples", "seed", "rows", "lost"),
    [
        (1000, 0, True, ""),
        (2000, 0, True, ""),
        (999, 0, True, "1000 resamples"),
        (1000, 1, True, "seed 0"),
        (1000, 0, False, "with reference rows"),
    ],
)
def test_a_run_of_which_something_would_be_lost_is_not_replaced(
    tmp_path: Path, n_resamples: int, seed: int, rows: bool, lost: str
) -> None:
    held = example()
    assert held.rows
    write_run(held.model_copy(update={"n_resamples": 1000, "seed": 0, "failures": [], "incomplete": False}), tmp_path)
    refused = pytest.raises(UsageError, match=rf"another run \({lost}\)") if lost else contextlib.nullcontext()
    with refused:
        check_earlier_run(tmp_path, held.signature, n_resamples, seed, rows)


def test_the_wide_table_has_a_row_a_line_and_three_columns_a_metric() -> None:
    result = example()
    table = result.table()
    assert list(table.index) == ["streamsync-trf", "always in sync"]
    assert list(table.columns[:2]) == ["n", "selection"]
    assert table.shape[1] == 2 + 3 * len(result.scores)
    chosen = result.table(["map", "acc"])
    assert list(chosen.columns[2:]) == ["map", "map_low", "map_high", "acc", "acc_low", "acc_high"]
    acc = result.scores["acc"]
    assert list(chosen.loc["streamsync-trf"][["acc", "acc_low", "acc_high"]]) == [acc.value, acc.ci_low, acc.ci_high]
    long = result.frame().set_index(["row", "metric"])["value"]
    assert all(long["always in sync", name] == table.loc["always in sync", name] for name in result.scores)
    with pytest.raises(UsageError, match="this result has no metric 'mpa': did you mean map"):
        result.table(["mpa"])
    hidden = example(scores={}, rows=[])
    assert hidden.table().shape == (1, 2)


def test_a_score_that_a_row_lacks_or_that_is_undefined_is_nan_and_a_dash() -> None:
    result = example(scores={"acc": {"value": None}, "map": {"value": 0.5}}, rows=[])
    assert result.table(["acc"])["acc"].isna().all()
    assert "acc –, map 0.50" in repr(result)


def test_a_result_is_shown_in_a_few_lines_without_what_a_terminal_obeys() -> None:
    named = {"name": "net\x1b[31m", "backbone": "mini", "head": "trf", "fingerprint": "1f3a"}
    said = repr(example(model=named))
    assert said.startswith("RunResult(net?[31m on synthsync test, 12 of 14 segments scored, INCOMPLETE: acc 0.")
    assert len(said) < 500
    assert str(example()) == repr(example())
    changing = example(dynamic={"a": 1}, scores={"recovery_s": {"value": 6.0, "ci_low": 5.0, "ci_high": 8.0}})
    assert "recovery_s 6.00 ±1.50" in repr(changing)
