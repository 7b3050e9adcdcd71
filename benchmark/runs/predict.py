"""The offset of any media file, since when, and how sure: every window of a file is a segment without label, so the
engine computes, stores and resumes as ever; each file's windows are then heard in order."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from avbench.baselines.families import families
from avbench.data.folders import find_media
from avbench.data.from_files import clip_of, common_folder, measure_all, name_clips
from avbench.data.media import MEASURED
from avbench.data.probing import MediaInfo
from avbench.data.repair import constant_offset_s, repair_command
from avbench.data.unlabelled import LEAST, WINDOW, WholeFile, padded, window_starts
from avbench.engine.job import Backbone, pinned_path
from avbench.engine.observed import observed
from avbench.engine.replay import gather
from avbench.engine.runner import Compute, RunReport, compute, default_workers
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol, streaming
from avbench.registry.loading import load
from avbench.registry.names import list_models, resolve, split_model_name
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.runs.answering import HEAD, Answering
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import WORDS, Evidence, Regime
from avbench.scoring.tolerance import Tolerance, tolerance_asked
from avbench.system.devices import check_device
from avbench.system.in_python import in_python
from avbench.system.paths import without_name
from avbench.system.progress import ItemProgress, Progress, of_stage
from avbench.ticks import TICKS_PER_S, Tick, seconds
from avbench.types import ClipRecord, MediaError, Reading, SegmentRecord, UsageError, Window
from avbench.weights.cache import converted, converted_tags, downloaded, fetch

BEST = "synchformer.audioset"  # the published weights that fit most media
STDIN = "-"
AT_ONCE = 16  # files are measured and then computed in groups of so many: answers appear as the work goes on
# shorter holes in the sound cost a label its worth, not an answer: they are heard as silence
READING = replace(MEASURED, sound_gap=TICKS_PER_S // 4)
MEASURING, COMPUTING = "reading", "decoding and snapshots"


# ------------------------------------------------------------------------------------------------------- which model


def default_model() -> tuple[str, str]:
    """The model of a user who names none, and what to tell about it ("" if it is a published one for real media)."""
    full_size = next(_full_size(), None)
    if full_size:
        return full_size, ""
    weak = "syncnet" if "syncnet" in families() and converted_tags("syncnet") else "xcorr"
    name = f"{weak}.{converted_tags(weak)[0]}" if weak == "syncnet" else weak
    return name, (f"no published weights for real media are in the cache: `avbench predict --fetch FILE` gets {BEST}")


def _full_size() -> Iterator[str]:
    """Converted weights in the cache that can be run, the best first."""
    known = families()
    names = [BEST] if BEST.partition(".")[2] in converted_tags(BEST.partition(".")[0]) else []
    for family in ("sparsesync", *(name for name in known if name not in ("sparsesync", "syncnet"))):
        if family in known and known[family].full:
            names += [f"{family}.{tag}" for tag in converted_tags(family) if f"{family}.{tag}" != BEST]
    for name in names:
        if any(model.name == name for model in list_models(name)):
            yield name


def fetch_best(progress: ItemProgress | None = None) -> None:
    """Puts the converted weights of :data:`BEST` into the cache, unless they are there. ``AvbenchError`` as in
    :func:`avbench.weights.cache.fetch`."""
    from avbench.weights.checkpoints import convert
    from avbench.weights.published import find_published

    if not converted(BEST).is_file():
        fetch(BEST, progress=progress)
        convert(downloaded(BEST), converted(BEST), find_published(BEST), None, family=BEST.partition(".")[0])


def resolved(name: str, options: ModelOptions | None = None) -> StreamingModel:
    """The model of a name, with the head ``bayes`` if the name means none; not loaded. Errors as in
    :func:`avbench.registry.names.resolve`."""
    model = resolve(name, options)
    if model.load_backbone is None or split_model_name(name)[1] or model.head_name != "none":
        return model
    return resolve(f"{name}+{HEAD}", options)


# ------------------------------------------------------------------------------------------------------- which files


class Asked(NamedTuple):
    """A file to be answered: where it is, and how the user named it. ``error``: why it cannot even be looked for."""

    file: Path
    path: str
    error: str = ""


def files_of(
    paths: Iterable[str | os.PathLike[str]], besides: Path | None = None, workers: int = 1
) -> tuple[list[Asked], list[str]]:
    """The media among ``paths``, files and folders, each once and in order, and in words what was passed over in
    folders; the folder ``besides`` is. A path that is not there, or a folder without media, is an ``error`` of its
    own."""
    found: dict[Path, Asked] = {}
    left_out: list[str] = []
    for path in paths:
        name, given = os.fspath(path), Path(path)
        try:
            searched = find_media([given], besides, workers)
        except UsageError as error:
            found[given] = Asked(given, name, without_name(str(error), given))
            continue
        for file, named in searched.named.items():
            found.setdefault(file, Asked(file, named if given.is_dir() else name))
        left_out += searched.left_out()
    return list(found.values()), left_out


# -------------------------------------------------------------------------------------------------------- the answers


@dataclass(frozen=True)
class _Opener:
    """Opens the clips of a manifest of whole files, in any process."""

    manifest: Manifest
    folder: Path  # for the sound of the file that is being read
    decodes: ClassVar[bool] = True

    def __call__(self, clip: ClipRecord) -> WholeFile:
        return WholeFile(pinned_path(self.manifest, clip), clip, self.folder)


class _Clip(NamedTuple):
    """A measured file and its windows."""

    asked: Asked
    clip: ClipRecord
    info: MediaInfo
    segments: tuple[SegmentRecord, ...]


class Predictor:
    """A loaded model that answers files. ``counters``: as of :class:`~avbench.engine.runner.RunReport`, over all files
    up to now; ``told``: what the user should know of a model that was not named, which is among the warnings of each
    answer.

    ``model`` None: see :func:`default_model`. ``UsageError`` for a hop that is no positive multiple of a frame, a model
    that ignores its input, and as :func:`~avbench.registry.names.load_model`.
    """

    def __init__(
        self,
        model: str | None = None,
        options: ModelOptions | None = None,
        *,
        hop_s: float = 2.0,
        how: Compute | None = None,
        reading: Reading = READING,
        tolerance: Tolerance | None = None,
    ) -> None:
        if not math.isfinite(hop_s):
            raise UsageError(f"hop is {hop_s} s; it must be a positive multiple of 0.04 s (one frame)")
        self.protocol: Protocol = streaming(hop_s, iterations=1)
        if model is None and options is not None and options.changes_anything:
            raise UsageError(f"weights and precision go with a model: name it with --model{in_python('--model')}")
        name, self.told = (model, "") if model is not None else default_model()
        self.how, self.reading, self.tolerance = how or Compute(), reading, tolerance
        device = check_device(self.how.device)
        self.model = load(resolved(name, (options or ModelOptions()).for_device(device)), device)
        asked = self._answering()
        self.weakness = tuple(filter(None, [asked.why, self.told]))
        load_backbone = self.model.load_backbone
        assert load_backbone
        self.backbone = Backbone.loaded(asked.backbone, partial(observed, load_backbone))
        self.counters: Counter[str] = Counter()

    @cached_property
    def workers(self) -> int:
        """How many processes read and compute."""
        return self.how.workers or default_workers([self.backbone], self.how.device)

    def answer(
        self,
        files: Sequence[Asked],
        progress: Progress | None = None,
        ready: Callable[[Prediction], None] | None = None,
    ) -> list[Prediction]:
        """The answers for all files, in order; ``ready`` is told each as soon as it is there. Errors that end it as in
        :func:`avbench.engine.runner.compute`."""
        size = max(AT_ONCE, 4 * self.workers)
        answers: dict[Path, Prediction] = {}

        def told(prediction: Prediction) -> None:
            answers[prediction.file] = prediction
            if ready:
                ready(prediction)

        for first in range(0, len(files), size):
            self._group(files[first : first + size], progress, told)
        return [answers[asked.file] for asked in files]

    def _answering(self) -> Answering:
        return Answering(self.model, seconds(self.protocol.hop), self.how.device)

    def _group(self, files: Sequence[Asked], progress: Progress | None, told: Callable[[Prediction], None]) -> None:
        for asked in files:
            if asked.error:
                told(self._failed(asked, asked.error))
        there = {asked.file: asked for asked in files if not asked.error}
        if not there:
            return
        root = common_folder(list(there))
        named = name_clips(list(there), root)
        measuring = of_stage(progress, MEASURING)
        measured = measure_all(named, self.reading, self.workers, measuring, longest_s=math.inf)
        clips: dict[str, _Clip] = {}
        for clip_id, file in named.items():
            try:
                clip, info = clip_of(measured[clip_id], file, clip_id, root)
                clips[clip_id] = self._windowed(there[file], clip, info)
            except MediaError as error:
                told(self._failed(there[file], error.reason))
        if clips:
            self._compute(clips, root, progress, told)

    def _failed(self, asked: Asked, error: str) -> Prediction:
        hop_s = seconds(self.protocol.hop)
        reason = without_name(error, asked.file)
        return Prediction(asked.path, asked.file, self.model.name, hop_s, asked=self.tolerance, error=reason)

    def _windowed(self, asked: Asked, clip: ClipRecord, info: MediaInfo) -> _Clip:
        if clip.duration < LEAST:
            raise MediaError(
                clip.id, f"lasts {seconds(clip.duration):.2f} s; at least 1 s of picture and sound is needed"
            )
        starts = window_starts(clip.duration, self.protocol.hop)
        return _Clip(asked, padded(clip), info, tuple(_segment(clip, start) for start in starts))

    def _compute(
        self, clips: dict[str, _Clip], root: Path, progress: Progress | None, told: Callable[[Prediction], None]
    ) -> None:
        """Computes what the store lacks and tells the answer for each clip; takes the clips out of ``clips``."""
        manifest = Manifest(
            name="predict",
            kind="files",
            note="without labels",
            offset_law="fixed:0",
            clips={clip_id: one.clip for clip_id, one in clips.items()},
            segments=tuple(segment for one in clips.values() for segment in one.segments),
            media_root=root,
        )
        store = self.how.opened()
        report = compute(
            manifest,
            [self.protocol],
            {self.model.backbone_name: self.backbone},
            self.how.using(store, self.workers),
            open_clip=_Opener(replace(manifest, segments=()), store.root),
            progress=of_stage(progress, COMPUTING),
            finished=lambda clip, alone: told(self._heard(clips.pop(clip.id), alone)),
        )
        self.counters.update(report.counters)
        for one in clips.values():  # everything of these was stored before
            told(self._heard(one, report))

    def _heard(self, one: _Clip, report: RunReport) -> Prediction:
        """The answer for a clip whose snapshots are stored."""
        failed = {f.segment_id: f.reason for f in report.failures if f.clip_id == one.clip.id}
        supported = [s for s in one.segments if self.protocol.supports(s, one.clip)]
        good = [segment for segment in supported if segment.id not in failed]
        if supported and not good:
            return self._failed(one.asked, failed[supported[0].id].removesuffix(", iteration 1 (window at 0 s)"))
        asked = self._answering()
        length_s = min(one.info.duration_s, seconds(one.clip.duration))
        warnings = [*one.info.warnings, *self.weakness]
        if length_s < seconds(WINDOW):
            asked.most, asked.why = (
                max(asked.most, "unsure", key=WORDS.index),
                f"it lasts {length_s:.2f} s, a window 5 s",
            )
            told = "padded to 5 s with the last picture and silence: the answer is unsure at most"
            warnings.insert(0, f"lasts {length_s:.2f} s, a window 5 s: {told}")
        tracker, windows = asked.tracker(), []
        for window in self._windows(one, good, failed, asked):
            windows.append(window)
            tracker.add(window)
        regimes = tuple(tracker.regimes(length_s))
        info = one.info
        return Prediction(
            path=one.asked.path,
            file=one.asked.file,
            model=self.model.name,
            hop_s=asked.hop_s,
            window_s=asked.window_s,
            duration_s=length_s,
            fps=round(float(info.fps), 3),
            video_track=info.reading.video_track,
            audio_track=info.reading.audio_track,
            tracks=info.tracks,
            windows=tuple(windows),
            regimes=regimes,
            asked=self.tolerance,
            warnings=tuple(dict.fromkeys(warnings)),
            repair=_repair(one, regimes),
            picture_at_s=info.video_start_s,
            sound_first_s=max(info.video_start_s - info.audio_start_s, 0.0),
        )

    def _windows(
        self, one: _Clip, good: Sequence[SegmentRecord], failed: Mapping[str, str], asked: Answering
    ) -> Iterator[Evidence]:
        """What each window says, in order."""
        stored: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if good:
            clips = {one.clip.id: one.clip}
            logits, tokens = gather(self.how.opened(), clips, good, self.protocol, self.backbone.fingerprint)
            assert tokens is not None
            stored = {s.id: (said, token) for s, said, token in zip(good, logits[:, 0], tokens[:, 0], strict=True)}
        for segment in one.segments:
            start_s = seconds(segment.start)
            if segment.id in stored:
                yield asked.hear(start_s, *stored[segment.id])
            else:
                yield Evidence(start_s, None, None, why=failed.get(segment.id) or _gap(one.clip, segment))


def _repair(one: _Clip, regimes: Sequence[Regime]) -> str:
    """The command that would mend the file; "" where nothing is to be mended, or there is no file."""
    offset_s = constant_offset_s(regimes)
    if offset_s is None or one.asked.path == STDIN:
        return ""
    return repair_command(one.asked.path, offset_s, one.info.streams)


def _segment(clip: ClipRecord, start: Tick) -> SegmentRecord:
    """A window as a segment in sync: its class says nothing, because nobody scores it."""
    return SegmentRecord(f"{clip.id}@{seconds(start):.10g}", clip.id, clip.video_id, start, 0, 10)


def _gap(clip: ClipRecord, segment: SegmentRecord) -> str:
    """Why a window is not used: what is missing in it."""
    window = Window(segment.start, WINDOW)
    gap = clip.reading.gap_in("picture", window) or clip.reading.gap_in("sound", window)
    return f"the {gap.kind} is missing from {seconds(gap.start):g} to {seconds(gap.end):g} s" if gap else "not computed"


# ------------------------------------------------------------------------------------------------------ from Python


def predict(  # noqa: PLR0913  (the options of `avbench predict`)
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | None = None,
    *,
    hop_s: float = 2.0,
    compute: Compute | None = None,
    options: ModelOptions | None = None,
    reading: Reading = READING,
    tolerance: str | None = None,
) -> Prediction | list[Prediction]:
    """What ``model`` says of a media file: its regimes of offset, with tolerance verdicts and warnings. A list of
    answers for a folder or several paths, in order; a file that cannot be answered has an ``error``.

    ``model`` None: see :func:`default_model`; the head ``bayes`` is added to a name without one. ``reading``: which
    tracks (see :class:`~avbench.types.Reading`). ``tolerance``: a name of a table or EARLY/LATE in seconds, beside all
    tables. ``UsageError`` for a request that is wrong; ``MediaError`` if a single file cannot be answered.
    """
    single = isinstance(paths, str | os.PathLike) and not Path(paths).is_dir()
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    asked = None if tolerance is None else tolerance_asked(tolerance)
    answers = Predictor(model, options, hop_s=hop_s, how=compute, reading=reading, tolerance=asked)
    files, _ = files_of(given, workers=answers.workers)
    found = answers.answer(files)
    if not single:
        return found
    if found[0].error:
        raise MediaError(Path(files[0].path).name, found[0].error)
    return found[0]
