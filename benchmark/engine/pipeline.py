"""The overlapped pipeline, for accelerators: decoding processes read clips while this process computes windows.

Pictures and sound come through shared memory (``slab``), each frame once; windows are put together where the model
computes, and batches are made of the windows of all clips (``Batch``). Memory is bounded: what is decoded ahead fits
into the slabs, a decoding process waits when its own is full, and of each clip only the frames are kept that a later
window needs. A clip's snapshots are stored when its last window is computed, and every ``SAVE_EVERY_S`` before. Which
clips share a batch depends on who decodes faster: where batches give the bytes of single windows that changes nothing,
and where they do not, ``Batch`` notices and the run says so.

One thread does all of this: it takes what decoding processes tell, and computes whenever a batch is full, while they
decode on and CUDA works on its own.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from avbench.engine import job
from avbench.engine.clip_pass import Batch, CalledModel, ClipPass
from avbench.engine.decoding import Began, Cut, Frames, Message, Sound, Source, ready_to_decode
from avbench.engine.job import Outcome, Setup, Task, Tell, add_up, n_done, only_this_clip, save
from avbench.engine.slab import Place, Slabs
from avbench.engine.store import SnapshotStore
from avbench.engine.workers import STALL_S, same_everywhere
from avbench.results.run import Spent
from avbench.system import debug
from avbench.system.workers import Lost, Pool
from avbench.ticks import frames
from avbench.types import SnapshotPredictor, in_one_line

LONG_SOUND_BYTES = 64 * 2**20  # 17 minutes; longer sound lies on the disk


def run_overlapped(
    setup: Setup, tasks: Sequence[Task], loaded: Mapping[str, SnapshotPredictor], decoders: int, tell: Tell
) -> Generator[tuple[Task, Outcome]]:
    """Outcomes of the tasks as they finish, computed in this process with the ``loaded`` predictors (by fingerprint),
    from what ``decoders`` processes decode. One that dies costs its clip."""
    models = setup.models(loaded)
    source = Source(setup.open_clip, {name: model.predictor.frontend for name, model in models.items()})
    pool = Pool[Task, Outcome](
        partial(ready_to_decode, source), decoders, timeout_of=lambda task: STALL_S, second_try=True
    )
    line = _Line(models, SnapshotStore(setup.store_root), tell)
    with same_everywhere(models.values()), contextlib.closing(line):
        with contextlib.closing(pool.run(tasks, line.told)) as ends:
            for task, end in ends:
                line.ended(task, end)
                yield from line.finished()
        line.compute_the_rest()
        yield from line.finished()


class _Line:
    """The clips between their decoding and their store. A clip is open from its first message to its outcome."""

    def __init__(self, models: Mapping[str, CalledModel], store: SnapshotStore, tell: Tell) -> None:
        self.models, self.store, self.tell = models, store, tell
        self.batches = {fingerprint: Batch(model) for fingerprint, model in models.items()}
        self.slabs = Slabs(pinned=any(model.reads_later for model in models.values()))
        self.movers = {fingerprint: mover_to(model) for fingerprint, model in models.items()}
        self.open: dict[str, _OpenClip] = {}
        self.idle_since = time.perf_counter()

    def told(self, task: Task, message: Message) -> None:
        """Takes a message of a decoding process; computes the batches that it fills."""
        clip = self.open.get(task.clip.id)
        if isinstance(message, Began):  # perhaps once more: its first decoding process died
            if clip:
                save(task, clip.passes, self.store)
                self.slabs.drop(clip.slabs)
            clip = self.open[task.clip.id] = _OpenClip(task, message, self)
        if clip and message:
            with self._busy(clip), only_this_clip(clip.outcome):
                clip.take(message)
        self._store_and_tell()

    def ended(self, task: Task, end: Outcome | Lost) -> None:
        """The clip was decoded to its end, or will not be."""
        clip = self.open.get(task.clip.id) or _OpenClip(task, Began(0), self)
        self.open[task.clip.id] = clip
        with self._busy(clip):
            if isinstance(end, Lost):
                self.slabs.drop(clip.slabs)
                end = Outcome(task.clip.id, error=end.reason)
            clip.end(end)

    def compute_the_rest(self) -> None:
        """Compute the last, partial batches."""
        for batch in self.batches.values():
            batch.finish()

    def finished(self) -> Iterator[tuple[Task, Outcome]]:
        """The clips of which everything is computed, stored."""
        for clip in [clip for clip in self.open.values() if clip.is_done]:
            save(clip.task, clip.passes, self.store)
            del self.open[clip.task.clip.id]
            yield clip.task, clip.result()
        self.idle_since = time.perf_counter()  # what is done with the outcomes is no waiting

    def close(self) -> None:
        """Store what was computed of the clips that are open."""
        try:
            for clip in self.open.values():
                save(clip.task, clip.passes, self.store)
        finally:
            self.open.clear()
            self.slabs.close()

    @contextlib.contextmanager
    def _busy(self, clip: _OpenClip) -> Iterator[None]:
        """The time since the last news was spent waiting for this."""
        clip.wait_s += time.perf_counter() - self.idle_since
        try:
            yield
        finally:
            self.idle_since = time.perf_counter()

    def _store_and_tell(self) -> None:
        now_s = time.monotonic()
        for clip in self.open.values():
            # a clip that is done waits here for its turn to be given out, but not to be stored
            if now_s - clip.saved_s > job.SAVE_EVERY_S or (clip.is_done and not clip.is_stored):
                save(clip.task, clip.passes, self.store)
                clip.saved_s, clip.is_stored = time.monotonic(), clip.is_done
            if now_s - clip.told_s > job.TELL_EVERY_S:
                self.tell(clip.task, n_done(clip.passes))
                clip.told_s = now_s


class _OpenClip:
    """A clip on its way: its sound, the frames that later windows need, and what its models said so far."""

    def __init__(self, task: Task, began: Began, line: _Line) -> None:
        self.task, self.line = task, line
        self.frontends = list(dict.fromkeys(line.models[fingerprint].predictor.frontend for fingerprint in task.keys))
        self.outcome = Outcome(task.clip.id)
        self.passes: dict[str, ClipPass] = {}
        self.reels: dict[tuple[int, str], Reel] = {}
        self.sound, self.n_heard = _room_for(began.n_samples), 0
        self.decoded: Outcome | None = None
        self.wait_s, self.saved_s, self.told_s = 0.0, time.monotonic(), time.monotonic()
        self.is_stored = False
        self.slabs: set[str] = set()  # those it came through

    def take(self, message: Message) -> None:
        """Takes the clip's next message; after an error nothing more is taken, and slots are given back."""
        if isinstance(message, Began):
            self._hear_all()
        if isinstance(message, Sound | Frames):
            with self._lent(message.place) as view:
                if view is None or self.outcome.error:
                    pass
                elif isinstance(message, Sound):
                    self.sound[message.first : message.first + len(view)] = view
                    self.n_heard += len(view)
                    self._hear_all()
                else:
                    self._wind_on(message, view)
        if isinstance(message, Cut) and not self.outcome.error:
            self._cut(message)

    @contextlib.contextmanager
    def _lent(self, place: Place) -> Iterator[np.ndarray | None]:
        """The array at ``place``; None if the process that wrote it is gone, of which the pool
        is about to say how it died."""
        try:
            self.slabs.add(place.slab)
            view = self.line.slabs.view(place)
        except OSError as error:
            debug.show(error)
            self.outcome.error = f"what its decoding process shares cannot be read: {in_one_line(error)}"
            yield None
            return
        try:
            yield view
        finally:
            self.line.slabs.free(place)

    def _hear_all(self) -> None:
        """When the whole sound is there, windows can be computed."""
        if self.n_heard == len(self.sound):
            self.passes = {
                fingerprint: ClipPass(self.line.models[fingerprint], keys, self.sound, self.line.batches[fingerprint])
                for fingerprint, keys in self.task.keys.items()
            }

    def _reel_of(self, fingerprint: str) -> Reel:
        model = self.line.models[fingerprint]
        which, where = self.frontends.index(model.predictor.frontend), _where(model)
        return self.reels.setdefault((which, where), Reel())

    def _wind_on(self, message: Frames, view: np.ndarray) -> None:
        """Bring frames to where the models that want them compute: once, however many these are."""
        fresh: dict[str, Any] = {}
        for fingerprint, work in self.passes.items():
            model = work.model
            if (
                model.predictor.frontend == self.frontends[message.which]
                and not work.broken
                and _where(model) not in fresh
            ):
                began = time.perf_counter()
                fresh[_where(model)] = self.line.movers[fingerprint](view)
                self.outcome.spent += Spent(transfer_s=time.perf_counter() - began)
                self._reel_of(fingerprint).add(message.first, fresh[_where(model)])

    def _cut(self, message: Cut) -> None:
        window = message.window
        videos: dict[int, Any] = {}
        for fingerprint, work in self.passes.items():
            work.refuse_gaps(window, message.gaps)
            if work.wants(window):
                reel = self._reel_of(fingerprint)
                if id(reel) not in videos:
                    videos[id(reel)] = reel.window(frames(window.start), frames(window.end))
                work.add(window, videos[id(reel)])
        for reel in self.reels.values():
            reel.drop_before(message.keep_from)

    def end(self, decoded: Outcome) -> None:
        """The last that will be heard of the clip."""
        self.decoded = decoded
        self.reels.clear()

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is still to be computed."""
        return self.decoded is not None and not any(work.n_waiting for work in self.passes.values())

    def result(self) -> Outcome:
        """What became of it."""
        assert self.decoded
        outcome = self.decoded
        outcome.error = outcome.error or self.outcome.error
        if not outcome.error:
            for work in self.passes.values():
                work.settle()
        outcome.spent += self.outcome.spent + Spent(wait_s=self.wait_s)
        add_up(outcome, self.passes)
        return outcome


class Reel:
    """The frames of a clip that later windows need, in blocks as they came: arrays, or tensors on the device."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}  # index of the first frame -> (n, 3, size, size) uint8

    def add(self, first: int, block: Any) -> None:
        """Add frames ``first``, ``first`` + 1, ..."""
        self.blocks[first] = block

    def window(self, begin: int, end: int) -> Any:
        """Frames ``begin`` to ``end`` - 1, (T, 3, size, size), as a copy."""
        pieces = []
        for first, block in sorted(self.blocks.items(), key=lambda item: item[0]):
            if first < end and begin < first + len(block):
                pieces.append(block[max(begin - first, 0) : end - first])
        if isinstance(pieces[0], np.ndarray):
            return np.concatenate(pieces)
        import torch

        return torch.cat(pieces)

    def drop_before(self, index: int) -> None:
        """Forget the blocks of which no frame from ``index`` on is part."""
        self.blocks = {first: block for first, block in self.blocks.items() if first + len(block) > index}


def _where(model: CalledModel) -> str:
    """Where a model wants its pictures: "" in this process's memory, else its device."""
    return model.device if model.uses_torch and not model.device.startswith("cpu") else ""


def mover_to(model: CalledModel) -> Callable[[np.ndarray], Any]:
    """Copies an array out of shared memory to where the model computes. On CUDA beside the computing: in a stream of
    its own, of which only the copy is waited for."""
    where = _where(model)
    if not where:
        return np.array
    import torch

    if not model.reads_later:
        return lambda view: torch.from_numpy(np.array(view)).to(where)
    stream = torch.cuda.Stream(where)

    def move(view: np.ndarray) -> Any:
        with torch.cuda.stream(stream):
            moved = torch.from_numpy(view).to(where, non_blocking=True)
        stream.synchronize()
        moved.record_stream(torch.cuda.current_stream(where))  # its memory is not reused before that is through with it
        return moved

    return move


def _room_for(n_samples: int) -> np.ndarray:
    """For a clip's sound, (n_samples,) float32; on the disk if it is long."""
    if 4 * n_samples <= LONG_SOUND_BYTES:
        return np.empty(n_samples, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(n_samples,))
