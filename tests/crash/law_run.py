"""A run on data whose offsets change, as a process: ``python law_run.py DATA OUT STORE WORKERS SAVE_EVERY_S``.

It writes the predictions of a model, and what is so in every window.
"""

from __future__ import annotations

import sys
from pathlib import Path

from avbench.engine import job
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.protocol.rules import streaming
from avbench.registry import load_model
from avbench.results.dynamic_truth import TRUTH_FILE, WindowTruth, write_truth
from avbench.results.predictions import write_predictions

PROTOCOL = streaming(iterations=21)  # 45 s


def main(data: str, out: str, store: str, workers: str, save_every_s: str) -> None:
    job.SAVE_EVERY_S = float(save_every_s)
    model, session = load_model("xcorr+bayes"), Session.open(data, how=Compute(store, int(workers)))
    session.need(model, PROTOCOL)
    session.compute()
    assert not session.failures, session.failures
    segments = session.segments(PROTOCOL)
    folder = Path(out)
    folder.mkdir(exist_ok=True)
    names, logits = [segment.id for segment in segments], session.predictions(model, PROTOCOL)
    write_predictions(folder / "predictions.parquet", names, logits)
    write_truth(folder / TRUTH_FILE, WindowTruth.of(segments, PROTOCOL))


if __name__ == "__main__":
    main(*sys.argv[1:])
