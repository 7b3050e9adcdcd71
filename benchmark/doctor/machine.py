"""``avbench doctor``: does this machine place picture and sound rightly, and does a model keep the rules?

The heart of it is a click-and-flash clip: white flashes and clicks at the same irregular instants. Whoever shifts its
sound by a known amount and sends it through encoding, decoding, windows and the classical scorer must get that amount
back, with its sign.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata, util
from importlib.resources import files
from pathlib import Path
from typing import Any

from avbench.data.clicks import CLIP_S, click_and_flash
from avbench.doctor.finding import Finding
from avbench.doctor.model import check_model
from avbench.protocol.rules import streaming
from avbench.registry.options import ModelOptions
from avbench.system import machine
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_S, ticks
from avbench.types import AvbenchError, ClipRecord, OffsetGrid, SegmentRecord, UsageError, offset_in_words

BANNED = ("torchvision", "torchaudio", "torchcodec", "timm")  # their mere presence breaks torch users in known ways
IMPOSED_S = (-2.0, -1.2, -0.4, 0.0, 0.2, 0.8, 1.6)  # by reading the sound elsewhere
RECORDED_S = (-0.6, 0.4)  # by moving the clicks in the file itself


def examine(
    model: str | None = None, store: Path | None = None, options: ModelOptions | None = None
) -> Iterator[Finding]:
    """The findings, one by one as they are made: about ``model``, or about this machine if none is named."""
    options = options or ModelOptions()
    checks: tuple[Callable[[], Iterator[Finding]], ...]
    if model is not None:
        checks = (lambda: check_model(model, options),)
    elif options.changes_anything:
        raise UsageError("weights, dtype and compiling are a model's: name the model")
    else:
        checks = (_environment, _decoder, _shifts, _weights, lambda: _store(store))
    for check in checks:
        try:
            yield from check()
        except AvbenchError as error:
            if model is not None:
                raise
            yield Finding(False, str(error))


def _environment() -> Iterator[Finding]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "av", "pyarrow"))
    python = f"Python {platform.python_version()}"
    yield Finding(sys.version_info >= (3, 11), f"{python}, {versions}; {machine.cores()} cores")
    present = [name for name in BANNED if util.find_spec(name)]
    yield Finding(
        not present,
        f"{', '.join(present)} installed beside avbench: known to break torch here; use an environment of its own"
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
    """Known shifts, imposed on reading and recorded in the file, through the whole of `avbench run --model xcorr`."""
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


def _weights() -> Iterator[Finding]:
    from avbench.baselines import weights

    found = sorted(p.name for p in files(weights).iterdir() if p.name.endswith(".safetensors"))
    if not found:
        yield Finding(False, "no embedded weights in this installation; `avbench train` makes them")
    for name in found:
        data = files(weights).joinpath(name).read_bytes()
        card = files(weights).joinpath(name.replace(".safetensors", ".json"))
        if not card.is_file():
            yield Finding(False, f"weights {name}: there is no model card")
            continue
        same = hashlib.sha256(data).hexdigest() == json.loads(card.read_text(encoding="utf-8"))["sha256"]
        size_mb = len(data) / 1e6
        yield Finding(same, f"weights {name}: {size_mb:.1f} MB, sha256 {'as' if same else 'NOT as'} its card says")


def _store(root: Path | None) -> Iterator[Finding]:
    from avbench.engine.store import SnapshotStore
    from avbench.system.cache import default_store

    root = root or default_store()
    if not root.exists():
        yield Finding(True, f"store {root}: not made yet")
        return
    store = SnapshotStore(root)
    problems = store.verify()
    for problem in problems:
        yield Finding(False, f"store: {problem}")
    if not problems:
        shards, snapshots, size = store.size()
        yield Finding(True, f"store {root}: {snapshots} snapshots in {shards} shards, {size / 1e6:.1f} MB, all sound")
