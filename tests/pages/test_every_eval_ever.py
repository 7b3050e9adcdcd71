"""Records of Every Eval Ever: its own published schema accepts them, and they say what run.json says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from runs import make_run

from avbench.pages.every_eval_ever import RELATIONSHIPS, SCHEMA_VERSION, of_run, record
from avbench.results.run import Score
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
SCHEMA = json.loads((Path(__file__).parent / "data/every_eval_ever-0.3.0/eval.schema.json").read_text())
CREATED_S = 1767323045.0  # 2026-01-02T03:04:05Z


def accepted(found: dict[str, Any]) -> None:
    jsonschema.validate(found, SCHEMA, jsonschema.Draft7Validator)


def test_the_schema_is_the_version_that_is_written() -> None:
    assert SCHEMA["version"] == SCHEMA_VERSION
    there = SCHEMA["properties"]["source_metadata"]["properties"]["evaluator_relationship"]["enum"]
    assert tuple(there) == RELATIONSHIPS


def test_a_run_becomes_a_record(avbench: Avbench, tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        n_resamples=1000,
        scores={
            "acc": Score(value=0.5, ci_low=0.4, ci_high=0.6),
            "mae_s": Score(value=0.3),
            "roc_auc": Score(value=None),
            "false_changes_per_h": Score(value=2.0),
        },
    )
    done = avbench(
        "report", tmp_path, "--every-eval-ever", "r.json", "--evaluator", "We", "--relationship", "third_party"
    )
    assert (done.returncode, done.stdout) == (0, "r.json\n"), done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    accepted(found)
    source = found["source_metadata"]
    assert (source["source_organization_name"], source["evaluator_relationship"]) == ("We", "third_party")
    assert found["eval_library"]["additional_details"]["signature"] == run.signature
    assert found["model_info"]["additional_details"]["undefined_scores"] == "roc_auc"
    results = {one["metric_config"]["metric_id"].removeprefix("avbench."): one for one in found["evaluation_results"]}
    acc, mae, rate = (results[name] for name in ("acc", "mae_s", "false_changes_per_h"))
    assert acc["score_details"]["score"] == 0.5
    interval = acc["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"], interval["confidence_level"]) == (0.4, 0.6, 0.95)
    assert acc["score_details"]["uncertainty"]["num_samples"] == run.n_scored
    config = mae["metric_config"]
    assert (config["lower_is_better"], config["metric_unit"], config["max_score"]) == (True, "s", 4.0)
    assert "confidence_interval" not in mae["score_details"]["uncertainty"]
    assert rate["metric_config"]["max_score"] == "Infinity"
    assert acc["source_data"]["additional_details"]["manifest_sha256"] == run.data.manifest_sha256


def test_every_score_of_a_run_is_known_and_accepted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found = record(of_run(run), CREATED_S)
    accepted(found)
    assert [one["metric_config"]["metric_id"] for one in found["evaluation_results"]] == [
        f"avbench.{name}" for name, score in run.scores.items() if score.value is not None
    ]
    assert found["evaluation_id"].endswith("/toy/1767323045.000")


def test_what_cannot_be_exported(avbench: Avbench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not know the score 'charm'"):
        of_run(make_run(tmp_path, scores={"charm": Score(value=1.0)}))
    run = make_run(tmp_path)
    hidden = run.model_copy(update={"data": run.data.model_copy(update={"labels": "hidden"})})
    with pytest.raises(UsageError, match="are hidden"):
        of_run(hidden)
    done = avbench("report", tmp_path, "--every-eval-ever", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_wrong_record_is_not_accepted(tmp_path: Path) -> None:
    found = record(of_run(make_run(tmp_path)), CREATED_S)
    del found["evaluation_results"][0]["metric_config"]["max_score"]
    with pytest.raises(jsonschema.ValidationError):
        accepted(found)
