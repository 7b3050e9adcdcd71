"""What to cite: avbench, the paper, and what runs used (their models, and the data they were trained and tested on)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avbench import __version__
from avbench.pages.runs_page import run_files
from avbench.results.run import RUN_FILE, RunResult, read_run
from avbench.types import printable

PAPER, AVBENCH = "voas2025streamsync", "avbench"

_ENTRIES = {  # key -> (type, fields), facts of the publications
    AVBENCH: (
        "software",
        {
            "title": "avbench: a benchmark harness for audio-visual synchronisation in streaming video",
            "author": "{avbench maintainers}",
            "version": __version__,
            "year": "2026",
        },
    ),
    PAPER: (
        "inproceedings",
        {
            "title": "Temporally Streaming Audio-Visual Synchronization for Real-World Videos",
            "author": "Voas, Jordan and Tseng, Wei-Cheng and Berry, Layne and Hu, Xixi and Peng, Puyuan and "
            "Stuedemann, James and Harwath, David",
            "booktitle": "IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)",
            "year": "2025",
            "url": "https://www.cs.utexas.edu/~ml/papers/voas.wacv25.pdf",
        },
    ),
    "iashin2022sparse": (
        "inproceedings",
        {
            "title": "Sparse in Space and Time: Audio-visual Synchronisation with Trainable Selectors",
            "author": "Iashin, Vladimir and Xie, Weidi and Rahtu, Esa and Zisserman, Andrew",
            "booktitle": "British Machine Vision Conference (BMVC)",
            "year": "2022",
        },
    ),
    "iashin2024synchformer": (
        "inproceedings",
        {
            "title": "Synchformer: Efficient Synchronization from Sparse Cues",
            "author": "Iashin, Vladimir and Xie, Weidi and Rahtu, Esa and Zisserman, Andrew",
            "booktitle": "IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)",
            "year": "2024",
        },
    ),
    "chung2016syncnet": (
        "inproceedings",
        {
            "title": "Out of Time: Automated Lip Sync in the Wild",
            "author": "Chung, Joon Son and Zisserman, Andrew",
            "booktitle": "Workshop on Multi-view Lip-reading, ACCV",
            "year": "2016",
        },
    ),
    "afouras2018lrs3": (
        "misc",
        {
            "title": "LRS3-TED: a large-scale dataset for visual speech recognition",
            "author": "Afouras, Triantafyllos and Chung, Joon Son and Zisserman, Andrew",
            "howpublished": "arXiv:1809.00496",
            "year": "2018",
        },
    ),
    "chen2020vggsound": (
        "inproceedings",
        {
            "title": "VGGSound: A Large-scale Audio-Visual Dataset",
            "author": "Chen, Honglie and Xie, Weidi and Vedaldi, Andrea and Zisserman, Andrew",
            "booktitle": "IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)",
            "year": "2020",
        },
    ),
    "gemmeke2017audioset": (
        "inproceedings",
        {
            "title": "Audio Set: An ontology and human-labeled dataset for audio events",
            "author": "Gemmeke, Jort F. and Ellis, Daniel P. W. and Freedman, Dylan and Jansen, Aren and "
            "Lawrence, Wade and Moore, R. Channing and Plakal, Manoj and Ritter, Marvin",
            "booktitle": "IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)",
            "year": "2017",
        },
    ),
}
# a StreamSync model is SparseSync's network with a memory
_OF_FAMILY = {
    "sparsesync": ("iashin2022sparse",),
    "streamsync": (PAPER, "iashin2022sparse"),
    "synchformer": ("iashin2024synchformer",),
    "syncnet": ("chung2016syncnet",),
}
_OF_DATA = {
    "realsync": PAPER,
    "lrs3": "afouras2018lrs3",
    "vggsound": "chen2020vggsound",
    "audioset": "gemmeke2017audioset",
}
_OWN = ("xcorr", "constant", "prior", "uniform", "oracle")  # avbench's own


def cited(runs: Iterable[Path]) -> tuple[dict[str, list[str]], list[str]]:
    """(keys with what each is cited for, what has no entry here) for avbench, the paper, and what ``runs`` used.

    A folder in which runs lie, as ``avbench view`` shows it, stands for all of them. ``AvbenchError`` for a folder that
    holds none, or one that cannot be read.
    """
    found: dict[str, list[str]] = {AVBENCH: ["the harness"], PAPER: ["the task, the protocol, RealSync and StreamSync"]}
    unknown: list[str] = []
    for path in runs:
        many = path.is_dir() and not (path / RUN_FILE).exists()
        for run in (many and run_files(path)) or [path]:
            _add(read_run(run), found, unknown)
    return found, list(dict.fromkeys(unknown))


def _add(result: RunResult, found: dict[str, list[str]], unknown: list[str]) -> None:
    model, name = result.model, result.data.name
    family = next((family for family in _OF_FAMILY if model.backbone.startswith(family)), None)
    keys = [(key, f"the model {model.name}") for key in _OF_FAMILY.get(family or "", ())]
    keys += [(_OF_DATA[word], f"what {model.name} was trained on") for word in _named(model.trained_on)]
    keys += [(_OF_DATA[word], f"the data {name}") for word in _named(name)]
    for key, reason in keys:
        found.setdefault(key, [])
        if reason not in found[key]:
            found[key].append(reason)
    if family is None and not model.backbone.startswith(_OWN):
        unknown.append(f"the model {model.name}")
    if not _named(name) and not name.startswith("synthsync"):
        unknown.append(f"the data {name}")


def _named(text: str) -> list[str]:
    """The data sets that a text names."""
    return [word for word in _OF_DATA if word in text.lower()]


def bibtex(key: str, reasons: Iterable[str]) -> str:
    """One entry, with a comment that says what it is cited for."""
    kind, fields = _ENTRIES[key]
    width = max(map(len, fields))
    values = (f"  {name.ljust(width)} = {{{value}}}," for name, value in fields.items())
    return "\n".join([comment("; ".join(reasons)), f"@{kind}{{{key},", *values, "}"])


def comment(text: str) -> str:
    """A line that BibTeX skips: it knows no comments, and reads an entry wherever it sees an @."""
    return f"% {printable(text).replace('@', ' at ')}"
