"""Label-free figures of files: DeSync in its two variants, LSE, the believed offset.

``METRICS`` is the list: a new metric is one function ``(OpenFile) -> {figure: value}`` and one entry. Every file is
opened in a worker process, which costs only that file if it dies.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from avbench.data.apart import MEMORY_BYTES, MediaFile, guarded
from avbench.data.folders import find_media
from avbench.data.media import ClipReader
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.job import Factory, load_predictor
from avbench.engine.workers import STALL_S
from avbench.registry.names import resolve, without_folders
from avbench.registry.options import ModelOptions
from avbench.runs.segments import Segmenter, SegmentLogits
from avbench.scoring import desync
from avbench.scoring.figures import Figure, FileFigures, FileRow, LabelFree, pair
from avbench.scoring.stats import DEFAULT, Bootstrap
from avbench.system import debug
from avbench.system.devices import check_device, device_meant, on_cpu
from avbench.system.machine import GIB
from avbench.system.paths import without_name
from avbench.system.precision import exact_float32
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, Pool
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, seconds
from avbench.types import (
    AvbenchError,
    MediaError,
    NonFiniteError,
    SnapshotPredictor,
    UsageError,
    in_one_line,
    printable,
)
from avbench.weights.cache import converted

SYNCHFORMER, SYNCNET = "synchformer", "syncnet"
DEFAULT_MODEL = "synchformer.audioset"  # the checkpoint of both published DeSync codes
DEFAULT_SYNCNET = "syncnet.v2"
PUBLISHED_LENGTH_S = 8  # what both published codes read of a file unless told otherwise
_UNEQUAL_S = 0.1  # a larger difference between the lengths of picture and sound is worth a warning
_NETWORK_BYTES = 4 * GIB  # of a worker, beside what reading a file takes: the full-size model twice while it is loaded


class OpenFile:
    """A file while it is measured; what several metrics need of it is computed once.

    ``networks``: "synchformer" -> :class:`Segmenter`, "syncnet" -> SyncNet; ``setup``: how it is measured.
    ``MediaError`` on opening: no sound that can be read, or only silence.
    """

    def __init__(
        self, path: Path, clip_id: str, setup: Setup, networks: Mapping[str, Any], tell: Callable[[int], None]
    ) -> None:
        self.path, self.networks, self.tell = path, networks, tell
        self.how, self.boxes = setup.how, setup.boxes
        self.reader = ClipReader(path, clip_id=clip_id)
        self.n_samples, loudest = 0, 0.0
        for block in self.reader.audio_blocks():
            self.n_samples += len(block)
            loudest = max(loudest, float(abs(block).max(initial=0.0)))
        if not loudest:
            raise self.error("silent: every sample of the sound is 0")
        self.warnings: list[str] = []
        self._segments: SegmentLogits | MediaError | None = None

    def error(self, reason: str) -> MediaError:
        """What to raise for a file that has no value."""
        return MediaError(self.reader.clip_id, reason)

    @property
    def segments(self) -> SegmentLogits:
        """The file's segments as Synchformer judges them. ``MediaError``: the picture cannot be read."""
        if self._segments is None:
            segmenter: Segmenter = self.networks[SYNCHFORMER]
            try:
                self._segments = segmenter.logits(self.reader, self.how.most_frames, self.tell)
            except MediaError as error:
                self._segments = error
            except AvbenchError:
                raise
            except Exception as error:  # the model's
                debug.show(error)
                self._segments = self.error(f"model {segmenter.name} broke off with {in_one_line(error)}")
        if isinstance(self._segments, MediaError):
            raise self._segments
        return self._segments

    @property
    def duration_s(self) -> float:
        """Seconds that both streams cover, as far as is known: the sound's where the picture was not read."""
        found = self._segments if isinstance(self._segments, SegmentLogits) else None
        sound_s = self.n_samples / SAMPLE_RATE_HZ
        if found is None or found.n_frames == self.how.most_frames:
            return sound_s
        return min(found.n_frames / FRAME_RATE_HZ, sound_s)


# --------------------------------------------------------------------------------------------------------- the metrics


def desync_first_last(file: OpenFile) -> dict[str, float]:
    """Mean |offset| of the first and the last 14 segments."""
    found = file.segments
    if reason := desync.too_short(found.n):
        raise file.error(reason)
    return {"desync.first-last": desync.desync_s(found.logits, desync.first_last(found.n))}


def desync_consecutive(file: OpenFile) -> dict[str, float]:
    """Mean |offset| of consecutive groups of 14 segments."""
    found = file.segments
    if reason := desync.too_short(found.n, "consecutive"):
        raise file.error(reason)
    if found.n < desync.GROUP:
        file.warnings.append(
            f"desync.consecutive: the file has {found.n} segments; they are repeated to make {desync.GROUP}"
        )
    return {"desync.consecutive": desync.desync_s(found.logits, desync.consecutive(found.n))}


def believed_offset(file: OpenFile) -> dict[str, float]:
    """The offset that Synchformer believes in over the whole file, and its size."""
    found = file.segments
    if reason := desync.too_short(found.n):
        raise file.error(reason)
    # a checkpoint trained on sound that began this much later takes an offset of as much for none
    lead = seconds(file.networks[SYNCHFORMER].model.frontend.audio_lead_trim_samples)
    offset_s = desync.offset_s(found.logits, found.n) + lead
    return {"offset": abs(offset_s), "offset_s": offset_s}


def lse(file: OpenFile) -> dict[str, float]:
    """LSE-D, LSE-C and the offset in frames, of SyncNet on the tracked face."""
    measure_lse = _syncnets("runs.lse").measure_lse
    found = measure_lse(file.path, file.networks[SYNCNET], boxes=file.boxes, device=file.how.device)
    file.warnings.append(f"lse: faces by {found.detector}; {found.words}")
    return {
        "lse_d": float(found.lse_d),
        "lse_c": float(found.lse_c),
        "lse_offset_frames": float(found.offset_frames),
    }


_SEGMENTS = (
    "Synchformer trained on AudioSet; segments of 16 pictures and 10,240 samples every 8 pictures, 14 of them judged "
    "together; |offset| of the most probable of 21 classes, mean over the groups"
)
METRICS: dict[str, LabelFree] = {
    metric.name: metric
    for metric in (
        LabelFree(
            "desync.first-last",
            (
                Figure(
                    "desync.first-last",
                    "DeSync first-last (s)",
                    "s",
                    True,
                    "mean |offset| of first and last 4.8 s",
                    most=2.0,
                ),
            ),
            f"hkchengrex/av-benchmark: {_SEGMENTS}: the first 14 and the last 14; a file with fewer has none",
            desync_first_last,
            SYNCHFORMER,
        ),
        LabelFree(
            "desync.consecutive",
            (
                Figure(
                    "desync.consecutive",
                    "DeSync consecutive (s)",
                    "s",
                    True,
                    "mean |offset| of groups of 4.8 s",
                    most=2.0,
                ),
            ),
            f"JavisVerse/JavisDiT: {_SEGMENTS}: one group of 14 after the other, what is left at the end as the last "
            "14; fewer than 14 are repeated in a circle",
            desync_consecutive,
            SYNCHFORMER,
        ),
        LabelFree(
            "lse",
            (
                Figure("lse_d", "LSE-D", "", True, "smallest mean distance of lips and sound over 31 lags"),
                Figure("lse_c", "LSE-C", "", False, "median minus smallest mean distance: how sure"),
                Figure(
                    "lse_offset_frames", "AV offset (frames)", "frames", None, "of 40 ms; positive: the sound is early"
                ),
            ),
            "joonson/syncnet_python: SyncNet on a tracked face, 25 pictures per second; the face detector may be "
            "another one",
            lse,
            SYNCNET,
        ),
        LabelFree(
            "offset",
            (
                Figure("offset", "|offset| (s)", "s", True, "size of the believed offset"),
                Figure("offset_s", "offset (s)", "s", None, "believed offset; positive: the sound is early", True),
            ),
            "of avbench: class probabilities of Synchformer averaged over windows of 14 segments every 1.92 s, then "
            "the mean offset of the most probable class and its neighbours",
            believed_offset,
            SYNCHFORMER,
        ),
    )
}


def checked_metrics(names: Iterable[str]) -> list[LabelFree]:
    """The metrics of these names, each once; ``UsageError`` for an unknown one, with the nearest names, or for none."""
    found = {}
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=2, cutoff=0.3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(METRICS)}"
            raise UsageError(f"unknown metric {printable(repr(name))}: {hint}")
        found[name] = METRICS[name]
    if not found:
        raise UsageError(f"no metric is named; there are {', '.join(METRICS)}")
    return list(found.values())


# ---------------------------------------------------------------------------------------------------------- many files


@dataclass(frozen=True)
class How:
    """How files are measured. ``model``: the Synchformer (None: ``synchformer.audioset``, or with weights in
    ``options`` those), ``syncnet``: the network of ``lse``. ``length_s``: read only the beginning of each file.
    ``boxes``: a file with the faces' boxes for ``lse``. ``device``: a torch device, or "auto". ``batch_size``: of
    Synchformer's segments on an accelerator (None: ``avbench.runs.segments.BATCH``)."""

    model: str | None = None
    options: ModelOptions = field(default=ModelOptions(), repr=False)
    syncnet: str | None = None
    device: str = "cpu"
    workers: int = 1
    length_s: float | None = None
    boxes: Path | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", device_meant(self.device))
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.workers < 1:
            raise UsageError(f"workers is {self.workers}; it must be at least 1")
        if self.length_s is not None and not (math.isfinite(self.length_s) and self.length_s > 0):
            raise UsageError(f"the length to read is {self.length_s} s; it must be a positive number of seconds")

    @property
    def most_frames(self) -> int | None:
        """Pictures to read of each file; None for all."""
        return None if self.length_s is None else int(self.length_s * FRAME_RATE_HZ)

    @property
    def on_cpu(self) -> bool:
        """Whether networks run on the CPU."""
        return on_cpu(self.device)


def score_files(  # noqa: PLR0913  (what is measured, how, and who is told: the options of `avbench score`)
    paths: Iterable[Path | str],
    metrics: Iterable[str] = ("desync.first-last", "desync.consecutive"),
    *,
    reference: Path | str | None = None,
    how: How | None = None,
    besides: Path | None = None,
    bootstrap: Bootstrap = DEFAULT,
    progress: ItemProgress | None = None,
) -> FileFigures:
    """Label-free figures (names of ``METRICS``) of files and of folders, which are searched recursively.

    ``reference``: a folder or file whose figures are compared, paired by the name below the folder without its ending.
    ``besides``: a folder that is not searched (the output). A file that cannot be measured is listed with the reason.
    ``UsageError``: an unknown metric, no media, a model that cannot do it or whose weights are not there.
    """
    chosen, how = checked_metrics(metrics), how or How()
    check_device(how.device)
    boxes = _syncnets("data.face_boxes").read_face_boxes(how.boxes) if how.boxes else None
    given = [Path(path) for path in paths]
    for path in (*given, *(() if reference is None else (Path(reference),))):
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    networks = [_network(need, how) for need in dict.fromkeys(metric.needs for metric in chosen)]
    setup = Setup(tuple(metric.name for metric in chosen), tuple(networks), how, boxes)
    found = find_media(given, besides, how.workers)
    tasks = [_Task(False, *named) for named in _named(found.files, given)]
    passed_over, n_passed_over = found.left_out(), len(found.passed_over)
    if reference is not None:
        others = find_media([reference], besides, how.workers)
        tasks += [_Task(True, *named) for named in _named(others.files, [Path(reference)])]
        passed_over += [f"reference: {line}" for line in others.left_out()]
        n_passed_over += len(others.passed_over)
    rows, facts = _measured(setup, tasks, progress)
    files, references = ([rows[task] for task in tasks if task.reference is which] for which in (False, True))
    paired = pair(files, references) if reference is not None else (tuple(files), ())
    return FileFigures(
        metrics=tuple(chosen),
        files=paired[0],
        reference=paired[1],
        paired=reference is not None,
        models={network.need: network.facts | facts.get(network.need, {}) for network in networks},
        passed_over=tuple(passed_over),
        n_passed_over=n_passed_over,
        how=_in_words(how, networks),
        bootstrap=bootstrap,
    )


def _in_words(how: How, networks: Sequence[_Network]) -> tuple[str, ...]:
    read = "whole files" if how.length_s is None else f"the first {how.length_s:g} s of each file"
    said = []
    for network in networks:
        if network.need != SYNCHFORMER:
            continue
        said.append(
            "pictures: 25 per second, short side resized to the model's size (bicubic, antialiased), centre square; "
            "sound: 16 kHz mono from the first picture on, without a lead trim"
        )
        if network.name != DEFAULT_MODEL:
            said.append(f"published DeSync is by {DEFAULT_MODEL}: figures by another model are not comparable")
        if how.options.autocast != "float32":
            said.append(f"computed in {how.options.autocast}: figures differ from those in float32 by its rounding")
        read += f" (the published codes of DeSync read the first {PUBLISHED_LENGTH_S} s unless told otherwise)"
    return (*said, read)


class _Task(NamedTuple):
    reference: bool
    path: Path
    shown: str  # for people and results
    key: str


def _named(files: Sequence[Path], given: Sequence[Path]) -> list[tuple[Path, str, str]]:
    """(path, name to show, key) of files that were found in the folders and files that were given, by name."""
    folders = [(folder, folder.resolve()) for folder in given if folder.is_dir()]
    named = []
    for path in files:
        inside = next(((folder, root) for folder, root in folders if path.is_relative_to(root)), None)
        below = path.relative_to(inside[1]) if inside else Path(path.name)
        shown = inside[0] / below if inside else next((one for one in given if one.resolve() == path), path)
        named.append((path, printable(str(shown)), printable(below.with_suffix("").as_posix())))
    return sorted(named, key=lambda entry: entry[1])


# ------------------------------------------------------------------------------------------------- networks, in workers


@dataclass(frozen=True)
class _Network:
    """A network that workers load: ``make`` is picklable; ``facts`` about it for the result."""

    need: str
    name: str
    make: Factory
    facts: dict[str, Any]


def _network(need: str, how: How) -> _Network:
    if need == SYNCNET:
        _syncnets("runs.lse")  # refused before the work
        options = ModelOptions(random_seed=how.options.random_seed)
        name = how.syncnet or (DEFAULT_SYNCNET if options.random_seed is None else SYNCNET)
    else:
        options = how.options.for_device(how.device)
        given = options.weights is not None or options.random_seed is not None
        name = how.model or (SYNCHFORMER if given else DEFAULT_MODEL)
    try:
        model = resolve(name, options)
    except UsageError as error:
        if name in (DEFAULT_MODEL, DEFAULT_SYNCNET) and not converted(name).is_file():
            error = UsageError(f"{error}. Figures need such a download; without it `avbench predict` says the offset")
        raise error from None
    if model.load_backbone is None:
        raise UsageError(f"model {name!r} ignores its input: it has no label-free figures")
    facts = {"name": without_folders(name), "trained_on": model.trained_on, "random_weights": model.random_seed}
    return _Network(need, without_folders(name), model.load_backbone, facts)


def _syncnets(module: str) -> Any:
    """A module that belongs to SyncNet; ``UsageError`` where this version has none."""
    try:
        return import_module(f"avbench.{module}")
    except ModuleNotFoundError:
        raise UsageError("lse needs SyncNet, which this version of avbench does not have") from None


@dataclass(frozen=True)
class Setup:
    """What a worker needs to measure files. ``boxes``: known faces, as ``lse`` takes them."""

    metrics: tuple[str, ...]
    networks: tuple[_Network, ...]
    how: How
    boxes: Any = None


class _End(NamedTuple):
    """What a worker says of a file, and of its networks."""

    row: FileRow
    facts: dict[str, dict[str, Any]]


def _measured(
    setup: Setup, tasks: Sequence[_Task], progress: ItemProgress | None
) -> tuple[dict[_Task, FileRow], dict[str, dict[str, Any]]]:
    """Every task's row, and facts about the loaded networks by what they are needed for."""
    how = setup.how
    pool = Pool[_Task, _End](
        partial(_ready, setup),
        min(how.workers, len(tasks)),
        timeout_of=lambda task: STALL_S,
        start_timeout_s=math.inf,  # a large model may take long to load
        quiet=True,
        one_thread=how.on_cpu,
        memory_bytes=MEMORY_BYTES + _NETWORK_BYTES if how.on_cpu else math.inf,
        second_try=True,
    )
    rows: dict[_Task, FileRow] = {}
    facts: dict[str, dict[str, Any]] = {}
    if progress:
        progress(0, len(tasks), "")
    with contextlib.closing(pool.run(tasks)) as ends:
        for task, end in ends:
            if isinstance(end, Lost):
                reason = f"reading or measuring it failed: {end.reason}"
                rows[task] = FileRow(task.shown, task.key, reasons=dict.fromkeys(setup.metrics, printable(reason)))
            else:
                rows[task] = end.row
                facts |= end.facts
            if progress:
                progress(len(rows), len(tasks), task.shown)
    return rows, facts


@contextlib.contextmanager
def _ready(setup: Setup) -> Iterator[Callable[[_Task, Callable[[int], None]], _End]]:
    """In a worker: loads the networks once and gives ``measure(task, tell)``."""
    import torch

    networks: dict[str, Any] = {}
    facts: dict[str, dict[str, Any]] = {}
    for network in setup.networks:
        loaded = load_predictor(network.make, setup.how.device)
        facts[network.need] = _facts(loaded)
        networks[network.need] = loaded
        if network.need == SYNCHFORMER:
            networks[network.need] = Segmenter(loaded, network.name, setup.how.device, setup.how.batch_size)
    if setup.how.on_cpu:  # sums must depend neither on the machine nor on the number of workers
        torch.set_num_threads(1)
    with exact_float32():
        yield lambda task, tell: _End(row_of(task.path, task.shown, task.key, setup, networks, tell), facts)


def _facts(loaded: SnapshotPredictor) -> dict[str, Any]:
    said = {"fingerprint": model_fingerprint(loaded), "description": loaded.description}
    return said | {"trained_on": loaded.trained_on, "lead_trim_samples": loaded.frontend.audio_lead_trim_samples}


def row_of(
    path: Path,
    shown: str,
    key: str,
    setup: Setup,
    networks: Mapping[str, Any],
    tell: Callable[[int], None] = lambda n: None,
) -> FileRow:
    """A file's figures, in this process; what it lacks is in ``reasons``."""

    def read(file: MediaFile) -> FileRow:
        opened = OpenFile(file.path, file.clip_id, setup, networks, tell)
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name in setup.metrics:
            try:
                values |= METRICS[name].measure(opened)
            except MediaError as error:
                reasons[name] = error.reason
            except NonFiniteError as error:
                reasons[name] = f"the model gave NaN or infinity: {error}"
        return FileRow(shown, key, opened.duration_s, values, reasons, tuple(_warnings(opened)))

    found = guarded(read, MediaFile(shown, path))
    if isinstance(found, MediaError):
        # the row names the file; without its path equal reasons are equal
        reason = without_name(found.reason, path)
        return FileRow(shown, key, reasons=dict.fromkeys(setup.metrics, reason))
    return found


def _warnings(file: OpenFile) -> Iterator[str]:
    for kind in ("video", "audio"):
        yield from file.reader.track(kind).warnings
    for gap in file.reader.gaps():
        yield f"the {gap.kind} is missing from {seconds(gap.start):g} to {seconds(gap.end):g} s"
    found = file._segments
    if isinstance(found, SegmentLogits) and found.n_frames != file.how.most_frames:
        shorter_s = file.n_samples / SAMPLE_RATE_HZ - found.n_frames / FRAME_RATE_HZ
        if shorter_s > _UNEQUAL_S:
            yield f"the picture ends {shorter_s:.2f} s before the sound, which is cut there"
        if shorter_s < -_UNEQUAL_S:  # pictures are read no further than for one more segment
            yield "the sound ends before the picture, which is cut there"
    yield from file.warnings
