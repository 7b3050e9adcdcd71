"""A result as a record of Every Eval Ever (schema 0.3.0), the shared format of the EvalEval coalition for evaluation
results: https://github.com/evaleval/every_eval_ever. Only what was measured is in it; an undefined score is named."""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from typing import Protocol as Interface

from avbench.pages.run_text import COLUMNS
from avbench.results.run import RunResult
from avbench.scoring.metrics import Column
from avbench.scoring.stats import Bootstrap
from avbench.types import UsageError

SCHEMA_VERSION = "0.3.0"
Relationship = Literal["first_party", "third_party", "collaborative", "other"]
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")


class Score(Interface):
    """A value with its interval; None or nan where undefined."""

    @property
    def value(self) -> float | None: ...
    @property
    def ci_low(self) -> float | None: ...
    @property
    def ci_high(self) -> float | None: ...


@dataclass(frozen=True)
class Evaluated:
    """What a record is of. ``model_id``: ORG/NAME where there is an organisation. ``n``: scored segments; ``facts`` of
    the model and of the data are texts. ``evaluator``: who evaluated, and how that is related to the model's makers."""

    model_id: str
    model_facts: Mapping[str, str]
    data: str
    data_facts: Mapping[str, str]
    scores: Mapping[str, Score]
    columns: Mapping[str, Column]
    n: int
    bootstrap: Bootstrap
    signature: str
    version: str
    created: str  # ISO 8601, UTC
    evaluator: str
    relationship: str


def of_run(result: RunResult, evaluator: str = "unknown", relationship: str = "other") -> Evaluated:
    """A run, evaluated by ``evaluator``; ``UsageError`` if it has no scores, or one that this avbench does not know."""
    if result.data.labels == "hidden":
        raise UsageError("the labels of this run's data are hidden, so it has no scores to export")
    unknown = sorted(result.scores.keys() - COLUMNS.keys())
    if unknown:
        raise UsageError(
            f"this avbench does not know the score {unknown[0]!r}: it is of version {result.avbench_version}"
        )
    model, data = result.model, result.data
    facts = {name: getattr(model, name) for name in ("backbone", "head", "fingerprint", "trained_on", "dtype")}
    facts |= {"weights_note": model.weights_note} if model.weights_note else {}
    facts |= {"random_weights": str(model.random_weights)} if model.random_weights is not None else {}
    return Evaluated(
        model.name,
        facts,
        data.name,
        {"split": data.split, "manifest_sha256": data.manifest_sha256, "note": data.note},
        result.scores,
        COLUMNS,
        result.n_scored,
        Bootstrap(result.n_resamples, result.seed, result.level),
        result.signature,
        result.avbench_version,
        result.created,
        evaluator,
        relationship,
    )


def record(one: Evaluated, now_s: float | None = None) -> dict[str, Any]:
    """The record, one result a defined score. ``now_s``: when it is made, in seconds since 1970 (None: now)."""
    made = f"{time.time() if now_s is None else now_s:.3f}"
    undefined = [name for name, score in one.scores.items() if not _defined(score.value)]
    organisation = {"developer": one.model_id.partition("/")[0]} if "/" in one.model_id else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"avbench-{one.data}/{one.model_id}/{made}",
        "evaluation_timestamp": one.created,
        "retrieved_timestamp": made,
        "source_metadata": {
            "source_name": "avbench",
            "source_type": "evaluation_run",
            "source_organization_name": one.evaluator,
            "evaluator_relationship": one.relationship,
        },
        "eval_library": {
            "name": "avbench",
            "version": one.version,
            "additional_details": {"signature": one.signature},
        },
        "model_info": {
            "name": one.model_id.rpartition("/")[2],
            "id": one.model_id,
            **organisation,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                **one.model_facts,
                **({"undefined_scores": ", ".join(undefined)} if undefined else {}),
            },
        },
        "evaluation_results": [
            _result(one, one.columns[name], score) for name, score in one.scores.items() if _defined(score.value)
        ],
    }


def path_of(one: Evaluated) -> str:
    """Where the datastore keeps it: ``data/BENCHMARK/DEVELOPER/MODEL/UUID.json``. The same result has the same name."""
    text = json.dumps([one.signature, one.model_id, one.created, one.data], ensure_ascii=True)
    name = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)
    developer, _, model = one.model_id.rpartition("/")
    return f"data/avbench-{one.data}/{developer or 'unknown'}/{model}/{name}.json"


def _defined(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _result(one: Evaluated, column: Column, score: Score) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": one.n, "num_bootstrap_samples": one.bootstrap.n_resamples}
    if _defined(score.ci_low) and _defined(score.ci_high):
        uncertainty["confidence_interval"] = {
            "lower": score.ci_low,
            "upper": score.ci_high,
            "confidence_level": one.bootstrap.level,
            "method": "bias-corrected percentile bootstrap over videos, tails widened by t",
        }
    low, high = sorted((column.best, column.worst))
    return {
        "evaluation_result_id": f"{one.signature}#{column.name}",
        "evaluation_name": f"avbench {one.data}",
        "source_data": {"dataset_name": one.data, "source_type": "other", "additional_details": dict(one.data_facts)},
        "evaluation_timestamp": one.created,
        "metric_config": {
            "evaluation_description": column.description,
            "metric_id": f"avbench.{column.name}",
            "metric_name": column.title,
            "metric_unit": column.unit or "proportion",
            "lower_is_better": not column.higher_is_better,
            "score_type": "continuous",
            "min_score": low,
            "max_score": high if math.isfinite(high) else "Infinity",
        },
        "score_details": {"score": score.value, "uncertainty": uncertainty},
    }
