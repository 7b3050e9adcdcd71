"""``avbench data``: make, list and check data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands import annotate, build, data_hosted, data_pairs
from avbench.commands.common import (
    SIGN,
    Progress,
    add_command,
    add_force,
    add_tracks,
    as_data,
    check_files,
    chosen_tracks,
    count,
    hop_s,
    manifest_of,
    say,
    say_each,
    say_files,
    say_next,
    show,
    split_words,
    unmade_of,
    with_clips,
    workers_of,
)

if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest
    from avbench.ticks import Tick
    from avbench.types import MediaError, Reading


def add(commands: Any) -> None:
    """Add ``avbench data`` and its verbs."""
    data = commands.add_parser("data", help="make, list and check data", description="Make, list and check data.")
    verbs = data.add_subparsers(metavar="VERB", required=True)
    _add_synth(verbs)
    _add_from_files(verbs)
    _add_dynamic(verbs)
    _add_ls(verbs)
    data_hosted.add_verbs(verbs)
    _add_info(verbs)
    _add_verify(verbs)
    data_pairs.add_verb(verbs)
    build.add(verbs)
    annotate.add(verbs)


def _add_synth(verbs: Any) -> None:
    synth = add_command(
        verbs,
        "synth",
        _data_synth,
        "make the procedural clips",
        "They are made once and kept in the cache.",
        "avbench data synth",
        "avbench data synth synthsync-full",
    )
    synth.add_argument("name", nargs="?", default="synthsync", metavar="NAME", help="(default: synthsync)")
    synth.add_argument("--split", default="test", help="train, valid or test (default: test)")
    synth.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")


def _add_from_files(verbs: Any) -> None:
    files = add_command(
        verbs,
        "from-files",
        _data_from_files,
        "make a manifest over your own videos",
        "The videos are not changed: offsets are applied when they are read. Folders are searched for everything that "
        f"FFmpeg reads; what is passed over is named. {SIGN}\nGive the original files: one that was made 25 fps "
        "before (`ffmpeg -r 25`) shows its pictures 50 to 70 ms early or late.",
        "avbench data from-files my_videos --out my_manifest",
        "avbench data from-files a.mp4 b.mkv --out m --offsets fixed:0.4 --iterations 3",
    )
    files.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE")
    files.add_argument("--out", type=Path, required=True, metavar="DIR", help="the manifest folder")
    files.add_argument("--offsets", default="uniform", help="uniform, truncnorm[:SD] or fixed:S (default: uniform)")
    files.add_argument("--starts", default="grid:10", help="first, or grid:S: one every S seconds (default: grid:10)")
    files.add_argument("--hop", type=float, default=2.0, metavar="S", help="for --iterations (default: 2)")
    files.add_argument("--iterations", type=int, default=1, metavar="N", help="windows per segment (default: 1)")
    files.add_argument("--seed", type=int, default=0, metavar="N", help="of the offsets (default: 0)")
    files.add_argument("--copy", action="store_true", help="copy the videos into the manifest folder")
    files.add_argument("--name", default="", help="of the data (default: the folder's)")
    add_tracks(files, "the default one, if it can be used")
    files.add_argument(
        "--sound-gap", type=float, default=0.01, metavar="S", help="a longer hole in the sound is a gap (default: 0.01)"
    )
    files.add_argument(
        "--picture-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="a longer hole in the picture is a gap (default: 1); no segment touches a gap",
    )
    files.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")
    add_force(files)


def _add_dynamic(verbs: Any) -> None:
    dynamic = add_command(
        verbs,
        "dynamic",
        _data_dynamic,
        "impose offsets that change on the clips of any data",
        "The clips are not changed or copied: each stream gets a law of how its offset runs, which is applied when "
        f"it is read. {SIGN}",
        "avbench data dynamic synthsync --out changing",
        "avbench data dynamic my_manifest --out changing --laws jump hold --seed 7 --iterations 24",
    )
    dynamic.add_argument("data", metavar="DATA", help="a name of `avbench data ls`, a folder or hub:ORG/NAME@COMMIT")
    dynamic.add_argument("--out", type=Path, required=True, metavar="DIR", help="the manifest folder")
    dynamic.add_argument(
        "--laws",
        nargs="+",
        metavar="LAW",
        help="hold, jump, excursion, multi, ramp, drops, drift; each gets its share (default: all)",
    )
    dynamic.add_argument("--seed", type=int, default=0, metavar="N", help="of the laws (default: 0)")
    dynamic.add_argument("--limit", type=int, metavar="N", help="only the first N streams")
    dynamic.add_argument("--starts", default="grid:10", help="first, or grid:S: one every S seconds (default: grid:10)")
    dynamic.add_argument("--hop", type=float, default=2.0, metavar="S", help="seconds between windows (default: 2)")
    dynamic.add_argument("--iterations", type=int, default=48, metavar="N", help="windows per stream (default: 48)")
    dynamic.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")
    dynamic.add_argument("--name", default="", help="of the data (default: that of DATA with -dynamic)")
    add_force(dynamic)


def _add_ls(verbs: Any) -> None:
    ls = add_command(
        verbs, "ls", _data_ls, "list data", "Without a folder: the built-in data.", "avbench data ls my_data"
    )
    ls.add_argument("folders", nargs="*", metavar="DIR", help="list the manifests under these folders")


def _add_info(verbs: Any) -> None:
    info = add_command(
        verbs,
        "info",
        _data_info,
        "describe the content of a data set",
        "Tables shaped like the paper's Tables 1 and 2, classes, support.",
        "avbench data info DIR",
        "avbench data info DIR --plot offsets.svg",
    )
    _add_data(info)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the histogram of Figure 1 as FILE.svg, .png or .pdf"
    )
    add_force(info)


def _add_verify(verbs: Any) -> None:
    verify = add_command(
        verbs,
        "verify",
        _data_verify,
        "check hashes, durations and labels",
        "Decodes every frame and sample.",
        "avbench data verify my_manifest",
    )
    _add_data(verify)
    verify.add_argument("--no-decode", action="store_true", help="compare hashes only")
    verify.add_argument("--workers", type=int, metavar="N", help="decoding processes (default: one per core)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", default="synthsync", metavar="DATA", help="a name or a manifest folder")
    parser.add_argument("--split", help="only this split (default: all of a folder, test of synthsync)")


def _data_synth(args: argparse.Namespace) -> int:
    from avbench.data import synthsync

    workers = workers_of(args)
    with Progress() as progress:
        manifest = synthsync.ensure(args.name, args.split, progress=progress.of("making clips"), workers=workers)
    print(f"{args.name} {args.split}: {count(manifest)} in {manifest.media_root}")
    say_next([("run", "--model", "streamsync-trf", "--data", args.name, "--split", args.split)])
    return 0


def _data_from_files(args: argparse.Namespace) -> int:
    from avbench.data.folders import find_media
    from avbench.data.from_files import SegmentRules, manifest_from_files
    from avbench.system.outputs import check_folder
    from avbench.ticks import ticks

    rules = SegmentRules(
        offset_law=args.offsets,
        start_law=args.starts,
        hop=ticks(hop_s(args)),
        iterations=args.iterations,
        seed=args.seed,
    )
    reading = _reading(args)
    workers = workers_of(args)
    check_folder(args.out, args.force)
    found = find_media(args.paths, args.out, workers)
    say_each("passed over", found.left_out())
    with Progress() as progress:
        manifest, refused = manifest_from_files(
            found,
            args.out,
            rules,
            reading=reading,
            copy=args.copy,
            name=args.name,
            workers=workers,
            progress=progress.of("reading"),
        )
    _say_refused(refused, rules.length)
    say_each("note", _notes(manifest))
    show(f"{args.out}: {count(manifest)}; {manifest.note}")
    data = as_data(args.out)
    run = ("run", "--model", "xcorr", "--data", data, *split_words(manifest), "--iterations", args.iterations)
    say_next([("data", "info", data), run if args.hop == 2 else (*run, "--hop", f"{args.hop:g}")])
    return 1 if refused else 0


def _data_dynamic(args: argparse.Namespace) -> int:
    from avbench.data.dynamic import ChangingRules, changing
    from avbench.protocol.laws import SHARES
    from avbench.protocol.manifest import write_manifest
    from avbench.protocol.rules import dynamic
    from avbench.system.outputs import check_folder

    rules = ChangingRules(
        laws=tuple(SHARES) if args.laws is None else tuple(name for text in args.laws for name in text.split(",")),
        seed=args.seed,
        start_law=args.starts,
        limit=args.limit,
        protocol=dynamic(hop_s(args), args.iterations),
    )
    check_folder(args.out, args.force)
    made = changing(unmade_of(args), rules, args.name)
    write_manifest(with_clips(made.manifest), args.out)
    say_each("note", [f"clip {name} is too short for a stream, or its gaps leave no room" for name in made.too_short])
    show(f"{args.out}: {count(made.manifest)}; {_laws_in_words(made.manifest)} (seed {args.seed})")
    short: tuple[object, ...] = split_words(made.manifest)
    short += () if args.iterations == 48 else ("--iterations", args.iterations)
    short += () if args.hop == 2 else ("--hop", f"{args.hop:g}")
    data = as_data(args.out)
    say_next([("data", "info", data), ("run", "--model", "sparsesync+bayes", "--data", data, *short)])
    return 0


def _laws_in_words(manifest: Manifest) -> str:
    from avbench.data.inspect import law_counts

    return ", ".join(f"{name} {n}" for name, n in law_counts(manifest).items())


def _notes(manifest: Manifest) -> list[str]:
    """What was noted of the clips, each text once, with the clips that it is true of."""
    clips_of: dict[str, list[str]] = {}
    called = manifest.names
    for clip_id, source in manifest.sources.items():
        for text in source["warnings"]:
            clips_of.setdefault(text, []).append(called.get(clip_id, clip_id))
    return [
        f"clip {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}"
        for text, names in clips_of.items()
    ]


def _reading(args: argparse.Namespace) -> Reading:
    from dataclasses import replace

    from avbench.data.media import MEASURED
    from avbench.ticks import ticks
    from avbench.types import UsageError

    reading = chosen_tracks(args, MEASURED)
    for option, gap_s in (("--sound-gap", args.sound_gap), ("--picture-gap", args.picture_gap)):
        if not 0 < gap_s <= 3600:
            raise UsageError(f"{option} is {gap_s:g} s; it must be above 0, at most an hour")
    return replace(reading, sound_gap=ticks(args.sound_gap), picture_gap=ticks(args.picture_gap))


def _say_refused(refused: list[MediaError], length: Tick) -> None:
    """Files that only have no room for a segment of ``length`` are counted apart."""
    from avbench.data.from_files import TooShort
    from avbench.ticks import seconds

    short = [error for error in refused if isinstance(error, TooShort)]
    say_each("refused", [f"{error.clip_id}: {error.reason}" for error in refused if error not in short])
    if short:
        files = "1 file holds" if len(short) == 1 else f"{len(short)} files hold"
        say(f"too short: {files} no {seconds(length):g} s of picture and sound for a segment; nothing else is wrong")
        say_each("too short", [f"{error.clip_id}: {error.reason.removeprefix('too short: ')}" for error in short])


def _data_ls(args: argparse.Namespace) -> int:
    from avbench.data import dynamic, synthsync
    from avbench.pages.tables import table
    from avbench.protocol.manifest import read_manifest
    from avbench.types import UsageError

    if not args.folders:
        rows = [(name, ", ".join(synthsync.SPLIT_SEEDS), synthsync.note_of(name)) for name in synthsync.NAMES]
        rows.append((dynamic.NAME, ", ".join(synthsync.SPLIT_SEEDS), f"{synthsync.NOTE}, offsets that change"))
        print(table(rows, ("data", "splits", "what it is; made when first used")))
        return 0
    found = sorted({path.parent for folder in args.folders for path in Path(folder).rglob("manifest.json")})
    if not found:
        raise UsageError(f"no manifest under {', '.join(args.folders)}; `avbench data from-files` makes one")
    manifests = [(str(folder), read_manifest(folder)) for folder in found]
    rows = [(folder, ", ".join(m.splits), f"{m.kind}: {count(m)}") for folder, m in manifests]
    show(table(rows, ("data", "splits", "content")))
    return 0


def _data_info(args: argparse.Namespace) -> int:
    from avbench.data.inspect import info
    from avbench.pages.offsets_plot import plot_offsets

    check_files(args)
    manifest = manifest_of(args)
    facts = info(manifest)
    if args.plot:
        plot_offsets(manifest, args.plot)
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        from avbench.pages.info_text import render_info

        show(render_info(facts))
    say_files(args)
    return 0


def _data_verify(args: argparse.Namespace) -> int:
    from avbench.data.inspect import verify

    manifest = manifest_of(args)
    with Progress() as progress:
        problems = verify(manifest, not args.no_decode, progress.of("checking"), workers_of(args))
    for problem in problems:
        show(problem)
    checked = "hashes" if args.no_decode else "hashes, and every frame and sample decoded"
    show(
        f"{args.data}: {len(problems)} problem{'s' * (len(problems) != 1)}"
        if problems
        else f"{args.data}: ok ({count(manifest)}; {checked})"
    )
    return 1 if problems else 0
