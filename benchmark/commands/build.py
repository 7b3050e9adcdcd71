"""``avbench data build`` and ``avbench data annotate``: a labelled split from raw videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import SIGN, Progress, add_command, add_force, count, manifest_of, say_each, show

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest

ROLES = ("faces", "speech", "lips", "events")


def add(verbs: Any) -> None:
    """Add ``build`` and ``annotate`` to ``avbench data``."""
    for parser in (_add_build(verbs), _add_annotate(verbs)):
        for role, what in zip(ROLES, ("haar", "silero", "correlation", "signal"), strict=True):
            more = ", audioset:FOLDER" if role == "events" else ""
            parser.add_argument(f"--{role}", metavar="NAME", help=f"annotator: {what}{more} or file.py:Class")


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
        "Talking head, voice-over or other, and audio events, by the built-in offline annotators or your own. --score "
        "compares the categories with the data's own; --out writes them.",
        "avbench data annotate --data synthsync --split valid --score",
        "avbench data annotate --data my_manifest --out my_annotated",
        "avbench data annotate --data my_manifest --lips syncnet.py:Scorer --events audioset:ast --out m",
    )
    annotate.add_argument("--data", default="synthsync", metavar="DATA", help="a name or a manifest folder")
    annotate.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")
    annotate.add_argument("--score", action="store_true", help="print precision and recall per category")
    annotate.add_argument("--out", type=Path, metavar="DIR", help="write the annotated manifest to this folder")
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
    from dataclasses import replace

    from avbench.data.annotate import agreement
    from avbench.data.building.stages import annotate
    from avbench.protocol.manifest import write_manifest
    from avbench.system.outputs import check_folder
    from avbench.types import UsageError

    if not args.score and args.out is None:
        raise UsageError("nothing to do with the annotations: give --score, --out DIR, or both")
    if args.out is not None:
        check_folder(args.out, args.force)
    manifest = manifest_of(args)
    if args.score and not any(s.category for s in manifest.segments):
        raise UsageError(f"{args.data} has no categories to compare with; remove --score")
    with Progress() as progress:
        labels, failed = annotate(manifest, _annotators(args), _workers(args), progress.of("annotating"))
    say_each("set aside", failed)
    if args.score:
        _print_agreement(agreement(manifest.segments, {name: found[0] for name, found in labels.items()}))
    if args.out is not None:
        segments = tuple(
            replace(s, category=labels[s.id][0], events=labels[s.id][1]) if s.id in labels else s
            for s in manifest.segments
        )
        write_manifest(replace(manifest, segments=segments), args.out)
        show(f"{args.out}: {count(manifest)}, {len(labels)} annotated")
    return 1 if failed else 0


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; ``Settings`` has the defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _annotators(args: argparse.Namespace) -> dict[str, str]:
    from avbench.data.annotate import DEFAULT_ANNOTATORS

    names = DEFAULT_ANNOTATORS | _given(args, *ROLES)
    # absolute: records must not depend on how a path was written
    return {role: str(Path(name).resolve()) if ".py:" in name else name for role, name in names.items()}


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
