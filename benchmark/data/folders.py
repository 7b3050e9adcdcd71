"""Search folders for media: what is found, and what is passed over and why. Nothing is left out in silence but
the pages that avbench itself wrote."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from avbench.data.apart import MediaFile, read_apart
from avbench.data.streams import WORDS, opened, tracks_of
from avbench.system.findings import first_of
from avbench.system.paths import without_name
from avbench.types import MediaError, UsageError, printable

_VIDEO = """
3g2 3gp amv asf avi divx dv evo f4v flv ismv m2p m2ts m4v mk3d mkv mod mov mp4 mp4v mpe mpeg mpg mts mxf nut nuv ogm ogv
qt rm rmvb tod trp ts tts vob webm wmv wtv
"""
# text and data; subtitles; pictures; checksums, archives, weights, downloads that have not ended
_OTHER = """
bak bib c cfg conf cpp css csv db doc docx h h5 hdf5 htm html icc ics ini ipynb js json jsonl lock log m3u m3u8 md nfo
npy npz odt parquet pdf pickle pkl plist ppt pptx py pyc rst rtf sh sql sqlite tex toml tsv txt url xls xlsx xml xmp
yaml yml
ass idx lrc sbv srt ssa sub sup ttml usf vtt
avif bmp cr2 dng exr gif heic heif ico jp2 jpe jpeg jpg jxl nef png psd svg tga thm tif tiff webp
7z aria2 bz2 ckpt crdownload gz md5 onnx par2 part pt pth rar safetensors sfv sha1 sha256 sha512 tar tgz tmp torrent xz
ytdl zip zst
"""
VIDEO = frozenset(_VIDEO.split())  # a file with such an ending that cannot be read is an error
OTHER = frozenset(_OTHER.split())  # these are not opened
NOT_VIDEO, HIDDEN, LINK = "not a video by its name", "hidden", "a link to a folder; name it to have it searched"
PAGE_ENDING = ".avbench.html"  # of a page that `avbench predict` wrote beside a file: no word about it is needed
_NAMED = 5  # of what is passed over for the same reason


@dataclass(frozen=True)
class Found:
    """``files``: resolved, sorted, each once -> how the user would name it. ``passed_over``: name of every other file
    or folder -> why."""

    named: Mapping[Path, str]
    passed_over: Mapping[str, str]

    @property
    def files(self) -> list[Path]:
        """The media found."""
        return list(self.named)

    def left_out(self) -> list[str]:
        """What was passed over in words: one line for each reason, with the first few names and how many more."""
        of_reason: dict[str, list[str]] = defaultdict(list)
        for name, reason in self.passed_over.items():
            of_reason[reason].append(name)
        more = {reason: len(names) - _NAMED for reason, names in of_reason.items()}
        return [
            f"{', '.join(names[:_NAMED])}{f' and {more[reason]} more' * (more[reason] > 0)}: {reason}"
            for reason, names in of_reason.items()
        ]


def find_media(paths: Iterable[Path | str], besides: Path | None = None, workers: int = 1) -> Found:
    """The media among ``paths``: every file that is named, and what is found in folders, recursively.

    In a folder, files whose ending is in ``VIDEO`` are taken as they are; those in ``OTHER``, hidden ones and the
    folder ``besides`` are passed over; any other is opened, and taken if it is a container with picture and sound.
    Links to files are followed, links to folders are not. ``UsageError``: a path that does not exist, or no media.
    """
    found: dict[Path, str] = {}
    passed: dict[str, str] = {}
    unsure: dict[Path, str] = {}
    given_paths = [Path(given) for given in paths]
    for given in given_paths:
        if not given.is_dir():
            if not os.path.lexists(given):
                raise UsageError(f"{given} does not exist")
            found.setdefault(_resolved(given), str(given))
            continue
        for path, why in _walk(given, besides):
            ending, name = path.suffix[1:].lower(), _name(path, given, len(given_paths) > 1)
            if path.name.endswith(PAGE_ENDING):
                continue
            if why or ending in OTHER:
                passed[name] = why or NOT_VIDEO
            elif ending in VIDEO:
                found.setdefault(_resolved(path), str(path))
            else:
                unsure[path] = name
    for path, why in _opened(unsure, workers):
        if why:
            passed[unsure[path]] = why
        else:
            found.setdefault(_resolved(path), str(path))
    searched = Found(dict(sorted(found.items())), dict(sorted(passed.items())))
    if not found:
        told = f"; passed over: {first_of(searched.left_out())}" if passed else ""
        raise UsageError(f"no video files found{told}")
    return searched


def _walk(folder: Path, besides: Path | None) -> Iterator[tuple[Path, str]]:
    """Everything in a folder that is no folder to be searched, and why it is passed over ("" if it may be media)."""
    unread: list[OSError] = []
    skipped = besides.resolve() if besides else None
    for top, folders, files in os.walk(folder, onerror=unread.append):
        for name in sorted(folders):
            path = Path(top, name)
            if name.startswith("."):
                why = HIDDEN
            elif path.is_symlink():
                why = LINK
            elif path.resolve() == skipped:
                why = "the output"
            else:
                continue
            folders.remove(name)
            yield path, why
        for name in sorted(files):
            yield Path(top, name), HIDDEN if name.startswith(".") else ""
    for error in unread:
        yield Path(error.filename or folder), f"cannot be searched: {error.strerror}"


def _opened(unsure: Iterable[Path], workers: int) -> Iterator[tuple[Path, str]]:
    """Each file, and why it is no media file. One that its decoder does not survive is left to those who read it."""
    files = [MediaFile(path.name, path) for path in unsure]
    for file, why in read_apart(_problem, files, workers):
        yield file.path, "" if isinstance(why, MediaError) else why


def _problem(file: MediaFile) -> str:
    """Why the file is no container with picture and sound; "" if it is."""
    try:
        with opened(file.path, file.clip_id) as container:
            missing = [word for kind, word in WORDS.items() if not tracks_of(container, kind)]
    except MediaError as error:
        return without_name(error.reason, file.path)
    return f"without {missing[0]}" if missing else ""


def _resolved(path: Path) -> Path:
    """Without links; a link that leads nowhere keeps its name."""
    return path.resolve() if path.exists() else path.parent.resolve() / path.name


def _name(path: Path, folder: Path, several: bool) -> str:
    return printable(str(path if several or path == folder else path.relative_to(folder)))
