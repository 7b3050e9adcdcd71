"""The trainings behind Table 5, and their record: ``avbench train table5``.

Trains every recipe (continuing from checkpoints), then runs the trained models over the test split once, after all
choices are made. ``avbench paper table5`` shows the record.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench import __version__
from avbench.baselines.embedded import load_backbone, load_head
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.paper import records
from avbench.protocol.rules import streaming
from avbench.registry.options import StreamingModel
from avbench.system.progress import Progress
from avbench.training.common import Say
from avbench.training.recipes import run

NAME = "table5"
DATA = "synthsync"


def train(
    out: Path,
    say: Say = print,
    threads: int = 1,
    data: str = DATA,
    store: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train all rows into ``out`` and write the record there; returns its path (table5.json; table5.npz is beside it).

    ``threads``: of torch. ``data``: its test split is scored, at 18 windows of hop 2 s. ``store``: of the snapshots
    (None: the user's). ``AvbenchError`` if a segment fails.
    """
    weights = {recipe: run(recipe, out, say, threads) for recipe in records.TABLE5_ROWS.values()}
    protocol = streaming()
    session = Session.open(data, "test", how=Compute(store), progress=progress)
    manifest = session.manifest
    models = {recipe: _model(recipe, path) for recipe, path in weights.items()}
    for model in models.values():
        session.need(model, protocol)
    session.compute()
    session.refuse_failures("")
    truth = session.truth(protocol)
    logits, trainings = {}, []
    for recipe, path in weights.items():
        logits[recipe] = session.predictions(models[recipe], protocol)[:, -1].astype(np.float16)
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        trainings.append(
            {key: card[key] for key in ("recipe", "sha256", "command", "log")} | {"wall_s": card["log"][-1]["wall_s"]}
        )
    facts: dict[str, Any] = {
        "schema_version": records.SCHEMA_VERSION,
        "what": "Table 5: trainings made beforehand; table5.npz has their float16 logits at the last iteration",
        "command": f"avbench train {NAME}",
        "avbench": __version__,
        "torch": torch.__version__,
        "threads": threads,
        "protocol": json.loads(json.dumps(asdict(protocol))),
        "data": {
            "name": manifest.name,
            "split": "test",
            "note": manifest.note,
            "sha256": manifest.sha256,
            "n_segments": len(manifest.segments),
        },
        "trainings": trainings,
    }
    return records.write(out, records.Record(facts, logits, truth.labels.astype(np.uint8), truth.clusters))


def _model(recipe: str, path: Path) -> StreamingModel:
    """What a recipe trained, as a session takes it; it has the recipe's name."""
    make = partial(load_backbone, "streamsync-trf", path)
    head = load_head("streamsync-trf", path)
    return StreamingModel(recipe, "learned", recipe, "trf", make, None, "", "", backbone=make(), head=head)
