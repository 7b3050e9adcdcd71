"""One clip's job: run the models over it, store their snapshots, and report failures."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np

from avbench.engine.clip_pass import CalledModel, ClipPass, cut_windows
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.plan import SnapshotKey
from avbench.results.run import Spent
from avbench.system import debug
from avbench.system.paths import shown, why_no_file
from avbench.types import AvbenchError, ClipRecord, FrontEnd, Gap, MediaError, SnapshotPredictor, Window, in_one_line

Factory = Callable[[], SnapshotPredictor]
SAVE_EVERY_S = 30.0  # within a clip: a full-size model needs an hour for five minutes of stream
TELL_EVERY_S = 0.2
LOOKED_AT = 2**20  # samples at once, for silence


class Reader(Interface):
    """What the runner needs of a clip; :class:`avbench.data.media.ClipReader` is the real one."""

    def audio(self) -> np.ndarray:
        """(n_samples,) float32, the whole clip's sound."""

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        """Grid frames 0, 1, ... in order: one (3, size, size) uint8 array per front end."""

    def gaps(self) -> tuple[Gap, ...]:
        """What is missing in the sound, and in the frames so far."""


# ---------------------------------------------------------------------------------------------------- tasks, outcomes


class Task(NamedTuple):
    """One clip and the snapshots to compute for it."""

    clip: ClipRecord
    keys: dict[str, list[SnapshotKey]]  # fingerprint -> missing snapshots

    @property
    def n_snapshots(self) -> int:
        """Number of missing snapshots, over all models."""
        return sum(map(len, self.keys.values()))


Tell = Callable[[Task, int], None]  # a task, and how many of its snapshots are done


@dataclass
class Outcome:
    """What became of one task. Failures are texts, so that it can be sent from a worker process."""

    clip_id: str
    error: str = ""  # why the pass over the clip ended early
    bad: dict[str, dict[SnapshotKey, str]] = field(default_factory=dict)  # fingerprint -> key -> what went wrong
    warnings: list[str] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)  # fingerprint -> why its model gave nothing at all
    model_s: dict[str, float] = field(default_factory=dict)  # by fingerprint, like the next field
    model_snapshots: dict[str, int] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True)
class Backbone:
    """A backbone, built and fingerprinted once; ``make`` builds it in a worker process (None: it cannot be)."""

    predictor: SnapshotPredictor
    make: Factory | None
    fingerprint: str

    @classmethod
    def of(cls, maker: Backbone | SnapshotPredictor | Factory, device: str = "cpu") -> Backbone:
        """From a predictor, or from a function without arguments that makes it (picklable if workers are to use it)."""
        if isinstance(maker, Backbone):
            return maker
        predictor = load_predictor(maker, device)
        return cls.loaded(predictor, None if isinstance(maker, SnapshotPredictor) else maker)

    @classmethod
    def loaded(cls, predictor: SnapshotPredictor, make: Factory | None) -> Backbone:
        """From a predictor that is already on its device."""
        return cls(predictor, make, model_fingerprint(predictor))


def load_predictor(maker: SnapshotPredictor | Factory, device: str) -> SnapshotPredictor:
    """The predictor, in eval mode on ``device`` if it is a torch module."""
    predictor: Any = maker if isinstance(maker, SnapshotPredictor) else maker()
    if hasattr(predictor, "eval") and hasattr(predictor, "to"):
        predictor.eval().to(device)
    return predictor


def open_media(manifest: Manifest, clip: ClipRecord) -> Reader:
    """A reader of the clip's media file; errors as :func:`pinned_path`."""
    from avbench.data.media import ClipReader

    return ClipReader(pinned_path(manifest, clip), clip)


def pinned_path(manifest: Manifest, clip: ClipRecord) -> Path:
    """The clip's media file. ``MediaError`` if it is missing or its sha256 is not the manifest's."""
    from avbench.data.media import media_sha256

    path = manifest.clip_path(clip)
    problem = why_no_file(path)
    if problem:
        raise MediaError(clip.id, f"{shown(path)} {problem}")
    # snapshots are stored under this hash, so those of another file must never get there
    if media_sha256(path) != clip.sha256:
        raise MediaError(clip.id, f"{shown(path)} is not the file that the manifest pins (other sha256)")
    return path


# ------------------------------------------------------------------------------------------------------------ one clip


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to start. Keyed by fingerprint, so that a model with two names is computed once."""

    makers: dict[str, Factory]
    names: dict[str, str]
    store_root: Path
    open_clip: Callable[[ClipRecord], Reader]
    batch_size: int
    device: str
    n_classes: int

    def models(self, loaded: Mapping[str, SnapshotPredictor]) -> dict[str, CalledModel]:
        """By fingerprint: the ``loaded`` predictors, ready to be called in batches."""
        return {
            fingerprint: CalledModel(predictor, self.names[fingerprint], self.batch_size, self.device, self.n_classes)
            for fingerprint, predictor in loaded.items()
        }


def run_clip(task: Task, setup: Setup, models: Mapping[str, CalledModel], store: SnapshotStore, tell: Tell) -> Outcome:
    """Compute and store the missing snapshots of one clip, in one pass over its media.

    ``tell(task, n_done)`` is called about every ``TELL_EVERY_S``. A clip or model that fails is reported in the
    outcome; an ``AvbenchError`` other than ``MediaError`` (store not usable, wrong shapes) is raised. What was
    computed is stored.
    """
    outcome = Outcome(task.clip.id)
    passes: dict[str, ClipPass] = {}
    saved_s = told_s = time.monotonic()
    try:
        with only_this_clip(outcome):
            for _ in _windows_computed(task, setup, models, outcome, passes):
                now_s = time.monotonic()
                if now_s - saved_s > SAVE_EVERY_S:
                    save(task, passes, store)
                    saved_s = time.monotonic()
                if now_s - told_s > TELL_EVERY_S:
                    tell(task, n_done(passes))
                    told_s = now_s
    finally:
        save(task, passes, store)
    add_up(outcome, passes)
    return outcome


@contextlib.contextmanager
def only_this_clip(outcome: Outcome) -> Iterator[None]:
    """What fails inside is the outcome's error; an ``AvbenchError`` other than ``MediaError`` is raised."""
    try:
        yield
    except MediaError as error:
        debug.show(error)
        outcome.error = error.reason
    except AvbenchError:
        raise
    except Exception as error:  # a reader that fails loses its clip, not the run
        debug.show(error)
        outcome.error = f"reading failed with {in_one_line(error)}"


def n_done(passes: Mapping[str, ClipPass]) -> int:
    """How many snapshots of a clip are computed."""
    return sum(len(work.results) for work in passes.values())


def add_up(outcome: Outcome, passes: Mapping[str, ClipPass]) -> None:
    """Put what became of each model's windows into the outcome."""
    for fingerprint, work in passes.items():
        if work.bad:
            outcome.bad[fingerprint] = work.bad
        if work.broken and not work.results:
            outcome.broken[fingerprint] = work.broken
        outcome.counters["snapshots_computed"] += len(work.results)
        outcome.model_snapshots[fingerprint] = len(work.results)
        outcome.model_s[fingerprint] = work.model_s
        outcome.counters.update(work.counters)
        outcome.warnings += work.model.notes
        work.model.notes.clear()
        outcome.spent += Spent(transfer_s=work.transfer_s, compute_s=max(work.model_s - work.transfer_s, 0.0))


def save(task: Task, passes: Mapping[str, ClipPass], store: SnapshotStore) -> None:
    """Stores the snapshots that are not stored yet."""
    for fingerprint, work in passes.items():
        keys = sorted(work.results.keys() - work.saved)
        if keys:
            logits = np.stack([work.results[key][0] for key in keys])
            tokens = [token for key in keys if (token := work.results[key][1]) is not None]
            store.put(fingerprint, task.clip.as_read, keys, logits, np.stack(tokens) if tokens else None)
            work.saved.update(keys)


def _windows_computed(
    task: Task, setup: Setup, models: Mapping[str, CalledModel], outcome: Outcome, passes: dict[str, ClipPass]
) -> Iterator[None]:
    """One pass over the clip: fills ``passes`` (by fingerprint) and yields after each picture window."""
    reading = ClipReading(task, {name: models[name].predictor.frontend for name in task.keys}, outcome)
    sound = reading.open(setup.open_clip)
    passes |= {fingerprint: ClipPass(models[fingerprint], keys, sound) for fingerprint, keys in task.keys.items()}
    for window, held, gaps in reading.windows():
        cut: dict[int, np.ndarray] = {}  # one array per front end, made when first needed
        for work in passes.values():
            work.refuse_gaps(window, gaps)
            which = reading.frontends.index(work.model.predictor.frontend)
            if work.wants(window):
                if which not in cut:
                    cut[which] = np.stack([arrays[which] for arrays in held])
                work.add(window, cut[which])
        yield
    for work in passes.values():
        work.finish()
    outcome.counters["clips_decoded"] += 1


class ClipReading:
    """One clip's media read once, front to back, for all models that need it. ``in_order``: the picture windows."""

    def __init__(self, task: Task, frontends: Mapping[str, FrontEnd], outcome: Outcome) -> None:
        self.clip, self.outcome = task.clip, outcome
        self.frontends = list(dict.fromkeys(frontends[fingerprint] for fingerprint in task.keys))
        windows = {Window(key.picture, key.window) for keys in task.keys.values() for key in keys}
        self.in_order = sorted(windows, key=lambda w: (w.end, w.start))

    def open(self, open_clip: Callable[[ClipRecord], Reader]) -> np.ndarray:
        """The clip's sound, (n_samples,) float32; silence is a warning."""
        with self._decoding():
            self.reader = open_clip(self.clip)
            sound = self.reader.audio()
            # a part at a time: it may lie on the disk
            if not any(sound[at : at + LOOKED_AT].any() for at in range(0, len(sound), LOOKED_AT)):
                said = f"clip {self.clip.id}: the sound, the mean of its channels, is silent throughout"
                self.outcome.warnings.append(said)
        return sound

    def windows(self) -> Iterator[tuple[Window, list[tuple[np.ndarray, ...]], tuple[Gap, ...]]]:
        """Each picture window ``in_order`` with its frames (one array per front end), and the gaps so far."""
        grid = iter(self.reader.frames(*self.frontends))
        cut = cut_windows(grid, self.in_order, self.clip, self.outcome.counters)
        try:
            while True:
                with self._decoding():
                    found = next(cut, None)
                if found is None:
                    return
                # a manifest keeps its segments off those gaps that it names; a list may not know them
                yield (*found, self.reader.gaps())
        finally:
            if hasattr(grid, "close"):
                grid.close()

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.outcome.spent += Spent(decode_s=time.perf_counter() - began)
