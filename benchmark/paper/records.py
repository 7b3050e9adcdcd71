"""Table 5. Each row is a training of its own; ``avbench train table5`` writes their results, which ship as a record.

A record contains each training's recipe, seed, log and time, and its predictions on the test split (float16 logits at
the scored iteration), from which every score and interval of the table is computed on request.
"""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench.paper.exhibits import SCORES, Exhibit, cell, claims, paired, title_of, unmeasured, videos_of
from avbench.paper.reported import of_table
from avbench.protocol.rules import Protocol
from avbench.protocol.signature import DIGITS, Signature
from avbench.results.truth import Truth
from avbench.scoring.stats import Bootstrap, bootstrap_scores
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError

SCHEMA_VERSION = 1
BASE = "K = 3, H = 12 (base)"
# row -> recipe
TABLE5_ROWS = {
    BASE: "table5-k3-h12",
    "K = 2, H = 12": "table5-k2-h12",
    "K = 4, H = 12": "table5-k4-h12",
    "K = 3, H = 6": "table5-k3-h6",
    "K = 3, H = 18": "table5-k3-h18",
}
# (better, worse, metrics) as the paper's numbers are ordered
TABLE5_CLAIMS = (
    (BASE, "K = 2, H = 12", ("acc", "map")),
    (BASE, "K = 4, H = 12", ("acc", "map")),
    (BASE, "K = 3, H = 6", ("acc",)),
    ("K = 3, H = 6", BASE, ("map",)),
    (BASE, "K = 3, H = 18", ("acc", "map")),
)


class Record(NamedTuple):
    """The trainings of Table 5 and their predictions on the N segments of the test split."""

    facts: dict[str, Any]
    logits: dict[str, np.ndarray]  # recipe -> (N, 21) float16, at the scored iteration
    labels: np.ndarray  # (N,) uint8
    videos: np.ndarray  # (N,) str


def read(folder: Path | None = None, name: str = "table5") -> Record | None:
    """The record in ``folder`` (None: the shipped one), or None if there is none. ``AvbenchError`` if it is damaged."""
    root: Any = folder or files("avbench.paper").joinpath("records")
    if not root.joinpath(f"{name}.json").is_file():
        return None
    try:
        facts = json.loads(root.joinpath(f"{name}.json").read_text(encoding="utf-8"))
        if facts["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {facts['schema_version']}, this avbench reads {SCHEMA_VERSION}")
        with np.load(io.BytesIO(root.joinpath(f"{name}.npz").read_bytes()), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        trained = {t["recipe"]["name"]: arrays[t["recipe"]["name"]] for t in facts["trainings"]}
        return Record(facts, trained, arrays["labels"], arrays["videos"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AvbenchError(f"the record {root}/{name}.json cannot be used: {error}") from error


def write(folder: Path, record: Record, name: str = "table5") -> Path:
    """Write NAME.json and NAME.npz; returns the path of the former."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=record.labels, videos=record.videos, **record.logits)  # type: ignore[arg-type]
    atomic_write_bytes(folder / f"{name}.npz", buffer.getvalue())
    text = json.dumps(record.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write_bytes(folder / f"{name}.json", text.encode())
    return folder / f"{name}.json"


def table5(boot: Bootstrap, record: Record | None) -> Exhibit:
    """StreamSync-Trf by gradient windows and training windows, from a record; cells are empty without one."""
    table = Exhibit("table5", "Table 5: StreamSync-Trf by gradient windows K and training windows H")
    if record is None:
        table.notes.append("There is no record of these trainings: `avbench train table5 --out train` writes one.")
        table.cells = [cell("table5", c.row, c.column, None, 0, 0) for c in of_table("table5")]
        return table
    data, trainings = record.facts["data"], {t["recipe"]["name"]: t for t in record.facts["trainings"]}
    n_total = data["n_segments"]
    rows = tuple(map(str, range(len(record.labels))))  # the record does not name its segments
    part = Truth(rows, record.labels.astype(np.int64), record.videos, n_total=n_total)
    n = len(record.labels)
    protocol, table.version = Protocol.from_json(record.facts["protocol"]), record.facts["avbench"]
    missing = [row for row, recipe in TABLE5_ROWS.items() if recipe not in trainings]
    if missing:
        table.notes.append(f"Not in the record: {', '.join(missing)}.")
    for row, recipe in TABLE5_ROWS.items():
        if recipe not in trainings:
            table.cells += [cell("table5", row, title_of(metric), None, 0, n_total) for metric in SCORES]
            continue
        trained = trainings[recipe]["recipe"]
        signature = Signature(protocol, recipe, data["sha256"][:DIGITS], record.facts["avbench"])
        table.signatures.append((row, str(signature)))
        found = bootstrap_scores(record.logits[recipe], part.labels, part.clusters, boot, metrics=SCORES)
        table.cells += [cell("table5", row, title_of(metric), found[metric], n, n_total) for metric in SCORES]
        table.settings[row] = {
            "recipe": recipe,
            "gradient_windows": trained["phase2_gradient_windows"],
            "training_windows": trained["phase2_windows"],
            "seed": trained["seed"],
            "selection": "final",
            "hop_s": 2.0,
            "windows": record.facts["protocol"]["iterations"],
            "wall_s": trainings[recipe]["wall_s"],
        }
    for better, worse, metrics in TABLE5_CLAIMS:
        if better in missing or worse in missing:
            table.claims += unmeasured(better, worse, metrics)
            continue
        a, b = record.logits[TABLE5_ROWS[better]], record.logits[TABLE5_ROWS[worse]]
        table.claims += claims(better, worse, paired(a, b, part, boot, metrics), videos_of(part))
    minutes = sum(t["wall_s"] for t in trainings.values()) / 60
    base = next(iter(trainings.values()))["recipe"]  # all rows share these settings
    table.measured_on = f"{data['name']} {data['split']} ({data['note']}), from records"
    table.notes += [
        "RECORDS of earlier trainings, not of this run; written by `avbench train table5`, "
        f"{minutes:.0f} minutes in all on a shared 2-core machine; recipes, logs and times are in table5.json in the "
        "package's paper/records.",
        f"One seed each: phase 1 of {base['steps']} steps on {6 * base['scenes']} streams with the embedded SparseSync "
        f"backbone, phase 2 of {base['phase2_steps']} steps of {base['phase2_batch']} streams, the last state kept; "
        "the rows with H = 12 share phase 1. The intervals cover the choice of test segments, not the choice of seed.",
    ]
    return table
