"""The build itself: raw videos -> select -> clips -> split -> segments -> annotations -> manifest -> check.

Every job leaves a record under ``OUT/.build`` that says what it was made of (hash of the raw file, encoding,
annotators); a record that fits is not made again. Nothing in the result depends on the order of jobs, on how many
workers there are or on how often the build was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avbench.data.annotate import DEFAULT_ANNOTATORS, Annotators, label
from avbench.data.building.jobs import Engine, Job, LocalEngine
from avbench.data.building.normalise import Encoding
from avbench.data.building.split import parse_shares, split_videos
from avbench.data.from_files import find_media, name_clips, segments_of
from avbench.data.inspect import info
from avbench.protocol.manifest import Manifest, check, write_manifest
from avbench.protocol.offsets import nominal_starts, parse_offset_law
from avbench.system.atomic import atomic_write_bytes
from avbench.ticks import TICKS_PER_FRAME, seconds, ticks
from avbench.types import AvbenchError, ClipRecord, MediaError, OffsetGrid, SegmentRecord, UsageError

Progress = Callable[[str, int, int, str], None]  # stage, done, total, item
WORK = ".build"
REPORT = "build_report.json"
_TASKS = "avbench.data.building.tasks"
_BASE_TIMEOUT_S = 300.0
_TIMEOUT_PER_S = 2.0  # a job may take this many times as long as its video lasts, on top


@dataclass(frozen=True)
class Settings:
    """Everything that shapes the result. The defaults are the paper's (sec. 3 and its supplement)."""

    name: str = ""
    min_duration_s: float = 1200.0
    min_height: int = 720  # of the upright picture's short side, pixels
    encoding: Encoding = field(default_factory=Encoding)
    split: str = "90/5/5"  # train/valid/test, by videos
    offsets: str = "truncnorm"
    starts: str = "grid:10"
    window_s: float = 5.0
    hop_s: float = 2.0
    iterations: int = 1  # windows a segment must hold
    seed: int = 0
    annotators: Mapping[str, str] | None = field(default_factory=lambda: DEFAULT_ANNOTATORS)  # None: no annotations


@dataclass
class Report:
    """What was made and what was not. ``refused``: video or clip -> why; ``set_aside``: jobs that crashed or did not
    end (the quarantine); ``problems``: what the final check found."""

    refused: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def build(
    videos: Path,
    out: Path,
    settings: Settings | None = None,
    engine: Engine | None = None,
    *,
    timeout_s: float | None = None,
    retry_set_aside: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, Report]:
    """Make a split of ``videos`` (searched recursively) in ``out``: ``media``, the manifest's files and a report.

    The first folder below ``videos`` names a video's channel, its path its id. ``timeout_s`` limits each job (None:
    5 minutes and twice the video's length). A video that cannot be used, or whose job crashed or hung twice, is named
    in the report and left out; ``retry_set_aside`` tries the latter again. Run again after an interruption, the build
    goes on where it was.

    ``UsageError``: an impossible request, no usable video; ``AvbenchError``: ``out`` cannot be written, or another
    build is running in it.
    """
    settings = settings or Settings()
    _check_settings(settings)
    root = Path(videos).resolve()
    found = find_media([videos])
    outside = [file for file in found if not file.is_relative_to(root)]
    if outside:
        raise UsageError(f"{outside[0]} is meant by a link in {videos} but lies outside of it; move or copy it there")
    files = name_clips(found, root)
    with _own(Path(out)) as work:
        state = _Build(root, Path(out), work, settings, engine or LocalEngine(), timeout_s, progress)
        if retry_set_aside:
            for record in (work / "aside").glob("*/*.json"):
                record.unlink()
        return state.run(files)


def annotate(
    manifest: Manifest, annotators: Mapping[str, str], workers: int = 1, progress: Progress | None = None
) -> tuple[dict[str, tuple[str, tuple[str, ...]]], list[str]]:
    """Segment id -> (category, events) for every segment whose clip could be annotated, and what went wrong.

    ``UsageError``: an annotator that cannot be had; ``MediaError`` of a clip is one of the lines that went wrong.
    """
    Annotators.load(annotators)
    jobs = []
    for clip in manifest.clips.values():
        facts = {"id": clip.id, "n_frames": clip.n_frames, "n_samples": clip.n_samples}
        arguments = {"file": str(manifest.clip_path(clip)), "clip": facts, "annotators": dict(annotators)}
        limit_s = _BASE_TIMEOUT_S + _TIMEOUT_PER_S * seconds(clip.duration)
        jobs.append(Job(clip.id, f"{_TASKS}:annotate", arguments, limit_s))
    rows: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for done, outcome in enumerate(LocalEngine(workers).run(jobs), 1):
        if outcome.kind == "done":
            rows[outcome.job.id] = outcome.value
        else:
            failed.append(f"clip {outcome.job.id}: {outcome.reason}")
        if progress:
            progress("annotating", done, len(jobs), outcome.job.id)
    return {s.id: label(seconds(s.start), rows[s.clip_id]) for s in manifest.segments if s.clip_id in rows}, failed


class _Build:
    def __init__(
        self,
        videos: Path,
        out: Path,
        work: Path,
        settings: Settings,
        engine: Engine,
        timeout_s: float | None,
        progress: Progress | None,
    ) -> None:
        self.videos, self.out, self.work, self.settings, self.engine = videos, out, work, settings, engine
        self.timeout_s, self.progress = timeout_s, progress
        self.media = out / "media"
        self.report = Report()

    def run(self, files: Mapping[str, Path]) -> tuple[Manifest, Report]:
        selected = self._select(files)
        made = self._clips(files, selected)
        clips = {clip["id"]: clip for video in made.values() for clip in video["clips"]}
        rows = self._annotate(clips) if self.settings.annotators is not None else {}
        manifest = self._manifest(files, selected, made, rows)
        self._check(manifest, clips)
        self._write(manifest, len(files), rows)
        return manifest, self.report

    # -- stages ------------------------------------------------------------------------------------------------------

    def _select(self, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """Video id -> header, of the videos that are long and large enough and not the same as another."""
        jobs, keys = [], {}
        for video, file in files.items():
            stat = file.stat()
            keys[video] = _key([file.as_posix(), stat.st_size, stat.st_mtime_ns])
            jobs.append(self._job(video, "read_video_header", {"file": str(file), "video_id": video}, 0.0))
        headers = self._records("headers", "reading headers", jobs, keys)
        selected: dict[str, dict[str, Any]] = {}
        first: dict[str, str] = {}
        for video, head in sorted(headers.items()):
            reason = self._unfit(head)
            if not reason and head["sha256"] in first:
                reason = f"the same file as {first[head['sha256']]}"
            if reason:
                self.report.refused[video] = reason
            else:
                first[head["sha256"]] = video
                selected[video] = head
        if not selected:
            raise UsageError(
                f"none of the {len(files)} videos can be used; the first: {self._first_reason(sorted(files)[0])}"
            )
        return selected

    def _unfit(self, head: Mapping[str, Any]) -> str:
        """Why the rules leave a video out; empty if they do not."""
        settings = self.settings
        if head["duration_s"] is None:
            return "the file does not declare its length (remux it to mp4)"
        if head["duration_s"] < settings.min_duration_s:
            return f"lasts {head['duration_s']:.1f} s, at least {settings.min_duration_s:g} s are wanted"
        if min(head["width"], head["height"]) < settings.min_height:
            return f"is {head['width']}x{head['height']}, a short side of at least {settings.min_height} is wanted"
        return ""

    def _clips(self, files: Mapping[str, Path], selected: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Video id -> what ``normalise`` returned."""
        self._folder(self.media)
        records = self._folder(self.work / "clips")
        encoding = asdict(self.settings.encoding)
        jobs, keys = [], {}
        # the longest first: no core is left waiting for one that began last
        for video in sorted(selected, key=lambda v: (-selected[v]["duration_s"], v)):
            keys[video] = _key([selected[video]["sha256"], encoding])
            arguments = {
                "file": str(files[video]),
                "video_id": video,
                "key": keys[video],
                "media": str(self.media),
                "records": str(records),
                "encoding": encoding,
            }
            jobs.append(self._job(video, "make_clips", arguments, selected[video]["duration_s"]))
        made = self._records("videos", "making clips", jobs, keys, self._media_there)
        for _, video in sorted(made.items()):
            self.report.notes += video["dropped"]
        if not made:
            raise UsageError(f"none of the {len(selected)} videos gave a clip; the first: {self._first_reason()}")
        return made

    def _media_there(self, value: Mapping[str, Any]) -> bool:
        paths = [(self.media / clip["path"], clip["n_bytes"]) for clip in value["clips"]]
        return all(path.is_file() and path.stat().st_size == n for path, n in paths)

    def _annotate(self, clips: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Clip id -> rows of its chunks; a clip that could not be annotated has none."""
        annotators = dict(self.settings.annotators or {})
        version = Annotators.load(annotators).version  # a missing extra or weights file is one line, before any job
        keys = {name: _key([clip["sha256"], annotators, version]) for name, clip in clips.items()}
        jobs = [
            self._job(
                name,
                "annotate",
                {"file": str(self.media / clip["path"]), "clip": dict(clip), "annotators": annotators},
                self.settings.encoding.clip_s,
            )
            for name, clip in sorted(clips.items())
        ]
        return self._records("annotations", "annotating", jobs, keys)

    def _manifest(
        self,
        files: Mapping[str, Path],
        selected: Mapping[str, Mapping[str, Any]],
        made: Mapping[str, Mapping[str, Any]],
        rows: Mapping[str, list[dict[str, Any]]],
    ) -> Manifest:
        settings, grid = self.settings, OffsetGrid()
        channels = {video: self._channel(files[video]) for video in made}
        durations_s = {v: seconds(sum(c["n_samples"] for c in made[v]["clips"])) for v in sorted(made)}
        split = split_videos(durations_s, channels, parse_shares(settings.split), settings.seed)
        length = ticks(settings.window_s) + (settings.iterations - 1) * ticks(settings.hop_s)
        clips: dict[str, ClipRecord] = {}
        sources: dict[str, dict[str, Any]] = {}
        segments: list[SegmentRecord] = []
        for video in sorted(made):
            origin = {"file": files[video].relative_to(self.videos).as_posix(), "sha256": selected[video]["sha256"]}
            for record in made[video]["clips"]:
                clip = ClipRecord(
                    id=record["id"],
                    video_id=video,
                    path=record["path"],
                    sha256=record["sha256"],
                    n_frames=record["n_frames"],
                    n_samples=record["n_samples"],
                    channel=channels[video],
                    split=split[video],
                )
                clips[clip.id], sources[clip.id] = clip, origin | record["source"]
                try:
                    starts = nominal_starts(settings.starts, clip.duration)
                    found = segments_of(clip, starts, length, settings.offsets, settings.seed, grid)
                except MediaError as error:
                    self.report.notes.append(f"{clip.id}: no segment ({error.reason})")
                    continue
                for segment in found:
                    category, events = label(seconds(segment.start), rows.get(clip.id, []))
                    segments.append(replace(segment, category=category, events=events))
        if not segments:
            raise UsageError(f"no clip holds a segment; the first: {self.report.notes[-1]}")
        return Manifest(
            name=settings.name or self.out.resolve().name,
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

    def _check(self, manifest: Manifest, clips: Mapping[str, Mapping[str, Any]]) -> None:
        """Every clip decoded once more by the reader that evaluations use, and the tables against each other."""
        keys = {name: _key([clip["sha256"], clip["n_frames"], clip["n_samples"]]) for name, clip in clips.items()}
        jobs = [
            self._job(
                name,
                "check_clip",
                {"file": str(self.media / clip["path"]), "clip": dict(clip)},
                self.settings.encoding.clip_s,
            )
            for name, clip in sorted(clips.items())
        ]
        found = self._records("checks", "checking", jobs, keys)
        self.report.problems = check(manifest) + [text for _, texts in sorted(found.items()) for text in texts]
        for name in sorted(set(clips) - set(found)):
            self.report.problems.append(f"clip {name}: could not be checked ({self._first_reason(name)})")

    def _write(self, manifest: Manifest, n_videos: int, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        for path in self.media.iterdir():  # clips of an earlier state of the videos
            if path.name not in {clip.path for clip in manifest.clips.values()}:
                path.unlink()
        if rows:
            lines = [
                json.dumps({"clip_id": name, **row}, sort_keys=True) for name in sorted(rows) for row in rows[name]
            ]
            self._write_bytes(self.out / "annotations.jsonl", ("\n".join(lines) + "\n").encode())
        write_manifest(manifest, self.out)
        statistics = info(manifest)
        statistics.pop("media_root", None)  # the report says the same wherever it was made
        report = {
            "settings": asdict(self.settings),
            "n_videos": n_videos,
            "n_used": len({clip.video_id for clip in manifest.clips.values()}),
            "refused": self.report.refused,
            "set_aside": self.report.set_aside,
            "notes": self.report.notes,
            "problems": self.report.problems,
            "statistics": statistics,
        }
        text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False)
        self._write_bytes(self.out / REPORT, text.encode() + b"\n")

    # -- records -----------------------------------------------------------------------------------------------------

    def _job(self, name: str, task: str, arguments: dict[str, Any], length_s: float) -> Job:
        limit_s = self.timeout_s or _BASE_TIMEOUT_S + _TIMEOUT_PER_S * length_s
        return Job(name, f"{_TASKS}:{task}", arguments, limit_s)

    def _records(
        self,
        kind: str,
        stage: str,
        jobs: list[Job],
        keys: Mapping[str, str],
        fits: Callable[[Any], bool] = lambda value: True,
    ) -> dict[str, Any]:
        """Job id -> answer; what is on record under the same key is taken from there, the rest is run and recorded.

        Refused and crashed jobs are on record too (and in the report), and have no answer.
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
        for outcome in self.engine.run(todo) if todo else ():
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
        return parts[0] if len(parts) > 1 else ""

    def _first_reason(self, name: str = "") -> str:
        reasons = self.report.refused | self.report.set_aside
        return next((f"{key}: {reason}" for key, reason in reasons.items() if name in key), "unknown")

    def _tell(self, stage: str, done: int, total: int, item: str) -> None:
        if self.progress:
            self.progress(stage, done, total, item)


def _check_settings(settings: Settings) -> None:
    """``UsageError`` for what could only fail, or mislead, hours later."""
    encoding = settings.encoding
    parse_shares(settings.split)
    if parse_offset_law(settings.offsets)[0] == "list":
        raise UsageError("offset law 'list' is for data that brings its offsets; choose truncnorm, uniform or fixed:S")
    nominal_starts(settings.starts, 1)
    for word, value_s in (("clip", encoding.clip_s), ("hop", settings.hop_s), ("window", settings.window_s)):
        if not 0 < value_s <= 3600 or ticks(value_s) % TICKS_PER_FRAME:
            raise UsageError(f"{word} is {value_s:g} s; it must be a positive multiple of 0.04 s, at most an hour")
    if not 0 < encoding.min_clip_s <= encoding.clip_s:
        raise UsageError(f"the shortest clip is {encoding.min_clip_s:g} s; it must lie in 0 ... {encoding.clip_s:g} s")
    if encoding.short_side < 16 or encoding.short_side % 2:
        raise UsageError(f"short side is {encoding.short_side}; it must be even and at least 16")
    if not 0 <= encoding.crf <= 51:
        raise UsageError(f"crf is {encoding.crf}; x264 knows 0 ... 51")
    if settings.iterations < 1:
        raise UsageError(f"iterations is {settings.iterations}; it must be at least 1")
    needed_s = settings.window_s + (settings.iterations - 1) * settings.hop_s
    if encoding.clip_s < needed_s:
        raise UsageError(f"clips of {encoding.clip_s:g} s cannot hold segments of {needed_s:g} s")


@contextlib.contextmanager
def _own(out: Path) -> Iterator[Path]:
    """The build's folder, locked for one build at a time and free of what an interrupted one left half-written."""
    work = out / WORK
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise UsageError(f"{out} is not empty and not the folder of a build; choose a new one")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "a")  # noqa: SIM115 (held as long as the build runs)
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
    """A record made under ``key``, or None (there is none, or it is of something else)."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("key") == key else None
