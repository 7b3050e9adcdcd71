"""The jobs of a build. Each reads one file in a process of its own and takes and returns plain data (JSON)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.data.building.normalise import Encoding, normalise
from avbench.data.building.records import BuiltClip, RawVideo
from avbench.data.media import media_sha256
from avbench.data.probing import probe, read_header
from avbench.protocol.manifest import reading_of
from avbench.types import ClipRecord

if TYPE_CHECKING:
    from avbench.data.annotators import Annotators


def read_video_header(file: str, video_id: str) -> dict[str, Any]:
    """A ``RawVideo``: what selection needs, and the hash of the file, which is part of the key of all later records."""
    header = read_header(Path(file), video_id)
    return asdict(RawVideo(media_sha256(Path(file)), header.duration_s, header.width, header.height))


def make_clips(
    file: str, video_id: str, key: str, media: str, records: str, encoding: dict[str, Any]
) -> dict[str, Any]:
    """A ``BuiltVideo``: see ``normalise``."""
    return asdict(normalise(Path(file), video_id, key, Path(media), Path(records), Encoding(**encoding)))


def annotate(file: str, clip: dict[str, Any], annotators: dict[str, str]) -> dict[str, Any]:
    """What is measured of a clip: see ``annotate_clip``."""
    from avbench.data.annotate import annotate_clip

    return annotate_clip(Path(file), _clip(file, **clip), _annotators(tuple(sorted(annotators.items()))))


@lru_cache(maxsize=1)
def _annotators(names: tuple[tuple[str, str], ...]) -> Annotators:
    """Loaded once in a process, which annotates many clips."""
    from avbench.data.annotators import Annotators

    return Annotators.load(dict(names))


def small_pictures(file: str, clip: dict[str, Any], spots: list[list[float]]) -> list[str]:
    """A small JPEG in base64 for each spot: see ``avbench.data.annotate.small_pictures``."""
    from avbench.data import annotate

    found = annotate.small_pictures(Path(file), _clip(file, **clip), [tuple(spot) for spot in spots])
    return [b64encode(data).decode() for data in found]


def _clip(file: str, clip_id: str, n_frames: int, n_samples: int, reading: str) -> ClipRecord:
    return ClipRecord(clip_id, clip_id, Path(file).name, "", n_frames, n_samples, reading=reading_of(reading))


def check_clip(file: str, clip: dict[str, Any]) -> list[str]:
    """Decode a written clip to the end and list every difference from its record, a ``BuiltClip``."""
    path, record = Path(file), BuiltClip.from_json(clip)
    if media_sha256(path) != record.sha256:
        return [f"clip {record.id}: {path.name} has changed (other sha256)"]
    found = probe(path, record.id)
    problems = [
        f"clip {record.id}: {word} is {has}, it must be {must}"
        for word, has, must in (
            ("n_frames", found.n_frames, record.n_frames),
            ("n_samples", found.n_samples, record.n_samples),
            ("start of the picture", found.video_start_s, 0.0),
            ("pictures on the 25 fps grid", found.is_cfr_25, True),
            ("sample rate", found.sample_rate, 16_000),
            ("channels", found.channels, 1),
        )
        if has != must
    ]
    return problems + [f"clip {record.id}: {text}" for text in found.warnings if "silent" not in text]
