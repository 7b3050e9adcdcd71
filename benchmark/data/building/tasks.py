"""What the jobs of a build do, each with one file, in a process of its own. Plain data in, plain data out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avbench.data.building.normalise import Encoding, normalise
from avbench.data.media import media_sha256
from avbench.data.probing import probe, read_header


def read_video_header(file: str, video_id: str) -> dict[str, Any]:
    """What selection needs, and the hash that everything made of the file is filed under."""
    head = read_header(Path(file), video_id)
    return {
        "sha256": media_sha256(Path(file)),
        "duration_s": head.duration_s,
        "width": head.width,
        "height": head.height,
    }


def make_clips(
    file: str, video_id: str, key: str, media: str, records: str, encoding: dict[str, Any]
) -> dict[str, Any]:
    return normalise(Path(file), video_id, key, Path(media), Path(records), Encoding(**encoding))


def annotate(file: str, clip: dict[str, Any], annotators: dict[str, str]) -> list[dict[str, Any]]:
    from avbench.data.annotate import Annotators, annotate_clip

    return annotate_clip(Path(file), clip["id"], clip["n_frames"], clip["n_samples"], Annotators.load(annotators))


def check_clip(file: str, clip: dict[str, Any]) -> list[str]:
    """Every way in which a written clip is not what its record says; all of it is decoded."""
    path, name = Path(file), clip["id"]
    if media_sha256(path) != clip["sha256"]:
        return [f"clip {name}: {path.name} has changed (other sha256)"]
    found = probe(path, name)
    problems = [
        f"clip {name}: {word} is {has}, it must be {must}"
        for word, has, must in (
            ("n_frames", found.n_frames, clip["n_frames"]),
            ("n_samples", found.n_samples, clip["n_samples"]),
            ("start of the picture", found.video_start_s, 0.0),
            ("pictures on the 25 fps grid", found.is_cfr_25, True),
            ("sample rate", found.sample_rate, 16_000),
            ("channels", found.channels, 1),
        )
        if has != must
    ]
    return problems + [f"clip {name}: {text}" for text in found.warnings if "silent" not in text]
