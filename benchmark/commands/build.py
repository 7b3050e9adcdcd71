"""``avbench data build``: a labelled split from raw videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.annotate import add_annotators, annotators_of
from avbench.commands.common import (
    SIGN,
    Progress,
    add_command,
    as_data,
    count,
    say_each,
    say_next,
    show,
    split_words,
    workers_of,
)

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest


def add(verbs: Any) -> None:
    """Add ``build`` to ``avbench data``."""
    build = _add_build(verbs)
    add_annotators(build)


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


def _build(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from avbench.data.building.jobs import engine_of
    from avbench.data.building.stages import REPORT, Execution, Settings, build, check_build

    settings = Settings()
    encoding = _given(args, "clip_s", "min_clip_s", "short_side", "crf")
    changes = _given(args, "min_duration_s", "min_height", "split", "offsets", "starts", "iterations", "seed", "name")
    settings = replace(settings, **changes, encoding=replace(settings.encoding, **encoding))
    execution = Execution(engine_of(args.engine, workers_of(args)), args.timeout_s, args.retry)
    check_build(args.videos, args.out, settings, execution)
    settings = replace(settings, annotators=None if args.no_annotations else annotators_of(args))
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
    data = as_data(args.out)
    say_next([("data", "verify", data), ("run", "--model", "streamsync-trf", "--data", data, *split_words(manifest))])
    return 1 if report.problems or report.set_aside else 0


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; ``Settings`` has the defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _print_splits(manifest: Manifest) -> None:
    from avbench.pages.tables import table
    from avbench.ticks import seconds

    rows = []
    for name in manifest.splits:
        clips = [clip for clip in manifest.clips.values() if clip.split == name]
        hours = seconds(sum(clip.duration for clip in clips)) / 3600
        n_videos, channels = len({clip.video_id for clip in clips}), len({clip.channel for clip in clips})
        segments = sum(s.split == name for s in manifest.segments)
        rows.append((name, n_videos, channels, len(clips), f"{hours:.2f}", segments))
    headers = ("split", "videos", "channels", "clips", "hours", "segments")
    show(table(rows, headers, align=["left", *["right"] * 5]))
