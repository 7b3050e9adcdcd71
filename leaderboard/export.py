"""Export a board as CSV, or as the ``.eval_results`` files that the Hugging Face Hub shows on model pages."""

from __future__ import annotations

from pathlib import Path

from avbench.leaderboard.board import Board
from avbench.leaderboard.site import data_csv
from avbench.pages import safe_url
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


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error
