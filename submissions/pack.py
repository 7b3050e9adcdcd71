"""Make a submission's folder from a run's folder. The run gives the facts; the card gives what it cannot know."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avbench.protocol.tracks import BLIND, TRACKS, Track
from avbench.registry.names import without_folders
from avbench.results.predictions import MAX_PREDICTIONS_BYTES
from avbench.results.run import PREDICTIONS_FILE, RunResult, read_run
from avbench.scoring.dynamic import HEADLINE
from avbench.submissions.check import check_latency, claim_problems, entry_of, values
from avbench.submissions.format import (
    LATENCY_FILE,
    MAX_BYTES,
    Card,
    FileInfo,
    Files,
    Folder,
    Problem,
    Provenance,
    Submission,
    ValidationError,
    shown,
    validated,
    write_folder,
)
from avbench.submissions.tracks import find, measures, track_of_run
from avbench.system.strict import parse_json, read_bytes
from avbench.types import UsageError

MAX_CARD_BYTES = 2**18
NOTHING = ("nothing", "none")  # how a classical or trivial model declares that it was not trained


def pack(
    run: Path | str, out: Path | str, org: str, name: str, card: Mapping[str, Any] | None = None, latency: Any = None
) -> Path:
    """Writes ``out/<org>__<name>/<revision>/<track>/`` from the run in folder ``run`` and returns it.

    ``card``: further fields of the ``Card`` (revision, description, paper_url, ...). Missing fields are taken from the
    run: the revision is the start of the model's fingerprint, the training data are what the model declares.
    ``latency``: path of a latency.json to add. The submission is checked as the maintainers will check it before
    anything is written. ``UsageError``: the run is incomplete, belongs to no track, or fields are wrong, of
    card and latency all at once.
    """
    run = Path(run)
    result = read_run(run)
    base = run if run.is_dir() else run.parent
    track = _track(result)
    predictions = read_bytes(base / PREDICTIONS_FILE, MAX_PREDICTIONS_BYTES)
    pinned = result.files.get("predictions")
    if pinned is None or hashlib.sha256(predictions).hexdigest() != pinned.sha256:
        raise UsageError(f"{base / PREDICTIONS_FILE} does not match run.json (its sha256 differs): run again")
    content = {PREDICTIONS_FILE: predictions}
    if latency is not None:
        content[LATENCY_FILE] = read_bytes(Path(latency), MAX_BYTES[LATENCY_FILE])
    infos = {key: FileInfo(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for key, data in content.items()}
    problems: list[Problem] = []
    provenance = _provenance(result)
    with _noted(problems):
        checked = validated(Card, _card(result, org, name, card or {}), "card.")
    if LATENCY_FILE in content:
        with _noted(problems):
            check_latency(content[LATENCY_FILE], provenance)
    if problems:
        raise ValidationError(problems)
    submission = validated(
        Submission,
        {
            "track": track,
            "card": checked,
            "run": provenance,
            "claimed": {} if BLIND in track else _claimed(result, find(track)),
            "files": Files(predictions=infos[PREDICTIONS_FILE], latency=infos.get(LATENCY_FILE)),
        },
    )
    if BLIND not in track:  # of such, only the maintainers have the labels
        entry = entry_of(Folder(base, submission, content))
        problems = claim_problems(submission, entry.track, values(entry))
        if problems:
            raise ValidationError(problems)
    return write_folder(Path(out), submission, content)


@contextlib.contextmanager
def _noted(problems: list[Problem]) -> Iterator[None]:
    """Adds the problems of a ``ValidationError`` to the others: all are said at once."""
    try:
        yield
    except ValidationError as error:
        problems += error.problems


def read_card(path: Path | str) -> dict[str, Any]:
    """A card's fields from a JSON file, not yet checked; ``UsageError`` if it is not a JSON object."""
    document = parse_json(read_bytes(Path(path), MAX_CARD_BYTES), path)
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not a card (a JSON object)")
    return document


def _track(result: RunResult) -> str:
    """The name of the track that a run was made for."""
    if result.incomplete or result.failures:
        raise UsageError(f"the run is incomplete: {len(result.failures)} segments failed; a track needs all of them")
    if BLIND in result.data.name:
        base = find(result.data.name.partition(BLIND)[0])
        if result.protocol == base.protocol:
            return result.data.name
        raise UsageError(
            f"the run of {result.data.name} was made under {result.protocol.signature()}, not the track's "
            f"{base.protocol.signature()}: run `{base.blind_command('FOLDER')}`"
        )
    track = track_of_run(result)
    if track is None:
        commands = "; ".join(f"{t.name}: `{t.command}`" for t in list(TRACKS.values())[:1])
        raise UsageError(
            f"the run ({result.data.name} {result.data.split}, {result.signature}) belongs to no track; run the "
            f"whole data of one with its protocol, such as {commands} (`avbench submit tracks` lists all)"
        )
    return track.name


def _claimed(result: RunResult, track: Track) -> dict[str, Any]:
    """The scores that a submission claims, the ``measures`` of its track; all others are recomputed, too."""
    said: Any = result.dynamic.get("headline")
    known = {name: score.value for name, score in result.scores.items()}
    if isinstance(said, dict) and isinstance(said.get("recovery_s"), dict):
        known[HEADLINE] = said["recovery_s"].get("value")
    return {name: known[name] for name in measures(track) if name in known}


def _card(result: RunResult, org: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    model = result.model
    taken = {
        "revision": model.fingerprint[:12],
        "description": model.description or None,
        "backbone": without_folders(model.backbone),
        "head": model.head,
        "training_data": _training_data(model.trained_on),
    }
    return taken | dict(given) | {"org": org, "name": name}


def _training_data(trained_on: str) -> dict[str, Any]:
    said = shown(trained_on, 200)
    if said.lower() in NOTHING:
        return {"status": "none", "datasets": []}
    if not said or said.lower().startswith("undeclared"):
        return {"status": "undeclared", "datasets": []}
    return {"status": "declared", "datasets": [said]}


def _provenance(result: RunResult) -> Provenance:
    """The run's facts from run.json. A user's model is named without its folder: paths are private."""
    environment = {
        re.sub(r"[^a-z0-9_]", "_", key.lower()): value if isinstance(value, int) else shown(str(value))
        for key, value in result.environment.items()
        if isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    }
    facts = {
        "model": without_folders(result.model.name),
        "signature": result.signature,
        "model_fingerprint": result.model.fingerprint,
        "manifest_sha256": result.data.manifest_sha256,
        "avbench_version": result.avbench_version,
        "created": result.created,
        "n_segments": result.n_scored,
        "iterations": result.protocol.iterations,
        "weights_note": result.model.weights_note or None,
        "environment": environment,
    }
    return validated(Provenance, facts, "run.")
