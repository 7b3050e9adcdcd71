"""What the jobs of a build answer and leave on record: dataclasses here, JSON on disk and between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avbench.types import Gap


@dataclass(frozen=True, slots=True)
class RawVideo:
    """What the selection needs to know of a raw video."""

    sha256: str
    duration_s: float | None  # declared by the file
    width: int  # upright, after rotation
    height: int


@dataclass(frozen=True, slots=True)
class BuiltClip:
    """A clip that was cut from a raw video and encoded."""

    id: str
    path: str  # file name in the media folder
    n_frames: int  # at 25 fps
    n_samples: int  # at 16 kHz
    n_bytes: int
    sha256: str
    source: dict[str, Any]  # what the raw file declared, and where in it the clip starts
    key: str  # of the job that made it: raw file and encoding
    gaps: tuple[Gap, ...] = ()  # of the raw file, on the clip's clock

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BuiltClip:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**value, "gaps": tuple(Gap(*gap) for gap in value.get("gaps", ()))})


@dataclass(frozen=True, slots=True)
class BuiltVideo:
    """All clips of a raw video, in order, and what was left out of it (one line each)."""

    clips: tuple[BuiltClip, ...]
    dropped: tuple[str, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BuiltVideo:
        """The inverse of ``dataclasses.asdict``."""
        return cls(tuple(BuiltClip.from_json(clip) for clip in value["clips"]), tuple(value["dropped"]))
