"""Which segments of a run can be watched on its page: the small clips in ``run-clips/`` beside run.json, and the record
``clips.json`` among them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avbench.system.strict import Many, Sha256, StrictPart, parse_record, read_bytes, strict_json, write_whole
from avbench.types import AvbenchError

FOLDER, RECORD = "run-clips", "clips.json"
Kind = Literal["worst", "surest"]
SHIFTS = ("seen", "corrected")
MAX_RECORD_BYTES = 2**20
_OURS = re.compile(r"(worst|surest)-\d{1,2}-(seen|corrected)\.mp4")


class Cut(StrictPart):
    """One segment: the ``number``-th of its kind, from 1. The clips show ``length_s`` seconds of its stream from
    ``start_s`` on; ``reason`` says why there are none."""

    kind: Kind
    number: Annotated[int, Field(ge=1, le=99)]
    segment_id: str
    start_s: Annotated[float, Field(ge=0)] = 0.0
    length_s: Annotated[float, Field(ge=0)] = 0.0
    reason: str = ""

    def name(self, shift: str) -> str:
        """The file's name; ``shift`` is one of ``SHIFTS``."""
        return clip_name(self.kind, self.number, shift)


class Cuts(StrictPart):
    """What was cut for the page of the run with these predictions."""

    schema_version: Literal[1] = 1
    predictions: Sha256
    cuts: Many[Cut]


def clip_name(kind: str, number: int, shift: str) -> str:
    """Such as ``worst-1-seen.mp4``."""
    return f"{kind}-{number}-{shift}.mp4"


def write_cuts(run: Path, cuts: Cuts) -> None:
    """Writes the record beside the clips; ``AvbenchError`` if it cannot be written."""
    write_whole(Path(run) / FOLDER / RECORD, strict_json(cuts).encode("utf-8"))


def read_cuts(run: Path, predictions: str) -> list[Cut]:
    """What was cut for the run whose predictions have this sha256; nothing if there is no readable record of it. A
    segment whose clips are gone says so."""
    folder = Path(run) / FOLDER
    if not (folder / RECORD).is_file():
        return []
    try:
        data = read_bytes(folder / RECORD, MAX_RECORD_BYTES)
        found = parse_record(data, folder / RECORD, Cuts, "a record of clips", "run the evaluation again")
    except AvbenchError:  # it is not ours any more; the page does without
        return []
    return [_with_files(cut, folder) for cut in found.cuts] if found.predictions == predictions else []


def _with_files(cut: Cut, folder: Path) -> Cut:
    gone = [name for name in map(cut.name, SHIFTS) if not (folder / name).is_file()]
    return cut.model_copy(update={"reason": f"{gone[0]} is missing"}) if gone and not cut.reason else cut


def remove_cuts(run: Path) -> None:
    """Removes the clips and the record of an earlier run, and the folder if nothing else is in it."""
    folder = Path(run) / FOLDER
    if not folder.is_dir() or folder.is_symlink():
        return
    with contextlib.suppress(OSError):  # what cannot be removed is not used either: it is of other predictions
        for path in folder.iterdir():
            if path.name == RECORD or _OURS.fullmatch(path.name):
                path.unlink()
        folder.rmdir()
