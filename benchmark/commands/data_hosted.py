"""``avbench data import-realsync``, ``pull``, ``push``, ``cache`` and ``croissant``: published lists, and data
sets on the hub."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avbench.commands.common import (
    SIGN,
    Progress,
    add_command,
    add_force,
    as_data,
    count,
    say,
    say_each,
    say_next,
    show,
    split_words,
)


def add_verbs(verbs: Any) -> None:
    """Add the five commands to ``avbench data``."""
    _add_import_realsync(verbs)
    _add_pull(verbs)
    _add_push(verbs)
    _add_cache(verbs)
    _add_croissant(verbs)


def _add_import_realsync(verbs: Any) -> None:
    lists = add_command(
        verbs,
        "import-realsync",
        _import_realsync,
        "make manifests of the published lists",
        "The lists of fixed offsets of RealSync, LRS3, VGGSound, VGGSound-Sparse and AudioSet; each becomes a "
        f"manifest. {SIGN}",
        "avbench data import-realsync --lists lists --media none --out realsync",
        "avbench data import-realsync --lists lists --media cropped_videos --out realsync --force",
        "avbench run --model streamsync-trf --data realsync/normal.evaluation",
    )
    lists.add_argument("--lists", type=Path, required=True, metavar="DIR", help="folder of the .csv and .json files")
    lists.add_argument(
        "--media",
        required=True,
        metavar="DIR|none",
        help="the folder of the clips (VIDEO_T0_T1.mp4, VIDEO_000030.mp4, ..., in any folders), or none",
    )
    lists.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets one manifest folder per list")
    lists.add_argument("--workers", type=int, metavar="N", help="processes that hash media (default: one per core)")
    lists.add_argument("--json", action="store_true", help="print the report as one JSON object")
    add_force(lists)


def _add_pull(verbs: Any) -> None:
    pull = add_command(
        verbs,
        "pull",
        _pull,
        "fetch a hosted data set, pinned and verified",
        "A commit is a pin: its 40 digits always name the same bytes. Run again to resume after an interruption.",
        "avbench data pull ORG/NAME --revision COMMIT",
        "avbench data pull ORG/NAME --revision COMMIT --out my_data",
        "HF_HUB_OFFLINE=1 avbench data pull ORG/NAME --revision COMMIT",
        "avbench run --model streamsync-trf --data hub:ORG/NAME@COMMIT",
    )
    pull.add_argument("repo", metavar="ORG/NAME")
    pull.add_argument("--revision", default="main", metavar="COMMIT", help="all 40 digits")
    pull.add_argument("--out", type=Path, metavar="DIR", help="(default: in $AVBENCH_CACHE or ~/.cache)")
    pull.add_argument("--media-root", type=Path, metavar="DIR", help="verify the media in this folder, fetch none")
    pull.add_argument(
        "--allow-moving", action="store_true", help="accept a branch or tag as it is now; not for a board"
    )
    add_force(pull)
    _add_endpoint(pull)


def _add_push(verbs: Any) -> None:
    push = add_command(
        verbs,
        "push",
        _push,
        "publish a manifest folder on the hub",
        "Uploads what the hub lacks and prints the commit. Log in with `hf auth login` or set HF_TOKEN.",
        "avbench data push my_data --repo ORG/NAME --private",
        "avbench data push realsync/normal.evaluation --repo ORG/NAME --no-media",
    )
    push.add_argument("directory", type=Path, metavar="DIR")
    push.add_argument("--repo", required=True, metavar="ORG/NAME")
    push.add_argument("--private", action="store_true", help="create the repository as private")
    push.add_argument("--no-media", action="store_true", help="publish the labels only")
    _add_endpoint(push)


def _add_cache(verbs: Any) -> None:
    cache = add_command(
        verbs,
        "cache",
        _cache,
        "what is kept of hosted data whose media are fetched on demand",
        "One line a data set (`avbench run --fetch on-demand`). Pruning removes media that no run uses just now; what "
        "a run needs is fetched again.",
        "avbench data cache",
        "avbench data cache --prune hub:ORG/NAME@COMMIT",
        "avbench data cache --prune all",
    )
    cache.add_argument("--prune", metavar="DATA", help="remove the media of this data set, or of all")
    cache.add_argument("--json", action="store_true", help="print a JSON list, and nothing else")


def _add_croissant(verbs: Any) -> None:
    croissant = add_command(
        verbs,
        "croissant",
        _croissant,
        "write a data set's Croissant 1.1 metadata (JSON-LD)",
        "For search engines of data sets and loaders of MLCommons. Of hosted data only the tables are fetched. What a "
        "manifest does not know of itself is said by options.",
        "avbench data croissant my_manifest --license cc-by-4.0 --creator 'My group' --out my_manifest/croissant.json",
        "avbench data croissant hub:ORG/NAME@COMMIT --out croissant.json",
    )
    croissant.add_argument("data", metavar="DATA", help="a manifest folder or hub:ORG/NAME@COMMIT")
    croissant.add_argument("--out", type=Path, required=True, metavar="FILE")
    add_force(croissant)
    croissant.add_argument("--url", default="", help="the page of the data (default: that on the hub)")
    croissant.add_argument("--license", default="", metavar="NAME", help="such as cc-by-4.0, or an address")
    croissant.add_argument("--creator", default="", metavar="NAME", help="who made the data")
    croissant.add_argument("--published", default="", metavar="DATE", help="such as 2026-11-30")
    croissant.add_argument("--cite", default="", metavar="TEXT", help="how to cite the data, such as a BibTeX entry")


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint", metavar="URL", help="another hub (default: $HF_ENDPOINT or huggingface.co)")


def _pull(args: argparse.Namespace) -> int:
    from avbench.data.hub import HubRepo, default_folder, pull

    with Progress() as progress:
        pulled = pull(
            HubRepo(args.repo, args.endpoint),
            args.revision,
            args.out,
            allow_moving=args.allow_moving,
            media_root=args.media_root,
            force=args.force,
            progress=progress.of("fetching and verifying"),
        )
    if pulled.n_unseen:
        say(f"{pulled.n_unseen} clips have labels only; their media are not hosted")
    show(f"{pulled.folder}: {count(pulled.manifest)} of {args.repo} at {pulled.revision}, every hash verified")
    in_cache = pulled.folder == default_folder(args.repo, pulled.revision)
    data = f"hub:{args.repo}@{pulled.revision}" if in_cache else as_data(pulled.folder)
    say_next(
        [("data", "info", data), ("run", "--model", "streamsync-trf", "--data", data, *split_words(pulled.manifest))]
    )
    return 0


def _push(args: argparse.Namespace) -> int:
    from avbench.data.hub import HubRepo, push

    with Progress() as progress:
        commit = push(
            args.directory,
            HubRepo(args.repo, args.endpoint),
            private=args.private,
            with_media=not args.no_media,
            progress=progress.of("uploading"),
        )
    print(f"{args.repo} at {commit}")
    hub = ("--endpoint", args.endpoint) if args.endpoint else ()
    say_next([("data", "pull", args.repo, "--revision", commit, *hub)])
    return 0


def _cache(args: argparse.Namespace) -> int:
    from avbench.data.on_demand import kept, root
    from avbench.pages.tables import table
    from avbench.types import UsageError

    if args.prune is not None:
        chosen = [one for one in kept() if args.prune in ("all", one.address)]
        if not chosen and args.prune != "all":
            raise UsageError(f"nothing is kept of {args.prune}; `avbench data cache` lists what is")
        for one in chosen:
            say(f"{one.address}: {one.cache.prune() / 1e6:.1f} MB removed")
    found = kept()
    if args.json:
        rows = [{name: value for name, value in one._asdict().items() if name != "cache"} for one in found]
        print(json.dumps(rows, indent=1))
        return 0
    caps = ["the disk" if one.keep_bytes is None else f"{one.keep_bytes / 1e6:.1f}" for one in found]
    lines = [
        (one.address, f"{one.n_clips} of {one.n_of}", f"{one.n_bytes / 1e6:.1f}", cap)
        for one, cap in zip(found, caps, strict=True)
    ]
    show(table(lines, ("data set", "clips", "MB", "at most MB")))
    say(f"{root()}: {len(found)} data set{'s' * (len(found) != 1)}")
    return 0


def _croissant(args: argparse.Namespace) -> int:
    from avbench.data.croissant import About, croissant
    from avbench.pages import safe_url
    from avbench.system.outputs import check_file
    from avbench.system.strict import write_whole
    from avbench.types import UsageError

    if args.url and safe_url(args.url) is None:
        raise UsageError(f"--url is {args.url[:80]!r}; it must be an http(s) address")
    check_file(args.out, "--out", args.force)
    about = About(args.url, args.license, args.creator, args.published, args.cite)
    facts = croissant(args.data, about)
    write_whole(args.out, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    print(args.out)
    return 0


def _import_realsync(args: argparse.Namespace) -> int:
    from avbench.data.realsync.importing import import_lists
    from avbench.system.machine import cores
    from avbench.types import UsageError

    if args.workers is not None and args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")
    media = None if args.media == "none" else Path(args.media)
    with Progress() as progress:
        report = import_lists(
            args.lists, media, args.out, args.workers or cores(), progress.of("hashing media"), force=args.force
        )
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        show("\n".join(_report_lines(report)))
        say_next(_next(report["lists"], args.out))
    say_each("warning", report["warnings"])
    refused = {c: why for one in report["lists"].values() for c, why in one["media"]["refused"].items()}
    say_each("refused", [f"clip {c}: {why}" for c, why in refused.items()])
    missing = sorted({c for one in report["lists"].values() for c in one["media"]["missing"]})
    if missing:
        say_each(f"missing media ({len(missing)} clips)", missing)
    if media is None:
        say("no media folder was given: the labels are complete, but nothing can be decoded")
    return 1 if refused else 0


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report of an import for people: a table of all lists, then a few lines on each."""
    lines = _report_table(report["lists"])
    for name, one in report["lists"].items():
        lines += ["", f"{name}: {one['role']}", *_list_lines(one)]
    lines += [f"ignored: {text}" for text in report["other_files"]]
    return [*lines, ""]


def _next(lists: Mapping[str, Any], out: Path) -> list[tuple[object, ...]]:
    """What to do with the first list that can be run, or else that can be described."""
    runnable = [name for name, one in lists.items() if one["classes"] == 21]
    name = next(iter([*runnable, *lists]))
    describe = ("data", "info", out / name)
    if not runnable:
        return [describe]
    splits, support = lists[name]["splits"], lists[name]["support"]["streaming"][2]
    split = () if "test" in splits else ("--split", next(iter(splits)))
    short = () if support[18] else ("--iterations", 1)
    return [describe, ("run", "--model", "xcorr", "--data", out / name, *split, *short)]


def _report_table(lists: Mapping[str, Any]) -> list[str]:
    from avbench.pages.tables import table

    rows = [
        {
            "list": name,
            "split": "/".join(s for s in one["splits"] if s in ("train", "valid", "test")),
            "classes": one["classes"],
            "segments": one["segments"],
            "usable": one["usable"],
            "videos": one["videos"],
            "clips": one["clips"],
            "in sync": f"{100 * one['in_sync_share']:.1f} %",
            "doubles": f"{one['duplicates']['segments']}",
            "18 x 2 s": _held(one, "streaming"),
            "published": _held(one, "published"),
            "media": f"{one['media']['clips_seen']}/{one['clips']}",
        }
        for name, one in lists.items()
    ]
    cells, align = [list(row.values()) for row in rows], ["left", "left"] + ["right"] * 10
    legend = "18 x 2 s: share of segments with room for 18 windows every 2 s; published: by the published loader's rule"
    return [*table(cells, list(rows[0]) if rows else (), align=align).splitlines(), legend]


def _list_lines(one: Mapping[str, Any]) -> list[str]:
    lines = []
    if one["broken"]:
        lines.append(f"  broken    {' · '.join(f'{kind} {n}' for kind, n in one['broken'].items())}")
    if one["channels"]:
        counts = (f"{name} {n['segments']}" for name, n in one["channels"].items())
        lines.append(f"  channels  {' · '.join(counts)}")
    starts, doubles, reach = one["starts_s"], one["duplicates"], one["max_offset_s"]
    lines.append(f"  starts    {starts['first']:g} ... {starts['last']:g} s")
    if starts["between_frames"]:
        lines.append(f"            {starts['between_frames']} of them between two frames, moved to the earlier one")
    lines.append(f"  classes   {' '.join(map(str, one['class_histogram']))} (-{reach:g} ... {reach:g} s)")
    if doubles["segments"]:
        lines.append(
            f"  doubles   {doubles['segments']} rows repeat a clip and start ({doubles['usable']} usable ones)"
        )
    if one["lengths_unknown"]:
        lines.append(
            f"  room for  unknown: the lengths of {one['lengths_unknown']} clips can only be read from the media"
        )
    else:
        one_window = f"1 window {one['support']['streaming'][2][1]}/{one['segments']}"
        settings = (_setting(one, hop, n) for hop, n in ((1, 12), (2, 18), (4, 18), (2, 48)))
        lines.append(f"  room for  {' · '.join([one_window, *settings])}")
    return lines + [f"  {key.replace('_', ' ')}: {value}" for key, value in one["facts"].items()]


def _held(one: Mapping[str, Any], rule: str) -> str:
    if one["lengths_unknown"]:
        return "unknown"
    return f"{100 * one['support'][rule][2][18] / one['segments']:.1f} %"


def _setting(one: Mapping[str, Any], hop: int, n: int) -> str:
    return f"{n} x {hop} s {one['support']['streaming'][hop][n]}/{one['segments']}"
