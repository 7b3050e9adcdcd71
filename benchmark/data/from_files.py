"""Make a manifest over a user's own videos: probe, hash, choose starts and offsets. The videos are not changed."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from avbench.data.apart import MediaFile, read_apart
from avbench.data.folders import Found, find_media
from avbench.data.media import MEASURED, media_sha256
from avbench.data.probing import MAX_CLIP_S, MediaInfo, probe
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.protocol.offsets import draw_offset, nominal_starts, parse_offset_law
from avbench.system.atomic import whole
from avbench.system.paths import as_file_name, path_text, without_name
from avbench.system.progress import ItemProgress
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, seconds
from avbench.types import (
    ClipRecord,
    MediaError,
    OffsetGrid,
    Reading,
    SegmentRecord,
    UsageError,
    Window,
    printable,
)


class TooShort(MediaError):
    """Nothing is wrong with the clip, but no segment fits in it."""


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """Which segments clips get: a start law, an offset law (see ``offsets``) and the length that must fit.

    A segment needs ``iterations`` windows, one ``hop`` apart, of picture and of (shifted) sound; ``window`` and ``hop``
    in ticks. ``UsageError``: an unknown law or one without draws, times that are not whole frames, no iteration.
    """

    offset_law: str = "uniform"
    start_law: str = "grid:10"
    window: Tick = 5 * TICKS_PER_S
    hop: Tick = 2 * TICKS_PER_S
    iterations: int = 1
    seed: int = 0  # of the offsets

    def __post_init__(self) -> None:
        if parse_offset_law(self.offset_law)[0] in ("list", "hidden"):
            raise UsageError(
                f"offset law {self.offset_law!r} is for data that brings its offsets; choose uniform, truncnorm or "
                "fixed:S"
            )
        nominal_starts(self.start_law, 1)
        for word, value in (("window", self.window), ("hop", self.hop)):
            if value <= 0 or value % TICKS_PER_FRAME:
                raise UsageError(
                    f"{word} is {seconds(value):g} s; it must be a positive multiple of 0.04 s (one frame)"
                )
        if self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")

    @property
    def length(self) -> Tick:
        """Ticks from a segment's start to the end of its last window."""
        return self.window + (self.iterations - 1) * self.hop


def manifest_from_files(  # noqa: PLR0913  (the options of `avbench data from-files`)
    paths: Iterable[Path | str] | Found,
    out: Path,
    rules: SegmentRules | None = None,
    *,
    reading: Reading = MEASURED,
    copy: bool = False,
    name: str = "",
    workers: int = 1,
    progress: ItemProgress | None = None,
) -> tuple[Manifest, list[MediaError]]:
    """Write a manifest over video files and folders (searched by :func:`~avbench.data.folders.find_media`) into
    ``out``; an earlier one there is replaced.

    Every file is decoded once to measure it, in one of ``workers`` processes, so that a file on which its decoder dies
    costs no other; ``reading`` names the tracks (0: see ``streams.choose``) and the holes that are gaps. It gets the
    segments that ``rules`` allow (None: the defaults, with one window, so that short clips
    can be used; a run with more iterations lists the segments it cannot use). ``copy`` puts the media under
    ``out/media``; otherwise the manifest records where they are. ``name``: of the data; empty for the name of ``out``.

    Returns the manifest and one ``MediaError`` for every refused file, by the name that it was given, ``TooShort`` for
    those that are only that.
    ``UsageError``: no files, or none can be used.
    """
    rules, out = rules or SegmentRules(), Path(out)
    searched = paths if isinstance(paths, Found) else find_media(paths, out, workers)
    files = searched.files
    root = common_folder(files)
    media_root = out / "media" if copy else root
    named = name_clips(files, root)
    measured = measure_all(named, reading, workers, progress)
    clips: dict[str, ClipRecord] = {}
    segments: list[SegmentRecord] = []
    sources: dict[str, dict[str, object]] = {}
    refused: list[MediaError] = []
    for clip_id, file in named.items():
        try:
            clip, info = clip_of(measured[clip_id], file, clip_id, root)
            found = segments_of(clip, rules, OffsetGrid())
            if copy:
                clip = replace(clip, path=clip_id + _safe(file.suffix.lower()))
                _copy(file, media_root / clip.path, clip_id)
        except MediaError as error:
            refused.append(type(error)(printable(searched.named[file]), without_name(error.reason, file)))
            continue
        clips[clip_id], sources[clip_id] = clip, _source(info, file)
        segments += found
    if not clips:
        raise UsageError(
            f"none of the {len(files)} files can be used; the first: {refused[0].clip_id}: {refused[0].reason}"
        )
    manifest = Manifest(
        name=name or printable(out.resolve().name),
        kind="files",
        note=f"{len(clips)} of {len(files)} files; starts {rules.start_law}, offsets {rules.offset_law} "
        f"(seed {rules.seed})",
        offset_law=rules.offset_law,
        clips=clips,
        segments=tuple(segments),
        media_root=media_root,
        grid=OffsetGrid(),
        sources=sources,
    )
    write_manifest(manifest, out)
    return manifest, refused


def common_folder(files: list[Path]) -> Path:
    """The folder in which all the files lie, at some depth. ``UsageError``: they are on different drives."""
    try:
        return Path(os.path.commonpath([f.parent for f in files]))
    except ValueError as error:  # two drives
        raise UsageError("the files are on different drives; make one manifest for each") from error


def name_clips(files: list[Path], root: Path, ascii_only: bool = True) -> dict[str, Path]:
    """Clip id -> file. Ids come from the paths relative to ``root``: readable, safe as file names, unique; of ASCII
    only, or with the letters of all scripts. Only files whose ids would collide affect each other: they keep their
    extension, and get a number if that is not enough."""
    slug = _slug if ascii_only else _named_like
    stems = {f: slug(f.relative_to(root).with_suffix("").as_posix()) for f in files}
    taken = Counter(stem.casefold() for stem in stems.values())  # copies must not collide on a case-insensitive disk
    named: dict[str, Path] = {}
    used: set[str] = set()
    for file in files:
        base = stems[file] if taken[stems[file].casefold()] == 1 else slug(file.relative_to(root).as_posix())
        clip_id, n = base, 1
        while clip_id.casefold() in used:
            n += 1
            clip_id = f"{base}~{n}"
        used.add(clip_id.casefold())
        named[clip_id] = file
    return named


def _slug(text: str) -> str:
    return _safe(text.replace("/", "--")).lstrip(".")[-150:] or "clip"


def _named_like(text: str) -> str:
    return as_file_name(text.replace("/", "--")).lstrip(".") or "clip"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


_Measured = tuple[MediaInfo, str]  # and the file's sha256


def measure_all(
    named: Mapping[str, Path],
    reading: Reading,
    workers: int,
    progress: ItemProgress | None = None,
    longest_s: float = MAX_CLIP_S,
) -> dict[str, _Measured | MediaError]:
    """Clip id -> what decoding its file to the end has shown and its sha256, or why it cannot be used. ``longest_s``:
    longer files are refused."""
    files = [MediaFile(clip_id, file, reading) for clip_id, file in named.items()]
    measured: dict[str, _Measured | MediaError] = {}
    if progress:
        progress(0, len(files), "")
    for done, (file, found) in enumerate(read_apart(partial(_measure, longest_s), files, workers), 1):
        measured[file.clip_id] = found
        if progress:
            progress(done, len(files), file.clip_id)
    return measured


def _measure(longest_s: float, file: MediaFile) -> _Measured:
    return probe(file.path, file.clip_id, file.known, longest_s), media_sha256(file.path)


def clip_of(measured: _Measured | MediaError, file: Path, clip_id: str, root: Path) -> tuple[ClipRecord, MediaInfo]:
    """The clip of a measured file below ``root``; its folder is its channel. Raises ``measured`` if it is an error."""
    if isinstance(measured, MediaError):
        raise measured
    info, sha256 = measured
    clip = ClipRecord(
        id=clip_id,
        video_id=clip_id,
        path=path_text(file.relative_to(root)),
        sha256=sha256,
        n_frames=info.n_frames,
        n_samples=info.n_samples,
        channel="" if file.parent == root else printable(file.parent.relative_to(root).as_posix()),
        reading=info.reading,
    )
    return clip, info


def segments_of(clip: ClipRecord, rules: SegmentRules, grid: OffsetGrid) -> list[SegmentRecord]:
    """One segment for every start at which picture and sound fit; ``TooShort`` if there is none.

    The first start is moved to the first frame that its offset allows. A start whose segment would touch a gap is moved
    behind it, but not up to the next start."""
    made = []
    shortest = None
    starts = nominal_starts(rules.start_law, clip.duration)
    for nominal, following in zip(starts, [*starts[1:], clip.duration], strict=True):
        segment_id = f"{clip.id}@{seconds(nominal):.10g}"
        offset = draw_offset(rules.offset_law, segment_id, rules.seed, grid)
        earliest = _on_frame(max(nominal, -offset))
        start = _behind_gaps(clip, earliest, offset, rules.length)
        end = start + rules.length
        shortest = max(end, end + offset) if shortest is None else shortest
        too_late = start != earliest and start >= following
        if too_late or end > clip.n_frames * TICKS_PER_FRAME or end + offset > clip.n_samples:
            continue
        made.append(
            SegmentRecord(
                id=segment_id,
                clip_id=clip.id,
                video_id=clip.video_id,
                start=start,
                offset=offset,
                offset_class=grid.class_of(seconds(offset)),
                channel=clip.channel,
                split=clip.split,
            )
        )
    if not made:
        needed = f", {seconds(shortest):.2f} s are needed with its offset" if shortest else ""
        broken = f" and {len(clip.reading.gaps)} gaps leave no room" if clip.reading.gaps else ""
        together = f"picture and sound together last {seconds(clip.duration):.2f} s"
        raise TooShort(clip.id, f"too short: {together}{broken}{needed}")
    return made


def _on_frame(tick: Tick) -> Tick:
    """The first frame that does not begin before ``tick``."""
    return -(-tick // TICKS_PER_FRAME) * TICKS_PER_FRAME


def _behind_gaps(clip: ClipRecord, start: Tick, offset: Tick, length: Tick) -> Tick:
    """The first frame from ``start`` on after which ``length`` of picture and of sound, shifted by ``offset``, touch no
    gap."""
    while True:
        picture = clip.reading.gap_in("picture", Window(start, length))
        sound = clip.reading.gap_in("sound", Window(start + offset, length))
        if not picture and not sound:
            return start
        start = _on_frame(max(picture.end if picture else 0, sound.end - offset if sound else 0))


def _source(info: MediaInfo, file: Path) -> dict[str, object]:
    """What the container declared; kept, because a hidden delay of 64 ms can be traced only through it."""
    return {
        "file": path_text(file.name),
        "fps": str(info.fps),
        "is_cfr_25": info.is_cfr_25,
        "size": f"{info.width}x{info.height}",
        "rotation": info.rotation,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "video_start_s": info.video_start_s,
        "audio_start_s": info.audio_start_s,
        "first_audio_packet_s": info.first_audio_packet_s,
        "container": info.container,
        "tracks": list(info.tracks),
        "encoder": info.encoder,
        "edit_lists": info.edit_lists,
        "clock_doubt_ms": list(info.clock_doubt_ms),
        "warnings": list(info.warnings),
    }


def _copy(file: Path, target: Path, clip_id: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(file):
            return
        with whole(target) as temporary:
            shutil.copyfile(file, temporary)
    except OSError as error:
        raise MediaError(clip_id, f"cannot be copied to {target} ({error.strerror})") from error
