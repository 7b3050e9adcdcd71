"""The build: raw videos -> selection -> clips -> annotations -> split and segments -> manifest -> check.

Every job leaves a record under ``OUT/.build`` with the key of its inputs (hash of the raw file, encoding, annotators);
a job whose record has the right key is not run again. The result does not depend on the order of jobs, the number of
workers or interruptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avbench.data.annotate import VERSION, Label, Spot, label
from avbench.data.annotators import DEFAULT_ANNOTATORS, Annotators
from avbench.data.building.jobs import Engine, Job, LocalEngine
from avbench.data.building.normalise import Encoding
from avbench.data.building.records import BuiltClip, BuiltVideo, RawVideo
from avbench.data.building.split import parse_shares, split_videos
from avbench.data.folders import find_media
from avbench.data.from_files import SegmentRules, name_clips, segments_of
from avbench.data.inspect import info
from avbench.data.media import READER_VERSION
from avbench.protocol.manifest import Manifest, check, write_manifest
from avbench.system.atomic import atomic_write_bytes
from avbench.system.cache import cache_root
from avbench.system.paths import path_text
from avbench.system.progress import ItemProgress, Progress
from avbench.ticks import TICKS_PER_FRAME, seconds, ticks
from avbench.types import (
    AvbenchError,
    ClipRecord,
    MediaError,
    OffsetGrid,
    Reading,
    SegmentRecord,
    UsageError,
    printable,
)

WORK = ".build"
REPORT = "build_report.json"
_TASKS = "avbench.data.building.tasks"
_BASE_TIMEOUT_S = 300.0
_TIMEOUT_PER_S = 2.0  # seconds that a job may take for each second of its video, on top


@dataclass(frozen=True)
class Settings:
    """Everything that changes the result. The defaults are the paper's (sec. 3 and its supplement)."""

    name: str = ""
    min_duration_s: float = 1200.0
    min_height: int = 720  # of the upright picture's short side, pixels
    encoding: Encoding = field(default_factory=Encoding)
    split: str = "90/5/5"  # train/valid/test, by videos
    offsets: str = "truncnorm"
    starts: str = "grid:10"
    window_s: float = 5.0
    hop_s: float = 2.0
    iterations: int = 1  # windows that must fit in a segment
    seed: int = 0
    annotators: Mapping[str, str] | None = field(default_factory=lambda: DEFAULT_ANNOTATORS)  # None: no annotations

    @property
    def rules(self) -> SegmentRules:
        """The segments' part. ``UsageError``: see ``SegmentRules``."""
        window, hop = ticks(self.window_s), ticks(self.hop_s)
        return SegmentRules(self.offsets, self.starts, window, hop, self.iterations, self.seed)


@dataclass(frozen=True)
class Execution:
    """How the jobs are run; nothing here changes the result."""

    engine: Engine = field(default_factory=LocalEngine)
    timeout_s: float | None = None  # of each job; None: 5 minutes plus twice the video's length
    retry_set_aside: bool = False  # run the jobs again that crashed or timed out twice in an earlier build


@dataclass
class Report:
    """What went wrong or was left out. ``refused``: video or clip -> reason; ``set_aside``: jobs that crashed or
    timed out; ``notes``: parts of used videos that were dropped; ``problems``: what the final check found;
    ``passed_over``: what the search for videos took for something else."""

    refused: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def build(
    videos: Path,
    out: Path,
    settings: Settings | None = None,
    execution: Execution | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Manifest, Report]:
    """Make a split of ``videos`` (searched recursively) in ``out``: ``media``, the manifest's files and a report.

    The first folder below ``videos`` is a video's channel, its path gives its id. A video that cannot be used, or whose
    job crashed or timed out twice, is named in the report and left out. After an interruption the same call resumes.

    ``UsageError``: impossible settings, no usable video; ``AvbenchError``: ``out`` cannot be written, or another build
    is running in it.
    """
    settings, execution = settings or Settings(), execution or Execution()
    check_build(videos, out, settings, execution)
    root = Path(videos).resolve()
    found = find_media([videos], Path(out))
    outside = [file for file in found.files if not file.is_relative_to(root)]
    if outside:
        raise UsageError(f"a link in {videos} points outside of it, to {outside[0]}; move or copy that file into it")
    files = name_clips(found.files, root)
    with _own(Path(out)) as work:
        if execution.retry_set_aside:
            for record in (work / "aside").glob("*/*.json"):
                record.unlink()
        making = _Build(root, Path(out), work, settings, execution, progress)
        making.report.passed_over = found.left_out()
        return making.run(files)


def check_build(videos: Path, out: Path, settings: Settings, execution: Execution) -> None:
    """``UsageError`` for what a build can only refuse, before any work: settings, ``videos`` and ``out``."""
    _check_settings(settings)
    if execution.timeout_s is not None and not 0 < execution.timeout_s < math.inf:
        raise UsageError(f"the limit for one job is {execution.timeout_s:g} s; it must be above 0 s")
    if not videos.is_dir():
        raise UsageError(f"{videos} {'is a file, and no folder of videos' if videos.exists() else 'does not exist'}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / WORK).is_dir():
        raise UsageError(f"{out} is not empty and not a build's folder; choose a new one")


@dataclass(frozen=True)
class Annotation:
    """The labels of a manifest's segments by their ids, and what was measured of its clips (see ``measure``) by theirs;
    both without the clips that could not be annotated, for which ``failed`` has one line each."""

    labels: dict[str, Label]
    measured: dict[str, dict[str, Any]]
    failed: list[str]


def annotate(
    manifest: Manifest, annotators: Mapping[str, str], workers: int = 1, progress: ItemProgress | None = None
) -> Annotation:
    """Measure all clips of a manifest and label its segments.

    What avbench's own annotators measure is kept in the cache, so that a second call, after an interruption or for
    corrections, takes seconds. ``UsageError``: an annotator that is not available.
    """
    Annotators.load(annotators)
    measured, todo = {}, []
    for clip in manifest.clips.values():
        kept = _kept(clip, annotators)
        if kept and (record := _read(kept, kept.stem)):
            measured[clip.id] = record["value"]
        else:
            arguments = _clip_arguments(manifest.clip_path(clip), clip) | {"annotators": dict(annotators)}
            todo.append(Job(clip.id, f"{_TASKS}:annotate", arguments, _limit_s(seconds(clip.duration))))
    failed, n_kept = [], len(measured)
    for done, outcome in enumerate(LocalEngine(workers).run(todo), n_kept + 1):
        if outcome.kind == "done":
            measured[outcome.job.id] = outcome.value
            if kept := _kept(manifest.clips[outcome.job.id], annotators):
                _keep(kept, {"key": kept.stem, "value": outcome.value})
        else:
            failed.append(f"clip {outcome.job.id}: {outcome.reason}")
        if progress:
            progress(done, len(manifest.clips), outcome.job.id)
    labels = {s.id: label(seconds(s.start), measured[s.clip_id]) for s in manifest.segments if s.clip_id in measured}
    return Annotation(labels, measured, failed)


def annotation_lines(measured: Mapping[str, dict[str, Any]]) -> bytes:
    """``annotations.jsonl``: one line of JSON for each clip."""
    lines = [json.dumps({"clip_id": name, **measured[name]}, sort_keys=True) for name in sorted(measured)]
    return "".join(line + "\n" for line in lines).encode()


def small_pictures(
    manifest: Manifest, wanted: Mapping[str, Sequence[Spot]], workers: int = 1, progress: ItemProgress | None = None
) -> dict[str, dict[Spot, str]]:
    """Clip id -> spot -> a small JPEG picture in base64, for pages; a clip that cannot be read has none."""
    jobs = []
    for name, spots in wanted.items():
        clip = manifest.clips[name]
        arguments = _clip_arguments(manifest.clip_path(clip), clip) | {"spots": [list(spot) for spot in spots]}
        jobs.append(Job(name, f"{_TASKS}:small_pictures", arguments, _limit_s(seconds(clip.duration))))
    found: dict[str, dict[Spot, str]] = {}
    for done, outcome in enumerate(LocalEngine(workers).run(jobs), 1):
        pictures = outcome.value if outcome.kind == "done" else []
        found[outcome.job.id] = dict(zip(wanted[outcome.job.id], pictures, strict=bool(pictures)))
        if progress:
            progress(done, len(jobs), outcome.job.id)
    return found


def _clip_arguments(file: Path, clip: ClipRecord | BuiltClip) -> dict[str, Any]:
    reading = clip.reading.as_text() if isinstance(clip, ClipRecord) else ""
    lengths = {"n_frames": clip.n_frames, "n_samples": clip.n_samples}
    return {"file": str(file), "clip": {"clip_id": clip.id, **lengths, "reading": reading}}


def _kept(clip: ClipRecord, annotators: Mapping[str, str]) -> Path | None:
    """Where the measurements of a clip are kept; None for annotators of a user's own, which may change unseen."""
    if any(":" in text and not text.startswith("avbench.") for text in annotators.values()):
        return None
    key = _key([clip.as_read, clip.n_frames, clip.n_samples, dict(annotators), VERSION])
    return cache_root() / "annotations" / f"{key}.json"


def _keep(path: Path, record: dict[str, Any]) -> None:
    """Without a cache that can be written, nothing is kept: the clip is measured again the next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, json.dumps(record, sort_keys=True).encode())


def _limit_s(length_s: float) -> float:
    """How long a job may take for media of ``length_s``."""
    return _BASE_TIMEOUT_S + _TIMEOUT_PER_S * length_s


class _Build:
    """One build in its locked folder."""

    def __init__(
        self,
        videos: Path,
        out: Path,
        work: Path,
        settings: Settings,
        execution: Execution,
        progress: Progress | None,
    ) -> None:
        self.videos, self.out, self.work, self.settings = videos, out, work, settings
        self.execution, self.progress = execution, progress
        self.media = out / "media"
        self.report = Report()

    def run(self, files: Mapping[str, Path]) -> tuple[Manifest, Report]:
        """Every stage in order. ``files``: video id -> raw file."""
        selected = self._select(files)
        made = self._clips(files, selected)
        clips = {clip.id: clip for video in made.values() for clip in video.clips}
        measured = self._annotate(clips) if self.settings.annotators is not None else {}
        manifest = self._manifest(files, selected, made, measured)
        self._check(manifest, clips)
        self._write(manifest, len(files), measured)
        return manifest, self.report

    # -- stages ------------------------------------------------------------------------------------------------------

    def _select(self, files: Mapping[str, Path]) -> dict[str, RawVideo]:
        """The videos that are long and large enough and not the same as another one, by id."""
        jobs, keys = [], {}
        for video, file in files.items():
            stat = file.stat()
            keys[video] = _key([file.as_posix(), stat.st_size, stat.st_mtime_ns])
            jobs.append(self._job(video, "read_video_header", {"file": str(file), "video_id": video}, 0.0))
        headers = self._records("headers", "reading headers", jobs, keys)
        selected: dict[str, RawVideo] = {}
        first: dict[str, str] = {}
        for video, header in sorted(headers.items()):
            raw = RawVideo(**header)
            reason = self._unfit(raw)
            if not reason and raw.sha256 in first:
                reason = f"the same file as {first[raw.sha256]}"
            if reason:
                self.report.refused[video] = reason
            else:
                first[raw.sha256] = video
                selected[video] = raw
        if not selected:
            raise UsageError(
                f"none of the {len(files)} videos can be used; the first: {self._first_reason(sorted(files)[0])}"
            )
        return selected

    def _unfit(self, raw: RawVideo) -> str:
        """Why the settings exclude a video; empty if they do not."""
        settings = self.settings
        if raw.duration_s is None:
            return "the file does not declare its length (remux it to mp4)"
        if raw.duration_s < settings.min_duration_s:
            return f"lasts {raw.duration_s:.1f} s, the minimum is {settings.min_duration_s:g} s"
        if min(raw.width, raw.height) < settings.min_height:
            return f"is {raw.width}x{raw.height}, the minimum short side is {settings.min_height}"
        return ""

    def _clips(self, files: Mapping[str, Path], selected: Mapping[str, RawVideo]) -> dict[str, BuiltVideo]:
        """Video id -> its clips."""
        self._folder(self.media)
        records = self._folder(self.work / "clips")
        encoding = asdict(self.settings.encoding)
        jobs, keys = [], {}
        lengths_s = {video: raw.duration_s or 0.0 for video, raw in selected.items()}
        # the longest first: no core is left waiting for one that started last
        for video in sorted(selected, key=lambda v: (-lengths_s[v], v)):
            keys[video] = _key([selected[video].sha256, encoding, READER_VERSION])
            arguments = {
                "file": str(files[video]),
                "video_id": video,
                "key": keys[video],
                "media": str(self.media),
                "records": str(records),
                "encoding": encoding,
            }
            jobs.append(self._job(video, "make_clips", arguments, lengths_s[video]))
        answers = self._records("videos", "making clips", jobs, keys, self._media_there)
        made = {video: BuiltVideo.from_json(answer) for video, answer in answers.items()}
        for _, built in sorted(made.items()):
            self.report.notes += built.dropped
        if not made:
            raise UsageError(f"none of the {len(selected)} videos gave a clip; the first: {self._first_reason()}")
        return made

    def _media_there(self, answer: Mapping[str, Any]) -> bool:
        """Whether the files of the clips on record still exist, with their sizes."""
        paths = [(self.media / clip.path, clip.n_bytes) for clip in BuiltVideo.from_json(answer).clips]
        return all(path.is_file() and path.stat().st_size == n for path, n in paths)

    def _annotate(self, clips: Mapping[str, BuiltClip]) -> dict[str, dict[str, Any]]:
        """Clip id -> what was measured of it; a clip that could not be annotated has nothing."""
        annotators = dict(self.settings.annotators or {})
        Annotators.load(annotators)  # a missing extra or weights file is one line, before any job
        keys = {name: _key([clip.sha256, annotators, VERSION]) for name, clip in clips.items()}
        jobs = [
            self._job(
                name,
                "annotate",
                _clip_arguments(self.media / clip.path, clip) | {"annotators": annotators},
                self.settings.encoding.clip_s,
            )
            for name, clip in sorted(clips.items())
        ]
        return self._records("annotations", "annotating", jobs, keys)

    def _manifest(
        self,
        files: Mapping[str, Path],
        selected: Mapping[str, RawVideo],
        made: Mapping[str, BuiltVideo],
        measured: Mapping[str, dict[str, Any]],
    ) -> Manifest:
        settings, grid = self.settings, OffsetGrid()
        channels = {video: self._channel(files[video]) for video in made}
        durations_s = {v: seconds(sum(clip.n_samples for clip in made[v].clips)) for v in sorted(made)}
        split = split_videos(durations_s, channels, parse_shares(settings.split), settings.seed)
        clips: dict[str, ClipRecord] = {}
        sources: dict[str, dict[str, Any]] = {}
        segments: list[SegmentRecord] = []
        for video in sorted(made):
            origin = {"file": path_text(files[video].relative_to(self.videos)), "sha256": selected[video].sha256}
            for built in made[video].clips:
                clip = ClipRecord(
                    id=built.id,
                    video_id=video,
                    path=built.path,
                    sha256=built.sha256,
                    n_frames=built.n_frames,
                    n_samples=built.n_samples,
                    channel=channels[video],
                    split=split[video],
                    reading=Reading(gaps=built.gaps),
                )
                clips[clip.id], sources[clip.id] = clip, origin | built.source
                segments += self._segments(clip, grid, measured.get(clip.id))
        if not segments:
            raise UsageError(f"no segment fits in any clip; the first: {self.report.notes[-1]}")
        return Manifest(
            name=settings.name or printable(self.out.resolve().name),
            kind="files",
            note=f"built from {len(made)} videos; starts {settings.starts}, offsets {settings.offsets}, "
            f"split {settings.split} by video (seed {settings.seed})",
            offset_law=settings.offsets,
            clips=clips,
            segments=tuple(segments),
            media_root=self.media,
            grid=grid,
            sources=sources,
        )

    def _segments(self, clip: ClipRecord, grid: OffsetGrid, measured: Mapping[str, Any] | None) -> list[SegmentRecord]:
        """A clip's segments with their labels; none, and a note, if it is too short."""
        try:
            found = segments_of(clip, self.settings.rules, grid)
        except MediaError as error:
            self.report.notes.append(f"{clip.id}: no segment ({error.reason})")
            return []
        if measured is None:
            return found
        labels = [label(seconds(segment.start), measured) for segment in found]
        for reason in dict.fromkeys(told.reason for told in labels if told.reason):
            n = sum(told.reason == reason for told in labels)
            self.report.notes.append(f"{clip.id}: {n} segment{'s' * (n != 1)} without a category: {reason}")
        return [replace(s, category=told.category, events=told.events) for s, told in zip(found, labels, strict=True)]

    def _check(self, manifest: Manifest, clips: Mapping[str, BuiltClip]) -> None:
        """Decode every clip once more with the reader that evaluations use, and check the tables' consistency."""
        keys = {name: _key([clip.sha256, clip.n_frames, clip.n_samples]) for name, clip in clips.items()}
        jobs = [
            self._job(
                name,
                "check_clip",
                {"file": str(self.media / clip.path), "clip": asdict(clip)},
                self.settings.encoding.clip_s,
            )
            for name, clip in sorted(clips.items())
        ]
        found = self._records("checks", "checking", jobs, keys)
        self.report.problems = check(manifest) + [text for _, texts in sorted(found.items()) for text in texts]
        for name in sorted(set(clips) - set(found)):
            self.report.problems.append(f"clip {name}: could not be checked ({self._first_reason(name)})")

    def _write(self, manifest: Manifest, n_videos: int, measured: Mapping[str, dict[str, Any]]) -> None:
        for path in self.media.iterdir():  # clips of videos that have changed since
            if path.name not in {clip.path for clip in manifest.clips.values()}:
                path.unlink()
        if measured:
            self._write_bytes(self.out / "annotations.jsonl", annotation_lines(measured))
        write_manifest(manifest, self.out)
        statistics = info(manifest)
        statistics.pop("media_root", None)  # the report does not depend on the folder's place
        report = {
            "settings": asdict(self.settings),
            "n_videos": n_videos,
            "n_used": len({clip.video_id for clip in manifest.clips.values()}),
            "refused": self.report.refused,
            "set_aside": self.report.set_aside,
            "notes": self.report.notes,
            "problems": self.report.problems,
            "passed_over": self.report.passed_over,
            "statistics": statistics,
        }
        text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False)
        self._write_bytes(self.out / REPORT, text.encode() + b"\n")

    # -- records -----------------------------------------------------------------------------------------------------

    def _job(self, name: str, task: str, arguments: dict[str, Any], length_s: float) -> Job:
        return Job(name, f"{_TASKS}:{task}", arguments, self.execution.timeout_s or _limit_s(length_s))

    def _records(
        self,
        kind: str,
        stage: str,
        jobs: list[Job],
        keys: Mapping[str, str],
        fits: Callable[[Any], bool] = lambda value: True,
    ) -> dict[str, Any]:
        """Job id -> answer, from a record with the same key whose answer ``fits``; other jobs are run and recorded.

        Refused and crashed jobs are recorded too (and reported), and have no answer. ``AvbenchError``: a job failed for
        a reason other than its file.
        """
        folder, aside = self._folder(self.work / kind), self._folder(self.work / "aside" / kind)
        answers: dict[str, Any] = {}
        todo: list[Job] = []
        for job in jobs:
            record = _read(folder / f"{job.id}.json", keys[job.id])
            put_aside = _read(aside / f"{job.id}.json", keys[job.id])
            if record and "refused" in record:
                self.report.refused[job.id] = record["refused"]
            elif record and fits(record["value"]):
                answers[job.id] = record["value"]
            elif put_aside:
                self.report.set_aside[f"{stage}: {job.id}"] = put_aside["reason"]
            else:
                todo.append(job)
        done = len(jobs) - len(todo)
        self._tell(stage, done, len(jobs), "")
        for outcome in self.execution.engine.run(todo) if todo else ():
            name, key = outcome.job.id, keys[outcome.job.id]
            if outcome.kind == "failed":
                raise AvbenchError(f"{stage}, {name}: {outcome.reason}")
            if outcome.kind == "done":
                answers[name] = outcome.value
                self._record(folder / f"{name}.json", {"key": key, "value": outcome.value})
            elif outcome.kind == "refused":
                self.report.refused[name] = outcome.reason
                self._record(folder / f"{name}.json", {"key": key, "refused": outcome.reason})
            else:
                reason = f"{outcome.reason}, {outcome.attempts} times"
                self.report.set_aside[f"{stage}: {name}"] = reason
                self._record(aside / f"{name}.json", {"key": key, "reason": reason})
            done += 1
            self._tell(stage, done, len(jobs), name)
        self.report.refused = dict(sorted(self.report.refused.items()))
        self.report.set_aside = dict(sorted(self.report.set_aside.items()))
        return answers

    def _record(self, path: Path, value: dict[str, Any]) -> None:
        self._write_bytes(path, json.dumps(value, sort_keys=True).encode())

    def _write_bytes(self, path: Path, data: bytes) -> None:
        try:
            atomic_write_bytes(path, data)
        except OSError as error:
            raise AvbenchError(f"cannot write {path}: {error.strerror or error}") from error

    @staticmethod
    def _folder(path: Path) -> Path:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AvbenchError(f"cannot make the folder {path}: {error.strerror or error}") from error
        return path

    def _channel(self, file: Path) -> str:
        parts = file.relative_to(self.videos).parts
        return printable(parts[0]) if len(parts) > 1 else ""

    def _first_reason(self, name: str = "") -> str:
        reasons = self.report.refused | self.report.set_aside
        return next((f"{key}: {reason}" for key, reason in reasons.items() if name in key), "unknown")

    def _tell(self, stage: str, done: int, total: int, item: str) -> None:
        if self.progress:
            self.progress(stage, done, total, item)


def _check_settings(settings: Settings) -> None:
    """``UsageError`` for settings that could only fail, or mislead, hours later."""
    encoding = settings.encoding
    parse_shares(settings.split)
    for word, value_s in (("clip", encoding.clip_s), ("hop", settings.hop_s), ("window", settings.window_s)):
        if not 0 < value_s <= 3600 or ticks(value_s) % TICKS_PER_FRAME:
            raise UsageError(f"{word} is {value_s:g} s; it must be a positive multiple of 0.04 s, at most an hour")
    rules = settings.rules  # refuses unknown laws
    if not 0 < encoding.min_clip_s <= encoding.clip_s:
        raise UsageError(
            f"the shortest clip is {encoding.min_clip_s:g} s; it must be above 0 s and at most {encoding.clip_s:g} s"
        )
    if not 0 <= settings.min_duration_s < math.inf or settings.min_height < 0:
        raise UsageError(
            f"the shortest video is {settings.min_duration_s:g} s, its least height {settings.min_height}; both must "
            "be 0 or more"
        )
    if encoding.short_side < 16 or encoding.short_side % 2:
        raise UsageError(f"short side is {encoding.short_side}; it must be even and at least 16")
    if not 0 <= encoding.crf <= 51:
        raise UsageError(f"crf is {encoding.crf}; it must be 0 ... 51")
    if ticks(encoding.clip_s) < rules.length:
        raise UsageError(f"clips of {encoding.clip_s:g} s cannot hold segments of {seconds(rules.length):g} s")


@contextlib.contextmanager
def _own(out: Path) -> Iterator[Path]:
    """The build's working folder, locked for one build at a time, without the partial files of an interrupted one."""
    work = out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "a")  # noqa: SIM115 (held while the build runs)
    except OSError as error:
        raise AvbenchError(f"cannot write {out}: {error.strerror or error}") from error
    with lock:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise AvbenchError(f"another build is running in {out}") from error
        for left in out.rglob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield work


def _key(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """The record in ``path``, or None if there is none with this key."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("key") == key else None
