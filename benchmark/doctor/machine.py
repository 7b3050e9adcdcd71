"""``avbench doctor``: check that this machine aligns picture and sound correctly, or that a model follows the rules.

The central check uses a click-and-flash clip: white flashes and clicks at the same irregular instants. Its sound is
shifted by a known amount and sent through encoding, decoding, windows and the classical scorer, which must find that
amount with its sign. The same clip under offsets that change must be heard where they say, to the sample
(``avbench.doctor.laws``).
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from importlib.resources import files
from pathlib import Path
from typing import Any

from avbench.data.clicks import CLIP_S, click_and_flash
from avbench.doctor.head import check_head_alone, names_a_head
from avbench.doctor.model import On, check_model
from avbench.protocol.rules import streaming
from avbench.registry.options import ModelOptions
from avbench.system import machine
from avbench.system.findings import Finding
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_S, ticks
from avbench.types import AvbenchError, ClipRecord, OffsetGrid, SegmentRecord, UsageError, offset_in_words

BANNED = ("torchvision", "torchaudio", "torchcodec", "timm")  # merely installed, each is known to break torch
IMPOSED_S = (-2.0, -1.2, -0.4, 0.0, 0.2, 0.8, 1.6)  # by reading the sound from another position
RECORDED_S = (-0.6, 0.4)  # by moving the clicks in the file itself
METRICS = "metrics"  # the name to give instead of a model's


def examine(
    model: str | None = None, store: Path | None = None, options: ModelOptions | None = None, on: On | None = None
) -> Iterator[Finding]:
    """Yields the findings as they are made: about ``model``, computed as ``on`` says, about our metrics if ``model`` is
    "metrics", or about this machine if it is None. ``UsageError``: an unknown model, one that ignores its input, or
    ``options`` without a model; ``AvbenchError``: the model cannot be loaded."""
    options, on = options or ModelOptions(), on or On()
    if model in (None, METRICS) and options.changes_anything:
        raise UsageError("--weights, --dtype and --compile need a model name")
    if model == METRICS:
        from avbench.doctor.metrics import examine_metrics

        yield from examine_metrics()
    elif model is not None and names_a_head(model):
        if options.changes_anything:
            raise UsageError(f"head {model} loads its own weights: --weights, --dtype and --compile need a model name")
        yield from check_head_alone(model, on.device)
    elif model is not None:
        yield from check_model(model, options, on)
    else:
        for check in (_environment, _decoder, _shifts, _laws, _weights, lambda: _store(store)):
            try:
                yield from check()
            except AvbenchError as error:
                yield Finding(False, str(error))


def _environment() -> Iterator[Finding]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "av", "pyarrow"))
    python = f"Python {platform.python_version()}"
    yield Finding(sys.version_info >= (3, 11), f"{python}, {versions}; {machine.cores()} cores")
    present = [name for name in BANNED if util.find_spec(name)]
    yield Finding(
        not present,
        f"{', '.join(present)} installed beside avbench: known to break torch; use a separate environment for avbench"
        if present
        else f"none of {', '.join(BANNED)} is installed",
    )


def _decoder() -> Iterator[Finding]:
    import av

    libraries = av.library_versions
    text = ", ".join(f"{name} {'.'.join(map(str, libraries[name]))}" for name in ("libavcodec", "libavformat"))
    missing = [name for name in ("libx264", "aac") if name not in av.codecs_available]
    yield Finding(not missing, f"decoder {text}" + (f"; encoders missing: {', '.join(missing)}" if missing else ""))


def _shifts() -> Iterator[Finding]:
    """Sends known shifts, made on reading or recorded in the file, through all of `avbench run --model xcorr`."""
    from avbench.engine.runner import Compute
    from avbench.protocol.manifest import write_manifest
    from avbench.results.predictions import read_predictions
    from avbench.runs.evaluate import evaluate
    from avbench.scoring.stats import Bootstrap

    with tempfile.TemporaryDirectory(prefix="avbench-doctor-") as scratch:
        folder = Path(scratch)
        manifest, expected = _shifted_manifest(folder)
        write_manifest(manifest, folder)
        evaluate(
            "xcorr",
            data=str(folder),
            protocol=streaming(iterations=1),
            out=folder / "run",
            compute=Compute(folder / "store", workers=1),
            bootstrap=Bootstrap(n_resamples=10),
            reference_rows=False,
        )
        ids, logits = read_predictions(folder / "run" / "predictions.parquet")
    found = {name: OffsetGrid().offset_of(int(row[0].argmax())) for name, row in zip(ids, logits, strict=True)}
    for segment in manifest.segments:
        said, heard = offset_in_words(expected[segment.id]), offset_in_words(found[segment.id])
        how = "on reading" if segment.clip_id == "in-sync" else "in the file"
        yield Finding(said == heard, f"click and flash, shifted {how}: {said}, found {heard}")


def _shifted_manifest(folder: Path) -> tuple[Any, dict[str, float]]:
    """A manifest over click-and-flash clips in ``folder``, and the true offset of every segment in seconds."""
    from avbench.data.encode import encode_clip
    from avbench.data.media import media_sha256
    from avbench.protocol.manifest import Manifest

    clips: dict[str, ClipRecord] = {}
    segments: list[SegmentRecord] = []
    expected: dict[str, float] = {}

    def add(clip_id: str, recorded_s: float, imposed_s: float) -> None:
        path = folder / f"{clip_id}.mp4"
        if clip_id not in clips:
            encode_clip(path, *click_and_flash(CLIP_S, recorded_s))
            n_frames, n_samples = CLIP_S * FRAME_RATE_HZ, CLIP_S * SAMPLE_RATE_HZ
            clips[clip_id] = ClipRecord(clip_id, clip_id, path.name, media_sha256(path), n_frames, n_samples)
        name = f"{clip_id}{imposed_s:+g}"
        offset = ticks(imposed_s)
        label = OffsetGrid().class_of(imposed_s)
        segments.append(SegmentRecord(name, clip_id, clip_id, 4 * TICKS_PER_S, offset, label))
        expected[name] = recorded_s + imposed_s

    for imposed_s in IMPOSED_S:
        add("in-sync", 0.0, imposed_s)
    for recorded_s in RECORDED_S:
        add("early" if recorded_s > 0 else "late", recorded_s, 0.0)
    manifest = Manifest(
        name="click and flash",
        kind="synthetic",
        note="made by avbench doctor",
        offset_law="list",
        clips=clips,
        segments=tuple(segments),
        media_root=folder,
    )
    return manifest, expected


def _laws() -> Iterator[Finding]:
    """Offsets that change, on the way of a run: one finding."""
    from avbench.doctor.laws import check_laws

    yield from check_laws()


def _weights() -> Iterator[Finding]:
    from avbench.baselines import weights

    found = sorted(p.name for p in files(weights).iterdir() if p.name.endswith(".safetensors"))
    if not found:
        yield Finding(False, "this installation has no embedded weights; `avbench train` makes them")
    for name in found:
        data = files(weights).joinpath(name).read_bytes()
        card = files(weights).joinpath(name.replace(".safetensors", ".json"))
        if not card.is_file():
            yield Finding(False, f"weights {name}: the model card is missing")
            continue
        same = hashlib.sha256(data).hexdigest() == json.loads(card.read_text(encoding="utf-8"))["sha256"]
        size_mb = len(data) / 1e6
        yield Finding(same, f"weights {name}: {size_mb:.1f} MB, sha256 {'as' if same else 'NOT as'} its card says")


def _store(root: Path | None) -> Iterator[Finding]:
    from avbench.engine.store import SnapshotStore
    from avbench.system.cache import default_store

    root = root or default_store()
    if not root.exists():
        yield Finding(True, f"store {root}: does not exist yet")
        return
    store = SnapshotStore(root)
    problems = store.verify()
    for problem in problems:
        yield Finding(False, f"store: {problem}")
    if not problems:
        shards, snapshots, size = store.size()
        yield Finding(True, f"store {root}: {snapshots} snapshots in {shards} shards, {size / 1e6:.1f} MB, all intact")
