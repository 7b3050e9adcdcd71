"""Where the clips of published lists are: files are named in more than one way.

A slice of a video is named by the video and its first and last second or millisecond, or by its first alone, with or
without leading zeros and decimals: ``VIDEO_30000_40000``, ``VIDEO_30_40``, ``VIDEO_000030``, ``VIDEO_30.0`` and so on
(hosted copies of VGGSound and AudioSet differ in this); or by the video alone, where the lists have one slice of it.
The clips of LRS3 are ``VIDEO/NUMBER`` or ``VIDEO_NUMBER``, below or after the part or not. All files may be in any
folder.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from avbench.data.folders import VIDEO
from avbench.data.realsync.entries import Entry

LRS3_PARTS = ("pretrain", "trainval", "test")
_VIDEO = r"(?P<video>[A-Za-z0-9_-]{11})"
_TIME = r"\d{1,9}(?:\.\d{1,9})?"
_SLICE = re.compile(rf"{_VIDEO}(?:_(?P<first>{_TIME})(?:_(?P<last>{_TIME}))?)?")
_SENTENCE = re.compile(rf"(?:(?P<part>{'|'.join(LRS3_PARTS)})_)?{_VIDEO}_(?P<number>\d{{5}})")
Thing = tuple[str, int, int] | str  # what a file is: video, first and last ms; or the path of a clip of LRS3


@dataclass
class FoundClips:
    """``files``: clip id -> its file. ``doubtful``: clip id -> why no file was taken for it. ``by_video_alone``: clips
    whose file is named by the video alone, so that it may be all of the video."""

    files: dict[str, Path] = field(default_factory=dict)
    doubtful: dict[str, str] = field(default_factory=dict)
    by_video_alone: set[str] = field(default_factory=set)


def find_clips(media: Path, clips: Mapping[str, Entry]) -> FoundClips:
    """The files of those clips (id -> one of its entries) that have one below ``media``.

    A file at the published path is taken before files of the same name elsewhere. Files under different names, or
    several of one name elsewhere, leave the clip in doubt; so does a file whose name may mean another clip, too.
    """
    catalogue, found = _Catalogue(clips.values()), FoundClips()
    exact, files_of = defaultdict[str, list[Path]](list), defaultdict[Thing, list[Path]](list)
    meanings: dict[Path, set[Thing]] = {}
    for path in sorted(media.rglob("*")):
        if path.suffix[1:].lower() not in VIDEO or path.name.startswith(".") or path.is_dir():
            continue
        exact[path.relative_to(media).with_suffix("").as_posix()].append(path)
        meanings[path] = catalogue.meanings(path)
        for thing in meanings[path]:
            files_of[thing].append(path)
    for clip_id, entry in clips.items():
        files = _best(exact[entry.stem], files_of[_thing(entry)], entry)
        if len(files) > 1:
            found.doubtful[clip_id] = f"{len(files)} files could be it: {_listed(files)}; leave one there"
        elif files and len(meanings[files[0]]) > 1 and files != exact[entry.stem]:
            things = sorted(_in_words(thing) for thing in meanings[files[0]])
            found.doubtful[clip_id] = f"{shown(files[0])} could be {' or '.join(things)}; name it in full"
        elif files:
            found.files[clip_id] = files[0]
            if files[0].stem == entry.video_id:
                found.by_video_alone.add(clip_id)
    return found


def shown(path: Path) -> str:
    """A path as it can be printed: bytes that are no UTF-8 as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _listed(files: list[Path]) -> str:
    return ", ".join(map(shown, files[:3])) + (", ..." if len(files) > 3 else "")


def _best(exact: list[Path], others: list[Path], entry: Entry) -> list[Path]:
    """Which of the files for a clip are left: one if there is no doubt."""
    if len(exact) == 1 and all(path.stem == exact[0].stem for path in others):
        return exact
    files = list(dict.fromkeys([*exact, *others]))
    sure = [path for path in files if path.stem != entry.video_id]  # the video's name alone says least
    return sure or files


def _thing(entry: Entry) -> Thing:
    return (entry.video_id, *entry.span_ms) if entry.span_ms else entry.stem


def _in_words(thing: Thing) -> str:
    return thing if isinstance(thing, str) else f"{thing[0]} from {thing[1] / 1000:g} to {thing[2] / 1000:g} s"


class _Catalogue:
    """What is looked for: the slices of each video, and the clips of LRS3."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.slices, self.sentences = defaultdict[str, set[Thing]](set), defaultdict[str, set[Thing]](set)
        for entry in entries:
            if entry.span_ms:
                self.slices[entry.video_id].add(_thing(entry))
            else:
                self.sentences[entry.stem.partition("/")[2]].add(entry.stem)

    def meanings(self, path: Path) -> set[Thing]:
        """What a file may be, by its name and folders."""
        things: set[Thing] = set()
        if match := _SLICE.fullmatch(path.stem):
            things |= {one for one in self.slices.get(match["video"], ()) if _fits(one, match["first"], match["last"])}
        part, sentence = path.parent.parent.name, f"{path.parent.name}/{path.stem}"
        if match := _SENTENCE.fullmatch(path.stem):
            part, sentence = match["part"] or path.parent.name, f"{match['video']}/{match['number']}"
        of_part = {f"{part}/{sentence}"} if part in LRS3_PARTS else None
        wanted = self.sentences.get(sentence, set())
        return things | (wanted if of_part is None else wanted & of_part)


def _fits(thing: Thing, first: str | None, last: str | None) -> bool:
    """Whether a slice begins (and ends) at the times of a name, read as seconds or as milliseconds."""
    return any(
        (first is None or Fraction(first) * unit == thing[1]) and (last is None or Fraction(last) * unit == thing[2])
        for unit in (1, 1000)
    )
