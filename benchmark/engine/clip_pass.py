"""Run one model over one clip: cut windows from the frame stream, run both towers in batches, handle out-of-memory."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from avbench.protocol.laws import extremes, gathered, law_of
from avbench.protocol.plan import NO_STRETCH, SnapshotKey
from avbench.system import debug
from avbench.system.machine import free_gpu_memory, is_out_of_memory
from avbench.ticks import frames, seconds
from avbench.types import (
    AvbenchError,
    ClipRecord,
    Gap,
    MediaError,
    Reading,
    Snapshot,
    SnapshotPredictor,
    UsageError,
    Window,
)


def cut_windows(
    grid: Iterator[tuple[np.ndarray, ...]], windows: Sequence[Window], clip: ClipRecord, counters: Counter[str]
) -> Iterator[tuple[Window, list[tuple[np.ndarray, ...]]]]:
    """Each window with its frames; ``windows`` are sorted by their ends. No frame is kept longer than needed.

    ``grid``: the clip's frames at 25 per second, each as one array per front end. ``MediaError`` if they end too early.
    """
    oldest = [w.start for w in windows]
    for i in range(len(windows) - 2, -1, -1):
        oldest[i] = min(oldest[i], oldest[i + 1])
    held: deque[tuple[np.ndarray, ...]] = deque()
    first = 0  # grid index of held[0]
    for window, needed in zip(windows, map(frames, oldest), strict=True):
        begin, end = frames(window.start), frames(window.end)
        while first + len(held) < end:
            while held and first < needed:
                held.popleft()
                first += 1
            arrays = next(grid, None)
            if arrays is None:
                raise MediaError(clip.id, f"the picture ends inside the window at {seconds(window.start):g} s")
            counters["frames_decoded"] += 1
            held.append(arrays)
        yield window, list(islice(held, begin - first, end - first))


# ----------------------------------------------------------------------------------------------------------- one model


class _SoundId(NamedTuple):
    """Identifies one sound window as one model hears it."""

    start: int
    length: int
    scope: Window
    law: str


def _sound_id(key: SnapshotKey) -> _SoundId:
    return _SoundId(key.sound, key.window, key.scope, key.law)


class _Stretch(NamedTuple):
    """The sound of a whole stretch, out of which windows are cut."""

    scope: Window
    law: str


class CalledModel:
    """A predictor and how to call it: in batches, with tensors on its device (arrays if ``uses_torch`` is False)."""

    def __init__(self, predictor: SnapshotPredictor, name: str, batch_size: int, device: str, n_classes: int) -> None:
        self.predictor: Any = predictor
        self.name = name
        self.batch_size = batch_size
        self.n_classes = n_classes
        self.uses_torch = getattr(predictor, "uses_torch", True)
        self.device = device if hasattr(predictor, "parameters") else "cpu"

    def give(self, arrays: Sequence[np.ndarray]) -> Any:
        """A batch in the form that the predictor takes: a copy, because the predictor may work in place."""
        batch = np.stack(arrays)
        if not self.uses_torch:
            return batch
        import torch

        return torch.from_numpy(batch).to(self.device)

    def in_batches(self, call: Callable[[list[Any]], list[Any]], items: Sequence[Any]) -> list[Any]:
        """Results of ``call`` on at most ``batch_size`` items at a time; when memory runs out, the size is halved."""
        out: list[Any] = []
        while len(out) < len(items):
            some = list(items[len(out) : len(out) + self.batch_size])
            try:
                out += call(some)
                continue
            except Exception as error:
                if len(some) == 1 or not is_out_of_memory(error):
                    raise
            # here the error and its traceback, which kept the tensors of the failed batch alive, are gone
            free_gpu_memory()
            self.batch_size = len(some) // 2
        return out

    def hears_stretches(self) -> bool:
        """Whether the predictor's front end looks beyond a window; ``UsageError`` for the hook of old."""
        if hasattr(self.predictor, "stretch_sound"):
            return True
        if hasattr(self.predictor, "audio_statistics"):
            raise UsageError(
                f"model {self.name} defines audio_statistics, which the paper protocol no longer asks for: define "
                "stretch_sound(audio (N,)) -> (..., T) and column_samples instead, as SnapshotPredictor describes"
            )
        return False

    def stretch_sound(self, sound: np.ndarray) -> Any:
        """What the predictor hears of a whole stretch, (N,) samples -> (..., T); ``UsageError`` for too short a T."""
        step = getattr(self.predictor, "column_samples", None)
        if not isinstance(step, int) or step < 1:
            raise UsageError(f"model {self.name}: column_samples is {step!r}; it must be the samples of a column, 1 on")
        heard = self.predictor.stretch_sound(self.give([sound])[0])
        shape = tuple(getattr(heard, "shape", ()))
        if not shape or shape[-1] < len(sound) // step:
            raise UsageError(
                f"model {self.name}: stretch_sound gives {shape or type(heard).__name__} for {len(sound)} samples; its "
                f"last axis must have one column every {step} samples, at least {len(sound) // step}"
            )
        return heard

    def rows(self, snapshot: Snapshot, n: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """(logits (21,), token (D,) or None) of each of ``n`` windows, float32; ``UsageError`` for another shape, or
        for what is no ``Snapshot``."""
        if not (hasattr(snapshot, "logits") and hasattr(snapshot, "token")):
            raise UsageError(f"model {self.name}: {not_a_snapshot(snapshot)}")
        logits, token = _array(snapshot.logits), _array(snapshot.token)
        if logits is None or logits.shape != (n, self.n_classes):
            raise UsageError(f"model {self.name}: logits are {_shape(logits)}, they must be {(n, self.n_classes)}")
        width = self.predictor.token_dim
        if _shape(token) != (None if width is None else (n, width)):
            raise UsageError(f"model {self.name}: the token is {_shape(token)}, but token_dim is {width}")
        return [(logits[i], None if token is None else token[i]) for i in range(n)]


class ClipPass:
    """Run one model over one clip. ``results``: key -> (logits, token); ``saved``: the keys already in the store;
    ``bad``: key -> what went wrong."""

    def __init__(self, model: CalledModel, keys: Iterable[SnapshotKey], sound: np.ndarray) -> None:
        self.model, self.sound = model, sound
        self.results: dict[SnapshotKey, tuple[np.ndarray, np.ndarray | None]] = {}
        self.saved: set[SnapshotKey] = set()
        self.bad: dict[SnapshotKey, str] = {}
        self.counters: Counter[str] = Counter()
        self.model_s = 0.0
        self._keys_at: dict[Window, list[SnapshotKey]] = {}
        self._pending: list[tuple[np.ndarray, list[SnapshotKey]]] = []
        self._sounds: dict[_SoundId, Any] = {}  # encoded sound windows that a later picture window still needs
        self._uses: Counter[_SoundId] = Counter()
        self._stretches: dict[_Stretch, Any] = {}  # what is heard of stretches that a later window is still cut out of
        self._cuts: Counter[_Stretch] = Counter()
        self.broken = ""  # why the model gave nothing from some window on
        for key in keys:
            self._uses[_sound_id(key)] += 1
            heard = self._heard(key)
            if heard.start < 0:
                self.bad[key] = f"needs sound from {seconds(heard.start):g} s on, before the clip's beginning"
            elif heard.end > len(sound):
                self.bad[key] = f"needs sound up to {seconds(heard.end):g} s, past the clip's end"
            else:
                self._keys_at.setdefault(Window(key.picture, key.window), []).append(key)
                self._cuts[_stretch(key)] += self._is_cut(key)

    def refuse_gaps(self, window: Window, gaps: tuple[Gap, ...]) -> None:
        """Name the keys of a picture window as bad whose picture or sound touches a gap."""
        if not gaps:
            return
        known, kept = Reading(gaps=gaps), []
        for key in self._keys_at.pop(window, ()):
            gap = known.gap_in("picture", window) or known.gap_in("sound", self._heard(key))
            if gap:
                missing = f"from {seconds(gap.start):g} to {seconds(gap.end):g} s"
                self.bad[key] = f"touches a gap: the {gap.kind} is missing {missing}"
            else:
                kept.append(key)
        if kept:
            self._keys_at[window] = kept

    def wants(self, window: Window) -> bool:
        """Whether the model still needs this picture window."""
        return not self.broken and window in self._keys_at

    def add(self, window: Window, video: np.ndarray) -> None:
        """Add a picture window, ``video`` (T, 3, size, size) uint8; it is computed as soon as the batch is full."""
        self._pending.append((video, self._keys_at[window]))
        items = len(self._pending) if self.model.predictor.two_tower else sum(len(keys) for _, keys in self._pending)
        if items >= self.model.batch_size:
            self._flush()

    def finish(self) -> None:
        """Compute the last, partial batch. If the model failed, every remaining key is in ``bad`` with the reason."""
        self._flush()
        for keys in self._keys_at.values():
            for key in keys:
                if key not in self.results and key not in self.bad:
                    self.bad[key] = self.broken

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if self.broken or not pending:
            return
        began = time.perf_counter()
        try:
            with _inference(self.model.uses_torch):
                (self._two_tower if self.model.predictor.two_tower else self._plain)(pending)
        except AvbenchError:
            raise
        except (Exception, SystemExit) as error:  # a model that fails loses only the rest of this clip
            debug.show(error)
            self.broken = f"broke off with {debug.with_users_line(error)}"
        for key in (key for _, keys in pending for key in keys if self._is_cut(key)):
            self._cuts[_stretch(key)] -= 1
            if not self._cuts[_stretch(key)]:
                self._stretches.pop(_stretch(key), None)
        self.model_s += time.perf_counter() - began

    def _plain(self, pending: list[tuple[np.ndarray, list[SnapshotKey]]]) -> None:
        def predict(some: list[tuple[SnapshotKey, np.ndarray]]) -> list[Any]:
            video = self.model.give([video for _, video in some])
            keys = [key for key, _ in some]
            self._keep(keys, self.model.predictor.predict(video, self._audio(keys)))
            return some

        jobs = [(key, video) for video, keys in pending for key in keys]
        for alike in self._alike(jobs, lambda job: job[0]):
            self.model.in_batches(predict, alike)
        self.counters["picture_windows_encoded"] += len(jobs)
        self.counters["sound_windows_encoded"] += len(jobs)

    def _two_tower(self, pending: list[tuple[np.ndarray, list[SnapshotKey]]]) -> None:
        predictor = self.model.predictor

        def encode_audio(some: list[SnapshotKey]) -> list[Any]:
            return _split(predictor.encode_audio(self._audio(some)), len(some))

        def fuse(some: list[tuple[Any, SnapshotKey]]) -> list[Any]:
            video = _join([features for features, _ in some])
            self._keep(
                [key for _, key in some], predictor.fuse(video, _join([self._sounds[_sound_id(k)] for _, k in some]))
            )
            return some

        videos = [video for video, _ in pending]
        features = self.model.in_batches(
            lambda some: _split(predictor.encode_video(self.model.give(some)), len(some)), videos
        )
        keys = [key for _, some in pending for key in some]
        fresh = {_sound_id(key): key for key in keys if _sound_id(key) not in self._sounds}
        for alike in self._alike(fresh.values(), lambda key: key):
            encoded = self.model.in_batches(encode_audio, alike)
            self._sounds.update(zip(map(_sound_id, alike), encoded, strict=True))
        pairs = [(video, key) for video, (_, some) in zip(features, pending, strict=True) for key in some]
        self.model.in_batches(fuse, pairs)
        for sound in map(_sound_id, keys):
            self._uses[sound] -= 1
            if not self._uses[sound]:
                del self._sounds[sound]
        self.counters["picture_windows_encoded"] += len(videos)
        self.counters["sound_windows_encoded"] += len(fresh)

    def _keep(self, keys: Sequence[SnapshotKey], snapshot: Snapshot) -> None:
        for key, (logits, token) in zip(keys, self.model.rows(snapshot, len(keys)), strict=True):
            if np.isfinite(logits).all() and (token is None or np.isfinite(token).all()):
                self.results[key] = logits, token
            else:
                self.bad[key] = "gave NaN or infinity"

    def _heard(self, key: SnapshotKey) -> Window:
        """The part of the clip's sound that is needed: under a law, wherever its offset goes. A lead trim of n samples
        shifts every sound window later by n."""
        low, high = extremes(law_of(key.law), key.scope.length) if key.law else (0, 0)
        begin = key.scope.start + self.model.predictor.frontend.audio_lead_trim_samples
        return Window(begin + low, key.scope.length + high - low)

    def _scope_samples(self, key: SnapshotKey) -> np.ndarray:
        """The sound of the key's whole scope, (N,) float32."""
        begin = key.scope.start + self.model.predictor.frontend.audio_lead_trim_samples
        if key.law:
            return gathered(self.sound, begin, key.scope.length, law_of(key.law))
        return self.sound[begin : begin + key.scope.length]

    def _samples(self, key: SnapshotKey) -> np.ndarray:
        """The sound window, (N,) float32."""
        begin = key.sound - key.scope.start
        return self._scope_samples(key)[begin : begin + key.window]

    def _columns(self, key: SnapshotKey) -> Any:
        """The window's columns, (1, ..., T), of what the model hears of the key's whole stretch."""
        stretch = _stretch(key)
        if stretch not in self._stretches:
            self._stretches[stretch] = self.model.stretch_sound(self._scope_samples(key))
        step = self.model.predictor.column_samples
        begin = (key.sound - key.scope.start) // step  # cut down to a whole column, as published
        return self._stretches[stretch][None, ..., begin : begin + key.window // step]

    def _is_cut(self, key: SnapshotKey) -> bool:
        """Whether the model gets this window's sound as columns, rather than as samples."""
        return key.stretch_start != NO_STRETCH and self.model.hears_stretches()

    def _audio(self, keys: Sequence[SnapshotKey]) -> Any:
        """The sound of a batch of windows that are alike, as the model takes it."""
        if self._is_cut(keys[0]):
            return _join([self._columns(key) for key in keys])
        return self.model.give([self._samples(key) for key in keys])

    def _alike(self, items: Iterable[Any], key_of: Callable[[Any], SnapshotKey]) -> Iterator[list[Any]]:
        """Those of which the model gets samples, and those of which it gets columns: no batch has both."""
        groups: dict[bool, list[Any]] = {}
        for item in items:
            groups.setdefault(self._is_cut(key_of(item)), []).append(item)
        yield from groups.values()


def _stretch(key: SnapshotKey) -> _Stretch:
    return _Stretch(key.scope, key.law)


def _split(features: Any, n: int) -> list[Any]:
    """The features of each of ``n`` windows, each with a batch axis of length 1."""
    if isinstance(features, tuple) and features:
        return [tuple(parts) for parts in zip(*(_split(f, n) for f in features), strict=True)]
    if not hasattr(features, "shape") or tuple(features.shape[:1]) != (n,):
        what = tuple(features.shape) if hasattr(features, "shape") else type(features).__name__
        raise UsageError(
            f"encoded features of {n} window(s) are {what}; they must be a tensor, an array or a tuple of these, "
            f"with {n} as the length of the first axis"
        )
    return [features[i : i + 1] for i in range(n)]


def _join(features: list[Any]) -> Any:
    """One batch, as a copy: a model may work in place, and other windows need the same features."""
    if isinstance(features[0], tuple):
        return tuple(_join(list(parts)) for parts in zip(*features, strict=True))
    if isinstance(features[0], np.ndarray):
        return np.concatenate(features)
    import torch

    return torch.cat(features)


def not_a_snapshot(returned: Any) -> str:
    """What a model returned in place of a ``Snapshot``, and what to return."""
    shape = getattr(returned, "shape", None)
    what = "nothing" if returned is None else f"a {type(returned).__name__}"
    what += f" of shape {tuple(shape)}" if shape is not None else ""
    return f"predict returned {what}: return avbench.Snapshot(logits=...), logits being (B, 21)"


def _array(values: Any) -> np.ndarray | None:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return None if values is None else np.array(values, np.float32)  # a copy: the model may use its buffer again


def _shape(array: np.ndarray | None) -> tuple[int, ...] | None:
    return None if array is None else array.shape


@contextlib.contextmanager
def _inference(uses_torch: bool) -> Iterator[None]:
    if not uses_torch:
        yield
        return
    import torch

    with torch.inference_mode():
        yield
