"""One evaluation, from a model's name to a result: data, plan, snapshots, replay, metrics, files. What `run` does."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench import __version__, machine
from avbench.baselines.trivial import TRIVIAL
from avbench.protocol import Protocol, streaming
from avbench.registry import ModelOptions, StreamingModel, check_device, load, load_plain_head, load_xcorr, resolve
from avbench.ticks import seconds
from avbench.types import AvbenchError, SegmentRecord, SnapshotPredictor, UsageError

if TYPE_CHECKING:
    from avbench.manifest import Manifest
    from avbench.results import RunResult
    from avbench.store import SnapshotStore

Progress = Callable[[str, int, int, str], None]  # stage, done, total, item

LEVEL = 0.95
AUTO_BATCH = 32  # windows a call to begin with; the runner halves it when memory runs out
CURVE_RESAMPLES = 300  # the intervals along a curve are for looking at; the last point has the full number
PREDICTIONS = "predictions.parquet"
HIDDEN_LABELS = "the labels of this data are hidden: the predictions are written, whoever has the labels can score them"
# what may stand beside a result: (row, head on the same backbone, label, selection)
SAME_BACKBONE = (
    ("apa", "apa", "same, APA", "final"),
    ("apa-sliding", "apa-sliding", "same, sliding APA", "final"),
    ("apa-decay", "apa-decay", "same, decaying APA", "final"),
    ("one-window", "none", "same, one window", "best_iter"),
)


def evaluate(
    model: str,
    data: str = "synthsync",
    split: str = "test",
    limit: int | None = None,
    protocol: Protocol | None = None,
    out: Path | str | None = None,
    store: Path | str | None = None,
    seed: int = 0,
    workers: int | None = None,
    batch_size: int | None = 1,
    reference_rows: bool = True,
    n_resamples: int = 1000,
    progress: Progress | None = None,
    device: str = "cpu",
    options: ModelOptions | None = None,
) -> RunResult:
    """Evaluate ``model`` on a split and write ``run.json``, ``predictions.parquet``, ``segments.parquet`` and the page
    ``run.html`` into ``out``.

    ``model``: a registry name or ``file.py:Class[+head]``. ``data``: a SynthSync name or a manifest folder. ``limit``:
    only the first segments. ``protocol``: :func:`avbench.protocol.streaming` if None. ``store``: a folder, the user's
    cache if None. ``seed``: of the bootstrap and of the random row. ``workers``: decoding processes (None: one per
    core, one where an accelerator computes). ``batch_size``: windows per call on an accelerator (None: as many as its
    memory holds). ``options``: weight files, random weights, precision. ``progress(stage, done, total, item)``.

    Segments too short for the protocol are listed as ``unsupported``; segments that failed as ``failures``, and the
    result is then ``incomplete``. Where the data hide their labels (a blind track) the predictions are written and no
    score is: all are null, with a warning. ``UsageError``: an impossible request; ``AvbenchError``: out or store not
    usable.
    """
    from avbench.pages.run_report import write_report
    from avbench.results import (
        SEGMENTS_FILE,
        DataInfo,
        Failure,
        FileRef,
        Latency,
        RunResult,
        answers_of,
        write_predictions,
        write_run,
        write_segments,
    )
    from avbench.store import SnapshotStore

    started = datetime.now(UTC)
    protocol = protocol or streaming()
    _check_request(protocol, limit, n_resamples, batch_size, workers, seed)
    device = check_device(device)
    on_cpu = device.startswith("cpu")
    options = replace(options or ModelOptions(), quick=on_cpu)
    resolved = resolve(model, options)  # a wrong name, or a file that is not there, is said before any clip is made
    manifest = read_data(data, split, progress, limit)
    supported = [s for s in manifest.segments if protocol.supports(s, manifest.clips[s.clip_id])]
    if not supported:
        raise UsageError(_no_support(manifest, protocol))
    supported_ids = {s.id for s in supported}
    hidden = manifest.labels_hidden
    if hidden and model == "oracle":
        raise UsageError(f"model {model} says the labels, and those of {manifest.name} are hidden")
    loaded = load(resolved, device)
    # an accelerator is one process's: several would each hold the model in its memory
    workers = workers or (default_workers([loaded]) if on_cpu else 1)
    snapshots = _Snapshots(manifest, supported, protocol, workers, device)
    if loaded.backbone is not None:
        snapshots.need(loaded.backbone_name, loaded.backbone, loaded.load_backbone)
        if reference_rows and not hidden and loaded.backbone_name != "xcorr":
            snapshots.need("xcorr", load_xcorr(), load_xcorr)
    fingerprint = whole_fingerprint(loaded, snapshots.fingerprint(loaded.backbone_name))
    signature = "|".join(
        (
            protocol.signature(),
            f"m:{fingerprint[:12]}",
            *loaded.computed(),
            f"d:{manifest.sha256[:12]}",
            f"v{__version__}",
        )
    )
    folder = writable(Path(out) if out else default_out(model), "--out")
    if loaded.backbone is not None:
        snapshots.compute(SnapshotStore(store or default_store()), batch_size or AUTO_BATCH, progress)

    segments = snapshots.scored
    score = _Scorer([] if hidden else segments, n_resamples, seed)
    logits = np.empty((0, protocol.iterations, protocol.grid.n_classes), np.float32)
    rows, files = [], {}
    if segments:
        if loaded.backbone is None:
            logits = TRIVIAL[loaded.name][1](segments, manifest, protocol.iterations, seed)
        else:
            logits = snapshots.replay(loaded.backbone_name, loaded.head)
        if reference_rows and not hidden:
            rows = _reference_rows(loaded, manifest, snapshots, score, protocol, seed)
        sha256 = write_predictions(folder / PREDICTIONS, [s.id for s in segments], logits)
        files = {"predictions": FileRef(path=PREDICTIONS, sha256=sha256)}
        if not hidden:
            sha256 = write_segments(folder / SEGMENTS_FILE, segments)
            files["segments"] = FileRef(path=SEGMENTS_FILE, sha256=sha256)
    for name, path in (("predictions", PREDICTIONS), ("segments", SEGMENTS_FILE)):
        if name not in files:  # an older file would be taken for this run's
            (folder / path).unlink(missing_ok=True)
    present = {s.offset_class for s in segments}
    note = _weights_note(loaded, manifest)
    other = _other_backbone(loaded, snapshots)
    warnings = [
        *snapshots.warnings,
        *([note] if note else []),
        *([other] if other else []),
        *([HIDDEN_LABELS] if hidden else []),
    ]
    result = RunResult(
        avbench_version=__version__,
        signature=signature,
        protocol=json.loads(json.dumps(asdict(protocol))),
        model=model_facts(loaded, fingerprint, note),
        data=DataInfo(
            name=manifest.name,
            split=split,
            manifest_sha256=manifest.sha256,
            n_clips=len(manifest.clips),
            note=manifest.note,
            labels="hidden" if hidden else "public",
        ),
        n_scored=len(segments),
        n_total=len(manifest.segments),
        scores=score(logits, protocol.selection),
        slices=score.slices(logits, protocol.selection),
        curve=score.curve(logits),
        rows=rows,
        failures=[Failure(segment_id=f.segment_id, clip_id=f.clip_id, reason=f.reason) for f in snapshots.failures],
        unsupported=[s.id for s in manifest.segments if s.id not in supported_ids],
        warnings=warnings,
        absent_classes=[c for c in range(protocol.grid.n_classes) if c not in present and not hidden],
        incomplete=bool(snapshots.failures),
        latency=None if snapshots.ms_per_step is None else Latency(ms_per_step=snapshots.ms_per_step),
        counters=snapshots.counters,
        environment=_environment(device, snapshots.workers),
        seed=seed,
        n_resamples=n_resamples,
        level=LEVEL,
        files=files,
        created=started.isoformat(timespec="seconds"),
    )
    write_run(result, folder)
    write_report(result, folder, None if hidden else answers_of(segments), logits)
    return result


def read_data(
    data: str, split: str | None = "test", progress: Progress | None = None, limit: int | None = None
) -> Manifest:
    """The manifest that ``data`` names: a SynthSync name (its clips are made if they are not there), a track's name, a
    folder, or ``hub:ORG/NAME@COMMIT`` (pulled if it is not there).

    ``split`` None: all of a folder, the test split of SynthSync. ``UsageError`` for an unknown name or split.
    """
    from avbench.data import synthsync
    from avbench.manifest import read_manifest
    from avbench.submissions.tracks import DATA_OF_TRACK

    if data in DATA_OF_TRACK:
        data, split = DATA_OF_TRACK[data]
    if data in synthsync.NAMES:
        tell = (lambda done, total, item: progress("making clips", done, total, item)) if progress else None
        manifest = synthsync.ensure(data, "test" if split is None else split, progress=tell)
    elif not data.startswith("hub:") and os.sep not in data and not Path(data).exists():
        raise UsageError(f"unknown data {data!r}: it is neither {', '.join(synthsync.NAMES)} nor a manifest folder")
    else:
        if data.startswith("hub:"):
            from avbench.data.hub import open_address

            fetching = (lambda done, total, item: progress("fetching data", done, total, item)) if progress else None
            manifest = open_address(data, fetching)
        else:
            folder = Path(data)
            inputs = folder / "inputs"  # of a redrawn set: its labels lie beside them
            manifest = read_manifest(folder if (folder / "manifest.json").exists() or not inputs.is_dir() else inputs)
        manifest = manifest if split is None else manifest.split(split)
    if not manifest.segments:
        raise UsageError(f"{data} has no segments in split {split!r}")
    return manifest if limit is None else manifest.limit(limit)


def default_out(model: str) -> Path:
    """runs/DATE-MODEL, with a number behind it if there already is a run of that name."""
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "-", model.rpartition("/")[2]).strip("-.")
    base = Path("runs") / f"{datetime.now(UTC):%Y-%m-%d}-{slug}"
    numbered = (base.with_name(f"{base.name}-{n}") for n in itertools.count(2))
    return next(f for f in itertools.chain([base], numbered) if not (f / "run.json").exists())


def default_store() -> Path:
    """The user's store: ``store`` in $AVBENCH_CACHE, or in avbench's folder of the platform's cache."""
    from avbench.data.synthsync import cache_root

    return cache_root() / "store"


# -- snapshots ---------------------------------------------------------------------------------------------------------


class _Snapshots:
    """The stored snapshots of some backbones on the supported segments, and what it took to get them."""

    def __init__(
        self, manifest: Manifest, supported: Sequence[SegmentRecord], protocol: Protocol, workers: int, device: str
    ) -> None:
        self.manifest, self.supported, self.protocol = manifest, supported, protocol
        self.workers, self.device = workers, device
        self.store: SnapshotStore | None = None
        self.failures: list[Any] = []
        self.warnings: list[str] = []
        self.counters: dict[str, int] = {}
        self.ms_per_step: float | None = None
        self._fingerprints: dict[str, str] = {}
        self._factories: dict[str, Callable[[], SnapshotPredictor]] = {}
        self._gathered: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}

    def need(self, name: str, backbone: SnapshotPredictor, factory: Callable[[], SnapshotPredictor] | None) -> None:
        """Ask for a backbone; the first one asked for is the model that is evaluated."""
        from avbench.fingerprint import model_fingerprint

        assert factory is not None
        self._fingerprints[name] = model_fingerprint(backbone)
        self._factories[name] = factory

    def fingerprint(self, name: str) -> str:
        """Of a backbone asked for; a trivial model has none and is its name."""
        return self._fingerprints.get(name, name)

    def compute(self, store: SnapshotStore, batch_size: int, progress: Progress | None) -> None:
        """Fill the store with what it lacks: one pass over the clips for all backbones."""
        from avbench.runner import compute

        self.store = store
        tell = (lambda done, total, item: progress("decoding and snapshots", done, total, item)) if progress else None
        report = compute(
            replace(self.manifest, segments=tuple(self.supported)),
            [self.protocol],
            self._factories,
            store,
            workers=self.workers,
            batch_size=batch_size,
            device=self.device,
            progress=tell,
        )
        for name, fingerprint in report.fingerprints.items():
            if fingerprint != self._fingerprints[name]:
                raise UsageError(f"model {name} is another one each time it is made (unseeded weights?)")
        self.failures, self.warnings = report.failures, report.warnings
        self.counters = dict(sorted(report.counters.items()))
        self.ms_per_step = report.ms_per_snapshot(next(iter(self._factories)))

    @property
    def scored(self) -> list[SegmentRecord]:
        """The supported segments that did not fail, in the manifest's order."""
        failed = {failure.segment_id for failure in self.failures}
        return [s for s in self.supported if s.id not in failed]

    def replay(self, backbone: str, head: Any) -> np.ndarray:
        """Streaming predictions (N, W, 21) float32 of ``head`` on the scored segments."""
        from avbench.replay import gather, replay

        assert self.store is not None
        if backbone not in self._gathered:
            fingerprint = self._fingerprints[backbone]
            self._gathered[backbone] = gather(self.store, self.manifest.clips, self.scored, self.protocol, fingerprint)
        return replay(head, *self._gathered[backbone], seconds(self.protocol.hop))


# -- scores ------------------------------------------------------------------------------------------------------------


class _Scorer:
    """Scores with intervals over the same resampled videos for every row."""

    def __init__(self, segments: Sequence[SegmentRecord], n_resamples: int, seed: int) -> None:
        self.segments, self.n_resamples, self.seed = segments, n_resamples, seed
        self.labels = np.array([s.offset_class for s in segments], np.int64)
        self.clusters = np.array([s.video_id for s in segments])
        self.few = min(n_resamples, CURVE_RESAMPLES)

    def __call__(self, logits: np.ndarray, selection: str = "final") -> dict[str, Any]:
        """``logits`` (N, W, 21) -> metric -> score, at the iteration that ``selection`` picks (for each metric)."""
        from avbench.metrics import METRICS, score
        from avbench.replay import selected_iteration

        if not self.segments:
            return self._none()
        if selection == "final":
            return self._bootstrap(logits[:, -1])
        values = [score(logits[:, i], self.labels) for i in range(logits.shape[1])]
        chosen = {}
        for name, metric in METRICS.items():
            by_iteration = [v[name] for v in values]
            defined = np.isfinite(by_iteration).any()
            best = selected_iteration(selection, by_iteration, metric.higher_is_better) if defined else -1
            chosen[name] = self._bootstrap(logits[:, best], metrics=[name])[name]
        return chosen

    def curve(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """One score map per iteration; fewer resamples than the last one, which is the score itself."""
        if not self.segments:
            return []
        return [self._bootstrap(logits[:, i], self.few) for i in range(logits.shape[1])]

    def slices(self, logits: np.ndarray, selection: str) -> dict[str, dict[str, Any]]:
        """By category and by channel, where the manifest names any."""
        from avbench.results import Slice

        out: dict[str, dict[str, Any]] = {}
        for kind in ("category", "channel"):
            names = [getattr(s, kind) for s in self.segments]
            for name in sorted(set(names) - {""}):
                rows = [i for i, n in enumerate(names) if n == name]
                part = _Scorer([self.segments[i] for i in rows], self.few, self.seed)
                out.setdefault(kind, {})[name] = Slice(n=len(rows), scores=part(logits[rows], selection))
        return out

    def _bootstrap(
        self, logits: np.ndarray, n_resamples: int | None = None, metrics: Sequence[str] | None = None
    ) -> dict[str, Any]:
        from avbench.results import as_scores
        from avbench.stats import bootstrap_scores

        n = self.n_resamples if n_resamples is None else n_resamples
        return as_scores(
            bootstrap_scores(logits, self.labels, self.clusters, n, self.seed, level=LEVEL, metrics=metrics)
        )

    @staticmethod
    def _none() -> dict[str, Any]:
        from avbench.metrics import METRICS
        from avbench.results import Score

        return {name: Score(value=None) for name in METRICS}


def _reference_rows(
    model: StreamingModel, manifest: Manifest, snapshots: _Snapshots, score: _Scorer, protocol: Protocol, seed: int
) -> list[Any]:
    """What stands beside the result: the same backbone's other heads, the classical row, the trivial ones."""
    from avbench.results import ReferenceRow

    segments = snapshots.scored
    rows = []

    def add(name: str, label: str, logits: np.ndarray, selection: str, note: str = "") -> None:
        scores = score(logits, selection)
        rows.append(
            ReferenceRow(name=name, label=label, selection=selection, n=len(segments), scores=scores, note=note)
        )

    if model.backbone is not None:
        for name, head, label, selection in SAME_BACKBONE:
            if head != model.head_name or selection != protocol.selection:
                logits = snapshots.replay(model.backbone_name, load_plain_head(head))
                note = "best iteration" if selection == "best_iter" else ""
                add(name, label, logits, selection, note)
        if model.backbone_name != "xcorr":
            for head, name in (("none", "xcorr"), ("apa", "xcorr+apa")):
                add(name, name, snapshots.replay("xcorr", load_plain_head(head)), "final", "classical, no learning")
    for name, (label, function) in TRIVIAL.items():
        if name != model.name:
            add(name, label, function(segments, manifest, protocol.iterations, seed), "final")
    return rows


def default_workers(models: Iterable[StreamingModel]) -> int:
    """As many worker processes as there are cores and as memory holds: each has every model, a clip's sound and frames,
    and, of a full-size model, the activations of a window (2.7 GB in all were measured for Synchformer)."""
    models = [model for model in models if model.backbone is not None]
    weights = [p for model in models for p in getattr(model.backbone, "parameters", list)()]
    each = machine.GIB + sum(p.numel() * p.element_size() for p in weights)
    return machine.worker_count(each + (machine.GIB if any(model.full_size for model in models) else 0))


# -- facts about a run -------------------------------------------------------------------------------------------------


def _check_request(
    protocol: Protocol, limit: int | None, n_resamples: int, batch_size: int | None, workers: int | None, seed: int
) -> None:
    if not isinstance(protocol, Protocol):
        raise UsageError(f"protocol is {protocol!r}; pass avbench.protocol.streaming(...) or .paper(...)")
    if protocol.selection == "any_hit":
        raise UsageError("selection any_hit defines accuracy only: use avbench.replay.any_hit on a run's predictions")
    for name, value in (
        ("limit", limit),
        ("n_resamples", n_resamples),
        ("batch_size", batch_size),
        ("workers", workers),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}; it must be at least 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be 0 or more")


def _no_support(manifest: Manifest, protocol: Protocol) -> str:
    def fits(iterations: int) -> bool:
        shorter = replace(protocol, iterations=iterations)
        return any(shorter.supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)

    clip = max(manifest.clips.values(), key=lambda c: c.duration)
    if not clip.duration:
        return f"no clip of {manifest.name} has been seen, and nothing says how long they are; import it with its media"
    most = min(protocol.iterations, clip.duration // protocol.hop + 1)  # no clip holds more, whatever was asked for
    longest = bisect.bisect_left(range(1, most + 1), True, key=lambda n: not fits(n))
    hop_s = seconds(protocol.hop)
    advice = f"the longest holds {longest}: try --iterations {longest}" if longest else "not even one window fits"
    return (
        f"none of the {len(manifest.segments)} segments of {manifest.name} is long enough for {protocol.iterations} "
        f"windows at hop {hop_s:g} s ({protocol.name} protocol); {advice}"
    )


def whole_fingerprint(model: StreamingModel, backbone: str) -> str:
    """sha256 over backbone and head: what the signature names as the model."""
    digest = hashlib.sha256(f"{backbone} {model.head_name} ".encode())
    head: Any = model.head
    if hasattr(head, "state_dict"):
        for name, tensor in head.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    elif head is not None:
        digest.update(repr(sorted(getattr(head, "__dict__", {}).items())).encode())
    return digest.hexdigest()


def model_facts(model: StreamingModel, fingerprint: str, note: str) -> Any:
    from avbench.results import ModelInfo

    return ModelInfo(
        name=model.name,
        backbone=model.backbone_name,
        head=model.head_name,
        fingerprint=fingerprint,
        description=model.description,
        trained_on=model.trained_on or "undeclared",
        weights_note=note,
        full_size=model.full_size,
        random_weights=model.random_seed,
        audio_lead_trim_samples=model.audio_lead_trim_samples,
        token=model.token,
        dtype=model.options.autocast,  # type: ignore[arg-type]  # checked when it was made
        compiled=model.options.compiled,
    )


def _other_backbone(model: StreamingModel, snapshots: _Snapshots) -> str:
    """What to say if a head's file names another backbone than the one it is used on."""
    trained, here = getattr(model.head, "backbone_fingerprint", ""), snapshots.fingerprint(model.backbone_name)
    if not trained or trained == here:
        return ""
    return f"the head was trained on snapshots of another backbone (fingerprint {trained[:12]}, here {here[:12]})"


def _weights_note(model: StreamingModel, manifest: Manifest) -> str:
    if model.random_seed is not None:
        return f"RANDOM WEIGHTS (seed {model.random_seed}): these scores mean nothing"
    if not model.embedded or manifest.kind == "synthetic":
        return ""
    return "the embedded weights were trained on procedural clips (SynthSync); on other media their scores say little"


def _environment(device: str, workers: int) -> dict[str, Any]:
    """Versions and kind of machine; nothing that names it."""
    packages = ("torch", "numpy", "av", "pyarrow", "pandas", "safetensors")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": machine.cores(),
        "device": device,
        "workers": workers,
        **{name: metadata.version(name) for name in packages},
    }


# -- files -------------------------------------------------------------------------------------------------------------


def writable(folder: Path, option: str) -> Path:
    """``folder``, made if need be; ``AvbenchError`` at once if nothing can be written there, not after the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise AvbenchError(f"cannot write to {folder}: {reason}; choose another folder with {option}") from error
    return folder
