"""Check one model: shapes, determinism, batch invariance, causality, and the sign of its offsets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from avbench.data.clicks import click_and_flash
from avbench.doctor.head import check_head, same_fingerprint
from avbench.doctor.new_process import fingerprint_finding
from avbench.engine.clip_pass import CalledModel, as_window, not_a_snapshot
from avbench.engine.shared_segments import layout_of
from avbench.registry.heads import is_outside
from avbench.registry.loading import load
from avbench.registry.names import resolve, split_model_name
from avbench.registry.options import ModelOptions
from avbench.system import debug
from avbench.system.findings import Finding
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import FrontEnd, OffsetGrid, Snapshot, UsageError, in_one_line, offset_in_words

SIGN_SHIFTS_S = (-1.6, -0.8, 0.8, 1.6)  # known shifts of the windows on which a model's sign is checked
SIGN_CLIP_S = 11
SIGN_SOURCES = 4  # clips of each kind of material
WINDOWS = 3  # of a batch
SURE = 3.0  # standard errors (Fisher's z) from which a correlation is more than chance


@dataclass(frozen=True)
class On:
    """Where a model is checked: a torch device, and how many windows a batch has."""

    device: str = "cpu"
    windows: int = WINDOWS

    def __post_init__(self) -> None:
        if self.windows < 2:
            raise UsageError(f"the batch of the checks has {self.windows} window; it must have at least 2")


def check_model(name: str, options: ModelOptions, on: On | None = None) -> Iterator[Finding]:
    """Shape, determinism, batch invariance, two-tower equality, sign, causality of the head, fingerprint stability."""
    on = on or On()
    resolved = resolve(name, options)
    if resolved.load_backbone is None:
        raise UsageError(f"{name} ignores its input: there is nothing to check")
    model = load(resolved, on.device)
    video, audio = _windows(model.backbone.frontend, on.windows)  # type: ignore[union-attr]
    yield Finding(True, f"{name} loads: {model.description or 'no description (an attribute of the class)'}")
    if model.random_seed is not None:
        yield Finding(True, f"RANDOM WEIGHTS (seed {model.random_seed}): its scores are meaningless")
    declared = model.trained_on not in ("", "undeclared")
    trained_on = model.trained_on if declared else 'undeclared (say it in the class, as in trained_on = "my data")'
    yield Finding(True, f"trained on: {trained_on}", warning=not declared)
    try:
        first = _predict(model.backbone, video, audio)
    except Exception as error:  # any error in a model is a finding about it
        debug.show(error)
        yield Finding(
            False,
            f"predict(video {video.shape} uint8, audio {audio.shape} float32) fails: {debug.with_users_line(error)}",
        )
        return
    shape = _shape_problem(first, len(video), model.backbone.token_dim)  # type: ignore[union-attr]
    token = "no streaming token" if first.token is None else f"streaming token of {first.token.shape[-1]}"
    yield Finding(not shape, f"shape: {shape or f'logits {first.logits.shape}, finite; {token}'}")
    if shape:
        return
    if _probabilities(first.logits):
        yield Finding(
            True,
            "logits look like probabilities (none below 0, each window's sum is 1): return what comes before softmax; "
            "averages (APA) and calibration take logits",
            warning=True,
        )

    again = _predict(model.backbone, video, audio)
    yield _equal("determinism: the same windows twice", first, again, 0.0)
    alone = [_predict(model.backbone, video[i : i + 1], audio[i : i + 1]) for i in range(len(video))]
    yield _equal("batch invariance: windows one by one and in a batch", first, _stack(alone), 1e-3)
    if model.backbone.two_tower:  # type: ignore[union-attr]
        try:
            fused = _fuse(model.backbone, video, audio)
            yield _equal("two towers: fuse(encode_video, encode_audio) and predict", first, fused, 1e-3)
        except Exception as error:
            debug.show(error)
            yield Finding(False, f"two towers: {in_one_line(error)}")
        yield from _segments(model.backbone, first, video, audio)  # type: ignore[arg-type]
    yield from _stretch(name, model.backbone, video, audio, on.device)
    yield from _sign(model.backbone)
    head = split_model_name(name)[1]
    yield from check_head(model.head, model.head_name, model.backbone.token_dim)  # type: ignore[arg-type, union-attr]
    if is_outside(head):
        yield same_fingerprint(model.head, head)  # type: ignore[arg-type]
    yield _fingerprint(name, model.backbone, options)


def _windows(frontend: FrontEnd, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 125, 3, size, size) uint8 and (count, 80000) float32: click-and-flash windows with some noise."""
    frames, sound = click_and_flash()
    rng = np.random.default_rng(1)
    video = np.empty((count, 125, 3, frontend.size, frontend.size), np.uint8)
    audio = np.empty((count, 5 * SAMPLE_RATE_HZ), np.float32)
    for i in range(count):
        first = 50 * (i % 3)
        level = frames[first : first + 125, 0, 0].astype(np.int16)
        video[i] = level[:, :, None, None] + rng.integers(-16, 16, (125, 3, frontend.size, frontend.size), np.int16)
        start = first * TICKS_PER_FRAME
        audio[i] = sound[start : start + audio.shape[1]] + 0.01 * rng.standard_normal(audio.shape[1])
    return video, audio


def _segments(backbone: Any, whole: Snapshot, video: np.ndarray, audio: np.ndarray) -> Iterator[Finding]:
    """Do windows put together from segments equal ``predict``, if the model offers that?"""
    try:
        layout = layout_of(backbone)
        if layout is None:
            return
        with _inference(backbone) as give:
            pictures, sounds = (
                np.stack([layout.cut(window, per_frame) for window in windows])
                for windows, per_frame in ((video, 1), (audio, TICKS_PER_FRAME))
            )
            seen = [backbone.encode_video_segments(give(one)) for one in pictures]
            heard = [backbone.encode_audio_segments(give(one)) for one in sounds]
            alone = [backbone.fuse_segments(as_window(v), as_window(a)) for v, a in zip(seen, heard, strict=True)]
        found = _stack([_arrays(snapshot) for snapshot in alone])
        yield _equal("segments: fuse_segments of a window's segments and predict", whole, found, 1e-3)
    except UsageError as error:
        yield Finding(False, f"segments: {error}")
    except Exception as error:
        debug.show(error)
        yield Finding(False, f"segments: {in_one_line(error)}")


def _stretch(name: str, backbone: Any, video: np.ndarray, audio: np.ndarray, device: str) -> Iterator[Finding]:
    """Does the model take windows cut out of a stretch of sound, as the paper protocol gives them, if it offers to?"""
    called = CalledModel(backbone, name, len(video), device, OffsetGrid().n_classes)
    try:
        if not called.hears_stretches():
            return
        with _inference(backbone) as give:
            heard, width = called.stretch_sound(audio.reshape(-1)), audio.shape[1] // backbone.column_samples
            columns = np.stack([_array(heard)[..., i * width : (i + 1) * width] for i in range(len(video))])
            whole = _arrays(backbone.predict(give(video), give(columns)))
            problem = _shape_problem(whole, len(video), backbone.token_dim)
            yield Finding(not problem, f"stretch: {problem or 'windows cut out of stretch_sound are taken'}")
            if backbone.two_tower and not problem:
                fused = backbone.fuse(backbone.encode_video(give(video)), backbone.encode_audio(give(columns)))
                yield _equal("stretch: fuse(encode_video, encode_audio) and predict", whole, _arrays(fused), 1e-3)
    except UsageError as error:
        yield Finding(False, f"stretch: {error}")
    except Exception as error:
        debug.show(error)
        yield Finding(False, f"stretch: {in_one_line(error)}")


def _sign(backbone: Any) -> Iterator[Finding]:
    """Does the model predict "early" where the sound is early? Tested on clicks and SynthSync scenes with known shifts.

    A model too weak to tell gets a warning. A significantly reversed one fails, unless it is significantly right on
    the other material.
    """
    said = {}
    for kind, windows in (("click and flash", _shifted_clicks), ("SynthSync scenes", _shifted_scenes)):
        true_s, found_s, answered = [], [], False
        for video, audio, shift_s in windows(backbone.frontend.size):
            logits = _predict(backbone, video[None], audio[None]).logits
            true_s.append(shift_s)
            found_s.append(OffsetGrid().offset_of(int(logits[0].argmax())))
            answered |= bool(np.ptp(logits[0]))
        none = (0.0, "it gives no answer (all classes are alike): too weak to tell")
        said[kind] = _follows(np.array(true_s), np.array(found_s)) if answered else none
    right = any(sure > SURE for sure, _ in said.values())
    for kind, (sure, text) in said.items():
        yield Finding(sure > -SURE or right, f"sign: on {kind} {text}", warning=sure <= SURE)


def _follows(true_s: np.ndarray, found_s: np.ndarray) -> tuple[float, str]:
    """How well the predicted offsets follow the true ones, in standard errors (negative: reversed), and in words."""
    n = len(true_s)
    moves = bool(np.ptp(found_s))
    r = float(np.corrcoef(true_s, found_s)[0, 1]) if moves else 0.0
    sure = float(np.arctanh(np.clip(r, -0.999999, 0.999999)) * np.sqrt(n - 3))
    facts = f"(correlation {r:+.2f} over {n} windows)"
    if not moves:
        return 0.0, f"it always predicts {offset_in_words(float(found_s[0]))}: too weak to tell"
    if sure < -SURE:
        return sure, f"it is REVERSED: it predicts late where the sound is early {facts}; mirror the classes"
    if sure <= SURE:
        return sure, f"it is too weak to tell early from late {facts}"
    slope = float(np.polyfit(true_s, found_s, 1)[0])
    size = "" if 0.5 < slope < 1.5 else f"; but the SIZE is wrong: it predicts {0.8 * slope:.1f} s where it is 0.8 s"
    return sure, f"it predicts early where the sound is early {facts}{size}"


def _shifted_clicks(size: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Windows (125, 3, size, size) uint8 and (80000,) float32 whose sound is early by a known number of seconds."""
    for seed in range(SIGN_SOURCES):
        yield from _shifted(*click_and_flash(SIGN_CLIP_S, seed=100 + seed), size)


def _shifted_scenes(size: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """The same for scenes with a speaker or with impacts, none of them in any split."""
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
    """Yields what turns an array into the backbone's input, as in the runner: a tensor if it uses torch."""
    if not getattr(backbone, "uses_torch", True):
        yield lambda array: array
        return
    import torch

    weight = next(iter(backbone.parameters()), None) if hasattr(backbone, "parameters") else None
    with torch.inference_mode():
        yield lambda array: torch.from_numpy(array).to("cpu" if weight is None else weight.device)


def _arrays(snapshot: Any) -> Snapshot:
    if not (hasattr(snapshot, "logits") and hasattr(snapshot, "token")):  # as in the runner
        raise UsageError(not_a_snapshot(snapshot))
    logits, token = snapshot.logits, snapshot.token
    return Snapshot(_array(logits), None if token is None else _array(token))


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _stack(snapshots: list[Snapshot]) -> Snapshot:
    tokens = None if snapshots[0].token is None else np.concatenate([s.token for s in snapshots])
    return Snapshot(np.concatenate([s.logits for s in snapshots]), tokens)


def _shape_problem(snapshot: Snapshot, batch: int, token_dim: int | None) -> str:
    if snapshot.logits.shape != (batch, 21):
        return f"logits are {snapshot.logits.shape}, they must be ({batch}, 21): a column for each offset class"
    if not np.isfinite(snapshot.logits).all():
        return "logits are not finite (NaN or infinity)"
    if (snapshot.token is None) != (token_dim is None):
        return f"token_dim is {token_dim}, but predict returns {'no' if snapshot.token is None else 'a'} token"
    if snapshot.token is not None and snapshot.token.shape != (batch, token_dim):
        return f"the token is {snapshot.token.shape}, it must be ({batch}, {token_dim})"
    if snapshot.token is not None and not np.isfinite(snapshot.token).all():
        return "the token is not finite (NaN or infinity)"
    return ""


def _probabilities(logits: np.ndarray) -> bool:
    """Whether the rows (B, 21) are what softmax returns."""
    return bool((logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3))


def _equal(what: str, a: Snapshot, b: Snapshot, tolerance: float) -> Finding:
    gap = float(np.abs(a.logits - b.logits).max())
    if a.token is not None:
        gap = max(gap, float(np.abs(a.token - b.token).max()))
    ok = gap <= tolerance  # a NaN is not
    return Finding(ok, f"{what} {'agree' if ok else 'DIFFER'} (largest difference {gap:.2g}, allowed {tolerance:g})")


def _fingerprint(name: str, backbone: Any, options: ModelOptions) -> Finding:
    """The fingerprint must be the same in a new process with a different hash seed."""
    from avbench.engine.fingerprint import model_fingerprint

    code = (
        "import json, sys; from avbench.registry import load_model; "
        "from avbench.engine.fingerprint import model_fingerprint; "
        "print(model_fingerprint(load_model(sys.argv[1], **json.loads(sys.argv[2])).backbone))"
    )
    return fingerprint_finding("fingerprint", model_fingerprint(backbone), code, name, json.dumps(options.arguments()))
