"""The figures below the grid by name, beside those of ``METRICS``: offset errors, calibration, and how well the logits
tell what is out of tolerance. They need the true offset in seconds, not only its class.

Classes 0.2 s apart certify no broadcast limit by themselves: of the 21 class centres every table of ``TOLERANCES``
holds 0 alone. What a model knows beyond that is in the probabilities of the neighbouring classes, and only data whose
offsets lie between the centres can show it; where all are centres, these figures ask whether 0 is told from 0.2 s.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avbench.scoring.calibration import WITHIN_MS, calibration_scores, centres_s
from avbench.scoring.metrics import METRICS, Column
from avbench.scoring.stats import DEFAULT, Bootstrap, Estimate
from avbench.scoring.tolerance import FALSE_ALARMS, TOLERANCES, out_of_tolerance


def _percent(share: float) -> int:
    return round(100 * share)


def _tolerance_columns() -> list[Column]:
    found = []
    for table in TOLERANCES.values():
        name = f"out_of_{table.name.replace('-', '_')}"
        limits = f"{1000 * table.early_s:g} ms early, {1000 * table.late_s:g} ms late ({table.source})"
        auc = f"area under ROC of what is out of tolerance: {limits}"
        found.append(Column(f"{name}_roc_auc", f"{table.name} AUC", "", 1.0, 0.0, True, auc))
        for share in FALSE_ALARMS:
            n = _percent(share)
            told = f"share of what is out of tolerance that is found at {n} % false alarms: {limits}"
            found.append(Column(f"{name}_recall_{n}_percent", f"{table.name} @{n}%", "", 1.0, 0.0, True, told))
    return found


BELOW_GRID: dict[str, Column] = {
    column.name: column
    for column in (
        Column("offset_error_s", "error (s)", "s", 0.0, 4.0, False, "mean distance of expected and true offset"),
        Column(
            "offset_error_argmax_s",
            "by class (s)",
            "s",
            0.0,
            4.0,
            False,
            "mean distance of class centre and true offset",
        ),
        Column(
            "offset_error_median_s", "median (s)", "s", 0.0, 4.0, False, "median distance of expected and true offset"
        ),
        *(
            Column(f"within_{ms}_ms", f"in {ms} ms", "", 1.0, 0.0, True, f"share of expected offsets within {ms} ms")
            for ms in WITHIN_MS
        ),
        Column("ece", "ECE", "", 0.0, 1.0, False, "expected calibration error of the top class, 15 bins"),
        Column(
            "brier", "Brier", "", 0.0, 2.0, False, "squared distance of probabilities and truth, summed over classes"
        ),
        Column(
            "rps_s", "RPS (s)", "s", 0.0, 4.0, False, "ranked probability score: far misses cost more than near ones"
        ),
        *_tolerance_columns(),
    )
}
COLUMNS: dict[str, Column] = {**METRICS, **BELOW_GRID}  # every score of fixed offsets


def below_grid_scores(
    logits: Any, offsets_s: Any, clusters: Any, bootstrap: Bootstrap = DEFAULT
) -> dict[str, Estimate]:
    """All of ``BELOW_GRID`` in its order: ``logits`` (N, 21) against the true ``offsets_s`` (N,), with intervals over
    the videos named by ``clusters`` (N,). Errors as in ``calibration_scores``."""
    found = calibration_scores(logits, offsets_s, clusters, bootstrap)
    for name, table in out_of_tolerance(logits, offsets_s, clusters, bootstrap=bootstrap, by_offset=False).items():
        start = f"out_of_{name.replace('-', '_')}"
        found[f"{start}_roc_auc"] = table["roc_auc"]
        for share in FALSE_ALARMS:
            found[f"{start}_recall_{_percent(share)}_percent"] = table[f"recall_at_{_percent(share)}_percent"]
    return found


def on_the_grid(offsets_s: Any) -> bool:
    """Whether every offset is the centre of a class: then nothing below the grid was asked of a model."""
    distance = np.abs(np.asarray(offsets_s, np.float64)[:, None] - centres_s()).min(axis=1)
    return bool((distance < 1e-9).all())
