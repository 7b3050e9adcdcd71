"""``avbench weights``: published checkpoints and the annotators' files on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import Progress, add_command, add_force, say_next

if TYPE_CHECKING:
    from avbench.weights.annotators import AnnotatorFile
    from avbench.weights.published import Published


def add(commands: Any) -> None:
    """Add ``avbench weights`` and its verbs to the command line."""
    weights = commands.add_parser(
        "weights", help="list, download, convert and verify published weights", description="Published weights."
    )
    verbs = weights.add_subparsers(metavar="VERB", required=True)
    for add_verb in (_add_list, _add_fetch, _add_convert, _add_verify):
        add_verb(verbs)


def _add_list(verbs: Any) -> None:
    ls = add_command(
        verbs,
        "list",
        _list,
        "the published checkpoints and the annotators' files, and which of them are in the cache",
        "With a name: its address and the answers its authors printed, or its licence.",
        "avbench weights list",
        "avbench weights list sparsesync.vggsound",
        "avbench weights list annotators",
    )
    ls.add_argument(
        "name", nargs="?", metavar="NAME", help="a checkpoint, an annotator's file, or annotators: all those"
    )
    ls.add_argument("--json", action="store_true", help="print a JSON list, and nothing else")


def _add_fetch(verbs: Any) -> None:
    fetch = add_command(
        verbs,
        "fetch",
        _fetch,
        "download a checkpoint, or an annotator's files, into the cache",
        "Resumes an interrupted download; checks the md5 (annotators: the sha256) against the published one.",
        "avbench weights fetch sparsesync.vggsound",
        "avbench weights fetch annotators",
        "avbench weights fetch sparsesync.mine --url https://example.org/epoch_best.pt",
    )
    fetch.add_argument(
        "name",
        metavar="NAME",
        help="a name in `avbench weights list`, annotators (all files of these) or, with --url, a new one",
    )
    fetch.add_argument(
        "--url",
        metavar="URL",
        help="another address; if it ends in /, it replaces the part that all published addresses share",
    )
    fetch.add_argument("--md5", default="", metavar="HEX", help="the md5, or its first digits, of a file of your own")


def _add_convert(verbs: Any) -> None:
    convert = add_command(
        verbs,
        "convert",
        _convert,
        "convert a published .pt file to safetensors",
        "Reads the pickle in it without executing it and checks keys and shapes against the full-size model.",
        "avbench weights convert sparsesync.vggsound",
        "avbench weights convert 22-09-21T21-00-52.pt",
        "avbench weights convert my_run/epoch_best.pt --name sparsesync.mine   # then: --model sparsesync.mine",
    )
    convert.add_argument("source", metavar="FILE|NAME", help="a .pt file, or the name of a downloaded checkpoint")
    convert.add_argument(
        "--name", metavar="NAME", help="name in the cache (family.tag); for a published name, the md5 is checked"
    )
    convert.add_argument("--out", type=Path, metavar="FILE", help="write here (.safetensors), not into the cache")
    convert.add_argument(
        "--audio-lead-trim-samples",
        type=int,
        metavar="N",
        help="how many samples too early the sound was in training: 1024 for published ones, 0 for others (default)",
    )
    add_force(convert)


def _add_verify(verbs: Any) -> None:
    verify = add_command(
        verbs,
        "verify",
        _verify,
        "check a weight file",
        "Checks hashes, keys, shapes and finite values and, with the authors' clip, the answer they printed; of an "
        "annotator's file the length and the sha256.",
        "avbench weights verify sparsesync.vggsound",
        "avbench weights verify annotators",
        "avbench weights verify sparsesync.vggsound --media 3qesirWAGt4_20000_30000.mp4",
    )
    verify.add_argument("source", metavar="FILE|NAME", help="a weight file, or a name in the cache")
    verify.add_argument(
        "--media", type=Path, metavar="CLIP", help="a clip with a published answer, which is computed again"
    )


def _list(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from avbench.pages.tables import table
    from avbench.weights.annotators import ALL, FILES
    from avbench.weights.cache import downloaded
    from avbench.weights.published import find_published, published

    files = [file for file in FILES if args.name in (None, ALL, file.name)]
    entries = [] if args.name and files else [find_published(args.name)] if args.name else published()
    if args.json:
        found = [
            {"kind": "checkpoint", **asdict(e), "here": _here(e.name), "file": str(downloaded(e.name))} for e in entries
        ]
        found += [{"kind": "annotator", **f.facts(), "here": f.here, "file": str(f.path)} for f in files]
        print(json.dumps(found, indent=1))
        return 0
    if args.name and len(files) + len(entries) == 1:
        for entry in entries:
            _print_checkpoint(entry)
        for file in files:
            _print_annotator(file)
        return 0
    if entries:
        rows = [
            (e.name, e.id, e.n_classes or "", e.trained_on, e.reported, e.md5_prefix, len(e.smoke) or "", _here(e.name))
            for e in entries
        ]
        headers = ("name", "id", "classes", "trained on", "reported by its authors", "md5", "answers", "here")
        print(table(rows, headers), end="\n\n")
    rows_of_files = [(f.name, f.purpose, f.pinned.n_bytes, f.pinned.sha256[:7], f.licence, f.here) for f in files]
    print(table(rows_of_files, ("for annotating", "purpose", "bytes", "sha256", "licence", "here")))
    print()
    name = entries[0].name if entries else files[0].name
    say_next([("weights", verb, name) for verb in ("list", "fetch", *(("convert",) if entries else ()))])
    return 0


def _here(name: str) -> str:
    from avbench.weights.cache import converted, downloaded

    states = ("converted", converted(name)), ("downloaded", downloaded(name))
    return next((word for word, path in states if path.is_file()), "")


def _print_checkpoint(entry: Published) -> None:
    from avbench.weights.cache import downloaded

    _print_facts(
        {
            "name": f"{entry.name} ({entry.id})",
            "trained on": entry.trained_on,
            "classes": entry.n_classes or "none (encoder-only)",
            "reported": entry.reported or "nothing",
            "address": entry.url,
            "md5": f"{entry.md5_prefix}..." if entry.md5_prefix else "not published",
            "lead trim": f"{entry.audio_lead_trim_samples} samples",
            "note": entry.note,
            "file": f"{downloaded(entry.name)} ({_here(entry.name) or 'not in the cache'})",
        }
    )
    for said in entry.smoke:
        print(
            f"answer  {said['clip']}, offset {said['offset_s']:g} s, start {said['start_s']:g} s ({said['decoding']} "
            f"decoding): class {said['offset_class']}, probability {said['probability']}, logit {said['logit']}"
        )


def _print_annotator(file: AnnotatorFile) -> None:
    _print_facts(
        {
            "name": file.name,
            "purpose": file.purpose,
            "by": file.attribution,
            "licence": file.licence,
            "address": file.url,
            "bytes": file.pinned.n_bytes,
            "sha256": file.pinned.sha256,
            "file": f"{file.path} ({file.here or 'not in the cache'})",
        }
    )


def _print_facts(facts: Mapping[str, Any]) -> None:
    from avbench.pages.tables import table

    print(table([(key, value) for key, value in facts.items() if value]))


def _fetch(args: argparse.Namespace) -> int:
    from avbench.types import UsageError
    from avbench.weights.annotators import fetch_files, files_of
    from avbench.weights.cache import fetch
    from avbench.weights.published import published_entry

    of_annotators = files_of(args.name)
    if of_annotators and args.md5:
        raise UsageError(f"the sha256 of {args.name} is known; leave --md5 out")
    with Progress(unit="B") as progress:
        told = lambda done, total, name: progress(name, done, total)  # noqa: E731
        if of_annotators:
            paths = fetch_files(args.name, args.url, told)
        else:
            paths = [fetch(args.name, args.url, args.md5, told)]
    entry = published_entry(args.name)
    md5 = f"md5 {'verified' if (entry and entry.md5_prefix) or args.md5 else 'not checked: none is published'}"
    for path in paths:
        print(f"{path}: {path.stat().st_size} bytes, {'sha256 verified' if of_annotators else md5}")
    named = entry.name if entry else args.name
    say_next([("data", "annotate", "--help") if of_annotators else ("weights", "convert", named)])
    return 0


def _convert(args: argparse.Namespace) -> int:
    from avbench.system.outputs import check_file
    from avbench.types import UsageError
    from avbench.weights.annotators import files_of
    from avbench.weights.cache import check_name, converted
    from avbench.weights.checkpoints import convert, layout_of
    from avbench.weights.published import md5_of, published_entry, with_md5

    if files_of(args.source):
        raise UsageError(f"{args.source} is an annotator's file: it is used as it is, nothing is to be converted")
    source, named = _weight_file(args.source, prefer_converted=False)
    name = args.name or named
    if args.out is not None and args.out.suffix != ".safetensors":
        raise UsageError(f"{args.out} must end in .safetensors")
    if args.out is not None:
        check_file(args.out, "--out", args.force)
    entry = published_entry(check_name(name)) if name else None
    if not name and args.out is None:
        found = with_md5(md5_of(source)) if source.is_file() else None
        if source.is_file() and found is None:
            raise UsageError(
                f"{source.name} is none of the published checkpoints (by its md5): give --name FAMILY.TAG (for example "
                "sparsesync.mine) to convert it into the cache, or --out FILE.safetensors"
            )
        name = found.name if found else ""
    target = args.out or (converted(name) if name else source.with_suffix(".safetensors"))
    card = convert(source, target, entry, args.audio_lead_trim_samples, family=name.partition(".")[0] if name else None)
    changes = "; ".join(card["changes"]) or "nothing changed"
    classes = f"{card['n_classes']} classes" if card["n_classes"] else "encoder-only"
    print(f"{target}: {card['family']}, {classes}, {card['n_tensors']} entries; {_printable(changes)}")
    print(
        f"trained on {card['trained_on']} · published as {card['published_as'] or 'nothing'} · sound lead trim "
        f"{card['audio_lead_trim_samples']} samples"
    )
    layout = layout_of(card["family"])
    if layout.encoders or layout.no_offset or card["n_classes"] != 21:
        print("it is not a model of 21 offset classes, so it cannot be run")
        say_next([("weights", "verify", target)])
    elif args.out:
        say_next([("run", "--model", card["family"], "--weights", target, "--data", "synthsync", "--iterations", 1)])
    else:
        run = ("run", "--model", name, "--data", "synthsync", "--iterations", 1)
        say_next([("weights", "verify", name), run])
    return 0


def _verify(args: argparse.Namespace) -> int:
    from avbench.system.findings import print_findings
    from avbench.types import UsageError
    from avbench.weights import annotators

    findings = annotators.examine(args.source)
    if findings is None:
        from avbench.weights.verifying import examine

        findings = examine(_weight_file(args.source, prefer_converted=True)[0], args.media)
    elif args.media:
        raise UsageError(f"no answers are published for {args.source}; leave --media out")
    return 0 if print_findings(findings)[0] else 1


def _printable(text: str) -> str:
    """Text from a file, made safe to print: it could contain control characters for the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _weight_file(source: str, prefer_converted: bool) -> tuple[Path, str]:
    """The file that a path or a cached name stands for, and the name ("" for a path)."""
    from avbench.types import AvbenchError
    from avbench.weights.cache import converted, downloaded
    from avbench.weights.published import published_entry

    entry = published_entry(source)
    looks_like_a_path = "/" in source or source.endswith((".pt", ".pth", ".safetensors")) or Path(source).exists()
    if looks_like_a_path and not (entry and not Path(source).exists()):
        if not Path(source).is_file():
            raise AvbenchError(f"weight file {source} {'is a folder' if Path(source).is_dir() else 'does not exist'}")
        return Path(source), ""
    name = entry.name if entry else source
    places = [converted(name), downloaded(name)] if prefer_converted else [downloaded(name)]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        what = f"`avbench weights fetch {name}`" if entry else "`avbench weights fetch NAME --url URL`"
        raise AvbenchError(f"{name} is not in the cache ({places[-1]}): run {what}, or put the file there by hand")
    return found, name
