"""``avbench doctor``: does this machine place picture and sound rightly, and does a model keep the rules?

The heart of it is a click-and-flash clip: white flashes and clicks at the same irregular instants. Whoever shifts its
sound by a known amount and sends it through encoding, decoding, windows and the classical scorer must get that amount
back, with its sign.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import metadata, util
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avbench import machine
from avbench.protocol import streaming
from avbench.registry import ModelOptions, load, resolve
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import (
    AvbenchError,
    ClipRecord,
    FrontEnd,
    OffsetGrid,
    SegmentRecord,
    Snapshot,
    UsageError,
    in_one_line,
    offset_in_words,
)

BANNED = ("torchvision", "torchaudio", "torchcodec", "timm")  # their mere presence breaks torch users in known ways
IMPOSED_S = (-2.0, -1.2, -0.4, 0.0, 0.2, 0.8, 1.6)  # by reading the sound elsewhere
RECORDED_S = (-0.6, 0.4)  # by moving the clicks in the file itself
CLIP_S = 14
SIZE = 64
SIGN_SHIFTS_S = (-1.6, -0.8, 0.8, 1.6)  # known shifts of the windows on which a model's sign is checked
SIGN_CLIP_S = 11
SIGN_SOURCES = 4  # stretches of each kind of material
SURE = 3.0  # standard errors of a correlation (Fisher's z) from which it is more than chance


class Finding(NamedTuple):
    """``warning``: nothing is broken, but it should be looked at."""

    ok: bool
    text: str
    warning: bool = False


def examine(
    model: str | None = None, store: Path | None = None, options: ModelOptions | None = None
) -> Iterator[Finding]:
    """The findings, one by one as they are made: about ``model``, or about this machine if none is named."""
    options = options or ModelOptions()
    checks: tuple[Callable[[], Iterator[Finding]], ...]
    if model is not None:
        checks = (lambda: _model(model, options),)
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


# -- this machine ------------------------------------------------------------------------------------------------------


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


def click_and_flash(duration_s: int = CLIP_S, early_s: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, 64, 64, 3) uint8 with white flashes, and sound (N,) float32 with clicks ``early_s`` s before
    them (negative: after them), at the same irregular instants."""
    rng = np.random.default_rng(seed)
    n_frames, n_samples = duration_s * FRAME_RATE_HZ, duration_s * SAMPLE_RATE_HZ
    frames = np.full((n_frames, SIZE, SIZE, 3), 16, np.uint8)
    sound = np.zeros(n_samples, np.float32)
    flashes = np.cumsum(rng.integers(9, 24, n_frames // 9))
    click = 0.6 * rng.standard_normal(640) * np.exp(-np.arange(640) / 120)
    for frame in flashes[flashes < n_frames - 2]:
        frames[frame : frame + 2] = 230
        start = frame * TICKS_PER_FRAME - ticks(early_s)
        if start >= 0 and start + len(click) <= n_samples:
            sound[start : start + len(click)] = click
    return frames, sound.clip(-1, 1)


def _shifts() -> Iterator[Finding]:
    """Known shifts, imposed on reading and recorded in the file, through the whole of `avbench run --model xcorr`."""
    from avbench.evaluation import evaluate
    from avbench.manifest import write_manifest
    from avbench.results import read_predictions

    with tempfile.TemporaryDirectory(prefix="avbench-doctor-") as scratch:
        folder = Path(scratch)
        manifest, expected = _shifted_manifest(folder)
        write_manifest(manifest, folder)
        evaluate(
            "xcorr",
            data=str(folder),
            protocol=streaming(iterations=1),
            out=folder / "run",
            store=folder / "store",
            workers=1,
            reference_rows=False,
            n_resamples=10,
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
    from avbench.manifest import Manifest

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
    from avbench.evaluation import default_store
    from avbench.store import SnapshotStore

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


# -- a model -----------------------------------------------------------------------------------------------------------


def _model(name: str, options: ModelOptions) -> Iterator[Finding]:
    """Shape, determinism, batch invariance, two-tower equality, sign, causality of the head, fingerprint stability."""
    resolved = resolve(name, options)
    if resolved.load_backbone is None:
        raise UsageError(f"{name} looks at no media: there is nothing to check")
    model = load(resolved)
    video, audio = _windows(model.backbone.frontend)  # type: ignore[union-attr]
    yield Finding(True, f"{name} loads: {model.description or 'no description'}")
    if model.random_seed is not None:
        yield Finding(True, f"RANDOM WEIGHTS (seed {model.random_seed}): its scores will mean nothing")
    declared = model.trained_on not in ("", "undeclared")
    trained_on = model.trained_on if declared else "undeclared (set trained_on)"
    yield Finding(True, f"trained on: {trained_on}", warning=not declared)
    try:
        first = _predict(model.backbone, video, audio)
    except Exception as error:  # whatever a model does wrong is a finding about the model
        yield Finding(
            False, f"predict(video {video.shape} uint8, audio {audio.shape} float32) fails: {in_one_line(error)}"
        )
        return
    shape = _shape_problem(first, len(video), model.backbone.token_dim)  # type: ignore[union-attr]
    token = "no streaming token" if first.token is None else f"streaming token of {first.token.shape[-1]}"
    yield Finding(not shape, f"shape: {shape or f'logits {first.logits.shape}, finite; {token}'}")
    if shape:
        return

    again = _predict(model.backbone, video, audio)
    yield _equal("determinism: the same windows twice", first, again, 0.0)
    alone = [_predict(model.backbone, video[i : i + 1], audio[i : i + 1]) for i in range(len(video))]
    yield _equal("batch invariance: windows alone and together", first, _stack(alone), 1e-3)
    if model.backbone.two_tower:  # type: ignore[union-attr]
        try:
            fused = _fuse(model.backbone, video, audio)
            yield _equal("two towers: fuse(encode_video, encode_audio) and predict", first, fused, 1e-3)
        except Exception as error:
            yield Finding(False, f"two towers: {in_one_line(error)}")
    yield from _sign(model.backbone)
    yield _causality(model)
    yield _fingerprint(name, model.backbone, options)


def _windows(frontend: FrontEnd, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(count, 125, 3, size, size) uint8 and (count, 80000) float32: click-and-flash windows with some noise."""
    frames, sound = click_and_flash()
    rng = np.random.default_rng(1)
    video = np.empty((count, 125, 3, frontend.size, frontend.size), np.uint8)
    audio = np.empty((count, 5 * SAMPLE_RATE_HZ), np.float32)
    for i in range(count):
        level = frames[50 * i : 50 * i + 125, 0, 0].astype(np.int16)
        video[i] = level[:, :, None, None] + rng.integers(-16, 16, (125, 3, frontend.size, frontend.size), np.int16)
        start = 50 * i * TICKS_PER_FRAME
        audio[i] = sound[start : start + audio.shape[1]] + 0.01 * rng.standard_normal(audio.shape[1])
    return video, audio


def _sign(backbone: Any) -> Iterator[Finding]:
    """Does it say "early" where the sound is early? On windows with known shifts, of clicks and of SynthSync scenes.

    A model too weak to tell gets a warning; one that is reversed more than chance allows has failed, unless the other
    material shows that it knows better.
    """
    said = {}
    for kind, windows in (("click and flash", _shifted_clicks), ("SynthSync scenes", _shifted_scenes)):
        true_s, found_s = [], []
        for video, audio, shift_s in windows(backbone.frontend.size):
            logits = _predict(backbone, video[None], audio[None]).logits
            true_s.append(shift_s)
            found_s.append(OffsetGrid().offset_of(int(logits[0].argmax())))
        said[kind] = _follows(np.array(true_s), np.array(found_s))
    right = any(sure > SURE for sure, _ in said.values())
    for kind, (sure, text) in said.items():
        yield Finding(sure > -SURE or right, f"sign: on {kind} {text}", warning=sure <= SURE)


def _follows(true_s: np.ndarray, found_s: np.ndarray) -> tuple[float, str]:
    """How surely the said offsets follow the known ones, in standard errors (negative: reversed), and in words."""
    n = len(true_s)
    moves = bool(np.ptp(found_s))
    r = float(np.corrcoef(true_s, found_s)[0, 1]) if moves else 0.0
    sure = float(np.arctanh(np.clip(r, -0.999999, 0.999999)) * np.sqrt(n - 3))
    facts = f"(correlation {r:+.2f} over {n} windows)"
    if not moves:
        return 0.0, f"it always says {offset_in_words(float(found_s[0]))}: too weak to tell"
    if sure < -SURE:
        return sure, f"it is REVERSED: it says late where the sound is early {facts}; mirror the classes"
    if sure <= SURE:
        return sure, f"it is too weak to tell early from late {facts}"
    slope = float(np.polyfit(true_s, found_s, 1)[0])
    size = "" if 0.5 < slope < 1.5 else f"; but of the wrong SIZE: it says {0.8 * slope:.1f} s where it is 0.8 s"
    return sure, f"it says early where the sound is early {facts}{size}"


def _shifted_clicks(size: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Windows (125, 3, size, size) uint8 and (80000,) float32 whose sound is early by a known number of seconds."""
    for seed in range(SIGN_SOURCES):
        yield from _shifted(*click_and_flash(SIGN_CLIP_S, seed=100 + seed), size)


def _shifted_scenes(size: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """The same of scenes that no split shows, with a speaker or with impacts."""
    for seed in range(SIGN_SOURCES):
        yield from _shifted(*_scene(seed), size)


@lru_cache
def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from avbench.data.scenes import OTHER, TALKING_HEAD, Scene

    scene = Scene((TALKING_HEAD, OTHER)[seed % 2], seed, 1_900_000 + seed, SIGN_CLIP_S)
    return np.stack(list(scene.frames())), scene.audio()


def _shifted(frames: np.ndarray, sound: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    rows, columns = (np.arange(size) * n // size for n in frames.shape[1:3])
    first = 4 * FRAME_RATE_HZ
    video = frames[first : first + 125][:, rows][:, :, columns].transpose(0, 3, 1, 2)
    for shift_s in SIGN_SHIFTS_S:
        start = 4 * TICKS_PER_S + ticks(shift_s)
        yield np.ascontiguousarray(video), sound[start : start + 5 * SAMPLE_RATE_HZ].astype(np.float32), shift_s


def _predict(backbone: Any, video: np.ndarray, audio: np.ndarray) -> Snapshot:
    with _inference(backbone) as give:
        return _arrays(backbone.predict(give(video), give(audio)))


def _fuse(backbone: Any, video: np.ndarray, audio: np.ndarray) -> Snapshot:
    with _inference(backbone) as give:
        return _arrays(backbone.fuse(backbone.encode_video(give(video)), backbone.encode_audio(give(audio))))


@contextlib.contextmanager
def _inference(backbone: Any) -> Iterator[Callable[[np.ndarray], Any]]:
    """What turns an array into what the backbone takes, as in the runner: a tensor, unless it uses no torch."""
    if not getattr(backbone, "uses_torch", True):
        yield lambda array: array
        return
    import torch

    with torch.inference_mode():
        yield torch.from_numpy


def _arrays(snapshot: Any) -> Snapshot:
    logits, token = snapshot
    return Snapshot(np.asarray(logits), None if token is None else np.asarray(token))


def _stack(snapshots: list[Snapshot]) -> Snapshot:
    tokens = None if snapshots[0].token is None else np.concatenate([s.token for s in snapshots])
    return Snapshot(np.concatenate([s.logits for s in snapshots]), tokens)


def _shape_problem(snapshot: Snapshot, batch: int, token_dim: int | None) -> str:
    if snapshot.logits.shape != (batch, 21):
        return f"logits are {snapshot.logits.shape}, they must be ({batch}, 21)"
    if not np.isfinite(snapshot.logits).all():
        return "logits are not finite (NaN or infinity)"
    if (snapshot.token is None) != (token_dim is None):
        return f"token_dim is {token_dim}, but predict returns {'no' if snapshot.token is None else 'a'} token"
    if snapshot.token is not None and snapshot.token.shape != (batch, token_dim):
        return f"the token is {snapshot.token.shape}, it must be ({batch}, {token_dim})"
    if snapshot.token is not None and not np.isfinite(snapshot.token).all():
        return "the token is not finite (NaN or infinity)"
    return ""


def _equal(what: str, a: Snapshot, b: Snapshot, tolerance: float) -> Finding:
    gap = float(np.abs(a.logits - b.logits).max())
    if a.token is not None:
        gap = max(gap, float(np.abs(a.token - b.token).max()))
    ok = gap <= tolerance  # a NaN is not
    return Finding(ok, f"{what} {'agree' if ok else 'DIFFER'} (largest difference {gap:.2g}, allowed {tolerance:g})")


def _causality(model: Any) -> Finding:
    """Noise in place of everything after window i must leave all predictions up to i bit-identical."""
    from avbench.replay import replay

    rng = np.random.default_rng(2)
    n, iterations, kept = 4, 12, 5
    logits = rng.standard_normal((n, iterations, 21)).astype(np.float32)
    dim = model.backbone.token_dim
    tokens = None if dim is None else rng.standard_normal((n, iterations, dim)).astype(np.float32)
    before = replay(model.head, logits, tokens, 2.0)
    later = [x.copy() for x in (logits, tokens) if x is not None]
    for array in later:
        array[:, kept:] = rng.standard_normal(array[:, kept:].shape)
    after = replay(model.head, later[0], later[1] if tokens is not None else None, 2.0)
    ok = bool((before[:, :kept] == after[:, :kept]).all())
    said = "leaves what was said before untouched" if ok else "CHANGES what was said before"
    return Finding(ok, f"causality: noise in the future of head {model.head_name} {said}")


def _fingerprint(name: str, backbone: Any, options: ModelOptions) -> Finding:
    """The fingerprint in a process of its own, with another hash seed, must be the same."""
    from avbench.fingerprint import model_fingerprint

    here = model_fingerprint(backbone)
    code = (
        "import json, sys; from avbench.registry import load_model; "
        "from avbench.fingerprint import model_fingerprint; "
        "print(model_fingerprint(load_model(sys.argv[1], **json.loads(sys.argv[2])).backbone))"
    )
    environment, arguments = os.environ | {"PYTHONHASHSEED": "17"}, json.dumps(options.arguments())
    done = subprocess.run(
        [sys.executable, "-c", code, name, arguments], capture_output=True, text=True, env=environment
    )
    there = done.stdout.strip().splitlines()[-1:] or ["nothing"]
    ok = there[0] == here
    why = "" if ok else ": its weights or settings are not the same every time it is made"
    return Finding(ok, f"fingerprint {here[:12]} is {'the same' if ok else 'ANOTHER'} in a new process{why}")
