"""Export a board: as CSV, as the ``.eval_results`` files that the Hugging Face Hub shows on model pages, as the
``eval.yaml`` that makes a data set there a benchmark, or as records of Every Eval Ever."""

from __future__ import annotations

import json
from pathlib import Path

from avbench.leaderboard.board import Board
from avbench.leaderboard.entries import BOOTSTRAP
from avbench.leaderboard.site import data_csv
from avbench.pages import every_eval_ever, safe_url
from avbench.pages.run_text import COLUMNS
from avbench.submissions.push import REPO
from avbench.submissions.tracks import measures, ranked_by
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

EVAL_FILE = ".eval_results/avbench-{track}.yaml"


def write_csv(board: Board, path: Path) -> Path:
    """Writes the site's ``data.csv`` to ``path`` and returns it; ``AvbenchError`` if it cannot be written."""
    _write(path, data_csv(board))
    return path


def write_eval_results(board: Board, folder: Path, dataset: str, url: str | None = None) -> list[Path]:
    """Writes ``folder/<org>__<model>/<revision>/.eval_results/avbench-<track>.yaml`` for each entry, to be copied into
    the model's repository on the Hub. The value is the recomputed score that ranks; the notes give interval and rank.

    ``dataset``: the benchmark's dataset on the Hub, ORG/NAME. ``url``: address of the leaderboard. ``UsageError`` if
    either is malformed; ``AvbenchError`` if a file cannot be written.
    """
    import yaml

    if not REPO.fullmatch(dataset):
        raise UsageError(f"dataset is {dataset!r}; it must be ORG/NAME of a dataset on the Hub")
    if url is not None and safe_url(url) is None:
        raise UsageError(f"url is {url[:80]!r}; it must be an http(s) address")
    written = []
    for row in board.rows:
        submission, track = row.entry.submission, row.entry.track.name
        first = ranked_by(row.entry.track)
        score, title = row.entry.scored.scores[first], measures(row.entry.track)[first].title
        place = f"rank {row.ranked.rank}{', shared' if row.tied else ''}"
        bounds = (
            f"95 % interval {score.ci_low:.4f} to {score.ci_high:.4f}" if score.ci_low is not None else "no interval"
        )
        found: dict[str, object] = {
            "dataset": {"id": dataset, "task_id": track},
            "value": score.value,
            "date": submission.run.created,
            "notes": "; ".join((f"{title}, recomputed", bounds, place, submission.run.signature)),
        }
        if url is not None:
            found["source"] = {"url": url, "name": "avbench leaderboard"}
        path = folder / Path(row.entry.name).parent / EVAL_FILE.format(track=track)
        _write(path, yaml.safe_dump([found], sort_keys=False, allow_unicode=True, width=10_000))
        written.append(path)
    return written


def write_eval_yaml(board: Board, path: Path) -> Path:
    """Writes the ``eval.yaml`` of the benchmark's data set on the Hub and returns its path: a task a track, by the
    names that ``write_eval_results`` uses, on the configuration and splits that ``avbench data push`` makes. The Hub
    takes only frameworks of its own list (``EVALUATION_FRAMEWORKS`` of huggingface.js). ``AvbenchError`` if it cannot
    be written."""
    import yaml

    found = {
        "name": "avbench",
        "description": (
            "Audio-visual synchronisation in streaming video: how far the sound of a stream is shifted against its "
            "picture. A positive offset means that the sound comes early. Values are the score that ranks: "
            + "; ".join(f"{t.track.name}: {measures(t.track)[ranked_by(t.track)].title}" for t in board.tracks)
            + "."
        ),
        "evaluation_framework": "avbench",
        "tasks": [{"id": table.track.name, "config": "segments", "split": table.track.split} for table in board.tracks],
    }
    _write(path, yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120))
    return path


def write_every_eval_ever(board: Board, folder: Path, now_s: float | None = None) -> list[Path]:
    """Writes a record of Every Eval Ever for each entry, below ``folder`` as in its datastore: the recomputed scores.
    ``now_s``: as of :func:`avbench.pages.every_eval_ever.record`. ``AvbenchError`` if one cannot be written."""
    written = []
    for row in board.rows:
        entry, card, run = row.entry, row.entry.submission.card, row.entry.submission.run
        facts = {"backbone": card.backbone, "head": card.head, "revision": card.revision}
        facts |= {"fingerprint": run.model_fingerprint, "training_data": card.training_data.status}
        facts |= {"parameters": str(card.parameters)} if card.parameters is not None else {}
        one = every_eval_ever.Evaluated(
            f"{card.org}/{card.name}",
            facts,
            entry.track.name,
            {"title": entry.track.title, "split": entry.track.split, "manifest_sha256": entry.track.manifest_sha256},
            entry.scored.scores,
            {**COLUMNS, **measures(entry.track)},
            len(entry.truth),
            BOOTSTRAP,
            run.signature,
            run.avbench_version,
            run.created,
            "avbench leaderboard, from the predictions that the makers sent",
            "third_party",
        )
        path = folder / every_eval_ever.path_of(one)
        text = json.dumps(every_eval_ever.record(one, now_s), indent=2, ensure_ascii=False, allow_nan=False)
        _write(path, text + "\n")
        written.append(path)
    return written


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
