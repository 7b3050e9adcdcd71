"""Entries of the leaderboard as runs, so that they can be compared with runs: read by the checks of a submission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from avbench.data.opening import planned
from avbench.protocol.tracks import BLIND, TRACKS, Track
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.run import RUN_FILE, DataInfo, ModelInfo, RunResult
from avbench.results.truth import Truth
from avbench.runs.loaded import Predictions, Run, load_run
from avbench.submissions.check import Entry, read_entry
from avbench.submissions.clone import entries_folder
from avbench.submissions.format import SUBMISSION_FILE, ValidationError, find_entries, find_submission, shown
from avbench.submissions.tracks import track_of_run, window_truth
from avbench.system.spelling import nearest
from avbench.types import UsageError

BOARD = "board:"  # before ORG/NAME or ORG/NAME@REVISION


@dataclass(frozen=True, eq=False)
class EntryRun(Run):
    """An entry as the run that made it; its labels are those of its track."""

    entry: Entry
    on_board: ClassVar[bool] = True

    @property
    def place(self) -> str:
        """The revision."""
        return self.entry.submission.card.revision

    @cached_property
    def predictions(self) -> Predictions:
        """In the track's order."""
        return Predictions(self.entry.truth.segment_ids, self.entry.logits)

    @cached_property
    def truth(self) -> Truth:
        """The track's."""
        return self.entry.truth

    @cached_property
    def windows(self) -> WindowTruth | None:
        """The track's; None where offsets are fixed."""
        return window_truth(self.entry.track, self.entry.truth)


def entry_run(folder: Path | str) -> EntryRun:
    """Opens the folder of an entry, ``<org>__<name>/<revision>/<track>``. Its scores are not read: they are recomputed.
    ``UsageError`` for an entry that the board would refuse, or to a blind track, whose labels are not public."""
    path = Path(folder)
    if BLIND in path.absolute().name:
        raise UsageError(f"{path} is an entry to a blind track: its labels are private, so it cannot be compared")
    try:
        entry = read_entry(path, verify=False)
    except ValidationError as error:
        raise UsageError(f"{path} is refused as an entry: {error!s}") from error
    return EntryRun(path, _result(entry), entry)


def _result(entry: Entry) -> RunResult:
    submission, track = entry.submission, entry.track
    card, run = submission.card, submission.run
    manifest = planned(track.data, track.split)
    return RunResult(
        avbench_version=run.avbench_version,
        signature=run.signature,
        protocol=track.protocol,
        model=ModelInfo(
            name=f"{card.org}/{card.name}",
            backbone=card.backbone,
            head=card.head,
            fingerprint=run.model_fingerprint,
            description=card.description or "",
            trained_on=", ".join(card.training_data.datasets) or card.training_data.status,
            weights_note=run.weights_note or "",
        ),
        data=DataInfo(
            name=track.data,
            split=track.split,
            manifest_sha256=track.manifest_sha256,
            n_clips=len(manifest.clips),
            note=manifest.note,
        ),
        n_scored=len(entry.truth),
        n_total=len(manifest.segments),
        scores={},
        environment=dict(run.environment),
        seed=0,
        n_resamples=0,
        created=run.created,
    )


# -- what a person names -----------------------------------------------------------------------------------------------


def opened(names: Sequence[str], entries: Path | str | None = None, track: str | None = None) -> list[Run]:
    """What each of ``names`` stands for: a run's folder or run.json, an entry's folder, or ``board:ORG/NAME`` with or
    without ``@REVISION``: that entry below the folder ``entries`` (None: that of the clone, :func:`entries_folder`), to
    the track of the other names. Where all are of the board, to ``track``, or else the only one that all are on.

    ``UsageError``: no such run or entry, several revisions, and runs that are on no track or on another than ``track``.
    """
    if track is not None and track not in TRACKS:
        raise UsageError(f"there is no track {track!r}: {nearest(track, TRACKS)}")
    runs = {name: _from_folder(Path(name)) for name in names if not name.startswith(BOARD)}
    listed = {name: _listed(name, Path(entries or entries_folder(name))) for name in names if name.startswith(BOARD)}
    if listed or track is not None:
        on = _track(runs, listed, track)
        runs |= {name: entry_run(_one_revision(name, found, on)) for name, found in listed.items()}
    return [runs[name] for name in names]


def _from_folder(path: Path) -> Run:
    """A run's folder or run.json, or the folder of an entry, or one that `pack --out` made for one alone."""
    if (path / RUN_FILE).exists():
        return load_run(path)
    entry = find_submission(path)
    return entry_run(entry) if (entry / SUBMISSION_FILE).exists() else load_run(path)


def _listed(name: str, root: Path) -> list[Path]:
    """The folders of all entries of a model, of one revision where it is named."""
    wanted, _, revision = name.removeprefix(BOARD).partition("@")
    try:
        folders = find_entries(root)
    except UsageError as error:
        raise UsageError(f"{error}, where {name} is looked up; name that folder with --entries DIR") from error
    models = {folder.parts[-3].replace("__", "/", 1): folder.parts[-3] for folder in folders}
    if wanted not in models:
        near = nearest(wanted, sorted(models)) if models else "it holds no entry"
        raise UsageError(f"{name}: {root} has no entry of {wanted!r}; {shown(near, 400)}")
    found = [folder for folder in folders if folder.parts[-3] == models[wanted]]
    of_revision = [folder for folder in found if folder.parts[-2] == revision]
    if revision and not of_revision:
        known = sorted({folder.parts[-2] for folder in found})
        raise UsageError(f"{name}: {wanted} has no revision {revision!r}; {shown(nearest(revision, known), 400)}")
    return of_revision or found


def _track(runs: dict[str, Run], listed: dict[str, list[Path]], track: str | None) -> str:
    """The track on which all are compared."""
    for name, run in runs.items():
        of_run = _track_of(run)
        if of_run is None:
            whole = next(
                (t for t in TRACKS.values() if (t.data, t.split) == (run.result.data.name, run.result.data.split)), None
            )
            if whole and run.result.data.manifest_sha256 != whole.manifest_sha256:
                raise UsageError(
                    f"{name} has {run.result.n_total} segments, not all of track {whole.name}: to compare it with an "
                    "entry, run it without --limit"
                )
            raise UsageError(
                f"{name} is on no track of the board (its data or protocol is another), so it cannot be compared with "
                f"an entry; `avbench submit tracks` lists them"
            )
        if track is not None and track != of_run.name:
            raise UsageError(f"{name} is on track {of_run.name}, not {track}")
        track = of_run.name
    if track is not None:
        return track
    shared = [name for name in TRACKS if all(any(f.name == name for f in found) for found in listed.values())]
    if not shared:
        raise UsageError(f"{', '.join(listed)} are on no track together")
    if len(shared) > 1:
        raise UsageError(f"{', '.join(listed)} are on {len(shared)} tracks: choose one with --track {shared[0]}")
    return shared[0]


def _track_of(run: Run) -> Track | None:
    return run.entry.track if isinstance(run, EntryRun) else track_of_run(run.result)


def _one_revision(name: str, folders: Sequence[Path], track: str) -> Path:
    found = [folder for folder in folders if folder.name == track]
    if not found:
        on = ", ".join(sorted({folder.name for folder in folders}))
        raise UsageError(f"{name} has no entry to track {track}; it is on {shown(on, 400)}")
    if len(found) > 1:
        revisions = ", ".join(folder.parts[-2] for folder in found)
        raise UsageError(
            f"{name} has {len(found)} revisions ({shown(revisions, 400)}): name one, {name}@{found[0].parts[-2]}"
        )
    return found[0]
