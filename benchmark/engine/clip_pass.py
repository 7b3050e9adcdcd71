"""Run models over clips: cut windows from the frame stream, run both towers in batches, handle out-of-memory."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from avbench.engine.shared_segments import SAMPLES_PER_FRAME, Kept, SharedSegments, layout_of
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
    SegmentLayout,
    Snapshot,
    SnapshotPredictor,
    UsageError,
    Window,
    in_one_line,
)

COMPARED = 8  # windows of a first batch that are computed again one by one


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
        self.transfer_s = 0.0  # spent on bringing windows to the device
        self.compared = False  # whether a batch was compared with single windows
        self.notes: list[str] = []  # what the user should know of how it computes
        self.reads_later = self.uses_torch and self.device.startswith("cuda")  # results, when the next batch has begun

    @cached_property
    def layout(self) -> SegmentLayout | None:
        """How windows may be computed out of segments; ``UsageError`` as :func:`layout_of`."""
        return layout_of(self.predictor)

    def give(self, arrays: Sequence[Any]) -> Any:
        """A batch in the form that the predictor takes: a copy, because the predictor may work in place. Of arrays, or
        of tensors that are on its device already."""
        if not isinstance(arrays[0], np.ndarray):
            import torch

            return torch.stack(list(arrays))
        batch = np.stack(arrays)
        if not self.uses_torch:
            return batch
        import torch

        given = torch.from_numpy(batch)
        if self.device.startswith("cpu"):
            return given
        began = time.perf_counter()
        given = given.to(self.device)
        self.transfer_s += time.perf_counter() - began
        return given

    def copying(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot in this process's memory, when ``when_copied`` has been waited for; ``UsageError`` for what
        is no snapshot."""
        self._refuse_what_is_none(snapshot)
        return Snapshot(*(_begin_copy(part) for part in (snapshot.logits, snapshot.token)))

    def when_copied(self) -> Callable[[], None]:
        """To be called before what ``copying`` gave so far is read: waits until it has arrived."""
        if not self.reads_later:
            return lambda: None
        import torch

        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event.synchronize

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
        self._refuse_what_is_none(snapshot)
        logits, token = _array(snapshot.logits), _array(snapshot.token)
        if logits is None or logits.shape != (n, self.n_classes):
            raise UsageError(
                f"model {self.name}: logits are {_shape(logits)}, they must be {(n, self.n_classes)}: "
                "a row for each window, a column for each offset class"
            )
        width = self.predictor.token_dim
        if _shape(token) != (None if width is None else (n, width)):
            raise UsageError(f"model {self.name}: the token is {_shape(token)}, but token_dim is {width}")
        return [(logits[i], None if token is None else token[i]) for i in range(n)]

    def _refuse_what_is_none(self, snapshot: Any) -> None:
        if not (hasattr(snapshot, "logits") and hasattr(snapshot, "token")):
            raise UsageError(f"model {self.name}: {not_a_snapshot(snapshot)}")


class ClipPass:
    """Run one model over one clip. ``results``: key -> (logits, token); ``saved``: the keys already in the store;
    ``bad``: key -> what went wrong; ``n_waiting``: picture windows of which the results are still to come.

    ``batch``: to share batches with other clips; the windows of a clip alone make up its own, if there is none.
    ``shared``: the segments out of which windows are computed, if some of them share any (None: whole windows are)."""

    def __init__(
        self, model: CalledModel, keys: Iterable[SnapshotKey], sound: np.ndarray, batch: Batch | None = None
    ) -> None:
        self.model, self.sound, self.batch = model, sound, batch or Batch(model)
        self.n_waiting = 0
        self.results: dict[SnapshotKey, tuple[np.ndarray, np.ndarray | None]] = {}
        self.saved: set[SnapshotKey] = set()
        self.bad: dict[SnapshotKey, str] = {}
        self.counters: Counter[str] = Counter()
        self.model_s = self.transfer_s = 0.0
        self._keys_at: dict[Window, list[SnapshotKey]] = {}
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
                self._cuts[_stretch(key)] += self.is_cut(key)
        self.shared = SharedSegments.where_it_pays(model.layout, self._keys_at)

    def refuse_gaps(self, window: Window, gaps: tuple[Gap, ...]) -> None:
        """Name the keys of a picture window as bad whose picture or sound touches a gap."""
        if not gaps:
            return
        known, kept, keys = Reading(gaps=gaps), [], self._keys_at.pop(window, [])
        for key in keys:
            gap = known.gap_in("picture", window) or known.gap_in("sound", self._heard(key))
            if gap:
                missing = f"from {seconds(gap.start):g} to {seconds(gap.end):g} s"
                self.bad[key] = f"touches a gap: the {gap.kind} is missing {missing}"
            else:
                kept.append(key)
        if kept:
            self._keys_at[window] = kept
        if self.shared and keys:
            self.shared.let_go(None if kept else window, [key for key in keys if key in self.bad])

    def wants(self, window: Window) -> bool:
        """Whether the model still needs this picture window."""
        return not self.broken and window in self._keys_at

    def add(self, window: Window, video: Any) -> None:
        """Add a picture window, ``video`` (T, 3, size, size) uint8, an array or a tensor on the model's device; it is
        computed as soon as the batch is full."""
        self.batch.add(Job(self, video, self._keys_at[window]))

    def finish(self) -> None:
        """Compute the last, partial batch. If the model failed, every remaining key is in ``bad`` with the reason."""
        self.batch.finish()
        self.settle()

    def settle(self) -> None:
        """When nothing is waiting any more: every key without a result is in ``bad`` with the reason."""
        for keys in self._keys_at.values():
            for key in keys:
                if key not in self.results and key not in self.bad:
                    self.bad[key] = self.broken

    def keep(self, key: SnapshotKey, logits: np.ndarray, token: np.ndarray | None) -> None:
        """Take what the model gave for ``key``."""
        if not np.isfinite(logits).all():
            self.bad[key] = "gave NaN or infinity in its logits"
        elif token is not None and not np.isfinite(token).all():
            self.bad[key] = "gave NaN or infinity in its token"
        else:
            self.results[key] = logits, token

    def needs_sound(self, key: SnapshotKey) -> bool:
        """Whether the key's sound window is still to be encoded."""
        return _sound_id(key) not in self._sounds

    def keep_sound(self, key: SnapshotKey, features: Any) -> None:
        """Take the encoded sound window of ``key``."""
        self._sounds[_sound_id(key)] = features

    def sound_of(self, key: SnapshotKey) -> Any:
        """The encoded sound window of ``key``, with a batch axis of length 1."""
        return self._sounds[_sound_id(key)]

    def let_go(self, keys: Sequence[SnapshotKey]) -> None:
        """``keys``, all those of a picture window, are computed: forget what none of the others needs."""
        if self.shared:
            self.shared.let_go(Window(keys[0].picture, keys[0].window), keys)
        for key in keys:
            sound, stretch = _sound_id(key), _stretch(key)
            self._uses[sound] -= 1
            if not self._uses[sound]:
                self._sounds.pop(sound, None)
            if self.is_cut(key):
                self._cuts[stretch] -= 1
                if not self._cuts[stretch]:
                    self._stretches.pop(stretch, None)

    def picture_pieces(self, job: Job) -> _Pieces:
        """The picture window of ``job`` as segments."""
        assert self.shared
        ids = self.shared.pictures_of(Window(job.keys[0].picture, job.keys[0].window))
        return _Pieces(self, self.shared.pictures, ids, self.shared.layout.cut(job.video))

    def sound_pieces(self, key: SnapshotKey) -> _Pieces:
        """The sound window of ``key`` as segments."""
        assert self.shared
        inputs = self.shared.layout.cut(self._samples(key), SAMPLES_PER_FRAME)
        return _Pieces(self, self.shared.sounds, self.shared.sounds_of(key), inputs)

    def heard(self, key: SnapshotKey) -> Any:
        """The sound of ``key``: samples (N,), or columns (1, ..., T) if the model gets these."""
        return self._columns(key) if self.is_cut(key) else self._samples(key)

    def is_cut(self, key: SnapshotKey) -> bool:
        """Whether the model gets this window's sound as columns, rather than as samples."""
        return key.stretch_start != NO_STRETCH and self.model.hears_stretches()

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


# ------------------------------------------------------------------------------------------------------------- batches


class Job(NamedTuple):
    """A picture window of a clip, and the keys that show it."""

    work: ClipPass
    video: Any  # (T, 3, size, size) uint8
    keys: list[SnapshotKey]


class _Pieces(NamedTuple):
    """A window as its segments: where they are kept, under which names, and what they are encoded from."""

    work: ClipPass
    kept: Kept
    ids: Sequence[Hashable]
    inputs: list[Any]


_Keyed = tuple[ClipPass, SnapshotKey]
_Part = tuple[list[_Keyed], Snapshot]  # some keys, and what the model said of them


class _Flight(NamedTuple):
    """A batch whose results are still on their way from the device."""

    jobs: list[Job]
    parts: list[_Part]
    arrived: Callable[[], None]


class Batch:
    """Picture windows of one model, of one clip or of several, which are computed together as soon as there are enough.

    If a batch fails, its windows are computed again one by one, and only what fails then is lost. On CUDA the results
    of a batch are read when the next one has been started, so that the device need not wait for this process.
    """

    def __init__(self, model: CalledModel) -> None:
        self.model = model
        self._waiting: list[Job] = []
        self._flying: deque[_Flight] = deque()

    def add(self, job: Job) -> None:
        """Add a picture window; a full batch is computed."""
        job.work.n_waiting += 1
        self._waiting.append(job)
        n_items = len(self._waiting) if self.model.predictor.two_tower else sum(len(j.keys) for j in self._waiting)
        if n_items >= self.model.batch_size:
            self._flush()

    def finish(self) -> None:
        """Compute what is waiting, and get all results."""
        self._flush()
        self._land(0)

    def _flush(self) -> None:
        jobs, self._waiting = self._waiting, []
        if jobs:
            parts: list[_Part] = []
            with self._timed(jobs):
                self._compute(jobs, parts)
                self._flying.append(_Flight(jobs, parts, self.model.when_copied()))
        self._land(1 if self.model.reads_later else 0)

    def _land(self, n_left: int) -> None:
        """Get the results of all batches but the last ``n_left``."""
        while len(self._flying) > n_left:
            flight = self._flying.popleft()
            with self._timed(flight.jobs):
                for reason in self._guarded(partial(self._read, flight)):
                    for job in flight.jobs:
                        job.work.broken = job.work.broken or reason
            for job in flight.jobs:
                job.work.n_waiting -= 1

    def _compute(self, jobs: list[Job], parts: list[_Part]) -> None:
        jobs = [job for job in jobs if not job.work.broken]
        if not jobs:
            return
        call = self._two_tower if self.model.predictor.two_tower else self._plain
        for reason in self._guarded(partial(call, jobs, parts)):
            if len(jobs) > 1:
                for job in jobs:
                    self._compute([job], parts)
                return
            jobs[0].work.broken = reason  # a model that fails loses only the rest of this clip
        for job in jobs:
            job.work.let_go(job.keys)

    def _guarded(self, call: Callable[[], None]) -> Iterator[str]:
        """Calls; gives the reason if the model failed."""
        try:
            with _inference(self.model.uses_torch):
                call()
            return
        except AvbenchError:
            raise
        except (Exception, SystemExit) as error:
            debug.show(error)
            reason = f"broke off with {debug.with_users_line(error)}"
        yield reason  # here the error is gone, and the tensors that it kept alive

    @contextlib.contextmanager
    def _timed(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Shares the time spent inside out among the clips of the windows."""
        began, moved_s = time.perf_counter(), self.model.transfer_s
        yield
        each_s = (time.perf_counter() - began) / len(jobs)
        for job in jobs:
            job.work.model_s += each_s
            job.work.transfer_s += (self.model.transfer_s - moved_s) / len(jobs)

    def _plain(self, jobs: list[Job], parts: list[_Part]) -> None:
        def predict(some: list[tuple[_Keyed, Any]]) -> list[Any]:
            video = self.model.give([video for _, video in some])
            pairs = [pair for pair, _ in some]
            self._keep(pairs, self.model.predictor.predict(video, self._sound(pairs)), parts)
            return some

        windows = [((job.work, key), job.video) for job in jobs for key in job.keys]
        for alike in _alike(windows, lambda window: window[0]):
            self.model.in_batches(predict, alike)
        for (work, _), _ in windows:
            work.counters["picture_windows_encoded"] += 1
            work.counters["sound_windows_encoded"] += 1

    def _two_tower(self, jobs: list[Job], parts: list[_Part]) -> None:
        for shared in (False, True):  # windows that share segments are computed out of these
            some = [job for job in jobs if bool(job.work.shared) == shared]
            if some:
                self._towers(some, parts, shared)

    def _towers(self, jobs: list[Job], parts: list[_Part], shared: bool) -> None:
        predictor = self.model.predictor

        def fuse(some: list[tuple[Any, _Keyed]]) -> list[Any]:
            video, audio = _join([features for features, _ in some]), _join([w.sound_of(key) for _, (w, key) in some])
            said = predictor.fuse_segments(video, audio) if shared else predictor.fuse(video, audio)
            self._keep([pair for _, pair in some], said, parts)
            return some

        pairs = [(job.work, key) for job in jobs for key in job.keys]
        fresh = list({(work, _sound_id(key)): (work, key) for work, key in pairs if work.needs_sound(key)}.values())
        features = self._pictures(jobs, shared)
        for (work, key), encoded in self._sounds(fresh, shared):
            work.keep_sound(key, encoded)
            work.counters["sound_windows_encoded"] += 1
        shown = [(video, (job.work, key)) for video, job in zip(features, jobs, strict=True) for key in job.keys]
        self.model.in_batches(fuse, shown)
        for job in jobs:
            job.work.counters["picture_windows_encoded"] += 1

    def _pictures(self, jobs: list[Job], shared: bool) -> list[Any]:
        """The encoded picture window of each job."""
        predictor, counter = self.model.predictor, "picture_segments_encoded"
        if shared:
            pieces = [job.work.picture_pieces(job) for job in jobs]
            return self._by_segments(pieces, predictor.encode_video_segments, counter)

        def encode_video(some: list[Any]) -> list[Any]:
            return _split(predictor.encode_video(self.model.give(some)), len(some))

        features = self.model.in_batches(encode_video, [job.video for job in jobs])
        for job in jobs:
            self._count_segments(job.work, counter)
        return features

    def _sounds(self, fresh: list[_Keyed], shared: bool) -> Iterator[tuple[_Keyed, Any]]:
        """Each with its encoded sound window."""
        predictor, counter = self.model.predictor, "sound_segments_encoded"
        if shared:
            pieces = [work.sound_pieces(key) for work, key in fresh]
            yield from zip(fresh, self._by_segments(pieces, predictor.encode_audio_segments, counter), strict=True)
            return

        def encode_audio(some: list[_Keyed]) -> list[Any]:
            return _split(predictor.encode_audio(self._sound(some)), len(some))

        for alike in _alike(fresh, lambda pair: pair):
            yield from zip(alike, self.model.in_batches(encode_audio, alike), strict=True)
        for work, _ in fresh:
            self._count_segments(work, counter)

    def _count_segments(self, work: ClipPass, counter: str) -> None:
        """Those of one whole window."""
        if self.model.layout:
            work.counters[counter] += self.model.layout.n

    def _by_segments(self, windows: list[_Pieces], encode: Callable[[Any], Any], counter: str) -> list[Any]:
        """The features of each window, (1, n, ...), put together from those of its segments, each encoded once."""
        n = self.model.layout.n if self.model.layout else 1
        lacking: dict[tuple[Kept, Hashable], tuple[ClipPass, Any]] = {}
        for work, kept, ids, inputs in windows:
            for segment, given in zip(ids, inputs, strict=True):
                if kept.lacks(segment):
                    lacking.setdefault((kept, segment), (work, given))
        # on a CPU one by one: the bytes of a segment must not depend on which others are lacking
        at_once = 1 if self.model.device.startswith("cpu") else max(len(lacking), 1)

        def encode_runs(runs: list[Any]) -> list[None]:
            for part in _runs([one for run in runs for one in run], at_once):
                encoded = _split(encode(self.model.give([given for _, (_, given) in part])), len(part))
                for ((kept, segment), (work, _)), features in zip(part, encoded, strict=True):
                    kept.keep(segment, _join([features]))  # a copy: those it was encoded with may be forgotten
                    work.counters[counter] += 1
            return [None] * len(runs)

        # as many as a window has count as one window of a batch
        self.model.in_batches(encode_runs, _runs(list(lacking.items()), n))
        return [as_window(_join([kept[segment] for segment in ids])) for _, kept, ids, _ in windows]

    def _sound(self, pairs: Sequence[_Keyed]) -> Any:
        """The sound of a batch of windows that are alike, as the model takes it."""
        heard = [work.heard(key) for work, key in pairs]
        return _join(heard) if pairs[0][0].is_cut(pairs[0][1]) else self.model.give(heard)

    def _keep(self, pairs: list[_Keyed], snapshot: Snapshot, parts: list[_Part]) -> None:
        """Give the clips their results, now or when they are read."""
        if self.model.reads_later:
            parts.append((pairs, self.model.copying(snapshot)))
            return
        for (work, key), (logits, token) in zip(pairs, self.model.rows(snapshot, len(pairs)), strict=True):
            work.keep(key, logits, token)

    def _read(self, flight: _Flight) -> None:
        flight.arrived()
        for pairs, snapshot in flight.parts:
            for (work, key), (logits, token) in zip(pairs, self.model.rows(snapshot, len(pairs)), strict=True):
                work.keep(key, logits, token)
        if not self.model.compared:
            self._compare(flight.jobs)

    def _compare(self, jobs: list[Job]) -> None:
        """Compute a few windows of a batch again, one by one, and say if that gives other numbers."""
        windows = [(job, key) for job in jobs for key in job.keys if key in job.work.results]
        if self.model.batch_size == 1 or len(windows) == 1:
            return
        self.model.compared, most, said = True, 0.0, f"model {self.model.name}: batches of {self.model.batch_size}"
        try:
            for job, key in windows[:COMPARED]:
                both = zip(job.work.results[key], self._alone(job, key), strict=True)
                most = max([most, *(float(np.abs(a - b).max(initial=0)) for a, b in both if a is not None)])
        except (Exception, SystemExit) as error:
            debug.show(error)
            self.model.notes.append(f"{said} work, but a single window does not: {in_one_line(error)}")
        if most:
            self.model.notes.append(
                f"{said} round differently from single windows, by up to {most:.1g}: scores may differ in the last "
                "digits from those at --batch-size 1"
            )

    def _alone(self, job: Job, key: SnapshotKey) -> tuple[np.ndarray, np.ndarray | None]:
        """What the model says of one window alone."""
        predictor, video, audio = self.model.predictor, self.model.give([job.video]), self._sound([(job.work, key)])
        if predictor.two_tower:
            return self.model.rows(predictor.fuse(predictor.encode_video(video), predictor.encode_audio(audio)), 1)[0]
        return self.model.rows(predictor.predict(video, audio), 1)[0]


def _alike(items: Iterable[Any], pair_of: Callable[[Any], _Keyed]) -> Iterator[list[Any]]:
    """Those of which the model gets samples, and those of which it gets columns: no batch has both."""
    groups: dict[bool, list[Any]] = {}
    for item in items:
        work, key = pair_of(item)
        groups.setdefault(work.is_cut(key), []).append(item)
    yield from groups.values()


def _runs(items: Sequence[Any], n: int) -> list[list[Any]]:
    """In lists of ``n``, the last one perhaps shorter."""
    return [list(items[at : at + n]) for at in range(0, len(items), n)]


def as_window(features: Any) -> Any:
    """The features of a window's segments, (n, ...), as those of a batch of one window."""
    return tuple(map(as_window, features)) if isinstance(features, tuple) else features[None]


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


def _begin_copy(values: Any) -> Any:
    """A tensor's copy in this process's memory, perhaps not complete yet; anything else as it is."""
    return values.detach().float().to("cpu", non_blocking=True) if hasattr(values, "detach") else values


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
