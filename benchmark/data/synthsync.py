"""SynthSync, the built-in procedural data: encoded clips, generated on first use, the same on every machine.

The names with "hard" are of a second family of scenes (``scenes.HARD``), whose difficulty was calibrated on validation
scenes to the paper's (``training.calibrate``); the others are version 1.

A controlled stand-in: it shows that the harness is correct and that streaming helps, but not which model is best on
broadcast video. The *specification* is hashed, not the files, because encoders may differ between machines; the decoded
picture and sound of every clip are checked against the scene instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from avbench.data.scenes import HARD, N_CHANNELS, SIZE, STANDARD, Difficulty, Scene, parameters
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.protocol.offsets import draw_offset
from avbench.system import machine
from avbench.system.cache import cache_root
from avbench.system.progress import ItemProgress
from avbench.system.spelling import nearest
from avbench.system.workers import Lost, each
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_S, ticks
from avbench.types import CATEGORIES, AvbenchError, ClipRecord, OffsetGrid, SegmentRecord, UsageError

CLIP_S = 120
STARTS_S = tuple(range(10, 71, 10))  # room for 18 windows at 2 s; the first start also holds 48
SPLIT_SEEDS = {"train": 2_700_000, "valid": 2_500_000, "test": 3_000_000}
SPLIT_CLIPS = {"train": 24, "valid": 12, "test": 24}
FULL_CLIPS = {"train": 120, "valid": 60, "test": 120}
ENCODING = {"crf": 26, "preset": "veryfast", "audio_bit_rate": 48_000}
OFFSET_SEED = 2026
HARD_NAMES = ("synthsync-hard", "synthsync-hard-full")
NAMES = ("synthsync", "synthsync-full", "synthsync-normal", "synthsync-full-normal", *HARD_NAMES)
NOTE = "procedural stand-in"
HARD_NOTE = f"{NOTE}, calibrated to the paper's difficulty"
NOT_MADE = "0" * 64  # in place of the media hash of a clip that was not made yet
# Measured on encoded clips: about 3 grey levels and 25 dB; far-off values mean a broken codec or a shifted stream.
MAX_PICTURE_ERROR = 8.0
MIN_SOUND_CORRELATION = 0.9


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """What a clip is made from; ``seed`` identifies it and is never shared between splits."""

    id: str
    split: str
    category: str
    channel: int
    seed: int
    difficulty: Difficulty = STANDARD

    def scene(self) -> Scene:
        """The scene that the clip shows."""
        return Scene(self.category, self.channel, self.seed, CLIP_S, self.difficulty)


def difficulty_of(name: str) -> Difficulty:
    """The difficulty of the scenes that a SynthSync name stands for."""
    return HARD if name in HARD_NAMES else STANDARD


def note_of(name: str) -> str:
    """What every table says beside a SynthSync name."""
    return HARD_NOTE if difficulty_of(name) is HARD else NOTE


def clip_specs(split: str, count: int, difficulty: Difficulty = STANDARD) -> list[ClipSpec]:
    """The first ``count`` clips of a split, cycling through categories and channels."""
    short = dict(zip(CATEGORIES, ("th", "vo", "ot"), strict=True))
    family = "ss" if difficulty is STANDARD else f"ss-{difficulty.name}"
    specs = []
    for i in range(count):
        category = CATEGORIES[i % len(CATEGORIES)]
        channel = (i // len(CATEGORIES)) % N_CHANNELS
        name = f"{family}-{split}-{short[category]}-{i:03d}"
        specs.append(ClipSpec(name, split, category, channel, SPLIT_SEEDS[split] + i, difficulty))
    return specs


def specification(difficulty: Difficulty = STANDARD) -> dict[str, object]:
    """Everything that the pictures and sounds of SynthSync depend on, as JSON data."""
    return {"scenes": parameters(difficulty), "clip_s": CLIP_S, "encoding": ENCODING, "seeds": SPLIT_SEEDS}


def specification_sha256(difficulty: Difficulty = STANDARD) -> str:
    """Hash of :func:`specification`, 64 hex digits: the pin of SynthSync's media."""
    return hashlib.sha256(json.dumps(specification(difficulty), sort_keys=True).encode()).hexdigest()


def specifications() -> dict[str, Difficulty]:
    """The difficulties by the hashes of their specifications."""
    return {specification_sha256(difficulty): difficulty for difficulty in (STANDARD, HARD)}


def ensure(
    name: str = "synthsync",
    split: str = "test",
    cache: Path | None = None,
    progress: ItemProgress | None = None,
    workers: int | None = None,
) -> Manifest:
    """The manifest of a whole SynthSync split, which is also written beside its clips.

    ``name``: "synthsync" (24 test clips), "synthsync-full" (120), each with "-normal" for truncated normal offsets
    instead of uniform ones; "synthsync-hard" and "synthsync-hard-full" have as many clips of the harder family.
    UsageError for an unknown name or split; else as :func:`with_media`.
    """
    manifest = with_media(planned(name, split), cache, progress, workers)
    folder = manifest.media_root.parent / f"{name}-{split}"
    try:
        if not (folder / "manifest.json").exists():
            write_manifest(manifest, folder)
        return read_manifest(folder)
    except OSError as error:
        raise _cannot_make(name, folder.parent, error) from error


def with_media(
    manifest: Manifest, cache: Path | None = None, progress: ItemProgress | None = None, workers: int | None = None
) -> Manifest:
    """A planned manifest, whole or a part, with its clips; those that are missing from the cache are made first.

    ``progress(done, total, clip_id)`` is called once before and per clip made. AvbenchError if the cache cannot be
    written or a clip does not decode to what was drawn.
    """
    difficulty = specifications()[manifest.spec_sha256]
    root = (cache or cache_root()) / "synthsync" / manifest.spec_sha256[:16]
    media = root / "media"
    splits = sorted({clip.split for clip in manifest.clips.values()})
    specs = [spec for split in splits for spec in clip_specs(split, FULL_CLIPS[split], difficulty)]
    try:
        _make_clips([spec for spec in specs if spec.id in manifest.clips], media, progress, workers)
        clips = {name: replace(clip, sha256=_pin(media / clip.path)) for name, clip in manifest.clips.items()}
    except OSError as error:
        raise _cannot_make(manifest.name, root, error) from error
    return replace(manifest, clips=clips, media_root=media)


def _cannot_make(name: str, root: Path, error: OSError) -> AvbenchError:
    return AvbenchError(f"cannot make {name} in {root}: {error.strerror or error}; set AVBENCH_CACHE")


def planned(name: str = "synthsync", split: str = "test") -> Manifest:
    """The manifest of a split without its media: every clip, segment and label of the specification.

    Its ``sha256`` equals that of the finished split, because synthetic data are pinned by their specification.
    UsageError for an unknown name or split.
    """
    if name not in NAMES:
        raise UsageError(f"unknown SynthSync data {name!r}: there are {', '.join(NAMES)}")
    if split not in SPLIT_SEEDS:
        raise UsageError(f"unknown split {split!r} of {name}: {nearest(split, SPLIT_SEEDS)}")
    difficulty = difficulty_of(name)
    law = "truncnorm" if name.endswith("-normal") else "uniform"
    clips, segments = {}, []
    for spec in clip_specs(split, (FULL_CLIPS if "-full" in name else SPLIT_CLIPS)[split], difficulty):
        n_frames, n_samples = CLIP_S * FRAME_RATE_HZ, CLIP_S * TICKS_PER_S
        channel = f"studio {spec.channel + 1}"
        clips[spec.id] = ClipRecord(spec.id, spec.id, f"{spec.id}.mp4", NOT_MADE, n_frames, n_samples, channel, split)
        segments += [_segment(spec, start_s, law, channel) for start_s in STARTS_S]
    return Manifest(
        name=name,
        kind="synthetic",
        note=note_of(name),
        offset_law=law,
        clips=dict(sorted(clips.items())),  # the order that a written manifest keeps
        segments=tuple(segments),
        media_root=Path(),
        spec_sha256=specification_sha256(difficulty),
    )


def _pin(path: Path) -> str:
    """The hash of a clip's file, noted down beside it when first asked for: a file damaged since then is noticed."""
    from avbench.data.media import media_sha256
    from avbench.system.atomic import atomic_write_bytes

    noted = path.with_suffix(".sha256")
    if noted.exists():
        return noted.read_text().strip()
    found = media_sha256(path)
    with contextlib.suppress(OSError):  # a cache that cannot be written
        atomic_write_bytes(noted, found.encode())
    return found


def _make_clips(specs: list[ClipSpec], media: Path, progress: ItemProgress | None, workers: int | None) -> None:
    media.mkdir(parents=True, exist_ok=True)
    todo = [s for s in specs if not (media / f"{s.id}.mp4").exists()]
    if progress and todo:
        progress(0, len(todo), "")
    made = each(partial(make_clip, media=media), todo, workers or machine.cores())
    for done, (spec, clip_id) in enumerate(made, 1):
        if isinstance(clip_id, Lost):
            raise AvbenchError(f"making clip {spec.id}: {clip_id.reason}")
        if progress:
            progress(done, len(todo), clip_id)


def make_clip(spec: ClipSpec, media: Path) -> str:
    """Draw, encode and check one clip; returns its id. The file gets its name only after the check."""
    scene, path = spec.scene(), media / f"{spec.id}.mp4"
    encode(path, scene.frames(), scene.audio(), partial(check_clip, spec=spec, scene=scene))
    _pin(path)
    return spec.id


def encode(
    path: Path, frames: Iterable[np.ndarray], audio: np.ndarray, check: Callable[[Path], None] | None = None
) -> None:
    """``encode_clip`` with SynthSync's settings. The published figures are of clips encoded with mbtree. (Nothing is
    decoded at the same time, so 1, 2 or 3 processes give the same bytes.)"""
    from avbench.data.encode import Codec, encode_clip

    encode_clip(path, frames, audio, Codec(mbtree=True, **ENCODING), check=check)  # type: ignore[arg-type]


def check_clip(path: Path, spec: ClipSpec, scene: Scene | None = None) -> None:
    """AvbenchError unless the decoded picture and sound match the specification, frame by frame."""
    from avbench.data.media import ClipReader
    from avbench.types import FrontEnd

    scene = scene or spec.scene()
    record = ClipRecord(spec.id, spec.id, path.name, "", scene.n_frames, scene.n_samples)
    errors = []
    with ClipReader(path, record) as reader:
        decoded = reader.audio()
        # one channel and every second pixel are enough to notice a wrong or shifted frame
        for drawn, (seen,) in zip(scene.frames(), reader.frames(FrontEnd(size=SIZE)), strict=True):
            errors.append(np.abs(drawn[::2, ::2, 1].astype(np.int16) - seen[1, ::2, ::2]).mean())
    correlation = np.corrcoef(scene.audio(), decoded)[0, 1]
    if np.mean(errors) > MAX_PICTURE_ERROR or not correlation > MIN_SOUND_CORRELATION:
        raise AvbenchError(
            f"clip {spec.id} does not decode to what was drawn (mean picture error {np.mean(errors):.1f} grey levels, "
            f"sound correlation {correlation:.3f}): the encoder of this machine's PyAV is not usable for SynthSync"
        )


def _segment(spec: ClipSpec, start_s: int, law: str, channel: str) -> SegmentRecord:
    segment_id = f"{spec.id}_{start_s:03d}"
    offset = draw_offset(law, segment_id, OFFSET_SEED, OffsetGrid())
    return SegmentRecord(
        id=segment_id,
        clip_id=spec.id,
        video_id=spec.id,
        start=ticks(start_s),
        offset=offset,
        offset_class=OffsetGrid().class_of(offset / TICKS_PER_S),
        category=spec.category,
        events=(),
        channel=channel,
        split=spec.split,
    )
