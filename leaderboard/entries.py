"""Read the entries of a leaderboard: each is checked as by ``avbench submit check``, and everything shown of it is
recomputed from its predictions. Results are cached under a hash of everything they depend on (the entry's bytes, the
track's labels, this program), so a second build of the same entries computes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from pydantic import TypeAdapter

from avbench.latency.record import LatencyRecord
from avbench.pages import charts, fragment
from avbench.pages.below_grid import below_grid
from avbench.pages.charts import Line, count_ticks
from avbench.pages.sections import curve_charts, errors, in_order, slice_tables
from avbench.protocol.laws import SHARES
from avbench.protocol.tracks import Track
from avbench.results.run import Score, Scores, Slice
from avbench.scoring import survival
from avbench.scoring.below_grid import below_grid_scores
from avbench.scoring.dynamic import (
    AVERAGED_S,
    HEADLINE,
    RECOVERED_S,
    believed_after,
    by_law,
    false_changes,
    headline_recovery,
    recovery_by_size,
    recovery_times,
)
from avbench.scoring.metrics import METRICS, Resamples
from avbench.scoring.ranking import Drawn, drawn_metric, drawn_score
from avbench.scoring.scorer import as_scores, scorer_of
from avbench.scoring.segmentation import HELD
from avbench.scoring.stats import Bootstrap, Distribution, Estimate, bootstrap_scores, estimate
from avbench.scoring.streams import Streams
from avbench.submissions.check import claim_problems, entry_of, streams_on, values
from avbench.submissions.format import (
    LATENCY_FILE,
    Folder,
    Submission,
    ValidationError,
    find_entries,
    read_folder,
    shown,
)
from avbench.submissions.tracks import Truth, known, measures, ranked_by, window_truth
from avbench.system import imports, machine
from avbench.system.atomic import atomic_write_bytes
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, each
from avbench.ticks import seconds
from avbench.types import AvbenchError

SHOWN_ALONG = ("acc", "map", "mae_s")  # metrics shown per window and per category
TILES_CHANGING = (HEADLINE, "recovery_s", "false_changes_per_h", "tracked_acc_tol1")
BY_LAW = ("recovery_s", "false_changes_per_h", "tracked_acc_tol1", "tracked_acc", "tracking_error_s")
BY_SIZE = ("recovery_s", "recovery_median_s", "recovered_within_10_s", "recovered_within_40_s")
RECOVERY_AT_S = tuple(range(0, int(AVERAGED_S) + 1, 2))
BOOTSTRAP = Bootstrap(n_resamples=1000, seed=0, level=0.95)
FEW = replace(BOOTSTRAP, n_resamples=100)  # along the windows and by category: intervals that are only indicative
FEW_ENTRIES = 8  # computed in this process; more are worth the start of others
ROOTS_OF_THE_KEY = (__name__, f"{__package__}.board", f"{__package__}.site")  # score, rank and draw the entries


class Refused(tuple[str, str]):
    """(folder below the entries' root, reason) of an entry that is not shown."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Results computed from predictions. ``curve``: window (from 1) -> scores; ``by_category``: n and scores of each;
    ``last`` (N, 21): the logits at the last window; ``drawn``: the score that ranks; ``report``: the HTML part of the
    entry's page drawn from them; ``held``: where offsets change, for how many windows the model must hold a class
    for it to be believed (see ``scoring.dynamic.headline``), and in ``recovery`` the share of changes not
    recovered from, by the seconds since."""

    scores: Scores
    curve: dict[int, Scores]
    by_category: dict[str, Slice]
    last: np.ndarray
    drawn: Drawn
    report: Markup
    held: int = HELD
    recovery: Mapping[int, Score] = field(default_factory=dict)

    @property
    def raised(self) -> bool:
        """Whether the model declares more than one false change an hour, so that it is believed less."""
        return self.held > HELD


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
    save(store, key, score(entry.track, entry.truth, entry.logits))
    return None


def score(track: Track, truth: Truth, logits: np.ndarray, report: bool = True) -> Scored:
    """Computes all that is shown of the predictions ``logits`` (N, W, 21), rows in the truth's order.

    ``report`` False: without the HTML part, for rows that have no page of their own. ``UsageError`` where the score
    that ranks is undefined.
    """
    of_its_kind = _score_changing if track.changing else _score_fixed
    return of_its_kind(track, truth, logits, report)


def _score_fixed(track: Track, truth: Truth, logits: np.ndarray, report: bool) -> Scored:
    first, last = ranked_by(track), np.ascontiguousarray(logits[:, -1])
    drawn = drawn_metric(first, last, truth.labels, truth.clusters, BOOTSTRAP)
    others = [metric for metric in METRICS if metric != first]
    estimates = bootstrap_scores(last, truth.labels, truth.clusters, BOOTSTRAP, others) | {first: drawn.estimate}
    scores = as_scores({metric: estimates[metric] for metric in METRICS})
    if truth.offsets_s is not None:
        scores |= as_scores(below_grid_scores(last, truth.offsets_s, truth.clusters, BOOTSTRAP))

    def few(rows: np.ndarray | slice, at: int) -> Scores:
        some, labels, videos = logits[rows, at], truth.labels[rows], truth.clusters[rows]
        return as_scores(bootstrap_scores(some, labels, videos, FEW, SHOWN_ALONG))

    windows = logits.shape[1]
    curve = {w: few(slice(None), w - 1) if w < windows else scores for w in count_ticks(windows)}
    by_category = {kind: Slice(n=len(rows), scores=few(rows, windows - 1)) for kind, rows in _categories(truth)}
    drawn_page = _report(track, truth, logits, scores, curve, by_category) if report else Markup("")
    return Scored(scores, curve, by_category, last, drawn, drawn_page)


def _score_changing(track: Track, truth: Truth, logits: np.ndarray, report: bool) -> Scored:
    """Of a track of offsets that change: the ``measures`` of all windows, and along the windows those of each, against
    what is so at its end."""
    found, windows = streams_on(track, truth, logits), window_truth(track, truth)
    drawn = drawn_score(*headline_recovery(found), BOOTSTRAP, most=AVERAGED_S)
    scores = scorer_of(truth, windows, track.protocol, BOOTSTRAP)(logits) | as_scores({HEADLINE: drawn.estimate})
    last = np.ascontiguousarray(logits[:, -1])
    curve = {
        w: as_scores(bootstrap_scores(logits[:, w - 1], found.labels[:, w - 1], truth.clusters, FEW, SHOWN_ALONG))
        for w in count_ticks(found.n_windows)
    }
    assert windows is not None
    by_category = {
        kind: Slice(
            n=len(rows),
            scores=scorer_of(truth.take(rows), windows.take(rows), track.protocol, FEW)(logits[rows]),
        )
        for kind, rows in _categories(truth)
    }
    scored = Scored(scores, curve, by_category, last, drawn, Markup(""), believed_after(found), _not_recovered(found))
    return replace(scored, report=_changing_report(track, truth, found, scored)) if report else scored


def _categories(truth: Truth) -> list[tuple[str, np.ndarray]]:
    """The categories that are named, in order, with the rows of each."""
    category = np.array(truth.categories)
    return [(kind, np.flatnonzero(category == kind)) for kind in in_order(set(truth.categories) - {""})]


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


def _changing_report(
    track: Track,
    truth: Truth,
    found: Streams,
    scored: Scored,
) -> Markup:
    shown, sizes = measures(track), recovery_by_size(found, FEW)
    return fragment(
        "entry_changing.html",
        __package__,
        scores=scored.scores,
        tiles=[(name, shown[name]) for name in TILES_CHANGING],
        survival=recovery_chart([recovery_line("not recovered", scored.recovery)]),
        n_changes=len(found.ranked),
        by_law=_by_law(truth, found),
        by_size=[(size, part["n"], as_scores({m: part[m] for m in BY_SIZE})) for size, part in sizes.items()],
        size_columns=[(name, shown[name]) for name in BY_SIZE],
        columns=[(name, shown[name]) for name in BY_LAW],
        curves=curve_charts(scored.curve),
        hop_s=seconds(track.protocol.hop),
        seen_s=seconds(track.protocol.window + (found.n_windows - 1) * track.protocol.hop),
        at=found.n_windows,
        declared=false_changes(found, BOOTSTRAP.level),
        held=scored.held,
        raised=scored.raised,
        level=BOOTSTRAP.level,
    )


def recovery_line(label: str, recovery: Mapping[int, Score], colour: int = 0, band: bool = True) -> Line:
    """The share of changes not yet recovered from, for ``recovery_chart``."""
    points = list(recovery.values())
    low, high = ([p.ci_low for p in points], [p.ci_high for p in points]) if band else ((), ())
    return Line(label, list(recovery), [p.value for p in points], low, high, colour)


def recovery_chart(lines: Sequence[Line]) -> Markup:
    """Shares of changes not yet recovered from, over the seconds since the change."""
    title = "share of changes not yet recovered from"
    return charts.curve(lines, title, "seconds after the change", (0.0, 1.0), x_ticks=(0, *RECOVERED_S))


def _by_law(truth: Truth, found: Streams) -> dict[str, dict[str, Any]]:
    """Law -> number of streams and main scores; in the order of the laws' shares."""
    scores = by_law(found, [law.name if law else "hold" for law in truth.laws], FEW)
    return {
        name: {"n": scores[name]["n"], "scores": as_scores({m: scores[name][m] for m in BY_LAW})}
        for name in [*SHARES, *sorted(set(scores) - set(SHARES))]
        if name in scores
    }


def _not_recovered(found: Streams) -> dict[int, Score]:
    """Seconds after a change that ranks -> the share not recovered from by then (Kaplan-Meier)."""
    times = recovery_times(found).take(found.ranked)
    videos = found.videos[found.changes.stream[found.ranked]]

    def left(limit_s: int, drawn: Resamples) -> np.ndarray:
        return 1 - survival.share_within(times, drawn, limit_s)

    estimates = {s: estimate(partial(left, s), videos, FEW, most=1.0) for s in RECOVERY_AT_S}
    return {s: Score(**e._asdict()) for s, e in estimates.items()}


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
_RECOVERY: TypeAdapter[dict[int, Score]] = TypeAdapter(dict[int, Score])


def save(store: Path, name: str, scored: Scored) -> None:
    """Writes a result to the cache; ``AvbenchError`` if it cannot be written."""
    estimate, found, n_videos = scored.drawn
    arrays = io.BytesIO()
    np.savez(
        arrays,
        allow_pickle=False,
        last=scored.last,
        drawn=np.concatenate([estimate, [found.value, n_videos]]),
        sample=found.sample,
        left_out=found.left_out,
    )
    document = {
        "scores": SCORES.dump_python(scored.scores),
        "curve": _CURVE.dump_python(scored.curve),
        "by_category": _SLICES.dump_python(scored.by_category),
        "report": str(scored.report),
        "held": scored.held,
        "recovery": _RECOVERY.dump_python(dict(scored.recovery)),
    }
    try:
        store.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(store / f"{name}.npz", arrays.getvalue())
        atomic_write_bytes(store / f"{name}.json", json.dumps(document).encode())  # last: marks it complete
    except OSError as error:
        raise AvbenchError(f"cannot write the cache {store}: {error.strerror or error}; see --cache") from error


def load(store: Path, name: str) -> Scored | None:
    """A result from the cache; None if missing or unreadable, so that it is computed again."""
    try:
        document = json.loads((store / f"{name}.json").read_bytes())
        with np.load(store / f"{name}.npz", allow_pickle=False) as arrays:
            *bounds, value, n_videos = arrays["drawn"].tolist()
            found = Distribution(value, arrays["sample"], arrays["left_out"])
            last = arrays["last"]
        return Scored(
            SCORES.validate_python(document["scores"]),
            _CURVE.validate_python({int(w): scores for w, scores in document["curve"].items()}),
            _SLICES.validate_python(document["by_category"]),
            last,
            Drawn(Estimate(*bounds), found, int(n_videos)),
            Markup(document["report"]),  # noqa: S704 (drawn by this program from templates, cached by the user)
            int(document["held"]),
            _RECOVERY.validate_python({int(s): share for s, share in document["recovery"].items()}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return None
