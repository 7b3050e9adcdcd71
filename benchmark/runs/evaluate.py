"""One evaluation, from a model's name to a result and its files: what ``avbench run`` does."""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench import __version__
from avbench.baselines.trivial import TRIVIAL
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.pages.causes import causes, nothing_scored
from avbench.pages.run_report import Read, write_report
from avbench.pages.sections import CURVES
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol, usual
from avbench.protocol.signature import Signature
from avbench.registry.facts import model_facts, whole_fingerprint
from avbench.registry.loading import load_all, load_plain_head
from avbench.registry.names import check_files, resolve, resolve_object, without_folders
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.results.dynamic_truth import TRUTH_FILE, WindowTruth, write_truth
from avbench.results.excerpts import remove_cuts
from avbench.results.predictions import write_predictions
from avbench.results.run import (
    PREDICTIONS_FILE,
    RUN_FILE,
    SEGMENTS_FILE,
    DataInfo,
    FileRef,
    Latency,
    RecoveryStep,
    ReferenceRow,
    RunResult,
    check_earlier_run,
    check_run_folder,
    write_run,
)
from avbench.results.truth import Truth, write_segments
from avbench.runs.changing import check_changing, what_changed
from avbench.runs.run_clips import STAGE, Source, cut_clips, wanted_by_default
from avbench.runs.shown import Evaluation
from avbench.scoring.pairwise import pair_scores
from avbench.scoring.scorer import Scorer, scorer_of
from avbench.scoring.stats import DEFAULT, Bootstrap
from avbench.system.cache import writable
from avbench.system.devices import check_device
from avbench.system.facts import run_facts
from avbench.system.in_python import in_python
from avbench.system.outputs import claim
from avbench.system.paths import as_file_name
from avbench.system.progress import Progress, of_stage
from avbench.ticks import seconds
from avbench.types import AvbenchError, FailedSegmentsWarning, SnapshotPredictor, UsageError

ONE_PROCESS = (
    "the model is an object of this process, which alone computes it; to use several processes pass a function that "
    "makes it, defined in a module (it must be picklable)"
)
HIDDEN_LABELS = "the labels of this data are hidden: the predictions are written; maintainers score them"
ON_FAILURE = ("warn", "raise", "keep")
CLASSICAL = "xcorr"  # the row that every learned model should beat
# rows shown beside a result: (row, head on the same backbone, label, selection)
SAME_BACKBONE = (
    ("apa", "apa", "same, APA", "final"),
    ("apa-sliding", "apa-sliding", "same, sliding APA", "final"),
    ("apa-decay", "apa-decay", "same, decaying APA", "final"),
    ("one-window", "none", "same, one window", "best_iter"),
)
CURVED = ("same, APA", "same, one window")  # of these rows the page draws the curve too
SAME_BACKBONE_CHANGING = (
    *SAME_BACKBONE[:3],
    ("bayes", "bayes", "same, Bayes filter", "final"),
    ("cusum", "cusum", "same, APA that starts anew", "final"),
    ("one-window", "none", "same, one window", "final"),
)


def evaluate(  # noqa: PLR0913  (the options of `avbench run`; what belongs together is bundled)
    model: str | SnapshotPredictor | Callable[..., SnapshotPredictor],
    data: str = "synthsync",
    split: str = "test",
    limit: int | None = None,
    protocol: Protocol | Callable[[bool], Protocol] | None = None,
    out: Path | str | None = None,
    compute: Compute | None = None,
    bootstrap: Bootstrap | None = None,
    reference_rows: bool = True,
    options: ModelOptions | None = None,
    progress: Progress | None = None,
    head: str = "",
    force: bool = False,
    media: bool | None = None,
    *,
    hop_s: float | None = None,
    iterations: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    weights: Path | str | None = None,
    head_weights: Path | str | None = None,
    on_failure: str = "warn",
) -> Evaluation:
    """Evaluate ``model`` on a split and write ``run.json``, ``predictions.parquet``, ``segments.parquet`` and the page
    ``run.html`` into ``out``, with clips of the worst and the surest segments in ``run-clips/``.

    ``model``: a name of ``avbench models`` or ``file.py:Class[+head]``; or an object, which this process alone
    computes; or a class or function that makes one, which worker processes call too if it can be pickled. ``head``: the
    name of a head, for a model given without one. ``data``: any ``--data``. ``limit``: only the first segments.
    ``compute``: store, workers, device, batch size. ``bootstrap``: resamples, seed (also of the random row) and level
    of the intervals. ``model_args``: arguments for the constructor of the model's class, as in ``{"width": 128}``.
    ``weights``, ``head_weights``: files. ``options``: these three, and what else can be asked of a model (random
    weights, precision); what is given beside it counts. ``progress(stage, done, total, item)``.
    ``force``: replace what ``out`` holds; without it only an earlier run with the same signature is, of which nothing
    is left out: as many resamples, the same seed, its reference rows. ``media``: whether
    to cut the clips (None: unless the environment variable AVBENCH_NO_MEDIA is set); none are cut where labels are
    hidden.

    The protocol: ``hop_s``, seconds between the starts of windows (2 if None), and ``iterations``, windows per segment
    (18 if None, 48 where offsets change), as in ``evaluate("xcorr", hop_s=4, iterations=8)``. Or, in place of both,
    ``protocol``: one made by ``avbench.streaming``, ``avbench.protocol.paper`` or ``avbench.protocol.rules.dynamic``,
    or a function that picks one given whether offsets change.

    Segments too short for the protocol are listed as ``unsupported``; segments that failed as ``failures``, and the
    result is then ``incomplete``. ``on_failure``: what else happens then, after all files are written. "warn": a
    ``FailedSegmentsWarning``, but ``AvbenchError`` if no segment could be scored (as in scikit-learn, where fits that
    failed are a FitFailedWarning, and an error if all did); "raise": ``AvbenchError`` if a single one failed; "keep":
    nothing. Where the data hide their labels (a blind track) the predictions are written and all scores are null, with
    a warning among the result's ``warnings``. ``UsageError`` for an impossible request; ``AvbenchError`` if ``out`` or
    the store cannot be used.
    """
    started = datetime.now(UTC)
    if on_failure not in ON_FAILURE:
        raise UsageError(f"on_failure is {on_failure!r}; it must be one of {', '.join(ON_FAILURE)}")
    protocol = _asked(protocol, hop_s, iterations)
    options = _options(options, model_args, weights, head_weights)
    compute, bootstrap = compute or Compute(), bootstrap or DEFAULT
    media = wanted_by_default() if media is None else media
    if out:
        check_run_folder(Path(out), force)
    session, loaded, protocol, beside = _open(
        _resolver(model, head, options), data, split, limit, protocol, compute, bootstrap, reference_rows, progress
    )
    hidden = session.manifest.labels_hidden
    fingerprint = whole_fingerprint(loaded, session.fingerprint(loaded))
    signature = Signature.of(protocol, fingerprint, session.manifest.sha256, __version__, loaded.computed())
    if out and not force:
        check_earlier_run(Path(out), str(signature), bootstrap.n_resamples, bootstrap.seed, bool(beside))
    folder = writable(Path(out), f"--out{in_python('--out')}") if out else claim(default_out(loaded.name))
    session.compute()

    truth = session.truth(protocol)
    logits = session.predictions(loaded, protocol)
    windows = WindowTruth.of(session.segments(protocol), protocol) if protocol.name == "dynamic" else None
    score = scorer_of(truth.take([]) if hidden else truth, windows, protocol, bootstrap)  # no labels, no scores
    rows = _reference_rows(loaded, session, score, protocol) if beside and len(truth) else []
    note = _weights_note(loaded, session.manifest)
    result = RunResult(
        avbench_version=__version__,
        signature=str(signature),
        protocol=protocol,
        model=model_facts(loaded, fingerprint, note),
        data=_data_info(session.manifest, split),
        scores=score(logits, protocol.selection),
        slices=score.slices(logits, protocol.selection),
        curve=score.curve(logits),
        **what_changed(score, session, loaded, protocol, logits),
        pairs=[] if hidden else pair_scores(session.segments(protocol), logits, bootstrap),
        rows=rows,
        warnings=[*_warnings(session, loaded, note, hidden), *_too_short(session, protocol)],
        absent_classes=[] if hidden else _absent_classes(truth, protocol),
        environment=run_facts(compute.device, session.workers),
        seed=bootstrap.seed,
        n_resamples=bootstrap.n_resamples,
        level=bootstrap.level,
        files=_write_files(folder, truth, windows, (logits, session.alarms(loaded, protocol)), hidden),
        created=started.isoformat(timespec="seconds"),
        **_what_happened(session, protocol, loaded),
    )
    write_run(result, folder)
    told = Read(None if hidden else truth, logits, None if hidden else windows, session.alarms(loaded, protocol))
    if media and loaded.backbone is not None:  # what only guesses has seen nothing
        cut_clips(folder, result, told, _source(session, loaded))
    else:
        remove_cuts(folder)
    write_report(result, folder, *told)
    _tell_failures(result, folder, on_failure)
    return Evaluation.of(result, folder)


def open_share(  # noqa: PLR0913  (as of evaluate)
    model: str,
    data: str = "synthsync",
    split: str = "test",
    limit: int | None = None,
    protocol: Protocol | Callable[[bool], Protocol] | None = None,
    compute: Compute | None = None,
    reference_rows: bool = True,
    options: ModelOptions | None = None,
    progress: Progress | None = None,
) -> Session:
    """A session whose ``compute`` makes the snapshots of one share (``compute.share``) of what :func:`evaluate` needs
    with the same arguments, and nothing else. Errors as there."""
    asked = _resolver(model, "", options or ModelOptions())
    session, *_ = _open(asked, data, split, limit, protocol, compute or Compute(), DEFAULT, reference_rows, progress)
    return session


def _asked(
    protocol: Protocol | Callable[[bool], Protocol] | None, hop_s: float | None, iterations: int | None
) -> Protocol | Callable[[bool], Protocol] | None:
    """The protocol, or what picks one by ``hop_s`` and ``iterations``. ``UsageError`` if both are given."""
    asked = (("hop_s", hop_s), ("iterations", iterations))
    given: dict[str, Any] = {name: value for name, value in asked if value is not None}
    if protocol is not None and given:
        made = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise UsageError(
            f"{' and '.join(given)} cannot be given beside protocol, which has its own: leave protocol out, or pass "
            f"protocol=avbench.streaming({made})"
        )
    if hop_s is not None and not (isinstance(hop_s, Real) and math.isfinite(hop_s)):
        raise UsageError(f"hop_s is {hop_s!r}; it must be a positive multiple of 0.04 s (one frame)")
    return partial(usual, **given) if given else protocol


def _options(
    options: ModelOptions | None,
    model_args: Mapping[str, Any] | None,
    weights: Path | str | None,
    head_weights: Path | str | None,
) -> ModelOptions:
    """``options`` with what is given beside it. ``UsageError`` if ``model_args`` is no dict."""
    if not isinstance(model_args, Mapping | None):
        raise UsageError(f'model_args is {model_args!r}; it must be a dict, as in {{"width": 128}}')
    given: dict[str, Any] = {} if model_args is None else {"model_args": model_args}
    given |= {} if weights is None else {"weights": Path(weights)}
    given |= {} if head_weights is None else {"head_weights": Path(head_weights)}
    return replace(options or ModelOptions(), **given)


def _tell_failures(result: RunResult, folder: Path, on_failure: str) -> None:
    """Raises or warns if segments failed, as ``on_failure`` of :func:`evaluate` says: how many, the first cause, and
    what to do about it."""
    if not result.failures or on_failure == "keep":
        return
    first, *others = causes(result.failures, result.data.names)
    also = f", and {len(others)} other cause{'s' * (len(others) > 1)}" if others else ""
    why = nothing_scored(result)
    said = why or f"{len(result.failures)} of {result.n_total} segments failed and are not scored"
    mend = "mend the model" if first.of_model else "`avbench data verify` checks the media"
    text = f"{said}: {first}{also}; {mend}, and see `failures` in {folder / RUN_FILE}"
    if why or on_failure == "raise":
        raise AvbenchError(text)
    warnings.warn(text, FailedSegmentsWarning, stacklevel=3)


def _source(session: Session, model: StreamingModel) -> Source:
    """Where the clips of the page come from. A model of this process alone had its media decoded here, too."""
    manifest, here_only = session.manifest, model.load_backbone is None
    report = of_stage(session.progress, STAGE)
    return Source(manifest, manifest.kind != "synthetic" and not here_only, session.workers, report)


class _Opened(NamedTuple):
    """A session that knows what is needed, the loaded model, the protocol, and whether rows stand beside it."""

    session: Session
    model: StreamingModel
    protocol: Protocol
    beside: bool


def _open(  # noqa: PLR0913  (as of evaluate)
    resolver: Callable[[str], StreamingModel],
    data: str,
    split: str,
    limit: int | None,
    protocol: Protocol | Callable[[bool], Protocol] | None,
    compute: Compute,
    bootstrap: Bootstrap,
    reference_rows: bool,
    progress: Progress | None,
) -> _Opened:
    choose = protocol if callable(protocol) else (lambda changing: protocol or usual(changing))
    _check_request(choose(False), limit, bootstrap, check_device(compute.device))
    # a wrong name or a missing file is reported before any clip is made
    resolved = resolver(compute.device)
    session = Session.open(data, split, limit, compute, bootstrap.seed, progress)
    chosen = choose(session.manifest.changing)
    _check_data(session, chosen, resolved.name)
    beside = reference_rows and not session.manifest.labels_hidden
    loaded, *classical = load_all([resolved, *([resolve(CLASSICAL)] if beside else [])], compute.device)
    for needed in (loaded, *(classical if loaded.backbone is not None else ())):
        session.need(needed, chosen)
    return _Opened(session, loaded, chosen, beside)


def _resolver(model: Any, head: str, options: ModelOptions) -> Callable[[str], StreamingModel]:
    """What resolves the model, once it is known on which device it runs."""
    return lambda device: _resolved(model, head, options.made_quick(device))


def _resolved(model: Any, head: str, options: ModelOptions) -> StreamingModel:
    if not isinstance(model, str):
        return resolve_object(model, head, options)
    name = f"{model}+{head}" if head else model
    found = resolve(name, options)
    check_files(name, options)  # it may take minutes to make the clips that a mistyped class would not see
    return found


def default_out(model: str) -> Path:
    """runs/DATE-MODEL, to be claimed: see :func:`avbench.system.outputs.claim`."""
    slug = as_file_name(without_folders(model), "-", ".+-").strip("-.") or "model"
    return Path("runs") / f"{datetime.now(UTC):%Y-%m-%d}-{slug}"


def _reference_rows(model: StreamingModel, session: Session, score: Scorer, protocol: Protocol) -> list[ReferenceRow]:
    """The rows beside the result: the same backbone's other heads, the classical row, the trivial ones."""
    rows: list[ReferenceRow] = []
    same_backbone = SAME_BACKBONE if protocol.name != "dynamic" else SAME_BACKBONE_CHANGING

    def add(name: str, label: str, logits: np.ndarray, selection: str = "final", note: str = "") -> None:
        scores, curve = score(logits, selection), score.values(logits, CURVES) if label in CURVED else []
        rows.append(
            ReferenceRow(
                name=name,
                label=label,
                selection=selection,
                n=len(score.truth),
                scores=scores,
                note=note,
                recovery=[RecoveryStep(**step) for step in score.recovery(logits)],
                curve=curve,
            )
        )

    if model.backbone is not None:
        for name, head, label, selection in same_backbone:
            if head != model.head_name or selection != protocol.selection:
                logits = session.replay(model.backbone_name, load_plain_head(head), protocol)
                add(name, label, logits, selection, "best iteration" if selection == "best_iter" else "")
        if model.backbone_name != CLASSICAL:
            for head, name in (("none", CLASSICAL), ("apa", f"{CLASSICAL}+apa")):
                add(
                    name,
                    name,
                    session.replay(CLASSICAL, load_plain_head(head), protocol),
                    note="classical, no learning",
                )
    for name, trivial in TRIVIAL.items():
        if name != model.name:
            add(
                name,
                trivial.label,
                trivial.predict(session.segments(protocol), session.manifest, protocol, session.seed),
            )
    return rows


# -- facts about a run -------------------------------------------------------------------------------------------------


def _check_request(protocol: Protocol, limit: int | None, bootstrap: Bootstrap, device: str) -> None:
    if not isinstance(protocol, Protocol):
        raise UsageError(f"protocol is {protocol!r}; pass avbench.protocol.streaming(...) or .paper(...)")
    if protocol.selection == "any_hit":
        raise UsageError(
            "selection any_hit defines accuracy only: use avbench.scoring.selection.any_hit on a run's predictions"
        )
    for name, value in (("limit", limit), ("n_resamples", bootstrap.n_resamples)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")


def _check_data(session: Session, protocol: Protocol, model: str) -> None:
    check_changing(session.manifest, protocol)
    if not session.supported(protocol):
        raise UsageError(_no_support(session.manifest, protocol))
    if session.manifest.labels_hidden and model == "oracle":
        raise UsageError(f"model {model} needs the labels, but those of {session.manifest.name} are hidden")


def _no_support(manifest: Manifest, protocol: Protocol) -> str:
    if not max(clip.duration for clip in manifest.clips.values()):
        return f"{manifest.name} was imported without media, so its clips' lengths are unknown; re-import with --media"
    longest = most_windows(manifest, protocol, any)
    hop_s = seconds(protocol.hop)
    fitting = f"--iterations {longest}"
    advice = f"the longest fits {longest}: try {fitting}{in_python(fitting)}" if longest else "not even one window fits"
    return (
        f"none of the {len(manifest.segments)} segments of {manifest.name} is long enough for {protocol.iterations} "
        f"windows at hop {hop_s:g} s ({protocol.name} protocol); {advice}"
    )


def most_windows(manifest: Manifest, protocol: Protocol, of: Callable[[Iterable[bool]], bool]) -> int:
    """The most windows, up to those of the protocol, for which any or all (``of``) segments are long enough; 0 if not
    even one window fits."""

    def fits(iterations: int) -> bool:
        shorter = replace(protocol, iterations=iterations)
        return of(shorter.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)

    clip = max(manifest.clips.values(), key=lambda c: c.duration)
    most = min(protocol.iterations, clip.duration // protocol.hop + 1)  # no clip is long enough for more
    return bisect.bisect_left(range(1, most + 1), True, key=lambda n: not fits(n))


def _too_short(session: Session, protocol: Protocol) -> list[str]:
    """A note on the segments that are too short, with what would score them; none if there are none."""
    manifest = session.manifest
    n, of = len(manifest.segments) - len(session.supported(protocol)), len(manifest.segments)
    if not n:
        return []
    which = f"{n} of {of} segments {'is' if n == 1 else 'are'} too short"
    told = f"{which} for {protocol.iterations} windows at hop {seconds(protocol.hop):g} s and not scored"
    if most := most_windows(manifest, protocol, all):
        return [f"{told}; --iterations {most} scores all{in_python(f'--iterations {most}')}"]
    one = replace(protocol, iterations=1)
    fit = sum(one.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)
    if fit <= of - n:
        return [f"{told}; no window fits in them"]
    return [f"{told}; --iterations 1 scores {fit}{in_python('--iterations 1')}"]


def _data_info(manifest: Manifest, split: str) -> DataInfo:
    return DataInfo(
        name=manifest.name,
        split=split,
        manifest_sha256=manifest.sha256,
        n_clips=len(manifest.clips),
        note=manifest.note,
        labels="hidden" if manifest.labels_hidden else "public",
        names=manifest.names,
    )


def _what_happened(session: Session, protocol: Protocol, model: StreamingModel) -> dict[str, Any]:
    """The fields of a result that say what was scored, what was not, and what it cost."""
    supported = {s.id for s in session.supported(protocol)}
    ms_per_step = session.ms_per_snapshot.get(model.backbone_name)
    return {
        "n_scored": len(session.segments(protocol)),
        "n_total": len(session.manifest.segments),
        "failures": session.failures,
        "unsupported": [s.id for s in session.manifest.segments if s.id not in supported],
        "incomplete": bool(session.failures),
        "latency": None if ms_per_step is None else Latency(ms_per_step=ms_per_step),
        "counters": dict(sorted(session.counters.items())),
        "spent": session.spent if session.counters["snapshots_computed"] else None,
    }


def _absent_classes(truth: Truth, protocol: Protocol) -> list[int]:
    present = set(truth.labels.tolist())
    return [c for c in range(protocol.grid.n_classes) if c not in present]


def _warnings(session: Session, model: StreamingModel, note: str, hidden: bool) -> list[str]:
    here_only = ONE_PROCESS if model.backbone is not None and model.load_backbone is None else ""
    said = [note, here_only, _other_backbone(model, session), HIDDEN_LABELS if hidden else ""]
    return [*session.warnings, *(text for text in said if text)]


def _write_files(
    folder: Path,
    truth: Truth,
    windows: WindowTruth | None,
    predicted: tuple[np.ndarray, np.ndarray | None],
    hidden: bool,
) -> dict[str, FileRef]:
    """Predictions and labels, where offsets change also those of every window; a file of an earlier run that has no
    counterpart is removed: it would be taken for this run's."""
    files = {}
    if len(truth):
        sha256 = write_predictions(folder / PREDICTIONS_FILE, truth.segment_ids, *predicted)
        files["predictions"] = FileRef(path=PREDICTIONS_FILE, sha256=sha256)
        if not hidden:
            files["segments"] = FileRef(path=SEGMENTS_FILE, sha256=write_segments(folder / SEGMENTS_FILE, truth))
        if not hidden and windows is not None:
            files["truth"] = FileRef(path=TRUTH_FILE, sha256=write_truth(folder / TRUTH_FILE, windows))
    for name, path in (("predictions", PREDICTIONS_FILE), ("segments", SEGMENTS_FILE), ("truth", TRUTH_FILE)):
        if name not in files:
            (folder / path).unlink(missing_ok=True)
    return files


def _other_backbone(model: StreamingModel, session: Session) -> str:
    """A note if the head's file names another backbone than the one it is used with; "" otherwise."""
    trained, here = getattr(model.head, "backbone_fingerprint", ""), session.fingerprint(model)
    if not trained or trained == here:
        return ""
    return f"the head was trained on snapshots of another backbone (fingerprint {trained[:12]}, here {here[:12]})"


def _weights_note(model: StreamingModel, manifest: Manifest) -> str:
    if model.random_seed is not None:
        return f"RANDOM WEIGHTS (seed {model.random_seed}): these scores mean nothing"
    if not model.embedded or manifest.kind == "synthetic":
        return ""
    return "the embedded weights were trained on procedural clips (SynthSync); on other media their scores mean little"
