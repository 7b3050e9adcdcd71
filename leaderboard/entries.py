"""Read the entries of a leaderboard: each is checked as by ``avbench submit check``, and everything shown of it is
recomputed from its predictions. Results are cached under a hash of everything they depend on (the entry's bytes, the
track's labels, this program), so a second build of the same entries computes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from pydantic import TypeAdapter

from avbench.latency.record import LatencyRecord
from avbench.pages import fragment
from avbench.pages.below_grid import below_grid
from avbench.pages.charts import count_ticks
from avbench.pages.sections import curve_charts, errors, in_order, slice_tables
from avbench.protocol.tracks import Track
from avbench.results.run import Scores, Slice
from avbench.scoring.below_grid import below_grid_scores
from avbench.scoring.metrics import METRICS
from avbench.scoring.ranking import rank_groups
from avbench.scoring.scorer import as_scores
from avbench.scoring.stats import Bootstrap, bootstrap_scores
from avbench.submissions.check import claim_problems, entry_of, values
from avbench.submissions.format import (
    LATENCY_FILE,
    Folder,
    Submission,
    ValidationError,
    find_entries,
    read_folder,
    shown,
)
from avbench.submissions.tracks import Truth, known
from avbench.system import imports, machine
from avbench.system.atomic import atomic_write_bytes
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, each
from avbench.ticks import seconds
from avbench.types import AvbenchError

RANKED_BY = "map"
SHOWN_ALONG = ("acc", "map", "mae_s")  # metrics shown per window and per category
BOOTSTRAP = Bootstrap(n_resamples=1000, seed=0, level=0.95)
FEW = replace(BOOTSTRAP, n_resamples=100)  # along the windows and by category: intervals that are only indicative
FEW_ENTRIES = 8  # computed in this process; more are worth the start of others
ROOTS_OF_THE_KEY = (__name__, f"{__package__}.board", f"{__package__}.site")  # score, rank and draw the entries


class Refused(tuple[str, str]):
    """(folder below the entries' root, reason) of an entry that is not shown."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Results computed from predictions. ``curve``: window (from 1) -> scores; ``by_category``: n and scores of each;
    ``last`` (N, 21): the logits at the last window; ``report``: the HTML part of the entry's page drawn from them."""

    scores: Scores
    curve: dict[int, Scores]
    by_category: dict[str, Slice]
    last: np.ndarray
    report: Markup


@dataclass(frozen=True, eq=False)
class Entry:
    """An accepted entry: its makers' submission and the results computed from it."""

    submission: Submission
    track: Track
    truth: Truth
    scored: Scored
    latency: LatencyRecord | None = None  # measured by its makers

    @property
    def name(self) -> str:
        """``<org>__<model>/<revision>/<track>``."""
        return self.submission.entry

    @property
    def model(self) -> tuple[str, str, str]:
        """Organisation, name and revision, which are the same on every track of one model."""
        card = self.submission.card
        return card.org, card.name, card.revision


def read_entries(
    root: Path,
    store: Path,
    labels: Path | None = None,
    workers: int | None = None,
    progress: ItemProgress | None = None,
) -> tuple[list[Entry], list[Refused]]:
    """The accepted entries below ``root`` (three folders down, sorted by name), and the refused ones with the reason.

    ``store``: the cache folder. ``labels``: the labels file of a blind track; entries to any other blind track are
    refused. ``workers``: number of processes (None: one per core). ``UsageError`` if ``root`` is not a folder or the
    labels file is wrong; ``AvbenchError`` if the cache cannot be written.
    """
    folders = find_entries(root)
    found: dict[Path, Entry | Refused] = {}
    wanted = [path for path in folders if not _from_cache(path, root, store, labels, found)]
    done = len(folders) - len(wanted)
    for path, problem in _compute(wanted, store, labels, workers):
        done += 1
        if progress:
            progress(done, len(folders), path.name)
        if problem:
            found[path] = Refused((_below(path, root), problem))
        elif not _from_cache(path, root, store, labels, found):
            raise AvbenchError(
                f"{store}: the cached result of {_below(path, root)} is missing; is the folder writable?"
            )
    ordered = [found[path] for path in folders]
    return [e for e in ordered if isinstance(e, Entry)], [e for e in ordered if isinstance(e, Refused)]


def _from_cache(path: Path, root: Path, store: Path, labels: Path | None, found: dict[Path, Entry | Refused]) -> bool:
    """Fills in ``found[path]`` if nothing has to be computed: the entry is cached, or its folder is already refused."""
    try:
        read = read_folder(path)
        track, truth = known(read.submission.track, labels)
    except AvbenchError as error:
        found[path] = Refused((_below(path, root), str(error)))
        return True
    scored = load(store, entry_key(read, track, truth))
    if scored is None:
        return False
    told = read.content.get(LATENCY_FILE)  # checked when the entry was accepted
    latency = LatencyRecord.model_validate_json(told) if told else None
    found[path] = Entry(read.submission, track, truth, scored, latency)
    return True


def _below(path: Path, root: Path) -> str:
    return shown(path.relative_to(root).as_posix())


# -- computing ---------------------------------------------------------------------------------------------------------


def _compute(
    paths: Sequence[Path], store: Path, labels: Path | None, workers: int | None
) -> Iterable[tuple[Path, str | None]]:
    """(path, None, or why it is refused) for each path, computed and put into the cache. An entry on which
    its worker dies twice is refused, and no other."""
    work = partial(_check_and_score, store=store, labels=labels)
    for path, problem in each(work, paths, 1 if len(paths) <= FEW_ENTRIES else workers or machine.cores()):
        yield path, f"predictions: {problem.reason} while reading them" if isinstance(problem, Lost) else problem


def _check_and_score(path: Path, store: Path, labels: Path | None) -> str | None:
    """Caches the entry's results and returns None, or returns the reason why the entry is refused."""
    try:
        read = read_folder(path)
        entry = entry_of(read, labels)
        problems = claim_problems(entry.submission, entry.track, values(entry))
        if problems:
            raise ValidationError(problems)
    except AvbenchError as error:
        return str(error)
    key = entry_key(read, entry.track, entry.truth)
    save(store, key, score(entry.name, entry.track, entry.truth, entry.logits, store))
    return None


def score(name: str, track: Track, truth: Truth, logits: np.ndarray, store: Path, report: bool = True) -> Scored:
    """Computes all that is shown of the predictions ``logits`` (N, W, 21), rows in the truth's order.

    ``report`` False: without the HTML part, for rows that have no page of their own.
    """
    last = np.ascontiguousarray(logits[:, -1])
    # the ranking needs the resampled values of this metric: cached, so they are drawn once
    (ranked,) = rank_groups({name: last}, truth.labels, truth.clusters, RANKED_BY, BOOTSTRAP, store)
    others = [metric for metric in METRICS if metric != RANKED_BY]
    estimates = bootstrap_scores(last, truth.labels, truth.clusters, BOOTSTRAP, others)
    estimates[RANKED_BY] = ranked.estimate
    scores = as_scores({metric: estimates[metric] for metric in METRICS})
    if truth.offsets_s is not None:
        scores |= as_scores(below_grid_scores(last, truth.offsets_s, truth.clusters, BOOTSTRAP))

    def few(rows: np.ndarray | slice, at: int) -> Scores:
        some, labels, videos = logits[rows, at], truth.labels[rows], truth.clusters[rows]
        return as_scores(bootstrap_scores(some, labels, videos, FEW, SHOWN_ALONG))

    windows = logits.shape[1]
    curve = {w: few(slice(None), w - 1) if w < windows else scores for w in count_ticks(windows)}
    category = np.array(truth.categories)
    by_category = {}
    for kind in in_order(set(truth.categories) - {""}):
        rows = np.flatnonzero(category == kind)
        by_category[kind] = Slice(n=len(rows), scores=few(rows, windows - 1))
    drawn = _report(track, truth, logits, scores, curve, by_category) if report else Markup("")
    return Scored(scores, curve, by_category, last, drawn)


def _report(
    track: Track,
    truth: Truth,
    logits: np.ndarray,
    scores: Scores,
    curve: Mapping[int, Scores],
    by_category: Mapping[str, Slice],
) -> Markup:
    return fragment(
        "entry_report.html",
        __package__,
        scores=scores,
        curves=curve_charts(curve),
        slices=slice_tables({"category": by_category} if by_category else {}),
        # private labels: no segment's label may be readable from the page
        errors=errors(truth, logits, logits.shape[1] - 1) if track.labels == "public" else None,
        below=below_grid(scores, truth if track.labels == "public" else None, logits[:, -1]),
        hop_s=seconds(track.protocol.hop),
        seen_s=seconds(track.protocol.window + (logits.shape[1] - 1) * track.protocol.hop),
        at=logits.shape[1],
        level=BOOTSTRAP.level,
    )


# -- the cache ---------------------------------------------------------------------------------------------------------


def entry_key(read: Folder, track: Track, truth: Truth) -> str:
    """Cache key of an entry. The submission's hashes stand for its files: ``read_folder`` has compared them."""
    return key(read.submission.to_json(), track.name, track.signature, track.labels, truth.sha256)


def key(*parts: Any) -> str:
    """Cache key: hash of all that a result was computed from, this program included."""
    text = json.dumps([program_sha256(), astuple(BOOTSTRAP), astuple(FEW), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def program_sha256() -> str:
    """Hash of the code that scores and draws an entry: the source of every module that ``ROOTS_OF_THE_KEY`` can load,
    and the templates, styles and scripts in their packages. Other modules (training, models) do not count."""
    digest = hashlib.sha256()
    for module in imports.reachable(ROOTS_OF_THE_KEY):
        _add(digest, module, imports.source(module))
        if imports.is_package(module):
            folder = imports.path_of(module).parent
            for file in sorted([*folder.iterdir(), *folder.glob("templates/*")]):
                if file.suffix in (".html", ".css", ".js"):
                    _add(digest, f"{module} {file.name}", file.read_bytes())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)} ".encode() + content)


SCORES: TypeAdapter[Scores] = TypeAdapter(Scores)
_CURVE: TypeAdapter[dict[int, Scores]] = TypeAdapter(dict[int, Scores])
_SLICES: TypeAdapter[dict[str, Slice]] = TypeAdapter(dict[str, Slice])


def save(store: Path, name: str, scored: Scored) -> None:
    """Writes a result to the cache; ``AvbenchError`` if it cannot be written."""
    array = io.BytesIO()
    np.save(array, scored.last, allow_pickle=False)
    document = {
        "scores": SCORES.dump_python(scored.scores),
        "curve": _CURVE.dump_python(scored.curve),
        "by_category": _SLICES.dump_python(scored.by_category),
        "report": str(scored.report),
    }
    try:
        store.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(store / f"{name}.last.npy", array.getvalue())
        atomic_write_bytes(store / f"{name}.json", json.dumps(document).encode())  # last: marks it complete
    except OSError as error:
        raise AvbenchError(f"cannot write the cache {store}: {error.strerror or error}; see --cache") from error


def load(store: Path, name: str) -> Scored | None:
    """A result from the cache; None if missing or unreadable, so that it is computed again."""
    try:
        document = json.loads((store / f"{name}.json").read_bytes())
        last = np.load(store / f"{name}.last.npy", allow_pickle=False)
        return Scored(
            SCORES.validate_python(document["scores"]),
            _CURVE.validate_python({int(w): scores for w, scores in document["curve"].items()}),
            _SLICES.validate_python(document["by_category"]),
            last,
            Markup(document["report"]),  # noqa: S704 (drawn by this program from templates, cached by the user)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
