"""Write the pages of answers: beside the media or into a folder, with the picture of each file's worst moment."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from avbench.data.apart import MediaFile, read_apart
from avbench.data.folders import PAGE_ENDING as ENDING
from avbench.data.from_files import common_folder, name_clips
from avbench.data.media import MEASURED
from avbench.data.still import still
from avbench.pages.predict_page import MARK, index_page, predict_page
from avbench.runs.predict import STDIN, Asked
from avbench.scoring.prediction import Prediction
from avbench.system.outputs import check_writable
from avbench.system.strict import write_whole
from avbench.types import MediaError, Reading, UsageError, printable

READ = 200_000  # bytes of a file that say whether it is one of these pages


def pages_beside(files: Iterable[Asked]) -> dict[Path, Path]:
    """File -> the page beside it; that of stdin goes into the current folder."""
    there = [asked for asked in files if not asked.error]
    return {a.file: Path(f"stdin{ENDING}") if a.path == STDIN else Path(a.path).with_suffix(ENDING) for a in there}


def pages_in(folder: Path, files: Iterable[Asked]) -> dict[Path, Path]:
    """File -> its page in ``folder``; names are unique."""
    there = [asked.file for asked in files if not asked.error]
    named = name_clips(there, common_folder(there), ascii_only=False) if there else {}
    return {file: folder / f"{clip_id}{ENDING}" for clip_id, file in named.items()}


def check_pages(pages: Sequence[Path], force: bool = False) -> None:
    """Before the work: ``UsageError`` if two files would share a page, or if something that is no page of ours is in
    the way (unless ``force``); ``AvbenchError`` if a folder cannot be written."""
    if len(set(pages)) != len(pages):
        twice = next(page for page in pages if pages.count(page) > 1)
        raise UsageError(f"several files would have their page at {twice}; give --out DIR")
    for page in pages:
        if page.exists() and not force and not _is_ours(page):
            raise UsageError(f"{page} is there and not a page of avbench predict; give --force to replace it")
    for folder in {page.parent for page in pages}:
        check_writable(folder, "--out")


def _is_ours(page: Path) -> bool:
    if not page.is_file():
        return False
    with open(page, "rb") as file:
        return MARK.encode() in file.read(READ)


def write_pages(predictions: Sequence[Prediction], pages: Mapping[Path, Path]) -> None:
    """A page for each answer that has a place in ``pages``. ``AvbenchError`` if one cannot be written."""
    pictures = _pictures([p for p in predictions if p.file in pages])
    for prediction in predictions:
        if prediction.file in pages:
            page = pages[prediction.file]
            at_s, picture = pictures.get(prediction.file, (None, ""))
            video = "" if prediction.path == STDIN or prediction.error else address(prediction.file, page)
            write_whole(page, predict_page(prediction, picture, video, at_s).encode("utf-8", "replace"))


def write_index(predictions: Sequence[Prediction], pages: Mapping[Path, Path], index: Path) -> None:
    """The page that leads to the others. ``AvbenchError`` if it cannot be written."""
    links = [address(pages[p.file], index) if p.file in pages else "" for p in predictions]
    write_whole(index, index_page(predictions, links).encode("utf-8", "replace"))


def address(file: Path, page: Path) -> str:
    """Where a file is, seen from a page: a relative address, whatever bytes its name has."""
    relative = os.path.relpath(file.absolute(), page.parent.resolve())
    return "/".join(urllib.parse.quote(os.fsencode(part)) for part in Path(relative).parts).replace("//", "/")


def _pictures(predictions: Sequence[Prediction]) -> dict[Path, tuple[float, str]]:
    """File -> its worst moment and the picture of it; a file that gives none has none."""
    moments = {p.file: at_s for p in predictions if (at_s := worst_moment_s(p)) is not None}
    wanted = [
        MediaFile(printable(p.path), p.file, (moments[p.file] + p.picture_at_s, _reading(p)))
        for p in predictions
        if p.file in moments
    ]
    found = read_apart(still, wanted)
    return {file.path: (moments[file.path], got) for file, got in found if not isinstance(got, MediaError)}


def worst_moment_s(prediction: Prediction) -> float | None:
    """The middle of the window, in the worst regime, that is nearest to that regime's middle; None without evidence."""
    worst = prediction.worst
    if worst is None:
        return None
    half_s, middle_s = prediction.window_s / 2, (worst.start_s + worst.end_s) / 2
    heard = [window.start_s + half_s for window in prediction.windows if window.believed is not None]
    return min(min(heard, key=lambda at_s: abs(at_s - middle_s)), prediction.duration_s)


def _reading(prediction: Prediction) -> Reading:
    assert prediction.video_track is not None
    return replace(MEASURED, video_track=prediction.video_track)
