"""One evaluation, from a model's name to a result: data, plan, snapshots, replay, metrics, files. What `run` does."""

from __future__ import annotations

import bisect
import itertools
import json
import platform
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench import __version__
from avbench.baselines.trivial import TRIVIAL
from avbench.data.opening import read_data
from avbench.engine.session import Snapshots
from avbench.protocol.rules import Protocol, streaming
from avbench.registry.facts import default_workers, model_facts, whole_fingerprint
from avbench.registry.loading import check_device, load, load_plain_head, load_xcorr
from avbench.registry.names import resolve
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.scoring.scorer import LEVEL, Scorer
from avbench.system import machine
from avbench.system.cache import default_store, writable
from avbench.system.progress import Progress
from avbench.ticks import seconds
from avbench.types import UsageError

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest
    from avbench.results.run import RunResult

AUTO_BATCH = 32  # windows a call to begin with; the runner halves it when memory runs out
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
    from avbench.engine.store import SnapshotStore
    from avbench.pages.run_report import write_report
    from avbench.results.answers import answers_of, write_segments
    from avbench.results.predictions import write_predictions
    from avbench.results.run import SEGMENTS_FILE, DataInfo, Failure, FileRef, Latency, RunResult, write_run

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
    snapshots = Snapshots(manifest, supported, protocol, workers, device)
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
    score = Scorer([] if hidden else segments, n_resamples, seed)
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


def default_out(model: str) -> Path:
    """runs/DATE-MODEL, with a number behind it if there already is a run of that name."""
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "-", model.rpartition("/")[2]).strip("-.")
    base = Path("runs") / f"{datetime.now(UTC):%Y-%m-%d}-{slug}"
    numbered = (base.with_name(f"{base.name}-{n}") for n in itertools.count(2))
    return next(f for f in itertools.chain([base], numbered) if not (f / "run.json").exists())


def _reference_rows(
    model: StreamingModel, manifest: Manifest, snapshots: Snapshots, score: Scorer, protocol: Protocol, seed: int
) -> list[Any]:
    """What stands beside the result: the same backbone's other heads, the classical row, the trivial ones."""
    from avbench.results.run import ReferenceRow

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


def _check_request(
    protocol: Protocol, limit: int | None, n_resamples: int, batch_size: int | None, workers: int | None, seed: int
) -> None:
    if not isinstance(protocol, Protocol):
        raise UsageError(f"protocol is {protocol!r}; pass avbench.protocol.streaming(...) or .paper(...)")
    if protocol.selection == "any_hit":
        raise UsageError(
            "selection any_hit defines accuracy only: use avbench.scoring.selection.any_hit on a run's predictions"
        )
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


def _other_backbone(model: StreamingModel, snapshots: Snapshots) -> str:
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
